//! The end of a connection that faces the network: a socket, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::net::reactor::{Context, Source};
use crate::net::socket::{Socket, Stream};
use crate::net::tls::socket::ServerSocket;
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Progress, Side, Standing, Turn};
use crate::proto::event::Readiness;
use crate::proto::pipe::Pipe;
use crate::proto::proxy_protocol::Security;

/// An accepted socket. What TLS needs stands apart, so that plain connections stay small.
pub enum Remote {
    /// Bytes as they are.
    Plain(Socket),
    /// TLS.
    Tls(Box<ServerSocket>),
}

impl Remote {
    /// The end over an accepted stream, with TLS where there is a configuration for it;
    /// `keeps_name` keeps the name that the client asks for by TLS.
    #[must_use]
    pub fn new(stream: Stream, tls: Option<&Arc<ServerConfig>>, keeps_name: bool) -> Self {
        let Some(config) = tls else { return Self::Plain(Socket::new(stream, Side::Remote)) };
        let socket = ServerSocket::accept(stream, Arc::clone(config));
        Self::Tls(Box::new(if keeps_name { socket.keep_server_name() } else { socket }))
    }

    /// The address that the peer connected to, where it is an Internet address.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(socket) => socket.local_address(),
            Self::Tls(socket) => socket.socket_ref().local_address(),
        }
    }

    /// What is known of the peer's TLS.
    #[must_use]
    pub fn security(&self) -> Option<Security<'_>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(socket) => socket.security(),
        }
    }

    /// Where there is TLS, fails if the stream was cut off.
    pub fn require_close_notify(&mut self) {
        if let Self::Tls(socket) = self {
            socket.require_close_notify();
        }
    }

    /// Registers for readiness as the remote side of `context`'s source.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register<S: Source>(&mut self, context: &Context<'_, S>) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.register(context),
            Self::Tls(socket) => socket.register(context),
        }
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match self {
            Self::Plain(socket) => socket.handle_readiness(readiness),
            Self::Tls(socket) => socket.handle_readiness(readiness),
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
            Self::Plain(socket) => socket.exchange(to, from, turn),
            Self::Tls(socket) => socket.exchange(to, from, turn),
        }
    }

    fn standing(&self) -> Standing<'_> {
        match self {
            Self::Plain(socket) => socket.standing(),
            Self::Tls(socket) => socket.standing(),
        }
    }

    fn cut_off(&mut self) -> bool {
        match self {
            Self::Plain(socket) => socket.cut_off(),
            Self::Tls(socket) => socket.cut_off(),
        }
    }

    fn dispose(&mut self, pool: &mut Pool) {
        match self {
            Self::Plain(socket) => socket.dispose(pool),
            Self::Tls(socket) => socket.dispose(pool),
        }
    }
}
