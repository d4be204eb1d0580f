//! A connected stream socket, by itself an end of a session: the one place that knows edge
//! triggering. What speaks another protocol over it ([`super::tls`]) sends and receives through it.
//!
//! The kernel reports a *change*, once. So an event sets a bit, and the bit stays set until the
//! kernel has said that there is no more: by `WouldBlock`, or by a short read or write, which on a
//! stream means the same (epoll(7)) and saves the second system call. There are three exceptions, in
//! which more lies behind a short read and no further event will tell: the end of the stream; bytes
//! behind urgent data, which cuts a TCP read short (tcp(7)); and bytes behind passed descriptors,
//! which cut one short on a Unix socket (unix(7)). Where an event told of the first or the second,
//! and always on a Unix socket, reading goes on until the end or `WouldBlock` is reached.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token, event};
use socket2::{SockRef, Socket as RawSocket, TcpKeepalive};

use super::reactor::{Context, Source};
use crate::proto::end::{End, Progress, Side, Turn};
use crate::proto::event::{Event, Readiness, Transfer, Watch};
use crate::proto::pipe::Pipe;

/// When the kernel probes a silent TCP peer: after two minutes, then every 30 seconds, and gives
/// up after four probes without an answer.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(120))
    .with_interval(Duration::from_secs(30))
    .with_retries(4);

/// Sets what every TCP connection needs: nothing is held back to make larger segments, a peer that
/// is gone is found out, and urgent data stays where it lies in the stream (RFC 6093).
///
/// # Errors
/// Those of `setsockopt(2)`.
pub(super) fn prepare_tcp(socket: &RawSocket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_out_of_band_inline(true)
}

/// A stream socket of either family.
#[derive(Debug)]
pub enum Stream {
    /// TCP over IPv4 or IPv6.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

/// A connected, non-blocking stream socket and what is known of its readiness.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    readiness: Readiness,
    side: Side,
}

impl Socket {
    /// A socket that serves as `side` of its session. It can be written to until the kernel says
    /// otherwise, and read from once an event says so.
    #[must_use]
    pub fn new(stream: Stream, side: Side) -> Self {
        Self { stream, readiness: Readiness::WRITABLE, side }
    }

    /// Registers for readiness as this side of `context`'s source.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register<S: Source>(&mut self, context: &Context<'_, S>) -> io::Result<()> {
        context.register_duplex(&mut self.stream, self.side)
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.readiness = self.readiness.with(readiness);
    }

    /// Whether an attempt to send is worth while.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.readiness.contains(Readiness::WRITABLE)
    }

    /// Whether an attempt to receive is worth while.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.readiness.contains(Readiness::READABLE)
    }

    /// Sends as much of `bytes` as the kernel takes, which may be none.
    ///
    /// # Errors
    /// Those of `send(2)`, but for having to wait.
    pub fn send(&mut self, bytes: &[u8], watch: &mut Watch<'_>) -> io::Result<usize> {
        let transfer = match retry(|| self.stream.write(bytes)) {
            Ok(count) => {
                if count < bytes.len() {
                    self.readiness = self.readiness.without(Readiness::WRITABLE);
                }
                Transfer::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness = self.readiness.without(Readiness::WRITABLE);
                Transfer::WouldBlock
            }
            Err(error) => return Err(error),
        };
        watch.detail(|| Event::Write(self.side, transfer));
        Ok(bytes_of(transfer))
    }

    /// Receives what has come into `space`, which has room for at least a byte.
    ///
    /// # Errors
    /// Those of `recv(2)`, but for having to wait.
    pub fn receive(&mut self, space: &mut [u8], watch: &mut Watch<'_>) -> io::Result<Transfer> {
        let transfer = match retry(|| self.stream.read(space)) {
            Ok(0) => {
                self.readiness = self.readiness.without(Readiness::READABLE);
                Transfer::End
            }
            Ok(count) => {
                if count < space.len() && self.short_read_tells_all() {
                    self.readiness = self.readiness.without(Readiness::READABLE);
                }
                Transfer::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let passed = Readiness::READABLE.with(Readiness::URGENT);
                self.readiness = self.readiness.without(passed);
                Transfer::WouldBlock
            }
            Err(error) => return Err(error),
        };
        watch.detail(|| Event::Read(self.side, transfer));
        Ok(transfer)
    }

    fn short_read_tells_all(&self) -> bool {
        matches!(self.stream, Stream::Tcp(_))
            && !self.readiness.contains(Readiness::READ_CLOSED)
            && !self.readiness.contains(Readiness::URGENT)
    }

    /// Asks for the error of a connection that failed when there was nothing more to read from it
    /// and nothing to write yet, so that neither would tell.
    fn hear_of_failure(&self) -> io::Result<()> {
        if self.readiness.contains(Readiness::FAILED) {
            let error = self.stream.take_error()?;
            return Err(error.unwrap_or(io::ErrorKind::ConnectionReset.into()));
        }
        Ok(())
    }

    /// Passes the end of the stream on. Where the other direction is over too, closing the
    /// socket, which is what comes next, says the same and costs one system call less.
    ///
    /// # Errors
    /// Those of `shutdown(2)`.
    pub fn pass_end_on(
        &mut self,
        to: &mut Pipe,
        from: &Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        if !from.is_finished() {
            match self.stream.shutdown_write() {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                outcome => outcome?,
            }
            turn.watch.detail(|| Event::Write(self.side, Transfer::End));
        }
        to.finish();
        Ok(())
    }

    fn flush(&mut self, to: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        let count = self.send(to.bytes(), &mut turn.watch)?;
        to.consume(turn.pool, count);
        Ok(count)
    }

    fn fill(&mut self, from: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        let mut transfer = Transfer::WouldBlock;
        let count = from.fill(turn.pool, |space| {
            transfer = self.receive(space, &mut turn.watch)?;
            Ok::<_, io::Error>(bytes_of(transfer))
        })?;
        if transfer == Transfer::End {
            from.end();
            return Ok(1);
        }
        Ok(count)
    }
}

impl End for Socket {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let mut moved = 0;
        if to.is_empty() && !to.is_finished() && !from.is_open() {
            self.hear_of_failure()?;
        }
        if !to.is_empty() && self.is_writable() {
            moved += self.flush(to, turn)?;
        }
        if to.is_drained() {
            self.pass_end_on(to, from, turn)?;
            moved += 1;
        }
        if self.is_readable() && from.wants_more(turn.pool) {
            moved += self.fill(from, turn)?;
        }
        Ok(Progress::Moved(moved))
    }

    /// What waits to be sent is lost. A Unix socket knows no reset.
    fn cut_off(&mut self) -> bool {
        let at_once = Some(Duration::ZERO);
        let outcome = match &self.stream {
            Stream::Tcp(stream) => SockRef::from(stream).set_linger(at_once),
            Stream::Unix(_) => Ok(()),
        };
        if let Err(error) = outcome {
            log::debug!("a reset could not be passed on: {error}");
        }
        true
    }
}

fn bytes_of(transfer: Transfer) -> usize {
    match transfer {
        Transfer::Bytes(count) => count,
        Transfer::WouldBlock | Transfer::End => 0,
    }
}

/// Repeats a system call that a signal interrupted.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

impl Stream {
    /// The error that the kernel keeps for this socket, such as that of a failed connect.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }

    /// Whether the connection is there.
    ///
    /// # Errors
    /// `NotConnected` while it is not, or any other of `getpeername(2)`.
    pub fn is_connected(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(drop),
            Self::Unix(stream) => stream.peer_addr().map(drop),
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(space),
            Self::Unix(stream) => stream.read(space),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl event::Source for Stream {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interests),
            Self::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interests),
            Self::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}
