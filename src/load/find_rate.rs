//! Searching for the highest rate that holds: one run after the other, each at another rate.
//!
//! The rate doubles until it does not hold (or halves until it does), and then the gap is halved,
//! on a scale of ratios, until its ends lie within 5% of one another.

/// How near to one another the ends of the gap come.
const PRECISION: f64 = 1.05;

/// How many runs a search has at the most.
const MOST_RUNS: usize = 40;

/// A search for the highest rate that holds.
///
/// Invariant: `holds < fails`, where both are known.
#[derive(Clone, Debug)]
pub struct Search {
    next: f64,
    lowest: f64,
    holds: Option<f64>,
    fails: Option<f64>,
    runs: usize,
}

impl Search {
    /// A search that begins at `first` and goes no lower than `lowest`.
    #[must_use]
    pub fn new(first: f64, lowest: f64) -> Self {
        Self { next: first.max(lowest), lowest, holds: None, fails: None, runs: 0 }
    }

    /// The rate to try next, or `None` where the search is over.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        let is_near =
            self.holds.zip(self.fails).is_some_and(|(holds, fails)| fails / holds <= PRECISION);
        let is_hopeless = self.fails.is_some_and(|fails| fails <= self.lowest);
        (!is_near && !is_hopeless && self.runs < MOST_RUNS).then_some(self.next)
    }

    /// Whether the rate that was tried holds.
    pub fn tell(&mut self, held: bool) {
        self.runs += 1;
        if held {
            self.holds = Some(self.next);
        } else {
            self.fails = Some(self.next);
        }
        self.next = match (self.holds, self.fails) {
            (Some(holds), Some(fails)) => (holds * fails).sqrt(),
            (Some(holds), None) => holds * 2.0,
            (None, Some(fails)) => (fails / 2.0).max(self.lowest),
            (None, None) => self.next,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(limit: f64, first: f64) -> Option<f64> {
        let mut search = Search::new(first, 10.0);
        while let Some(rate) = search.next_rate() {
            search.tell(rate <= limit);
        }
        search.holds
    }

    #[test]
    fn a_rate_that_never_holds_ends_the_search() {
        assert_eq!(found(5.0, 1000.0), None);
    }

    proptest! {
        #[test]
        fn what_is_found_holds_and_is_near_the_limit(limit in 11.0f64..1e7, first in 10.0f64..1e6) {
            let found = found(limit, first).expect("11 holds");
            prop_assert!(found <= limit && found * PRECISION * 1.001 >= limit, "{found} of {limit}");
        }
    }
}
