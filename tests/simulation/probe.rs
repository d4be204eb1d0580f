//! The local end of a simulated session, with somebody who looks over its shoulder.

use std::io;
use std::time::Instant;

use turnstile::proto::buffer::Pool;
use turnstile::proto::end::{End, Progress, Turn};
use turnstile::proto::pipe::Pipe;

use crate::call::Call;
use crate::relay::{Entry, Exit};
use crate::wire::{BLOCKS_PER_SESSION, Wire};

/// A service or a wire, and what was seen of it.
pub(crate) struct Probe {
    pub(crate) local: Local,
    /// When it was first given a turn: that is, when somebody was let in.
    pub(crate) reached_at: Option<Instant>,
    /// Each time a service did something: what it saw when it did.
    pub(crate) looks: Vec<Look>,
    /// What it said when it failed.
    pub(crate) failure: Option<io::ErrorKind>,
    /// When it said that it was done.
    pub(crate) done_at: Option<Instant>,
    /// Whether the remote end may still be sent to.
    pub(crate) is_open: bool,
    /// How often it was told that nothing more will come.
    pub(crate) ends_heard: usize,
    /// How much moved in this run.
    pub(crate) moved: usize,
    /// The last time that anything moved.
    pub(crate) moved_at: Option<Instant>,
}

/// What an admitted peer talks to.
pub(crate) enum Local {
    Service(Box<dyn End>),
    Wire(Wire),
    Entry(Entry),
    Exit(Exit),
}

/// What a service saw, and when.
pub(crate) struct Look {
    pub(crate) at: Instant,
    pub(crate) message: Vec<u8>,
    /// Whether nothing more will come.
    pub(crate) has_ended: bool,
}

impl Look {
    /// Whether there was a message, or the end in place of one.
    pub(crate) fn was_asked(&self) -> bool {
        !self.message.is_empty() || self.has_ended
    }
}

impl Probe {
    pub(crate) fn new(local: Local) -> Self {
        Self {
            local,
            reached_at: None,
            looks: Vec::new(),
            failure: None,
            done_at: None,
            is_open: true,
            ends_heard: 0,
            moved: 0,
            moved_at: None,
        }
    }

    /// The wire, where there is one.
    pub(crate) fn wire(&mut self) -> Option<&mut Wire> {
        match &mut self.local {
            Local::Wire(wire) => Some(wire),
            Local::Entry(entry) => Some(entry.end.end()),
            Local::Exit(exit) => exit.end.onward().and_then(Call::wire),
            Local::Service(_) => None,
        }
    }

    /// Takes the news in; answers whether there were any.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        match &mut self.local {
            Local::Exit(exit) => exit.end.onward().is_some_and(|call| call.poll(now)),
            _ => self.wire().is_some_and(|wire| wire.poll(now)),
        }
    }

    /// When the next news arrive.
    pub(crate) fn next_news(&mut self) -> Option<Instant> {
        match &mut self.local {
            Local::Exit(exit) => exit.end.onward_ref()?.next_news(),
            _ => self.wire()?.plug.next_news(),
        }
    }

    /// Makes the call that an exit wants; answers whether the session may go on after it.
    pub(crate) fn calls_onward(&mut self, now: Instant) -> bool {
        match &mut self.local {
            Local::Exit(exit) => exit.call(now),
            _ => false,
        }
    }

    /// When it must have its turn, once somebody was let in.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.local {
            Local::Entry(entry) => entry.end.deadline(),
            Local::Exit(exit) => exit.end.deadline(),
            Local::Service(_) | Local::Wire(_) => None,
        }
    }

    /// Whether it does not carry anybody's bytes yet.
    pub(crate) fn is_opening(&self) -> bool {
        self.blocks_to_open() > 0
    }

    /// Whether it may keep the end of what the peer says to itself, for there is nobody yet.
    pub(crate) fn may_keep_the_end(&self) -> bool {
        match &self.local {
            Local::Exit(exit) => exit.end.onward_ref().is_some() && !exit.is_joined(),
            _ => self.is_opening(),
        }
    }

    /// How many blocks may be held until it does: what the peer says waits, and so does what the
    /// other side of an introduction has not said to its end.
    pub(crate) fn blocks_to_open(&self) -> usize {
        match &self.local {
            Local::Entry(entry) => BLOCKS_PER_SESSION * usize::from(entry.end.is_introducing()),
            Local::Exit(exit) => usize::from(!exit.is_joined()),
            Local::Service(_) | Local::Wire(_) => 0,
        }
    }

    /// Somebody was let in.
    fn begin(&mut self, now: Instant) {
        self.reached_at = Some(now);
        match &mut self.local {
            Local::Entry(entry) => entry.begin(now),
            Local::Exit(exit) => exit.begin(now),
            Local::Service(_) | Local::Wire(_) => {}
        }
    }

    /// A run begins.
    pub(crate) fn begin_run(&mut self) {
        self.moved = 0;
        if let Some(wire) = self.wire() {
            wire.begin_run();
        }
    }
}

impl End for Probe {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        assert_eq!(self.done_at, None, "given another turn although it was done");
        let most = BLOCKS_PER_SESSION + self.blocks_to_open();
        assert!(turn.pool.lent() <= most, "holds {} blocks", turn.pool.lent());
        if self.reached_at.is_none() {
            self.begin(turn.now);
        }
        let was_finished = to.is_finished();
        let outcome = match &mut self.local {
            Local::Wire(wire) => wire.exchange(to, from, turn),
            Local::Entry(entry) => entry.end.exchange(to, from, turn),
            Local::Exit(exit) => exit.exchange(to, from, turn),
            Local::Service(service) => {
                let (message, has_ended) = (to.bytes().to_vec(), !to.is_open());
                let outcome = service.exchange(to, from, turn);
                if !matches!(outcome, Ok(Progress::Moved(0))) {
                    self.looks.push(Look { at: turn.now, message, has_ended });
                }
                outcome
            }
        };
        let progress = outcome.inspect_err(|error| {
            self.failure.get_or_insert(error.kind());
        })?;
        self.ends_heard += usize::from(to.is_finished() && !was_finished);
        self.is_open = from.is_open();
        match progress {
            Progress::Moved(0) => {}
            Progress::Moved(count) => {
                self.moved += count;
                self.moved_at = Some(turn.now);
            }
            Progress::Done => self.done_at = Some(turn.now),
            Progress::Deaf(kind) => self.failure = Some(kind),
            Progress::Broken => panic!("a plain end has no rules that could be broken"),
        }
        Ok(progress)
    }

    fn has_carried(&self) -> bool {
        match &self.local {
            // Nobody was let in, so nobody was called.
            Local::Wire(_) | Local::Exit(_) if self.reached_at.is_none() => false,
            Local::Service(service) => service.has_carried(),
            Local::Wire(wire) => wire.has_carried(),
            Local::Entry(entry) => entry.end.has_carried(),
            Local::Exit(exit) => exit.end.has_carried(),
        }
    }

    fn cut_off(&mut self) {
        match &mut self.local {
            // Nobody was let in, so nobody was called.
            Local::Wire(_) | Local::Exit(_) if self.reached_at.is_none() => {}
            Local::Service(service) => service.cut_off(),
            Local::Wire(wire) => wire.cut_off(),
            Local::Entry(entry) => entry.end.cut_off(),
            Local::Exit(exit) => exit.end.cut_off(),
        }
    }

    fn dispose(&mut self, pool: &mut Pool) {
        match &mut self.local {
            Local::Service(service) => service.dispose(pool),
            Local::Wire(wire) => wire.dispose(pool),
            Local::Entry(entry) => entry.end.dispose(pool),
            Local::Exit(exit) => exit.end.dispose(pool),
        }
    }
}
