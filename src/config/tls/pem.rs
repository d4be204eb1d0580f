//! PEM files: certificates, keys and revocation lists, or what is wrong with them.
//!
//! Invariant: no fault quotes what stands in a file, which may be a key.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::{self, Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer,
    PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};
use webpki::BorrowedCertRevocationList;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::{Authorities, Credential, Origin};
use crate::config::report::Fault;
use crate::proto::pem::{self, Block};

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
pub fn authorities(path: &Path) -> Result<Authorities, PemError> {
    let read = || trusted(&text(&path.to_string_lossy(), Path::new(""))?);
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
    let found = certificates(text, &[Kind::Key, Kind::Parameters])?;
    let chain: Vec<_> = found.into_iter().map(|(_, certificate)| certificate).collect();
    if chain.iter().map(|it| it.len()).sum::<usize>() > MAX_CHAIN {
        let message = format!("{} holds more than 16 KiB of certificates", text.origin);
        let help = "give the server's own certificate and those between it and the root only";
        return Err(Fault::new(message, "too long a chain", help));
    }
    Ok(chain)
}

/// A kind of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Certificate,
    Key,
    Parameters,
    List,
    Other,
}

impl Kind {
    fn of(label: &str) -> Self {
        match label {
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => Self::Certificate,
            "X509 CRL" => Self::List,
            label if label.ends_with("PRIVATE KEY") => Self::Key,
            label if label.ends_with("PARAMETERS") => Self::Parameters,
            _ => Self::Other,
        }
    }
}

/// The blocks of kind `wanted`; those of the kinds `beside` may stand among them, and no others.
fn blocks(text: &Text, wanted: Kind, beside: &[Kind], right: &str) -> Result<Vec<Block>, Fault> {
    let found = pem::read(&text.bytes).map_err(|error| {
        Fault::new(format!("{}: {error}", text.origin), "this file", error.help())
    })?;
    let mut blocks = Vec::new();
    for block in found {
        let kind = Kind::of(&block.label);
        if kind == wanted {
            blocks.push(block);
        } else if !beside.contains(&kind) {
            let what = format!("there is no use for a {}", block.label);
            return Err(at_line(text, &block, what, right));
        }
    }
    Ok(blocks)
}

fn at_line(text: &Text, block: &Block, what: impl Display, help: impl Into<String>) -> Fault {
    Fault::new(format!("{}, line {}: {what}", text.origin, block.line), "this file", help)
}

/// The certificates of a file, in which `beside` may stand too.
fn certificates(
    text: &Text,
    beside: &[Kind],
) -> Result<Vec<(Block, CertificateDer<'static>)>, Fault> {
    const RIGHT: &str = "a certificate stands between -----BEGIN CERTIFICATE----- and its END line, and nothing \
         else is looked for here";
    let found = blocks(text, Kind::Certificate, beside, RIGHT)?;
    if found.is_empty() {
        let message = format!("{} holds no certificate", text.origin);
        return Err(Fault::new(message, "no certificate", RIGHT));
    }
    let read = |block: Block| {
        let (rest, _) = X509Certificate::from_der(&block.bytes).map_err(|error| {
            let what = format!("the certificate cannot be read: {error}");
            at_line(text, &block, what, "make it anew")
        })?;
        let own = &block.bytes[..block.bytes.len() - rest.len()];
        if !rest.is_empty() && (block.label != "TRUSTED CERTIFICATE" || restricts(rest)) {
            let what = "behind the certificate stands something that is not kept here";
            let help = "write it anew: `openssl x509 -in FILE -out FILE.pem`";
            return Err(at_line(text, &block, what, help));
        }
        let certificate = CertificateDer::from(own.to_vec());
        Ok((block, certificate))
    };
    found.into_iter().map(read).collect()
}

/// Whether what OpenSSL keeps behind a trusted certificate says for what it may be used, or may
/// not: `SEQUENCE { trust SEQUENCE, reject [0], alias UTF8String, keyid OCTET STRING, .. }`.
fn restricts(auxiliary: &[u8]) -> bool {
    let Ok((rest, it)) = x509_parser::asn1_rs::Any::from_der(auxiliary) else { return true };
    !rest.is_empty() || it.data.first().is_some_and(|tag| [0x30, 0xa0].contains(tag))
}

/// The private key: PKCS#8, SEC1 or PKCS#1. Its certificate may stand in the same file.
pub(super) fn private_key(text: &Text) -> Result<PrivateKeyDer<'static>, Fault> {
    const RIGHT: &str =
        "a key stands between -----BEGIN PRIVATE KEY----- (or EC, or RSA) and its END line";
    let found = blocks(text, Kind::Key, &[Kind::Certificate, Kind::Parameters], RIGHT)?;
    let [block] = &found[..] else {
        return Err(match found.get(1) {
            None => {
                let message = format!("{} holds no private key", text.origin);
                Fault::new(message, "no private key", RIGHT)
            }
            Some(second) => {
                at_line(text, second, "there is a second private key", "leave one in the file")
            }
        });
    };
    let der = block.bytes.to_vec();
    match block.label.as_str() {
        label if block.is_encrypted || label.starts_with("ENCRYPTED ") => {
            let message =
                format!("the key in {} is encrypted, and nobody is there to ask", text.origin);
            let help =
                "decrypt it with `openssl pkey -in KEY -out PLAIN`, and guard the file instead";
            Err(Fault::new(message, "an encrypted key", help))
        }
        "PRIVATE KEY" => Ok(PrivatePkcs8KeyDer::from(der).into()),
        "EC PRIVATE KEY" => Ok(PrivateSec1KeyDer::from(der).into()),
        "RSA PRIVATE KEY" => Ok(PrivatePkcs1KeyDer::from(der).into()),
        label => {
            let what = format!("a key of the kind {label} cannot be used");
            let help = "write it as PKCS#8: `openssl pkcs8 -topk8 -nodes -in KEY -out PLAIN`, or \
                        `ssh-keygen -p -m PKCS8` for a key of OpenSSH";
            Err(at_line(text, block, what, help))
        }
    }
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
        Err(Error::InvalidCertificate(error)) => {
            let message = format!("the certificate cannot be used: {}", certificate_fault(&error));
            let help = "have it issued anew, as version 3, and without critical extensions but for \
                        the usual ones";
            Err(Fault::new(message, "its certificate", help))
        }
        Err(error) => {
            let message = format!("the key cannot be used: {error}");
            let help = "use an ECDSA key on P-256 or P-384, an Ed25519 key, or RSA of 2048 bits or \
                        more";
            Err(Fault::new(message, "this key", help))
        }
    }
}

/// Why rustls cannot show a certificate; of webpki's reasons two are seen at times.
fn certificate_fault(error: &CertificateError) -> String {
    let CertificateError::Other(other) = error else { return error.to_string() };
    match other.0.downcast_ref() {
        Some(webpki::Error::UnsupportedCertVersion) => "it is of X.509 version 1 or 2".to_owned(),
        Some(webpki::Error::UnsupportedCriticalExtension) => {
            "it has a critical extension that is unknown here".to_owned()
        }
        _ => error.to_string(),
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

/// The authorities in a file. Roots are those that no other in the file has signed.
pub(super) fn trusted(text: &Text) -> Result<Authorities, Fault> {
    let found = certificates(text, &[])?;
    let names: Vec<_> = found.iter().filter_map(|(_, it)| subject_and_issuer(it)).collect();
    let is_between = |certificate: &CertificateDer<'_>| {
        subject_and_issuer(certificate).is_some_and(|(own, issuer)| {
            own != issuer && names.iter().any(|(subject, _)| *subject == issuer)
        })
    };
    let has_root = !found.iter().all(|(_, it)| is_between(it));
    let mut roots = RootCertStore::empty();
    for (block, certificate) in &found {
        if has_root && is_between(certificate) {
            continue;
        }
        roots.add(certificate.clone()).map_err(|error| {
            let what = format!("the certificate cannot be used: {error}");
            at_line(text, block, what, "give the certificates of authorities only")
        })?;
    }
    let certificates = found.into_iter().map(|(_, certificate)| certificate).collect();
    Ok(Authorities { roots: Arc::new(roots), certificates })
}

fn subject_and_issuer(certificate: &CertificateDer<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some((parsed.subject().as_raw().to_vec(), parsed.issuer().as_raw().to_vec()))
}

/// The revocation lists in a file of `folder`.
pub(super) fn revocation_lists(
    name: &str,
    folder: &Path,
) -> Result<(PathBuf, Vec<CertificateRevocationListDer<'static>>), Fault> {
    const RIGHT: &str = "a list stands between -----BEGIN X509 CRL----- and its END line, and nothing else is \
         looked for here";
    let (path, bytes) = file(name, folder)?;
    let text = Text { origin: Origin::File(path.clone()), bytes };
    let found = blocks(&text, Kind::List, &[], RIGHT)?;
    if found.is_empty() {
        let message = format!("{} holds no revocation list", path.display());
        return Err(Fault::new(message, "no revocation list", RIGHT));
    }
    let read = |block: &Block| match BorrowedCertRevocationList::from_der(&block.bytes) {
        Ok(_) => Ok(CertificateRevocationListDer::from(block.bytes.to_vec())),
        Err(error) => {
            let what = format!("the revocation list cannot be used: {error}");
            let help = "have the authority issue a whole list of version 2, with a next update";
            Err(at_line(&text, block, what, help))
        }
    };
    let lists = found.iter().map(read).collect::<Result<_, _>>()?;
    Ok((path, lists))
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
