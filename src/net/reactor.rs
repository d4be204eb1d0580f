//! The reactor: one `Poll`, one slab of sources, one turn after the other.
//!
//! A turn waits for readiness, tells each source that became ready, and then runs every source
//! that is *due*: ready, past its deadline, just spawned, or stopped by its budget in the turn
//! before. What a source is and does is its own affair: the reactor knows no protocol and does no
//! input or output but waiting.
//!
//! Invariants: a key stands on `due` at most once; a source that leaves the slab takes its timer
//! with it; an event for a key whose source has gone is recognised by its generation and dropped;
//! no loop of a turn runs longer than the sources and events it began with.

use std::io;
use std::time::{Duration, Instant};

use mio::event;
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use super::alarm::Alarms;
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
    observer: &'a mut dyn Observer,
    turn: u64,
    key: usize,
    generation: u32,
    registry: &'a Registry,
    spawned: &'a mut Vec<S>,
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
        self.spawned.push(source);
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
    due: Vec<u32>,
    /// Last turn's `due`, empty, kept for its storage.
    batch: Vec<u32>,
    spawned: Vec<S>,
    woken: Vec<Waker>,
    pool: Pool,
    observer: Box<dyn Observer>,
    host: S::Host,
    turn: u64,
}

struct Slot<S> {
    source: S,
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
            due: Vec::new(),
            batch: Vec::new(),
            spawned: Vec::new(),
            woken: Vec::new(),
            pool,
            observer,
            host,
            turn: 0,
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

    /// How many sources there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there is no source: the loop would wait for ever.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Lets a source enter before the first turn, or between two.
    pub fn spawn(&mut self, source: S) {
        self.spawned.push(source);
        self.admit_spawned(Instant::now());
    }

    /// One turn: waits until something is due, then runs it.
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
        self.expire(now);
        let mut batch = std::mem::replace(&mut self.due, std::mem::take(&mut self.batch));
        let ran = batch.len();
        for key in batch.drain(..) {
            self.run(key as usize, now, Source::run);
        }
        self.batch = batch;
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
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            outcome => outcome?,
        }
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

    /// Makes due what is past its deadline or alarm, and files again what only looked so.
    fn expire(&mut self, now: Instant) {
        while let Some(key) = self.wheel.expire(now) {
            let Some(slot) = self.sources.get_mut(key) else { continue };
            match slot.source.deadline() {
                Some(at) if at > now => self.wheel.file(key, at),
                Some(_) => mark_due(&mut self.due, slot, key),
                None => {}
            }
        }
        while let Some(waker) = self.alarms.expire(now) {
            self.woken.push(waker);
        }
        self.wake_woken();
    }

    fn run(
        &mut self,
        key: usize,
        now: Instant,
        step: impl FnOnce(&mut S, &mut Context<'_, S>) -> Next,
    ) {
        let slot = &mut self.sources[key];
        slot.is_due = false;
        let mut wake_all = false;
        let next = step(
            &mut slot.source,
            &mut Context {
                now,
                pool: &mut self.pool,
                host: &mut self.host,
                observer: &mut *self.observer,
                turn: self.turn,
                key,
                generation: self.generations[key],
                registry: self.poll.registry(),
                spawned: &mut self.spawned,
                alarms: &mut self.alarms,
                woken: &mut self.woken,
                wake_all: &mut wake_all,
            },
        );
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
    }

    fn wake_woken(&mut self) {
        for Waker { key, generation } in self.woken.drain(..) {
            if self.generations[key] == generation
                && let Some(slot) = self.sources.get_mut(key)
            {
                mark_due(&mut self.due, slot, key);
            }
        }
    }

    /// Dropping a source closes its descriptors, which takes them out of epoll (epoll(7)).
    fn remove(&mut self, key: usize) {
        self.wheel.cancel(key);
        self.generations[key] = self.generations[key].wrapping_add(1) & GENERATION_MASK;
        drop(self.sources.remove(key));
    }

    /// Spawned sources enter the slab and start; what they spawn in turn waits for the next turn.
    fn admit_spawned(&mut self, now: Instant) {
        if self.spawned.is_empty() {
            return;
        }
        let mut arriving = std::mem::take(&mut self.spawned);
        for source in arriving.drain(..) {
            let key = self.sources.insert(Slot { source, is_due: false });
            if key == self.generations.len() {
                self.generations.push(0);
            }
            let subject = Subject { key: Some(key), ..Subject::LOOP };
            Watch::new(&mut *self.observer, self.turn, subject).detail(|| Event::Spawned);
            self.run(key, now, Source::start);
        }
        arriving.append(&mut self.spawned);
        self.spawned = arriving;
    }
}

fn slot_deadline<S: Source>(sources: &Slab<Slot<S>>, key: usize) -> Option<Instant> {
    sources[key].source.deadline()
}

fn mark_due<S>(due: &mut Vec<u32>, slot: &mut Slot<S>, key: usize) {
    if !slot.is_due {
        slot.is_due = true;
        due.push(key as u32);
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
}
