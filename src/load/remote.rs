//! What faces the server: a stream, TLS over one, or a datagram socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::plan::Security;
use super::source::LoadSource;
use crate::config::{Address, ResolveError};
use crate::net::dial::Target;
use crate::net::reactor::Context;
use crate::net::socket::{Socket, Stream};
use crate::net::tls::socket::ClientSocket;
use crate::net::udp_peer::{Framing, UdpPeer};
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Progress, Side, Standing, Turn};
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
pub enum Remote {
    /// A stream.
    Stream(Socket),
    /// TLS over a stream.
    Tls(Box<ClientSocket>),
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

    /// A connected stream, under TLS where `security` says how.
    ///
    /// # Errors
    /// rustls does not want it so.
    pub fn stream(stream: Stream, security: Option<&Security>) -> io::Result<Self> {
        let Some(Security { config, name }) = security else {
            return Ok(Self::Stream(Socket::new(stream, Side::Remote)));
        };
        ClientSocket::connect(stream, Arc::clone(config), name.clone())
            .map(|socket| Self::Tls(Box::new(socket)))
            .map_err(io::Error::other)
    }

    /// Whether TLS went on with an earlier session.
    #[must_use]
    pub fn was_resumed(&self) -> bool {
        matches!(self, Self::Tls(socket) if socket.was_resumed())
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match self {
            Self::Stream(socket) => socket.handle_readiness(readiness),
            Self::Tls(socket) => socket.handle_readiness(readiness),
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
            Self::Tls(socket) => socket.exchange(to, from, turn),
            Self::Datagrams(socket) => socket.exchange(to, from, turn),
        }
    }

    fn standing(&self) -> Standing<'_> {
        match self {
            Self::Tls(socket) => socket.standing(),
            Self::Stream(_) | Self::Datagrams(_) => Standing::UP,
        }
    }

    fn dispose(&mut self, pool: &mut Pool) {
        if let Self::Tls(socket) = self {
            socket.dispose(pool);
        }
    }
}
