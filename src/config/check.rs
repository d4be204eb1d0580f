//! From the parsed text to the plan: which tables there are, and what goes together.
//!
//! Invariant: a plan comes out only when no fault was found, and every fault is found in one pass.

use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use crate::proto::gate::Secret;
use crate::proto::proxy_protocol::Trusted;

use super::address::Address;
use super::overlap;
use super::plan::{
    DEFAULT_ANSWERS, DEFAULT_UNIX_MODE, DEFAULT_USER_TIMEOUT, Gate, Limits, Listener, Plan,
    Resolver, Service, Timeouts,
};
use super::report::{Fault, Faults};
use super::secrets::{self, Secrets};
use super::services::{self, Around};
use super::table::Table;
use super::tls::{self, MIN_TLS_BUFFER, Tls};
use super::{units, values};

/// The secret that the tutorials and the built-in configuration use. Everyone knows it.
pub const DEMONSTRATION_SECRET: &[u8] = b"Jedan has a big key!";

/// The most answers a second that one peer may be given; more than there can be are no bound.
const MAX_ANSWERS: usize = 1_000_000;

/// The most connections that may be asked for.
const MAX_CONNECTIONS: usize = 1_000_000;

/// Checks the whole of a configuration. Relative paths are relative to `folder`.
pub(super) fn plan(
    document: Spanned<DeTable<'_>>,
    folder: &Path,
    faults: &mut Faults,
) -> Option<Plan> {
    let mut document = Table::new("the file", document);
    let limits = limits(&mut document, faults);
    let resolver = resolver(&mut document, faults);
    let secrets = secrets::read(&mut document, folder, faults);
    if document.lacks("listener") {
        let help = "add a [[listener]] with a name, an address and a service";
        faults.add(0..0, Fault::new("nothing to listen on", "no [[listener]]", help));
    }
    let mut seen = Seen::default();
    let mut listeners = Vec::new();
    for table in document.tables("listener", "[[listener]]", faults) {
        let around = Around { folder, secrets: &secrets, limits: &limits };
        listeners.extend(listener(table, &around, &mut seen, faults));
    }
    document.finish(faults);
    overlap::settle(&mut listeners);
    let secrets = secrets.fetched;
    faults.are_none().then_some(Plan { limits, resolver, secrets, listeners, file: None })
}

fn limits(document: &mut Table<'_>, faults: &mut Faults) -> Limits {
    let defaults = Limits::default();
    let Some(mut table) = document.table("limits", "[limits]", faults) else { return defaults };
    let all = |value| values::count(value, 1..=MAX_CONNECTIONS);
    let connections = table.take("connections", all, faults).map(Spanned::into_inner);
    let mut limits = connections.map_or(defaults, Limits::of);
    let per_ip = |value| values::count(value, 0..=MAX_CONNECTIONS);
    set(&mut limits.connections_per_ip, table.take("connections_per_ip", per_ip, faults));
    set(&mut limits.unauthenticated, table.take("unauthenticated", all, faults));
    set(&mut limits.drain, table.take("drain", values::duration, faults));
    set(&mut limits.buffer, table.take("buffer", values::buffer, faults));
    limits.head = limits.head.min(limits.buffer);
    if let Some(head) = table.take("head", values::head, faults) {
        if *head.get_ref() > limits.buffer {
            let message =
                format!("a head of this length does not fit a buffer of {}", limits.buffer);
            let help = "write a larger `buffer`, or a smaller head";
            faults.add(head.span(), Fault::new(message, "limits.buffer is too small", help));
        }
        limits.head = head.into_inner();
    }
    table.finish(faults);
    limits
}

fn resolver(document: &mut Table<'_>, faults: &mut Faults) -> Resolver {
    let mut resolver = Resolver::default();
    let Some(mut table) = document.table("resolver", "[resolver]", faults) else { return resolver };
    set(&mut resolver.servers, table.take("servers", values::name_servers, faults));
    table.finish(faults);
    resolver
}

/// Names and addresses of the listeners so far.
#[derive(Default)]
struct Seen {
    names: Vec<String>,
    addresses: Vec<Address>,
}

fn listener(
    mut table: Table<'_>,
    around: &Around<'_>,
    seen: &mut Seen,
    faults: &mut Faults,
) -> Option<Listener> {
    let name = table.require("name", values::name, faults);
    let address = table.require("address", values::listener_address, faults);
    let place = address.as_ref().map(Spanned::get_ref);
    let gate = gate(&mut table, address.as_ref(), around.secrets, faults);
    let proxies = proxies(&mut table, place, faults);
    let tls = tls(&mut table, address.as_ref(), around, faults);
    let Waits { session, connect, user } = waits(&mut table, place, faults);
    let service = services::read(&mut table, connect, around, faults);
    let amplify = table.take("amplify", values::flag, faults);
    let answers = |value| values::count(value, 0..=MAX_ANSWERS);
    let answers = table.take("answers_per_second", answers, faults);
    let unix_mode = table.take("unix_mode", values::mode, faults);
    table.finish(faults);
    let needs_a_stream =
        |it: &Service| matches!(it, Service::Forward { .. } | Service::Connect { .. });
    if let (true, Some(Address::Udp(_)), Some(address)) =
        (service.as_ref().is_some_and(needs_a_stream), place, &address)
    {
        let message = "datagrams cannot be forwarded";
        let help = "listen on tcp:// or unix://";
        faults.add(address.span(), Fault::new(message, "udp", help));
    }

    if let (Some(amplify), Some(Address::Tcp(_) | Address::Unix(_))) = (&amplify, place) {
        let message = "`amplify` is for datagrams";
        let help = "remove it: a stream cannot be asked for under a forged address";
        faults.add(amplify.span(), Fault::new(message, "not udp", help));
    }
    if let (Some(answers), Some(Address::Tcp(_) | Address::Unix(_))) = (&answers, place) {
        let message = "`answers_per_second` is for datagrams";
        let help = "remove it: a stream has an end, and nothing goes round in it";
        faults.add(answers.span(), Fault::new(message, "not udp", help));
    }
    let message = match place {
        Some(Address::Tcp(_) | Address::Udp(_)) => Some("`unix_mode` is for Unix sockets"),
        Some(it) if it.is_abstract() => Some("no permissions keep anybody from an abstract name"),
        _ => None,
    };
    if let (Some(mode), Some(message)) = (&unix_mode, message) {
        let help = "remove it, or listen on unix:///path";
        faults.add(mode.span(), Fault::new(message, "not for this address", help));
    }
    if let Some(name) = &name {
        seen.name(name, faults);
    }
    if let Some(address) = &address {
        seen.address(address, faults);
    }
    Some(Listener {
        name: name?.into_inner(),
        address: address?.into_inner(),
        service: service?,
        gate,
        proxies,
        tls,
        timeouts: session,
        user_timeout: user,
        amplify: amplify.is_some_and(Spanned::into_inner),
        answers_per_second: answers.map_or(DEFAULT_ANSWERS, |answers| answers.into_inner() as u32),
        unix_mode: unix_mode.map_or(DEFAULT_UNIX_MODE, Spanned::into_inner),
        only_ipv6: false,
        head: around.limits.head,
    })
}

impl Seen {
    fn name(&mut self, name: &Spanned<String>, faults: &mut Faults) {
        if self.names.contains(name.get_ref()) {
            let message = format!("the listener `{}` is there twice", name.get_ref());
            let help = "give each listener its own name";
            faults.add(name.span(), Fault::new(message, "again", help));
        }
        self.names.push(name.get_ref().clone());
    }

    fn address(&mut self, address: &Spanned<Address>, faults: &mut Faults) {
        let found = self.addresses.iter().find_map(|it| overlap::conflict(it, address.get_ref()));
        if let Some(message) = found {
            let help = "give one of the two listeners another address";
            faults.add(address.span(), Fault::new(message, "again", help));
        }
        self.addresses.push(address.get_ref().clone());
    }
}

fn gate(
    table: &mut Table<'_>,
    address: Option<&Spanned<Address>>,
    secrets: &Secrets,
    faults: &mut Faults,
) -> Option<Gate> {
    let is_open = !table.has("auth");
    let auth = table.take("auth", values::auth, faults);
    let all_secrets = !table.has("secrets");
    let chosen = table.take("secrets", values::names, faults);
    let is_open = is_open || auth.as_ref().is_some_and(|auth| auth.get_ref().is_none());
    if let (true, Some(chosen)) = (is_open, &chosen) {
        let message = "`secrets` without `auth`: this listener lets everyone in";
        let help = "add auth = \"hmac-sha256\", or remove the secrets";
        faults.add(chosen.span(), Fault::new(message, "never asked for", help));
    }

    let auth = auth?;
    let digest = (*auth.get_ref())?;
    if matches!(address.map(Spanned::get_ref), Some(Address::Udp(_))) {
        let message = "datagrams have no session to admit";
        let help = "remove `auth`, or listen on tcp://";
        faults.add(auth.span(), Fault::new(message, "on a udp address", help));
    }
    let admitted: Vec<Secret> = if all_secrets {
        secrets.fetched.iter().map(|fetched| fetched.secret.clone()).collect()
    } else {
        secrets.pick(chosen.as_ref()?.get_ref(), faults)
    };
    let none_is_named = chosen.as_ref().is_some_and(|chosen| chosen.get_ref().is_empty());
    if none_is_named || !secrets.any {
        let message = "a gate without a secret lets nobody in";
        let help = "add a [[secret]]; `turnstile secret` makes one";
        faults.add(auth.span(), Fault::new(message, "needs a secret", help));
    }
    if let (Some(address), Some(public)) =
        (address, admitted.iter().find(|secret| secret.is(DEMONSTRATION_SECRET)))
    {
        reject_public(public, address, faults);
    }
    Some(Gate { digest, secrets: admitted })
}

fn proxies(table: &mut Table<'_>, address: Option<&Address>, faults: &mut Faults) -> Vec<Trusted> {
    let Some(proxies) = table.take("proxy_protocol_from", values::proxies, faults) else {
        return Vec::new();
    };
    let is_unix = |it: &Trusted| matches!(it, Trusted::Unix);
    let (message, help) = match address {
        Some(Address::Udp(_)) => {
            ("datagrams have no connection to announce", "remove it, or listen on tcp://")
        }
        Some(Address::Tcp(_)) if proxies.get_ref().iter().any(is_unix) => {
            ("nobody comes to a tcp address from a Unix socket", "write the addresses of proxies")
        }
        Some(Address::Unix(_)) if !proxies.get_ref().iter().all(is_unix) => {
            ("who comes to a Unix socket has no address", "write [\"unix\"] to believe all of them")
        }
        _ => return proxies.into_inner(),
    };
    faults.add(proxies.span(), Fault::new(message, "here", help));
    Vec::new()
}

fn tls(
    table: &mut Table<'_>,
    address: Option<&Spanned<Address>>,
    around: &Around<'_>,
    faults: &mut Faults,
) -> Option<Tls> {
    let tls = tls::read(table, &tls::Place { address, folder: around.folder }, faults)?;
    if around.limits.buffer < MIN_TLS_BUFFER {
        let least = units::show_size(MIN_TLS_BUFFER);
        let message = format!("a record of TLS does not fit a buffer of {}", around.limits.buffer);
        let help = format!("write buffer = \"{least}\" or more in [limits]");
        faults.add(tls.span(), Fault::new(message, "limits.buffer is too small", help));
    }
    Some(tls.into_inner())
}

/// The demonstration secret guards nothing, so it may stand only where nobody else gets.
fn reject_public(secret: &Secret, address: &Spanned<Address>, faults: &mut Faults) {
    let fault = match address.get_ref().is_loopback() {
        Ok(true) => return,
        Ok(false) => Fault::new(
            format!("the secret `{}` is the demonstration secret, which is public", secret.name()),
            "not a loopback address",
            "make a secret with `turnstile secret`, or listen on 127.0.0.1",
        ),
        Err(unknown) => Fault::new(unknown.to_string(), "unknown host", "write an IP address"),
    };
    faults.add(address.span(), fault);
}

/// What `[listener.timeouts]` says.
struct Waits {
    /// Of the sessions.
    session: Timeouts,
    /// Of the calls that they make, where anything is said of it.
    connect: Option<Spanned<Option<Duration>>>,
    /// Of what TCP has sent.
    user: Option<Duration>,
}

fn waits(table: &mut Table<'_>, address: Option<&Address>, faults: &mut Faults) -> Waits {
    let session = Timeouts::default();
    let mut waits = Waits { session, connect: None, user: Some(DEFAULT_USER_TIMEOUT) };
    let Some(mut table) = table.table("timeouts", "[listener.timeouts]", faults) else {
        return waits;
    };
    if matches!(address, Some(Address::Udp(_))) {
        let message = "datagrams have no session to time";
        let help = "remove the timeouts, or listen on tcp://";
        faults.add(table.span(), Fault::new(message, "on a udp address", help));
    }
    let Waits { session: timeouts, connect, user } = &mut waits;
    set(&mut timeouts.proxy, table.take("proxy", values::timeout, faults));
    set(&mut timeouts.tls, table.take("tls", values::timeout, faults));
    set(&mut timeouts.auth, table.take("auth", values::timeout, faults));
    set(&mut timeouts.idle, table.take("idle", values::timeout, faults));
    set(&mut timeouts.half_close, table.take("half_close", values::timeout, faults));
    set(&mut timeouts.lifetime, table.take("lifetime", values::timeout, faults));
    set(user, table.take("user_timeout", values::timeout, faults));
    *connect = table.take("connect", values::timeout, faults);
    table.finish(faults);
    waits
}

/// Puts what was found in the place of the default.
fn set<T>(place: &mut T, found: Option<Spanned<T>>) {
    if let Some(found) = found {
        *place = found.into_inner();
    }
}
