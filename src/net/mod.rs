//! Readiness: the only folder that names mio.
//!
//! [`reactor`] turns readiness events and deadlines into turns for sources and knows no protocol;
//! `due` says whose turn it is, and when the turn is over;
//! [`socket`] is the one place that knows edge triggering, and [`tls`] the one that names rustls'
//! connection types; the rest are the things that can become ready.

mod alarm;
pub mod clock;
pub mod descriptors;
pub mod dial;
mod due;
pub mod forward;
pub mod listener;
pub mod output;
pub mod reactor;
pub mod remote;
pub mod resolver;
pub mod signal;
pub mod socket;
pub mod stdio;
pub mod timer;
pub mod tls;
pub mod tls_probe;
pub mod trace;
pub mod udp;
pub mod udp_destination;
pub mod udp_owner;
pub mod udp_peer;
pub mod unix;
pub mod wire;
pub mod zone;
