//! TLS on the client's side: whom to trust, whom to expect, what to show.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::InvalidDnsNameError;

use crate::config::{
    HostPort, NoAuthorities, Origin, PemError, UpstreamTls, Version, authorities, credential,
    system_authorities,
};
use crate::net::tls::client::{Client, Secure, server_name};
use crate::net::tls::key_log::{KeyLogError, KeyLogFile};

/// What whoever checks no certificate must know.
pub const INSECURE: &str =
    "--insecure: ANYONE may be at the other side: the certificate is not checked";

/// What the command line says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The authorities to trust; the system's where none are given.
    pub ca: Option<PathBuf>,
    /// The certificate to show, and its key.
    pub credential: Option<(PathBuf, PathBuf)>,
    /// The name that the server must prove; its host where none is given.
    pub server_name: Option<String>,
    /// Whether to believe every certificate.
    pub insecure: bool,
    /// Whether to print the server's certificate.
    pub show_certificate: bool,
    /// The only version to speak.
    pub version: Option<Version>,
    /// The application protocols to offer.
    pub alpn: Vec<String>,
}

/// What a connection needs to speak TLS.
pub struct Security {
    /// How it is spoken with the server.
    pub secure: Secure,
    /// Whether to print the server's certificate.
    pub show_certificate: bool,
    /// What the user must know before anything is sent.
    pub warnings: Vec<String>,
}

/// TLS cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file is not what it should be.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// No authority is known.
    #[error("{0} with --ca FILE")]
    NoAuthorities(#[from] NoAuthorities),
    /// What the server is to be called is not a name.
    #[error("`{0}` cannot be the name of a server: {1}; give one with --server-name")]
    Name(String, InvalidDnsNameError),
    /// The file for secrets cannot be used.
    #[error(transparent)]
    KeyLog(#[from] KeyLogError),
    /// rustls does not want it so.
    #[error("TLS cannot be prepared: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Reads the files that `options` names, for a connection to `at`.
///
/// # Errors
/// What is missing or wrong.
pub fn prepare(options: &Options, at: &HostPort) -> Result<Security, SecurityError> {
    let known = options.ca.as_deref().map(authorities).transpose()?;
    let roots = match &options.ca {
        _ if options.insecure => None,
        Some(_) => known.as_ref().map(|known| Arc::clone(&known.roots)),
        None => Some(Arc::new(system_authorities()?)),
    };
    let shown = options.credential.as_ref().map(|(cert, key)| credential(cert, key));
    let mut warnings = Vec::new();
    if options.insecure {
        warnings.push(INSECURE.to_owned());
    }
    let key_log = KeyLogFile::from_environment()?;
    warnings.extend(key_log.as_ref().map(|key_log| key_log.warning()));
    let client = Client {
        roots,
        authorities: known.map(|known| known.certificates).unwrap_or_default(),
        revoked: Vec::new(),
        credential: shown.transpose()?.map(|shown| shown.certified),
        versions: Version::only(options.version),
        alpn: options.alpn.clone(),
        key_log,
        resumes: false,
    };
    let host = options.server_name.as_ref().unwrap_or(&at.host);
    let name = server_name(host).map_err(|reason| SecurityError::Name(host.to_owned(), reason))?;
    let secure = Secure { config: client.config()?, name };
    Ok(Security { secure, show_certificate: options.show_certificate, warnings })
}

/// Reads the files that `options` names, for a daemon that connects onward.
///
/// # Errors
/// What is missing or wrong.
pub fn upstream(options: &Options) -> Result<UpstreamTls, SecurityError> {
    let ca = options
        .ca
        .as_ref()
        .map(|path| Ok::<_, SecurityError>((Origin::File(path.clone()), authorities(path)?)));
    let shown = options.credential.as_ref().map(|(cert, key)| credential(cert, key));
    Ok(UpstreamTls {
        ca: ca.transpose()?,
        revoked: Vec::new(),
        credential: shown.transpose()?,
        server_name: options.server_name.clone(),
        alpn: options.alpn.clone(),
        insecure: options.insecure,
    })
}
