//! Listeners that forward to themselves, directly or by way of others of the same configuration. One
//! connection to such a listener would become as many as there may be, and reach nobody.
//!
//! This goes by what stands in the configuration: numbers, `localhost`, paths, and names that are spelt
//! alike. Whether another name leads back here, or another machine does, only the running daemon can
//! see.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{Address, HostPort};
use super::plan::{Listener, Plan, Service};

/// What there is to say of each circle, once.
pub(super) fn warnings(listeners: &[Listener]) -> impl Iterator<Item = String> + '_ {
    (0..listeners.len()).filter_map(|first| circle(listeners, first))
}

impl Plan {
    /// Why the plan leads in a circle, where it does.
    #[must_use]
    pub fn circle(&self) -> Option<String> {
        warnings(&self.listeners).next()
    }
}

/// What there is to say of the circle that begins with a listener.
fn circle(listeners: &[Listener], first: usize) -> Option<String> {
    let way = way_back(listeners, first)?;
    let names: Vec<_> = way.iter().map(|at| format!("`{}`", listeners[*at].name)).collect();
    let by_way = match &names[..] {
        [] => String::new(),
        names => format!(", by way of {}", names.join(" and ")),
    };
    Some(format!(
        "listener `{}` forwards to itself{by_way}, so nobody is ever reached; write where another \
         program listens (to)",
        listeners[first].name
    ))
}

/// The shortest way from a listener back to itself that leads through no listener before it in the file:
/// a circle is found from its first. Answers whom it leads through.
fn way_back(listeners: &[Listener], first: usize) -> Option<Vec<usize>> {
    let mut came_from = vec![None; listeners.len()];
    let mut waiting = VecDeque::from([first]);
    while let Some(at) = waiting.pop_front() {
        for next in forwards_to(listeners, at) {
            if next == first {
                let through = std::iter::successors(Some(at), |at| came_from[*at]);
                let mut way: Vec<_> = through.take_while(|at| *at != first).collect();
                way.reverse();
                return Some(way);
            }
            if next > first && came_from[next].is_none() {
                came_from[next] = Some(at);
                waiting.push_back(next);
            }
        }
    }
    None
}

/// The listeners that a listener's bytes come to next.
fn forwards_to(listeners: &[Listener], at: usize) -> Vec<usize> {
    let Service::Forward { to, upstream, .. } = &listeners[at].service else { return Vec::new() };
    let asked = upstream
        .target
        .as_ref()
        .map(|target| HostPort { host: target.host.clone(), port: target.port });
    let mut found = Vec::new();
    for target in to {
        for (number, listener) in listeners.iter().enumerate() {
            if !is_at(&listener.address, target) {
                continue;
            }
            match (&listener.service, &asked) {
                // An exit is told where to go on to.
                (Service::Connect { .. }, Some(asked)) => {
                    let next = Address::Tcp(asked.clone());
                    let is_next = |it: &usize| is_at(&listeners[*it].address, &next);
                    found.extend((0..listeners.len()).filter(is_next));
                }
                _ => found.push(number),
            }
        }
    }
    found
}

/// Whether a call to `target` arrives at a listener at `own`.
fn is_at(own: &Address, target: &Address) -> bool {
    match (own, target) {
        (Address::Unix(own), Address::Unix(target)) => own == target,
        (Address::Tcp(own), Address::Tcp(target) | Address::Tls(target)) => {
            own.port == target.port
                && own.port != 0
                && (own.host == target.host || share_an_address(&own.host, &target.host))
        }
        _ => false,
    }
}

/// Whether one of the addresses that `own` stands for is one that a call to `target` goes to.
fn share_an_address(own: &str, target: &str) -> bool {
    // A call to every address goes to this machine.
    let call = |ip| match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let targets: Vec<IpAddr> = addresses(target).into_iter().map(call).collect();
    addresses(own).iter().any(|own| match own {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            targets.iter().any(|target| target.is_ipv4() && target.is_loopback())
        }
        // It takes IPv4 too.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => targets.iter().any(IpAddr::is_loopback),
        own => targets.contains(own),
    })
}

/// The addresses that are sure for a host; none for a name that somebody must be asked for.
fn addresses(host: &str) -> Vec<IpAddr> {
    let number = host.split('%').next().unwrap_or(host);
    if let Ok(ip) = number.parse::<IpAddr>() {
        return vec![ip.to_canonical()];
    }
    let name = host.trim_end_matches('.');
    if name == "localhost" || name.ends_with(".localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_there(own: &str, target: &str) -> bool {
        let read = |text: &str| text.parse::<Address>().expect("an address");
        is_at(&read(own), &read(target))
    }

    #[test]
    fn a_call_arrives_where_its_address_is_listened_on() {
        let yes = [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "tls://localhost:80"),
            ("localhost:80", "[::1]:80"),
            ("localhost:80", "www.localhost:80"),
            ("0.0.0.0:80", "127.1.2.3:80"),
            ("0.0.0.0:80", "localhost:80"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[::]:80", "0.0.0.0:80"),
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("[::1]:80", "[::]:80"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
            ("gate.example.org:80", "gate.example.org:80"),
            ("unix:///run/gate", "unix:///run/gate"),
        ];
        for (own, target) in yes {
            assert!(is_there(own, target), "{target} is {own}");
        }
        let no = [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("127.0.0.1:80", "[::1]:80"),
            ("0.0.0.0:80", "[::1]:80"),
            ("0.0.0.0:80", "192.0.2.1:80"),
            ("udp://127.0.0.1:80", "127.0.0.1:80"),
            ("gate.example.org:80", "example.org:80"),
            ("unix:///run/gate", "unix:///run/other"),
        ];
        for (own, target) in no {
            assert!(!is_there(own, target), "{target} is not {own}");
        }
    }
}
