//! A stream socket with TLS or without, as an end of a session.

use std::io;
use std::sync::Arc;

use rustls::Error;
use rustls::client::UnbufferedClientConnection;

use super::client::Secure;
use super::socket::{ClientSocket, Connection, TlsSocket};
use crate::net::socket::Socket;
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Progress, Standing, Turn};
use crate::proto::event::Readiness;
use crate::proto::pipe::Pipe;

/// A connected stream. What TLS needs stands apart, so that plain connections stay small.
pub enum Wire<C> {
    /// Bytes as they are.
    Plain(Socket),
    /// TLS.
    Tls(Box<TlsSocket<C>>),
}

/// The client's side.
pub type ClientWire = Wire<UnbufferedClientConnection>;

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

impl<C: Connection> Wire<C> {
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

impl<C: Connection> End for Wire<C> {
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
