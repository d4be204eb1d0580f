//! What faces the server: a stream or a datagram socket.

use std::io;
use std::net::SocketAddr;

use super::source::LoadSource;
use crate::config::{Address, ResolveError};
use crate::net::dial::Target;
use crate::net::reactor::Context;
use crate::net::socket::Socket;
use crate::net::udp_peer::{Framing, UdpPeer};
use crate::proto::end::{End, Progress, Turn};
use crate::proto::event::Readiness;
use crate::proto::pipe::Pipe;

/// One place that an address may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A stream socket's.
    Stream(Target),
    /// A datagram socket's.
    Datagrams(SocketAddr),
}

/// Every place that `address` stands for. Looks names up, which blocks.
///
/// # Errors
/// The host is unknown.
pub fn places(address: &Address) -> Result<Vec<Place>, ResolveError> {
    Ok(match address {
        Address::Unix(path) => vec![Place::Stream(Target::Unix(path.clone()))],
        Address::Tcp(at) | Address::Tls(at) => {
            at.resolve()?.into_iter().map(Target::Tcp).map(Place::Stream).collect()
        }
        Address::Udp(at) => at.resolve()?.into_iter().map(Place::Datagrams).collect(),
    })
}

/// The end of a load connection that faces the server.
#[derive(Debug)]
pub enum Remote {
    /// A stream.
    Stream(Socket),
    /// Datagrams to and from one peer.
    Datagrams(UdpPeer),
}

impl Remote {
    /// A datagram socket of `context`'s source that talks to `peer` alone.
    ///
    /// # Errors
    /// Those of `bind(2)`, `connect(2)` and `epoll_ctl(2)`.
    pub fn datagrams(peer: SocketAddr, context: &Context<'_, LoadSource>) -> io::Result<Self> {
        let mut socket = UdpPeer::connect(peer, Framing::Each)?;
        socket.register(context)?;
        Ok(Self::Datagrams(socket))
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match self {
            Self::Stream(socket) => socket.handle_readiness(readiness),
            Self::Datagrams(socket) => socket.handle_readiness(readiness),
        }
    }
}

impl End for Remote {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        match self {
            Self::Stream(socket) => socket.exchange(to, from, turn),
            Self::Datagrams(socket) => socket.exchange(to, from, turn),
        }
    }
}
