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
//! It decides what is done; what that means for the run's figures is up to its [tally](Tally).

use std::io;
use std::time::{Duration, Instant};

use super::generator::{Generator, Unfinished};
use super::host::{Host, Places};
use super::plan::Activity;
use super::statistics::Phase;
use super::talk::Talk;
use super::tally::Tally;
use crate::net::dial::{Race, Standing, Terms};
use crate::net::reactor::{Context, Next, Source};
use crate::net::remote::Remote;
use crate::net::udp_peer::Framing;
use crate::net::wire::ClientWire;
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
    tally: Tally,
    /// Nothing is begun before this moment.
    pause_until: Option<Instant>,
    /// The number of the next connection's first request.
    next_number: u64,
    /// Which of the host's places it tries where connections are spread over them, counted on
    /// without end.
    place: usize,
    /// How long a reply is waited for.
    patience: Duration,
    /// By when it shows whether the server let the connection in.
    entry_by: Option<Instant>,
}

enum Stage {
    Resting,
    /// Trying one place, or racing all of them where none is known to answer.
    Dialing {
        race: Box<Race>,
        since: Instant,
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
            tally: Tally::default(),
            pause_until: None,
            next_number: index as u64,
            place: index,
            patience: timeout,
            entry_by: None,
        }
    }

    /// What it has begun or taken over, and not finished.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Unfinished> {
        let talk = match &self.stage {
            Stage::Talking(talk) if self.tally.visit().is_none() => Some(talk.generator_ref()),
            _ => None,
        };
        self.tally.unfinished().chain(talk.into_iter().flat_map(Generator::unfinished)).collect()
    }

    /// How many requests it has begun.
    #[must_use]
    pub fn begun(&self, connections: usize) -> u64 {
        let next = match &self.stage {
            Stage::Talking(talk) => talk.generator_ref().next_number(),
            _ => self.next_number,
        };
        (next - self.index as u64) / connections as u64
    }

    /// Whether a connection is there, or on its way.
    #[must_use]
    pub fn holds_connection(&self) -> bool {
        !matches!(self.stage, Stage::Resting)
    }

    /// It has entered the slab. In a ramp, its beginning lies as far along as its index does.
    pub fn start(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Next {
        let plan = &context.host.plan;
        let share = self.index as f64 / plan.connections as f64;
        let delay = plan.ramp_up.mul_f64(share);
        if !delay.is_zero() {
            self.pause(context.now + delay, context);
        }
        self.run(context)
    }

    /// Its turn has come.
    pub fn run(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Next {
        let next = match self.stage {
            Stage::Resting => self.begin(context),
            Stage::Dialing { .. } => self.check(context),
            Stage::Talking(_) => self.talk(context),
        };
        while let Some(concerned) = context.host.next_to_wake() {
            context.wake(concerned);
        }
        next
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match &mut self.stage {
            Stage::Resting => {}
            Stage::Dialing { race, .. } => race.handle_readiness(readiness),
            Stage::Talking(talk) => talk.remote().handle_readiness(readiness),
        }
    }

    /// When what it waits for has taken too long.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Resting => None,
            Stage::Dialing { race, since } => {
                [race.deadline(), Some(*since + self.timeout)].into_iter().flatten().min()
            }
            Stage::Talking(talk) => {
                let reply = talk.waiting_since().map(|since| since + self.patience);
                [reply, talk.deadline(), self.entry_by].into_iter().flatten().min()
            }
        }
    }

    /// Opens a connection, as soon as it may.
    fn begin(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Next {
        let waker = context.waker();
        if self.is_paused(context.now)
            || !self.tally.take_visit(context.now, waker, context.host)
            || !context.host.may_dial(waker)
        {
            return Next::Wait;
        }
        context.host.recorder.links.begun += 1;
        let since = Instant::now();
        let host = &*context.host;
        let targets = match host.places_for(self.place) {
            Places::Datagrams(peers) => {
                let mut reason = io::ErrorKind::AddrNotAvailable.into();
                for peer in peers {
                    match Remote::datagrams(peer, Framing::Each, context) {
                        Ok(remote) => return self.arrive(remote, since, context),
                        Err(error) => reason = error,
                    }
                }
                return self.fail_to_connect(&reason, context);
            }
            Places::Streams(targets) => targets,
        };
        let sources = &host.plan.sources;
        let source = sources.get(self.index % sources.len().max(1)).copied();
        let terms = Terms { source, ..Terms::default() };
        let race = Box::new(Race::new(targets, terms, Side::Remote));
        self.stage = Stage::Dialing { race, since };
        self.check(context)
    }

    /// Looks whether the connection is there.
    fn check(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Next {
        let Stage::Dialing { race, since } = &mut self.stage else { return Next::Wait };
        let since = *since;
        let standing = race.advance(context);
        context.host.recorder.links.queue_full += race.take_full_queues();
        match standing {
            Standing::Won(socket) => {
                context.host.settle_on(&socket);
                match ClientWire::over(socket, context.host.plan.secure.as_ref()) {
                    Ok(wire) => self.arrive(Remote::Stream(wire), since, context),
                    Err(error) => self.fail_to_connect(&io::Error::other(error), context),
                }
            }
            Standing::Lost(_, error) => self.fail_to_connect(&error, context),
            Standing::Running if context.now >= since + self.timeout => {
                self.fail_to_connect(&io::ErrorKind::TimedOut.into(), context)
            }
            Standing::Running => Next::Wait,
        }
    }

    /// The connection is there: puts it to work.
    fn arrive(
        &mut self,
        remote: Remote,
        since: Instant,
        context: &mut Context<'_, impl Source<Host = Host>>,
    ) -> Next {
        let connected = Instant::now();
        if !matches!(remote, Remote::Datagrams(_)) {
            let visit = self.tally.visit();
            context.host.recorder.record_setup(Phase::Connect, visit, (since, connected));
        }
        context.host.has_connected = true;
        context.host.count_place(self.place);
        context.host.dialed();
        let mut talk = Talk::new(remote, connected, self.next_number, context.host);
        self.tally.pass_on_legacy(&mut talk);
        self.stage = Stage::Talking(Box::new(talk));
        self.talk(context)
    }

    /// Lets requests and replies pass, round after round while there is more to send.
    fn talk(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Next {
        let Stage::Talking(talk) = &mut self.stage else { return Next::Wait };
        self.tally.agree_on_refills(talk, context.host);
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
    fn grant(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> usize {
        if self.is_paused(context.now) {
            return 0;
        }
        let Stage::Talking(talk) = &mut self.stage else { return 0 };
        let host = &mut *context.host;
        let mut granted = 0;
        match host.plan.activity {
            Activity::Handshakes | Activity::Idle => {}
            Activity::Visits => {
                if let (true, Some(due)) = (talk.may_visit(), self.tally.visit()) {
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
                    talk.look_after_rest(context.now);
                    talk.generator().grant(due);
                    host.outstanding += 1;
                    granted += 1;
                }
            }
        }
        granted
    }

    /// Moves what moves, and takes note of it.
    fn exchange(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Outcome {
        let Stage::Talking(talk) = &mut self.stage else { return Outcome::Closed };
        let now = context.now;
        let step = talk.run(now, context.parts("load", &""));
        if !matches!(step, Step::Close(_)) || !context.host.finished.is_empty() {
            self.entry_by = self.tally.note_admission(talk, now, context.host);
        }
        self.tally.note_strays(talk, context.host);
        if let Some(done) = self.tally.note_finished(talk, context.host) {
            self.think(done, context);
        }
        self.patience = context.host.patience(self.tally.lost_in_a_row());
        let Stage::Talking(talk) = &mut self.stage else { return Outcome::Closed };
        if let Step::Close(reason) = step {
            self.lose(&reason, context);
            return Outcome::Closed;
        }
        // What has come in time counts: all of it is read first.
        let is_late = step == Step::Wait
            && talk.waiting_since().is_some_and(|since| now >= since + self.patience);
        if is_late && context.host.work.datagrams {
            self.tally.note_lost(talk, now, context.host);
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

    /// Waits after a reply, where that is wanted.
    fn think(&mut self, done: Instant, context: &mut Context<'_, impl Source<Host = Host>>) {
        let think = context.host.plan.think;
        if !think.is_zero() {
            self.pause(done + think, context);
        }
    }

    /// Whether the connection has done all that it is for.
    fn is_done(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> bool {
        let Stage::Talking(talk) = &mut self.stage else { return false };
        match context.host.plan.activity {
            Activity::Idle => false,
            Activity::Requests if talk.is_ending() => {
                self.tally.note_ending(talk, context.host);
                true
            }
            Activity::Requests => talk.is_used_up(),
            Activity::Visits => talk.has_heard(),
            Activity::Handshakes => self.tally.note_handshake(talk, context.host),
        }
    }

    /// The session is over, and should not be.
    fn lose(&mut self, reason: &CloseReason, context: &mut Context<'_, impl Source<Host = Host>>) {
        let Stage::Talking(talk) = &mut self.stage else { return };
        self.tally.note_broken(talk, reason, context.host);
        self.close(*reason, context);
        self.try_again(context);
    }

    /// The connection could not be opened: the next try is for the next place, where there are more.
    fn fail_to_connect(
        &mut self,
        error: &io::Error,
        context: &mut Context<'_, impl Source<Host = Host>>,
    ) -> Next {
        context.host.dialed();
        self.stage = Stage::Resting;
        self.place += 1;
        self.tally.note_unreachable(error, context.host);
        self.try_again(context);
        Next::Wait
    }

    /// Begins anew after a failure: at once, or after a little where it was not the first in a row.
    fn try_again(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) {
        if self.tally.failures() > 1 {
            self.pause(context.now + PAUSE, context);
        } else {
            self.begin(context);
        }
    }

    fn close(&mut self, reason: CloseReason, context: &mut Context<'_, impl Source<Host = Host>>) {
        let now = context.now;
        if let Stage::Talking(mut talk) = std::mem::replace(&mut self.stage, Stage::Resting) {
            self.next_number = talk.generator().next_number();
            talk.dispose(reason, now, context.parts("load", &""));
        }
        self.entry_by = None;
        self.tally.note_closed(context.host);
    }

    fn pause(&mut self, until: Instant, context: &mut Context<'_, impl Source<Host = Host>>) {
        self.pause_until = Some(until);
        context.wake_at(until);
    }

    fn is_paused(&mut self, now: Instant) -> bool {
        self.pause_until = self.pause_until.filter(|until| *until > now);
        self.pause_until.is_some()
    }
}
