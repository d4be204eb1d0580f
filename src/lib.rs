//! turnstile
pub mod certificates;
pub mod client;
pub mod config;
pub mod daemon;
pub mod net;
pub mod proto;
