//! What the tester itself costs, and what the kernel had to say meanwhile: without it nobody could
//! tell the server's limits from the tester's.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// What this process and this machine's network have used up to a moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    at: Instant,
    user: Duration,
    system: Duration,
    listen_overflows: Option<u64>,
}

/// The difference between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// Processor time in our own code.
    pub user: Duration,
    /// Processor time in the kernel on our behalf.
    pub system: Duration,
    /// Both together, of one core's time.
    pub cpu_share: f64,
    /// Connections that the kernel dropped because a listener's queue was full, on this machine.
    pub listen_overflows: u64,
}

impl Usage {
    /// Up to now.
    #[must_use]
    pub fn now() -> Self {
        let (user, system) = getrusage(UsageWho::RUSAGE_SELF)
            .map(|usage| (duration(usage.user_time()), duration(usage.system_time())))
            .unwrap_or_default();
        let listen_overflows = fs::read_to_string("/proc/net/netstat")
            .ok()
            .and_then(|text| counter(&text, "TcpExt:", "ListenOverflows"));
        Self { at: Instant::now(), user, system, listen_overflows }
    }

    /// From `earlier` until this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Spent {
        let user = self.user.saturating_sub(earlier.user);
        let system = self.system.saturating_sub(earlier.system);
        let wall = self.at.saturating_duration_since(earlier.at).as_secs_f64().max(1e-9);
        let overflows = self.listen_overflows.zip(earlier.listen_overflows);
        Spent {
            user,
            system,
            cpu_share: (user + system).as_secs_f64() / wall,
            listen_overflows: overflows.map_or(0, |(now, then)| now.saturating_sub(then)),
        }
    }
}

/// Memory of this process that is in RAM, in bytes.
#[must_use]
pub fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn duration(time: TimeVal) -> Duration {
    Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
}

/// One counter of a file that has a line of names and a line of figures for each group.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, figures) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|found| found == name)?;
    figures.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 9\n";
        assert_eq!(counter(text, "TcpExt:", "ListenOverflows"), Some(22));
        assert_eq!(counter(text, "TcpExt:", "C"), None);
        assert_eq!(counter(text, "IpExt:", "A"), Some(9));
    }

    #[test]
    fn work_costs_processor_time() {
        let before = Usage::now();
        let mut sum = 0u64;
        while Usage::now().user <= before.user {
            sum = std::hint::black_box(sum.wrapping_mul(31) + 1);
        }
        let spent = Usage::now().since(&before);
        assert!(spent.user > Duration::ZERO && spent.cpu_share > 0.0);
        assert!(resident_memory().is_some_and(|bytes| bytes > 100_000));
    }
}
