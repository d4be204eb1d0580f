//! The client side: talking to a server from a terminal or a pipe.

pub mod certificate;
pub mod connect;
pub mod credentials;
pub mod inspect;
pub mod terminal;
pub mod tls;
