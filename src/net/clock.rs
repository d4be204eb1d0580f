//! The wall clock of this machine.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::proto::end::Clock;

/// The system's clock in the zone that was the system's when the daemon started. The zone is
/// read once, because reading it again would be a file read in the loop.
pub struct SystemClock {
    zone: TimeZone,
}

impl SystemClock {
    /// Reads the system's time zone: `TZ`, or `/etc/localtime`.
    #[must_use]
    pub fn new() -> Self {
        Self { zone: TimeZone::system() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn local_time(&self) -> jiff::Zoned {
        Timestamp::now().to_zoned(self.zone.clone())
    }
}
