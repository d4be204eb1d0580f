//! What a connection onward shows and trusts: the TLS keys of `[listener.upstream]`.

use rustls::pki_types::ServerName;
use std::fmt::{self, Write};
use toml::Spanned;
use toml::de::DeValue;

use super::print::list;
use super::read::{Place, credential, protocols, revocation_lists, take_file};
use super::{Authorities, Credential, Origin, RevocationList, pem};
use crate::config::print::quoted;
use crate::config::report::{Fault, Faults};
use crate::config::table::Table;
use crate::config::values;

/// Keys of TLS in `[listener.upstream]`.
pub(in crate::config) const KEYS: [&str; 6] = ["ca", "cert", "key", "server_name", "alpn", "crl"];

/// How a connection onward speaks TLS.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// The authorities to trust, and where they came from; the system's where there are none.
    pub ca: Option<(Origin, Authorities)>,
    /// Revocation lists of the authorities in `ca`: certificates on them count for nothing.
    pub revoked: Vec<RevocationList>,
    /// What is shown to a server that asks.
    pub credential: Option<Credential>,
    /// Whom the server must prove to be; its host where nothing is said.
    pub server_name: Option<String>,
    /// The application protocols that are offered, the best first; none does without ALPN.
    pub alpn: Vec<String>,
    /// Whether every certificate is believed, for whoever asked for it on a command line.
    pub insecure: bool,
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        let ca = |tls: &Self| tls.ca.as_ref().map(|(origin, _)| origin.clone());
        (ca(self), &self.revoked) == (ca(other), &other.revoked)
            && (&self.credential, &self.server_name, &self.alpn, self.insecure)
                == (&other.credential, &other.server_name, &other.alpn, other.insecure)
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
        Ok((pem::trusted(&text)?, text.origin))
    });
    let revoked = table.take("crl", values::names, faults);
    if let (None, Some(revoked)) = (&ca, &revoked) {
        let message = "`crl` without `ca`: whose lists are these?";
        let help = "add ca = \"...\": the authority that signs the targets' certificates";
        faults.add(revoked.span(), Fault::new(message, "no authority", help));
    }
    let revoked = revocation_lists(revoked, place.folder, faults);
    let shows = table.has("cert") || table.has("key");
    UpstreamTls {
        ca: ca.map(|(_, (authorities, origin))| (origin, authorities)),
        revoked,
        credential: if shows { credential(table, place, faults) } else { None },
        server_name: table.take("server_name", server_name, faults).map(Spanned::into_inner),
        alpn: table.take("alpn", protocols, faults).map(Spanned::into_inner).unwrap_or_default(),
        insecure: false,
    }
}

/// Whether a certificate can be for this host.
pub(in crate::config) fn is_server_name(host: &str) -> bool {
    // The zone of a link-local address stands in no certificate.
    let bare = host.split_once('%').map_or(host, |(address, _)| address);
    ServerName::try_from(bare).is_ok()
}

fn server_name(value: DeValue<'_>) -> Result<String, Fault> {
    let name = values::text(value)?;
    if is_server_name(&name) {
        return Ok(name);
    }
    let help = "write a host name or an IP address, as it stands in the server's certificate";
    Err(Fault::new(format!("`{name}` cannot be the name of a server"), "not a name", help))
}

/// Writes the keys of TLS as they are read.
pub(in crate::config) fn write_upstream(out: &mut String, tls: &UpstreamTls) -> fmt::Result {
    if let Some((origin, _)) = &tls.ca {
        writeln!(out, "ca = {}", quoted(origin.to_string()))?;
    }
    if !tls.revoked.is_empty() {
        let path = |it: &RevocationList| quoted(it.path.to_string_lossy());
        writeln!(out, "crl = [{}]", list(&tls.revoked, path))?;
    }
    if let Some(credential) = &tls.credential {
        writeln!(out, "cert = {}", quoted(credential.cert.to_string()))?;
        writeln!(out, "key = {}", quoted(credential.key.to_string()))?;
    }
    if let Some(name) = &tls.server_name {
        writeln!(out, "server_name = {}", quoted(name.as_str()))?;
    }
    if tls.alpn.is_empty() {
        return Ok(());
    }
    writeln!(out, "alpn = [{}]", list(&tls.alpn, |it| quoted(it.as_str())))
}
