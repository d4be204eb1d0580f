//! What happens, told to whoever watches.
//!
//! The reactor and the sessions report typed [`Event`]s to one [`Observer`]. Logs, counters and
//! lessons are observers; nothing else in the program prints what the loop does.
//!
//! Most events are *detail*: several for every request. They are built only when the observer asked
//! for detail, so that watching costs nothing where nobody watches.

use std::fmt;
use std::io;
use std::time::Duration;

use super::quote::{Quoted, QuotedBytes, Value};
use super::reason::{CloseReason, Deadline, Side, StateName};

/// Someone who wants to know what the loop does.
pub trait Observer {
    /// Whether detail events are wanted. Asked once a turn.
    fn wants_detail(&self) -> bool;

    /// `event` happened to `subject` in turn number `turn`. Must not block.
    fn observe(&mut self, turn: u64, subject: &Subject<'_>, event: &Event<'_>);
}

/// An observer that takes no interest.
pub struct Silent;

impl Observer for Silent {
    fn wants_detail(&self) -> bool {
        false
    }

    fn observe(&mut self, _turn: u64, _subject: &Subject<'_>, _event: &Event<'_>) {}
}

/// Whom an event is about.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The slab key, or `None` for the loop itself.
    pub key: Option<usize>,
    /// The name of the listener or command it belongs to.
    pub name: &'a str,
    /// The other side of the connection, in a form for people; empty where there is none.
    pub peer: &'a dyn fmt::Display,
}

impl Subject<'_> {
    /// The loop itself.
    pub const LOOP: Subject<'static> = Subject { key: None, name: "loop", peer: &"" };
}

/// What the kernel said a source can do now. One bit each; more than one may be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness(u8);

impl Readiness {
    /// Reading will not block: there are bytes, an end of stream, or an error.
    pub const READABLE: Self = Self(1);
    /// Writing will not block.
    pub const WRITABLE: Self = Self(2);
    /// The peer will send no more (the end may still lie behind bytes that wait).
    pub const READ_CLOSED: Self = Self(4);

    /// The connection has failed, and its error waits to be asked for.
    pub const FAILED: Self = Self(8);

    /// Urgent data lies in the stream: one read ends where it begins, though more may follow.
    pub const URGENT: Self = Self(16);

    /// No readiness at all.
    pub const NONE: Self = Self(0);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::READABLE, "readable"),
            (Self::WRITABLE, "writable"),
            (Self::READ_CLOSED, "read-closed"),
            (Self::FAILED, "failed"),
            (Self::URGENT, "urgent"),
        ];
        let mut separator = "";
        for (bit, name) in names {
            if self.contains(bit) {
                write!(f, "{separator}{name}")?;
                separator = "+";
            }
        }
        Ok(())
    }
}

/// How one attempt to read or write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// So many bytes moved.
    Bytes(usize),
    /// The kernel would have had to wait.
    WouldBlock,
    /// The stream has ended (read), or was ended (write).
    End,
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(count) => write!(f, "{count} bytes"),
            Self::WouldBlock => f.write_str("would block"),
            Self::End => f.write_str("end of stream"),
        }
    }
}

/// Something that happened.
pub enum Event<'a> {
    /// Detail: `poll` returned after this long with so many readiness events.
    TurnBegan {
        /// How long the loop slept.
        blocked: Duration,
        /// How many readiness events the kernel returned.
        events: usize,
    },
    /// Detail: every due source has run.
    TurnEnded {
        /// How many sources ran.
        ran: usize,
    },
    /// Detail: the kernel said that this side can be used.
    Ready(Side, Readiness),
    /// Detail: a connection was accepted or begun, and has entered the slab.
    Spawned,
    /// Detail: one attempt to read.
    Read(Side, Transfer),
    /// Detail: one attempt to write.
    Write(Side, Transfer),
    /// Detail: the session went from one state to the next.
    State(StateName, StateName),
    /// A deadline passed.
    Deadline(Deadline),
    /// A message that the service is asked to log.
    Message(&'a [u8]),
    /// The subject will not be served: why, in a sentence.
    Refused(&'a dyn fmt::Display),
    /// The subject was let in, and will not be served with what it asked for.
    Denied {
        /// Where it wanted to be carried; `-` where that was not said.
        target: &'a dyn fmt::Display,
        /// Why it is not, in a sentence.
        reason: &'a dyn fmt::Display,
    },
    /// The subject itself has a trouble that is no one peer's: what, in a sentence.
    Trouble(&'a dyn fmt::Display),
    /// The subject has left the slab.
    Closed(&'a Summary<'a>),
}

/// The life of a session, told when it is over.
#[derive(Clone, Copy)]
pub struct Summary<'a> {
    /// Why it ended.
    pub reason: &'a CloseReason,
    /// What the end that failed said.
    pub failure: Option<&'a io::Error>,
    /// What the remote end has to say about that, where it is more.
    pub cause: Option<&'a str>,
    /// The state in which it ended.
    pub state: StateName,
    /// Whether it had been let in.
    pub was_admitted: bool,
    /// Whether the peer left before it was let in, without a byte: a look at whether somebody listens.
    pub left_silently: bool,
    /// Whether what it asked for was refused, and was told of when that happened.
    pub was_declined: bool,
    /// The name of the secret that let it in.
    pub identity: Option<&'a str>,
    /// Whom the certificate of the peer names, as words that can stand in quotes.
    pub certificate: Option<&'a str>,
    /// Where its bytes went on to, as `key=value` pairs with a blank before each.
    pub route: &'a dyn fmt::Display,
    /// Bytes received from the remote end, the gate's included.
    pub received: u64,
    /// Bytes accepted for sending to the remote end, the gate's included.
    pub sent: u64,
    /// How long it lived.
    pub age: Duration,
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TurnBegan { blocked, events } => {
                write!(f, "begins after {blocked:?} with {events} events")
            }
            Self::TurnEnded { ran } => write!(f, "ends, {ran} sources ran"),
            Self::Ready(side, readiness) => write!(f, "{side} is {readiness}"),
            Self::Spawned => f.write_str("enters the slab"),
            Self::Read(side, transfer) => write!(f, "read from {side}: {transfer}"),
            Self::Write(side, transfer) => write!(f, "write to {side}: {transfer}"),
            Self::State(from, to) => write!(f, "{from} -> {to}"),
            Self::Deadline(deadline) => write!(f, "deadline: {deadline}"),
            Self::Message(bytes) => write!(f, "message: {}", QuotedBytes(bytes)),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Denied { target, reason } => write!(f, "denied {target}: {reason}"),
            Self::Trouble(what) => write!(f, "in trouble: {what}"),
            Self::Closed(summary) => write!(f, "closed: {summary}"),
        }
    }
}

/// As `key=value` pairs, the reason last.
impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "identity={} state={} received={} sent={} seconds={:.3}{}",
            Value(self.identity.unwrap_or("-")),
            self.state,
            self.received,
            self.sent,
            self.age.as_secs_f64(),
            self.route,
        )?;
        if let Some(certificate) = self.certificate {
            write!(f, " certificate=\"{certificate}\"")?;
        }
        write!(f, " reason={}", Quoted(Sentence(self)))
    }
}

/// Why it ended, with all that is known of it.
struct Sentence<'a>(&'a Summary<'a>);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { reason, failure, cause, .. } = self.0;
        match (reason, failure) {
            // More than the system's own word for it: an end's own explanation.
            (CloseReason::Failed(side, _), Some(error)) if error.get_ref().is_some() => {
                write!(f, "the {side} end failed: {error}")?;
            }
            (reason, _) => reason.fmt(f)?,
        }
        cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

/// An observer together with the turn and the subject that it is told about.
pub struct Watch<'a> {
    observer: &'a mut dyn Observer,
    detail: bool,
    turn: u64,
    subject: Subject<'a>,
}

impl<'a> Watch<'a> {
    /// A watch over `subject` during turn number `turn`.
    pub fn new(observer: &'a mut dyn Observer, turn: u64, subject: Subject<'a>) -> Self {
        let detail = observer.wants_detail();
        Self { observer, detail, turn, subject }
    }

    /// Reports an event that is always wanted.
    pub fn report(&mut self, event: &Event<'_>) {
        self.observer.observe(self.turn, &self.subject, event);
    }

    /// Reports a detail event, built only where somebody wants it.
    #[inline]
    pub fn detail<'e>(&mut self, event: impl FnOnce() -> Event<'e>) {
        if self.detail {
            self.observer.observe(self.turn, &self.subject, &event());
        }
    }
}
