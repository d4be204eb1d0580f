//! An outcome in words and figures, for a person at a terminal.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::lines::Page;
use super::outcome::{Outcome, Times};
use super::show::{show_bytes, show_count, show_ns, show_percent};
use super::statistics::Phase;

/// A column of the table of times: how it is headed, its figure, and how many times it takes to
/// know that at all.
struct Column {
    head: String,
    figure: fn(&Times, usize) -> u64,
    /// Which of those it is that were asked for.
    place: usize,
    needed: u64,
}

/// From this many connections on, dividing the memory by them tells what each takes.
const MANY: u64 = 1000;

/// How wide the names of lines are, of the rows of the table, of its figures and of its counts.
const HEAD: usize = 12;
const LABEL: usize = 15;
const FIGURE: usize = 8;
const COUNT: usize = 13;

/// The whole summary, in lines of at most `width` columns where that is 40 or more.
#[must_use]
pub fn summarize(outcome: &Outcome, width: usize) -> String {
    let mut page = Page::new(width);
    let text = &mut page;
    write_head(text, outcome);
    write_rate(text, outcome);
    write_traffic(text, outcome);
    write_times(text, outcome);
    write_errors(text, outcome);
    write_tester(text, outcome);
    for verdict in &outcome.objectives {
        let word = if verdict.held { "held" } else { "MISSED" };
        line(text, "Objective", &format!("{}: {word}, {}", verdict.objective, verdict.found));
    }
    for remark in &outcome.remarks {
        text.text.push('\n');
        text.wrap("", 0, remark);
    }
    page.text
}

fn write_head(text: &mut Page, outcome: &Outcome) {
    let asked = &outcome.asked;
    line(text, "Target", &outcome.target);
    let connections = show_count(asked.connections);
    let what = match asked.activity.as_str() {
        "idle" => format!("{connections} idle connections"),
        "handshakes" => format!("{connections} connections at a time, opened and closed"),
        "visits" => format!(
            "{connections} connections at a time, each for one request of {}, reply {}",
            show_bytes(asked.payload_bytes),
            asked.expect
        ),
        _ => format!(
            "{connections} connections, {} request{} on the way in each, {} out, reply {}",
            asked.depth,
            if asked.depth == 1 { "" } else { "s" },
            show_bytes(asked.payload_bytes),
            asked.expect
        ),
    };
    line(text, "Load", &what);
    let kind = match asked.rate_per_second {
        Some(rate) => format!("open loop, {} requests a second", show_rate(rate)),
        None => "closed loop, each connection sends when it has its reply".to_owned(),
    };
    let kind = match &asked.schedule {
        Some(schedule) => format!("{kind} on average: {schedule}"),
        None => kind,
    };
    if asked.activity != "idle" {
        line(text, "Kind", &kind);
    }
    let runs =
        if outcome.runs > 1 { format!(", {} runs added up", outcome.runs) } else { String::new() };
    let warm_up = asked.warm_up_seconds;
    line(
        text,
        "Measured",
        &format!("{:.2} s, after {warm_up:.1} s of warm-up{runs}", outcome.seconds),
    );
}

fn write_rate(text: &mut Page, outcome: &Outcome) {
    if outcome.asked.activity == "idle" {
        let open = show_count(outcome.connections_at_end);
        return line(text, "Held", &format!("{open} connections open at the end"));
    }
    let unit = match outcome.asked.activity.as_str() {
        "handshakes" => "handshakes",
        _ => "replies",
    };
    let achieved = show_rate(outcome.rate_per_second);
    let rate = match outcome.asked.rate_per_second {
        Some(asked) => format!(
            "achieved {achieved} of {} asked, {unit} a second ({})",
            show_rate(asked),
            show_percent(outcome.rate_per_second / asked)
        ),
        None => format!("{achieved} {unit} a second"),
    };
    line(text, "Rate", &rate);
    let Outcome { due, replies, failed, unsent, in_flight, .. } = *outcome;
    let [due, replies, failed, unsent, in_flight] =
        [due, replies, failed, unsent, in_flight].map(show_count);
    line(
        text,
        "Count",
        &format!(
            "{due} due = {replies} {unit} + {failed} failed + {unsent} unsent + {in_flight} in flight"
        ),
    );
    write_connections(text, outcome);
    if let Some(tls) = outcome.times(Phase::Tls) {
        let resumed = show_count(outcome.tls_resumed);
        line(
            text,
            "TLS",
            &format!("{} handshakes, {resumed} of them resumed", show_count(tls.count)),
        );
    }
}

/// What became of connections, where that was more than that they were opened.
fn write_connections(text: &mut Page, outcome: &Outcome) {
    let links = &outcome.connections;
    let figures = [
        (links.opened, "opened"),
        (links.failed, "not opened"),
        (links.closed_idle + links.closed_used, "closed by the server"),
        (links.lost, "broken"),
    ];
    if figures[1..].iter().all(|(count, _)| *count == 0) {
        return;
    }
    let shown = figures.iter().filter(|(count, _)| *count > 0);
    let shown: Vec<String> =
        shown.map(|(count, word)| format!("{} {word}", show_count(*count))).collect();
    line(text, "Connections", &shown.join(", "));
    write_causes(text, &links.errors, &links.error_examples);
}

fn write_traffic(text: &mut Page, outcome: &Outcome) {
    let traffic = &outcome.traffic;
    let rate = |bytes: u64| show_bytes((bytes as f64 / outcome.seconds.max(1e-9)) as u64);
    if traffic.received_bytes > 0 || traffic.sent_bytes > 0 {
        let (sent, received) = (rate(traffic.sent_bytes), rate(traffic.received_bytes));
        line(text, "Bytes", &format!("{sent}/s sent, {received}/s received"));
    }
    let list = |parts: Vec<String>| parts.join(", ");
    if !traffic.statuses.is_empty() {
        let counts = traffic.statuses.iter();
        let counts = counts.map(|(status, count)| format!("{status}: {}", show_count(*count)));
        line(text, "Statuses", &list(counts.collect()));
    }
    if !traffic.connections.is_empty() {
        let counts = traffic.connections.iter();
        let counts = counts.map(|(place, count)| format!("{place}: {}", show_count(*count)));
        line(text, "Addresses", &list(counts.collect()));
    }
}

fn columns(outcome: &Outcome) -> Vec<Column> {
    let column =
        |head: &str, figure, needed| Column { head: head.to_owned(), figure, place: 0, needed };
    let first = outcome.phases.values().next();
    let mut columns = vec![column("min", |times, _| times.min_ns, 1)];
    match first.map(|times| &times.percentiles[..]) {
        Some([]) | None => columns.extend([
            column("p50", |times, _| times.p50_ns, 1),
            column("p90", |times, _| times.p90_ns, 10),
            column("p99", |times, _| times.p99_ns, 100),
            column("p99.9", |times, _| times.p999_ns, 1000),
        ]),
        Some(chosen) => columns.extend(chosen.iter().enumerate().map(|(place, it)| Column {
            head: format!("p{}", it.percentile),
            figure: |times, place| times.percentiles.get(place).map_or(0, |it| it.ns),
            place,
            // With fewer times than this, none is beyond it.
            needed: (100.0 / (100.0 - it.percentile).max(1e-6)).round() as u64,
        })),
    }
    columns.push(column("max", |times, _| times.max_ns, 1));
    columns
}

/// As many columns beside each other as the width holds, and the others below them.
fn write_times(text: &mut Page, outcome: &Outcome) {
    if outcome.phases.is_empty() {
        return;
    }
    let columns = columns(outcome);
    let width = columns.iter().map(|column| column.head.len() + 1).max().unwrap_or(0).max(FIGURE);
    let beside = ((text.width - LABEL - COUNT) / width).max(1);
    for (part, columns) in columns.chunks(beside).enumerate() {
        let _ = write!(text.text, "\n{:<LABEL$}", "Times");
        for Column { head, .. } in columns {
            let _ = write!(text.text, "{head:>width$}");
        }
        let _ = writeln!(text.text, "{:>COUNT$}", if part == 0 { "count" } else { "" });
        for phase in Phase::ALL {
            let Some(times) = outcome.times(phase) else { continue };
            let _ = write!(text.text, "{:<LABEL$}", format!("  {}", label(phase, outcome)));
            for Column { figure, place, needed, .. } in columns {
                let is_known = times.count >= *needed;
                let shown = if is_known { show_ns(figure(times, *place)) } else { "-".to_owned() };
                let _ = write!(text.text, "{shown:>width$}");
            }
            let count = if part == 0 { show_count(times.count) } else { String::new() };
            let _ = writeln!(text.text, "{count:>COUNT$}");
        }
    }
    let has_both =
        outcome.times(Phase::Response).is_some() && outcome.times(Phase::Request).is_some();
    if has_both && outcome.asked.rate_per_second.is_some() {
        let legend = "(due to reply is what users see; sent to reply is the service alone)";
        text.wrap("  ", 2, legend);
    }
}

fn label(phase: Phase, outcome: &Outcome) -> &'static str {
    match phase {
        Phase::Connect => "connect",
        Phase::Tls => "TLS",
        Phase::Gate => "gate",
        Phase::FirstByte => "first byte",
        Phase::Request => "sent to reply",
        Phase::Response if outcome.asked.rate_per_second.is_some() => "due to reply",
        Phase::Response => "whole visit",
    }
}

fn write_errors(text: &mut Page, outcome: &Outcome) {
    let (errors, _) = outcome.unanswered(outcome.timeout_ns());
    let share = show_percent(outcome.error_share());
    text.text.push('\n');
    let (errors, failed) = (show_count(errors), show_count(outcome.failed));
    line(text, "Errors", &format!("{errors} ({share} of what was due; {failed} failed)"));
    write_causes(text, &outcome.errors, &outcome.error_examples);
}

fn write_causes(
    text: &mut Page,
    counts: &BTreeMap<String, u64>,
    examples: &BTreeMap<String, String>,
) {
    for (cause, count) in counts {
        let _ = writeln!(text.text, "  {:<18}{:>10}", cause.replace('_', " "), show_count(*count));
        if let Some(example) = examples.get(cause) {
            text.wrap("    first: ", 4, example);
        }
    }
}

fn write_tester(text: &mut Page, outcome: &Outcome) {
    let tester = &outcome.tester;
    let mut figures = format!("{} of a core", show_percent(tester.cpu_share));
    if outcome.replies > 0 {
        let _ = write!(figures, ", {:.2} us a reply", tester.cpu_us_per_reply);
    }
    let (p99, max) = (show_ns(tester.lag_p99_ns), show_ns(tester.lag_max_ns));
    let _ = write!(figures, "; late by {p99} (p99), {max} (max)");
    let _ = write!(figures, "; {}", show_bytes(tester.memory_bytes));
    if outcome.asked.connections >= MANY {
        let each = show_bytes(tester.memory_per_connection_bytes);
        let _ = write!(figures, ", {each} a connection");
    }
    line(text, "Tester", &figures);
}

/// A rate without a unit: whole from 100 on, because a run knows no more.
fn show_rate(rate: f64) -> String {
    if rate >= 100.0 { show_count(rate.round() as u64) } else { format!("{rate:.2}") }
}

fn line(page: &mut Page, head: &str, what: &str) {
    page.wrap(&format!("{head:<HEAD$}"), HEAD, what);
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome_of;
    use super::*;

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut outcome = outcome_of(&[999_999, 99_999_999, 1]);
        outcome.asked.rate_per_second = Some(123_456_789.0);
        outcome.asked.schedule = Some("1..2 over 3s, ".repeat(9));
        let times = outcome.phases["request"].clone();
        outcome.phases.insert("response".to_owned(), times);
        outcome.error_examples.insert("other".to_owned(), "word ".repeat(50) + &"x".repeat(200));
        outcome.errors.insert("other".to_owned(), 1_000_000_000);
        outcome.remarks.push("a remark of some length. ".repeat(9));
        for percentiles in [&[][..], &[50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999]] {
            outcome.show_percentiles(percentiles).expect("sound");
            for width in [40, 60, 80, 132] {
                let text = summarize(&outcome, width);
                let longest = text.lines().map(|line| line.chars().count()).max();
                assert!(longest <= Some(width), "{width}: {longest:?}\n{text}");
                assert!(percentiles.is_empty() || text.contains("p99.9999"), "{text}");
            }
        }
    }
}
