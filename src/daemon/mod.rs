//! The daemon: from a checked plan to sources in the reactor, until it is told to stop.
//!
//! | file | what it is |
//! |---|---|
//! | [`host`] | what all sources share: clock, nonces, admissions, names, and whether to go on |
//! | [`start`] | the order in which all of it comes up |
//! | [`listeners`] | from a listener of the plan to a bound socket |
//! | [`open_error`] | why it could not be bound |
//! | [`acceptor`] | a listener: accepts in batches, applies the limits, spawns connections |
//! | [`arrival`] | a connection whose proxy has yet to say for whom it is |
//! | [`connection`] | an accepted connection: a session between a socket and a service |
//! | [`tls`] | from a listener's plan to what rustls works by |
//! | [`datagrams`] | a UDP service |
//! | [`loops`] | whom it may answer, so that no two services answer each other for ever |
//! | [`own_calls`] | connections of our own that come back to us |
//! | [`revival`] | when to bind a listening socket anew that has died |
//! | [`admissions`] | the limits on connections, and who was turned away |
//! | [`waiting`] | those who were not admitted, and who of them makes room for others |
//! | [`manager`] | tells systemd, or who stands in for it, how far the daemon has come |
//! | [`stop`] | signals, and the drain that follows |
//! | [`log`], [`throttle`], [`log_queue`] | the observer that writes the log, how often, and how its lines get out |

pub mod acceptor;
pub mod admissions;
pub mod arrival;
pub mod connection;
pub mod datagrams;
pub mod host;
pub mod listeners;
pub mod log;
pub mod log_queue;
pub mod loops;
pub mod manager;
pub mod open_error;
pub mod own_calls;
pub mod revival;
pub mod start;
pub mod stop;
pub mod throttle;
pub mod tls;
pub mod waiting;

use std::time::Instant;

use crate::net::reactor::{Context, Next, Source};
use crate::net::resolver::Queries;
use crate::proto::end::Side;
use crate::proto::event::Readiness;

use acceptor::Acceptor;
use arrival::Arrival;
use connection::Connection;
use datagrams::Datagrams;
use host::Host;
use stop::Stop;

pub use listeners::check_places;
pub use open_error::OpenError;
pub use start::{Daemon, StartError};
pub use tls::check;

/// Everything that lives in the daemon's reactor. Connections are many and stand in the slab
/// itself; the others are few and boxed, so that they do not make its entries larger.
#[allow(clippy::large_enum_variant)]
pub enum DaemonSource {
    /// An accepted connection.
    Connection(Connection),
    /// A connection that a proxy has to announce first.
    Arrival(Box<Arrival>),
    /// A TCP or Unix listener.
    Acceptor(Box<Acceptor>),
    /// A UDP service.
    Datagrams(Box<Datagrams>),
    /// The sockets to the name servers.
    Queries(Box<Queries>),
    /// The signal handler.
    Stop(Box<Stop>),
}

impl Source for DaemonSource {
    type Host = Host;

    fn start(&mut self, context: &mut Context<'_, Self>) -> Next {
        match self {
            Self::Connection(connection) => connection.start(context),
            Self::Arrival(arrival) => arrival.start(context),
            Self::Acceptor(acceptor) => acceptor.start(context),
            Self::Datagrams(datagrams) => datagrams.start(context),
            Self::Queries(queries) => queries.start(context),
            Self::Stop(stop) => stop.start(context),
        }
    }

    fn handle_readiness(&mut self, side: Side, readiness: Readiness) {
        match self {
            Self::Connection(connection) => connection.handle_readiness(side, readiness),
            Self::Arrival(arrival) => arrival.handle_readiness(readiness),
            Self::Acceptor(acceptor) => acceptor.handle_readiness(readiness),
            Self::Datagrams(datagrams) => datagrams.handle_readiness(readiness),
            Self::Queries(queries) => queries.handle_readiness(side, readiness),
            Self::Stop(_) => {}
        }
    }

    fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
        match self {
            Self::Connection(connection) => connection.run(context),
            Self::Arrival(arrival) => arrival.run(context),
            Self::Acceptor(acceptor) => acceptor.run(context),
            Self::Datagrams(datagrams) => datagrams.run(context),
            Self::Queries(queries) => queries.run(context),
            Self::Stop(stop) => stop.run(context),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Connection(connection) => connection.deadline(),
            Self::Arrival(arrival) => arrival.deadline(),
            Self::Acceptor(acceptor) => acceptor.deadline(),
            Self::Datagrams(datagrams) => datagrams.deadline(),
            Self::Queries(queries) => queries.deadline(),
            Self::Stop(stop) => stop.deadline(),
        }
    }

    fn takes_long(&self) -> bool {
        match self {
            Self::Connection(connection) => connection.takes_long(),
            Self::Arrival(_)
            | Self::Acceptor(_)
            | Self::Datagrams(_)
            | Self::Queries(_)
            | Self::Stop(_) => false,
        }
    }
}
