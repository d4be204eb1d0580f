//! The resolver in virtual time, with name servers that say what the test wants.

use core::net::{IpAddr, Ipv4Addr};
use std::cell::Cell;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;

mod changes;
mod forger;
mod libc;
mod sharing;
mod standstill;

const TIMEOUT: Duration = Duration::from_secs(3);
const HOST: &str = "db.example";

/// A resolver with two servers, and the time.
struct Scenario {
    resolver: Resolver,
    now: Instant,
    /// Whether questions are put in capitals; otherwise all their letters are small.
    capitals: Rc<Cell<bool>>,
}

/// A question as it was sent.
#[derive(Clone, Debug)]
struct Asked {
    serial: u64,
    server: usize,
    transport: Transport,
    id: u16,
    query: Query,
    is_extended: bool,
}

impl Asked {
    fn is_v6(&self) -> bool {
        self.query.query_type == RecordType::AAAA
    }

    fn name(&self) -> String {
        self.query.name.to_string()
    }

    /// An answer that was cut short, and holds this.
    fn truncated(&self, answers: Vec<Record>) -> Message {
        let mut message = self.reply(ResponseCode::NoError, answers);
        message.metadata.truncation = true;
        message
    }

    fn reply(&self, code: ResponseCode, answers: Vec<Record>) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.response_code = code;
        message.metadata.recursion_available = true;
        message.add_query(self.query.clone());
        message.insert_answers(answers);
        message
    }
}

impl Scenario {
    fn new() -> Self {
        Self::with("nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions timeout:3")
    }

    /// A resolver by a resolv.conf of one's own.
    fn with(resolv_conf: &str) -> Self {
        let capitals = Rc::new(Cell::new(false));
        let (mut number, is_capital) = (0u64, Rc::clone(&capitals));
        let chance = move || {
            number += 7;
            (number << 48) | if is_capital.get() { 0xffff_ffff_ffff } else { 0 }
        };
        let hosts = Hosts::parse("192.0.2.77 printer\n");
        let resolver = Resolver::new(settings(resolv_conf), hosts, chance);
        Self { resolver, now: Instant::now(), capitals }
    }

    /// Begins to look `host` up; answers the questions that are put, IPv6 first.
    fn ask(&mut self, host: &str) -> Vec<Asked> {
        assert_eq!(self.lookup(host), Lookup::Pending);
        self.asked()
    }

    fn lookup(&mut self, host: &str) -> Lookup {
        self.resolver.lookup(host, Requester::Local, self.now)
    }

    fn asked(&mut self) -> Vec<Asked> {
        std::iter::from_fn(|| self.resolver.poll_transmit())
            .map(|Transmit { serial, server, transport, bytes }| {
                let message = Message::from_vec(&bytes).expect("a message");
                let [query] = message.queries.as_slice() else { panic!("one question") };
                assert!(message.metadata.recursion_desired);
                let (id, is_extended) = (message.metadata.id, message.edns.is_some());
                Asked { serial, server, transport, id, query: query.clone(), is_extended }
            })
            .collect()
    }

    /// A message arrives at the socket of a question.
    fn hear(&mut self, asked: &Asked, message: &Message) {
        self.hear_bytes(asked, &message.to_vec().expect("fits"));
    }

    fn hear_bytes(&mut self, asked: &Asked, bytes: &[u8]) {
        self.resolver.handle_answer(bytes, asked.serial, self.now);
        if asked.transport == Transport::Stream {
            self.lose(asked);
        }
    }

    fn lose(&mut self, asked: &Asked) {
        self.resolver.handle_lost(asked.serial, self.now);
    }

    fn is_idle(&self) -> bool {
        self.resolver.asking.is_empty()
    }

    /// The only question that is put; the other has been answered or is open.
    fn asked_one(&mut self) -> Asked {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.into_iter().next().expect("one")
    }

    /// Begins to look the name up; there is no IPv6 address, and the answer to the other question
    /// is truncated and holds `part`. Answers that question as it is put again.
    fn ask_in_vain(&mut self, part: &[&str]) -> Asked {
        let asked = self.ask(HOST);
        self.answer(&asked[0], &[]);
        let part = part.iter().map(|text| record(HOST, 60, text)).collect();
        self.hear(&asked[1], &asked[1].truncated(part));
        self.asked_one()
    }

    /// Over its stream a question is answered with something that is not quite an answer.
    fn hear_spoilt(&mut self, asked: &Asked, spoil: impl FnOnce(&mut Message)) {
        let records = vec![record(HOST, 60, "192.0.2.66")];
        let mut answer = asked.reply(ResponseCode::NoError, records);
        spoil(&mut answer);
        self.hear(asked, &answer);
    }

    /// A question is answered with addresses of its family.
    fn answer(&mut self, asked: &Asked, addresses: &[&str]) {
        let records = addresses.iter().map(|text| record(HOST, 60, text)).collect();
        self.hear(asked, &asked.reply(ResponseCode::NoError, records));
    }

    fn fail(&mut self, asked: &Asked, code: ResponseCode) {
        self.hear(asked, &asked.reply(code, Vec::new()));
    }

    /// Lets the time come at which something has to happen.
    fn expire(&mut self) {
        let due = self.resolver.poll_timeout().expect("something is due");
        assert!(due > self.now, "due in the past: the loop would spin");
        self.now = due;
        self.resolver.handle_timeout(self.now);
    }

    fn outcome(&mut self) -> Option<Result<Vec<String>, Failure>> {
        let answer = self.resolver.poll_answer()?;
        assert!(self.resolver.poll_answer().is_none(), "one answer at a time");
        Some(answer.outcome.map(|found| found.iter().map(ToString::to_string).collect()))
    }

    fn known(&mut self, host: &str) -> Vec<String> {
        match self.lookup(host) {
            Lookup::Known(found) => found.iter().map(ToString::to_string).collect(),
            other => panic!("{host}: {other:?}"),
        }
    }
}

fn settings(resolv_conf: &str) -> Settings {
    Settings::parse(resolv_conf, &Beside::default())
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

/// An address record, or an alias where `value` is no address.
fn record(owner: &str, ttl: u32, value: &str) -> Record {
    let data = match value.parse() {
        Ok(IpAddr::V4(address)) => RData::A(A(address)),
        Ok(IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
        Err(_) => RData::CNAME(CNAME(name(value))),
    };
    Record::from_rdata(name(owner), ttl, data)
}

fn found(addresses: &[&str]) -> Option<Result<Vec<String>, Failure>> {
    Some(Ok(addresses.iter().map(|text| (*text).to_owned()).collect()))
}

#[test]
fn both_families_are_asked_for_together_and_given_by_turns() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    let [six, four] = asked.as_slice() else { panic!("two questions") };
    assert!(six.is_v6() && !four.is_v6() && six.id != four.id);
    assert_eq!((six.server, four.server), (0, 0));
    assert_eq!(six.query.name, name(HOST));
    it.answer(four, &["192.0.2.10", "192.0.2.11", "192.0.2.12"]);
    assert_eq!(it.outcome(), None, "the other family has its delay");
    it.answer(six, &["2001:db8::1", "2001:db8::2"]);
    let order = ["2001:db8::1", "192.0.2.10", "2001:db8::2", "192.0.2.11", "192.0.2.12"];
    assert_eq!(it.outcome(), found(&order));
    assert_eq!(it.known(HOST), order);
    assert!(it.asked().is_empty() && it.is_idle());
}

#[test]
fn the_second_family_is_waited_for_only_a_moment() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.answer(&asked[1], &["192.0.2.10"]);
    let before = it.now;
    it.expire();
    assert_eq!(it.now - before, Duration::from_millis(50));
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    it.answer(&asked[0], &["2001:db8::1"]);
    assert_eq!(it.outcome(), None, "it came too late");
    it.now += RETRY;
    assert_eq!(it.ask(HOST).len(), 2, "a part is not believed for long");
}

#[test]
fn what_is_lost_is_asked_again_of_the_next_server_until_all_had_their_tries() {
    let mut it = Scenario::new();
    let mut servers = vec![it.ask(HOST)[0].server];
    for _ in 0..3 {
        let before = it.now;
        it.expire();
        assert_eq!(it.now - before, TIMEOUT);
        let asked = it.asked();
        assert_eq!(asked.len(), 2);
        servers.push(asked[0].server);
    }
    assert_eq!(servers, [0, 1, 0, 1]);
    it.expire();
    assert_eq!(it.outcome(), Some(Err(Failure::NoAnswer)));
    assert_eq!(it.lookup(HOST), Lookup::Failed(Failure::NoAnswer));
    assert!(it.asked().is_empty());
    it.now += RETRY;
    assert_eq!(it.ask(HOST).len(), 2);
}

#[test]
fn the_server_that_answered_is_asked_first_from_then_on() {
    let mut it = Scenario::new();
    it.ask(HOST);
    it.expire();
    for asked in it.asked() {
        it.fail(&asked, ResponseCode::NXDomain);
    }
    assert_eq!(it.outcome(), Some(Err(Failure::NoSuchName)));
    assert!(it.ask("other.example").iter().all(|asked| asked.server == 1));
}

#[test]
fn an_unable_server_is_passed_over_at_once() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let mut it = Scenario::new();
        let asked = it.ask(HOST);
        it.answer(&asked[0], &[]);
        it.fail(&asked[1], code);
        let again = it.asked();
        let [four] = again.as_slice() else { panic!("one question is put again") };
        assert_eq!((four.server, four.is_v6()), (1, false));
        it.answer(four, &["192.0.2.10"]);
        assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    }
}

#[test]
fn an_unreachable_server_is_passed_over_at_once_and_all_of_them_end_the_lookup() {
    let mut it = Scenario::new();
    let mut open = it.ask(HOST);
    let mut asked_of = Vec::new();
    while !open.is_empty() {
        asked_of.extend(open.iter().map(|asked| asked.server));
        open.iter().for_each(|asked| it.lose(asked));
        open = it.asked();
    }
    assert_eq!(asked_of, [0, 0, 1, 1, 0, 0, 1, 1]);
    assert_eq!(it.outcome(), Some(Err(Failure::NoAnswer)));
}

#[test]
fn that_there_is_no_name_holds_as_long_as_its_zone_says() {
    let mut it = Scenario::new();
    for asked in it.ask(HOST) {
        let mut reply = asked.reply(ResponseCode::NXDomain, Vec::new());
        let zone = SOA::new(name("example"), name("root.example"), 1, 1, 1, 1, 7);
        reply.add_authority(Record::from_rdata(name("example"), 900, RData::SOA(zone)));
        it.hear(&asked, &reply);
    }
    assert_eq!(it.outcome(), Some(Err(Failure::NoSuchName)));
    it.now += Duration::from_secs(7) - Duration::from_millis(1);
    assert_eq!(it.lookup(HOST), Lookup::Failed(Failure::NoSuchName));
    it.now += Duration::from_millis(1);
    it.ask(HOST);
}

#[test]
fn a_name_without_addresses_is_not_a_name_that_is_not_there() {
    let mut it = Scenario::new();
    for asked in it.ask(HOST) {
        it.answer(&asked, &[]);
    }
    assert_eq!(it.outcome(), Some(Err(Failure::NoAddress)));
}

#[test]
fn aliases_are_followed_and_strangers_are_not() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.answer(&asked[0], &[]);
    let records = vec![
        record("c.example", 60, "192.0.2.10"),
        record("evil.example", 60, "192.0.2.66"),
        record("B.example", 2, "c.example"),
        record(HOST, 60, "b.example"),
    ];
    it.hear(&asked[1], &asked[1].reply(ResponseCode::NoError, records));
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    it.now += Duration::from_secs(2);
    it.ask(HOST);
}

#[test]
fn aliases_that_go_round_end() {
    let mut it = Scenario::new();
    for asked in it.ask(HOST) {
        let records = vec![record(HOST, 60, "b.example"), record("b.example", 60, HOST)];
        it.hear(&asked, &asked.reply(ResponseCode::NoError, records));
    }
    assert_eq!(it.outcome(), Some(Err(Failure::NoAddress)));
}

#[test]
fn a_truncated_answer_is_asked_for_over_a_stream_in_the_time_that_is_left() {
    let mut it = Scenario::new();
    let until = it.now + TIMEOUT;
    let asked = it.ask(HOST);
    it.answer(&asked[0], &[]);
    it.now += TIMEOUT / 2;
    it.hear(&asked[1], &asked[1].truncated(vec![record(HOST, 60, "192.0.2.66")]));
    let again = it.asked_one();
    assert_eq!((again.server, again.transport), (0, Transport::Stream));
    assert!(again.serial != asked[1].serial && !again.is_v6());
    assert_eq!(it.resolver.poll_timeout(), Some(until));
    assert_eq!(it.outcome(), None, "the whole answer is waited for");

    it.answer(&asked[1], &["192.0.2.66"]);
    assert_eq!(it.outcome(), None, "it does not come in a datagram any more");
    it.lose(&asked[1]);
    assert!(it.asked().is_empty(), "nor does it matter what becomes of datagrams");
    assert!(it.resolver.awaits(again.serial));
    it.answer(&again, &["192.0.2.10"]);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    assert!(!it.resolver.awaits(again.serial));
}

#[test]
fn what_is_no_answer_over_a_stream_sends_the_question_to_the_next_server() {
    let vain: [fn(&mut Scenario, &Asked); 7] = [
        |it, asked| it.lose(asked),
        |it, asked| it.hear_bytes(asked, b""),
        |it, asked| it.hear_spoilt(asked, |answer| answer.metadata.id ^= 1),
        |it, asked| it.hear_spoilt(asked, |answer| answer.queries[0].name = name("evil.example")),
        |it, asked| {
            it.hear_spoilt(asked, |answer| answer.metadata.message_type = MessageType::Query);
        },
        |it, asked| it.hear_spoilt(asked, |answer| answer.metadata.truncation = true),
        |it, asked| {
            it.hear_spoilt(asked, |answer| {
                answer.metadata.response_code = ResponseCode::ServFail;
            });
        },
    ];
    for (number, comes_to_nothing) in vain.iter().enumerate() {
        let mut it = Scenario::new();
        let asked = it.ask_in_vain(&[]);
        comes_to_nothing(&mut it, &asked);
        let again = it.asked_one();
        assert_eq!((again.server, again.transport), (1, Transport::Datagram), "{number}");
        assert!(!it.resolver.awaits(asked.serial));
        it.answer(&again, &["192.0.2.10"]);
        assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    }
}

#[test]
fn a_stream_that_says_nothing_has_no_more_time_than_a_datagram() {
    let mut it = Scenario::new();
    let before = it.now;
    let asked = it.ask_in_vain(&[]);
    it.expire();
    assert_eq!(it.now - before, TIMEOUT);
    assert_eq!(it.asked_one().server, 1);
    assert!(!it.resolver.awaits(asked.serial));
    it.lose(&asked);
    assert!(it.asked().is_empty(), "it was given up before");
    while it.resolver.poll_timeout().is_some() {
        it.expire();
    }
    assert_eq!(it.outcome(), Some(Err(Failure::NoAnswer)));
}

#[test]
fn where_the_whole_is_not_to_be_had_a_part_counts() {
    let mut it = Scenario::new();
    let asked = it.ask_in_vain(&["192.0.2.10"]);
    it.lose(&asked);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    it.now += Duration::from_secs(60) - Duration::from_millis(1);
    assert_eq!(it.known(HOST), ["192.0.2.10"], "as long as it says");

    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.hear(&asked[0], &asked[0].truncated(vec![record(HOST, 60, "2001:db8::1")]));
    it.answer(&asked[1], &["192.0.2.10"]);
    it.expire();
    let both = found(&["2001:db8::1", "192.0.2.10"]);
    assert_eq!(it.outcome(), both, "nobody waits for the rest of it once there are addresses");
}

#[test]
fn an_answer_is_believed_as_long_as_it_says_within_bounds() {
    for (ttl, seconds) in [(0, 1), (30, 30), (1_000_000, 3600)] {
        let mut it = Scenario::new();
        let asked = it.ask(HOST);
        it.answer(&asked[0], &[]);
        let records = vec![record(HOST, ttl, "192.0.2.10")];
        it.hear(&asked[1], &asked[1].reply(ResponseCode::NoError, records));
        // The shorter of the two: that there is no IPv6 address holds for its own time.
        it.now += Duration::from_secs(seconds) - Duration::from_millis(1);
        assert_eq!(it.known(HOST), ["192.0.2.10"]);
        it.now += Duration::from_millis(1);
        it.ask(HOST);
    }
}

#[test]
fn what_nobody_needs_to_be_asked_for_is_known() {
    let mut it = Scenario::new();
    assert_eq!(it.known("192.0.2.9"), ["192.0.2.9"]);
    assert_eq!(it.known("localhost"), ["::1", "127.0.0.1"]);
    assert_eq!(it.known("printer"), ["192.0.2.77"]);
    let failed =
        [("a..b", Failure::NotAName), (".", Failure::NotAName), ("x.invalid", Failure::NoSuchName)];
    for (host, failure) in failed {
        assert_eq!(it.lookup(host), Lookup::Failed(failure), "{host}");
    }
    assert_eq!(it.lookup(&"x".repeat(64)), Lookup::Failed(Failure::NotAName));
    assert!(it.asked().is_empty());
}

#[test]
fn a_watched_name_is_renewed_in_time_and_keeps_its_addresses_meanwhile() {
    let mut it = Scenario::new();
    it.resolver.watch(HOST, it.now);
    assert!(!it.resolver.is_settled());
    let asked = it.asked();
    it.answer(&asked[0], &[]);
    it.answer(&asked[1], &["192.0.2.10"]);
    assert!(it.resolver.is_settled());
    assert!(it.resolver.poll_answer().is_some_and(|answer| answer.is_news));

    it.expire();
    let again = it.asked();
    assert_eq!(again.len(), 2, "its time to live has ended");
    assert_eq!(it.known(HOST), ["192.0.2.10"], "nobody waits");
    it.answer(&again[0], &[]);
    it.answer(&again[1], &["192.0.2.11"]);
    assert!(it.resolver.poll_answer().is_some_and(|answer| answer.is_news));
    assert_eq!(it.known(HOST), ["192.0.2.11"], "new addresses replace the old");

    it.expire();
    for asked in it.asked() {
        it.fail(&asked, ResponseCode::NXDomain);
    }
    assert_eq!(it.outcome(), Some(Err(Failure::NoSuchName)));
    assert_eq!(it.known(HOST), ["192.0.2.11"], "an address that was good beats none");
    it.expire();
    assert_eq!(it.asked().len(), 2, "and it goes on asking");
}

#[test]
fn addresses_of_no_use_are_asked_for_again_but_not_in_a_storm() {
    let mut it = Scenario::new();
    it.resolver.watch(HOST, it.now);
    for asked in it.asked() {
        it.answer(&asked, if asked.is_v6() { &[] } else { &["192.0.2.10"] });
    }
    it.resolver.renew(HOST, Requester::Ourselves, it.now);
    assert!(it.asked().is_empty(), "that is as new as it gets");
    it.now += SHORTEST_PAUSE;
    for _ in 0..1000 {
        it.resolver.renew(HOST, Requester::Ourselves, it.now);
    }
    assert_eq!(it.asked().len(), 2);
    assert_eq!(it.known(HOST), ["192.0.2.10"]);
}

#[test]
fn memories_are_bounded() {
    let mut it = Scenario::new();
    it.resolver.watch("watched.example", it.now);
    it.asked();
    for number in 0..MAX_REMEMBERED + 10 {
        it.now += Duration::from_micros(1);
        for asked in it.ask(&format!("{number}.example")) {
            it.fail(&asked, ResponseCode::NXDomain);
        }
    }
    assert_eq!(it.resolver.entries.len(), MAX_REMEMBERED + 1);
    assert!(it.resolver.entries.contains_key("watched.example"));
    assert!(!it.resolver.entries.contains_key("0.example"), "what ended soonest is forgotten");
}

#[test]
fn few_of_many_addresses_are_kept_and_of_both_families() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    let many = |prefix: &str| {
        (1..=200).map(|number| record(HOST, 60, &format!("{prefix}{number}"))).collect()
    };
    it.hear(&asked[0], &asked[0].reply(ResponseCode::NoError, many("2001:db8::")));
    it.hear(&asked[1], &asked[1].reply(ResponseCode::NoError, many("192.0.2.")));
    it.outcome();
    let known = it.known(HOST);
    assert_eq!(known.len(), MAX_ADDRESSES);
    assert_eq!(known[..3], ["2001:db8::1", "192.0.2.1", "2001:db8::2"]);
}

proptest! {
    /// Any bytes, and sound answers with any byte of them changed, to any question.
    #[test]
    fn whatever_arrives_does_no_harm(
        garbage in prop::collection::vec(any::<u8>(), 0..600),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        has_capitals: bool,
    ) {
        let mut it = Scenario::new();
        it.capitals.set(has_capitals);
        let asked = it.ask(HOST);
        it.hear_bytes(&asked[0], &garbage);
        let records = vec![
            record(HOST, 60, "b.example"),
            record("b.example", 60, &Ipv4Addr::LOCALHOST.to_string()),
        ];
        let mut bytes =
            asked[1].reply(ResponseCode::NoError, records).to_vec().expect("it fits");
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        it.hear_bytes(&asked[1], &bytes);
        for again in it.asked() {
            it.hear_bytes(&again, &bytes);
        }
        for _ in 0..20 {
            if it.resolver.poll_timeout().is_some() {
                it.expire();
            }
        }
        prop_assert!(it.is_idle(), "every lookup ends");
    }
}
