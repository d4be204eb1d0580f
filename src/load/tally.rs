//! What one visitor owes, and what it writes into the records that all of them share.
//!
//! It opens and closes nothing, and does not say when anything is sent.
//!
//! Invariant: the host's count of outstanding requests is the sum of what the visitors owe: the
//! requests granted to their generators or left by them to the next one, or one for a visit that was
//! begun and has not ended.

use std::io;
use std::time::{Duration, Instant};

use super::generator::{Legacy, Stray, Unfinished};
use super::host::{Habit, Host, Stage};
use super::plan::Activity;
use super::statistics::{Cause, Phase};
use super::talk::{Entry, Proof, Talk, cause_of};
use crate::net::reactor::Waker;
use crate::proto::session::CloseReason;

/// A connection that lived for less, and served nobody, was not of much use.
const SHORT_LIFE: Duration = Duration::from_millis(100);

/// The books of one visitor.
#[derive(Debug, Default)]
pub struct Tally {
    /// When the visit that was begun was due; only where each connection is one visit.
    visit: Option<Instant>,
    /// What the last connection left to the next.
    legacy: Option<Box<Legacy>>,
    /// Failures since anything last went well.
    failures: usize,
    /// Datagrams lost since an answer last came.
    lost_in_a_row: u32,
    /// When the last loss was noticed: what was sent before is part of it.
    lost_at: Option<Instant>,
    /// Whether it is known if a connection could be opened.
    is_settled: bool,
    /// Whether there is a connection that has done its part at the gate.
    is_established: bool,
    /// Whether that connection was seen to be let in.
    is_let_in: bool,
    /// Whether a finished request is replaced at once, so that no fewer are outstanding.
    refills: bool,
}

impl Tally {
    /// When the visit that was begun was due, where each connection is one visit.
    #[must_use]
    pub fn visit(&self) -> Option<Instant> {
        self.visit
    }

    /// Failures since anything last went well.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.failures
    }

    /// Datagrams lost since an answer last came.
    #[must_use]
    pub fn lost_in_a_row(&self) -> u32 {
        self.lost_in_a_row
    }

    /// What is begun or taken over, and belongs to no connection.
    pub fn unfinished(&self) -> impl Iterator<Item = Unfinished> {
        let visit = self.visit.map(|due| Unfinished { due: Some(due), is_sent: true });
        visit.into_iter().chain(self.legacy.iter().flat_map(|legacy| legacy.unfinished()))
    }

    /// Whether there is a reason to open a connection: always, where connections stay open; where
    /// each is a visit, one that is due, and which `visitor` waits for where none is.
    pub fn take_visit(&mut self, now: Instant, visitor: Waker, host: &mut Host) -> bool {
        match host.plan.activity {
            Activity::Requests | Activity::Idle => {
                host.stage < Stage::Draining || self.legacy.is_some() || host.has_waiting(now)
            }
            _ if self.visit.is_some() => true,
            Activity::Visits | Activity::Handshakes => match host.take_turn(now) {
                Some(due) => {
                    let due = due.unwrap_or_else(Instant::now);
                    self.visit = Some(due);
                    host.outstanding += 1;
                    host.recorder.begin_visit(due);
                    true
                }
                None => {
                    host.rest(visitor);
                    false
                }
            },
        }
    }

    /// Gives `talk` what the connection before it has left.
    pub fn pass_on_legacy(&mut self, talk: &mut Talk) {
        if let Some(legacy) = self.legacy.take() {
            talk.generator().take_over(*legacy);
        }
    }

    /// Lets finished requests be replaced at once from now on, where the run is of that kind.
    pub fn agree_on_refills(&mut self, talk: &mut Talk, host: &Host) {
        self.refills = host.goes_on_at_once();
        talk.generator().refill(self.refills);
    }

    /// Notes that `talk` is past the gate, once it is, and that it was let in, once that shows; answers
    /// when to look again.
    pub fn note_admission(
        &mut self,
        talk: &mut Talk,
        now: Instant,
        host: &mut Host,
    ) -> Option<Instant> {
        if self.is_let_in {
            return None;
        }
        let entry = talk.let_in(now, host);
        if entry != Entry::Outside && !self.is_established {
            self.is_established = true;
            host.established += 1;
            self.settle(host);
        }
        let proof = match entry {
            Entry::Outside => return None,
            Entry::Waiting(until) => return Some(until),
            Entry::Inside(proof) => proof,
        };
        self.is_let_in = true;
        host.recorder.links.opened += 1;
        if let Some(admitted) = talk.generator().admitted() {
            let up = talk.up_at().unwrap_or(admitted);
            if host.plan.secure.is_some() {
                host.recorder.record_setup(Phase::Tls, self.visit, (talk.since(), up));
                if talk.was_resumed() {
                    host.recorder.count_resumed(self.visit);
                }
            }
            if host.secret.is_some() {
                host.recorder.record_setup(Phase::Gate, self.visit, (up, admitted));
            }
        }
        if host.recorder.counts(self.visit) {
            *match proof {
                Proof::Protocol => &mut host.proofs.by_protocol,
                Proof::Word => &mut host.proofs.by_word,
                Proof::Wait => &mut host.proofs.by_wait,
            } += 1;
        }
        None
    }

    /// Notes the requests that `talk` has finished; answers when the last of them was.
    pub fn note_finished(&mut self, talk: &mut Talk, host: &mut Host) -> Option<Instant> {
        let mut last = None;
        let mut count = 0;
        let mut finished = std::mem::take(&mut host.finished);
        for sample in finished.drain(..) {
            count += 1;
            last = Some(sample.done);
            if host.is_sated() {
                host.recorder.record_surplus(sample.due);
            } else {
                host.recorder.record_request(&sample);
            }
            if host.work.datagrams {
                host.round_trips.note(sample.done.saturating_duration_since(sample.sent));
            }
        }
        host.finished = finished;
        let done = last?;
        talk.hear(done, count);
        self.failures = 0;
        self.lost_in_a_row = 0;
        if !self.refills {
            host.outstanding -= count;
        }
        self.visit = None;
        if host.is_sated() {
            host.close_window(done);
        }
        host.conclude();
        last
    }

    /// Notes a visit without a request, which is over once `talk` was let in. Answers whether it is.
    pub fn note_handshake(&mut self, talk: &mut Talk, host: &mut Host) -> bool {
        let (Some(admitted), Some(due)) = (talk.generator().admitted(), self.visit) else {
            return false;
        };
        if !self.is_let_in {
            return false;
        }
        if host.is_sated() {
            host.recorder.record_surplus(due);
        } else {
            host.recorder.record_visit(due, admitted);
        }
        if host.is_sated() {
            // Others have begun since it was admitted.
            host.close_window(Instant::now());
        }
        self.visit = None;
        self.failures = 0;
        host.outstanding -= 1;
        host.conclude();
        true
    }

    /// Notes that an answer to `talk`'s oldest datagram did not come in time.
    pub fn note_lost(&mut self, talk: &mut Talk, now: Instant, host: &mut Host) {
        if talk.waiting_since() > self.lost_at {
            self.lost_in_a_row += 1;
            self.lost_at = Some(now);
        }
        let due = talk.give_up_oldest(host.work.exchange.replies_differ());
        host.outstanding -= 1;
        host.recorder.record_failure(Cause::Lost, due, || "no answer came in time".to_owned());
        host.conclude();
    }

    /// Notes the datagrams that came to `talk` and were no right answer to anything on the way.
    pub fn note_strays(&mut self, talk: &mut Talk, host: &mut Host) {
        for stray in talk.generator().strays() {
            match stray {
                Stray::Duplicate => host.recorder.strays.duplicates += 1,
                Stray::Late(took) => {
                    host.recorder.strays.late += 1;
                    host.round_trips.note_late(took);
                }
            }
        }
        for (due, fault) in talk.generator().wrong() {
            host.outstanding -= 1;
            host.recorder.record_failure(Cause::WrongBytes, Some(due), || fault.to_string());
            host.conclude();
        }
    }

    /// Notes that no connection could be opened, wherever it was tried.
    pub fn note_unreachable(&mut self, error: &io::Error, host: &mut Host) {
        let (cause, example) = (cause_of(error), error.to_string());
        host.recorder.record_link_failure(cause, || example.clone());
        host.connect_failures += 1;
        if !host.has_connected && host.connect_failures >= host.plan.connections {
            host.failure.get_or_insert((cause, example.clone()));
        }
        let owed = self.fail_legacy(cause, &example, host);
        if owed == 0 && self.visit.is_none() {
            self.fail_unbegun(cause, &example, host);
        }
        self.fail(cause, example, host);
    }

    /// Notes that `talk` is over, because of `reason`, and should not be.
    pub fn note_broken(&mut self, talk: &mut Talk, reason: &CloseReason, host: &mut Host) {
        if host.plan.activity == Activity::Requests && self.note_used_up(talk, reason, host) {
            return;
        }
        let (cause, example) = talk.judge(reason, host.patience(0));
        if self.is_let_in {
            host.recorder.links.lost += 1;
        } else {
            host.recorder.record_link_failure(cause, || example.clone());
        }
        if self.visit.is_none() && self.fail_all(talk, cause, &example, host) == 0 {
            self.fail_unbegun(cause, &example, host);
        }
        let is_shut_out = matches!(cause, Cause::GateRefused | Cause::Tls);
        if is_shut_out
            && host.recorder.replies() == 0
            && host.recorder.links.failed.count(cause) >= host.plan.connections as u64
        {
            host.failure.get_or_insert((cause, example.clone()));
        }
        self.fail(cause, example, host);
    }

    /// Notes that the connection is closed.
    pub fn note_closed(&mut self, host: &mut Host) {
        self.is_let_in = false;
        if std::mem::take(&mut self.is_established) {
            host.established -= 1;
        }
    }

    /// Whether the server has closed a connection that it had served, or of which nothing was asked. No
    /// request has failed then: what was on the way was not looked at, and goes over the next one.
    fn note_used_up(&mut self, talk: &mut Talk, reason: &CloseReason, host: &mut Host) -> bool {
        if !self.is_let_in || host.work.datagrams || !talk.is_between_replies(reason) {
            return false;
        }
        let is_asked = talk.generator().unfinished().any(|it| it.is_sent);
        if is_asked && !talk.is_ending() && !is_used_up(talk, reason, host) {
            return false;
        }
        self.note_ending(talk, host);
        true
    }

    /// Notes that the server has closed `talk`, or said that it will, which is no failure of anything: what
    /// was asked over it and is not answered goes over the next connection.
    pub fn note_ending(&mut self, talk: &mut Talk, host: &mut Host) {
        let legacy = talk.generator().hand_over();
        let resent = legacy.unfinished().filter(|it| it.is_sent).count() as u64;
        let (replies, links) = (talk.replies(), &mut host.recorder.links);
        *(if resent > 0 { &mut links.closed_used } else { &mut links.closed_idle }) += 1;
        links.resent += resent;
        links.replies_before_close += replies;
        let is_any = legacy.unfinished().next().is_some();
        self.legacy = is_any.then(|| Box::new(legacy));
        // What was granted and has no moment yet is granted anew.
        host.outstanding -= talk.generator().outstanding();
        let lived = Instant::now().saturating_duration_since(talk.since());
        let was_of_use = replies > 0 || lived >= SHORT_LIFE;
        self.failures = if was_of_use { 0 } else { self.failures + 1 };
        host.conclude();
    }

    /// All that `talk` has not finished has failed; answers how much of it was due.
    fn fail_all(&mut self, talk: &mut Talk, cause: Cause, why: &str, host: &mut Host) -> usize {
        let mut owed = 0;
        for unfinished in talk.generator().unfinished() {
            host.outstanding -= 1;
            if unfinished.due.is_some() {
                owed += 1;
                host.recorder.record_failure(cause, unfinished.due, || why.to_owned());
            }
        }
        owed
    }

    /// So has all that waited for a connection; answers how much that was.
    fn fail_legacy(&mut self, cause: Cause, why: &str, host: &mut Host) -> usize {
        let mut owed = 0;
        for unfinished in self.legacy.take().iter().flat_map(|legacy| legacy.unfinished()) {
            owed += 1;
            host.outstanding -= 1;
            host.recorder.record_failure(cause, unfinished.due, || why.to_owned());
        }
        owed
    }

    /// A connection has failed that nothing was due on. In a closed loop a request would have been: each
    /// client has one at any time. Where connections are only held, each is what was asked for.
    fn fail_unbegun(&mut self, cause: Cause, why: &str, host: &mut Host) {
        let is_closed = host.plan.rate.is_none() && host.stage < Stage::Draining;
        match host.plan.activity {
            Activity::Idle => host.recorder.record_failure(cause, None, || why.to_owned()),
            Activity::Requests if is_closed => {
                host.recorder.record_unbegun(cause, Instant::now(), || why.to_owned());
            }
            _ => {}
        }
    }

    /// What all failures have in common: the visit has failed, and it is known whether this
    /// visitor could open a connection.
    fn fail(&mut self, cause: Cause, example: String, host: &mut Host) {
        if let Some(due) = self.visit.take() {
            host.outstanding -= 1;
            host.recorder.record_failure(cause, Some(due), || example);
        }
        self.settle(host);
        host.conclude();
        self.failures += 1;
    }

    fn settle(&mut self, host: &mut Host) {
        if !std::mem::replace(&mut self.is_settled, true) {
            host.count_settled();
        }
    }
}

/// Whether `talk` ended because the server is done with it, and not because of what was asked last. Then
/// it ends sooner than an answer could have come, and in order, unless the end of a rest crossed the
/// request; or after as many replies as all others. Of the first that ends in order the best is thought.
fn is_used_up(talk: &mut Talk, reason: &CloseReason, host: &mut Host) -> bool {
    let replies = talk.replies();
    if replies == 0 {
        return false;
    }
    let is_in_order = talk.ended_in_order(reason);
    match host.habit.note(replies) {
        Habit::Unknown if is_in_order => true,
        Habit::ClosesAfter(usual) if usual == replies => true,
        Habit::Unknown | Habit::ClosesAfter(_) | Habit::None => {
            let waited = talk.waiting_since().map(|since| since.elapsed().as_nanos() as u64);
            (is_in_order || talk.has_rested())
                && waited.is_none_or(|waited| Some(waited) < host.recorder.least_service())
        }
    }
}
