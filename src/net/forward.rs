//! A connection onward as the local end of a session: what makes a listener a relay.
//!
//! The end is there before its connection is: while it dials, bytes from the peer wait in the pipe,
//! bounded as ever. Several targets are tried in order; one that failed rests for a while that
//! grows, during which the others come first. A target that rests is still tried when nothing
//! else is left, so one that has come back is found without a restart. A target that is given by
//! name is asked for by each connection anew, and again when none of its addresses answers, so a
//! host that has moved is found without a restart too.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::descriptors;
use super::dial::{self, Race, Target, Terms};
use super::reactor::{Context, Source};
use super::resolver::{self, Names};
pub use super::tls::client::Secure;
use super::wire::ClientWire;
use super::zone;
use crate::proto::buffer::Pool;
use crate::proto::end::{End, Progress, Side, Standing, Turn};
use crate::proto::event::{Readiness, Watch};
use crate::proto::http_connect::Authority;
use crate::proto::pipe::Pipe;
use crate::proto::quote::Value;
use crate::proto::resolver::{Lookup, Requester};
use crate::proto::timeouts::given_back;

/// The first rest of a target that failed, and the longest.
const SHORTEST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// In one place.
    Place(Target),
    /// Wherever its name says: a host name in lower case, or an IPv6 address with the interface
    /// behind which it is (`fe80::1%eth0`), and a TCP port.
    Host(String, u16),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place) => place.fmt(f),
            Self::Host(host, port) if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Host(host, port) => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// Where a listener forwards to: shared by its connections, so that what one learns about a target
/// helps the next.
#[derive(Debug)]
pub struct Targets {
    targets: Vec<Known>,
    limits: Limits,
    /// The peer that asked for them, where it was not the configuration, and until when it waits.
    asked_by: Option<(Requester, Option<Instant>)>,
    /// What the targets, which are exits then, are asked to connect to.
    asked: Option<Authority>,
}

/// How long a target is waited for; `None` is as long as the system does.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until it answers a call.
    pub connect: Option<Duration>,
    /// Until it acknowledges what was sent to it (RFC 5482).
    pub user_timeout: Option<Duration>,
}

/// A target and how it has done lately.
#[derive(Debug)]
struct Known {
    target: Destination,
    secure: Option<Secure>,
    failures: Cell<u32>,
    rests_until: Cell<Option<Instant>>,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.to_string();
        match target.strip_prefix("tcp:").filter(|_| self.secure.is_some()) {
            Some(place) => write!(f, "tls:{place}"),
            None => f.write_str(&target),
        }
    }
}

impl Targets {
    /// Targets in the order in which they are tried, with TLS where it is said how.
    #[must_use]
    pub fn new(targets: Vec<(Destination, Option<Secure>)>, limits: Limits) -> Self {
        let fresh = |(target, secure)| Known {
            target,
            secure,
            failures: Cell::new(0),
            rests_until: Cell::new(None),
        };
        let targets = targets.into_iter().map(fresh).collect();
        Self { targets, limits, asked_by: None, asked: None }
    }

    /// The targets are exits, which are asked to connect to `target`.
    #[must_use]
    pub fn asking(self, target: Option<Authority>) -> Self {
        Self { asked: target, ..self }
    }

    /// Writes where the bytes go that are carried to the target of number `index`.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn write_route(&self, index: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.asked, self.targets.get(index)) {
            (Some(asked), Some(known)) => {
                write!(f, " target={} exit={}", Value(asked), Value(known))
            }
            (None, Some(known)) => write!(f, " target={}", Value(known)),
            (_, None) => f.write_str(" target=-"),
        }
    }

    /// When what begins `now` must be over.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.asked_by {
            Some((_, until)) => until,
            None => self.limits.connect.and_then(|limit| now.checked_add(limit)),
        }
    }

    /// The order for one connection: those that do not rest, then those that do, soonest first.
    fn order(&self, now: Instant) -> VecDeque<usize> {
        let rest = |index: &usize| self.targets[*index].rests_until.get().filter(|at| *at > now);
        let mut order: Vec<usize> = (0..self.targets.len()).collect();
        order.sort_by_key(rest);
        order.into()
    }

    fn succeeded(&self, index: usize) {
        let known = &self.targets[index];
        known.rests_until.set(None);
        let failures = known.failures.replace(0);
        if failures > 0 {
            log::info!("target {known} answers again, after {failures} failures");
        }
    }

    /// Doubles the rest with each failure in a row, and varies it by half, so that many who were
    /// refused together do not come back together. Only the first failure of a row is logged;
    /// what it does to a connection, the end of that connection tells; and who asked for a target
    /// himself has no other connection.
    fn failed(&self, index: usize, error: &io::Error, now: Instant) {
        let known = &self.targets[index];
        let failures = known.failures.get();
        if failures == 0 && self.asked_by.is_none() {
            log::warn!("target {known} cannot be reached: {error}");
        }
        let rest = SHORTEST_REST.saturating_mul(1 << failures.min(10)).min(LONGEST_REST);
        known.failures.set(failures.saturating_add(1));
        known.rests_until.set(Some(now + rest.mul_f64(rand::rng().random_range(0.5..1.0))));
    }
}

/// One connection onward.
pub struct Forward {
    targets: Rc<Targets>,
    /// The target that was called last.
    index: u32,
    state: State,
}

/// What faces the target.
type Onward = ClientWire;

#[derive(Default)]
enum State {
    /// Nobody was admitted yet, so nobody was called.
    #[default]
    Idle,
    /// Calling a target. It stands apart: it is large, and soon over.
    Calling(Box<Call>),
    /// Connected.
    Joined(Onward),
    /// No target answered.
    Failed(io::Error),
}

impl Forward {
    /// A connection to one of `targets` that has not called any yet.
    #[must_use]
    pub fn new(targets: Rc<Targets>) -> Self {
        Self { targets, index: 0, state: State::Idle }
    }

    /// A connection to the `target` that a peer asked for, who is told what came of it and waits no
    /// longer than `until`. Its name is whole: it is looked for in no domain of the search
    /// list, where a name that a rule allows could mean one that none does.
    #[must_use]
    pub fn to(
        target: &Authority,
        user_timeout: Option<Duration>,
        peer: Requester,
        until: Option<Instant>,
    ) -> Self {
        let destination = match target.host.parse::<IpAddr>() {
            Ok(address) => Destination::Place(Target::Tcp((address, target.port).into())),
            Err(_) => Destination::Host(format!("{}.", target.host), target.port),
        };
        let limits = Limits { connect: None, user_timeout };
        let targets = Targets::new(vec![(destination, None)], limits);
        Self::new(Rc::new(Targets { asked_by: Some((peer, until)), ..targets }))
    }

    /// What it may connect to.
    #[must_use]
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The local addresses of the calls that have begun since this was asked last; `None` for one to
    /// a Unix socket.
    pub fn new_calls(&mut self) -> impl Iterator<Item = Option<SocketAddr>> + '_ {
        let race = match &mut self.state {
            State::Calling(call) => call.race.as_mut(),
            State::Idle | State::Joined(_) | State::Failed(_) => None,
        };
        race.into_iter().flat_map(Race::new_calls)
    }

    /// Whether somebody is called, or will be.
    #[must_use]
    pub fn is_dialing(&self) -> bool {
        matches!(self.state, State::Idle | State::Calling(_))
    }

    /// When to call [`advance`](Self::advance) even if nothing becomes ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Calling(call) => call.deadline(),
            _ => None,
        }
    }

    /// Whether it is connected, and its TLS handshake is not over.
    #[must_use]
    pub fn is_securing(&self) -> bool {
        matches!(&self.state, State::Joined(onward) if !onward.standing().is_up)
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match &mut self.state {
            State::Calling(call) => call.handle_readiness(readiness),
            State::Joined(onward) => onward.handle_readiness(readiness),
            State::Idle | State::Failed(_) => {}
        }
    }

    /// Tells the target that has just answered for whom it is called, before TLS or anything else
    /// is said: with a header of the PROXY protocol, which its fresh socket has to take whole.
    pub fn announce(&mut self, header: &[u8], watch: &mut Watch<'_>) {
        let socket = match &mut self.state {
            State::Joined(Onward::Plain(socket)) => socket,
            State::Joined(Onward::Tls(socket)) => socket.socket(),
            State::Idle | State::Calling(_) | State::Failed(_) => return,
        };
        let error = match socket.send(header, watch) {
            Ok(count) if count == header.len() => return,
            Ok(_) => io::Error::other("the target did not take its PROXY protocol header at once"),
            Err(error) => error,
        };
        self.state = State::Failed(error);
    }

    /// Takes the call one step further: begins it, or sees what came of it. Whether this settled
    /// it, so that the session may be able to go on. What is `reserved` leaves its place among the
    /// descriptors to the first socket, just before that is opened.
    pub fn advance<S: Source>(
        &mut self,
        reserved: &mut Option<OwnedFd>,
        context: &mut Context<'_, S>,
    ) -> bool
    where
        S::Host: AsMut<Names>,
    {
        let targets = &*self.targets;
        let call = match std::mem::take(&mut self.state) {
            State::Idle => {
                Call::begin(targets.order(context.now), targets, context.now).map(Box::new)
            }
            State::Calling(call) => Some(call),
            settled => {
                self.state = settled;
                return false;
            }
        };
        self.state = match call {
            Some(call) => call.go_on(targets, reserved, &mut self.index, context),
            None => State::Failed(io::Error::other("there is no target")),
        };
        !self.is_dialing()
    }
}

impl End for Forward {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        match &mut self.state {
            State::Idle | State::Calling(_) => Ok(Progress::Moved(0)),
            State::Joined(onward) => match onward.exchange(to, from, turn)? {
                Progress::Broken => {
                    let cause = onward.standing().cause.unwrap_or("it broke the rules");
                    let why = format!("TLS with the target failed: {cause}");
                    Err(io::Error::new(io::ErrorKind::InvalidData, why))
                }
                progress => Ok(progress),
            },
            State::Failed(reason) => Err(io::Error::new(reason.kind(), reason.to_string())),
        }
    }

    fn standing(&self) -> Standing<'_> {
        match &self.state {
            State::Joined(onward) => onward.standing(),
            State::Idle | State::Calling(_) | State::Failed(_) => {
                Standing { is_up: false, ..Standing::UP }
            }
        }
    }

    fn has_carried(&self) -> bool {
        matches!(self.state, State::Joined(_))
    }

    fn has_sent_all(&self) -> bool {
        match &self.state {
            State::Joined(onward) => onward.has_sent_all(),
            State::Idle | State::Calling(_) | State::Failed(_) => true,
        }
    }

    fn is_reached(&self) -> bool {
        matches!(self.state, State::Joined(_))
    }

    fn cut_off(&mut self) {
        if let State::Joined(onward) = &mut self.state {
            onward.cut_off();
        }
    }

    fn dispose(&mut self, pool: &mut Pool) {
        if let State::Joined(onward) = &mut self.state {
            onward.dispose(pool);
        }
    }

    /// Where it was carried, or was to be; and the address of this side of the connection, which is
    /// that of the peer in the log of the other.
    fn write_route(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.targets.write_route(self.index as usize, f)?;
        match &self.state {
            State::Joined(onward) => match onward.local_address() {
                Some(address) => write!(f, " via={address}"),
                None => Ok(()),
            },
            State::Idle | State::Calling(_) | State::Failed(_) => Ok(()),
        }
    }
}

/// A target that is being called, and those that are left to try.
#[derive(Debug)]
struct Call {
    index: usize,
    others: VecDeque<usize>,
    until: Option<Instant>,
    /// `None` as long as its addresses are asked for.
    race: Option<Race>,
}

impl Call {
    /// A call to the first of `order`.
    fn begin(mut order: VecDeque<usize>, targets: &Targets, now: Instant) -> Option<Self> {
        let index = order.pop_front()?;
        let until = targets.deadline(now);
        Some(Self { index, others: order, until, race: None })
    }

    fn deadline(&self) -> Option<Instant> {
        let race = self.race.as_ref().and_then(Race::deadline);
        [self.until, race].into_iter().flatten().min()
    }

    fn handle_readiness(&mut self, readiness: Readiness) {
        if let Some(race) = &mut self.race {
            race.handle_readiness(readiness);
        }
    }

    /// Goes on until something has to be waited for, from one target to the next where one failed;
    /// `index` becomes that of the last.
    fn go_on<S: Source>(
        mut self: Box<Self>,
        targets: &Targets,
        reserved: &mut Option<OwnedFd>,
        index: &mut u32,
        context: &mut Context<'_, S>,
    ) -> State
    where
        S::Host: AsMut<Names>,
    {
        loop {
            *index = self.index as u32;
            let error = match self.step(targets, reserved, context) {
                Ok(Some(onward)) => {
                    targets.succeeded(self.index);
                    return State::Joined(onward);
                }
                Ok(None) => return State::Calling(self),
                // That is no fault of a target, and the next would find no descriptor either.
                Err(error) if descriptors::have_run_out(&error) => return State::Failed(error),
                Err(error) => error,
            };
            targets.failed(self.index, &error, context.now);
            let others = std::mem::take(&mut self.others);
            match Self::begin(others, targets, context.now) {
                Some(next) => *self = next,
                None => return State::Failed(error),
            }
        }
    }

    /// The connection, if it is there; an error where it will not come.
    fn step<S: Source>(
        &mut self,
        targets: &Targets,
        reserved: &mut Option<OwnedFd>,
        context: &mut Context<'_, S>,
    ) -> io::Result<Option<Onward>>
    where
        S::Host: AsMut<Names>,
    {
        let Known { target, secure, .. } = &targets.targets[self.index];
        let requester = targets.asked_by.map_or(Requester::Ourselves, |(peer, _)| peer);
        if self.race.is_none() {
            let terms = Terms { user_timeout: targets.limits.user_timeout, ..Terms::default() };
            let race = |places| Race::new(places, terms, Side::Local);
            self.race = places(target, requester, context)?.map(race);
            if self.race.is_some() {
                *reserved = None;
                self.until = self.until.map(|at| given_back(at, context.now).unwrap_or(at));
            }
        }
        let outcome = match self.race.as_mut().map(|race| race.advance(context)) {
            Some(dial::Standing::Won(socket)) => {
                let mut onward = Onward::over(socket, secure.as_ref()).map_err(io::Error::other)?;
                onward.require_close_notify();
                Ok(Some(onward))
            }
            Some(dial::Standing::Lost(_, error)) if descriptors::have_run_out(&error) => {
                return Err(error);
            }
            Some(dial::Standing::Lost(place, error)) => Err(explain(target, place, error)),
            Some(dial::Standing::Running) | None if self.is_late(target, context) => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Some(dial::Standing::Running) | None => Ok(None),
        };
        if let (Err(_), Destination::Host(host, _)) = (&outcome, target) {
            resolver::renew(host, requester, context);
        }
        outcome
    }

    /// Whether its time is up. What a name server has said of `target` in time is heard first.
    fn is_late<S: Source>(&mut self, target: &Destination, context: &mut Context<'_, S>) -> bool
    where
        S::Host: AsMut<Names>,
    {
        let is_over = |until: &Instant| *until <= context.now;
        let Some(until) = self.until.filter(is_over) else { return false };
        let (None, Destination::Host(host, _)) = (&self.race, target) else { return true };
        let Some(until) = resolver::patience(host, until, context) else { return false };
        self.until = Some(until);
        until <= context.now
    }
}

/// The places in which a target is now; `None` while that is asked for.
fn places<S: Source>(
    target: &Destination,
    requester: Requester,
    context: &mut Context<'_, S>,
) -> io::Result<Option<Vec<Target>>>
where
    S::Host: AsMut<Names>,
{
    let (host, port) = match target {
        Destination::Place(place) => return Ok(Some(vec![place.clone()])),
        Destination::Host(host, port) => (host, *port),
    };
    if let Some(place) = zone::place_of(host, port) {
        return place.map(|place| Some(vec![Target::Tcp(place)]));
    }
    match resolver::look_up(host, requester, context) {
        Lookup::Known(addresses) => {
            let place = |address| Target::Tcp(SocketAddr::new(address, port));
            Ok(Some(addresses.iter().copied().map(place).collect()))
        }
        Lookup::Pending => Ok(None),
        Lookup::Failed(failure) => {
            Err(io::Error::new(io::ErrorKind::HostUnreachable, failure.to_string()))
        }
    }
}

/// Of a target that may be in several places, which one failed is part of the reason.
fn explain(target: &Destination, place: Option<Target>, error: io::Error) -> io::Error {
    match (target, place) {
        (Destination::Host(..), Some(place)) => {
            io::Error::new(error.kind(), format!("{place}: {error}"))
        }
        _ => error,
    }
}
