//! A stream socket with TLS or without, as an end of a session.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{Error, ServerConfig};

use super::reactor::{Context, Source};
use super::socket::{Socket, Stream};
use super::tls::client::Secure;
use super::tls::socket::{ClientSocket, Connection, ServerSocket, TlsSocket};
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Progress, Side, Standing, Turn};
use crate::proto::event::Readiness;
use crate::proto::pipe::Pipe;
use crate::proto::proxy_protocol::Security;

/// A connected stream. What TLS needs stands apart, so that plain connections stay small.
pub enum Wire<T> {
    /// Bytes as they are.
    Plain(Socket),
    /// TLS.
    Tls(Box<T>),
}

/// The client's side.
pub type ClientWire = Wire<ClientSocket>;

impl ClientWire {
    /// The client's side over `socket`, with TLS where `secure` says how.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn over(socket: Socket, secure: Option<&Secure>) -> Result<Self, Error> {
        let Some(Secure { config, name }) = secure else { return Ok(Self::Plain(socket)) };
        let socket = ClientSocket::over(socket, Arc::clone(config), name.clone())?;
        Ok(Self::Tls(Box::new(socket)))
    }
}

/// The server's side.
pub type ServerWire = Wire<ServerSocket>;

impl ServerWire {
    /// The server's side of an accepted stream, with TLS where there is a configuration for it;
    /// `keeps_name` keeps the name that the client asks for by TLS.
    #[must_use]
    pub fn accept(stream: Stream, tls: Option<&Arc<ServerConfig>>, keeps_name: bool) -> Self {
        let Some(config) = tls else { return Self::Plain(Socket::new(stream, Side::Remote)) };
        let socket = ServerSocket::accept(stream, Arc::clone(config));
        Self::Tls(Box::new(if keeps_name { socket.keep_server_name() } else { socket }))
    }

    /// What is known of the client's TLS.
    #[must_use]
    pub fn security(&self) -> Option<Security<'_>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(socket) => socket.security(),
        }
    }
}

impl<C: Connection> Wire<TlsSocket<C>> {
    /// The address of this side, where it is an Internet address.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(socket) => socket.local_address(),
            Self::Tls(socket) => socket.socket_ref().local_address(),
        }
    }

    /// Registers for readiness as this side of `context`'s source.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register<S: Source>(&mut self, context: &Context<'_, S>) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.register(context),
            Self::Tls(socket) => socket.register(context),
        }
    }

    /// Where there is TLS, fails if the stream is cut off.
    pub fn require_close_notify(&mut self) {
        if let Self::Tls(socket) = self {
            socket.require_close_notify();
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

impl<C: Connection> End for Wire<TlsSocket<C>> {
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

    fn has_carried(&self) -> bool {
        true
    }

    fn has_sent_all(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.has_sent_all(),
            Self::Tls(socket) => socket.has_sent_all(),
        }
    }

    fn cut_off(&mut self) {
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
