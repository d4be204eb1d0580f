//! What faces a server: a stream, with TLS or without, or a datagram socket.

use std::io;
use std::net::SocketAddr;

use super::reactor::{Context, Source};
use super::udp_peer::{Framing, UdpPeer};
use super::wire::ClientWire;
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Progress, Standing, Turn};
use crate::proto::event::Readiness;
use crate::proto::pipe::Pipe;

/// The end of a client's session that faces the server.
pub enum Remote {
    /// A connected stream.
    Stream(ClientWire),
    /// Datagrams to and from one peer.
    Datagrams(UdpPeer),
}

impl Remote {
    /// A datagram socket of `context`'s source that talks to `peer` alone.
    ///
    /// # Errors
    /// Those of `bind(2)`, `connect(2)` and `epoll_ctl(2)`.
    pub fn datagrams<S: Source>(
        peer: SocketAddr,
        framing: Framing,
        context: &Context<'_, S>,
    ) -> io::Result<Self> {
        let mut socket = UdpPeer::connect(peer, framing)?;
        socket.register(context)?;
        Ok(Self::Datagrams(socket))
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match self {
            Self::Stream(wire) => wire.handle_readiness(readiness),
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
            Self::Stream(wire) => wire.exchange(to, from, turn),
            Self::Datagrams(socket) => socket.exchange(to, from, turn),
        }
    }

    fn standing(&self) -> Standing<'_> {
        match self {
            Self::Stream(wire) => wire.standing(),
            Self::Datagrams(socket) => socket.standing(),
        }
    }

    fn has_sent_all(&self) -> bool {
        match self {
            Self::Stream(wire) => wire.has_sent_all(),
            Self::Datagrams(socket) => socket.has_sent_all(),
        }
    }

    fn dispose(&mut self, pool: &mut Pool) {
        match self {
            Self::Stream(wire) => wire.dispose(pool),
            Self::Datagrams(socket) => socket.dispose(pool),
        }
    }
}
