//! Who watches a handshake from inside: it is asked to judge the server's certificate and to
//! choose the client's, notes down both, and lets the handshake go on whatever the judgement.
//!
//! Only for handshakes that lead to nothing, such as those of [`super`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ResolvesClientCert, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::net::tls::chain::Chain;
use crate::net::tls::key_log::KeyLogFile;
use crate::net::tls::purpose::Role;
use crate::net::tls::weakness::key_weakness;
use crate::proto::starttls::Protocol;

/// What a client brings to a handshake.
pub struct Setup {
    /// The authorities that it trusts.
    pub roots: RootCertStore,
    /// Their certificates, and those of others between, where they are known.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What it shows a server that asks for a certificate.
    pub credential: Option<Arc<CertifiedKey>>,
    /// The application protocols that it offers; none: it does not speak of them.
    pub alpn: Vec<String>,
    /// The versions that it offers.
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// The protocol in which the server is asked to begin, where it does not at once.
    pub starttls: Option<Protocol>,
    /// Where the secrets of the handshakes go, for whoever looks with Wireshark.
    pub key_log: Option<Arc<KeyLogFile>>,
}

/// The server's certificates, and what is thought of them.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The certificates, the server's own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The stapled OCSP answer; empty where there is none.
    pub ocsp: Vec<u8>,
    /// What speaks against the chain; nothing: it is in force, and leads to a trusted authority.
    pub chain_faults: Vec<CertificateError>,
    /// Whether the server's certificate is for the name that was asked for.
    pub name_verdict: Result<(), CertificateError>,
}

/// What a server asks for as a client certificate.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// The names of the authorities that it accepts, in DER; empty: it does not say.
    pub authorities: Vec<Vec<u8>>,
    /// Whether it was given one.
    pub was_met: bool,
}

/// See the module. Both of rustls' questions reach it through shared references that may cross
/// threads, hence the lock, which nobody ever waits for.
#[derive(Debug)]
pub(super) struct Witness {
    roots: Arc<RootCertStore>,
    chain: Chain,
    algorithms: WebPkiSupportedAlgorithms,
    credential: Option<Arc<CertifiedKey>>,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    presented: Option<Presented>,
    certificate_request: Option<CertificateRequest>,
}

impl Setup {
    /// The configuration for handshakes that a witness watches, and the witness.
    pub(super) fn into_config(self) -> Result<(Arc<ClientConfig>, Arc<Witness>), Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(self.roots);
        let witness = Arc::new(Witness {
            chain: Chain::new(Role::Server, Arc::clone(&roots), &self.authorities),
            roots,
            algorithms: provider.signature_verification_algorithms,
            credential: self.credential,
            notes: Mutex::default(),
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as _)
            .with_client_cert_resolver(Arc::clone(&witness) as _);
        config.alpn_protocols = self.alpn.into_iter().map(String::into_bytes).collect();
        if let Some(key_log) = self.key_log {
            config.key_log = key_log;
        }
        Ok((Arc::new(config), witness))
    }
}

impl Witness {
    /// What was noted of the last handshake, which is then forgotten.
    pub(super) fn take(&self) -> (Option<Presented>, Option<CertificateRequest>) {
        let notes = std::mem::take(&mut *self.notes());
        (notes.presented, notes.certificate_request)
    }

    /// Whether the server has asked for a client certificate.
    pub(super) fn was_asked_for_certificate(&self) -> bool {
        self.notes().certificate_request.is_some()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges the chain now; and, where it is not in force, once more for a moment when it was:
    /// its age hides whatever else is wrong.
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Vec<CertificateError> {
        let judge_at = |at| self.judge_at(at, end_entity, intermediates).map_err(fault);
        let Err(first) = judge_at(now) else { return Vec::new() };
        let second = in_force(&first).and_then(|at| judge_at(at).err());
        let second = second.filter(|fault| in_force(fault).is_none());
        std::iter::once(first).chain(second).collect()
    }

    fn judge_at(
        &self,
        at: UnixTime,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        let (roots, others) = (&self.roots, self.chain.others(intermediates));
        let Err(error) = self.chain.verify(end_entity, &others, at) else { return Ok(()) };
        let plain =
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, &others, at, algorithms);
        Err(plain.err().unwrap_or_else(|| error.into()))
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name_verdict = ParsedCertificate::try_from(end_entity)
            .and_then(|certificate| verify_server_name(&certificate, server_name));
        let all = std::iter::once(end_entity).chain(intermediates);
        self.notes().presented = Some(Presented {
            chain: all.map(|certificate| certificate.clone().into_owned()).collect(),
            ocsp: ocsp_response.to_vec(),
            chain_faults: self.judge(end_entity, intermediates, now),
            name_verdict: name_verdict.map_err(fault),
        });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if ParsedCertificate::try_from(certificate).is_err() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let verdict = verify_tls12_signature(message, certificate, signature, &self.algorithms);
        or_noted(verdict, certificate)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // There is no key to check it with; that the certificate cannot be read is noted already.
        if ParsedCertificate::try_from(certificate).is_err() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let verdict = verify_tls13_signature(message, certificate, signature, &self.algorithms);
        or_noted(verdict, certificate)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for Witness {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.notes().certificate_request = Some(CertificateRequest {
            authorities: root_hint_subjects.iter().map(|name| name.to_vec()).collect(),
            was_met: self.credential.is_some(),
        });
        self.credential.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A signature by a key that is too weak or odd cannot be checked; that it is has been noted.
fn or_noted(
    verdict: Result<HandshakeSignatureValid, Error>,
    certificate: &CertificateDer<'_>,
) -> Result<HandshakeSignatureValid, Error> {
    match verdict {
        Err(_) if key_weakness(certificate).is_some() => Ok(HandshakeSignatureValid::assertion()),
        verdict => verdict,
    }
}

/// A moment at which a certificate was in force, where all that is wrong is that it is not.
fn in_force(fault: &CertificateError) -> Option<UnixTime> {
    match fault {
        CertificateError::ExpiredContext { not_after, .. } => Some(*not_after),
        CertificateError::NotValidYetContext { not_before, .. } => Some(*not_before),
        _ => None,
    }
}

fn fault(error: Error) -> CertificateError {
    match error {
        Error::InvalidCertificate(fault) => fault,
        _ => CertificateError::BadEncoding,
    }
}
