//! `turnstile inspect`: a TLS handshake, shown and explained, with any server.
//!
//! [`report`] holds what was found, as programs read it; [`faults`] says what is wrong and how it
//! is mended; [`prose`] tells it all to people. The handshakes themselves are made by
//! [`crate::net::tls_probe`].

pub mod faults;
pub mod prose;
pub mod report;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError};

use crate::config::{
    HostPort, PemError, ResolveError, Version, authorities, credential, system_authorities,
};
use crate::net::tls::client::server_name;
use crate::net::tls::key_log::{KeyLogError, KeyLogFile};
use crate::net::tls_probe::{Prober, Setup, Sighting};
use crate::proto::starttls::Protocol;
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
    pub credential: Option<(PathBuf, PathBuf)>,
    /// The application protocols to offer.
    pub alpn: Vec<String>,
    /// The only version to offer; none: all.
    pub version: Option<Version>,
    /// The protocol in which the server is asked to begin, where it does not at once.
    pub starttls: Option<Protocol>,
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
    /// The authorities cannot be read.
    #[error(transparent)]
    Authorities(PemError),
    /// What is to be shown cannot be.
    #[error("the client certificate and its key cannot be used: {0}")]
    Credential(PemError),
    /// No handshake can be made of what is to be offered.
    #[error("no handshake can be offered: {0}")]
    Offer(#[from] rustls::Error),
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
    let Request { address, ca, alpn, version, timeout, .. } = request;
    let name = request.server_name.unwrap_or_else(|| address.host.clone());
    let expected =
        server_name(&name).map_err(|error| InspectError::ServerName(name.clone(), error))?;
    let (trust, authorities) = trust(ca)?;
    let shown = request.credential.map(|(certificate, key)| credential(&certificate, &key));
    let shown = shown.transpose().map_err(InspectError::Credential)?;
    let key_log = KeyLogFile::from_environment()?;
    let warnings = key_log.iter().map(|key_log| key_log.warning()).collect();
    let setup = Setup {
        roots: trust.roots.clone(),
        authorities,
        credential: shown.map(|shown| shown.certified),
        alpn,
        versions: Version::only(version),
        starttls: request.starttls,
        key_log,
    };
    let prober = Prober::new(setup, expected, timeout)?;
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

/// Whom to trust, and the certificates of those of whom they are known.
fn trust(ca: Option<PathBuf>) -> Result<(Trust, Vec<CertificateDer<'static>>), InspectError> {
    let (roots, known) = match &ca {
        Some(file) => {
            let given = authorities(file).map_err(InspectError::Authorities)?;
            (RootCertStore::clone(&given.roots), given.certificates)
        }
        // That a system trusts nobody is reported when it matters.
        None => (system_authorities().unwrap_or_else(|_| RootCertStore::empty()), Vec::new()),
    };
    Ok((Trust { roots, file: ca }, known))
}

fn can_resume(first: &Sighting) -> bool {
    first.agreed.is_some() && first.failure.is_none()
}
