//! What is fuzzed: one function for each parser of bytes that somebody else made, which takes any bytes
//! at all. None may panic, none may hold more memory than its input calls for, and each asserts what
//! must hold whatever comes.
//!
//! `fuzz_targets/` hands these to libFuzzer; `tests/corpora.rs` runs them over `corpus/` and over
//! damaged copies of it, which needs no more than a stable compiler.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use turnstile::config;
use turnstile::load::framing::{Framing, Reader};
use turnstile::load::outcome::Outcome;
use turnstile::load::{compare, comparison_page, hdr_log, html, merge, reading, summary};
use turnstile::proto::buffer::Pool;
use turnstile::proto::end::{Clock, End, Progress, Turn};
use turnstile::proto::event::{Silent, Subject, Watch};
use turnstile::proto::gate::{Digest, Keyring, Secret};
use turnstile::proto::hello;
use turnstile::proto::http_connect::{self, Authority, HEAD_LIMIT, Rule};
use turnstile::proto::pem;
use turnstile::proto::pipe::Pipe;
use turnstile::proto::proxy_protocol;
use turnstile::proto::quote::{Line, Quoted, QuotedBytes, Value, Word};
use turnstile::proto::resolver::{Beside, Hosts, Requester, Resolver, Settings};
use turnstile::proto::service::Kind;
use turnstile::proto::session::{Admission, Session, Step, Timeouts};
use turnstile::proto::starttls::{Next, StartTls};
use zeroize::Zeroizing;

/// How long the header of a message of DNS is.
const HEADER_LEN: usize = 12;

/// A target, and what it is called.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: [Target; 13] = [
    ("client_hello", client_hello),
    ("configuration", configuration),
    ("connect_answer", connect_answer),
    ("connect_request", connect_request),
    ("dns", dns),
    ("hdr_log", hdr_log),
    ("log_value", log_value),
    ("pem", pem),
    ("proxy_header", proxy_header),
    ("replies", replies),
    ("report", report),
    ("session", session),
    ("starttls", starttls),
];

/// A header of the PROXY protocol, of either version.
pub(crate) fn proxy_header(bytes: &[u8]) {
    if let Ok(Some((announced, len))) = proxy_protocol::read(bytes) {
        assert!(len <= bytes.len(), "a header of {len} bytes in {}", bytes.len());
        let alone = proxy_protocol::read(&bytes[..len]);
        assert_eq!(alone, Ok(Some((announced, len))), "what follows a header is no part of it");
        assert!(
            !matches!(proxy_protocol::read(&bytes[..len - 1]), Ok(Some(_))),
            "it was whole before"
        );
    }
}

/// What both sides of a TLS handshake say in the clear.
pub(crate) fn client_hello(bytes: &[u8]) {
    let _ = hello::looks_like_tls(bytes);
    let _ = hello::client_hello(bytes);
    let _ = hello::server_flight(bytes);
}

/// A request to an exit, and what an exit is asked for.
pub(crate) fn connect_request(bytes: &[u8]) {
    if let Ok(Some((target, len))) = http_connect::read_request(bytes, HEAD_LIMIT) {
        assert!(len <= bytes.len());
        let again = http_connect::request(&target);
        let read = http_connect::read_request(again.as_bytes(), HEAD_LIMIT);
        assert_eq!(read, Ok(Some((target, again.len()))), "a target is asked for as it was read");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (rule, target) = text.split_once('\n').unwrap_or((text, text));
    if let (Ok(rule), Ok(target)) = (rule.parse::<Rule>(), target.parse::<Authority>()) {
        let again: Rule = rule.to_string().parse().expect("a rule is read as it was written");
        assert_eq!(again.allows(&target), rule.allows(&target));
    }
}

/// What an exit answers.
pub(crate) fn connect_answer(bytes: &[u8]) {
    let answer = http_connect::read_answer(bytes, false, HEAD_LIMIT);
    if let Ok(Some(len)) = answer {
        assert!(len <= bytes.len());
    }
    assert_ne!(
        http_connect::read_answer(bytes, true, HEAD_LIMIT),
        Ok(None),
        "nothing more will come"
    );
}

/// Answers of a name server. The first byte of each says how long it is, how late it comes, and
/// whether it is the answer of one who guesses the number and the letters of the question.
pub(crate) fn dns(bytes: &[u8]) {
    let mut number = 0;
    let chance = move || {
        number += 1;
        number
    };
    let text = "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch example.org\noptions edns0\n";
    let settings = Settings::parse(text, &Beside::default());
    let mut resolver = Resolver::new(settings, Hosts::parse(""), chance);
    let mut now = Instant::now();
    let _ = resolver.lookup("www.example.net", Requester::Ourselves, now);
    let mut open = VecDeque::new();
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        while let Some(transmit) = resolver.poll_transmit() {
            open.push_back(transmit);
        }
        let Some(question) = open.pop_front() else { break };
        let len = if first & 0x80 == 0 { after.len() } else { usize::from(first & 0x7f) };
        let (answer, after) = after.split_at(len.min(after.len()));
        let mut answer = answer.to_vec();
        let name = HEADER_LEN..HEADER_LEN + b"\x03www\x07example\x03net\0".len();
        if first & 0x40 == 0 && answer.len() >= name.end {
            answer[..2].copy_from_slice(&question.bytes[..2]);
            answer[name.clone()].copy_from_slice(&question.bytes[name]);
        }
        resolver.handle_answer(&answer, question.serial, now);
        if resolver.awaits(question.serial) {
            open.push_back(question);
        }
        now += Duration::from_millis(100) * u32::from(first & 0x3f);
        resolver.handle_timeout(now);
        while resolver.poll_answer().is_some() {}
        while resolver.poll_suspicion().is_some() {}
        rest = after;
    }
}

/// The report of another tester.
pub(crate) fn report(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(outcome) = reading::from_json(text) {
        use_report(&outcome);
    }
}

/// A histogram log of another tester.
pub(crate) fn hdr_log(bytes: &[u8]) {
    if let Ok(outcome) = hdr_log::from_log(bytes) {
        use_report(&outcome);
    }
}

/// All that is done with a report: it is shown, written and read again, added to another part of its run,
/// and compared with that.
fn use_report(outcome: &Outcome) {
    let again = reading::from_json(&outcome.to_json()).expect("a report is read as it was written");
    assert!(again.to_json() == outcome.to_json(), "and is the same then");
    let _ = summary::summarize(outcome, 80);
    let _ = html::page(outcome);
    if let Ok(log) = hdr_log::to_log(outcome) {
        let _ = hdr_log::from_log(&log);
    }
    let mut other = outcome.clone();
    for part in &mut other.parts {
        part.id.push_str(", another");
    }
    let _ = comparison_page::page(&compare::compare(("one", outcome), ("other", &other)));
    if let Ok(sum) = merge::merge(&[outcome.clone(), other]) {
        assert_eq!(sum.check_books(), Ok(()), "what balances adds up to what does");
    }
}

/// A configuration.
pub(crate) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A file that nobody should read while this runs, such as a terminal, is not to be named.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    match config::parse(text, "fuzz", Path::new("/nonexistent")) {
        Ok(plan) => {
            // What is printed leaves secrets out.
            let printed = config::to_toml(&plan).replace("<not shown>", "16 bytes or more");
            if let Err(report) = config::parse(&printed, "printed", Path::new("/nonexistent")) {
                panic!("what is printed cannot be read: {report}\n{printed}");
            }
        }
        Err(report) => assert!(!report.to_string().is_empty()),
    }
}

/// A value in the log that somebody else has chosen.
pub(crate) fn log_value(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let quoted = [QuotedBytes(bytes).to_string(), Quoted(&text).to_string()];
    let value = Value(&text).to_string();
    for shown in quoted.iter().chain([&value]) {
        let within = shown.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let within = within.unwrap_or(shown);
        assert!(!within.contains(['"', '=']), "ends a field: {shown}");
        assert!(!within.contains(char::is_control), "ends a line: {shown}");
    }
    assert!(value.starts_with('"') || !value.contains(' '), "two words: {value}");
    assert!(!Word(bytes).to_string().contains([' ', '"']), "two words");
    assert!(!Line(&text).to_string().contains(char::is_control), "ends a line");
}

/// A file that holds certificates, keys or lists.
pub(crate) fn pem(bytes: &[u8]) {
    match pem::read(bytes) {
        Ok(blocks) => {
            let held: usize = blocks.iter().map(|block| block.bytes.len()).sum();
            assert!(held <= bytes.len(), "more than there is");
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.help().is_empty()),
    }
}

/// Replies of a server under load. The first byte chooses how their ends are known, the second in
/// what pieces they come.
pub(crate) fn replies(bytes: &[u8]) {
    let [choice, piece, stream @ ..] = bytes else { return };
    let kinds = ["until:\\r\\n", "length:u16be", "length:u32be@4", "http", "http:2xx,304"];
    let framing = kinds[usize::from(*choice) % kinds.len()].parse().expect("a framing");
    let is_head = choice & 0x80 != 0;
    let whole = ends(&framing, is_head, stream, stream.len());
    let pieces = ends(&framing, is_head, stream, usize::from(*piece).max(1));
    assert_eq!(whole, pieces, "in what pieces they come makes no difference");
}

/// Where the replies in `stream` end, as far as it can be read.
fn ends(framing: &Framing, is_head: bool, stream: &[u8], piece: usize) -> Vec<usize> {
    let mut reader = Reader::new(framing, is_head);
    let (mut at, mut ends) = (0, Vec::new());
    while at < stream.len() {
        let upto = stream.len().min(at + piece.max(1));
        while at < upto {
            let Ok(fed) = reader.feed(&stream[at..upto]) else { return ends };
            assert!(fed.taken <= upto - at && (fed.is_whole || fed.taken == upto - at));
            at += fed.taken;
            if fed.is_whole {
                ends.push(at);
            }
            // A reply without a byte would be found for ever.
            if fed.taken == 0 {
                return ends;
            }
        }
    }
    ends
}

/// What a server says before TLS begins. The first byte chooses the protocol, the second in what
/// pieces it comes.
pub(crate) fn starttls(bytes: &[u8]) {
    let [choice, piece, said @ ..] = bytes else { return };
    let names = ["smtp", "imap", "pop3", "ftp", "ldap", "postgres"];
    let protocol = names[usize::from(*choice) % names.len()].parse().expect("a protocol");
    let (mut exchange, _) = StartTls::new(protocol);
    for piece in said.chunks(usize::from(*piece).max(1)) {
        match exchange.handle(piece) {
            Ok(Next::Wait | Next::Say(_)) => {}
            Ok(Next::Begin) | Err(_) => return,
        }
    }
}

/// A connection to each service, with and without a gate, whose peer sends these bytes. The first
/// chooses, the second says in what pieces they come.
pub(crate) fn session(bytes: &[u8]) {
    let [choice, piece, sent @ ..] = bytes else { return };
    let secret = Secret::new("one", Zeroizing::new(b"Jedan has a big key!".to_vec()));
    let challenge = [7; 32];
    let digest = if choice & 0x40 == 0 { Digest::Md5 } else { Digest::Sha256 };
    let answer = secret.answer(digest, &challenge);
    let admission = match choice >> 4 & 3 {
        0 => Admission::Open,
        // One who knows the secret, and one who may have guessed it.
        1 | 2 => Admission::Guard(Rc::new(Keyring::new(digest, [&secret])), challenge),
        _ => Admission::Guest(Rc::new(secret.clone()), digest),
    };
    let knows = choice >> 4 & 3 == 1;
    let mut said = VecDeque::new();
    said.extend(if knows { answer.as_bytes() } else { &[] });
    said.extend(sent);
    let remote = Peer { said, piece: usize::from(*piece).max(1), heard: Vec::new() };
    let (kind, comes_back) = service(choice & 0xf);
    let mut pool = Pool::new(4096, 4);
    let now = Instant::now();
    let timeouts = Rc::new(Timeouts::default());
    let mut session = Session::new(remote, kind.stream(), admission, timeouts, now);
    let mut closed = false;
    for turn_number in 0..20_000 {
        let mut silent = Silent;
        let watch = Watch::new(&mut silent, turn_number, Subject::LOOP);
        let mut turn = Turn { now, pool: &mut pool, clock: &Noon, watch };
        match session.run(&mut turn) {
            Step::Wait | Step::Again => {}
            Step::Close(reason) => {
                closed = true;
                session.dispose(&mut turn, &reason);
                break;
            }
        }
    }
    let heard = &session.remote().heard;
    if let (Some(change), true) = (comes_back, choice >> 4 & 3 < 2) {
        let heard = if knows { heard.get(challenge.len()..) } else { Some(&heard[..]) };
        let heard = heard.expect("a challenge is sent before all else");
        let expected: Vec<u8> = sent.iter().map(change).collect();
        assert_eq!(heard, expected, "every byte comes back");
    }
    drop(session);
    assert!(closed, "a peer that has ended is not waited for");
    assert_eq!(pool.lent(), 0, "the storage was given back");
}

/// What a service makes of a byte that it sends back.
type Change = fn(&u8) -> u8;

/// The service of this number, and what it makes of a byte where every byte comes back.
fn service(number: u8) -> (Kind, Option<Change>) {
    match number {
        0 | 9 => (Kind::Upper, Some(u8::to_ascii_uppercase)),
        1 => (Kind::Once, None),
        2 => (Kind::Greet, None),
        3 => (Kind::Time, None),
        4 => (Kind::Discard, None),
        5 => (Kind::Daytime, None),
        6 => (Kind::Chargen, None),
        7 => (Kind::Reply(Rc::from(&b"so it is"[..])), None),
        _ => (Kind::Echo, Some(|byte| *byte)),
    }
}

/// A peer that says what it was given, in pieces, and ends; and hears everything.
struct Peer {
    said: VecDeque<u8>,
    piece: usize,
    heard: Vec<u8>,
}

impl End for Peer {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let mut moved = to.len();
        self.heard.extend_from_slice(to.bytes());
        to.consume(turn.pool, moved);
        if to.is_drained() {
            to.finish();
            moved += 1;
        }
        if self.heard.len() > 1 << 20 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if from.is_open() {
            let piece: Vec<u8> = self.said.iter().copied().take(self.piece).collect();
            let taken = from.append(turn.pool, &piece);
            self.said.drain(..taken);
            moved += taken;
            if self.said.is_empty() && from.is_open() {
                from.end();
                moved += 1;
            }
        }
        Ok(Progress::Moved(moved))
    }
}

/// It is always the same time.
struct Noon;

impl Clock for Noon {
    fn local_time(&self) -> jiff::Zoned {
        jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC)
    }
}
