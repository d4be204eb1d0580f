//! Listening sockets: TCP and Unix.
//!
//! Options that connections need are set on the listener: Linux hands them down to every accepted
//! socket (tcp(7)), which saves the calls at each accept.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::{Interest, event};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use super::descriptors;
use super::reactor::{Context, Source};
use super::socket::{self, Stream};
use super::unix::{self, SocketName};
use crate::proto::end::Side;
use crate::proto::proxy_protocol::{Addresses, Announced};

/// How many connections the kernel may complete before they are accepted. The kernel lowers it to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening socket of either family.
#[derive(Debug)]
pub enum Listener {
    /// TCP over IPv4 or IPv6.
    Tcp(mio::net::TcpListener),
    /// A Unix stream socket and its name.
    Unix(mio::net::UnixListener, SocketName),
}

/// What an attempt to accept came to.
#[derive(Debug)]
pub enum Accept {
    /// A connection and who is at its other side.
    Connection(Stream, Peer),
    /// None waits.
    WouldBlock,
    /// The one that waited is gone, or was not meant for us; the next may be well.
    Lost(io::Error),
    /// The socket is of no use any more, and nobody will ever come.
    Dead(io::Error),
    /// The process or the system has no descriptor or memory left for it. If one waits, it goes on
    /// waiting, and no event will tell when there is room again.
    Exhausted(io::Error),
}

/// Who is at the other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An Internet address.
    Inet(SocketAddr),
    /// A process on this machine: its process and user number, where the kernel knows them.
    Unix(Option<(i32, u32)>),
    /// Whom a proxy has announced. It stands apart, so that the others stay small.
    Announced(Box<Behind>),
}

/// Somebody behind a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// What the proxy has said of them.
    pub announced: Announced,
    /// The proxy itself.
    pub proxy: Peer,
}

impl Peer {
    /// Whom this one, a proxy, announces; the proxy itself where it says nothing of anybody.
    #[must_use]
    pub fn announcing(self, announced: Announced) -> Self {
        if announced == Announced::default() {
            return self;
        }
        Self::Announced(Box::new(Behind { announced, proxy: self }))
    }

    /// The Internet address; the announced one where there is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Unix(_) => None,
            Self::Announced(behind) => match behind.announced.addresses {
                Some(Addresses { source, .. }) => Some(unmapped(source)),
                None => behind.proxy.address(),
            },
        }
    }

    /// What a proxy has said of who connects to what, where it has.
    #[must_use]
    pub fn announced(&self) -> Option<Addresses> {
        match self {
            Self::Announced(behind) => behind.announced.addresses,
            Self::Inet(_) | Self::Unix(_) => None,
        }
    }
}

/// As it stands behind `peer=` in the log; what a proxy has said follows in pairs of its own.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(Some((process, user))) => write!(f, "unix(pid={process},uid={user})"),
            Self::Unix(None) => f.write_str("unix"),
            Self::Announced(behind) => {
                let Behind { announced: Announced { addresses, details }, proxy } = &**behind;
                if let Some(Addresses { source, .. }) = addresses {
                    write!(f, "{} proxy=", unmapped(*source))?;
                }
                proxy.fmt(f)?;
                if !details.is_empty() {
                    write!(f, " announced=\"{details}\"")?;
                }
                Ok(())
            }
        }
    }
}

impl Listener {
    /// Binds a TCP address and listens. An address that connections of a former process still
    /// linger on may be bound again at once. `[::]` takes IPv4 too where the system allows it, and
    /// not with `only_ipv6`. What is sent to an accepted peer may wait as long as `user_timeout` for its acknowledgement.
    ///
    /// # Errors
    /// Those of `bind(2)` and `listen(2)`.
    pub fn tcp(
        address: SocketAddr,
        only_ipv6: bool,
        user_timeout: Option<Duration>,
    ) -> io::Result<Self> {
        let socket = RawSocket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(only_ipv6 || address.ip() != Ipv6Addr::UNSPECIFIED)?;
        }
        socket::prepare_tcp(&socket, user_timeout)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self::Tcp(mio::net::TcpListener::from_std(socket.into())))
    }

    /// Binds a Unix path with the permissions `mode`, or an abstract name, and listens.
    ///
    /// # Errors
    /// As [`unix::bind`].
    pub fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        let (listener, name) = unix::bind(path, mode, BACKLOG)?;
        Ok(Self::Unix(listener, name))
    }

    /// The address that the system bound, which says the port where 0 was asked for.
    #[must_use]
    pub fn bound(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("tcp://{address}"),
                Err(error) => format!("tcp://? ({error})"),
            },
            Self::Unix(_, name) => unix::show(name.path()),
        }
    }

    /// Registers for readiness as the remote side of `context`'s source.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register<S: Source>(&mut self, context: &Context<'_, S>) -> io::Result<()> {
        fn with<S: Source>(
            context: &Context<'_, S>,
            it: &mut impl event::Source,
        ) -> io::Result<()> {
            context.register(it, Side::Remote, Interest::READABLE)
        }
        match self {
            Self::Tcp(listener) => with(context, listener),
            Self::Unix(listener, _) => with(context, listener),
        }
    }

    /// Whether somebody waits, which without a descriptor left [`accept`](Self::accept) cannot tell:
    /// Linux looks for a descriptor before it looks for a connection.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let listener = match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        };
        poll(&mut [PollFd::new(listener, PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0)
    }

    /// Takes one connection that waits.
    pub fn accept(&self) -> Accept {
        let outcome = match self {
            Self::Tcp(listener) => listener
                .accept()
                .map(|(stream, address)| (Stream::Tcp(stream), Peer::Inet(unmapped(address)))),
            Self::Unix(listener, _) => listener.accept().map(|(stream, _)| {
                let credentials = getsockopt(&stream, sockopt::PeerCredentials).ok();
                let peer = Peer::Unix(credentials.map(|who| (who.pid(), who.uid())));
                (Stream::Unix(stream), peer)
            }),
        };
        match outcome {
            Ok((stream, peer)) => Accept::Connection(stream, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accept::WouldBlock,
            Err(error) if descriptors::have_run_out(&error) => Accept::Exhausted(error),
            Err(error) if self.is_dead_of(&error) => Accept::Dead(error),
            Err(error) => Accept::Lost(error),
        }
    }

    /// Whether nobody is listened for any more: it is no listening socket (`ss --kill` makes it so), or
    /// somebody has shut it down.
    fn is_dead_of(&self, error: &io::Error) -> bool {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let listens = match self {
            Self::Tcp(listener) => getsockopt(listener, sockopt::AcceptConn),
            Self::Unix(listener, _) => getsockopt(listener, sockopt::AcceptConn),
        };
        matches!(errno, Some(Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP))
            || listens != Ok(true)
    }
}

/// What a listener is bound to, so that it can be again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A TCP address.
    Tcp {
        /// Where.
        address: SocketAddr,
        /// Whether `[::]` leaves IPv4 to another listener.
        only_ipv6: bool,
        /// How long what is sent may wait for its acknowledgement.
        user_timeout: Option<Duration>,
    },
    /// A Unix path and its permissions.
    Unix(PathBuf, u32),
}

impl Binding {
    /// Binds it and listens.
    ///
    /// # Errors
    /// Those of [`Listener::tcp`] and [`Listener::unix`].
    pub fn listen(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp { address, only_ipv6, user_timeout } => {
                Listener::tcp(*address, *only_ipv6, *user_timeout)
            }
            Self::Unix(path, mode) => Listener::unix(path, *mode),
        }
    }

    /// The same with the port that the system has chosen for `listener`.
    #[must_use]
    pub fn as_bound(mut self, listener: &Listener) -> Self {
        if let (Self::Tcp { address, .. }, Listener::Tcp(tcp)) = (&mut self, listener) {
            *address = tcp.local_addr().unwrap_or(*address);
        }
        self
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } => write!(f, "tcp://{address}"),
            Self::Unix(path, _) => f.write_str(&unix::show(path)),
        }
    }
}

/// An IPv4 peer of an IPv6 socket, as the IPv4 address that it is.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_behind_a_proxy_is_who_it_is_said_to_be() {
        let read = |text: &str| text.parse().expect("an address");
        let (proxy, addresses) = (
            Peer::Inet(read("127.0.0.1:1")),
            Addresses { source: read("[::ffff:192.0.2.1]:2"), destination: read("[::1]:3") },
        );
        let announced = Announced { addresses: Some(addresses), details: "cn=a".to_owned() };
        let behind = proxy.clone().announcing(announced);
        assert_eq!(behind.address(), Some(read("192.0.2.1:2")), "IPv4 as what it is");
        assert_eq!(behind.announced(), Some(addresses));
        assert_eq!(behind.to_string(), "192.0.2.1:2 proxy=127.0.0.1:1 announced=\"cn=a\"");

        let own = Announced { addresses: None, details: "cn=a".to_owned() };
        let itself = proxy.clone().announcing(own);
        assert_eq!((itself.address(), itself.announced()), (proxy.address(), None));
        assert_eq!(itself.to_string(), "127.0.0.1:1 announced=\"cn=a\"");
        assert_eq!(proxy.clone().announcing(Announced::default()), proxy);
    }

    #[test]
    fn whoever_is_behind_a_proxy_makes_no_other_peer_larger() {
        assert_eq!(size_of::<Peer>(), size_of::<SocketAddr>());
    }

    #[test]
    fn an_accepted_socket_has_the_options_of_its_listener() {
        let accepted = |user_timeout| {
            let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = Listener::tcp(any_port, false, user_timeout).expect("a port");
            let Listener::Tcp(tcp) = &listener else { panic!("it is TCP") };
            let address = tcp.local_addr().expect("bound");
            let _client = std::net::TcpStream::connect(address).expect("connected");
            match listener.accept() {
                Accept::Connection(stream, _) => socket::tests::options(&stream),
                other => panic!("{other:?}"),
            }
        };
        let two_minutes = Some(Duration::from_secs(120));
        assert_eq!(accepted(two_minutes), socket::tests::expected(two_minutes, 60, 15));
        assert_eq!(accepted(None), socket::tests::expected(None, 120, 30));
    }
}
