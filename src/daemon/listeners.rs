//! From a listener of the plan to its sources: names are looked up, addresses bound, keys prepared.
//! All of it happens before the first connection is accepted, so it may block.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use super::DaemonSource;
use super::acceptor::Acceptor;
use super::connection::{Offer, Service};
use super::datagrams::{Datagrams, Rules};
use super::open_error::OpenError;
use super::tls::{self, UpstreamConfig};
use crate::config::address::{Address, HostPort};
use crate::config::plan::{self, service_name};
use crate::net::dial::Target;
use crate::net::forward::{Destination, Limits, Secure, Targets};
use crate::net::listener::{Binding, Listener};
use crate::net::resolver::Names;
use crate::net::tls::key_log::KeyLogFile;
use crate::net::udp::UdpServer;
use crate::net::unix;
use crate::proto::exit::Allowed;
use crate::proto::gate::Keyring;
use crate::proto::introduction::Line;
use crate::proto::quote::Value;
use crate::proto::resolver::Lookup;
use crate::proto::service::Kind;

/// A listener that is open.
pub struct Opened {
    /// The address that the system bound.
    pub address: String,
    /// What serves it.
    pub source: DaemonSource,
}

/// The hosts that a listener forwards to by name.
pub fn target_hosts(listener: &plan::Listener) -> impl Iterator<Item = &str> {
    let targets = match &listener.service {
        plan::Service::Own(_) | plan::Service::Connect { .. } => &[][..],
        plan::Service::Forward { to, .. } => to,
    };
    targets.iter().filter_map(Address::host_port).filter(|at| at.is_named()).map(|at| &*at.host)
}

/// Looks up the hosts that the listeners of `plan` listen on, and at the places of their Unix sockets,
/// and opens nothing.
///
/// # Errors
/// A host is not known; the folder of a socket is not there, or something else has its name.
pub fn check_places(plan: &plan::Plan) -> Result<(), OpenError> {
    for listener in &plan.listeners {
        match &listener.address {
            Address::Unix(path) => unix::check_place(path)
                .map_err(|error| bind_error(listener, listener.address.to_string(), error))?,
            Address::Tcp(at) | Address::Tls(at) | Address::Udp(at) => drop(resolve(listener, at)?),
        }
    }
    Ok(())
}

/// Opens one listener of the plan, on every address of its host name that this machine has. `names`
/// knows its target hosts by now, or somebody else will.
///
/// # Errors
/// A name that is not known, an address that cannot be bound.
pub fn open(
    listener: &plan::Listener,
    names: &mut Names,
    key_log: Option<&Arc<KeyLogFile>>,
) -> Result<Vec<Opened>, OpenError> {
    match (&listener.address, &listener.service) {
        (Address::Udp(at), plan::Service::Own(service)) => open_each(listener, at, |address| {
            let server = UdpServer::bind(address, listener.only_ipv6)?;
            Ok(datagrams(listener, service, server, address))
        }),
        (Address::Unix(path), _) => {
            let binding = Binding::Unix(path.clone(), listener.unix_mode);
            let opened = binding
                .listen()
                .map_err(|error| bind_error(listener, binding.to_string(), error))?;
            Ok(vec![acceptor(listener, &offer(listener, names, key_log)?, (opened, binding))])
        }
        (Address::Tcp(at) | Address::Tls(at) | Address::Udp(at), _) => {
            let offer = offer(listener, names, key_log)?;
            open_each(listener, at, |address| {
                let binding = Binding::Tcp {
                    address,
                    only_ipv6: listener.only_ipv6,
                    user_timeout: listener.user_timeout,
                };
                Ok(acceptor(listener, &offer, (binding.listen()?, binding)))
            })
        }
    }
}

/// Opens every place that `at` stands for. A name such as `localhost` may have addresses of a
/// family that this machine does not have; one address is enough.
fn open_each(
    listener: &plan::Listener,
    at: &HostPort,
    open_one: impl Fn(SocketAddr) -> io::Result<Opened>,
) -> Result<Vec<Opened>, OpenError> {
    let scheme = if matches!(listener.address, Address::Udp(_)) { "udp" } else { "tcp" };
    let (mut opened, mut missing) = (Vec::new(), Vec::new());
    for address in resolve(listener, at)? {
        match open_one(address) {
            Ok(one) => opened.push(one),
            Err(error) if is_missing_here(&error) => missing.push((address, error)),
            Err(error) => return Err(bind_error(listener, format!("{scheme}://{address}"), error)),
        }
    }
    if opened.is_empty()
        && let Some((address, error)) = missing.pop()
    {
        return Err(bind_error(listener, format!("{scheme}://{address}"), error));
    }
    for (address, error) in missing {
        log::warn!(
            "listener `{}` does not listen on {scheme}://{address}, one of the addresses of {}: \
             {error}",
            listener.name,
            at.host
        );
    }
    Ok(opened)
}

/// Whether a place cannot be bound because this machine does not have it.
fn is_missing_here(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT))
}

fn bind_error(listener: &plan::Listener, address: String, error: io::Error) -> OpenError {
    OpenError::Bind { name: listener.name.clone(), address, error }
}

fn offer(
    listener: &plan::Listener,
    names: &mut Names,
    key_log: Option<&Arc<KeyLogFile>>,
) -> Result<Rc<Offer>, OpenError> {
    let gate = listener.gate.as_ref();
    let tls = listener.tls.as_ref().map(|tls| {
        tls::server_config(&listener.name, tls, key_log)
            .map_err(|error| OpenError::Tls { name: listener.name.clone(), error: error.into() })
    });
    Ok(Rc::new(Offer {
        name: listener.name.clone(),
        service: service(listener, names, key_log)?,
        keyring: gate.map(|gate| Rc::new(Keyring::new(gate.digest, &gate.secrets))),
        tls: tls.transpose()?,
        proxies: listener.proxies.clone(),
        timeouts: Rc::new(listener.timeouts),
    }))
}

fn service(
    listener: &plan::Listener,
    names: &mut Names,
    key_log: Option<&Arc<KeyLogFile>>,
) -> Result<Service, OpenError> {
    match &listener.service {
        plan::Service::Own(kind) => Ok(Service::Own(kind.clone())),
        plan::Service::Connect { targets, connect } => Ok(Service::Connect {
            allowed: Rc::new(Allowed {
                rules: targets.clone(),
                head: listener.head,
                limit: *connect,
            }),
            user_timeout: listener.user_timeout,
        }),
        plan::Service::Forward { to, connect, upstream } => {
            let targets = targets(listener, to, (names, tls::upstream(listener, key_log)?))?;
            let mut lines = Vec::new();
            if let Some((secret, digest)) = &upstream.gate {
                lines.push(Line::Answer(secret.clone(), *digest));
            }
            lines.extend(upstream.target.clone().map(|target| Line::Ask(target, listener.head)));
            let limits = Limits { connect: *connect, user_timeout: listener.user_timeout };
            let targets = Targets::new(targets, limits).asking(upstream.target.clone());
            let targets = Rc::new(targets);
            Ok(Service::Forward { targets, lines, announces: upstream.proxy_protocol })
        }
    }
}

/// Where `to` is: each with TLS where its address says so.
fn targets(
    listener: &plan::Listener,
    to: &[Address],
    (names, tls): (&mut Names, Option<UpstreamConfig>),
) -> Result<Vec<(Destination, Option<Secure>)>, OpenError> {
    let mut targets = Vec::new();
    for address in to {
        let secure = match (address, &tls) {
            (Address::Tls(at), Some(tls)) => Some(tls.secure(listener, at)?),
            _ => None,
        };
        match address {
            Address::Unix(path) => {
                targets.push((Destination::Place(Target::Unix(path.clone())), secure));
            }
            // The interface of a zone may come and go.
            Address::Tcp(at) | Address::Tls(at) | Address::Udp(at)
                if at.is_named() || at.has_zone() =>
            {
                if at.is_named() {
                    warn_of_unknown(listener, address, &at.host, names);
                }
                targets.push((Destination::Host(at.host.clone(), at.port), secure));
            }
            Address::Tcp(at) | Address::Tls(at) | Address::Udp(at) => {
                for place in resolve(listener, at)? {
                    targets.push((Destination::Place(Target::Tcp(place)), secure.clone()));
                }
            }
        }
    }
    Ok(targets)
}

/// A target that nobody knows may be misspelt, or not be there yet: the former is better said at the
/// start than to the first client, and the latter is no reason not to serve others.
fn warn_of_unknown(listener: &plan::Listener, target: &Address, host: &str, names: &mut Names) {
    let reason = match names.known(host, Instant::now()) {
        Lookup::Known(_) => return,
        Lookup::Pending => "no name server has answered yet".to_owned(),
        Lookup::Failed(failure) => failure.to_string(),
    };
    log::warn!(
        "listener `{}`: where the target {target} is, is not known yet: {reason}; it is looked for \
         again",
        listener.name
    );
}

fn resolve(listener: &plan::Listener, at: &HostPort) -> Result<Vec<SocketAddr>, OpenError> {
    at.resolve().map_err(|error| OpenError::Resolve { name: listener.name.clone(), error })
}

fn acceptor(
    listener: &plan::Listener,
    offer: &Rc<Offer>,
    (opened, binding): (Listener, Binding),
) -> Opened {
    let address = opened.bound();
    let acceptor = Acceptor::new(opened, binding, Rc::clone(offer));
    log_listening(listener, address, DaemonSource::Acceptor(Box::new(acceptor)))
}

fn datagrams(
    listener: &plan::Listener,
    service: &Kind,
    server: UdpServer,
    address: SocketAddr,
) -> Opened {
    let bound = format!("udp://{}", server.local_address());
    let rules = Rules {
        may_amplify: listener.amplify || address.ip().is_loopback(),
        rate: Some(listener.answers_per_second).filter(|rate| *rate > 0),
    };
    let datagrams = Datagrams::new(server, listener.name.clone(), service.clone(), rules);
    log_listening(listener, bound, DaemonSource::Datagrams(Box::new(datagrams)))
}

fn log_listening(listener: &plan::Listener, address: String, source: DaemonSource) -> Opened {
    log::info!(
        "listening listener={} address={} tls={} service={} auth={}",
        Value(&listener.name),
        Value(&address),
        if listener.tls.is_some() { "yes" } else { "no" },
        service_name(&listener.service),
        listener.gate.as_ref().map_or("none", |gate| gate.digest.name()),
    );
    Opened { address, source }
}
