//! The local ends of a tunnel, each with the duties of its owner, and what must have gone through
//! them, said a second time.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use turnstile::proto::end::{End, Progress, Turn};
use turnstile::proto::exit::{self, Allowed};
use turnstile::proto::gate::CHALLENGE_LEN;
use turnstile::proto::http_connect::HEAD_LIMIT;
use turnstile::proto::introduction::{Introduced, Line};
use turnstile::proto::pipe::Pipe;

use crate::call::Call;
use crate::model::check_delivery;
use crate::wire::Wire;

/// The one target that an exit allows here, and one that it does not.
pub(crate) const TARGET: &str = "db.internal:5432";
pub(crate) const FORBIDDEN: &str = "db.internal:22";

const YES: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// The request to be carried to `target`.
pub(crate) fn request(target: &str) -> Vec<u8> {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into()
}

/// The way from an entry to its exit.
pub(crate) struct Entry {
    lines: Vec<Line>,
    limit: Option<Duration>,
    pub(crate) end: Introduced<Wire>,
}

impl Entry {
    /// An entry that says `lines` first, within `limit`.
    pub(crate) fn new(wire: Wire, lines: Vec<Line>, limit: Option<Duration>) -> Self {
        Self { end: Introduced::new(wire, lines.clone()), lines, limit }
    }

    /// Somebody was let in: the introduction begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.end.begin(self.limit.map(|limit| now + limit));
    }

    /// What must have gone to the client, at the most, when the client has said `input`.
    pub(crate) fn check(&self, input: &[u8], whole: bool) -> Vec<u8> {
        let record = &self.end.end_ref().record;
        let (mut due, mut rest, mut is_over) = (Vec::new(), &record.taken[..], true);
        for line in &self.lines {
            let len = match line {
                _ if !is_over => None,
                Line::Answer(secret, digest) => rest.first_chunk().map(|challenge| {
                    due.extend(secret.answer(*digest, challenge).as_bytes());
                    CHALLENGE_LEN
                }),
                Line::Ask(target, _) => {
                    due.extend(request(&target.to_string()));
                    rest.starts_with(YES).then_some(YES.len())
                }
            };
            is_over = len.is_some();
            rest = &rest[len.unwrap_or(rest.len())..];
        }
        if is_over {
            due.extend(input);
        }
        check_delivery("hop's", &record.sent, &due, whole);
        rest.to_vec()
    }
}

/// The way from an exit to its target.
pub(crate) struct Exit {
    allowed: Rc<Allowed>,
    pub(crate) end: exit::Exit<Call>,
    call: Option<Call>,
}

impl Exit {
    /// An exit that allows [`TARGET`], which is reached by `call`, within `limit`.
    pub(crate) fn new(call: Call, limit: Option<Duration>, now: Instant) -> Self {
        let rules = vec![TARGET.parse().expect("a rule")];
        let allowed = Rc::new(Allowed { rules, head: HEAD_LIMIT, limit });
        Self { end: exit::Exit::new(Rc::clone(&allowed), now), allowed, call: Some(call) }
    }

    /// Somebody was let in, and may say where to go.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.end = exit::Exit::new(Rc::clone(&self.allowed), now);
    }

    /// Makes the call that is wanted; answers whether it came to something at once.
    pub(crate) fn call(&mut self, now: Instant) -> bool {
        let Some(target) = self.end.wanted() else { return false };
        assert_eq!(target.to_string(), TARGET, "calls what is not allowed");
        let mut call = self.call.take().expect("one call is made");
        call.begin(now, self.end.deadline());
        let is_settled = call.poll(now);
        self.end.begin(call);
        is_settled
    }

    /// Has its turn, in which it does not wait for what cannot come.
    pub(crate) fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let outcome = self.end.exchange(to, from, turn);
        let waits_to_be_asked = matches!(outcome, Ok(Progress::Moved(0)))
            && self.end.wanted().is_none()
            && self.end.onward_ref().is_none()
            && from.wants_more(turn.pool);
        assert!(!waits_to_be_asked || to.wants_more(turn.pool), "waits for more than has room");
        outcome
    }

    /// Whether the target gets and sends bytes.
    pub(crate) fn is_joined(&self) -> bool {
        self.end.onward_ref().is_some_and(|call| call.wire_ref().record.was_used)
    }

    /// What must have been said to a peer, at the most, that has said `input`; `said` is what was.
    pub(crate) fn check(&self, input: &[u8], said: &[u8], whole: bool) -> Vec<u8> {
        let right = request(TARGET);
        let onward = input.strip_prefix(&right[..]);
        if let Some(call) = self.end.onward_ref().filter(|_| self.is_joined()) {
            let record = &call.wire_ref().record;
            assert!(call.standing().is_up, "carries bytes before anybody is there");
            let onward = onward.expect("carries bytes for one who did not ask for it");
            check_delivery("target's", &record.sent, onward, whole);
            return [YES, &record.taken].concat();
        }
        let is_whole = input.windows(4).any(|end| end == b"\r\n\r\n");
        let begins = |how: &[u8]| input.starts_with(how);
        let is_true = match said.get(9..12) {
            None => true,
            Some(b"403") => begins(&request(FORBIDDEN)),
            Some(b"405") => !begins(b"CONNECT ") && is_whole,
            Some(b"400") => !is_whole || !begins(b"CONNECT db."),
            // Who was too late may have said the rest since.
            Some(b"408") => self.allowed.limit.is_some(),
            Some(b"431") => onward.is_none() && input.len() > right.len(),
            Some(b"502" | b"504") => onward.is_some(),
            Some(_) => false,
        };
        let asked = input[..input.len().min(right.len())].escape_ascii();
        assert!(is_true, "answered {} to {asked}", said.escape_ascii());
        // Who asks for nothing is told nothing.
        let is_told = said.ends_with(b"\n") || input.is_empty();
        assert!(!whole || is_told, "broke off in {}", said.escape_ascii());
        said.to_vec()
    }
}
