//! What is said to a name server and what it says back, as bytes (RFC 1035, 4).
//!
//! Invariant: [`Response::read`] takes any bytes at all. What is not the answer to a question of
//! ours is no answer, never a failure.

use core::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::Failure;
use super::settings::admit;

/// The longest answer that is asked for in one datagram: what passes every network without being
/// cut into pieces (the figure of DNS Flag Day 2020).
const MAX_ANSWER: u16 = 1232;

/// How many aliases are followed from the name that was asked for.
const MAX_ALIASES: usize = 16;

/// How long an answer is believed, whatever it says itself.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// How long it is believed that there is nothing, at the most.
const LONGEST_ABSENCE: Duration = Duration::from_secs(30);

/// The length of a message's header, and where in it the figures begin that say how much of each
/// kind follows: questions, answers, and what is said beside them.
const HEADER_LEN: usize = 12;
const QUESTION_COUNT: usize = 4;
const ANSWER_COUNT: usize = 6;
const BESIDE_COUNTS: usize = 8;

/// One of the two questions about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V6,
    V4,
}

impl Family {
    fn record_type(self) -> RecordType {
        match self {
            Self::V6 => RecordType::AAAA,
            Self::V4 => RecordType::A,
        }
    }
}

/// A question as bytes. `is_extended` offers to take a longer answer than 512 bytes (RFC 6891),
/// which some old servers do not understand.
pub(super) fn question(id: u16, name: &Name, family: Family, is_extended: bool) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), family.record_type()));
    if is_extended {
        let mut extension = Edns::new();
        extension.set_max_payload(MAX_ANSWER);
        message.set_edns(extension);
    }
    message.to_vec().expect("a question fits a message")
}

/// The same name with each letter in capitals or not, as `chance` has it: who forges an answer has
/// to guess that too, because servers repeat the question as it was put (0x20, after the bit).
pub(super) fn with_random_case(name: &Name, chance: &mut dyn FnMut() -> u64) -> Name {
    let (mut bits, mut left) = (0, 0);
    let mut flip = |letter: u8| {
        if left == 0 {
            (bits, left) = (chance(), u64::BITS);
        }
        let is_capital = bits & 1 == 1;
        (bits, left) = (bits >> 1, left - 1);
        if is_capital { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
    };
    let labels: Vec<Vec<u8>> =
        name.iter().map(|label| label.iter().map(|letter| flip(*letter)).collect()).collect();
    Name::from_labels(labels).unwrap_or_else(|_| name.clone())
}

/// What a server said about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Addresses, and how long they may be believed.
    Addresses(Vec<IpAddr>, Duration),
    /// The same cut short: some of them, or none.
    Part(Vec<IpAddr>, Duration),
    /// There are none, and how long that may be believed.
    Absent(Failure, Duration),
    /// It does not understand the question, perhaps because of the extension.
    NotExtended,
    /// It cannot say; another might.
    Unable,
}

/// An answer and the question that it repeats.
#[derive(Debug)]
pub(super) struct Response {
    id: u16,
    /// Servers leave it out where they did not understand it.
    question: Option<Query>,
    pub(super) reply: Reply,
}

/// How an answer fits the question that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It answers it.
    Exact,
    /// It does, but for capitals.
    OtherCase,
    /// It answers something else.
    None,
}

impl Response {
    /// Reads a message; `None` where it answers no question that this module could have made.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let whole = Message::from_vec(bytes).ok().or_else(|| without(bytes, BESIDE_COUNTS));
        let is_whole = whole.is_some();
        // Some servers cut a long answer in the middle of a record, and some send an error without
        // the question that its header announces.
        let message = whole
            .or_else(|| without(bytes, ANSWER_COUNT))
            .or_else(|| without(bytes, QUESTION_COUNT))?;
        let header = &message.metadata;
        if header.message_type != MessageType::Response || header.op_code != OpCode::Query {
            return None;
        }
        let reply = reply(&message);
        let question = match message.queries.as_slice() {
            [question] => Some(question.clone()),
            [] if matches!(reply, Reply::NotExtended | Reply::Unable) => None,
            _ => return None,
        };
        // Of half a message only this is to be believed, that it is half, or that it says nothing.
        let says_nothing = matches!(reply, Reply::Part(..) | Reply::NotExtended | Reply::Unable);
        (is_whole || says_nothing).then_some(Self { id: header.id, question, reply })
    }

    /// Whether there is no address in it, not even a hint that there may be.
    pub(super) fn finds_nothing(&self) -> bool {
        !matches!(self.reply, Reply::Addresses(..) | Reply::Part(..))
    }

    /// Whether this answers the question `id` for the addresses of `name` in one family. An error
    /// without a question is one to any.
    pub(super) fn fit(&self, id: u16, name: &Name, family: Family) -> Fit {
        let Some(question) = &self.question else {
            return if self.id == id { Fit::Exact } else { Fit::None };
        };
        let is_right = self.id == id
            && question.name == *name
            && question.query_type == family.record_type()
            && question.query_class == DNSClass::IN;
        match is_right {
            true if question.name.eq_case(name) => Fit::Exact,
            true => Fit::OtherCase,
            false => Fit::None,
        }
    }
}

/// A message as if it ended before what the figures from `counts` on count: what comes there need
/// not be sound.
fn without(bytes: &[u8], counts: usize) -> Option<Message> {
    let mut shorter = bytes.to_vec();
    shorter.get_mut(counts..HEADER_LEN)?.fill(0);
    Message::from_vec(&shorter).ok()
}

fn reply(message: &Message) -> Reply {
    let header = &message.metadata;
    match header.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Reply::Absent(Failure::NoSuchName, absence(message)),
        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS => {
            return Reply::NotExtended;
        }
        _ => return Reply::Unable,
    }
    let none = (Vec::new(), 0);
    let (addresses, ttl) =
        message.queries.first().map_or(none, |question| addresses(&message.answers, question));
    // A server that neither knows the zone nor asks others points elsewhere, which is no answer.
    let is_lame = !header.authoritative
        && !header.recursion_available
        && message.answers.is_empty()
        && message.additionals.is_empty()
        && message.edns.is_none();
    match addresses.is_empty() {
        _ if header.truncation => Reply::Part(addresses, believed(ttl)),
        false => Reply::Addresses(addresses, believed(ttl)),
        true if is_lame => Reply::Unable,
        true => Reply::Absent(Failure::NoAddress, absence(message)),
    }
}

/// The addresses in an answer, and the shortest time to live on the way to them. Aliases are
/// followed from the name that was asked for, so that what else the answer holds counts for nothing.
fn addresses(answers: &[Record], question: &Query) -> (Vec<IpAddr>, u32) {
    let (mut owner, mut ttl) = (&question.name, u32::MAX);
    for _ in 0..MAX_ALIASES {
        let mut here = answers.iter().filter(|record| record.name == *owner);
        let alias = here.find_map(|record| match &record.data {
            RData::CNAME(alias) => Some((&alias.0, record.ttl)),
            _ => None,
        });
        let Some((alias, alias_ttl)) = alias else { break };
        (owner, ttl) = (alias, ttl.min(alias_ttl));
    }
    let mut found = Vec::new();
    for record in answers.iter().filter(|record| record.name == *owner) {
        let address = match (&record.data, question.query_type) {
            (RData::A(address), RecordType::A) => IpAddr::V4(address.0),
            (RData::AAAA(address), RecordType::AAAA) => IpAddr::V6(address.0),
            _ => continue,
        };
        ttl = ttl.min(record.ttl);
        admit(&mut found, address);
    }
    (found, ttl)
}

fn believed(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into()).clamp(SHORTEST, LONGEST)
}

/// As long as the zone says that its silence holds (RFC 2308, 5).
fn absence(message: &Message) -> Duration {
    let zone = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(zone) => Some(zone.minimum.min(record.ttl)),
        _ => None,
    });
    believed(zone.unwrap_or_default()).min(LONGEST_ABSENCE)
}
