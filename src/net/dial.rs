//! Connecting without waiting: one address after the other, until one answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use mio::Interest;
use mio::net::{TcpStream, UnixStream};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use super::reactor::{Context, Source};
use super::socket::Stream;
use crate::proto::end::Side;

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
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
    begin_from(None, target, side, context)
}

/// As [`begin`], from the local address `source`, where there is one and `target` is TCP. The port
/// is chosen when the destination is known, so that one source has as many ports for each
/// destination as the system has at all.
///
/// # Errors
/// As [`begin`], and those of `bind(2)`.
pub fn begin_from<S: Source>(
    source: Option<IpAddr>,
    target: &Target,
    side: Side,
    context: &Context<'_, S>,
) -> io::Result<Stream> {
    let mut stream = match (target, source) {
        (Target::Tcp(address), source) => {
            let stream = match source {
                Some(source) => connect_from(source, *address)?,
                None => TcpStream::connect(*address)?,
            };
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        }
        (Target::Unix(path), _) => Stream::Unix(UnixStream::connect(path)?),
    };
    context.register(&mut stream, side, Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
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
