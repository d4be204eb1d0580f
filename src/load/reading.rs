//! Reports as they are read back: from any file, of any origin.
//!
//! A file may be endless, or say of itself what is not so, or be of another version. What is read is
//! bounded before it is read, its figures are checked against one another, and no text of it can move a
//! terminal's cursor.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;

use super::outcome::{Outcome, SCHEMA, Times};
use super::packed::MOST;
use super::unique::harmless;

/// How long a report may be: some hundred times as long as any is.
pub const LONGEST: usize = 16 << 20;

/// How many intervals a report may have.
const MOST_INTERVALS: usize = 10_000;

/// How many entries any other list of it may have.
const MOST_ENTRIES: usize = 10_000;

/// The largest figure that is no count: a thousand years, in seconds.
const LARGEST: f64 = 3.2e10;

/// How long a pipe may be silent, in milliseconds.
const SILENCE_MS: u16 = 10_000;

/// A report cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system's word for it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not end, or not soon enough.
    #[error("it is longer than {} MiB, which no report is", LONGEST >> 20)]
    TooLong,
    /// Nothing is in it.
    #[error("it is empty")]
    Empty,
    /// A pipe whose other end says nothing.
    #[error("nothing has come from it for {} s", SILENCE_MS / 1000)]
    Silent,
    /// Not this form.
    #[error("it is no report of a load test: {0}")]
    NotJson(String),
    /// A form of another version.
    #[error("its schema is `{0}`; this program reads `{SCHEMA}`")]
    Schema(String),
    /// A histogram that is none.
    #[error("the histogram of {0} cannot be read: {1}")]
    Histogram(String, String),
    /// Figures that cannot be, alone or together.
    #[error("its figures cannot be: {0}")]
    Impossible(String),
}

/// Reads a file that is not much longer than a report is, without waiting for ever.
///
/// # Errors
/// It cannot be read, or is longer, or a pipe that says nothing.
pub fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    // A pipe that nobody writes to would hold a blocking open up for ever.
    let mut file =
        OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.len() > LONGEST as u64 {
        return Err(ReadError::TooLong);
    }
    let mut bytes = Vec::new();
    let mut space = [0; 64 * 1024];
    loop {
        match file.read(&mut space) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&space[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => await_more(&file)?,
            Err(error) => return Err(error.into()),
        }
        if bytes.len() > LONGEST {
            return Err(ReadError::TooLong);
        }
        if bytes
            .iter()
            .find(|byte| !byte.is_ascii_whitespace())
            .is_some_and(|it| !b"{#".contains(it))
        {
            return Err(ReadError::NotJson("it begins with neither `{` nor `#`".to_owned()));
        }
    }
    if bytes.is_empty() { Err(ReadError::Empty) } else { Ok(bytes) }
}

fn await_more(file: &File) -> Result<(), ReadError> {
    let mut descriptors = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    match poll(&mut descriptors, PollTimeout::from(SILENCE_MS)) {
        Ok(0) => Err(ReadError::Silent),
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Reads what `--json` wrote.
///
/// # Errors
/// The text is something else, or of another version, or its figures cannot be.
pub fn from_json(text: &str) -> Result<Outcome, ReadError> {
    let outcome = parse(text)?;
    check_times(&outcome)?;
    Ok(outcome)
}

/// As [`from_json`], but for the histograms, which may be elsewhere.
///
/// # Errors
/// As there.
pub fn parse(text: &str) -> Result<Outcome, ReadError> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<String>,
    }
    let not_json = |error: serde_json::Error| ReadError::NotJson(error.to_string());
    let head: Head = serde_json::from_str(text).map_err(not_json)?;
    if head.schema.as_deref() != Some(SCHEMA) {
        let schema = head.schema.unwrap_or_else(|| "missing".to_owned());
        return Err(ReadError::Schema(schema.chars().take(60).map(harmless).collect()));
    }
    let mut outcome: Outcome = serde_json::from_str(text).map_err(not_json)?;
    check(&outcome).map_err(ReadError::Impossible)?;
    disarm(&mut outcome);
    Ok(outcome)
}

pub(super) fn check(outcome: &Outcome) -> Result<(), String> {
    let steps = outcome.search.as_ref().map_or(0, |found| found.steps.len());
    let places = outcome.traffic.connections.len();
    let lists =
        [outcome.parts.len(), outcome.remarks.len(), outcome.objectives.len(), steps, places];
    if let Some(status) = outcome.traffic.statuses.keys().find(|it| !(100..1000).contains(*it)) {
        return Err(format!("{status} is no status of HTTP"));
    }
    if outcome.intervals.len() > MOST_INTERVALS || lists.iter().any(|len| *len > MOST_ENTRIES) {
        return Err("a list in it is too long".to_owned());
    }
    if outcome.parts.is_empty() || outcome.parts.len() as u64 != outcome.runs {
        return Err("it does not name the parts that it is made of".to_owned());
    }
    if outcome.parts.iter().any(|part| part.began.parse::<jiff::Timestamp>().is_err()) {
        return Err("the beginning of a part of it is no time".to_owned());
    }
    let value = serde_json::to_value(outcome).map_err(|error| error.to_string())?;
    check_numbers("", &value)?;
    outcome.check_books()
}

/// Every number that there is: none is below zero, or so large that sums of it would not fit.
fn check_numbers(name: &str, value: &serde_json::Value) -> Result<(), String> {
    use serde_json::Value;
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, it)| check_numbers(name, it)),
        Value::Array(items) => items.iter().try_for_each(|it| check_numbers(name, it)),
        Value::Number(number) => {
            let limit = if number.is_f64() { LARGEST } else { MOST as f64 };
            let is_fine = number.as_f64().is_some_and(|number| (0.0..=limit).contains(&number));
            if is_fine { Ok(()) } else { Err(format!("{name} is {number}")) }
        }
        _ => Ok(()),
    }
}

pub(super) fn check_times(outcome: &Outcome) -> Result<(), ReadError> {
    let named = outcome.phases.iter().map(|(phase, times)| (format!("phase `{phase}`"), times));
    let waiting = outcome.waiting.iter().map(|times| ("what waited".to_owned(), times));
    for (name, times) in named.chain(waiting) {
        let histogram = times.histogram().map_err(|why| ReadError::Histogram(name.clone(), why))?;
        if Times::of(&histogram).map(|times| times.count) != Some(times.count) {
            let why = format!("it has {} times, and should have {}", histogram.len(), times.count);
            return Err(ReadError::Histogram(name, why));
        }
    }
    for stretch in &outcome.intervals {
        let name = || format!("the interval at {} s", stretch.at_seconds);
        stretch.histogram().map_err(|why| ReadError::Histogram(name(), why))?;
    }
    Ok(())
}

/// Takes everything out of the texts that would do something to a terminal.
fn disarm(outcome: &mut Outcome) {
    let Outcome { target, started, asked, parts, remarks, objectives, limit, .. } = outcome;
    let asked = [&mut asked.activity, &mut asked.kind, &mut asked.expect, &mut asked.auth]
        .into_iter()
        .chain(&mut asked.schedule);
    let parts = parts
        .iter_mut()
        .flat_map(|part| [&mut part.id, &mut part.began].into_iter().chain(&mut part.run));
    let verdicts = objectives.iter_mut().flat_map(|it| [&mut it.objective, &mut it.found]);
    let examples = outcome.error_examples.values_mut();
    let examples = examples.chain(outcome.connections.error_examples.values_mut());
    let counts = std::mem::take(&mut outcome.traffic.connections).into_iter();
    outcome.traffic.connections =
        counts.map(|(place, count)| (place.chars().map(harmless).collect(), count)).collect();
    let texts = [target, started].into_iter().chain(asked).chain(parts);
    for text in texts.chain(remarks).chain(verdicts).chain(examples).chain(limit) {
        if text.chars().any(char::is_control) {
            *text = text.chars().map(harmless).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::outcome_of;
    use super::*;

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let text = outcome_of(&[1_000, 2_000]).to_json();
        let mut value: serde_json::Value = serde_json::from_str(&text).expect("our own");
        change(&mut value);
        from_json(&value.to_string()).expect_err("must be refused").to_string()
    }

    #[test]
    fn figures_that_cannot_be_are_named() {
        assert!(refusal(|it| it["due"] = 3.into()).contains("3 requests were due"));
        assert!(refusal(|it| it["seconds"] = (-1.5).into()).contains("seconds is -1.5"));
        assert!(refusal(|it| it["seconds"] = 1e300.into()).contains("seconds is 1e"));
        assert!(refusal(|it| it["replies"] = (-1).into()).contains("-1"));
        assert!(refusal(|it| it["completed"] = u64::MAX.into()).contains("completed is 18446744"));
        assert!(refusal(|it| it["parts"] = serde_json::json!([])).contains("the parts"));
        assert!(refusal(|it| it["traffic"]["statuses"]["7"] = 1.into()).contains("7 is no status"));
        assert!(refusal(|it| it["errors"]["luck"] = 1.into()).contains("unknown key `luck`"));
        let count = refusal(|it| it["phases"]["request"]["count"] = 9.into());
        assert!(count.contains("phase `request` cannot be read: it has 2 times"), "{count}");
        let cut = refusal(|it| it["intervals"][0]["histogram"] = "HISTFAAA".into());
        assert!(cut.contains("the interval at 0 s"), "{cut}");
    }

    #[test]
    fn other_texts_are_named() {
        let refusal = |text: &str| from_json(text).expect_err("must be refused").to_string();
        assert!(refusal("").contains("no report"));
        assert!(refusal("{}").contains("schema is `missing`"));
        assert!(
            refusal("{\"schema\":\"turnstile-load/1\"}").contains("schema is `turnstile-load/1`")
        );
        assert!(refusal(&format!("{{\"schema\":{}", "[".repeat(1_000_000))).contains("no report"));
        assert!(refusal(&"[".repeat(1_000_000)).contains("no report"));
        let text = outcome_of(&[1]).to_json();
        let twice = text.replacen("\"replies\"", "\"replies\": 1, \"replies\"", 1);
        assert!(refusal(&twice).contains("duplicate field `replies`"));
        let twice = text.replacen("\"errors\": {", "\"errors\": {\"reset\": 1, \"reset\": 2", 1);
        assert!(refusal(&twice).contains("the key `reset` is there twice"), "{}", refusal(&twice));
    }

    #[test]
    fn no_text_moves_the_cursor() {
        let mut outcome = outcome_of(&[1]);
        outcome.remarks = vec!["one\u{1b}[2Jtwo".to_owned()];
        let read = from_json(&outcome.to_json()).expect("sound");
        assert_eq!(read.remarks, ["one\u{fffd}[2Jtwo"]);
    }

    #[test]
    fn files_that_do_not_end_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let sparse = folder.path().join("sparse");
        File::create(&sparse).and_then(|file| file.set_len(1 << 40)).expect("a file");
        assert!(matches!(read_file(&sparse), Err(ReadError::TooLong)));
        assert!(matches!(read_file(Path::new("/dev/zero")), Err(ReadError::NotJson(_))));
        assert!(matches!(read_file(Path::new("/dev/null")), Err(ReadError::Empty)));
        assert!(matches!(read_file(folder.path()), Err(ReadError::Io(_))));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)
            .expect("a pipe");
        assert!(matches!(read_file(&pipe), Err(ReadError::Empty)), "nobody writes to it");
    }
}
