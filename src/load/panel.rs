//! The live line on a terminal: how far, how fast, how slow, what went wrong.
//!
//! It is written to standard error, never to a pipe, and never waited for: where the terminal does
//! not take it, the next one shows more.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::host::{Host, Stage};
use super::plan::Length;
use super::show::{show_count, show_ns};
use crate::net::output;

/// How often it changes.
const REFRESH: Duration = Duration::from_millis(200);

/// How many cells the bar has.
const BAR: usize = 20;

/// One line that is written over and over.
pub struct Panel {
    next: Instant,
}

impl Panel {
    /// A panel, where standard error is a terminal that can move its cursor.
    #[must_use]
    pub fn for_terminal() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        (io::stderr().is_terminal() && !is_dumb).then(|| Self { next: Instant::now() })
    }

    /// Writes the line anew, if it is time.
    pub fn show(&mut self, now: Instant, host: &Host) {
        if now >= self.next {
            self.next = now + REFRESH;
            write(&format!("\r\x1b[K{}", line(now, host)));
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        write("\r\x1b[K");
    }
}

fn line(now: Instant, host: &Host) -> String {
    let recorder = &host.recorder;
    let established = host.established;
    let Some(window) = recorder.window().filter(|_| host.stage != Stage::Opening) else {
        return format!("opening: {established} of {} connections", host.plan.connections);
    };
    let mut text = match host.stage {
        Stage::Draining | Stage::Over => {
            return format!("waiting for the last {} replies", host.outstanding);
        }
        _ if now < window.begin => "warming up".to_owned(),
        _ => progress(now.saturating_duration_since(window.begin), host),
    };
    if let Some(last) = recorder.intervals().last() {
        let rate = last.completed as f64 / last.length.as_secs_f64().max(1e-9);
        let (p50, p99, max) = (show_ns(last.p50), show_ns(last.p99), show_ns(last.max));
        let _ = write!(text, "  {}/s  p50 {p50}  p99 {p99}  max {max}", show_count(rate as u64));
    }
    let _ = write!(text, "  {established} open  {} errors", show_count(recorder.all_errors()));
    text
}

fn progress(passed: Duration, host: &Host) -> String {
    let (share, left) = match host.plan.length {
        Length::Time(length) => {
            let left = length.saturating_sub(passed).as_secs_f64();
            (passed.as_secs_f64() / length.as_secs_f64(), format!("{left:.0} s left"))
        }
        Length::Requests(count) => {
            let replies = host.recorder.replies();
            (
                replies as f64 / count as f64,
                format!("{} left", show_count(count - replies.min(count))),
            )
        }
    };
    let done = (share.clamp(0.0, 1.0) * BAR as f64) as usize;
    format!("[{}{}] {left}", "#".repeat(done), ".".repeat(BAR - done))
}

fn write(text: &str) {
    output::say(text, Duration::ZERO);
}
