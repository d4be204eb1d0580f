//! From what a plan says of TLS to what rustls works by, on either side.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{ClientConfig, Error, ServerConfig};

use super::open_error::{OpenError, TlsError};
use crate::config::{
    Address, ClientAuth, Clients, HostPort, Tls, Version, plan, system_authorities,
};
use crate::net::forward::Secure;
use crate::net::tls::chooser::Chooser;
use crate::net::tls::client::{Client, server_name};
use crate::net::tls::identity::Allowed;
use crate::net::tls::key_log::KeyLogFile;
use crate::net::tls::shown::Remembering;
use crate::net::tls::ticket::Ticketer;

/// What the listener called `name` speaks.
///
/// # Errors
/// There is no randomness for ticket keys; all else was checked with the configuration.
pub fn server_config(
    name: &str,
    tls: &Tls,
    key_log: Option<&Arc<KeyLogFile>>,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: Vec<_> = tls.versions.iter().copied().map(Version::supported).collect();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)?;
    let builder = match &tls.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            builder.with_client_cert_verifier(Arc::new(Remembering(verifier(clients)?)))
        }
    };
    let certified: Vec<_> = tls.credentials.iter().map(|it| Arc::clone(&it.certified)).collect();
    let mut config = builder.with_cert_resolver(Arc::new(Chooser::new(&certified)));
    config.alpn_protocols = tls.alpn.iter().map(|it| it.clone().into_bytes()).collect();
    // Everything that resumption needs is in the ticket: nothing is kept for clients that have gone.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // A resumed connection would not look again whether the client's certificate has expired, was
    // revoked, or is still allowed; so whoever asks for certificates asks every time.
    if tls.clients.is_none() {
        config.ticketer = ticketer(name, tls)?;
        config.send_tls13_tickets = 1;
    }
    if let Some(key_log) = key_log {
        config.key_log = Arc::clone(key_log) as _;
    }
    Ok(Arc::new(config))
}

/// How a listener speaks TLS with its targets.
pub struct UpstreamConfig {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

/// What `listener` needs to speak TLS with its targets; `None` where none of them does.
///
/// # Errors
/// There are no authorities to trust, or rustls does not want it so.
pub fn upstream(
    listener: &plan::Listener,
    key_log: Option<&Arc<KeyLogFile>>,
) -> Result<Option<UpstreamConfig>, OpenError> {
    let plan::Service::Forward { to, upstream, .. } = &listener.service else { return Ok(None) };
    if !to.iter().any(|to| matches!(to, Address::Tls(_))) {
        return Ok(None);
    }
    let tls = &upstream.tls;
    let prepare = || -> Result<UpstreamConfig, TlsError> {
        let roots = match &tls.ca {
            _ if tls.insecure => None,
            Some((_, roots)) => Some(Arc::clone(roots)),
            None => Some(Arc::new(system_authorities()?)),
        };
        let client = Client {
            roots,
            credential: tls.credential.as_ref().map(|it| Arc::clone(&it.certified)),
            versions: Version::only(None),
            alpn: Vec::new(),
            key_log: key_log.cloned(),
            resumes: true,
        };
        Ok(UpstreamConfig { config: client.config()?, server_name: tls.server_name.clone() })
    };
    prepare().map(Some).map_err(|error| OpenError::Tls { name: listener.name.clone(), error })
}

impl UpstreamConfig {
    /// How it is spoken with the target at `at`.
    ///
    /// # Errors
    /// The target has no name that a certificate could have.
    pub fn secure(&self, listener: &plan::Listener, at: &HostPort) -> Result<Secure, OpenError> {
        let host = self.server_name.as_ref().unwrap_or(&at.host);
        let name = server_name(host).map_err(|_| OpenError::Tls {
            name: listener.name.clone(),
            error: TlsError::Name(host.clone()),
        })?;
        Ok(Secure { config: Arc::clone(&self.config), name })
    }
}

fn ticketer(name: &str, tls: &Tls) -> Result<Arc<dyn ProducesTickets>, Error> {
    match &tls.ticket_key {
        Some(key) => Ok(Arc::new(Ticketer::new(&key.secret, name))),
        None => aws_lc_rs::Ticketer::new(),
    }
}

fn verifier(clients: &Clients) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let lists: Vec<_> = clients.revoked.iter().flat_map(|it| it.lists.clone()).collect();
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&clients.roots), provider)
        .with_crls(lists)
        .only_check_end_entity_revocation()
        .enforce_revocation_expiration();
    let builder = match clients.auth {
        ClientAuth::Optional => builder.allow_unauthenticated(),
        ClientAuth::Required => builder,
    };
    let sound = builder.build().map_err(|error| Error::General(error.to_string()))?;
    if clients.allow.is_empty() {
        return Ok(sound);
    }
    Ok(Arc::new(Allowed::new(sound, clients.allow.clone())))
}
