//! One name that is being looked up: its two questions, and whom they are put to.
//!
//! Invariant: a question is open until it is answered or has been put to every server as often as
//! the settings say, each time for no longer than they say. Each time it has another id, and the
//! serial number by which its answer is told apart.

use core::net::IpAddr;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::full_names::{FullName, full_names};
use super::message::{self, Family, Fit, Reply, Response};
use super::question::{How, Lack, Question, Sent, State, Try};
use super::{Failure, RETRY, Requester, Settings, Suspicion, Transmit, Transport};

/// How long the second family is waited for once the first has addresses (RFC 8305, 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// How long a server that did not answer lately is waited for at first, where another one did.
pub(super) const PROBE: Duration = Duration::from_secs(1);

/// After so many wrong answers to a question somebody is guessing, and datagrams are no longer
/// believed about it. Chance alone has fewer: each try has a port of its own.
const MOST_WRONG: u32 = 8;

/// What a lookup is given to go on with.
pub(super) struct Round<'a> {
    pub(super) settings: &'a Settings,
    pub(super) now: Instant,
    pub(super) out: &'a mut Outbox,
}

/// What lookups have to say, and what they draw from.
pub(super) struct Outbox {
    /// Numbers that nobody can guess.
    pub(super) chance: Box<dyn FnMut() -> u64>,
    /// How many questions have been put.
    pub(super) serial: u64,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) suspicions: VecDeque<Suspicion>,
}

/// A name that is being looked up.
pub(super) struct Asking {
    /// The name as it was given.
    pub(super) host: Rc<str>,
    /// On whose behalf.
    pub(super) requester: Requester,
    pub(super) place: Place,
    /// When it began, or began to wait.
    pub(super) begun: Instant,
    /// What the name may be in full. The first is being asked for; never none.
    names: VecDeque<FullName>,
    questions: [Question; 2],
    first: First,
    /// Once one family has addresses: how long the other may still take.
    patience: Option<Instant>,
    /// What the names before this one came to.
    verdict: Option<Verdict>,
    /// When a server was last heard.
    pub(super) heard: Option<Instant>,
}

/// Whom a lookup asks first.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub(super) server: usize,
    /// Who answered last.
    pub(super) favourite: Option<usize>,
}

/// Whether a lookup is one of those whose questions are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is, since then.
    Taken(Instant),
    /// It has not been yet.
    Wanted,
    /// It was, and has made room for others.
    Lost,
}

/// What a lookup came to.
pub(super) enum Outcome {
    /// Addresses, and how long they hold.
    Found(Vec<IpAddr>, Duration),
    /// The same of one family, while the other's question went unanswered.
    FoundPart(Vec<IpAddr>, Duration),
    /// None, and how long that holds.
    Failed(Failure, Duration),
}

/// Why there is no address, and how long that holds.
#[derive(Clone, Copy)]
struct Verdict {
    failure: Failure,
    holds: Duration,
    /// Whether what other names come to changes nothing.
    is_last: bool,
}

impl Asking {
    /// A lookup of `host` for which no question has been put.
    pub(super) fn new(
        host: Rc<str>,
        requester: Requester,
        settings: &Settings,
        now: Instant,
    ) -> Result<Self, Failure> {
        let names = full_names(&host, settings)?;
        Ok(Self {
            host,
            requester,
            place: Place::Wanted,
            begun: now,
            names,
            questions: [Question::new(Family::V6), Question::new(Family::V4)],
            first: First { server: 0, favourite: None },
            patience: None,
            verdict: None,
            heard: None,
        })
    }

    /// Whether its questions are put.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.place, Place::Taken(_))
    }

    /// Puts its questions: for the first time as `first` says, later to whoever comes next.
    pub(super) fn take_place(&mut self, first: First, round: &mut Round<'_>) {
        let was_lost = self.place == Place::Lost;
        self.place = Place::Taken(round.now);
        if was_lost {
            self.try_next_where(|_| true, Lack::Silent, round);
        } else {
            self.first = first;
            self.begin(round);
        }
    }

    /// Puts the questions about the first name.
    fn begin(&mut self, round: &mut Round<'_>) {
        self.patience = None;
        let settings = round.settings;
        for question in &mut self.questions {
            let is_wanted = question.family == Family::V4 || !settings.wants_no_v6;
            let state = if is_wanted { State::Later } else { State::Dropped };
            *question = Question { state, ..Question::new(question.family) };
        }
        // Where they are put one after the other, IPv4 comes first.
        let first = if settings.asks_singly { 1 } else { 0 };
        for index in first..self.questions.len() {
            self.put_first(index, round);
        }
    }

    /// Puts a question that has its time to come.
    fn put_first(&mut self, index: usize, round: &mut Round<'_>) {
        if matches!(self.questions[index].state, State::Later) {
            let (number, server) = (0, self.first.server);
            let is_extended = round.settings.is_extended;
            let transport = Transport::Datagram;
            let how = How { number, server, transport, is_extended, minds_case: true };
            self.put(index, how, self.until(how, round), round);
        }
    }

    /// The serial numbers under which answers to its questions are still to come.
    pub(super) fn awaited(&self) -> impl Iterator<Item = u64> {
        let is_running = self.is_running();
        self.questions.iter().filter(move |_| is_running).flat_map(Question::awaited)
    }

    fn index(&self, serial: u64) -> Option<usize> {
        let is_meant = |question: &Question| question.awaited().any(|awaited| awaited == serial);
        self.questions.iter().position(is_meant)
    }

    /// Takes in what came as the answer to a question that is [awaited](Self::awaited). Answers the
    /// server, where that is one to be asked again.
    pub(super) fn handle_message(
        &mut self,
        bytes: &[u8],
        serial: u64,
        round: &mut Round<'_>,
    ) -> Option<usize> {
        let index = self.index(serial)?;
        let State::Open(attempt) = &self.questions[index].state else { return None };
        if attempt.sent.serial != serial {
            return self.handle_late(index, bytes, round);
        }
        let mut attempt = attempt.clone();
        // It was in time, so that what it makes necessary has time too.
        attempt.give_back(round.now);
        let family = self.questions[index].family;
        let response = Response::read(bytes);
        let fit = response
            .as_ref()
            .map_or(Fit::None, |it| it.fit(attempt.sent.id, &attempt.sent.name, family));
        if fit != Fit::None {
            self.heard = Some(round.now);
        }
        match (fit, response) {
            // A server that does not bear capitals, or does not repeat them; or somebody who guesses,
            // who has all the rest to guess anew.
            (Fit::OtherCase, _) if attempt.how.minds_case => {
                self.put_plainly(index, &attempt, round)
            }
            (Fit::Exact, Some(response)) if attempt.how.minds_case && response.finds_nothing() => {
                self.put_plainly(index, &attempt, round)
            }
            (Fit::Exact | Fit::OtherCase, Some(response)) => {
                self.handle_reply(index, response.reply, &attempt, round)
            }
            _ => {
                self.suspect(index, round);
                None
            }
        }
    }

    /// Takes in what came as the answer to the try before the present one: of use where it is whole.
    fn handle_late(&mut self, index: usize, bytes: &[u8], round: &mut Round<'_>) -> Option<usize> {
        let Question { earlier, family, .. } = &mut self.questions[index];
        let Try { how, sent, .. } = earlier.clone()?;
        let response = Response::read(bytes);
        let fits = |it: &Response| it.fit(sent.id, &sent.name, *family) == Fit::Exact;
        let Some(response) = response.filter(fits) else {
            self.suspect(index, round);
            return None;
        };
        *earlier = None;
        self.heard = Some(round.now);
        match response.reply {
            Reply::Addresses(addresses, ttl) => self.find(index, addresses, ttl, round),
            Reply::Absent(failure, ttl) if !how.minds_case => {
                self.questions[index].state = State::Absent(failure, ttl);
            }
            _ => return None,
        }
        Some(how.server)
    }

    /// Puts a question to the same server again, with its letters as they are mostly written.
    fn put_plainly(&mut self, index: usize, attempt: &Try, round: &mut Round<'_>) -> Option<usize> {
        self.put(index, How { minds_case: false, ..attempt.how }, attempt.until, round);
        None
    }

    /// Counts a wrong answer. After too many of them datagrams are no longer believed.
    fn suspect(&mut self, index: usize, round: &mut Round<'_>) {
        let question = &mut self.questions[index];
        question.wrong += 1;
        if question.wrong == MOST_WRONG
            && let State::Open(Try { how, .. }) = question.state
        {
            question.earlier = None;
            let host = Rc::clone(&self.host);
            round.out.suspicions.push_back(Suspicion { host, server: how.server });
            // It is not the server's fault, so it has its whole time.
            self.put(index, how, self.until(how, round), round);
        }
    }

    fn handle_reply(
        &mut self,
        index: usize,
        reply: Reply,
        attempt: &Try,
        round: &mut Round<'_>,
    ) -> Option<usize> {
        let is_datagram = attempt.how.transport == Transport::Datagram;
        match reply {
            Reply::Addresses(addresses, ttl) => self.find(index, addresses, ttl, round),
            Reply::Absent(failure, ttl) => {
                self.questions[index].state = State::Absent(failure, ttl);
            }
            Reply::Part(addresses, ttl) if is_datagram => {
                self.questions[index].part = Some((addresses, ttl)).filter(|it| !it.0.is_empty());
                let whole = How { transport: Transport::Stream, ..attempt.how };
                self.put(index, whole, attempt.until, round);
                return None;
            }
            Reply::NotExtended if attempt.how.is_extended => {
                let plain = How { is_extended: false, ..attempt.how };
                self.put(index, plain, attempt.until, round);
                return None;
            }
            Reply::Part(..) | Reply::NotExtended | Reply::Unable => {
                self.try_next(index, Lack::Unable, round);
                return None;
            }
        }
        Some(attempt.how.server)
    }

    /// Something of the answer to a question has come.
    pub(super) fn handle_progress(&mut self, serial: u64, now: Instant) {
        self.heard = Some(now);
        for question in &mut self.questions {
            if let State::Open(attempt) = &mut question.state
                && attempt.sent.serial == serial
            {
                attempt.give_back(now);
            }
        }
    }

    /// Puts the question to the next server, because this one cannot be reached.
    pub(super) fn handle_lost(&mut self, serial: u64, round: &mut Round<'_>) {
        let Some(index) = self.index(serial) else { return };
        self.heard = Some(round.now);
        let question = &mut self.questions[index];
        if question.earlier.as_ref().is_some_and(|earlier| earlier.sent.serial == serial) {
            question.earlier = None;
        } else {
            self.try_next(index, Lack::Unreachable, round);
        }
    }

    /// Puts the questions that waited too long to the next server.
    pub(super) fn handle_timeout(&mut self, round: &mut Round<'_>) {
        if !self.is_running() {
            return;
        }
        let now = round.now;
        self.try_next_where(|attempt| attempt.until <= now, Lack::Silent, round);
    }

    /// When something has to happen even if nothing arrives; `None` where it has no place.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let open = self.questions.iter().filter_map(|question| match &question.state {
            State::Open(attempt) => Some(attempt.until),
            _ => None,
        });
        open.chain(self.patience).min().filter(|_| self.is_running())
    }

    /// What the lookup has come to; `None` while it goes on, perhaps with the next name.
    pub(super) fn outcome(&mut self, round: &mut Round<'_>) -> Option<Outcome> {
        if !self.is_running() {
            return None;
        }
        let any = |it: &Self, is: fn(&State) -> bool| it.questions.iter().any(|it| is(&it.state));
        let is_open = |state: &State| matches!(state, State::Open(_));
        if !any(self, is_open) {
            (0..self.questions.len()).for_each(|index| self.put_first(index, round));
        }
        let is_late = self.patience.is_some_and(|until| until <= round.now);
        if any(self, is_open) && !is_late {
            return None;
        }
        if self.patience.is_some() {
            return Some(self.found());
        }
        let is_silent =
            any(self, |state| matches!(state, State::Unanswered(Lack::Silent | Lack::Unreachable)));
        let verdict = self.judge();
        let given_first = self.names.pop_front().is_some_and(|name| name.is_as_given);
        if is_silent && !given_first {
            // Who is silent about one domain may be so about all: only the name itself is left.
            self.names.retain(|name| name.is_as_given);
        }
        if self.names.is_empty() {
            return Some(Outcome::Failed(verdict.failure, verdict.holds));
        }
        self.verdict = Some(Verdict { is_last: verdict.is_last || given_first, ..verdict });
        self.begin(round);
        None
    }

    /// Why there is no address, after this name and those before.
    fn judge(&self) -> Verdict {
        let reasons = || {
            self.questions.iter().filter_map(|question| match &question.state {
                State::Absent(failure, ttl) => Some((*failure, *ttl)),
                State::Unanswered(_) => Some((Failure::NoAnswer, RETRY)),
                _ => None,
            })
        };
        let failure = reasons().map(|(failure, _)| failure).min_by_key(|it| weight(*it));
        let failure = failure.expect("IPv4 addresses are always asked for");
        let holds = reasons().map(|(_, ttl)| ttl).min().unwrap_or(RETRY);
        let Some(before) = self.verdict else {
            return Verdict { failure, holds, is_last: false };
        };
        let is_changed = !before.is_last && weight(failure) > weight(before.failure);
        let failure = if is_changed { failure } else { before.failure };
        Verdict { failure, holds: holds.min(before.holds), ..before }
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
                State::Absent(..) | State::Dropped => {}
                State::Later | State::Open(_) | State::Unanswered(_) => {
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

    fn try_next_where(&mut self, is_over: impl Fn(&Try) -> bool, why: Lack, round: &mut Round<'_>) {
        for index in 0..self.questions.len() {
            if matches!(&self.questions[index].state, State::Open(attempt) if is_over(attempt)) {
                self.try_next(index, why, round);
            }
        }
    }

    fn find(&mut self, index: usize, addresses: Vec<IpAddr>, ttl: Duration, round: &Round<'_>) {
        self.questions[index].state = State::Found(addresses, ttl);
        self.patience.get_or_insert(round.now + RESOLUTION_DELAY);
    }

    /// Puts an open question to the next server, unless a part of its answer is there; or gives it
    /// up.
    fn try_next(&mut self, index: usize, why: Lack, round: &mut Round<'_>) {
        let State::Open(attempt) = &self.questions[index].state else { return };
        let (settings, before) = (round.settings, attempt.how);
        if let Some((addresses, ttl)) = self.questions[index].part.take() {
            return self.find(index, addresses, ttl, round);
        }
        let (number, servers) = (before.number + 1, settings.servers.len());
        if number >= settings.attempts * servers {
            self.questions[index].state = State::Unanswered(why);
            return;
        }
        // Some who pass over a question with the extension, or with capitals, answer a plain one.
        let is_plain = why == Lack::Silent;
        let is_late = is_plain && before.transport == Transport::Datagram;
        self.questions[index].earlier = Some(attempt.clone()).filter(|_| is_late);
        let how = How {
            number,
            server: (before.server + 1) % servers,
            transport: Transport::Datagram,
            is_extended: settings.is_extended && !is_plain,
            minds_case: !is_plain,
        };
        self.put(index, how, self.until(how, round), round);
    }

    /// Until when a question that is put `how` is waited for.
    fn until(&self, how: How, round: &Round<'_>) -> Instant {
        let settings = round.settings;
        let is_first_round = how.number < settings.servers.len();
        let is_doubtful = self.first.favourite.is_some_and(|favourite| favourite != how.server);
        let limit = if is_first_round && is_doubtful { PROBE } else { settings.timeout };
        round.now + limit.min(settings.timeout)
    }

    fn put(&mut self, index: usize, mut how: How, until: Instant, round: &mut Round<'_>) {
        let Outbox { chance, serial, transmits, .. } = &mut *round.out;
        let question = &mut self.questions[index];
        if round.settings.uses_streams || question.wrong >= MOST_WRONG {
            how.transport = Transport::Stream;
        }
        let plain = &self.names[0].name;
        // Over a stream nobody can put in a word.
        let is_guarded = how.minds_case && how.transport == Transport::Datagram;
        let name =
            if is_guarded { message::with_random_case(plain, chance) } else { plain.clone() };
        how.minds_case = !name.eq_case(plain);
        *serial += 1;
        let id = (chance() >> (u64::BITS - u16::BITS)) as u16;
        let sent = Sent { serial: *serial, id, name };
        let bytes = message::question(sent.id, &sent.name, question.family, how.is_extended);
        let How { server, transport, .. } = how;
        transmits.push_back(Transmit { serial: *serial, server, transport, bytes });
        question.state = State::Open(Try { how, until, sent });
    }
}

/// Of the failures of one name the lightest counts: one that is not there is so for both families.
/// Of several names' the heaviest does, as with libc: one that is there says more.
fn weight(failure: Failure) -> u8 {
    match failure {
        Failure::NoAddress => 2,
        Failure::NoAnswer => 1,
        Failure::NoSuchName | Failure::NotAName | Failure::Busy => 0,
    }
}
