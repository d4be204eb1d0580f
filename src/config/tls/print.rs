//! `[listener.tls]` as the text of a configuration.

use std::fmt::{self, Write};

use super::{ClientAuth, Credential, Tls};
use crate::config::print::quoted;

/// Writes the table with every figure written out.
pub(in crate::config) fn write(out: &mut String, tls: &Tls) -> fmt::Result {
    writeln!(out, "[listener.tls]")?;
    let (first, more) = tls.credentials.split_first().expect("a plan has at least one");
    writeln!(out, "cert = {}", quoted(first.cert.to_string()))?;
    writeln!(out, "key = {}", quoted(first.key.to_string()))?;
    if !more.is_empty() {
        writeln!(out, "certificates = [{}]", list(more, pair))?;
    }
    match &tls.clients {
        None => writeln!(out, "client_auth = \"none\"")?,
        Some(clients) => {
            writeln!(out, "client_ca = {}", quoted(clients.ca.to_string()))?;
            let auth = match clients.auth {
                ClientAuth::Optional => "optional",
                ClientAuth::Required => "required",
            };
            writeln!(out, "client_auth = {}", quoted(auth))?;
            let path = |it: &super::RevocationList| quoted(it.path.to_string_lossy());
            writeln!(out, "crl = [{}]", list(&clients.revoked, path))?;
            if !clients.allow.is_empty() {
                writeln!(out, "allow = [{}]", list(&clients.allow, |it| quoted(it.to_string())))?;
            }
        }
    }
    writeln!(out, "versions = [{}]", list(&tls.versions, |it| quoted(it.name())))?;
    writeln!(out, "alpn = [{}]", list(&tls.alpn, |it| quoted(it.as_str())))?;
    match &tls.ticket_key {
        None => Ok(()),
        Some(key) => writeln!(out, "ticket_key = {}", quoted(key.path.to_string_lossy())),
    }
}

fn pair(credential: &Credential) -> String {
    let (cert, key) = (credential.cert.to_string(), credential.key.to_string());
    format!("{{ cert = {}, key = {} }}", quoted(cert), quoted(key))
}

pub(super) fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    items.iter().map(show).collect::<Vec<_>>().join(", ")
}
