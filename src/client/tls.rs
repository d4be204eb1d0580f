//! TLS on the client's side: whom to trust, whom to expect, what to show.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::config::{HostPort, PemError, Version, authorities, credential};
use crate::net::tls::key_log::{KeyLogError, KeyLogFile};
use crate::net::tls::trust::Credulous;

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
    /// What rustls works by.
    pub config: Arc<ClientConfig>,
    /// Whom the server must prove to be.
    pub name: ServerName<'static>,
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
    #[error("this system has no list of authorities to trust{0}; give one with --ca FILE")]
    NoAuthorities(String),
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
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(options.version))?;
    let builder = if options.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous(Arc::clone(&provider))))
    } else {
        builder.with_root_certificates(match &options.ca {
            Some(path) => authorities(path)?,
            None => system_authorities()?,
        })
    };
    let mut config = match &options.credential {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let shown = SingleCertAndKey::from(credential(cert, key)?);
            builder.with_client_cert_resolver(Arc::new(shown))
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = options.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    let mut warnings = Vec::new();
    if options.insecure {
        let warning = "--insecure: ANYONE may be at the other side: the certificate is not checked";
        warnings.push(warning.to_owned());
    }
    if let Some(key_log) = KeyLogFile::from_environment()? {
        warnings.push(key_log.warning());
        config.key_log = key_log;
    }
    let name = server_name(options.server_name.as_ref().unwrap_or(&at.host))?;
    let show_certificate = options.show_certificate;
    Ok(Security { config: Arc::new(config), name, show_certificate, warnings })
}

const ONLY_TLS12: &[&SupportedProtocolVersion] = &[&TLS12];
const ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

fn versions(only: Option<Version>) -> &'static [&'static SupportedProtocolVersion] {
    match only {
        None => rustls::ALL_VERSIONS,
        Some(Version::Tls12) => ONLY_TLS12,
        Some(Version::Tls13) => ONLY_TLS13,
    }
}

/// A host as certificates name it: without the zone of a link-local address.
fn server_name(host: &str) -> Result<ServerName<'static>, SecurityError> {
    let bare = host.split_once('%').map_or(host, |(address, _)| address);
    ServerName::try_from(bare.to_owned())
        .map_err(|reason| SecurityError::Name(host.to_owned(), reason))
}

fn system_authorities() -> Result<RootCertStore, SecurityError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(SecurityError::NoAuthorities(reason));
    }
    Ok(roots)
}
