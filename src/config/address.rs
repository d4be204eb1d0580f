//! Addresses as people write them: `tcp://host:port`, `tls://host:port`, `udp://host:port`,
//! `unix:///path`, `unix:@name` (in the abstract namespace of Linux); a bare `host:port` is tcp.
//!
//! This module reads, prints and resolves them. It opens no socket.
//!
//! Invariant: what [`Address`] prints, it reads back as an equal address; and two ways of writing
//! one IP address, or one host name in capitals or not, give equal addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::proto::host;
use crate::proto::idn;

/// Every form of an address, for help texts.
pub const FORMS: &str = "tcp://host:port, tls://host:port, udp://host:port, unix:///path, \
                         unix:@name, or host:port for tcp";

/// The longest path of a Unix socket, in bytes: `sun_path` of unix(7) less its closing NUL.
const MAX_UNIX_PATH: usize = 107;

/// The longest name of an interface, in bytes: `IFNAMSIZ` less its closing NUL.
const MAX_ZONE: usize = 15;

/// Where to listen, or where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP stream.
    Tcp(HostPort),
    /// TLS over TCP. Only clients use it: what a listener speaks is not part of its address.
    Tls(HostPort),
    /// Datagrams.
    Udp(HostPort),
    /// A Unix stream socket at this absolute path, or with this abstract name behind an `@`.
    Unix(PathBuf),
}

/// A host, by name or by number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A host name in lower case, an IPv4 address, or an IPv6 address without its brackets and with
    /// its zone, if it has one.
    pub host: String,
    /// The port; 0 lets the system choose one to listen on.
    pub port: u16,
}

impl Address {
    /// The host and port, or `None` for a Unix socket.
    #[must_use]
    pub fn host_port(&self) -> Option<&HostPort> {
        match self {
            Self::Tcp(at) | Self::Tls(at) | Self::Udp(at) => Some(at),
            Self::Unix(_) => None,
        }
    }

    /// Whether it is a Unix socket in the abstract namespace, which no file stands for.
    #[must_use]
    pub fn is_abstract(&self) -> bool {
        matches!(self, Self::Unix(path) if !path.is_absolute())
    }

    /// Whether only this machine can reach it: a Unix socket always, a host when every address
    /// that its name stands for is a loopback address. Looks names up as
    /// [`HostPort::resolve`] does, and blocks as it does.
    ///
    /// # Errors
    /// The host is unknown.
    pub fn is_loopback(&self) -> Result<bool, ResolveError> {
        let Some(at) = self.host_port() else { return Ok(true) };
        Ok(at.resolve()?.iter().all(|address| address.ip().to_canonical().is_loopback()))
    }
}

impl HostPort {
    /// Whether the host is given by name, so that somebody must be asked for its address.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.host.contains(':') && self.host.parse::<IpAddr>().is_err()
    }

    /// Whether the host is an IPv6 address that means something only behind one interface, which it
    /// names (`fe80::1%eth0`).
    #[must_use]
    pub fn has_zone(&self) -> bool {
        self.host.contains('%')
    }

    /// Every socket address that this host and port stand for, each once; never none.
    ///
    /// A host name is looked up by the system's resolver, which blocks, for seconds when a name
    /// server does not answer: for start-up only, never inside the event loop.
    ///
    /// # Errors
    /// The host is unknown, or the resolver failed.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let unknown = |reason| {
            let no_zone =
                |(_, zone)| io::Error::other(format!("there is no interface `{zone}` (`ip link`)"));
            let reason = self.host.split_once('%').map_or(reason, no_zone);
            ResolveError { host: self.host.clone(), reason }
        };
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in (self.host.as_str(), self.port).to_socket_addrs().map_err(unknown)? {
            // Some hosts files name one address twice.
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() {
            return Err(unknown(io::Error::other("the name has no address")));
        }
        Ok(found)
    }
}

/// No address was found for a host.
#[derive(Debug, thiserror::Error)]
#[error("unknown host `{host}`: {reason}; check the spelling, or write an IP address")]
pub struct ResolveError {
    host: String,
    reason: io::Error,
}

impl ResolveError {
    /// Nothing was found for `host`, because of `reason`.
    #[must_use]
    pub fn new(host: String, reason: io::Error) -> Self {
        Self { host, reason }
    }
}

/// A text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {reason}")]
pub struct AddressError {
    text: String,
    reason: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = match text.split_once("://") {
            _ if text.starts_with("unix:@") => abstract_name(&text[5..]).map(Self::Unix),
            None if text.starts_with('/') => Err(format!("a Unix socket is unix://{text}")),
            None | Some(("tcp", _)) => host_port(text, "tcp://").map(Self::Tcp),
            Some(("tls", _)) => host_port(text, "tls://").map(Self::Tls),
            Some(("udp", _)) => host_port(text, "udp://").map(Self::Udp),
            Some(("unix", name)) if name.starts_with('@') => abstract_name(name).map(Self::Unix),
            Some(("unix", path)) => unix_path(path).map(Self::Unix),
            Some((scheme, _)) => Err(format!("`{scheme}` is unknown; write {FORMS}")),
        };
        address.map_err(|reason| AddressError { text: text.to_owned(), reason })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => write!(f, "tcp://{at}"),
            Self::Tls(at) => write!(f, "tls://{at}"),
            Self::Udp(at) => write!(f, "udp://{at}"),
            Self::Unix(name) if self.is_abstract() => write!(f, "unix:{}", name.display()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads what follows `scheme`, or all of `text` where it does not begin with it.
fn host_port(text: &str, scheme: &str) -> Result<HostPort, String> {
    let text = text.strip_prefix(scheme).unwrap_or(text);
    let Some((host, port)) = text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) else {
        return Err("it has no port; write host:port".to_owned());
    };
    Ok(HostPort { host: parse_host(host)?, port: parse_port(port)? })
}

fn parse_host(host: &str) -> Result<String, String> {
    if let Some(rest) = host.strip_prefix('[') {
        return parse_ipv6(rest.strip_suffix(']').unwrap_or(rest));
    }
    if host.is_empty() || host == "*" {
        return Err("it has no host; every address of this machine is 0.0.0.0 or [::]".to_owned());
    }
    if host.contains(':') {
        return Err("an IPv6 address goes in brackets, as in [::1]:80".to_owned());
    }
    if let Some(ascii) = idn::ascii_form(host) {
        return Err(format!("in the name system this host is written {ascii}; write that"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !host.bytes().all(allowed) {
        return Err("a host is a name or an IP address, with nothing around it".to_owned());
    }
    if !host::is_name(host.strip_suffix('.').unwrap_or(host)) {
        return Err(
            "this cannot be a name: between dots stand 1 to 63 characters, and the whole has \
                    253 at the most"
                .to_owned(),
        );
    }
    Ok(host::ipv4(host).map_or_else(|| host.to_ascii_lowercase(), |address| address.to_string()))
}

/// An IPv6 address, with the zone that a link-local one needs (`fe80::1%eth0`, RFC 6874 less its
/// escaping).
fn parse_ipv6(text: &str) -> Result<String, String> {
    let (number, zone) = text.split_once('%').map_or((text, None), |(n, z)| (n, Some(z)));
    let wrong = || "what stands in brackets is not an IPv6 address, such as [::1]".to_owned();
    let number: Ipv6Addr = number.parse().map_err(|_| wrong())?;
    match zone {
        // What stands for an IPv4 address is one: a socket of IPv6 alone cannot be bound to it.
        None => Ok(IpAddr::V6(number).to_canonical().to_string()),
        Some(zone) if is_zone(zone) => Ok(format!("{number}%{zone}")),
        Some(_) => Err(wrong()),
    }
}

/// Whether an interface may have this name or number: Linux allows nearly everything in it.
fn is_zone(zone: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"%/:[]".contains(&byte);
    (1..=MAX_ZONE).contains(&zone.len()) && zone.bytes().all(allowed)
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| "a port is a number from 0 to 65535".to_owned())
}

fn unix_path(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("a Unix socket has an absolute path, as in unix:///run/gate.sock".to_owned());
    }
    if path.len() > MAX_UNIX_PATH {
        return Err(format!("the system allows a socket's path {MAX_UNIX_PATH} bytes"));
    }
    if path.contains('\0') {
        return Err("a path cannot hold a NUL".to_owned());
    }
    Ok(Path::new(path).to_owned())
}

/// The name of a socket in the abstract namespace, its `@` included, which stands for the NUL that
/// the system has there.
fn abstract_name(name: &str) -> Result<PathBuf, String> {
    if !(2..=MAX_UNIX_PATH + 1).contains(&name.len()) {
        return Err(format!("an abstract name has 1 to {MAX_UNIX_PATH} bytes behind its @"));
    }
    if name.chars().any(char::is_control) {
        return Err("a name cannot hold control characters".to_owned());
    }
    Ok(Path::new(name).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_is_read_and_printed() {
        let cases = [
            ("tcp://127.0.0.1:9999", "tcp://127.0.0.1:9999"),
            ("localhost:80", "tcp://localhost:80"),
            ("LocalHost:80", "tcp://localhost:80"),
            ("tls://example.org:443", "tls://example.org:443"),
            ("udp://[::]:12345", "udp://[::]:12345"),
            ("[0:0::1]:0", "tcp://[::1]:0"),
            ("[::ffff:127.0.0.1]:80", "tcp://127.0.0.1:80"),
            ("127.1:80", "tcp://127.0.0.1:80"),
            ("tcp://[fe80::1%eth0]:7", "tcp://[fe80::1%eth0]:7"),
            ("tcp://[FE80:0::1%br-lan_0.100]:7", "tcp://[fe80::1%br-lan_0.100]:7"),
            ("tls://[fe80::1%2]:7", "tls://[fe80::1%2]:7"),
            ("db.example.:5432", "tcp://db.example.:5432"),
            ("unix:///run/gate.sock", "unix:///run/gate.sock"),
            ("unix:@gate", "unix:@gate"),
            ("unix://@gate/é 1", "unix:@gate/é 1"),
        ];
        for (text, printed) in cases {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), printed);
            assert_eq!(printed.parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_the_right_form() {
        let cases = [
            ("localhost", "it has no port"),
            ("tcp://[::1]", "it has no port"),
            (":80", "0.0.0.0 or [::]"),
            ("tcp://*:80", "0.0.0.0 or [::]"),
            ("::1:80", "goes in brackets"),
            ("[::1%]:80", "not an IPv6 address"),
            ("[fe80::1%a/b]:80", "not an IPv6 address"),
            ("[fe80::1%longer-than-names]:80", "not an IPv6 address"),
            ("b\u{fc}cher.example:80", "written xn--bcher-kva.example"),
            ("a..b:80", "cannot be a name"),
            (".:80", "cannot be a name"),
            ("[127.0.0.1]:80", "not an IPv6 address"),
            ("localhost:65536", "from 0 to 65535"),
            ("a..b:80", "between dots stand 1 to 63"),
            (".a:80", "between dots stand 1 to 63"),
            ("a..:80", "between dots stand 1 to 63"),
            ("localhost:+80", "from 0 to 65535"),
            ("localhost:", "from 0 to 65535"),
            ("tcp://me@localhost:80", "with nothing around it"),
            ("http://localhost:80", "`http` is unknown"),
            ("/run/gate.sock", "unix:///run/gate.sock"),
            ("unix://run/gate.sock", "absolute path"),
            ("unix:///run/", "absolute path"),
            ("unix:@", "1 to 107 bytes"),
            ("unix:@a\0", "control characters"),
        ];
        for (text, part) in cases {
            let message = text.parse::<Address>().expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(message.starts_with(&format!("`{text}` is not an address: ")), "{message}");
        }
        let long = format!("unix:///{}", "x".repeat(MAX_UNIX_PATH));
        assert!(long.parse::<Address>().is_err());
        assert!(format!("{}:80", "x".repeat(64)).parse::<Address>().is_err());
        assert!(format!("{}x:80", "x.".repeat(127)).parse::<Address>().is_err());
    }

    #[test]
    fn loopback_is_what_only_this_machine_reaches() {
        let cases = [
            ("tcp://127.3.2.1:80", true),
            ("udp://[::1]:80", true),
            ("tcp://[::ffff:127.0.0.1]:80", true),
            ("localhost:80", true),
            ("unix:///run/gate.sock", true),
            ("unix:@gate", true),
            ("tcp://0.0.0.0:80", false),
            ("tcp://[::]:80", false),
            ("tcp://192.0.2.1:80", false),
        ];
        for (text, expected) in cases {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.is_loopback().expect(text), expected, "{text}");
        }
    }

    #[test]
    fn an_unknown_host_is_said_to_be_unknown() {
        // A name under `.invalid` never exists (RFC 6761).
        let address: Address = "tcp://nobody.invalid:80".parse().expect("well formed");
        let message = address.is_loopback().expect_err("must not resolve").to_string();
        assert!(message.starts_with("unknown host `nobody.invalid`: "), "{message}");
    }

    #[test]
    fn an_interface_that_is_not_there_is_said_not_to_be() {
        let address: Address = "tcp://[fe80::1%none0]:80".parse().expect("well formed");
        let message = address.is_loopback().expect_err("must not resolve").to_string();
        assert!(message.contains("there is no interface `none0`"), "{message}");
    }

    proptest! {
        #[test]
        fn what_is_read_is_printed_so_that_it_is_read_again(text in "((tcp|tls|udp|unix)://|unix:)?[/@]?\\PC{0,12}(:[0-9]{1,5})?") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
