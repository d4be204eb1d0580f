//! One direction of a session: a bounded buffer and how far its end-of-stream has come.
//!
//! Bytes are put in by one end and taken out by the other. When the end that writes has no more
//! to say it *ends* the pipe; when the end that reads has passed that on, after the last byte, it
//! *finishes* it. Each direction ends by itself: that is half-close.
//!
//! Invariant: a pipe only ever goes open -> ending -> finished, takes no byte once it is ending,
//! and holds none once it is finished.

use super::buffer::{Buffer, Pool};

/// A bounded queue of bytes from one end of a session to the other.
#[derive(Debug, Default)]
pub struct Pipe {
    buffer: Buffer,
    stage: Stage,
    carried: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// More bytes may come.
    #[default]
    Open,
    /// The writer has ended it; bytes may still wait, and the reader does not know yet.
    Ending,
    /// The reader has passed the end on.
    Finished,
}

impl Pipe {
    /// An open pipe with nothing in it.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Buffer::new(), stage: Stage::Open, carried: 0 }
    }

    /// Whether the writer may still write.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the writer has ended it and no byte waits: the reader's moment to pass the end on
    /// and [`finish`](Self::finish).
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.stage == Stage::Ending && self.buffer.is_empty()
    }

    /// Whether the end has been passed on.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stage == Stage::Finished
    }

    /// Whether a writer should fetch more: the pipe is open and not full. Nothing else holds a
    /// fast sender back: what is not fetched stays in the kernel, whose window then closes.
    #[must_use]
    pub fn wants_more(&self, pool: &Pool) -> bool {
        self.is_open() && self.buffer.room(pool) > 0
    }

    /// How many more bytes fit.
    #[must_use]
    pub fn room(&self, pool: &Pool) -> usize {
        self.buffer.room(pool)
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no byte waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// How many bytes have been put in since the beginning.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// The bytes that wait, oldest first.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_slice()
    }

    /// Lets `source` write into the free space, as [`Buffer::fill`] does.
    ///
    /// # Errors
    /// Whatever `source` returns.
    ///
    /// # Panics
    /// If the pipe is not open.
    pub fn fill<E>(
        &mut self,
        pool: &mut Pool,
        source: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        assert!(self.is_open(), "wrote into a pipe after its end");
        let outcome = self.buffer.fill(pool, source);
        if let Ok(count) = outcome {
            self.carried += count as u64;
        }
        outcome
    }

    /// Appends as many of `bytes` as fit, and answers how many that was.
    ///
    /// # Panics
    /// If the pipe is not open.
    pub fn append(&mut self, pool: &mut Pool, bytes: &[u8]) -> usize {
        assert!(self.is_open(), "wrote into a pipe after its end");
        let count = self.buffer.append(pool, bytes);
        self.carried += count as u64;
        count
    }

    /// Removes the oldest `count` bytes.
    ///
    /// # Panics
    /// If fewer than `count` bytes wait.
    pub fn consume(&mut self, pool: &mut Pool, count: usize) {
        self.buffer.consume(pool, count);
    }

    /// Removes all that waits, and answers how many bytes that was.
    pub fn discard(&mut self, pool: &mut Pool) -> usize {
        let count = self.buffer.len();
        self.buffer.clear(pool);
        count
    }

    /// Hands the waiting bytes over to `onward`, changed in place by `transform`: the storage
    /// itself moves, not its content. Only an empty `onward` can take it; otherwise nothing
    /// happens, the bytes wait, and in time this pipe is full and holds its writer back.
    /// Answers how many bytes moved.
    pub fn hand_over(&mut self, onward: &mut Self, transform: impl FnOnce(&mut [u8])) -> usize {
        if self.is_empty() || !onward.is_empty() || !onward.is_open() {
            return 0;
        }
        transform(self.buffer.as_mut_slice());
        std::mem::swap(&mut self.buffer, &mut onward.buffer);
        let count = onward.len();
        onward.carried += count as u64;
        count
    }

    /// Nothing moves for now: few bytes that wait move to [storage of their size](Buffer::settle).
    #[inline]
    pub fn settle(&mut self, pool: &mut Pool) {
        if !self.is_empty() {
            self.buffer.settle(pool);
        }
    }

    /// The writer has no more to say.
    pub fn end(&mut self) {
        if self.is_open() {
            self.stage = Stage::Ending;
        }
    }

    /// The reader has passed the end on.
    ///
    /// # Panics
    /// If the pipe is not [drained](Self::is_drained).
    pub fn finish(&mut self) {
        assert!(self.is_drained(), "passed on an end that had not come");
        self.stage = Stage::Finished;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_passed_on_after_the_last_byte() {
        let mut pool = Pool::new(8, 1);
        let mut pipe = Pipe::new();
        pipe.append(&mut pool, b"abc");
        pipe.end();
        assert!(!pipe.is_open() && !pipe.is_drained() && !pipe.wants_more(&pool));
        pipe.consume(&mut pool, 3);
        assert!(pipe.is_drained());
        pipe.finish();
        assert!(pipe.is_finished() && !pipe.is_drained());
        assert_eq!(pipe.carried(), 3);
    }

    #[test]
    fn a_full_pipe_wants_nothing() {
        let mut pool = Pool::new(4, 1);
        let mut pipe = Pipe::new();
        assert!(pipe.wants_more(&pool));
        assert_eq!(pipe.append(&mut pool, b"abcdef"), 4);
        assert!(!pipe.wants_more(&pool));
        pipe.consume(&mut pool, 1);
        assert!(pipe.wants_more(&pool));
    }

    #[test]
    fn bytes_are_handed_over_without_being_copied() {
        let mut pool = Pool::new(8, 2);
        let (mut inward, mut outward) = (Pipe::new(), Pipe::new());
        inward.append(&mut pool, b"abc");
        let storage = inward.bytes().as_ptr();
        assert_eq!(inward.hand_over(&mut outward, <[u8]>::make_ascii_uppercase), 3);
        assert_eq!((outward.bytes(), outward.bytes().as_ptr()), (&b"ABC"[..], storage));
        inward.append(&mut pool, b"de");
        assert_eq!(inward.hand_over(&mut outward, |_| ()), 0, "the reader is behind");
        assert_eq!((inward.bytes(), outward.carried()), (&b"de"[..], 3));
    }

    #[test]
    #[should_panic(expected = "after its end")]
    fn writing_after_the_end_is_our_own_bug() {
        let mut pipe = Pipe::new();
        pipe.end();
        pipe.append(&mut Pool::new(4, 0), b"x");
    }
}
