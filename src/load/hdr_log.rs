//! Reports as logs of HdrHistogram, version 2: the form that its other tools read.
//!
//! The headline's intervals stand in it without a tag, which is what these tools show first; the
//! other phases are one line each for the whole run, tagged with their names. Values are
//! nanoseconds, and milliseconds in the column that people read. A comment at the top holds the
//! rest of the report, so that it can be read back whole.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use jiff::Timestamp;

use super::outcome::{Outcome, Stretch, Times};
use super::packed::{pack, read_histogram};
use super::reading::{ReadError, check, check_times, parse};
use super::statistics::{Phase, new_histogram};

/// What the comment with the rest begins with.
const REST: &str = "turnstile ";

/// Nanoseconds in the unit of the column that people read.
const NS_PER_MS: f64 = 1e6;

/// A log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A line that is none.
    #[error("it is no log of HdrHistogram")]
    NotALog,
    /// A log of another program.
    #[error("it is not a log that `turnstile load --hdr` wrote: its first comment is missing")]
    Foreign,
    /// The rest of the report.
    #[error(transparent)]
    Rest(#[from] ReadError),
    /// More lines than the report has intervals and phases.
    #[error("it has more histograms than its report has intervals and phases")]
    TooMany,
    /// A histogram.
    #[error("a histogram in it cannot be read: {0}")]
    Histogram(String),
}

/// Writes `outcome` as a log.
///
/// # Errors
/// A histogram of it is damaged.
pub fn to_log(outcome: &Outcome) -> Result<Vec<u8>, LogError> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let rest = serde_json::to_string(&without_times(outcome)).expect("every field has a form");
    let began: Timestamp = outcome.started.parse().unwrap_or_default();
    let began = SystemTime::from(began);
    let broken = |error: &dyn std::fmt::Debug| LogError::Histogram(format!("{error:?}"));
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment(&format!("{REST}{rest}"))
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(&mut log, &mut serializer)
        .map_err(|error| broken(&error))?;
    let headline = headline_name(outcome);
    for stretch in &outcome.intervals {
        let histogram = stretch.histogram().map_err(LogError::Histogram)?;
        let (at, length) = (seconds(stretch.at_seconds), seconds(stretch.seconds));
        writer.write_histogram(&histogram, at, length, None).map_err(|error| broken(&error))?;
    }
    for phase in Phase::ALL {
        let (Some(times), Some(tag)) = (outcome.times(phase), Tag::new(phase.name())) else {
            continue;
        };
        if phase.name() == headline {
            continue;
        }
        let histogram = times.histogram().map_err(LogError::Histogram)?;
        let length = seconds(outcome.seconds);
        writer
            .write_histogram(&histogram, Duration::ZERO, length, Some(tag))
            .map_err(|error| broken(&error))?;
    }
    Ok(log)
}

/// Reads what [`to_log`] wrote.
///
/// # Errors
/// It is something else, or damaged.
pub fn from_log(log: &[u8]) -> Result<Outcome, LogError> {
    let text = std::str::from_utf8(log).map_err(|_| LogError::NotALog)?;
    let rest = text.lines().find_map(|line| line.strip_prefix('#')?.strip_prefix(REST));
    let mut outcome = parse(rest.ok_or(LogError::Foreign)?)?;
    let mut headline = new_histogram();
    let mut untagged = 0;
    let mut left = outcome.intervals.len() + Phase::ALL.len();
    for entry in IntervalLogIterator::new(log) {
        let LogEntry::Interval(interval) = entry.map_err(|_| LogError::NotALog)? else { continue };
        left = left.checked_sub(1).ok_or(LogError::TooMany)?;
        let bytes = base64_of(interval.encoded_histogram())?;
        let histogram = read_histogram(&bytes).map_err(LogError::Histogram)?;
        match interval.tag() {
            Some(tag) if !Phase::ALL.iter().any(|phase| phase.name() == tag.as_str()) => {
                return Err(LogError::NotALog);
            }
            Some(tag) => {
                let times = Times::of(&histogram);
                outcome.phases.extend(times.map(|times| (tag.as_str().to_owned(), times)));
            }
            None => {
                if let Some(stretch) = outcome.intervals.get_mut(untagged) {
                    stretch.histogram = pack(&histogram);
                }
                headline += histogram;
                untagged += 1;
            }
        }
    }
    let name = headline_name(&outcome);
    outcome.phases.extend(Times::of(&headline).map(|times| (name.to_owned(), times)));
    // An interval whose line is missing has no histogram.
    check_times(&outcome)?;
    check(&outcome).map_err(ReadError::Impossible)?;
    Ok(outcome)
}

fn base64_of(text: &str) -> Result<Vec<u8>, LogError> {
    STANDARD.decode(text).map_err(|error| LogError::Histogram(error.to_string()))
}

/// The outcome less all that its log lines hold.
fn without_times(outcome: &Outcome) -> Outcome {
    let intervals = outcome
        .intervals
        .iter()
        .map(|stretch| Stretch { histogram: String::new(), ..stretch.clone() })
        .collect();
    Outcome { phases: BTreeMap::new(), intervals, ..outcome.clone() }
}

/// The phase whose intervals are kept.
fn headline_name(outcome: &Outcome) -> &'static str {
    let is_response = outcome.asked.kind == "open" || outcome.asked.activity != "requests";
    if is_response { Phase::Response.name() } else { Phase::Request.name() }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome_of;
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let outcome = outcome_of(&[1_000, 2_000_000, 3_000_000_000]);
        let log = to_log(&outcome).expect("sound");
        assert_eq!(from_log(&log).expect("our own"), outcome);
    }

    #[test]
    fn a_log_that_lacks_a_line_is_refused() {
        let log = to_log(&outcome_of(&[1_000_000])).expect("sound");
        let text = String::from_utf8(log).expect("text");
        let (lines, _) = text.split_once("0.000,").expect("the line of the interval");
        let error = from_log(lines.as_bytes()).expect_err("no interval is there");
        assert!(error.to_string().contains("the interval at 0 s"), "{error}");
    }

    #[test]
    fn it_is_the_form_of_the_other_tools() {
        let log = to_log(&outcome_of(&[1_000_000, 2_000_000])).expect("sound");
        let text = String::from_utf8(log).expect("text");
        let first = text.lines().find(|line| !line.starts_with('#')).expect("a line");
        let columns: Vec<&str> = first.split(',').collect();
        assert_eq!(columns.len(), 4, "{first}");
        assert_eq!((columns[0], columns[1]), ("0.000", "1.000"));
        assert!(columns[3].starts_with("HIST"), "the cookie of a compressed V2 histogram");
        assert!(text.contains("#[StartTime: "), "{text}");
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(from_log(b"\xff"), Err(LogError::NotALog)));
        assert!(matches!(from_log(b"#a comment\n"), Err(LogError::Foreign)));
    }
}
