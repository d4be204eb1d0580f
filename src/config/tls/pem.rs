//! PEM files: certificates, keys and revocation lists, or what is wrong with them.
//!
//! Invariant: no fault quotes what stands in a file, which may be a key.

use std::fs::File;
use std::io::{self, Read};
use std::path::{self, Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::{Credential, Origin};
use crate::config::report::Fault;

/// The authority that signed the demonstration certificates. Everyone has its key.
pub const DEMONSTRATION_CA: &str = include_str!("../../../certs/ca.pem");

/// What `built-in:...` stands for.
const BUILT_IN: [(&str, &str); 3] = [
    ("built-in:ca", DEMONSTRATION_CA),
    ("built-in:server", include_str!("../../../certs/server.pem")),
    ("built-in:server-key", include_str!("../../../certs/server-key.pem")),
];

/// The keys that everyone has.
const DEMONSTRATION_KEYS: [&str; 2] =
    [include_str!("../../../certs/server-key.pem"), include_str!("../../../certs/client-key.pem")];

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The longest chain of certificates that is shown, in bytes: one that no client's limit refuses.
const MAX_CHAIN: usize = 16 * 1024;

/// The fewest bytes of a ticket key.
const MIN_TICKET_KEY: usize = 32;

/// A PEM file is not what it should be: what is wrong, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PemError(String);

/// The authorities in the file at `path`, for a command line.
///
/// # Errors
/// The file cannot be read, or holds no authorities.
pub fn authorities(path: &Path) -> Result<RootCertStore, PemError> {
    let read = || root_store(&text(&path.to_string_lossy(), Path::new(""))?);
    read().map_err(PemError::from)
}

/// No authority is known.
#[derive(Debug, thiserror::Error)]
#[error("this system has no list of authorities to trust{0}; give a file of them")]
pub struct NoAuthorities(String);

/// The authorities that this system trusts. Reads files: for start-up only.
///
/// # Errors
/// The system has none.
pub fn system_authorities() -> Result<RootCertStore, NoAuthorities> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(NoAuthorities(reason));
    }
    Ok(roots)
}

/// The certificate and key in these files, for a command line.
///
/// # Errors
/// A file cannot be read, or they do not belong together.
pub fn credential(cert: &Path, key: &Path) -> Result<Credential, PemError> {
    let read = || -> Result<_, Fault> {
        let cert = text(&cert.to_string_lossy(), Path::new(""))?;
        let key = text(&key.to_string_lossy(), Path::new(""))?;
        let (certified, expires) = certify(chain(&cert)?, private_key(&key)?)?;
        Ok(Credential { cert: cert.origin, key: key.origin, certified, expires })
    };
    read().map_err(PemError::from)
}

impl From<Fault> for PemError {
    fn from(fault: Fault) -> Self {
        Self(format!("{}; {}", fault.message, fault.help))
    }
}

/// Text and where it came from.
pub(super) struct Text {
    pub(super) origin: Origin,
    bytes: Zeroizing<Vec<u8>>,
}

/// Reads a file of `folder`, or what is built in.
pub(super) fn text(name: &str, folder: &Path) -> Result<Text, Fault> {
    if let Some((name, text)) = BUILT_IN.into_iter().find(|(built_in, _)| *built_in == name) {
        let bytes = Zeroizing::new(text.as_bytes().to_vec());
        return Ok(Text { origin: Origin::BuiltIn(name), bytes });
    }
    let (path, bytes) = file(name, folder)?;
    Ok(Text { origin: Origin::File(path), bytes })
}

fn file(name: &str, folder: &Path) -> Result<(PathBuf, Zeroizing<Vec<u8>>), Fault> {
    let path = path::absolute(folder.join(name)).unwrap_or_else(|_| PathBuf::from(name));
    let read = || {
        let mut file = File::open(&path)?.take(MAX_FILE + 1);
        let mut bytes =
            Zeroizing::new(Vec::with_capacity(file.get_ref().metadata()?.len() as usize));
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: io::Error| {
        let help = "check the path and who may read it";
        Fault::new(format!("{} cannot be read: {error}", path.display()), "this file", help)
    })?;
    let refused = |what: &str| {
        Fault::new(format!("{} {what}", path.display()), "this file", "give another file")
    };
    match bytes.len() as u64 {
        0 => Err(refused("is empty")),
        len if len > MAX_FILE => Err(refused("is longer than 1 MiB")),
        _ => Ok((path, bytes)),
    }
}

/// The certificates of a chain, the owner's first.
pub(super) fn chain(text: &Text) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let chain = certificates(text)?;
    if chain.iter().map(|it| it.len()).sum::<usize>() > MAX_CHAIN {
        let message = format!("{} holds more than 16 KiB of certificates", text.origin);
        let help = "give the server's own certificate and those between it and the root only";
        return Err(Fault::new(message, "too long a chain", help));
    }
    Ok(chain)
}

fn certificates(text: &Text) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text.bytes).collect();
    let help = "a certificate stands between -----BEGIN CERTIFICATE----- and its END line";
    let refused =
        |what: String| Fault::new(format!("{} {what}", text.origin), "no certificate", help);
    let found = found.map_err(|error| refused(format!("is not sound PEM: {error}")))?;
    if found.is_empty() {
        return Err(refused("holds no certificate".to_owned()));
    }
    Ok(found)
}

/// The first private key: PKCS#8, SEC1 or PKCS#1.
pub(super) fn private_key(text: &Text) -> Result<PrivateKeyDer<'static>, Fault> {
    let says = |words: &str| text.bytes.windows(words.len()).any(|it| it == words.as_bytes());
    if says("BEGIN ENCRYPTED PRIVATE KEY") || says("Proc-Type: 4,ENCRYPTED") {
        let message =
            format!("the key in {} is encrypted, and nobody is there to ask", text.origin);
        let help = "decrypt it with `openssl pkey -in KEY -out PLAIN`, and guard the file instead";
        return Err(Fault::new(message, "an encrypted key", help));
    }
    PrivateKeyDer::from_pem_slice(&text.bytes).map_err(|error| {
        let message = format!("{} holds no private key: {error}", text.origin);
        let help = "a key stands between -----BEGIN PRIVATE KEY----- (or EC, or RSA) and its END \
                    line";
        Fault::new(message, "no private key", help)
    })
}

/// Whether the key is one that everyone has.
pub(super) fn is_public(key: &PrivateKeyDer<'_>) -> bool {
    let known = DEMONSTRATION_KEYS
        .into_iter()
        .filter_map(|text| PrivateKeyDer::from_pem_slice(text.as_bytes()).ok());
    known.into_iter().any(|it| it.secret_der() == key.secret_der())
}

/// Joins a chain and its key.
pub(super) fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(Arc<CertifiedKey>, Timestamp), Fault> {
    let expires = expiry(&chain[0])?;
    match CertifiedKey::from_der(chain, key, &default_provider()) {
        Ok(certified) => Ok((Arc::new(certified), expires)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let help = "give the key that the certificate was made for; its own certificate comes \
                        first in a chain";
            Err(Fault::new("the key does not belong to the certificate", "another key", help))
        }
        Err(error) => {
            let message = format!("the key cannot be used: {error}");
            let help = "use an ECDSA key on P-256 or P-384, an Ed25519 key, or RSA of 2048 bits or \
                        more";
            Err(Fault::new(message, "this key", help))
        }
    }
}

fn expiry(certificate: &CertificateDer<'_>) -> Result<Timestamp, Fault> {
    let parsed = X509Certificate::from_der(certificate).map_err(|error| {
        let message = format!("the certificate cannot be read: {error}");
        Fault::new(message, "this certificate", "make it anew")
    })?;
    let seconds = parsed.1.validity().not_after.timestamp();
    Ok(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// The authorities in a file.
pub(super) fn root_store(text: &Text) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text)? {
        roots.add(certificate).map_err(|error| {
            let message =
                format!("{} holds a certificate that cannot be used: {error}", text.origin);
            Fault::new(message, "this authority", "give the certificates of authorities only")
        })?;
    }
    Ok(roots)
}

/// The revocation lists in a file of `folder`.
pub(super) fn revocation_lists(
    name: &str,
    folder: &Path,
) -> Result<(PathBuf, Vec<CertificateRevocationListDer<'static>>), Fault> {
    let (path, bytes) = file(name, folder)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok((path, lists)),
        _ => {
            let message = format!("{} holds no revocation list", path.display());
            let help = "a list stands between -----BEGIN X509 CRL----- and its END line";
            Err(Fault::new(message, "no revocation list", help))
        }
    }
}

/// The secret in a ticket key file of `folder`.
pub(super) fn ticket_key(
    name: &str,
    folder: &Path,
) -> Result<(PathBuf, Zeroizing<Vec<u8>>), Fault> {
    let (path, bytes) = file(name, folder)?;
    if bytes.len() < MIN_TICKET_KEY {
        let message = format!("{} is too short for a ticket key", path.display());
        let help = format!("write {MIN_TICKET_KEY} bytes or more; `turnstile secret` makes them");
        return Err(Fault::new(message, "too short", help));
    }
    Ok((path, bytes))
}
