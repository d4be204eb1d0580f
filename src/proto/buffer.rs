//! A bounded byte queue over pooled storage.
//!
//! A [`Buffer`] holds a block of storage only while bytes wait in it: the block comes from a
//! [`Pool`] with the first byte and goes back with the last. So an idle connection costs no
//! buffer, and the block that one connection just gave back, still warm in the processor's cache,
//! is the one that the next connection is served with.
//!
//! Nor does a connection cost much more than its bytes in which a few wait for long, such as half a
//! request: it [settles](Buffer::settle) them in storage of their size, and the block goes back.
//!
//! Invariants, asserted in debug builds: `start <= end <= storage.len()`, and between calls a buffer
//! holds storage exactly when `start < end`. Storage is a block of the pool exactly when it has the
//! length of one: what settles is shorter.

/// Lends blocks of one size and keeps some of those that come back.
///
/// The bound on all memory is not the pool's but the borrowers': each buffer holds one block at
/// the most. The pool bounds what is kept while nobody needs it.
#[derive(Debug)]
pub struct Pool {
    block_len: usize,
    kept: Vec<Box<[u8]>>,
    keep: usize,
    lent: usize,
}

impl Pool {
    /// A pool of blocks of `block_len` bytes that keeps up to `keep` unused ones.
    ///
    /// # Panics
    /// If `block_len` is zero.
    #[must_use]
    pub fn new(block_len: usize, keep: usize) -> Self {
        assert!(block_len > 0, "a block holds at least a byte");
        Self { block_len, kept: Vec::with_capacity(keep), keep, lent: 0 }
    }

    /// The size of every block, in bytes: what one buffer can hold.
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.block_len
    }

    /// How many blocks buffers hold now.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.lent
    }

    fn lend(&mut self) -> Box<[u8]> {
        self.lent += 1;
        self.kept.pop().unwrap_or_else(|| vec![0; self.block_len].into_boxed_slice())
    }

    fn take_back(&mut self, block: Box<[u8]>) {
        self.lent -= 1;
        if self.kept.len() < self.keep {
            self.kept.push(block);
        }
    }
}

/// At most one part in so many of a block settles in storage of its own.
const SETTLING_PART: usize = 4;

/// A queue of bytes: filled at the back, drained at the front, one pool block at the most.
#[derive(Debug, Default)]
pub struct Buffer {
    storage: Option<Box<[u8]>>,
    start: u32,
    end: u32,
}

impl Buffer {
    /// An empty buffer, which holds no storage.
    #[must_use]
    pub const fn new() -> Self {
        Self { storage: None, start: 0, end: 0 }
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether no byte waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many more bytes fit.
    #[must_use]
    pub fn room(&self, pool: &Pool) -> usize {
        pool.block_len - self.len()
    }

    /// The bytes that wait, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        let range = self.start as usize..self.end as usize;
        self.storage.as_ref().map_or(&[], |storage| &storage[range])
    }

    /// The bytes that wait, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.storage {
            Some(storage) => &mut storage[self.start as usize..self.end as usize],
            None => &mut [],
        }
    }

    /// Lets `source` write into the free space at the back; it answers how many bytes it wrote,
    /// which may be none. An error of the source is passed on and leaves the buffer as it was.
    ///
    /// # Errors
    /// Whatever `source` returns.
    ///
    /// # Panics
    /// If the source claims more bytes than it was given room for.
    pub fn fill<E>(
        &mut self,
        pool: &mut Pool,
        source: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.unsettle(pool);
        self.make_space(1);
        let block = self.storage.get_or_insert_with(|| pool.lend());
        let space = &mut block[self.end as usize..];
        let offered = space.len();
        let outcome = source(space);
        if let Ok(written) = outcome {
            assert!(written <= offered, "a source wrote past its room");
            self.end += written as u32;
        }
        self.give_back_if_empty(pool);
        outcome
    }

    /// Appends as many of `bytes` as fit, and answers how many that was.
    pub fn append(&mut self, pool: &mut Pool, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room(pool));
        self.unsettle(pool);
        self.make_space(taken);
        let filled = self.fill(pool, |space| {
            space[..taken].copy_from_slice(&bytes[..taken]);
            Ok::<_, std::convert::Infallible>(taken)
        });
        filled.unwrap_or_else(|never| match never {})
    }

    /// Removes the oldest `count` bytes.
    ///
    /// # Panics
    /// If fewer than `count` bytes wait.
    pub fn consume(&mut self, pool: &mut Pool, count: usize) {
        assert!(count <= self.len(), "consumed more than waits");
        self.start += count as u32;
        self.give_back_if_empty(pool);
    }

    /// Removes all that waits.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.consume(pool, self.len());
    }

    /// Whoever fills this buffer will not do so soon: if few bytes wait, they move to storage of their
    /// size.
    pub fn settle(&mut self, pool: &mut Pool) {
        let is_small = self.len() <= pool.block_len / SETTLING_PART;
        if is_small && self.storage.as_ref().is_some_and(|it| it.len() == pool.block_len) {
            let settled: Box<[u8]> = self.as_slice().into();
            self.end = settled.len() as u32;
            self.start = 0;
            if let Some(block) = self.storage.replace(settled) {
                pool.take_back(block);
            }
            self.check();
        }
    }

    /// Moves what has settled to a block, so that more fits behind it.
    fn unsettle(&mut self, pool: &mut Pool) {
        if self.storage.as_ref().is_some_and(|it| it.len() < pool.block_len) {
            let mut block = pool.lend();
            let len = self.len();
            block[..len].copy_from_slice(self.as_slice());
            (self.start, self.end) = (0, len as u32);
            self.storage = Some(block);
        }
    }

    /// Moves the waiting bytes to the front where `wanted` bytes would not fit behind them, and
    /// also where the move is cheap: no longer than what was consumed, and worth more than the
    /// space that is left.
    fn make_space(&mut self, wanted: usize) {
        let Some(block) = &mut self.storage else { return };
        let (start, end) = (self.start as usize, self.end as usize);
        let behind = block.len() - end;
        if start > 0 && (behind < wanted || (behind < start && end - start <= start)) {
            block.copy_within(start..end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    fn give_back_if_empty(&mut self, pool: &mut Pool) {
        if self.start == self.end
            && let Some(storage) = self.storage.take()
        {
            self.start = 0;
            self.end = 0;
            if storage.len() == pool.block_len {
                pool.take_back(storage);
            }
        }
        self.check();
    }

    fn check(&self) {
        debug_assert!(self.start <= self.end);
        debug_assert!(self.end as usize <= self.storage.as_ref().map_or(0, |it| it.len()));
        debug_assert_eq!(self.storage.is_some(), self.start < self.end);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = 16;

    #[test]
    fn storage_is_held_only_while_bytes_wait() {
        let mut pool = Pool::new(BLOCK, 1);
        let mut buffer = Buffer::new();
        assert_eq!(buffer.fill(&mut pool, |_| Ok::<_, Infallible>(0)), Ok(0));
        assert_eq!(pool.lent(), 0);
        assert_eq!(buffer.append(&mut pool, b"hello"), 5);
        assert_eq!(pool.lent(), 1);
        buffer.consume(&mut pool, 4);
        assert_eq!((pool.lent(), buffer.as_slice()), (1, &b"o"[..]));
        buffer.consume(&mut pool, 1);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn few_bytes_settle_in_storage_of_their_size() {
        let mut pool = Pool::new(BLOCK, 1);
        let mut buffer = Buffer::new();
        buffer.settle(&mut pool);
        buffer.append(&mut pool, b"hello");
        buffer.settle(&mut pool);
        assert_eq!(pool.lent(), 1, "more than a quarter of a block");
        buffer.consume(&mut pool, 2);
        buffer.settle(&mut pool);
        assert_eq!((pool.lent(), pool.kept.len(), buffer.as_slice()), (0, 1, &b"llo"[..]));
        assert_eq!(buffer.storage.as_ref().map(|it| it.len()), Some(3));
        buffer.consume(&mut pool, 1);
        assert_eq!(buffer.append(&mut pool, &[b'!'; BLOCK]), BLOCK - 2);
        assert_eq!((pool.lent(), &buffer.as_slice()[..3]), (1, &b"lo!"[..]));
        buffer.consume(&mut pool, BLOCK - 1);
        buffer.settle(&mut pool);
        buffer.clear(&mut pool);
        assert_eq!((pool.lent(), pool.kept.len()), (0, 1));
    }

    #[test]
    fn a_failing_source_leaves_no_trace() {
        let mut pool = Pool::new(BLOCK, 1);
        let mut buffer = Buffer::new();
        assert_eq!(buffer.fill(&mut pool, |_| Err("no")), Err("no"));
        assert_eq!((pool.lent(), buffer.is_empty()), (0, true));
    }

    #[test]
    fn the_pool_keeps_no_more_than_it_was_told() {
        let mut pool = Pool::new(BLOCK, 2);
        let mut buffers: Vec<Buffer> = (0..5).map(|_| Buffer::new()).collect();
        for buffer in &mut buffers {
            buffer.append(&mut pool, b"x");
        }
        assert_eq!(pool.lent(), 5);
        for buffer in &mut buffers {
            buffer.clear(&mut pool);
        }
        assert_eq!((pool.lent(), pool.kept.len()), (0, 2));
    }

    #[test]
    #[should_panic(expected = "consumed more than waits")]
    fn consuming_what_is_not_there_is_our_own_bug() {
        Buffer::new().consume(&mut Pool::new(BLOCK, 0), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(Vec<u8>),
        Fill(Vec<u8>),
        Consume(usize),
        Settle,
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..BLOCK * 2);
        prop::collection::vec(
            prop_oneof![
                4 => bytes().prop_map(Step::Append),
                4 => bytes().prop_map(Step::Fill),
                6 => (0..BLOCK * 2).prop_map(Step::Consume),
                2 => Just(Step::Settle),
                1 => Just(Step::Clear),
            ],
            0..200,
        )
    }

    proptest! {
        #[test]
        fn a_buffer_is_a_bounded_queue(steps in steps()) {
            let mut pool = Pool::new(BLOCK, 1);
            let mut buffer = Buffer::new();
            let mut model = VecDeque::new();
            for step in steps {
                match step {
                    Step::Append(bytes) => {
                        let room = buffer.room(&pool);
                        let taken = buffer.append(&mut pool, &bytes);
                        prop_assert_eq!(taken, bytes.len().min(room));
                        model.extend(&bytes[..taken]);
                    }
                    Step::Fill(bytes) => {
                        let room = buffer.room(&pool);
                        let taken = buffer.fill(&mut pool, |space| {
                            assert!(space.len() <= room);
                            assert_eq!(space.is_empty(), room == 0, "room, but no space");
                            let taken = space.len().min(bytes.len());
                            space[..taken].copy_from_slice(&bytes[..taken]);
                            Ok::<_, Infallible>(taken)
                        }).unwrap();
                        model.extend(&bytes[..taken]);
                    }
                    Step::Consume(count) => {
                        let count = count.min(buffer.len());
                        buffer.consume(&mut pool, count);
                        model.drain(..count);
                    }
                    Step::Settle => buffer.settle(&mut pool),
                    Step::Clear => {
                        buffer.clear(&mut pool);
                        model.clear();
                    }
                }
                prop_assert_eq!(buffer.as_slice(), model.make_contiguous() as &[u8]);
                prop_assert_eq!(buffer.len() + buffer.room(&pool), BLOCK);
                let has_settled = buffer.storage.as_ref().is_some_and(|it| it.len() < BLOCK);
                prop_assert_eq!(pool.lent(), usize::from(!model.is_empty() && !has_settled));
            }
        }
    }
}
