//! A comparison as text, as JSON, and as a page that needs nothing but a browser.

use std::fmt::Write;

use super::compare::{Comparison, Judgement};

/// The comparison as text.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    for (name, side) in [("Before", &comparison.before), ("After", &comparison.after)] {
        let _ = writeln!(text, "{name:<8}{} ({}, {})", side.file, side.target, side.started);
    }
    if !comparison.settings.is_empty() {
        text.push_str(
            "\nThey were asked for different things, so nothing is said of the server:\n",
        );
        for setting in &comparison.settings {
            let name = setting.name.replace('_', " ");
            let _ = writeln!(text, "  {name:<18}{} -> {}", setting.before, setting.after);
        }
    }
    let _ = writeln!(text, "\n{:<8}{:>14}{:>14}{:>10}", "", "before", "after", "change");
    for change in &comparison.changes {
        let (before, after) = (change.show(change.before), change.show(change.after));
        let (name, relative) = (change.name, change.show_relative());
        let verdict = change.judgement.describe();
        let _ = writeln!(text, "{name:<8}{before:>14}{after:>14}{relative:>10}  {verdict}");
    }
    text
}

/// The comparison as JSON.
#[must_use]
pub fn json(comparison: &Comparison) -> String {
    let mut text = serde_json::to_string_pretty(comparison).unwrap_or_default();
    text.push('\n');
    text
}

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;\
margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;\
text-align:right;border-bottom:1px solid #8886}td:first-child,th:first-child,td:last-child,\
th:last-child{text-align:left}.worse{color:#c22}.better{color:#283}code{overflow-wrap:anywhere}";

/// The comparison as a page.
#[must_use]
pub fn page(comparison: &Comparison) -> String {
    let title = match comparison.verdict {
        Judgement::Worse => "Worse than before",
        Judgement::Better => "Better than before",
        Judgement::Same => "No change that is more than noise",
        Judgement::Unknown => "Too few intervals to tell",
        Judgement::NotComparable => "Asked for different things",
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    for (name, side) in [("Before", &comparison.before), ("After", &comparison.after)] {
        let [file, target, started] =
            [&side.file, &side.target, &side.started].map(|it| escape(it));
        let _ = writeln!(page, "<p>{name}: <code>{file}</code>, {target}, {started}</p>");
    }
    if !comparison.settings.is_empty() {
        page.push_str("<h2>Different settings</h2>\n<table>\n<tr><th>setting<th>before<th>after\n");
        for setting in &comparison.settings {
            let name = escape(&setting.name.replace('_', " "));
            let (before, after) = (escape(&setting.before), escape(&setting.after));
            let _ = writeln!(page, "<tr><td>{name}<td>{before}<td>{after}");
        }
        page.push_str("</table>\n");
    }
    page.push_str("<h2>Changes</h2>\n<table>\n<tr><th><th>before<th>after<th>change<th>verdict\n");
    for change in &comparison.changes {
        let class = match change.judgement {
            Judgement::Worse => "worse",
            Judgement::Better => "better",
            _ => "",
        };
        let (before, after) = (change.show(change.before), change.show(change.after));
        let (name, relative) = (change.name, change.show_relative());
        let verdict = change.judgement.describe();
        let _ = writeln!(
            page,
            "<tr class=\"{class}\"><td>{name}<td>{before}<td>{after}<td>{relative}<td>{verdict}"
        );
    }
    page.push_str("</table>\n</body>\n</html>\n");
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::compare::compare;
    use super::super::outcome::tests::outcome_of;
    use super::*;

    #[test]
    fn both_files_and_what_differs_are_named() {
        let before = outcome_of(&[1_000]);
        let mut after = outcome_of(&[2_000]);
        after.asked.payload_bytes = 4096;
        let comparison = compare(("a<b>.json", &before), ("b.json", &after));
        let text = text(&comparison);
        assert!(text.starts_with("Before  a<b>.json (tcp://127.0.0.1:9, 2026"), "{text}");
        assert!(text.contains("payload bytes     64 -> 4096"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let page = page(&comparison);
        assert!(page.contains("a&lt;b&gt;.json") && page.contains("Different settings"));
        let value: serde_json::Value = serde_json::from_str(&json(&comparison)).expect("JSON");
        assert_eq!(value["verdict"], "not_comparable");
        assert_eq!(value["settings"][0]["name"], "payload_bytes");
    }
}
