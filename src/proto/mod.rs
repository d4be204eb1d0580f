//! The pure core: bytes, time and nonces go in as arguments, bytes and decisions come out.

pub mod buffer;
pub mod end;
pub mod event;
pub mod gate;
pub mod identity;
pub mod pipe;
pub mod service;
pub mod session;
