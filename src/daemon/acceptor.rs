//! A listener at work: accepts in batches, applies the limits, spawns connections.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::DaemonSource;
use super::arrival::Arrival;
use super::connection::{Connection, Offer};
use super::host::Phase;
use crate::net::listener::{Accept, Listener, Peer};
use crate::net::reactor::{Context, Next};
use crate::net::socket::Stream;
use crate::proto::event::{Event, Readiness};

/// How many connections one listener takes in one turn before the others have theirs.
const ACCEPTS_PER_TURN: usize = 64;

/// How long accepting rests when descriptors or memory have run out. What waits stays in the
/// kernel's backlog.
const PAUSE: Duration = Duration::from_millis(100);

/// A TCP or Unix listener and what it offers.
pub struct Acceptor {
    listener: Listener,
    offer: Rc<Offer>,
    ready: bool,
    /// Accepting rests until then.
    paused_until: Option<Instant>,
}

impl Acceptor {
    /// A listener that will offer `offer` to whoever comes.
    #[must_use]
    pub fn new(listener: Listener, offer: Rc<Offer>) -> Self {
        Self { listener, offer, ready: false, paused_until: None }
    }

    /// Registers the listener.
    pub fn start(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        match self.listener.register(context) {
            Ok(()) => Next::Wait,
            Err(error) => {
                context.watch(&self.offer.name, &"").report(&Event::Refused(&error));
                Next::Close
            }
        }
    }

    /// Remembers that somebody waits.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.ready |= readiness.contains(Readiness::READABLE);
    }

    /// Accepts a batch of those who wait.
    pub fn run(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        if context.host.phase != Phase::Running {
            return Next::Close;
        }
        if self.paused_until.is_some_and(|until| context.now < until) {
            return Next::Wait;
        }
        let was_paused = self.paused_until.take().is_some();
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.ready {
                return Next::Wait;
            }
            match self.listener.accept() {
                Accept::Connection(stream, peer) => self.admit(stream, peer, context),
                Accept::WouldBlock => self.ready = false,
                Accept::Lost(error) => {
                    context.host.admissions.counts.accept_failures += 1;
                    self.refuse(&"", &format!("a connection was lost: {error}"), context);
                }
                Accept::Exhausted(error) => {
                    context.host.admissions.counts.accept_pauses += 1;
                    if !was_paused {
                        self.refuse(&"", &format!("accepting pauses: {error}"), context);
                    }
                    self.paused_until = Some(context.now + PAUSE);
                    return Next::Wait;
                }
            }
        }
        Next::Again
    }

    /// When to accept again after a pause.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.paused_until
    }

    fn admit(&mut self, stream: Stream, peer: Peer, context: &mut Context<'_, DaemonSource>) {
        if self.offer.is_announced_by(&peer) {
            return self.expect_header(stream, peer, context);
        }
        let challenge = match self.offer.challenge(&mut context.host.nonces) {
            Ok(challenge) => challenge,
            Err(reason) => {
                context.host.admissions.counts.accept_failures += 1;
                return self.refuse(&peer, &reason, context);
            }
        };
        if let Err(reason) = context.host.admissions.enter(&peer) {
            return self.refuse(&peer, &reason, context);
        }
        let offer = Rc::clone(&self.offer);
        let connection = Connection::new(stream, peer, offer, challenge, context.now);
        context.spawn(DaemonSource::Connection(connection));
    }

    /// Lets a proxy in, which is to say first for whom it connects.
    fn expect_header(&self, stream: Stream, proxy: Peer, context: &mut Context<'_, DaemonSource>) {
        if let Err(reason) = context.host.admissions.enter_unnamed() {
            return self.refuse(&proxy, &reason, context);
        }
        let arrival = Arrival::new(stream, proxy, Rc::clone(&self.offer), context.now);
        context.spawn(DaemonSource::Arrival(Box::new(arrival)));
    }

    fn refuse(
        &self,
        peer: &dyn std::fmt::Display,
        reason: &dyn std::fmt::Display,
        context: &mut Context<'_, DaemonSource>,
    ) {
        context.watch(&self.offer.name, peer).report(&Event::Refused(reason));
    }
}
