//! A UDP service: every datagram is answered by itself.
//!
//! Whoever can forge a source address can make us send to it. So on an address that others can
//! reach, no reply is larger than its request (nothing is multiplied) unless the configuration
//! allows it, and nobody is answered who [may answer the answer](super::loops) for ever.
//!
//! Errors of the socket pass, as a rule: what earlier replies caused, a want of memory. It goes on after
//! each, rests where one follows the other, and is [bound anew](super::revival) where it has died.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::DaemonSource;
use super::host::Phase;
use super::loops::{Loops, Rate, Withheld};
use super::revival::{self, Revival};
use crate::net::reactor::{Context, Next};
use crate::net::udp::{Request, UdpServer};
use crate::proto::end::Clock;
use crate::proto::event::{Event, Readiness};
use crate::proto::service::Kind;

/// How many batches one service takes in one turn before the others have theirs.
const BATCHES_PER_TURN: usize = 4;

/// What a datagram costs beside its bytes, in nanoseconds.
const DATAGRAM_COST: u64 = 1_000;

/// How many batches are answered after the signal to stop: they came before it, as many as the
/// kernel keeps by default.
const LAST_BATCHES: usize = 16;

/// A bound UDP socket and what it offers.
pub struct Datagrams {
    /// Gone while it waits to be bound anew.
    server: Option<UdpServer>,
    address: SocketAddr,
    only_ipv6: bool,
    name: String,
    service: Kind,
    rules: Rules,
    revival: Revival,
    batches_left: usize,
}

/// What is not answered.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether replies may be larger than their requests.
    pub may_amplify: bool,
    /// How many answers a second a peer may have.
    pub rate: Rate,
}

impl Datagrams {
    /// A service on `server`.
    #[must_use]
    pub fn new(server: UdpServer, name: String, service: Kind, rules: Rules) -> Self {
        let (address, only_ipv6) = (server.local_address(), server.only_ipv6());
        let (revival, batches_left) = (Revival::default(), LAST_BATCHES);
        Self {
            server: Some(server),
            address,
            only_ipv6,
            name,
            service,
            rules,
            revival,
            batches_left,
        }
    }

    /// Registers the socket.
    pub fn start(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        context.host.loops.note_own(self.address.port());
        let Some(server) = &mut self.server else { return Next::Close };
        let outcome = server.register(context);
        context.host.begin_listening(&self.name, outcome)
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        if let Some(server) = &mut self.server {
            server.handle_readiness(readiness);
        }
    }

    /// Receives and answers some batches.
    pub fn run(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        let is_stopping = context.host.phase != Phase::Running;
        let next = if context.host.phase == Phase::Stopping {
            Next::Close
        } else if self.revival.is_waiting(context.now) {
            Next::Wait
        } else {
            self.serve(context)
        };
        if next == Next::Close || is_stopping && (next == Next::Wait || self.batches_left == 0) {
            context.host.end_listening();
            return Next::Close;
        }
        next
    }

    /// When to run even if nothing arrives.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.revival.deadline()
    }

    fn serve(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        if self.server.is_none() && !self.bind_anew(context) {
            return Next::Wait;
        }
        for _ in 0..BATCHES_PER_TURN {
            let Some(server) = &mut self.server else { return Next::Wait };
            if !server.can_go_on() {
                return Next::Wait;
            }
            if context.host.phase != Phase::Running {
                self.batches_left = self.batches_left.saturating_sub(1);
            }
            let now = context.now;
            let (_, host, mut watch) = context.parts(&self.name, &"");
            let mut dropped = Dropped::default();
            let mut bytes = 0;
            let outcome = server.step(&mut watch, |request| {
                bytes += request.len;
                let judge = (&mut host.loops, now);
                answer(&self.service, self.rules, &host.clock, judge, request)
                    .unwrap_or_else(|why| dropped.count(why))
            });
            let cost = match outcome {
                Ok(batch) => {
                    dropped.many = batch.for_many;
                    let counts = &mut host.admissions.counts;
                    counts.datagrams += batch.received as u64;
                    counts.datagrams_dropped += (dropped.total() + batch.lost) as u64;
                    if batch.received > 0 {
                        self.revival.note_life();
                    }
                    batch.received as u64 * DATAGRAM_COST
                }
                Err(error) => return self.handle_error(&error, context),
            };
            if dropped.total() > 0 {
                watch.report(&Event::Refused(&dropped));
            }
            context.spend(cost);
            context.spend_bytes(2 * bytes);
            if context.slice == 0 {
                break;
            }
        }
        Next::Again
    }

    /// Goes on after an error, or does without the socket that has it.
    fn handle_error(&mut self, error: &io::Error, context: &mut Context<'_, DaemonSource>) -> Next {
        let is_dead = self.server.as_ref().is_some_and(|server| server.is_dead_of(error));
        let next = match is_dead {
            true => revival::Next::GiveUp,
            false => self.revival.note_error(context.now),
        };
        if next == revival::Next::GiveUp {
            self.server = None;
            let wait = self.revival.note_death(context.now);
            let why = format!("the UDP socket has died: {error}; it is bound anew in {wait:?}");
            context.watch(&self.name, &"").report(&Event::Trouble(&why));
            return Next::Again;
        }
        if self.revival.is_first_error() {
            let why = format!("receiving failed and goes on: {error}");
            context.watch(&self.name, &"").report(&Event::Trouble(&why));
        }
        if next == revival::Next::Rest { Next::Wait } else { Next::Again }
    }

    /// Binds the address again. Whether that was possible.
    fn bind_anew(&mut self, context: &mut Context<'_, DaemonSource>) -> bool {
        let bound = UdpServer::bind(self.address, self.only_ipv6).and_then(|mut server| {
            server.register(context)?;
            Ok(server)
        });
        match bound {
            Ok(server) => {
                self.server = Some(server);
                context.host.admissions.counts.sockets_rebound += 1;
                log::info!("listener={} listens again on udp://{}", self.name, self.address);
                true
            }
            Err(error) => {
                let wait = self.revival.note_death(context.now);
                let why = format!(
                    "udp://{} cannot be bound anew: {error}; trying again in {wait:?}",
                    self.address
                );
                context.watch(&self.name, &"").report(&Event::Trouble(&why));
                false
            }
        }
    }
}

/// Why a datagram gets no answer.
#[derive(Clone, Copy, Debug)]
enum NoAnswer {
    /// It could go round.
    Withheld(Withheld),
    /// The reply would have been larger.
    Larger,
}

fn answer(
    service: &Kind,
    rules: Rules,
    clock: &dyn Clock,
    (loops, now): (&mut Loops, Instant),
    request: Request<'_>,
) -> Result<Option<usize>, NoAnswer> {
    let Request { from, to, slot, len } = request;
    loops.judge(from, to, rules.rate, now).map_err(NoAnswer::Withheld)?;
    match service.datagram(slot, len, clock) {
        Some(reply) if reply > len && !rules.may_amplify => Err(NoAnswer::Larger),
        reply => Ok(reply),
    }
}

/// How many of one batch got no answer, and why.
#[derive(Debug, Default)]
struct Dropped {
    ports: usize,
    rates: usize,
    many: usize,
    larger: usize,
}

impl Dropped {
    fn count(&mut self, why: NoAnswer) -> Option<usize> {
        *match why {
            NoAnswer::Withheld(Withheld::Port) => &mut self.ports,
            NoAnswer::Withheld(Withheld::Rate) => &mut self.rates,
            NoAnswer::Larger => &mut self.larger,
        } += 1;
        None
    }

    fn total(&self) -> usize {
        self.ports + self.rates + self.many + self.larger
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "datagrams that were not answered: {}", self.total())?;
        for (count, why) in [
            (self.ports, "their sender's port answers answers"),
            (self.rates, "their sender has had too many answers (answers_per_second)"),
            (self.many, "they were sent to everybody, and not to us alone"),
            (self.larger, "the reply would have been larger than the request (amplify)"),
        ] {
            if count > 0 {
                write!(f, "; {why}")?;
            }
        }
        Ok(())
    }
}
