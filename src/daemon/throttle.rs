//! Bounds how often something is said.

use std::fmt;
use std::time::{Duration, Instant};

/// How many lines of one kind a second are worth reading.
const LINES_PER_WINDOW: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Lets a number of lines through each second, and counts those that it kept back.
#[derive(Debug, Default)]
pub struct Throttle {
    window: Option<Instant>,
    said: u32,
    kept_back: u64,
}

impl Throttle {
    /// Whether a line may be said `now`; if so, with the number that was kept back before it.
    pub fn pass(&mut self, now: Instant) -> Option<KeptBack> {
        if self.window.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            self.window = Some(now);
            self.said = 0;
        }
        if self.said == LINES_PER_WINDOW {
            self.kept_back += 1;
            return None;
        }
        self.said += 1;
        Some(KeptBack(std::mem::take(&mut self.kept_back)))
    }
}

/// How many lines were not said; prints as nothing where that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptBack(u64);

impl fmt::Display for KeptBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} lines like this were not logged)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_few_lines_and_a_count() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let passed = (0..1000).filter_map(|_| throttle.pass(start)).count();
        assert_eq!(passed, LINES_PER_WINDOW as usize);
        let next = throttle.pass(start + WINDOW).expect("a new second");
        assert_eq!(next, KeptBack(1000 - u64::from(LINES_PER_WINDOW)));
        assert_eq!(next.to_string(), " (980 lines like this were not logged)");
        assert_eq!(throttle.pass(start + WINDOW), Some(KeptBack(0)));
    }
}
