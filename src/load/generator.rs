//! The local end of a load connection: it sends what it was granted, checks every byte that comes
//! back, and notes when each of these happened.
//!
//! It does not decide when to send: whoever drives the connection grants requests, one by one or
//! one for each that is finished, and takes the finished ones. It reads the clock itself, at the
//! moment at which a request goes to the socket and at the moment at which a reply has come from
//! it, because the turn's time may be older by all that the turn has done for other connections.
//!
//! Invariant: replies come in the order of the requests; so one position, that of the next byte in
//! the reply to the oldest request in flight, says all about what has been checked.

use std::collections::VecDeque;
use std::io;
use std::iter;
use std::rc::Rc;
use std::time::Instant;

use super::payload::{Exchange, Expected};
use super::reply::{self, Fault};
use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

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
    in_flight: VecDeque<Request>,
    /// How much of the newest request in flight has been passed on; its length where that is all.
    passed_on: usize,
    /// Whether some of the newest request is still to be passed on.
    is_sending: bool,
    /// How much of the oldest request's reply has come and was right.
    received: usize,
    finished: Vec<Sample>,
    admitted: Option<Instant>,
    fault: Option<Fault>,
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
        Self {
            work,
            next_number: first_number,
            granted: VecDeque::new(),
            granted_at_once: 0,
            refills: false,
            in_flight: VecDeque::new(),
            passed_on: 0,
            is_sending: false,
            received: 0,
            finished: Vec::new(),
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
        self.granted.len() + self.granted_at_once + self.in_flight.len()
    }

    /// When the oldest request in flight was sent.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|request| request.sent)
    }

    /// When the requests that are not finished were due, as far as that is known.
    pub fn unfinished(&self) -> impl Iterator<Item = Option<Instant>> {
        let in_flight = self.in_flight.iter().map(|request| Some(request.due));
        let granted = self.granted.iter().copied().map(Some);
        in_flight.chain(granted).chain(iter::repeat_n(None, self.granted_at_once))
    }

    /// Gives the oldest request in flight up: its reply was lost.
    pub fn give_up_oldest(&mut self) -> Option<Instant> {
        self.received = 0;
        self.in_flight.pop_front().map(|request| request.due)
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
        let mut bytes = to.bytes();
        let work = Rc::clone(&self.work);
        let mut scratch = Vec::new();
        while !bytes.is_empty() {
            let Some(oldest) = self.in_flight.front_mut() else {
                if work.exchange.reply(0, &mut scratch) == Expected::Anything {
                    break;
                }
                return Err(self.fail(Fault::Unasked(bytes.len())));
            };
            oldest.first_byte.get_or_insert(now);
            let expected = work.exchange.reply(oldest.number, &mut scratch);
            match reply::check(expected, self.received, bytes, work.datagrams) {
                Ok((taken, is_whole)) => {
                    bytes = &bytes[taken..];
                    self.received += taken;
                    if is_whole {
                        self.finish_oldest(now);
                    }
                }
                Err(fault) => return Err(self.fail(fault)),
            }
        }
        to.consume(turn.pool, count);
        Ok(count)
    }

    fn finish_oldest(&mut self, now: Instant) {
        let Some(request) = self.in_flight.pop_front() else { return };
        self.received = 0;
        let first_byte = request.first_byte.unwrap_or(now);
        let Request { due, sent, .. } = request;
        if self.refills {
            self.granted_at_once += 1;
        }
        self.finished.push(Sample { due, sent, first_byte, done: now });
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
        if self.admitted.is_none() {
            self.admitted = Some(Instant::now());
        }
        let heard = (!to.is_empty()).then(Instant::now);
        if let Some(now) = heard {
            moved += self.receive(now, to, turn)?;
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
            let work = Work { exchange, datagrams: false, stride: 1 };
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
        let due = Instant::now() - std::time::Duration::from_secs(1);
        bench.generator.grant(Some(due));
        bench.exchange().expect("sends");
        bench.reply(b"xy").expect("two of any kind");
        let sample = bench.finished().pop().expect("finished");
        assert_eq!(sample.due, due);
        assert!(sample.sent > due && sample.done >= sample.first_byte);
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
