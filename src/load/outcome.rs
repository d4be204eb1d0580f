//! What a run came to, as it is kept: every figure that a report shows, and the histograms that it
//! is made of, so that reports of several hosts can be added up exactly.
//!
//! This is the form that `--json` writes. Its fields are only ever added to under one schema name;
//! `outcome.schema.json` beside this file describes it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use super::statistics::{Phase, new_histogram};
use super::traffic::Traffic;

/// The name and version of the form.
pub const SCHEMA: &str = "turnstile-load/1";

/// The form itself, as a JSON Schema.
pub const JSON_SCHEMA: &str = include_str!("outcome.schema.json");

/// One run, or several added up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`SCHEMA`].
    pub schema: String,
    /// The address that was put under load.
    pub target: String,
    /// When it began (RFC 3339, UTC).
    pub started: String,
    /// What was asked for.
    pub asked: Asked,
    /// How many runs this is made of, at the same time on several hosts.
    pub runs: u64,
    /// How long the window was.
    pub seconds: f64,
    /// Requests that were due in the window and got the right reply.
    pub replies: u64,
    /// Replies that became whole in the window.
    pub completed: u64,
    /// `completed` a second.
    pub rate_per_second: f64,
    /// Requests that were due in the window and never sent.
    pub unsent: u64,
    /// Connections that were open at the end of the window.
    pub connections_at_end: u64,
    /// TLS handshakes that went on with an earlier session.
    pub tls_resumed: u64,
    /// What was carried.
    #[serde(default)]
    pub traffic: Traffic,
    /// Failures by cause.
    pub errors: BTreeMap<String, u64>,
    /// The first failure of each cause, in words.
    pub error_examples: BTreeMap<String, String>,
    /// Times by phase; a phase that never happened is left out.
    pub phases: BTreeMap<String, Times>,
    /// The headline's course.
    pub intervals: Vec<Stretch>,
    /// What the tester itself was doing.
    pub tester: Tester,
    /// What a reader of the figures should know, in sentences.
    pub remarks: Vec<String>,
    /// What was demanded of the run, and whether it held.
    pub objectives: Vec<Verdict>,
    /// Whether somebody stopped it before its end.
    pub interrupted: bool,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// requests, visits, handshakes or idle.
    pub activity: String,
    /// closed or open.
    #[serde(rename = "loop")]
    pub kind: String,
    /// Connections at a time.
    pub connections: u64,
    /// Requests a second, in an open loop.
    pub rate_per_second: Option<f64>,
    /// Requests on the way at a time, each connection.
    pub depth: u64,
    /// Bytes of a request.
    pub payload_bytes: u64,
    /// What had to come back.
    pub expect: String,
    /// The load before the window.
    pub warm_up_seconds: f64,
    /// How the rate goes, where it is not the same all the time or requests come at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// none, hmac-md5 or hmac-sha256.
    pub auth: String,
    /// How long anything may take.
    pub timeout_seconds: f64,
}

/// The times of one phase, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How many there are.
    pub count: u64,
    /// The shortest.
    pub min_ns: u64,
    /// Their mean.
    pub mean_ns: f64,
    /// Half are within this.
    pub p50_ns: u64,
    /// 90 of 100 are.
    pub p90_ns: u64,
    /// 99 of 100 are.
    pub p99_ns: u64,
    /// 999 of 1,000 are.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// All of them: HdrHistogram's V2 form, compressed, in base 64.
    pub histogram: String,
    /// Those percentiles that were asked for, in nanoseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub percentiles: Vec<Percentile>,
}

/// One percentile of the times of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// So many of a hundred are within it.
    pub percentile: f64,
    /// It, in nanoseconds.
    pub ns: u64,
}

/// One interval of the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// When it began, after the window did.
    pub at_seconds: f64,
    /// How long it was.
    pub seconds: f64,
    /// Replies that became whole in it.
    pub completed: u64,
    /// What failed in it.
    pub errors: u64,
    /// The headline's median in it.
    pub p50_ns: u64,
    /// The headline's p99 in it.
    pub p99_ns: u64,
    /// The headline's largest in it.
    pub max_ns: u64,
    /// All of the headline's times in it, in the form of [`Times::histogram`].
    pub histogram: String,
}

/// What the tester itself was doing in the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tester {
    /// Of one core's time: 1 is all of it.
    pub cpu_share: f64,
    /// Processor time for each reply, in microseconds.
    pub cpu_us_per_reply: f64,
    /// How late the loop came to what was due: 99 of 100 within this.
    pub lag_p99_ns: u64,
    /// The largest of these.
    pub lag_max_ns: u64,
    /// Memory in use at the end, in bytes.
    pub memory_bytes: u64,
    /// Of it, what each connection took.
    pub memory_per_connection_bytes: u64,
    /// Connections that this machine's kernel dropped because a listener's queue was full.
    pub listen_overflows: u64,
}

/// One demand, and whether it held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// As it was written.
    pub objective: String,
    /// What was found, with its unit.
    pub found: String,
    /// Whether it held.
    pub held: bool,
}

/// A report cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    /// Not this form.
    #[error("it is no report of a load test: {0}")]
    NotJson(#[from] serde_json::Error),
    /// A form of another version.
    #[error("its schema is `{0}`; this program reads `{SCHEMA}`")]
    Schema(String),
    /// A histogram that is none.
    #[error("the histogram of phase `{0}` cannot be read: {1}")]
    Histogram(String, String),
}

impl Outcome {
    /// Reads what `--json` wrote.
    ///
    /// # Errors
    /// The text is something else, or of another version, or its histograms are damaged.
    pub fn from_json(text: &str) -> Result<Self, OutcomeError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        match value.get("schema").and_then(serde_json::Value::as_str) {
            Some(SCHEMA) => {}
            other => return Err(OutcomeError::Schema(other.unwrap_or("missing").to_owned())),
        }
        let outcome: Self = serde_json::from_value(value)?;
        for (phase, times) in &outcome.phases {
            times.histogram().map_err(|why| OutcomeError::Histogram(phase.clone(), why))?;
        }
        Ok(outcome)
    }

    /// What `--json` writes.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("every field has a form");
        text.push('\n');
        text
    }

    /// How much failed.
    #[must_use]
    pub fn all_errors(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The share of what was begun that failed.
    #[must_use]
    pub fn error_share(&self) -> f64 {
        let errors = self.all_errors();
        errors as f64 / ((self.replies + errors) as f64).max(1.0)
    }

    /// Works out these percentiles of each phase, to be shown.
    ///
    /// # Errors
    /// A histogram is damaged: how.
    pub fn show_percentiles(&mut self, percentiles: &[f64]) -> Result<(), String> {
        if percentiles.is_empty() {
            return Ok(());
        }
        for times in self.phases.values_mut() {
            let histogram = times.histogram()?;
            let of = |&percentile| Percentile {
                percentile,
                ns: histogram.value_at_quantile(percentile / 100.0),
            };
            times.percentiles = percentiles.iter().map(of).collect();
        }
        Ok(())
    }

    /// The times of `phase`, if it happened.
    #[must_use]
    pub fn times(&self, phase: Phase) -> Option<&Times> {
        self.phases.get(phase.name())
    }

    /// What the run was about: responses where there are any, else requests, else connections.
    #[must_use]
    pub fn headline(&self) -> Option<(Phase, &Times)> {
        [Phase::Response, Phase::Request, Phase::Connect]
            .into_iter()
            .find_map(|phase| Some((phase, self.times(phase)?)))
    }
}

impl Times {
    /// Those of `histogram`, or `None` where it is empty.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        Some(Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
            histogram: pack(histogram),
            percentiles: Vec::new(),
        })
    }

    /// All the times.
    ///
    /// # Errors
    /// The text is damaged: how.
    pub fn histogram(&self) -> Result<Histogram<u64>, String> {
        unpack(&self.histogram)
    }
}

impl Stretch {
    /// The headline's times in it.
    ///
    /// # Errors
    /// The text is damaged: how.
    pub fn histogram(&self) -> Result<Histogram<u64>, String> {
        unpack(&self.histogram)
    }
}

/// A histogram as text: HdrHistogram's V2 form, compressed, in base 64.
#[must_use]
pub fn pack(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("a histogram goes into memory");
    STANDARD.encode(bytes)
}

fn unpack(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
    read_histogram(&bytes)
}

/// Reads any form of HdrHistogram's V2 into a histogram that can be added to all others here.
///
/// # Errors
/// The bytes are damaged: how.
pub fn read_histogram(bytes: &[u8]) -> Result<Histogram<u64>, String> {
    let read: Histogram<u64> =
        Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| error.to_string())?;
    let mut whole = new_histogram();
    whole.add(&read).map_err(|error| error.to_string())?;
    Ok(whole)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The outcome of a closed loop of a second whose requests took so long, in nanoseconds.
    pub(in crate::load) fn outcome_of(times: &[u64]) -> Outcome {
        let mut histogram = new_histogram();
        for time in times {
            histogram.saturating_record(*time);
        }
        let count = times.len() as u64;
        let stretch = Stretch {
            at_seconds: 0.0,
            seconds: 1.0,
            completed: count,
            errors: 0,
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            max_ns: histogram.max(),
            histogram: pack(&histogram),
        };
        let times = Times::of(&histogram).expect("not empty");
        Outcome {
            schema: SCHEMA.to_owned(),
            target: "tcp://127.0.0.1:9".to_owned(),
            started: "2026-01-01T00:00:00Z".to_owned(),
            asked: Asked {
                activity: "requests".to_owned(),
                kind: "closed".to_owned(),
                connections: 1,
                rate_per_second: None,
                depth: 1,
                payload_bytes: 64,
                expect: "upper".to_owned(),
                warm_up_seconds: 0.0,
                schedule: None,
                auth: "none".to_owned(),
                timeout_seconds: 10.0,
            },
            runs: 1,
            seconds: 1.0,
            replies: count,
            completed: count,
            rate_per_second: count as f64,
            unsent: 0,
            connections_at_end: 1,
            tls_resumed: 0,
            traffic: Traffic::default(),
            errors: BTreeMap::new(),
            error_examples: BTreeMap::new(),
            phases: [(Phase::Request.name().to_owned(), times)].into(),
            intervals: vec![stretch],
            tester: Tester {
                cpu_share: 0.5,
                cpu_us_per_reply: 1.0,
                lag_p99_ns: 1,
                lag_max_ns: 1,
                memory_bytes: 1,
                memory_per_connection_bytes: 1,
                listen_overflows: 0,
            },
            remarks: Vec::new(),
            objectives: Vec::new(),
            interrupted: false,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let outcome = outcome_of(&[1_000, 2_000, 3_000_000]);
        assert_eq!(Outcome::from_json(&outcome.to_json()).expect("our own"), outcome);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let mut damaged = outcome_of(&[1]);
        if let Some(times) = damaged.phases.get_mut("request") {
            times.histogram.truncate(20);
        }
        for text in ["", "{}", "{\"schema\":\"turnstile-load/9\"}", &damaged.to_json()] {
            assert!(Outcome::from_json(text).is_err(), "{text}");
        }
    }
}
