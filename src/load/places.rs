//! Where the server of a run is.

use std::fmt;
use std::net::SocketAddr;

use crate::config::{Address, ResolveError};
use crate::net::dial::Target;

/// One place that an address may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A stream socket's.
    Stream(Target),
    /// A datagram socket's.
    Datagrams(SocketAddr),
}

impl Place {
    /// Where a stream goes.
    #[must_use]
    pub fn as_stream(&self) -> Option<&Target> {
        if let Self::Stream(target) = self { Some(target) } else { None }
    }

    /// Where datagrams go.
    #[must_use]
    pub fn as_datagrams(&self) -> Option<SocketAddr> {
        if let Self::Datagrams(address) = self { Some(*address) } else { None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(target) => target.fmt(f),
            Self::Datagrams(address) => write!(f, "udp://{address}"),
        }
    }
}

/// Every place that `address` stands for. Looks names up, which blocks.
///
/// # Errors
/// The host is unknown.
pub fn places(address: &Address) -> Result<Vec<Place>, ResolveError> {
    Ok(match address {
        Address::Unix(path) => vec![Place::Stream(Target::Unix(path.clone()))],
        Address::Tcp(at) | Address::Tls(at) => {
            at.resolve()?.into_iter().map(Target::Tcp).map(Place::Stream).collect()
        }
        Address::Udp(at) => at.resolve()?.into_iter().map(Place::Datagrams).collect(),
    })
}
