//! What is demanded of a run: `p99<5ms`, `errors<0.1%`, `rate>1000`.

use std::str::FromStr;

use hdrhistogram::Histogram;

use super::outcome::{Outcome, Verdict};
use super::show::{show_count, show_ns, show_percent};

/// One demand.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    text: String,
    what: What,
    bound: Bound,
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// A quantile of the headline, from 0 to 1; the limit is in nanoseconds.
    Quantile(f64),
    /// The mean of the headline, in nanoseconds.
    Mean,
    /// The share that failed.
    Errors,
    /// Replies a second.
    Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Below,
    Above,
}

/// A text is not an objective.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an objective: write a quantile, max or mean and a time (p99<5ms, p99.9<20ms, \
     max<1s), errors<0.1%, or rate>1000"
)]
pub struct ObjectiveError(String);

impl FromStr for Objective {
    type Err = ObjectiveError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ObjectiveError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Objective> {
    let place = text.find(['<', '>'])?;
    let (name, limit) = (text[..place].trim(), text[place + 1..].trim());
    let bound = if text[place..].starts_with('<') { Bound::Below } else { Bound::Above };
    let what = match name {
        "max" => What::Quantile(1.0),
        "mean" => What::Mean,
        "errors" => What::Errors,
        "rate" => What::Rate,
        _ => What::Quantile(quantile(name)?),
    };
    let limit = match what {
        What::Quantile(_) | What::Mean => nanoseconds(limit)?,
        What::Errors => number(limit.strip_suffix('%')?)? / 100.0,
        What::Rate => number(limit.strip_suffix("/s").unwrap_or(limit))?,
    };
    let may = match what {
        What::Rate => bound == Bound::Above,
        _ => bound == Bound::Below,
    };
    may.then(|| Objective { text: text.to_owned(), what, bound, limit })
}

/// `p99.9` is 0.999.
fn quantile(name: &str) -> Option<f64> {
    let percent = number(name.strip_prefix('p')?)?;
    (percent > 0.0 && percent <= 100.0).then_some(percent / 100.0)
}

fn nanoseconds(text: &str) -> Option<f64> {
    let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    units.into_iter().find_map(|(unit, factor)| Some(number(text.strip_suffix(unit)?)? * factor))
}

/// Digits, and perhaps a point among them: no sign, no exponent, no infinity.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_plain)
}

impl Objective {
    /// Whether `outcome` meets it, of all that was due: what has no right reply is slower than any limit.
    /// What is not known is not met.
    #[must_use]
    pub fn judge(&self, outcome: &Outcome) -> Verdict {
        let headline = outcome.headline().map(|(_, times)| times);
        let times = headline.and_then(|times| times.histogram().ok());
        let (value, found) = match self.what {
            What::Errors => {
                let (bad, known) = outcome.unanswered(outcome.timeout_ns());
                let share = (known > 0).then_some(outcome.error_share());
                (
                    share,
                    share.map_or("unknown: nothing was due".to_owned(), |share| {
                        format!(
                            "{} ({} of {})",
                            show_percent(share),
                            show_count(bad),
                            show_count(known)
                        )
                    }),
                )
            }
            What::Rate => {
                let rate = outcome.rate_per_second;
                (Some(rate), format!("{} a second", show_count(rate as u64)))
            }
            What::Mean => self.find_mean(outcome, times.as_ref()),
            What::Quantile(quantile) => self.find_quantile(quantile, outcome, times.as_ref()),
        };
        let held = value.is_some_and(|value| match self.bound {
            Bound::Below => value < self.limit,
            Bound::Above => value > self.limit,
        });
        Verdict { objective: self.text.clone(), found: format!("it was {found}"), held }
    }

    fn find_quantile(
        &self,
        quantile: f64,
        outcome: &Outcome,
        times: Option<&Histogram<u64>>,
    ) -> (Option<f64>, String) {
        let Some(times) = times else { return unknown() };
        let (bad, _) = outcome.unanswered(self.limit as u64);
        let all = times.len() + bad;
        let rank = ((quantile * all as f64).ceil() as u64).clamp(1, all);
        if rank > times.len() {
            let (bad, all) = (show_count(bad), show_count(all));
            return (None, format!("never: {bad} of {all} had no right reply in time"));
        }
        known(value_at(times, rank as f64 / times.len() as f64))
    }

    /// The mean, where what has no right reply counts as if it had taken as long as anything may.
    fn find_mean(
        &self,
        outcome: &Outcome,
        times: Option<&Histogram<u64>>,
    ) -> (Option<f64>, String) {
        let Some(times) = times else { return unknown() };
        let (bad, _) = outcome.unanswered(self.limit as u64);
        let (count, bad) = (times.len() as f64, bad as f64);
        known((times.mean() * count + outcome.timeout_ns() as f64 * bad) / (count + bad))
    }
}

fn value_at(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64
}

fn known(ns: f64) -> (Option<f64>, String) {
    (Some(ns), show_ns(ns as u64))
}

fn unknown() -> (Option<f64>, String) {
    (None, "unknown: there are no times".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Times;
    use super::super::outcome::tests::outcome_of;
    use super::super::statistics::new_histogram;
    use super::*;

    #[test]
    fn each_form_is_read() {
        let cases = [
            ("p99<5ms", What::Quantile(0.99), 5e6),
            ("p50 < 250us", What::Quantile(0.5), 250e3),
            ("max<1.5s", What::Quantile(1.0), 1.5e9),
            ("mean<10ns", What::Mean, 10.0),
            ("errors<0.5%", What::Errors, 0.005),
            ("rate>1000", What::Rate, 1000.0),
            ("rate>1000/s", What::Rate, 1000.0),
        ];
        for (text, what, limit) in cases {
            let objective: Objective = text.parse().expect(text);
            assert_eq!((objective.what, objective.limit), (what, limit), "{text}");
        }
    }

    #[test]
    fn what_says_nothing_is_refused() {
        let cases = ["", "p99", "p99<5", "p0<1ms", "p101<1ms", "p99>5ms", "rate<10", "errors<1"];
        for text in cases.into_iter().chain(["p99<-1ms", "p99<infs", "p99<1e3ms", "speed>1"]) {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }

    #[test]
    fn objectives_are_judged_over_all_that_was_due() {
        let judged =
            |outcome: &Outcome, text: &str| text.parse::<Objective>().expect(text).judge(outcome);
        let mut outcome = outcome_of(&[1_000_000; 99]);
        assert!(judged(&outcome, "p99<5ms").held && judged(&outcome, "mean<5ms").held);
        (outcome.unsent, outcome.due) = (1, 100);
        assert!(judged(&outcome, "p99<5ms").held, "99 of 100 are fast");
        assert!(judged(&outcome, "errors<1.5%").held && !judged(&outcome, "errors<1%").held);
        (outcome.unsent, outcome.due) = (2, 101);
        let verdict = judged(&outcome, "p99<5ms");
        assert!(!verdict.held, "{verdict:?}");
        assert_eq!(verdict.found, "it was never: 2 of 101 had no right reply in time");
        assert!(judged(&outcome, "p50<5ms").held && !judged(&outcome, "max<5s").held);
        // Two that count as 10 s each weigh more than 99 of a millisecond.
        assert!(!judged(&outcome, "mean<100ms").held);
    }

    #[test]
    fn what_was_on_the_way_is_slow_once_it_is_older_than_the_limit() {
        let mut outcome = outcome_of(&[1_000_000; 50]);
        let mut waiting = new_histogram();
        waiting.saturating_record_n(500_000_000, 10);
        (outcome.waiting, outcome.in_flight, outcome.due) = (Times::of(&waiting), 10, 60);
        let held = |text: &str| text.parse::<Objective>().expect(text).judge(&outcome).held;
        assert!(!held("p99<100ms") && held("p99<900ms") && held("errors<1%"));
    }
}
