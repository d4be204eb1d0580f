//! From `[listener.tls]` to a checked [`Tls`].

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use toml::Spanned;
use toml::de::DeValue;

use super::{ClientAuth, Clients, Credential, RevocationList, TicketKey, Tls, Version, pem};
use crate::config::address::Address;
use crate::config::report::{Fault, Faults};
use crate::config::table::Table;
use crate::config::values;
use crate::proto::identity::{RULE_FORMS, Rule};

/// The most application protocols of a side.
const MAX_PROTOCOLS: usize = 64;

/// Where a listener's TLS is read: what belongs to it but stands elsewhere.
pub(in crate::config) struct Place<'a> {
    /// The listener's address.
    pub(in crate::config) address: Option<&'a Spanned<Address>>,
    /// What relative paths are relative to.
    pub(in crate::config) folder: &'a Path,
}

/// Reads `[listener.tls]`, where there is one.
pub(in crate::config) fn read(
    listener: &mut Table<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<Spanned<Tls>> {
    let mut table = listener.table("tls", "[listener.tls]", faults)?;
    let span = table.span();
    if matches!(place.address.map(Spanned::get_ref), Some(Address::Udp(_))) {
        let message = "datagrams have no TLS here";
        let help = "remove [listener.tls], or listen on tcp:// or unix://";
        faults.add(span.clone(), Fault::new(message, "on a udp address", help));
    }
    let mut credentials = Vec::new();
    credentials.extend(credential(&mut table, place, faults));
    for mut more in table.tables("certificates", "certificates = [{ cert, key }]", faults) {
        credentials.extend(credential(&mut more, place, faults));
        more.finish(faults);
    }
    let clients = clients(&mut table, place.folder, faults);
    let versions = table.take("versions", versions, faults);
    let alpn = table.take("alpn", protocols, faults);
    let ticket_key = take_file(&mut table, "ticket_key", faults, |name| {
        pem::ticket_key(name, place.folder).map(|(path, secret)| TicketKey { path, secret })
    });
    table.finish(faults);
    if credentials.is_empty() {
        return None;
    }
    let versions = versions.map_or_else(|| Version::ALL.to_vec(), Spanned::into_inner);
    let alpn = alpn.map(Spanned::into_inner).unwrap_or_default();
    let ticket_key = ticket_key.map(|(_, key)| key);
    Some(Spanned::new(span, Tls { credentials, clients, versions, alpn, ticket_key }))
}

pub(super) fn credential(
    table: &mut Table<'_>,
    place: &Place<'_>,
    faults: &mut Faults,
) -> Option<Credential> {
    let cert = table.require("cert", values::text, faults);
    let key = table.require("key", values::text, faults);
    let chain = cert.and_then(|name| {
        in_file(&name, faults, |name| {
            let text = pem::text(name, place.folder)?;
            Ok((pem::chain(&text)?, text.origin))
        })
    });
    let key = key.and_then(|name| {
        let found = in_file(&name, faults, |name| {
            let text = pem::text(name, place.folder)?;
            Ok((pem::private_key(&text)?, text.origin))
        });
        found.map(|found| (name.span(), found))
    });
    let ((chain, cert), (span, (key, key_origin))) = (chain?, key?);
    if pem::is_public(&key) {
        reject_public(span.clone(), place, faults);
    }
    match pem::certify(chain, key) {
        Ok((certified, expires)) => Some(Credential { cert, key: key_origin, certified, expires }),
        Err(fault) => {
            faults.add(span, fault);
            None
        }
    }
}

/// A demonstration key proves nothing, so it may stand only where nobody else gets.
fn reject_public(span: Range<usize>, place: &Place<'_>, faults: &mut Faults) {
    let Some(address) = place.address else { return };
    if !address.get_ref().is_loopback().unwrap_or(false) {
        let message = format!("a demonstration key, which is public, on {}", address.get_ref());
        let help = "make a certificate with `turnstile cert`, or listen on 127.0.0.1";
        faults.add(span, Fault::new(message, "everyone has this key", help));
    }
}

fn clients(table: &mut Table<'_>, folder: &Path, faults: &mut Faults) -> Option<Clients> {
    let has_ca = table.has("client_ca");
    let ca = take_file(table, "client_ca", faults, |name| {
        let text = pem::text(name, folder)?;
        Ok((pem::trusted(&text)?, text.origin))
    });
    let auth = table.take("client_auth", client_auth, faults);
    let revoked = table.take("crl", values::names, faults);
    let allow = table.take("allow", rules, faults);
    for (key, span) in [
        ("crl", revoked.as_ref().map(Spanned::span)),
        ("allow", allow.as_ref().map(Spanned::span)),
        ("client_auth", auth.as_ref().filter(|it| it.get_ref().is_some()).map(Spanned::span)),
    ] {
        if let (false, Some(span)) = (has_ca, span) {
            let message = format!("`{key}` without `client_ca`: no client is asked for anything");
            let help = "add client_ca = \"...\": the authority that signs your clients";
            faults.add(span, Fault::new(message, "nobody to check", help));
        }
    }
    let auth = match auth {
        None => Some(ClientAuth::Required),
        Some(auth) => auth.into_inner(),
    };
    if let (Some(allow), true) = (&allow, auth != Some(ClientAuth::Required)) {
        let message = "`allow` where clients need no certificate";
        let help = "write client_auth = \"required\"";
        faults.add(allow.span(), Fault::new(message, "not asked for", help));
    }
    let (span, (authorities, ca)) = ca?;
    let auth = auth?;
    let revoked = revocation_lists(revoked, folder, faults);
    let allow = allow.map(Spanned::into_inner).unwrap_or_default();
    reject_unusable(&authorities.roots, &revoked, span, faults);
    Some(Clients { auth, ca, authorities, revoked, allow })
}

/// The revocation lists in the files of these names.
pub(super) fn revocation_lists(
    names: Option<Spanned<Vec<Spanned<String>>>>,
    folder: &Path,
    faults: &mut Faults,
) -> Vec<RevocationList> {
    let names = names.map(Spanned::into_inner).unwrap_or_default();
    let read = |name: &Spanned<String>| {
        let (path, lists) = in_file(name, faults, |name| pem::revocation_lists(name, folder))?;
        Some(RevocationList { path, lists })
    };
    names.iter().filter_map(read).collect()
}

/// Makes sure that the daemon will be able to use what was read.
fn reject_unusable(
    roots: &Arc<RootCertStore>,
    revoked: &[RevocationList],
    span: Range<usize>,
    faults: &mut Faults,
) {
    let lists = revoked.iter().flat_map(|it| it.lists.iter().cloned());
    let provider = Arc::new(default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider).with_crls(lists);
    if let Err(error) = verifier.build() {
        let message = format!("clients cannot be checked: {error}");
        faults.add(span, Fault::new(message, "with this authority", "check `client_ca` and `crl`"));
    }
}

fn client_auth(value: DeValue<'_>) -> Result<Option<ClientAuth>, Fault> {
    match values::text(value)?.as_str() {
        "none" => Ok(None),
        "optional" => Ok(Some(ClientAuth::Optional)),
        "required" => Ok(Some(ClientAuth::Required)),
        other => {
            let message = format!("`{other}` is unknown");
            Err(Fault::new(message, "unknown", "write none, optional or required"))
        }
    }
}

fn versions(value: DeValue<'_>) -> Result<Vec<Version>, Fault> {
    const RIGHT: &str = "write versions = [\"1.2\", \"1.3\"], or one of the two";
    let names = values::names(value)?;
    let known = |name: &Spanned<String>| {
        Version::ALL.into_iter().find(|it| it.name() == name.get_ref()).ok_or_else(|| {
            Fault::new(format!("TLS {} is not spoken here", name.get_ref()), "unknown", RIGHT)
        })
    };
    let versions: Vec<_> = names.iter().map(known).collect::<Result<_, _>>()?;
    if versions.is_empty() {
        return Err(Fault::new("no version is left", "empty", RIGHT));
    }
    Ok(versions)
}

/// Names of protocols: one to 255 bytes each (RFC 7301), and no more than a greeting has room for.
pub(super) fn protocols(value: DeValue<'_>) -> Result<Vec<String>, Fault> {
    let names = values::names(value)?.into_iter().map(Spanned::into_inner);
    let names: Vec<_> = names.collect();
    if names.len() > MAX_PROTOCOLS {
        let help = format!("write {MAX_PROTOCOLS} at the most");
        return Err(Fault::new("too many protocols", "too many", help));
    }
    if names.iter().all(|name| (1..=255).contains(&name.len())) {
        return Ok(names);
    }
    Err(Fault::new("not a protocol", "not a protocol", "a protocol has 1 to 255 bytes"))
}

fn rules(value: DeValue<'_>) -> Result<Vec<Rule>, Fault> {
    let names = values::names(value)?;
    let right = format!("write {RULE_FORMS}");
    if names.is_empty() {
        return Err(Fault::new("an empty list lets nobody in", "empty", right));
    }
    let parse = |name: &Spanned<String>| {
        let parsed = name.get_ref().parse::<Rule>();
        parsed.map_err(|error| Fault::new(error.to_string(), "not a rule", right.clone()))
    };
    names.iter().map(parse).collect()
}

/// Takes a file's name and what `read` makes of the file; with the name's place.
pub(super) fn take_file<T>(
    table: &mut Table<'_>,
    key: &'static str,
    faults: &mut Faults,
    read: impl FnOnce(&str) -> Result<T, Fault>,
) -> Option<(Range<usize>, T)> {
    let name = table.take(key, values::text, faults)?;
    let found = in_file(&name, faults, read)?;
    Some((name.span(), found))
}

fn in_file<T>(
    name: &Spanned<String>,
    faults: &mut Faults,
    read: impl FnOnce(&str) -> Result<T, Fault>,
) -> Option<T> {
    match read(name.get_ref()) {
        Ok(found) => Some(found),
        Err(fault) => {
            faults.add(name.span(), fault);
            None
        }
    }
}
