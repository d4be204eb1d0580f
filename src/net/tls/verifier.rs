//! Who asks a [`Chain`] during a handshake: rustls' verifiers, with its stricter rules put before
//! theirs. Where it refuses, rustls is asked for the reason, which it knows how to name.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::chain::{Chain, ChainError};
use super::weakness::or_weakness;

/// Verifies clients.
#[derive(Debug)]
pub struct Clients {
    chain: Chain,
    plain: Arc<dyn ClientCertVerifier>,
}

impl Clients {
    /// By `chain`; `plain` is rustls' own verifier with the same authorities and lists.
    #[must_use]
    pub fn new(chain: Chain, plain: Arc<dyn ClientCertVerifier>) -> Self {
        Self { chain, plain }
    }
}

/// Verifies servers.
#[derive(Debug)]
pub struct Servers {
    chain: Chain,
    plain: Arc<WebPkiServerVerifier>,
}

impl Servers {
    /// By `chain`; `plain` is rustls' own verifier with the same authorities.
    #[must_use]
    pub fn new(chain: Chain, plain: Arc<WebPkiServerVerifier>) -> Self {
        Self { chain, plain }
    }
}

/// The error of a chain in rustls' words; `plain` is what rustls itself says of it.
fn reason<T>(error: ChainError, plain: impl FnOnce() -> Result<T, Error>) -> Error {
    plain().err().unwrap_or_else(|| error.into())
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.plain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.plain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.plain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let others = self.chain.others(intermediates);
        match self.chain.verify(own, &others, now) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(error) => {
                let plain = || self.plain.verify_client_cert(own, &others, now);
                Err(or_weakness(reason(error, plain), std::iter::once(own).chain(intermediates)))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = self.plain.verify_tls12_signature(message, own, signed);
        verdict.map_err(|error| or_weakness(error, [own]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = self.plain.verify_tls13_signature(message, own, signed);
        verdict.map_err(|error| or_weakness(error, [own]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.plain.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let others = self.chain.others(intermediates);
        match self.chain.verify(own, &others, now) {
            Ok(()) => {
                verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => {
                let plain =
                    || self.plain.verify_server_cert(own, &others, name, ocsp_response, now);
                Err(or_weakness(reason(error, plain), std::iter::once(own).chain(intermediates)))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = self.plain.verify_tls12_signature(message, own, signed);
        verdict.map_err(|error| or_weakness(error, [own]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = self.plain.verify_tls13_signature(message, own, signed);
        verdict.map_err(|error| or_weakness(error, [own]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.plain.supported_verify_schemes()
    }
}
