//! `[listener.tls]`: what a listener's TLS is to be, with everything that it needs from files.
//!
//! The files are read when the configuration is, so that a daemon which has started needs none of
//! them. No socket is opened here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{DistinguishedName, RootCertStore, SupportedProtocolVersion};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::proto::identity::Rule;

pub(super) mod doubts;
mod pem;
mod print;
mod read;
mod upstream;

pub use pem::{
    DEMONSTRATION_CA, NoAuthorities, PemError, authorities, credential, system_authorities,
};
pub(super) use print::write;
pub(super) use read::{Place, read};
pub use upstream::UpstreamTls;
pub(super) use upstream::{KEYS as UPSTREAM_KEYS, is_server_name, read_upstream, write_upstream};

/// The smallest buffer that TLS can work with, in bytes: the largest record and what protects it.
pub const MIN_TLS_BUFFER: usize = 20 * 1024;

/// What a listener's TLS is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// What it shows: the first to everyone, the others to those who ask for a name that they
    /// have. At least one.
    pub credentials: Vec<Credential>,
    /// What its clients must show, where they are asked.
    pub clients: Option<Clients>,
    /// What it speaks; at least one version.
    pub versions: Vec<Version>,
    /// The application protocols it speaks, the best first; none does without ALPN.
    pub alpn: Vec<String>,
    /// What session tickets are encrypted with; `None` makes keys that end with the process.
    pub ticket_key: Option<TicketKey>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl Version {
    /// Every version that is spoken.
    pub const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];

    /// As it is written in a configuration and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

const ONLY_TLS12: &[&SupportedProtocolVersion] = &[&TLS12];
const ONLY_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];

impl Version {
    /// As rustls knows it.
    #[must_use]
    pub fn supported(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &TLS12,
            Self::Tls13 => &TLS13,
        }
    }

    /// This version alone, or every one that is spoken.
    #[must_use]
    pub fn only(version: Option<Self>) -> &'static [&'static SupportedProtocolVersion] {
        match version {
            None => rustls::ALL_VERSIONS,
            Some(Self::Tls12) => ONLY_TLS12,
            Some(Self::Tls13) => ONLY_TLS13,
        }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Where the certificates came from.
    pub cert: Origin,
    /// Where the key came from.
    pub key: Origin,
    /// Both, checked to belong together.
    pub certified: Arc<CertifiedKey>,
    /// When the certificate expires.
    pub expires: Timestamp,
}

/// The files and what is shown; the key is the certificate's, so it need not be looked at.
impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        (&self.cert, &self.key) == (&other.cert, &other.key)
            && self.certified.cert == other.certified.cert
    }
}

/// Where PEM text came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file at this absolute path.
    File(PathBuf),
    /// The demonstration certificates and keys of the program itself.
    BuiltIn(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::BuiltIn(name) => f.write_str(name),
        }
    }
}

/// Authorities and their certificates.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Those whose signature is the end of a chain.
    pub roots: Arc<RootCertStore>,
    /// The certificates of all of them, the others' too.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// The names of all of them, in DER, for those who must know whose certificate to show.
    #[must_use]
    pub fn names(&self) -> Vec<DistinguishedName> {
        let name = |der: &CertificateDer<'_>| {
            let (_, parsed) = X509Certificate::from_der(der).ok()?;
            Some(DistinguishedName::from(parsed.subject().as_raw().to_vec()))
        };
        self.certificates.iter().filter_map(name).collect()
    }
}

/// What clients must show.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Whether those who show nothing are let in.
    pub auth: ClientAuth,
    /// Where the authorities came from.
    pub ca: Origin,
    /// The authorities whose signature counts.
    pub authorities: Authorities,
    /// Revocation lists: certificates on them count for nothing.
    pub revoked: Vec<RevocationList>,
    /// Who is let in; everyone with a sound certificate where there are no rules.
    pub allow: Vec<Rule>,
}

impl PartialEq for Clients {
    fn eq(&self, other: &Self) -> bool {
        let own = (self.auth, &self.ca, &self.authorities.certificates);
        own == (other.auth, &other.ca, &other.authorities.certificates)
            && (&self.revoked, &self.allow) == (&other.revoked, &other.allow)
    }
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They may show one.
    Optional,
    /// They must.
    Required,
}

/// A file of revocation lists.
#[derive(Clone, Debug, PartialEq)]
pub struct RevocationList {
    /// Its absolute path.
    pub path: PathBuf,
    /// What is in it.
    pub lists: Vec<CertificateRevocationListDer<'static>>,
}

/// What session tickets are encrypted with.
#[derive(Clone, PartialEq)]
pub struct TicketKey {
    /// The file's absolute path.
    pub path: PathBuf,
    /// What is in it.
    pub secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("path", &self.path).finish_non_exhaustive()
    }
}
