//! A call that an exit makes: a wire that is there after a while, or will never be.

use std::io;
use std::time::{Duration, Instant};

use turnstile::proto::end::{End, Progress, Standing, Turn};
use turnstile::proto::pipe::Pipe;

use crate::wire::Wire;

/// One call, and what becomes of it.
pub(crate) struct Call {
    wire: Wire,
    /// How long it takes.
    takes: Duration,
    /// Why there will be nobody, if so.
    failure: Option<io::ErrorKind>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody has asked for it.
    Unmade,
    /// It comes to something at this moment.
    Ringing(Instant),
    Answered,
    Failed(io::ErrorKind),
}

impl Call {
    pub(crate) fn new(wire: Wire, takes: Duration, failure: Option<io::ErrorKind>) -> Self {
        Self { wire, takes, failure, stage: Stage::Unmade }
    }

    /// It is made, and waited for no longer than `until`.
    pub(crate) fn begin(&mut self, now: Instant, until: Option<Instant>) {
        let at = now + self.takes;
        let late = until.filter(|until| *until < at);
        self.failure = late.map(|_| io::ErrorKind::TimedOut).or(self.failure);
        self.stage = Stage::Ringing(late.unwrap_or(at));
    }

    /// Takes the news in; answers whether there were any.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        match self.stage {
            Stage::Ringing(at) if at <= now => {
                self.stage = self.failure.map_or(Stage::Answered, Stage::Failed);
                self.wire.poll(now);
                true
            }
            Stage::Answered => self.wire.poll(now),
            _ => false,
        }
    }

    /// When there are news.
    pub(crate) fn next_news(&self) -> Option<Instant> {
        match self.stage {
            Stage::Ringing(at) => Some(at),
            Stage::Answered => self.wire.plug.next_news(),
            Stage::Unmade | Stage::Failed(_) => None,
        }
    }

    /// The wire, which may not be there yet.
    pub(crate) fn wire_ref(&self) -> &Wire {
        &self.wire
    }

    /// The wire, once it is there.
    pub(crate) fn wire(&mut self) -> Option<&mut Wire> {
        (self.stage == Stage::Answered).then_some(&mut self.wire)
    }
}

impl End for Call {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        match self.stage {
            Stage::Unmade => panic!("used before it was made"),
            Stage::Ringing(_) => Ok(Progress::Moved(0)),
            Stage::Answered => self.wire.exchange(to, from, turn),
            Stage::Failed(kind) => Err(kind.into()),
        }
    }

    fn standing(&self) -> Standing<'_> {
        Standing { is_up: self.stage == Stage::Answered, ..Standing::UP }
    }

    fn has_carried(&self) -> bool {
        self.stage == Stage::Answered
    }

    fn is_reached(&self) -> bool {
        self.stage == Stage::Answered
    }

    fn cut_off(&mut self) {
        if let Some(wire) = self.wire() {
            wire.cut_off();
        }
    }
}
