//! One run, from the plan to what it came to.

use std::io;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;

use super::account::{Beginning, Remains};
use super::conductor::Conductor;
use super::host::{Host, Stage};
use super::limits::{self, LimitError};
use super::outcome::Outcome;
use super::pacer::Pacer;
use super::panel::Panel;
use super::payload::Expectation;
use super::places::{Place, places};
use super::plan::{Plan, PlanError};
use super::show::show_count;
use super::source::LoadSource;
use super::statistics::Cause;
use super::tester::resident_memory;
use super::visitor::Visitor;
use super::{account, bottleneck, remarks};
use crate::config::{Address, ResolveError};
use crate::net::reactor::Reactor;
use crate::net::trace::TraceObserver;
use crate::proto::buffer::Pool;

/// How many bytes wait in each direction of a connection at the most; a datagram fits.
const BUFFER: usize = 64 * 1024;

/// How many unused blocks of storage are kept.
const BLOCKS_KEPT: usize = 64;

/// Why there is no outcome: one line for people.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The plan is of no use.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// This machine does not allow it.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The name is not known.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No connection could be opened, or none got past the gate.
    #[error("{address}: no connection came about: {reason}{}", advice(*cause))]
    Unreachable {
        /// Where to.
        address: Address,
        /// The kind of failure.
        cause: Cause,
        /// The first of its kind, in words.
        reason: String,
    },
    /// The event loop failed.
    #[error("the event loop failed: {0}")]
    Loop(#[from] io::Error),
}

/// What is said of a server that speaks first.
const GREETED: &str = "The server speaks first: on each connection, what it says before it is asked \
    is waited for, and is no reply.";

fn advice(cause: Cause) -> &'static str {
    match cause {
        Cause::Refused => "; nothing listens there",
        Cause::TimedOut => "; is the address right, and no firewall between?",
        Cause::Tls => {
            " (--ca says whom to trust, --server-name whom to expect, --cert and --key what to show)"
        }
        Cause::Exhausted => "; no local port was left: give more addresses (--source A,B,...)",
        Cause::Descriptors => "; no descriptor was left: raise the limit (`ulimit -n`)",
        _ => "",
    }
}

/// Runs `plan` to its end, or until a signal stops it.
///
/// # Errors
/// The plan cannot be carried out, or nothing answers at all. Single failures are part of the
/// outcome.
pub fn run(mut plan: Plan) -> Result<Outcome, LoadError> {
    plan.check()?;
    let places = places(&plan.address)?;
    limits::prepare(&mut plan, &places)?;
    let beginning = Beginning {
        wall: Timestamp::try_from(SystemTime::now()).unwrap_or_default(),
        at: Instant::now(),
        memory: resident_memory().unwrap_or(0),
    };
    let (host, remains) = drive(plan, places)?;
    if let Some((cause, reason)) = host.failure {
        return Err(LoadError::Unreachable { address: host.plan.address, cause, reason });
    }
    let mut outcome = account::settle(&host, &remains, beginning);
    if let Err(imbalance) = outcome.check_books() {
        // No fault of the user's, and no reason to keep the figures from him.
        log::error!("internal error, please report it: the books do not balance: {imbalance}");
    }
    outcome.limit = bottleneck::find(&outcome).map(|limit| limit.name().to_owned());
    outcome.remarks = remarks::on(&outcome);
    outcome.remarks.extend(host.cut_short.clone());
    outcome.remarks.extend(remarks_on_replies(&host.plan, &outcome));
    if host.work.greets.get() == Some(true) {
        outcome.remarks.push(GREETED.to_owned());
    }
    if let Some(url) = host.plan.url {
        outcome.target = url;
    }
    Ok(outcome)
}

/// What a reader should know of how replies were told apart, and of what they said.
fn remarks_on_replies(plan: &Plan, outcome: &Outcome) -> Vec<String> {
    let mut remarks = Vec::new();
    let is_stream = !matches!(plan.address, Address::Udp(_));
    if is_stream && plan.sends() && *plan.exchange.expectation() == Expectation::Any {
        remarks.push(
            "With --expect any, pieces were counted: whatever came first after a request was taken \
             for its whole reply, so a reply that comes in two pieces may count as two and seem \
             faster than it is. Where replies have an end that can be told, say which: until:, \
             length:, http, size: or idle:."
                .to_owned(),
        );
    }
    let refusals = outcome.traffic.refusals();
    if refusals > 0 {
        remarks.push(format!(
            "Of the replies, {} had a status of 400 or above. They are counted as replies: the \
             server refused what it was asked, and may be faster at that than at answering. \
             With --expect http:2xx they are errors.",
            show_count(refusals)
        ));
    }
    remarks
}

/// Lets the reactor turn until the run is over; answers what its sources leave behind.
fn drive(plan: Plan, places: Vec<Place>) -> Result<(Host, Remains), LoadError> {
    let now = Instant::now();
    let (connections, timeout, length) = (plan.connections, plan.timeout, plan.length);
    let is_paced = plan.rate.is_some();
    let host = Host::new(plan, places, now);
    let mut reactor = Reactor::new(Pool::new(BUFFER, BLOCKS_KEPT), Box::new(TraceObserver), host)?;
    let conductor = Conductor::new(Panel::for_terminal(), length, now)?;
    reactor.spawn(LoadSource::Conductor(Box::new(conductor)));
    if is_paced {
        reactor.spawn(LoadSource::Pacer(Pacer::default()));
    }
    for index in 0..connections {
        reactor.spawn(LoadSource::Visitor(Visitor::new(index, timeout)));
    }
    while reactor.host().stage != Stage::Over {
        reactor.turn()?;
    }
    let mut remains = Remains::default();
    let (host, sources) = reactor.parts();
    host.memory = resident_memory();
    for source in sources {
        if let LoadSource::Visitor(visitor) = source {
            remains.unfinished.extend(visitor.unfinished());
            remains.begun += visitor.begun(connections);
            remains.connections += u64::from(visitor.holds_connection());
        }
    }
    Ok((reactor.into_host(), remains))
}
