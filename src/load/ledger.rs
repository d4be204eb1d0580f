//! Datagrams that may be lost, doubled or overtaken, and which request each of them answers.
//!
//! Where requests carry a number, a reply is known by its content. Where all are alike it is taken for
//! the reply to the request that has waited for about as long as a round trip takes: after a loss, the
//! replies that come belong to later requests, and the one that was lost stays behind.
//!
//! This module sends nothing and does not look at the clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many requests that are over are remembered, so that what still comes for them is known.
const REMEMBERED: usize = 256;

/// How long a datagram is waited for before any round trip is known (RFC 6298, 2.1).
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

/// The shortest time that a datagram is waited for: as TCP does on Linux.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(200);

/// The longest time that a datagram is waited for.
pub const LONGEST_PATIENCE: Duration = Duration::from_secs(10);

/// What the round trips say about how long to wait, by the rule of TCP's retransmissions (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundTrips {
    smooth: Option<Duration>,
    variation: Duration,
    /// Twice the longest time after which a reply came that had been given up.
    latest: Duration,
}

impl RoundTrips {
    /// One round trip took so long.
    pub fn note(&mut self, took: Duration) {
        let Some(smooth) = self.smooth else {
            (self.smooth, self.variation) = (Some(took), took / 2);
            return;
        };
        self.variation = (self.variation * 3 + smooth.abs_diff(took)) / 4;
        self.smooth = Some((smooth * 7 + took) / 8);
    }

    /// A reply came that had been given up: from now on there is more patience.
    pub fn note_late(&mut self, took: Duration) {
        self.latest = self.latest.max(took * 2);
    }

    /// What a round trip takes, once one is known.
    #[must_use]
    pub fn smooth(&self) -> Option<Duration> {
        self.smooth
    }

    /// How long to wait for a reply; twice as long for each that was lost in a row.
    #[must_use]
    pub fn patience(&self, lost_in_a_row: u32) -> Duration {
        let known = self.smooth.map_or(FIRST_PATIENCE, |smooth| smooth + self.variation * 4);
        let base = known.max(SHORTEST_PATIENCE).max(self.latest);
        base.saturating_mul(1 << lost_in_a_row.min(8)).min(LONGEST_PATIENCE)
    }
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The reply to the request at this place among those on the way.
    Reply(usize),
    /// One that came before.
    Duplicate,
    /// The reply to this request, which was sent then, and given up.
    Late(u64, Instant),
    /// The right reply to nothing that was sent.
    Wrong,
}

/// What is known of the datagrams of one port.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The numbers of requests that have their reply, the newest last.
    answered: VecDeque<u64>,
    /// Those of requests that were given up, and when they were sent.
    given_up: VecDeque<(u64, Instant)>,
    round_trips: RoundTrips,
}

impl Ledger {
    /// Finds out what a datagram is. `on_the_way` are the numbers of the requests that wait, the oldest
    /// first, and `is_reply` tells whether the datagram could be the reply to a number.
    pub fn sort(
        &self,
        on_the_way: impl Iterator<Item = u64>,
        mut is_reply: impl FnMut(u64) -> bool,
    ) -> Kind {
        if let Some(place) = on_the_way.into_iter().position(&mut is_reply) {
            return Kind::Reply(place);
        }
        if let Some((number, sent)) = self.given_up.iter().find(|(number, _)| is_reply(*number)) {
            return Kind::Late(*number, *sent);
        }
        if self.answered.iter().rev().any(|number| is_reply(*number)) {
            return Kind::Duplicate;
        }
        Kind::Wrong
    }

    /// Of requests that have waited for so long, the oldest first, the place of the one whose reply is
    /// the likeliest to have come.
    #[must_use]
    pub fn likeliest(&self, waited: impl Iterator<Item = Duration>) -> Option<usize> {
        let usual = self.round_trips.smooth();
        // Of two that are as likely the older one is the first.
        let unlikely = |waited: Duration| usual.map_or(Duration::ZERO, |it| it.abs_diff(waited));
        waited.map(unlikely).enumerate().min_by_key(|(_, by)| *by).map(|(place, _)| place)
    }

    /// The reply to request `number` came, and took so long.
    pub fn note_answered(&mut self, number: u64, took: Duration) {
        self.round_trips.note(took);
        remember(&mut self.answered, number);
    }

    /// Request `number`, sent at `sent`, was given up.
    pub fn note_given_up(&mut self, number: u64, sent: Instant) {
        remember(&mut self.given_up, (number, sent));
    }

    /// The reply to a request that was given up came after all.
    pub fn note_late(&mut self, number: u64) {
        self.given_up.retain(|(given_up, _)| *given_up != number);
        remember(&mut self.answered, number);
    }
}

fn remember<T>(list: &mut VecDeque<T>, newest: T) {
    if list.len() == REMEMBERED {
        list.pop_front();
    }
    list.push_back(newest);
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_datagram_is_known_by_its_content() {
        let mut ledger = Ledger::default();
        let sort =
            |ledger: &Ledger, datagram| ledger.sort([5, 6, 7].into_iter(), |n| n == datagram);
        assert_eq!(sort(&ledger, 6), Kind::Reply(1));
        assert_eq!(sort(&ledger, 4), Kind::Wrong);
        ledger.note_answered(4, ms(1));
        let sent = Instant::now();
        ledger.note_given_up(3, sent);
        assert_eq!((sort(&ledger, 4), sort(&ledger, 3)), (Kind::Duplicate, Kind::Late(3, sent)));
        ledger.note_late(3);
        assert_eq!(sort(&ledger, 3), Kind::Duplicate, "the second time");
    }

    #[test]
    fn after_a_loss_replies_go_to_those_who_waited_as_long_as_usual() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.likeliest([ms(9), ms(3)].into_iter()), Some(0), "nothing is known");
        ledger.note_answered(0, ms(4));
        assert_eq!(ledger.likeliest([ms(90), ms(5), ms(1)].into_iter()), Some(1));
        assert_eq!(ledger.likeliest(std::iter::empty()), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ledger = Ledger::default();
        (0..10_000).for_each(|number| ledger.note_answered(number, ms(1)));
        assert_eq!(ledger.answered.len(), REMEMBERED);
        assert_eq!(ledger.sort(std::iter::empty(), |number| number == 9_999), Kind::Duplicate);
    }

    #[test]
    fn patience_follows_the_round_trips() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.patience(0), ms(1000));
        (0..50).for_each(|_| trips.note(ms(1)));
        assert_eq!((trips.patience(0), trips.patience(2)), (ms(200), ms(800)));
        assert_eq!(trips.patience(99), LONGEST_PATIENCE);
        (0..50).for_each(|_| trips.note(ms(700)));
        assert!((ms(700)..ms(800)).contains(&trips.patience(0)), "{:?}", trips.patience(0));
        trips.note_late(ms(3000));
        assert_eq!(trips.patience(0), ms(6000));
    }
}
