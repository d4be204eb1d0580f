//! The second life of a listening socket: when it has died, it is bound anew, with a back-off.
//!
//! Sockets die under a daemon: `ss --kill`, a network manager (`SOCK_DESTROY`), or whoever shares the
//! descriptor and shuts it down. A listener that hears nobody from then on must not look well.

use std::time::{Duration, Instant};

/// The first wait after a death that follows another, and the longest.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// How many errors that pass a socket may meet in a row before it rests, and how often it may rest
/// before it counts as dead.
const ERRORS_IN_A_ROW: u32 = 16;
const RESTS_IN_A_ROW: u32 = 20;
const REST: Duration = Duration::from_millis(100);

/// When to bind anew, and what to think of errors.
#[derive(Debug, Default)]
pub struct Revival {
    /// Deaths, and attempts that failed, since anything was heard.
    failures: u32,
    errors: u32,
    until: Option<Instant>,
}

/// What an error that passes means for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again at once.
    GoOn,
    /// Try again later.
    Rest,
    /// This one does not pass.
    GiveUp,
}

impl Revival {
    /// Something was heard: all is well.
    pub fn note_life(&mut self) {
        *self = Self::default();
    }

    /// The socket has met an error that may pass.
    pub fn note_error(&mut self, now: Instant) -> Next {
        self.errors += 1;
        if !self.errors.is_multiple_of(ERRORS_IN_A_ROW) {
            return Next::GoOn;
        }
        if self.errors >= ERRORS_IN_A_ROW * RESTS_IN_A_ROW {
            return Next::GiveUp;
        }
        self.until = Some(now + REST);
        Next::Rest
    }

    /// Whether this is the first error in a row, which is worth a line.
    #[must_use]
    pub fn is_first_error(&self) -> bool {
        self.errors == 1
    }

    /// The socket has died, or could not be bound. Answers how long to wait: not at all after the
    /// first death.
    pub fn note_death(&mut self, now: Instant) -> Duration {
        let wait = match self.failures {
            0 => Duration::ZERO,
            count => SHORTEST.saturating_mul(1 << (count - 1).min(10)).min(LONGEST),
        };
        self.failures = self.failures.saturating_add(1);
        self.errors = 0;
        self.until = Some(now + wait);
        wait
    }

    /// Whether there is still something to wait for.
    pub fn is_waiting(&mut self, now: Instant) -> bool {
        self.until = self.until.filter(|until| *until > now);
        self.until.is_some()
    }

    /// When to try again.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_is_followed_at_once_and_each_next_one_later() {
        let (mut revival, now) = (Revival::default(), Instant::now());
        let waits: Vec<_> = (0..10).map(|_| revival.note_death(now).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert!(revival.is_waiting(now) && !revival.is_waiting(now + LONGEST));
        assert_eq!(revival.deadline(), None);
        revival.note_life();
        assert_eq!(revival.note_death(now), Duration::ZERO);
    }

    #[test]
    fn errors_pass_unless_nothing_else_ever_comes() {
        let (mut revival, now) = (Revival::default(), Instant::now());
        assert_eq!(revival.note_error(now), Next::GoOn);
        assert!(revival.is_first_error());
        let all: Vec<_> = (1..320).map(|_| revival.note_error(now)).collect();
        assert!(!revival.is_first_error());
        assert_eq!(all.iter().filter(|next| **next == Next::Rest).count(), 19);
        assert_eq!(all.last(), Some(&Next::GiveUp));
        revival.note_life();
        assert!((0..15).all(|_| revival.note_error(now) == Next::GoOn));
        assert_eq!(revival.note_error(now), Next::Rest);
        assert_eq!(revival.deadline(), Some(now + REST));
    }
}
