//! One connection of a run: it is opened, put to work, closed, and opened again where that is
//! wanted or where it was lost.
//!
//! ```text
//!              its turn has come, and few enough are on their way
//!    Resting -----------------------------------------------------> Dialing
//!       ^                                                              | connected
//!       |                the visit is over, or it failed               v
//!       +----------------------------------------------------------- Talking
//! ```
//!
//! Invariant: the host's count of outstanding requests is the sum of what the visitors owe: the
//! requests granted to their generators, or one for a visit that was begun and has not ended.

use std::io;
use std::time::{Duration, Instant};

use super::host::Stage as RunStage;
use super::places::Place;
use super::plan::Activity;
use super::source::LoadSource;
use super::statistics::{Cause, Phase};
use super::talk::{Talk, cause_of};
use crate::net::dial;
use crate::net::reactor::{Context, Next};
use crate::net::remote::Remote;
use crate::net::socket::{Socket, Stream};
use crate::net::tls::wire::ClientWire;
use crate::net::udp_peer::Framing;
use crate::proto::end::Side;
use crate::proto::event::Readiness;
use crate::proto::session::{CloseReason, Deadline, Step};

/// How long a connection that failed twice in a row waits before it tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// How many rounds of requests one turn gives a connection whose replies are there at once.
const ROUNDS: usize = 16;

/// One connection after the other.
pub struct Visitor {
    index: usize,
    timeout: Duration,
    stage: Stage,
    /// When the visit that was begun was due; only where each connection is one visit.
    visit: Option<Instant>,
    /// Nothing is begun before this moment.
    pause_until: Option<Instant>,
    /// Failures since anything last went well.
    failures: usize,
    /// The number of the next connection's first request.
    next_number: u64,
    /// Which of the host's places it tries.
    place: usize,
    is_settled: bool,
    is_established: bool,
    /// Whether a finished request is replaced at once, so that no fewer are outstanding.
    refills: bool,
}

enum Stage {
    Resting,
    /// A server that speaks first may have spoken when the connection is seen to be there, and no
    /// further event will say so: hence `heard`, all that events have said.
    Dialing {
        stream: Stream,
        since: Instant,
        heard: Readiness,
    },
    Talking(Box<Talk>),
}

/// What a connection came to in one exchange.
enum Outcome {
    /// It stays.
    Open(Next),
    /// It is closed, and another was begun where one is wanted.
    Closed,
}

impl Visitor {
    /// The visitor number `index` of a run, whose patience is `timeout`.
    #[must_use]
    pub fn new(index: usize, timeout: Duration) -> Self {
        Self {
            index,
            timeout,
            stage: Stage::Resting,
            visit: None,
            pause_until: None,
            failures: 0,
            next_number: index as u64,
            place: 0,
            is_settled: false,
            is_established: false,
            refills: false,
        }
    }

    /// It has entered the slab. In a ramp, its beginning lies as far along as its index does.
    pub fn start(&mut self, context: &mut Context<'_, LoadSource>) -> Next {
        let plan = &context.host.plan;
        let share = self.index as f64 / plan.connections as f64;
        let delay = plan.ramp_up.mul_f64(share);
        if !delay.is_zero() {
            self.pause(context.now + delay, context);
        }
        self.run(context)
    }

    /// Its turn has come.
    pub fn run(&mut self, context: &mut Context<'_, LoadSource>) -> Next {
        match self.stage {
            Stage::Resting => self.begin(context),
            Stage::Dialing { .. } => self.check(context),
            Stage::Talking(_) => self.talk(context),
        }
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match &mut self.stage {
            Stage::Resting => {}
            Stage::Dialing { heard, .. } => *heard = heard.with(readiness),
            Stage::Talking(talk) => talk.remote().handle_readiness(readiness),
        }
    }

    /// When what it waits for has taken too long.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Resting => None,
            Stage::Dialing { since, .. } => Some(*since + self.timeout),
            Stage::Talking(talk) => {
                let reply = talk.waiting_since().map(|since| since + self.timeout);
                [reply, talk.deadline()].into_iter().flatten().min()
            }
        }
    }

    /// Opens a connection, as soon as it may.
    fn begin(&mut self, context: &mut Context<'_, LoadSource>) -> Next {
        if self.is_paused(context.now) || !self.take_visit(context) {
            return Next::Wait;
        }
        let waker = context.waker();
        if !context.host.may_dial(waker) {
            return Next::Wait;
        }
        let since = Instant::now();
        self.place %= context.host.places.len();
        let begun = match &context.host.places[self.place] {
            Place::Datagrams(peer) => match Remote::datagrams(*peer, Framing::Each, context) {
                Ok(remote) => return self.arrive(remote, since, context),
                Err(error) => Err(error),
            },
            Place::Stream(target) => {
                let sources = &context.host.plan.sources;
                let source = sources.get(self.index % sources.len().max(1)).copied();
                dial::begin_from(source, target, Side::Remote, context)
            }
        };
        match begun {
            Ok(stream) => {
                self.stage = Stage::Dialing { stream, since, heard: Readiness::NONE };
                Next::Wait
            }
            Err(error) => self.fail_to_connect(&error, context),
        }
    }

    /// Whether there is a reason to open a connection: always, where connections stay open; where
    /// each is a visit, one that is due.
    fn take_visit(&mut self, context: &mut Context<'_, LoadSource>) -> bool {
        let now = context.now;
        let host = &mut *context.host;
        match host.plan.activity {
            Activity::Requests | Activity::Idle => host.stage < RunStage::Draining,
            _ if self.visit.is_some() => true,
            Activity::Visits | Activity::Handshakes => match host.take_turn(now) {
                Some(due) => {
                    self.visit = Some(due.unwrap_or_else(Instant::now));
                    host.outstanding += 1;
                    true
                }
                None => {
                    let waker = context.waker();
                    context.host.rest(waker);
                    false
                }
            },
        }
    }

    /// Looks whether the connection is there.
    fn check(&mut self, context: &mut Context<'_, LoadSource>) -> Next {
        let Stage::Dialing { stream, since, .. } = &self.stage else { return Next::Wait };
        let since = *since;
        match dial::outcome(stream) {
            Ok(true) => {
                let dialed = std::mem::replace(&mut self.stage, Stage::Resting);
                let Stage::Dialing { stream, heard, .. } = dialed else { return Next::Wait };
                let mut socket = Socket::new(stream, Side::Remote);
                socket.handle_readiness(heard);
                match ClientWire::over(socket, context.host.plan.secure.as_ref()) {
                    Ok(wire) => self.arrive(Remote::Stream(wire), since, context),
                    Err(error) => self.fail_to_connect(&io::Error::other(error), context),
                }
            }
            Ok(false) if context.now >= since + self.timeout => {
                self.fail_to_connect(&io::ErrorKind::TimedOut.into(), context)
            }
            Ok(false) => Next::Wait,
            Err(error) => self.fail_to_connect(&error, context),
        }
    }

    /// The connection is there: puts it to work.
    fn arrive(
        &mut self,
        remote: Remote,
        since: Instant,
        context: &mut Context<'_, LoadSource>,
    ) -> Next {
        let connected = Instant::now();
        if !matches!(remote, Remote::Datagrams(_)) {
            context.host.recorder.record_setup(Phase::Connect, self.visit, (since, connected));
        }
        context.host.settle_on(self.place);
        self.place = 0;
        self.leave_dialing(context);
        let talk = Talk::new(remote, connected, self.next_number, context.host);
        self.stage = Stage::Talking(Box::new(talk));
        self.talk(context)
    }

    /// Lets requests and replies pass, round after round while there is more to send.
    fn talk(&mut self, context: &mut Context<'_, LoadSource>) -> Next {
        let Stage::Talking(talk) = &mut self.stage else { return Next::Wait };
        self.refills = context.host.goes_on_at_once();
        talk.generator().refill(self.refills);
        self.grant(context);
        for _ in 0..ROUNDS {
            match self.exchange(context) {
                Outcome::Closed => return Next::Wait,
                Outcome::Open(next) => {
                    if self.grant(context) == 0 {
                        return next;
                    }
                }
            }
        }
        Next::Again
    }

    /// Grants the requests whose turn has come, up to the depth; answers how many.
    fn grant(&mut self, context: &mut Context<'_, LoadSource>) -> usize {
        if self.is_paused(context.now) {
            return 0;
        }
        let Stage::Talking(talk) = &mut self.stage else { return 0 };
        let host = &mut *context.host;
        let mut granted = 0;
        match host.plan.activity {
            Activity::Handshakes | Activity::Idle => {}
            Activity::Visits => {
                if let (true, Some(due)) = (talk.may_visit(), self.visit) {
                    talk.generator().grant(Some(due));
                    granted = 1;
                }
            }
            Activity::Requests => {
                let depth = host.plan.depth;
                while talk.has_room(depth) {
                    let Some(due) = host.take_turn(talk.latest(context.now)) else {
                        let waker = context.waker();
                        context.host.rest(waker);
                        return granted;
                    };
                    talk.generator().grant(due);
                    host.outstanding += 1;
                    granted += 1;
                }
            }
        }
        granted
    }

    /// Moves what moves, and takes note of it.
    fn exchange(&mut self, context: &mut Context<'_, LoadSource>) -> Outcome {
        let Stage::Talking(talk) = &mut self.stage else { return Outcome::Closed };
        let now = context.now;
        let step = talk.run(now, context.parts("load", &""));
        self.collect(context);
        let Stage::Talking(talk) = &mut self.stage else { return Outcome::Closed };
        if let Step::Close(reason) = step {
            self.lose(&reason, context);
            return Outcome::Closed;
        }
        let is_late = talk.waiting_since().is_some_and(|since| now >= since + self.timeout);
        if is_late && context.host.work.datagrams {
            let due = talk.give_up_oldest();
            context.host.outstanding -= 1;
            let what = "no answer came in time";
            context.host.recorder.record_error(Cause::Lost, due, || what.to_owned());
            self.conclude(context);
        } else if is_late {
            self.lose(&CloseReason::Deadline(Deadline::Idle), context);
            return Outcome::Closed;
        }
        if self.is_done(context) {
            self.close(CloseReason::Served, context);
            self.begin(context);
            return Outcome::Closed;
        }
        Outcome::Open(if step == Step::Again { Next::Again } else { Next::Wait })
    }

    /// Hands on what the generator has noted.
    fn collect(&mut self, context: &mut Context<'_, LoadSource>) {
        let Stage::Talking(talk) = &mut self.stage else { return };
        if !self.is_established
            && let Some(admitted) = talk.generator().admitted()
        {
            self.is_established = true;
            context.host.established += 1;
            let recorder = &mut context.host.recorder;
            let up = talk.up_at().unwrap_or(admitted);
            if context.host.plan.secure.is_some() {
                recorder.record_setup(Phase::Tls, self.visit, (talk.since(), up));
                if talk.was_resumed() {
                    recorder.count_resumed(self.visit);
                }
            }
            if context.host.secret.is_some() {
                recorder.record_setup(Phase::Gate, self.visit, (up, admitted));
            }
            self.settle(context);
        }
        let Stage::Talking(talk) = &mut self.stage else { return };
        let mut last = None;
        let mut count = 0;
        let mut finished = std::mem::take(&mut context.host.finished);
        for sample in finished.drain(..) {
            count += 1;
            last = Some(sample.done);
            if !context.host.is_sated() {
                context.host.recorder.record_request(&sample);
            }
        }
        context.host.finished = finished;
        let Some(done) = last else { return };
        talk.hear(done);
        self.failures = 0;
        if !self.refills {
            context.host.outstanding -= count;
        }
        self.visit = None;
        if context.host.is_sated() {
            context.host.close_window(done);
        }
        let think = context.host.plan.think;
        if !think.is_zero() {
            self.pause(done + think, context);
        }
        self.conclude(context);
    }

    /// Whether the connection has done all that it is for.
    fn is_done(&mut self, context: &mut Context<'_, LoadSource>) -> bool {
        let Stage::Talking(talk) = &mut self.stage else { return false };
        match context.host.plan.activity {
            Activity::Idle => false,
            Activity::Requests => talk.is_used_up(),
            Activity::Visits => talk.has_heard(),
            Activity::Handshakes => match (talk.generator().admitted(), self.visit) {
                (Some(admitted), Some(due)) => {
                    if !context.host.is_sated() {
                        context.host.recorder.record_visit(due, admitted);
                    }
                    if context.host.is_sated() {
                        context.host.close_window(admitted);
                    }
                    self.visit = None;
                    self.failures = 0;
                    context.host.outstanding -= 1;
                    self.conclude(context);
                    true
                }
                _ => false,
            },
        }
    }

    /// The session is over, and should not be.
    fn lose(&mut self, reason: &CloseReason, context: &mut Context<'_, LoadSource>) {
        let Stage::Talking(talk) = &mut self.stage else { return };
        let (cause, example) = talk.judge(reason, self.timeout);
        let host = &mut *context.host;
        let mut owed = 0;
        if self.visit.is_none() {
            for due in talk.generator().unfinished() {
                owed += 1;
                host.recorder.record_error(cause, due, || example.clone());
            }
            host.outstanding -= owed;
        }
        let was_needed = host.stage < RunStage::Draining;
        if owed == 0 && self.visit.is_none() && was_needed {
            host.recorder.record_error(cause, None, || example.clone());
        }
        let is_shut_out = matches!(cause, Cause::GateRefused | Cause::Tls);
        if is_shut_out
            && host.recorder.replies() == 0
            && host.recorder.errors(cause) >= host.plan.connections as u64
        {
            host.failure.get_or_insert((cause, example.clone()));
        }
        self.close(*reason, context);
        self.fail(cause, example, context);
    }

    /// The connection could not be opened here: tries the next place, and fails after the last.
    fn fail_to_connect(
        &mut self,
        error: &io::Error,
        context: &mut Context<'_, LoadSource>,
    ) -> Next {
        self.leave_dialing(context);
        self.stage = Stage::Resting;
        self.place += 1;
        if self.place < context.host.places.len() {
            return self.begin(context);
        }
        self.place = 0;
        let (cause, example) = (cause_of(error), error.to_string());
        let host = &mut *context.host;
        if self.visit.is_none() {
            host.recorder.record_error(cause, None, || example.clone());
        }
        host.connect_failures += 1;
        if !host.has_connected && host.connect_failures >= host.plan.connections {
            host.failure.get_or_insert((cause, example.clone()));
        }
        self.fail(cause, example, context);
        Next::Wait
    }

    /// What all failures have in common: the visit has failed, and the next try waits a little
    /// where this was not the first in a row.
    fn fail(&mut self, cause: Cause, example: String, context: &mut Context<'_, LoadSource>) {
        if let Some(due) = self.visit.take() {
            context.host.outstanding -= 1;
            context.host.recorder.record_error(cause, Some(due), || example);
        }
        self.settle(context);
        self.conclude(context);
        self.failures += 1;
        if self.failures > 1 {
            self.pause(context.now + PAUSE, context);
        } else {
            self.begin(context);
        }
    }

    fn close(&mut self, reason: CloseReason, context: &mut Context<'_, LoadSource>) {
        let now = context.now;
        if let Stage::Talking(mut talk) = std::mem::replace(&mut self.stage, Stage::Resting) {
            self.next_number = talk.generator().next_number();
            talk.dispose(reason, now, context.parts("load", &""));
        }
        if std::mem::take(&mut self.is_established) {
            context.host.established -= 1;
        }
    }

    /// It is known whether this one could be opened.
    fn settle(&mut self, context: &mut Context<'_, LoadSource>) {
        if !std::mem::replace(&mut self.is_settled, true) {
            context.host.settled += 1;
            Self::wake_conductor(context);
        }
    }

    /// Something ended: where it was the last, the run may be over.
    fn conclude(&mut self, context: &mut Context<'_, LoadSource>) {
        if context.host.stage >= RunStage::Draining || context.host.failure.is_some() {
            Self::wake_conductor(context);
        }
    }

    fn wake_conductor(context: &mut Context<'_, LoadSource>) {
        if let Some(conductor) = context.host.conductor {
            context.wake(conductor);
        }
    }

    fn leave_dialing(&mut self, context: &mut Context<'_, LoadSource>) {
        if let Some(next) = context.host.dialed() {
            context.wake(next);
        }
    }

    fn pause(&mut self, until: Instant, context: &mut Context<'_, LoadSource>) {
        self.pause_until = Some(until);
        context.wake_at(until);
    }

    fn is_paused(&mut self, now: Instant) -> bool {
        self.pause_until = self.pause_until.filter(|until| *until > now);
        self.pause_until.is_some()
    }
}
