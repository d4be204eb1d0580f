//! From what was counted to what is kept.

use std::collections::BTreeMap;

use super::host::Host;
use super::outcome::{Asked, Outcome, SCHEMA, Stretch, Tester, Times, pack, read_histogram};
use super::plan::{Activity, Plan};
use super::profile::Arrivals;
use super::statistics::{Cause, Interval, Phase, Recorder};
use super::traffic::Traffic;

/// The outcome of the run that `host` was left behind by. Remarks and objectives are others' work.
#[must_use]
pub fn settle(host: &Host, started: String, memory_before: u64) -> Outcome {
    let recorder = &host.recorder;
    let seconds = recorder.window().map_or(0.0, |window| {
        window.end.map_or(0.0, |end| end.saturating_duration_since(window.begin).as_secs_f64())
    });
    let unsent = host.pace.as_ref().map_or(0, |pace| {
        recorder.window().and_then(|window| window.end).map_or(0, |end| pace.waiting(end))
    });
    let replies = match host.plan.activity {
        Activity::Idle => recorder.histogram(Phase::Connect).len(),
        _ => recorder.replies(),
    };
    Outcome {
        schema: SCHEMA.to_owned(),
        target: host.plan.address.to_string(),
        started,
        asked: asked(&host.plan),
        runs: 1,
        seconds,
        replies,
        completed: recorder.completed(),
        rate_per_second: recorder.completed() as f64 / seconds.max(1e-9),
        unsent,
        connections_at_end: host.established_at_end as u64,
        tls_resumed: recorder.resumed(),
        traffic: traffic(host),
        errors: by_cause(|cause| Some(recorder.errors(cause)).filter(|count| *count > 0)),
        error_examples: by_cause(|cause| recorder.example(cause).map(str::to_owned)),
        phases: phases(recorder),
        intervals: recorder.intervals().iter().filter(|it| !it.is_void()).map(stretch).collect(),
        tester: tester(host, replies, memory_before),
        remarks: Vec::new(),
        objectives: Vec::new(),
        interrupted: host.interrupted,
    }
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
        warm_up_seconds: plan.warm_up.as_secs_f64(),
        schedule: schedule(plan),
        auth: plan.gate.as_ref().map_or("none", |(_, digest)| digest.name()).to_owned(),
        timeout_seconds: plan.timeout.as_secs_f64(),
    }
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
    Tester {
        cpu_share: spent.map_or(0.0, |spent| spent.cpu_share),
        cpu_us_per_reply: cpu * 1e6 / (replies.max(1) as f64),
        lag_p99_ns: host.lag.value_at_quantile(0.99),
        lag_max_ns: host.lag.max(),
        memory_bytes: memory,
        memory_per_connection_bytes: grown / (host.plan.connections as u64).max(1),
        listen_overflows: spent.map_or(0, |spent| spent.listen_overflows),
    }
}
