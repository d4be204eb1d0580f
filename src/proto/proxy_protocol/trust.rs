//! Whose headers are believed: addresses, networks, and the processes of this machine.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// Some of those who may say for whom they connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Every address of a network, which may be a single one.
    Network(IpNet),
    /// Every process that can open a Unix socket.
    Unix,
}

/// Every form of it, for help texts.
pub const TRUSTED_FORMS: &str = "an address, a network such as 10.0.0.0/8, or unix";

impl Trusted {
    /// Whether `peer` is one of them; a process of this machine has no address.
    #[must_use]
    pub fn covers(&self, peer: Option<IpAddr>) -> bool {
        match (self, peer) {
            (Self::Network(network), Some(address)) => network.contains(&address),
            (Self::Unix, None) => true,
            _ => false,
        }
    }

    /// Whether it is the whole Internet, so that anyone could claim any address.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        matches!(self, Self::Network(network) if network.prefix_len() == 0)
    }
}

/// A text does not say whom to believe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustedError {
    /// It is no address.
    #[error("`{0}` is no address of a proxy")]
    NoAddress(String),
    /// Is it one host that is meant, or its network?
    #[error("`{given}` is in the middle of the network {network}")]
    Inside {
        /// What was written.
        given: IpNet,
        /// The network that it is in.
        network: IpNet,
    },
}

impl FromStr for Trusted {
    type Err = TrustedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.to_canonical().into()));
        }
        let given: IpNet = text.parse().map_err(|_| TrustedError::NoAddress(text.to_owned()))?;
        let network = given.trunc();
        if network != given {
            return Err(TrustedError::Inside { given, network });
        }
        Ok(Self::Network(canonical(network)))
    }
}

/// A network of IPv4 addresses in IPv6 form as what it is, because that is what peers are.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let inner = mapped.addr().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(96));
    let inner = inner.and_then(|(address, prefix_len)| Ipv4Net::new(address, prefix_len).ok());
    inner.map_or(network, IpNet::V4)
}

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(f)
            }
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_covers_its_own_and_nobody_else() {
        let cases = [
            ("192.0.2.10", &["192.0.2.10"][..], &["192.0.2.11", "::ffff:192.0.2.10"][..]),
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["11.0.0.0", "9.255.255.255"]),
            ("2001:db8::/32", &["2001:db8:ffff::1"], &["2001:db9::", "10.0.0.1"]),
            ("::ffff:192.0.2.1", &["192.0.2.1"], &["192.0.2.2"]),
            ("::ffff:10.0.0.0/104", &["10.0.0.0", "10.255.255.255"], &["11.0.0.0"]),
            ("0.0.0.0/0", &["203.0.113.1"], &["2001:db8::1"]),
        ];
        for (text, inside, outside) in cases {
            let trusted: Trusted = text.parse().expect(text);
            let covers = |ip: &&str| trusted.covers(Some(ip.parse().expect("an address")));
            assert!(inside.iter().all(covers), "{text} covers {inside:?}");
            assert!(!outside.iter().any(covers), "{text} does not cover {outside:?}");
            assert!(!trusted.covers(None), "{text} covers no process");
        }
        let unix: Trusted = "unix".parse().expect("a word");
        assert!(unix.covers(None) && !unix.covers(Some([127, 0, 0, 1].into())));
    }

    #[test]
    fn what_is_read_is_printed_so_that_it_is_read_again() {
        for text in ["192.0.2.10", "10.0.0.0/8", "2001:db8::/32", "2001:db8::1", "unix"] {
            assert_eq!(text.parse::<Trusted>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "localhost", "10.0.0.0/33", "10.0.0/8", "Unix", "192.0.2.1:80", "*"] {
            let refused = Err(TrustedError::NoAddress(text.to_owned()));
            assert_eq!(text.parse::<Trusted>(), refused);
        }
        let inside = "10.1.2.3/8".parse::<Trusted>().expect_err("which is meant?");
        assert_eq!(inside.to_string(), "`10.1.2.3/8` is in the middle of the network 10.0.0.0/8");
    }

    #[test]
    fn the_whole_internet_is_everyone() {
        for (text, expected) in
            [("0.0.0.0/0", true), ("::/0", true), ("::ffff:0:0/96", true), ("0.0.0.0/1", false)]
        {
            assert_eq!(text.parse::<Trusted>().expect(text).is_everyone(), expected, "{text}");
        }
    }
}
