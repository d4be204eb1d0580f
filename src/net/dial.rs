//! Connecting without waiting: one address after the other, until one answers.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use mio::net::{TcpStream, UnixStream};

use super::socket::Stream;

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Begins to connect to `target`. The stream becomes writable when it is connected or has failed,
/// and [`outcome`] then tells which.
///
/// # Errors
/// Those of `connect(2)` that are known at once.
pub fn begin(target: &Target) -> io::Result<Stream> {
    match target {
        Target::Tcp(address) => {
            let stream = TcpStream::connect(*address)?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        Target::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
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
