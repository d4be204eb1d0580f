//! The live line on a terminal: how far, how fast, how slow, what went wrong.
//!
//! It is written to standard error, never to a pipe, and never waited for: where the terminal does
//! not take it, the next one shows more. It is never wider than the terminal, whose size is asked for
//! each time: a line that wraps would not be written over but scroll.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::host::{Host, Stage};
use super::plan::Length;
use super::show::{show_count, show_ns};
use crate::net::output;

/// How often it changes.
const REFRESH: Duration = Duration::from_millis(200);

/// How many cells the bar has.
const BAR: usize = 10;

/// How wide a terminal is that does not say.
const USUAL_WIDTH: usize = 80;

/// One line that is written over and over.
pub struct Panel {
    next: Instant,
    /// How many columns the line has that is shown.
    shown: usize,
}

/// How many columns `terminal` has; those of most where it is none, or does not say.
#[must_use]
pub fn width_of(terminal: &impl AsFd) -> usize {
    let size = terminal_size::terminal_size_of(terminal);
    size.map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0).unwrap_or(USUAL_WIDTH)
}

impl Panel {
    /// A panel, where standard error is a terminal that can move its cursor.
    #[must_use]
    pub fn for_terminal() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        (io::stderr().is_terminal() && !is_dumb).then(|| Self { next: Instant::now(), shown: 0 })
    }

    /// Writes the line anew, if it is time.
    pub fn show(&mut self, now: Instant, host: &Host) {
        if now >= self.next {
            self.next = now + REFRESH;
            let width = width_of(&io::stderr());
            // The last column stays free: some terminals wrap as soon as it is written to.
            let line = fit(&parts(now, host), width - 1);
            write(&format!("{}{line}", take_away(self.shown, width)));
            self.shown = line.len();
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        write(&take_away(self.shown, width_of(&io::stderr())));
        self.shown = 0;
    }
}

/// What takes a line of so many columns away. In a terminal that has become narrower since it was
/// written, it has wrapped into several.
fn take_away(shown: usize, width: usize) -> String {
    match shown.saturating_sub(1) / width {
        0 => "\r\x1b[J".to_owned(),
        above => format!("\r\x1b[{above}A\x1b[J"),
    }
}

/// As many parts as fit, the most telling of which come first; the first is cut where not even that
/// one fits. All are ASCII.
fn fit(parts: &[String], width: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let gap = if line.is_empty() { "" } else { "  " };
        if line.is_empty() || line.len() + gap.len() + part.len() <= width {
            line += gap;
            line += part;
        }
    }
    line.truncate(width);
    line
}

/// What there is to tell, the most telling first.
fn parts(now: Instant, host: &Host) -> Vec<String> {
    let recorder = &host.recorder;
    let established = host.established;
    let Some(window) = recorder.window().filter(|_| host.stage != Stage::Opening) else {
        return vec![format!("opening: {established} of {} connections", host.plan.connections)];
    };
    let mut parts = match host.stage {
        Stage::Draining | Stage::Over => {
            return vec![format!("waiting for the last {} replies", host.outstanding)];
        }
        _ if now < window.begin => vec!["warming up".to_owned()],
        _ => progress(now.saturating_duration_since(window.begin), host),
    };
    let errors = recorder.all_errors();
    let errors = (errors > 0).then(|| format!("{} errors", show_count(errors)));
    parts.extend(errors);
    if let Some(last) = recorder.intervals().last() {
        let rate = last.completed as f64 / last.length.as_secs_f64().max(1e-9);
        parts.push(format!("{}/s", show_count(rate as u64)));
        parts.push(format!("p50 {}", show_ns(last.p50)));
        parts.push(format!("p99 {}", show_ns(last.p99)));
        parts.push(format!("max {}", show_ns(last.max)));
    }
    parts.push(format!("{established} open"));
    parts
}

fn progress(passed: Duration, host: &Host) -> Vec<String> {
    let (share, left) = match host.plan.length {
        Length::Time(length) => {
            let left = length.saturating_sub(passed).as_secs_f64();
            (passed.as_secs_f64() / length.as_secs_f64(), format!("{left:.0} s left"))
        }
        Length::Requests(count, _) => {
            let replies = host.recorder.replies();
            (
                replies as f64 / count as f64,
                format!("{} left", show_count(count - replies.min(count))),
            )
        }
    };
    let done = (share.clamp(0.0, 1.0) * BAR as f64) as usize;
    vec![format!("[{}{}]", "#".repeat(done), ".".repeat(BAR - done)), left]
}

fn write(text: &str) {
    output::say(text, Duration::ZERO);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_never_wider_than_the_terminal() {
        let parts: Vec<String> =
            ["[##........]", "9 s left", "1,234 errors", "5 open"].map(str::to_owned).into();
        for width in 0..100 {
            let line = fit(&parts, width);
            assert!(line.len() <= width && (width == 0 || !line.is_empty()), "{width}: {line}");
        }
        assert_eq!(fit(&parts, 80), "[##........]  9 s left  1,234 errors  5 open");
        assert_eq!(fit(&parts, 30), "[##........]  9 s left  5 open");
    }

    #[test]
    fn a_line_that_has_wrapped_is_taken_away_as_a_whole() {
        assert_eq!(take_away(0, 80), "\r\x1b[J");
        assert_eq!(take_away(79, 80), "\r\x1b[J");
        assert_eq!(take_away(79, 40), "\r\x1b[1A\x1b[J");
        assert_eq!(take_away(79, 20), "\r\x1b[3A\x1b[J");
    }
}
