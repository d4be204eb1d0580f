//! What a listener offers, with the keys that belong to one service alone.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::proto::service::Kind;

use super::address::Address;
use super::plan::{CONNECT, FORWARD, Limits, Service, Upstream, service_name};
use super::report::{Fault, Faults};
use super::secrets::Secrets;
use super::table::Table;
use super::tls::{self, UPSTREAM_KEYS};
use super::values;

/// What a listener is read with, but does not change.
pub(super) struct Around<'a> {
    pub(super) folder: &'a Path,
    pub(super) secrets: &'a Secrets,
    pub(super) limits: &'a Limits,
}

/// The timeout `connect` of `forward` and `connect` where nothing is said.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Keys that one service alone has a use for.
const OWNED: [(&str, &str); 4] =
    [("text", "reply"), ("to", FORWARD), ("upstream", FORWARD), ("targets", CONNECT)];

/// Reads the service and the keys that belong to it. `connect` is the timeout of that name.
pub(super) fn read(
    table: &mut Table<'_>,
    connect: Option<Spanned<Option<Duration>>>,
    around: &Around<'_>,
    faults: &mut Faults,
) -> Option<Service> {
    let service = table.require("service", values::service, faults);
    let name = service.as_ref().map(|service| service_name(service.get_ref()));
    for (key, owner) in OWNED {
        if name != Some(owner)
            && let Some(misplaced) = table.take(key, |_| Ok(()), faults)
        {
            misplace(key, misplaced.span(), owner, name, faults);
        }
    }
    if name != Some(FORWARD)
        && name != Some(CONNECT)
        && let Some(connect) = &connect
    {
        misplace("connect", connect.span(), "forward\" or \"connect", name, faults);
    }
    let service = service?;
    let span = service.span();
    match service.into_inner() {
        Service::Own(Kind::Reply(_)) => {
            let text = needed(table, "text", values::reply_text, (span, "\"...\""), faults)?;
            Some(Service::Own(Kind::Reply(text.into_inner().into())))
        }
        Service::Forward { .. } => {
            let to = needed(table, "to", values::targets, (span, "\"tcp://host:port\""), faults);
            let is_tls = |to: &Address| matches!(to, Address::Tls(_));
            let has_tls = to.as_ref().is_some_and(|to| to.get_ref().iter().any(is_tls));
            let upstream = upstream(table, has_tls, around, faults);
            let connect = connect.map_or(Some(CONNECT_LIMIT), Spanned::into_inner);
            let to = to?;
            if upstream.tls.server_name.is_none() {
                reject_nameless(&to, faults);
            }
            Some(Service::Forward { to: to.into_inner(), connect, upstream: Box::new(upstream) })
        }
        Service::Connect { .. } => {
            let example = "[\"host:port\"]";
            let targets = needed(table, "targets", values::rules, (span, example), faults)?;
            let connect = connect.map_or(Some(CONNECT_LIMIT), Spanned::into_inner);
            Some(Service::Connect { targets: targets.into_inner(), connect })
        }
        own @ Service::Own(_) => Some(own),
    }
}

fn misplace(key: &str, span: Range<usize>, owner: &str, name: Option<&str>, faults: &mut Faults) {
    // Where the service itself is wrong, nobody knows what belongs to it.
    let Some(name) = name else { return };
    let message = format!("`{name}` has no use for `{key}`");
    let help = format!("remove it, or write service = \"{owner}\"");
    faults.add(span, Fault::new(message, "not for this service", help));
}

/// A key that the service at `span` cannot do without; `example` is what could be written.
fn needed<T>(
    table: &mut Table<'_>,
    key: &'static str,
    read: impl FnOnce(DeValue<'_>) -> Result<T, Fault>,
    (span, example): (Range<usize>, &str),
    faults: &mut Faults,
) -> Option<Spanned<T>> {
    if !table.has(key) {
        let message = format!("this service needs `{key}`");
        let help = format!("add a line `{key} = {example}`");
        faults.add(span, Fault::new(message, "this service", help));
        return None;
    }
    table.take(key, read, faults)
}

/// A target behind TLS has to prove a name, which its host must be where no other is given.
fn reject_nameless(to: &Spanned<Vec<Address>>, faults: &mut Faults) {
    for address in to.get_ref() {
        if let Address::Tls(at) = address
            && !tls::is_server_name(&at.host)
        {
            let message = format!("`{}` cannot be the name of a server", at.host);
            let help = "write its name as server_name = \"...\" in [listener.upstream]";
            faults.add(to.span(), Fault::new(message, "not a name", help));
        }
    }
}

/// What an entry says to the exit that it forwards to.
fn upstream(
    table: &mut Table<'_>,
    has_tls: bool,
    around: &Around<'_>,
    faults: &mut Faults,
) -> Upstream {
    let Some(mut table) = table.table("upstream", "[listener.upstream]", faults) else {
        return Upstream::default();
    };
    let span = table.span();
    let auth = table.take("auth", values::auth, faults);
    let secret = table.take("secret", values::name, faults);
    let target = table.take("target", values::authority, faults);
    let proxy_protocol = table.take("proxy_protocol", values::proxy_version, faults);
    if !has_tls && let Some(key) = UPSTREAM_KEYS.into_iter().find(|key| table.has(key)) {
        let message = format!("`{key}` is for TLS, and no target is tls://");
        let help = "write the target as tls://host:port, or remove the keys of TLS";
        faults.add(span.clone(), Fault::new(message, "here", help));
    }
    let place = tls::Place { address: None, folder: around.folder };
    let tls = tls::read_upstream(&mut table, &place, faults);
    table.finish(faults);
    let digest = auth.as_ref().and_then(|auth| *auth.get_ref());
    let gate = match (digest, secret) {
        (Some(digest), Some(secret)) => {
            let name = [Spanned::new(secret.span(), secret.into_inner())];
            around.secrets.pick(&name, faults).pop().map(|secret| (secret, digest))
        }
        (Some(_), None) => {
            let help = "add a line `secret = ...` with the name of a [[secret]]";
            faults.add(span, Fault::new("`auth` needs a `secret` to answer with", "here", help));
            None
        }
        (None, Some(secret)) => {
            let help = "add auth = \"hmac-sha256\", or remove the secret";
            let fault = Fault::new("`secret` without `auth` is never asked for", "here", help);
            faults.add(secret.span(), fault);
            None
        }
        (None, None) => None,
    };
    Upstream {
        gate,
        proxy_protocol: proxy_protocol.map(Spanned::into_inner),
        target: target.map(Spanned::into_inner),
        tls,
    }
}
