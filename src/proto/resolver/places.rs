//! Whose names are asked for when there are more than can be at a time.
//!
//! A lookup in flight holds a place, and one that is answered gives it back at once. One that nobody
//! answers keeps it for a [`TURN`], after which a lookup that has had none yet may take it; it then
//! waits for a place that is free. So a name that is answered quickly is found quickly, whatever else
//! is asked for.
//!
//! Places and turns are shared out between those on whose behalf names are asked for: next is who
//! has the fewest places, and who has the most loses one. Of one requester's lookups the newest
//! comes first, because the older have most likely been given up. What this program itself wants
//! to know never waits.

use core::cmp::Reverse;
use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::asking::{Asking, Place};

/// How many names are asked for at the same time, beside those that this program itself wants.
pub const MAX_LOOKUPS: usize = 256;

/// How many more names may wait for that.
pub const MAX_WAITING: usize = 1024;

/// How long a lookup keeps its place for certain, as long as no more wait than are asked for.
const TURN: Duration = Duration::from_millis(500);

/// How long a lookup waits at the most, until its first turn or for another.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// On whose behalf a name is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requester {
    /// This program, whose configuration has a bounded number of names.
    Ourselves,
    /// Somebody on this machine, who has no address.
    Local,
    /// A client in the network: one with an IPv6 address counts for its whole /64.
    Client(IpAddr),
}

impl Requester {
    /// The client at `address`.
    #[must_use]
    pub fn client(address: Option<IpAddr>) -> Self {
        const NETWORK: u128 = !0 << 64;
        match address.map(|address| address.to_canonical()) {
            None => Self::Local,
            Some(IpAddr::V6(address)) => {
                Self::Client(Ipv6Addr::from_bits(address.to_bits() & NETWORK).into())
            }
            Some(address) => Self::Client(address),
        }
    }
}

/// Whether this lookup has waited for longer than anybody waits for it.
pub(super) fn has_waited_in_vain(asking: &Asking, now: Instant) -> bool {
    !asking.is_running() && asking.begun + LONGEST_WAIT <= now
}

/// When somebody who waits may get a place, or has waited for too long.
pub(super) fn deadline(asking: &[Asking]) -> Option<Instant> {
    let waiting = asking.iter().filter(|asking| !asking.is_running());
    let ends = waiting.map(|asking| asking.begun + LONGEST_WAIT);
    let is_wanted = asking.iter().any(|asking| asking.place == Place::Wanted);
    let turn = turn(asking);
    let turns = asking.iter().filter_map(|it| turn_end(it, turn).filter(|_| is_wanted));
    ends.chain(turns).min()
}

/// Where as many wait as may: the place in the list of the lookup that has to go so that one more of
/// `requester`'s can wait.
pub(super) fn one_too_many(asking: &[Asking], requester: Requester) -> Option<usize> {
    let is_waiting = |it: &&Asking| !it.is_running() && it.requester != Requester::Ourselves;
    if requester == Requester::Ourselves || asking.iter().filter(is_waiting).count() < MAX_WAITING {
        return None;
    }
    let mut shares = BTreeMap::from([(requester, 1)]);
    for asking in asking.iter().filter(is_waiting) {
        *shares.entry(asking.requester).or_default() += 1;
    }
    let waiting = asking.iter().enumerate().filter(|(_, asking)| is_waiting(asking));
    let oldest_of_most =
        waiting.min_by_key(|(_, asking)| (Reverse(shares[&asking.requester]), asking.begun));
    oldest_of_most.map(|(index, _)| index)
}

/// How places are given away at one moment.
pub(super) struct Sharing {
    /// The time, and how long a turn is now, where turns end.
    turns: Option<(Instant, Duration)>,
    /// For each lookup in the list, which of the requesters it is of.
    requesters: Vec<usize>,
    /// How many places each of those has.
    shares: Vec<usize>,
}

impl Sharing {
    /// Of the places that are free.
    pub(super) fn new(asking: &[Asking]) -> Self {
        let mut known = BTreeMap::new();
        let mut number = |requester| {
            let next = known.len();
            *known.entry(requester).or_insert(next)
        };
        let requesters: Vec<_> = asking.iter().map(|it| number(it.requester)).collect();
        let mut shares = vec![0; known.len()];
        for (asking, requester) in asking.iter().zip(&requesters) {
            let is_counted = asking.is_running() && asking.requester != Requester::Ourselves;
            shares[*requester] += usize::from(is_counted);
        }
        Self { turns: None, requesters, shares }
    }

    /// Also of the places of those whose turns are over.
    pub(super) fn with_turns(asking: &[Asking], now: Instant) -> Self {
        Self { turns: Some((now, turn(asking))), ..Self::new(asking) }
    }

    /// The place in the list of the lookup that is to be asked for next; `None` where all are, or no
    /// place is to be had.
    pub(super) fn next(&mut self, asking: &mut [Asking]) -> Option<usize> {
        let is_own = |it: &Asking| it.requester == Requester::Ourselves && !it.is_running();
        if let Some(own) = asking.iter().position(is_own) {
            return Some(own);
        }
        let waiting = asking.iter().enumerate().filter(|(_, asking)| !asking.is_running());
        let (next, _) = waiting.min_by_key(|(index, asking)| {
            (asking.place == Place::Lost, self.share(*index), Reverse(asking.begun))
        })?;
        if self.shares.iter().sum::<usize>() >= MAX_LOOKUPS {
            self.take_from_who_has_most(asking, next)?;
        }
        self.shares[self.requesters[next]] += 1;
        Some(next)
    }

    /// Takes a place from a lookup whose turn is over, for one that has had none.
    fn take_from_who_has_most(&mut self, asking: &mut [Asking], next: usize) -> Option<()> {
        let (now, turn) = self.turns.filter(|_| asking[next].place != Place::Lost)?;
        let ends = asking.iter().enumerate().filter_map(|(index, asking)| {
            let end = turn_end(asking, turn).filter(|end| *end <= now)?;
            Some((Reverse(self.share(index)), end, index))
        });
        let (_, _, oldest_of_most) = ends.min()?;
        let loser = &mut asking[oldest_of_most];
        (loser.place, loser.begun) = (Place::Lost, now);
        self.shares[self.requesters[oldest_of_most]] -= 1;
        Some(())
    }

    fn share(&self, index: usize) -> usize {
        self.shares[self.requesters[index]]
    }
}

/// How long a turn is: shorter, the more lookups have had none.
fn turn(asking: &[Asking]) -> Duration {
    let wanted = asking.iter().filter(|asking| asking.place == Place::Wanted).count();
    TURN / (1 + wanted / MAX_LOOKUPS) as u32
}

/// When a lookup may lose its place.
fn turn_end(asking: &Asking, turn: Duration) -> Option<Instant> {
    match asking.place {
        Place::Taken(since) if asking.requester != Requester::Ourselves => Some(since + turn),
        _ => None,
    }
}
