//! Searching for the highest rate that holds: one run after the other, each at another rate.
//!
//! The rate doubles until it does not hold (or halves until it does), and then the gap is halved,
//! on a scale of ratios, until its ends lie within 5% of one another. A machine has bad moments, so a
//! rate that does not hold is tried once more before it is believed; and good ones, so the answer is
//! tried once more as well.

use super::outcome::{Found, Trial};
use super::show::show_count;

/// How near to one another the ends of the gap come.
const PRECISION: f64 = 1.05;

/// How many runs a search has at the most.
const MOST_RUNS: usize = 60;

/// How often in a row a rate must fail to hold.
const MISSES: usize = 2;

/// With fewer rates a curve has no knee that could be told.
const FEWEST_FOR_A_KNEE: usize = 5;

/// A search for the highest rate that holds.
///
/// Invariant: every rate of `held` is below `fails`, where that is known, and they ascend.
#[derive(Clone, Debug)]
pub struct Search {
    next: f64,
    lowest: f64,
    held: Vec<f64>,
    fails: Option<f64>,
    /// How often `next` did not hold, in a row.
    misses: usize,
    /// Whether the highest of `held` is being tried again.
    confirms: bool,
    is_over: bool,
    runs: usize,
}

impl Search {
    /// A search that begins at `first` and goes no lower than `lowest`.
    #[must_use]
    pub fn new(first: f64, lowest: f64) -> Self {
        Self {
            next: first.max(lowest),
            lowest,
            held: Vec::new(),
            fails: None,
            misses: 0,
            confirms: false,
            is_over: false,
            runs: 0,
        }
    }

    /// The rate to try next, or `None` where the search is over.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        (!self.is_over && self.runs < MOST_RUNS).then_some(self.next)
    }

    /// The highest rate that holds, as far as is known.
    #[must_use]
    pub fn holds(&self) -> Option<f64> {
        self.held.last().copied()
    }

    /// The lowest rate that does not hold, as far as is known.
    #[must_use]
    pub fn fails(&self) -> Option<f64> {
        self.fails
    }

    /// Whether the rate that was tried holds.
    pub fn tell(&mut self, held: bool) {
        self.runs += 1;
        if !held {
            self.misses += 1;
            if self.misses < MISSES {
                return;
            }
            self.fails = Some(self.next);
            self.held.retain(|rate| *rate < self.next);
        } else if self.confirms {
            self.is_over = true;
            return;
        } else {
            self.held.push(self.next);
        }
        (self.misses, self.confirms) = (0, false);
        match (self.holds(), self.fails) {
            (Some(holds), Some(fails)) if fails / holds <= PRECISION => {
                (self.next, self.confirms) = (holds, true);
            }
            (Some(holds), Some(fails)) => self.next = (holds * fails).sqrt(),
            (Some(holds), None) => self.next = holds * 2.0,
            (None, Some(fails)) if fails <= self.lowest => self.is_over = true,
            (None, Some(fails)) => self.next = (fails / 2.0).max(self.lowest),
            (None, None) => {}
        }
    }
}

/// What a search came to whose runs were `steps`, in order.
#[must_use]
pub fn summarize(search: &Search, steps: Vec<Trial>) -> Found {
    let always_held = |rate: f64| {
        steps.iter().filter(|step| same(step.rate_per_second, rate)).all(|step| step.held)
    };
    let low = steps.iter().map(|step| step.rate_per_second).filter(|rate| always_held(*rate));
    Found {
        rate_per_second: search.holds(),
        low: low.filter(|low| search.fails.is_none_or(|fails| *low < fails)).reduce(f64::max),
        high: search.fails(),
        knee: knee(&steps),
        steps,
    }
}

/// What was found, in a sentence.
#[must_use]
pub fn describe(found: &Found) -> String {
    let show = |rate: f64| show_count(rate.round() as u64);
    let runs = found.steps.len();
    let Some(rate) = found.rate_per_second else {
        let lowest = found.steps.iter().map(|step| step.rate_per_second).reduce(f64::min);
        let lowest =
            lowest.map_or("none was tried".to_owned(), |it| format!("the lowest was {}", show(it)));
        return format!(
            "No rate was found: none of those tried held in {runs} runs ({lowest} a second)."
        );
    };
    let low = match found.low {
        Some(low) if !same(low, rate) => format!(", {} each time it was tried", show(low)),
        _ => String::new(),
    };
    let high =
        found.high.map_or("none was too high".to_owned(), |it| format!("{} did not", show(it)));
    let knee = found.knee.map_or(String::new(), |it| {
        format!(" Latency turns upwards at about {} a second.", show(it))
    });
    format!(
        "The highest rate found in {runs} runs: {} a second held{low}; {high}.{knee}",
        show(rate)
    )
}

fn same(one: f64, other: f64) -> bool {
    (one - other).abs() <= one * 1e-9
}

/// Where the curve of latency against rate turns upwards: the point farthest below the straight line
/// from its beginning to its end, with the latency on a scale of ratios (Satopaa and others, "Finding a
/// Kneedle in a Haystack").
fn knee(steps: &[Trial]) -> Option<f64> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for step in steps {
        let Some(p99) = step.p99_ns else { continue };
        let p99 = (p99.max(1) as f64).ln();
        match points.iter_mut().find(|(rate, _)| same(*rate, step.rate_per_second)) {
            Some((_, best)) => *best = best.min(p99),
            None => points.push((step.rate_per_second, p99)),
        }
    }
    points.sort_by(|one, two| one.0.total_cmp(&two.0));
    let (first, last) = (*points.first()?, *points.last()?);
    let (width, height) = (last.0 - first.0, last.1 - first.1);
    if points.len() < FEWEST_FOR_A_KNEE || width <= 0.0 || height <= 2f64.ln() {
        return None;
    }
    let below = |(rate, p99): &(f64, f64)| (rate - first.0) / width - (p99 - first.1) / height;
    let knee = points.iter().max_by(|one, two| below(one).total_cmp(&below(two)))?;
    Some(knee.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(first: f64, mut holds: impl FnMut(f64) -> bool) -> Search {
        let mut search = Search::new(first, 10.0);
        while let Some(rate) = search.next_rate() {
            search.tell(holds(rate));
        }
        search
    }

    #[test]
    fn a_rate_that_never_holds_ends_the_search() {
        let search = found(1000.0, |_| false);
        assert_eq!((search.holds(), search.fails()), (None, Some(10.0)));
    }

    #[test]
    fn one_bad_moment_does_not_end_a_rate() {
        // Every fifth run fails whatever its rate is.
        let mut run = 0;
        let holds = found(1000.0, |rate| {
            run += 1;
            rate <= 7000.0 && run % 5 != 0
        });
        let holds = holds.holds().expect("found");
        assert!((6600.0..=7000.0).contains(&holds), "{holds}");
    }

    #[test]
    fn one_good_moment_is_not_believed() {
        let mut lucky = true;
        let holds =
            found(1000.0, |rate| rate <= 7000.0 || (rate <= 7500.0 && std::mem::take(&mut lucky)));
        let holds = holds.holds().expect("found");
        assert!((6600.0..=7000.0).contains(&holds), "{holds}");
    }

    #[test]
    fn the_knee_is_where_latency_turns_upwards() {
        let step = |rate: f64, p99_ns: u64| Trial {
            rate_per_second: rate,
            achieved: rate,
            p50_ns: Some(p99_ns / 2),
            p99_ns: Some(p99_ns),
            kept_pace: true,
            held: p99_ns < 5_000_000,
            limit: None,
        };
        let curve = [(1e3, 1.0), (2e3, 1.0), (4e3, 1.1), (8e3, 1.3), (9e3, 40.0), (16e3, 900.0)];
        let steps = curve.map(|(rate, ms)| step(rate, (ms * 1e6) as u64)).to_vec();
        let mut search = Search::new(8e3, 10.0);
        search.tell(true);
        let found = summarize(&search, steps);
        assert_eq!(
            (found.knee, found.rate_per_second, found.low),
            (Some(8e3), Some(8e3), Some(8e3))
        );
        assert_eq!(summarize(&search, vec![step(1e3, 5)]).knee, None, "one point is no curve");
    }

    proptest! {
        #[test]
        fn what_is_found_holds_and_is_near_the_limit(limit in 11.0f64..1e7, first in 10.0f64..1e6) {
            let found = found(first, |rate| rate <= limit).holds().expect("11 holds");
            prop_assert!(found <= limit && found * PRECISION * 1.001 >= limit, "{found} of {limit}");
        }
    }
}
