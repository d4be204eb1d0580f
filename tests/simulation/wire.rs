//! An end of a session that is one end of a simulated connection. It treats readiness exactly as
//! `net::socket` does, and keeps a record of all that went through it.

use std::io;
use std::time::Instant;

use turnstile::proto::end::{End, Progress, Side, Turn};
use turnstile::proto::event::{Event, Readiness, Transfer};
use turnstile::proto::pipe::Pipe;
use turnstile::proto::session::CloseReason;
use turnstile::proto::session::TURN_BUDGET;

use crate::link::Plug;

/// A session owns two pipes, and each holds one block at the most.
pub(crate) const BLOCKS_PER_SESSION: usize = 2;

/// An introduction brings two more.
const MOST_BLOCKS: usize = BLOCKS_PER_SESSION + 2;

/// The simulated socket.
pub(crate) struct Wire {
    pub(crate) plug: Plug,
    side: Side,
    readiness: Readiness,
    is_cut_off: bool,
    pub(crate) record: Record,
}

/// What went through a wire.
#[derive(Default)]
pub(crate) struct Record {
    /// Every byte read from the connection.
    pub(crate) taken: Vec<u8>,
    /// Every byte written to it.
    pub(crate) sent: Vec<u8>,
    /// Whether the end of the stream was read.
    pub(crate) heard_end: bool,
    /// Whether the end of the stream was passed on.
    pub(crate) passed_end: bool,
    pub(crate) failure: Option<io::ErrorKind>,
    /// Whether nothing more comes from it.
    pub(crate) is_lost: bool,
    /// How much moved in this run.
    pub(crate) moved: usize,
    /// The last time that anything moved.
    pub(crate) moved_at: Option<Instant>,
    /// What the session would have liked to move when it stopped.
    wants_more: bool,
    wants_out: bool,
    /// Whether it ever had a turn.
    pub(crate) was_used: bool,
    exchanges: usize,
}

impl Wire {
    /// It can be written to until the kernel says otherwise, and read from once news says so.
    pub(crate) fn new(plug: Plug, side: Side) -> Self {
        let record = Record::default();
        Self { plug, side, readiness: Readiness::WRITABLE, is_cut_off: false, record }
    }

    /// Takes the news in; answers whether there were any.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let news = self.plug.poll(now);
        self.readiness = self.readiness.with(news);
        news != Readiness::NONE
    }

    /// A run begins.
    pub(crate) fn begin_run(&mut self) {
        self.record.moved = 0;
        self.record.exchanges = 0;
    }

    /// Whether bytes wait that could not be written.
    pub(crate) fn wants_out(&self) -> bool {
        self.record.wants_out
    }

    /// The session waits: is there nothing that it could have moved, or will never hear of?
    pub(crate) fn check_quiet(&self) {
        if self.record.is_lost {
            return;
        }
        for (wants, possible, bit) in [
            (self.record.wants_more, self.plug.is_readable(), Readiness::READABLE),
            (self.record.wants_out, self.plug.is_writable(), Readiness::WRITABLE),
        ] {
            let is_known = self.readiness.contains(bit);
            assert!(!(wants && possible && is_known), "waits although {} is {bit}", self.side);
            let is_lost = wants && possible && !self.plug.expects(bit);
            assert!(!is_lost, "{} is {bit} and nobody will ever say so", self.side);
        }
    }

    /// The session has closed.
    pub(crate) fn close(&self, now: Instant, reason: CloseReason) {
        if self.is_cut_off {
            let is_whole = self.record.passed_end && reason.is_given_up();
            assert!(!is_whole, "takes the end of a whole stream back");
            self.plug.reset(now);
        } else {
            self.plug.close(now);
        }
    }

    fn attempt(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<usize> {
        let mut moved = 0;
        let is_deaf = self.record.failure.is_some();
        if !is_deaf && !to.is_empty() && self.readiness.contains(Readiness::WRITABLE) {
            moved += self.flush(to, turn)?;
        }
        if !is_deaf && to.is_drained() {
            self.plug.end(turn.now);
            self.record.passed_end = true;
            turn.watch.detail(|| Event::Write(self.side, Transfer::End));
            to.finish();
            moved += 1;
        }
        if self.readiness.contains(Readiness::READABLE) && from.wants_more(turn.pool) {
            moved += self.fill(from, turn)?;
        }
        Ok(moved)
    }

    fn flush(&mut self, to: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        let transfer = match self.plug.write(to.bytes(), turn.now) {
            Ok(count) => {
                if count < to.len() {
                    self.readiness = self.readiness.without(Readiness::WRITABLE);
                }
                self.record.sent.extend(&to.bytes()[..count]);
                to.consume(turn.pool, count);
                Transfer::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness = self.readiness.without(Readiness::WRITABLE);
                Transfer::WouldBlock
            }
            Err(error) => {
                self.record.failure = Some(error.kind());
                return Err(error);
            }
        };
        turn.watch.detail(|| Event::Write(self.side, transfer));
        Ok(moved(transfer))
    }

    fn fill(&mut self, from: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        let (plug, taken, mut offered) = (&self.plug, &mut self.record.taken, 0);
        let outcome = from.fill(turn.pool, |space| {
            offered = space.len();
            let count = plug.read(space, turn.now)?;
            taken.extend(&space[..count]);
            Ok::<_, io::Error>(count)
        });
        let transfer = match outcome {
            Ok(0) => {
                match self.record.failure {
                    None | Some(io::ErrorKind::BrokenPipe) => from.end(),
                    Some(_) => from.cut(),
                }
                self.record.heard_end = !from.is_cut();
                self.readiness = self.readiness.without(Readiness::READABLE);
                Transfer::End
            }
            Ok(count) => {
                if count < offered && !self.readiness.contains(Readiness::READ_CLOSED) {
                    self.readiness = self.readiness.without(Readiness::READABLE);
                }
                Transfer::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness = self.readiness.without(Readiness::READABLE);
                Transfer::WouldBlock
            }
            Err(error) => return Err(error),
        };
        turn.watch.detail(|| Event::Read(self.side, transfer));
        Ok(moved(transfer))
    }
}

impl End for Wire {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        assert!(turn.pool.lent() <= MOST_BLOCKS, "holds {} blocks", turn.pool.lent());
        assert!(!self.record.is_lost, "used after it had failed");
        self.record.was_used = true;
        self.record.exchanges += 1;
        assert!(self.record.exchanges <= TURN_BUDGET, "a run without end");
        let was_deaf = self.record.failure.is_some();
        let outcome = self.attempt(to, from, turn);
        let is_deaf = self.record.failure.is_some();
        self.record.wants_more = from.is_open() && from.len() < turn.pool.block_len();
        self.record.wants_out = !to.is_empty() && !is_deaf;
        match outcome {
            Ok(count) => {
                self.record.moved += count;
                self.record.moved_at =
                    if count > 0 { Some(turn.now) } else { self.record.moved_at };
                Ok(Progress::Moved(count))
            }
            Err(error) if is_deaf && !was_deaf => Ok(Progress::Deaf(error.kind())),
            Err(error) => {
                self.record.failure.get_or_insert(error.kind());
                self.record.is_lost = true;
                Err(error)
            }
        }
    }

    fn has_carried(&self) -> bool {
        true
    }

    fn cut_off(&mut self) {
        self.is_cut_off = true;
    }
}

fn moved(transfer: Transfer) -> usize {
    match transfer {
        Transfer::Bytes(count) => count,
        Transfer::WouldBlock => 0,
        Transfer::End => 1,
    }
}
