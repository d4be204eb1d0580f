//! Who is in: the limits on connections, and the count of everyone who was turned away.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::net::listener::Peer;

/// Counts the open connections, in total and for each address.
#[derive(Debug)]
pub struct Admissions {
    limit: usize,
    /// 0 sets no limit of its own, and then nothing is counted by address.
    limit_per_ip: usize,
    open: usize,
    by_ip: HashMap<IpAddr, usize>,
    /// What happened since the start.
    pub counts: Counts,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Connections that were let into the slab.
    pub accepted: u64,
    /// Connections closed at once because the limit was reached.
    pub over_limit: u64,
    /// Connections closed at once because their address had too many.
    pub over_ip_limit: u64,
    /// Connections whose proxy did not say for whom they were, as it had to.
    pub bad_proxy_headers: u64,
    /// Connections whose peer came to the gate and did not pass it: its answer was wrong, late, or
    /// not whole.
    pub refused_at_gate: u64,
    /// Connections that did not come to the end of their TLS handshake.
    pub refused_by_tls: u64,
    /// Connections that were let in, and whose wish to be carried somewhere was refused.
    pub refused_requests: u64,
    /// Connections that left without a byte before they were let in: looks at whether somebody listens.
    pub silent: u64,
    /// Connections that were let in, and ended because the connection onward failed.
    pub failed: u64,
    /// Times that accepting paused, for want of descriptors or memory or because of nothing but
    /// losses.
    pub accept_pauses: u64,
    /// Connections that were lost before or while they were accepted.
    pub accept_failures: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Datagrams that were left without an answer they would have had.
    pub datagrams_dropped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted={} over_limit={} over_ip_limit={} bad_proxy_headers={} refused_at_gate={} \
             refused_by_tls={} refused_requests={} silent={} failed={} accept_pauses={} accept_failures={} datagrams={} datagrams_dropped={}",
            self.accepted,
            self.over_limit,
            self.over_ip_limit,
            self.bad_proxy_headers,
            self.refused_at_gate,
            self.refused_by_tls,
            self.refused_requests,
            self.silent,
            self.failed,
            self.accept_pauses,
            self.accept_failures,
            self.datagrams,
            self.datagrams_dropped
        )
    }
}

/// Why a connection is turned away at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// So many connections are open, and no more may be.
    Full(usize),
    /// So many are open from this address.
    TooManyFrom(usize),
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(limit) => {
                write!(f, "the limit of {limit} connections is reached (limits.connections)")
            }
            Self::TooManyFrom(limit) => {
                write!(f, "its address has {limit} connections already (limits.connections_per_ip)")
            }
        }
    }
}

impl Admissions {
    /// Nobody is in yet.
    #[must_use]
    pub fn new(limit: usize, limit_per_ip: usize) -> Self {
        Self { limit, limit_per_ip, open: 0, by_ip: HashMap::new(), counts: Counts::default() }
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Lets one in, who must [`leave`](Self::leave) in the end.
    ///
    /// # Errors
    /// Which limit is reached; it is counted.
    pub fn enter(&mut self, peer: &Peer) -> Result<(), TurnedAway> {
        self.find_room()?;
        self.name(peer)?;
        self.add();
        Ok(())
    }

    /// Lets one in of whom nobody knows yet who it is; who must be [`name`](Self::name)d, or
    /// [`leave_unnamed`](Self::leave_unnamed).
    ///
    /// # Errors
    /// The limit on all is reached; it is counted.
    pub fn enter_unnamed(&mut self) -> Result<(), TurnedAway> {
        self.find_room()?;
        self.add();
        Ok(())
    }

    /// The one that was let in without a name is `peer`. Where that is an error, it stays unnamed.
    ///
    /// # Errors
    /// Its address has too many; it is counted.
    pub fn name(&mut self, peer: &Peer) -> Result<(), TurnedAway> {
        if let Some(ip) = self.counted_ip(peer) {
            let open = self.by_ip.entry(ip).or_insert(0);
            if *open >= self.limit_per_ip {
                self.counts.over_ip_limit += 1;
                return Err(TurnedAway::TooManyFrom(self.limit_per_ip));
            }
            *open += 1;
        }
        Ok(())
    }

    /// One who was let in without a name has gone without one.
    pub fn leave_unnamed(&mut self) {
        self.open -= 1;
    }

    /// One who was let in has gone.
    pub fn leave(&mut self, peer: &Peer) {
        self.leave_unnamed();
        if let Some(ip) = self.counted_ip(peer)
            && let Some(open) = self.by_ip.get_mut(&ip)
        {
            *open -= 1;
            if *open == 0 {
                self.by_ip.remove(&ip);
            }
        }
    }

    fn find_room(&mut self) -> Result<(), TurnedAway> {
        if self.open >= self.limit {
            self.counts.over_limit += 1;
            return Err(TurnedAway::Full(self.limit));
        }
        Ok(())
    }

    fn add(&mut self) {
        self.open += 1;
        self.counts.accepted += 1;
    }

    /// The address that a peer is counted under. An IPv6 host commands a whole /64, so that is
    /// what counts as one address.
    fn counted_ip(&self, peer: &Peer) -> Option<IpAddr> {
        if self.limit_per_ip == 0 {
            return None;
        }
        Some(match peer.address()?.ip() {
            IpAddr::V6(ip) => {
                let network = u128::from(ip) >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from(network))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Inet(address.parse().expect("an address"))
    }

    #[test]
    fn the_total_is_bounded_and_comes_back() {
        let mut admissions = Admissions::new(2, 0);
        let one = peer("192.0.2.1:1");
        assert_eq!(admissions.enter(&one), Ok(()));
        assert_eq!(admissions.enter(&Peer::Unix(None)), Ok(()));
        assert_eq!(admissions.enter(&one), Err(TurnedAway::Full(2)));
        admissions.leave(&Peer::Unix(None));
        assert_eq!(admissions.enter(&one), Ok(()));
        assert_eq!((admissions.open(), admissions.counts.over_limit), (2, 1));
    }

    #[test]
    fn who_has_no_name_yet_counts_in_the_total_alone() {
        let mut admissions = Admissions::new(3, 1);
        let one = peer("192.0.2.1:1");
        for _ in 0..3 {
            assert_eq!(admissions.enter_unnamed(), Ok(()));
        }
        assert_eq!(admissions.enter_unnamed(), Err(TurnedAway::Full(3)));
        assert_eq!(admissions.name(&one), Ok(()));
        assert_eq!(admissions.name(&one), Err(TurnedAway::TooManyFrom(1)));
        admissions.leave_unnamed();
        admissions.leave(&one);
        assert_eq!((admissions.open(), admissions.by_ip.len()), (1, 0));
    }

    #[test]
    fn each_address_is_bounded_and_forgotten_when_it_has_gone() {
        let mut admissions = Admissions::new(100, 1);
        assert_eq!(admissions.enter(&peer("192.0.2.1:1")), Ok(()));
        assert_eq!(admissions.enter(&peer("192.0.2.1:2")), Err(TurnedAway::TooManyFrom(1)));
        assert_eq!(admissions.enter(&peer("192.0.2.2:1")), Ok(()));
        assert_eq!(admissions.enter(&Peer::Unix(None)), Ok(()));
        assert_eq!(admissions.enter(&peer("[2001:db8::1]:1")), Ok(()));
        assert_eq!(admissions.enter(&peer("[2001:db8::2]:1")), Err(TurnedAway::TooManyFrom(1)));
        admissions.leave(&peer("192.0.2.1:1"));
        admissions.leave(&peer("[2001:db8::1]:1"));
        assert_eq!(admissions.by_ip.len(), 1, "only 192.0.2.2 is left");
        assert_eq!(admissions.enter(&peer("[2001:db8::2]:1")), Ok(()));
    }
}
