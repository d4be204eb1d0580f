//! From a plan to a running daemon: everything that can fail or block happens here, before the
//! first connection is accepted.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::DaemonSource;
use super::acceptor::Acceptor;
use super::admissions::Admissions;
use super::connection::Offer;
use super::datagrams::Datagrams;
use super::host::{Host, Nonces, Phase};
use super::log::{LogObserver, LogQueue};
use super::stop::Stop;
use super::tls;
use crate::config::address::{Address, HostPort, ResolveError};
use crate::config::plan::{self, Plan};
use crate::net::clock::SystemClock;
use crate::net::listener::Listener;
use crate::net::reactor::Reactor;
use crate::net::signal::StopSignals;
use crate::net::tls::key_log::{KeyLogError, KeyLogFile};
use crate::net::udp::UdpServer;
use crate::proto::buffer::Pool;
use crate::proto::gate::Keyring;

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
    /// What TLS needs cannot be made.
    #[error("listener `{name}`: TLS cannot be prepared: {error}")]
    Tls {
        /// The listener's name.
        name: String,
        /// What rustls said.
        error: rustls::Error,
    },
    /// The file for TLS secrets cannot be used.
    #[error(transparent)]
    KeyLog(#[from] KeyLogError),
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
    for warning in plan.warnings(Timestamp::now()) {
        log::warn!("{warning}");
    }
    raise_descriptor_limit(plan.limits.connections as u64);
    let host = Host {
        clock: SystemClock::new(),
        nonces: Nonces::new(),
        admissions: Admissions::new(plan.limits.connections, plan.limits.connections_per_ip),
        phase: Phase::Running,
    };
    let pool = Pool::new(plan.limits.buffer, BLOCKS_KEPT);
    let mut reactor = Reactor::new(pool, Box::new(LogObserver::new()), host)?;
    let key_log = KeyLogFile::from_environment()?;
    if let Some(key_log) = &key_log {
        log::warn!("{}", key_log.warning());
    }
    let open = |listener| open(listener, key_log.as_ref());
    let sources: Vec<_> = plan.listeners.iter().map(open).collect::<Result<_, _>>()?;
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

/// Opens one listener of the plan, on every address that its host name has.
fn open(
    listener: &plan::Listener,
    key_log: Option<&Arc<KeyLogFile>>,
) -> Result<Vec<DaemonSource>, StartError> {
    let bind_error = |address: String| {
        let name = listener.name.clone();
        move |error| StartError::Bind { name, address, error }
    };
    let gate = listener.gate.as_ref();
    let tls = listener.tls.as_ref().map(|tls| {
        tls::server_config(&listener.name, tls, key_log)
            .map_err(|error| StartError::Tls { name: listener.name.clone(), error })
    });
    let offer = Rc::new(Offer {
        name: listener.name.clone(),
        service: listener.service.clone(),
        keyring: gate.map(|gate| Rc::new(Keyring::new(gate.digest, &gate.secrets))),
        tls: tls.transpose()?,
        timeouts: Rc::new(listener.timeouts),
    });
    let acceptor = |opened: Listener| {
        log::info!(
            "listening listener={} address={} tls={} service={} auth={}",
            listener.name,
            opened.bound(),
            if listener.tls.is_some() { "yes" } else { "no" },
            plan::service_name(&listener.service),
            gate.map_or("none", |gate| gate.digest.name()),
        );
        DaemonSource::Acceptor(Box::new(Acceptor::new(opened, Rc::clone(&offer))))
    };
    let resolve = |at: &HostPort| {
        at.resolve().map_err(|error| StartError::Resolve { name: listener.name.clone(), error })
    };
    match &listener.address {
        Address::Unix(path) => {
            let opened = Listener::unix(path, listener.unix_mode)
                .map_err(bind_error(listener.address.to_string()))?;
            Ok(vec![acceptor(opened)])
        }
        Address::Udp(at) => resolve(at)?
            .into_iter()
            .map(|address| {
                let socket =
                    UdpServer::bind(address).map_err(bind_error(format!("udp://{address}")))?;
                Ok(datagrams(listener, socket, address))
            })
            .collect(),
        Address::Tcp(at) | Address::Tls(at) => resolve(at)?
            .into_iter()
            .map(|address| {
                Listener::tcp(address).map(acceptor).map_err(bind_error(format!("tcp://{address}")))
            })
            .collect(),
    }
}

fn datagrams(listener: &plan::Listener, socket: UdpServer, address: SocketAddr) -> DaemonSource {
    let bound = socket.local_address().unwrap_or(address);
    log::info!(
        "listening listener={} address=udp://{bound} service={} auth=none",
        listener.name,
        plan::service_name(&listener.service),
    );
    let may_amplify = listener.amplify || address.ip().is_loopback();
    let (name, service) = (listener.name.clone(), listener.service.clone());
    DaemonSource::Datagrams(Box::new(Datagrams::new(socket, name, service, may_amplify)))
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
