//! An exit: the local end of a session whose peer says itself where its bytes are to go, with HTTP
//! CONNECT, and is told why when they do not go there.
//!
//! This is the rule alone. Whoever owns an exit makes the call that it [wants](Exit::wanted) and
//! [hands over](Exit::begin) the end that the call is: one that is up as soon as the target is there,
//! and fails where it will not be.
//!
//! Nothing is called that no rule allows. The request and the call share one deadline, and the call is
//! its own judge of it: only its owner knows whether what it waits for has come in time. The target
//! gets no byte of the request, and the peer none of the target's before it was told yes.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::buffer::Pool;
use super::end::{End, Progress, Turn};
use super::event::Event;
use super::http_connect::{Authority, ESTABLISHED, Refusal, Rule, read_request};
use super::pipe::Pipe;
use super::quote::Value;
use super::timeouts::given_back;

/// What an exit allows, shared by its connections.
#[derive(Debug)]
pub struct Allowed {
    /// What may be asked for.
    pub rules: Vec<Rule>,
    /// How long the head of a request may be, in bytes.
    pub head: usize,
    /// How long the request and the call may take together.
    pub limit: Option<Duration>,
}

/// The exit's side of one connection.
pub struct Exit<E> {
    allowed: Rc<Allowed>,
    until: Option<Instant>,
    stage: Stage<E>,
}

enum Stage<E> {
    /// The request is not whole.
    Asked,
    /// The target is being called, once the owner has begun to.
    Calling(Authority, Option<E>),
    /// Bytes go both ways.
    Joined(E),
    /// The answer is no; so much of it has been put. What was asked for, where that was understood.
    Refused { answer: String, put: usize, target: Option<Authority> },
}

impl<E: End> Exit<E> {
    /// An exit for a peer that was admitted `now`.
    #[must_use]
    pub fn new(allowed: Rc<Allowed>, now: Instant) -> Self {
        let until = allowed.limit.and_then(|limit| now.checked_add(limit));
        Self { allowed, until, stage: Stage::Asked }
    }

    /// The target that is to be called now.
    #[must_use]
    pub fn wanted(&self) -> Option<&Authority> {
        match &self.stage {
            Stage::Calling(target, None) => Some(target),
            _ => None,
        }
    }

    /// The call to the target that is wanted has begun. It fails at the [deadline](Self::deadline).
    pub fn begin(&mut self, begun: E) {
        if let Stage::Calling(_, call) = &mut self.stage {
            *call = Some(begun);
        }
    }

    /// The connection to the target, made or being made.
    pub fn onward(&mut self) -> Option<&mut E> {
        match &mut self.stage {
            Stage::Calling(_, call) => call.as_mut(),
            Stage::Joined(end) => Some(end),
            Stage::Asked | Stage::Refused { .. } => None,
        }
    }

    /// The same, to be looked at.
    pub fn onward_ref(&self) -> Option<&E> {
        match &self.stage {
            Stage::Calling(_, call) => call.as_ref(),
            Stage::Joined(end) => Some(end),
            Stage::Asked | Stage::Refused { .. } => None,
        }
    }

    /// When to run even if nothing becomes ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Asked | Stage::Calling(_, None) => self.until,
            Stage::Calling(..) | Stage::Joined(_) | Stage::Refused { .. } => None,
        }
    }

    /// Reads the request, as far as it is there.
    fn read(&mut self, to: &mut Pipe, turn: &mut Turn<'_>) -> Result<Progress, Refusal> {
        let Some((target, len)) = read_request(to.bytes(), self.allowed.head)? else {
            if to.room(turn.pool) == 0 {
                return Err(Refusal::TooLong);
            }
            if to.is_exhausted() {
                // Somebody has looked whether an exit is here, and asks for nothing, be it that
                // they ended or were cut off.
                return Ok(Progress::Done);
            }
            if !to.is_open() {
                return Err(Refusal::NotHttp("it ends in the middle of its head".to_owned()));
            }
            if self.until.is_some_and(|until| until <= turn.now) {
                return Err(Refusal::Late);
            }
            return Ok(Progress::Moved(0));
        };
        to.consume(turn.pool, len);
        // It was in time, though the loop may have stood still.
        self.until = self.until.map(|until| given_back(until, turn.now).unwrap_or(until));
        if !self.allowed.rules.iter().any(|rule| rule.allows(&target)) {
            return Err(Refusal::NotAllowed(target));
        }
        self.stage = Stage::Calling(target, None);
        Ok(Progress::Moved(len))
    }

    /// Sees what came of the call, and says so to the peer where it is good.
    fn call(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> Result<Progress, Refusal> {
        let Stage::Calling(target, call) = &mut self.stage else { return Ok(Progress::Moved(0)) };
        if let Some(end) = call.take_if(|end| end.standing().is_up) {
            self.stage = Stage::Joined(end);
            let put = from.append(turn.pool, ESTABLISHED);
            assert_eq!(put, ESTABLISHED.len(), "an answer fits behind a challenge");
            return Ok(Progress::Moved(put));
        }
        let Some(end) = call else { return Ok(Progress::Moved(0)) };
        let outcome = match end.exchange(to, from, turn) {
            Ok(Progress::Deaf(kind)) => Err(kind.into()),
            outcome => outcome,
        };
        outcome.map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => Refusal::TimedOut(target.clone()),
            _ => Refusal::Unreachable(target.clone(), error.to_string()),
        })
    }

    fn refuse(&mut self, refusal: &Refusal, turn: &mut Turn<'_>) -> Progress {
        let target = refusal.target();
        turn.watch.report(&Event::Denied {
            target: target.map_or(&"-", |it| it as &dyn fmt::Display),
            reason: refusal,
        });
        // A target that was reached in vain must not take this for an end.
        self.cut_off();
        let target = target.cloned();
        self.stage = Stage::Refused { answer: refusal.answer(), put: 0, target };
        Progress::Moved(1)
    }
}

impl<E: End> End for Exit<E> {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let progress = match &mut self.stage {
            Stage::Asked => self.read(to, turn),
            Stage::Calling(..) => self.call(to, from, turn),
            Stage::Joined(end) => return end.exchange(to, from, turn),
            Stage::Refused { answer, put, .. } => {
                let appended = from.append(turn.pool, &answer.as_bytes()[*put..]);
                *put += appended;
                let is_all = *put == answer.len();
                Ok(if is_all { Progress::Done } else { Progress::Moved(appended) })
            }
        };
        Ok(progress.unwrap_or_else(|refusal| self.refuse(&refusal, turn)))
    }

    fn has_carried(&self) -> bool {
        matches!(&self.stage, Stage::Joined(end) if end.has_carried())
    }

    fn has_sent_all(&self) -> bool {
        self.onward_ref().is_none_or(End::has_sent_all)
    }

    fn is_reached(&self) -> bool {
        matches!(&self.stage, Stage::Joined(end) if end.is_reached())
    }

    fn cut_off(&mut self) {
        if let Some(end) = self.onward() {
            end.cut_off();
        }
    }

    fn dispose(&mut self, pool: &mut Pool) {
        if let Some(end) = self.onward() {
            end.dispose(pool);
        }
    }

    fn has_declined(&self) -> bool {
        matches!(self.stage, Stage::Refused { .. })
    }

    fn write_route(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stage {
            Stage::Joined(end) => end.write_route(f),
            Stage::Calling(target, _) | Stage::Refused { target: Some(target), .. } => {
                write!(f, " target={}", Value(target))
            }
            Stage::Asked | Stage::Refused { target: None, .. } => f.write_str(" target=-"),
        }
    }
}
