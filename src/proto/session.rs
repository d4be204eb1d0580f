//! The session: a state machine that joins two ends.
//!
//! ```text
//!             +-------------- AuthPending --------------+
//!   secure    |  the remote end comes up: TLS makes its |
//!             |  handshake, all others are up already   |
//!   gate      |  challenge out, answer in (or reversed) |  wrong, late, gone
//!             +---------+---------------------+---------+----------> closed
//!                       | admitted (at once   | the handshake failed: Closing,
//!                       | where nothing has   | for its alert must still arrive
//!                       v to be passed)
//!             +-------------- Established --------------+
//!   pump      |  remote -> inward  -> local             |  both directions ended,
//!             |  remote <- outward <- local             |  failed, idle, too old
//!             +----------------+------------------------+----------> closed
//!                              | the local end is done, or the
//!                              v remote end's protocol was broken
//!             +---------------- Closing ----------------+
//!   linger    |  send what waits, then the end; discard  |  peer closed too, or
//!             |  what still comes, so that no reset      |  took too long
//!             |  overtakes the last bytes                |
//!             +-----------------------------------------+----------> closed
//! ```
//!
//! All state changes stand in this file, on one enum; an illegal one is an assertion. The session
//! owns two [`Pipe`]s, so it never holds more than two blocks of storage, and next to nothing where a
//! few bytes wait. Time, storage and the
//! challenge are arguments: this same code runs on sockets and under the simulator.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::end::{End, Progress, Side, Standing, Turn};
use super::event::{Event, Summary};
use super::gate::{CHALLENGE_LEN, Challenge, Digest, Keyring, MAX_ANSWER_LEN, Secret};
use super::pipe::Pipe;
pub use super::reason::{CloseReason, Deadline, StateName};
pub use super::timeouts::Timeouts;
use super::timeouts::given_back;

/// How many bytes one session may move in one turn before the others get theirs. A session that
/// is stopped by it stays due and goes on in the next turn.
pub const TURN_BUDGET: usize = 256 * 1024;

/// How long a closing session may take where no half-close deadline is set.
const CLOSING_LIMIT: Duration = Duration::from_secs(30);

/// How long a peer that broke the rules has to hear that it did, and to go.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(2);

/// How a session gets past the gate.
pub enum Admission {
    /// There is no gate.
    Open,
    /// Server role: this challenge is sent, and an answer of this keyring expected.
    Guard(Rc<Keyring>, Challenge),
    /// Client role: a challenge is expected, and answered with this secret.
    Guest(Rc<Secret>, Digest),
}

/// What a run of a session came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing moves: run again after readiness or a deadline.
    Wait,
    /// The turn's budget is spent: run again in the next turn.
    Again,
    /// It is over.
    Close(CloseReason),
}

/// Where a session stands, with what only that state needs.
enum State {
    /// What is to be passed first, and since when.
    AuthPending(Admitting, Instant),
    Established,
    /// Why, and how far the peer had come.
    Closing(CloseReason, Reached),
}

/// How far a peer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The remote end was not up yet.
    Nothing,
    /// It was asked who it is.
    Gate,
    /// It was let in.
    Inside,
}

/// What has to be passed before the first byte goes through.
enum Admitting {
    /// The remote end is coming up; this comes after it.
    Securing(Admission),
    Guard {
        keyring: Rc<Keyring>,
        challenge: Challenge,
        asked: bool,
        answer: Partial<MAX_ANSWER_LEN>,
    },
    Guest {
        secret: Rc<Secret>,
        digest: Digest,
        challenge: Partial<CHALLENGE_LEN>,
    },
}

/// Two ends, a pipe each way, and the state of what is between them.
pub struct Session<R, L> {
    remote: R,
    local: L,
    inward: Pipe,
    outward: Pipe,
    state: State,
    timeouts: Rc<Timeouts>,
    identity: Option<Rc<str>>,
    /// What an end said when it failed.
    failure: Option<io::Error>,
    opened: Instant,
    /// The last time that anything moved; in Closing, the time at which it began.
    touched: Instant,
}

impl<R: End, L: End> Session<R, L> {
    /// A session between `remote` and `local` that begins `now`.
    pub fn new(
        remote: R,
        local: L,
        admission: Admission,
        timeouts: Rc<Timeouts>,
        now: Instant,
    ) -> Self {
        let state = if remote.standing().is_up {
            State::after(admission, now)
        } else {
            State::AuthPending(Admitting::Securing(admission), now)
        };
        Self {
            remote,
            local,
            inward: Pipe::new(),
            outward: Pipe::new(),
            state,
            timeouts,
            identity: None,
            failure: None,
            opened: now,
            touched: now,
        }
    }

    /// Moves bytes until nothing moves or [`TURN_BUDGET`] is spent, and then looks at the deadlines.
    pub fn run(&mut self, turn: &mut Turn<'_>) -> Step {
        self.run_within(&mut { TURN_BUDGET }, turn)
    }

    /// Moves bytes until nothing moves or `budget`, a number of bytes, is spent, and then looks at
    /// the deadlines: what has come in time counts, however late this turn is. Bytes put off those
    /// deadlines alone that are about silence, unless [the loop stood still](given_back). What is
    /// left of the budget is left in it.
    pub fn run_within(&mut self, budget: &mut usize, turn: &mut Turn<'_>) -> Step {
        let mut has_moved = false;
        let step = loop {
            match self.pump(turn) {
                Ok(0) => {
                    self.inward.settle(turn.pool);
                    self.outward.settle(turn.pool);
                    break Step::Wait;
                }
                Ok(moved) => {
                    if !matches!(self.state, State::Closing(..)) {
                        self.touched = turn.now;
                    }
                    has_moved = true;
                    *budget = budget.saturating_sub(moved);
                    if *budget == 0 {
                        break Step::Again;
                    }
                }
                Err(reason) => return Step::Close(reason),
            }
        };
        self.judge(has_moved, turn).map_or(step, Step::Close)
    }

    /// Why it is over, where a deadline has passed.
    fn judge(&mut self, has_moved: bool, turn: &mut Turn<'_>) -> Option<CloseReason> {
        let is_due = |(at, _): &(Instant, Deadline)| *at <= turn.now;
        let (at, mut deadline) = self.next_deadline().filter(is_due)?;
        if let (Deadline::Tls | Deadline::Auth, State::AuthPending(_, since), true) =
            (deadline, &mut self.state, has_moved)
            && let Some(until) = given_back(at, turn.now)
        {
            *since += until - at;
            (_, deadline) = self.next_deadline().filter(is_due)?;
        }
        turn.watch.report(&Event::Deadline(deadline));
        Some(match self.state {
            // That a peer which broke the rules does not leave by itself is no news.
            State::Closing(reason @ (CloseReason::Handshake | CloseReason::Broken), _) => reason,
            _ => CloseReason::Deadline(deadline),
        })
    }

    /// When to run again even if nothing becomes ready, or `None` for never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.next_deadline().map(|(at, _)| at)
    }

    /// Gives the storage back, and lets no stream seem to end here that did not. The session is
    /// over; what waits is lost.
    pub fn dispose(&mut self, turn: &mut Turn<'_>, reason: &CloseReason) {
        let Standing { identity, cause, .. } = self.remote.standing();
        let left_silently = self.left_silently(reason);
        turn.watch.report(&Event::Closed(&Summary {
            reason,
            failure: self.failure.as_ref(),
            cause,
            state: self.state_name(),
            was_admitted: self.was_admitted(),
            left_silently,
            was_declined: self.local.has_declined(),
            identity: self.identity.as_deref(),
            certificate: identity,
            route: &Route(&self.local),
            received: self.inward.carried(),
            sent: self.outward.carried(),
            age: turn.now.saturating_duration_since(self.opened),
        }));
        self.cut_off(reason);
        self.inward.discard(turn.pool);
        self.outward.discard(turn.pool);
        self.remote.dispose(turn.pool);
        self.local.dispose(turn.pool);
    }

    /// A relay is no place for a stream to end: one that was cut off ends with a reset, so that
    /// nobody takes a part for the whole, and what failed at one side is a failure at the other.
    ///
    /// Where nobody failed and waiting was given up here, a stream whose end was passed on is spared:
    /// it is whole, and a reset would only take its last bytes out of the kernel before a slow reader
    /// had them.
    fn cut_off(&mut self, reason: &CloseReason) {
        if !reason.is_cut_off() {
            return;
        }
        let spares_whole = reason.is_given_up();
        if self.local.has_carried() && !(spares_whole && self.outward.is_finished()) {
            self.remote.cut_off();
        }
        if !(spares_whole && self.inward.is_finished()) {
            self.local.cut_off();
        }
    }

    /// Whether the last byte and the end have been passed to the remote end.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.outward.is_finished()
    }

    /// Where the session stands.
    #[must_use]
    pub fn state_name(&self) -> StateName {
        match self.state {
            State::AuthPending(..) => StateName::AuthPending,
            State::Established => StateName::Established,
            State::Closing(..) => StateName::Closing,
        }
    }

    /// Whether the peer has been let in.
    #[must_use]
    pub fn was_admitted(&self) -> bool {
        self.reached() == Reached::Inside
    }

    /// How far the peer has come.
    #[must_use]
    pub fn reached(&self) -> Reached {
        match self.state {
            State::AuthPending(Admitting::Securing(_), _) => Reached::Nothing,
            State::AuthPending(..) => Reached::Gate,
            State::Established => Reached::Inside,
            State::Closing(_, reached) => reached,
        }
    }

    /// Whether a peer that was not let in has left by itself without a byte, as those do who only look
    /// whether somebody listens.
    #[must_use]
    pub fn left_silently(&self, reason: &CloseReason) -> bool {
        let said_nothing = match self.reached() {
            Reached::Nothing => !self.remote.standing().has_heard,
            // A handshake may be part of the look.
            Reached::Gate => self.inward.carried() == 0,
            Reached::Inside => false,
        };
        let left = matches!(
            reason,
            CloseReason::LeftAtGate | CloseReason::Handshake | CloseReason::Failed(Side::Remote, _)
        );
        said_nothing && left
    }

    /// Whether the peer has been let in and has broken no rule since: it has earned its place.
    #[inline]
    #[must_use]
    pub fn is_served(&self) -> bool {
        match self.state {
            State::Established => true,
            State::AuthPending(..) => false,
            State::Closing(reason, _) => {
                !matches!(reason, CloseReason::Handshake | CloseReason::Broken)
            }
        }
    }

    /// The name of the secret that let the peer in.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// Whether the remote end is still coming up.
    #[must_use]
    pub fn is_securing(&self) -> bool {
        matches!(self.state, State::AuthPending(Admitting::Securing(_), _))
    }

    /// The end that faces the network.
    pub fn remote(&mut self) -> &mut R {
        &mut self.remote
    }

    /// The same, to be looked at.
    pub fn remote_ref(&self) -> &R {
        &self.remote
    }

    /// The end that an admitted peer talks to.
    pub fn local(&mut self) -> &mut L {
        &mut self.local
    }

    /// The same, to be looked at.
    pub fn local_ref(&self) -> &L {
        &self.local
    }

    /// The bytes received from the remote end and those sent to it, the gate's included.
    #[must_use]
    pub fn carried(&self) -> (u64, u64) {
        (self.inward.carried(), self.outward.carried())
    }

    /// Lets each end have one exchange; answers how much moved, or why it is over.
    fn pump(&mut self, turn: &mut Turn<'_>) -> Result<usize, CloseReason> {
        let mut moved = match self.remote.exchange(&mut self.outward, &mut self.inward, turn) {
            Ok(Progress::Moved(count)) => count,
            Ok(Progress::Done) => return Err(CloseReason::Finished),
            Ok(Progress::Broken) => {
                self.abandon(turn);
                1
            }
            Err(error) => return Err(self.fail_remote(error)),
        };
        moved += match &mut self.state {
            State::AuthPending(..) => self.admit(turn)?,
            State::Established => self.exchange_with_local(turn)?,
            State::Closing(..) => self.drop_input(turn),
        };
        if self.inward.is_finished() && self.outward.is_finished() {
            return Err(match self.state {
                State::Closing(reason, _) => reason,
                _ if self.remote.standing().was_truncated => CloseReason::Truncated,
                _ => CloseReason::Finished,
            });
        }
        Ok(moved)
    }

    fn exchange_with_local(&mut self, turn: &mut Turn<'_>) -> Result<usize, CloseReason> {
        match self.local.exchange(&mut self.inward, &mut self.outward, turn) {
            Ok(Progress::Moved(count)) => Ok(count),
            Ok(Progress::Done) => {
                self.close_with(CloseReason::Served, turn);
                Ok(1)
            }
            Ok(Progress::Broken) => {
                let why = "the other end broke the rules of its protocol";
                let broken = io::Error::new(io::ErrorKind::InvalidData, why);
                Err(self.fail(Side::Local, broken))
            }
            Err(error) => Err(self.fail(Side::Local, error)),
        }
    }

    /// Nothing more can be said to the peer, but for what the remote end says by itself.
    fn abandon(&mut self, turn: &mut Turn<'_>) {
        let reason = match self.state {
            State::AuthPending(Admitting::Securing(_), _) => CloseReason::Handshake,
            State::AuthPending(..) | State::Established => CloseReason::Broken,
            State::Closing(..) => return,
        };
        self.outward.discard(turn.pool);
        self.close_with(reason, turn);
    }

    fn close_with(&mut self, reason: CloseReason, turn: &mut Turn<'_>) {
        self.outward.end();
        self.enter(State::Closing(reason, self.reached()), turn);
        self.touched = turn.now;
    }

    /// The remote end failed. That a peer leaves without a farewell is only a failure where bytes
    /// were being carried.
    fn fail_remote(&mut self, error: io::Error) -> CloseReason {
        match self.state {
            State::Closing(reason, _) if error.kind() == io::ErrorKind::UnexpectedEof => reason,
            State::AuthPending(Admitting::Guard { .. }, _)
                if error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                CloseReason::LeftAtGate
            }
            _ => self.fail(Side::Remote, error),
        }
    }

    fn fail(&mut self, side: Side, error: io::Error) -> CloseReason {
        let kind = error.kind();
        self.failure = Some(error);
        CloseReason::Failed(side, kind)
    }

    fn drop_input(&mut self, turn: &mut Turn<'_>) -> usize {
        let dropped = self.inward.discard(turn.pool);
        if self.inward.is_drained() {
            self.inward.finish();
            return dropped + 1;
        }
        dropped
    }

    /// Takes the gate one step further.
    fn admit(&mut self, turn: &mut Turn<'_>) -> Result<usize, CloseReason> {
        let State::AuthPending(admitting, _) = &mut self.state else { return Ok(0) };
        let mut moved = 0;
        match admitting {
            Admitting::Securing(_) if !self.remote.standing().is_up => {}
            Admitting::Securing(admission) => {
                let admission = std::mem::replace(admission, Admission::Open);
                self.enter(State::after(admission, turn.now), turn);
                moved += 1;
            }
            Admitting::Guard { keyring, challenge, asked, answer } => {
                if !*asked {
                    moved += self.outward.append(turn.pool, challenge);
                    assert_eq!(moved, CHALLENGE_LEN, "a challenge fits an empty buffer");
                    *asked = true;
                }
                moved += answer.take(keyring.digest().answer_len(), &mut self.inward, turn);
                if let Some(answer) = answer.whole(keyring.digest().answer_len()) {
                    let name = keyring.verify(challenge, answer);
                    self.identity = Some(name.ok_or(CloseReason::Refused)?);
                    self.enter(State::Established, turn);
                } else if self.inward.is_drained() {
                    return Err(CloseReason::LeftAtGate);
                }
            }
            Admitting::Guest { secret, digest, challenge } => {
                moved += challenge.take(CHALLENGE_LEN, &mut self.inward, turn);
                if let Some(challenge) = challenge.whole(CHALLENGE_LEN) {
                    let challenge = challenge.try_into().expect("whole challenges have its length");
                    let answer = secret.answer(*digest, challenge);
                    moved += self.outward.append(turn.pool, answer.as_bytes());
                    self.enter(State::Established, turn);
                } else if self.inward.is_drained() {
                    return Err(CloseReason::NoChallenge);
                }
            }
        }
        Ok(moved)
    }

    fn enter(&mut self, next: State, turn: &mut Turn<'_>) {
        let before = self.state_name();
        self.state = next;
        let after = self.state_name();
        assert!(
            matches!(
                (before, &self.state),
                (StateName::AuthPending, State::AuthPending(..) | State::Established)
                    | (
                        StateName::AuthPending,
                        State::Closing(CloseReason::Handshake | CloseReason::Broken, _)
                    )
                    | (StateName::Established, State::Closing(..))
            ),
            "a session went from {before} to {after}"
        );
        turn.watch.detail(|| Event::State(before, after));
    }

    /// The deadline that comes first, and when.
    fn next_deadline(&self) -> Option<(Instant, Deadline)> {
        let timeouts = &*self.timeouts;
        let after = |since: Instant, limit: Option<Duration>, deadline| {
            limit.and_then(|limit| Some((since.checked_add(limit)?, deadline)))
        };
        let is_half_closed = !self.inward.is_open() || !self.outward.is_open();
        let condition = match self.state {
            State::AuthPending(Admitting::Securing(_), since) if timeouts.tls.is_some() => {
                after(since, timeouts.tls, Deadline::Tls)
            }
            State::AuthPending(Admitting::Guard { .. } | Admitting::Guest { .. }, since)
                if timeouts.auth.is_some() =>
            {
                after(since, timeouts.auth, Deadline::Auth)
            }
            State::Established if is_half_closed && timeouts.half_close.is_some() => {
                after(self.touched, timeouts.half_close, Deadline::HalfClose)
            }
            State::AuthPending(..) | State::Established => {
                after(self.touched, timeouts.idle, Deadline::Idle)
            }
            State::Closing(CloseReason::Handshake | CloseReason::Broken, _) => {
                after(self.touched, Some(LAST_WORD_LIMIT), Deadline::Closing)
            }
            State::Closing(..) => {
                let limit = timeouts.half_close.unwrap_or(CLOSING_LIMIT);
                after(self.touched, Some(limit), Deadline::Closing)
            }
        };
        let lifetime = after(self.opened, timeouts.lifetime, Deadline::Lifetime);
        match (condition, lifetime) {
            (Some(one), Some(other)) => Some(if one.0 <= other.0 { one } else { other }),
            (one, other) => one.or(other),
        }
    }
}

/// Where the bytes of a session go on to.
struct Route<'a, L>(&'a L);

impl<L: End> fmt::Display for Route<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_route(f)
    }
}

impl State {
    /// Where `admission` begins, from `now` on.
    fn after(admission: Admission, now: Instant) -> Self {
        let admitting = match admission {
            Admission::Open => return Self::Established,
            Admission::Guard(keyring, challenge) => {
                Admitting::Guard { keyring, challenge, asked: false, answer: Partial::new() }
            }
            Admission::Guest(secret, digest) => {
                Admitting::Guest { secret, digest, challenge: Partial::new() }
            }
        };
        Self::AuthPending(admitting, now)
    }
}

/// Up to `N` bytes that arrive in pieces. They wait here and not in a pipe, so that a peer that
/// stops in the middle of the gate holds no pooled storage.
struct Partial<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> Partial<N> {
    fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    fn take(&mut self, wanted: usize, from: &mut Pipe, turn: &mut Turn<'_>) -> usize {
        let len = self.len as usize;
        let count = from.len().min(wanted - len);
        self.bytes[len..len + count].copy_from_slice(&from.bytes()[..count]);
        self.len += count as u8;
        from.consume(turn.pool, count);
        count
    }

    fn whole(&self, wanted: usize) -> Option<&[u8]> {
        (self.len as usize == wanted).then_some(&self.bytes[..wanted])
    }
}

#[cfg(test)]
mod tests;
