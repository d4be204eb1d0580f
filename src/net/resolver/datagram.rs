//! One question to a name server in a datagram, from a port of its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Instant;

use mio::Interest;
use mio::net::UdpSocket;
use nix::poll::{PollFd, PollFlags};

use super::DATAGRAMS;
use crate::net::reactor::{Context, Source};
use crate::net::zone;
use crate::proto::resolver::{Resolver, Server, Transmit};

/// Longer than any answer that is asked for; what is longer is cut off and not understood.
const LONGEST_ANSWER: usize = 4096;

/// A question that was sent, and the socket at which its answer is to arrive.
#[derive(Debug)]
pub(super) struct Datagram {
    serial: u64,
    socket: UdpSocket,
}

impl Datagram {
    /// Sends a question from a socket that hears only `server`. The system chooses its port, at
    /// random. What cannot be sent now counts as lost on the way.
    pub(super) fn send<S: Source>(
        server: &Server,
        transmit: &Transmit,
        context: &Context<'_, S>,
    ) -> io::Result<Self> {
        let address = zone::place(server.address, server.zone.as_deref())?;
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let mut socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        context.register(&mut socket, DATAGRAMS, Interest::READABLE)?;
        match socket.send(&transmit.bytes) {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(Self { serial: transmit.serial, socket }),
        }
    }

    /// The question's serial number.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> PollFd<'_> {
        PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)
    }

    /// Hands in what has arrived, as long as an answer is awaited: the resolver has enough after a
    /// few that are wrong.
    pub(super) fn receive(&self, resolver: &mut Resolver, now: Instant) {
        let mut bytes = [0; LONGEST_ANSWER];
        while resolver.awaits(self.serial) {
            match self.socket.recv(&mut bytes) {
                Ok(len) => resolver.handle_answer(&bytes[..len], self.serial, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug!("a name server: {error}");
                    resolver.handle_lost(self.serial, now);
                }
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
