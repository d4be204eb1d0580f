//! Whom a certificate names, and a verifier that lets in only those who are wanted.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::proto::identity::{Identity, Rule};

/// Reads who owns a certificate. One that cannot be read names nobody.
#[must_use]
pub fn of(certificate: &CertificateDer<'_>) -> Identity {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Identity::default();
    };
    let mut identity = Identity {
        subject: subject(parsed.subject()),
        key: Sha256::digest(parsed.public_key().raw).into(),
        ..Identity::default()
    };
    let names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    identity.common_names = names.map(str::to_owned).collect();
    if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => identity.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
    }
    identity
}

/// A subject in one line, in the certificate's order. No value can be taken for more than one (RFC 4514,
/// section 2.4).
fn subject(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for relative in name.iter() {
        for (at, attribute) in relative.iter().enumerate() {
            match at {
                0 if text.is_empty() => {}
                0 => text.push(','),
                _ => text.push('+'),
            }
            let kind = attribute.attr_type();
            match oid2abbrev(kind, oid_registry()) {
                Ok(abbreviation) => text.push_str(abbreviation),
                Err(_) => text.push_str(&kind.to_id_string()),
            }
            text.push('=');
            match attribute.as_str() {
                Ok(value) => push_escaped(&mut text, value),
                // One of the old alphabets. As it is, where that is text.
                Err(_) => push_escaped(&mut text, &String::from_utf8_lossy(attribute.as_slice())),
            }
        }
    }
    text
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        if matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=') {
            text.push('\\');
        }
        text.push(character);
    }
}

/// Wraps another verifier: whom that finds sound, one of the rules must also let in.
#[derive(Debug)]
pub struct Allowed {
    sound: Arc<dyn ClientCertVerifier>,
    rules: Vec<Rule>,
}

impl Allowed {
    /// Lets in those of `sound` whom one of `rules` names.
    #[must_use]
    pub fn new(sound: Arc<dyn ClientCertVerifier>, rules: Vec<Rule>) -> Self {
        Self { sound, rules }
    }
}

impl ClientCertVerifier for Allowed {
    fn offer_client_auth(&self) -> bool {
        self.sound.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.sound.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.sound.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.sound.verify_client_cert(own, intermediates, now)?;
        let peer = of(own);
        if self.rules.iter().any(|rule| rule.admits(&peer)) {
            return Ok(verified);
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.sound.verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.sound.verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.sound.supported_verify_schemes()
    }
}
