//! What all sources of the daemon share.

use std::io;
use std::time::Instant;

use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::{Zeroize, Zeroizing};

use super::admissions::Admissions;
use super::loops::Loops;
use super::open_error::OpenError;
use super::own_calls::OwnCalls;
use crate::net::clock::SystemClock;
use crate::net::reactor::Next;
use crate::net::resolver::Names;
use crate::proto::gate::{CHALLENGE_LEN, Challenge};

/// The state of the daemon that is not any one source's.
pub struct Host {
    /// Tells the local time.
    pub clock: SystemClock,
    /// Challenges that were never sent before.
    pub nonces: Nonces,
    /// Who is in, and who was turned away.
    pub admissions: Admissions,
    /// What is known of host names.
    pub names: Names,
    /// Whom datagram services may answer.
    pub loops: Loops,
    /// Connections that the daemon has made, in case they come back to it.
    pub own_calls: OwnCalls,
    /// How many listeners are open, or about to be again.
    pub listening: usize,
    /// Whether to go on.
    pub phase: Phase,
    /// Why a listener could not begin, for whoever starts the daemon.
    pub failure: Option<OpenError>,
}

impl AsMut<Names> for Host {
    fn as_mut(&mut self) -> &mut Names {
        &mut self.names
    }
}

/// The life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connections are accepted and served.
    Running,
    /// No connection is accepted any more; those that are open may finish until this moment.
    Draining(Instant),
    /// Every connection is to be closed.
    Stopping,
}

impl Host {
    /// What a listener does next that tried to register itself.
    pub fn begin_listening(&mut self, name: &str, outcome: io::Result<()>) -> Next {
        match outcome {
            Ok(()) => {
                self.listening += 1;
                Next::Wait
            }
            Err(error) => {
                self.failure = Some(OpenError::Register { name: name.to_owned(), error });
                Next::Close
            }
        }
    }

    /// A listener has closed: whoever waited there before the stop was let in.
    pub fn end_listening(&mut self) {
        self.listening -= 1;
    }

    /// Whether there is nothing left to wait for.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase != Phase::Running && self.admissions.open() == 0 && self.listening == 0
    }
}

/// How many challenges one system call fetches.
const NONCE_BATCH: usize = 32;

/// Challenges from the operating system's random source, fetched in batches so that an accepted
/// connection does not pay for a system call of its own. Each is handed out once and wiped here.
pub struct Nonces {
    stock: Zeroizing<[u8; NONCE_BATCH * CHALLENGE_LEN]>,
    left: usize,
}

impl Nonces {
    /// An empty stock; the first challenge fetches a batch.
    #[must_use]
    pub fn new() -> Self {
        Self { stock: Zeroizing::new([0; NONCE_BATCH * CHALLENGE_LEN]), left: 0 }
    }

    /// A fresh challenge.
    ///
    /// # Errors
    /// Where the operating system gives no randomness; nobody can be admitted then.
    pub fn fresh(&mut self) -> io::Result<Challenge> {
        if self.left == 0 {
            SysRng.try_fill_bytes(&mut self.stock[..]).map_err(io::Error::other)?;
            self.left = NONCE_BATCH;
        }
        self.left -= 1;
        let mut challenge = [0; CHALLENGE_LEN];
        let stored = &mut self.stock[self.left * CHALLENGE_LEN..][..CHALLENGE_LEN];
        challenge.copy_from_slice(stored);
        stored.zeroize();
        Ok(challenge)
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_challenge_comes_twice() {
        let mut nonces = Nonces::new();
        let many: HashSet<Challenge> =
            (0..NONCE_BATCH * 3).map(|_| nonces.fresh().expect("randomness")).collect();
        assert_eq!(many.len(), NONCE_BATCH * 3);
        assert!(!many.contains(&[0; CHALLENGE_LEN]));
    }
}
