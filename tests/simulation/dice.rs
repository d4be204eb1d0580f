//! Chance that can be had again: the same seed gives the same throws, today and in any version of
//! any crate, because the generator is this one (SplitMix64, Steele, Lea and Flood, 2014).

use std::time::Duration;

/// A source of throws.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Other dice, whose throws do not depend on how often these are thrown afterwards.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// From zero up to, and without, `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// From `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// True once in `count` throws.
    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Bytes of which about half are lower-case letters, and every value occurs.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let byte = |it: u64| if it & 256 == 0 { it as u8 } else { b'a' + (it as u8) % 26 };
        (0..len).map(|_| byte(self.next())).collect()
    }

    /// A while: often none at all, sometimes long enough for deadlines to pass.
    pub(crate) fn gap(&mut self) -> Duration {
        match self.below(8) {
            0..4 => Duration::ZERO,
            4..6 => Duration::from_micros(self.below(1000) as u64),
            6 => Duration::from_millis(self.below(50) as u64),
            _ => Duration::from_millis(self.below(3000) as u64),
        }
    }
}
