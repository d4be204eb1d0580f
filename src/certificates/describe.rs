//! What a certificate says, for people and for programs.
//!
//! Reading judges nothing: it works for certificates that nobody should accept.
//!
//! Invariant: no text in a [`Description`] holds a control character, whatever the certificate
//! holds, so it can be printed to a terminal as it is.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

/// One certificate, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// 1, 2 or 3; only version 3 can hold alternative names.
    pub version: u32,
    /// Whom it is for.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The serial number: bytes in hexadecimal, separated by colons.
    pub serial: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// What key it is for.
    pub key: Key,
    /// The names that it certifies, as `dns:...`, `ip:...`, `email:...`, `uri:...`, `other:...`.
    pub alternative_names: Vec<String>,
    /// Whether it may sign others (basic constraints, CA).
    pub is_authority: bool,
    /// What it may be used for (extended key usage); empty: anything.
    pub purposes: Vec<String>,
    /// SHA-256 of the whole certificate: bytes in hexadecimal, separated by colons.
    pub sha256: String,
    /// SHA-256 of the public key (its SubjectPublicKeyInfo), in hexadecimal.
    pub key_sha256: String,
}

/// The public key of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// What it is: `RSA`, `ECDSA`, `Ed25519`, or the identifier of something else.
    pub kind: String,
    /// The curve of an ECDSA key, such as `P-256`, where it has a name.
    pub curve: Option<&'static str>,
    /// Its size in bits, where that is known.
    pub bits: Option<usize>,
}

/// These bytes are not a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not an X.509 certificate")]
pub struct UnreadableCertificate;

impl Description {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// It is not one.
    pub fn read(der: &[u8]) -> Result<Self, UnreadableCertificate> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| UnreadableCertificate)?;
        let public_key = certificate.public_key();
        Ok(Self {
            version: certificate.version().0.saturating_add(1),
            subject: printable(&certificate.subject().to_string()),
            issuer: printable(&certificate.issuer().to_string()),
            serial: with_colons(certificate.raw_serial()),
            not_before: timestamp(certificate.validity().not_before)?,
            not_after: timestamp(certificate.validity().not_after)?,
            key: Key::read(public_key),
            alternative_names: alternative_names(&certificate),
            is_authority: certificate.is_ca(),
            purposes: purposes(&certificate),
            sha256: with_colons(&Sha256::digest(der)),
            key_sha256: hexadecimal(&Sha256::digest(public_key.raw)),
        })
    }

    /// Whole days until it expires; negative once it has.
    #[must_use]
    pub fn days_left(&self, now: Timestamp) -> i64 {
        self.not_after.duration_since(now).as_secs().div_euclid(24 * 3600)
    }

    /// Whether it is for the public key with this SubjectPublicKeyInfo.
    #[must_use]
    pub fn has_key(&self, public_key_info: &[u8]) -> bool {
        self.key_sha256 == hexadecimal(&Sha256::digest(public_key_info))
    }
}

impl Key {
    fn read(info: &SubjectPublicKeyInfo<'_>) -> Self {
        let algorithm = &info.algorithm;
        let parsed = info.parsed().ok();
        let bits = parsed.as_ref().map(PublicKey::key_size).filter(|&bits| bits > 0);
        if algorithm.algorithm == oid_registry::OID_SIG_ED25519 {
            return Self { kind: "Ed25519".to_owned(), curve: None, bits: Some(256) };
        }
        let kind = match parsed {
            Some(PublicKey::RSA(_)) => "RSA".to_owned(),
            Some(PublicKey::DSA(_)) => "DSA".to_owned(),
            Some(PublicKey::EC(_)) => {
                let curve = algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
                return Self::elliptic(curve.as_ref(), bits);
            }
            _ => algorithm.algorithm.to_id_string(),
        };
        Self { kind, curve: None, bits }
    }

    fn elliptic(curve: Option<&oid_registry::Oid<'_>>, bits: Option<usize>) -> Self {
        let known = [
            (oid_registry::OID_EC_P256, "P-256", 256),
            (oid_registry::OID_NIST_EC_P384, "P-384", 384),
            (oid_registry::OID_NIST_EC_P521, "P-521", 521),
        ];
        let named = known.into_iter().find(|(oid, ..)| Some(oid) == curve);
        let (curve, bits) = named.map_or((None, bits), |(_, name, bits)| (Some(name), Some(bits)));
        Self { kind: "ECDSA".to_owned(), curve, bits }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.curve, self.bits) {
            (Some(curve), _) => write!(f, "{} {curve}", self.kind),
            (None, Some(bits)) => write!(f, "{} of {bits} bits", self.kind),
            (None, None) => f.write_str(&self.kind),
        }
    }
}

/// A distinguished name in DER, as text; in hexadecimal where it is not one.
#[must_use]
pub fn distinguished_name(der: &[u8]) -> String {
    match X509Name::from_der(der) {
        Ok((_, name)) => printable(&name.to_string()),
        Err(_) => hexadecimal(der),
    }
}

/// The text with every control character escaped: what a stranger's certificate or server says must
/// not move the cursor of whoever reads it.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Bytes as `0A:1B:...`, the way openssl prints fingerprints.
#[must_use]
pub fn with_colons(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

/// Bytes as `0a1b...`.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn timestamp(time: ASN1Time) -> Result<Timestamp, UnreadableCertificate> {
    Timestamp::from_second(time.timestamp()).map_err(|_| UnreadableCertificate)
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    // A certificate with two such extensions breaks RFC 5280; all that it claims is shown.
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() {
            names.extend(found.general_names.iter().map(alternative_name));
        }
    }
    names
}

fn alternative_name(name: &GeneralName<'_>) -> String {
    printable(&match name {
        GeneralName::DNSName(name) => format!("dns:{name}"),
        GeneralName::IPAddress(bytes) => ip_name(bytes),
        GeneralName::RFC822Name(name) => format!("email:{name}"),
        GeneralName::URI(name) => format!("uri:{name}"),
        GeneralName::DirectoryName(name) => format!("directory:{name}"),
        other => format!("other:{other}"),
    })
}

fn ip_name(bytes: &[u8]) -> String {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        format!("ip:{}", Ipv4Addr::from(octets))
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        format!("ip:{}", Ipv6Addr::from(octets))
    } else {
        format!("other:{}", hexadecimal(bytes))
    }
}

fn purposes(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.extended_key_usage() else { return Vec::new() };
    let usage = extension.value;
    let named = [
        (usage.any, "anything"),
        (usage.server_auth, "server"),
        (usage.client_auth, "client"),
        (usage.code_signing, "code signing"),
        (usage.email_protection, "e-mail"),
        (usage.time_stamping, "time stamps"),
        (usage.ocsp_signing, "OCSP answers"),
    ];
    let named = named.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| (*name).to_owned());
    named.chain(usage.other.iter().map(oid_registry::Oid::to_id_string)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_move_the_cursor() {
        assert_eq!(printable("CN=a\u{1b}[2Jb\r\n\u{9b}c é"), r"CN=a\u{1b}[2Jb\r\n\u{9b}c é");
    }

    #[test]
    fn what_is_not_a_certificate_is_refused() {
        for bytes in [&b""[..], b"0", b"-----BEGIN CERTIFICATE-----", &[0x30, 0x84, 255, 255]] {
            assert_eq!(Description::read(bytes), Err(UnreadableCertificate));
        }
    }

    #[test]
    fn addresses_of_a_wrong_length_are_shown_as_bytes() {
        assert_eq!(ip_name(&[127, 0, 0, 1]), "ip:127.0.0.1");
        assert_eq!(ip_name(&[127, 0, 0, 1, 9]), "other:7f00000109");
    }
}
