//! From what was counted to what is kept.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use rand::RngExt;

use super::generator::Unfinished;
use super::host::Host;
use super::outcome::{
    Admission, Asked, Links, Outcome, Part, SCHEMA, Strays, Stretch, Tester, Times,
};
use super::packed::{pack, read_histogram};
use super::plan::{Activity, Plan};
use super::profile::Arrivals;
use super::statistics::{Cause, Failures, Interval, Phase, Recorder, new_histogram};
use super::traffic::Traffic;

/// What the connections of a run still had in hand when it ended.
#[derive(Debug, Default)]
pub struct Remains {
    /// Requests that are not finished.
    pub unfinished: Vec<Unfinished>,
    /// Requests that were ever begun, by their numbers.
    pub begun: u64,
    /// Connections that are there, or on their way.
    pub connections: u64,
}

/// When a run began, by both clocks, and what memory the program had then.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// By the clock on the wall.
    pub wall: Timestamp,
    /// By the one that never goes back.
    pub at: Instant,
    /// In bytes.
    pub memory: u64,
}

/// Where everything is that was due.
#[derive(Debug, Default)]
struct Books {
    due: u64,
    replies: u64,
    unsent: u64,
    in_flight: u64,
}

/// The outcome of the run that `host` and `remains` were left behind by. Remarks and objectives are
/// others' work.
#[must_use]
pub fn settle(host: &Host, remains: &Remains, beginning: Beginning) -> Outcome {
    let recorder = &host.recorder;
    let window = recorder.window();
    let seconds = window.map_or(0.0, |window| {
        window.end.map_or(0.0, |end| end.saturating_duration_since(window.begin).as_secs_f64())
    });
    let began = window.map_or(beginning.at, |window| window.begin);
    let books = books(host, remains);
    let failures = recorder.failures();
    Outcome {
        schema: SCHEMA.to_owned(),
        parts: vec![part(&host.plan, beginning, began, seconds)],
        target: host.plan.address.to_string(),
        started: beginning.wall.to_string(),
        asked: asked(&host.plan),
        runs: 1,
        seconds,
        due: books.due,
        replies: books.replies,
        failed: failures.all(),
        unsent: books.unsent,
        in_flight: books.in_flight,
        waiting: waiting(host, remains),
        backlog: host.backlog,
        completed: recorder.completed(),
        rate_per_second: recorder.completed() as f64 / seconds.max(1e-9),
        connections_at_end: host.established_at_end as u64,
        connections: links(recorder),
        admission: Admission {
            by_protocol: host.proofs.by_protocol,
            by_word: host.proofs.by_word,
            by_wait: host.proofs.by_wait,
        },
        datagrams: Strays { duplicates: recorder.strays.duplicates, late: recorder.strays.late },
        least_service_ns: recorder.least_service(),
        tls_resumed: recorder.resumed(),
        traffic: traffic(host),
        limit: None,
        errors: counts(failures),
        error_examples: examples(failures),
        phases: phases(recorder),
        intervals: recorder.intervals().iter().filter(|it| !it.is_void()).map(stretch).collect(),
        tester: tester(host, books.replies, beginning.memory),
        remarks: Vec::new(),
        objectives: Vec::new(),
        interrupted: host.interrupted,
        search: None,
    }
}

/// What was due is known in another way than what became of it: from the schedule, where there is one;
/// else from the numbers of requests, or from the visits and connections that were begun. So the books
/// can be checked.
fn books(host: &Host, remains: &Remains) -> Books {
    let recorder = &host.recorder;
    if host.plan.activity == Activity::Idle {
        let (due, replies) = (recorder.links.begun, host.established as u64);
        let in_flight = remains.connections.saturating_sub(replies);
        return Books { due, replies, unsent: 0, in_flight };
    }
    let Some(window) = recorder.window() else { return Books::default() };
    let counts = |it: &&Unfinished| it.due.is_some_and(|due| window.contains(due));
    let sent = remains.unfinished.iter().filter(|it| it.is_sent);
    let (sent_in, sent_all) = (sent.clone().filter(counts).count() as u64, sent.count() as u64);
    let granted = remains.unfinished.iter().filter(|it| !it.is_sent).filter(counts).count() as u64;
    let waiting = window.end.zip(host.pace.as_ref()).map_or(0, |(end, pace)| pace.waiting(end));
    let due = match (&host.pace, host.plan.activity) {
        (Some(pace), _) => pace.due_in(window),
        (None, Activity::Visits | Activity::Handshakes) => recorder.visits(),
        (None, _) => {
            let outside = recorder.outside() + sent_all - sent_in;
            (remains.begun + recorder.unbegun()).saturating_sub(outside)
        }
    };
    Books {
        due,
        replies: recorder.replies(),
        unsent: waiting + granted,
        in_flight: sent_in + recorder.surplus(),
    }
}

/// How long the requests of the window that are on the way have waited. Those that were finished when
/// enough had been are as good as sent a moment ago.
fn waiting(host: &Host, remains: &Remains) -> Option<Times> {
    let window = host.recorder.window()?;
    let now = Instant::now();
    let mut times = new_histogram();
    for due in remains.unfinished.iter().filter(|it| it.is_sent).filter_map(|it| it.due) {
        if window.contains(due) {
            times.saturating_record(now.saturating_duration_since(due).as_nanos() as u64);
        }
    }
    times.saturating_record_n(1, host.recorder.surplus());
    Times::of(&times)
}

fn part(plan: &Plan, beginning: Beginning, began: Instant, seconds: f64) -> Part {
    let after = SignedDuration::try_from(began.saturating_duration_since(beginning.at));
    let began = beginning.wall.saturating_add(after.unwrap_or_default()).unwrap_or(beginning.wall);
    let id = format!("{:032x}", rand::rng().random::<u128>());
    Part { id, run: plan.run.clone(), began: began.to_string(), seconds }
}

fn traffic(host: &Host) -> Traffic {
    let recorder = &host.recorder;
    let request = host.plan.exchange.payload().len() as u64;
    Traffic {
        sent_bytes: recorder.completed() * request,
        connections: host.spread(),
        ..recorder.traffic().clone()
    }
}

fn asked(plan: &Plan) -> Asked {
    let activity = match plan.activity {
        Activity::Requests => "requests",
        Activity::Visits => "visits",
        Activity::Handshakes => "handshakes",
        Activity::Idle => "idle",
    };
    Asked {
        activity: activity.to_owned(),
        kind: if plan.rate.is_some() { "open" } else { "closed" }.to_owned(),
        connections: plan.connections as u64,
        rate_per_second: plan.rate,
        depth: plan.depth as u64,
        payload_bytes: plan.exchange.payload().len() as u64,
        expect: plan.exchange.expectation().to_string(),
        think_seconds: plan.think.as_secs_f64(),
        warm_up_seconds: plan.warm_up.as_secs_f64(),
        schedule: schedule(plan),
        auth: plan.gate.as_ref().map_or("none", |(_, digest)| digest.name()).to_owned(),
        timeout_seconds: (!plan.adapts).then_some(plan.timeout.as_secs_f64()),
    }
}

fn links(recorder: &Recorder) -> Links {
    let links = &recorder.links;
    Links {
        begun: links.begun,
        opened: links.opened,
        failed: links.failed.all(),
        queue_full: links.queue_full,
        closed_idle: links.closed_idle,
        closed_used: links.closed_used,
        lost: links.lost,
        resent: links.resent,
        replies_before_close: links.replies_before_close,
        errors: counts(&links.failed),
        error_examples: examples(&links.failed),
    }
}

fn counts(failures: &Failures) -> BTreeMap<String, u64> {
    by_cause(|cause| Some(failures.count(cause)).filter(|count| *count > 0))
}

fn examples(failures: &Failures) -> BTreeMap<String, String> {
    by_cause(|cause| failures.example(cause).map(str::to_owned))
}

/// How the rate goes, where a figure does not say it.
fn schedule(plan: &Plan) -> Option<String> {
    let profile = plan.profile.as_ref().map(ToString::to_string);
    match plan.arrivals {
        Arrivals::Uniform => profile,
        Arrivals::Poisson(seed) => {
            let rate = profile.or(plan.rate.map(|rate| rate.to_string())).unwrap_or_default();
            Some(format!("{rate}, arrivals poisson (seed {seed})"))
        }
    }
}

fn by_cause<T>(of: impl Fn(Cause) -> Option<T>) -> BTreeMap<String, T> {
    Cause::ALL.into_iter().filter_map(|cause| Some((cause.name().to_owned(), of(cause)?))).collect()
}

fn phases(recorder: &Recorder) -> BTreeMap<String, Times> {
    let times =
        |phase| Some((Phase::name(phase).to_owned(), Times::of(recorder.histogram(phase))?));
    Phase::ALL.into_iter().filter_map(times).collect()
}

fn stretch(interval: &Interval) -> Stretch {
    Stretch {
        at_seconds: interval.at.as_secs_f64(),
        seconds: interval.length.as_secs_f64(),
        completed: interval.completed,
        errors: interval.errors,
        p50_ns: interval.p50,
        p99_ns: interval.p99,
        max_ns: interval.max,
        tester_late_ns: interval.tester_late.as_nanos() as u64,
        histogram: read_histogram(&interval.histogram)
            .map(|times| pack(&times))
            .unwrap_or_default(),
    }
}

fn tester(host: &Host, replies: u64, memory_before: u64) -> Tester {
    let spent = host.usage_before.zip(host.usage_after).map(|(from, to)| to.since(&from));
    let cpu = spent.map_or(0.0, |spent| (spent.user + spent.system).as_secs_f64());
    let memory = host.memory.unwrap_or(0);
    let grown = memory.saturating_sub(memory_before);
    let lateness = &host.lateness;
    let first = lateness.pauses.first().zip(host.recorder.window());
    Tester {
        cpu_share: spent.map_or(0.0, |spent| spent.cpu_share),
        cpu_us_per_reply: cpu * 1e6 / (replies.max(1) as f64),
        lag_p99_ns: lateness.times.value_at_quantile(0.99),
        lag_max_ns: lateness.times.max(),
        pauses: lateness.pauses.len() as u64,
        paused_seconds: lateness.paused.as_secs_f64(),
        first_pause_seconds: first
            .map(|((at, _), window)| at.saturating_duration_since(window.begin).as_secs_f64()),
        memory_bytes: memory,
        memory_per_connection_bytes: grown / (host.plan.connections as u64).max(1),
        listen_overflows: spent.map_or(0, |spent| spent.listen_overflows),
    }
}
