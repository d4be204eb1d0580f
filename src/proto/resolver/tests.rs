//! The resolver in virtual time, with name servers that say what the test wants.

use core::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(3);
const HOST: &str = "db.example";

/// A resolver with two servers, and the time.
struct Scenario {
    resolver: Resolver,
    now: Instant,
}

/// A question as it was sent.
#[derive(Clone, Debug)]
struct Asked {
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

    /// An answer that was cut short, and holds this.
    fn truncated(&self, answers: Vec<Record>) -> Message {
        let mut message = self.reply(ResponseCode::NoError, answers);
        message.metadata.truncation = true;
        message
    }

    fn reply(&self, code: ResponseCode, answers: Vec<Record>) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        message.insert_answers(answers);
        message
    }
}

impl Scenario {
    fn new() -> Self {
        Self::with(Settings::parse("nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions timeout:3"))
    }

    fn with(settings: Settings) -> Self {
        let mut id = 0;
        let ids = move || {
            id += 7;
            id
        };
        let hosts = Hosts::parse("192.0.2.77 printer\n");
        Self { resolver: Resolver::new(settings, hosts, ids), now: Instant::now() }
    }

    /// Begins to look `host` up; answers the questions that are put, IPv6 first.
    fn ask(&mut self, host: &str) -> Vec<Asked> {
        assert_eq!(self.resolver.lookup(host, self.now), Lookup::Pending);
        self.asked()
    }

    fn asked(&mut self) -> Vec<Asked> {
        std::iter::from_fn(|| self.resolver.poll_transmit())
            .map(|Transmit { server, transport, id, bytes }| {
                let message = Message::from_vec(&bytes).expect("a message");
                let [query] = message.queries.as_slice() else { panic!("one question") };
                assert!(message.metadata.recursion_desired);
                let is_extended = message.edns.is_some();
                assert_eq!(message.metadata.id, id);
                Asked { server, transport, id, query: query.clone(), is_extended }
            })
            .collect()
    }

    fn hear(&mut self, server: usize, message: &Message) {
        self.resolver.handle_datagram(&message.to_vec().expect("fits"), server, self.now);
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
        self.hear(asked[1].server, &asked[1].truncated(part));
        self.asked_one()
    }

    fn hear_over_stream(&mut self, asked: &Asked, message: &Message) {
        let bytes = message.to_vec().expect("fits");
        self.resolver.handle_stream_answer(&bytes, asked.server, asked.id, self.now);
    }

    /// Over its stream a question is answered with something that is not quite an answer.
    fn hear_spoilt(&mut self, asked: &Asked, spoil: impl FnOnce(&mut Message)) {
        let records = vec![record(HOST, 60, "192.0.2.66")];
        let mut answer = asked.reply(ResponseCode::NoError, records);
        spoil(&mut answer);
        self.hear_over_stream(asked, &answer);
    }

    /// A question is answered with addresses of its family.
    fn answer(&mut self, asked: &Asked, addresses: &[&str]) {
        let records = addresses.iter().map(|text| record(HOST, 60, text)).collect();
        self.hear(asked.server, &asked.reply(ResponseCode::NoError, records));
    }

    fn fail(&mut self, asked: &Asked, code: ResponseCode) {
        self.hear(asked.server, &asked.reply(code, Vec::new()));
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
        match self.resolver.lookup(host, self.now) {
            Lookup::Known(found) => found.iter().map(ToString::to_string).collect(),
            other => panic!("{host}: {other:?}"),
        }
    }
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
    assert!(it.asked().is_empty() && it.resolver.is_idle());
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
    assert_eq!(it.resolver.lookup(HOST, it.now), Lookup::Failed(Failure::NoAnswer));
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
fn only_the_answer_to_an_open_question_counts() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    let four = &asked[1];
    let right = four.reply(ResponseCode::NoError, vec![record(HOST, 60, "192.0.2.66")]);

    it.hear(1, &right);
    let mut wrong_id = right.clone();
    wrong_id.metadata.id ^= 1;
    it.hear(0, &wrong_id);
    let mut wrong_name = right.clone();
    wrong_name.queries[0].name = name("evil.example");
    it.hear(0, &wrong_name);
    let mut wrong_type = right.clone();
    wrong_type.queries[0].query_type = RecordType::AAAA;
    it.hear(0, &wrong_type);
    let mut no_question = right.clone();
    no_question.queries.clear();
    it.hear(0, &no_question);
    let mut no_response = right.clone();
    no_response.metadata.message_type = MessageType::Query;
    it.hear(0, &no_response);

    it.answer(&asked[0], &[]);
    assert_eq!(it.outcome(), None, "none of those was the answer");
    it.answer(four, &["192.0.2.10"]);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    it.hear(0, &right);
    assert_eq!(it.outcome(), None, "the question is no longer open");
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
    it.ask(HOST);
    let mut asked_of = Vec::new();
    for server in [0, 1, 0] {
        it.resolver.handle_unreachable(server, it.now);
        asked_of.extend(it.asked().iter().map(|asked| asked.server));
    }
    assert_eq!(asked_of, [1, 1, 0, 0, 1, 1]);
    it.resolver.handle_unreachable(1, it.now);
    assert_eq!(it.outcome(), Some(Err(Failure::NoAnswer)));
}

#[test]
fn a_server_of_old_is_asked_in_the_old_way() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    assert!(asked.iter().all(|asked| asked.is_extended));
    it.answer(&asked[0], &[]);
    it.fail(&asked[1], ResponseCode::FormErr);
    let again = it.asked();
    assert_eq!((again.len(), again[0].server, again[0].is_extended), (1, 0, false));
    it.fail(&again[0], ResponseCode::FormErr);
    assert_eq!(it.asked()[0].server, 1, "and no third time");
}

#[test]
fn a_name_that_is_not_there_ends_both_questions() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    let mut reply = asked[0].reply(ResponseCode::NXDomain, Vec::new());
    let zone = SOA::new(name("example"), name("root.example"), 1, 1, 1, 1, 7);
    reply.add_authority(Record::from_rdata(name("example"), 900, RData::SOA(zone)));
    it.hear(0, &reply);
    assert_eq!(it.outcome(), Some(Err(Failure::NoSuchName)));
    it.now += Duration::from_secs(7) - Duration::from_millis(1);
    assert_eq!(it.resolver.lookup(HOST, it.now), Lookup::Failed(Failure::NoSuchName));
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
    it.hear(0, &asked[1].reply(ResponseCode::NoError, records));
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    it.now += Duration::from_secs(2);
    it.ask(HOST);
}

#[test]
fn aliases_that_go_round_end() {
    let mut it = Scenario::new();
    for asked in it.ask(HOST) {
        let records = vec![record(HOST, 60, "b.example"), record("b.example", 60, HOST)];
        it.hear(0, &asked.reply(ResponseCode::NoError, records));
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
    it.hear(0, &asked[1].truncated(vec![record(HOST, 60, "192.0.2.66")]));
    let again = it.asked_one();
    assert_eq!((again.server, again.transport), (0, Transport::Stream));
    assert_eq!((again.id, again.is_v6()), (asked[1].id, false));
    assert_eq!(it.resolver.poll_timeout(), Some(until));
    assert_eq!(it.outcome(), None, "the whole answer is waited for");

    let whole = again.reply(ResponseCode::NoError, vec![record(HOST, 60, "192.0.2.10")]);
    it.hear(0, &whole);
    assert_eq!(it.outcome(), None, "it does not come in a datagram any more");
    it.resolver.handle_unreachable(0, it.now);
    assert!(it.asked().is_empty(), "nor does it matter what becomes of datagrams");
    assert!(it.resolver.awaits_stream(again.id));
    it.hear_over_stream(&again, &whole);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    assert!(!it.resolver.awaits_stream(again.id));
}

#[test]
fn what_is_no_answer_over_a_stream_sends_the_question_to_the_next_server() {
    let vain: [fn(&mut Scenario, &Asked); 7] = [
        |it, asked| it.resolver.handle_stream_lost(asked.id, it.now),
        |it, asked| it.resolver.handle_stream_answer(b"", asked.server, asked.id, it.now),
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
        assert!(!it.resolver.awaits_stream(asked.id));
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
    assert!(!it.resolver.awaits_stream(asked.id));
    it.resolver.handle_stream_lost(asked.id, it.now);
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
    it.resolver.handle_stream_lost(asked.id, it.now);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    it.now += Duration::from_secs(60) - Duration::from_millis(1);
    assert_eq!(it.known(HOST), ["192.0.2.10"], "as long as it says");

    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.hear(0, &asked[0].truncated(vec![record(HOST, 60, "2001:db8::1")]));
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
        it.hear(0, &asked[1].reply(ResponseCode::NoError, records));
        // The shorter of the two: that there is no IPv6 address holds for its own time.
        it.now += Duration::from_secs(seconds) - Duration::from_millis(1);
        assert_eq!(it.known(HOST), ["192.0.2.10"]);
        it.now += Duration::from_millis(1);
        it.ask(HOST);
    }
}

#[test]
fn short_names_are_searched_for() {
    let search = "nameserver 192.0.2.1\nsearch one.example two.example\n";
    let mut it = Scenario::with(Settings::parse(search));
    let mut names = Vec::new();
    let mut asked = it.ask("db");
    for _ in 0..3 {
        names.push(asked[0].query.name.to_string());
        it.fail(&asked[0], ResponseCode::NXDomain);
        asked = it.asked();
    }
    assert_eq!(names, ["db.one.example.", "db.two.example.", "db."]);
    assert_eq!(it.outcome(), Some(Err(Failure::NoSuchName)));
    assert_eq!(it.ask("a.b")[0].query.name, name("a.b"), "a dot makes it long");
    assert_eq!(it.ask("c.")[0].query.name, name("c"), "a last dot makes it whole");
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
        assert_eq!(it.resolver.lookup(host, it.now), Lookup::Failed(failure), "{host}");
    }
    assert_eq!(it.resolver.lookup(&"x".repeat(64), it.now), Lookup::Failed(Failure::NotAName));
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
    it.resolver.renew(HOST, it.now);
    assert!(it.asked().is_empty(), "that is as new as it gets");
    it.now += SHORTEST_PAUSE;
    for _ in 0..1000 {
        it.resolver.renew(HOST, it.now);
    }
    assert_eq!(it.asked().len(), 2);
    assert_eq!(it.known(HOST), ["192.0.2.10"]);
}

#[test]
fn lookups_and_memories_are_bounded() {
    let mut it = Scenario::new();
    it.resolver.watch("watched.example", it.now);
    for number in 1..MAX_LOOKUPS {
        it.ask(&format!("{number}.example"));
    }
    assert_eq!(it.resolver.lookup("more.example", it.now), Lookup::Failed(Failure::Busy));
    while !it.resolver.is_idle() {
        it.expire();
    }

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

proptest! {
    /// Any bytes, and sound answers with any byte of them changed, from any server.
    #[test]
    fn whatever_arrives_does_no_harm(
        garbage in prop::collection::vec(any::<u8>(), 0..600),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        server in 0..4usize,
    ) {
        let mut it = Scenario::new();
        let asked = it.ask(HOST);
        it.resolver.handle_datagram(&garbage, server, it.now);
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
        it.resolver.handle_datagram(&bytes, server, it.now);
        it.resolver.handle_stream_answer(&bytes, server, asked[1].id, it.now);
        for _ in 0..10 {
            if it.resolver.poll_timeout().is_some() {
                it.expire();
            }
        }
        prop_assert!(it.resolver.is_idle(), "every lookup ends");
    }
}
