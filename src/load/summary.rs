//! An outcome in words and figures, for a person at a terminal.

use std::fmt::Write;

use super::outcome::{Outcome, Times};
use super::show::{show_bytes, show_count, show_ns, show_percent};
use super::statistics::Phase;

/// A column of the table of times: how it is headed, its figure, and how many times it takes to
/// know that at all.
struct Column {
    head: &'static str,
    figure: fn(&Times) -> u64,
    needed: u64,
}

const COLUMNS: [Column; 6] = [
    Column { head: "min", figure: |times| times.min_ns, needed: 1 },
    Column { head: "p50", figure: |times| times.p50_ns, needed: 1 },
    Column { head: "p90", figure: |times| times.p90_ns, needed: 10 },
    Column { head: "p99", figure: |times| times.p99_ns, needed: 100 },
    Column { head: "p99.9", figure: |times| times.p999_ns, needed: 1000 },
    Column { head: "max", figure: |times| times.max_ns, needed: 1 },
];

/// From this many connections on, dividing the memory by them tells what each takes.
const MANY: u64 = 1000;

/// The whole summary.
#[must_use]
pub fn summarize(outcome: &Outcome) -> String {
    let mut text = String::new();
    write_head(&mut text, outcome);
    write_rate(&mut text, outcome);
    write_times(&mut text, outcome);
    write_errors(&mut text, outcome);
    write_tester(&mut text, outcome);
    for verdict in &outcome.objectives {
        let word = if verdict.held { "held" } else { "MISSED" };
        line(&mut text, "Objective", &format!("{}: {word}, {}", verdict.objective, verdict.found));
    }
    for remark in &outcome.remarks {
        text.push('\n');
        wrap(&mut text, remark);
    }
    text
}

fn write_head(text: &mut String, outcome: &Outcome) {
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

fn write_rate(text: &mut String, outcome: &Outcome) {
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
fn write_connections(text: &mut String, outcome: &Outcome) {
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
    for (cause, count) in &links.errors {
        let _ = write!(text, "  {:<28}{:>10}", cause.replace('_', " "), show_count(*count));
        match links.error_examples.get(cause) {
            Some(example) => writeln!(text, "   first: {example}"),
            None => writeln!(text),
        }
        .expect("a string takes everything");
    }
}

fn write_times(text: &mut String, outcome: &Outcome) {
    if outcome.phases.is_empty() {
        return;
    }
    let _ = write!(text, "\n{:<34}", "Times");
    for Column { head, .. } in COLUMNS {
        let _ = write!(text, "{head:>10}");
    }
    let _ = writeln!(text, "{:>12}", "count");
    for phase in Phase::ALL {
        let Some(times) = outcome.times(phase) else { continue };
        let _ = write!(text, "  {:<32}", label(phase, outcome));
        for Column { figure, needed, .. } in COLUMNS {
            let shown = if times.count >= needed { show_ns(figure(times)) } else { "-".to_owned() };
            let _ = write!(text, "{shown:>10}");
        }
        let _ = writeln!(text, "{:>12}", show_count(times.count));
    }
}

fn label(phase: Phase, outcome: &Outcome) -> &'static str {
    let has_schedule = outcome.asked.rate_per_second.is_some();
    match phase {
        Phase::Connect => "connect",
        Phase::Tls => "TLS handshake",
        Phase::Gate => "gate",
        Phase::FirstByte => "sent to first byte",
        Phase::Request if has_schedule => "sent to reply (service)",
        Phase::Request => "sent to reply",
        Phase::Response if has_schedule => "due to reply (what users see)",
        Phase::Response => "whole visit",
    }
}

fn write_errors(text: &mut String, outcome: &Outcome) {
    let (errors, _) = outcome.unanswered(outcome.timeout_ns());
    let share = show_percent(outcome.error_share());
    let _ = writeln!(
        text,
        "\n{:<12}{} ({share} of what was due; {} failed)",
        "Errors",
        show_count(errors),
        show_count(outcome.failed)
    );
    for (cause, count) in &outcome.errors {
        let _ = write!(text, "  {:<28}{:>10}", cause.replace('_', " "), show_count(*count));
        match outcome.error_examples.get(cause) {
            Some(example) => writeln!(text, "   first: {example}"),
            None => writeln!(text),
        }
        .expect("a string takes everything");
    }
}

fn write_tester(text: &mut String, outcome: &Outcome) {
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

fn line(text: &mut String, head: &str, what: &str) {
    let _ = writeln!(text, "{head:<12}{what}");
}

/// Breaks a sentence into lines that fit a terminal.
fn wrap(text: &mut String, sentence: &str) {
    let mut width = 0;
    for word in sentence.split_whitespace() {
        if width > 0 && width + 1 + word.len() > 92 {
            text.push('\n');
            width = 0;
        } else if width > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += word.len();
    }
    text.push('\n');
}
