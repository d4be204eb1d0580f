//! One name that is being looked up: its two questions, and whom they are put to.
//!
//! Invariant: a question is open until it is answered or has been put to every server as often as
//! the settings say, each time for no longer than they say.

use core::net::IpAddr;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;

use super::message::{self, Family, Reply, Response};
use super::{Failure, Settings, Transmit, Transport};

/// How long the second family is waited for once the first has addresses (RFC 8305, 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// What a lookup is given to go on with.
pub(super) struct Round<'a> {
    pub(super) settings: &'a Settings,
    pub(super) now: Instant,
    pub(super) transmits: &'a mut VecDeque<Transmit>,
}

/// A name that is being looked up.
pub(super) struct Asking {
    /// The name as it was given.
    pub(super) host: Rc<str>,
    /// What that may be in full. The first is being asked for; never none.
    names: VecDeque<Name>,
    questions: [Question; 2],
    first_server: usize,
    /// Once one family has addresses: how long the other may still take.
    patience: Option<Instant>,
}

/// What a lookup came to.
pub(super) enum Outcome {
    /// Addresses, and how long they hold.
    Found(Vec<IpAddr>, Duration),
    /// The same of one family, while the other's question went unanswered.
    FoundPart(Vec<IpAddr>, Duration),
    /// None, and how long that holds.
    Absent(Failure, Duration),
    /// Nobody could say.
    Unanswered,
}

struct Question {
    family: Family,
    id: u16,
    state: State,
    /// What a truncated answer held, and for how long: some addresses do where all are not to be
    /// had.
    part: Option<(Vec<IpAddr>, Duration)>,
}

enum State {
    Open(Try),
    Found(Vec<IpAddr>, Duration),
    Absent(Failure, Duration),
    Unanswered,
}

/// A question that is put to a server.
#[derive(Clone, Copy)]
struct Try {
    /// How many tries there were before.
    number: usize,
    server: usize,
    transport: Transport,
    is_extended: bool,
    until: Instant,
}

impl Asking {
    /// A lookup of `host` whose questions have these `ids` and are first put to `first_server`.
    pub(super) fn new(
        host: &str,
        settings: &Settings,
        ids: [u16; 2],
        first_server: usize,
    ) -> Result<Self, Failure> {
        let names = full_names(host, settings)?;
        let question = |family, id| Question { family, id, state: State::Unanswered, part: None };
        let questions = [question(Family::V6, ids[0]), question(Family::V4, ids[1])];
        Ok(Self { host: host.into(), names, questions, first_server, patience: None })
    }

    /// Puts both questions about the first name.
    pub(super) fn begin(&mut self, round: &mut Round<'_>) {
        let until = round.now + round.settings.timeout;
        let (server, transport) = (self.first_server, Transport::Datagram);
        let first = Try { number: 0, server, transport, is_extended: true, until };
        self.patience = None;
        for index in 0..self.questions.len() {
            self.questions[index].part = None;
            self.put(index, first, round);
        }
    }

    pub(super) fn uses(&self, id: u16) -> bool {
        self.questions.iter().any(|question| question.id == id)
    }

    /// Whether the answer to the question `id` is to come over a stream.
    pub(super) fn awaits_stream(&self, id: u16) -> bool {
        let mut all = self.questions.iter();
        all.any(|question| question.id == id && question.is_put_over(Transport::Stream))
    }

    /// Takes an answer in. Whether it is one to a question of this lookup, and of use.
    pub(super) fn handle_response(
        &mut self,
        response: &Response,
        (server, transport): (usize, Transport),
        round: &mut Round<'_>,
    ) -> bool {
        let is_meant = |question: &Question| match question.state {
            State::Open(attempt) => {
                question.id == response.id
                    && (attempt.server, attempt.transport) == (server, transport)
                    && response.answers(&self.names[0], question.family)
            }
            _ => false,
        };
        let Some(index) = self.questions.iter().position(is_meant) else { return false };
        let State::Open(attempt) = self.questions[index].state else { return false };
        match &response.reply {
            Reply::Addresses(addresses, ttl) => {
                self.find(index, addresses.clone(), *ttl, round);
                true
            }
            Reply::Part(addresses, ttl) if transport == Transport::Datagram => {
                let part = (addresses.clone(), *ttl);
                self.questions[index].part = Some(part).filter(|_| !addresses.is_empty());
                self.put(index, Try { transport: Transport::Stream, ..attempt }, round);
                false
            }
            Reply::Absent(failure, ttl) => {
                self.questions[index].state = State::Absent(*failure, *ttl);
                true
            }
            Reply::NotExtended if attempt.is_extended && transport == Transport::Datagram => {
                let plain = Try { is_extended: false, ..attempt };
                self.put(index, plain, round);
                false
            }
            Reply::Part(..) | Reply::NotExtended | Reply::Unable => {
                self.try_next(index, round);
                false
            }
        }
    }

    /// Puts the questions that were put to `server` in datagrams to the next one.
    pub(super) fn handle_unreachable(&mut self, server: usize, round: &mut Round<'_>) {
        let is_over =
            |attempt: Try| attempt.server == server && attempt.transport == Transport::Datagram;
        self.try_next_where(is_over, round);
    }

    /// Puts the question `id` to the next server, if it is put over a stream.
    pub(super) fn handle_stream_lost(&mut self, id: u16, round: &mut Round<'_>) {
        for index in 0..self.questions.len() {
            let question = &self.questions[index];
            if question.id == id && question.is_put_over(Transport::Stream) {
                self.try_next(index, round);
            }
        }
    }

    /// Puts the questions that waited too long to the next server.
    pub(super) fn handle_timeout(&mut self, round: &mut Round<'_>) {
        let now = round.now;
        self.try_next_where(|attempt| attempt.until <= now, round);
    }

    /// When something has to happen even if nothing arrives.
    pub(super) fn deadline(&self) -> Instant {
        let open = self.questions.iter().filter_map(|question| match question.state {
            State::Open(attempt) => Some(attempt.until),
            _ => None,
        });
        open.chain(self.patience).min().expect("a lookup that waits has an open question")
    }

    /// What the lookup has come to; `None` while it goes on, perhaps with the next name.
    pub(super) fn outcome(&mut self, round: &mut Round<'_>) -> Option<Outcome> {
        let any = |is: fn(&State) -> bool| self.questions.iter().any(|it| is(&it.state));
        let is_open = any(|state| matches!(state, State::Open(_)));
        // A name that does not exist has no addresses of the other family either (RFC 8020).
        let no_such_name = any(|state| matches!(state, State::Absent(Failure::NoSuchName, _)));
        let is_late = self.patience.is_some_and(|until| until <= round.now);
        if is_open && !no_such_name && !is_late {
            return None;
        }
        if self.patience.is_some() {
            return Some(self.found());
        }
        if !no_such_name && any(|state| matches!(state, State::Unanswered)) {
            return Some(Outcome::Unanswered);
        }
        if self.names.len() > 1 {
            self.names.pop_front();
            self.begin(round);
            return None;
        }
        let absent = self.questions.iter().filter_map(|question| match question.state {
            State::Absent(failure, ttl) => Some((failure, ttl)),
            _ => None,
        });
        let (_, ttl) = absent.min_by_key(|(_, ttl)| *ttl)?;
        let failure = if no_such_name { Failure::NoSuchName } else { Failure::NoAddress };
        Some(Outcome::Absent(failure, ttl))
    }

    /// What both families have together.
    fn found(&mut self) -> Outcome {
        let (mut addresses, mut shortest, mut is_whole) = (Vec::new(), Duration::MAX, true);
        for question in &mut self.questions {
            match &mut question.state {
                State::Found(found, ttl) => {
                    addresses.append(found);
                    shortest = shortest.min(*ttl);
                }
                State::Absent(..) => {}
                State::Open(_) | State::Unanswered => {
                    is_whole = false;
                    addresses.extend(question.part.take().into_iter().flat_map(|(part, _)| part));
                }
            }
        }
        if is_whole {
            Outcome::Found(addresses, shortest)
        } else {
            Outcome::FoundPart(addresses, shortest)
        }
    }

    fn try_next_where(&mut self, is_over: impl Fn(Try) -> bool, round: &mut Round<'_>) {
        for index in 0..self.questions.len() {
            if let State::Open(attempt) = self.questions[index].state
                && is_over(attempt)
            {
                self.try_next(index, round);
            }
        }
    }

    fn find(&mut self, index: usize, addresses: Vec<IpAddr>, ttl: Duration, round: &Round<'_>) {
        self.questions[index].state = State::Found(addresses, ttl);
        self.patience.get_or_insert(round.now + RESOLUTION_DELAY);
    }

    /// Puts an open question to the next server, unless a part of its answer is there; or gives it
    /// up.
    fn try_next(&mut self, index: usize, round: &mut Round<'_>) {
        let State::Open(attempt) = self.questions[index].state else { return };
        if let Some((addresses, ttl)) = self.questions[index].part.take() {
            return self.find(index, addresses, ttl, round);
        }
        let (number, servers) = (attempt.number + 1, round.settings.servers.len());
        if number == round.settings.attempts * servers {
            self.questions[index].state = State::Unanswered;
            return;
        }
        let next = Try {
            number,
            server: (attempt.server + 1) % servers,
            transport: Transport::Datagram,
            is_extended: true,
            until: round.now + round.settings.timeout,
        };
        self.put(index, next, round);
    }

    fn put(&mut self, index: usize, attempt: Try, round: &mut Round<'_>) {
        let question = &mut self.questions[index];
        question.state = State::Open(attempt);
        let Try { server, transport, is_extended, .. } = attempt;
        let bytes = message::question(question.id, &self.names[0], question.family, is_extended);
        round.transmits.push_back(Transmit { server, transport, id: question.id, bytes });
    }
}

impl Question {
    fn is_put_over(&self, transport: Transport) -> bool {
        matches!(self.state, State::Open(attempt) if attempt.transport == transport)
    }
}

/// What `host` may be in full, in the order in which it is asked for: a name with many dots as it
/// stands and then in each domain of the search list, one with few the other way round
/// (resolv.conf(5), `ndots`).
fn full_names(host: &str, settings: &Settings) -> Result<VecDeque<Name>, Failure> {
    let relative = Name::from_ascii(host).map_err(|_| Failure::NotAName)?;
    if relative.is_root() {
        return Err(Failure::NotAName);
    }
    if relative.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(b"invalid")) {
        // It never exists (RFC 6761, 6.4).
        return Err(Failure::NoSuchName);
    }
    let mut absolute = relative.clone();
    absolute.set_fqdn(true);
    if relative.is_fqdn() {
        return Ok([absolute].into());
    }
    let in_domain = |domain: &String| {
        let domain = Name::from_ascii(domain).ok()?;
        relative.clone().append_domain(&domain).ok()
    };
    let mut names: VecDeque<Name> = settings.search.iter().filter_map(in_domain).collect();
    let dots = host.bytes().filter(|byte| *byte == b'.').count();
    if dots >= settings.dots {
        names.push_front(absolute);
    } else {
        names.push_back(absolute);
    }
    Ok(names)
}
