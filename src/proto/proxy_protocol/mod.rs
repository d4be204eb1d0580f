//! The PROXY protocol (HAProxy's proxy-protocol.txt), versions 1 and 2: a header before the first
//! byte of a connection, in which a proxy says for whom it has made it.
//!
//! | file | what it is |
//! |---|---|
//! | [`trust`] | whose headers are believed |
//! | [`announced`] | from a header that came to what it says |
//! | [`client`] | from what is known of a client to a header |
//!
//! The codec is that of the crate `proxy-header`; here stand the bounds, what is made of the fields,
//! and what is put into them. Nothing here encrypts or proves anything: whoever may send a header
//! may claim any address, so that has to be settled before one is read.

use core::net::SocketAddr;

pub mod announced;
pub mod client;
pub mod trust;

pub use announced::{Announced, HEADER_LIMIT, Malformed, read};
pub use client::{Client, Security, Version, VersionError};
pub use trust::{Trusted, TrustedError};

/// The field (PP2_TYPE_MIN_CUSTOM) in which the name of the secret travels that let a client in. Others
/// use it for what they like; so it is believed only beside the next one.
pub const IDENTITY_FIELD: u8 = 0xE0;

/// The field in which a header names its maker, and what it holds.
pub const MAKER_FIELD: u8 = 0xE1;
/// What [`MAKER_FIELD`] holds.
pub const MAKER: &[u8] = b"turnstile";

/// Who is connected to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}
