//! What a reader of the figures should know: who the limit was, and what the figures leave out.

use super::outcome::Outcome;
use super::show::{show_count, show_ns, show_percent};
use super::statistics::Phase;

/// From this share of a core on, the tester could hardly have done more.
const BUSY: f64 = 0.9;

/// An open loop that reached less than this share of what was asked did not reach it.
const REACHED: f64 = 0.98;

/// After this long a client tries to connect again (RFC 6298), less a little: a connection that took
/// as long was dropped at first. Others on the machine fill their queues too.
const RETRY_NS: u64 = 950_000_000;

/// Sentences on `outcome`, the weightiest first.
#[must_use]
pub fn on(outcome: &Outcome) -> Vec<String> {
    let mut remarks = Vec::new();
    remarks.extend(on_the_tester(outcome));
    remarks.extend(on_the_rate(outcome));
    remarks.extend(on_the_kernel(outcome));
    remarks.extend(on_the_loop(outcome));
    if outcome.interrupted {
        remarks
            .push("The run was stopped before its end; the figures are those until then.".into());
    }
    remarks
}

fn on_the_tester(outcome: &Outcome) -> Option<String> {
    let tester = &outcome.tester;
    let share = tester.cpu_share / outcome.runs.max(1) as f64;
    if share >= BUSY {
        return Some(format!(
            "The tester was the limit: it used {} of a core, all that one thread has. The server may \
             be able to do more, and the times hold up to {} of waiting in the tester. Use more \
             hosts, or ask for a rate.",
            show_percent(share),
            show_ns(tester.lag_p99_ns)
        ));
    }
    let (_, times) = outcome.headline()?;
    (tester.lag_p99_ns > times.p50_ns && tester.lag_p99_ns > 1_000_000).then(|| {
        format!(
            "The tester was late: its loop came to what was due up to {} late (99 of 100), more than \
             the median itself. Something else wanted its core; the times include that.",
            show_ns(tester.lag_p99_ns)
        )
    })
}

fn on_the_rate(outcome: &Outcome) -> Option<String> {
    let asked = outcome.asked.rate_per_second?;
    if outcome.rate_per_second >= asked * REACHED {
        return None;
    }
    let who = if outcome.tester.cpu_share / outcome.runs.max(1) as f64 >= BUSY {
        "the tester could not send more"
    } else {
        "all connections were waiting for the server"
    };
    Some(format!(
        "The rate was not reached: {} of {} requests a second ({}), because {who}. {} requests were \
         due and never sent; they are not in the times, which would be longer with them.",
        show_count(outcome.rate_per_second as u64),
        show_count(asked as u64),
        show_percent(outcome.rate_per_second / asked),
        show_count(outcome.unsent)
    ))
}

fn on_the_kernel(outcome: &Outcome) -> Vec<String> {
    let mut remarks = Vec::new();
    if outcome.errors.contains_key("exhausted") {
        remarks.push(
            "This machine was the limit: it had no local port or descriptor left for some \
             connections. Give more local addresses (--source A,B,...), or ask for fewer connections."
                .to_owned(),
        );
    }
    let had_to_retry = outcome.times(Phase::Connect).is_some_and(|times| times.max_ns >= RETRY_NS);
    if outcome.tester.listen_overflows > 0 && had_to_retry {
        remarks.push(format!(
            "The kernel's queue of new connections was the limit: it was full {} times on this \
             machine, and each time a client had to try again, a second later or more. The server \
             accepts too slowly, or its backlog (or net.core.somaxconn) is too small.",
            show_count(outcome.tester.listen_overflows)
        ));
    }
    remarks
}

fn on_the_loop(outcome: &Outcome) -> Option<String> {
    let is_closed = outcome.asked.kind == "closed" && outcome.asked.activity == "requests";
    is_closed.then(|| {
        "A closed loop: while a reply is late its connection sends nothing, so a stall is counted \
         once a connection, and not for all who would have come meanwhile. For the times that \
         users see, give a --rate."
            .to_owned()
    })
}
