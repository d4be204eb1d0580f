//! What a run is asked to do, checked before anything is opened.

use std::net::IpAddr;
use std::time::Duration;

use super::payload::{Exchange, Expectation, Payload};
use super::profile::{Arrivals, Profile};
use crate::config::Address;
use crate::config::units::show_duration;
use crate::net::tls::client::Secure;
use crate::proto::gate::{Digest, Secret};

/// The shortest window that is measured: below it, how the machine was feeling counts for more
/// than the server does.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// The smallest number of requests that is measured: with fewer, not even p99 is known.
pub const FEWEST: u64 = 100;

/// The longest payload of a datagram (IPv4).
const LONGEST_DATAGRAM: usize = 65_507;

/// One run.
#[derive(Clone)]
pub struct Plan {
    /// Where to.
    pub address: Address,
    /// What answers the server's challenge, where there is a gate.
    pub gate: Option<(Secret, Digest)>,
    /// How TLS is spoken, where it is; also whether sessions are resumed.
    pub secure: Option<Secure>,
    /// What each connection does.
    pub activity: Activity,
    /// How many connections there are at a time.
    pub connections: usize,
    /// How long it is measured.
    pub length: Length,
    /// What goes before, under load, and is left out.
    pub warm_up: Duration,
    /// Over how long the connections begin.
    pub ramp_up: Duration,
    /// Requests a second, all connections together: an open loop. Without it each connection
    /// sends when it has its reply: a closed loop.
    pub rate: Option<f64>,
    /// How many requests a connection may have on the way.
    pub depth: usize,
    /// How long a connection waits after each reply.
    pub think: Duration,
    /// What is sent, and what must come back.
    pub exchange: Exchange,
    /// How long a connection, the gate or a reply may take.
    pub timeout: Duration,
    /// Whether a datagram's reply is waited for only as long as the round trips say.
    pub adapts: bool,
    /// The name of the run that this is a part of, where several testers make it together.
    pub run: Option<String>,
    /// Local addresses to connect from, in turn; none to let the system choose.
    pub sources: Vec<IpAddr>,
    /// Whether connections are spread over all addresses that the name stands for, instead of all
    /// going to the one that answers first.
    pub all_addresses: bool,
    /// How the rate changes; it stays the same where nothing is said.
    pub profile: Option<Profile>,
    /// How requests follow one another in an open loop.
    pub arrivals: Arrivals,
    /// What was asked for, where it was not the address alone: a URL.
    pub url: Option<String>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// One request after the other, as long as it lives.
    Requests,
    /// One request, then a new connection.
    Visits,
    /// Nothing: connect, pass the gate, close, again.
    Handshakes,
    /// Nothing: to be open.
    Idle,
}

/// How long a run is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// So long.
    Time(Duration),
    /// Until so many requests have their reply, but not longer than so long.
    Requests(u64, Duration),
}

/// A run that would not mean anything, or that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Too short.
    #[error(
        "a run of {} says nothing: measure for at least {} (--duration)",
        show_duration(*.0), show_duration(SHORTEST)
    )]
    TooShort(Duration),
    /// Too few.
    #[error("{0} requests say nothing: send at least {FEWEST} (--requests)")]
    TooFew(u64),
    /// A rate of which the run would see next to nothing.
    #[error("at this rate the run has {0} requests, which say nothing: take longer, or send more")]
    TooSlow(u64),
    /// A figure that must not be zero.
    #[error("{0} must be more than 0")]
    Zero(&'static str),
    /// Two wishes that exclude each other.
    #[error("{0}")]
    Contradiction(&'static str),
    /// A datagram does not hold the payload.
    #[error("a datagram holds {LONGEST_DATAGRAM} bytes, and the payload has {0}")]
    TooLong(usize),
}

impl Plan {
    /// Whether the run can be, and can mean something.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.connections == 0 {
            return Err(PlanError::Zero("the number of connections"));
        }
        if self.depth == 0 {
            return Err(PlanError::Zero("the pipelining depth"));
        }
        if self.timeout.is_zero() {
            return Err(PlanError::Zero("the timeout"));
        }
        self.check_length()?;
        self.check_contradictions()
    }

    fn check_length(&self) -> Result<(), PlanError> {
        match (self.length, self.rate) {
            (_, Some(rate)) if !(rate.is_finite() && rate > 0.0) => {
                Err(PlanError::Zero("the rate"))
            }
            (Length::Time(length), _) if length < SHORTEST => Err(PlanError::TooShort(length)),
            (Length::Requests(count, _), _) if count < FEWEST => Err(PlanError::TooFew(count)),
            (Length::Time(length), Some(rate)) => {
                let requests = (rate * length.as_secs_f64()) as u64;
                if requests < FEWEST { Err(PlanError::TooSlow(requests)) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn check_contradictions(&self) -> Result<(), PlanError> {
        let contradiction = |why| Err(PlanError::Contradiction(why));
        let expectation = self.exchange.expectation();
        let payload = self.exchange.payload().len();
        let is_datagrams = matches!(self.address, Address::Udp(_));
        if payload == 0 && self.sends() {
            return contradiction("there is nothing to send: give a payload of a byte at least");
        }
        if is_datagrams && payload > LONGEST_DATAGRAM {
            return Err(PlanError::TooLong(payload));
        }
        if is_datagrams && self.activity != Activity::Requests {
            return contradiction("datagrams have no connections to open, hold or close");
        }
        if is_datagrams && self.gate.is_some() {
            return contradiction("there is no gate for datagrams: leave the secret out");
        }
        if self.depth > 1 && self.activity != Activity::Requests {
            return contradiction("a depth above 1 needs connections that stay open");
        }
        if self.depth > 1 && *expectation == Expectation::Any && !is_datagrams {
            return contradiction(
                "where any reply will do, nothing tells two of them apart: use a depth of 1, or say \
                 what to --expect",
            );
        }
        if matches!(expectation, Expectation::Framed(_)) && is_datagrams {
            return contradiction(
                "a datagram is a whole reply: expect upper, echo, text:, bytes:, size: or any",
            );
        }
        if self.depth > 1 && self.exchange.silence().is_some() {
            return contradiction(
                "where a silence ends a reply, only one may be on the way: use a depth of 1",
            );
        }
        if self.all_addresses && matches!(self.address, Address::Udp(_) | Address::Unix(_)) {
            return contradiction("--all-addresses is for TCP and TLS");
        }
        if self.activity == Activity::Idle && (self.rate.is_some() || !self.think.is_zero()) {
            return contradiction("idle connections send nothing: leave rate and think time out");
        }
        if self.activity == Activity::Idle && matches!(self.length, Length::Requests(..)) {
            return contradiction("idle connections send nothing: give a duration");
        }
        if self.rate.is_some() && !self.think.is_zero() {
            return contradiction(
                "a rate says when requests are due, and a think time too: give one of the two",
            );
        }
        if self.profile.is_some() && matches!(self.length, Length::Requests(..)) {
            return contradiction("a rate that changes lasts as long as it says: leave -n out");
        }
        if self.arrivals != Arrivals::Uniform && self.rate.is_none() {
            return contradiction("--arrivals says how requests follow at a --rate: give one");
        }
        if !self.sources.is_empty() && matches!(self.address, Address::Udp(_) | Address::Unix(_)) {
            return contradiction("a source address is for TCP and TLS");
        }
        Ok(())
    }

    /// Whether there are requests at all.
    #[must_use]
    pub fn sends(&self) -> bool {
        matches!(self.activity, Activity::Requests | Activity::Visits)
    }

    /// Whether requests have moments at which they are due, or whole visits are timed.
    #[must_use]
    pub fn times_responses(&self) -> bool {
        self.rate.is_some() || matches!(self.activity, Activity::Visits | Activity::Handshakes)
    }
}

impl Default for Plan {
    /// 50 connections that send 64 bytes, and get them back in capitals, for ten seconds.
    fn default() -> Self {
        Self {
            address: Address::Unix("/".into()),
            gate: None,
            secure: None,
            activity: Activity::Requests,
            connections: 50,
            length: Length::Time(Duration::from_secs(10)),
            warm_up: Duration::from_secs(1),
            ramp_up: Duration::ZERO,
            rate: None,
            depth: 1,
            think: Duration::ZERO,
            exchange: Exchange::new(Payload::of_size(64), Expectation::Upper),
            timeout: Duration::from_secs(10),
            adapts: false,
            run: None,
            sources: Vec::new(),
            all_addresses: false,
            profile: None,
            arrivals: Arrivals::Uniform,
            url: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = Plan::default();
        plan.check().expect("the default is sound");
        change(&mut plan);
        plan.check().expect_err("must be refused").to_string()
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let short = refusal(|plan| plan.length = Length::Time(Duration::from_millis(200)));
        assert_eq!(short, "a run of 200ms says nothing: measure for at least 1s (--duration)");
        assert!(
            refusal(|plan| plan.length = Length::Requests(99, Duration::from_secs(9)))
                .contains("at least 100")
        );
        assert!(refusal(|plan| plan.rate = Some(5.0)).contains("has 50 requests"));
        assert!(refusal(|plan| plan.rate = Some(f64::NAN)).contains("must be more than 0"));
        assert!(refusal(|plan| plan.connections = 0).contains("must be more than 0"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let any = || Exchange::new(Payload::of_size(1), Expectation::Any);
        let pipelined = refusal(|plan| (plan.depth, plan.exchange) = (2, any()));
        assert!(pipelined.contains("tells two of them apart"));
        let datagram = refusal(|plan| {
            plan.address = "udp://127.0.0.1:9".parse().expect("well formed");
            plan.exchange = Exchange::new(Payload::of_size(65_508), Expectation::Echo);
        });
        assert!(datagram.contains("65508"), "{datagram}");
        assert!(
            refusal(|plan| (plan.activity, plan.depth) = (Activity::Visits, 2)).contains("depth")
        );
    }
}
