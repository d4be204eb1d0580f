//! `turnstile connect`: one session between a server and the terminal.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::certificate;
use super::terminal::{LineEnds, Manner, Terminal};
use super::tls::Security;
use crate::config::{Address, ResolveError};
use crate::net::clock::SystemClock;
use crate::net::dial::{self, Race, Target, Terms};
use crate::net::output;
use crate::net::reactor::{Context, Next, Reactor, Source};
use crate::net::remote::Remote;
use crate::net::stdio::Stdio;
use crate::net::trace::TraceObserver;
use crate::net::udp_peer::Framing;
use crate::net::wire::{ClientWire, Wire};
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Side, Standing, Turn};
use crate::proto::event::Readiness;
use crate::proto::gate::{CHALLENGE_LEN, Digest, Secret};
use crate::proto::session::{Admission, CloseReason, Deadline, Session, StateName, Step, Timeouts};

/// How long somebody is waited for who reads no talk.
const PATIENCE: Duration = Duration::from_millis(250);

/// How many bytes wait in each direction at the most.
const BUFFER: usize = 64 * 1024;

/// What is asked for.
pub struct Request {
    /// Where to.
    pub address: Address,
    /// What answers the server's challenge, where there is a gate.
    pub gate: Option<(Secret, Digest)>,
    /// How TLS is spoken, where it is.
    pub security: Option<Security>,
    /// Whether a gate that nobody spoke of is to be noticed.
    pub notices_gate: bool,
    /// What follows each line that a person types; what suits most servers where nothing is said.
    pub line_ends: Option<LineEnds>,
    /// How long to wait for the connection, for TLS, for the challenge, and for the answer to a
    /// datagram; `None` is for ever.
    pub timeout: Option<Duration>,
}

/// Why the conversation failed: one line for people.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name is not known.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No address of it could be connected to.
    #[error("cannot connect to {address}: {reason}{}", connect_advice(.reason))]
    Unreachable {
        /// Where to.
        address: Address,
        /// What the system said of the last one.
        reason: io::Error,
    },
    /// Nothing came in time.
    #[error("{address}: {what} {}{advice}", within(.limit))]
    TimedOut {
        /// Where to.
        address: Address,
        /// What did not come.
        what: &'static str,
        /// How long it was waited for, where the user said how long.
        limit: Option<Duration>,
        /// What to do.
        advice: &'static str,
    },
    /// The gate stayed shut.
    #[error(
        "{0} closed the connection without a word after the answer to its challenge: it probably \
         refused it; check the secret (--secret-file or TURNSTILE_SECRET) and --auth"
    )]
    GateRefused(Address),
    /// There was no gate.
    #[error("{0} closed the connection before it had sent a challenge; is there a gate (--auth)?")]
    NoChallenge(Address),
    /// There is a gate, and nothing to pass it with.
    #[error(
        "{0} began with {CHALLENGE_LEN} bytes that look like the challenge of a gate, and there is \
         no secret to answer it with: give one (--secret-file or TURNSTILE_SECRET), or take them \
         for data with --auth none"
    )]
    GateSeen(Address),
    /// The server did not take all of the input.
    #[error("{0} closed the connection before it had taken all of the input")]
    Untaken(Address),
    /// TLS failed.
    #[error(
        "TLS with {address} failed: {cause} (--ca says whom to trust, --server-name whom to expect, \
         --cert and --key what to show)"
    )]
    Tls {
        /// Where to.
        address: Address,
        /// Why.
        cause: String,
    },
    /// TLS cannot begin.
    #[error("TLS cannot begin: {0}")]
    TlsStart(#[from] rustls::Error),
    /// The server went without saying that it was done.
    #[error(
        "{0} ended the connection without a close_notify: what it sent may not have been all of it"
    )]
    Truncated(Address),
    /// The connection was lost in the middle.
    #[error("the connection to {0} was lost: {1}")]
    Lost(Address, io::Error),
    /// What was typed or piped does not fit into one datagram.
    #[error(
        "the input for {0} is longer than the longest datagram, 65,507 bytes; send less at a time"
    )]
    TooLong(Address),
    /// Standard input or output failed.
    #[error("the terminal failed: {0}")]
    Terminal(io::Error),
    /// The event loop failed.
    #[error("the event loop failed: {0}")]
    Loop(#[from] io::Error),
}

fn within(limit: &Option<Duration>) -> String {
    limit.map_or_else(|| "in time".to_owned(), |limit| format!("within {limit:?}"))
}

fn connect_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "; nothing listens there",
        io::ErrorKind::NotFound => "; there is no such socket file",
        io::ErrorKind::PermissionDenied => "; you may not use it",
        _ => "",
    }
}

/// Connects, talks until either side has had enough, and returns.
///
/// # Errors
/// Why it could not connect, was refused, or was cut off. A closed standard output is not one:
/// whoever read it has seen enough.
pub fn run(request: Request) -> Result<(), ConnectError> {
    let call = Call::new(request)?;
    let host = ClientHost { clock: SystemClock::new(), outcome: None };
    let mut reactor = Reactor::new(Pool::new(BUFFER, 2), Box::new(TraceObserver), host)?;
    reactor.spawn(call);
    loop {
        if let Some(outcome) = reactor.host().outcome.take() {
            return outcome;
        }
        reactor.turn()?;
    }
}

/// What the reactor's only source leaves behind.
struct ClientHost {
    clock: SystemClock,
    outcome: Option<Result<(), ConnectError>>,
}

/// How long a challenge is waited for before the silence is said.
const MOMENT: Duration = Duration::from_secs(2);

/// The one source of the client: first it dials, then it talks.
struct Call {
    request: Request,
    stage: Stage,
    /// When to say that no challenge has come, if none has by then.
    remark_at: Option<Instant>,
}

enum Stage {
    /// Dialing every address that the name stands for; the first that answers is talked to.
    Dialing { race: Race, until: Option<Instant> },
    /// Datagrams are not dialed: the first of these that there is a way to is talked to.
    Choosing(Vec<SocketAddr>),
    /// Joined to the terminal.
    Talking(Box<Session<Remote, Terminal>>),
}

/// How the server ended, beside the reason.
struct Ending {
    carried: (u64, u64),
    was_cut_off: bool,
    /// The server ended its side, and all of the input was on its way to it.
    has_said_all: bool,
    /// The server ended its side first.
    has_ended: bool,
    seems_gated: bool,
    was_truncated: bool,
    cause: Option<String>,
}

impl Call {
    /// Looks the address up, which blocks.
    fn new(request: Request) -> Result<Self, ResolveError> {
        let dialing = |targets: Vec<Target>| Stage::Dialing {
            race: Race::new(targets, Terms::default(), Side::Remote),
            until: request.timeout.and_then(|limit| Instant::now().checked_add(limit)),
        };
        let stage = match &request.address {
            Address::Unix(path) => dialing(vec![Target::Unix(path.clone())]),
            Address::Tcp(at) | Address::Tls(at) => {
                dialing(at.resolve()?.into_iter().map(Target::Tcp).collect())
            }
            Address::Udp(at) => Stage::Choosing(at.resolve()?),
        };
        Ok(Self { request, stage, remark_at: None })
    }

    /// Ends the program with what it came to.
    fn end(&self, context: &mut Context<'_, Self>, outcome: Result<(), ConnectError>) -> Next {
        context.host.outcome = Some(outcome);
        Next::Close
    }

    /// Looks whether anybody has answered.
    fn dial(&mut self, context: &mut Context<'_, Self>) -> Next {
        let Stage::Dialing { race, until } = &mut self.stage else { return Next::Wait };
        match race.advance(context) {
            dial::Standing::Won(socket) => {
                let secure = self.request.security.as_ref().map(|security| &security.secure);
                match ClientWire::over(socket, secure) {
                    Ok(wire) => self.talk(Remote::Stream(wire), context),
                    Err(error) => self.end(context, Err(error.into())),
                }
            }
            dial::Standing::Lost(_, reason) => self.give_up(reason, context),
            dial::Standing::Running if until.is_some_and(|until| until <= context.now) => {
                let advice = "; is the address right, and no firewall between?";
                let error = self.timed_out("no connection", advice);
                self.end(context, Err(error))
            }
            dial::Standing::Running => Next::Wait,
        }
    }

    /// Takes the first peer that there is a way to.
    fn choose(&mut self, context: &mut Context<'_, Self>) -> Next {
        let Stage::Choosing(peers) = &self.stage else { return Next::Wait };
        let mut reason = io::ErrorKind::AddrNotAvailable.into();
        for peer in peers {
            match Remote::datagrams(*peer, datagram_framing(), context) {
                Ok(remote) => return self.talk(remote, context),
                Err(error) => reason = error,
            }
        }
        self.give_up(reason, context)
    }

    fn give_up(&self, reason: io::Error, context: &mut Context<'_, Self>) -> Next {
        let address = self.request.address.clone();
        self.end(context, Err(ConnectError::Unreachable { address, reason }))
    }

    /// Prints the server's certificate once it is there, if that was asked for.
    fn show_certificate(&mut self) {
        let Stage::Talking(session) = &mut self.stage else { return };
        let Remote::Stream(Wire::Tls(socket)) = session.remote() else { return };
        let wanted = self.request.security.as_mut().filter(|it| it.show_certificate);
        let own = socket.peer_certificates().and_then(<[_]>::first);
        if let (Some(security), Some(own)) = (wanted, own) {
            security.show_certificate = false;
            output::say(&certificate::describe(own), PATIENCE);
        }
    }

    /// Joins the connection to the terminal.
    fn talk(&mut self, remote: Remote, context: &mut Context<'_, Self>) -> Next {
        let stdio = Stdio::new();
        if let Err(error) = stdio.register(context) {
            return self.end(context, Err(ConnectError::Loop(error)));
        }
        let limit = self.request.timeout;
        let answer_limit = limit.filter(|_| matches!(remote, Remote::Datagrams(_)));
        let timeouts =
            Timeouts { tls: limit, auth: limit, half_close: answer_limit, ..Timeouts::NONE };
        let admission = match &self.request.gate {
            Some((secret, digest)) => Admission::Guest(Rc::new(secret.clone()), *digest),
            None => Admission::Open,
        };
        let has_gate = self.request.gate.is_some();
        let is_stream = matches!(remote, Remote::Stream(_));
        let usual = if has_gate || !is_stream { LineEnds::None } else { LineEnds::CrLf };
        let line_ends = self.request.line_ends.unwrap_or(usual);
        let manner = Manner {
            by_hand: io::stdin().is_terminal().then_some(line_ends),
            has_gate,
            notices_gate: self.request.notices_gate && !has_gate && is_stream,
            is_seen: io::stdout().is_terminal(),
        };
        self.remark_at = has_gate.then(|| context.now + MOMENT);
        let terminal = Terminal::new(stdio, manner);
        let session = Session::new(remote, terminal, admission, Rc::new(timeouts), context.now);
        self.stage = Stage::Talking(Box::new(session));
        self.converse(context)
    }

    /// Says that no challenge has come where one should have, once. The wait goes on.
    fn remark_silence(&mut self, now: Instant) {
        let Stage::Talking(session) = &self.stage else { return };
        if session.was_admitted() {
            self.remark_at = None;
        } else if !session.remote_ref().standing().is_up {
            self.remark_at = self.remark_at.map(|_| now + MOMENT);
        } else if self.remark_at.is_some_and(|at| at <= now) {
            self.remark_at = None;
            let address = &self.request.address;
            let remark = format!(
                "turnstile: {address} has sent no challenge yet; if there is no gate, connect with \
                 --auth none\n"
            );
            output::say(&remark, Duration::ZERO);
        }
    }

    fn converse(&mut self, context: &mut Context<'_, Self>) -> Next {
        let next = self.exchange(context);
        self.remark_silence(context.now);
        self.show_certificate();
        next
    }

    fn exchange(&mut self, context: &mut Context<'_, Self>) -> Next {
        let Stage::Talking(session) = &mut self.stage else { return Next::Wait };
        let now = context.now;
        let (pool, host, watch) = context.parts("connect", &self.request.address);
        let mut turn = Turn { now, pool, clock: &host.clock, watch };
        let reason = match session.run(&mut turn) {
            Step::Close(reason) => reason,
            // Said all and heard enough: nobody here waits for the server to close too.
            _ if session.state_name() == StateName::Closing && session.is_flushed() => {
                CloseReason::Served
            }
            // Nobody at a terminal wants the conversation to go on.
            _ if session.local().seems_gated() && io::stdin().is_terminal() => CloseReason::Served,
            Step::Wait => return Next::Wait,
            Step::Again => return Next::Again,
        };
        session.dispose(&mut turn, &reason);
        let terminal = session.local_ref();
        let was_cut_off = terminal.was_cut_off();
        let (has_said_all, has_ended) = (terminal.has_said_all(), terminal.has_heard_end());
        let seems_gated = terminal.seems_gated();
        let carried = session.carried();
        let Standing { was_truncated, cause, .. } = session.remote().standing();
        let cause = cause.map(str::to_owned);
        let ending = Ending {
            carried,
            was_cut_off,
            has_said_all,
            has_ended,
            seems_gated,
            was_truncated,
            cause,
        };
        let outcome = self.judge(reason, ending);
        self.end(context, outcome)
    }

    fn timed_out(&self, what: &'static str, advice: &'static str) -> ConnectError {
        let Request { address, timeout, .. } = &self.request;
        ConnectError::TimedOut { address: address.clone(), what, limit: *timeout, advice }
    }

    /// What the end of the session means to a person. The gate does not say whether it opened:
    /// that it did not shows in a server that closes without having said anything else, although
    /// something was asked or might have been.
    fn judge(&self, reason: CloseReason, ending: Ending) -> Result<(), ConnectError> {
        let address = || self.request.address.clone();
        let Ending { carried: (received, sent), was_cut_off, has_ended, has_said_all, .. } = ending;
        let Ending { was_truncated, cause, seems_gated, .. } = ending;
        let seems_refused = self.request.gate.as_ref().is_some_and(|(_, digest)| {
            received == CHALLENGE_LEN as u64 && (was_cut_off || sent > digest.answer_len() as u64)
        });
        // From a pipe, such bytes may be data. Where nothing followed what was sent, they were not.
        if seems_gated
            && (io::stdin().is_terminal() || sent > 0 && received == CHALLENGE_LEN as u64)
        {
            return Err(ConnectError::GateSeen(address()));
        }
        if let Some(cause) = cause {
            return Err(ConnectError::Tls { address: address(), cause });
        }
        match reason {
            CloseReason::Finished
            | CloseReason::Served
            | CloseReason::Truncated
            | CloseReason::Failed(Side::Remote, _)
                if seems_refused =>
            {
                Err(ConnectError::GateRefused(address()))
            }
            CloseReason::Finished | CloseReason::Served | CloseReason::Truncated
                if was_truncated =>
            {
                Err(ConnectError::Truncated(address()))
            }
            CloseReason::NoChallenge => Err(ConnectError::NoChallenge(address())),
            CloseReason::Failed(Side::Remote, io::ErrorKind::FileTooLarge) => {
                Err(ConnectError::TooLong(address()))
            }
            // A server that has said all and heard enough closes, and what reaches it then is answered
            // with a reset.
            CloseReason::Failed(Side::Remote, _) if has_ended && !was_truncated => {
                if has_said_all {
                    Ok(())
                } else {
                    Err(ConnectError::Untaken(address()))
                }
            }
            CloseReason::Failed(Side::Remote, kind) => {
                Err(ConnectError::Lost(address(), kind.into()))
            }
            CloseReason::Failed(Side::Local, io::ErrorKind::BrokenPipe) => Ok(()),
            CloseReason::Failed(Side::Local, kind) => Err(ConnectError::Terminal(kind.into())),
            CloseReason::Deadline(Deadline::Tls) => {
                Err(self.timed_out("no TLS handshake", "; does it speak TLS?"))
            }
            CloseReason::Deadline(Deadline::Auth) => {
                Err(self.timed_out("no challenge", "; is there a gate (--auth)?"))
            }
            CloseReason::Deadline(_) => Err(self.timed_out("no answer", "")),
            _ => Ok(()),
        }
    }
}

/// A line that a person types is a datagram, and so is all that a program writes.
fn datagram_framing() -> Framing {
    if io::stdin().is_terminal() { Framing::Each } else { Framing::Whole }
}

impl Source for Call {
    type Host = ClientHost;

    fn start(&mut self, context: &mut Context<'_, Self>) -> Next {
        self.run(context)
    }

    fn handle_readiness(&mut self, side: Side, readiness: Readiness) {
        match (&mut self.stage, side) {
            (Stage::Dialing { race, .. }, Side::Remote) => race.handle_readiness(readiness),
            (Stage::Talking(session), Side::Remote) => {
                session.remote().handle_readiness(readiness);
            }
            // The terminal asks poll(2) itself.
            (_, Side::Local) | (Stage::Choosing(_), Side::Remote) => {}
        }
    }

    fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
        match self.stage {
            Stage::Dialing { .. } => self.dial(context),
            Stage::Choosing(_) => self.choose(context),
            Stage::Talking(_) => self.converse(context),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Dialing { race, until } => [race.deadline(), *until].into_iter().flatten().min(),
            Stage::Choosing(_) => None,
            Stage::Talking(session) => {
                let deadlines =
                    [session.deadline(), session.local_ref().deadline(), self.remark_at];
                deadlines.into_iter().flatten().min()
            }
        }
    }
}
