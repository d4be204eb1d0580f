//! One question to a name server over a connection of its own, because its answer does not fit a
//! datagram.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags};

use super::CALLS;
use crate::net::dial::{self, Target};
use crate::net::reactor::{Context, Source};
use crate::net::socket::Socket;
use crate::net::zone;
use crate::proto::event::{Readiness, Transfer};
use crate::proto::resolver::{Exchange, Server, Transmit};

/// How much is received at once. Few answers are longer.
const PIECE: usize = 4096;

/// A question on its way, or its answer.
#[derive(Debug)]
pub(super) struct Call {
    serial: u64,
    address: SocketAddr,
    socket: Socket,
    exchange: Exchange,
}

impl Call {
    /// Begins to connect to the server.
    pub(super) fn begin<S: Source>(
        server: &Server,
        transmit: &Transmit,
        context: &Context<'_, S>,
    ) -> io::Result<Self> {
        let address = zone::place(server.address, server.zone.as_deref())?;
        let stream = dial::begin(&Target::Tcp(address), CALLS, context)?;
        let (socket, exchange) = (Socket::new(stream, CALLS), Exchange::new(&transmit.bytes));
        Ok(Self { serial: transmit.serial, address, socket, exchange })
    }

    /// The question's serial number.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> PollFd<'_> {
        let is_sent = self.exchange.unsent().is_empty();
        let interest = if is_sent { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        PollFd::new(self.socket.as_fd(), interest)
    }

    /// Remembers what an event said.
    pub(super) fn handle_readiness(&mut self, readiness: Readiness) {
        self.socket.handle_readiness(readiness);
    }

    /// Sends and receives what it can; answers the answer once it is whole. Until the connection is
    /// there the kernel says that sending has to wait, and if it fails, why.
    pub(super) fn advance<S: Source>(
        &mut self,
        context: &mut Context<'_, S>,
    ) -> io::Result<Option<&[u8]>> {
        let mut watch = context.watch("resolver", &self.address);
        while self.socket.is_writable() && !self.exchange.unsent().is_empty() {
            let sent = self.socket.send(self.exchange.unsent(), &mut watch)?;
            self.exchange.handle_sent(sent);
        }
        let mut space = [0; PIECE];
        while self.socket.is_readable() && self.exchange.answer().is_none() {
            match self.socket.receive(&mut space, &mut watch)? {
                Transfer::Bytes(count) => self.exchange.handle_received(&space[..count]),
                Transfer::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Transfer::WouldBlock => break,
            }
        }
        Ok(self.exchange.answer())
    }
}
