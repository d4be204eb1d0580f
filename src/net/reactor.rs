//! The reactor: one `Poll`, one slab of sources, one turn after the other.
//!
//! A turn waits for readiness, tells each source that became ready, and then runs the sources
//! that are *due*: ready, past their deadlines, just spawned, or stopped by their budget in the turn
//! before. Its neighbour `due` says in which order they run, and how many of them before the kernel is
//! asked again. What a source is and does is its own affair: the reactor knows no protocol and does
//! no input or output but waiting.
//!
//! Invariants: a key stands on `due` at most once; a source that leaves the slab takes its timer
//! with it; an event for a key whose source has gone is recognised by its generation and dropped;
//! no loop of a turn runs longer than the sources and events it began with, or than a turn may take;
//! a deadline is looked at only when everything is known that had happened before (a process may have
//! been stopped for longer than any deadline, and more may have happened than one call tells), so that
//! what has come in time counts.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use mio::event;
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use super::alarm::Alarms;
use super::due::{self, Due, Habit, Lane};
use super::timer::Wheel;
use crate::proto::buffer::Pool;
use crate::proto::end::Side;
use crate::proto::event::{Event, Observer, Readiness, Subject, Watch};

/// How many readiness events one turn takes from the kernel; the rest waits there.
const EVENTS_PER_TURN: usize = 1024;

/// Something that lives in the reactor: a connection, a listener, a signal handler.
pub trait Source: Sized {
    /// What all sources of one reactor share.
    type Host;

    /// It has entered the slab: it registers what it wants to hear about, and does what it can
    /// do at once.
    fn start(&mut self, context: &mut Context<'_, Self>) -> Next;

    /// The kernel said what one side can do now. Only to be remembered: `run` follows.
    fn handle_readiness(&mut self, side: Side, readiness: Readiness);

    /// Its turn has come.
    fn run(&mut self, context: &mut Context<'_, Self>) -> Next;

    /// When to run even if nothing becomes ready, or `None` for never.
    fn deadline(&self) -> Option<Instant>;

    /// Whether its next run is known to take long beside others, as a handshake does. It then waits
    /// among those like it, and the time that they take is measured.
    fn takes_long(&self) -> bool {
        false
    }
}

/// What a source wants after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To run after readiness or its deadline.
    Wait,
    /// To run again in the next turn, which will not sleep.
    Again,
    /// To leave the slab and be dropped.
    Close,
}

/// What a source is given for one run.
pub struct Context<'a, S: Source> {
    /// The time at which the turn's sources began to run.
    pub now: Instant,
    /// Where buffers get their storage.
    pub pool: &'a mut Pool,
    /// What all sources share.
    pub host: &'a mut S::Host,
    /// How many bytes this run may move. Who could move more says [`Next::Again`].
    pub slice: usize,
    /// What this run costs, in nanoseconds.
    cost: Cell<u64>,
    observer: &'a mut dyn Observer,
    turn: u64,
    key: usize,
    generation: u32,
    registry: &'a Registry,
    spawned: &'a mut VecDeque<S>,
    alarms: &'a mut Alarms<Waker>,
    woken: &'a mut Vec<Waker>,
    wake_all: &'a mut bool,
}

/// Stands for one source, so that another can make it run. What stands for a source that has gone
/// wakes nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waker {
    key: usize,
    generation: u32,
}

impl Waker {
    /// A small number that no other source has while this one lives.
    #[must_use]
    pub fn key(self) -> usize {
        self.key
    }
}

impl<S: Source> Context<'_, S> {
    /// Asks the kernel to report readiness of `handle` as this source's `side`.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register(
        &self,
        handle: &mut impl event::Source,
        side: Side,
        interest: Interest,
    ) -> io::Result<()> {
        self.registry.register(handle, encode(self.key, self.generation, side), interest)
    }

    /// The same for a handle that is both read and written.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register_duplex(&self, handle: &mut impl event::Source, side: Side) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.register(handle, side, interest)
    }

    /// Asks the kernel to report nothing more of `handle`, so that another source can register it.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn deregister(&self, handle: &mut impl event::Source) -> io::Result<()> {
        self.registry.deregister(handle)
    }

    /// Lets `source` enter the slab when the sources that are due have run.
    pub fn spawn(&mut self, source: S) {
        self.spawned.push_back(source);
    }

    /// Counts what this run does at the cost of the others beside its own system calls, about right. So
    /// the turn ends in time, and who spends much waits among those who do.
    pub fn spend(&self, nanoseconds: u64) {
        self.cost.set(self.cost.get().saturating_add(nanoseconds));
    }

    /// The same for bytes that it moved, which are taken from what is left of its slice.
    pub fn spend_bytes(&mut self, count: usize) {
        self.spend(due::bytes(count));
        self.slice = self.slice.saturating_sub(count);
    }

    /// What stands for this source.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker { key: self.key, generation: self.generation }
    }

    /// Makes another source due, because something that it waits for has happened.
    pub fn wake(&mut self, waker: Waker) {
        self.woken.push(waker);
    }

    /// Runs this source at `at`, exactly: its deadline is looked at only once in a while. Every
    /// alarm comes, also where a later call names an earlier moment.
    pub fn wake_at(&mut self, at: Instant) {
        self.alarms.add(at, self.waker());
    }

    /// Makes every source due in the next turn, because something that all of them look at has
    /// changed.
    pub fn wake_all(&mut self) {
        *self.wake_all = true;
    }

    /// Where to report what happens to this source.
    pub fn watch<'w>(&'w mut self, name: &'w str, peer: &'w dyn std::fmt::Display) -> Watch<'w> {
        let subject = Subject { key: Some(self.key), name, peer };
        Watch::new(self.observer, self.turn, subject)
    }

    /// What a session needs, borrowed from this context: storage, and where to report.
    pub fn parts<'w>(
        &'w mut self,
        name: &'w str,
        peer: &'w dyn std::fmt::Display,
    ) -> (&'w mut Pool, &'w mut S::Host, Watch<'w>) {
        let subject = Subject { key: Some(self.key), name, peer };
        (self.pool, self.host, Watch::new(self.observer, self.turn, subject))
    }
}

/// One `Poll`, one slab, one thread.
pub struct Reactor<S: Source> {
    poll: Poll,
    events: Events,
    sources: Slab<Slot<S>>,
    /// How often each key has been used; part of its tokens.
    generations: Vec<u32>,
    wheel: Wheel,
    alarms: Alarms<Waker>,
    due: Due,
    /// Those that have yet to enter the slab.
    spawned: VecDeque<S>,
    woken: Vec<Waker>,
    pool: Pool,
    observer: Box<dyn Observer>,
    host: S::Host,
    turn: u64,
    /// For how many turns the kernel has had more to tell than one call could.
    untold: usize,
}

struct Slot<S> {
    source: S,
    habit: Habit,
    is_due: bool,
}

impl<S: Source> Reactor<S> {
    /// A reactor without sources.
    ///
    /// # Errors
    /// Those of `epoll_create1(2)`.
    pub fn new(pool: Pool, observer: Box<dyn Observer>, host: S::Host) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            sources: Slab::new(),
            generations: Vec::new(),
            wheel: Wheel::new(Instant::now()),
            alarms: Alarms::new(),
            due: Due::default(),
            spawned: VecDeque::new(),
            woken: Vec::new(),
            pool,
            observer,
            host,
            turn: 0,
            untold: 0,
        })
    }

    /// What all sources share.
    pub fn host(&mut self) -> &mut S::Host {
        &mut self.host
    }

    /// Drops every source, and hands out what they shared.
    #[must_use]
    pub fn into_host(self) -> S::Host {
        self.host
    }

    /// What all sources share, and the sources, to be looked at between two turns.
    pub fn parts(&mut self) -> (&mut S::Host, impl Iterator<Item = &S>) {
        (&mut self.host, self.sources.iter().map(|(_, slot)| &slot.source))
    }

    /// How many sources there are, those that have yet to start among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sources.len() + self.spawned.len()
    }

    /// Whether there is no source: the loop would wait for ever.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets a source enter before the first turn, or between two.
    pub fn spawn(&mut self, source: S) {
        self.spawned.push_back(source);
        self.admit_spawned(Instant::now());
    }

    /// One turn: waits until something is due, then runs as much of it as a turn may.
    ///
    /// # Errors
    /// Those of `epoll_wait(2)`; being interrupted by a signal is not one.
    pub fn turn(&mut self) -> io::Result<()> {
        self.turn_within(None)
    }

    /// The same, but it waits no longer than `limit`.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn turn_within(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.turn += 1;
        let now = self.wait(limit)?;
        if self.has_heard_all() {
            self.expire(now);
        }
        self.ring(now);
        let mut ran = 0;
        self.due.begin_turn();
        while let Some((key, lane)) = self.due.next() {
            let cost = self.run(key as usize, (now, lane), Source::run);
            self.due.charge(lane, cost);
            ran += 1;
        }
        self.admit_spawned(now);
        Watch::new(&mut *self.observer, self.turn, Subject::LOOP)
            .detail(|| Event::TurnEnded { ran });
        Ok(())
    }

    /// Sleeps until readiness, the next deadline or `limit`, and hands the events out. Answers the
    /// time.
    fn wait(&mut self, limit: Option<Duration>) -> io::Result<Instant> {
        let before = Instant::now();
        let timeout = if self.due.is_empty() && self.spawned.is_empty() {
            let next = self.wheel.next_due().map(|at| at.saturating_duration_since(before));
            next.into_iter().chain(limit).min()
        } else {
            Some(Duration::ZERO)
        };
        self.alarms.arm(before, self.poll.registry(), ALARM)?;
        let mut outcome = self.poll.poll(&mut self.events, timeout);
        // A signal ended the sleep, perhaps the one that lets a stopped process go on: what has come
        // meanwhile is heard all the same, before any deadline is looked at.
        while outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
            outcome = self.poll.poll(&mut self.events, Some(Duration::ZERO));
        }
        outcome?;
        let now = Instant::now();
        let detail = self.observer.wants_detail();
        if detail {
            let events = self.events.iter().count();
            let event = Event::TurnBegan { blocked: now - before, events };
            self.observer.observe(self.turn, &Subject::LOOP, &event);
        }
        for event in &self.events {
            let (key, generation, side) = decode(event.token());
            if self.generations.get(key) != Some(&generation) {
                continue;
            }
            let Some(slot) = self.sources.get_mut(key) else { continue };
            let readiness = readiness(event);
            if detail {
                let subject = Subject { key: Some(key), ..Subject::LOOP };
                self.observer.observe(self.turn, &subject, &Event::Ready(side, readiness));
            }
            slot.source.handle_readiness(side, readiness);
            mark_due(&mut self.due, slot, key);
        }
        Ok(now)
    }

    /// Whether the kernel has told everything that happened before this turn. It tells in order, so
    /// after as many full turns as there are sources to tell of, it has.
    fn has_heard_all(&mut self) -> bool {
        let is_full = self.events.iter().nth(EVENTS_PER_TURN - 1).is_some();
        let enough = 1 + 2 * self.sources.len() / EVENTS_PER_TURN;
        self.untold = if is_full { self.untold + 1 } else { 0 };
        !is_full || self.untold > enough
    }

    /// Makes due what is past its deadline, and files again what only looked so.
    fn expire(&mut self, now: Instant) {
        while let Some(key) = self.wheel.expire(now) {
            let Some(slot) = self.sources.get_mut(key) else { continue };
            match slot.source.deadline() {
                Some(at) if at > now => self.wheel.file(key, at),
                Some(_) => mark_due(&mut self.due, slot, key),
                None => {}
            }
        }
    }

    /// Makes due whose alarm has come.
    fn ring(&mut self, now: Instant) {
        while let Some(waker) = self.alarms.expire(now) {
            self.woken.push(waker);
        }
        self.wake_woken();
    }

    /// Runs one source; answers what it cost.
    fn run(
        &mut self,
        key: usize,
        (now, lane): (Instant, Lane),
        step: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next,
    ) -> u64 {
        let slot = &mut self.sources[key];
        slot.is_due = false;
        let began = (lane != Lane::Prompt).then(Instant::now);
        let mut wake_all = false;
        let mut context = Context {
            now,
            pool: &mut self.pool,
            host: &mut self.host,
            slice: lane.slice(),
            cost: Cell::new(due::RUN),
            observer: &mut *self.observer,
            turn: self.turn,
            key,
            generation: self.generations[key],
            registry: self.poll.registry(),
            spawned: &mut self.spawned,
            alarms: &mut self.alarms,
            woken: &mut self.woken,
            wake_all: &mut wake_all,
        };
        let next = step(&mut slot.source, &mut context);
        let estimate = context.cost.get();
        // A handshake says nothing about what the connection does once it is over.
        if lane != Lane::Long {
            slot.habit.add(estimate);
        }
        match next {
            Next::Close => self.remove(key),
            Next::Again => mark_due(&mut self.due, slot, key),
            Next::Wait => {}
        }
        if next != Next::Close
            && let Some(at) = slot_deadline(&self.sources, key)
        {
            self.wheel.file(key, at);
        }
        self.wake_woken();
        if wake_all {
            for (key, slot) in &mut self.sources {
                mark_due(&mut self.due, slot, key);
            }
        }
        began.map_or(estimate, |began| began.elapsed().as_nanos() as u64)
    }

    /// What another source has news for is told at once, whatever else it is about to do.
    fn wake_woken(&mut self) {
        for Waker { key, generation } in self.woken.drain(..) {
            if self.generations[key] == generation
                && let Some(slot) = self.sources.get_mut(key)
            {
                mark_due_in(&mut self.due, slot, (key, slot.habit.lane()));
            }
        }
    }

    /// Dropping a source closes its descriptors, which takes them out of epoll (epoll(7)).
    fn remove(&mut self, key: usize) {
        self.wheel.cancel(key);
        self.generations[key] = self.generations[key].wrapping_add(1) & GENERATION_MASK;
        drop(self.sources.remove(key));
    }

    /// Spawned sources enter the slab and start, as many as a turn may; those that are left, and what
    /// they spawn in turn, wait for the next.
    fn admit_spawned(&mut self, now: Instant) {
        let mut spent = 0;
        for _ in 0..self.spawned.len() {
            if spent >= due::ALLOWANCE {
                return;
            }
            let Some(source) = self.spawned.pop_front() else { return };
            let slot = Slot { source, habit: Habit::default(), is_due: false };
            let key = self.sources.insert(slot);
            if key == self.generations.len() {
                self.generations.push(0);
            }
            let subject = Subject { key: Some(key), ..Subject::LOOP };
            Watch::new(&mut *self.observer, self.turn, subject).detail(|| Event::Spawned);
            spent += self.run(key, (now, Lane::Prompt), Source::start);
        }
    }
}

fn slot_deadline<S: Source>(sources: &Slab<Slot<S>>, key: usize) -> Option<Instant> {
    sources[key].source.deadline()
}

fn mark_due<S: Source>(due: &mut Due, slot: &mut Slot<S>, key: usize) {
    let lane = if slot.source.takes_long() { Lane::Long } else { slot.habit.lane() };
    mark_due_in(due, slot, (key, lane));
}

fn mark_due_in<S>(due: &mut Due, slot: &mut Slot<S>, (key, lane): (usize, Lane)) {
    if !slot.is_due {
        slot.is_due = true;
        due.push(key as u32, lane);
    }
}

const GENERATION_MASK: u32 = u32::MAX >> 1;

/// The token of the alarms' timer: of a key that no source has, so its events are dropped once they
/// have ended the sleep.
const ALARM: Token = Token((u32::MAX as usize) << 1);

/// A token is, from the top: 31 bits of generation, 32 bits of slab key, one bit of side.
fn encode(key: usize, generation: u32, side: Side) -> Token {
    Token((generation as usize) << 33 | key << 1 | usize::from(side == Side::Local))
}

fn decode(token: Token) -> (usize, u32, Side) {
    let side = if token.0 & 1 == 0 { Side::Remote } else { Side::Local };
    ((token.0 >> 1) & u32::MAX as usize, (token.0 >> 33) as u32, side)
}

/// An error or a hang-up makes both directions ready: the next call reports it.
fn readiness(event: &event::Event) -> Readiness {
    let failed = event.is_error();
    let mut readiness = Readiness::NONE;
    if event.is_readable() || event.is_read_closed() || failed {
        readiness = readiness.with(Readiness::READABLE);
    }
    if event.is_writable() || event.is_write_closed() || failed {
        readiness = readiness.with(Readiness::WRITABLE);
    }
    if event.is_read_closed() || failed {
        readiness = readiness.with(Readiness::READ_CLOSED);
    }
    if failed {
        readiness = readiness.with(Readiness::FAILED);
    }
    if event.is_priority() {
        readiness = readiness.with(Readiness::URGENT);
    }
    readiness
}

#[cfg(test)]
mod tests {
    use crate::proto::event::Silent;

    use super::*;

    /// Writes down that it ran, and wakes whoever the host says.
    struct Sleeper(&'static str);

    #[derive(Default)]
    struct Diary {
        ran: Vec<&'static str>,
        wakers: Vec<Waker>,
        to_wake: Vec<Waker>,
        ends: bool,
    }

    impl Source for Sleeper {
        type Host = Diary;

        fn start(&mut self, context: &mut Context<'_, Self>) -> Next {
            let waker = context.waker();
            context.host.wakers.push(waker);
            Next::Again
        }

        fn handle_readiness(&mut self, _: Side, _: Readiness) {}

        fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
            context.host.ran.push(self.0);
            for waker in std::mem::take(&mut context.host.to_wake) {
                context.wake(waker);
            }
            if context.host.ends { Next::Close } else { Next::Wait }
        }

        fn deadline(&self) -> Option<Instant> {
            // No turn of these tests sleeps for ever.
            Some(Instant::now() + Duration::from_millis(1))
        }
    }

    #[test]
    fn a_waker_wakes_its_own_source_once_and_not_its_successor() {
        let pool = Pool::new(4096, 1);
        let mut reactor =
            Reactor::new(pool, Box::new(Silent), Diary::default()).expect("a reactor");
        reactor.spawn(Sleeper("one"));
        reactor.spawn(Sleeper("two"));
        let wakers = std::mem::take(&mut reactor.host().wakers);
        reactor.host().to_wake = vec![wakers[0], wakers[0], wakers[1]];
        reactor.turn().expect("a turn");
        // "two" was due already and not yet run when "one" woke it.
        assert_eq!(reactor.host().ran, ["one", "two"]);
        reactor.host().ends = true;
        reactor.turn().expect("a turn");
        assert_eq!(reactor.host().ran, ["one", "two", "one"], "woken by itself, once");

        reactor.spawn(Sleeper("successor"));
        let successor = reactor.host().wakers[0];
        assert_eq!(successor.key, wakers[0].key);
        reactor.host().ran.clear();
        reactor.host().ends = false;
        reactor.host().to_wake = vec![wakers[0]];
        reactor.turn().expect("a turn");
        assert_eq!(reactor.host().ran, ["successor"]);
        assert!(reactor.due.is_empty(), "a stale waker wakes nobody");
    }

    /// Does nothing but spend, and writes down that it has.
    #[derive(Clone)]
    struct Worker {
        name: &'static str,
        takes_long: bool,
        cost: u64,
        /// Whom its start brings into the world.
        children: Vec<Worker>,
    }

    #[derive(Default)]
    struct Workshop {
        ran: Vec<&'static str>,
        /// Whom the next run wakes.
        to_wake: Option<Waker>,
        wakers: Vec<Waker>,
    }

    fn worker(name: &'static str) -> Worker {
        Worker { name, takes_long: false, cost: 0, children: Vec::new() }
    }

    impl Source for Worker {
        type Host = Workshop;

        fn start(&mut self, context: &mut Context<'_, Self>) -> Next {
            let waker = context.waker();
            context.host.wakers.push(waker);
            let children = std::mem::take(&mut self.children);
            if children.is_empty() {
                context.spend(self.cost);
            }
            children.into_iter().for_each(|child| context.spawn(child));
            Next::Again
        }

        fn handle_readiness(&mut self, _: Side, _: Readiness) {}

        fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
            context.spend(self.cost);
            if self.takes_long {
                let began = Instant::now();
                while (began.elapsed().as_nanos() as u64) < due::ALLOWANCE {}
            }
            context.host.ran.push(self.name);
            if let Some(waker) = context.host.to_wake.take() {
                context.wake(waker);
            }
            Next::Wait
        }

        fn deadline(&self) -> Option<Instant> {
            None
        }

        fn takes_long(&self) -> bool {
            self.takes_long
        }
    }

    fn workshop(workers: impl IntoIterator<Item = Worker>) -> Reactor<Worker> {
        let pool = Pool::new(4096, 1);
        let mut reactor =
            Reactor::new(pool, Box::new(Silent), Workshop::default()).expect("a reactor");
        workers.into_iter().for_each(|it| reactor.spawn(it));
        reactor
    }

    /// Who ran in the next turn, which does not sleep.
    fn turn(reactor: &mut Reactor<Worker>) -> Vec<&'static str> {
        reactor.turn_within(Some(Duration::ZERO)).expect("a turn");
        std::mem::take(&mut reactor.host().ran)
    }

    #[test]
    fn a_turn_is_bounded_as_a_whole_and_the_next_goes_on_where_it_ended() {
        let half = due::ALLOWANCE / 2;
        // Waiting for the first run costs nothing: they are in their places before they are dear.
        let mut reactor = workshop(["a", "b", "c", "d", "e"].map(worker));
        reactor.sources.iter_mut().for_each(|(_, slot)| slot.source.cost = half);
        assert_eq!(turn(&mut reactor), ["a", "b"]);
        let first = reactor.host().wakers[0];
        reactor.host().to_wake = Some(first);
        assert_eq!(turn(&mut reactor), ["c", "d"]);
        assert_eq!(turn(&mut reactor), ["e", "a"], "`a` was due last, and is bulky now");
        assert_eq!(turn(&mut reactor), [""; 0]);
    }

    #[test]
    fn those_that_take_long_run_one_a_turn_and_a_prompt_one_between_them() {
        let long = |name| Worker { takes_long: true, ..worker(name) };
        let mut reactor = workshop([long("one"), long("two"), long("three"), worker("prompt")]);
        assert_eq!(turn(&mut reactor), ["prompt", "one"]);
        let prompt = reactor.host().wakers[3];
        reactor.woken.push(prompt);
        reactor.wake_woken();
        assert_eq!(turn(&mut reactor), ["prompt"], "the other lane has had its half");
        assert_eq!(turn(&mut reactor), ["two"], "nobody else has anything to do");
        assert_eq!(turn(&mut reactor), ["three"]);
    }

    #[test]
    fn those_that_are_spawned_together_start_over_as_many_turns_as_they_need() {
        let dear = Worker { cost: due::ALLOWANCE, ..worker("child") };
        let mut reactor = workshop([Worker { children: vec![dear; 3], ..worker("parent") }]);
        assert_eq!((reactor.sources.len(), reactor.len()), (1, 4));
        for started in 2..=4 {
            turn(&mut reactor);
            assert_eq!(reactor.sources.len(), started);
        }
        assert_eq!(reactor.len(), 4);
    }
}
