//! Connections that the daemon makes, in case they come back to it: a listener that forwards to itself,
//! directly or through others, would make one connection into as many as there may be.
//!
//! A call onward is noted with its local address, which is the peer's address where it arrives, and with
//! how many calls it took to get there. Who arrives from a noted address is one call deeper. Listeners
//! of one daemon may well call each other (an entry and its exit, a gate before a relay); only a chain
//! that is longer than any that somebody wants is cut.
//!
//! What comes back through another machine's relay has that relay's address, and cannot be known; it is
//! bounded by the limits on connections, as anybody's are.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::net::listener::Peer;

/// How many calls may follow from one connection. A tunnel within one daemon takes two or three.
pub const MAX_DEPTH: u8 = 8;

/// How many calls are remembered: at the most as many as may wait to be accepted.
const REMEMBERED: usize = 4096;

/// The calls that have not arrived, as far as anybody knows.
#[derive(Debug, Default)]
pub struct OwnCalls {
    depths: HashMap<SocketAddr, u8>,
    /// The same, the oldest first.
    order: VecDeque<SocketAddr>,
    /// Of calls to Unix sockets, which have no address of their own. Who arrives is most likely the newest:
    /// what was called long ago was somebody else's.
    unix: VecDeque<u8>,
}

impl OwnCalls {
    /// A connection at `depth` has made a call from `local`; from no address where it is a Unix socket.
    pub fn note(&mut self, local: Option<SocketAddr>, depth: u8) {
        let Some(local) = local else {
            if self.unix.len() == REMEMBERED {
                self.unix.pop_front();
            }
            self.unix.push_back(depth + 1);
            return;
        };
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        if self.depths.insert(local, depth + 1).is_none() {
            self.order.push_back(local);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.depths.remove(&oldest);
        }
    }

    /// How deep somebody is who has just arrived: 0 for anybody else.
    pub fn depth_of(&mut self, peer: &Peer) -> u8 {
        match peer {
            Peer::Inet(address) => self.depths.get(address).copied().unwrap_or(0),
            Peer::Unix(Some((process, _))) if *process == std::process::id() as i32 => {
                self.unix.pop_back().unwrap_or(0)
            }
            Peer::Unix(_) | Peer::Announced(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn who_arrives_from_an_own_call_is_one_deeper() {
        let mut calls = OwnCalls::default();
        calls.note(Some(at(1)), 0);
        calls.note(Some(at(2)), 4);
        assert_eq!(calls.depth_of(&Peer::Inet(at(1))), 1);
        assert_eq!(calls.depth_of(&Peer::Inet(at(2))), 5);
        assert_eq!(calls.depth_of(&Peer::Inet(at(3))), 0);
        calls.note(Some(at(2)), 0);
        assert_eq!(calls.depth_of(&Peer::Inet(at(2))), 1, "the port is another call's by now");
    }

    #[test]
    fn who_arrives_at_a_unix_socket_is_the_newest_call() {
        let mut calls = OwnCalls::default();
        let own = Peer::Unix(Some((std::process::id() as i32, 0)));
        calls.note(None, 0);
        calls.note(None, 7);
        assert_eq!(calls.depth_of(&Peer::Unix(Some((1, 0)))), 0);
        assert_eq!((calls.depth_of(&own), calls.depth_of(&own), calls.depth_of(&own)), (8, 1, 0));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut calls = OwnCalls::default();
        for number in 0..20_000 {
            calls.note(Some(at(number)), 0);
            calls.note(None, 0);
        }
        assert_eq!((calls.depths.len(), calls.order.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(calls.unix.len(), REMEMBERED);
        assert_eq!(calls.depth_of(&Peer::Inet(at(0))), 0);
        assert_eq!(calls.depth_of(&Peer::Inet(at(19_999))), 1);
    }
}
