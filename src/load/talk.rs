//! A connection that is there: the session between the server and the generator, and what its end
//! means to whoever counts.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::generator::Generator;
use super::host::Host;
use super::reply::Fault;
use super::statistics::Cause;
use crate::net::descriptors;
use crate::net::remote::Remote;
use crate::net::wire::Wire;
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Side, Turn};
use crate::proto::event::{Readiness, Watch};
use crate::proto::session::{Admission, CloseReason, Session, Step};

/// What a run of a session borrows from the reactor.
type Parts<'a> = (&'a mut Pool, &'a mut Host, Watch<'a>);

/// How long a server that has said nothing is given to close, at least.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// From this on a connection that says nothing has rested.
const REST: Duration = Duration::from_millis(20);

/// Whether a connection was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The client has not done its part.
    Outside,
    /// It has; what the server makes of it shows by this moment at the latest.
    Waiting(Instant),
    /// It was let in.
    Inside(Proof),
}

/// What shows that a connection was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The protocol.
    Protocol,
    /// A word of the server: a reply, any byte, or a ticket of TLS.
    Word,
    /// A wait in which the server did not close.
    Wait,
}

/// One open connection.
pub struct Talk {
    session: Session<Remote, Generator>,
    since: Instant,
    has_gate: bool,
    /// When the last reply came. Where there is a gate, only a reply shows that it has opened.
    heard: Option<Instant>,
    /// How many replies have come.
    replies: u64,
    /// Whether nothing was said for a while before what was asked last.
    has_rested: bool,
    /// A datagram was given up, but its answer may still come: nothing more is sent from this port.
    has_lost: bool,
    /// When the remote end was up: at once, but for TLS, where it was seen after a run.
    up_at: Option<Instant>,
    /// What the generator said after the last run, for whoever only looks.
    waiting_since: Option<Instant>,
}

impl Talk {
    /// Begins to talk over a `remote` end that was there at `since`. Requests are numbered from
    /// `first_number`.
    #[must_use]
    pub fn new(remote: Remote, since: Instant, first_number: u64, host: &Host) -> Self {
        let generator = Generator::new(Rc::clone(&host.work), first_number);
        let admission = match (&host.secret, &host.plan.gate) {
            (Some(secret), Some((_, digest))) => Admission::Guest(Rc::clone(secret), *digest),
            _ => Admission::Open,
        };
        let has_gate = host.secret.is_some();
        let up_at = remote.standing().is_up.then_some(since);
        let timeouts = Rc::clone(&host.timeouts);
        let session = Session::new(remote, generator, admission, timeouts, since);
        Self {
            session,
            since,
            has_gate,
            heard: None,
            replies: 0,
            has_rested: false,
            has_lost: false,
            waiting_since: None,
            up_at,
        }
    }

    /// Moves what moves; the requests that finish meanwhile are in the host's list.
    pub fn run(&mut self, now: Instant, parts: Parts<'_>) -> Step {
        let (pool, host, watch) = parts;
        self.session.local().swap_finished(&mut host.finished);
        let step = self.session.run(&mut Turn { now, pool, clock: &host.clock, watch });
        self.session.local().swap_finished(&mut host.finished);
        self.waiting_since = self.session.local().waiting_since();
        if self.up_at.is_none() && self.session.remote().standing().is_up {
            self.up_at = Some(self.session.local().admitted().unwrap_or_else(Instant::now));
        }
        step
    }

    /// Gives the storage back; what waits is lost.
    pub fn dispose(&mut self, reason: CloseReason, now: Instant, parts: Parts<'_>) {
        let (pool, host, watch) = parts;
        self.session.dispose(&mut Turn { now, pool, clock: &host.clock, watch }, &reason);
    }

    /// The end that faces the server.
    pub fn remote(&mut self) -> &mut Remote {
        self.session.remote()
    }

    /// Whether TLS went on with an earlier session.
    pub fn was_resumed(&mut self) -> bool {
        matches!(self.remote(), Remote::Stream(Wire::Tls(socket)) if socket.was_resumed())
    }

    /// The end that sends and checks.
    pub fn generator(&mut self) -> &mut Generator {
        self.session.local()
    }

    /// The same, to be looked at.
    #[must_use]
    pub fn generator_ref(&self) -> &Generator {
        self.session.local_ref()
    }

    /// When the remote end was up, if it is.
    #[must_use]
    pub fn up_at(&self) -> Option<Instant> {
        self.up_at
    }

    /// When the connection was there.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// So many replies have come, the last of them at `at`.
    pub fn hear(&mut self, at: Instant, count: usize) {
        self.heard = Some(at);
        self.replies += count as u64;
    }

    /// How many replies have come.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// Whether the server has let this connection in, as far as that can be known at `now`, once the
    /// client has done what is asked of it.
    ///
    /// A gate does not say that it opened, and in TLS 1.3 the client is done before the server has seen
    /// its certificate. Then something that only follows later must show it, or a wait without a close:
    /// at least four times as long as the handshake itself took.
    #[must_use]
    pub fn let_in(&mut self, now: Instant, host: &Host) -> Entry {
        let Some(admitted) = self.generator().admitted() else { return Entry::Outside };
        let tls = match self.session.remote_ref() {
            Remote::Stream(Wire::Tls(socket)) => {
                Some((socket.is_tls_1_3(), socket.has_heard_since()))
            }
            _ => None,
        };
        let certificate_is_open = tls.is_some_and(|(is_1_3, _)| is_1_3) && host.asks.has_asked();
        if !self.has_gate && !certificate_is_open {
            return Entry::Inside(Proof::Protocol);
        }
        let has_ticket = !self.has_gate && tls.is_some_and(|(_, has_heard)| has_heard);
        let has_reply = self.has_heard() || !host.finished.is_empty();
        if has_reply || has_ticket || self.session.local_ref().has_been_told() {
            return Entry::Inside(Proof::Word);
        }
        let took = admitted.saturating_duration_since(self.since);
        let until =
            admitted + (took * 4).clamp(SHORTEST_WAIT, host.plan.timeout.max(SHORTEST_WAIT));
        if now < until { Entry::Waiting(until) } else { Entry::Inside(Proof::Wait) }
    }

    /// Whether the server ended the stream in order, and did not reset it.
    #[must_use]
    pub fn ended_in_order(&mut self, reason: &CloseReason) -> bool {
        matches!(self.session.local().fault(), Some(Fault::ClosedEarly { .. }))
            || *reason == CloseReason::Failed(Side::Remote, io::ErrorKind::BrokenPipe)
    }

    /// Whether the server ended the stream in whatever way, and owes no part of a reply.
    #[must_use]
    pub fn is_between_replies(&mut self, reason: &CloseReason) -> bool {
        let is_theirs = !matches!(reason, CloseReason::Deadline(_))
            && matches!(self.session.local().fault(), None | Some(Fault::ClosedEarly { .. }));
        is_theirs && self.session.local().is_between_replies()
    }

    /// Whether any reply has come.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// What time it is at least: `now`, or later where a reply has come since.
    #[must_use]
    pub fn latest(&self, now: Instant) -> Instant {
        self.heard.map_or(now, |heard| heard.max(now))
    }

    /// Where nothing was said for a while, the server may have closed since the last event: looks, before
    /// anything is sent that nobody would read.
    pub fn look_after_rest(&mut self, now: Instant) {
        let since = self.heard.unwrap_or(self.since);
        if self.waiting_since.is_some() {
            return;
        }
        self.has_rested = now.saturating_duration_since(since) >= REST;
        if self.has_rested {
            self.remote().handle_readiness(Readiness::READABLE);
        }
    }

    /// Whether nothing was said for a while before what was asked last.
    #[must_use]
    pub fn has_rested(&self) -> bool {
        self.has_rested
    }

    /// Whether one more of `depth` requests may be on the way.
    pub fn has_room(&mut self, depth: usize) -> bool {
        !self.has_lost && self.generator().outstanding() < depth
    }

    /// Whether the only request of a visit was not granted yet.
    pub fn may_visit(&mut self) -> bool {
        !self.has_heard() && self.generator().outstanding() == 0
    }

    /// Since when the oldest request waits for its reply.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }

    /// Gives a datagram up, and answers when it was due.
    pub fn give_up_oldest(&mut self, replies_differ: bool) -> Option<Instant> {
        // A reply that comes late is known by its content, or else by the port that it comes to.
        self.has_lost |= !replies_differ;
        let due = self.generator().give_up_oldest();
        self.waiting_since = self.generator().waiting_since();
        due
    }

    /// Whether nothing can be sent from this port any more, and nothing is expected.
    pub fn is_used_up(&mut self) -> bool {
        self.has_lost && self.generator().outstanding() == 0
    }

    /// When to look at it even if nothing comes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let session = self.session.deadline();
        [session, self.session.local_ref().wakes_at()].into_iter().flatten().min()
    }

    /// Whether the peer has said that it answers nothing more here.
    pub fn is_ending(&mut self) -> bool {
        self.generator().is_last()
    }

    /// What the end of the session means, and the first of it in words.
    ///
    /// The gate does not say whether it opened: that it did not shows in a server that closes
    /// without having said anything else.
    pub fn judge(&mut self, reason: &CloseReason, timeout: Duration) -> (Cause, String) {
        let seems_refused = self.has_gate
            && !self.has_heard()
            && self.session.local().admitted().is_some()
            && !matches!(reason, CloseReason::Deadline(_));
        if let Some(cause) = self.session.remote().standing().cause {
            return (Cause::Tls, cause.to_owned());
        }
        match (reason, self.session.local().fault()) {
            (_, Some(fault @ Fault::ClosedEarly { .. })) if !seems_refused => {
                (Cause::ClosedEarly, fault.to_string())
            }
            (_, Some(fault)) if !matches!(fault, Fault::ClosedEarly { .. }) => {
                (Cause::WrongBytes, fault.to_string())
            }
            (CloseReason::NoChallenge, _) => {
                let what = "the server closed before it had sent a challenge; is there a gate?";
                (Cause::ClosedEarly, what.to_owned())
            }
            (CloseReason::Deadline(deadline), _) => {
                (Cause::TimedOut, format!("{deadline} ({timeout:?})"))
            }
            _ if seems_refused => {
                let what = "the server closed without a word after the answer to its challenge; \
                            check the secret and --auth";
                (Cause::GateRefused, what.to_owned())
            }
            (CloseReason::Failed(Side::Remote, kind), _) => {
                (cause_of(&(*kind).into()), format!("the connection failed: {kind}"))
            }
            _ => (Cause::ClosedEarly, reason.to_string()),
        }
    }
}

/// Which kind of failure an error of the system is.
#[must_use]
pub fn cause_of(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Cause::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Cause::Reset,
        io::ErrorKind::TimedOut => Cause::TimedOut,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Cause::Exhausted,
        io::ErrorKind::QuotaExceeded => Cause::Descriptors,
        _ if descriptors::have_run_out(error) => Cause::Descriptors,
        _ => Cause::Other,
    }
}
