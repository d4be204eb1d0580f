//! Keys and signatures of certificates that are too weak to mean anything, or too rare to be known
//! here: what libraries report as a signature that does not fit.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error, OtherError};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{self as oid, Oid};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// The sizes of RSA keys that are read, in bits: below, they can be broken.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What is wrong with a certificate's key or signature: one sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakness(String);

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Weakness {}

/// What is behind an error that only says that a signature could not be checked: a key or a
/// signature too weak, or too odd, to be read.
pub fn or_weakness<'a, 'b: 'a>(
    error: Error,
    chain: impl IntoIterator<Item = &'a CertificateDer<'b>>,
) -> Error {
    let is_of_signature = match &error {
        Error::InvalidCertificate(fault) => is_of_signature(fault),
        Error::PeerMisbehaved(_) => true,
        _ => false,
    };
    let weakness = chain.into_iter().find_map(|certificate| weakness(certificate));
    match weakness.filter(|_| is_of_signature) {
        Some(weakness) => {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(weakness))))
        }
        None => error,
    }
}

/// Whether a fault may come of a key or a signature that is not understood.
#[must_use]
pub fn is_of_signature(fault: &CertificateError) -> bool {
    let shown = format!("{fault:?}");
    matches!(fault, CertificateError::BadSignature)
        || shown.contains("SignatureAlgorithm")
        || shown.contains("BadEncoding")
}

/// What is weak or odd about a certificate, if anything is.
#[must_use]
pub fn weakness(certificate: &[u8]) -> Option<Weakness> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    let of_signature = || of_signature(&read.signature_algorithm.algorithm).map(Weakness);
    key_weakness(certificate).or_else(of_signature)
}

/// What is weak or odd about a certificate's key, which matters whoever signed it.
#[must_use]
pub fn key_weakness(certificate: &[u8]) -> Option<Weakness> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    of_key(&read).map(Weakness)
}

fn of_key(certificate: &X509Certificate<'_>) -> Option<String> {
    let info = certificate.public_key();
    let algorithm = &info.algorithm.algorithm;
    let odd = |what: &str| {
        Some(format!(
            "the certificate's key is {what}, which is not known here: have the certificate issued \
             for an ECDSA key (P-256 or P-384), Ed25519, or RSA of 2048 bits or more"
        ))
    };
    if *algorithm == oid::OID_SIG_ED25519 {
        return None;
    }
    match info.parsed() {
        Ok(PublicKey::RSA(_)) if *algorithm != oid::OID_PKCS1_RSAENCRYPTION => {
            odd("RSA for RSASSA-PSS alone")
        }
        Ok(PublicKey::RSA(key)) => {
            let bits = key.key_size();
            if bits < *RSA_BITS.start() {
                return Some(format!(
                    "the certificate's key is RSA of {bits} bits, which is too weak to prove \
                     anything: have it issued for a key of 2048 bits or more"
                ));
            }
            if RSA_BITS.contains(&bits) { None } else { odd(&format!("RSA of {bits} bits")) }
        }
        Ok(PublicKey::DSA(_)) => odd("DSA"),
        Ok(PublicKey::EC(_)) => {
            let curve = info.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok())?;
            let known = [oid::OID_EC_P256, oid::OID_NIST_EC_P384, oid::OID_NIST_EC_P521];
            if known.contains(&curve) { None } else { odd(&format!("on the curve {curve}")) }
        }
        Ok(_) | Err(_) => odd(&format!("of the kind {algorithm}")),
    }
}

fn of_signature(algorithm: &Oid<'_>) -> Option<String> {
    let weak = [
        // RFC 8017, A.2.4, and RFC 5758, 3.2.
        ("1.2.840.113549.1.1.2", "MD2"),
        ("1.2.840.113549.1.1.4", "MD5"),
        ("1.2.840.113549.1.1.5", "SHA-1"),
        ("1.2.840.10045.4.1", "SHA-1"),
    ];
    let algorithm = algorithm.to_id_string();
    let (_, digest) = weak.iter().find(|(weak, _)| *weak == algorithm)?;
    Some(format!(
        "the certificate's signature is made with {digest}, which can be forged: have it issued anew \
         with SHA-256"
    ))
}
