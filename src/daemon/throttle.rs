//! Bounds how often something is said of peers, and says how much was not.
//!
//! Each listener, kind of line and address has lines of its own, so that nobody's noise hides another's,
//! let alone what the daemon says of itself. Together they have a bound, too, for a flood may come from
//! everywhere. What was held back is counted by address, and said soon.
//!
//! Invariant: every line is let through or counted; the table has a bound, and those that find no place
//! in it share one for each listener and kind.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::proto::quote::Value;

/// After so long without a line, all of a rate is there again.
const REST: Duration = Duration::from_secs(2);

/// When what was held back is said. Within ten seconds was promised.
const REPORT_AFTER: Duration = Duration::from_secs(5);

/// How many addresses are told apart, of all listeners and kinds together.
const PLACES: usize = 4096;

/// How many addresses are named that most was held back of.
const NAMED: usize = 5;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The daemon says something of itself.
    Own,
    /// Somebody was not let in.
    Refused,
    /// Somebody who was let in asked for what there is not.
    Denied,
    /// A connection onward did not come about, or broke.
    Failed,
    /// A service was told to log what came.
    Message,
    /// A connection has ended.
    Closed,
    /// A connection has ended of which it was said already that its wish was refused.
    Declined,
}

impl Kind {
    /// What is worth reading of one address, and of all together. Of connections that ended as they
    /// should, each has a line, unless a disk would be filled.
    fn rates(self) -> (Rate, Rate) {
        match self {
            Self::Closed => (
                Rate { burst: 5_000, per_second: 5_000 },
                Rate { burst: 20_000, per_second: 20_000 },
            ),
            Self::Message => {
                (Rate { burst: 40, per_second: 20 }, Rate { burst: 200, per_second: 200 })
            }
            _ => (Rate { burst: 20, per_second: 20 }, Rate { burst: 200, per_second: 200 }),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Refused => "refused",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Message => "message",
            Self::Closed => "closed",
            Self::Declined => "declined",
        })
    }
}

/// Whom a line is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum From {
    /// An address. An IPv6 host commands a whole /64, so that is what counts as one.
    Address(IpAddr),
    /// A process on this machine, or nobody.
    Local,
    /// Everybody for whom there was no place.
    Others,
}

impl From {
    /// Of a peer as it stands in the log: its address is the first word.
    fn of(peer: &str) -> Self {
        let first = peer.split(' ').next().unwrap_or_default();
        let address = first.parse().map(|it: std::net::SocketAddr| it.ip());
        match address {
            Ok(IpAddr::V6(ip)) => {
                let network = u128::from(ip) >> 64 << 64;
                Self::Address(IpAddr::V6(Ipv6Addr::from(network)))
            }
            Ok(v4) => Self::Address(v4),
            Err(_) => Self::Local,
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(ip)) => write!(f, "{ip}/64"),
            Self::Address(ip) => ip.fmt(f),
            Self::Local => f.write_str("local"),
            Self::Others => f.write_str("others"),
        }
    }
}

/// So many lines at once, and so many a second in the long run.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u64,
    per_second: u64,
}

/// What is left of a rate: a token bucket.
#[derive(Debug, Default)]
struct Budget {
    /// Spent, in thousandths of a line.
    spent: u64,
    /// When that was so; never, where nothing was spent yet.
    at: Option<Instant>,
}

impl Budget {
    /// Takes in the time that has passed; whether a line may be said `now`.
    fn renew(&mut self, rate: Rate, now: Instant) -> bool {
        let passed = self.at.map_or(0, |at| now.saturating_duration_since(at).as_millis());
        let earned = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(rate.per_second);
        self.spent = self.spent.saturating_sub(earned);
        self.at = Some(now);
        self.spent + 1000 <= rate.burst * 1000
    }

    fn spend(&mut self) {
        self.spent += 1000;
    }

    /// Whether it was not touched for so long that it is whole again.
    fn is_rested(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| now.saturating_duration_since(at) >= REST)
    }
}

#[derive(Debug, Default)]
struct Place {
    budget: Budget,
    held_back: u64,
}

/// A listener, by its number here, and a kind of line.
type Group = (usize, Kind);

/// Lets a number of lines through each second, and counts those that it held back.
#[derive(Debug, Default)]
pub struct Throttle {
    listeners: Vec<Box<str>>,
    groups: BTreeMap<Group, Budget>,
    places: BTreeMap<(Group, From), Place>,
    /// When the table was last looked through for places that are free again.
    swept: Option<Instant>,
    report_at: Option<Instant>,
}

impl Throttle {
    /// Whether a line of this kind about this peer of this listener may be said `now`. If not, it is
    /// counted.
    pub fn passes(&mut self, listener: &str, kind: Kind, peer: &str, now: Instant) -> bool {
        let group = (self.number(listener), kind);
        let key = self.find_place((group, From::of(peer)), now);
        let (rate, rate_together) = kind.rates();
        let together = self.groups.entry(group).or_default();
        let place = self.places.entry(key).or_default();
        if !(together.renew(rate_together, now) & place.budget.renew(rate, now)) {
            place.held_back += 1;
            self.report_at.get_or_insert(now + REPORT_AFTER);
            return false;
        }
        place.budget.spend();
        together.spend();
        true
    }

    /// When the next [report](Self::report) is due.
    #[must_use]
    pub fn report_at(&self) -> Option<Instant> {
        self.report_at
    }

    /// What was held back since the last report, a line for each listener and kind.
    pub fn report(&mut self) -> Vec<String> {
        self.report_at = None;
        let mut groups: BTreeMap<Group, Vec<(u64, From)>> = BTreeMap::new();
        for ((group, from), place) in &mut self.places {
            let held_back = std::mem::take(&mut place.held_back);
            if held_back > 0 {
                groups.entry(*group).or_default().push((held_back, *from));
            }
        }
        groups.into_iter().map(|(group, counts)| self.line(group, counts)).collect()
    }

    fn line(&self, (listener, kind): Group, mut counts: Vec<(u64, From)>) -> String {
        counts.sort_by(|one, other| other.cmp(one));
        let lines: u64 = counts.iter().map(|(count, _)| count).sum();
        let mut named = String::new();
        for (count, from) in counts.iter().take(NAMED) {
            let separator = if named.is_empty() { "" } else { " " };
            let _ = write!(named, "{separator}{from}={count}");
        }
        let rest: u64 = counts.iter().skip(NAMED).map(|(count, _)| count).sum();
        if rest > 0 {
            let _ = write!(named, " rest={rest}");
        }
        format!(
            "held_back listener={} kind={kind} lines={lines} addresses={} from=\"{named}\"",
            Value(&self.listeners[listener]),
            counts.len(),
        )
    }

    fn number(&mut self, listener: &str) -> usize {
        let known = self.listeners.iter().position(|it| **it == *listener);
        known.unwrap_or_else(|| {
            self.listeners.push(listener.into());
            self.listeners.len() - 1
        })
    }

    /// Where a line is counted: at its own place, or where there is none left, at that of all others.
    fn find_place(&mut self, (group, from): (Group, From), now: Instant) -> (Group, From) {
        if self.places.len() >= PLACES && !self.places.contains_key(&(group, from)) {
            if self.swept.is_none_or(|at| now.saturating_duration_since(at) >= REST) {
                self.swept = Some(now);
                self.places.retain(|_, place| place.held_back > 0 || !place.budget.is_rested(now));
            }
            if self.places.len() >= PLACES {
                return (group, From::Others);
            }
        }
        (group, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_few_lines_and_a_count_by_address() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let mut passed = 0;
        for count in 0..1000 {
            let peer = if count % 10 == 0 { "192.0.2.2:9" } else { "192.0.2.1:7 proxy=[::1]:1" };
            passed += u32::from(throttle.passes("gate", Kind::Refused, peer, start));
        }
        assert_eq!(passed, 40, "twenty of each");
        assert!(throttle.passes("gate", Kind::Message, "192.0.2.1:7", start), "another kind");
        assert!(throttle.passes("two", Kind::Refused, "192.0.2.1:7", start), "another listener");
        assert!(throttle.passes("gate", Kind::Refused, "192.0.2.3:7", start), "another address");
        assert!(throttle.passes("gate", Kind::Own, "", start), "the daemon itself");
        assert_eq!(throttle.report_at(), Some(start + REPORT_AFTER));
        assert_eq!(
            throttle.report(),
            ["held_back listener=gate kind=refused lines=960 addresses=2 \
              from=\"192.0.2.1=880 192.0.2.2=80\""]
        );
        assert_eq!((throttle.report_at(), throttle.report().len()), (None, 0));
        assert!(throttle.passes("gate", Kind::Refused, "192.0.2.1:7", start + REST));
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_in_lines_and_memory_and_counted() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let (mut passed, mut peers) = (0, 0);
        for count in 0..20_000u32 {
            let peer = format!("[2001:db8:{:x}:{:x}::1]:1", count >> 12, count & 0xfff);
            passed += u64::from(throttle.passes("gate", Kind::Refused, &peer, start));
            peers += 1;
        }
        assert_eq!(passed, 200);
        assert!(throttle.places.len() <= PLACES + 1, "one more for all others");
        let line = throttle.report().swap_remove(0);
        assert!(line.contains(&format!("lines={} ", peers - passed)), "{line}");
        assert!(line.contains("from=\"others="), "{line}");
        // A little later there is room again.
        let later = start + REST;
        assert!(throttle.passes("gate", Kind::Refused, "[2001:db8:ffff::1]:1", later));
        assert_eq!(throttle.places.len(), 1);
    }

    #[test]
    fn who_owns_a_network_is_one() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let passed = (0..100).filter(|host| {
            let peer = format!("[2001:db8::{host}]:1");
            throttle.passes("gate", Kind::Refused, &peer, start)
        });
        assert_eq!(passed.count(), 20);
        assert!(throttle.report()[0].ends_with("from=\"2001:db8::/64=80\""));
    }
}
