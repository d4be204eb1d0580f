//! Connecting without waiting: to one place, or to whichever of several answers first.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UnixStream};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};

use super::reactor::{Context, Source};
use super::socket::{self, Socket, Stream};
use crate::proto::end::Side;
use crate::proto::event::Readiness;

/// How long the newest attempt of a race runs before the next begins beside it (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long it waits at first, and at the most, before it asks again a Unix socket whose queue of
/// connections is full, which is where TCP would wait by itself.
const QUEUE_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// What a TCP connection is to be like; of no meaning to others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// The local address to connect from. The port is chosen when the destination is known, so that
    /// one source has as many ports for each destination as the system has at all.
    pub source: Option<IpAddr>,
    /// How long what is sent may wait for its acknowledgement; `None` leaves that to the system.
    pub user_timeout: Option<Duration>,
}

/// Begins to connect to `target`, as `side` of `context`'s source. The stream becomes writable when
/// it is connected or has failed, and [`outcome`] then tells which.
///
/// # Errors
/// Those of `connect(2)` that are known at once, and of `epoll_ctl(2)`.
pub fn begin<S: Source>(
    target: &Target,
    side: Side,
    context: &Context<'_, S>,
) -> io::Result<Stream> {
    begin_on(Terms::default(), target, side, context)
}

/// As [`begin`], on terms of one's own.
///
/// # Errors
/// As [`begin`], and those of `bind(2)`.
pub fn begin_on<S: Source>(
    terms: Terms,
    target: &Target,
    side: Side,
    context: &Context<'_, S>,
) -> io::Result<Stream> {
    let mut stream = call(terms, target)?;
    context.register_duplex(&mut stream, side)?;
    Ok(stream)
}

fn call(terms: Terms, target: &Target) -> io::Result<Stream> {
    let address = match target {
        Target::Tcp(address) => *address,
        Target::Unix(path) => return Ok(Stream::Unix(UnixStream::connect(path)?)),
    };
    let stream = match terms.source {
        Some(source) => connect_from(source, address)?,
        None => TcpStream::connect(address)?,
    };
    socket::prepare_tcp(&SockRef::from(&stream), terms.user_timeout)?;
    Ok(Stream::Tcp(stream))
}

fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = RawSocket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Whether a stream that [`begin`] began is connected: `Ok(false)` while that is not known.
///
/// # Errors
/// Why it could not be connected.
pub fn outcome(stream: &Stream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.is_connected() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// The places of one host, tried as RFC 8305 says: the next begins a quarter of a second after the
/// last, or at once when one has failed; the first that answers wins, and the others are closed.
///
/// All attempts share one side of a source. So an event tells that something happened to one of
/// them, and only the streams can tell to which.
#[derive(Debug)]
pub struct Race {
    side: Side,
    terms: Terms,
    /// Those that have not begun, in their order.
    waiting: VecDeque<Target>,
    running: Vec<(Target, Stream)>,
    /// What events said since the streams were last looked at.
    readiness: Readiness,
    /// When the next of those that wait begins; `None` is at once.
    next_begins: Option<Instant>,
    /// The last that failed, and why.
    failure: Option<(Target, io::Error)>,
    /// How long to wait the next time that a queue is full: exponential back-off.
    queue_pause: Duration,
}

/// Where a race stands.
#[derive(Debug)]
pub enum Standing {
    /// Nobody has answered yet.
    Running,
    /// This one is connected.
    Won(Socket),
    /// Nobody is left; the last place that was tried, if there was one, and why it failed.
    Lost(Option<Target>, io::Error),
}

impl Race {
    /// A race between `places` in this order, on these terms, run as `side` of its source.
    #[must_use]
    pub fn new(places: impl IntoIterator<Item = Target>, terms: Terms, side: Side) -> Self {
        Self {
            side,
            terms,
            waiting: places.into_iter().collect(),
            running: Vec::new(),
            readiness: Readiness::NONE,
            next_begins: None,
            failure: None,
            queue_pause: QUEUE_PAUSES.0,
        }
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.readiness = self.readiness.with(readiness);
    }

    /// Looks who has answered, and begins what is to begin.
    pub fn advance<S: Source>(&mut self, context: &Context<'_, S>) -> Standing {
        if let Some(stream) = self.winner() {
            let mut socket = Socket::new(stream, self.side);
            // What was heard of a failure was said of another: this one has none.
            socket.handle_readiness(self.readiness.without(Readiness::FAILED));
            return Standing::Won(socket);
        }
        while self.next_begins.is_none_or(|at| at <= context.now)
            && let Some(target) = self.waiting.pop_front()
        {
            match begin_on(self.terms, &target, self.side, context) {
                Ok(stream) => {
                    self.running.push((target, stream));
                    self.next_begins = Some(context.now + ATTEMPT_DELAY);
                }
                Err(error) if is_queue_full(&target, &error) => {
                    self.next_begins = Some(context.now + self.queue_pause);
                    self.queue_pause = (self.queue_pause * 2).min(QUEUE_PAUSES.1);
                    self.waiting.push_front(target);
                    return Standing::Running;
                }
                Err(error) => self.fail(target, error),
            }
        }
        if !self.running.is_empty() || !self.waiting.is_empty() {
            return Standing::Running;
        }
        match self.failure.take() {
            Some((target, error)) => Standing::Lost(Some(target), error),
            None => Standing::Lost(None, io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// When to [`advance`](Self::advance) even if nothing becomes ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.next_begins.filter(|_| !self.waiting.is_empty())
    }

    /// The stream that is connected. Of those that are not, nothing has been heard as yet: what
    /// happens to them from here on will be an event of its own.
    fn winner(&mut self) -> Option<Stream> {
        if self.readiness == Readiness::NONE {
            return None;
        }
        let is_alone = self.running.len() == 1;
        for (target, stream) in std::mem::take(&mut self.running) {
            let outcome = if is_alone { self.heard(&stream) } else { outcome(&stream) };
            match outcome {
                Ok(true) => {
                    self.running.clear();
                    return Some(stream);
                }
                Ok(false) => self.running.push((target, stream)),
                Err(error) => self.fail(target, error),
            }
        }
        self.readiness = Readiness::NONE;
        None
    }

    /// The outcome of the only attempt that runs: the event says it, without a system call.
    fn heard(&self, stream: &Stream) -> io::Result<bool> {
        if self.readiness.contains(Readiness::FAILED) {
            return Err(stream.take_error()?.unwrap_or(io::ErrorKind::NotConnected.into()));
        }
        Ok(self.readiness.contains(Readiness::WRITABLE))
    }

    fn fail(&mut self, target: Target, error: io::Error) {
        self.failure = Some((target, error));
        self.next_begins = None;
    }
}

/// Whether the listener is there, and its queue of connections is full (`EAGAIN` of connect(2)).
fn is_queue_full(target: &Target, error: &io::Error) -> bool {
    matches!(target, Target::Unix(_)) && error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_the_options_of_its_terms() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = Target::Tcp(listener.local_addr().expect("bound"));
        let options = |terms| socket::tests::options(&call(terms, &target).expect("begun"));
        assert_eq!(options(Terms::default()), socket::tests::expected(None, 120, 30));
        let user_timeout = Some(Duration::from_secs(8));
        let terms = Terms { user_timeout, ..Terms::default() };
        assert_eq!(options(terms), socket::tests::expected(user_timeout, 4, 1));
        let source = Some(IpAddr::from([127, 0, 0, 2]));
        assert_eq!(options(Terms { source, ..terms }), options(terms));
    }
}
