//! The stage: a session between two actors who say and hear what the test wants, in a time that
//! passes only when the test says so.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;

use zeroize::Zeroizing;

use crate::proto::buffer::Pool;
use crate::proto::end::Clock;
use crate::proto::event::{Observer, Subject, Watch};
use crate::proto::gate::{CHALLENGE_LEN, Challenge, Digest, Keyring, Secret};
use crate::proto::session::*;

/// Smaller than everything that is worth saying, but not than a challenge.
pub(super) const BLOCK: usize = 48;
pub(super) const CHALLENGE: Challenge = [7; CHALLENGE_LEN];
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A session between two scripted ends, in a time that passes only when the test says so.
pub(super) struct Scene {
    pub(super) session: Session<Actor, Actor>,
    pub(super) pool: Pool,
    began: Instant,
    now: Instant,
    pub(super) told: Told,
}

impl Scene {
    pub(super) fn new(admission: Admission, timeouts: Timeouts) -> Self {
        let now = Instant::now();
        let session =
            Session::new(Actor::default(), Actor::default(), admission, Rc::new(timeouts), now);
        Self { session, pool: Pool::new(BLOCK, 0), began: now, now, told: Told::default() }
    }

    pub(super) fn open() -> Self {
        Self::new(Admission::Open, Timeouts::default())
    }

    /// A gate that knows `alice`.
    pub(super) fn guard() -> Self {
        let keyring = Keyring::new(Digest::Md5, [&secret("alice", b"one"), &secret("bob", b"two")]);
        Self::new(Admission::Guard(Rc::new(keyring), CHALLENGE), Timeouts::default())
    }

    /// Alice before somebody else's gate.
    pub(super) fn guest() -> Self {
        let secret = Rc::new(secret("alice", b"one"));
        Self::new(Admission::Guest(secret, Digest::Md5), Timeouts::default())
    }

    /// An open session that carries bytes to somebody.
    pub(super) fn relay() -> Self {
        let mut scene = Self::open();
        scene.local().carries = true;
        assert_eq!(scene.run(), Step::Wait);
        scene
    }

    /// An open session whose service had nothing to say and is done.
    pub(super) fn served() -> Self {
        Self::served_with(Timeouts::default())
    }

    pub(super) fn served_with(timeouts: Timeouts) -> Self {
        let mut scene = Self::new(Admission::Open, timeouts);
        scene.local().is_done_after_last_word = true;
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.state(), StateName::Closing);
        scene
    }

    pub(super) fn remote(&mut self) -> &mut Actor {
        self.session.remote()
    }

    pub(super) fn local(&mut self) -> &mut Actor {
        self.session.local()
    }

    pub(super) fn state(&self) -> StateName {
        self.session.state_name()
    }

    /// The next deadline, counted from the beginning.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.session.deadline().map(|at| at - self.began)
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn run(&mut self) -> Step {
        let step = self.with_turn(Session::run);
        assert!(self.pool.lent() <= 2, "a session has two pipes");
        step
    }

    pub(super) fn enter(&mut self, state: State) {
        self.with_turn(|session, turn| session.enter(state, turn));
    }

    /// Ends the session; answers what was told of its life.
    pub(super) fn close(&mut self, reason: CloseReason) -> Life {
        self.with_turn(|session, turn| session.dispose(turn, &reason));
        self.told.life.take().expect("its end is reported")
    }

    fn with_turn<T>(
        &mut self,
        act: impl FnOnce(&mut Session<Actor, Actor>, &mut Turn<'_>) -> T,
    ) -> T {
        let watch = Watch::new(&mut self.told, 0, Subject::LOOP);
        let mut turn = Turn { now: self.now, pool: &mut self.pool, clock: &NoClock, watch };
        act(&mut self.session, &mut turn)
    }
}

pub(super) fn secret(name: &str, bytes: &[u8]) -> Secret {
    Secret::new(name, Zeroizing::new(bytes.to_vec()))
}

/// What Alice answers to the challenge.
pub(super) fn answer() -> Vec<u8> {
    secret("alice", b"one").answer(Digest::Md5, &CHALLENGE).as_bytes().to_vec()
}

/// An end that says its lines in one piece each, and hears as much as its window lets through.
pub(super) struct Actor {
    lines: VecDeque<Line>,
    pub(super) window: usize,
    heard: Vec<u8>,
    pub(super) heard_end: bool,
    pub(super) is_done_after_last_word: bool,
    /// Whether somebody is behind it.
    pub(super) carries: bool,
    /// Why it will hear nothing more.
    deaf: Option<Deafness>,
    pub(super) has_sent_all: bool,
    /// How often it was asked that.
    pub(super) questions: Cell<usize>,
    pub(super) was_cut_off: bool,
}

/// Whether it was told that an actor hears nothing.
enum Deafness {
    Untold(io::ErrorKind),
    Told,
}

enum Line {
    Bytes(Vec<u8>),
    End,
    Cut,
    Failure(io::ErrorKind),
}

impl Default for Actor {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            window: usize::MAX,
            heard: Vec::new(),
            heard_end: false,
            is_done_after_last_word: false,
            carries: false,
            deaf: None,
            has_sent_all: true,
            questions: Cell::new(0),
            was_cut_off: false,
        }
    }
}

impl Actor {
    pub(super) fn say(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.lines.push_back(Line::Bytes(bytes.to_vec()));
        }
    }

    pub(super) fn end(&mut self) {
        self.lines.push_back(Line::End);
    }

    pub(super) fn cut(&mut self) {
        self.lines.push_back(Line::Cut);
    }

    /// Hears nothing from here on.
    pub(super) fn go_deaf(&mut self, kind: io::ErrorKind) {
        self.deaf = Some(Deafness::Untold(kind));
    }

    pub(super) fn fail(&mut self, kind: io::ErrorKind) {
        self.lines.push_back(Line::Failure(kind));
    }

    /// What it has heard since it was last asked.
    pub(super) fn take_heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.heard)
    }

    /// How many bytes it has to say still.
    pub(super) fn unread(&self) -> usize {
        let len = |line: &Line| if let Line::Bytes(bytes) = line { bytes.len() } else { 0 };
        self.lines.iter().map(len).sum()
    }

    fn hear(&mut self, to: &mut Pipe, turn: &mut Turn<'_>) -> usize {
        let count = to.len().min(self.window);
        self.heard.extend(&to.bytes()[..count]);
        to.consume(turn.pool, count);
        self.window -= count;
        if to.is_drained() {
            to.finish();
            self.heard_end = true;
            return count + 1;
        }
        count
    }

    fn speak(&mut self, from: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        if !from.wants_more(turn.pool) {
            return Ok(0);
        }
        match self.lines.pop_front() {
            None => Ok(0),
            Some(Line::Failure(kind)) => Err(kind.into()),
            Some(Line::End) => {
                from.end();
                Ok(1)
            }
            Some(Line::Cut) => {
                from.cut();
                Ok(1)
            }
            Some(Line::Bytes(bytes)) => {
                let count = from.append(turn.pool, &bytes);
                if count < bytes.len() {
                    self.lines.push_front(Line::Bytes(bytes[count..].to_vec()));
                }
                Ok(count)
            }
        }
    }
}

impl End for Actor {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let heard = match self.deaf {
            None => self.hear(to, turn),
            Some(Deafness::Untold(kind)) if !to.is_empty() => {
                self.deaf = Some(Deafness::Told);
                return Ok(Progress::Deaf(kind));
            }
            Some(_) => 0,
        };
        let spoke = self.speak(from, turn)?;
        if self.is_done_after_last_word && self.lines.is_empty() {
            return Ok(Progress::Done);
        }
        Ok(Progress::Moved(heard + spoke))
    }

    fn has_carried(&self) -> bool {
        self.carries
    }

    fn has_sent_all(&self) -> bool {
        self.questions.set(self.questions.get() + 1);
        self.has_sent_all
    }

    fn cut_off(&mut self) {
        self.was_cut_off = true;
    }
}

/// An observer that remembers what it was told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) events: Vec<String>,
    life: Option<Life>,
}

/// A [`Summary`] that outlives what it summarises.
pub(super) struct Life {
    pub(super) reason: CloseReason,
    pub(super) state: StateName,
    pub(super) identity: Option<String>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) age: Duration,
}

impl Observer for Told {
    fn wants_detail(&self) -> bool {
        true
    }

    fn observe(&mut self, _turn: u64, _subject: &Subject<'_>, event: &Event<'_>) {
        self.events.push(event.to_string());
        if let Event::Closed(summary) = event {
            self.life = Some(Life {
                reason: *summary.reason,
                state: summary.state,
                identity: summary.identity.map(str::to_owned),
                received: summary.received,
                sent: summary.sent,
                age: summary.age,
            });
        }
    }
}

/// A session does not ask for the time of day.
struct NoClock;

impl Clock for NoClock {
    fn local_time(&self) -> jiff::Zoned {
        unreachable!("nobody here tells the time")
    }
}
