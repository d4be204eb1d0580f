//! From a plan to a running daemon: everything that can fail or block happens here, before the
//! first connection is accepted.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::admissions::Admissions;
use super::host::{Host, Nonces, Phase};
use super::listeners::OpenError;
use super::log::{LogObserver, LogQueue};
use super::stop::Stop;
use super::{DaemonSource, listeners};
use crate::config::Plan;
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

/// Why the daemon did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system refused something that every event loop needs.
    #[error("the event loop failed: {0}")]
    Loop(#[from] io::Error),
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
    // Before the first listener: whoever reads that it listens may send a signal at once.
    let stop = Stop::new(StopSignals::new()?, plan.limits.drain);
    reactor.spawn(DaemonSource::Stop(Box::new(stop)));
    let sources: Vec<_> = plan.listeners.iter().map(listeners::open).collect::<Result<_, _>>()?;
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
