//! `turnstile inspect`: a TLS handshake, shown and explained, with any server.
//!
//! [`report`] holds what was found, as programs read it; [`faults`] says what is wrong and how it
//! is mended; [`prose`] tells it all to people. The handshakes themselves are made by
//! [`crate::net::tls_probe`].

pub mod faults;
pub mod prose;
pub mod report;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::{InvalidDnsNameError, ServerName};

use crate::certificates::store::{self, StoreError};
use crate::config::{HostPort, ResolveError, Version};
use crate::net::tls::key_log::{KeyLogError, KeyLogFile};
use crate::net::tls_probe::{Identity, Prober, Setup, SetupError, Sighting};
use faults::{Case, Trust};
use report::Report;

/// What is asked for.
pub struct Request {
    /// Where to.
    pub address: HostPort,
    /// The name to ask for, where it is not the address' host.
    pub server_name: Option<String>,
    /// The file of the authorities to trust; none: the system's.
    pub ca: Option<PathBuf>,
    /// The files of a client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The application protocols to offer.
    pub alpn: Vec<String>,
    /// The only version to offer; none: all.
    pub version: Option<Version>,
    /// How long the connection and the handshake may take together; `None` is for ever.
    pub timeout: Option<Duration>,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The name is not known.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A server cannot be asked for by this name.
    #[error("`{0}` cannot be asked for: a server's name is a host name or an IP address")]
    ServerName(String, #[source] InvalidDnsNameError),
    /// A file of certificates or a key cannot be used.
    #[error(transparent)]
    File(#[from] StoreError),
    /// What is to be offered cannot be.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The file for secrets cannot be used.
    #[error(transparent)]
    KeyLog(#[from] KeyLogError),
    /// The event loop failed.
    #[error("the event loop failed: {0}")]
    Loop(#[from] io::Error),
}

/// What was seen, and what the user must know of how it was.
pub struct Inspected {
    /// What was seen.
    pub report: Report,
    /// What the user must know.
    pub warnings: Vec<String>,
}

/// Shakes hands with the server, a second time to see whether the session is resumed, and reports.
///
/// # Errors
/// The question cannot be asked. What the network or the server did wrong is in the report.
pub fn run(request: Request) -> Result<Inspected, InspectError> {
    let Request { address, server_name, ca, identity, alpn, version, timeout } = request;
    let name = server_name.unwrap_or_else(|| address.host.clone());
    let server_name = parse_server_name(&name)?;
    let trust = trust(ca)?;
    let identity = identity.map(|(certificate, key)| read_identity(&certificate, &key));
    let key_log = KeyLogFile::from_environment()?;
    let warnings = key_log.iter().map(|key_log| key_log.warning()).collect();
    let setup = Setup {
        roots: trust.roots.clone(),
        identity: identity.transpose()?,
        alpn: alpn.into_iter().map(String::into_bytes).collect(),
        versions: Version::only(version).to_vec(),
        key_log,
    };
    let prober = Prober::new(setup, server_name, timeout)?;
    let addresses = address.resolve()?;
    let first = prober.probe(&addresses)?;
    let second = match first.peer.filter(|_| can_resume(&first)) {
        Some(peer) => Some(prober.probe(&[peer])?),
        None => None,
    };
    let now = Timestamp::now();
    let case = Case { sighting: &first, name: &name, trust: &trust, timeout, now };
    Ok(Inspected { report: Report::new(&address, &case, second.as_ref()), warnings })
}

/// A zone (`%eth0`) says how to reach an address; it is no part of a server's name.
fn parse_server_name(name: &str) -> Result<ServerName<'static>, InspectError> {
    let host = name.split_once('%').map_or(name, |(host, _zone)| host);
    ServerName::try_from(host.to_owned())
        .map_err(|reason| InspectError::ServerName(name.to_owned(), reason))
}

fn trust(ca: Option<PathBuf>) -> Result<Trust, InspectError> {
    let certificates = match &ca {
        Some(file) => store::read_certificates(file)?,
        // Files that cannot be read show in a system that trusts nobody, which is reported.
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    Ok(Trust { roots, file: ca })
}

fn read_identity(certificate: &Path, key: &Path) -> Result<Identity, StoreError> {
    Ok(Identity { chain: store::read_certificates(certificate)?, key: store::read_key(key)? })
}

fn can_resume(first: &Sighting) -> bool {
    first.agreed.is_some() && first.failure.is_none()
}
