//! What the system's files say about looking names up: resolv.conf(5) and hosts(5), as texts.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::Addresses;

/// The port of a name server.
pub const DNS_PORT: u16 = 53;

/// The most name servers that are asked (`MAXNS` of resolv.conf(5)).
pub const MAX_SERVERS: usize = 3;

/// The most domains in which a short name is searched.
const MAX_SEARCH: usize = 6;

/// Whom to ask, and how long to wait: what resolv.conf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name servers, in the order in which they are asked; at least one.
    pub servers: Vec<SocketAddr>,
    /// The domains in which a short name is looked for.
    pub search: Vec<String>,
    /// How many dots make a name long, so that it is first asked for as it stands.
    pub dots: usize,
    /// How long one server is waited for.
    pub timeout: Duration,
    /// How often the whole list of servers is gone through.
    pub attempts: usize,
}

/// What resolv.conf(5) says where a file says nothing.
impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT)],
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        }
    }
}

impl Settings {
    /// Reads the text of a resolv.conf. What it does not understand it passes over, as every
    /// resolver does: the file is not ours.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        let mut servers = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with([';', '#'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    servers.extend(address.map(|address| SocketAddr::new(address, DNS_PORT)));
                }
                // The last of these lines counts.
                Some("search") => {
                    settings.search = words.take(MAX_SEARCH).map(str::to_owned).collect();
                }
                Some("domain") => settings.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| settings.set(option)),
                _ => {}
            }
        }
        servers.truncate(MAX_SERVERS);
        if !servers.is_empty() {
            settings.servers = servers;
        }
        settings
    }

    /// The ranges are those of resolv.conf(5); zero would ask nobody.
    fn set(&mut self, option: &str) {
        let Some((name, Ok(value))) =
            option.split_once(':').map(|(name, value)| (name, value.parse::<u32>()))
        else {
            return;
        };
        match name {
            "ndots" => self.dots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5) as usize,
            _ => {}
        }
    }
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
                let addresses = found.entry(name.to_ascii_lowercase()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        let in_turn = |(name, addresses)| (name, interleaved(addresses));
        Self(found.into_iter().map(in_turn).collect())
    }

    /// The addresses of a host that nobody needs to be asked for: one given by number, this
    /// machine itself (RFC 6761, 6.3), or one that the file names.
    #[must_use]
    pub fn addresses(&self, host: &str) -> Option<Addresses> {
        if let Ok(address) = host.parse() {
            return Some(Rc::new([address]));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        if name == "localhost" || name.ends_with(".localhost") {
            return Some(Rc::new([Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]));
        }
        self.0.get(name).cloned()
    }
}

/// The addresses in the order in which RFC 8305 (4) tries them: the families by turns, IPv6 first.
#[must_use]
pub fn interleaved(addresses: Vec<IpAddr>) -> Addresses {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut by_turns = Vec::with_capacity(six.len() + four.len());
    while six.len() + four.len() > 0 {
        by_turns.extend(six.next());
        by_turns.extend(four.next());
    }
    by_turns.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_is_read() {
        let settings = Settings::parse(
            "# a comment\n; another\ndomain overruled.example\nsearch a.example b.example\n\
             nameserver 192.0.2.1\nnameserver 2001:db8::1 trailing\nnameserver nonsense\n\
             nameserver 192.0.2.2\nnameserver 192.0.2.3\n\
             options ndots:2 timeout:3 attempts:4 rotate ndots:x\nsortlist 192.0.2.0\n",
        );
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert_eq!(settings.search, ["a.example", "b.example"]);
        assert_eq!((settings.dots, settings.attempts), (2, 4));
        assert_eq!(settings.timeout, Duration::from_secs(3));
    }

    #[test]
    fn a_resolv_conf_without_sense_asks_this_machine_in_bounds() {
        assert_eq!(Settings::parse("nameserver\nnameserver here\n\0"), Settings::default());
        let settings = Settings::parse("options timeout:0 attempts:99 ndots:99\n");
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
        let loopback = Some(vec!["::1".to_owned(), "127.0.0.1".to_owned()]);
        assert_eq!(shown("localhost"), loopback);
        assert_eq!(shown("deep.localhost."), loopback);
    }
}
