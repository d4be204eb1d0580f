//! An accepted connection: a session between a socket and a service, and who is at its other side.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::DaemonSource;
use super::admissions::Counts;
use super::host::{Host, Nonces, Phase};
use crate::net::forward::{Forward, Targets};
use crate::net::listener::Peer;
use crate::net::reactor::{Context, Next};
use crate::net::socket::Stream;
use crate::net::wire::ServerWire;
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Progress, Side, Turn};
use crate::proto::event::Readiness;
use crate::proto::exit::{Allowed, Exit};
use crate::proto::gate::{CHALLENGE_LEN, Challenge, Keyring};
use crate::proto::introduction::{Introduced, Line};
use crate::proto::pipe::Pipe;
use crate::proto::proxy_protocol::{Addresses, Client, Trusted, Version};
use crate::proto::resolver::Requester;
use crate::proto::service::Kind;
use crate::proto::session::{Admission, CloseReason, Reached, Session, StateName, Step, Timeouts};

/// What closing a connection costs, with its line in the log, in nanoseconds.
const CLOSE_COST: u64 = 8_000;

/// How many secrets are tried against an answer in no more time than a request takes.
const QUICKLY_TRIED: usize = 64;

/// What one listener offers, shared by its connections.
pub struct Offer {
    /// The listener's name.
    pub name: String,
    /// What an admitted peer talks to.
    pub service: Service,
    /// Who is admitted; everyone where there is none.
    pub keyring: Option<Rc<Keyring>>,
    /// The TLS that is spoken; none where there is none.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who has to say first for whom they connect.
    pub proxies: Vec<Trusted>,
    /// How long a connection may take.
    pub timeouts: Rc<Timeouts>,
}

/// What an admitted peer talks to.
pub enum Service {
    /// A service of this program.
    Own(Kind),
    /// Whoever listens at one of the targets.
    Forward {
        /// Where they are.
        targets: Rc<Targets>,
        /// What they are told before the peer's bytes.
        lines: Vec<Line>,
        /// In which version of the PROXY protocol they are told of the peer, where they are.
        announces: Option<Version>,
    },
    /// Whoever the peer asks for.
    Connect {
        /// Whom it may ask for.
        allowed: Rc<Allowed>,
        /// How long they are waited for to acknowledge what was sent to them (RFC 5482).
        user_timeout: Option<Duration>,
    },
}

impl Service {
    /// Whether the bytes go on over a connection of their own.
    #[must_use]
    pub fn calls_onward(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    /// Writes where the bytes of a peer would go that was not let in.
    fn write_route(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(_) => Ok(()),
            Self::Forward { targets, .. } => targets.write_route(0, f),
            Self::Connect { .. } => f.write_str(" target=-"),
        }
    }

    /// The end for a peer that was let in `now`.
    fn local_end(&self, now: Instant) -> Local {
        match self {
            Self::Connect { allowed, .. } => {
                Local::Exit(Box::new(Exit::new(Rc::clone(allowed), now)))
            }
            Self::Own(kind) => Local::Service(kind.stream()),
            Self::Forward { targets, lines, .. } => {
                let forward = Forward::new(Rc::clone(targets));
                Local::Forward(Box::new(Introduced::new(forward, lines.clone())))
            }
        }
    }
}

impl Offer {
    /// Whether this peer is a proxy, which has to say first for whom it connects.
    #[must_use]
    pub fn is_announced_by(&self, peer: &Peer) -> bool {
        let address = || peer.address().map(|address| address.ip());
        self.proxies.iter().any(|trusted| trusted.covers(address()))
    }

    /// The address that this peer is counted under: the announced one where there is one. A process of
    /// this machine has none, and neither has a proxy that speaks for itself, because all its clients
    /// come from there.
    #[must_use]
    pub fn source_of(&self, peer: &Peer) -> Option<IpAddr> {
        match peer.announced() {
            Some(Addresses { source, .. }) => Some(source.ip().to_canonical()),
            None if self.is_announced_by(peer) => None,
            None => peer.address().map(|address| address.ip()),
        }
    }

    /// What the gate asks next; of no meaning where there is none.
    ///
    /// # Errors
    /// Why nothing can be asked.
    pub fn challenge(&self, nonces: &mut Nonces) -> Result<Challenge, String> {
        match self.keyring {
            Some(_) => {
                nonces.fresh().map_err(|error| format!("no randomness for its challenge: {error}"))
            }
            None => Ok([0; CHALLENGE_LEN]),
        }
    }

    /// In which version of the PROXY protocol the target is told of the peer.
    fn announces(&self) -> Option<Version> {
        match &self.service {
            Service::Forward { announces, .. } => *announces,
            Service::Own(_) | Service::Connect { .. } => None,
        }
    }
}

/// The local end of one connection.
enum Local {
    /// It is made when the peer is let in: who is not costs no more than the gate.
    Unmade(Rc<Offer>),
    Service(Box<dyn End>),
    Forward(Box<Introduced<Forward>>),
    Exit(Box<Exit<Forward>>),
}

/// One accepted connection.
pub struct Connection {
    session: Session<ServerWire, Local>,
    peer: Peer,
    offer: Rc<Offer>,
    /// The place of the connection onward among the descriptors, until that is begun.
    reserved: Option<OwnedFd>,
    /// How many of our own calls have led here.
    depth: u8,
}

impl Connection {
    /// A connection that begins `now`. `challenge` is what its gate asks, where it has one.
    pub fn new(
        stream: Stream,
        peer: Peer,
        offer: Rc<Offer>,
        challenge: Challenge,
        now: Instant,
    ) -> Self {
        let admission = match &offer.keyring {
            Some(keyring) => Admission::Guard(Rc::clone(keyring), challenge),
            None => Admission::Open,
        };
        let keeps_server_name = offer.announces() == Some(Version::V2);
        let mut remote = ServerWire::accept(stream, offer.tls.as_ref(), keeps_server_name);
        if offer.service.calls_onward() {
            remote.require_close_notify();
        }
        let session = Session::new(
            remote,
            Local::Unmade(Rc::clone(&offer)),
            admission,
            Rc::clone(&offer.timeouts),
            now,
        );
        Self { session, peer, offer, reserved: None, depth: 0 }
    }

    /// Remembers how many of our own calls have led here.
    #[must_use]
    pub fn at_depth(self, depth: u8) -> Self {
        Self { depth, ..self }
    }

    /// Keeps `reserved` for the connection onward, so that it finds a descriptor.
    #[must_use]
    pub fn with_reserve(self, reserved: Option<OwnedFd>) -> Self {
        Self { reserved, ..self }
    }

    /// Registers the socket, and sends the challenge.
    pub fn start(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        context.host.admissions.begin();
        match self.session.remote().register(context) {
            Ok(()) => {
                self.wait_to_be_served(context);
                self.run(context)
            }
            Err(error) => {
                self.close(context, CloseReason::Failed(Side::Remote, error.kind()));
                Next::Close
            }
        }
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, side: Side, readiness: Readiness) {
        match (side, self.session.local()) {
            (Side::Local, Local::Forward(forward)) => forward.end().handle_readiness(readiness),
            (Side::Local, Local::Exit(exit)) => {
                if let Some(forward) = exit.onward() {
                    forward.handle_readiness(readiness);
                }
            }
            _ => self.session.remote().handle_readiness(readiness),
        }
    }

    /// As long as the peer was not let in, it may have to make room for others.
    fn wait_to_be_served(&mut self, context: &mut Context<'_, DaemonSource>) {
        if self.session.is_served() {
            return;
        }
        let (waker, from) = (context.waker(), self.offer.source_of(&self.peer));
        if let Some(gone) = context.host.admissions.wait(waker, from) {
            context.wake(gone);
        }
    }

    /// Lets the session move what it can.
    pub fn run(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        let waits = !self.session.is_served();
        let step = if context.host.phase == Phase::Stopping {
            Step::Close(CloseReason::Stopped)
        } else if waits && context.host.admissions.is_leaving(context.waker()) {
            Step::Close(CloseReason::MadeRoom)
        } else {
            // What a call has come to counts before any deadline does.
            if self.is_calling() {
                self.calls_onward(context);
            }
            match self.run_session(context) {
                Step::Wait if self.calls_onward(context) => self.run_session(context),
                step => step,
            }
        };
        if waits && self.session.is_served() {
            context.host.admissions.pass(context.waker());
        }
        match step {
            Step::Wait => Next::Wait,
            Step::Again => Next::Again,
            Step::Close(reason) => {
                self.close(context, reason);
                Next::Close
            }
        }
    }

    /// The next moment at which something must have happened.
    pub fn deadline(&self) -> Option<Instant> {
        let call = match self.session.local_ref() {
            // Before and after, the local end has no turn in which it could act on its deadline.
            _ if self.session.state_name() != StateName::Established => None,
            Local::Forward(forward) => forward.deadline().or(forward.end_ref().deadline()),
            Local::Exit(exit) => {
                let call = exit.onward_ref().and_then(Forward::deadline);
                [exit.deadline(), call].into_iter().flatten().min()
            }
            Local::Unmade(_) | Local::Service(_) => None,
        };
        [self.session.deadline(), call].into_iter().flatten().min()
    }

    /// Whether its next run may be a handshake, on either side, or the search for a secret among many.
    #[inline]
    #[must_use]
    pub fn takes_long(&self) -> bool {
        if self.session.state_name() == StateName::AuthPending {
            let has_many = |keyring: &Rc<Keyring>| keyring.len() > QUICKLY_TRIED;
            return self.session.is_securing() || self.offer.keyring.as_ref().is_some_and(has_many);
        }
        match self.session.local_ref() {
            Local::Forward(forward) => forward.end_ref().is_securing(),
            Local::Unmade(_) | Local::Service(_) | Local::Exit(_) => false,
        }
    }

    /// Whether a call onward is on its way, so that this turn may bring its outcome.
    fn is_calling(&self) -> bool {
        self.session.state_name() == StateName::Established
            && match self.session.local_ref() {
                Local::Forward(forward) => forward.end_ref().is_dialing(),
                Local::Exit(exit) => exit.onward_ref().is_some_and(Forward::is_dialing),
                Local::Unmade(_) | Local::Service(_) => false,
            }
    }

    fn run_session(&mut self, context: &mut Context<'_, DaemonSource>) -> Step {
        let (now, mut left) = (context.now, context.slice);
        let (pool, host, watch) = context.parts(&self.offer.name, &self.peer);
        let mut turn = Turn { now, pool, clock: &host.clock, watch };
        let step = self.session.run_within(&mut left, &mut turn);
        context.spend_bytes(context.slice - left);
        step
    }

    /// Takes the call to a forwarding target a step further, once the peer is admitted. Whether
    /// the session may be able to go on after it.
    fn calls_onward(&mut self, context: &mut Context<'_, DaemonSource>) -> bool {
        if self.session.state_name() != StateName::Established {
            return false;
        }
        match (self.session.local(), &self.offer.service) {
            (Local::Forward(introduced), _) => {
                let has_settled = introduced.end().advance(&mut self.reserved, context);
                note_calls(introduced.end(), self.depth, context);
                if has_settled {
                    introduced.begin(introduced.end_ref().targets().deadline(context.now));
                    self.announce(context);
                }
                has_settled
            }
            (Local::Exit(exit), Service::Connect { user_timeout, .. }) => {
                if let Some(target) = exit.wanted() {
                    let address = self.peer.address().map(|address| address.ip());
                    let call = Forward::to(
                        target,
                        *user_timeout,
                        Requester::client(address),
                        exit.deadline(),
                    );
                    exit.begin(call);
                }
                let Some(forward) = exit.onward() else { return false };
                let has_settled = forward.advance(&mut self.reserved, context);
                note_calls(forward, self.depth, context);
                has_settled
            }
            _ => false,
        }
    }

    /// Tells the target that has just answered who the peer is, where it is to know.
    fn announce(&mut self, context: &mut Context<'_, DaemonSource>) {
        let Some(version) = self.offer.announces() else { return };
        let remote = self.session.remote_ref();
        let addresses = self.peer.announced().or_else(|| {
            let (source, destination) = (self.peer.address()?, remote.local_address()?);
            Some(Addresses { source, destination })
        });
        let identity = self.session.identity();
        let client = Client { addresses, security: remote.security(), identity };
        let header = client.header(version);
        let (_, _, mut watch) = context.parts(&self.offer.name, &self.peer);
        if let Local::Forward(introduced) = self.session.local() {
            introduced.end().announce(&header, &mut watch);
        }
    }

    fn close(&mut self, context: &mut Context<'_, DaemonSource>, reason: CloseReason) {
        context.spend(CLOSE_COST);
        let (now, waker) = (context.now, context.waker());
        let (pool, host, watch) = context.parts(&self.offer.name, &self.peer);
        let Host { clock, admissions, .. } = host;
        self.session.dispose(&mut Turn { now, pool, clock, watch }, &reason);
        admissions.leave(waker, self.offer.source_of(&self.peer));
        self.count(&reason, &mut admissions.counts);
    }

    /// Counts what became of the peer.
    fn count(&self, reason: &CloseReason, counts: &mut Counts) {
        if matches!(reason, CloseReason::Stopped | CloseReason::MadeRoom) {
            return;
        }
        if self.session.left_silently(reason) {
            counts.silent += 1;
            return;
        }
        match self.session.reached() {
            Reached::Nothing => counts.refused_by_tls += 1,
            Reached::Gate => counts.refused_at_gate += 1,
            Reached::Inside if matches!(reason, CloseReason::Failed(Side::Local, _)) => {
                counts.failed += 1;
            }
            Reached::Inside if self.session.local_ref().has_declined() => {
                counts.refused_requests += 1;
            }
            Reached::Inside => {}
        }
    }
}

/// Remembers where the calls of a connection come from, in case they arrive here.
fn note_calls(forward: &mut Forward, depth: u8, context: &mut Context<'_, DaemonSource>) {
    for local in forward.new_calls() {
        context.host.own_calls.note(local, depth);
    }
}

impl End for Local {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        if let Self::Unmade(offer) = self {
            *self = offer.service.local_end(turn.now);
        }
        match self {
            Self::Unmade(_) => Ok(Progress::Moved(0)),
            Self::Service(service) => service.exchange(to, from, turn),
            Self::Forward(forward) => forward.exchange(to, from, turn),
            Self::Exit(exit) => exit.exchange(to, from, turn),
        }
    }

    fn has_carried(&self) -> bool {
        match self {
            Self::Unmade(_) => false,
            Self::Service(service) => service.has_carried(),
            Self::Forward(forward) => forward.has_carried(),
            Self::Exit(exit) => exit.has_carried(),
        }
    }

    fn has_sent_all(&self) -> bool {
        match self {
            Self::Unmade(_) => true,
            Self::Service(service) => service.has_sent_all(),
            Self::Forward(forward) => forward.has_sent_all(),
            Self::Exit(exit) => exit.has_sent_all(),
        }
    }

    fn is_reached(&self) -> bool {
        match self {
            Self::Unmade(_) => true,
            Self::Service(service) => service.is_reached(),
            Self::Forward(forward) => forward.is_reached(),
            Self::Exit(exit) => exit.is_reached(),
        }
    }

    fn cut_off(&mut self) {
        match self {
            Self::Unmade(_) => {}
            Self::Service(service) => service.cut_off(),
            Self::Forward(forward) => forward.cut_off(),
            Self::Exit(exit) => exit.cut_off(),
        }
    }

    fn dispose(&mut self, pool: &mut Pool) {
        match self {
            Self::Unmade(_) => {}
            Self::Service(service) => service.dispose(pool),
            Self::Forward(forward) => forward.dispose(pool),
            Self::Exit(exit) => exit.dispose(pool),
        }
    }

    fn has_declined(&self) -> bool {
        matches!(self, Self::Exit(exit) if exit.has_declined())
    }

    fn write_route(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmade(offer) => offer.service.write_route(f),
            Self::Service(service) => service.write_route(f),
            Self::Forward(forward) => forward.write_route(f),
            Self::Exit(exit) => exit.write_route(f),
        }
    }
}
