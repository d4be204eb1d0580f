//! What a reader of the figures should know: who the limit was, and what the figures leave out.

use super::bottleneck::{
    Bottleneck, connections_that_would_do, connects_retried, core_share, find, places,
    service_seconds,
};
use super::outcome::Outcome;
use super::show::{show_count, show_ns, show_percent};

/// A server that closes after fewer replies than this, on the average, closes after each.
const HARDLY_ANY: f64 = 1.5;

/// Sentences on `outcome`, the weightiest first.
#[must_use]
pub fn on(outcome: &Outcome) -> Vec<String> {
    let limit = find(outcome);
    let mut remarks = Vec::new();
    if let Err(imbalance) = outcome.check_books() {
        remarks.push(format!(
            "The books do not balance, which is a fault of this program: {imbalance}."
        ));
    }
    remarks.extend(on_the_tester(outcome, limit));
    remarks.extend(on_pauses(outcome));
    remarks.extend(on_the_rate(outcome, limit));
    remarks.extend(on_the_unanswered(outcome));
    remarks.extend(limit.and_then(on_the_machine));
    remarks.extend(on_the_queue(outcome));
    remarks.extend(on_connections(outcome));
    remarks.extend(on_admission(outcome));
    remarks.extend(on_datagrams(outcome));
    remarks.extend(on_the_loop(outcome));
    if outcome.interrupted {
        remarks
            .push("The run was stopped before its end; the figures are those until then.".into());
    }
    remarks
}

fn on_the_tester(outcome: &Outcome, limit: Option<Bottleneck>) -> Option<String> {
    let tester = &outcome.tester;
    if limit == Some(Bottleneck::Tester) {
        return Some(format!(
            "The tester was the limit: it used {} of a core, all that one thread has. The server may \
             be able to do more, and the times hold up to {} of waiting in the tester. Use more \
             hosts, or ask for a rate.",
            show_percent(core_share(outcome)),
            show_ns(tester.lag_p99_ns)
        ));
    }
    let (_, times) = outcome.headline()?;
    let is_late = tester.lag_p99_ns > times.p50_ns && tester.lag_p99_ns > 1_000_000;
    (is_late && tester.pauses == 0).then(|| {
        format!(
            "The tester was late: its loop came to what was due up to {} late (99 of 100), more than \
             the median itself. Something else wanted its core; the times include that.",
            show_ns(tester.lag_p99_ns)
        )
    })
}

fn on_pauses(outcome: &Outcome) -> Option<String> {
    let tester = &outcome.tester;
    let first = tester.first_pause_seconds?;
    let times = if tester.pauses == 1 { "once" } else { "several times" };
    Some(format!(
        "The tester itself stood still {times}, for {} in all and {} at the longest (first at {first:.2} s). \
         What was due meanwhile waited in the tester, not in the server: its times are spoiled, and the \
         intervals concerned are marked in the JSON (tester_late_ns).",
        show_ns((tester.paused_seconds * 1e9) as u64),
        show_ns(tester.lag_max_ns)
    ))
}

fn on_the_rate(outcome: &Outcome, limit: Option<Bottleneck>) -> Option<String> {
    let asked = outcome.asked.rate_per_second?;
    if outcome.has_kept_pace() {
        return None;
    }
    let why = match limit {
        Some(limit) => format!("because {}", reason(outcome, limit)),
        None => "and nothing that was measured says why".to_owned(),
    };
    Some(format!(
        "The rate was not reached: {} of {} requests a second ({}), {why}. When the window ended {} \
         requests were due and not sent, and {} never were.",
        show_count(outcome.rate_per_second as u64),
        show_count(asked as u64),
        show_percent(outcome.rate_per_second / asked),
        show_count(outcome.backlog),
        show_count(outcome.unsent)
    ))
}

/// The rest of a sentence that begins with "because".
fn reason(outcome: &Outcome, limit: Bottleneck) -> String {
    let service = service_seconds(outcome).unwrap_or(0.0);
    let taken = show_ns((service * 1e9) as u64);
    let places = places(outcome);
    let most = show_count((places as f64 / service.max(1e-9)) as u64);
    match limit {
        Bottleneck::Tester => "the tester could not send more".to_owned(),
        Bottleneck::Pause => "the tester itself stood still".to_owned(),
        Bottleneck::Ports => "this machine had no local port left".to_owned(),
        Bottleneck::Descriptors => "this machine had no descriptor left".to_owned(),
        Bottleneck::Refusals => "most connections could not be opened, or broke".to_owned(),
        Bottleneck::Backlog => {
            "new connections found no place in the server's queue at once".to_owned()
        }
        Bottleneck::Loss => "datagrams were lost, and each held its place for a while".to_owned(),
        Bottleneck::Silence => "the server left requests without an answer".to_owned(),
        Bottleneck::Interruption => "the run was stopped".to_owned(),
        Bottleneck::Connections => format!(
            "there were too few connections: a reply takes {taken}, so {places} requests on the way \
             at a time are {most} a second at the most; {} connections would do, if the server answers \
             them as fast",
            show_count(connections_that_would_do(outcome).unwrap_or(0))
        ),
        Bottleneck::Server => format!(
            "the server's replies took {taken}, {:.0} times as long as with little to do: all {places} \
             places were taken by requests that waited for one another there",
            service * 1e9 / outcome.least_service_ns.unwrap_or(1).max(1) as f64
        ),
    }
}

fn on_the_unanswered(outcome: &Outcome) -> Option<String> {
    let (bad, known) = outcome.unanswered(outcome.timeout_ns());
    (bad > 0 && known > 0 && outcome.asked.activity != "idle").then(|| {
        format!(
            "{} of {} requests that were due have no right reply. They are not in the times; for \
             objectives they count as slower than any limit.",
            show_count(bad),
            show_count(known)
        )
    })
}

fn on_the_machine(limit: Bottleneck) -> Option<String> {
    match limit {
        Bottleneck::Ports => Some(
            "This machine was the limit: it had no local port left for some connections. Give more \
             local addresses (--source A,B,...), widen net.ipv4.ip_local_port_range, or open fewer \
             connections."
                .to_owned(),
        ),
        Bottleneck::Descriptors => Some(
            "This machine was the limit: it had no descriptor or memory left for some connections. Raise \
             the limit (`ulimit -n`), or ask for fewer connections."
                .to_owned(),
        ),
        _ => None,
    }
}

fn on_the_queue(outcome: &Outcome) -> Option<String> {
    let too_small =
        "The server accepts too slowly, or its backlog (or net.core.somaxconn) is too small";
    let full = outcome.connections.queue_full;
    if full > 0 {
        return Some(format!(
            "The server's queue of new connections was full {} times, and connections waited for a \
             place in it. {too_small}.",
            show_count(full)
        ));
    }
    let (count, share) = connects_retried(outcome);
    let whose = match outcome.tester.listen_overflows {
        0 => "A queue of new connections was full on the way or at the server".to_owned(),
        overflows => format!(
            "The kernel's queue of new connections was full {} times on this machine",
            show_count(overflows)
        ),
    };
    (count > 0).then(|| {
        format!(
            "{whose}: {} connections ({}) took about 1 s, 3 s or 7 s, which is when a client's kernel \
             tries again. {too_small}, or packets are lost.",
            show_count(count),
            show_percent(share)
        )
    })
}

fn on_connections(outcome: &Outcome) -> Option<String> {
    let links = &outcome.connections;
    let closed = links.closed_idle + links.closed_used;
    if closed == 0 {
        return None;
    }
    let average = links.replies_before_close as f64 / closed as f64;
    let again = match links.resent {
        0 => String::new(),
        resent => format!(" {} requests on the way then were sent again.", show_count(resent)),
    };
    if links.replies_before_close > 0 && average < HARDLY_ANY {
        return Some(format!(
            "The server closes each connection after its reply ({} times).{again} If that is how it \
             serves, give --connect-per-request, which measures whole visits.",
            show_count(closed)
        ));
    }
    Some(format!(
        "The server closed {} connections with nothing on the way, and {} that it was done with, after \
         {average:.0} replies on the average; others were opened.{again} That is no error.",
        show_count(links.closed_idle),
        show_count(links.closed_used),
    ))
}

fn on_admission(outcome: &Outcome) -> Option<String> {
    let admission = outcome.admission;
    if outcome.asked.activity != "handshakes" || admission.by_word + admission.by_wait == 0 {
        return None;
    }
    Some(format!(
        "Whether the server let a client in shows only after the handshake (a gate says nothing, and in \
         TLS 1.3 a client's certificate is looked at last): {} were seen to be let in by a word of \
         the server, {} because it did not close for a while (50 ms or more). The times do not hold that \
         wait.",
        show_count(admission.by_word),
        show_count(admission.by_wait)
    ))
}

fn on_datagrams(outcome: &Outcome) -> Option<String> {
    let strays = outcome.datagrams;
    (strays.duplicates + strays.late > 0).then(|| {
        format!(
            "{} datagrams came twice, and {} came after they had been given up as lost.",
            show_count(strays.duplicates),
            show_count(strays.late)
        )
    })
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
