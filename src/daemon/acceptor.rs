//! A listener at work: accepts in batches, applies the limits, spawns connections.
//!
//! When the daemon stops, those who wait in the kernel's backlog have connected before: they are let
//! in, and then the listener closes. Where its socket has died it is [bound anew](super::revival).

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::DaemonSource;
use super::arrival::Arrival;
use super::connection::{Connection, Offer};
use super::host::Phase;
use super::own_calls::MAX_DEPTH;
use super::revival::Revival;
use crate::net::descriptors;
use crate::net::listener::{Accept, Binding, Listener, Peer};
use crate::net::reactor::{Context, Next};
use crate::net::socket::Stream;
use crate::proto::event::{Event, Readiness};

/// How many connections one listener takes in one turn before the others have theirs.
const ACCEPTS_PER_TURN: usize = 64;

/// What accepting one costs, in nanoseconds.
const ACCEPT_COST: u64 = 4_000;

/// How long accepting rests when descriptors or memory have run out, or nothing but losses come of
/// it. What waits stays in the kernel's backlog.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections are taken from the backlog after the signal to stop: as many as it may hold.
const LAST_ACCEPTS: usize = 4096;

/// A TCP or Unix listener and what it offers.
pub struct Acceptor {
    /// Gone while it waits to be bound anew.
    listener: Option<Listener>,
    binding: Binding,
    offer: Rc<Offer>,
    ready: bool,
    /// Accepting rests until then.
    paused_until: Option<Instant>,
    revival: Revival,
    /// How many may still be accepted once the daemon stops; `None` until then.
    left: Option<usize>,
    /// One that was accepted when it was better to come later.
    held: Option<(Accept, Option<OwnedFd>)>,
}

impl Acceptor {
    /// A listener that will offer `offer` to whoever comes. It is bound to `binding`.
    #[must_use]
    pub fn new(listener: Listener, binding: Binding, offer: Rc<Offer>) -> Self {
        Self {
            binding: binding.as_bound(&listener),
            listener: Some(listener),
            offer,
            ready: false,
            paused_until: None,
            revival: Revival::default(),
            left: None,
            held: None,
        }
    }

    /// Registers the listener.
    pub fn start(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        let Some(listener) = &mut self.listener else { return Next::Close };
        let outcome = listener.register(context);
        context.host.begin_listening(&self.offer.name, outcome)
    }

    /// Remembers that somebody waits.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.ready |= readiness.contains(Readiness::READABLE);
    }

    /// Accepts a batch of those who wait.
    pub fn run(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        let next = match context.host.phase {
            Phase::Running => self.accept_some(context),
            Phase::Draining(_) => self.accept_last(context),
            Phase::Stopping => Next::Close,
        };
        if next == Next::Close {
            context.host.end_listening();
        }
        next
    }

    /// When to accept again after a pause.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.paused_until.or(self.revival.deadline())
    }

    /// Lets those in who had come before the stop.
    fn accept_last(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        if self.listener.is_none() {
            return Next::Close;
        }
        if self.left.is_none() {
            self.left = Some(LAST_ACCEPTS);
            self.ready = true;
        }
        let next = self.accept_some(context);
        let is_empty = !self.ready && self.held.is_none();
        let is_over = self.left == Some(0) || is_empty || self.listener.is_none();
        if is_over { Next::Close } else { next }
    }

    fn accept_some(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        if self.paused_until.is_some_and(|until| context.now < until)
            || self.revival.is_waiting(context.now)
            || self.listener.is_none() && !self.bind_anew(context)
        {
            return Next::Wait;
        }
        let was_paused = self.paused_until.take().is_some();
        let mut lost = 0;
        for count in 0..ACCEPTS_PER_TURN {
            if !self.ready && self.held.is_none() {
                return Next::Wait;
            }
            if count > 0 && context.host.admissions.has_to_rest() {
                return Next::Again;
            }
            let Some(listener) = &self.listener else { return Next::Wait };
            context.spend(ACCEPT_COST);
            let was_held = self.held.is_some();
            let (accepted, reserved) = self.held.take().unwrap_or_else(|| self.accept(listener));
            match accepted {
                Accept::Connection(stream, peer)
                    if !was_held
                        && context.host.admissions.is_better_later(self.offer.source_of(&peer)) =>
                {
                    self.held = Some((Accept::Connection(stream, peer), reserved));
                    return Next::Again;
                }
                Accept::Connection(stream, peer) => {
                    self.revival.note_life();
                    self.left = self.left.map(|left| left.saturating_sub(1));
                    self.admit(stream, peer, reserved, context);
                }
                Accept::WouldBlock => self.ready = false,
                // The last descriptor was for the last who waited: the next will be an event.
                Accept::Exhausted(_) if !listener.is_awaited() => self.ready = false,
                Accept::Lost(error) => {
                    lost += 1;
                    context.host.admissions.counts.accept_failures += 1;
                    self.refuse(&"", &format!("a connection was lost: {error}"), context);
                }
                Accept::Dead(error) => return self.bury(&error, context),
                Accept::Exhausted(_) if Self::frees_descriptors(context) => return Next::Again,
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

    /// The socket has died: does without it until it is bound anew.
    fn bury(&mut self, error: &io::Error, context: &mut Context<'_, DaemonSource>) -> Next {
        self.listener = None;
        self.ready = false;
        let wait = self.revival.note_death(context.now);
        let why = format!("the listening socket has died: {error}; it is bound anew in {wait:?}");
        context.watch(&self.offer.name, &"").report(&Event::Trouble(&why));
        Next::Again
    }

    /// Binds the address again. Whether that was possible.
    fn bind_anew(&mut self, context: &mut Context<'_, DaemonSource>) -> bool {
        let bound = self.binding.listen().and_then(|mut listener| {
            listener.register(context)?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => {
                self.listener = Some(listener);
                context.host.admissions.counts.sockets_rebound += 1;
                log::info!("listener={} listens again on {}", self.offer.name, self.binding);
                true
            }
            Err(error) => {
                let wait = self.revival.note_death(context.now);
                let Self { binding, .. } = self;
                let why =
                    format!("{binding} cannot be bound anew: {error}; trying again in {wait:?}");
                context.watch(&self.offer.name, &"").report(&Event::Trouble(&why));
                false
            }
        }
    }

    fn pause(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        context.host.admissions.counts.accept_pauses += 1;
        self.paused_until = Some(context.now + PAUSE);
        Next::Wait
    }

    /// Whether descriptors may be there in the next turn, because somebody who was not admitted has to
    /// go: then there is no reason to pause.
    fn frees_descriptors(context: &mut Context<'_, DaemonSource>) -> bool {
        let gone = context.host.admissions.free_descriptors();
        gone.into_iter().for_each(|gone| context.wake(gone));
        context.host.admissions.is_changing()
    }

    /// Accepts one, with a descriptor for its connection onward where it will need one: without
    /// that it could only be turned away, while those who wait are served when there is room.
    fn accept(&self, listener: &Listener) -> (Accept, Option<OwnedFd>) {
        if !self.offer.service.calls_onward() {
            return (listener.accept(), None);
        }
        match descriptors::reserve() {
            Ok(reserved) => (listener.accept(), Some(reserved)),
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
        let depth = context.host.own_calls.depth_of(&peer);
        if depth >= MAX_DEPTH && self.offer.service.calls_onward() {
            context.host.admissions.counts.forward_loops += 1;
            // Who forwards to us hears of a failure, and not of an end.
            stream.cut_off();
            let why = format!("it forwards to itself: {depth} of our own calls have led here");
            return self.refuse(&peer, &why, context);
        }
        if self.offer.is_announced_by(&peer) {
            return self.expect_header((stream, peer, depth), reserved, context);
        }
        let challenge = match self.offer.challenge(&mut context.host.nonces) {
            Ok(challenge) => challenge,
            Err(reason) => {
                context.host.admissions.counts.accept_failures += 1;
                return self.refuse(&peer, &reason, context);
            }
        };
        match context.host.admissions.enter(self.offer.source_of(&peer)) {
            Ok(gone) => gone.into_iter().for_each(|gone| context.wake(gone)),
            Err(reason) => return self.refuse(&peer, &reason, context),
        }
        let offer = Rc::clone(&self.offer);
        let connection = Connection::new(stream, peer, offer, challenge, context.now);
        let connection = connection.with_reserve(reserved).at_depth(depth);
        context.spawn(DaemonSource::Connection(connection));
    }

    /// Lets a proxy in, which is to say first for whom it connects.
    fn expect_header(
        &self,
        (stream, proxy, depth): (Stream, Peer, u8),
        reserved: Option<OwnedFd>,
        context: &mut Context<'_, DaemonSource>,
    ) {
        match context.host.admissions.enter(None) {
            Ok(gone) => gone.into_iter().for_each(|gone| context.wake(gone)),
            Err(reason) => return self.refuse(&proxy, &reason, context),
        }
        let arrival = Arrival::new(stream, proxy, Rc::clone(&self.offer), context.now);
        let arrival = arrival.with_reserve(reserved).at_depth(depth);
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
