//! What each kind of TOML value may be: one function a kind, from the parsed value to a typed one
//! or to what is wrong with it.
//!
//! A function here sees one value alone; whether values go together is for [`super::check`].

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};
use zeroize::Zeroizing;

use crate::proto::gate::Digest;
use crate::proto::http_connect::{Authority, AuthorityError, MAX_HEAD, Rule, RuleError};
use crate::proto::proxy_protocol::trust::TRUSTED_FORMS;
use crate::proto::proxy_protocol::{Trusted, TrustedError, Version, VersionError};
use crate::proto::resolver::{MAX_SERVERS, Server};
use crate::proto::service::Kind;

use super::address::Address;
use super::plan::{MAX_BUFFER, MIN_BUFFER, MIN_HEAD, Service, service_name};
use super::report::Fault;
use super::units;

/// The longest name of a listener or a secret, in characters.
const MAX_NAME: usize = 64;

/// The longest text of `service = "reply"`, in bytes: it fits whole into the smallest buffer.
const MAX_REPLY: usize = MIN_BUFFER;

/// Every service there is; `reply` without its text and `forward` without its targets, which are
/// keys of their own.
fn services() -> [Service; 11] {
    [
        Service::Own(Kind::Upper),
        Service::Own(Kind::Once),
        Service::Own(Kind::Greet),
        Service::Own(Kind::Time),
        Service::Own(Kind::Echo),
        Service::Own(Kind::Discard),
        Service::Own(Kind::Daytime),
        Service::Own(Kind::Chargen),
        Service::Own(Kind::Reply([].into())),
        Service::Connect { targets: Vec::new(), connect: None },
        Service::Forward { to: Vec::new(), connect: None, upstream: Box::default() },
    ]
}

/// A string of any kind.
pub(super) fn text(value: DeValue<'_>) -> Result<String, Fault> {
    match value {
        DeValue::String(text) => Ok(text.into_owned()),
        other => Err(wrong_type(&other, "a string", "put it in quotes")),
    }
}

/// The bytes of a secret.
pub(super) fn secret_bytes(value: DeValue<'_>) -> Result<Zeroizing<Vec<u8>>, Fault> {
    text(value).map(|text| Zeroizing::new(text.into_bytes()))
}

/// A name of a listener or a secret: one word, because it stands in log lines.
pub(super) fn name(value: DeValue<'_>) -> Result<String, Fault> {
    let name = text(value)?;
    let word = !name.contains(|c: char| c.is_whitespace() || c.is_control());
    if word && (1..=MAX_NAME).contains(&name.chars().count()) {
        return Ok(name);
    }
    let help = format!("a name has 1 to {MAX_NAME} characters, none of them white space");
    Err(Fault::new("not a name", "not a name", help))
}

/// Names of secrets.
pub(super) fn names(value: DeValue<'_>) -> Result<Vec<Spanned<String>>, Fault> {
    const RIGHT: &str = "write a list of names, such as [\"one\", \"two\"]";
    let DeValue::Array(array) = value else {
        return Err(wrong_type(&value, "a list", RIGHT));
    };
    let named = |element: Spanned<DeValue<'_>>| {
        let span = element.span();
        match element.into_inner() {
            DeValue::String(name) => Ok(Spanned::new(span, name.into_owned())),
            other => Err(wrong_type(&other, "a list of strings", RIGHT)),
        }
    };
    array.into_iter().map(named).collect()
}

/// An address that can be listened on.
pub(super) fn listener_address(value: DeValue<'_>) -> Result<Address, Fault> {
    const RIGHT: &str = "a listener's address is tcp://host:port, udp://host:port or unix:///path";
    let text = text(value)?;
    match text.parse() {
        Ok(Address::Tls(_)) => {
            let message = format!("`{text}` cannot be listened on");
            Err(Fault::new(message, "not for a listener", RIGHT))
        }
        Ok(address) => Ok(address),
        Err(error) => Err(Fault::new(error.to_string(), "not an address", RIGHT)),
    }
}

/// A service by its name, without what other keys say about it.
pub(super) fn service(value: DeValue<'_>) -> Result<Service, Fault> {
    let name = text(value)?;
    services().into_iter().find(|service| service_name(service) == name).ok_or_else(|| {
        let known: Vec<_> = services().iter().map(service_name).collect();
        let help = format!("the services are {}", known.join(", "));
        Fault::new(format!("unknown service `{name}`"), "unknown", help)
    })
}

/// Where `service = "forward"` carries bytes to: one address, or a list of them.
pub(super) fn targets(value: DeValue<'_>) -> Result<Vec<Address>, Fault> {
    const RIGHT: &str = "write \"tcp://host:port\" or \"unix:///path\", or a list of them";
    let targets: Result<Vec<_>, _> = match value {
        DeValue::String(text) => [Ok(text.into_owned())].into_iter().map(target).collect(),
        DeValue::Array(array) => array
            .into_iter()
            .map(|element| match element.into_inner() {
                DeValue::String(text) => Ok(text.into_owned()),
                other => Err(wrong_type(&other, "a list of strings", RIGHT)),
            })
            .map(target)
            .collect(),
        other => return Err(wrong_type(&other, "a string or a list", RIGHT)),
    };
    match targets {
        Ok(targets) if targets.is_empty() => {
            Err(Fault::new("there is nowhere to forward to", "empty", RIGHT))
        }
        targets => targets,
    }
}

/// What may be asked for with CONNECT.
pub(super) fn rules(value: DeValue<'_>) -> Result<Vec<Rule>, Fault> {
    const RIGHT: &str = "write a list such as [\"db.internal:5432\", \"*.example.org:443\"]";
    let DeValue::Array(array) = value else { return Err(wrong_type(&value, "a list", RIGHT)) };
    let rule = |element: Spanned<DeValue<'_>>| {
        let text = text(element.into_inner())?;
        text.parse()
            .map_err(|error: RuleError| Fault::new(error.to_string(), "not a target", RIGHT))
    };
    array.into_iter().map(rule).collect()
}

/// A host and a port that an exit is asked for.
pub(super) fn authority(value: DeValue<'_>) -> Result<Authority, Fault> {
    let text = text(value)?;
    text.parse().map_err(|error: AuthorityError| {
        Fault::new(error.to_string(), "not a target", "write \"host:port\"")
    })
}

/// Name servers: IP addresses, each with a port unless that is the usual one, and link-local ones
/// with their zone. An empty list leaves them to the system.
pub(super) fn name_servers(value: DeValue<'_>) -> Result<Vec<Server>, Fault> {
    const RIGHT: &str = "write a list such as [\"192.0.2.53\", \"[2001:db8::53]:5353\"]";
    let DeValue::Array(array) = value else {
        return Err(wrong_type(&value, "a list", RIGHT));
    };
    if array.len() > MAX_SERVERS {
        let message = format!("{} name servers are too many", array.len());
        return Err(Fault::new(message, "too many", format!("write {MAX_SERVERS} at the most")));
    }
    let server = |element: Spanned<DeValue<'_>>| {
        let text = text(element.into_inner())?;
        let server: Option<Server> = text.parse().ok();
        server.filter(|server| server.address.port() != 0).ok_or_else(|| {
            let message = format!("`{text}` is not the address of a name server");
            Fault::new(message, "not an IP address", RIGHT)
        })
    };
    array.into_iter().map(server).collect()
}

fn target(text: Result<String, Fault>) -> Result<Address, Fault> {
    const RIGHT: &str = "targets are tcp://host:port, tls://host:port or unix:///path";
    let text = text?;
    match text.parse() {
        Ok(address @ (Address::Tcp(_) | Address::Tls(_) | Address::Unix(_))) => Ok(address),
        Ok(_) => Err(Fault::new(format!("`{text}` cannot be forwarded to"), "not a target", RIGHT)),
        Err(error) => Err(Fault::new(error.to_string(), "not an address", RIGHT)),
    }
}

/// Proxies that say for whom they connect.
pub(super) fn proxies(value: DeValue<'_>) -> Result<Vec<Trusted>, Fault> {
    const RIGHT: &str = "write a list such as [\"192.0.2.10\", \"10.0.0.0/8\"]";
    let DeValue::Array(array) = value else { return Err(wrong_type(&value, "a list", RIGHT)) };
    let proxy = |element: Spanned<DeValue<'_>>| {
        let text = text(element.into_inner())?;
        text.parse().map_err(|error: TrustedError| {
            let help = match &error {
                TrustedError::NoAddress(_) => format!("write {TRUSTED_FORMS}"),
                TrustedError::Inside { given, network } => {
                    format!("write {network} for all of it, or {} for one address", given.addr())
                }
            };
            Fault::new(error.to_string(), "not a proxy", help)
        })
    };
    array.into_iter().map(proxy).collect()
}

/// A version of the PROXY protocol.
pub(super) fn proxy_version(value: DeValue<'_>) -> Result<Version, Fault> {
    text(value)?
        .parse()
        .map_err(|error: VersionError| Fault::new(error.to_string(), "unknown", "write v1 or v2"))
}

/// What `service = "reply"` answers.
pub(super) fn reply_text(value: DeValue<'_>) -> Result<Vec<u8>, Fault> {
    let text = text(value)?;
    if (1..=MAX_REPLY).contains(&text.len()) {
        return Ok(text.into_bytes());
    }
    let message = format!("a text of {} bytes is out of range", text.len());
    Err(Fault::new(message, "out of range", format!("write 1 to {MAX_REPLY} bytes")))
}

/// How clients prove themselves; `None` when they need not.
pub(super) fn auth(value: DeValue<'_>) -> Result<Option<Digest>, Fault> {
    let name = text(value)?;
    if name == "none" {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|_| {
        let help = "write none, hmac-md5 or hmac-sha256";
        Fault::new(format!("unknown authentication `{name}`"), "unknown", help)
    })
}

/// A duration.
pub(super) fn duration(value: DeValue<'_>) -> Result<Duration, Fault> {
    const RIGHT: &str = "write a whole number and ms, s, m or h in quotes";
    let DeValue::String(text) = value else {
        return Err(wrong_type(&value, "a duration", RIGHT));
    };
    units::parse_duration(&text)
        .map_err(|error| Fault::new(error.to_string(), "this duration", RIGHT))
}

/// A duration, of which zero turns off what it is for.
pub(super) fn timeout(value: DeValue<'_>) -> Result<Option<Duration>, Fault> {
    duration(value).map(units::limit)
}

/// A whole number in `range`.
pub(super) fn count(value: DeValue<'_>, range: RangeInclusive<usize>) -> Result<usize, Fault> {
    let right = format!("write a whole number from {} to {}", range.start(), range.end());
    let DeValue::Integer(number) = value else {
        return Err(wrong_type(&value, "a whole number", &right));
    };
    usize::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| Fault::new(format!("{number} is out of range"), "out of range", right))
}

/// Bytes of a buffer: a whole number, or a text such as `64KiB`.
pub(super) fn buffer(value: DeValue<'_>) -> Result<usize, Fault> {
    size(value, MIN_BUFFER..=MAX_BUFFER)
}

/// Bytes of a head of HTTP CONNECT, written likewise.
pub(super) fn head(value: DeValue<'_>) -> Result<usize, Fault> {
    size(value, MIN_HEAD..=MAX_HEAD)
}

fn size(value: DeValue<'_>, range: RangeInclusive<usize>) -> Result<usize, Fault> {
    let DeValue::String(text) = &value else { return count(value, range) };
    let (least, most) = (units::show_size(*range.start()), units::show_size(*range.end()));
    let right = format!("write a size from \"{least}\" to \"{most}\"");
    match units::parse_size(text) {
        Ok(size) if range.contains(&size) => Ok(size),
        Ok(_) => Err(Fault::new(format!("{text} is out of range"), "out of range", right)),
        Err(error) => Err(Fault::new(error.to_string(), "not a size", right)),
    }
}

/// Permission bits.
pub(super) fn mode(value: DeValue<'_>) -> Result<u32, Fault> {
    const RIGHT: &str = "write octal digits up to 0777 in quotes";
    let DeValue::String(text) = value else {
        return Err(wrong_type(&value, "a mode", RIGHT));
    };
    units::parse_mode(&text).map_err(|error| Fault::new(error.to_string(), "not a mode", RIGHT))
}

/// Yes or no.
pub(super) fn flag(value: DeValue<'_>) -> Result<bool, Fault> {
    match value {
        DeValue::Boolean(flag) => Ok(flag),
        other => Err(wrong_type(&other, "true or false", "write true or false, without quotes")),
    }
}

/// A table, written `header`.
pub(super) fn table<'t>(value: DeValue<'t>, header: &str) -> Result<DeTable<'t>, Fault> {
    match value {
        DeValue::Table(table) => Ok(table),
        other => Err(wrong_type(&other, "a table", &format!("write {header}"))),
    }
}

/// Any number of tables, each written `header`.
pub(super) fn tables<'t>(value: DeValue<'t>, header: &str) -> Result<DeArray<'t>, Fault> {
    let right = format!("write {header}, in double brackets, once for each");
    match value {
        DeValue::Array(array) => Ok(array),
        other => Err(wrong_type(&other, "a list of tables", &right)),
    }
}

/// What to say of a value of the wrong type. Names the type and not the value, which may be a
/// secret in the wrong place.
pub(super) fn wrong_type(value: &DeValue<'_>, expected: &str, right: &str) -> Fault {
    let found = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Fault::new(format!("expected {expected}, found {found}"), found, right)
}
