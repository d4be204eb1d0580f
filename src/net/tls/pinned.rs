//! Whom a client trusts: the authorities that it was given, and certificates that were themselves
//! given as such.
//!
//! A certificate that `openssl req -x509` makes is an authority's (CA:TRUE) and a server's at once.
//! webpki takes no authority's certificate for a server's; OpenSSL, GnuTLS and Python take one that
//! they were told to trust. So does this: where the server shows a certificate whose owner and key
//! are those of one that is trusted, nobody else need vouch for it, and only its time and its name
//! are left to be checked. That the server has the key is shown by the handshake.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::weakness::weakness;

/// Whether `certificate` is one of `roots` itself, and if so, whether it is valid at `now`.
#[must_use]
pub fn judge_pinned(
    certificate: &CertificateDer<'_>,
    roots: &RootCertStore,
    now: UnixTime,
) -> Option<Result<(), CertificateError>> {
    let mut own = RootCertStore::empty();
    own.add(certificate.clone().into_owned()).ok()?;
    let own = own.roots.first()?;
    let is_it = |root: &&_| {
        let root: &rustls::pki_types::TrustAnchor<'_> = root;
        (&root.subject, &root.subject_public_key_info)
            == (&own.subject, &own.subject_public_key_info)
    };
    roots.roots.iter().find(is_it)?;
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    if read.issuer().as_raw() != read.subject().as_raw() {
        // Another has signed it, and may have said for what.
        return None;
    }
    let moment =
        |at: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.max(0) as u64));
    let not_before = moment(read.validity().not_before.timestamp());
    let not_after = moment(read.validity().not_after.timestamp());
    Some(if now < not_before {
        Err(CertificateError::NotValidYetContext { time: now, not_before })
    } else if now > not_after {
        Err(CertificateError::ExpiredContext { time: now, not_after })
    } else {
        Ok(())
    })
}

/// Trusts authorities, and those certificates among them that servers show as their own.
#[derive(Debug)]
pub struct Trusting {
    roots: Arc<RootCertStore>,
    webpki: Arc<WebPkiServerVerifier>,
}

impl Trusting {
    /// Trusts these.
    ///
    /// # Errors
    /// There are none.
    pub fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider);
        let webpki = webpki.build().map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { roots, webpki })
    }
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(verdict) = judge_pinned(own, &self.roots, now) {
            verdict?;
            verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let verdict = self.webpki.verify_server_cert(own, intermediates, name, ocsp_response, now);
        verdict.map_err(|error| or_weakness(error, std::iter::once(own).chain(intermediates)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = self.webpki.verify_tls12_signature(message, own, signed);
        verdict.map_err(|error| or_weakness(error, [own]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verdict = self.webpki.verify_tls13_signature(message, own, signed);
        verdict.map_err(|error| or_weakness(error, [own]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// What is behind an error that only says that a signature could not be checked: a key or a
/// signature too weak, or too odd, to be read.
fn or_weakness<'a, 'b: 'a>(
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
