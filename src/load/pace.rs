//! When requests are due, and which of them count.
//!
//! This module is arithmetic on moments. It sends nothing and does not know what time it is.

use std::time::{Duration, Instant};

/// The schedule of an open loop: request number `n` is due `n / rate` after the beginning,
/// whatever became of those before it.
///
/// Invariant: each moment is handed out once, in order, and never before it has come.
#[derive(Clone, Debug)]
pub struct Pace {
    begin: Instant,
    end: Instant,
    period_ns: f64,
    taken: u64,
}

impl Pace {
    /// `rate` requests a second from `begin` until before `end`.
    #[must_use]
    pub fn new(rate: f64, begin: Instant, end: Instant) -> Self {
        Self { begin, end, period_ns: 1e9 / rate, taken: 0 }
    }

    /// The next moment that has come by `now` and was not taken yet.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next_due()?;
        (due <= now).then(|| {
            self.taken += 1;
            due
        })
    }

    /// The next moment that was not taken, come or not; `None` after the last.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.at(self.taken)
    }

    /// The first moment after `now`.
    #[must_use]
    pub fn next_after(&self, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.begin).as_nanos() as f64;
        let index = (passed / self.period_ns) as u64;
        (index..index + 3).filter_map(|index| self.at(index)).find(|at| *at > now)
    }

    /// How many moments have come by `now` and wait to be taken.
    #[must_use]
    pub fn waiting(&self, now: Instant) -> u64 {
        if now < self.begin {
            return 0;
        }
        let upto = now.min(self.end).saturating_duration_since(self.begin).as_nanos() as f64;
        let mut come = (upto / self.period_ns) as u64;
        while self.at(come).is_some_and(|at| at <= now) {
            come += 1;
        }
        come.saturating_sub(self.taken)
    }

    /// How many moments lie in `window`, taken or not.
    #[must_use]
    pub fn due_in(&self, window: Window) -> u64 {
        let end = window.end.unwrap_or(self.end).min(self.end);
        self.before(end).saturating_sub(self.before(window.begin))
    }

    /// How many moments there are before `at`.
    fn before(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.begin).as_nanos() as f64;
        let mut count = (passed / self.period_ns) as u64;
        while self.moment(count) < at {
            count += 1;
        }
        while count > 0 && self.moment(count - 1) >= at {
            count -= 1;
        }
        count
    }

    /// Nothing is due any more from `end` on.
    pub fn cut(&mut self, end: Instant) {
        self.end = self.end.min(end);
    }

    fn at(&self, index: u64) -> Option<Instant> {
        Some(self.moment(index)).filter(|at| *at < self.end)
    }

    fn moment(&self, index: u64) -> Instant {
        self.begin + Duration::from_nanos((index as f64 * self.period_ns).round() as u64)
    }
}

/// The span of a run whose requests count.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where it begins.
    pub begin: Instant,
    /// Where it ends, once that is known.
    pub end: Option<Instant>,
}

impl Window {
    /// Whether `at` lies in it.
    #[must_use]
    pub fn contains(&self, at: Instant) -> bool {
        at >= self.begin && self.end.is_none_or(|end| at < end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_due_is_handed_out_once_and_in_order() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut pace = Pace::new(100.0, begin, after(50));
        assert_eq!(pace.take(begin), Some(begin));
        assert_eq!(pace.take(after(9)), None);
        assert_eq!(pace.next_due(), Some(after(10)));
        assert_eq!(pace.waiting(after(35)), 3);
        assert_eq!(pace.next_after(after(35)), Some(after(40)));
        assert_eq!(pace.take(after(35)), Some(after(10)));
        assert_eq!(pace.take(after(99)), Some(after(20)));
        assert_eq!(pace.waiting(after(99)), 2);
        assert_eq!(pace.take(after(99)), Some(after(30)));
        assert_eq!(pace.take(after(99)), Some(after(40)));
        assert_eq!((pace.take(after(99)), pace.next_due()), (None, None));
    }

    proptest! {
        #[test]
        fn a_second_has_as_many_moments_as_the_rate(rate in 1u32..200_000) {
            let begin = Instant::now();
            let end = begin + Duration::from_secs(1);
            let mut pace = Pace::new(f64::from(rate), begin, end);
            let waiting = pace.waiting(end);
            prop_assert_eq!(waiting, u64::from(rate));
            let half = begin + Duration::from_millis(500);
            let first = pace.due_in(Window { begin, end: Some(half) });
            prop_assert_eq!(first + pace.due_in(Window { begin: half, end: None }), waiting);
            let mut last = None;
            for _ in 0..waiting {
                let due = pace.take(end);
                prop_assert!(due > last);
                last = due;
            }
            prop_assert_eq!(pace.take(end), None);
        }
    }
}
