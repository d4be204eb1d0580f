//! To which of this machine's addresses a datagram was sent, where a socket hears several: a client
//! believes an answer only if it comes from the address that it asked.
//!
//! A socket that is bound to every address (`0.0.0.0`, `[::]`) is told with each datagram
//! (`IP_PKTINFO` of ip(7), `IPV6_PKTINFO` of RFC 3542), and tells the kernel the same with the
//! answer. One that is bound to a single address has nothing to ask, and does not pay for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, RecvMsg, SockaddrStorage, setsockopt, sockopt,
};
use socket2::Socket as RawSocket;

/// Where a datagram was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The only address that the socket is bound to.
    Bound,
    /// One of several IPv4 addresses.
    V4(Ipv4Addr),
    /// One of several IPv6 addresses, or of IPv4 ones that are mapped into them; with the number of
    /// the interface where the address means nothing without it.
    V6(Ipv6Addr, u32),
    /// Everybody (broadcast) or a group of hosts (multicast): one answer for each would be too many.
    Many,
}

/// Asks the kernel to tell the destination of each datagram, where `address`, to which `socket` will
/// be bound, does not say it already. Answers the room that a message about it needs, if any.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn ask(socket: &RawSocket, address: SocketAddr) -> io::Result<Option<Vec<u8>>> {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
            Ok(Some(nix::cmsg_space!(in_pktinfo)))
        }
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            Ok(Some(nix::cmsg_space!(in6_pktinfo)))
        }
        _ => Ok(None),
    }
}

impl Destination {
    /// That of a datagram. `is_told` is whether [`ask`] gave room for it.
    #[must_use]
    pub fn of(message: &RecvMsg<'_, '_, SockaddrStorage>, is_told: bool) -> Self {
        if !is_told {
            return Self::Bound;
        }
        match message.cmsgs().ok().and_then(|mut told| told.next()) {
            Some(ControlMessageOwned::Ipv4PacketInfo(info)) => {
                let (asked, own) = (v4(info.ipi_addr), v4(info.ipi_spec_dst));
                // The kernel names an address of ours that would answer; it is the one that was
                // asked unless that was an address of many.
                if asked == own { Self::V4(own) } else { Self::Many }
            }
            Some(ControlMessageOwned::Ipv6PacketInfo(info)) => {
                let asked = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let canonical = asked.to_canonical();
                if canonical.is_multicast() || canonical == IpAddr::V4(Ipv4Addr::BROADCAST) {
                    return Self::Many;
                }
                let interface = if asked.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                Self::V6(asked, interface)
            }
            _ => Self::Bound,
        }
    }

    /// The address, unless it is the only one.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::V4(own) => Some(own.into()),
            Self::V6(own, _) => Some(own.to_canonical()),
            Self::Bound | Self::Many => None,
        }
    }

    /// Lets `send` send from here, with what the kernel has to be told for that.
    pub fn send_from<T>(self, send: impl FnOnce(&[ControlMessage<'_>]) -> T) -> T {
        match self {
            Self::V4(own) => send(&[ControlMessage::Ipv4PacketInfo(&in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(own.octets()) },
                ipi_addr: in_addr { s_addr: 0 },
            })]),
            Self::V6(own, interface) => send(&[ControlMessage::Ipv6PacketInfo(&in6_pktinfo {
                ipi6_addr: in6_addr { s6_addr: own.octets() },
                ipi6_ifindex: interface,
            })]),
            Self::Bound | Self::Many => send(&[]),
        }
    }
}

fn v4(address: in_addr) -> Ipv4Addr {
    Ipv4Addr::from(address.s_addr.to_ne_bytes())
}
