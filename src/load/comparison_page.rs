//! A comparison as text, as JSON, and as a page that needs nothing but a browser.

use std::fmt::Write;

use serde::Serialize;

use super::compare::{Change, Comparison, Judgement};
use super::html::assemble;
use super::lines::Page;

/// The comparison as text, in lines of at most `width` columns where that is 80 or more.
#[must_use]
pub fn text(comparison: &Comparison, width: usize) -> String {
    let mut page = Page::new(width);
    for (name, side) in [("Before  ", &comparison.before), ("After   ", &comparison.after)] {
        page.wrap(name, 8, &format!("{} ({}, {})", side.file, side.target, side.started));
    }
    if !comparison.settings.is_empty() {
        let what = "They were asked for different things, so nothing is said of the server:";
        page.text.push('\n');
        page.wrap("", 0, what);
        for setting in &comparison.settings {
            let name = format!("  {:<18}", setting.name.replace('_', " "));
            page.wrap(&name, 20, &format!("{} -> {}", setting.before, setting.after));
        }
    }
    let text = &mut page.text;
    let _ = writeln!(text, "\n{:<8}{:>12}{:>12}{:>9}", "", "before", "after", "change");
    for change in &comparison.changes {
        let (before, after) = (change.show(change.before), change.show(change.after));
        let (name, relative) = (change.name, change.show_relative());
        let verdict = change.judgement.describe();
        let _ = writeln!(text, "{name:<8}{before:>12}{after:>12}{relative:>9}  {verdict}");
    }
    page.text
}

/// The comparison as JSON.
#[must_use]
pub fn json(comparison: &Comparison) -> String {
    let mut text = serde_json::to_string_pretty(comparison).unwrap_or_default();
    text.push('\n');
    text
}

const PAGE: &str = include_str!("comparison.html");

/// What the page shows.
#[derive(Serialize)]
struct Figures<'a> {
    title: &'static str,
    comparison: &'a Comparison,
    changes: Vec<Row>,
}

/// One figure of two runs, in words.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    before: String,
    after: String,
    relative: String,
    verdict: &'static str,
    judgement: Judgement,
}

/// The comparison as a page.
///
/// # Errors
/// A figure has no form in JSON.
pub fn page(comparison: &Comparison) -> Result<String, String> {
    let title = match comparison.verdict {
        Judgement::Worse => "Worse than before",
        Judgement::Better => "Better than before",
        Judgement::Same => "No change that is more than noise",
        Judgement::Unknown => "Too few intervals to tell",
        Judgement::NotComparable => "Asked for different things",
    };
    let row = |change: &Change| Row {
        name: change.name,
        before: change.show(change.before),
        after: change.show(change.after),
        relative: change.show_relative(),
        verdict: change.judgement.describe(),
        judgement: change.judgement,
    };
    let changes = comparison.changes.iter().map(row).collect();
    assemble(PAGE, &Figures { title, comparison, changes })
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
        let text = text(&comparison, 80);
        assert!(text.starts_with("Before  a<b>.json (tcp://127.0.0.1:9, 2026"), "{text}");
        assert!(text.contains("payload bytes     64 -> 4096"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let page = page(&comparison).expect("sound");
        assert!(page.contains("a\\u003cb>.json") && !page.contains("a<b>.json"), "{page}");
        assert!(page.contains("\"title\":\"Asked for different things\""), "{page}");
        let value: serde_json::Value = serde_json::from_str(&json(&comparison)).expect("JSON");
        assert_eq!(value["verdict"], "not_comparable");
        assert_eq!(value["settings"][0]["name"], "payload_bytes");
    }
}
