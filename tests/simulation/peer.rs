//! Somebody at the far end of a connection who does what a script says, at the time it says.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Instant;

use crate::link::Plug;

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Act {
    /// Send these bytes, as soon as there is room for them.
    Send(Vec<u8>),
    /// Read so many bytes more, as soon as they come.
    Take(usize),
    /// Send no more, once everything is sent.
    End,
    /// Tear the connection down.
    Reset,
}

/// The far end.
pub(crate) struct Peer {
    plug: Plug,
    script: VecDeque<(Instant, Act)>,
    unsent: VecDeque<u8>,
    appetite: usize,
    received: Vec<u8>,
    sent: Vec<u8>,
    stage: Stage,
    has_torn: bool,
    /// Whether sending was told of a reset.
    was_reset: bool,
    /// How the stream that it reads came to its end, if it did.
    outcome: Option<Outcome>,
}

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As a stream does.
    Ended,
    /// By a reset.
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sending,
    /// The end follows what is not sent yet.
    Ending,
    Ended,
    /// It sends no more: nobody listens, or it has torn the connection down.
    Silent,
}

impl Peer {
    pub(crate) fn new(plug: Plug, script: VecDeque<(Instant, Act)>) -> Self {
        Self {
            plug,
            script,
            unsent: VecDeque::new(),
            appetite: 0,
            received: Vec::new(),
            sent: Vec::new(),
            stage: Stage::Sending,
            has_torn: false,
            was_reset: false,
            outcome: None,
        }
    }

    /// Every byte that came.
    pub(crate) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Every byte that it could send.
    pub(crate) fn sent(&self) -> &[u8] {
        &self.sent
    }

    /// Whether it has passed the end of its stream on.
    pub(crate) fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether it has torn its own connection down.
    pub(crate) fn has_torn(&self) -> bool {
        self.has_torn
    }

    /// Takes all that is left.
    pub(crate) fn drain(&mut self, now: Instant) {
        self.appetite = usize::MAX;
        self.take(now);
    }

    /// How the stream that it reads came to its end.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// When the script goes on.
    pub(crate) fn next_act(&self) -> Option<Instant> {
        self.script.front().map(|&(at, _)| at)
    }

    /// Does what is to be done by `now`, and what has become possible.
    pub(crate) fn step(&mut self, now: Instant, tell: &mut dyn FnMut(&Act)) {
        while self.script.front().is_some_and(|&(at, _)| at <= now) {
            let (_, act) = self.script.pop_front().expect("it was just seen");
            tell(&act);
            self.act(act, now);
        }
        self.send(now);
        self.take(now);
    }

    fn act(&mut self, act: Act, now: Instant) {
        match act {
            Act::Send(bytes) if self.stage == Stage::Sending => self.unsent.extend(bytes),
            Act::End if self.stage == Stage::Sending => self.stage = Stage::Ending,
            Act::Send(_) | Act::End => {}
            Act::Take(count) => self.appetite = self.appetite.saturating_add(count),
            Act::Reset => {
                self.plug.reset(now);
                self.has_torn = true;
                self.script.clear();
                self.stage = Stage::Silent;
                self.appetite = 0;
            }
        }
    }

    fn send(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Ended | Stage::Silent) {
            return;
        }
        if !self.unsent.is_empty() && self.plug.is_writable() {
            match self.plug.write(self.unsent.make_contiguous(), now) {
                Ok(count) => self.sent.extend(self.unsent.drain(..count)),
                Err(error) => {
                    self.was_reset = error.kind() == ErrorKind::ConnectionReset;
                    self.stage = Stage::Silent;
                    return;
                }
            }
        }
        if self.stage == Stage::Ending && self.unsent.is_empty() {
            self.plug.end(now);
            self.stage = Stage::Ended;
        }
    }

    fn take(&mut self, now: Instant) {
        let mut space = [0; 4096];
        while self.appetite > 0 && self.plug.is_readable() {
            let offered = self.appetite.min(space.len());
            match self.plug.read(&mut space[..offered], now) {
                Ok(0) if !self.was_reset => {
                    return self.outcome = self.outcome.or(Some(Outcome::Ended));
                }
                Ok(0) | Err(_) => return self.outcome = self.outcome.or(Some(Outcome::Broken)),
                Ok(count) => {
                    self.received.extend(&space[..count]);
                    self.appetite -= count;
                }
            }
        }
    }
}
