//! When requests are due, and which of them count.
//!
//! This module is arithmetic on moments. It sends nothing and does not know what time it is.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::payload::split_mix;
use super::profile::{Arrivals, Profile};

/// The schedule of an open loop: when each request is due follows from the [profile](Profile) of the
/// rate alone, whatever became of those before it.
///
/// Invariant: each moment is handed out once, in order, and never before it has come.
#[derive(Clone, Debug)]
pub struct Pace {
    /// When the profile begins.
    begin: Instant,
    end: Instant,
    profile: Profile,
    arrivals: Arrivals,
    /// The first there is.
    first: Place,
    /// The next that is handed out.
    taken: Place,
    /// The latest time that was asked about, and the first that had not come by then; never before
    /// `taken`.
    come: Cell<(Instant, Place)>,
}

/// The place of a request in the schedule.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: u64,
    /// How many requests are due before it by the profile: the index, but for chance.
    count: f64,
    /// The state of the random numbers behind it.
    state: u64,
}

impl Pace {
    /// What `profile` says, from `begin` until before `end`.
    #[must_use]
    pub fn new(profile: Profile, arrivals: Arrivals, begin: Instant, end: Instant) -> Self {
        let state = if let Arrivals::Poisson(seed) = arrivals { seed } else { 0 };
        let mut first = Place { index: 0, count: 0.0, state };
        if let Arrivals::Poisson(_) = arrivals {
            first = following(arrivals, first);
        }
        Self { begin, end, profile, arrivals, first, taken: first, come: Cell::new((begin, first)) }
    }

    /// The next moment that has come by `now` and was not taken yet.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next_due()?;
        (due <= now).then(|| {
            self.taken = following(self.arrivals, self.taken);
            let (asked, come) = self.come.get();
            if come.index < self.taken.index {
                self.come.set((asked, self.taken));
            }
            due
        })
    }

    /// The next moment that was not taken, come or not; `None` after the last.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.at(self.taken)
    }

    /// The first moment after `now`, of those that were not taken.
    #[must_use]
    pub fn next_after(&self, now: Instant) -> Option<Instant> {
        self.at(self.come_by(now))
    }

    /// How many moments have come by `now` and wait to be taken.
    #[must_use]
    pub fn waiting(&self, now: Instant) -> u64 {
        self.come_by(now).index - self.taken.index
    }

    /// How many moments lie in `window`, taken or not.
    #[must_use]
    pub fn due_in(&self, window: Window) -> u64 {
        let end = window.end.unwrap_or(self.end).min(self.end);
        self.before(end).saturating_sub(self.before(window.begin))
    }

    /// The index of the first place that is not before `at`.
    fn before(&self, at: Instant) -> u64 {
        let is_before = |place| self.moment(place).is_some_and(|moment| moment < at);
        let mut place = if is_before(self.taken) { self.taken } else { self.first };
        while is_before(place) {
            place = following(self.arrivals, place);
        }
        place.index
    }

    /// Nothing is due any more from `end` on.
    pub fn cut(&mut self, end: Instant) {
        self.end = self.end.min(end);
        self.come.set((self.begin, self.taken));
    }

    /// The first place that has not come by `now`.
    fn come_by(&self, now: Instant) -> Place {
        let (asked, come) = self.come.get();
        let mut place = if now < asked { self.taken } else { come };
        while self.at(place).is_some_and(|at| at <= now) {
            place = following(self.arrivals, place);
        }
        self.come.set((now, place));
        place
    }

    fn at(&self, place: Place) -> Option<Instant> {
        self.moment(place).filter(|at| *at < self.end)
    }

    fn moment(&self, place: Place) -> Option<Instant> {
        let seconds = self.profile.time_of(place.count)?;
        self.begin.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
    }
}

/// The place after `place`.
fn following(arrivals: Arrivals, place: Place) -> Place {
    let index = place.index + 1;
    match arrivals {
        Arrivals::Uniform => Place { index, count: index as f64, ..place },
        Arrivals::Poisson(_) => {
            let mut state = place.state;
            let random = (split_mix(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
            // The distances of a Poisson process are exponential.
            Place { index, count: place.count - (1.0 - random).ln(), state }
        }
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
        let mut pace = Pace::new(Profile::constant(100.0), Arrivals::Uniform, begin, after(50));
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

    #[test]
    fn arrivals_at_random_are_as_many_and_the_same_again() {
        let begin = Instant::now();
        let dues = |seed| {
            let end = begin + Duration::from_secs(100);
            let profile = Profile::constant(100.0);
            let mut pace = Pace::new(profile, Arrivals::Poisson(seed), begin, end);
            let (all, half) = (pace.waiting(end), begin + Duration::from_secs(50));
            assert!(pace.waiting(half) < all && pace.waiting(end) == all);
            std::iter::from_fn(move || pace.take(end)).collect::<Vec<_>>()
        };
        let one = dues(1);
        assert_eq!(one, dues(1));
        assert_ne!(one, dues(2));
        // 10,000 are expected, and their standard deviation is 100.
        assert!((9_500..10_500).contains(&one.len()), "{}", one.len());
        let gaps: Vec<f64> = one.windows(2).map(|it| (it[1] - it[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of an exponential distribution, the standard deviation is the mean.
        assert!((spread.sqrt() / mean - 1.0).abs() < 0.1, "{} {mean}", spread.sqrt());
    }

    #[test]
    fn a_ramp_becomes_denser() {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(10);
        let profile = "0..200 over 10s".parse().expect("a ramp");
        let mut pace = Pace::new(profile, Arrivals::Uniform, begin, end);
        assert_eq!(pace.waiting(begin + Duration::from_secs(5)), 251);
        assert_eq!(pace.waiting(end), 1000);
        let first = pace.take(end).zip(pace.take(end)).expect("two");
        assert_eq!((first.1 - first.0).as_millis(), 316);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_second_has_as_many_moments_as_the_rate(rate in 1u32..200_000) {
            let begin = Instant::now();
            let end = begin + Duration::from_secs(1);
            let profile = Profile::constant(f64::from(rate));
            let mut pace = Pace::new(profile, Arrivals::Uniform, begin, end);
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
