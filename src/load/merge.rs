//! Adding up the outcomes of runs that several hosts made at the same time.
//!
//! Invariant: adding up is exact. Counts are sums and histograms are the sums of histograms, so
//! the quantiles are those of one run that had seen everything; they are never means of quantiles.
//! Only parts of one run are added: the same settings, at the same time, none of them twice.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::outcome::{Admission, Asked, Links, Outcome, Strays, Stretch, Tester, Times};
use super::packed::pack;
use super::settings::differences;
use super::statistics::new_histogram;
use super::{bottleneck, remarks};

/// What hosts of one run may have of their own: each has its share.
const SHARES: [&str; 3] = ["connections", "rate_per_second", "schedule"];

/// Runs that had less of their time in common were not at the same time.
const TOGETHER: f64 = 0.5;

/// Runs that had less of their time in common are told that.
const NEARLY: f64 = 0.95;

/// Outcomes that do not add up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There is none.
    #[error("there is nothing to add up")]
    Nothing,
    /// Two that are no parts of one run.
    #[error("reports {} and {} do not add up: {why}", one + 1, other + 1)]
    Misfit {
        /// The place of the one.
        one: usize,
        /// The place of the other.
        other: usize,
        /// Why not.
        why: String,
    },
    /// A histogram that cannot be read.
    #[error("a histogram cannot be read: {0}")]
    Damaged(String),
}

/// Adds up `outcomes`.
///
/// # Errors
/// There is none, or they are not parts of one run.
pub fn merge(outcomes: &[Outcome]) -> Result<Outcome, MergeError> {
    let (first, others) = outcomes.split_first().ok_or(MergeError::Nothing)?;
    for (other, outcome) in outcomes.iter().enumerate() {
        for (one, earlier) in outcomes[..other].iter().enumerate() {
            if let Some(why) = misfit(earlier, outcome) {
                return Err(MergeError::Misfit { one, other, why });
            }
        }
    }
    let mut sum = first.clone();
    for other in others {
        add(&mut sum, other)?;
    }
    if !others.is_empty() {
        settle(&mut sum, outcomes);
    }
    Ok(sum)
}

/// Why two outcomes are no parts of one run, where they are not.
fn misfit(one: &Outcome, other: &Outcome) -> Option<String> {
    let is_twice = |part: &super::outcome::Part| other.parts.iter().any(|it| it.id == part.id);
    if let Some(part) = one.parts.iter().find(|part| is_twice(part)) {
        return Some(format!(
            "they hold the same part of a run ({}), which would count twice",
            part.id
        ));
    }
    let name = |outcome: &Outcome| outcome.parts.first().and_then(|part| part.run.clone());
    let (this, that) = (name(one), name(other));
    if this != that {
        let show =
            |name: Option<String>| name.map_or("no --run".to_owned(), |it| format!("`{it}`"));
        return Some(format!("they are of different runs ({} and {})", show(this), show(that)));
    }
    if one.target != other.target {
        return Some(format!("they had different targets ({} and {})", one.target, other.target));
    }
    if let Some(it) = differences(&one.asked, &other.asked, &SHARES).first() {
        let (name, before, after) = (it.name.replace('_', " "), &it.before, &it.after);
        return Some(format!("they asked for different things ({name}: {before} and {after})"));
    }
    let (this, that) = (window(one), window(other));
    let shorter = (this.1 - this.0).min(that.1 - that.0);
    let common = this.1.min(that.1) - this.0.max(that.0);
    (common < shorter * TOGETHER || shorter <= 0.0).then(|| {
        format!(
            "they were not made at the same time (from {} for {:.1} s, and from {} for {:.1} s, which do not \
             overlap enough), and their rates never were together; --compare sets two runs beside one another",
            one.parts[0].began, one.seconds, other.parts[0].began, other.seconds
        )
    })
}

/// When an outcome was measured, in seconds of the clock.
fn window(outcome: &Outcome) -> (f64, f64) {
    let began = outcome.parts.iter().map(|part| {
        part.began.parse::<Timestamp>().map_or(0.0, |at| at.as_nanosecond() as f64 / 1e9)
    });
    let began = began.fold(f64::INFINITY, f64::min);
    (began, began + outcome.seconds)
}

/// What can only be said of the whole.
fn settle(sum: &mut Outcome, outcomes: &[Outcome]) {
    let windows = outcomes.iter().map(window);
    let common = windows.clone().fold((f64::NEG_INFINITY, f64::INFINITY), |common, it| {
        (common.0.max(it.0), common.1.min(it.1))
    });
    let length = (common.1 - common.0).max(0.0);
    let whole = windows.map(|(from, to)| to - from).fold(0.0, f64::max);
    if length < whole * NEARLY && length > 0.0 {
        let completed: f64 = outcomes.iter().map(|it| completed_within(it, common)).sum();
        sum.rate_per_second = completed / length;
    }
    sum.objectives.clear();
    sum.search = None;
    sum.limit = bottleneck::find(sum).map(|limit| limit.name().to_owned());
    sum.remarks = remarks::on(sum);
    if length < whole * NEARLY {
        sum.remarks.insert(
            0,
            format!(
                "The parts have {length:.1} s of {whole:.1} s in common, in which all of them ran; the rate is \
                 that of this time, and all else is of the whole."
            ),
        );
    }
}

/// How many replies became whole within a span of the clock's time.
fn completed_within(outcome: &Outcome, (from, to): (f64, f64)) -> f64 {
    let (began, _) = window(outcome);
    let share = |stretch: &Stretch| {
        let (begin, end) =
            (began + stretch.at_seconds, began + stretch.at_seconds + stretch.seconds);
        let inside = (end.min(to) - begin.max(from)).max(0.0);
        stretch.completed as f64 * inside / stretch.seconds.max(1e-9)
    };
    outcome.intervals.iter().map(share).sum()
}

fn add(sum: &mut Outcome, other: &Outcome) -> Result<(), MergeError> {
    add_intervals(sum, other)?;
    sum.started = std::cmp::min(&sum.started, &other.started).clone();
    sum.tester = add_testers(sum, other);
    sum.parts.extend(other.parts.iter().cloned());
    sum.runs += other.runs;
    sum.due += other.due;
    sum.replies += other.replies;
    sum.failed += other.failed;
    sum.unsent += other.unsent;
    sum.in_flight += other.in_flight;
    sum.backlog += other.backlog;
    sum.completed += other.completed;
    sum.rate_per_second += other.rate_per_second;
    sum.connections_at_end += other.connections_at_end;
    sum.tls_resumed += other.tls_resumed;
    sum.traffic.add(&other.traffic);
    sum.interrupted |= other.interrupted;
    sum.asked.connections += other.asked.connections;
    sum.asked.rate_per_second =
        sum.asked.rate_per_second.zip(other.asked.rate_per_second).map(|(one, two)| one + two);
    sum.asked.schedule = add_schedules(&sum.asked, &other.asked);
    sum.least_service_ns =
        [sum.least_service_ns, other.least_service_ns].into_iter().flatten().min();
    sum.datagrams = Strays {
        duplicates: sum.datagrams.duplicates + other.datagrams.duplicates,
        late: sum.datagrams.late + other.datagrams.late,
    };
    sum.admission = Admission {
        by_protocol: sum.admission.by_protocol + other.admission.by_protocol,
        by_word: sum.admission.by_word + other.admission.by_word,
        by_wait: sum.admission.by_wait + other.admission.by_wait,
    };
    add_links(&mut sum.connections, &other.connections);
    add_counts(&mut sum.errors, &other.errors);
    add_examples(&mut sum.error_examples, &other.error_examples);
    sum.waiting = match (&sum.waiting, &other.waiting) {
        (Some(one), Some(two)) => Some(add_times(one, two)?),
        (one, two) => one.clone().or_else(|| two.clone()),
    };
    add_phases(&mut sum.phases, &other.phases)
}

/// Each host's schedule, where they are not the same.
fn add_schedules(sum: &Asked, other: &Asked) -> Option<String> {
    match (&sum.schedule, &other.schedule) {
        (Some(all), Some(one)) if !all.split("; ").any(|it| it == one) => {
            Some(format!("{all}; {one}"))
        }
        (all, one) => all.clone().or_else(|| one.clone()),
    }
}

fn add_links(sum: &mut Links, other: &Links) {
    sum.begun += other.begun;
    sum.opened += other.opened;
    sum.failed += other.failed;
    sum.queue_full += other.queue_full;
    sum.closed_idle += other.closed_idle;
    sum.closed_used += other.closed_used;
    sum.lost += other.lost;
    sum.resent += other.resent;
    sum.replies_before_close += other.replies_before_close;
    add_counts(&mut sum.errors, &other.errors);
    add_examples(&mut sum.error_examples, &other.error_examples);
}

fn add_counts(sum: &mut BTreeMap<String, u64>, other: &BTreeMap<String, u64>) {
    for (cause, count) in other {
        *sum.entry(cause.clone()).or_default() += count;
    }
}

fn add_examples(sum: &mut BTreeMap<String, String>, other: &BTreeMap<String, String>) {
    for (cause, example) in other {
        sum.entry(cause.clone()).or_insert_with(|| example.clone());
    }
}

fn add_times(one: &Times, two: &Times) -> Result<Times, MergeError> {
    let mut histogram = one.histogram().map_err(MergeError::Damaged)?;
    histogram += two.histogram().map_err(MergeError::Damaged)?;
    Times::of(&histogram).ok_or_else(|| MergeError::Damaged("it is empty".to_owned()))
}

/// Lays the intervals of both beside one another by the clock: each of `other` is added to the one with
/// which it shares most of its time. Before the parts of `sum` change.
fn add_intervals(sum: &mut Outcome, other: &Outcome) -> Result<(), MergeError> {
    let ((began, ended), (theirs, their_end)) = (window(sum), window(other));
    let origin = began.min(theirs);
    for stretch in &mut sum.intervals {
        stretch.at_seconds += began - origin;
    }
    let own = sum.intervals.len();
    for stretch in &other.intervals {
        let at_seconds = stretch.at_seconds + theirs - origin;
        let shared = |it: &Stretch| {
            (it.at_seconds + it.seconds).min(at_seconds + stretch.seconds)
                - it.at_seconds.max(at_seconds)
        };
        let nearest = (0..own).max_by(|one, two| {
            shared(&sum.intervals[*one]).total_cmp(&shared(&sum.intervals[*two]))
        });
        match nearest.filter(|place| shared(&sum.intervals[*place]) > 0.0) {
            Some(place) => add_stretch(&mut sum.intervals[place], stretch)?,
            None => sum.intervals.push(Stretch { at_seconds, ..stretch.clone() }),
        }
    }
    sum.intervals.sort_by(|one, two| one.at_seconds.total_cmp(&two.at_seconds));
    sum.seconds = ended.max(their_end) - origin;
    Ok(())
}

fn add_phases(
    sum: &mut BTreeMap<String, Times>,
    other: &BTreeMap<String, Times>,
) -> Result<(), MergeError> {
    for (phase, times) in other {
        let times = match sum.get(phase) {
            Some(here) => add_times(here, times)?,
            None => times.clone(),
        };
        sum.insert(phase.clone(), times);
    }
    Ok(())
}

fn add_stretch(sum: &mut Stretch, other: &Stretch) -> Result<(), MergeError> {
    let mut histogram = new_histogram();
    for stretch in [&*sum, other] {
        histogram += stretch.histogram().map_err(MergeError::Damaged)?;
    }
    *sum = Stretch {
        at_seconds: sum.at_seconds,
        seconds: sum.seconds,
        tester_late_ns: sum.tester_late_ns.max(other.tester_late_ns),
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
        pauses: one.pauses + two.pauses,
        paused_seconds: one.paused_seconds.max(two.paused_seconds),
        first_pause_seconds: [one.first_pause_seconds, two.first_pause_seconds]
            .into_iter()
            .flatten()
            .reduce(f64::min),
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

    /// A part of its own that began so many milliseconds after the others.
    fn part(times: &[u64], id: &str, after_ms: i64) -> Outcome {
        let mut outcome = outcome_of(times);
        outcome.parts[0].id = id.to_owned();
        let began: Timestamp = outcome.parts[0].began.parse().expect("a time");
        let began = began + jiff::SignedDuration::from_millis(after_ms);
        outcome.parts[0].began = began.to_string();
        outcome
    }

    fn refusal(one: &Outcome, other: &Outcome) -> String {
        merge(&[one.clone(), other.clone()]).expect_err("must not").to_string()
    }

    #[test]
    fn what_is_no_part_of_the_run_is_refused_with_the_reason() {
        let one = part(&[1], "one", 0);
        let mut open = part(&[2], "two", 0);
        open.asked.kind = "open".to_owned();
        assert!(refusal(&one, &open).contains("different things (loop: closed and open)"));
        let mut deep = part(&[2], "two", 0);
        deep.asked.depth = 4;
        assert!(refusal(&one, &deep).contains("(depth: 1 and 4)"));
        assert!(refusal(&one, &one).contains("would count twice"));
        assert!(refusal(&one, &part(&[2], "two", 3_600_000)).contains("not made at the same time"));
        assert!(refusal(&one, &part(&[2], "two", -600)).contains("not made at the same time"));
        let mut named = part(&[2], "two", 0);
        named.parts[0].run = Some("tuesday".to_owned());
        assert!(refusal(&one, &named).contains("(no --run and `tuesday`)"));
        let mut elsewhere = part(&[2], "two", 0);
        elsewhere.target = "tcp://127.0.0.1:10".to_owned();
        assert!(refusal(&one, &elsewhere).contains("different targets"));
        let sum = merge(&[one.clone(), part(&[2], "two", 0)]).expect("parts of one run");
        assert!(refusal(&sum, &one).contains("would count twice"), "also in a sum");
        assert_eq!(merge(&[]), Err(MergeError::Nothing));
    }

    #[test]
    fn each_host_may_have_a_schedule_of_its_own() {
        let hosts = [("one", 1), ("two", 2), ("three", 1)].map(|(id, seed)| {
            let mut host = part(&[1], id, 0);
            host.asked.schedule = Some(format!("100, arrivals poisson (seed {seed})"));
            host
        });
        let schedule = merge(&hosts).expect("parts of one run").asked.schedule;
        let both = "100, arrivals poisson (seed 1); 100, arrivals poisson (seed 2)";
        assert_eq!(schedule.as_deref(), Some(both));
    }

    #[test]
    fn intervals_lie_beside_one_another_by_the_clock() {
        let four = |id, after_ms| {
            let mut outcome = part(&[1_000; 4], id, after_ms);
            let stretch = outcome.intervals[0].clone();
            let at = |n: u64| Stretch {
                at_seconds: n as f64 * 0.25,
                seconds: 0.25,
                completed: 10 + n,
                ..stretch.clone()
            };
            outcome.intervals = (0..4).map(at).collect();
            outcome
        };
        for order in [["one", "two"], ["two", "one"]] {
            let parts = order.map(|id| four(id, if id == "one" { 0 } else { 260 }));
            let sum = merge(&parts).expect("nearly together");
            let completed: Vec<u64> = sum.intervals.iter().map(|it| it.completed).collect();
            assert_eq!(completed, [10, 11 + 10, 12 + 11, 13 + 12, 13], "{order:?}");
            assert!((sum.seconds - 1.26).abs() < 1e-6, "{}", sum.seconds);
            assert!(sum.remarks[0].contains("0.7 s of 1.0 s in common"), "{:?}", sum.remarks);
            // While both ran: from 0.26 s on, 11, 12 and 13 of the one, 10, 11 and 12 of the other.
            assert!((sum.rate_per_second - 69.0 / 0.74).abs() < 2.0, "{}", sum.rate_per_second);
        }
    }

    proptest! {
        #[test]
        fn adding_up_equals_one_run_over_all(
            one in prop::collection::vec(1u64..10_000_000_000, 1..200),
            two in prop::collection::vec(1u64..10_000_000_000, 1..200),
        ) {
            let both: Vec<u64> = one.iter().chain(&two).copied().collect();
            let sum = merge(&[part(&one, "one", 0), part(&two, "two", 0)]).expect("of one kind");
            let whole = outcome_of(&both);
            prop_assert_eq!(sum.times(Phase::Request), whole.times(Phase::Request));
            prop_assert_eq!(&sum.intervals[0].histogram, &whole.intervals[0].histogram);
            prop_assert_eq!((sum.replies, sum.runs), (whole.replies, 2));
        }
    }
}
