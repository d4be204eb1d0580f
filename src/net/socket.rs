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
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token, event};
use nix::sys::socket::{MsgFlags, recv};
use socket2::{SockRef, Socket as RawSocket, TcpKeepalive};

use super::reactor::{Context, Source};
use crate::proto::end::{End, Progress, Side, Turn};
use crate::proto::event::{Event, Readiness, Transfer, Watch};
use crate::proto::pipe::Pipe;

/// How long a silent TCP peer may be gone where no user timeout says otherwise.
const SILENCE: Duration = Duration::from_secs(240);

/// How many probes go out to a silent peer, over the second half of that time.
const PROBES: u32 = 4;

/// The most seconds that Linux takes for the times of its probes.
const LONGEST_PROBE_TIME: Duration = Duration::from_secs(32_767);

/// The longest user timeout that Linux takes.
const LONGEST_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// Sets what every TCP connection needs: nothing is held back to make larger segments, a peer that
/// is gone is found out, and urgent data stays where it lies in the stream (RFC 6093).
///
/// Two things find out that a peer is gone. Where bytes wait for its acknowledgement, or for room
/// in its window, the connection fails after `user_timeout` (RFC 5482). Without one the system
/// gives acknowledgements some 15 minutes, and room for ever. Where no bytes wait, probes ask.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub(super) fn prepare_tcp(socket: &RawSocket, user_timeout: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&probes(user_timeout.unwrap_or(SILENCE)))?;
    if let Some(limit) = user_timeout {
        socket.set_tcp_user_timeout(Some(limit.min(LONGEST_USER_TIMEOUT)))?;
    }
    socket.set_out_of_band_inline(true)
}

/// Probes that give a silent peer up after `limit`. The kernel counts them only where there is no
/// user timeout; where there is one, that decides, at the first probe that is due when it has
/// passed (tcp(7)). So both are made to mean the same moment: half of the time in silence, the
/// other half for the probes, of which one or two may well be lost.
fn probes(limit: Duration) -> TcpKeepalive {
    let in_bounds = |time: Duration| time.clamp(Duration::from_secs(1), LONGEST_PROBE_TIME);
    TcpKeepalive::new()
        .with_time(in_bounds(limit / 2))
        .with_interval(in_bounds(limit / 2 / PROBES))
        .with_retries(PROBES)
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

    /// The address of this side, where it is an Internet address.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_address()
    }

    /// The address of the other side, where it is an Internet address.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.peer_addr().ok(),
            Stream::Unix(_) => None,
        }
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
    ///
    /// # Errors
    /// That error.
    pub fn hear_of_failure(&self, to: &Pipe, from: &Pipe) -> io::Result<()> {
        let is_quiet = to.is_empty() && !to.is_finished() && !from.is_open();
        if is_quiet && self.readiness.contains(Readiness::FAILED) {
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
        self.hear_of_failure(to, from)?;
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

    fn has_carried(&self) -> bool {
        true
    }

    /// What waits to be sent is lost. A Unix socket knows no reset.
    fn cut_off(&mut self) {
        self.stream.cut_off();
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
    /// The address of this side, where it is an Internet address.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Makes closing it a reset: what waits to be sent is lost, and no port lingers. A Unix socket
    /// knows no reset.
    pub fn cut_off(&self) {
        let at_once = Some(Duration::ZERO);
        let outcome = match self {
            Self::Tcp(stream) => SockRef::from(stream).set_linger(at_once),
            Self::Unix(_) => Ok(()),
        };
        if let Err(error) = outcome {
            log::debug!("a reset could not be passed on: {error}");
        }
    }

    /// Whether the connection has met itself: two sides of one TCP that open at the same time become
    /// one connection (RFC 9293, 3.5), so a call whose own port is by chance the one that it calls is
    /// answered by itself where nobody else listens.
    #[must_use]
    pub fn meets_itself(&self) -> bool {
        match self {
            Self::Tcp(stream) => match (stream.local_addr(), stream.peer_addr()) {
                (Ok(local), Ok(peer)) => local == peer,
                _ => false,
            },
            Self::Unix(_) => false,
        }
    }

    /// Looks at what has come, and leaves it there.
    ///
    /// # Errors
    /// Those of `recv(2)`, having to wait included.
    pub fn peek(&self, space: &mut [u8]) -> io::Result<usize> {
        retry(|| Ok(recv(self.as_fd().as_raw_fd(), space, MsgFlags::MSG_PEEK)?))
    }

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

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What [`prepare_tcp`] set, as the kernel says it.
    #[derive(Debug, PartialEq)]
    pub(in crate::net) struct Options {
        user_timeout: Option<Duration>,
        /// Until the first probe, and between two.
        probes: (Duration, Duration, u32),
        probes_and_inlines_and_never_delays: (bool, bool, bool),
    }

    pub(in crate::net) fn options(stream: &Stream) -> Options {
        let Stream::Tcp(stream) = stream else { panic!("it is TCP") };
        let socket = SockRef::from(stream);
        let read = || {
            Ok::<_, io::Error>(Options {
                user_timeout: socket.tcp_user_timeout()?,
                probes: (
                    socket.tcp_keepalive_time()?,
                    socket.tcp_keepalive_interval()?,
                    socket.tcp_keepalive_retries()?,
                ),
                probes_and_inlines_and_never_delays: (
                    socket.keepalive()?,
                    socket.out_of_band_inline()?,
                    socket.tcp_nodelay()?,
                ),
            })
        };
        read().expect("every option can be read")
    }

    /// What is expected of them: the rest is always the same.
    pub(in crate::net) fn expected(
        user_timeout: Option<Duration>,
        first_probe: u64,
        next_probe: u64,
    ) -> Options {
        let seconds = Duration::from_secs;
        Options {
            user_timeout,
            probes: (seconds(first_probe), seconds(next_probe), PROBES),
            probes_and_inlines_and_never_delays: (true, true, true),
        }
    }

    #[test]
    fn any_user_timeout_is_one_that_the_kernel_takes() {
        let set = |limit| {
            let kind = socket2::Type::STREAM;
            let socket = RawSocket::new(socket2::Domain::IPV4, kind, None).expect("a descriptor");
            prepare_tcp(&socket, Some(limit)).expect("set");
            options(&Stream::Tcp(TcpStream::from_std(socket.into())))
        };
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(365 * 24 * 3600));
        assert_eq!(set(short), expected(Some(short), 1, 1));
        assert_eq!(set(long), expected(Some(LONGEST_USER_TIMEOUT), 32_767, 32_767));
    }
}
