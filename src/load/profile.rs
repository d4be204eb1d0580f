//! How the rate of an open loop goes: constant, in stages, or rising and falling.
//!
//! ```text
//! 500                                  the same all the time
//! 100..10000 over 60s                  a ramp, and then on at its last rate
//! 100 for 10s, 1000 for 30s, 500       stages; the last may have no end
//! 100 for 10s, 100..1000 over 30s      both
//! ```
//!
//! This module is arithmetic. It turns the number of a request into the time at which it is due.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::config::units::{parse_duration, show_duration};

/// How requests follow one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    #[default]
    Uniform,
    /// At random, as those of many people who know nothing of each other (a Poisson process); the
    /// number is the seed, and the same seed gives the same moments.
    Poisson(u64),
}

/// The most stages that a profile may have.
const MOST_STAGES: usize = 100;

/// A rate that changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile(Vec<Leg>);

/// A stretch of time in which the rate goes evenly from one figure to another, in requests a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Leg {
    from: f64,
    to: f64,
    /// The last may have no end.
    length: Option<Duration>,
}

impl Profile {
    /// The same rate for ever.
    #[must_use]
    pub fn constant(rate: f64) -> Self {
        Self(vec![Leg { from: rate, to: rate, length: None }])
    }

    /// Whether the rate stays the same.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        matches!(self.0[..], [Leg { from, to, .. }] if from == to)
    }

    /// The rate at the beginning.
    #[must_use]
    pub fn first_rate(&self) -> f64 {
        self.0[0].from
    }

    /// How long it is until it changes no more.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.0.iter().filter_map(|leg| leg.length).sum()
    }

    /// The mean rate of the first `length`.
    #[must_use]
    pub fn mean(&self, length: Duration) -> f64 {
        self.count_by(length.as_secs_f64()) / length.as_secs_f64().max(1e-9)
    }

    /// The same after its first rate has held for `warm_up`.
    #[must_use]
    pub fn after(self, warm_up: Duration) -> Self {
        if self.is_constant() || warm_up.is_zero() {
            return self;
        }
        let rate = self.first_rate();
        let first = Leg { from: rate, to: rate, length: Some(warm_up) };
        Self(std::iter::once(first).chain(self.0).collect())
    }

    /// How many requests are due within the first `seconds`.
    #[must_use]
    pub fn count_by(&self, seconds: f64) -> f64 {
        let (mut count, mut left) = (0.0, seconds);
        for leg in self.legs() {
            let length = leg.seconds();
            let part = left.min(length);
            let slope = if length.is_finite() { (leg.to - leg.from) / length } else { 0.0 };
            count += leg.from * part + slope * part * part / 2.0;
            left -= part;
            if left <= 0.0 {
                break;
            }
        }
        count
    }

    /// How many seconds after the beginning the request is due before which `count` were.
    #[must_use]
    pub fn time_of(&self, count: f64) -> Option<f64> {
        if let [Leg { from, length: None, .. }] = self.0[..] {
            // By far the most frequent case, asked for each request.
            return Some(count / from);
        }
        let (mut begun, mut left) = (0.0, count);
        for leg in self.legs() {
            let length = leg.seconds();
            let whole = if length.is_finite() {
                f64::midpoint(leg.from, leg.to) * length
            } else if leg.from > 0.0 {
                f64::INFINITY
            } else {
                0.0
            };
            if left < whole {
                return Some(begun + leg.time_of(left));
            }
            begun += length;
            left -= whole;
        }
        None
    }

    /// The legs, and after them the last rate for ever.
    fn legs(&self) -> impl Iterator<Item = Leg> {
        let last = self.0.last().filter(|leg| leg.length.is_some());
        let rest = last.map(|leg| Leg { from: leg.to, to: leg.to, length: None });
        self.0.iter().copied().chain(rest)
    }
}

impl Leg {
    fn seconds(self) -> f64 {
        self.length.map_or(f64::INFINITY, |length| length.as_secs_f64())
    }

    /// When, in seconds, the integral of the rate reaches `count`, which it does.
    fn time_of(self, count: f64) -> f64 {
        let slope = self.length.map_or(0.0, |length| (self.to - self.from) / length.as_secs_f64());
        if slope == 0.0 {
            return count / self.from;
        }
        // The root of from * t + slope / 2 * t^2 = count, in the form that loses no digits.
        let root = (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt();
        2.0 * count / (self.from + root).max(f64::MIN_POSITIVE)
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| {
            format!(
                "`{what}` is no rate: write a number a second, `100..10000 over 60s`, or stages \
                 such as `100 for 10s, 1000 for 30s`"
            )
        };
        let mut legs: Vec<Leg> = Vec::new();
        for part in text.split(',').map(str::trim) {
            if legs.last().is_some_and(|leg| leg.length.is_none()) {
                return Err(format!("`{text}`: only the last stage may go without `for`"));
            }
            let leg = parse_leg(part)?.ok_or_else(|| wrong(part))?;
            legs.push(leg);
        }
        if legs.len() > MOST_STAGES {
            return Err(format!("a rate has {MOST_STAGES} stages at the most"));
        }
        if legs.iter().all(|leg| leg.from == 0.0 && leg.to == 0.0) {
            return Err(wrong(text));
        }
        Ok(Self(legs))
    }
}

/// One stage; `None` where it has none of the forms.
fn parse_leg(part: &str) -> Result<Option<Leg>, String> {
    let rate = |text: &str| {
        text.trim().parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate >= 0.0)
    };
    let duration = |text: &str| match parse_duration(text.trim()) {
        Ok(length) if length.is_zero() => Err("a stage takes some time".to_owned()),
        Ok(length) => Ok(Some(length)),
        Err(error) => Err(error.to_string()),
    };
    if let Some((rates, length)) = part.split_once(" over ") {
        let rates = rates.split_once("..").and_then(|(from, to)| Some((rate(from)?, rate(to)?)));
        let length = duration(length)?;
        return Ok(rates.map(|(from, to)| Leg { from, to, length }));
    }
    let (text, length) = match part.split_once(" for ") {
        Some((text, length)) => (text, duration(length)?),
        None => (part, None),
    };
    Ok(rate(text).map(|rate| Leg { from: rate, to: rate, length }))
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Leg { from, to, length }) in self.0.iter().enumerate() {
            f.write_str(if place > 0 { ", " } else { "" })?;
            match length {
                None => write!(f, "{from}")?,
                Some(length) if from == to => write!(f, "{from} for {}", show_duration(*length))?,
                Some(length) => write!(f, "{from}..{to} over {}", show_duration(*length))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn profile(text: &str) -> Profile {
        text.parse().expect(text)
    }

    #[test]
    fn each_form_is_read_and_printed() {
        for text in
            ["500", "0.5", "100..10000 over 1m", "100 for 10s, 1000 for 30s, 5", "0..9 over 2s"]
        {
            assert_eq!(profile(text).to_string(), text);
        }
        for text in [
            "",
            "x",
            "-1",
            "0",
            "0..0 over 1s",
            "1..2",
            "5, 6",
            "1 for",
            "1 for 0s",
            "nan",
            "inf",
            "1 over 2s",
        ] {
            assert!(text.parse::<Profile>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_profile_has_as_many_requests_as_lie_under_it() {
        let stages = profile("100 for 10s, 100..300 over 10s, 50");
        assert_eq!(stages.length(), Duration::from_secs(20));
        assert_eq!(stages.count_by(10.0), 1000.0);
        assert_eq!(stages.count_by(20.0), 3000.0);
        assert_eq!(stages.count_by(24.0), 3200.0);
        assert_eq!(stages.mean(Duration::from_secs(20)), 150.0);
        assert_eq!(stages.time_of(3000.0), Some(20.0));
        assert_eq!(profile("10..0 over 2s").time_of(10.0), None);
    }

    proptest! {
        #[test]
        fn time_and_count_are_each_others_inverse(
            legs in prop::collection::vec((0u32..1000, 0u32..1000, 1u64..20), 1..5),
            share in 0.0f64..1.0,
        ) {
            let legs = legs.into_iter().map(|(from, to, seconds)| Leg {
                from: from.into(),
                to: to.into(),
                length: Some(Duration::from_secs(seconds)),
            });
            let profile = Profile(legs.collect());
            let seconds = share * profile.length().as_secs_f64();
            let count = profile.count_by(seconds);
            if let Some(found) = profile.time_of(count) {
                prop_assert!((profile.count_by(found) - count).abs() < 1e-6 * (1.0 + count));
            }
        }
    }
}
