//! What is counted and timed while a run goes on.
//!
//! Each phase has a histogram of its own: HdrHistogram's, of nanoseconds, to three significant
//! digits, so a figure is at most 0.1% off whatever its size. The phase that a run is about, the
//! *headline*, is also kept interval by interval.
//!
//! Invariant: a request counts in the histograms when it was due within the window; it counts
//! for the rate when its reply was whole within the window; an interval's histogram is part of the
//! headline's as soon as the interval is over. Requests and connections are counted apart: a
//! connection that is lost while nothing was asked of it has failed nobody.

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
    /// This machine had no local port left.
    Exhausted,
    /// This process, or this machine, had no descriptor or memory left.
    Descriptors,
    /// A datagram, or its answer, did not arrive.
    Lost,
    /// Anything else that the system reported.
    Other,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Reset,
        Self::TimedOut,
        Self::ClosedEarly,
        Self::WrongBytes,
        Self::GateRefused,
        Self::Tls,
        Self::Exhausted,
        Self::Descriptors,
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
            Self::Descriptors => "descriptors",
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

/// How often something failed, by cause, and the first failure of each cause in words.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    counts: [u64; Cause::ALL.len()],
    examples: [Option<String>; Cause::ALL.len()],
}

impl Failures {
    fn add(&mut self, cause: Cause, example: impl FnOnce() -> String) {
        self.counts[cause as usize] += 1;
        self.examples[cause as usize].get_or_insert_with(example);
    }

    /// How often it was for this reason.
    #[must_use]
    pub fn count(&self, cause: Cause) -> u64 {
        self.counts[cause as usize]
    }

    /// How often it was for any reason.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The first failure of a kind, in words.
    #[must_use]
    pub fn example(&self, cause: Cause) -> Option<&str> {
        self.examples[cause as usize].as_deref()
    }
}

/// What became of connections, from the first to the last, whatever became of requests.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Begun.
    pub begun: u64,
    /// Those that were there, and past the gate as far as that can be seen.
    pub opened: u64,
    /// Those that could not be opened, or were never let in.
    pub failed: Failures,
    /// How often the system said that the server's queue of new connections was full.
    pub queue_full: u64,
    /// Those that the server closed while nothing was asked of them.
    pub closed_idle: u64,
    /// Those that the server closed after replies; what was on the way went over another.
    pub closed_used: u64,
    /// Those that broke with requests on the way, which failed.
    pub lost: u64,
    /// Requests that were sent again, because their connection was used up.
    pub resent: u64,
    /// Replies on the connections that the server closed after at least one.
    pub replies_before_close: u64,
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
    /// How late the tester itself was in it, at the worst.
    pub tester_late: Duration,
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
    failures: Failures,
    /// Requests outside the window that are finished, whatever they came to.
    outside: u64,
    /// Requests that failed in the window before they could be begun.
    unbegun: u64,
    /// Requests of the window that were finished when enough had been.
    surplus: u64,
    /// Visits of the window that were begun.
    visits: u64,
    /// The shortest time from sending to reply, the warm-up's included.
    least_service: Option<u64>,
    traffic: Traffic,
    /// What became of connections.
    pub links: Links,
    /// What came as datagrams and was no reply to anything on the way.
    pub strays: Strays,
}

/// Datagrams that were no reply to anything on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// Replies that had come before.
    pub duplicates: u64,
    /// Replies to what had been given up as lost.
    pub late: u64,
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
            failures: Failures::default(),
            outside: 0,
            unbegun: 0,
            surplus: 0,
            visits: 0,
            least_service: None,
            traffic: Traffic::default(),
            links: Links::default(),
            strays: Strays::default(),
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

    /// A visit that was due at `due` is begun.
    pub fn begin_visit(&mut self, due: Instant) {
        self.visits += u64::from(self.counts(Some(due)));
    }

    /// Counts a visit without a request, if it counts.
    pub fn record_visit(&mut self, due: Instant, done: Instant) {
        self.count_completed(done);
        if !self.counts(Some(due)) {
            self.outside += 1;
            return;
        }
        self.replies += 1;
        self.current.saturating_record(nanoseconds(due, done));
    }

    /// Counts a finished request, if it counts.
    pub fn record_request(&mut self, sample: &Sample) {
        let service = nanoseconds(sample.sent, sample.done);
        self.least_service = Some(self.least_service.map_or(service, |least| least.min(service)));
        let Some(window) = self.window else {
            self.outside += 1;
            return;
        };
        self.count_completed(sample.done);
        if window.contains(sample.done) {
            self.traffic.received_bytes += sample.size as u64;
        }
        if !window.contains(sample.due) {
            self.outside += 1;
            return;
        }
        self.replies += 1;
        if sample.status != 0 {
            *self.traffic.statuses.entry(sample.status).or_default() += 1;
        }
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

    /// Counts what was finished after enough had been: in the books it is still on the way.
    pub fn record_surplus(&mut self, due: Instant) {
        *(if self.counts(Some(due)) { &mut self.surplus } else { &mut self.outside }) += 1;
    }

    /// Whether what was due at `due` counts; what was never due always does.
    #[must_use]
    pub fn counts(&self, due: Option<Instant>) -> bool {
        due.is_none_or(|due| self.window.is_some_and(|window| window.contains(due)))
    }

    fn count_completed(&mut self, at: Instant) {
        if self.window.is_some_and(|window| window.contains(at)) {
            self.completed += 1;
            self.current_completed += 1;
        }
    }

    /// Counts the failure of a request that was due at `due`, if it counts. The first of each kind is
    /// kept as an example.
    pub fn record_failure(
        &mut self,
        cause: Cause,
        due: Option<Instant>,
        example: impl FnOnce() -> String,
    ) {
        if self.counts(due) {
            self.failures.add(cause, example);
            self.current_errors += 1;
        } else {
            self.outside += 1;
        }
    }

    /// Counts the failure of a request that would have been sent at `at`, had there been a connection.
    pub fn record_unbegun(&mut self, cause: Cause, at: Instant, example: impl FnOnce() -> String) {
        if self.counts(Some(at)) {
            self.record_failure(cause, Some(at), example);
            self.unbegun += 1;
        }
    }

    /// Counts a connection that could not be opened, or was not let in.
    pub fn record_link_failure(&mut self, cause: Cause, example: impl FnOnce() -> String) {
        self.links.failed.add(cause, example);
    }

    /// Ends an interval, in which the tester itself was late by `tester_late` at the worst, and begins
    /// the next.
    pub fn turn_interval(&mut self, now: Instant, tester_late: Duration) {
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
            tester_late,
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

    /// The requests that failed.
    #[must_use]
    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    /// How many requests failed.
    #[must_use]
    pub fn all_errors(&self) -> u64 {
        self.failures.all()
    }

    /// Requests outside the window that are finished.
    #[must_use]
    pub fn outside(&self) -> u64 {
        self.outside
    }

    /// Requests that failed in the window before they could be begun.
    #[must_use]
    pub fn unbegun(&self) -> u64 {
        self.unbegun
    }

    /// Requests of the window that were finished when enough had been.
    #[must_use]
    pub fn surplus(&self) -> u64 {
        self.surplus
    }

    /// Visits of the window that were begun.
    #[must_use]
    pub fn visits(&self) -> u64 {
        self.visits
    }

    /// The shortest time from sending a request to its reply, in nanoseconds.
    #[must_use]
    pub fn least_service(&self) -> Option<u64> {
        self.least_service
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
        recorder.turn_interval(after(30), Duration::ZERO);
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
                recorder.turn_interval(due, Duration::ZERO);
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
        recorder.record_failure(Cause::Refused, None, || "first".to_owned());
        recorder.record_failure(Cause::Refused, None, || "second".to_owned());
        recorder.record_failure(Cause::Reset, Some(begin), || "before the window".to_owned());
        let failures = recorder.failures();
        assert_eq!((failures.count(Cause::Refused), failures.all()), (2, 2));
        assert_eq!(failures.example(Cause::Refused), Some("first"));
        assert_eq!(failures.example(Cause::Reset), None);
        assert_eq!(recorder.outside(), 1);
    }
}
