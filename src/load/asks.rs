//! Whether the server asks its clients for a certificate, in TLS.
//!
//! Where it does, a client of TLS 1.3 has done its part of the handshake before the server has looked at
//! the certificate: being done is then no sign of being let in. A connection does not tell by itself
//! what it was asked, so this listens where certificates are chosen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use crate::net::tls::client::Secure;

/// Whether the server has asked any connection of a run for a certificate.
#[derive(Clone, Debug, Default)]
pub struct Asks(Arc<AtomicBool>);

impl Asks {
    /// Listens for what is asked of the connections that `secure` is for.
    pub fn listen(&self, secure: &mut Secure) {
        let config = Arc::make_mut(&mut secure.config);
        let chooser = Arc::clone(&config.client_auth_cert_resolver);
        config.client_auth_cert_resolver = Arc::new(Listener { chooser, asks: self.clone() });
    }

    /// Whether it has.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Listener {
    chooser: Arc<dyn ResolvesClientCert>,
    asks: Asks,
}

impl ResolvesClientCert for Listener {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asks.0.store(true, Ordering::Relaxed);
        self.chooser.resolve(hints, schemes)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.chooser.only_raw_public_keys()
    }

    fn has_certs(&self) -> bool {
        self.chooser.has_certs()
    }
}
