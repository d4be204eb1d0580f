//! `turnstile connect`: one session between a server and the terminal.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::certificate;
use super::terminal::Terminal;
use super::tls::Security;
use crate::config::{Address, ResolveError};
use crate::net::clock::SystemClock;
use crate::net::dial::{self, Target};
use crate::net::reactor::{Context, Next, Reactor, Source};
use crate::net::socket::{Socket, Stream};
use crate::net::stdio::Stdio;
use crate::net::tls::socket::ClientSocket;
use crate::net::udp_peer::{Framing, UdpPeer};
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Progress, Side, Standing, Turn};
use crate::proto::event::{Event, Observer, Readiness, Subject};
use crate::proto::gate::{CHALLENGE_LEN, Digest, Secret};
use crate::proto::pipe::Pipe;
use crate::proto::session::{Admission, CloseReason, Deadline, Session, StateName, Step, Timeouts};

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
    let places = places(&request.address)?;
    let host = ClientHost { clock: SystemClock::new(), outcome: None };
    let mut reactor = Reactor::new(Pool::new(BUFFER, 2), Box::new(TraceObserver), host)?;
    reactor.spawn(Call::new(request, places));
    loop {
        if let Some(outcome) = reactor.host().outcome.take() {
            return outcome;
        }
        reactor.turn()?;
    }
}

fn places(address: &Address) -> Result<VecDeque<Place>, ResolveError> {
    match address {
        Address::Unix(path) => Ok([Place::Stream(Target::Unix(path.clone()))].into()),
        Address::Tcp(at) | Address::Tls(at) => {
            Ok(at.resolve()?.into_iter().map(Target::Tcp).map(Place::Stream).collect())
        }
        Address::Udp(at) => Ok(at.resolve()?.into_iter().map(Place::Datagrams).collect()),
    }
}

/// One place that the address may mean.
enum Place {
    Stream(Target),
    Datagrams(SocketAddr),
}

/// What the reactor's only source leaves behind.
struct ClientHost {
    clock: SystemClock,
    outcome: Option<Result<(), ConnectError>>,
}

/// The one source of the client: first it dials, then it talks.
struct Call {
    request: Request,
    stage: Stage,
}

enum Stage {
    /// Trying one address after the other.
    Dialing {
        places: VecDeque<Place>,
        stream: Option<Stream>,
        /// What events said of the stream, kept for its socket: a server that speaks first may
        /// have spoken in the event that tells of the connection, and the kernel says it once.
        readiness: Readiness,
        until: Option<Instant>,
    },
    /// Joined to the terminal.
    Talking(Box<Session<Remote, Terminal>>),
}

/// How the server ended, beside the reason.
struct Ending {
    carried: (u64, u64),
    was_cut_off: bool,
    was_truncated: bool,
    cause: Option<String>,
}

/// What faces the server.
enum Remote {
    Stream(Socket),
    Tls(Box<ClientSocket>),
    Datagrams(UdpPeer),
}

impl Call {
    fn new(request: Request, places: VecDeque<Place>) -> Self {
        let until = request.timeout.and_then(|limit| Instant::now().checked_add(limit));
        let readiness = Readiness::NONE;
        Self { request, stage: Stage::Dialing { places, stream: None, readiness, until } }
    }

    /// Ends the program with what it came to.
    fn end(&self, context: &mut Context<'_, Self>, outcome: Result<(), ConnectError>) -> Next {
        context.host.outcome = Some(outcome);
        Next::Close
    }

    /// Begins with the next address, or gives up with what was wrong with the last.
    fn dial(&mut self, context: &mut Context<'_, Self>, mut reason: io::Error) -> Next {
        let Stage::Dialing { places, stream, readiness, .. } = &mut self.stage else {
            return Next::Wait;
        };
        while let Some(place) = places.pop_front() {
            let begun = match place {
                Place::Datagrams(peer) => match UdpPeer::connect(peer, datagram_framing()) {
                    Ok(peer) => return self.talk(Remote::Datagrams(peer), context),
                    Err(error) => Err(error),
                },
                Place::Stream(target) => dial::begin(&target, Side::Remote, context),
            };
            match begun {
                Ok(begun) => {
                    *stream = Some(begun);
                    *readiness = Readiness::NONE;
                    return Next::Wait;
                }
                Err(error) => reason = error,
            }
        }
        let address = self.request.address.clone();
        self.end(context, Err(ConnectError::Unreachable { address, reason }))
    }

    /// Looks whether the connection is there.
    fn check(&mut self, context: &mut Context<'_, Self>) -> Next {
        let Stage::Dialing { stream, readiness, until, .. } = &mut self.stage else {
            return Next::Wait;
        };
        if until.is_some_and(|until| until <= context.now) {
            let what = "no connection";
            let advice = "; is the address right, and no firewall between?";
            return self.time_out(context, what, advice);
        }
        let Some(dialed) = stream.take() else { return Next::Wait };
        match dial::outcome(&dialed) {
            Ok(true) => {
                let readiness = *readiness;
                match self.secure(dialed) {
                    Ok(mut remote) => {
                        remote.handle_readiness(readiness);
                        self.talk(remote, context)
                    }
                    Err(error) => self.end(context, Err(error.into())),
                }
            }
            Ok(false) => {
                *stream = Some(dialed);
                Next::Wait
            }
            Err(error) => self.dial(context, error),
        }
    }

    /// Puts TLS over the connection, where it is asked for.
    fn secure(&mut self, stream: Stream) -> Result<Remote, rustls::Error> {
        let Some(security) = &self.request.security else {
            return Ok(Remote::Stream(Socket::new(stream, Side::Remote)));
        };
        let (config, name) = (Arc::clone(&security.config), security.name.clone());
        ClientSocket::connect(stream, config, name).map(|socket| Remote::Tls(Box::new(socket)))
    }

    /// Prints the server's certificate once it is there, if that was asked for.
    fn show_certificate(&mut self) {
        let Stage::Talking(session) = &mut self.stage else { return };
        let Remote::Tls(socket) = session.remote() else { return };
        let wanted = self.request.security.as_mut().filter(|it| it.show_certificate);
        let own = socket.peer_certificates().and_then(<[_]>::first);
        if let (Some(security), Some(own)) = (wanted, own) {
            security.show_certificate = false;
            let _ = write!(io::stderr(), "{}", certificate::describe(own));
        }
    }

    /// Joins the connection to the terminal.
    fn talk(&mut self, mut remote: Remote, context: &mut Context<'_, Self>) -> Next {
        let stdio = Stdio::new();
        let registered = stdio.register(context).and_then(|()| match &mut remote {
            Remote::Stream(_) | Remote::Tls(_) => Ok(()),
            Remote::Datagrams(peer) => peer.register(context),
        });
        if let Err(error) = registered {
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
        let terminal = Terminal::new(stdio, io::stdin().is_terminal());
        let session = Session::new(remote, terminal, admission, Rc::new(timeouts), context.now);
        self.stage = Stage::Talking(Box::new(session));
        self.converse(context)
    }

    fn converse(&mut self, context: &mut Context<'_, Self>) -> Next {
        let next = self.exchange(context);
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
            Step::Wait => return Next::Wait,
            Step::Again => return Next::Again,
        };
        session.dispose(&mut turn, &reason);
        let was_cut_off = session.local().was_cut_off();
        let carried = session.carried();
        let Standing { was_truncated, cause, .. } = session.remote().standing();
        let cause = cause.map(str::to_owned);
        let outcome = self.judge(reason, Ending { carried, was_cut_off, was_truncated, cause });
        self.end(context, outcome)
    }

    fn time_out(
        &self,
        context: &mut Context<'_, Self>,
        what: &'static str,
        advice: &'static str,
    ) -> Next {
        self.end(context, Err(self.timed_out(what, advice)))
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
        let Ending { carried: (received, sent), was_cut_off, was_truncated, cause } = ending;
        let seems_refused = self.request.gate.as_ref().is_some_and(|(_, digest)| {
            received == CHALLENGE_LEN as u64 && (was_cut_off || sent > digest.answer_len() as u64)
        });
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
        self.dial(context, io::ErrorKind::AddrNotAvailable.into())
    }

    fn handle_readiness(&mut self, side: Side, readiness: Readiness) {
        match (&mut self.stage, side) {
            (Stage::Dialing { readiness: known, .. }, Side::Remote) => {
                *known = known.with(readiness);
            }
            (Stage::Talking(session), Side::Remote) => {
                session.remote().handle_readiness(readiness);
            }
            // The terminal asks poll(2) itself.
            (_, Side::Local) => {}
        }
    }

    fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
        match self.stage {
            Stage::Dialing { .. } => self.check(context),
            Stage::Talking(_) => self.converse(context),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Dialing { until, .. } => *until,
            Stage::Talking(session) => session.deadline(),
        }
    }
}

impl Remote {
    /// Remembers what an event said.
    fn handle_readiness(&mut self, readiness: Readiness) {
        match self {
            Self::Stream(socket) => socket.handle_readiness(readiness),
            Self::Tls(socket) => socket.handle_readiness(readiness),
            Self::Datagrams(peer) => peer.handle_readiness(readiness),
        }
    }
}

impl End for Remote {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        match self {
            Self::Stream(socket) => socket.exchange(to, from, turn),
            Self::Tls(socket) => socket.exchange(to, from, turn),
            Self::Datagrams(peer) => peer.exchange(to, from, turn),
        }
    }

    fn standing(&self) -> Standing<'_> {
        match self {
            Self::Tls(socket) => socket.standing(),
            Self::Stream(_) | Self::Datagrams(_) => Standing::UP,
        }
    }

    fn dispose(&mut self, pool: &mut Pool) {
        if let Self::Tls(socket) = self {
            socket.dispose(pool);
        }
    }
}

/// Shows what the loop does, to whoever asks for `RUST_LOG=trace`.
struct TraceObserver;

impl Observer for TraceObserver {
    fn wants_detail(&self) -> bool {
        log::log_enabled!(log::Level::Trace)
    }

    fn observe(&mut self, turn: u64, subject: &Subject<'_>, event: &Event<'_>) {
        log::trace!("turn {turn} {} {event}", subject.name);
    }
}
