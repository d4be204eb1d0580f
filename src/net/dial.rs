//! Connecting without waiting: to one place, or to whichever of several answers first.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};

use super::reactor::{Context, Source};
use super::socket::{self, Socket, Stream};
use super::unix;
use crate::proto::end::Side;
use crate::proto::event::Readiness;

/// How long the newest attempt of a race runs before the next begins beside it (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// What beginning a connection costs, in nanoseconds.
const CALL_COST: u64 = 16_000;

/// The most places of one host that are tried: a name may have thousands of addresses, and each
/// call costs somebody else something.
pub const MAX_CALLS: usize = 8;

/// How long it waits at first, and at the most, before it asks again a Unix socket whose queue of
/// connections is full, which is where TCP would wait by itself.
const QUEUE_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket: its path, or its abstract name behind an `@`.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => f.write_str(&unix::show(path)),
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
    context.spend(CALL_COST);
    let mut stream = call(terms, target)?;
    context.register_duplex(&mut stream, side)?;
    Ok(stream)
}

fn call(terms: Terms, target: &Target) -> io::Result<Stream> {
    let address = match target {
        Target::Tcp(address) => *address,
        Target::Unix(path) => return Ok(Stream::Unix(unix::connect(path)?)),
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
        Ok(()) if stream.meets_itself() => Err(refuse_itself(stream)),
        outcome => outcome.map(|()| true),
    }
}

/// A call that was answered by itself is as good as one that nobody answered. It is closed with a
/// reset: its port is the one that a server wants which comes back.
fn refuse_itself(stream: &Stream) -> io::Error {
    stream.cut_off();
    let why = "nothing listens there, and the call met itself (its own port was the same)";
    io::Error::new(io::ErrorKind::ConnectionRefused, why)
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
    running: Vec<Attempt>,
    /// Where those come from that have begun and were not [told](Self::new_calls) of.
    begun: Vec<Option<SocketAddr>>,
    /// What events said since the streams were last looked at.
    readiness: Readiness,
    /// When the next of those that wait begins; `None` is at once.
    next_begins: Option<Instant>,
    /// The last that failed, and why.
    failure: Option<(Target, io::Error)>,
    /// How long to wait the next time that a queue is full: exponential back-off.
    queue_pause: Duration,
    /// How often one was, since that was asked last.
    full_queues: u64,
}

/// One call to one place.
#[derive(Debug)]
struct Attempt {
    target: Target,
    stream: Stream,
    /// Its own address, where it has one.
    local: Option<SocketAddr>,
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
    /// A race between `places` in this order, but that the families take turns, on these terms, run
    /// as `side` of its source. Of more than [`MAX_CALLS`] the rest is not tried.
    #[must_use]
    pub fn new(places: impl IntoIterator<Item = Target>, terms: Terms, side: Side) -> Self {
        Self {
            side,
            terms,
            waiting: by_turns(places),
            running: Vec::new(),
            begun: Vec::new(),
            readiness: Readiness::NONE,
            next_begins: None,
            failure: None,
            queue_pause: QUEUE_PAUSES.0,
            full_queues: 0,
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
                    let local = stream.local_address();
                    self.begun.push(local);
                    self.running.push(Attempt { target, stream, local });
                    self.next_begins = Some(context.now + ATTEMPT_DELAY);
                }
                Err(error) if is_queue_full(&target, &error) => {
                    self.full_queues += 1;
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
        for attempt in std::mem::take(&mut self.running) {
            let outcome = if is_alone { self.heard(&attempt) } else { outcome(&attempt.stream) };
            match outcome {
                Ok(true) => {
                    self.running.clear();
                    return Some(attempt.stream);
                }
                Ok(false) => self.running.push(attempt),
                Err(error) => self.fail(attempt.target, error),
            }
        }
        self.readiness = Readiness::NONE;
        None
    }

    /// The outcome of the only attempt that runs: the event says it, without a system call.
    fn heard(&self, Attempt { target, stream, local }: &Attempt) -> io::Result<bool> {
        if self.readiness.contains(Readiness::FAILED) {
            return Err(stream.take_error()?.unwrap_or(io::ErrorKind::NotConnected.into()));
        }
        let is_connected = self.readiness.contains(Readiness::WRITABLE);
        let may_be_itself = match (target, local) {
            (Target::Tcp(target), Some(local)) => target.port() == local.port(),
            _ => false,
        };
        if is_connected && may_be_itself && stream.meets_itself() {
            return Err(refuse_itself(stream));
        }
        Ok(is_connected)
    }

    /// The local addresses of the calls that have begun since this was asked last; `None` for one to
    /// a Unix socket.
    pub fn new_calls(&mut self) -> impl Iterator<Item = Option<SocketAddr>> + '_ {
        self.begun.drain(..)
    }

    /// How often the queue of a Unix socket was found full since this was asked last.
    pub fn take_full_queues(&mut self) -> u64 {
        std::mem::take(&mut self.full_queues)
    }

    fn fail(&mut self, target: Target, error: io::Error) {
        self.failure = Some((target, error));
        self.next_begins = None;
    }
}

/// The first of `places` with each family after the other (RFC 8305, 4).
fn by_turns(places: impl IntoIterator<Item = Target>) -> VecDeque<Target> {
    let mut places = places.into_iter().peekable();
    let family = |target: &Target| matches!(target, Target::Tcp(SocketAddr::V6(_)));
    let first = places.peek().map(family);
    let (one, other): (Vec<_>, Vec<_>) = places.partition(|target| Some(family(target)) == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut chosen = VecDeque::with_capacity(MAX_CALLS);
    while chosen.len() < MAX_CALLS && one.len() + other.len() > 0 {
        chosen.extend(one.next());
        chosen.extend(other.next());
    }
    chosen.truncate(MAX_CALLS);
    chosen
}

/// Whether the listener is there, and its queue of connections is full (`EAGAIN` of connect(2)).
fn is_queue_full(target: &Target, error: &io::Error) -> bool {
    matches!(target, Target::Unix(_)) && error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_take_turns_and_few_of_many_places_are_tried() {
        let place = |text: &str| Target::Tcp(text.parse().expect("an address"));
        let four = |number| place(&format!("192.0.2.{number}:1"));
        let six = |number| place(&format!("[2001:db8::{number}]:1"));
        let race = |places| Race::new(places, Terms::default(), Side::Local).waiting;
        assert_eq!(race(vec![four(1), four(2), six(1)]), [four(1), six(1), four(2)]);
        assert_eq!(race(vec![six(1), six(2), four(1)]), [six(1), four(1), six(2)]);
        let many = (1..=200).map(four).chain([six(1)]).collect();
        let chosen = race(many);
        assert_eq!((chosen.len(), &chosen[1], &chosen[7]), (MAX_CALLS, &six(1), &four(7)));
        assert!(race(Vec::new()).is_empty());
    }

    #[test]
    fn a_call_that_meets_itself_is_refused() {
        let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any_port.into()).expect("a port");
        let own = socket.local_addr().expect("bound");
        socket.connect(&own).expect("it meets itself");
        socket.set_nonblocking(true).expect("an option");
        let stream = Stream::Tcp(TcpStream::from_std(socket.into()));
        let error = outcome(&stream).expect_err("that is nobody");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        drop(stream);
        let port = own.as_socket().expect("IPv4");
        std::net::TcpListener::bind(port).expect("the port is free for a server");
    }

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
