//! Why a listener could not be opened: one line each, with what to do.

use std::io;

use crate::config::{NoAuthorities, ResolveError};

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A host name is not known.
    #[error("listener `{name}`: {error}")]
    Resolve {
        /// The listener's name.
        name: String,
        /// What the resolver said.
        error: ResolveError,
    },
    /// An address could not be bound.
    #[error("listener `{name}`: cannot listen on {address}: {error}{}", advice(.error))]
    Bind {
        /// The listener's name.
        name: String,
        /// The address as it is bound.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The event loop cannot be told of it.
    #[error("listener `{name}`: nobody can be heard on it: {error}{}", advice(.error))]
    Register {
        /// The listener's name.
        name: String,
        /// What the system said.
        error: io::Error,
    },
    /// What TLS needs cannot be made.
    #[error("listener `{name}`: TLS cannot be prepared: {error}")]
    Tls {
        /// The listener's name.
        name: String,
        /// What is missing or wrong.
        error: TlsError,
    },
}

/// Why TLS cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls does not want it so.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// Nobody is there to be trusted.
    #[error("{0} (ca)")]
    NoAuthorities(#[from] NoAuthorities),
    /// A target's host is no name that a certificate could have.
    #[error("`{0}` cannot be the name of a server; write its name as server_name")]
    Name(String),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 and foreign folders need a right: choose another address, or give \
             the program CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrInUse => {
            "; stop the program that uses it (`ss -lptn` names it), or choose another address"
        }
        io::ErrorKind::StorageFull => "; raise fs.epoll.max_user_watches (`sysctl`)",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address (`ip address`)",
        _ => "",
    }
}
