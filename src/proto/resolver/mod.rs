//! Looking names up: a stub resolver without sockets, clock or chance.
//!
//! [`Resolver::lookup`] answers at once what is known and otherwise begins to ask. What is to be
//! sent comes out of [`poll_transmit`](Resolver::poll_transmit), what arrived goes into
//! [`handle_answer`](Resolver::handle_answer), and what was found out comes out of
//! [`poll_answer`](Resolver::poll_answer). Both families are asked for together, and what libc finds
//! with the same files is found here too.
//!
//! A question goes out in a datagram. Where the answer was cut short to fit one, the same server is
//! asked again over a stream (RFC 7766), within the time that it had anyway, in an [`Exchange`] of
//! its own. Where nothing comes of that, what the short answer held is taken, and where that was
//! nothing too, the next server is asked.
//!
//! Each time that a question is put it has another id, letters in another case, and a serial
//! number, under which its sender is expected to give it a port of its own. Whoever forges an answer
//! has to guess all of that (RFC 5452), and who guesses wrong too often about a question is not
//! listened to any more: it is put over streams.
//!
//! A name that is [watched](Resolver::watch) is asked for again whenever its time to live ends, and
//! keeps its last good addresses until there are better ones: whoever has an address never waits.
//!
//! At most [`MAX_LOOKUPS`] names are asked for at a time; more have to wait, and `places` says who
//! is next, so that nobody who asks for names that nobody answers stops those of others.
//!
//! Not for other records, for reverse lookups, or for validating signatures: the name server is
//! trusted, as libc trusts it.
//!
//! Invariants: an answer counts only with the id, the question and the letters of a question that is
//! open; at most [`MAX_REMEMBERED`] names are remembered beside the watched ones; every question
//! ends, answered or not.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use exchange::Exchange;
pub use places::{MAX_LOOKUPS, MAX_WAITING, Requester};
pub use settings::{
    Beside, DNS_PORT, Hosts, MAX_ADDRESSES, MAX_SERVERS, Server, Settings, interleaved,
};

use asking::{Asking, First, Outbox, Outcome, Round};
use places::Sharing;

mod asking;
mod exchange;
mod full_names;
mod message;
mod places;
mod question;
mod settings;
#[cfg(test)]
mod tests;

/// How many names are remembered beside those that are watched.
pub const MAX_REMEMBERED: usize = 1024;

/// How long it is remembered that nobody answered, and how long a part of an answer is believed
/// when the other part did not come.
const RETRY: Duration = Duration::from_secs(5);

/// A name is not asked for again sooner than this after an answer, whoever is displeased with it.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// How long the server that answered last is asked first, before the order of the list counts again.
const FAVOUR: Duration = Duration::from_secs(30);

/// The addresses of a name, in the order in which they are to be tried; never none.
pub type Addresses = Rc<[IpAddr]>;

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its addresses.
    Known(Addresses),
    /// It is being looked up: [`Resolver::poll_answer`] will tell.
    Pending,
    /// It has none.
    Failed(Failure),
}

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such name.
    NoSuchName,
    /// The name is there, but has no address.
    NoAddress,
    /// No server answered in time, or all of them said that they could not.
    NoAnswer,
    /// It cannot be a name.
    NotAName,
    /// Too many other names are being looked up.
    Busy,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchName => "there is no such name",
            Self::NoAddress => "the name has no address",
            Self::NoAnswer => "no name server has an answer",
            Self::NotAName => "this cannot be a name",
            Self::Busy => "too many names are being looked up",
        })
    }
}

/// How a question is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Datagram,
    /// In an [`Exchange`] over a stream of its own.
    Stream,
}

/// A question that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Under which its answer is handed in. No other question ever has this number.
    pub serial: u64,
    /// The place of the server in the list.
    pub server: usize,
    /// How it is sent there.
    pub transport: Transport,
    /// What is sent.
    pub bytes: Vec<u8>,
}

/// Somebody guesses at the answer to a question; it is put over streams from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// The name that is being looked up.
    pub host: Rc<str>,
    /// The place in the list of the server whose answers were wrong.
    pub server: usize,
}

/// A lookup that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name that was looked up.
    pub host: Rc<str>,
    /// What was found out.
    pub outcome: Result<Addresses, Failure>,
    /// Whether that differs from what was known before.
    pub is_news: bool,
    /// Whether the name is [watched](Resolver::watch), and not a peer's wish.
    pub is_watched: bool,
}

/// The state of all lookups, and what is remembered of former ones.
pub struct Resolver {
    settings: Settings,
    hosts: Hosts,
    /// The server that answered last, and until when it is asked first.
    favourite: Option<(usize, Instant)>,
    /// How many lookups have begun, by which servers take turns.
    begun: usize,
    entries: BTreeMap<Rc<str>, Entry>,
    asking: Vec<Asking>,
    out: Outbox,
    answers: VecDeque<Answer>,
}

/// What is remembered of a name.
struct Entry {
    /// Its last good addresses. They outlive a failure only where the name is watched.
    addresses: Option<Addresses>,
    /// What the last lookup came to, where it came to nothing.
    failure: Option<Failure>,
    /// When that was; `None` before the first.
    answered: Option<Instant>,
    /// Until when that holds.
    expires: Instant,
    is_watched: bool,
    /// Whose lookup had no place, where that is the failure: it is nobody else's.
    refused: Option<Requester>,
}

impl Entry {
    fn new(expires: Instant) -> Self {
        let (addresses, failure, answered, refused) = (None, None, None, None);
        Self { addresses, failure, answered, expires, is_watched: false, refused }
    }
}

impl Resolver {
    /// A resolver that knows nothing but `hosts` yet. `chance` gives numbers; whoever can guess them
    /// can forge answers.
    ///
    /// # Panics
    /// Where the settings name no server or no attempt.
    pub fn new(settings: Settings, hosts: Hosts, chance: impl FnMut() -> u64 + 'static) -> Self {
        assert!(!settings.servers.is_empty() && settings.attempts > 0, "nobody would be asked");
        let out = Outbox {
            chance: Box::new(chance),
            serial: 0,
            transmits: VecDeque::new(),
            suspicions: VecDeque::new(),
        };
        Self {
            settings,
            hosts,
            favourite: None,
            begun: 0,
            entries: BTreeMap::new(),
            asking: Vec::new(),
            out,
            answers: VecDeque::new(),
        }
    }

    /// The name servers, whose places in this list stand for them.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.settings.servers
    }

    /// How names are looked up.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Looks names up as `settings` say from now on. What was asked for is asked for anew, and what
    /// others have said no longer holds; watched names keep their addresses until there are better
    /// ones.
    pub fn change_settings(&mut self, settings: Settings, now: Instant) {
        assert!(!settings.servers.is_empty() && settings.attempts > 0, "nobody would be asked");
        self.settings = settings;
        self.favourite = None;
        self.out.transmits.clear();
        self.entries.retain(|_, entry| entry.is_watched);
        self.entries.values_mut().for_each(|entry| entry.expires = now);
        for asking in std::mem::take(&mut self.asking) {
            let host = Rc::clone(&asking.host);
            match Asking::new(asking.host, asking.requester, &self.settings, now) {
                Ok(anew) => self.asking.push(anew),
                Err(failure) => self.conclude(&host, Err(failure), now + RETRY, now),
            }
        }
        self.share_free_places(now);
        self.renew_watched(now);
    }

    /// Knows these hosts by itself from now on, instead of those before.
    pub fn change_hosts(&mut self, hosts: Hosts, now: Instant) {
        self.hosts = hosts;
        self.renew_watched(now);
    }

    /// What is known of `host`, a name in lower case; where that is nothing, it is asked for on
    /// behalf of `requester`.
    pub fn lookup(&mut self, host: &str, requester: Requester, now: Instant) -> Lookup {
        if let Some(addresses) = self.hosts.addresses(host) {
            return Lookup::Known(addresses);
        }
        if let Some(entry) = self.entries.get(host) {
            let holds = now < entry.expires;
            let is_meant = entry.refused.is_none_or(|refused| refused == requester);
            match (&entry.addresses, entry.failure) {
                (Some(addresses), _) if holds || entry.is_watched => {
                    return Lookup::Known(Rc::clone(addresses));
                }
                (None, Some(failure)) if holds && is_meant => return Lookup::Failed(failure),
                _ => {}
            }
        }
        match self.ask(host, requester, now) {
            Ok(()) => Lookup::Pending,
            Err(failure) => Lookup::Failed(failure),
        }
    }

    /// Looks `host` up now and again whenever what is known of it has become too old, for ever.
    pub fn watch(&mut self, host: &str, now: Instant) {
        self.entries.entry(host.into()).or_insert(Entry::new(now)).is_watched = true;
        self.renew_watched(now);
    }

    /// Asks for `host` again although what is known of it may hold, because its addresses are of
    /// no use. Until there are others they go on being [known](Lookup::Known).
    pub fn renew(&mut self, host: &str, requester: Requester, now: Instant) {
        let is_new = |entry: &Entry| entry.answered.is_some_and(|at| now < at + SHORTEST_PAUSE);
        if self.hosts.addresses(host).is_none() && !self.entries.get(host).is_some_and(is_new) {
            // Too many lookups, or no name: then the addresses stay as they are.
            let _ = self.ask(host, requester, now);
        }
    }

    /// Whether every watched name has been answered at least once, for good or ill.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let mut watched = self.entries.iter().filter(|(_, entry)| entry.is_watched);
        watched
            .all(|(host, entry)| entry.answered.is_some() || self.hosts.addresses(host).is_some())
    }

    /// Takes in what was sent as the answer to the question with this serial number. Anything may
    /// come: what answers no open question is passed over.
    pub fn handle_answer(&mut self, bytes: &[u8], serial: u64, now: Instant) {
        let Some(index) = self.index(serial) else { return };
        let mut round = Round { settings: &self.settings, now, out: &mut self.out };
        if let Some(server) = self.asking[index].handle_message(bytes, serial, &mut round) {
            self.favourite = Some((server, now + FAVOUR));
        }
        self.settle(index, now);
        self.share_free_places(now);
    }

    /// Something of the answer to the question with this serial number has come, and more is to come.
    pub fn handle_progress(&mut self, serial: u64, now: Instant) {
        if let Some(index) = self.index(serial) {
            self.asking[index].handle_progress(serial, now);
        }
    }

    /// No answer to the question with this serial number will come: the server cannot be reached,
    /// or has closed the stream.
    pub fn handle_lost(&mut self, serial: u64, now: Instant) {
        let Some(index) = self.index(serial) else { return };
        let mut round = Round { settings: &self.settings, now, out: &mut self.out };
        self.asking[index].handle_lost(serial, &mut round);
        self.settle(index, now);
        self.share_free_places(now);
    }

    /// When a name server was last heard about `host`, which is being looked up.
    #[must_use]
    pub fn heard(&self, host: &str) -> Option<Instant> {
        self.asking.iter().find(|asking| *asking.host == *host)?.heard
    }

    /// Whether the answer to the question with this serial number is still to come. Where it is
    /// not, the socket of that question is of no use any more.
    #[must_use]
    pub fn awaits(&self, serial: u64) -> bool {
        self.index(serial).is_some()
    }

    /// The serial numbers of all questions whose answers are still to come.
    #[must_use]
    pub fn awaited(&self) -> BTreeSet<u64> {
        self.asking.iter().flat_map(Asking::awaited).collect()
    }

    /// Does what is due: asks the next server, gives up, asks for watched names again. Whatever has
    /// come before `now` is to be handed in first, for the loop may have stood still.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.asking.len() {
            let mut round = Round { settings: &self.settings, now, out: &mut self.out };
            self.asking[index].handle_timeout(&mut round);
            index += if self.settle(index, now) { 0 } else { 1 };
        }
        self.share_places(|asking| Sharing::with_turns(asking, now), now);
        self.renew_watched(now);
    }

    /// Asks again for the watched names whose time to live is over.
    fn renew_watched(&mut self, now: Instant) {
        let is_due = |host: &Rc<str>, entry: &Entry| {
            entry.is_watched && entry.expires <= now && self.has_to_ask(host)
        };
        let due = self.entries.iter().filter(|(host, entry)| is_due(host, entry));
        let due: Vec<Rc<str>> = due.map(|(host, _)| Rc::clone(host)).collect();
        for host in due {
            if let Err(failure) = self.ask(&host, Requester::Ourselves, now) {
                self.conclude(&host, Err(failure), now + RETRY, now);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let renewals = self.entries.iter().filter_map(|(host, entry)| {
            (entry.is_watched && self.has_to_ask(host)).then_some(entry.expires)
        });
        let lookups = self.asking.iter().filter_map(Asking::deadline);
        lookups.chain(places::deadline(&self.asking)).chain(renewals).min()
    }

    /// The next question to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// Whether there are more questions to send.
    #[must_use]
    pub fn has_transmits(&self) -> bool {
        !self.out.transmits.is_empty()
    }

    /// The next lookup that has ended.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// The next question at whose answer somebody guesses.
    pub fn poll_suspicion(&mut self) -> Option<Suspicion> {
        self.out.suspicions.pop_front()
    }

    /// The place in the list of the lookup whose question has this serial number.
    fn index(&self, serial: u64) -> Option<usize> {
        self.asking.iter().position(|asking| asking.awaited().any(|awaited| awaited == serial))
    }

    /// Whether others have to be asked for `host`, and are not being asked.
    fn has_to_ask(&self, host: &str) -> bool {
        !is_asking(&self.asking, host) && self.hosts.addresses(host).is_none()
    }

    /// Begins to ask for `host`, unless that is under way.
    fn ask(&mut self, host: &str, requester: Requester, now: Instant) -> Result<(), Failure> {
        if let Some(asking) = self.asking.iter_mut().find(|asking| *asking.host == *host) {
            if requester == Requester::Ourselves {
                asking.requester = requester;
            }
            return Ok(());
        }
        let asking = Asking::new(host.into(), requester, &self.settings, now)?;
        if let Some(refused) = places::one_too_many(&self.asking, requester) {
            let refused = self.asking.swap_remove(refused);
            self.refuse(&refused, now);
        }
        self.asking.push(asking);
        self.share_free_places(now);
        Ok(())
    }

    /// Ends a lookup that others have taken the place of. Addresses that are known stay so.
    fn refuse(&mut self, asking: &Asking, now: Instant) {
        let (host, requester) = (&asking.host, asking.requester);
        let entry = self.entries.get(host);
        if entry.is_some_and(|entry| entry.addresses.is_some() && now < entry.expires) {
            return;
        }
        self.conclude(host, Err(Failure::Busy), now + SHORTEST_PAUSE, now);
        if let Some(entry) = self.entries.get_mut(host) {
            entry.refused = Some(requester);
        }
    }

    /// Lets those who wait be asked for, as far as places are free. Nobody loses one, for his answer
    /// may have come, and not have been read.
    fn share_free_places(&mut self, now: Instant) {
        self.share_places(Sharing::new, now);
    }

    /// Lets those who wait be asked for, as far as there are places.
    fn share_places(&mut self, sharing: impl FnOnce(&[Asking]) -> Sharing, now: Instant) {
        if self.asking.iter().all(Asking::is_running) {
            return;
        }
        let mut sharing = sharing(&self.asking);
        while let Some(next) = sharing.next(&mut self.asking) {
            let first = self.first(now);
            let mut round = Round { settings: &self.settings, now, out: &mut self.out };
            self.asking[next].take_place(first, &mut round);
        }
    }

    /// Whom a new lookup asks first.
    fn first(&mut self, now: Instant) -> First {
        self.begun = self.begun.wrapping_add(1);
        let favourite = self.favourite.map(|(server, _)| server);
        let server = match self.favourite {
            _ if self.settings.rotates => self.begun % self.settings.servers.len(),
            Some((server, until)) if now < until => server,
            _ => 0,
        };
        First { server, favourite: favourite.filter(|_| !self.settings.rotates) }
    }

    /// Ends the lookup at this place in the list, if it has come to something. Whether it has.
    fn settle(&mut self, index: usize, now: Instant) -> bool {
        if places::has_waited_in_vain(&self.asking[index], now) {
            let refused = self.asking.swap_remove(index);
            self.refuse(&refused, now);
            return true;
        }
        let mut round = Round { settings: &self.settings, now, out: &mut self.out };
        let Some(outcome) = self.asking[index].outcome(&mut round) else { return false };
        let host = self.asking.swap_remove(index).host;
        let (outcome, holds) = match outcome {
            Outcome::Found(addresses, ttl) => (Ok(interleaved(addresses)), ttl),
            Outcome::FoundPart(addresses, ttl) => (Ok(interleaved(addresses)), ttl.min(RETRY)),
            Outcome::Failed(failure, ttl) => (Err(failure), ttl),
        };
        self.conclude(&host, outcome, now + holds, now);
        true
    }

    /// Remembers what a lookup came to, and tells it.
    fn conclude(
        &mut self,
        host: &Rc<str>,
        outcome: Result<Addresses, Failure>,
        expires: Instant,
        now: Instant,
    ) {
        self.make_room(host, now);
        let entry = self.entries.entry(Rc::clone(host)).or_insert(Entry::new(expires));
        let is_news = match &outcome {
            Ok(addresses) => !same_addresses(entry.addresses.as_deref(), addresses),
            Err(failure) => entry.failure != Some(*failure),
        };
        match &outcome {
            Ok(addresses) => {
                entry.addresses = Some(Rc::clone(addresses));
                entry.failure = None;
            }
            Err(failure) => {
                entry.failure = Some(*failure);
                if !entry.is_watched {
                    entry.addresses = None;
                }
            }
        }
        entry.answered = Some(now);
        entry.expires = expires;
        entry.refused = None;
        let is_watched = entry.is_watched;
        self.answers.push_back(Answer { host: Rc::clone(host), outcome, is_news, is_watched });
    }

    /// Forgets what no longer holds, or else what ends soonest, where `host` would be one too many.
    fn make_room(&mut self, host: &str, now: Instant) {
        let unwatched = self.entries.values().filter(|entry| !entry.is_watched).count();
        if unwatched < MAX_REMEMBERED || self.entries.contains_key(host) {
            return;
        }
        self.entries.retain(|_, entry| entry.is_watched || now < entry.expires);
        let unwatched = || self.entries.iter().filter(|(_, entry)| !entry.is_watched);
        if unwatched().count() >= MAX_REMEMBERED
            && let Some((soonest, _)) = unwatched().min_by_key(|(_, entry)| entry.expires)
        {
            let soonest = Rc::clone(soonest);
            self.entries.remove(&soonest);
        }
    }
}

fn is_asking(asking: &[Asking], host: &str) -> bool {
    asking.iter().any(|asking| *asking.host == *host)
}

/// Servers give the same addresses in another order each time.
fn same_addresses(before: Option<&[IpAddr]>, now: &[IpAddr]) -> bool {
    before.is_some_and(|before| {
        before.len() == now.len() && now.iter().all(|address| before.contains(address))
    })
}
