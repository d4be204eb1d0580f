//! What kept a run from doing more, or from doing what was asked, as far as that was measured.
//!
//! Every verdict here follows from a figure of the outcome, and is only named where that figure explains
//! what happened; the order is that of how directly it does. Where none does, nothing is named.

use super::outcome::Outcome;
use super::statistics::Phase;

/// From this share of a core on, the tester could hardly have done more.
const BUSY: f64 = 0.9;

/// A share of requests, or of connections, that matters.
const MATTERS: f64 = 0.01;

/// A share of the window in which the tester stood still that matters.
const PAUSED: f64 = 0.05;

/// How much longer than the shortest a service time is where requests wait for one another.
const QUEUED: f64 = 2.0;

/// How long a handshake holds its place at least until it shows that it was let in, in seconds, where
/// nothing but time shows it.
const ENTRY_WAIT: f64 = 0.05;

/// A difference between two times that says nothing, in nanoseconds: a machine is that restless.
const JITTER_NS: f64 = 200_000.0;

/// When a client tries to connect again, and how much later that may show, in milliseconds: after 1, 3
/// and 7 seconds (RFC 6298).
const RETRIES_MS: [(u64, u64); 3] = [(950, 1400), (2900, 3500), (6800, 7600)];

/// What kept a run from doing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottleneck {
    /// Local ports.
    Ports,
    /// Descriptors, or memory of the kernel's.
    Descriptors,
    /// The tester's core.
    Tester,
    /// The tester stood still.
    Pause,
    /// Connections that could not be opened, or broke.
    Refusals,
    /// A queue of new connections that was full, here or there.
    Backlog,
    /// Datagrams that were lost.
    Loss,
    /// A server that did not answer.
    Silence,
    /// Too few connections for the rate and the time that a reply takes.
    Connections,
    /// A server whose replies took longer the more it had to do.
    Server,
    /// Somebody stopped the run.
    Interruption,
}

impl Bottleneck {
    /// The word for it in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Descriptors => "descriptors",
            Self::Tester => "tester",
            Self::Pause => "pause",
            Self::Refusals => "refusals",
            Self::Backlog => "backlog",
            Self::Loss => "loss",
            Self::Silence => "silence",
            Self::Connections => "connections",
            Self::Server => "server",
            Self::Interruption => "interruption",
        }
    }
}

/// What kept `outcome` from being more, or from being what was asked.
#[must_use]
pub fn find(outcome: &Outcome) -> Option<Bottleneck> {
    let due = outcome.due.max(1) as f64;
    let matters = |count: u64| count as f64 >= due * MATTERS;
    let failed = |cause: &str| {
        let of = |errors: &std::collections::BTreeMap<String, u64>| errors.get(cause).copied();
        of(&outcome.errors).max(of(&outcome.connections.errors)).unwrap_or(0)
    };
    let is_slow = !outcome.has_kept_pace();
    let links = &outcome.connections;
    let tried_again = connects_retried(outcome);
    let is_held = outcome.asked.kind == "closed";
    let verdicts = [
        (failed("exhausted") > 0 && (is_slow || matters(failed("exhausted"))), Bottleneck::Ports),
        (
            failed("descriptors") > 0 && (is_slow || matters(failed("descriptors"))),
            Bottleneck::Descriptors,
        ),
        (core_share(outcome) >= BUSY && (is_slow || is_held), Bottleneck::Tester),
        (is_paused(outcome), Bottleneck::Pause),
        (matters(failed("lost")), Bottleneck::Loss),
        (is_silent(outcome), Bottleneck::Silence),
        ((links.failed + links.lost) * 2 > links.begun && is_slow, Bottleneck::Refusals),
        (tried_again.0 > 0 && tried_again.1 >= MATTERS, Bottleneck::Backlog),
        (links.queue_full as f64 > links.begun as f64 * MATTERS, Bottleneck::Backlog),
        (is_slow && is_full(outcome) && !is_queued(outcome), Bottleneck::Connections),
        (is_slow && is_full(outcome), Bottleneck::Server),
        (outcome.interrupted, Bottleneck::Interruption),
    ];
    verdicts.into_iter().find_map(|(is_so, verdict)| is_so.then_some(verdict))
}

/// What each tester used of a core.
#[must_use]
pub fn core_share(outcome: &Outcome) -> f64 {
    outcome.tester.cpu_share / outcome.runs.max(1) as f64
}

/// How many connections were tried again by the kernel, and which share of all that is.
#[must_use]
pub fn connects_retried(outcome: &Outcome) -> (u64, f64) {
    let Some(times) = outcome.times(Phase::Connect).and_then(|times| times.histogram().ok()) else {
        return (0, 0.0);
    };
    let between = |(from, to): (u64, u64)| times.count_between(from * 1_000_000, to * 1_000_000);
    let count = RETRIES_MS.into_iter().map(between).sum();
    (count, count as f64 / times.len().max(1) as f64)
}

/// How long a request holds its place, in seconds: the mean from when it is sent, or its connection
/// begun, to its reply.
#[must_use]
pub fn service_seconds(outcome: &Outcome) -> Option<f64> {
    let mean = |phase| outcome.times(phase).map(|times| times.mean_ns / 1e9);
    let setup = match outcome.asked.activity.as_str() {
        "visits" | "handshakes" => [Phase::Connect, Phase::Tls, Phase::Gate].map(mean),
        _ => [None; 3],
    };
    let request = mean(Phase::Request).or_else(|| {
        // In a closed loop of visits nothing waits: the whole is what it takes.
        (outcome.asked.activity == "handshakes").then_some(0.0)
    })?;
    let took = request + setup.into_iter().flatten().sum::<f64>();
    let admission = outcome.admission;
    let all = admission.by_protocol + admission.by_word + admission.by_wait;
    let waits = match outcome.asked.activity.as_str() {
        "handshakes" => admission.by_wait as f64 / all.max(1) as f64,
        _ => 0.0,
    };
    Some(took + waits * ENTRY_WAIT.max(took * 4.0))
}

/// How many requests can be on the way at a time.
#[must_use]
pub fn places(outcome: &Outcome) -> u64 {
    outcome.asked.connections * outcome.asked.depth
}

/// How many connections would do for the rate, if replies took no longer with them: Little's law, and
/// a fifth more, since requests do not come one exactly after the other.
#[must_use]
pub fn connections_that_would_do(outcome: &Outcome) -> Option<u64> {
    let on_the_way = outcome.asked.rate_per_second? * service_seconds(outcome)?;
    let count = (on_the_way * 1.2 / outcome.asked.depth.max(1) as f64).ceil();
    Some((count as u64).max(outcome.asked.connections + 1))
}

/// Whether the tester stood still for so long that it explains what was not sent, or spoils the rest.
fn is_paused(outcome: &Outcome) -> bool {
    let paused = outcome.tester.paused_seconds;
    let explains = match outcome.asked.rate_per_second {
        Some(rate) if !outcome.has_kept_pace() => {
            rate * paused * 2.0 >= outcome.backlog.max(outcome.unsent) as f64
        }
        _ => paused >= outcome.seconds * PAUSED,
    };
    outcome.tester.pauses > 0 && explains
}

/// Whether the server took requests and left them without an answer: until they were given up, or all of
/// them until the run ended.
fn is_silent(outcome: &Outcome) -> bool {
    let gave_up = outcome.errors.contains_key("timed_out") && outcome.connections.lost > 0;
    let (bad, known) = outcome.unanswered(outcome.timeout_ns());
    (gave_up && bad as f64 >= known as f64 * MATTERS)
        || (outcome.replies == 0 && outcome.in_flight > 0 && !outcome.has_kept_pace())
}

/// Whether all places were taken nearly all of the time.
fn is_full(outcome: &Outcome) -> bool {
    let (Some(rate), Some(service)) = (outcome.asked.rate_per_second, service_seconds(outcome))
    else {
        return false;
    };
    places(outcome) as f64 <= rate * service * 1.1
}

/// Whether requests waited for one another at the server: then they take the longer the more of them are
/// on the way. One at a time cannot.
fn is_queued(outcome: &Outcome) -> bool {
    let places = places(outcome) as f64;
    let request = outcome.times(Phase::Request).map(|times| times.mean_ns);
    request.zip(outcome.least_service_ns).is_some_and(|(mean, least)| {
        let least = least as f64;
        places > 1.0 && mean > least * QUEUED.min((1.0 + places) / 2.0) && mean - least > JITTER_NS
    })
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Times;
    use super::super::outcome::tests::outcome_of;
    use super::super::statistics::new_histogram;
    use super::*;

    /// An open loop of 100 a second of which half was never sent, and whose replies took so long.
    fn slow(times_ms: &[u64]) -> Outcome {
        let times: Vec<u64> = times_ms.iter().map(|ms| ms * 1_000_000).collect();
        let mut outcome = outcome_of(&times);
        outcome.asked.kind = "open".to_owned();
        outcome.asked.rate_per_second = Some(100.0);
        outcome.unsent = outcome.replies;
        outcome.due = outcome.replies * 2;
        outcome
    }

    #[test]
    fn too_few_connections_are_told_from_a_server_that_is_full() {
        let few = slow(&[20; 50]);
        assert_eq!(find(&few), Some(Bottleneck::Connections));
        // 100 a second of 20 ms each are two on the way, on the average.
        assert_eq!(connections_that_would_do(&few), Some(3));
        let mut full = slow(&[80; 50]);
        (full.least_service_ns, full.asked.connections) = (Some(20_000_000), 4);
        assert_eq!(find(&full), Some(Bottleneck::Server));
    }

    #[test]
    fn a_run_that_kept_its_pace_had_no_limit() {
        let mut outcome = slow(&[2000; 50]);
        (outcome.unsent, outcome.due) = (0, outcome.replies);
        assert_eq!(find(&outcome), None);
        outcome.interrupted = true;
        assert_eq!(find(&outcome), Some(Bottleneck::Interruption));
    }

    #[test]
    fn what_is_nearer_at_hand_is_named_first() {
        let mut outcome = slow(&[80; 50]);
        outcome.tester.cpu_share = 0.95;
        assert_eq!(find(&outcome), Some(Bottleneck::Tester));
        outcome.errors.insert("exhausted".to_owned(), 5);
        assert_eq!(find(&outcome), Some(Bottleneck::Ports));
        let mut lost = outcome_of(&[1_000_000; 90]);
        lost.errors.insert("lost".to_owned(), 10);
        (lost.failed, lost.due) = (10, 100);
        assert_eq!(find(&lost), Some(Bottleneck::Loss));
    }

    #[test]
    fn connects_that_took_a_second_or_three_were_tried_again() {
        let mut times = new_histogram();
        times.saturating_record_n(100_000, 95);
        times.saturating_record_n(1_010_000_000, 4);
        times.saturating_record_n(3_050_000_000, 1);
        let mut outcome = outcome_of(&[1_000_000; 100]);
        outcome.phases.extend(Times::of(&times).map(|times| ("connect".to_owned(), times)));
        assert_eq!(connects_retried(&outcome), (5, 0.05));
        assert_eq!(find(&outcome), Some(Bottleneck::Backlog));
    }
}
