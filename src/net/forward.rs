//! A connection onward as the local end of a session: what makes a listener a relay.
//!
//! The end is there before its connection is: while it dials, bytes from the peer wait in the pipe,
//! bounded as ever. Several targets are tried in order; one that failed rests for a while that
//! grows, during which the others come first. A target that rests is still tried when nothing
//! else is left, so one that has come back is found without a restart.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::dial::{self, Target};
use super::reactor::{Context, Source};
use super::socket::{Socket, Stream};
use crate::proto::end::{End, Progress, Side, Turn};
use crate::proto::event::Readiness;
use crate::proto::pipe::Pipe;

/// The first rest of a target that failed, and the longest.
const SHORTEST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Where a listener forwards to: shared by its connections, so that what one learns about a target
/// helps the next.
#[derive(Debug)]
pub struct Targets {
    targets: Vec<Known>,
    connect_limit: Option<Duration>,
}

/// A target and how it has done lately.
#[derive(Debug)]
struct Known {
    target: Target,
    failures: Cell<u32>,
    rests_until: Cell<Option<Instant>>,
}

impl Targets {
    /// Targets in the order in which they are tried, each for `connect_limit` at the most.
    #[must_use]
    pub fn new(targets: Vec<Target>, connect_limit: Option<Duration>) -> Self {
        let fresh = |target| Known { target, failures: Cell::new(0), rests_until: Cell::new(None) };
        Self { targets: targets.into_iter().map(fresh).collect(), connect_limit }
    }

    /// The order for one connection: those that do not rest, then those that do, soonest first.
    fn order(&self, now: Instant) -> VecDeque<usize> {
        let rest = |index: &usize| self.targets[*index].rests_until.get().filter(|at| *at > now);
        let mut order: Vec<usize> = (0..self.targets.len()).collect();
        order.sort_by_key(rest);
        order.into()
    }

    fn succeeded(&self, index: usize) {
        let known = &self.targets[index];
        known.rests_until.set(None);
        let failures = known.failures.replace(0);
        if failures > 0 {
            log::info!("target {} answers again, after {failures} failures", known.target);
        }
    }

    /// Doubles the rest with each failure in a row, and varies it by half, so that many who were
    /// refused together do not come back together. Only the first failure of a row is logged;
    /// what it does to a connection, the end of that connection tells.
    fn failed(&self, index: usize, error: &io::Error, now: Instant) {
        let known = &self.targets[index];
        let failures = known.failures.get();
        if failures == 0 {
            log::warn!("target {} cannot be reached: {error}", known.target);
        }
        let rest = SHORTEST_REST.saturating_mul(1 << failures.min(10)).min(LONGEST_REST);
        known.failures.set(failures.saturating_add(1));
        known.rests_until.set(Some(now + rest.mul_f64(rand::rng().random_range(0.5..1.0))));
    }
}

/// One connection onward; the default is one that has not called anybody yet.
#[derive(Debug, Default)]
pub struct Forward {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody was admitted yet, so nobody was called.
    #[default]
    Idle,
    /// Calling a target.
    Dialing(Dialing),
    /// Connected.
    Joined(Socket),
    /// No target answered.
    Failed(io::Error),
}

#[derive(Debug)]
struct Dialing {
    stream: Stream,
    readiness: Readiness,
    until: Option<Instant>,
    index: usize,
    /// What is left to try.
    others: VecDeque<usize>,
}

impl Dialing {
    /// Whether the call was answered; `Ok(false)` while nobody knows.
    fn outcome(&self, now: Instant) -> io::Result<bool> {
        if self.readiness.contains(Readiness::FAILED) {
            return Err(self.stream.take_error()?.unwrap_or(io::ErrorKind::NotConnected.into()));
        }
        if self.readiness.contains(Readiness::WRITABLE) {
            return Ok(true);
        }
        if self.until.is_some_and(|until| until <= now) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(false)
    }
}

impl Forward {
    /// Whether [`advance`](Self::advance) may have something to do.
    #[must_use]
    pub fn is_dialing(&self) -> bool {
        matches!(self.state, State::Idle | State::Dialing(_))
    }

    /// Whether a target has answered.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        matches!(self.state, State::Joined(_))
    }

    /// When to call [`advance`](Self::advance) even if nothing becomes ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Dialing(dialing) => dialing.until,
            _ => None,
        }
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match &mut self.state {
            State::Dialing(dialing) => dialing.readiness = dialing.readiness.with(readiness),
            State::Joined(socket) => socket.handle_readiness(readiness),
            State::Idle | State::Failed(_) => {}
        }
    }

    /// Makes the end of the connection a reset, because its stream was cut off.
    pub fn reset(&self) {
        if let State::Joined(socket) = &self.state {
            socket.reset();
        }
    }

    /// Takes the call one step further: begins it, or sees what came of it.
    pub fn advance<S: Source>(&mut self, targets: &Targets, context: &Context<'_, S>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => {
                let nobody = io::Error::other("there is no target");
                self.call(targets.order(context.now), nobody, targets, context);
            }
            State::Dialing(dialing) => match dialing.outcome(context.now) {
                Ok(true) => {
                    targets.succeeded(dialing.index);
                    let mut socket = Socket::new(dialing.stream, Side::Local);
                    socket.handle_readiness(dialing.readiness);
                    self.state = State::Joined(socket);
                }
                Ok(false) => self.state = State::Dialing(dialing),
                Err(error) => {
                    targets.failed(dialing.index, &error, context.now);
                    self.call(dialing.others, error, targets, context);
                }
            },
            settled => self.state = settled,
        }
    }

    /// Calls the next target that can be called at all; where none is left, the call has failed
    /// for `reason`.
    fn call<S: Source>(
        &mut self,
        mut others: VecDeque<usize>,
        mut reason: io::Error,
        targets: &Targets,
        context: &Context<'_, S>,
    ) {
        while let Some(index) = others.pop_front() {
            match dial::begin(&targets.targets[index].target, Side::Local, context) {
                Ok(stream) => {
                    let until = targets.connect_limit.map(|limit| context.now + limit);
                    let readiness = Readiness::NONE;
                    let dialing = Dialing { stream, readiness, until, index, others };
                    self.state = State::Dialing(dialing);
                    return;
                }
                Err(error) => {
                    targets.failed(index, &error, context.now);
                    reason = error;
                }
            }
        }
        self.state = State::Failed(reason);
    }
}

impl End for Forward {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        match &mut self.state {
            State::Idle | State::Dialing(_) => Ok(Progress::Moved(0)),
            State::Joined(socket) => socket.exchange(to, from, turn),
            State::Failed(reason) => Err(io::Error::new(reason.kind(), reason.to_string())),
        }
    }
}
