//! The local end of a simulated session, with somebody who looks over its shoulder.

use std::io;
use std::time::Instant;

use turnstile::proto::end::{End, Progress, Turn};
use turnstile::proto::pipe::Pipe;

use crate::wire::{BLOCKS_PER_SESSION, Wire};

/// A service or a wire, and what was seen of it.
pub(crate) struct Probe {
    pub(crate) local: Local,
    /// When it was first given a turn: that is, when somebody was let in.
    pub(crate) reached_at: Option<Instant>,
    /// Each time a service did something: what it saw when it did.
    pub(crate) looks: Vec<Look>,
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
            done_at: None,
            is_open: true,
            ends_heard: 0,
            moved: 0,
            moved_at: None,
        }
    }

    /// The wire, where it is one.
    pub(crate) fn wire(&mut self) -> Option<&mut Wire> {
        match &mut self.local {
            Local::Wire(wire) => Some(wire),
            Local::Service(_) => None,
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
        assert!(turn.pool.lent() <= BLOCKS_PER_SESSION, "holds {} blocks", turn.pool.lent());
        self.reached_at.get_or_insert(turn.now);
        let was_finished = to.is_finished();
        let progress = match &mut self.local {
            Local::Wire(wire) => wire.exchange(to, from, turn)?,
            Local::Service(service) => {
                let (message, has_ended) = (to.bytes().to_vec(), !to.is_open());
                let progress = service.exchange(to, from, turn)?;
                if progress != Progress::Moved(0) {
                    self.looks.push(Look { at: turn.now, message, has_ended });
                }
                progress
            }
        };
        self.ends_heard += usize::from(to.is_finished() && !was_finished);
        self.is_open = from.is_open();
        match progress {
            Progress::Moved(0) => {}
            Progress::Moved(count) => {
                self.moved += count;
                self.moved_at = Some(turn.now);
            }
            Progress::Done => self.done_at = Some(turn.now),
            Progress::Broken => panic!("a plain end has no rules that could be broken"),
        }
        Ok(progress)
    }
}
