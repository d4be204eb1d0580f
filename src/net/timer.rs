//! A lazy timer wheel.
//!
//! Deadlines move with every message; the wheel does not. A source keeps its own deadline, and the
//! wheel holds at most one entry for it, at a moment that is never later than the deadline as it
//! was when filed. When an entry comes due the reactor looks at the real deadline and files the
//! source again if that has moved. So a message costs a store, and nothing is ever allocated
//! but one node for each slab key.
//!
//! Invariants: a key stands in at most one bucket; every filed tick lies within one revolution
//! after the hand, so a bucket holds entries of one tick only.

use std::time::{Duration, Instant};

/// How fine the wheel is: a deadline is noticed up to this much late, never early.
pub const TICK: Duration = Duration::from_millis(32);

/// One revolution is `BUCKETS * TICK`, a little over two minutes; what is due later is filed at
/// the far side and looked at again from there.
const BUCKETS: u64 = 4096;

const NONE: u32 = u32::MAX;

/// Deadlines of slab keys, in buckets of one [`TICK`] each.
#[derive(Debug)]
pub struct Wheel {
    origin: Instant,
    /// The last tick whose bucket was emptied.
    hand: u64,
    /// The first node of each bucket's list.
    heads: Vec<u32>,
    /// One node a slab key, linked within its bucket.
    nodes: Vec<Node>,
    filed: usize,
    /// No bucket before this tick holds anything.
    soonest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The tick it is filed at; 0, which is never filed, where it is not.
    tick: u64,
    previous: u32,
    next: u32,
}

impl Node {
    const UNFILED: Self = Self { tick: 0, previous: NONE, next: NONE };
}

impl Wheel {
    /// An empty wheel whose time begins `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            hand: 0,
            heads: vec![NONE; BUCKETS as usize],
            nodes: Vec::new(),
            filed: 0,
            soonest: u64::MAX,
        }
    }

    /// Makes sure that `key` comes due at `at` or before. Costs a comparison where it is filed
    /// early enough already, which is nearly always.
    pub fn file(&mut self, key: usize, at: Instant) {
        if key >= self.nodes.len() {
            self.nodes.resize(key + 1, Node::UNFILED);
        }
        let tick = self.tick_at_or_after(at).clamp(self.hand + 1, self.hand + BUCKETS - 1);
        let filed = self.nodes[key].tick;
        if filed != 0 && filed <= tick {
            return;
        }
        self.cancel(key);
        let head = &mut self.heads[(tick % BUCKETS) as usize];
        self.nodes[key] = Node { tick, previous: NONE, next: *head };
        if *head != NONE {
            self.nodes[*head as usize].previous = key as u32;
        }
        *head = key as u32;
        self.filed += 1;
        self.soonest = self.soonest.min(tick);
    }

    /// Forgets `key`.
    pub fn cancel(&mut self, key: usize) {
        let Some(&Node { tick, previous, next }) = self.nodes.get(key) else { return };
        if tick == 0 {
            return;
        }
        match previous {
            NONE => self.heads[(tick % BUCKETS) as usize] = next,
            previous => self.nodes[previous as usize].next = next,
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        self.nodes[key] = Node::UNFILED;
        self.filed -= 1;
    }

    /// Takes out one key whose tick has come by `now`, or `None` when there is none left. A key
    /// that is filed again meanwhile comes up again only at a later tick.
    pub fn expire(&mut self, now: Instant) -> Option<usize> {
        let reached = self.tick_at_or_before(now);
        while let Some(soonest) = self.next_tick().filter(|&tick| tick <= reached) {
            self.hand = self.hand.max(soonest - 1);
            let head = self.heads[(soonest % BUCKETS) as usize];
            if head != NONE {
                self.cancel(head as usize);
                return Some(head as usize);
            }
        }
        self.hand = self.hand.max(reached);
        None
    }

    /// When to look again: the moment at which the next filed key comes due.
    pub fn next_due(&mut self) -> Option<Instant> {
        let tick = self.next_tick()?;
        let since = Duration::from_millis(tick.saturating_mul(TICK.as_millis() as u64));
        self.origin.checked_add(since)
    }

    /// The first tick that holds anything. The answer is remembered, so a turn in which no timer
    /// comes due pays for a comparison, not for a search.
    fn next_tick(&mut self) -> Option<u64> {
        if self.filed == 0 {
            self.soonest = u64::MAX;
            return None;
        }
        let mut tick = self.soonest.max(self.hand + 1);
        while self.heads[(tick % BUCKETS) as usize] == NONE {
            tick += 1;
        }
        self.soonest = tick;
        Some(tick)
    }

    fn tick_at_or_before(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.origin);
        (elapsed.as_millis() / TICK.as_millis()) as u64
    }

    fn tick_at_or_after(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.origin);
        elapsed.as_nanos().div_ceil(TICK.as_nanos()) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn expired(wheel: &mut Wheel, now: Instant) -> Vec<usize> {
        std::iter::from_fn(|| wheel.expire(now)).collect()
    }

    #[test]
    fn a_deadline_is_never_early_and_at_most_a_tick_late() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        wheel.file(3, start + Duration::from_millis(100));
        assert_eq!(expired(&mut wheel, start + Duration::from_millis(99)), [0usize; 0]);
        let next = wheel.next_due().expect("a key is filed");
        assert!(next >= start + Duration::from_millis(100));
        assert!(next <= start + Duration::from_millis(100) + TICK);
        assert_eq!(expired(&mut wheel, next), [3]);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn filing_later_changes_nothing_and_filing_earlier_moves() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        wheel.file(0, start + TICK * 10);
        wheel.file(0, start + TICK * 20);
        assert_eq!(wheel.next_due(), Some(start + TICK * 10));
        wheel.file(0, start + TICK * 5);
        assert_eq!(wheel.next_due(), Some(start + TICK * 5));
        assert_eq!(expired(&mut wheel, start + TICK * 30), [0]);
    }

    #[test]
    fn what_is_farther_than_a_revolution_comes_up_to_be_looked_at() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        wheel.file(0, start + Duration::from_secs(86_400));
        let next = wheel.next_due().expect("a key is filed");
        assert_eq!(next, start + TICK * (BUCKETS as u32 - 1));
        assert_eq!(expired(&mut wheel, next), [0]);
    }

    #[test]
    fn a_century_is_no_time() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let year = Duration::from_secs(365 * 86_400);
        for years in 1..=100 {
            let now = start + year * years;
            assert_eq!(expired(&mut wheel, now), [0usize; 0]);
            let at = now + Duration::from_millis(100);
            wheel.file(0, at);
            let next = wheel.next_due().expect("a key is filed");
            assert!(at <= next && next <= at + TICK, "after {years} years");
            assert_eq!(expired(&mut wheel, next), [0]);
        }
        wheel.file(0, start + year * 200);
        assert!(wheel.next_due().expect("a key is filed") <= start + year * 101);
    }

    #[derive(Clone, Debug)]
    enum Step {
        File(usize, u64),
        Cancel(usize),
        Advance(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (0..20usize, 0..200_000u64).prop_map(|(key, ms)| Step::File(key, ms)),
            1 => (0..20usize).prop_map(Step::Cancel),
            3 => (0..60_000u64).prop_map(Step::Advance),
            1 => (0..400_000u64).prop_map(Step::Advance),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Sources with deadlines of their own, used the way the reactor uses the wheel.
        #[test]
        fn every_deadline_is_met_once(steps in steps()) {
            let start = Instant::now();
            let mut wheel = Wheel::new(start);
            let mut now = start;
            let mut deadlines: BTreeMap<usize, Instant> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::File(key, ms) => {
                        let at = now + Duration::from_millis(ms);
                        deadlines.insert(key, at);
                        wheel.file(key, at);
                    }
                    Step::Cancel(key) => {
                        deadlines.remove(&key);
                        wheel.cancel(key);
                    }
                    Step::Advance(ms) => {
                        now += Duration::from_millis(ms);
                        while let Some(key) = wheel.expire(now) {
                            let at = *deadlines.get(&key).expect("cancelled keys stay away");
                            if at <= now {
                                deadlines.remove(&key);
                            } else {
                                wheel.file(key, at);
                            }
                        }
                        for (key, at) in &deadlines {
                            prop_assert!(*at + TICK > now, "key {key} was missed");
                        }
                    }
                }
                prop_assert_eq!(wheel.filed, deadlines.len());
                if let Some(at) = deadlines.values().min() {
                    prop_assert!(wheel.next_due().expect("filed") <= (*at).max(now) + TICK * 2);
                }
            }
        }
    }
}
