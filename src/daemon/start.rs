//! From a plan to a running daemon: everything that can fail or block happens here, before the
//! first connection is accepted.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::RngExt;

use super::admissions::{Admissions, MAX_LEAVING, Places};
use super::host::{Host, Nonces, Phase};
use super::log::{self, LogObserver, LogQueue};
use super::loops::Loops;
use super::open_error::OpenError;
use super::own_calls::OwnCalls;
use super::stop::Stop;
use super::throttle::Throttle;
use super::{DaemonSource, listeners, manager};
use crate::config::{Limits, Plan, Service};
use crate::net::clock::SystemClock;
use crate::net::reactor::Reactor;
use crate::net::resolver::Names;
use crate::net::signal::StopSignals;
use crate::net::tls::key_log::{KeyLogError, KeyLogFile};
use crate::proto::buffer::Pool;
use crate::proto::resolver::MAX_LOOKUPS;

/// How many unused blocks of storage are kept for the next connection that needs one. As many
/// connections as this may be in the middle of a request before storage is allocated anew.
const BLOCKS_KEPT: usize = 64;

/// Descriptors that the daemon needs beside one for each connection: listeners, epoll, the signal
/// pipe, standard streams, and some room.
const DESCRIPTORS_BESIDE: u64 = 64;

/// How long the start waits for the names of targets.
const NAMES_PATIENCE: Duration = Duration::from_millis(500);

/// Why the daemon did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file for TLS secrets cannot be used.
    #[error(transparent)]
    KeyLog(#[from] KeyLogError),
    /// The system refused something that every event loop needs.
    #[error("the event loop failed: {0}")]
    Loop(#[from] io::Error),
}

/// A daemon whose listeners are open.
pub struct Daemon {
    reactor: Reactor<DaemonSource>,
    said: Said,
    bound: Vec<String>,
}

/// What the log says, on its way.
struct Said {
    queue: LogQueue,
    throttle: Rc<RefCell<Throttle>>,
}

impl Daemon {
    /// Opens every listener of `plan`. What is to be said meanwhile is written as it comes.
    ///
    /// # Errors
    /// Where one listener cannot be opened, none stays open.
    pub fn open(plan: &Plan, log: &LogQueue) -> Result<Self, StartError> {
        for warning in plan.warnings(Timestamp::now()) {
            ::log::warn!("{warning}");
        }
        raise_descriptor_limit(descriptors(plan));
        let host = Host {
            clock: SystemClock::new(),
            nonces: Nonces::new(),
            admissions: Admissions::new(places(plan), rand::random()),
            names: Names::of_system(&plan.resolver.servers),
            loops: Loops::new(rand::rng().random(), Instant::now()),
            own_calls: OwnCalls::default(),
            listening: 0,
            phase: Phase::Running,
            failure: None,
        };
        let pool = Pool::new(plan.limits.buffer, BLOCKS_KEPT);
        let said = Said { queue: log.clone(), throttle: Rc::default() };
        let observer = LogObserver::new(Rc::clone(&said.throttle));
        let mut reactor = Reactor::new(pool, Box::new(observer), host)?;
        // Before the first listener: whoever reads that it listens may send a signal at once.
        let stop = Stop::new(StopSignals::with_requests()?, plan.limits.drain);
        reactor.spawn(DaemonSource::Stop(Box::new(stop)));
        let key_log = KeyLogFile::from_environment()?;
        if let Some(key_log) = &key_log {
            ::log::warn!("{}", key_log.warning());
        }
        find_targets(plan, &mut reactor, &said)?;
        let mut bound = Vec::new();
        if reactor.host().is_over() {
            return Ok(Self { reactor, said, bound });
        }
        for listener in &plan.listeners {
            let names = &mut reactor.host().names;
            for opened in listeners::open(listener, names, key_log.as_ref())? {
                bound.push(opened.address);
                reactor.spawn(opened.source);
                if let Some(failure) = reactor.host().failure.take() {
                    return Err(failure.into());
                }
            }
        }
        Ok(Self { reactor, said, bound })
    }

    /// The addresses that the system bound, in the order of the plan: they say which port
    /// stands for 0.
    #[must_use]
    pub fn bound(&self) -> &[String] {
        &self.bound
    }

    /// Serves until a signal stops it and its connections have ended.
    ///
    /// # Errors
    /// Only the failure of the event loop itself ends it early.
    pub fn run(mut self) -> Result<(), StartError> {
        if self.reactor.host().phase == Phase::Running {
            manager::ready();
        }
        while !self.reactor.host().is_over() {
            turn(&mut self.reactor, &self.said, None)?;
        }
        self.said.tell_held_back(true);
        let counts = self.reactor.host().admissions.counts;
        ::log::info!("stopped {counts} log_lines_lost={}", self.said.queue.lost());
        Ok(())
    }
}

fn places(plan: &Plan) -> Places {
    let Limits { connections, connections_per_ip, unauthenticated, .. } = plan.limits;
    Places { all: connections, per_ip: connections_per_ip, unauthenticated }
}

/// Looks up every host that is forwarded to, with a loop that has nothing else to do yet: it waits
/// a moment for each to be found or not, unless a signal says that nobody will wait. Where a name
/// server takes longer, connections wait for it, and other listeners serve meanwhile.
fn find_targets(plan: &Plan, reactor: &mut Reactor<DaemonSource>, said: &Said) -> io::Result<()> {
    let now = Instant::now();
    for host in plan.listeners.iter().flat_map(listeners::target_hosts) {
        reactor.host().names.watch(host, now);
    }
    reactor.spawn(DaemonSource::Queries(Box::default()));
    let until = now + NAMES_PATIENCE;
    while !reactor.host().names.is_settled() && !reactor.host().is_over() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        turn(reactor, said, Some(left))?;
    }
    Ok(())
}

/// One turn, after the lines of the last; it ends in time to try again what nobody took of them, to
/// say what was held back, and within `limit`.
fn turn(
    reactor: &mut Reactor<DaemonSource>,
    said: &Said,
    limit: Option<Duration>,
) -> io::Result<()> {
    let report = said.tell_held_back(false);
    let retry = said.queue.flush();
    reactor.turn_within([report, retry, limit].into_iter().flatten().min())
}

impl Said {
    /// Says what was held back, of the daemon's own lines and of those that libraries write, where that
    /// is due or `is_last`. Answers when to do so again.
    fn tell_held_back(&self, is_last: bool) -> Option<Duration> {
        let own = log::tell_held_back(&mut self.throttle.borrow_mut(), is_last);
        let libraries = self.queue.libraries();
        let mut libraries = libraries.lock().unwrap_or_else(PoisonError::into_inner);
        let foreign = log::tell_held_back(&mut libraries, is_last);
        [own, foreign].into_iter().flatten().min()
    }
}

/// How many descriptors the plan's connections may need: a relayed one has a second socket, and
/// where names are looked up, each question for either kind of address has a socket for each of two tries.
/// What the losers of a race hold for a moment is not counted.
fn descriptors(plan: &Plan) -> u64 {
    let relays = plan.listeners.iter().any(|it| !matches!(it.service, Service::Own(_)));
    let each = if relays { 2 } else { 1 };
    let asks = plan.listeners.iter().any(|it| {
        matches!(it.service, Service::Connect { .. })
            || listeners::target_hosts(it).next().is_some()
    });
    let questions = if asks { 4 * MAX_LOOKUPS as u64 } else { 0 };
    (plan.limits.connections + MAX_LEAVING) as u64 * each + questions + DESCRIPTORS_BESIDE
}

/// Raises the soft limit on descriptors to the hard one, and says so where even that is less than
/// the plan's connections need.
fn raise_descriptor_limit(needed: u64) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    match raised {
        Ok(limit) if limit < needed => ::log::warn!(
            "limits.connections may need {needed} descriptors, but this process may open only \
             {limit}; accepting will pause at that point (raise it with `ulimit -Hn`, or \
             LimitNOFILE= in a systemd unit, or lower the limit)"
        ),
        Ok(_) => {}
        Err(error) => ::log::warn!("the descriptor limit cannot be raised: {error}"),
    }
}
