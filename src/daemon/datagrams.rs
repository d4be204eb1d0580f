//! A UDP service: every datagram is answered by itself.
//!
//! Whoever can forge a source address can make us send to it. So on an address that others can
//! reach, no reply is larger than its request (nothing is multiplied) unless the configuration
//! allows it, and nothing is ever sent to the ports of services that would answer the answer.

use std::net::SocketAddr;

use super::DaemonSource;
use super::host::Phase;
use crate::net::reactor::{Context, Next};
use crate::net::udp::UdpServer;
use crate::proto::event::{Event, Readiness};
use crate::proto::service::Kind;

/// How many batches one service takes in one turn before the others have theirs.
const BATCHES_PER_TURN: usize = 4;

/// echo, daytime, quote of the day, chargen, time: they answer anything, so an answer to them
/// could go round for ever. Port 0 cannot be answered at all.
const PORTS_THAT_ANSWER: [u16; 6] = [0, 7, 13, 17, 19, 37];

/// A bound UDP socket and what it offers.
pub struct Datagrams {
    server: UdpServer,
    name: String,
    service: Kind,
    may_amplify: bool,
}

impl Datagrams {
    /// A service on `server`. `may_amplify` allows replies that are larger than their requests.
    #[must_use]
    pub fn new(server: UdpServer, name: String, service: Kind, may_amplify: bool) -> Self {
        Self { server, name, service, may_amplify }
    }

    /// Registers the socket.
    pub fn start(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        let outcome = self.server.register(context);
        context.host.begin_listening(&self.name, outcome)
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.server.handle_readiness(readiness);
    }

    /// Receives and answers some batches.
    pub fn run(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        if context.host.phase != Phase::Running {
            return Next::Close;
        }
        for _ in 0..BATCHES_PER_TURN {
            if !self.server.can_go_on() {
                return Next::Wait;
            }
            let Self { service, may_amplify, .. } = self;
            let (_, host, mut watch) = context.parts(&self.name, &"");
            let mut dropped = 0;
            let outcome = self.server.step(&mut watch, |from, slot, len| {
                let reply = answer(service, *may_amplify, &host.clock, (from, slot, len));
                reply.unwrap_or_else(|Dropped| {
                    dropped += 1;
                    None
                })
            });
            let counts = &mut host.admissions.counts;
            match outcome {
                Ok(batch) => {
                    counts.datagrams += batch.received as u64;
                    counts.datagrams_dropped += dropped + batch.lost as u64;
                }
                Err(error) => return self.fail(&error, context),
            }
            if dropped > 0 {
                let why = format!(
                    "datagrams that were not answered: {dropped}; their sender's port answers \
                     answers, or the reply would have been larger than the request (amplify)"
                );
                watch.report(&Event::Refused(&why));
            }
        }
        Next::Again
    }

    fn fail(&self, error: &std::io::Error, context: &mut Context<'_, DaemonSource>) -> Next {
        let why = format!("the UDP service ends: {error}");
        context.watch(&self.name, &"").report(&Event::Trouble(&why));
        Next::Close
    }
}

/// The reply would have been abused.
struct Dropped;

fn answer(
    service: &Kind,
    may_amplify: bool,
    clock: &dyn crate::proto::end::Clock,
    (from, slot, len): (SocketAddr, &mut [u8], usize),
) -> Result<Option<usize>, Dropped> {
    if PORTS_THAT_ANSWER.contains(&from.port()) {
        return Err(Dropped);
    }
    match service.datagram(slot, len, clock) {
        Some(reply) if reply > len && !may_amplify => Err(Dropped),
        reply => Ok(reply),
    }
}
