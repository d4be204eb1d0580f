//! The log: an observer that writes lines. How they get to standard error, [`log_queue`] knows.
//!
//! Whatever a peer can cause is throttled, and whatever it can fill stands in a line as
//! [`quote`](crate::proto::quote) says.
//!
//! [`log_queue`]: super::log_queue

use std::cell::RefCell;
use std::env;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Record};

pub use super::log_queue::LogQueue;
use super::throttle::{Kind, Throttle};
use crate::proto::event::{Event, Observer, Subject, Summary};
use crate::proto::quote::{Line, Quoted, QuotedBytes, Value};
use crate::proto::reason::{CloseReason, Side};

/// The target of the lines that show every turn of the loop.
const DETAIL: &str = "turnstile::loop";

/// Writes what happens as lines, one for each connection that ends.
pub struct LogObserver {
    throttle: Rc<RefCell<Throttle>>,
    /// The peer of the line that is made, as it stands there.
    peer: String,
}

/// What a line begins with, how grave that is, and what it counts as.
type Head = (&'static str, Level, Kind);

impl LogObserver {
    /// An observer that writes through the `log` crate as much as `throttle` lets through.
    #[must_use]
    pub fn new(throttle: Rc<RefCell<Throttle>>) -> Self {
        Self { throttle, peer: String::new() }
    }

    /// Writes a line, if one of its level and kind may be said.
    fn tell(&mut self, head: Head, subject: &Subject<'_>, rest: fmt::Arguments<'_>) {
        let (word, level, kind) = head;
        if !log::log_enabled!(level) {
            return;
        }
        self.peer.clear();
        let _ = write!(self.peer, "{}", subject.peer);
        let Self { throttle, peer } = self;
        if throttle.borrow_mut().passes(subject.name, kind, peer, Instant::now()) {
            log::log!(level, "{word} listener={} peer={peer} {rest}", Value(subject.name));
        }
    }
}

/// How the end of a connection is told.
fn head(end: &Summary<'_>) -> Head {
    if end.left_silently {
        ("silent", Level::Debug, Kind::Refused)
    } else if matches!(end.reason, CloseReason::Failed(Side::Local, _)) {
        ("failed", Level::Warn, Kind::Failed)
    } else if end.was_declined {
        ("closed", Level::Info, Kind::Declined)
    } else if end.was_admitted || *end.reason == CloseReason::Stopped {
        ("closed", Level::Info, Kind::Closed)
    } else {
        ("refused", Level::Info, Kind::Refused)
    }
}

impl Observer for LogObserver {
    fn wants_detail(&self) -> bool {
        log::log_enabled!(target: DETAIL, Level::Trace)
    }

    fn observe(&mut self, turn: u64, subject: &Subject<'_>, event: &Event<'_>) {
        let refused = |kind| ("refused", Level::Warn, kind);
        match event {
            Event::Closed(end) => self.tell(head(end), subject, format_args!("{end}")),
            Event::Refused(reason) => {
                let reason = Quoted(reason);
                self.tell(refused(Kind::Refused), subject, format_args!("reason={reason}"));
            }
            Event::Denied { target, reason } => {
                let (target, reason) = (Value(target), Quoted(reason));
                let rest = format_args!("target={target} reason={reason}");
                self.tell(refused(Kind::Denied), subject, rest);
            }
            Event::Trouble(what) => {
                let reason = Quoted(what);
                self.tell(refused(Kind::Own), subject, format_args!("reason={reason}"));
            }
            Event::Message(bytes) => {
                let (text, head) = (QuotedBytes(bytes), ("message", Level::Info, Kind::Message));
                self.tell(head, subject, format_args!("text={text}"));
            }
            detail => {
                let Subject { key, name, peer } = subject;
                match key {
                    Some(key) => {
                        log::trace!(target: DETAIL, "turn {turn} #{key} {name} {peer} {detail}");
                    }
                    None => log::trace!(target: DETAIL, "turn {turn} {detail}"),
                }
            }
        }
    }
}

/// Says what `throttle` held back, where that is due or `is_last`. Answers when to do so again.
pub fn tell_held_back(throttle: &mut Throttle, is_last: bool) -> Option<Duration> {
    let left = throttle.report_at()?.saturating_duration_since(Instant::now());
    if !left.is_zero() && !is_last {
        return Some(left);
    }
    for line in throttle.report() {
        log::warn!("{line}");
    }
    None
}

/// Starts logging to standard error, at the level that `RUST_LOG` says, else at `default`. The caller
/// [flushes](LogQueue::flush).
#[must_use]
pub fn start(default: &str) -> LogQueue {
    start_with(default, LogQueue::new(false))
}

/// The same for a command whose loop knows nothing of a log: each line is written as it comes, as far as
/// that needs no waiting.
#[must_use]
pub fn start_eager(default: &str) -> LogQueue {
    start_with(default, LogQueue::new(true))
}

fn start_with(default: &str, queue: LogQueue) -> LogQueue {
    let asked = env::var_os("RUST_LOG");
    let filter = filter(asked.as_ref());
    let libraries = queue.libraries();
    env_logger::Builder::new()
        .parse_filters(filter.as_deref().unwrap_or(default))
        .target(env_logger::Target::Pipe(Box::new(queue.clone())))
        .format(move |line, record| {
            let (time, level, text) = (line.timestamp(), record.level(), record.args());
            match library(record) {
                None => writeln!(line, "[{time} {level:<5}] {}", Line(text)),
                Some(name) if level <= Level::Warn && !may_pass(&libraries, name) => Ok(()),
                Some(name) => {
                    writeln!(line, "[{time} {level:<5}] library={name} text={}", Quoted(text))
                }
            }
        })
        .init();
    if let (Some(asked), None) = (asked, filter) {
        let asked = Quoted(asked.to_string_lossy());
        log::warn!("RUST_LOG={asked} is no level and no list of target=level: `{default}` holds");
    }
    queue
}

/// The library that has written it. What peers make it say was quoted by nobody, and what nobody has
/// asked for in detail is throttled.
fn library<'a>(record: &'a Record<'_>) -> Option<&'a str> {
    let name = record.target().split("::").next().unwrap_or_default();
    (name != "turnstile").then_some(name)
}

/// Peers can make libraries warn, too.
fn may_pass(throttle: &Mutex<Throttle>, library: &str) -> bool {
    throttle.lock().is_ok_and(|mut it| it.passes(library, Kind::Own, "", Instant::now()))
}

/// What is asked for, where that says something.
fn filter(asked: Option<&OsString>) -> Option<String> {
    let text = asked?.to_str()?.trim();
    let (directives, _expression) = text.split_once('/').unwrap_or((text, ""));
    let mut directives =
        directives.split(',').map(str::trim).filter(|it| !it.is_empty()).peekable();
    (directives.peek().is_some() && directives.all(is_directive)).then(|| text.to_owned())
}

/// Whether it is a level, `target=level`, or a target that there is.
fn is_directive(directive: &str) -> bool {
    const TARGETS: [&str; 6] =
        ["turnstile", "rustls", "mio", "hickory_proto", "aws_lc_rs", "rustls_native_certs"];
    let is_level = |text: &str| text.parse::<LevelFilter>().is_ok();
    match directive.split_once('=') {
        Some((target, level)) => {
            let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-.".contains(&byte);
            !target.is_empty() && target.trim().bytes().all(is_path) && is_level(level.trim())
        }
        None => {
            let first = directive.split("::").next();
            is_level(directive) || first.is_some_and(|it| TARGETS.contains(&it))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_means_the_default() {
        for asked in
            ["", " ", "\"info\"", "'debug'", "inof", "info,,=,/", "=info", "turnstile=loud"]
        {
            assert_eq!(filter(Some(&asked.into())), None, "{asked}");
        }
        for asked in
            ["info", " WARN ", "off", "info,turnstile::loop=trace", "rustls=debug", "turnstile"]
        {
            let expected = Some(asked.trim().to_owned());
            assert_eq!(filter(Some(&asked.into())), expected, "{asked}");
        }
        assert_eq!(filter(None), None);
    }
}
