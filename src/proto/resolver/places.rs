//! Whose names are asked for when there are more than can be at a time.
//!
//! A lookup in flight holds a place, and one that is answered gives it back at once. One that
//! nobody answers keeps it for a [`TURN`], after which a lookup that has had none yet may take it;
//! it then waits for a place that is free. So a name that is answered quickly is found quickly, whatever
//! else is asked for.
//!
//! Places and turns are shared out between those on whose behalf names are asked for: next is who
//! has the fewest places, and who has the most loses one. Of one requester's lookups the newest
//! comes first, because the older have most likely been given up. What this program itself wants
//! to know never waits.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::asking::{Asking, Place};

/// How many names are asked for at the same time, beside those that this program itself wants.
pub const MAX_LOOKUPS: usize = 256;

/// How many more names may wait for that.
pub const MAX_WAITING: usize = 1024;

/// How long a lookup keeps its place for certain.
const TURN: Duration = Duration::from_millis(500);

/// How long a lookup waits at the most, until its first turn or for another.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Stands for the lookup that has not begun, where that is the one that there is no room for.
pub(super) const NEWCOMER: usize = usize::MAX;

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
    let turns = asking.iter().filter_map(|asking| turn_end(asking).filter(|_| is_wanted));
    ends.chain(turns).min()
}

/// Where as many wait as may: the place in the list of the lookup that has to go so that one of
/// `requester`'s can wait, which may be [`NEWCOMER`].
pub(super) fn make_room(asking: &mut [Asking], requester: Requester) -> Option<usize> {
    let is_waiting = |it: &&Asking| !it.is_running() && it.requester != Requester::Ourselves;
    if requester == Requester::Ourselves || asking.iter().filter(is_waiting).count() < MAX_WAITING {
        return None;
    }
    let mut shares = shares(asking, |asking| !asking.is_running());
    *shares.entry(requester).or_default() += 1;
    let waiting = asking.iter().enumerate().filter(|(_, asking)| is_waiting(asking));
    let oldest_of_most = waiting
        .min_by_key(|(_, asking)| (std::cmp::Reverse(shares[&asking.requester]), asking.begun));
    Some(oldest_of_most.map_or(NEWCOMER, |(index, _)| index))
}

/// The place in the list of the lookup that is to be asked for next; `None` where all are, or no
/// place is to be had.
pub(super) fn next(asking: &mut [Asking], now: Instant) -> Option<usize> {
    let ours = |asking: &Asking| asking.requester == Requester::Ourselves;
    if let Some(own) = asking.iter().position(|asking| ours(asking) && !asking.is_running()) {
        return Some(own);
    }
    if asking.iter().all(Asking::is_running) {
        return None;
    }
    let shares = shares(asking, Asking::is_running);
    let share = |asking: &Asking| shares.get(&asking.requester).copied().unwrap_or(0);
    let waiting = asking.iter().enumerate().filter(|(_, asking)| !asking.is_running());
    let (next, _) = waiting.min_by_key(|(_, asking)| {
        (asking.place == Place::Lost, share(asking), std::cmp::Reverse(asking.begun))
    })?;
    if shares.values().sum::<usize>() < MAX_LOOKUPS {
        return Some(next);
    }
    if asking[next].place == Place::Lost {
        return None;
    }
    let is_over = |asking: &Asking| turn_end(asking).is_some_and(|end| end <= now);
    let running = asking.iter().enumerate().filter(|(_, asking)| is_over(asking));
    let (oldest_of_most, _) =
        running.min_by_key(|(_, asking)| (std::cmp::Reverse(share(asking)), turn_end(asking)))?;
    asking[oldest_of_most].place = Place::Lost;
    asking[oldest_of_most].begun = now;
    Some(next)
}

/// When a lookup may lose its place.
fn turn_end(asking: &Asking) -> Option<Instant> {
    match asking.place {
        Place::Taken(since) if asking.requester != Requester::Ourselves => Some(since + TURN),
        _ => None,
    }
}

/// How many lookups of this kind each requester has.
fn shares(asking: &[Asking], is_counted: fn(&Asking) -> bool) -> BTreeMap<Requester, usize> {
    let mut shares = BTreeMap::new();
    let counted = |it: &&Asking| is_counted(it) && it.requester != Requester::Ourselves;
    for asking in asking.iter().filter(counted) {
        *shares.entry(asking.requester).or_default() += 1;
    }
    shares
}
