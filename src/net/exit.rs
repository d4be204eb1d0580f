//! An exit: the local end of a session whose peer says itself where its bytes are to go, with HTTP
//! CONNECT, and is told why when they do not go there.
//!
//! Nothing is called that no rule allows. The request, the lookup and the call share one deadline.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use super::dial::Target;
use super::forward::{Destination, Forward, Limits, Targets};
use super::reactor::{Context, Source};
use super::resolver::Names;
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Progress, Turn};
use crate::proto::event::{Event, Readiness};
use crate::proto::http_connect::{Authority, ESTABLISHED, Refusal, Rule, read_request};
use crate::proto::pipe::Pipe;

/// What an exit allows, shared by its connections.
#[derive(Debug)]
pub struct Allowed {
    /// What may be asked for.
    pub rules: Vec<Rule>,
    /// How long the request and the call may take together, and the target to acknowledge.
    pub limits: Limits,
}

/// The exit's side of one connection.
pub struct Exit {
    allowed: Rc<Allowed>,
    until: Option<Instant>,
    stage: Stage,
}

enum Stage {
    /// The request is not whole.
    Asked,
    /// The target is being called.
    Calling { target: Authority, targets: Targets, call: Forward },
    /// Bytes go both ways.
    Joined(Forward),
    /// The answer is no; so much of it has been put.
    Refused { answer: String, put: usize },
}

impl Exit {
    /// An exit for a peer that was admitted `now`, or will be.
    #[must_use]
    pub fn new(allowed: Rc<Allowed>, now: Instant) -> Self {
        let until = allowed.limits.connect.and_then(|limit| now.checked_add(limit));
        Self { allowed, until, stage: Stage::Asked }
    }

    /// When to run even if nothing becomes ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Asked => self.until,
            Stage::Calling { call, .. } => {
                [self.until, call.deadline()].into_iter().flatten().min()
            }
            Stage::Joined(_) | Stage::Refused { .. } => None,
        }
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match &mut self.stage {
            Stage::Calling { call, .. } | Stage::Joined(call) => call.handle_readiness(readiness),
            Stage::Asked | Stage::Refused { .. } => {}
        }
    }

    /// Makes the end of the connection to the target a reset. Whether there is one, and bytes may
    /// have been carried.
    pub fn reset(&self) -> bool {
        let Stage::Joined(call) = &self.stage else { return false };
        call.reset();
        true
    }

    /// Whether the target is known and not reached yet.
    #[must_use]
    pub fn is_calling(&self) -> bool {
        matches!(self.stage, Stage::Calling { .. })
    }

    /// Takes the call to the target one step further. Whether the session may go on after it.
    pub fn advance<S: Source>(&mut self, context: &mut Context<'_, S>) -> bool
    where
        S::Host: AsMut<Names>,
    {
        let Stage::Calling { targets, call, .. } = &mut self.stage else { return false };
        let was_dialing = call.is_dialing();
        call.advance(targets, context);
        was_dialing && !call.is_dialing()
    }

    /// Reads the request, as far as it is there.
    fn read(&mut self, to: &mut Pipe, turn: &mut Turn<'_>) -> Result<usize, Refusal> {
        let Some((target, len)) = read_request(to.bytes())? else {
            if to.is_open() && self.until.is_none_or(|until| turn.now < until) {
                return Ok(0);
            }
            return Err(Refusal::NotHttp("it ends in the middle of its head".to_owned()));
        };
        to.consume(turn.pool, len);
        if !self.allowed.rules.iter().any(|rule| rule.allows(&target)) {
            return Err(Refusal::NotAllowed(target));
        }
        let targets = Targets::of_one_call(destination(&target), self.allowed.limits);
        self.stage = Stage::Calling { target, targets, call: Forward::default() };
        Ok(len)
    }

    fn refuse(&mut self, refusal: &Refusal, turn: &mut Turn<'_>) -> Progress {
        turn.watch.report(&Event::Refused(refusal));
        self.stage = Stage::Refused { answer: refusal.answer(), put: 0 };
        Progress::Moved(1)
    }
}

fn destination(target: &Authority) -> Destination {
    match target.host.parse::<IpAddr>() {
        Ok(address) => Destination::Place(Target::Tcp((address, target.port).into())),
        Err(_) => Destination::Host(target.host.clone(), target.port),
    }
}

impl End for Exit {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        match &mut self.stage {
            Stage::Asked => match self.read(to, turn) {
                Ok(read) => Ok(Progress::Moved(read)),
                Err(refusal) => Ok(self.refuse(&refusal, turn)),
            },
            Stage::Calling { target, call, .. } => {
                if call.is_joined() && from.room(turn.pool) >= ESTABLISHED.len() {
                    let call = std::mem::take(call);
                    self.stage = Stage::Joined(call);
                    return Ok(Progress::Moved(from.append(turn.pool, ESTABLISHED)));
                }
                let refusal = match call.failure() {
                    Some(error) if error.kind() == io::ErrorKind::TimedOut => {
                        Refusal::TimedOut(target.clone())
                    }
                    Some(error) => Refusal::Unreachable(target.clone(), error.to_string()),
                    None if self.until.is_some_and(|until| until <= turn.now) => {
                        Refusal::TimedOut(target.clone())
                    }
                    None => return Ok(Progress::Moved(0)),
                };
                Ok(self.refuse(&refusal, turn))
            }
            Stage::Joined(call) => call.exchange(to, from, turn),
            Stage::Refused { answer, put } => {
                let appended = from.append(turn.pool, &answer.as_bytes()[*put..]);
                *put += appended;
                if *put == answer.len() {
                    return Ok(Progress::Done);
                }
                Ok(Progress::Moved(appended))
            }
        }
    }

    fn dispose(&mut self, pool: &mut Pool) {
        if let Stage::Joined(call) = &mut self.stage {
            call.dispose(pool);
        }
    }
}

impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exit").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}
