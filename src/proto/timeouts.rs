//! How long a session may take in each of its states.

use std::time::{Duration, Instant};

/// A deadline that is noticed later than this was not noticed because the whole loop stood still: the
/// process was stopped, or its machine was.
const STANDSTILL: Duration = Duration::from_millis(100);

/// Until when somebody may go on who was in time, as what has come shows, when a deadline at `until` is
/// noticed only `now` because the loop stood still: as much time again as was lost. `None` where none
/// was, so that nobody gains anything from coming at the last moment.
#[must_use]
pub fn given_back(until: Instant, now: Instant) -> Option<Instant> {
    let late = now.checked_duration_since(until).filter(|late| *late > STANDSTILL)?;
    now.checked_add(late)
}

/// How long a session may stay in a condition; `None` is for ever. Where `proxy`, `tls`, `auth` or
/// `half_close` is turned off, `idle` holds in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a header of the PROXY protocol, which has to be whole before its session begins.
    /// Absolute: bytes do not extend it.
    pub proxy: Option<Duration>,
    /// From the beginning until the remote end is up: the TLS handshake. Absolute: bytes do not
    /// extend it.
    pub tls: Option<Duration>,
    /// From then until the gate is passed. Absolute, too.
    pub auth: Option<Duration>,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// Without a byte once one direction has ended; also the limit of Closing, where it is
    /// absolute.
    pub half_close: Option<Duration>,
    /// From the beginning. Absolute.
    pub lifetime: Option<Duration>,
}

impl Timeouts {
    /// No deadline at all.
    pub const NONE: Self =
        Self { proxy: None, tls: None, auth: None, idle: None, half_close: None, lifetime: None };
}

/// What a server does best with where nobody said anything else.
impl Default for Timeouts {
    fn default() -> Self {
        Self {
            proxy: Some(Duration::from_secs(10)),
            tls: Some(Duration::from_secs(10)),
            auth: Some(Duration::from_secs(10)),
            idle: Some(Duration::from_secs(600)),
            half_close: Some(Duration::from_secs(30)),
            lifetime: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_that_was_lost_is_given_back() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        assert_eq!(given_back(after(1), now), None, "there is time left");
        assert_eq!(given_back(now, now), None);
        assert_eq!(given_back(now, after(100)), None, "a turn of a busy loop");
        assert_eq!(given_back(now, after(700)), Some(after(1400)));
    }
}
