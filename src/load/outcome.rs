//! What a run came to, as it is kept: every figure that a report shows, and the histograms that it
//! is made of, so that reports of several hosts can be added up exactly.
//!
//! This is the form that `--json` writes. Its fields are only ever added to under one schema name;
//! `outcome.schema.json` beside this file describes it.
//!
//! Invariant: the books balance. What was due was replied to, or failed, or was never sent, or was on
//! the way when the run ended: `due = replies + failed + unsent + in_flight`.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::packed::{pack, unpack};
use super::statistics::Phase;
use super::traffic::Traffic;
use super::unique::unique;

/// The name and version of the form.
pub const SCHEMA: &str = "turnstile-load/2";

/// The form itself, as a JSON Schema.
pub const JSON_SCHEMA: &str = include_str!("outcome.schema.json");

/// What share of the requests may be late in being sent, in a run that is said to keep its pace.
const BEHIND: f64 = 0.02;

/// One run, or several added up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`SCHEMA`].
    pub schema: String,
    /// What this is made of: one part, or several that were added up.
    pub parts: Vec<Part>,
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
    /// Requests that were due in the window, whatever became of them.
    pub due: u64,
    /// Those of them that got the right reply.
    pub replies: u64,
    /// Those that failed: all of `errors`.
    pub failed: u64,
    /// Replies that became whole in the window.
    pub completed: u64,
    /// `completed` a second.
    pub rate_per_second: f64,
    /// Requests that were due in the window and never sent.
    pub unsent: u64,
    /// Requests that were due in the window and on the way when the run ended.
    pub in_flight: u64,
    /// How long these had waited by then.
    pub waiting: Option<Times>,
    /// Requests that were due and not yet sent when the window ended.
    pub backlog: u64,
    /// Connections that were open at the end of the window.
    pub connections_at_end: u64,
    /// What became of connections, from the first to the last.
    pub connections: Links,
    /// How it was seen that a connection was let in.
    pub admission: Admission,
    /// Datagrams that were no reply to anything on the way.
    pub datagrams: Strays,
    /// The shortest time from sending a request to its reply, the warm-up included.
    pub least_service_ns: Option<u64>,
    /// TLS handshakes that went on with an earlier session.
    pub tls_resumed: u64,
    /// What was carried.
    pub traffic: Traffic,
    /// What kept the run from doing more, or from doing what was asked; `null` where nothing did.
    pub limit: Option<String>,
    /// Requests that failed, by cause.
    #[serde(deserialize_with = "unique")]
    pub errors: BTreeMap<String, u64>,
    /// The first failure of each cause, in words.
    #[serde(deserialize_with = "unique")]
    pub error_examples: BTreeMap<String, String>,
    /// Times by phase; a phase that never happened is left out.
    #[serde(deserialize_with = "unique")]
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
    /// The search that this run is the answer of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Found>,
}

/// The part of a run that one tester made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Another for each part there ever was.
    pub id: String,
    /// The name of the run that it is a part of, where it was given one.
    pub run: Option<String>,
    /// When its window began (RFC 3339, UTC).
    pub began: String,
    /// How long its window was.
    pub seconds: f64,
}

/// What became of connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// Begun.
    pub begun: u64,
    /// There, and let in.
    pub opened: u64,
    /// Not opened, or not let in.
    pub failed: u64,
    /// How often the system said that the server's queue of new connections was full.
    pub queue_full: u64,
    /// Closed by the server while nothing was asked of them.
    pub closed_idle: u64,
    /// Closed by the server after replies, with requests on the way that it did not look at.
    pub closed_used: u64,
    /// Broken with requests on the way, which failed.
    pub lost: u64,
    /// Requests that were sent again, because the server had closed their connection.
    pub resent: u64,
    /// Replies on the connections that the server closed.
    pub replies_before_close: u64,
    /// `failed` by cause.
    #[serde(deserialize_with = "unique")]
    pub errors: BTreeMap<String, u64>,
    /// The first failure of each cause, in words.
    #[serde(deserialize_with = "unique")]
    pub error_examples: BTreeMap<String, String>,
}

/// How it was seen that a connection was let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Admission {
    /// By the protocol itself.
    pub by_protocol: u64,
    /// By a word of the server: a reply, any byte, or a ticket of TLS.
    pub by_word: u64,
    /// By a wait in which the server did not close.
    pub by_wait: u64,
}

/// Datagrams that were no reply to anything on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Strays {
    /// Replies that had come before.
    pub duplicates: u64,
    /// Replies to what had been given up as lost.
    pub late: u64,
}

/// What a search for the highest rate came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The highest rate that held; `null` where none did.
    pub rate_per_second: Option<f64>,
    /// The highest rate that held each time it was tried.
    pub low: Option<f64>,
    /// The lowest rate that did not hold when it was tried again.
    pub high: Option<f64>,
    /// From this rate on, latency grows faster than the rate does.
    pub knee: Option<f64>,
    /// Every run, in order.
    pub steps: Vec<Trial>,
}

/// One run of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What was asked for.
    pub rate_per_second: f64,
    /// What came back.
    pub achieved: f64,
    /// The headline's median.
    pub p50_ns: Option<u64>,
    /// The headline's p99.
    pub p99_ns: Option<u64>,
    /// Whether requests were sent as fast as they were due.
    pub kept_pace: bool,
    /// Whether all objectives held.
    pub held: bool,
    /// What kept it from that.
    pub limit: Option<String>,
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
    /// How long each connection waited after a reply.
    pub think_seconds: f64,
    /// The load before the window.
    pub warm_up_seconds: f64,
    /// How the rate goes, where it is not the same all the time or requests come at random.
    pub schedule: Option<String>,
    /// none, hmac-md5 or hmac-sha256.
    pub auth: String,
    /// How long anything may take; `null` where datagrams are waited for as the round trips say.
    pub timeout_seconds: Option<f64>,
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
    /// How late the tester itself was in it, at the worst: from 100 ms on it spoils the times.
    pub tester_late_ns: u64,
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
    /// How often the tester stood still for 100 ms or more.
    pub pauses: u64,
    /// For how long in all.
    pub paused_seconds: f64,
    /// When the first of these pauses began, after the window did.
    pub first_pause_seconds: Option<f64>,
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

impl Outcome {
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

    /// Of what was due, what the server has answered wrongly or not at all, and all of which that is known:
    /// `(bad, known)`. A request that was on the way when the run ended is bad if it had waited for
    /// `limit_ns`; else nobody knows.
    #[must_use]
    pub fn unanswered(&self, limit_ns: u64) -> (u64, u64) {
        let waiting = self.waiting.as_ref().and_then(|waiting| waiting.histogram().ok());
        let overdue = waiting.map_or(0, |waiting| {
            let younger = waiting.count_between(0, limit_ns.saturating_sub(1));
            waiting.len() - younger.min(waiting.len())
        });
        let bad = self.failed + self.unsent + overdue;
        (bad, self.replies + bad)
    }

    /// The share of what was due that was answered wrongly or not at all.
    #[must_use]
    pub fn error_share(&self) -> f64 {
        let (bad, known) = self.unanswered(self.timeout_ns());
        bad as f64 / (known as f64).max(1.0)
    }

    /// How long anything may take, in nanoseconds.
    #[must_use]
    pub fn timeout_ns(&self) -> u64 {
        (self.asked.timeout_seconds.unwrap_or(10.0) * 1e9) as u64
    }

    /// Whether requests were sent as fast as they were due; always, where they are not due by a clock.
    #[must_use]
    pub fn has_kept_pace(&self) -> bool {
        let behind = self.backlog.max(self.unsent) as f64;
        self.asked.rate_per_second.is_none() || behind <= self.due as f64 * BEHIND
    }

    /// Whether everything that was due is somewhere.
    ///
    /// # Errors
    /// It is not: what is where.
    pub fn check_books(&self) -> Result<(), String> {
        let Self { due, replies, failed, unsent, in_flight, .. } = *self;
        let sum =
            [replies, failed, unsent, in_flight].iter().fold(0u64, |a, b| a.saturating_add(*b));
        if due != sum || failed != self.all_errors() {
            return Err(format!(
                "{due} requests were due, and {replies} replied to, {failed} failed ({} by cause), {unsent} \
                 unsent and {in_flight} on the way are {sum}",
                self.all_errors()
            ));
        }
        Ok(())
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

    /// What the run was about: responses where there are any, else requests; connections where these are
    /// only held.
    #[must_use]
    pub fn headline(&self) -> Option<(Phase, &Times)> {
        let phases = match self.asked.activity.as_str() {
            "idle" => &[Phase::Connect][..],
            _ => &[Phase::Response, Phase::Request],
        };
        phases.iter().find_map(|phase| Some((*phase, self.times(*phase)?)))
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

#[cfg(test)]
pub(super) mod tests {
    use super::super::reading::from_json;
    use super::super::statistics::new_histogram;
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
            tester_late_ns: 1,
            histogram: pack(&histogram),
        };
        let whole = Times::of(&histogram).expect("not empty");
        Outcome {
            schema: SCHEMA.to_owned(),
            parts: vec![Part {
                id: format!("{times:?}").chars().take(60).collect(),
                run: None,
                began: "2026-01-01T00:00:01Z".to_owned(),
                seconds: 1.0,
            }],
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
                think_seconds: 0.0,
                warm_up_seconds: 0.0,
                schedule: None,
                auth: "none".to_owned(),
                timeout_seconds: Some(10.0),
            },
            runs: 1,
            seconds: 1.0,
            due: count,
            replies: count,
            failed: 0,
            in_flight: 0,
            waiting: None,
            backlog: 0,
            connections: Links { begun: 1, opened: 1, ..Links::default() },
            admission: Admission { by_protocol: 1, ..Admission::default() },
            datagrams: Strays::default(),
            least_service_ns: Some(histogram.min()),
            limit: None,
            completed: count,
            rate_per_second: count as f64,
            unsent: 0,
            connections_at_end: 1,
            tls_resumed: 0,
            traffic: Traffic::default(),
            errors: BTreeMap::new(),
            error_examples: BTreeMap::new(),
            phases: [(Phase::Request.name().to_owned(), whole)].into(),
            intervals: vec![stretch],
            tester: Tester {
                cpu_share: 0.5,
                cpu_us_per_reply: 1.0,
                lag_p99_ns: 1,
                lag_max_ns: 1,
                pauses: 0,
                paused_seconds: 0.0,
                first_pause_seconds: None,
                memory_bytes: 1,
                memory_per_connection_bytes: 1,
                listen_overflows: 0,
            },
            remarks: Vec::new(),
            objectives: Vec::new(),
            interrupted: false,
            search: None,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let outcome = outcome_of(&[1_000, 2_000, 3_000_000]);
        assert_eq!(from_json(&outcome.to_json()).expect("our own"), outcome);
    }

    #[test]
    fn what_was_due_is_somewhere() {
        let mut outcome = outcome_of(&[1_000; 10]);
        outcome.check_books().expect("they balance");
        outcome.unsent = 3;
        let error = outcome.check_books().expect_err("three too many");
        assert!(error.starts_with("10 requests were due, and 10 replied to"), "{error}");
    }

    #[test]
    fn what_was_never_answered_is_an_error_and_what_nobody_knows_is_not() {
        let mut outcome = outcome_of(&[1_000; 80]);
        (outcome.due, outcome.unsent, outcome.in_flight) = (100, 5, 15);
        let mut waiting = new_histogram();
        waiting.saturating_record_n(11_000_000_000, 5);
        waiting.saturating_record_n(1_000_000, 10);
        outcome.waiting = Times::of(&waiting);
        assert_eq!(outcome.unanswered(outcome.timeout_ns()), (10, 90));
        assert_eq!(outcome.unanswered(500_000), (20, 100));
    }
}
