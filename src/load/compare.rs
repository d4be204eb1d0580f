//! What changed from one run to another, and whether more than noise.
//!
//! Each run is taken as the sample of its intervals. Two samples are told apart by the test of Mann
//! and Whitney, which looks only at their order: it takes no distribution for granted, and one bad
//! interval does not sway it. Shares of errors are compared as proportions.

use std::fmt::Write;

use super::outcome::{Outcome, Stretch};
use super::show::{show_count, show_ns, show_percent};

/// Fewer intervals than this on either side say nothing.
const FEWEST: usize = 8;

/// How far from even, in standard deviations, is more than noise: one time in 200 by chance, in
/// either direction.
const DECISIVE: f64 = 2.81;

/// A smaller change than this is none that matters, however sure it is.
const RELEVANT: f64 = 0.01;

/// What a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// More than noise.
    Changed,
    /// Not more than noise, or too small to matter.
    Same,
    /// Too few intervals to tell.
    Unknown,
}

/// One figure of two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What it is.
    pub name: &'static str,
    /// In the first run, with its unit.
    pub before: String,
    /// In the second.
    pub after: String,
    /// The second less the first, as a share of the first.
    pub relative: f64,
    /// Whether that means anything.
    pub judgement: Judgement,
}

/// Compares the rate, the quantiles and the errors of two runs.
#[must_use]
pub fn compare(before: &Outcome, after: &Outcome) -> Vec<Change> {
    let mut changes = vec![by_intervals(
        "rate",
        (before, before.rate_per_second),
        (after, after.rate_per_second),
        |stretch| stretch.completed as f64 / stretch.seconds.max(1e-9),
        |rate| format!("{}/s", show_count(rate as u64)),
    )];
    if let (Some((one, was)), Some((two, is))) = (before.headline(), after.headline())
        && one == two
    {
        let time = |ns| show_ns(ns as u64);
        let (was_p50, is_p50) = (was.p50_ns as f64, is.p50_ns as f64);
        let (was_p99, is_p99) = (was.p99_ns as f64, is.p99_ns as f64);
        let p50 = |stretch: &Stretch| stretch.p50_ns as f64;
        let p99 = |stretch: &Stretch| stretch.p99_ns as f64;
        changes.push(by_intervals("p50", (before, was_p50), (after, is_p50), p50, time));
        changes.push(by_intervals("p99", (before, was_p99), (after, is_p99), p99, time));
    }
    changes.push(by_errors(before, after));
    changes
}

/// The comparison as text.
#[must_use]
pub fn describe(changes: &[Change]) -> String {
    let mut text = format!("{:<8}{:>14}{:>14}{:>10}\n", "", "before", "after", "change");
    for change in changes {
        let verdict = match change.judgement {
            Judgement::Changed => "more than noise",
            Judgement::Same => "no more than noise",
            Judgement::Unknown => "too few intervals to tell: measure longer",
        };
        let relative = if change.relative.is_finite() {
            format!("{:+.1}%", change.relative * 100.0)
        } else {
            "new".to_owned()
        };
        let Change { name, before, after, .. } = change;
        let _ = writeln!(text, "{name:<8}{before:>14}{after:>14}{relative:>10}  {verdict}");
    }
    text
}

fn by_intervals(
    name: &'static str,
    (before, was): (&Outcome, f64),
    (after, is): (&Outcome, f64),
    value: impl Fn(&Stretch) -> f64,
    show: impl Fn(f64) -> String,
) -> Change {
    let sample = |outcome: &Outcome| -> Vec<f64> {
        outcome.intervals.iter().filter(|it| it.completed > 0).map(&value).collect()
    };
    let (one, two) = (sample(before), sample(after));
    let relative = (is - was) / was;
    let judgement = if one.len() < FEWEST || two.len() < FEWEST {
        Judgement::Unknown
    } else if mann_whitney(&one, &two).abs() > DECISIVE && relative.abs() >= RELEVANT {
        Judgement::Changed
    } else {
        Judgement::Same
    };
    Change { name, before: show(was), after: show(is), relative, judgement }
}

fn by_errors(before: &Outcome, after: &Outcome) -> Change {
    let (was, is) = (before.error_share(), after.error_share());
    let counts = [before, after].map(|outcome| (outcome.replies + outcome.all_errors()) as f64);
    let pooled =
        (before.all_errors() + after.all_errors()) as f64 / (counts[0] + counts[1]).max(1.0);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / counts[0] + 1.0 / counts[1])).sqrt();
    let is_decisive = deviation > 0.0 && ((is - was) / deviation).abs() > DECISIVE;
    let relative = if was == is { 0.0 } else { (is - was) / was };
    Change {
        name: "errors",
        before: show_percent(was),
        after: show_percent(is),
        relative,
        judgement: if is_decisive { Judgement::Changed } else { Judgement::Same },
    }
}

/// How far the order of two samples is from even, in standard deviations; positive where the second
/// is larger. Ties count half.
fn mann_whitney(one: &[f64], two: &[f64]) -> f64 {
    let (m, n) = (one.len() as f64, two.len() as f64);
    let mut wins = 0.0;
    for second in two {
        for first in one {
            wins += match second.total_cmp(first) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    (wins - m * n / 2.0) / (m * n * (m + n + 1.0) / 12.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome_of;
    use super::*;

    /// A run whose intervals have these rates.
    fn run_of(rates: impl IntoIterator<Item = u64>) -> Outcome {
        let mut outcome = outcome_of(&[1_000_000]);
        let stretch = outcome.intervals[0].clone();
        outcome.intervals =
            rates.into_iter().map(|rate| Stretch { completed: rate, ..stretch.clone() }).collect();
        let sum: u64 = outcome.intervals.iter().map(|it| it.completed).sum();
        outcome.rate_per_second = sum as f64 / outcome.intervals.len() as f64;
        outcome
    }

    fn judgement_of(before: &Outcome, after: &Outcome, name: &str) -> Judgement {
        let changes = compare(before, after);
        changes.iter().find(|change| change.name == name).expect("compared").judgement
    }

    #[test]
    fn a_clear_change_is_more_than_noise_and_jitter_is_not() {
        let before = run_of((0..20).map(|n| 1000 + n % 7));
        let faster = run_of((0..20).map(|n| 1100 + n % 5));
        let jittered = run_of((0..20).map(|n| 1000 + (n * 3) % 7));
        assert_eq!(judgement_of(&before, &faster, "rate"), Judgement::Changed);
        assert_eq!(judgement_of(&before, &jittered, "rate"), Judgement::Same);
        assert_eq!(judgement_of(&before, &before, "p50"), Judgement::Same);
    }

    #[test]
    fn few_intervals_tell_nothing() {
        let (before, after) = (run_of([1000; 7]), run_of([2000; 20]));
        assert_eq!(judgement_of(&before, &after, "rate"), Judgement::Unknown);
    }

    #[test]
    fn errors_are_compared_as_shares() {
        let before = Outcome { replies: 10_000, ..run_of([1000; 10]) };
        let mut after = before.clone();
        assert_eq!(judgement_of(&before, &after, "errors"), Judgement::Same);
        after.errors.insert("reset".to_owned(), 100);
        assert_eq!(judgement_of(&before, &after, "errors"), Judgement::Changed);
        assert!(describe(&compare(&before, &after)).contains("new  more than noise"));
    }
}
