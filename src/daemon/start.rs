//! From a plan to a running daemon: everything that can fail or block happens here, before the
//! first connection is accepted.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::admissions::Admissions;
use super::host::{Host, Nonces, Phase};
use super::log::{LogObserver, LogQueue};
use super::stop::Stop;
use super::{DaemonSource, listeners};
use crate::config::{Plan, ResolveError};
use crate::net::clock::SystemClock;
use crate::net::reactor::Reactor;
use crate::net::signal::StopSignals;
use crate::proto::buffer::Pool;

/// How many unused blocks of storage are kept for the next connection that needs one. As many
/// connections as this may be in the middle of a request before storage is allocated anew.
const BLOCKS_KEPT: usize = 64;

/// Descriptors that the daemon needs beside one for each connection: listeners, epoll, the signal
/// pipe, standard streams, and some room.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's host name is not known.
    #[error("listener `{name}`: {error}")]
    Resolve {
        /// The listener's name.
        name: String,
        /// What the resolver said.
        error: ResolveError,
    },
    /// A listener's address could not be bound.
    #[error("listener `{name}`: cannot listen on {address}: {error}{}", advice(.error))]
    Bind {
        /// The listener's name.
        name: String,
        /// The address as it is bound.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The system refused something that every event loop needs.
    #[error("cannot start the event loop: {0}")]
    Loop(#[from] io::Error),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 and foreign folders need a right: choose another address, or give \
             the program CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrInUse => {
            "; stop the program that uses it (`ss -lptn` names it), or choose another address"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address (`ip address`)",
        _ => "",
    }
}

/// Serves `plan` until a signal stops it and its connections have ended.
///
/// # Errors
/// Where a listener cannot be opened, nothing is served. After that only the failure of the event
/// loop itself ends it early.
pub fn serve(plan: &Plan, log: &LogQueue) -> Result<(), StartError> {
    raise_descriptor_limit(plan.limits.connections as u64);
    let host = Host {
        clock: SystemClock::new(),
        nonces: Nonces::new(),
        admissions: Admissions::new(plan.limits.connections, plan.limits.connections_per_ip),
        phase: Phase::Running,
    };
    let pool = Pool::new(plan.limits.buffer, BLOCKS_KEPT);
    let mut reactor = Reactor::new(pool, Box::new(LogObserver::new()), host)?;
    let sources: Vec<_> = plan.listeners.iter().map(listeners::open).collect::<Result<_, _>>()?;
    let stop = Stop::new(StopSignals::new()?, plan.limits.drain);
    reactor.spawn(DaemonSource::Stop(Box::new(stop)));
    for source in sources.into_iter().flatten() {
        reactor.spawn(source);
    }
    while !reactor.host().is_over() {
        log.flush();
        reactor.turn()?;
    }
    log::info!("stopped {}", reactor.host().admissions.counts);
    Ok(())
}

/// Raises the soft limit on descriptors to the hard one, and says so where even that is less than
/// the plan's connections need.
fn raise_descriptor_limit(connections: u64) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    match raised {
        Ok(limit) if limit < connections + DESCRIPTORS_BESIDE => log::warn!(
            "limits.connections is {connections}, but this process may open only {limit} \
             descriptors; accepting will pause at that point (raise it with `ulimit -Hn`, or \
             LimitNOFILE= in a systemd unit)"
        ),
        Ok(_) => {}
        Err(error) => log::warn!("the descriptor limit cannot be raised: {error}"),
    }
}
