//! What rustls works by on the client's side.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, InvalidDnsNameError, ServerName,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error, RootCertStore, SupportedProtocolVersion};

use super::chain::Chain;
use super::key_log::KeyLogFile;
use super::purpose::Role;
use super::trust::Credulous;
use super::verifier::Servers;

/// What a client trusts, shows and speaks.
pub struct Client {
    /// The authorities to trust; `None` believes every certificate.
    pub roots: Option<Arc<RootCertStore>>,
    /// The certificates of authorities, those of `roots` among them, where they are known.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Lists of what they have revoked; where there are any, each authority of a chain needs one.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
    /// What is shown to a server that asks.
    pub credential: Option<Arc<CertifiedKey>>,
    /// The versions to speak.
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// The application protocols to offer, the best first.
    pub alpn: Vec<String>,
    /// Where the secrets of connections go, for whoever looks with Wireshark.
    pub key_log: Option<Arc<KeyLogFile>>,
    /// Whether a session may be taken up again by a later connection.
    pub resumes: bool,
}

impl Client {
    /// The configuration for rustls.
    ///
    /// # Errors
    /// Where the versions and the provider do not go together.
    pub fn config(self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)?;
        let verifier: Arc<dyn ServerCertVerifier> = match self.roots {
            Some(roots) => {
                let plain =
                    WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider)
                        .with_crls(self.revoked.clone())
                        .enforce_revocation_expiration()
                        .build()
                        .map_err(|error| Error::General(error.to_string()))?;
                let chain =
                    Chain::new(Role::Server, roots, &self.authorities).with_lists(&self.revoked)?;
                Arc::new(Servers::new(chain, plain))
            }
            None => Arc::new(Credulous(provider)),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match self.credential {
            None => builder.with_no_client_auth(),
            Some(credential) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(credential)))
            }
        };
        if !self.resumes {
            config.resumption = Resumption::disabled();
        }
        config.alpn_protocols = self.alpn.into_iter().map(String::into_bytes).collect();
        if let Some(key_log) = self.key_log {
            config.key_log = key_log;
        }
        Ok(Arc::new(config))
    }
}

/// How TLS is spoken with one server.
#[derive(Clone, Debug)]
pub struct Secure {
    /// What rustls works by.
    pub config: Arc<ClientConfig>,
    /// Whom the server must prove to be.
    pub name: ServerName<'static>,
}

/// A host as certificates name it: without the zone of a link-local address.
///
/// # Errors
/// It is no name.
pub fn server_name(host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    let bare = host.split_once('%').map_or(host, |(address, _)| address);
    ServerName::try_from(bare.to_owned())
}
