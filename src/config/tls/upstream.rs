//! What a connection onward shows and trusts: the TLS keys of `[listener.upstream]`.

use std::fmt::{self, Write};
use std::sync::Arc;

use rustls::RootCertStore;
use toml::Spanned;

use super::read::{Place, credential, take_file};
use super::{Credential, Origin, pem};
use crate::config::print::quoted;
use crate::config::report::Faults;
use crate::config::table::Table;
use crate::config::values;

/// Keys of TLS in `[listener.upstream]`.
pub(in crate::config) const KEYS: [&str; 4] = ["ca", "cert", "key", "server_name"];

/// How a connection onward speaks TLS.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// The authorities to trust, and where they came from; the system's where there are none.
    pub ca: Option<(Origin, Arc<RootCertStore>)>,
    /// What is shown to a server that asks.
    pub credential: Option<Credential>,
    /// Whom the server must prove to be; its host where nothing is said.
    pub server_name: Option<String>,
    /// Whether every certificate is believed, for whoever asked for it on a command line.
    pub insecure: bool,
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        let ca = |tls: &Self| tls.ca.as_ref().map(|(origin, _)| origin.clone());
        ca(self) == ca(other)
            && (&self.credential, &self.server_name, self.insecure)
                == (&other.credential, &other.server_name, other.insecure)
    }
}

/// Reads the keys of TLS, where there are any.
pub(in crate::config) fn read_upstream(
    table: &mut Table<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> UpstreamTls {
    let ca = take_file(table, "ca", faults, |name| {
        let text = pem::text(name, place.folder)?;
        Ok((pem::root_store(&text)?, text.origin))
    });
    let shows = table.has("cert") || table.has("key");
    UpstreamTls {
        ca: ca.map(|(_, (roots, origin))| (origin, Arc::new(roots))),
        credential: if shows { credential(table, place, faults) } else { None },
        server_name: table.take("server_name", values::text, faults).map(Spanned::into_inner),
        insecure: false,
    }
}

/// Writes the keys of TLS as they are read.
pub(in crate::config) fn write_upstream(out: &mut String, tls: &UpstreamTls) -> fmt::Result {
    if let Some((origin, _)) = &tls.ca {
        writeln!(out, "ca = {}", quoted(origin.to_string()))?;
    }
    if let Some(credential) = &tls.credential {
        writeln!(out, "cert = {}", quoted(credential.cert.to_string()))?;
        writeln!(out, "key = {}", quoted(credential.key.to_string()))?;
    }
    match &tls.server_name {
        None => Ok(()),
        Some(name) => writeln!(out, "server_name = {}", quoted(name.as_str())),
    }
}
