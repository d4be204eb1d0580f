//! Which source runs next, and how much one turn spends.
//!
//! Sources that are due wait in two lanes, and in each of them first come is first served. The *prompt*
//! lane is for those whose last runs were cheap: a request, a connection that was just accepted, a
//! deadline. The *patient* lane is for those that are known to take long: streams at full speed, and
//! handshakes. A turn stops in a lane when that lane's allowance is spent. Who is left keeps its
//! place, and the kernel is asked for new readiness before the next turn, so that a small request
//! waits for one or two costly runs and not for all of them. (Schedulers call this a multilevel
//! feedback queue; RFC 8290, section 4.2, does the same for packets of sparse and of bulky flows.)
//!
//! Between the lanes, what the patient one spends is a debt. It runs again when the prompt lane has
//! spent as much since, or has nothing to do. So neither gets more than its half where both have
//! work, and neither waits where the other has none.
//!
//! Costs are nanoseconds. Those of the prompt lane are estimated, because a clock that is read for
//! every request would cost more than it tells; those of the patient lane are measured.
//!
//! Invariants: a turn runs at least one source of a lane that may run at all, and none twice that
//! stood there once when it began; nobody is overtaken within a lane.

use std::collections::VecDeque;

/// What one turn may spend in each lane, in nanoseconds. The last run may go beyond it.
pub(super) const ALLOWANCE: u64 = 500_000;

/// What any run costs, in nanoseconds: some system calls.
pub(super) const RUN: u64 = 2_000;

/// From which cost on a source counts as bulky, in nanoseconds: what it spent in its last run, and half
/// of what it spent in the one before, and so on.
const BULKY: u32 = 64_000;

/// Where a source waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Among those that are quickly served.
    Prompt,
    /// Among those that take long.
    Patient,
}

impl Lane {
    /// How many bytes a source may move in one run of this lane. What moves more at once is no small
    /// request, and goes on in the other lane.
    pub(super) fn slice(self) -> usize {
        match self {
            Self::Prompt => 32 * 1024,
            Self::Patient => 256 * 1024,
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
        if self.0 < BULKY { Lane::Prompt } else { Lane::Patient }
    }
}

/// The sources that are due.
#[derive(Debug, Default)]
pub(super) struct Due {
    prompt: Queue,
    patient: Queue,
    /// What the patient lane has spent beyond what the prompt one has since.
    debt: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<u32>,
    /// How many of them stood there when the turn began and have not run.
    left: usize,
    /// What this turn has spent here.
    spent: u64,
}

impl Due {
    /// Puts a source, which must not wait already, at the end of a lane.
    pub(super) fn push(&mut self, key: u32, lane: Lane) {
        match lane {
            Lane::Prompt => self.prompt.waiting.push_back(key),
            Lane::Patient => self.patient.waiting.push_back(key),
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.prompt.waiting.is_empty() && self.patient.waiting.is_empty()
    }

    /// A turn begins: it is for those that wait now.
    pub(super) fn begin_turn(&mut self) {
        self.debt += self.patient.spent;
        if self.prompt.waiting.is_empty() {
            self.debt = 0;
        }
        for queue in [&mut self.prompt, &mut self.patient] {
            queue.left = queue.waiting.len();
            queue.spent = 0;
        }
    }

    /// Takes the next source of this turn, and says in which lane it runs; `None` when the turn is
    /// over.
    pub(super) fn next(&mut self) -> Option<(u32, Lane)> {
        if let Some(key) = self.prompt.next() {
            return Some((key, Lane::Prompt));
        }
        if self.debt > 0 {
            return None;
        }
        self.patient.next().map(|key| (key, Lane::Patient))
    }

    /// The source that was taken last has run at this cost.
    pub(super) fn charge(&mut self, lane: Lane, cost: u64) {
        match lane {
            Lane::Prompt => {
                self.prompt.spent += cost;
                self.debt = self.debt.saturating_sub(cost);
            }
            Lane::Patient => self.patient.spent += cost,
        }
    }
}

impl Queue {
    fn next(&mut self) -> Option<u32> {
        if self.left == 0 || self.spent >= ALLOWANCE {
            return None;
        }
        self.left -= 1;
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
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

    fn filled(
        prompt: impl IntoIterator<Item = u32>,
        patient: impl IntoIterator<Item = u32>,
    ) -> Due {
        let mut due = Due::default();
        prompt.into_iter().for_each(|key| due.push(key, Lane::Prompt));
        patient.into_iter().for_each(|key| due.push(key, Lane::Patient));
        due
    }

    #[test]
    fn a_request_waits_for_one_handshake_and_not_for_fifty() {
        let mut due = filled([], 100..150);
        assert_eq!(turn(&mut due, |_| HANDSHAKE), [100]);
        due.push(1, Lane::Prompt);
        assert_eq!(turn(&mut due, |_| RUN), [1], "before all the others");
        assert_eq!(turn(&mut due, |_| HANDSHAKE), [101], "nobody else has anything to do");
    }

    #[test]
    fn who_is_left_goes_first_and_in_its_order() {
        let cost = ALLOWANCE / 4;
        let mut due = filled(0..10, []);
        assert_eq!(turn(&mut due, |_| cost), [0, 1, 2, 3]);
        due.push(10, Lane::Prompt);
        assert_eq!(turn(&mut due, |_| cost), [4, 5, 6, 7]);
        assert_eq!(turn(&mut due, |_| cost), [8, 9, 10]);
        assert!(due.is_empty());
    }

    #[test]
    fn what_becomes_due_in_a_turn_runs_in_the_next() {
        let mut due = filled([1], [2]);
        due.begin_turn();
        for expected in [(1, Lane::Prompt), (2, Lane::Patient)] {
            let (key, lane) = due.next().expect("due");
            assert_eq!((key, lane), expected);
            due.charge(lane, RUN);
            due.push(key, lane);
        }
        assert_eq!(due.next(), None);
        assert_eq!(turn(&mut due, |_| RUN), [1, 2]);
    }

    #[test]
    fn both_lanes_get_their_half_where_both_always_have_work() {
        // Each source is due again as soon as it has run.
        let mut due = filled(0..20, 100..120);
        let mut spent = [0, 0];
        let mut ran = [0; 120];
        for _ in 0..20_000 {
            due.begin_turn();
            while let Some((key, lane)) = due.next() {
                let cost = if lane == Lane::Prompt { RUN } else { HANDSHAKE };
                due.charge(lane, cost);
                due.push(key, lane);
                spent[lane as usize] += cost;
                ran[key as usize] += 1;
            }
        }
        let [prompt, patient] = spent;
        assert!(prompt.abs_diff(patient) <= 2 * HANDSHAKE, "{prompt} and {patient} ns");
        for lane in [&ran[..20], &ran[100..]] {
            let (least, most) = (lane.iter().min(), lane.iter().max());
            let (least, most) = least.zip(most).expect("twenty");
            assert!(*least > 0 && most - least <= 1, "{least} to {most} runs");
        }
    }

    #[test]
    fn a_bulky_source_is_patient_until_it_has_been_quiet_for_some_runs() {
        let mut habit = Habit::default();
        for _ in 0..1000 {
            habit.add(RUN + 3 * 8192);
            assert_eq!(habit.lane(), Lane::Prompt, "requests of eight kilobytes");
        }
        habit.add(RUN + Lane::Patient.slice() as u64);
        let mut quiet = 0;
        while habit.lane() == Lane::Patient {
            habit.add(RUN);
            quiet += 1;
        }
        assert!((2..10).contains(&quiet), "{quiet} runs");
        habit.add(u64::MAX);
        assert_eq!(habit.lane(), Lane::Patient);
        habit.add(u64::MAX);
        assert_eq!(habit.lane(), Lane::Patient, "it does not overflow");
    }
}
