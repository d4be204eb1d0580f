//! Who on this machine would get a datagram: asked of the kernel with `sock_diag(7)`, one short
//! message and one short answer, which never waits.
//!
//! A datagram's source address can be forged, and says nothing of what is behind it. A socket
//! cannot: one that is connected to us is a client that asks us alone, while one that hears
//! everybody may be a service that answers whatever it gets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// `SOCK_DIAG_BY_FAMILY` and `NLM_F_REQUEST` of linux/sock_diag.h and linux/netlink.h.
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;

/// The lengths of `struct nlmsghdr` and `struct inet_diag_req_v2`.
const HEADER_LEN: usize = 16;
const REQUEST_LEN: usize = 56;

/// Where `idiag_dport` of `struct inet_diag_sockid` stands in an answer: behind the header, four
/// bytes about the socket, and the port of the socket itself.
const PEER_PORT_AT: usize = HEADER_LEN + 4 + 2;

/// What kind of socket gets datagrams that are sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// One that is connected to the sender, and hears nobody else.
    Client,
    /// One that hears everybody.
    Anybody,
    /// None of this machine's, as far as the kernel says.
    Unknown,
}

/// The way to the kernel. It is opened by the first question.
#[derive(Debug, Default)]
pub struct Owners {
    socket: Option<OwnedFd>,
}

impl Owners {
    /// Who gets a datagram from `own` to `peer`, which are of one family.
    pub fn of(&mut self, own: SocketAddr, peer: SocketAddr) -> Owner {
        self.ask(own, peer).unwrap_or_else(|error| {
            log::debug!("the kernel does not say whose socket {peer} is: {error}");
            self.socket = None;
            Owner::Unknown
        })
    }

    fn ask(&mut self, own: SocketAddr, peer: SocketAddr) -> io::Result<Owner> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            closed => closed.insert(socket(
                AddressFamily::Netlink,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::NetlinkSockDiag,
            )?),
        };
        let fd = socket.as_raw_fd();
        send(fd, &question(own, peer), MsgFlags::MSG_DONTWAIT)?;
        let mut answer = [0; 512];
        let len = recv(fd, &mut answer, MsgFlags::MSG_DONTWAIT)?;
        Ok(read(&answer[..len]))
    }
}

/// The question: which UDP socket is found for a datagram from `own` to `peer`. The sender stands
/// where the socket's own address is expected, as the kernel has it "for historical reasons".
fn question(own: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if peer.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let scope = match peer {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    let mut question = Vec::with_capacity(HEADER_LEN + REQUEST_LEN);
    question.extend(((HEADER_LEN + REQUEST_LEN) as u32).to_ne_bytes());
    question.extend(BY_FAMILY.to_ne_bytes());
    question.extend(REQUEST.to_ne_bytes());
    question.extend([0; 8]);
    question.extend([family as u8, SockProtocol::Udp as u8, 0, 0]);
    question.extend(u32::MAX.to_ne_bytes());
    question.extend(own.port().to_be_bytes());
    question.extend(peer.port().to_be_bytes());
    for address in [own.ip(), peer.ip()] {
        let mut octets = [0; 16];
        match address {
            IpAddr::V4(v4) => octets[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => octets = v6.octets(),
        }
        question.extend(octets);
    }
    question.extend(scope.to_ne_bytes());
    question.extend([u8::MAX; 8]);
    debug_assert_eq!(question.len(), HEADER_LEN + REQUEST_LEN);
    question
}

/// Reads what the kernel said: a socket, or an error where it found none.
fn read(answer: &[u8]) -> Owner {
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    match (kind, answer.get(PEER_PORT_AT..PEER_PORT_AT + 2)) {
        (Some(BY_FAMILY), Some([0, 0])) => Owner::Anybody,
        (Some(BY_FAMILY), Some(_)) => Owner::Client,
        _ => Owner::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_connected_socket_is_told_from_one_that_hears_everybody() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(own) = UdpSocket::bind(any) else { continue };
            let own = own.local_addr().expect("bound");
            let client = UdpSocket::bind(any).expect("a port");
            let mut owners = Owners::default();
            let at = client.local_addr().expect("bound");
            assert_eq!(owners.of(own, at), Owner::Anybody);
            client.connect(own).expect("an address");
            assert_eq!(owners.of(own, at), Owner::Client);
            let other = SocketAddr::new(own.ip(), own.port() ^ 1);
            assert_eq!(owners.of(other, at), Owner::Unknown, "it hears {own} alone");
            drop(client);
            assert_eq!(owners.of(own, at), Owner::Unknown);
        }
    }

    #[test]
    fn what_is_no_answer_says_nothing() {
        for len in 0..64 {
            assert_eq!(read(&[0; 64][..len]), Owner::Unknown);
        }
    }
}
