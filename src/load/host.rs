//! What all sources of a run share: the plan, the stage the run is in, and the records.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::asks::Asks;
use super::generator::{Sample, Work};
use super::lateness::Lateness;
use super::ledger::RoundTrips;
use super::pace::{Pace, Window};
use super::places::Place;
use super::plan::{Activity, Length, Plan};
use super::profile::Profile;
use super::statistics::{Cause, Phase, Recorder};
use super::tester::Usage;
use crate::config::Address;
use crate::net::clock::SystemClock;
use crate::net::dial::Target;
use crate::net::reactor::Waker;
use crate::net::socket::Socket;
use crate::proto::gate::Secret;
use crate::proto::session::Timeouts;

/// How many connections may be on their way at a time: well below the queue of any listener, which
/// would drop the rest and make them wait for a second.
const DIALING_LIMIT: usize = 128;

/// How it was seen that the server let a handshake in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proofs {
    /// The protocol says so itself.
    pub by_protocol: u64,
    /// Something came from the server that only follows when it has.
    pub by_word: u64,
    /// The server did not close for a while.
    pub by_wait: u64,
}

/// What the server does with connections that have served for a while, as far as that shows where it
/// closes one with requests on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Habit {
    /// It has closed none so far.
    #[default]
    Unknown,
    /// It has closed each after so many replies.
    ClosesAfter(u64),
    /// It has closed them after now more, now fewer.
    None,
}

impl Habit {
    /// The server closed a connection after so many replies. Answers what its habit was before that.
    pub fn note(&mut self, replies: u64) -> Self {
        let before = *self;
        *self = match before {
            Self::Unknown => Self::ClosesAfter(replies),
            Self::ClosesAfter(usual) if usual == replies => before,
            _ => Self::None,
        };
        before
    }
}

/// How far a run has come. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connections begin.
    Opening,
    /// Under load, until or while it counts.
    Loading,
    /// Nothing is sent that was not due; replies still come in.
    Draining,
    /// All is said.
    Over,
}

/// Where one connection goes.
pub enum Places {
    /// To the first of these that answers.
    Streams(Vec<Target>),
    /// To the first of these that there is a way to.
    Datagrams(Vec<SocketAddr>),
}

/// What all sources of a run share.
pub struct Host {
    /// What is asked for.
    pub plan: Plan,
    /// Every address that the plan's one stands for; connections take the first that answers.
    pub places: Vec<Place>,
    /// The secret, shared by all connections.
    pub secret: Option<Rc<Secret>>,
    /// The bytes.
    pub work: Rc<Work>,
    /// Limits of a session.
    pub timeouts: Rc<Timeouts>,
    /// For services that tell the time; a session wants one.
    pub clock: SystemClock,
    /// How far the run has come.
    pub stage: Stage,
    /// The schedule, in an open loop that has begun.
    pub pace: Option<Pace>,
    /// What the connection that ran last has finished, until it is recorded.
    pub finished: Vec<Sample>,
    /// What was counted and timed.
    pub recorder: Recorder,
    /// How late the loop ran what was due.
    pub lateness: Lateness,
    /// What round trips of datagrams take.
    pub round_trips: RoundTrips,
    /// How it was seen that a handshake was let in.
    pub proofs: Proofs,
    /// What the server does with connections that have served for a while.
    pub habit: Habit,
    /// Whether the server asked for a certificate, in TLS.
    pub asks: Asks,
    /// Connections that are open and past the gate.
    pub established: usize,
    /// Connections of which it is known whether they could be opened.
    pub settled: usize,
    /// Requests that are granted and not finished.
    pub outstanding: usize,
    /// Whether any connection was ever there.
    pub has_connected: bool,
    /// How many connections were opened to each place, where they are spread over all.
    pub connected: Vec<u64>,
    /// How often none could be opened.
    pub connect_failures: usize,
    /// The run cannot go on: why.
    pub failure: Option<(Cause, String)>,
    /// Whether somebody stopped it.
    pub interrupted: bool,
    /// Why a run that counts its requests was ended before it had counted them all.
    pub cut_short: Option<String>,
    /// The source that conducts the others.
    pub conductor: Option<Waker>,
    /// The source that wakes connections on schedule, in an open loop.
    pub pacer: Option<Waker>,
    /// What the tester had used when the window began.
    pub usage_before: Option<Usage>,
    /// What it had used when the window ended.
    pub usage_after: Option<Usage>,
    /// What memory it had at the end, in bytes, while its connections were open.
    pub memory: Option<u64>,
    /// How many connections were open when the window ended.
    pub established_at_end: usize,
    /// How many requests were due when the window ended, and taken by no connection.
    pub backlog: u64,
    /// Sources that wait until something is due, the one that has waited longest first.
    resting: VecDeque<Waker>,
    /// Whether the source of a key stands in `resting`, where it may only stand once.
    is_resting: Vec<bool>,
    dialing: usize,
    waiting_to_dial: VecDeque<Waker>,
    /// Sources that what has happened concerns, and that nobody has woken yet.
    to_wake: VecDeque<Waker>,
}

impl Host {
    /// A run that has not begun.
    #[must_use]
    pub fn new(mut plan: Plan, places: Vec<Place>, now: Instant) -> Self {
        let headline = match plan.activity {
            Activity::Idle => Phase::Connect,
            _ if plan.times_responses() => Phase::Response,
            _ => Phase::Request,
        };
        let may_be_greeted = plan.exchange.may_be_greeted() && plan.gate.is_none();
        let work = Work {
            greets: Cell::new((!may_be_greeted).then_some(false)),
            exchange: plan.exchange.clone(),
            datagrams: matches!(plan.address, Address::Udp(_)),
            stride: plan.connections as u64,
            only_listens: !plan.sends(),
        };
        let asks = Asks::default();
        if let Some(secure) = &mut plan.secure {
            asks.listen(secure);
        }
        let limit = Some(plan.timeout);
        let timeouts = Timeouts { tls: limit, auth: limit, ..Timeouts::NONE };
        Self {
            places,
            secret: plan.gate.as_ref().map(|(secret, _)| Rc::new(secret.clone())),
            work: Rc::new(work),
            timeouts: Rc::new(timeouts),
            clock: SystemClock::new(),
            stage: Stage::Opening,
            pace: None,
            finished: Vec::new(),
            recorder: Recorder::new(headline, now),
            lateness: Lateness::new(),
            round_trips: RoundTrips::default(),
            proofs: Proofs::default(),
            habit: Habit::default(),
            asks,
            established: 0,
            settled: 0,
            outstanding: 0,
            has_connected: false,
            connected: Vec::new(),
            connect_failures: 0,
            failure: None,
            interrupted: false,
            cut_short: None,
            conductor: None,
            pacer: None,
            usage_before: None,
            usage_after: None,
            memory: None,
            established_at_end: 0,
            backlog: 0,
            resting: VecDeque::new(),
            is_resting: Vec::new(),
            dialing: 0,
            waiting_to_dial: VecDeque::new(),
            to_wake: VecDeque::new(),
            plan,
        }
    }

    /// The load begins: what is due from `begin` on counts.
    pub fn open_window(&mut self, now: Instant) {
        let begin = now + self.plan.warm_up;
        let end = match (self.plan.length, self.plan.rate) {
            (Length::Time(length), _) => Some(begin + length),
            (Length::Requests(count, _), Some(rate)) => {
                Some(begin + Duration::from_secs_f64(count as f64 / rate))
            }
            (Length::Requests(..), None) => None,
        };
        self.stage = Stage::Loading;
        self.recorder.open_window(Window { begin, end });
        if let Some(rate) = self.plan.rate {
            let profile = self.plan.profile.clone().unwrap_or_else(|| Profile::constant(rate));
            // Whole periods before the window, so that it begins with a request.
            let rate = profile.first_rate();
            let warm_up = (self.plan.warm_up.as_secs_f64() * rate).floor() / rate.max(1e-9);
            let warm_up = Duration::from_secs_f64(warm_up);
            let end = end.expect("an open loop has an end");
            let profile = profile.after(warm_up);
            self.pace = Some(Pace::new(profile, self.plan.arrivals, begin - warm_up, end));
        }
    }

    /// Nothing more becomes due.
    pub fn close_window(&mut self, now: Instant) {
        self.stage = self.stage.max(Stage::Draining);
        self.recorder.close_window(now);
        if let Some(pace) = &mut self.pace {
            pace.cut(now);
        }
    }

    /// Whether a request may be sent: at once, in a closed loop (`Some(None)`), or one that was due
    /// by `now`, in an open one.
    pub fn take_turn(&mut self, now: Instant) -> Option<Option<Instant>> {
        match (&mut self.pace, self.plan.rate) {
            (Some(pace), _) => pace.take(now).map(Some),
            (None, Some(_)) => None,
            (None, None) => (self.stage < Stage::Draining).then_some(None),
        }
    }

    /// Whether requests are due by `now` that no connection has taken.
    #[must_use]
    pub fn has_waiting(&self, now: Instant) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.waiting(now) > 0)
    }

    /// Whether each finished request is followed by the next without anybody being asked: a closed
    /// loop of connections that stay, without pauses. Datagrams may be lost, which takes a look.
    #[must_use]
    pub fn goes_on_at_once(&self) -> bool {
        self.stage < Stage::Draining
            && self.plan.rate.is_none()
            && self.plan.think.is_zero()
            && self.plan.activity == Activity::Requests
            && !self.work.datagrams
    }

    /// How long a reply is waited for after so many that were lost in a row.
    #[must_use]
    pub fn patience(&self, lost_in_a_row: u32) -> Duration {
        if self.plan.adapts && self.work.datagrams {
            return self.round_trips.patience(lost_in_a_row);
        }
        self.plan.timeout
    }

    /// The requests of a plan that counts them are all there.
    #[must_use]
    pub fn is_sated(&self) -> bool {
        matches!(self.plan.length, Length::Requests(count, _) if self.recorder.replies() >= count)
    }

    /// A source has nothing to do until something is due. In a closed loop nothing ever will be.
    pub fn rest(&mut self, source: Waker) {
        if self.plan.rate.is_none() {
            return;
        }
        let key = source.key();
        if key >= self.is_resting.len() {
            self.is_resting.resize(key + 1, false);
        }
        if !std::mem::replace(&mut self.is_resting[key], true) {
            self.resting.push_back(source);
        }
    }

    /// The source that has rested longest, which then rests no more.
    pub fn rested(&mut self) -> Option<Waker> {
        let source = self.resting.pop_front()?;
        self.is_resting[source.key()] = false;
        Some(source)
    }

    /// Where a connection goes: to the `place`-th place, where connections are spread over all of
    /// them; else to whichever answers first.
    #[must_use]
    pub fn places_for(&self, place: usize) -> Places {
        let all = match &self.places[place % self.places.len()] {
            here @ Place::Stream(_) if self.plan.all_addresses => std::slice::from_ref(here),
            _ => &self.places[..],
        };
        let streams: Vec<_> = all.iter().filter_map(Place::as_stream).cloned().collect();
        if streams.is_empty() {
            return Places::Datagrams(all.iter().filter_map(Place::as_datagrams).collect());
        }
        Places::Streams(streams)
    }

    /// The place that `socket` is connected to answers: where connections are not spread, later ones
    /// try no other.
    pub fn settle_on(&mut self, socket: &Socket) {
        if self.places.len() > 1
            && !self.plan.all_addresses
            && let Some(address) = socket.peer_address()
        {
            self.places = vec![Place::Stream(Target::Tcp(address))];
        }
    }

    /// One more connection was opened, to the `place`-th place where connections are spread.
    pub fn count_place(&mut self, place: usize) {
        let count = self.places.len();
        if self.plan.all_addresses {
            self.connected.resize(count, 0);
            self.connected[place % count] += 1;
        }
    }

    /// How many connections went to each address, where they were spread over several.
    #[must_use]
    pub fn spread(&self) -> BTreeMap<String, u64> {
        let counts = self.places.iter().zip(&self.connected);
        counts.map(|(place, count)| (place.to_string(), *count)).collect()
    }

    /// Asks to begin a connection. Where too many are on their way the source is woken later. Where
    /// connections are the load itself, it is the plan that says how many are too many.
    pub fn may_dial(&mut self, source: Waker) -> bool {
        let stays = matches!(self.plan.activity, Activity::Requests | Activity::Idle);
        let may = !stays || self.dialing < DIALING_LIMIT;
        if may {
            self.dialing += 1;
        } else {
            self.waiting_to_dial.push_back(source);
        }
        may
    }

    /// A connection is no longer on its way, so that another can be.
    pub fn dialed(&mut self) {
        self.dialing -= 1;
        self.to_wake.extend(self.waiting_to_dial.pop_front());
    }

    /// Of one more connection it is known whether it could be opened.
    pub fn count_settled(&mut self) {
        self.settled += 1;
        self.to_wake.extend(self.conductor);
    }

    /// Something ended: where it was the last, the run may be over.
    pub fn conclude(&mut self) {
        if self.stage >= Stage::Draining || self.failure.is_some() {
            self.to_wake.extend(self.conductor);
        }
    }

    /// A source that what has happened concerns; it is for whoever asks to wake it.
    pub fn next_to_wake(&mut self) -> Option<Waker> {
        self.to_wake.pop_front()
    }
}
