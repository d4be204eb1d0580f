//! A listener at work: accepts in batches, applies the limits, spawns connections.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::DaemonSource;
use super::arrival::Arrival;
use super::connection::{Connection, Offer};
use super::host::Phase;
use crate::net::descriptors;
use crate::net::listener::{Accept, Listener, Peer};
use crate::net::reactor::{Context, Next};
use crate::net::socket::Stream;
use crate::proto::event::{Event, Readiness};

/// How many connections one listener takes in one turn before the others have theirs.
const ACCEPTS_PER_TURN: usize = 64;

/// How long accepting rests when descriptors or memory have run out, or nothing but losses come of
/// it. What waits stays in the kernel's backlog.
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
        let outcome = self.listener.register(context);
        context.host.begin_listening(&self.offer.name, outcome)
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
        let mut lost = 0;
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.ready {
                return Next::Wait;
            }
            let (accepted, reserved) = self.accept();
            match accepted {
                Accept::Connection(stream, peer) => self.admit(stream, peer, reserved, context),
                Accept::WouldBlock => self.ready = false,
                // The last descriptor was for the last who waited: the next will be an event.
                Accept::Exhausted(_) if !self.listener.is_awaited() => self.ready = false,
                Accept::Lost(error) => {
                    lost += 1;
                    context.host.admissions.counts.accept_failures += 1;
                    self.refuse(&"", &format!("a connection was lost: {error}"), context);
                }
                Accept::Exhausted(error) => {
                    if !was_paused {
                        let trouble = format!("accepting pauses: {error}");
                        context.watch(&self.offer.name, &"").report(&Event::Trouble(&trouble));
                    }
                    return self.pause(context);
                }
            }
        }
        if lost == ACCEPTS_PER_TURN {
            // Then the error is not one connection's, and the same one may be reported for ever.
            return self.pause(context);
        }
        Next::Again
    }

    /// When to accept again after a pause.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.paused_until
    }

    fn pause(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        context.host.admissions.counts.accept_pauses += 1;
        self.paused_until = Some(context.now + PAUSE);
        Next::Wait
    }

    /// Accepts one, with a descriptor for its connection onward where it will need one: without
    /// that it could only be turned away, while those who wait are served when there is room.
    fn accept(&self) -> (Accept, Option<OwnedFd>) {
        if !self.offer.service.calls_onward() {
            return (self.listener.accept(), None);
        }
        match descriptors::reserve() {
            Ok(reserved) => (self.listener.accept(), Some(reserved)),
            Err(error) => (Accept::Exhausted(error), None),
        }
    }

    fn admit(
        &mut self,
        stream: Stream,
        peer: Peer,
        reserved: Option<OwnedFd>,
        context: &mut Context<'_, DaemonSource>,
    ) {
        if self.offer.is_announced_by(&peer) {
            return self.expect_header(stream, peer, reserved, context);
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
        context.spawn(DaemonSource::Connection(connection.with_reserve(reserved)));
    }

    /// Lets a proxy in, which is to say first for whom it connects.
    fn expect_header(
        &self,
        stream: Stream,
        proxy: Peer,
        reserved: Option<OwnedFd>,
        context: &mut Context<'_, DaemonSource>,
    ) {
        if let Err(reason) = context.host.admissions.enter_unnamed() {
            return self.refuse(&proxy, &reason, context);
        }
        let arrival = Arrival::new(stream, proxy, Rc::clone(&self.offer), context.now);
        context.spawn(DaemonSource::Arrival(Box::new(arrival.with_reserve(reserved))));
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
