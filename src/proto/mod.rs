//! The pure core: bytes, time and nonces go in as arguments, bytes and decisions come out.

pub mod gate;
pub mod service;
