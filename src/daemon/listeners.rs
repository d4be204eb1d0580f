//! From a listener of the plan to its sources: names are looked up, addresses bound, keys prepared.
//! All of it happens before the first connection is accepted, so it may block.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::DaemonSource;
use super::acceptor::Acceptor;
use super::connection::{Offer, Service};
use super::datagrams::Datagrams;
use super::open_error::OpenError;
use super::tls::{self, UpstreamConfig};
use crate::config::address::{Address, HostPort, ResolveError};
use crate::config::plan::{self, service_name};
use crate::net::dial::Target;
use crate::net::forward::{Destination, Limits, Secure, Targets};
use crate::net::listener::Listener;
use crate::net::resolver::Names;
use crate::net::tls::key_log::KeyLogFile;
use crate::net::udp::UdpServer;
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

/// Opens one listener of the plan, on every address that its host name has. `names` knows its
/// target hosts by now.
///
/// # Errors
/// A name that is not known, an address that cannot be bound.
pub fn open(
    listener: &plan::Listener,
    names: &mut Names,
    key_log: Option<&Arc<KeyLogFile>>,
) -> Result<Vec<Opened>, OpenError> {
    let bind_error = |address: &str, error: io::Error| OpenError::Bind {
        name: listener.name.clone(),
        address: address.to_owned(),
        error,
    };
    let mut sources = Vec::new();
    match (&listener.address, &listener.service) {
        (Address::Udp(at), plan::Service::Own(service)) => {
            for address in resolve(listener, at)? {
                let server = UdpServer::bind(address)
                    .map_err(|error| bind_error(&format!("udp://{address}"), error))?;
                sources.push(datagrams(listener, service, server, address));
            }
        }
        (Address::Unix(path), _) => {
            let opened = Listener::unix(path, listener.unix_mode)
                .map_err(|error| bind_error(&listener.address.to_string(), error))?;
            sources.push(acceptor(listener, &offer(listener, names, key_log)?, opened));
        }
        (Address::Tcp(at) | Address::Tls(at) | Address::Udp(at), _) => {
            let offer = offer(listener, names, key_log)?;
            for address in resolve(listener, at)? {
                let opened = Listener::tcp(address, listener.user_timeout)
                    .map_err(|error| bind_error(&format!("tcp://{address}"), error))?;
                sources.push(acceptor(listener, &offer, opened));
            }
        }
    }
    Ok(sources)
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
            allowed: Rc::new(Allowed { rules: targets.clone(), limit: *connect }),
            user_timeout: listener.user_timeout,
        }),
        plan::Service::Forward { to, connect, upstream } => {
            let targets = targets(listener, to, (names, tls::upstream(listener, key_log)?))?;
            let mut lines = Vec::new();
            if let Some((secret, digest)) = &upstream.gate {
                lines.push(Line::Answer(secret.clone(), *digest));
            }
            lines.extend(upstream.target.clone().map(Line::Ask));
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
            Address::Tcp(at) | Address::Tls(at) | Address::Udp(at) if at.is_named() => {
                require(listener, &at.host, names)?;
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

/// A target that nobody knows is most likely misspelt: better said at the start than to the first
/// client.
fn require(listener: &plan::Listener, host: &str, names: &mut Names) -> Result<(), OpenError> {
    let reason = match names.known(host, Instant::now()) {
        Lookup::Known(_) => return Ok(()),
        Lookup::Pending => "no name server has answered yet".to_owned(),
        Lookup::Failed(failure) => failure.to_string(),
    };
    let error = ResolveError::new(host.to_owned(), io::Error::other(reason));
    Err(OpenError::Resolve { name: listener.name.clone(), error })
}

fn resolve(listener: &plan::Listener, at: &HostPort) -> Result<Vec<SocketAddr>, OpenError> {
    at.resolve().map_err(|error| OpenError::Resolve { name: listener.name.clone(), error })
}

fn acceptor(listener: &plan::Listener, offer: &Rc<Offer>, opened: Listener) -> Opened {
    let address = opened.bound();
    let acceptor = Acceptor::new(opened, Rc::clone(offer));
    log_listening(listener, address, DaemonSource::Acceptor(Box::new(acceptor)))
}

fn datagrams(
    listener: &plan::Listener,
    service: &Kind,
    server: UdpServer,
    address: SocketAddr,
) -> Opened {
    let bound = format!("udp://{}", server.local_address().unwrap_or(address));
    let may_amplify = listener.amplify || address.ip().is_loopback();
    let name = listener.name.clone();
    let datagrams = Datagrams::new(server, name, service.clone(), may_amplify);
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
