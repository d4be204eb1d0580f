//! From what a plan says of TLS to what rustls works by, on either side.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{ClientConfig, DistinguishedName, Error, ServerConfig};

use super::open_error::{OpenError, TlsError};
use crate::config::{
    Address, Authorities, ClientAuth, Clients, HostPort, Plan, Tls, Version, plan,
    system_authorities,
};
use crate::net::forward::Secure;
use crate::net::tls::chain::Chain;
use crate::net::tls::chooser::Chooser;
use crate::net::tls::client::{Client, server_name};
use crate::net::tls::identity::Allowed;
use crate::net::tls::key_log::KeyLogFile;
use crate::net::tls::purpose::Role;
use crate::net::tls::shown::Remembering;
use crate::net::tls::ticket::Ticketer;
use crate::net::tls::verifier;

/// The most bytes that the names of authorities may have together (RFC 8446, section 4.2.4, allows
/// 65,535, and other extensions want room).
const MAX_HINTS: usize = 60_000;

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

/// Makes everything that the listeners of `plan` need for TLS, and throws it away: whether they can
/// be opened as far as that goes is thereby known. Reads the system's list of authorities, where one
/// of them needs it.
///
/// # Errors
/// What stands in the way of one.
pub fn check(plan: &Plan) -> Result<(), OpenError> {
    for listener in &plan.listeners {
        let wrong =
            |error: Error| OpenError::Tls { name: listener.name.clone(), error: error.into() };
        if let Some(tls) = &listener.tls {
            server_config(&listener.name, tls, None).map_err(wrong)?;
        }
        let plan::Service::Forward { to, .. } = &listener.service else { continue };
        if let Some(upstream) = upstream(listener, None)? {
            for to in to {
                if let Address::Tls(at) = to {
                    upstream.secure(listener, at)?;
                }
            }
        }
    }
    Ok(())
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
            Some((_, authorities)) => Some(Arc::clone(&authorities.roots)),
            None => Some(Arc::new(system_authorities()?)),
        };
        let known = tls.ca.as_ref().map(|(_, authorities)| authorities.certificates.clone());
        let client = Client {
            roots,
            authorities: known.unwrap_or_default(),
            revoked: tls.revoked.iter().flat_map(|it| it.lists.clone()).collect(),
            credential: tls.credential.as_ref().map(|it| Arc::clone(&it.certified)),
            versions: Version::only(None),
            alpn: tls.alpn.clone(),
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
    let authorities = &clients.authorities;
    let lists: Vec<_> = clients.revoked.iter().flat_map(|it| &it.lists).collect();
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities.roots), provider)
            .with_crls(lists.iter().copied().cloned())
            .enforce_revocation_expiration()
            .clear_root_hint_subjects()
            .add_root_hint_subjects(hints(authorities));
    let builder = match clients.auth {
        ClientAuth::Optional => builder.allow_unauthenticated(),
        ClientAuth::Required => builder,
    };
    let plain = builder.build().map_err(|error| Error::General(error.to_string()))?;
    let chain = Chain::new(Role::Client, Arc::clone(&authorities.roots), &authorities.certificates)
        .with_lists(lists)?;
    let sound = Arc::new(verifier::Clients::new(chain, plain));
    if clients.allow.is_empty() {
        return Ok(sound);
    }
    Ok(Arc::new(Allowed::new(sound, clients.allow.clone())))
}

/// The authorities whose certificates clients are told to show; none, which is any, where their names
/// would not fit into the message.
fn hints(authorities: &Authorities) -> Vec<DistinguishedName> {
    let names = authorities.names();
    let len: usize = names.iter().map(|name| name.as_ref().len() + size_of::<u16>()).sum();
    if len > MAX_HINTS { Vec::new() } else { names }
}
