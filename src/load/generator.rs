//! The local end of a load connection: it sends what it was granted, checks every byte that comes
//! back, and notes when each of these happened.
//!
//! It does not decide when to send: whoever drives the connection grants requests, one by one or
//! one for each that is finished, and takes the finished ones. It reads the clock itself, at the
//! moment at which a request goes to the socket and at the moment at which a reply has come from
//! it, because the turn's time may be older by all that the turn has done for other connections.
//!
//! Invariant: on a stream, replies come in the order of the requests; so one position, that of the next
//! byte in the reply to the oldest request in flight, says all about what has been checked. Datagrams
//! come in any order, or not at all, or twice: a [ledger](Ledger) says what each of them is.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::iter;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::framing::Reader;
use super::ledger::{Kind, Ledger};
use super::payload::{Exchange, Expected};
use super::reply::{self, Fault};
use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

/// How long the first connections wait whether the server speaks first.
const GREETING_WAIT: Duration = Duration::from_millis(500);

/// What all connections of a run send and expect.
#[derive(Clone, Debug)]
pub struct Work {
    /// The bytes.
    pub exchange: Exchange,
    /// Whether each request is a datagram, and so is its reply.
    pub datagrams: bool,
    /// How far the numbers of one connection's requests lie apart: there are as many series of
    /// numbers as connections, and no number is used twice.
    pub stride: u64,
    /// Whether the server says something before it is asked, once that is known.
    pub greets: Cell<Option<bool>>,
    /// Whether nothing is sent, so that what comes is no reply to anything, and no fault.
    pub only_listens: bool,
}

/// One request and its reply, finished.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it should have been sent.
    pub due: Instant,
    /// When it was sent.
    pub sent: Instant,
    /// When the first byte of the reply was there.
    pub first_byte: Instant,
    /// When the last one was.
    pub done: Instant,
    /// How many bytes the reply had.
    pub size: usize,
    /// Its status, where it is HTTP's, else 0.
    pub status: u16,
}

/// A request that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// When it was due; `None` where it will be when it is sent.
    pub due: Option<Instant>,
    /// Whether it was sent, or at least begun.
    pub is_sent: bool,
}

/// What a connection leaves to the next one.
#[derive(Debug, Default)]
pub struct Legacy {
    /// Requests that were sent and have no byte of their reply.
    sent: Vec<Request>,
    /// When those that were granted and not sent were due.
    granted: Vec<Instant>,
}

impl Legacy {
    /// What it holds.
    pub fn unfinished(&self) -> impl Iterator<Item = Unfinished> {
        let sent = self.sent.iter().map(|it| Unfinished { due: Some(it.due), is_sent: true });
        let granted = self.granted.iter().map(|due| Unfinished { due: Some(*due), is_sent: false });
        sent.chain(granted)
    }
}

/// What came as a datagram and was no reply to anything on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stray {
    /// A reply that had come before.
    Duplicate,
    /// A reply to what had been given up, so long after that was sent.
    Late(Duration),
}

/// What is kept of datagrams beside what is on the way.
#[derive(Debug, Default)]
struct Datagrams {
    ledger: Ledger,
    strays: Vec<Stray>,
    /// When the requests that got a wrong reply were due, and what was wrong.
    wrong: Vec<(Instant, Fault)>,
}

/// The end of one connection at which requests begin and replies end.
#[derive(Debug)]
pub struct Generator {
    work: Rc<Work>,
    next_number: u64,
    /// When those that were granted and not sent were due.
    granted: VecDeque<Instant>,
    /// How many more were granted that are due when they are sent.
    granted_at_once: usize,
    /// Whether each finished request grants the next.
    refills: bool,
    /// What another connection has left to be sent again.
    again: VecDeque<Request>,
    in_flight: VecDeque<Request>,
    /// How much of the newest request in flight has been passed on; its length where that is all.
    passed_on: usize,
    /// Whether some of the newest request is still to be passed on.
    is_sending: bool,
    /// How much of the oldest request's reply has come and was right.
    received: usize,
    /// Where in a reply it is whose length is not known beforehand.
    reader: Option<Reader>,
    /// When the last byte of a reply came that ends with a silence.
    last_byte: Option<Instant>,
    /// Since when it waits for what a server says that speaks first.
    greeted_since: Option<Instant>,
    /// The peer has said that it answers nothing more here.
    is_last: bool,
    finished: Vec<Sample>,
    admitted: Option<Instant>,
    fault: Option<Fault>,
    /// Whether something came while nothing was asked.
    has_been_told: bool,
    /// Only where requests are datagrams.
    datagrams: Option<Box<Datagrams>>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    number: u64,
    due: Instant,
    sent: Instant,
    first_byte: Option<Instant>,
}

impl Generator {
    /// An end that has nothing to send yet; its requests are numbered from `first_number`.
    #[must_use]
    pub fn new(work: Rc<Work>, first_number: u64) -> Self {
        let datagrams = work.datagrams.then(Box::default);
        Self {
            datagrams,
            reader: work.exchange.reader(),
            work,
            next_number: first_number,
            granted: VecDeque::new(),
            granted_at_once: 0,
            refills: false,
            again: VecDeque::new(),
            in_flight: VecDeque::new(),
            passed_on: 0,
            is_sending: false,
            received: 0,
            last_byte: None,
            greeted_since: None,
            is_last: false,
            finished: Vec::new(),
            has_been_told: false,
            admitted: None,
            fault: None,
        }
    }

    /// Allows one more request. It was due at `due`, or is at the moment at which it is sent.
    pub fn grant(&mut self, due: Option<Instant>) {
        match due {
            Some(due) => self.granted.push_back(due),
            None => self.granted_at_once += 1,
        }
    }

    /// Whether from now on each finished request grants the next: a closed loop that need not ask,
    /// and goes on without another run.
    pub fn refill(&mut self, refills: bool) {
        self.refills = refills;
    }

    /// How many requests were granted and are not finished.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.granted.len() + self.granted_at_once + self.again.len() + self.in_flight.len()
    }

    /// When the oldest request in flight was sent; or since when the server's greeting is awaited.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        let sent = self.in_flight.front().map(|request| request.sent);
        sent.or(self.greeted_since.filter(|_| self.work.greets.get() == Some(true)))
    }

    /// When to run even if nothing comes: a silence is then long enough to mean something.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Instant> {
        let silence = self.work.exchange.silence().unwrap_or_default();
        // Where another has found meanwhile that there is none, this one has yet to hear of it.
        let greeting = self.greeted_since.filter(|_| self.work.greets.get() != Some(true));
        let reply = self.last_byte.map(|last| last + silence);
        reply.or(greeting.map(|since| since + GREETING_WAIT))
    }

    /// Whether the peer has said that it answers nothing more on this connection.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// The requests that are not finished.
    pub fn unfinished(&self) -> impl Iterator<Item = Unfinished> {
        let sent = self.in_flight.iter().chain(&self.again);
        let sent = sent.map(|request| Unfinished { due: Some(request.due), is_sent: true });
        let granted = self.granted.iter().copied().map(Some);
        let granted = granted.chain(iter::repeat_n(None, self.granted_at_once));
        sent.chain(granted.map(|due| Unfinished { due, is_sent: false }))
    }

    /// Whether no byte has come of any reply that is waited for.
    #[must_use]
    pub fn is_between_replies(&self) -> bool {
        self.received == 0
    }

    /// Hands over what is not finished and was due: the connection is used up.
    pub fn hand_over(&mut self) -> Legacy {
        let sent = self.in_flight.drain(..).chain(self.again.drain(..)).collect();
        Legacy { sent, granted: self.granted.drain(..).collect() }
    }

    /// Takes over what another connection has left.
    pub fn take_over(&mut self, legacy: Legacy) {
        self.again.extend(legacy.sent);
        self.granted.extend(legacy.granted);
    }

    /// Gives the oldest request in flight up: its reply was lost.
    pub fn give_up_oldest(&mut self) -> Option<Instant> {
        self.received = 0;
        let request = self.in_flight.pop_front()?;
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.ledger.note_given_up(request.number, request.sent);
        }
        Some(request.due)
    }

    /// The datagrams since the last call that were no reply to anything on the way.
    pub fn strays(&mut self) -> impl Iterator<Item = Stray> {
        self.datagrams.iter_mut().flat_map(|datagrams| datagrams.strays.drain(..))
    }

    /// The requests since the last call whose reply was a datagram that was wrong: when they were due,
    /// and what was wrong.
    pub fn wrong(&mut self) -> impl Iterator<Item = (Instant, Fault)> {
        self.datagrams.iter_mut().flat_map(|datagrams| datagrams.wrong.drain(..))
    }

    /// Exchanges the finished requests, oldest first, for an empty list. The storage of one list
    /// goes round among all connections, where it stays in the cache.
    pub fn swap_finished(&mut self, list: &mut Vec<Sample>) {
        std::mem::swap(&mut self.finished, list);
    }

    /// When the gate had been passed and this end came to its first turn.
    #[must_use]
    pub fn admitted(&self) -> Option<Instant> {
        self.admitted
    }

    /// Whether something came while nothing was asked.
    #[must_use]
    pub fn has_been_told(&self) -> bool {
        self.has_been_told
    }

    /// The number that the next request would have.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// What was wrong with what came, if anything was.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    fn fail(&mut self, fault: Fault) -> io::Error {
        let kind = match fault {
            Fault::ClosedEarly { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        self.fault = Some(fault);
        kind.into()
    }

    /// Checks what has come and finishes the requests whose replies are whole.
    fn receive(&mut self, now: Instant, to: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        let count = to.len();
        if self.work.datagrams {
            self.receive_datagram(now, to.bytes());
            to.consume(turn.pool, count);
            return Ok(count);
        }
        let mut bytes = to.bytes();
        let work = Rc::clone(&self.work);
        let mut scratch = Vec::new();
        if self.greeted_since.is_some() {
            self.take_greeting(bytes)?;
            bytes = &[];
        }
        while !bytes.is_empty() && !self.is_last {
            let Some(oldest) = self.in_flight.front_mut() else {
                if work.only_listens {
                    self.has_been_told = true;
                    break;
                }
                if work.exchange.reply(0, &mut scratch) == Expected::Anything {
                    break;
                }
                return Err(self.fail(Fault::Unasked(bytes.len())));
            };
            oldest.first_byte.get_or_insert(now);
            let number = oldest.number;
            let checked = match &mut self.reader {
                Some(reader) => match reader.feed(bytes) {
                    Ok(fed) if !fed.is_whole => Ok((fed.taken, false)),
                    Ok(fed) => match work.exchange.refuses(reader.status()) {
                        Some(why) => Err(Fault::Malformed(why)),
                        None => Ok((fed.taken, true)),
                    },
                    Err(malformed) => Err(Fault::Malformed(malformed.0)),
                },
                None => {
                    let expected = work.exchange.reply(number, &mut scratch);
                    reply::check(expected, self.received, bytes, false)
                }
            };
            match checked {
                Ok((taken, is_whole)) => {
                    bytes = &bytes[taken..];
                    self.received += taken;
                    if is_whole {
                        self.finish_oldest(now);
                    } else if work.exchange.silence().is_some() {
                        self.last_byte = Some(now);
                    }
                }
                Err(fault) => return Err(self.fail(fault)),
            }
        }
        to.consume(turn.pool, count);
        Ok(count)
    }

    /// Finds the request that a datagram answers. A wrong one is the reply to whichever is likeliest.
    fn receive_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let Some(datagrams) = &mut self.datagrams else { return };
        let work = Rc::clone(&self.work);
        let mut scratch = Vec::new();
        let mut fault = None;
        let mut is_reply = |number| {
            let expected = work.exchange.reply(number, &mut scratch);
            match reply::check(expected, 0, bytes, true) {
                Ok(_) => true,
                Err(wrong) => {
                    fault.get_or_insert(wrong);
                    false
                }
            }
        };
        let on_the_way = self.in_flight.iter().map(|request| request.number);
        let kind = datagrams.ledger.sort(on_the_way, &mut is_reply);
        let waited =
            self.in_flight.iter().map(|request| now.saturating_duration_since(request.sent));
        let likeliest = datagrams.ledger.likeliest(waited);
        match (kind, likeliest) {
            (Kind::Reply(place), likeliest) => {
                let is_known = work.exchange.replies_differ();
                let place = if is_known { place } else { likeliest.unwrap_or(place) };
                self.finish_datagram(place, bytes.len(), now);
            }
            (Kind::Late(number, sent), _) => {
                datagrams.ledger.note_late(number);
                datagrams.strays.push(Stray::Late(now.saturating_duration_since(sent)));
            }
            (Kind::Wrong, Some(place)) => {
                let request = self.in_flight.remove(place);
                datagrams.wrong.extend(request.map(|it| it.due).zip(fault));
            }
            (Kind::Duplicate | Kind::Wrong, _) => datagrams.strays.push(Stray::Duplicate),
        }
    }

    fn finish_datagram(&mut self, place: usize, size: usize, now: Instant) {
        let Some(request) = self.in_flight.remove(place) else { return };
        if let Some(datagrams) = &mut self.datagrams {
            let took = now.saturating_duration_since(request.sent);
            datagrams.ledger.note_answered(request.number, took);
        }
        self.finish(request, size, now);
    }

    /// Takes what a server says that speaks first, up to a whole line of it; what comes with it
    /// belongs to it.
    fn take_greeting(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let mut is_whole = false;
        while !bytes.is_empty() {
            match reader.feed(bytes) {
                Ok(fed) => {
                    // `220-` goes on, and `220 ` is the last line (RFC 5321, 4.2.1).
                    let goes_on = matches!(bytes, [a, b, c, b'-', ..]
                        if [a, b, c].iter().all(|byte| byte.is_ascii_digit()));
                    bytes = &bytes[fed.taken..];
                    is_whole = fed.is_whole && !goes_on;
                }
                Err(malformed) => return Err(self.fail(Fault::Malformed(malformed.0))),
            }
        }
        self.work.greets.set(Some(true));
        if is_whole {
            self.greeted_since = None;
            self.admitted = Some(Instant::now());
        }
        Ok(())
    }

    /// Waits for a greeting where there may be one; answers whether it may begin.
    fn is_greeted(&mut self, now: Instant) -> bool {
        if self.admitted.is_some() {
            return true;
        }
        let since = *self.greeted_since.get_or_insert(now);
        let is_silent = match self.work.greets.get() {
            Some(greets) => !greets,
            None => now >= since + GREETING_WAIT,
        };
        if is_silent {
            self.work.greets.set(Some(false));
            self.greeted_since = None;
            self.admitted = Some(Instant::now());
        }
        is_silent
    }

    /// Ends a reply that ends with a silence, or with the stream.
    fn end_reply(&mut self, has_stream_ended: bool, now: Instant) {
        let silence = self.work.exchange.silence();
        let is_over = match (self.last_byte, silence) {
            (Some(last), Some(silence)) => has_stream_ended || now >= last + silence,
            _ => {
                let received = self.received;
                has_stream_ended
                    && self.reader.as_ref().is_some_and(|it| it.ends_with_stream(received))
            }
        };
        if is_over && !self.in_flight.is_empty() {
            let done = self.last_byte.unwrap_or_else(Instant::now);
            self.is_last |= has_stream_ended;
            self.finish_oldest(done);
        }
    }

    fn finish_oldest(&mut self, now: Instant) {
        if let Some(request) = self.in_flight.pop_front() {
            let size = std::mem::take(&mut self.received);
            self.is_last |= self.reader.as_ref().is_some_and(Reader::is_last);
            self.last_byte = None;
            self.finish(request, size, now);
        }
    }

    fn finish(&mut self, request: Request, size: usize, now: Instant) {
        let status = self.reader.as_ref().map_or(0, Reader::status);
        let first_byte = request.first_byte.unwrap_or(now);
        let Request { due, sent, .. } = request;
        if self.refills {
            self.granted_at_once += 1;
        }
        self.finished.push(Sample { due, sent, first_byte, done: now, size, status });
    }

    /// Passes on what was granted, as far as there is room. A datagram goes alone. What a reply that
    /// came `heard` has made way for begins then: one look at the clock serves both.
    fn send(&mut self, heard: Option<Instant>, from: &mut Pipe, turn: &mut Turn<'_>) -> usize {
        let mut moved = 0;
        let mut scratch = Vec::new();
        while from.wants_more(turn.pool) && (from.is_empty() || !self.work.datagrams) {
            if !self.is_sending && !self.begin_request(heard) {
                break;
            }
            let Some(newest) = self.in_flight.back() else { break };
            let request = self.work.exchange.payload().request(newest.number, &mut scratch);
            let count = from.append(turn.pool, &request[self.passed_on..]);
            self.passed_on += count;
            self.is_sending = self.passed_on < request.len();
            moved += count;
        }
        moved
    }

    /// Begins the next request, if one is granted.
    fn begin_request(&mut self, heard: Option<Instant>) -> bool {
        if self.is_last || self.greeted_since.is_some() {
            return false;
        }
        if let Some(request) = self.again.pop_front() {
            self.in_flight.push_back(request);
            self.passed_on = 0;
            self.is_sending = true;
            return true;
        }
        let due = self.granted.pop_front();
        if due.is_none() {
            if self.granted_at_once == 0 {
                return false;
            }
            self.granted_at_once -= 1;
        }
        let sent = heard.unwrap_or_else(Instant::now);
        let number = self.next_number;
        self.next_number += self.work.stride;
        let due = due.unwrap_or(sent);
        self.in_flight.push_back(Request { number, due, sent, first_byte: None });
        self.passed_on = 0;
        self.is_sending = true;
        true
    }
}

impl End for Generator {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let mut moved = 0;
        self.is_greeted(turn.now);
        let heard = (!to.is_empty()).then(Instant::now);
        if let Some(now) = heard {
            moved += self.receive(now, to, turn)?;
        }
        self.end_reply(to.is_drained(), turn.now);
        if to.is_drained() && self.is_last {
            return Ok(Progress::Moved(moved));
        }
        if to.is_drained() {
            let received = self.received;
            return Err(self.fail(Fault::ClosedEarly { received }));
        }
        if self.work.exchange.is_one_way() && from.is_empty() && !self.is_sending {
            while !self.in_flight.is_empty() {
                self.finish_oldest(Instant::now());
            }
        }
        moved += self.send(heard, from, turn);
        Ok(Progress::Moved(moved))
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::{Expectation, Payload};
    use super::*;
    use crate::proto::buffer::Pool;
    use crate::proto::end::Clock;
    use crate::proto::event::{Silent, Subject, Watch};

    /// A generator between two pipes, and the storage for them.
    struct Bench {
        generator: Generator,
        to: Pipe,
        from: Pipe,
        pool: Pool,
    }

    struct NoClock;

    impl Clock for NoClock {
        fn local_time(&self) -> jiff::Zoned {
            jiff::Zoned::default()
        }
    }

    impl Bench {
        fn new(request: &[u8], expectation: Expectation, block: usize) -> Self {
            let exchange = Exchange::new(Payload::Fixed(request.to_vec()), expectation);
            let greets = Cell::new(Some(false));
            let work = Work { exchange, datagrams: false, stride: 1, only_listens: false, greets };
            Self {
                generator: Generator::new(Rc::new(work), 0),
                to: Pipe::new(),
                from: Pipe::new(),
                pool: Pool::new(block, 2),
            }
        }

        fn exchange(&mut self) -> io::Result<Progress> {
            let mut silent = Silent;
            let watch = Watch::new(&mut silent, 0, Subject::LOOP);
            let now = Instant::now();
            let mut turn = Turn { now, pool: &mut self.pool, clock: &NoClock, watch };
            self.generator.exchange(&mut self.to, &mut self.from, &mut turn)
        }

        fn reply(&mut self, bytes: &[u8]) -> io::Result<Progress> {
            assert_eq!(self.to.append(&mut self.pool, bytes), bytes.len());
            self.exchange()
        }

        fn finished(&mut self) -> Vec<Sample> {
            let mut finished = Vec::new();
            self.generator.swap_finished(&mut finished);
            finished
        }

        fn sent(&mut self) -> Vec<u8> {
            let bytes = self.from.bytes().to_vec();
            self.from.discard(&mut self.pool);
            bytes
        }
    }

    #[test]
    fn a_reply_in_any_pieces_finishes_its_request() {
        for split in 0..=6 {
            let mut bench = Bench::new(b"abc", Expectation::Upper, 64);
            bench.generator.grant(None);
            bench.generator.grant(None);
            bench.exchange().expect("sends");
            assert_eq!(bench.sent(), b"abcabc");
            for piece in [&b"ABCABC"[..split], &b"ABCABC"[split..]] {
                bench.reply(piece).expect("right");
            }
            assert_eq!(bench.finished().len(), 2, "split at {split}");
            assert_eq!(bench.generator.outstanding(), 0);
        }
    }

    #[test]
    fn a_request_larger_than_the_pipe_goes_in_pieces() {
        let mut bench = Bench::new(b"abcdefgh", Expectation::Echo, 3);
        bench.generator.grant(None);
        let mut sent = Vec::new();
        while sent.len() < 8 {
            bench.exchange().expect("sends");
            let piece = bench.sent();
            assert!(!piece.is_empty() && piece.len() <= 3);
            sent.extend(piece);
        }
        assert_eq!(sent, b"abcdefgh");
        bench.exchange().expect("nothing more");
        assert_eq!(bench.sent(), b"");
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        let mut bench = Bench::new(b"abcd", Expectation::Upper, 64);
        bench.generator.grant(None);
        bench.exchange().expect("sends");
        bench.reply(b"AB").expect("right so far");
        assert!(bench.reply(b"cD").is_err());
        let fault = Fault::WrongByte { position: 2, expected: b'C', found: b'c' };
        assert_eq!(bench.generator.fault(), Some(&fault));
    }

    #[test]
    fn bytes_after_the_reply_are_wrong_and_an_end_before_it_is_early() {
        let mut bench = Bench::new(b"a", Expectation::Echo, 64);
        bench.generator.grant(None);
        bench.exchange().expect("sends");
        assert!(bench.reply(b"ab").is_err());
        assert_eq!(bench.generator.fault(), Some(&Fault::Unasked(1)));

        let mut bench = Bench::new(b"abc", Expectation::Echo, 64);
        bench.generator.grant(None);
        bench.exchange().expect("sends");
        bench.reply(b"a").expect("right so far");
        bench.to.end();
        assert!(bench.exchange().is_err());
        assert_eq!(bench.generator.fault(), Some(&Fault::ClosedEarly { received: 1 }));
    }

    #[test]
    fn latency_counts_from_the_moment_at_which_the_request_was_due() {
        let mut bench = Bench::new(b"a", Expectation::Size(2), 64);
        let due = Instant::now() - Duration::from_secs(1);
        bench.generator.grant(Some(due));
        bench.exchange().expect("sends");
        bench.reply(b"xy").expect("two of any kind");
        let sample = bench.finished().pop().expect("finished");
        assert_eq!(sample.due, due);
        assert!(sample.sent > due && sample.done >= sample.first_byte);
    }

    fn framed(framing: &str) -> Bench {
        Bench::new(b"a", framing.parse().expect("well formed"), 64)
    }

    #[test]
    fn a_reply_that_says_that_it_is_the_last_lets_nothing_more_begin() {
        let mut bench = framed("http");
        bench.generator.grant(None);
        bench.generator.grant(None);
        bench.exchange().expect("sends");
        assert_eq!(bench.sent(), b"aa");
        bench.generator.grant(None);
        let reply = b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
        bench.reply(reply).expect("a reply");
        bench.to.end();
        bench.exchange().expect("no fault");
        let sample = bench.finished().pop().expect("finished");
        assert_eq!((sample.status, sample.size), (503, reply.len()));
        assert!(bench.generator.is_last());
        assert_eq!((bench.generator.outstanding(), bench.sent()), (2, vec![]));
    }

    #[test]
    fn the_end_of_the_stream_ends_a_reply_that_has_no_other() {
        for (framing, reply) in [("http", &b"HTTP/1.1 200 OK\r\n\r\nabc"[..]), ("idle:1s", b"abc")]
        {
            let mut bench = framed(framing);
            bench.generator.grant(None);
            bench.exchange().expect("sends");
            bench.reply(reply).expect("a reply");
            assert_eq!(bench.finished().len(), 0);
            bench.to.end();
            bench.exchange().expect("no fault");
            assert_eq!(bench.finished().len(), 1, "{framing}");
            assert_eq!(bench.exchange().expect("nothing more"), Progress::Moved(0));
        }
    }

    #[test]
    fn a_silence_ends_a_reply_at_its_last_byte() {
        let mut bench = framed("idle:1ms");
        bench.generator.grant(None);
        bench.exchange().expect("sends");
        bench.reply(b"some").expect("a part");
        let wakes = bench.generator.wakes_at().expect("a silence to wait for");
        while Instant::now() < wakes {
            std::hint::spin_loop();
        }
        bench.exchange().expect("a silence");
        let sample = bench.finished().pop().expect("finished");
        assert_eq!(sample.done + Duration::from_millis(1), wakes);
        assert_eq!((sample.size, bench.generator.wakes_at()), (4, None));
    }

    #[test]
    fn what_a_server_says_first_is_no_reply() {
        let mut bench = framed(r"until:\n");
        Rc::get_mut(&mut bench.generator.work).expect("alone").greets.set(None);
        bench.generator.grant(None);
        bench.exchange().expect("waits");
        assert!(bench.generator.wakes_at().is_some() && bench.generator.admitted().is_none());
        assert_eq!(bench.sent(), b"");
        bench.reply(b"220-one\n220 tw").expect("half a greeting");
        assert_eq!(bench.sent(), b"");
        bench.reply(b"o\n").expect("the rest");
        assert_eq!((bench.sent(), bench.generator.work.greets.get()), (b"a".to_vec(), Some(true)));
        bench.reply(b"250 ok\n").expect("a reply");
        assert_eq!(bench.finished().len(), 1);
    }

    #[test]
    fn one_connection_finds_for_all_that_nobody_speaks_first() {
        let mut bench = framed(r"until:\n");
        Rc::get_mut(&mut bench.generator.work).expect("alone").greets.set(None);
        bench.generator.grant(None);
        bench.exchange().expect("waits");
        bench.generator.work.greets.set(Some(false));
        assert!(bench.generator.wakes_at().is_some(), "it has yet to hear of it");
        bench.exchange().expect("begins");
        assert_eq!((bench.sent(), bench.generator.wakes_at()), (b"a".to_vec(), None));
        assert!(bench.generator.admitted().is_some());
    }

    #[test]
    fn one_way_requests_are_done_when_they_are_gone() {
        let mut bench = Bench::new(b"abc", Expectation::None, 64);
        bench.generator.grant(None);
        bench.exchange().expect("sends");
        assert_eq!(bench.finished().len(), 0);
        assert_eq!(bench.sent(), b"abc");
        bench.exchange().expect("sees that it is gone");
        assert_eq!(bench.finished().len(), 1);
    }
}
