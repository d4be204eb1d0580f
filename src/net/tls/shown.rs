//! Whose certificate was refused: rustls tells why, and forgets whose it was.
//!
//! A verifier runs inside of the call that takes a peer's bytes in, on the one thread that there is. So
//! what it saw last, when that call fails, is what the peer showed; [`take`] hands it over once.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::identity;

thread_local! {
    static REFUSED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Whom the certificate names that was refused since the last call, in a form for logs. That it is the
/// peer's own was not proven.
pub fn take() -> Option<Box<str>> {
    REFUSED.take()
}

/// Wraps another verifier, and remembers whom it refuses.
#[derive(Debug)]
pub struct Remembering(pub Arc<dyn ClientCertVerifier>);

fn remember<T>(outcome: Result<T, Error>, own: &CertificateDer<'_>) -> Result<T, Error> {
    if outcome.is_err() {
        REFUSED.set(Some(identity::of(own).to_string().into()));
    }
    outcome
}

impl ClientCertVerifier for Remembering {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        remember(self.0.verify_client_cert(own, intermediates, now), own)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        remember(self.0.verify_tls12_signature(message, own, signed), own)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        remember(self.0.verify_tls13_signature(message, own, signed), own)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
