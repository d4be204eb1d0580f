//! What is said to a name server and what it says back, as bytes (RFC 1035, 4).
//!
//! Invariant: [`Response::read`] takes any bytes at all. What is not the answer to a question of
//! ours is no answer, never a failure.

use core::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::Failure;

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

/// What a server said about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Addresses, and how long they may be believed.
    Addresses(Vec<IpAddr>, Duration),
    /// The same cut short: some of them, or none.
    Part(Vec<IpAddr>, Duration),
    /// There are none, and how long that may be believed.
    Absent(Failure, Duration),
    /// It does not understand the extension.
    NotExtended,
    /// It cannot say; another might.
    Unable,
}

/// An answer and the question that it repeats.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) id: u16,
    question: Query,
    pub(super) reply: Reply,
}

impl Response {
    /// Reads a message; `None` where it answers no question that this module could have made.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let message = Message::from_vec(bytes).ok()?;
        let header = &message.metadata;
        if header.message_type != MessageType::Response || header.op_code != OpCode::Query {
            return None;
        }
        let [question] = message.queries.as_slice() else { return None };
        Some(Self { id: header.id, question: question.clone(), reply: reply(&message, question) })
    }

    /// Whether this answers the question for the addresses of `name` in one family. Upper and lower
    /// case are the same (RFC 4343).
    pub(super) fn answers(&self, name: &Name, family: Family) -> bool {
        self.question.name == *name
            && self.question.query_type == family.record_type()
            && self.question.query_class == DNSClass::IN
    }
}

fn reply(message: &Message, question: &Query) -> Reply {
    match message.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Reply::Absent(Failure::NoSuchName, absence(message)),
        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS => {
            return Reply::NotExtended;
        }
        _ => return Reply::Unable,
    }
    let (addresses, ttl) = addresses(&message.answers, question);
    match addresses.is_empty() {
        _ if message.metadata.truncation => Reply::Part(addresses, believed(ttl)),
        false => Reply::Addresses(addresses, believed(ttl)),
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
        if !found.contains(&address) {
            found.push(address);
        }
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
