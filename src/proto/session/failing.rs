//! What becomes of a session whose end has failed: what that end had said before goes on to the
//! other one, which is then told. A server may answer a request that it does not want to read, and
//! close; its answer arrives first and is worth more than the news that nothing can be sent to it.
//!
//! The end that failed is either *lost*, and says nothing more, or *deaf*: it takes nothing, but
//! what it had said lies in the kernel and is read to the end. What the other end still says reaches
//! nobody: that of a peer is thrown away, that of a local end stays where it is and holds it up.
//!
//! A stream that came to its end ends at the other side too. One that did not is cut off there by a
//! reset; not before the bytes ahead of it are on their way, and not while the peer still sends,
//! though only for a while: on many systems a reset takes from its receiver what it has not read.
//! That is for the peer's sake, who may be uploading when it is answered. A target that goes on
//! sending to a client that has left is told at once.

use std::io;
use std::time::{Duration, Instant};

use super::{CLOSING_LIMIT, CloseReason, LAST_WORD_LIMIT, Session, State};
use crate::proto::end::{End, Progress, Side, Turn};
use crate::proto::pipe::Pipe;

/// How long a peer that sends has to be silent to be counted as done.
const QUIET: Duration = Duration::from_millis(250);

/// An end has failed.
#[derive(Debug)]
pub(super) struct Failing {
    /// Which, and why.
    pub(super) reason: CloseReason,
    side: Side,
    /// When something of what it said was delivered, or else when it failed.
    delivered: Instant,
    /// When something that was to go to it was thrown away.
    dropped: Option<Instant>,
    /// Whether all that it said is on its way.
    has_sent_all: bool,
}

impl<R: End, L: End> Session<R, L> {
    /// The end at `side` takes nothing more, and may still have said something.
    pub(super) fn go_deaf(
        &mut self,
        side: Side,
        kind: io::ErrorKind,
        turn: &mut Turn<'_>,
    ) -> Result<usize, CloseReason> {
        self.begin_failing(side, kind.into(), turn)
    }

    /// The end at `side` says nothing more.
    pub(super) fn lose(
        &mut self,
        side: Side,
        error: io::Error,
        turn: &mut Turn<'_>,
    ) -> Result<usize, CloseReason> {
        self.ways_of(side).0.cut();
        self.begin_failing(side, error, turn)
    }

    fn begin_failing(
        &mut self,
        side: Side,
        error: io::Error,
        turn: &mut Turn<'_>,
    ) -> Result<usize, CloseReason> {
        let reason = self.fail(side, error);
        let has_spoken = side == Side::Remote || self.local.has_carried();
        // Nobody is called for a peer that has gone.
        let is_heard = side == Side::Local || self.local.is_reached();
        let is_told = self.ways_of(side).0.is_finished();
        if !matches!(self.state, State::Established) || !has_spoken || !is_heard || is_told {
            return Err(reason);
        }
        let (dropped, has_sent_all) = (None, false);
        let failing = Failing { reason, side, delivered: turn.now, dropped, has_sent_all };
        self.enter(State::Failing(failing), turn);
        Ok(1)
    }

    /// The pipe from the end at `side`, and the pipe to it.
    fn ways_of(&mut self, side: Side) -> (&mut Pipe, &mut Pipe) {
        match side {
            Side::Remote => (&mut self.inward, &mut self.outward),
            Side::Local => (&mut self.outward, &mut self.inward),
        }
    }

    fn exchange_at(&mut self, side: Side, turn: &mut Turn<'_>) -> io::Result<Progress> {
        match side {
            Side::Remote => self.remote.exchange(&mut self.outward, &mut self.inward, turn),
            Side::Local => self.local.exchange(&mut self.inward, &mut self.outward, turn),
        }
    }

    /// Lets both ends have an exchange, as far as they can.
    pub(super) fn deliver_last_words(&mut self, turn: &mut Turn<'_>) -> Result<usize, CloseReason> {
        let State::Failing(Failing { reason, side, .. }) = self.state else { return Ok(0) };
        let mut moved = 0;
        if self.ways_of(side).0.is_open() {
            moved += match self.exchange_at(side, turn) {
                Ok(Progress::Moved(count)) => count,
                Ok(Progress::Done | Progress::Broken | Progress::Deaf(_)) | Err(_) => {
                    self.ways_of(side).0.cut();
                    1
                }
            };
        }
        let waiting = self.ways_of(side).0.len();
        let Ok(Progress::Moved(count)) = self.exchange_at(side.other(), turn) else {
            return Err(reason);
        };
        moved += count;
        let (words, _) = self.ways_of(side);
        let (has_delivered, has_spoken) = (words.len() < waiting, words.carried() > 0);
        let dropped = match side {
            Side::Remote => 0,
            Side::Local => self.drop_input(turn),
        };
        moved += dropped;
        if moved == 0 && side == Side::Remote && self.is_held_up(turn) {
            return Err(reason);
        }
        if let State::Failing(failing) = &mut self.state {
            if has_delivered {
                failing.delivered = turn.now;
            }
            // Nothing can be taken from a peer that was told nothing.
            if dropped > 0 && has_spoken {
                failing.dropped = Some(turn.now);
            }
        }
        self.tell_failure(turn.now)?;
        Ok(moved)
    }

    /// Whether a service waits for its output to go to a peer that takes none, before it takes more.
    fn is_held_up(&self, turn: &Turn<'_>) -> bool {
        let may_go_on = self.inward.wants_more(turn.pool) || self.outward.is_empty();
        !may_go_on && !self.local.has_carried() && self.local.has_sent_all()
    }

    /// Tells the other end, when it is time.
    ///
    /// # Errors
    /// It was told, and the session is over.
    fn tell_failure(&mut self, now: Instant) -> Result<(), CloseReason> {
        let State::Failing(Failing { reason, side, has_sent_all, .. }) = self.state else {
            return Ok(());
        };
        let (words, upload) = self.ways_of(side);
        let (is_cut, is_told) = (words.is_cut() && words.is_exhausted(), words.is_finished());
        let is_over = upload.is_finished();
        if is_told && is_over {
            return Err(reason);
        }
        let is_due = is_cut || (is_told && side == Side::Remote);
        if !is_due {
            return Ok(());
        }
        // An end that has sent all is not asked again: each question brings an event, which would be
        // the next run, and so on for as long as the peer is heard out.
        let has_sent_all = has_sent_all
            || match side {
                Side::Remote => self.local.has_sent_all(),
                Side::Local => self.remote.has_sent_all(),
            };
        let State::Failing(failing) = &mut self.state else { return Ok(()) };
        failing.has_sent_all = has_sent_all;
        if !has_sent_all || failing.lingers_until(is_over).is_some_and(|until| now < until) {
            return Ok(());
        }
        match side {
            Side::Remote => self.local.cut_off(),
            Side::Local => self.remote.cut_off(),
        }
        if is_cut {
            self.ways_of(side).0.finish();
        }
        Err(reason)
    }

    /// When it is over, whatever has been delivered until then.
    pub(super) fn failing_until(&self) -> Option<Instant> {
        let State::Failing(failing) = &self.state else { return None };
        let (words, upload) = match failing.side {
            Side::Remote => (&self.inward, &self.outward),
            Side::Local => (&self.outward, &self.inward),
        };
        let limit = self.timeouts.half_close.unwrap_or(CLOSING_LIMIT);
        if words.is_finished() {
            return failing.delivered.checked_add(limit.min(LAST_WORD_LIMIT));
        }
        let until = failing.delivered.checked_add(limit);
        if failing.has_sent_all && words.is_cut() && words.is_empty() {
            return [failing.lingers_until(upload.is_finished()), until]
                .into_iter()
                .flatten()
                .min();
        }
        until
    }
}

impl Failing {
    /// How long a peer that was sending when its target failed is heard out.
    fn lingers_until(&self, is_over: bool) -> Option<Instant> {
        let dropped = self.dropped.filter(|_| self.side == Side::Local && !is_over)?;
        Some((dropped + QUIET).min(self.delivered + LAST_WORD_LIMIT))
    }
}
