//! Virtual time: sessions and the peers around them, run as the reactor runs them, with nobody
//! ever waiting.

use std::time::{Duration, Instant};

use turnstile::proto::session::CloseReason;

use crate::dice::Dice;
use crate::model::BEGINNING;
use crate::peer::Peer;
use crate::subject::Subject;
use crate::tunnel::Tunnel;

/// How many turns the longest simulation may take. The longest seen takes a tenth of it.
const TURN_LIMIT: usize = 50_000;

/// How long a turn takes in which a session spent its budget.
const BUSY_TURN: Duration = Duration::from_micros(50);

/// All that exists.
pub(crate) struct World {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) peers: Vec<Peer>,
    /// Where the two sessions are a tunnel: what holds from end to end.
    pub(crate) tunnel: Option<Tunnel>,
    /// When the program stops, if before everybody is done.
    pub(crate) stop_at: Option<Instant>,
    pub(crate) dice: Dice,
    pub(crate) is_shown: bool,
}

/// How one subject ended.
pub(crate) struct Fate {
    pub(crate) name: &'static str,
    pub(crate) reason: CloseReason,
    /// Whether a run of it was stopped by the budget.
    pub(crate) was_cut_short: bool,
}

impl World {
    /// Shows what happens from now on.
    pub(crate) fn show(&mut self) {
        self.is_shown = true;
        self.subjects.iter_mut().for_each(Subject::show);
    }

    /// Runs until every session has closed.
    pub(crate) fn run(mut self) -> Vec<Fate> {
        let mut now = *BEGINNING;
        for _ in 0..TURN_LIMIT {
            if self.is_shown {
                println!("at {:?}", now - *BEGINNING);
            }
            let ran = self.turn(now);
            if self.subjects.iter().all(|subject| subject.closed.is_some()) {
                return self.fates(now);
            }
            // Whoever ran may have made something possible for the others at once.
            if !ran {
                let next = self.next_moment().expect("a session lives, and nothing will happen");
                now = next + self.lateness();
            } else if self.subjects.iter().any(Subject::is_due) {
                now += BUSY_TURN;
            }
        }
        panic!("no end after {TURN_LIMIT} turns");
    }

    /// One turn; answers whether anybody ran.
    fn turn(&mut self, now: Instant) -> bool {
        for (number, peer) in self.peers.iter_mut().enumerate() {
            let is_shown = self.is_shown;
            peer.step(now, &mut |act| {
                if is_shown {
                    println!("    peer {number}: {act:02x?}");
                }
            });
        }
        let mut ran = false;
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.check_flow(&self.peers);
            tunnel.strike(now);
        }
        let stops = self.stop_at.is_some_and(|at| at <= now);
        for subject in &mut self.subjects {
            if stops && subject.closed.is_none() {
                subject.stop(now);
            } else if subject.poll(now) {
                subject.run(now, self.dice.one_in(8));
                ran = true;
            }
        }
        ran
    }

    fn next_moment(&mut self) -> Option<Instant> {
        let acts = self.peers.iter().filter_map(Peer::next_act).min();
        let runs = self.subjects.iter_mut().filter_map(Subject::next_run).min();
        let strike = self.tunnel.as_ref().and_then(Tunnel::next_strike);
        [acts, runs, strike, self.stop_at].into_iter().flatten().min()
    }

    /// Now and then the loop was busy elsewhere when something became due, or the whole process stood
    /// still for longer than some deadlines.
    fn lateness(&mut self) -> Duration {
        if self.dice.one_in(8) {
            return Duration::from_micros(self.dice.below(2000) as u64);
        }
        match self.dice.one_in(64) {
            true => Duration::from_millis(self.dice.below(60_000) as u64),
            false => Duration::ZERO,
        }
    }

    /// How everybody ended. Whoever did not pass the gate between two sessions got nothing.
    fn fates(mut self, now: Instant) -> Vec<Fate> {
        if let Some(tunnel) = self.tunnel {
            tunnel.check_ends(&mut self.subjects, &mut self.peers, now);
        }
        if let [_guest, guard] = &mut self.subjects[..]
            && !guard.admits()
        {
            assert_eq!(self.peers[0].received(), b"", "what the refused client got");
        }
        let fate = |subject: &Subject| Fate {
            name: subject.name,
            reason: subject.closed.expect("everybody has closed"),
            was_cut_short: subject.was_cut_short,
        };
        self.subjects.iter().map(fate).collect()
    }
}
