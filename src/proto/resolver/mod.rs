//! Looking names up: a stub resolver without sockets, clock or chance.
//!
//! [`Resolver::lookup`] answers at once what is known and otherwise begins to ask. What is to be
//! sent comes out of [`poll_transmit`](Resolver::poll_transmit), what arrived goes into
//! [`handle_datagram`](Resolver::handle_datagram), and what was found out comes out of
//! [`poll_answer`](Resolver::poll_answer). Both families are asked for together.
//!
//! A question goes out in a datagram. Where the answer was cut short to fit one, the same server is
//! asked again over a stream (RFC 7766), within the time that it had anyway. Each such question has
//! an [`Exchange`] of its own, and [`handle_stream_answer`](Resolver::handle_stream_answer) or
//! [`handle_stream_lost`](Resolver::handle_stream_lost) tells what came of it. Where that is
//! nothing, what the short answer held is taken, and where that was nothing too, the next server
//! is asked.
//!
//! A name that is [watched](Resolver::watch) is asked for again whenever its time to live ends, and
//! keeps its last good addresses until there are better ones: whoever has an address never waits.
//!
//! Not for other records, for reverse lookups, or for validating signatures: the name server is
//! trusted, as libc trusts it.
//!
//! Invariants: an answer counts only with the id, the question and the server of a question that is
//! open; at most [`MAX_LOOKUPS`] names are being looked up, and at most [`MAX_REMEMBERED`] are
//! remembered beside the watched ones; every question ends, answered or not.

use core::net::{IpAddr, SocketAddr};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use exchange::Exchange;
pub use settings::{DNS_PORT, Hosts, MAX_SERVERS, Settings, interleaved};

use asking::{Asking, Outcome, Round};
use message::Response;

mod asking;
mod exchange;
mod message;
mod settings;
#[cfg(test)]
mod tests;

/// How many names are looked up at the same time.
pub const MAX_LOOKUPS: usize = 128;

/// How many names are remembered beside those that are watched.
pub const MAX_REMEMBERED: usize = 1024;

/// How long it is remembered that nobody answered, and how long a part of an answer is believed
/// when the other part did not come.
const RETRY: Duration = Duration::from_secs(5);

/// A name is not asked for again sooner than this after an answer, whoever is displeased with it.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

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
    /// The place of the server in the list.
    pub server: usize,
    /// How it is sent there.
    pub transport: Transport,
    /// The question's number.
    pub id: u16,
    /// What is sent.
    pub bytes: Vec<u8>,
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
    ids: Box<dyn FnMut() -> u16>,
    /// The server that answered last, which is asked first.
    favourite: usize,
    entries: HashMap<Rc<str>, Entry>,
    asking: Vec<Asking>,
    transmits: VecDeque<Transmit>,
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
}

impl Resolver {
    /// A resolver that knows nothing but `hosts` yet. `ids` gives the numbers of questions; whoever
    /// can guess them can forge answers.
    ///
    /// # Panics
    /// Where the settings name no server or no attempt.
    pub fn new(settings: Settings, hosts: Hosts, ids: impl FnMut() -> u16 + 'static) -> Self {
        assert!(!settings.servers.is_empty() && settings.attempts > 0, "nobody would be asked");
        Self {
            settings,
            hosts,
            ids: Box::new(ids),
            favourite: 0,
            entries: HashMap::new(),
            asking: Vec::new(),
            transmits: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// The name servers, whose places in this list stand for them.
    #[must_use]
    pub fn servers(&self) -> &[SocketAddr] {
        &self.settings.servers
    }

    /// What is known of `host`, a name in lower case; where that is nothing, it is asked for.
    pub fn lookup(&mut self, host: &str, now: Instant) -> Lookup {
        if let Some(addresses) = self.hosts.addresses(host) {
            return Lookup::Known(addresses);
        }
        if let Some(entry) = self.entries.get(host) {
            let holds = now < entry.expires;
            match (&entry.addresses, entry.failure) {
                (Some(addresses), _) if holds || entry.is_watched => {
                    return Lookup::Known(Rc::clone(addresses));
                }
                (None, Some(failure)) if holds => return Lookup::Failed(failure),
                _ => {}
            }
        }
        match self.ask(host, now) {
            Ok(()) => Lookup::Pending,
            Err(failure) => Lookup::Failed(failure),
        }
    }

    /// Looks `host` up now and again whenever what is known of it has become too old, for ever.
    pub fn watch(&mut self, host: &str, now: Instant) {
        if self.hosts.addresses(host).is_some() {
            return;
        }
        let entry = self.entries.entry(host.into()).or_insert(Entry {
            addresses: None,
            failure: None,
            answered: None,
            expires: now,
            is_watched: true,
        });
        entry.is_watched = true;
        self.handle_timeout(now);
    }

    /// Asks for `host` again although what is known of it may hold, because its addresses are of
    /// no use. Until there are others they go on being [known](Lookup::Known).
    pub fn renew(&mut self, host: &str, now: Instant) {
        let is_new = |entry: &Entry| entry.answered.is_some_and(|at| now < at + SHORTEST_PAUSE);
        if self.hosts.addresses(host).is_none() && !self.entries.get(host).is_some_and(is_new) {
            // Too many lookups, or no name: then the addresses stay as they are.
            let _ = self.ask(host, now);
        }
    }

    /// Whether every watched name has been answered at least once, for good or ill.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.entries.values().all(|entry| entry.answered.is_some())
    }

    /// Whether no question is open.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.asking.is_empty()
    }

    /// Takes in what the server at `server` sent. Anything may come: what answers no open question
    /// is passed over.
    pub fn handle_datagram(&mut self, bytes: &[u8], server: usize, now: Instant) {
        self.handle_message(bytes, (server, Transport::Datagram), now);
    }

    /// Takes in what the server at `server` sent over the stream of the question `id`. Where that
    /// is no answer to it, none will come.
    pub fn handle_stream_answer(&mut self, bytes: &[u8], server: usize, id: u16, now: Instant) {
        self.handle_message(bytes, (server, Transport::Stream), now);
        self.handle_stream_lost(id, now);
    }

    /// No answer to the question `id` will come over its stream.
    pub fn handle_stream_lost(&mut self, id: u16, now: Instant) {
        let mut round = Round { settings: &self.settings, now, transmits: &mut self.transmits };
        for asking in &mut self.asking {
            asking.handle_stream_lost(id, &mut round);
        }
        self.settle(now);
    }

    /// Whether the answer to the question `id` is still to come over its stream. Where it is not,
    /// the stream is of no use any more.
    #[must_use]
    pub fn awaits_stream(&self, id: u16) -> bool {
        self.asking.iter().any(|asking| asking.awaits_stream(id))
    }

    /// Gives the server at `server` up for the questions that it was sent in datagrams, because the
    /// network said that it cannot be reached.
    pub fn handle_unreachable(&mut self, server: usize, now: Instant) {
        let mut round = Round { settings: &self.settings, now, transmits: &mut self.transmits };
        for asking in &mut self.asking {
            asking.handle_unreachable(server, &mut round);
        }
        self.settle(now);
    }

    /// Does what is due: asks the next server, gives up, asks for watched names again.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut round = Round { settings: &self.settings, now, transmits: &mut self.transmits };
        for asking in &mut self.asking {
            asking.handle_timeout(&mut round);
        }
        self.settle(now);
        let is_due = |entry: &Entry| entry.is_watched && entry.expires <= now;
        let due: Vec<Rc<str>> = self
            .entries
            .iter()
            .filter(|(host, entry)| is_due(entry) && !is_asking(&self.asking, host))
            .map(|(host, _)| Rc::clone(host))
            .collect();
        for host in due {
            if let Err(failure) = self.ask(&host, now) {
                self.conclude(&host, Err(failure), now + RETRY, now);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let renewals = self.entries.iter().filter_map(|(host, entry)| {
            (entry.is_watched && !is_asking(&self.asking, host)).then_some(entry.expires)
        });
        self.asking.iter().map(Asking::deadline).chain(renewals).min()
    }

    /// The next question to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next lookup that has ended.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    fn handle_message(&mut self, bytes: &[u8], from: (usize, Transport), now: Instant) {
        let Some(response) = Response::read(bytes) else { return };
        let mut round = Round { settings: &self.settings, now, transmits: &mut self.transmits };
        let mut all = self.asking.iter_mut();
        if all.any(|asking| asking.handle_response(&response, from, &mut round)) {
            self.favourite = from.0;
        }
        self.settle(now);
    }

    /// Begins to ask for `host`, unless that is under way.
    fn ask(&mut self, host: &str, now: Instant) -> Result<(), Failure> {
        if is_asking(&self.asking, host) {
            return Ok(());
        }
        if self.asking.len() == MAX_LOOKUPS {
            return Err(Failure::Busy);
        }
        let first = self.fresh_id(None);
        let ids = [first, self.fresh_id(Some(first))];
        let mut asking = Asking::new(host, &self.settings, ids, self.favourite)?;
        asking.begin(&mut Round { settings: &self.settings, now, transmits: &mut self.transmits });
        self.asking.push(asking);
        Ok(())
    }

    /// A number that no open question has, nor `other`. Where the one that chance gave is taken,
    /// the next that is free.
    fn fresh_id(&mut self, other: Option<u16>) -> u16 {
        let mut id = (self.ids)();
        while other == Some(id) || self.asking.iter().any(|asking| asking.uses(id)) {
            id = id.wrapping_add(1);
        }
        id
    }

    /// Ends the lookups that have come to something.
    fn settle(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.asking.len() {
            let mut round = Round { settings: &self.settings, now, transmits: &mut self.transmits };
            let Some(outcome) = self.asking[index].outcome(&mut round) else {
                index += 1;
                continue;
            };
            let host = self.asking.swap_remove(index).host;
            let (outcome, holds) = match outcome {
                Outcome::Found(addresses, ttl) => (Ok(interleaved(addresses)), ttl),
                Outcome::FoundPart(addresses, ttl) => (Ok(interleaved(addresses)), ttl.min(RETRY)),
                Outcome::Absent(failure, ttl) => (Err(failure), ttl),
                Outcome::Unanswered => (Err(Failure::NoAnswer), RETRY),
            };
            self.conclude(&host, outcome, now + holds, now);
        }
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
        let fresh =
            Entry { addresses: None, failure: None, answered: None, expires, is_watched: false };
        let entry = self.entries.entry(Rc::clone(host)).or_insert(fresh);
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
