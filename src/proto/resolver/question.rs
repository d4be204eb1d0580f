//! One of the two questions of a lookup, and how it is put.

use core::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;

use super::message::Family;
use super::{Failure, Transport};
use crate::proto::timeouts::given_back;

/// A question about a name: its addresses of one family.
pub(super) struct Question {
    pub(super) family: Family,
    pub(super) state: State,
    /// What a truncated answer held, and for how long: some addresses do where all are not to be
    /// had.
    pub(super) part: Option<(Vec<IpAddr>, Duration)>,
    /// How many answers did not fit.
    pub(super) wrong: u32,
    /// The try before this one, which was waited for in vain: a slow server's answer may come yet.
    pub(super) earlier: Option<Try>,
}

impl Question {
    pub(super) fn new(family: Family) -> Self {
        Self { family, state: State::Dropped, part: None, wrong: 0, earlier: None }
    }

    /// The serial numbers under which its answer is still to come.
    pub(super) fn awaited(&self) -> impl Iterator<Item = u64> {
        let present = match &self.state {
            State::Open(attempt) => Some(attempt),
            _ => None,
        };
        let earlier = self.earlier.as_ref().filter(|_| present.is_some());
        present.into_iter().chain(earlier).map(|attempt| attempt.sent.serial)
    }
}

/// How far a question has come.
pub(super) enum State {
    /// The other question comes first.
    Later,
    /// It is put to a server.
    Open(Try),
    /// There are these addresses, for so long.
    Found(Vec<IpAddr>, Duration),
    /// There are none, for so long.
    Absent(Failure, Duration),
    /// No server had an answer; why the last one had none.
    Unanswered(Lack),
    /// Nobody wants to know.
    Dropped,
}

/// Why a server gave no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// It said nothing.
    Silent,
    /// It cannot be reached.
    Unreachable,
    /// It said that it cannot say.
    Unable,
}

/// A question that is put to a server.
#[derive(Clone)]
pub(super) struct Try {
    pub(super) how: How,
    pub(super) until: Instant,
    pub(super) sent: Sent,
}

impl Try {
    /// Something has come of it: it has back what time was lost because the loop stood still.
    pub(super) fn give_back(&mut self, now: Instant) {
        self.until = given_back(self.until, now).unwrap_or(self.until);
    }
}

/// How a question is put.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// How many tries there were before.
    pub(super) number: usize,
    pub(super) server: usize,
    pub(super) transport: Transport,
    pub(super) is_extended: bool,
    /// Whether the case of each letter has to come back as it went.
    pub(super) minds_case: bool,
}

/// By what an answer is known.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) serial: u64,
    pub(super) id: u16,
    pub(super) name: Name,
}
