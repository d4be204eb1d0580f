//! turnstile
pub mod proto;
