//! What a session has to pass before the first byte goes through: the remote end comes up, and then
//! the gate, in either role.

use std::rc::Rc;
use std::time::Instant;

use super::{CloseReason, Session, State};
use crate::proto::end::{End, Turn};
use crate::proto::gate::{CHALLENGE_LEN, Challenge, Digest, Keyring, MAX_ANSWER_LEN, Secret};
use crate::proto::pipe::Pipe;

/// How a session gets past the gate.
pub enum Admission {
    /// There is no gate.
    Open,
    /// Server role: this challenge is sent, and an answer of this keyring expected.
    Guard(Rc<Keyring>, Challenge),
    /// Client role: a challenge is expected, and answered with this secret.
    Guest(Rc<Secret>, Digest),
}

/// What has to be passed before the first byte goes through.
pub(super) enum Admitting {
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

impl<R: End, L: End> Session<R, L> {
    /// Takes the gate one step further.
    pub(super) fn admit(&mut self, turn: &mut Turn<'_>) -> Result<usize, CloseReason> {
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
                } else if self.inward.is_exhausted() {
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
                } else if self.inward.is_exhausted() {
                    return Err(CloseReason::NoChallenge);
                }
            }
        }
        Ok(moved)
    }
}

impl State {
    /// Where `admission` begins, from `now` on.
    pub(super) fn after(admission: Admission, now: Instant) -> Self {
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
pub(super) struct Partial<const N: usize> {
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
