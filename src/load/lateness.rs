//! How late the tester itself was: how long after the moment at which something was due its loop came
//! to it.
//!
//! It is weighted as latency is. A loop that stood still for a second was late by a second for what was
//! due at the beginning of it, by half a second for what was due in the middle, and so on; one sample
//! for the whole second would hide it among those of the time when all was well.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::statistics::new_histogram;

/// From this on, a delay is a pause of the tester, which spoils the times of what was due in it.
pub const PAUSE: Duration = Duration::from_millis(100);

/// How many pauses are kept one by one.
const PAUSES_KEPT: usize = 100;

/// How late the tester was.
#[derive(Debug)]
pub struct Lateness {
    /// In nanoseconds: a sample for each beat that was due.
    pub times: Histogram<u64>,
    /// How long it stood still in all.
    pub paused: Duration,
    /// When the first of its pauses began, and how long they were.
    pub pauses: Vec<(Instant, Duration)>,
    worst: Duration,
}

impl Lateness {
    /// Never late so far.
    #[must_use]
    pub fn new() -> Self {
        Self {
            times: new_histogram(),
            paused: Duration::ZERO,
            pauses: Vec::new(),
            worst: Duration::ZERO,
        }
    }

    /// What was due at `due` was come to `late` later, and more of it was due every `beat` meanwhile.
    pub fn note(&mut self, due: Instant, late: Duration, beat: Duration) {
        self.worst = self.worst.max(late);
        let (late_ns, beat_ns) = (late.as_nanos() as u64, beat.as_nanos() as u64);
        if self.times.record_correct(late_ns, beat_ns).is_err() {
            self.times.saturating_record(late_ns);
        }
        if late >= PAUSE {
            self.paused += late;
            if self.pauses.len() < PAUSES_KEPT {
                self.pauses.push((due, late));
            }
        }
    }

    /// The worst since the last call.
    pub fn take_worst(&mut self) -> Duration {
        std::mem::take(&mut self.worst)
    }
}

impl Default for Lateness {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_for_everything_that_was_due_in_it() {
        let mut lateness = Lateness::new();
        let (now, beat) = (Instant::now(), Duration::from_millis(10));
        for _ in 0..300 {
            lateness.note(now, Duration::from_micros(100), beat);
        }
        lateness.note(now, Duration::from_secs(1), beat);
        // 100 of 400 were due while it stood still, evenly up to a second.
        assert_eq!(lateness.times.len(), 400);
        assert!(lateness.times.value_at_quantile(0.99) > 900_000_000);
        assert!(lateness.times.value_at_quantile(0.70) < 1_000_000);
        assert_eq!((lateness.paused, lateness.pauses.len()), (Duration::from_secs(1), 1));
        assert_eq!(lateness.take_worst(), Duration::from_secs(1));
        assert_eq!(lateness.take_worst(), Duration::ZERO);
    }
}
