//! Listeners that take in one another's addresses: found here, as the system would find it when they
//! are bound, and told apart from those that go together.

use std::net::IpAddr;

use super::address::{Address, HostPort};
use super::plan::Listener;

/// Why the system will not bind `later` while `earlier` is bound, where it will not.
pub(super) fn conflict(earlier: &Address, later: &Address) -> Option<String> {
    if earlier == later && !is_any_port(later) {
        return Some(format!("{later} is listened on twice"));
    }
    let (one, other) = same_port(earlier, later)?;
    let takes_in = |all: &IpAddr, one: &IpAddr| {
        all == one || all.is_unspecified() && all.is_ipv4() == one.is_ipv4()
    };
    let overlap = numbers(one)
        .any(|ip| numbers(other).any(|with| takes_in(&ip, &with) || takes_in(&with, &ip)));
    overlap.then(|| format!("{later} and {earlier} take in the same addresses"))
}

/// Lets those that listen on `[::]` take IPv6 alone where another listens on the same port of an
/// IPv4 address, which they would take in too.
pub(super) fn settle(listeners: &mut [Listener]) {
    for number in 0..listeners.len() {
        listeners[number].only_ipv6 = beside(listeners, &listeners[number]).is_some();
    }
}

/// The listener whose IPv4 address keeps this one to IPv6.
pub(super) fn beside<'a>(listeners: &'a [Listener], all: &Listener) -> Option<&'a Listener> {
    let is_all = |ip: IpAddr| ip.is_ipv6() && ip.is_unspecified();
    listeners.iter().find(|other| {
        same_port(&all.address, &other.address).is_some_and(|(one, other)| {
            numbers(one).any(is_all) && numbers(other).any(|ip| ip.is_ipv4())
        })
    })
}

/// Both hosts, where the addresses have the same port of the same protocol.
fn same_port<'a>(one: &'a Address, other: &'a Address) -> Option<(&'a HostPort, &'a HostPort)> {
    match (one, other) {
        (Address::Tcp(a), Address::Tcp(b)) | (Address::Udp(a), Address::Udp(b))
            if a.port == b.port && a.port != 0 =>
        {
            Some((a, b))
        }
        _ => None,
    }
}

fn is_any_port(address: &Address) -> bool {
    address.host_port().is_some_and(|at| at.port == 0)
}

/// The addresses that a host is known to have without asking anybody.
fn numbers(at: &HostPort) -> impl Iterator<Item = IpAddr> {
    let local = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    let known = at.host.parse().ok();
    let by_name = if at.host == "localhost" { &local[..] } else { &[] };
    known.into_iter().chain(by_name.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_would_refuse_is_a_conflict() {
        let conflicts = |one: &str, other: &str| {
            let read = |text: &str| text.parse().expect(text);
            conflict(&read(one), &read(other)).is_some()
        };
        for (one, other) in [
            ("tcp://127.0.0.1:80", "tcp://127.0.0.1:80"),
            ("tcp://127.0.0.1:80", "tcp://127.1:80"),
            ("tcp://[::1]:80", "tcp://[0:0::1]:80"),
            ("tcp://0.0.0.0:80", "tcp://127.0.0.1:80"),
            ("udp://127.0.0.1:80", "udp://0.0.0.0:80"),
            ("tcp://[::]:80", "tcp://[::1]:80"),
            ("tcp://localhost:80", "tcp://127.0.0.1:80"),
            ("tcp://a.example:80", "tcp://a.example:80"),
            ("unix:///run/a", "unix:///run//a"),
        ] {
            assert!(conflicts(one, other) && conflicts(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("tcp://0.0.0.0:80", "tcp://[::]:80"),
            ("tcp://127.0.0.1:80", "tcp://[::]:80"),
            ("tcp://127.0.0.1:80", "udp://127.0.0.1:80"),
            ("tcp://0.0.0.0:80", "tcp://127.0.0.1:81"),
            ("tcp://127.0.0.1:80", "tcp://127.0.0.2:80"),
            ("tcp://0.0.0.0:0", "tcp://127.0.0.1:0"),
            ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
            ("unix:///run/a", "unix:///run/b"),
        ] {
            assert!(!conflicts(one, other) && !conflicts(other, one), "{one} {other}");
        }
    }
}
