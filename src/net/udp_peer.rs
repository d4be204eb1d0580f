//! A UDP socket that talks to one peer, as an end of a session.

use std::io;
use std::net::SocketAddr;

use mio::net::UdpSocket;

use super::reactor::{Context, Source};
use crate::proto::end::{End, Progress, Side, Turn};
use crate::proto::event::{Event, Readiness, Transfer};
use crate::proto::pipe::Pipe;

/// The longest datagram that IPv4 carries: 65,535 bytes less its header and that of UDP.
pub const LONGEST_DATAGRAM: usize = 65_507;

/// Where one datagram ends and the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// All bytes up to the end of the stream are one datagram, which has one answer.
    Whole,
    /// What waits at each exchange is one datagram; answers come when they come.
    Each,
}

/// A connected UDP socket.
#[derive(Debug)]
pub struct UdpPeer {
    socket: UdpSocket,
    framing: Framing,
    readiness: Readiness,
    sent: bool,
    /// Whether an answer has come since the last datagram was sent; so too while none was.
    is_answered: bool,
}

impl UdpPeer {
    /// A socket that sends to `peer` and hears only it.
    ///
    /// # Errors
    /// Those of `bind(2)` and `connect(2)`.
    pub fn connect(peer: SocketAddr, framing: Framing) -> io::Result<Self> {
        let any: SocketAddr =
            if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let mut socket = UdpSocket::bind(any)?;
        socket.connect(peer)?;
        if socket.local_addr()? == peer {
            // By chance the system chose the port that is asked: this one would hear itself. While it is
            // open, the next one is another.
            let other = UdpSocket::bind(any)?;
            other.connect(peer)?;
            socket = other;
        }
        let readiness = Readiness::WRITABLE;
        Ok(Self { socket, framing, readiness, sent: false, is_answered: true })
    }

    /// Registers for readiness as the remote side of `context`'s source.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register<S: Source>(&mut self, context: &Context<'_, S>) -> io::Result<()> {
        context.register_duplex(&mut self.socket, Side::Remote)
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.readiness = self.readiness.with(readiness);
    }

    fn has_datagram(&self, to: &Pipe) -> bool {
        match self.framing {
            Framing::Whole => !to.is_open() && !self.sent,
            Framing::Each => !to.is_empty(),
        }
    }

    fn send(&mut self, to: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        match self.socket.send(to.bytes()) {
            Ok(count) => {
                self.sent = true;
                self.is_answered = false;
                to.discard(turn.pool);
                turn.watch.detail(|| Event::Write(Side::Remote, Transfer::Bytes(count)));
                Ok(count.max(1))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness = self.readiness.without(Readiness::WRITABLE);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, from: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        match from.fill(turn.pool, |space| self.socket.recv(space)) {
            Ok(count) => {
                self.is_answered = true;
                turn.watch.detail(|| Event::Read(Side::Remote, Transfer::Bytes(count)));
                Ok(count.max(1))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness = self.readiness.without(Readiness::READABLE);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}

impl End for UdpPeer {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let mut moved = 0;
        if to.len() > LONGEST_DATAGRAM {
            let why = "the input is longer than the longest datagram, 65,507 bytes";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        if self.has_datagram(to) && self.readiness.contains(Readiness::WRITABLE) {
            moved += self.send(to, turn)?;
        }
        if to.is_drained() && !self.has_datagram(to) {
            to.finish();
            moved += 1;
        }
        // A datagram is received whole or cut off: so only into an empty pipe.
        if self.readiness.contains(Readiness::READABLE) && from.is_open() && from.is_empty() {
            moved += self.receive(from, turn)?;
        }
        // Datagrams have no end of their own: whoever asks no more has heard the last answer.
        if to.is_finished() && self.is_answered && from.is_open() {
            from.end();
            moved += 1;
        }
        Ok(Progress::Moved(moved))
    }
}
