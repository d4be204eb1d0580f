//! How long a session may take in each of its states.

use std::time::Duration;

/// How long a session may stay in a condition; `None` is for ever. Where `proxy`, `tls`, `auth` or
/// `half_close` is turned off, `idle` holds in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a header of the PROXY protocol, which has to be whole before its session begins.
    /// Absolute: bytes do not extend it.
    pub proxy: Option<Duration>,
    /// From the beginning until the remote end is up: the TLS handshake. Absolute: bytes do not
    /// extend it.
    pub tls: Option<Duration>,
    /// From then until the gate is passed. Absolute, too.
    pub auth: Option<Duration>,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// Without a byte once one direction has ended; also the limit of Closing, where it is
    /// absolute.
    pub half_close: Option<Duration>,
    /// From the beginning. Absolute.
    pub lifetime: Option<Duration>,
}

impl Timeouts {
    /// No deadline at all.
    pub const NONE: Self =
        Self { proxy: None, tls: None, auth: None, idle: None, half_close: None, lifetime: None };
}

/// What a server does best with where nobody said anything else.
impl Default for Timeouts {
    fn default() -> Self {
        Self {
            proxy: Some(Duration::from_secs(10)),
            tls: Some(Duration::from_secs(10)),
            auth: Some(Duration::from_secs(10)),
            idle: Some(Duration::from_secs(600)),
            half_close: Some(Duration::from_secs(30)),
            lifetime: None,
        }
    }
}
