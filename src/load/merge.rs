//! Adding up the outcomes of runs that several hosts made at the same time.
//!
//! Invariant: adding up is exact. Counts are sums and histograms are the sums of histograms, so
//! the quantiles are those of one run that had seen everything; they are never means of quantiles.

use std::collections::BTreeMap;

use super::outcome::{Asked, Outcome, Stretch, Tester, Times, pack};
use super::remarks;
use super::statistics::new_histogram;

/// Outcomes that do not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There is none.
    #[error("there is nothing to add up")]
    Nothing,
    /// Times that mean different things.
    #[error("a run of {0} and one of {1} do not add up: their times mean different things")]
    Different(String, String),
    /// A histogram that cannot be read.
    #[error("a histogram cannot be read: {0}")]
    Damaged(String),
}

/// Adds up `outcomes`.
///
/// # Errors
/// There is none, or they are not of one kind.
pub fn merge(outcomes: &[Outcome]) -> Result<Outcome, MergeError> {
    let (first, others) = outcomes.split_first().ok_or(MergeError::Nothing)?;
    let mut sum = first.clone();
    for other in others {
        let (here, there) = (kind(&sum.asked), kind(&other.asked));
        if here != there {
            return Err(MergeError::Different(here, there));
        }
        add(&mut sum, other)?;
    }
    if !others.is_empty() {
        sum.objectives.clear();
        sum.remarks = remarks::on(&sum);
    }
    Ok(sum)
}

fn kind(asked: &Asked) -> String {
    format!("{} in a {} loop", asked.activity, asked.kind)
}

fn add(sum: &mut Outcome, other: &Outcome) -> Result<(), MergeError> {
    if !sum.target.split(", ").any(|target| target == other.target) {
        sum.target = format!("{}, {}", sum.target, other.target);
    }
    sum.started = std::cmp::min(&sum.started, &other.started).clone();
    sum.tester = add_testers(sum, other);
    sum.runs += other.runs;
    sum.seconds = sum.seconds.max(other.seconds);
    sum.replies += other.replies;
    sum.completed += other.completed;
    sum.rate_per_second += other.rate_per_second;
    sum.unsent += other.unsent;
    sum.connections_at_end += other.connections_at_end;
    sum.tls_resumed += other.tls_resumed;
    sum.traffic.add(&other.traffic);
    sum.interrupted |= other.interrupted;
    sum.asked.connections += other.asked.connections;
    sum.asked.rate_per_second =
        sum.asked.rate_per_second.zip(other.asked.rate_per_second).map(|(one, two)| one + two);
    for (cause, count) in &other.errors {
        *sum.errors.entry(cause.clone()).or_default() += count;
    }
    for (cause, example) in &other.error_examples {
        sum.error_examples.entry(cause.clone()).or_insert_with(|| example.clone());
    }
    add_phases(&mut sum.phases, &other.phases)?;
    for (place, stretch) in other.intervals.iter().enumerate() {
        match sum.intervals.get_mut(place) {
            Some(here) => add_stretch(here, stretch)?,
            None => sum.intervals.push(stretch.clone()),
        }
    }
    Ok(())
}

fn add_phases(
    sum: &mut BTreeMap<String, Times>,
    other: &BTreeMap<String, Times>,
) -> Result<(), MergeError> {
    for (phase, times) in other {
        let mut histogram = times.histogram().map_err(MergeError::Damaged)?;
        if let Some(here) = sum.get(phase) {
            histogram += here.histogram().map_err(MergeError::Damaged)?;
        }
        sum.extend(Times::of(&histogram).map(|times| (phase.clone(), times)));
    }
    Ok(())
}

/// The intervals of runs that began together lie beside one another.
fn add_stretch(sum: &mut Stretch, other: &Stretch) -> Result<(), MergeError> {
    let mut histogram = new_histogram();
    for stretch in [&*sum, other] {
        histogram += stretch.histogram().map_err(MergeError::Damaged)?;
    }
    *sum = Stretch {
        at_seconds: sum.at_seconds.min(other.at_seconds),
        seconds: sum.seconds.max(other.seconds),
        completed: sum.completed + other.completed,
        errors: sum.errors + other.errors,
        p50_ns: histogram.value_at_quantile(0.5),
        p99_ns: histogram.value_at_quantile(0.99),
        max_ns: histogram.max(),
        histogram: pack(&histogram),
    };
    Ok(())
}

/// Before the counts of `sum` change: the means are weighted by them.
fn add_testers(sum: &Outcome, other: &Outcome) -> Tester {
    let (one, two) = (&sum.tester, &other.tester);
    let replies = (sum.replies + other.replies).max(1) as f64;
    let cpu =
        one.cpu_us_per_reply * sum.replies as f64 + two.cpu_us_per_reply * other.replies as f64;
    let connections = (sum.asked.connections + other.asked.connections).max(1);
    let memory = one.memory_per_connection_bytes * sum.asked.connections
        + two.memory_per_connection_bytes * other.asked.connections;
    Tester {
        cpu_share: one.cpu_share + two.cpu_share,
        cpu_us_per_reply: cpu / replies,
        lag_p99_ns: one.lag_p99_ns.max(two.lag_p99_ns),
        lag_max_ns: one.lag_max_ns.max(two.lag_max_ns),
        memory_bytes: one.memory_bytes + two.memory_bytes,
        memory_per_connection_bytes: memory / connections,
        listen_overflows: one.listen_overflows.max(two.listen_overflows),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::outcome::tests::outcome_of;
    use super::super::statistics::Phase;
    use super::*;

    #[test]
    fn runs_of_different_kinds_do_not_add_up() {
        let closed = outcome_of(&[1]);
        let mut open = outcome_of(&[2]);
        open.asked.kind = "open".to_owned();
        let error = merge(&[closed, open]).expect_err("must not").to_string();
        assert!(
            error.contains("requests in a closed loop and one of requests in a open"),
            "{error}"
        );
        assert_eq!(merge(&[]), Err(MergeError::Nothing));
    }

    proptest! {
        #[test]
        fn adding_up_equals_one_run_over_all(
            one in prop::collection::vec(1u64..10_000_000_000, 1..200),
            two in prop::collection::vec(1u64..10_000_000_000, 1..200),
        ) {
            let both: Vec<u64> = one.iter().chain(&two).copied().collect();
            let sum = merge(&[outcome_of(&one), outcome_of(&two)]).expect("of one kind");
            let whole = outcome_of(&both);
            prop_assert_eq!(sum.times(Phase::Request), whole.times(Phase::Request));
            prop_assert_eq!(&sum.intervals[0].histogram, &whole.intervals[0].histogram);
            prop_assert_eq!((sum.replies, sum.runs), (whole.replies, 2));
        }
    }
}
