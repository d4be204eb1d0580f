//! From a listener of the plan to its sources: names are looked up, addresses bound, keys prepared.
//! All of it happens before the first connection is accepted, so it may block.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::DaemonSource;
use super::acceptor::Acceptor;
use super::connection::{Offer, Service};
use super::datagrams::Datagrams;
use super::start::StartError;
use crate::config::address::{Address, HostPort};
use crate::config::plan::{self, service_name};
use crate::net::dial::Target;
use crate::net::forward::Targets;
use crate::net::listener::Listener;
use crate::net::udp::UdpServer;
use crate::proto::gate::Keyring;
use crate::proto::service::Kind;

/// Opens one listener of the plan, on every address that its host name has.
///
/// # Errors
/// A name that is not known, an address that cannot be bound.
pub fn open(listener: &plan::Listener) -> Result<Vec<DaemonSource>, StartError> {
    let bind_error = |address: &str, error: io::Error| StartError::Bind {
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
            sources.push(acceptor(listener, &offer(listener)?, opened));
        }
        (Address::Tcp(at) | Address::Tls(at) | Address::Udp(at), _) => {
            let offer = offer(listener)?;
            for address in resolve(listener, at)? {
                let opened = Listener::tcp(address)
                    .map_err(|error| bind_error(&format!("tcp://{address}"), error))?;
                sources.push(acceptor(listener, &offer, opened));
            }
        }
    }
    Ok(sources)
}

fn offer(listener: &plan::Listener) -> Result<Rc<Offer>, StartError> {
    let gate = listener.gate.as_ref();
    Ok(Rc::new(Offer {
        name: listener.name.clone(),
        service: service(listener)?,
        keyring: gate.map(|gate| Rc::new(Keyring::new(gate.digest, &gate.secrets))),
        timeouts: Rc::new(listener.timeouts),
    }))
}

fn service(listener: &plan::Listener) -> Result<Service, StartError> {
    let (to, connect) = match &listener.service {
        plan::Service::Own(kind) => return Ok(Service::Own(kind.clone())),
        plan::Service::Forward { to, connect } => (to, connect),
    };
    let mut targets = Vec::new();
    for address in to {
        match address {
            Address::Unix(path) => targets.push(Target::Unix(path.clone())),
            Address::Tcp(at) | Address::Tls(at) | Address::Udp(at) => {
                targets.extend(resolve(listener, at)?.into_iter().map(Target::Tcp));
            }
        }
    }
    Ok(Service::Forward(Targets::new(targets, *connect)))
}

fn resolve(listener: &plan::Listener, at: &HostPort) -> Result<Vec<SocketAddr>, StartError> {
    at.resolve().map_err(|error| StartError::Resolve { name: listener.name.clone(), error })
}

fn acceptor(listener: &plan::Listener, offer: &Rc<Offer>, opened: Listener) -> DaemonSource {
    announce(listener, &opened.bound());
    DaemonSource::Acceptor(Box::new(Acceptor::new(opened, Rc::clone(offer))))
}

fn datagrams(
    listener: &plan::Listener,
    service: &Kind,
    server: UdpServer,
    address: SocketAddr,
) -> DaemonSource {
    announce(listener, &format!("udp://{}", server.local_address().unwrap_or(address)));
    let may_amplify = listener.amplify || address.ip().is_loopback();
    let name = listener.name.clone();
    DaemonSource::Datagrams(Box::new(Datagrams::new(server, name, service.clone(), may_amplify)))
}

fn announce(listener: &plan::Listener, bound: &str) {
    log::info!(
        "listening listener={} address={bound} service={} auth={}",
        listener.name,
        service_name(&listener.service),
        listener.gate.as_ref().map_or("none", |gate| gate.digest.name()),
    );
}
