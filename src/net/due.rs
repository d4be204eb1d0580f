//! Which source runs next, and how much one turn spends.
//!
//! Sources that are due wait in three lanes, and in each of them first come is first served. The
//! *prompt* lane is for those whose last runs were cheap: a request, a connection that was just accepted,
//! a deadline. Those that are known to take long wait apart: in the *bulk* lane streams at full
//! speed, in the *long* lane work that cannot be divided, such as a handshake. A turn stops when its
//! allowance is spent. Who is left keeps its place, and the kernel is asked for new readiness before
//! the next turn, so that a small request waits for one or two costly runs and not for all of them.
//! (Schedulers call this a multilevel feedback queue; RFC 8290, section 4.2, does the same for packets of
//! sparse and of bulky flows.)
//!
//! What the two other lanes spend is a debt to the prompt one. They run again when that has spent as
//! much since, or has nothing to do; and of the two that one runs which has spent less. So no lane gets
//! more than its half where another has work, and none waits where the others have none.
//!
//! Costs are nanoseconds. Those of the prompt lane are estimated, because a clock that is read for
//! every request would cost more than it tells; those of the others are measured.
//!
//! Invariants: a turn runs at least one source of a lane that may run at all, and none twice that
//! stood there once when it began; nobody is overtaken within a lane.

use std::collections::VecDeque;

/// What one turn may spend for the prompt lane, and for the two others together, in nanoseconds. The
/// last run may go beyond it.
pub(super) const ALLOWANCE: u64 = 500_000;

/// What any run costs, in nanoseconds: some system calls.
pub(super) const RUN: u64 = 4_000;

/// What moving so many bytes costs, in nanoseconds, where they stay in the cache.
pub(super) fn bytes(count: usize) -> u64 {
    count as u64 / 4
}

/// From which cost on a source counts as bulky, in nanoseconds: what it spent in its last run, and half
/// of what it spent in the one before, and so on.
const BULKY: u32 = 36_000;

/// Where a source waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Among those that are quickly served.
    Prompt,
    /// Among those with much to move.
    Bulk,
    /// Among those whose next run takes long.
    Long,
}

impl Lane {
    /// How many bytes a source may move in one run of this lane. A request that fits is served whole, so
    /// that it holds no storage while it waits; what moves more at once goes on in another lane.
    pub(super) fn slice(self) -> usize {
        match self {
            Self::Prompt => 128 * 1024,
            Self::Bulk | Self::Long => 256 * 1024,
        }
    }
}

/// What a source has cost lately. It forgets half with each run, so that who has been bulky once is
/// soon prompt again, and who is bulky now and then is not always.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habit(u32);

impl Habit {
    /// It has spent `cost` in a run.
    pub(super) fn add(&mut self, cost: u64) {
        self.0 = (self.0 / 2).saturating_add(u32::try_from(cost).unwrap_or(u32::MAX / 2));
    }

    /// Where it waits for the next.
    pub(super) fn lane(self) -> Lane {
        if self.0 < BULKY { Lane::Prompt } else { Lane::Bulk }
    }
}

/// The sources that are due.
#[derive(Debug, Default)]
pub(super) struct Due {
    prompt: Queue,
    bulk: Queue,
    long: Queue,
    /// What this turn has spent for the prompt lane, and for the others.
    spent: (u64, u64),
    /// What the others have spent beyond what the prompt lane has since.
    debt: u64,
    /// What the long lane has spent beyond what the bulk lane has since.
    lead: i64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<u32>,
    /// How many of them stood there when the turn began and have not run.
    left: usize,
}

impl Due {
    /// Puts a source, which must not wait already, at the end of a lane.
    pub(super) fn push(&mut self, key: u32, lane: Lane) {
        let queue = match lane {
            Lane::Prompt => &mut self.prompt,
            Lane::Bulk => &mut self.bulk,
            Lane::Long => &mut self.long,
        };
        queue.waiting.push_back(key);
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        [&self.prompt, &self.bulk, &self.long].iter().all(|queue| queue.waiting.is_empty())
    }

    /// A turn begins: it is for those that wait now.
    pub(super) fn begin_turn(&mut self) {
        for queue in [&mut self.prompt, &mut self.bulk, &mut self.long] {
            queue.left = queue.waiting.len();
        }
        self.debt += self.spent.1;
        if self.prompt.left == 0 {
            self.debt = 0;
        }
        if self.bulk.left == 0 || self.long.left == 0 {
            self.lead = 0;
        }
        self.spent = (0, 0);
    }

    /// Takes the next source of this turn, and says in which lane it runs; `None` when the turn is
    /// over.
    #[inline]
    pub(super) fn next(&mut self) -> Option<(u32, Lane)> {
        if self.spent.0 < ALLOWANCE
            && let Some(key) = self.prompt.next()
        {
            return Some((key, Lane::Prompt));
        }
        if self.debt > 0 || self.spent.1 >= ALLOWANCE {
            return None;
        }
        let long_is_behind = self.lead <= 0;
        if (long_is_behind || self.bulk.left == 0)
            && let Some(key) = self.long.next()
        {
            return Some((key, Lane::Long));
        }
        self.bulk.next().map(|key| (key, Lane::Bulk))
    }

    /// The source that was taken last has run at this cost.
    #[inline]
    pub(super) fn charge(&mut self, lane: Lane, cost: u64) {
        if lane == Lane::Prompt {
            self.spent.0 += cost;
            self.debt = self.debt.saturating_sub(cost);
            return;
        }
        self.spent.1 += cost;
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        let lead = if lane == Lane::Long { cost } else { -cost };
        self.lead = self.lead.saturating_add(lead);
    }
}

impl Queue {
    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    const HANDSHAKE: u64 = 1_400_000;

    /// Runs a turn in which each source costs what `cost` says; answers who ran.
    fn turn(due: &mut Due, cost: impl Fn(u32) -> u64) -> Vec<u32> {
        let mut ran = Vec::new();
        due.begin_turn();
        while let Some((key, lane)) = due.next() {
            due.charge(lane, cost(key));
            ran.push(key);
        }
        ran
    }

    fn filled<const LANES: usize>(lanes: [(Lane, Range<u32>); LANES]) -> Due {
        let mut due = Due::default();
        for (lane, keys) in lanes {
            keys.for_each(|key| due.push(key, lane));
        }
        due
    }

    #[test]
    fn a_request_waits_for_one_handshake_and_not_for_fifty() {
        let mut due = filled([(Lane::Long, 100..150)]);
        assert_eq!(turn(&mut due, |_| HANDSHAKE), [100]);
        due.push(1, Lane::Prompt);
        assert_eq!(turn(&mut due, |_| RUN), [1], "before all the others");
        assert_eq!(turn(&mut due, |_| HANDSHAKE), [101], "nobody else has anything to do");
    }

    #[test]
    fn who_is_left_goes_first_and_in_its_order() {
        let cost = ALLOWANCE / 4;
        let mut due = filled([(Lane::Prompt, 0..10)]);
        assert_eq!(turn(&mut due, |_| cost), [0, 1, 2, 3]);
        due.push(10, Lane::Prompt);
        assert_eq!(turn(&mut due, |_| cost), [4, 5, 6, 7]);
        assert_eq!(turn(&mut due, |_| cost), [8, 9, 10]);
        assert!(due.is_empty());
    }

    #[test]
    fn what_becomes_due_in_a_turn_runs_in_the_next() {
        let mut due = filled([(Lane::Prompt, 1..2), (Lane::Bulk, 2..3)]);
        due.begin_turn();
        for expected in [(1, Lane::Prompt), (2, Lane::Bulk)] {
            let (key, lane) = due.next().expect("due");
            assert_eq!((key, lane), expected);
            due.charge(lane, RUN);
            due.push(key, lane);
        }
        assert_eq!(due.next(), None);
        assert_eq!(turn(&mut due, |_| RUN), [1, 2]);
    }

    /// Runs sources that are all due again as soon as they have run, which costs as much as their lane
    /// says; answers what each lane has spent.
    fn compete(lanes: [(Lane, Range<u32>); 3]) -> [u64; 3] {
        let mut due = filled(lanes.clone());
        let (mut spent, mut ran) = ([0; 3], [0; 300]);
        for _ in 0..50_000 {
            due.begin_turn();
            while let Some((key, lane)) = due.next() {
                let cost = [RUN, 100_000, HANDSHAKE][lane as usize];
                due.charge(lane, cost);
                due.push(key, lane);
                spent[lane as usize] += cost;
                ran[key as usize] += 1;
            }
        }
        for (lane, keys) in lanes {
            let runs = || keys.clone().map(|key| ran[key as usize]);
            let (least, most) = (runs().min().unwrap_or(1), runs().max().unwrap_or(1));
            assert!(least > 0 && most - least <= 1, "{lane:?}: {least} to {most} runs");
        }
        spent
    }

    #[test]
    fn each_lane_gets_its_share_where_several_always_have_work() {
        let is_near = |one: u64, other: u64| one.abs_diff(other) <= one / 5;
        let lanes = |prompt, bulk, long| {
            [(Lane::Prompt, 0..prompt), (Lane::Bulk, 100..bulk), (Lane::Long, 200..long)]
        };
        let [prompt, bulk, long] = compete(lanes(20, 120, 220));
        assert!(is_near(prompt, bulk + long) && is_near(bulk, long), "{prompt} {bulk} {long}");
        let [prompt, bulk, _] = compete(lanes(20, 120, 200));
        assert!(is_near(prompt, bulk), "{prompt} {bulk}");
        let [_, bulk, long] = compete(lanes(0, 120, 220));
        assert!(is_near(bulk, long), "{bulk} {long}");
    }

    #[test]
    fn a_handshake_does_not_wait_for_all_streams() {
        let mut due = filled([(Lane::Bulk, 0..200)]);
        assert_eq!(turn(&mut due, |_| ALLOWANCE), [0]);
        due.push(1000, Lane::Long);
        assert_eq!(turn(&mut due, |_| ALLOWANCE), [1000]);
        assert_eq!(turn(&mut due, |_| ALLOWANCE), [1]);
    }

    #[test]
    fn a_bulky_source_is_patient_until_it_has_been_quiet_for_some_runs() {
        let mut habit = Habit::default();
        for _ in 0..1000 {
            habit.add(RUN + bytes(3 * 16_384));
            assert_eq!(habit.lane(), Lane::Prompt, "requests of sixteen kilobytes");
        }
        habit.add(RUN + bytes(Lane::Prompt.slice()));
        assert_eq!(habit.lane(), Lane::Bulk);
        habit.add(RUN + bytes(Lane::Bulk.slice()));
        let mut quiet = 0;
        while habit.lane() == Lane::Bulk {
            habit.add(RUN);
            quiet += 1;
        }
        assert!((2..10).contains(&quiet), "{quiet} runs");
        habit.add(u64::MAX);
        assert_eq!(habit.lane(), Lane::Bulk);
        habit.add(u64::MAX);
        assert_eq!(habit.lane(), Lane::Bulk, "it does not overflow");
    }
}
