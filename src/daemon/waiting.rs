//! Those who have not been admitted, and who of them has to go where there are too many.
//!
//! A connection waits here from its beginning until its peer has been let in: while the header of the
//! PROXY protocol is due, during the handshake of TLS, and at the gate. Anybody can come so far, and
//! stay until a deadline says no. If those who come were turned away when all places are taken, some
//! silent strangers would keep everybody out, for as long as they come back. So it is the other way
//! round: who comes gets a place, and one of those that wait has to go.
//!
//! Chance decides who that is, as with sshd's `MaxStartups`, but the dice are loaded: of eight that are
//! drawn, the one goes whose address has the most waiting, and of those with equally many the one that
//! came first. Who can answer does so within a round trip or a few, so is young here, and seldom has
//! many of its address beside it; who only sits here grows old, or comes back often. And as lots
//! are drawn, nobody is sure to lose: where more strangers come during one answer than there are
//! places, some who answer still get through. If the first in line always went, none would.
//!
//! Invariants: a guest is in `guests` once, at the place that `places` says, and counted in `from`
//! under its address if it has one. Chance is an argument.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How many are drawn, of whom one has to go.
const CANDIDATES: usize = 8;

/// Everybody who waits to be admitted; `K` stands for one of them.
#[derive(Debug)]
pub struct WaitingRoom<K> {
    guests: Vec<Guest<K>>,
    places: HashMap<K, usize>,
    from: HashMap<IpAddr, usize>,
    came: u64,
    dice: SmallRng,
}

/// One who waits.
#[derive(Clone, Copy, Debug)]
pub struct Guest<K> {
    /// Who it is.
    pub key: K,
    /// The address that it comes from, where it has one.
    pub from: Option<IpAddr>,
    /// Whether that is an address that the limits count.
    pub is_counted: bool,
    number: u64,
}

impl<K: Copy + Eq + Hash> WaitingRoom<K> {
    /// An empty one, whose dice are seeded with `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            guests: Vec::new(),
            places: HashMap::new(),
            from: HashMap::new(),
            came: 0,
            dice: SmallRng::seed_from_u64(seed),
        }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }

    /// Whether somebody of this address waits.
    #[must_use]
    pub fn has_from(&self, from: IpAddr) -> bool {
        self.from.contains_key(&from)
    }

    /// One more waits, whose address the limits count or not.
    pub fn enter(&mut self, key: K, from: Option<IpAddr>, is_counted: bool) {
        self.came += 1;
        if self.places.insert(key, self.guests.len()).is_none() {
            self.guests.push(Guest { key, from, is_counted, number: self.came });
            if let Some(from) = from {
                *self.from.entry(from).or_insert(0) += 1;
            }
        }
    }

    /// One waits no longer, if it did.
    pub fn leave(&mut self, key: K) -> Option<Guest<K>> {
        let place = self.places.remove(&key)?;
        let guest = self.guests.swap_remove(place);
        if let Some(moved) = self.guests.get(place) {
            self.places.insert(moved.key, place);
        }
        if let Some(from) = guest.from
            && let Some(count) = self.from.get_mut(&from)
        {
            *count -= 1;
            if *count == 0 {
                self.from.remove(&from);
            }
        }
        Some(guest)
    }

    /// Sends one of all away.
    pub fn send_away(&mut self) -> Option<Guest<K>> {
        let count = self.guests.len();
        if count == 0 {
            return None;
        }
        let drawn: [usize; CANDIDATES] = std::array::from_fn(|_| self.dice.random_range(0..count));
        let candidates = drawn.iter().map(|&place| &self.guests[place]);
        let chosen = candidates.max_by_key(|it| (self.beside(it.from), Reverse(it.number)))?.key;
        self.leave(chosen)
    }

    /// Sends one of those away that are counted under this address.
    pub fn send_away_from(&mut self, from: IpAddr) -> Option<Guest<K>> {
        if !self.has_from(from) {
            return None;
        }
        let start = self.dice.random_range(0..self.guests.len());
        let (later, sooner) = self.guests.split_at(start);
        let theirs = sooner.iter().chain(later).filter(|it| it.is_counted && it.from == Some(from));
        let chosen = theirs.take(CANDIDATES).min_by_key(|it| it.number)?.key;
        self.leave(chosen)
    }

    /// How many wait under the same address. Who has none stands for itself alone.
    fn beside(&self, from: Option<IpAddr>) -> usize {
        from.and_then(|from| self.from.get(&from)).copied().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn seed() -> u64 {
        let seed = rand::random();
        println!("seed {seed}");
        seed
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let mut room = WaitingRoom::new(1);
        for key in 0..100 {
            room.enter(key, (key % 3 != 0).then(|| address(key % 7)), true);
        }
        assert_eq!(room.leave(50).map(|it| it.key), Some(50));
        assert!(room.leave(50).is_none() && room.len() == 99);
        (0..100).for_each(|key| assert!(room.leave(key).is_some() || key == 50));
        assert!(room.is_empty() && room.places.is_empty() && room.from.is_empty());
        assert!(room.send_away().is_none() && room.send_away_from(address(1)).is_none());
    }

    #[test]
    fn those_of_the_address_with_the_most_go_first() {
        let mut room = WaitingRoom::new(seed());
        let few = 40;
        for key in 0..1000 {
            let of_crowd = key >= few;
            room.enter(key, Some(address(if of_crowd { 1_000_000 + key % 10 } else { key })), true);
        }
        // Each of the ten addresses has 96: the others are drawn alone once in (40/1000)^8 times.
        for _ in 0..800 {
            assert!(room.send_away().expect("many").key >= few);
        }
    }

    #[test]
    fn among_many_addresses_the_young_stay_and_nobody_is_sure_to_go() {
        let mut room = WaitingRoom::new(seed());
        const PLACES: u32 = 500;
        (0..PLACES).for_each(|key| room.enter(key, Some(address(key)), true));
        let mut ages = Vec::new();
        for key in PLACES..20_000 {
            room.enter(key, Some(address(key)), true);
            ages.push(key - room.send_away().expect("many").key);
        }
        assert_eq!(room.len() as u32, PLACES);
        let younger_than = |age| ages.iter().filter(|it| **it < age).count();
        let young = younger_than(PLACES / 4);
        assert!(young < ages.len() / 100, "{young} of {} went before they were old", ages.len());
        let old = ages.len() - younger_than(PLACES);
        assert!(old > ages.len() / 10, "some stay longer than if the oldest always went: {old}");
    }

    #[test]
    fn one_of_the_same_address_can_be_sent_away() {
        let mut room = WaitingRoom::new(seed());
        (0..90).for_each(|key| room.enter(key, Some(address(key % 30)), true));
        for _ in 0..3 {
            assert_eq!(room.send_away_from(address(7)).expect("three").key % 30, 7);
        }
        room.enter(1000, Some(address(7)), false);
        assert!(room.send_away_from(address(7)).is_none(), "its own address is not counted");
        assert_eq!(room.len(), 88);
    }
}
