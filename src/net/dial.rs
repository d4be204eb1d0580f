//! Connecting without waiting: one address after the other, until one answers.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use mio::net::{TcpStream, UnixStream};

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

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
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
    let mut stream = match target {
        Target::Tcp(address) => {
            let stream = TcpStream::connect(*address)?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        }
        Target::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
    };
    context.register_duplex(&mut stream, side)?;
    Ok(stream)
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
