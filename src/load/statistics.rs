//! What is counted and timed while a run goes on.
//!
//! Each phase has a histogram of its own: HdrHistogram's, of nanoseconds, to three significant
//! digits, so a figure is at most 0.1% off whatever its size. The phase that a run is about, the
//! *headline*, is also kept interval by interval.
//!
//! Invariant: a request counts in the histograms when it was due within the window; it counts
//! for the rate when its reply was whole within the window; an interval's histogram is part of the
//! headline's as soon as the interval is over.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};

use super::generator::Sample;
use super::pace::Window;
use super::traffic::Traffic;

/// The longest time that a histogram tells apart from a longer one.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is timed, in the order in which a connection goes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// From the call to `connect(2)` until the connection is there.
    Connect,
    /// From then until the TLS handshake is done.
    Tls,
    /// From then until the answer to the gate's challenge is on its way.
    Gate,
    /// From sending a request to the first byte of its reply.
    FirstByte,
    /// From sending a request to the last byte of its reply.
    Request,
    /// From the moment at which a request was due to the last byte of its reply; or that of a
    /// whole visit, the connection included.
    Response,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Tls, Self::Gate, Self::FirstByte, Self::Request, Self::Response];

    /// The word for it in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Gate => "gate",
            Self::FirstByte => "first_byte",
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// Why something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nothing listens there.
    Refused,
    /// The peer reset the connection.
    Reset,
    /// Something did not come within the limit.
    TimedOut,
    /// The peer closed before the reply was whole.
    ClosedEarly,
    /// The reply was not the expected one.
    WrongBytes,
    /// The gate let nobody in.
    GateRefused,
    /// The TLS handshake failed.
    Tls,
    /// This machine had no local port, or no descriptor, left.
    Exhausted,
    /// A datagram, or its answer, did not arrive.
    Lost,
    /// Anything else that the system reported.
    Other,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::Reset,
        Self::TimedOut,
        Self::ClosedEarly,
        Self::WrongBytes,
        Self::GateRefused,
        Self::Tls,
        Self::Exhausted,
        Self::Lost,
        Self::Other,
    ];

    /// The word for it in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::ClosedEarly => "closed_early",
            Self::WrongBytes => "wrong_bytes",
            Self::GateRefused => "gate_refused",
            Self::Tls => "tls",
            Self::Exhausted => "exhausted",
            Self::Lost => "lost",
            Self::Other => "other",
        }
    }
}

/// A histogram of nanoseconds as every part of the program makes it, so that any two can be added.
#[must_use]
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3).expect("the bounds are sound")
}

/// One stretch of the window.
#[derive(Clone, Debug)]
pub struct Interval {
    /// When it began, after the window did.
    pub at: Duration,
    /// How long it was.
    pub length: Duration,
    /// Replies that were whole in it.
    pub completed: u64,
    /// What failed in it.
    pub errors: u64,
    /// The headline's histogram of it, in HdrHistogram's V2 form: a few hundred bytes where the
    /// histogram itself has a quarter of a million.
    pub histogram: Vec<u8>,
    /// Its median, in nanoseconds.
    pub p50: u64,
    /// What 99 of 100 stay within, in nanoseconds.
    pub p99: u64,
    /// The largest, in nanoseconds.
    pub max: u64,
}

impl Interval {
    /// Whether nothing happened in no time.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.completed == 0 && self.errors == 0 && self.max == 0 && self.length.as_millis() == 0
    }
}

/// The counts and times of one run.
pub struct Recorder {
    phases: Vec<Histogram<u64>>,
    headline: Phase,
    current: Histogram<u64>,
    current_began: Instant,
    current_completed: u64,
    current_errors: u64,
    intervals: Vec<Interval>,
    window: Option<Window>,
    replies: u64,
    completed: u64,
    resumed: u64,
    errors: [u64; Cause::ALL.len()],
    examples: [Option<String>; Cause::ALL.len()],
    traffic: Traffic,
}

impl Recorder {
    /// An empty recorder of a run about `headline`.
    #[must_use]
    pub fn new(headline: Phase, now: Instant) -> Self {
        Self {
            phases: Phase::ALL.map(|_| new_histogram()).into(),
            headline,
            current: new_histogram(),
            current_began: now,
            current_completed: 0,
            current_errors: 0,
            intervals: Vec::new(),
            window: None,
            replies: 0,
            completed: 0,
            resumed: 0,
            errors: [0; Cause::ALL.len()],
            examples: Default::default(),
            traffic: Traffic::default(),
        }
    }

    /// From now on it is known what counts.
    pub fn open_window(&mut self, window: Window) {
        self.window = Some(window);
        self.current_began = window.begin;
    }

    /// What counts, once that is known.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Nothing that is due from `end` on counts.
    pub fn close_window(&mut self, end: Instant) {
        if let Some(window) = &mut self.window {
            window.end = Some(window.end.map_or(end, |known| known.min(end)));
        }
    }

    /// Times one passage through a phase that a connection goes through once. That of a connection
    /// which serves a single request, due at `due`, counts as that request does; that of one which
    /// stays always counts.
    pub fn record_setup(&mut self, phase: Phase, due: Option<Instant>, times: (Instant, Instant)) {
        if self.counts(due) {
            self.phases[phase as usize].saturating_record(nanoseconds(times.0, times.1));
        }
    }

    /// Counts a TLS handshake that went on with an earlier session, as its time counts.
    pub fn count_resumed(&mut self, due: Option<Instant>) {
        self.resumed += u64::from(self.counts(due));
    }

    /// Counts a visit without a request, if it counts.
    pub fn record_visit(&mut self, due: Instant, done: Instant) {
        self.count_completed(done);
        if self.counts(Some(due)) {
            self.replies += 1;
            self.current.saturating_record(nanoseconds(due, done));
        }
    }

    /// Counts a finished request, if it counts.
    pub fn record_request(&mut self, sample: &Sample) {
        let Some(window) = self.window else { return };
        self.count_completed(sample.done);
        if window.contains(sample.done) {
            self.traffic.received_bytes += sample.size as u64;
        }
        if !window.contains(sample.due) {
            return;
        }
        self.replies += 1;
        if sample.status != 0 {
            *self.traffic.statuses.entry(sample.status).or_default() += 1;
        }
        let service = nanoseconds(sample.sent, sample.done);
        let first_byte = if sample.first_byte == sample.done {
            service
        } else {
            nanoseconds(sample.sent, sample.first_byte)
        };
        self.phases[Phase::FirstByte as usize].saturating_record(first_byte);
        if self.headline == Phase::Response {
            self.phases[Phase::Request as usize].saturating_record(service);
            self.current.saturating_record(nanoseconds(sample.due, sample.done));
        } else {
            self.current.saturating_record(service);
        }
    }

    fn counts(&self, due: Option<Instant>) -> bool {
        due.is_none_or(|due| self.window.is_some_and(|window| window.contains(due)))
    }

    fn count_completed(&mut self, at: Instant) {
        if self.window.is_some_and(|window| window.contains(at)) {
            self.completed += 1;
            self.current_completed += 1;
        }
    }

    /// Counts a failure: of a request that was due at `due`, or of a connection. The first of
    /// each kind is kept as an example.
    pub fn record_error(
        &mut self,
        cause: Cause,
        due: Option<Instant>,
        example: impl FnOnce() -> String,
    ) {
        if self.counts(due) {
            self.errors[cause as usize] += 1;
            self.current_errors += 1;
            self.examples[cause as usize].get_or_insert_with(example);
        }
    }

    /// Ends an interval and begins the next.
    pub fn turn_interval(&mut self, now: Instant) {
        let Some(window) = self.window else { return };
        let at = self.current_began.saturating_duration_since(window.begin);
        let length = now.saturating_duration_since(self.current_began);
        let mut histogram = Vec::new();
        V2Serializer::new()
            .serialize(&self.current, &mut histogram)
            .expect("a histogram goes into memory");
        self.intervals.push(Interval {
            at,
            length,
            completed: self.current_completed,
            errors: self.current_errors,
            histogram,
            p50: self.current.value_at_quantile(0.5),
            p99: self.current.value_at_quantile(0.99),
            max: self.current.max(),
        });
        let headline = &mut self.phases[self.headline as usize];
        headline.add(&self.current).expect("both have the same bounds");
        self.current.reset();
        self.current_began = now;
        self.current_completed = 0;
        self.current_errors = 0;
    }

    /// What was carried in the window.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The phase that the run is about.
    #[must_use]
    pub fn headline(&self) -> Phase {
        self.headline
    }

    /// The times of one phase; the headline's up to the last interval that is over.
    #[must_use]
    pub fn histogram(&self, phase: Phase) -> &Histogram<u64> {
        &self.phases[phase as usize]
    }

    /// The intervals that are over.
    #[must_use]
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// Requests that were due in the window and have their reply.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// Replies that became whole in the window.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// TLS handshakes that went on with an earlier session.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// How often something failed for this reason.
    #[must_use]
    pub fn errors(&self, cause: Cause) -> u64 {
        self.errors[cause as usize]
    }

    /// How often anything failed.
    #[must_use]
    pub fn all_errors(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// The first failure of a kind, in words.
    #[must_use]
    pub fn example(&self, cause: Cause) -> Option<&str> {
        self.examples[cause as usize].as_deref()
    }
}

fn nanoseconds(began: Instant, ended: Instant) -> u64 {
    let time = ended.saturating_duration_since(began);
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(due: Instant, latency: Duration) -> Sample {
        let done = due + latency;
        Sample { due, sent: due, first_byte: done, done, size: 1, status: 0 }
    }

    #[test]
    fn only_what_was_due_in_the_window_counts() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut recorder = Recorder::new(Phase::Request, begin);
        recorder.record_request(&sample(begin, Duration::from_millis(1)));
        recorder.open_window(Window { begin: after(10), end: Some(after(20)) });
        for (due, latency) in [(9, 2), (10, 3), (19, 5), (20, 1)] {
            recorder.record_request(&sample(after(due), Duration::from_millis(latency)));
        }
        recorder.turn_interval(after(30));
        let histogram = recorder.histogram(Phase::Request);
        assert_eq!((recorder.replies(), histogram.len()), (2, 2));
        // Whole within the window: the one that was due before it, and the first of it.
        assert_eq!(recorder.completed(), 2);
        assert!((4_995_000..=5_005_000).contains(&histogram.max()));
    }

    #[test]
    fn intervals_add_up_to_the_whole() {
        let begin = Instant::now();
        let mut recorder = Recorder::new(Phase::Response, begin);
        recorder.open_window(Window { begin, end: None });
        for ms in 1..=100 {
            let due = begin + Duration::from_millis(ms);
            recorder.record_request(&sample(due, Duration::from_micros(ms)));
            if ms % 10 == 0 {
                recorder.turn_interval(due);
            }
        }
        assert_eq!(recorder.intervals().len(), 10);
        assert_eq!(recorder.histogram(Phase::Response).len(), 100);
        assert_eq!(recorder.histogram(Phase::Request).len(), 100);
        let completed: u64 = recorder.intervals().iter().map(|interval| interval.completed).sum();
        assert_eq!(completed, 100);
    }

    #[test]
    fn errors_have_causes_and_the_first_of_each_is_told() {
        let begin = Instant::now();
        let mut recorder = Recorder::new(Phase::Request, begin);
        recorder.record_error(Cause::Refused, None, || "first".to_owned());
        recorder.record_error(Cause::Refused, None, || "second".to_owned());
        recorder.record_error(Cause::Reset, Some(begin), || "before the window".to_owned());
        assert_eq!((recorder.errors(Cause::Refused), recorder.all_errors()), (2, 2));
        assert_eq!(recorder.example(Cause::Refused), Some("first"));
        assert_eq!(recorder.example(Cause::Reset), None);
    }
}
