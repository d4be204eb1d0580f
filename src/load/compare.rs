//! What changed from one run to another, and whether more than noise.
//!
//! Each run is cut into ten batches of its intervals, and each batch gives one figure. Intervals that lie
//! beside one another are alike, so they are no ten times as much evidence; batches are nearly
//! independent, and what they still have in common is taken off their number. But no run shows by itself
//! how much the next run of the same thing would differ: where it is placed on the cores, what else the
//! machine does. So a share of the spread within a run is taken for the spread between runs, whatever the
//! number of batches. With several figures some change by chance: they are judged together, by Holm's
//! rule.

use serde::Serialize;

use super::outcome::{Outcome, Stretch};
use super::settings::{Difference, differences};
use super::show::{show_count, show_ns, show_percent};
use super::statistics::new_histogram;

/// How many batches a run is cut into.
const BATCHES: usize = 10;

/// Fewer intervals than this on either side say nothing.
const FEWEST: usize = 10;

/// How likely it may be that any figure of two equal runs is said to have changed.
const LEVEL: f64 = 0.01;

/// The variance between runs, as a share of that between the batches of one.
const BETWEEN: f64 = 0.5;

/// A smaller change than this is none that matters, however sure it is.
const RELEVANT: f64 = 0.02;

/// What a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// More than noise, and for the better.
    Better,
    /// More than noise, and for the worse.
    Worse,
    /// Not more than noise, or too small to matter.
    Same,
    /// Too few intervals to tell.
    Unknown,
    /// The two runs were asked for different things.
    NotComparable,
}

/// One figure of two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What it is.
    pub name: &'static str,
    /// In the first run.
    pub before: f64,
    /// In the second.
    pub after: f64,
    /// What they count: `per_second`, `ns` or `share`.
    pub unit: &'static str,
    /// The second less the first, as a share of the first; `None` where the first is nothing.
    pub relative: Option<f64>,
    /// How likely so large a difference is between equal runs, for this figure alone.
    pub p: Option<f64>,
    /// What that means.
    pub judgement: Judgement,
}

/// Two runs beside one another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The name and version of this form.
    pub schema: &'static str,
    /// The first.
    pub before: Side,
    /// The second.
    pub after: Side,
    /// What they were asked for differently.
    pub settings: Vec<Difference>,
    /// What changed.
    pub changes: Vec<Change>,
    /// The worst of the judgements.
    pub verdict: Judgement,
}

/// One of two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The file it was read from.
    pub file: String,
    /// What was put under load.
    pub target: String,
    /// When.
    pub started: String,
}

/// Compares the rate, the quantiles and the errors of two runs, each with the file it comes from.
#[must_use]
pub fn compare(before: (&str, &Outcome), after: (&str, &Outcome)) -> Comparison {
    let ((from, was), (to, is)) = (before, after);
    let mut settings = differences(&was.asked, &is.asked, &[]);
    if was.runs != is.runs {
        let (before, after) = (was.runs.to_string(), is.runs.to_string());
        settings.push(Difference { name: "runs".to_owned(), before, after });
    }
    let mut changes = changes(was, is);
    judge(&mut changes);
    if !settings.is_empty() {
        changes.iter_mut().for_each(|change| change.judgement = Judgement::NotComparable);
    }
    let among = |judgement| changes.iter().any(|change| change.judgement == judgement);
    let verdicts =
        [Judgement::NotComparable, Judgement::Worse, Judgement::Better, Judgement::Unknown];
    let verdict = verdicts.into_iter().find(|it| among(*it)).unwrap_or(Judgement::Same);
    Comparison {
        schema: "turnstile-compare/1",
        before: side(from, was),
        after: side(to, is),
        settings,
        changes,
        verdict,
    }
}

fn side(file: &str, outcome: &Outcome) -> Side {
    let (target, started) = (outcome.target.clone(), outcome.started.clone());
    Side { file: file.to_owned(), target, started }
}

fn changes(before: &Outcome, after: &Outcome) -> Vec<Change> {
    let (one, two) = (batches(before), batches(after));
    let mut changes = vec![change(
        ("rate", "per_second"),
        (before.rate_per_second, after.rate_per_second),
        p_of_ratio(&one, &two, |batch| Some(batch.rate)),
    )];
    if let (Some((phase, was)), Some((same, is))) = (before.headline(), after.headline())
        && phase == same
    {
        let medians = (was.p50_ns as f64, is.p50_ns as f64);
        let tails = (was.p99_ns as f64, is.p99_ns as f64);
        changes.push(change(("p50", "ns"), medians, p_of_ratio(&one, &two, |batch| batch.p50)));
        changes.push(change(("p99", "ns"), tails, p_of_ratio(&one, &two, |batch| batch.p99)));
    }
    let shares = (before.error_share(), after.error_share());
    let by_batches = p_of(&one, &two, |batch| Some(batch.errors));
    // Where all is well there is nothing between the batches, and chance itself is the measure.
    let p = by_batches.map(|p| p.max(p_of_shares(before, after)));
    changes.push(change(("errors", "share"), shares, p));
    changes
}

fn change(
    (name, unit): (&'static str, &'static str),
    (before, after): (f64, f64),
    p: Option<f64>,
) -> Change {
    let relative = match before {
        0.0 if after == 0.0 => Some(0.0),
        0.0 => None,
        _ => Some((after - before) / before),
    };
    Change { name, before, after, unit, relative, p, judgement: Judgement::Unknown }
}

/// Holm's rule: the least likely is judged as strictly as if all were by chance, the next as if all but
/// one were, and after the first that may be chance all others may.
fn judge(changes: &mut [Change]) {
    let mut order: Vec<usize> = (0..changes.len()).filter(|at| changes[*at].p.is_some()).collect();
    order.sort_by(|one, two| {
        changes[*one].p.partial_cmp(&changes[*two].p).expect("they are numbers")
    });
    let mut left = order.len() as f64;
    let mut is_sure = true;
    for at in order {
        let change = &mut changes[at];
        is_sure &= change.p.is_some_and(|p| p <= LEVEL / left);
        left -= 1.0;
        let is_relevant = change.relative.is_none_or(|relative| relative.abs() >= RELEVANT);
        let is_worse = (change.after > change.before) != (change.name == "rate");
        change.judgement = match (is_sure && is_relevant, is_worse) {
            (false, _) => Judgement::Same,
            (true, true) => Judgement::Worse,
            (true, false) => Judgement::Better,
        };
    }
}

/// What a batch of intervals says.
struct Batch {
    rate: f64,
    p50: Option<f64>,
    p99: Option<f64>,
    errors: f64,
}

/// The batches of a run, or none where it has too few intervals.
fn batches(outcome: &Outcome) -> Vec<Batch> {
    // The last intervals may lie after the window, where only late replies come.
    let inside =
        |it: &&Stretch| it.seconds > 0.0 && it.at_seconds < outcome.seconds - it.seconds / 2.0;
    let intervals: Vec<&Stretch> = outcome.intervals.iter().filter(inside).collect();
    if intervals.len() < FEWEST {
        return Vec::new();
    }
    let bounds = (0..=BATCHES).map(|batch| batch * intervals.len() / BATCHES);
    let bounds: Vec<usize> = bounds.collect();
    bounds.windows(2).map(|bound| batch(&intervals[bound[0]..bound[1]])).collect()
}

fn batch(intervals: &[&Stretch]) -> Batch {
    let mut times = new_histogram();
    for histogram in intervals.iter().filter_map(|it| it.histogram().ok()) {
        times += histogram;
    }
    let quantile = |q| (!times.is_empty()).then(|| times.value_at_quantile(q).max(1) as f64);
    let sum = |of: fn(&Stretch) -> f64| intervals.iter().map(|it| of(it)).sum::<f64>();
    let (completed, errors) = (sum(|it| it.completed as f64), sum(|it| it.errors as f64));
    Batch {
        rate: completed / sum(|it| it.seconds),
        p50: quantile(0.5),
        p99: quantile(0.99),
        errors: errors / (completed + errors).max(1.0),
    }
}

/// As [`p_of`], on a scale of ratios: what doubles is as far away as what is halved.
fn p_of_ratio(one: &[Batch], two: &[Batch], value: impl Fn(&Batch) -> Option<f64>) -> Option<f64> {
    p_of(one, two, |batch| value(batch).map(|value| value.max(1e-9).ln()))
}

/// How likely so large a difference of the means is where nothing has changed.
fn p_of(one: &[Batch], two: &[Batch], value: impl Fn(&Batch) -> Option<f64>) -> Option<f64> {
    let sample =
        |batches: &[Batch]| Sample::of(&batches.iter().filter_map(&value).collect::<Vec<_>>());
    let (one, two) = (sample(one)?, sample(two)?);
    let (first, second) = (one.uncertainty(), two.uncertainty());
    let deviation = (first + second).sqrt();
    if deviation == 0.0 {
        return Some(if one.mean == two.mean { 1.0 } else { 0.0 });
    }
    // Welch and Satterthwaite: how sure the deviation itself is.
    let freedom = (first + second).powi(2)
        / (first.powi(2) / (one.count - 1.0) + second.powi(2) / (two.count - 1.0));
    Some(student(((two.mean - one.mean) / deviation).abs(), freedom))
}

/// The figures of one run's batches.
struct Sample {
    count: f64,
    mean: f64,
    variance: f64,
    /// How alike two batches are that follow one another: from 0 to 0.9.
    likeness: f64,
}

impl Sample {
    fn of(values: &[f64]) -> Option<Self> {
        if values.len() < BATCHES / 2 {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let pairs = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean));
        let likeness = if squares > 0.0 { pairs.sum::<f64>() / squares } else { 0.0 };
        let likeness = likeness.clamp(0.0, 0.9);
        Some(Self { count, mean, variance: squares / (count - 1.0), likeness })
    }

    /// The variance of the mean, over runs of the same thing.
    fn uncertainty(&self) -> f64 {
        let independent = self.count * (1.0 - self.likeness) / (1.0 + self.likeness);
        self.variance * (1.0 / independent.max(1.0) + BETWEEN)
    }
}

/// Two shares of what was due, by chance alone.
fn p_of_shares(before: &Outcome, after: &Outcome) -> f64 {
    let [(bad, all), (worse, total)] = [before, after]
        .map(|it| it.unanswered(it.timeout_ns()))
        .map(|(bad, all)| (bad as f64, all as f64));
    let pooled = (bad + worse) / (all + total).max(1.0);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / all + 1.0 / total)).sqrt();
    if deviation > 0.0 {
        student(((worse / total - bad / all) / deviation).abs(), 1e4)
    } else {
        1.0
    }
}

/// How likely a value of Student's distribution is farther from the middle than `t`, in either
/// direction. With t = sqrt(f) tan(a), its density is a power of the cosine, which is summed up by
/// Simpson's rule.
fn student(t: f64, freedom: f64) -> f64 {
    const STEPS: usize = 2000;
    let power = freedom - 1.0;
    let area = |from: f64, to: f64| {
        let step = (to - from) / STEPS as f64;
        let sum: f64 = (0..=STEPS)
            .map(|at| {
                let weight = if at == 0 || at == STEPS { 1.0 } else { 2.0 + 2.0 * (at % 2) as f64 };
                weight * (from + at as f64 * step).cos().max(0.0).powf(power)
            })
            .sum();
        sum * step / 3.0
    };
    let whole = std::f64::consts::FRAC_PI_2;
    let angle = (t / freedom.sqrt()).atan();
    (area(angle, whole) / area(0.0, whole)).clamp(0.0, 1.0)
}

impl Judgement {
    /// In words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Better => "better, more than noise",
            Self::Worse => "WORSE, more than noise",
            Self::Same => "no more than noise",
            Self::Unknown => "too few intervals: measure longer",
            Self::NotComparable => "asked for something else: no verdict",
        }
    }
}

impl Change {
    /// A figure of it, with its unit.
    #[must_use]
    pub fn show(&self, value: f64) -> String {
        match self.unit {
            "ns" => show_ns(value as u64),
            "share" => show_percent(value),
            _ => format!("{}/s", show_count(value as u64)),
        }
    }

    /// The change in percent.
    #[must_use]
    pub fn show_relative(&self) -> String {
        self.relative.map_or("new".to_owned(), |relative| format!("{:+.1}%", relative * 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Times;
    use super::super::outcome::tests::outcome_of;
    use super::super::packed::pack;
    use super::super::statistics::Phase;
    use super::*;

    /// A run of intervals that have these rates, and times that are the longer the lower the rate.
    fn run_of(rates: impl IntoIterator<Item = u64>) -> Outcome {
        let mut outcome = outcome_of(&[1_000_000]);
        outcome.intervals.clear();
        let mut whole = new_histogram();
        for (at, rate) in rates.into_iter().enumerate() {
            let mut times = new_histogram();
            times.saturating_record_n(1_000_000_000 / rate, rate);
            let stretch = outcome_of(&[1]).intervals.remove(0);
            outcome.intervals.push(Stretch {
                at_seconds: at as f64,
                completed: rate,
                histogram: pack(&times),
                ..stretch
            });
            whole += times;
        }
        outcome.seconds = outcome.intervals.len() as f64;
        outcome.replies = whole.len();
        outcome.due = outcome.replies;
        outcome.rate_per_second = outcome.replies as f64 / outcome.seconds;
        let name = Phase::Request.name().to_owned();
        outcome.phases.extend(Times::of(&whole).map(|times| (name, times)));
        outcome
    }

    fn judgement_of(before: &Outcome, after: &Outcome, name: &str) -> Judgement {
        let comparison = compare(("a", before), ("b", after));
        comparison.changes.iter().find(|change| change.name == name).expect("compared").judgement
    }

    #[test]
    fn a_clear_change_is_more_than_noise_and_jitter_is_not() {
        let before = run_of((0..40).map(|n| 1000 + n * 7 % 13));
        let faster = run_of((0..40).map(|n| 1100 + n * 5 % 11));
        let jittered = run_of((0..40).map(|n| 1000 + n * 3 % 13));
        assert_eq!(judgement_of(&before, &faster, "rate"), Judgement::Better);
        assert_eq!(judgement_of(&faster, &before, "rate"), Judgement::Worse);
        assert_eq!(judgement_of(&faster, &before, "p50"), Judgement::Worse);
        assert_eq!(judgement_of(&before, &jittered, "rate"), Judgement::Same);
        assert_eq!(compare(("a", &faster), ("b", &before)).verdict, Judgement::Worse);
        assert_eq!(compare(("a", &before), ("b", &before)).verdict, Judgement::Same);
    }

    #[test]
    fn few_intervals_tell_nothing() {
        let (before, after) = (run_of([1000; 7]), run_of([2000; 20]));
        assert_eq!(judgement_of(&before, &after, "rate"), Judgement::Unknown);
    }

    #[test]
    fn runs_that_were_asked_for_different_things_get_no_verdict() {
        let before = run_of([1000; 20]);
        let mut after = run_of([500; 20]);
        after.asked.depth = 7;
        let comparison = compare(("a", &before), ("b", &after));
        assert_eq!(comparison.verdict, Judgement::NotComparable);
        assert_eq!((comparison.settings[0].name.as_str(), comparison.changes.len()), ("depth", 4));
    }

    #[test]
    fn errors_are_compared_as_shares() {
        let before = run_of([1000; 20]);
        let mut after = before.clone();
        assert_eq!(judgement_of(&before, &after, "errors"), Judgement::Same);
        after.errors.insert("reset".to_owned(), 200);
        (after.failed, after.due) = (200, after.due + 200);
        after.intervals.iter_mut().enumerate().for_each(|(n, it)| it.errors = 8 + n as u64 % 5);
        assert_eq!(judgement_of(&before, &after, "errors"), Judgement::Worse);
    }

    /// Runs whose rate wanders from interval to interval, each a little from where the last was.
    #[test]
    fn runs_that_wander_are_rarely_said_to_have_changed() {
        let mut state = 1u64;
        let mut chance = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
        };
        let mut alarms = 0;
        for _ in 0..500 {
            let mut run = || {
                let mut at = 0.0;
                let rates = (0..60).map(|_| {
                    at = at * 0.8 + chance();
                    1000.0 + 100.0 * at
                });
                let rates: Vec<f64> = rates.collect();
                let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
                let batch = |rate| Batch { rate, p50: None, p99: None, errors: 0.0 };
                rates.chunks(6).map(|rates| batch(mean(rates))).collect::<Vec<_>>()
            };
            let p = p_of_ratio(&run(), &run(), |batch| Some(batch.rate)).expect("enough");
            alarms += usize::from(p <= LEVEL);
        }
        assert!(alarms <= 10, "{alarms} of 500");
    }

    #[test]
    fn students_distribution_is_that_of_the_tables() {
        for (t, freedom, p) in
            [(12.706, 1.0, 0.05), (2.228, 10.0, 0.05), (2.845, 20.0, 0.01), (0.0, 5.0, 1.0)]
        {
            let found = student(t, freedom);
            assert!((found - p).abs() < 0.0005, "{found} for {t} with {freedom}");
        }
    }
}
