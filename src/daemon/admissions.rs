//! Who is in: the limits on connections, and the count of everyone who was turned away.
//!
//! A place that is held without having been earned is given up for another: where a limit is reached,
//! of all or of one address, somebody who [waits](super::waiting) to be admitted has to make room for
//! who comes. Only where nobody waits is who comes turned away.
//!
//! Invariant: who has to make room is not counted from then on, and is closed in its next run; so many
//! of them as [`MAX_LEAVING`] may still be there beside the limit.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use super::waiting::{Guest, WaitingRoom};
use crate::net::reactor::Waker;

/// How many that had to make room may not be closed yet before nobody is asked to.
pub const MAX_LEAVING: usize = 128;

/// How many of them are enough for a turn.
const ENOUGH_LEAVING: usize = 64;

/// How many have to go at once where the system has no descriptor left.
const FREED_AT_ONCE: usize = 8;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// In total.
    pub all: usize,
    /// From one address; 0 sets no limit of its own.
    pub per_ip: usize,
    /// Of those that were not admitted.
    pub unauthenticated: usize,
}

/// Counts the open connections, in total and for each address, and knows those that were not
/// admitted; `K` stands for one of them.
#[derive(Debug)]
pub struct Admissions<K = Waker> {
    places: Places,
    open: usize,
    /// Counted only where there is a limit.
    by_ip: HashMap<IpAddr, usize>,
    waiting: WaitingRoom<K>,
    /// How many were let in and have not begun, so that they cannot wait yet.
    beginning: usize,
    /// Those that had to make room and are not closed yet.
    leaving: HashSet<K>,
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
    /// Connections that were not admitted and had to make room for others.
    pub made_room: u64,
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
    /// Listening sockets that died and were bound anew.
    pub sockets_rebound: u64,
    /// Connections of our own that came back to us once too often.
    pub forward_loops: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted={} over_limit={} over_ip_limit={} made_room={} bad_proxy_headers={} \
             refused_at_gate={} refused_by_tls={} refused_requests={} silent={} failed={} \
             accept_pauses={} accept_failures={} datagrams={} datagrams_dropped={} \
             sockets_rebound={} forward_loops={}",
            self.accepted,
            self.over_limit,
            self.over_ip_limit,
            self.made_room,
            self.bad_proxy_headers,
            self.refused_at_gate,
            self.refused_by_tls,
            self.refused_requests,
            self.silent,
            self.failed,
            self.accept_pauses,
            self.accept_failures,
            self.datagrams,
            self.datagrams_dropped,
            self.sockets_rebound,
            self.forward_loops
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

impl<K: Copy + Eq + Hash> Admissions<K> {
    /// Nobody is in yet. Chance decides with `seed`.
    #[must_use]
    pub fn new(places: Places, seed: u64) -> Self {
        // A limit that is none of its own need not be counted.
        let per_ip = if places.per_ip < places.all { places.per_ip } else { 0 };
        Self {
            places: Places { per_ip, ..places },
            open: 0,
            by_ip: HashMap::new(),
            waiting: WaitingRoom::new(seed),
            beginning: 0,
            leaving: HashSet::new(),
            counts: Counts::default(),
        }
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open + self.leaving.len()
    }

    /// Whether enough have to go for one turn, so that a listener should let the others have theirs: no
    /// more than a quarter of all, or none would be left to make room for them.
    #[must_use]
    pub fn has_to_rest(&self) -> bool {
        self.leaving.len() >= (self.places.all / 4).clamp(1, ENOUGH_LEAVING)
    }

    /// Whether one of this address would be turned away now, and may be let in when those that were let
    /// in before it have begun: in the next turn, some of them may make room.
    #[must_use]
    pub fn is_better_later(&self, from: Option<IpAddr>) -> bool {
        let from = network(from).filter(|_| self.places.per_ip > 0);
        let is_crowded = from.is_some_and(|from| {
            let open = self.by_ip.get(&from).copied().unwrap_or(0);
            open >= self.places.per_ip && !self.waiting.has_from(from)
        });
        let is_full = self.open >= self.places.all && self.waiting.is_empty();
        self.beginning > 0 && (is_crowded || is_full)
    }

    /// Lets one in, counted under its address if it has one, who must [`leave`](Self::leave) in the
    /// end. Answers who has to make room, and is to be woken.
    ///
    /// # Errors
    /// Which limit is reached; it is counted.
    pub fn enter(&mut self, from: Option<IpAddr>) -> Result<Option<K>, TurnedAway> {
        let by_address = self.find_room_from(from)?;
        let gone = if by_address.is_some() { by_address } else { self.find_room()? };
        self.count_from(from);
        self.beginning += 1;
        self.open += 1;
        self.counts.accepted += 1;
        Ok(gone)
    }

    /// One that was let in without an address has this one, and is counted under it. Where that is an
    /// error, it stays without. Answers as [`enter`](Self::enter).
    ///
    /// # Errors
    /// Its address has too many; it is counted.
    pub fn name(&mut self, from: Option<IpAddr>) -> Result<Option<K>, TurnedAway> {
        let gone = self.find_room_from(from)?;
        self.count_from(from);
        self.beginning += 1;
        Ok(gone)
    }

    /// One that was let in, or given its address, begins.
    pub fn begin(&mut self) {
        self.beginning -= 1;
    }

    /// One that was let in waits to be admitted, until it [`pass`](Self::pass)es; it is counted under its
    /// address. Answers who has to make room for it, and is to be woken.
    pub fn wait(&mut self, key: K, from: Option<IpAddr>) -> Option<K> {
        self.wait_as(key, from, true)
    }

    /// The same for one that comes through a proxy with this address, which is not counted.
    pub fn wait_for_name(&mut self, key: K, proxy: Option<IpAddr>) -> Option<K> {
        self.wait_as(key, proxy, false)
    }

    fn wait_as(&mut self, key: K, from: Option<IpAddr>, is_counted: bool) -> Option<K> {
        let is_full = self.waiting.len() >= self.places.unauthenticated;
        let gone = if is_full { self.make_room(WaitingRoom::send_away) } else { None };
        self.waiting.enter(key, network(from), is_counted);
        gone
    }

    /// Makes room where the system has none, whatever the limits are: some of those that wait have to go,
    /// and are to be woken. Answers nobody where nobody waits, or some are about to go.
    pub fn free_descriptors(&mut self) -> Vec<K> {
        let wanted = if self.leaving.is_empty() { FREED_AT_ONCE } else { 0 };
        (0..wanted).map_while(|_| self.make_room(WaitingRoom::send_away)).collect()
    }

    /// Whether the next turn may find room: somebody is about to go, or to wait.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        !self.leaving.is_empty() || self.beginning > 0
    }

    /// One waits no longer to be admitted, if it did.
    pub fn pass(&mut self, key: K) {
        self.waiting.leave(key);
    }

    /// Whether this one has to make room, and is to be closed.
    #[must_use]
    pub fn is_leaving(&self, key: K) -> bool {
        !self.leaving.is_empty() && self.leaving.contains(&key)
    }

    /// One that was let in has gone.
    pub fn leave(&mut self, key: K, from: Option<IpAddr>) {
        if !self.leaving.remove(&key) {
            self.waiting.leave(key);
            self.discount(network(from));
        }
    }

    fn find_room(&mut self) -> Result<Option<K>, TurnedAway> {
        if self.open < self.places.all {
            return Ok(None);
        }
        let gone = self.make_room(WaitingRoom::send_away);
        if gone.is_none() {
            self.counts.over_limit += 1;
            return Err(TurnedAway::Full(self.places.all));
        }
        Ok(gone)
    }

    fn find_room_from(&mut self, from: Option<IpAddr>) -> Result<Option<K>, TurnedAway> {
        let Some(from) = network(from).filter(|_| self.places.per_ip > 0) else { return Ok(None) };
        if self.by_ip.get(&from).is_none_or(|open| *open < self.places.per_ip) {
            return Ok(None);
        }
        let gone = self.make_room(|waiting| waiting.send_away_from(from));
        if gone.is_none() {
            self.counts.over_ip_limit += 1;
            return Err(TurnedAway::TooManyFrom(self.places.per_ip));
        }
        Ok(gone)
    }

    fn make_room(
        &mut self,
        send_away: impl FnOnce(&mut WaitingRoom<K>) -> Option<Guest<K>>,
    ) -> Option<K> {
        if self.leaving.len() >= MAX_LEAVING {
            return None;
        }
        let Guest { key, from, is_counted, .. } = send_away(&mut self.waiting)?;
        self.leaving.insert(key);
        self.discount(from.filter(|_| is_counted));
        self.counts.made_room += 1;
        Some(key)
    }

    fn count_from(&mut self, from: Option<IpAddr>) {
        if let Some(from) = network(from).filter(|_| self.places.per_ip > 0) {
            *self.by_ip.entry(from).or_insert(0) += 1;
        }
    }

    /// One less is open, of those under this address if it has one.
    fn discount(&mut self, from: Option<IpAddr>) {
        self.open -= 1;
        if let Some(from) = from
            && let Some(open) = self.by_ip.get_mut(&from)
        {
            *open -= 1;
            if *open == 0 {
                self.by_ip.remove(&from);
            }
        }
    }
}

/// What counts as one address: of an IPv6 host its /64, because it commands the whole of that.
fn network(from: Option<IpAddr>) -> Option<IpAddr> {
    Some(match from? {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admissions(all: usize, per_ip: usize, unauthenticated: usize) -> Admissions<u32> {
        Admissions::new(Places { all, per_ip, unauthenticated }, 1)
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn the_total_is_bounded_and_comes_back() {
        let mut admissions = admissions(2, 0, 2);
        let one = address("192.0.2.1");
        assert_eq!(admissions.enter(one), Ok(None));
        assert_eq!(admissions.enter(None), Ok(None));
        assert_eq!(admissions.enter(one), Err(TurnedAway::Full(2)));
        admissions.leave(2, None);
        assert_eq!(admissions.enter(one), Ok(None));
        assert_eq!((admissions.open(), admissions.counts.over_limit), (2, 1));
    }

    #[test]
    fn who_has_no_address_yet_counts_in_the_total_alone() {
        let mut admissions = admissions(3, 1, 3);
        let one = address("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(admissions.enter(None), Ok(None));
        }
        assert_eq!(admissions.enter(None), Err(TurnedAway::Full(3)));
        assert_eq!(admissions.name(one), Ok(None));
        assert_eq!(admissions.name(one), Err(TurnedAway::TooManyFrom(1)));
        admissions.leave(2, None);
        admissions.leave(1, one);
        assert_eq!((admissions.open(), admissions.by_ip.len()), (1, 0));
    }

    #[test]
    fn each_address_is_bounded_and_forgotten_when_it_has_gone() {
        let mut admissions = admissions(100, 1, 100);
        assert_eq!(admissions.enter(address("192.0.2.1")), Ok(None));
        assert_eq!(admissions.enter(address("192.0.2.1")), Err(TurnedAway::TooManyFrom(1)));
        assert_eq!(admissions.enter(address("192.0.2.2")), Ok(None));
        assert_eq!(admissions.enter(None), Ok(None));
        assert_eq!(admissions.enter(address("2001:db8::1")), Ok(None));
        assert_eq!(admissions.enter(address("2001:db8::2")), Err(TurnedAway::TooManyFrom(1)));
        admissions.leave(1, address("192.0.2.1"));
        admissions.leave(4, address("2001:db8::1"));
        assert_eq!(admissions.by_ip.len(), 1, "only 192.0.2.2 is left");
        assert_eq!(admissions.enter(address("2001:db8::2")), Ok(None));
    }

    #[test]
    fn who_waits_makes_room_for_who_comes() {
        let mut admissions = admissions(3, 0, 2);
        let (one, two) = (address("192.0.2.1"), address("192.0.2.2"));
        // One is admitted, two wait, and a third that would wait takes the place of one of them.
        for (key, from) in [(1, one), (2, one), (3, one)] {
            assert_eq!(admissions.enter(from), Ok(None));
            assert_eq!(admissions.wait(key, from), None);
            if key == 1 {
                admissions.pass(1);
            }
        }
        let gone = admissions.enter(two).expect("room").expect("somebody waits");
        assert!([2, 3].contains(&gone) && admissions.is_leaving(gone), "{gone}");
        assert_eq!(admissions.open(), 4, "who has to go is still there");
        assert_eq!(admissions.wait(4, two), None, "there is room now");
        admissions.leave(gone, one);
        assert_eq!((admissions.open(), admissions.is_leaving(gone)), (3, false));
        admissions.leave(1, one);
        assert_eq!(admissions.enter(two), Ok(None));
        assert!(admissions.wait(5, two).is_some(), "two may wait");
        assert_eq!(admissions.counts.made_room, 2);
    }

    #[test]
    fn who_waits_makes_room_for_its_own_address() {
        let mut admissions = admissions(10, 2, 10);
        let (one, two) = (address("192.0.2.1"), address("192.0.2.2"));
        for (key, from) in [(1, two), (2, one), (3, one)] {
            assert_eq!(admissions.enter(from), Ok(None));
            assert_eq!(admissions.wait(key, from), None);
        }
        admissions.pass(2);
        assert_eq!(admissions.enter(one), Ok(Some(3)), "who was admitted stays");
        assert_eq!(admissions.enter(one), Err(TurnedAway::TooManyFrom(2)), "nobody waits");
        admissions.leave(3, one);
        admissions.leave(2, one);
        assert_eq!(admissions.by_ip.get(&one.expect("one")), Some(&1));
    }

    #[test]
    fn it_may_be_better_to_come_when_others_have_begun() {
        let mut admissions = admissions(3, 2, 3);
        let (one, two) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!((admissions.enter(one), admissions.enter(one)), (Ok(None), Ok(None)));
        assert!(admissions.is_better_later(one) && !admissions.is_better_later(two));
        assert_eq!(admissions.enter(two), Ok(None));
        assert!(admissions.is_better_later(two) && admissions.is_better_later(None));
        admissions.begin();
        admissions.wait(1, one);
        assert!(!admissions.is_better_later(one) && !admissions.is_better_later(two));
        admissions.begin();
        admissions.begin();
        admissions.pass(1);
        assert!(!admissions.is_better_later(one), "nothing will change");
        assert_eq!(admissions.enter(one), Err(TurnedAway::TooManyFrom(2)));
    }

    #[test]
    fn those_that_have_to_go_are_bounded_too() {
        let mut admissions = admissions(200, 0, 200);
        for key in 0..200 {
            assert_eq!(admissions.enter(None), Ok(None));
            assert_eq!(admissions.wait(key, None), None);
        }
        for _ in 0..MAX_LEAVING {
            assert!(admissions.enter(None).is_ok_and(|gone| gone.is_some()));
        }
        assert!(admissions.has_to_rest());
        assert_eq!(admissions.enter(None), Err(TurnedAway::Full(200)), "until some have gone");
        assert_eq!(admissions.open(), 200 + MAX_LEAVING);
    }
}
