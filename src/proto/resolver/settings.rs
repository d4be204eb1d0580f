//! What the system's files say about looking names up: resolv.conf(5) and hosts(5), as texts.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::collections::HashMap;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use super::Addresses;

/// The port of a name server.
pub const DNS_PORT: u16 = 53;

/// The most name servers that are asked (`MAXNS` of resolv.conf(5)).
pub const MAX_SERVERS: usize = 3;

/// The most addresses of a name that are kept: nobody tries more, and an answer may hold thousands.
pub const MAX_ADDRESSES: usize = 8;

/// Whom to ask, and how: what resolv.conf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name servers, in the order in which they are asked; at least one.
    pub servers: Vec<Server>,
    /// The domains in which a short name is looked for.
    pub search: Vec<String>,
    /// How many dots make a name long, so that it is first asked for as it stands.
    pub dots: usize,
    /// How long one server is waited for.
    pub timeout: Duration,
    /// How often the whole list of servers is gone through.
    pub attempts: usize,
    /// `rotate`: the servers take turns in being asked first.
    pub rotates: bool,
    /// `use-vc`: every question is put over a stream.
    pub uses_streams: bool,
    /// `single-request`: IPv6 addresses are asked for when the question for the others is settled.
    pub asks_singly: bool,
    /// `edns0`: servers are offered to take longer answers (RFC 6891), which some do not bear.
    pub is_extended: bool,
    /// `no-aaaa`: nobody is asked for IPv6 addresses.
    pub wants_no_v6: bool,
    /// `no-tld-query`: a name without a dot is not asked for as it stands.
    pub spares_roots: bool,
    /// `no-reload`: what the file says later counts for nothing.
    pub is_final: bool,
}

/// A name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub address: SocketAddr,
    /// By name or number, the interface behind which a link-local address is (RFC 4007, 11).
    pub zone: Option<String>,
}

/// The text is not the address of a name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the address of a name server")]
pub struct ServerError;

impl From<SocketAddr> for Server {
    fn from(address: SocketAddr) -> Self {
        Self { address, zone: None }
    }
}

/// An IP address, with a port where that is not the usual one: `192.0.2.53`, `[2001:db8::53]:5353`,
/// `fe80::53%eth0`, `[fe80::53%eth0]:5353`.
impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        if let Ok(address) = text.parse::<SocketAddrV4>() {
            return Ok(Self::from(SocketAddr::V4(address)));
        }
        let bracketed = text.strip_prefix('[').map(|rest| rest.rsplit_once(']').ok_or(ServerError));
        let (host, port) = match bracketed.transpose()? {
            Some((host, "")) => (host, DNS_PORT),
            Some((host, rest)) => {
                let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
                (host, port.ok_or(ServerError)?)
            }
            None => (text, DNS_PORT),
        };
        let (number, zone) = host.split_once('%').map_or((host, None), |(n, z)| (n, Some(z)));
        let ip: IpAddr = number.parse().map_err(|_| ServerError)?;
        if zone.is_some_and(|zone| zone.is_empty() || ip.is_ipv4()) {
            return Err(ServerError);
        }
        Ok(Self { address: SocketAddr::new(ip, port), zone: zone.map(str::to_owned) })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "[{}%{zone}]:{}", self.address.ip(), self.address.port()),
            None => self.address.fmt(f),
        }
    }
}

/// What is said beside the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// `RES_OPTIONS`: options that come after those of the file.
    pub options: &'a str,
    /// `LOCALDOMAIN`: domains that are searched instead of those of the file.
    pub domains: Option<&'a str>,
    /// What this machine is called: its own domain is searched where no other is named.
    pub machine: &'a str,
}

/// What resolv.conf(5) says where a file says nothing.
impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT).into()],
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotates: false,
            uses_streams: false,
            asks_singly: false,
            is_extended: false,
            wants_no_v6: false,
            spares_roots: false,
            is_final: false,
        }
    }
}

impl Settings {
    /// Reads the text of a resolv.conf. What it does not understand it passes over, as every
    /// resolver does: the file is not ours.
    #[must_use]
    pub fn parse(text: &str, beside: &Beside<'_>) -> Self {
        let mut settings = Self::default();
        let mut servers = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with([';', '#'])) {
            let mut words = words(line);
            match words.next() {
                Some("nameserver") => servers.extend(words.next().and_then(name_server)),
                // The last of these lines counts.
                Some("search") => settings.search = words.map(str::to_owned).collect(),
                Some("domain") => settings.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| settings.set(option)),
                _ => {}
            }
        }
        servers.truncate(MAX_SERVERS);
        if !servers.is_empty() {
            settings.servers = servers;
        }
        if let Some(domains) = beside.domains {
            settings.search = words(domains).map(str::to_owned).collect();
        } else if settings.search.is_empty()
            && let Some((_, domain)) = beside.machine.trim().split_once('.')
        {
            settings.search = vec![domain.to_owned()];
        }
        words(beside.options).for_each(|option| settings.set(option));
        settings
    }

    /// Whether a text names a server that [`parse`](Self::parse) would find.
    #[must_use]
    pub fn names_server(text: &str) -> bool {
        let is_server = |line: &str| {
            let mut words = words(line);
            words.next() == Some("nameserver") && words.next().and_then(name_server).is_some()
        };
        text.lines().any(is_server)
    }

    /// The ranges are those of resolv.conf(5); zero would ask nobody.
    fn set(&mut self, option: &str) {
        let (name, value) = match option.split_once(':') {
            Some((name, value)) => (name, value.parse::<u32>().ok()),
            None => (option, None),
        };
        match (name, value) {
            ("ndots", Some(value)) => self.dots = value.min(15) as usize,
            ("timeout", Some(value)) => {
                self.timeout = Duration::from_secs(value.clamp(1, 30).into());
            }
            ("attempts", Some(value)) => self.attempts = value.clamp(1, 5) as usize,
            ("rotate", _) => self.rotates = true,
            ("use-vc", _) => self.uses_streams = true,
            ("single-request" | "single-request-reopen", _) => self.asks_singly = true,
            ("edns0", _) => self.is_extended = true,
            ("no-aaaa", _) => self.wants_no_v6 = true,
            ("no-tld-query", _) => self.spares_roots = true,
            ("no-reload", _) => self.is_final = true,
            _ => {}
        }
    }
}

/// The words of a line, up to a comment.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace().take_while(|word| !word.starts_with(['#', ';']))
}

/// A zone counts only where the address leaves it open; elsewhere it is passed over.
fn name_server(word: &str) -> Option<Server> {
    let (number, zone) = word.split_once('%').map_or((word, None), |(n, z)| (n, Some(z)));
    let ip: IpAddr = number.parse().ok()?;
    let is_open =
        matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local() || is_link_multicast(ip));
    let zone = zone.filter(|zone| is_open && !zone.is_empty()).map(str::to_owned);
    Some(Server { address: SocketAddr::new(ip, DNS_PORT), zone })
}

fn is_link_multicast(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xff0f == 0xff02
}

/// The names that this machine knows by itself.
#[derive(Clone, Debug, Default)]
pub struct Hosts(HashMap<String, Addresses>);

impl Hosts {
    /// Reads the text of a hosts file; lines that it does not understand it passes over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
            for name in words {
                admit(found.entry(name.to_ascii_lowercase()).or_default(), address);
            }
        }
        let in_turn = |(name, addresses)| (name, interleaved(addresses));
        Self(found.into_iter().map(in_turn).collect())
    }

    /// The addresses of a host that nobody needs to be asked for: one given by number, one that the
    /// file names, or this machine itself (RFC 6761, 6.3).
    #[must_use]
    pub fn addresses(&self, host: &str) -> Option<Addresses> {
        if let Ok(address) = host.parse() {
            return Some(Rc::new([address]));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        if let Some(addresses) = self.0.get(name) {
            return Some(Rc::clone(addresses));
        }
        let is_here = name == "localhost" || name.ends_with(".localhost");
        is_here.then(|| Rc::new([Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]) as _)
    }
}

/// Adds an address, unless it is there or its family has as many as are kept.
pub(super) fn admit(addresses: &mut Vec<IpAddr>, address: IpAddr) {
    let same_family = addresses.iter().filter(|other| other.is_ipv6() == address.is_ipv6());
    if same_family.count() < MAX_ADDRESSES && !addresses.contains(&address) {
        addresses.push(address);
    }
}

/// The addresses in the order in which RFC 8305 (4) tries them: the families by turns, IPv6 first,
/// and no more than [`MAX_ADDRESSES`].
#[must_use]
pub fn interleaved(addresses: Vec<IpAddr>) -> Addresses {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut by_turns = Vec::with_capacity(six.len() + four.len());
    while six.len() + four.len() > 0 {
        by_turns.extend(six.next());
        by_turns.extend(four.next());
    }
    by_turns.truncate(MAX_ADDRESSES);
    by_turns.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Settings {
        Settings::parse(text, &Beside::default())
    }

    #[test]
    fn a_resolv_conf_is_read() {
        let settings = parsed(
            "# a comment\n; another\ndomain overruled.example\nsearch a.example b.example\n\
             nameserver 192.0.2.1\nnameserver 2001:db8::1 trailing\nnameserver nonsense\n\
             nameserver 192.0.2.2\nnameserver 192.0.2.3\n\
             options ndots:2 timeout:3 attempts:4 rotate ndots:x\nsortlist 192.0.2.0\n\
             options use-vc edns0 # no-aaaa\n",
        );
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert_eq!(settings.search, ["a.example", "b.example"]);
        assert_eq!((settings.dots, settings.attempts), (2, 4));
        assert_eq!(settings.timeout, Duration::from_secs(3));
        assert!(settings.rotates && settings.uses_streams && settings.is_extended);
        assert!(!settings.wants_no_v6 && !settings.asks_singly && !settings.is_final);
    }

    #[test]
    fn the_last_of_search_and_domain_counts_and_the_environment_before_both() {
        let text = "search a.example b.example\ndomain c.example # of old\n";
        assert_eq!(parsed(text).search, ["c.example"]);
        let beside = |domains| Beside {
            options: "ndots:3 single-request",
            domains,
            machine: "box.own.example\n",
        };
        let settings = Settings::parse(text, &beside(Some("d.example\te.example")));
        assert_eq!(settings.search, ["d.example", "e.example"]);
        assert_eq!((settings.dots, settings.asks_singly), (3, true));
        assert_eq!(Settings::parse(text, &beside(None)).search, ["c.example"]);
        assert_eq!(Settings::parse("", &beside(None)).search, ["own.example"]);
        assert!(Settings::parse(text, &beside(Some(""))).search.is_empty());
    }

    #[test]
    fn a_name_server_may_be_behind_an_interface() {
        let settings = parsed(
            "nameserver fe80::1%br-lan_0.100\nnameserver fe80::2%3\nnameserver 2001:db8::1%eth0\n",
        );
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["[fe80::1%br-lan_0.100]:53", "[fe80::2%3]:53", "[2001:db8::1]:53"]);
        assert!(Settings::names_server("#\nnameserver fe80::1%eth0\n"));
        assert!(!Settings::names_server("options rotate\nnameserver 192.0.2\n"));
    }

    #[test]
    fn the_address_of_a_server_prints_as_it_is_read() {
        for text in ["192.0.2.1:5353", "[2001:db8::1]:53", "[fe80::1%eth0]:53"] {
            assert_eq!(text.parse().map(|server: Server| server.to_string()), Ok(text.to_owned()));
        }
        for (text, printed) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("fe80::1%2", "[fe80::1%2]:53"),
        ] {
            assert_eq!(
                text.parse().map(|server: Server| server.to_string()),
                Ok(printed.to_owned())
            );
        }
        for text in
            ["", "host", "[::1", "::1]:53", "[::1]x", "[::1]:x", "fe80::1%", "192.0.2.1%eth0"]
        {
            assert_eq!(text.parse::<Server>(), Err(ServerError), "{text}");
        }
    }

    #[test]
    fn a_resolv_conf_without_sense_asks_this_machine_in_bounds() {
        assert_eq!(parsed("nameserver\nnameserver here\n\0"), Settings::default());
        let settings = parsed("options timeout:0 attempts:99 ndots:99\n");
        assert_eq!((settings.dots, settings.attempts), (15, 5));
        assert_eq!(settings.timeout, Duration::from_secs(1));
    }

    #[test]
    fn hosts_and_numbers_need_nobody() {
        let hosts = Hosts::parse(
            "192.0.2.1 One one.example # two.example\n2001:db8::1 one\nnonsense three\n\n192.0.2.1",
        );
        let shown = |host| {
            hosts.addresses(host).map(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(shown("one"), Some(vec!["2001:db8::1".to_owned(), "192.0.2.1".to_owned()]));
        assert_eq!(shown("one.example."), Some(vec!["192.0.2.1".to_owned()]));
        assert_eq!(shown("two.example"), None);
        assert_eq!(shown("three"), None);
        assert_eq!(shown("192.0.2.9"), Some(vec!["192.0.2.9".to_owned()]));
        assert_eq!(shown("2001:db8::9"), Some(vec!["2001:db8::9".to_owned()]));
        let hosts_of_old = Hosts::parse("127.0.0.1 LocalHost\n");
        assert_eq!(hosts_of_old.addresses("localhost").map(|it| it.len()), Some(1), "as it says");
        let loopback = Some(vec!["::1".to_owned(), "127.0.0.1".to_owned()]);
        assert_eq!(shown("localhost"), loopback);
        assert_eq!(shown("deep.localhost."), loopback);
    }
}
