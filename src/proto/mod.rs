//! The pure core: bytes, time and nonces go in as arguments, bytes and decisions come out.
//! Addresses are those of `core::net`: numbers, without the sockets that `std::net` has.

pub mod buffer;
pub mod end;
pub mod event;
pub mod exit;
pub mod gate;
pub mod hello;
pub mod host;
pub mod http_connect;
pub mod identity;
pub mod idn;
pub mod introduction;
pub mod pem;
pub mod pipe;
pub mod proxy_protocol;
pub mod quote;
pub mod reason;
pub mod resolver;
pub mod service;
pub mod session;
pub mod starttls;
pub mod timeouts;
