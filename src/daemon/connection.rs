//! An accepted connection: a session between a socket and a service, and who is at its other side.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mio::Interest;
use rustls::ServerConfig;

use super::DaemonSource;
use super::host::{Host, Phase};
use super::remote::Remote;
use crate::net::listener::Peer;
use crate::net::reactor::{Context, Next};
use crate::net::socket::Stream;
use crate::proto::end::{End, Side, Turn};
use crate::proto::event::Readiness;
use crate::proto::gate::{Challenge, Keyring};
use crate::proto::service::Kind;
use crate::proto::session::{Admission, CloseReason, Session, Step, Timeouts};

/// What one listener offers, shared by its connections.
pub struct Offer {
    /// The listener's name.
    pub name: String,
    /// What an admitted peer talks to.
    pub service: Kind,
    /// Who is admitted; everyone where there is none.
    pub keyring: Option<Rc<Keyring>>,
    /// The TLS that is spoken; none where there is none.
    pub tls: Option<Arc<ServerConfig>>,
    /// How long a connection may take.
    pub timeouts: Rc<Timeouts>,
}

/// One accepted connection.
pub struct Connection {
    session: Session<Remote, Box<dyn End>>,
    peer: Peer,
    offer: Rc<Offer>,
}

impl Connection {
    /// A connection that begins `now`. `challenge` is what its gate asks, where it has one.
    pub fn new(
        stream: Stream,
        peer: Peer,
        offer: Rc<Offer>,
        challenge: Challenge,
        now: Instant,
    ) -> Self {
        let admission = match &offer.keyring {
            Some(keyring) => Admission::Guard(Rc::clone(keyring), challenge),
            None => Admission::Open,
        };
        let session = Session::new(
            Remote::new(stream, offer.tls.as_ref()),
            offer.service.stream(),
            admission,
            Rc::clone(&offer.timeouts),
            now,
        );
        Self { session, peer, offer }
    }

    /// Registers the socket, and sends the challenge.
    pub fn start(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        let both = Interest::READABLE | Interest::WRITABLE;
        match context.register(self.session.remote().stream(), Side::Remote, both) {
            Ok(()) => self.run(context),
            Err(error) => {
                self.close(context, CloseReason::Failed(Side::Remote, error.kind()));
                Next::Close
            }
        }
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.session.remote().handle_readiness(readiness);
    }

    /// Lets the session move what it can.
    pub fn run(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        let step = if context.host.phase == Phase::Stopping {
            Step::Close(CloseReason::Stopped)
        } else {
            let now = context.now;
            let (pool, host, watch) = context.parts(&self.offer.name, &self.peer);
            self.session.run(&mut Turn { now, pool, clock: &host.clock, watch })
        };
        match step {
            Step::Wait => Next::Wait,
            Step::Again => Next::Again,
            Step::Close(reason) => {
                self.close(context, reason);
                Next::Close
            }
        }
    }

    /// The next moment at which something must have happened.
    pub fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    fn close(&mut self, context: &mut Context<'_, DaemonSource>, reason: CloseReason) {
        let now = context.now;
        let (pool, host, watch) = context.parts(&self.offer.name, &self.peer);
        let Host { clock, admissions, .. } = host;
        self.session.dispose(&mut Turn { now, pool, clock, watch }, &reason);
        admissions.leave(&self.peer);
        if !self.session.was_admitted() {
            admissions.counts.refused_at_gate += 1;
        }
    }
}
