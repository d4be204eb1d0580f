//! Exact wake-ups, for the few sources that pace others.
//!
//! The [wheel](super::timer) is made for deadlines that move with every message and nearly never
//! come, and is as coarse as they allow. An alarm comes always, and a load that is to begin at a
//! moment must not begin 32 ms later. `poll` itself counts in milliseconds, so the soonest alarm
//! is set in a `timerfd_create(2)` timer, whose readiness ends the sleep.
//!
//! Invariant: the timer is set to the soonest alarm, or to an earlier moment, before each sleep.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// The alarms of one reactor, soonest first, each with what says who is woken. No timer exists
/// before the first alarm.
#[derive(Debug)]
pub(super) struct Alarms<T> {
    waiting: BinaryHeap<Reverse<(Instant, T)>>,
    timer: Option<TimerFd>,
    set_for: Option<Instant>,
}

impl<T: Ord + Copy> Alarms<T> {
    /// No alarm.
    pub(super) fn new() -> Self {
        Self { waiting: BinaryHeap::new(), timer: None, set_for: None }
    }

    /// Wakes `sleeper` at `at`.
    pub(super) fn add(&mut self, at: Instant, sleeper: T) {
        self.waiting.push(Reverse((at, sleeper)));
    }

    /// Sets the timer, where the soonest alarm needs it; events for it carry `token`.
    ///
    /// # Errors
    /// Those of `timerfd_create(2)`, `timerfd_settime(2)` and `epoll_ctl(2)`.
    pub(super) fn arm(
        &mut self,
        now: Instant,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        let Some(&Reverse((soonest, _))) = self.waiting.peek() else { return Ok(()) };
        if self.set_for.is_some_and(|at| at <= soonest && at > now) {
            return Ok(());
        }
        let timer = match &mut self.timer {
            Some(timer) => timer,
            none => {
                let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
                let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
                let descriptor = timer.as_fd().as_raw_fd();
                registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
                none.insert(timer)
            }
        };
        // A timer of zero would be none at all.
        let after = soonest.saturating_duration_since(now).max(Duration::from_nanos(1));
        let after = TimeSpec::from_duration(after);
        timer.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())?;
        self.set_for = Some(soonest);
        Ok(())
    }

    /// Takes out one sleeper whose alarm has come by `now`, or `None` when there is none left.
    pub(super) fn expire(&mut self, now: Instant) -> Option<T> {
        let soonest = self.waiting.peek_mut()?;
        let Reverse((at, sleeper)) = *soonest;
        (at <= now).then(|| {
            PeekMut::pop(soonest);
            sleeper
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_come_in_order_and_never_early() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let mut alarms = Alarms::new();
        alarms.add(after(2), (1, 0));
        alarms.add(after(1), (2, 0));
        alarms.add(after(3), (3, 0));
        assert_eq!(alarms.expire(now), None);
        assert_eq!(alarms.expire(after(2)), Some((2, 0)));
        assert_eq!(alarms.expire(after(2)), Some((1, 0)));
        assert_eq!(alarms.expire(after(2)), None);
        assert_eq!(alarms.expire(after(9)), Some((3, 0)));
    }
}
