//! What one visitor owes, and what it writes into the records that all of them share.
//!
//! It opens and closes nothing, and does not say when anything is sent.
//!
//! Invariant: the host's count of outstanding requests is the sum of what the visitors owe: the
//! requests granted to their generators, or one for a visit that was begun and has not ended.

use std::io;
use std::time::Instant;

use super::host::{Host, Stage};
use super::plan::Activity;
use super::statistics::{Cause, Phase};
use super::talk::{Talk, cause_of};
use crate::net::reactor::Waker;
use crate::proto::session::CloseReason;

/// The books of one visitor.
#[derive(Debug, Default)]
pub struct Tally {
    /// When the visit that was begun was due; only where each connection is one visit.
    visit: Option<Instant>,
    /// Failures since anything last went well.
    failures: usize,
    /// Whether it is known if a connection could be opened.
    is_settled: bool,
    /// Whether there is a connection that is past the gate.
    is_established: bool,
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

    /// Whether there is a reason to open a connection: always, where connections stay open; where
    /// each is a visit, one that is due, and which `visitor` waits for where none is.
    pub fn take_visit(&mut self, now: Instant, visitor: Waker, host: &mut Host) -> bool {
        match host.plan.activity {
            Activity::Requests | Activity::Idle => host.stage < Stage::Draining,
            _ if self.visit.is_some() => true,
            Activity::Visits | Activity::Handshakes => match host.take_turn(now) {
                Some(due) => {
                    self.visit = Some(due.unwrap_or_else(Instant::now));
                    host.outstanding += 1;
                    true
                }
                None => {
                    host.rest(visitor);
                    false
                }
            },
        }
    }

    /// Lets finished requests be replaced at once from now on, where the run is of that kind.
    pub fn agree_on_refills(&mut self, talk: &mut Talk, host: &Host) {
        self.refills = host.goes_on_at_once();
        talk.generator().refill(self.refills);
    }

    /// Notes that `talk` is past the gate, once it is.
    pub fn note_admission(&mut self, talk: &mut Talk, host: &mut Host) {
        if self.is_established {
            return;
        }
        let Some(admitted) = talk.generator().admitted() else { return };
        self.is_established = true;
        host.established += 1;
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
        self.settle(host);
    }

    /// Notes the requests that `talk` has finished; answers when the last of them was.
    pub fn note_finished(&mut self, talk: &mut Talk, host: &mut Host) -> Option<Instant> {
        let mut last = None;
        let mut count = 0;
        let mut finished = std::mem::take(&mut host.finished);
        for sample in finished.drain(..) {
            count += 1;
            last = Some(sample.done);
            if !host.is_sated() {
                host.recorder.record_request(&sample);
            }
        }
        host.finished = finished;
        let done = last?;
        talk.hear(done);
        self.failures = 0;
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

    /// Notes a visit without a request, which is over once `talk` is past the gate. Answers
    /// whether it is.
    pub fn note_handshake(&mut self, talk: &mut Talk, host: &mut Host) -> bool {
        let (Some(admitted), Some(due)) = (talk.generator().admitted(), self.visit) else {
            return false;
        };
        if !host.is_sated() {
            host.recorder.record_visit(due, admitted);
        }
        if host.is_sated() {
            host.close_window(admitted);
        }
        self.visit = None;
        self.failures = 0;
        host.outstanding -= 1;
        host.conclude();
        true
    }

    /// Notes that an answer to `talk`'s oldest datagram did not come in time.
    pub fn note_lost(&mut self, talk: &mut Talk, host: &mut Host) {
        let due = talk.give_up_oldest();
        host.outstanding -= 1;
        host.recorder.record_error(Cause::Lost, due, || "no answer came in time".to_owned());
        host.conclude();
    }

    /// Notes that no connection could be opened, wherever it was tried.
    pub fn note_unreachable(&mut self, error: &io::Error, host: &mut Host) {
        let (cause, example) = (cause_of(error), error.to_string());
        if self.visit.is_none() {
            host.recorder.record_error(cause, None, || example.clone());
        }
        host.connect_failures += 1;
        if !host.has_connected && host.connect_failures >= host.plan.connections {
            host.failure.get_or_insert((cause, example.clone()));
        }
        self.fail(cause, example, host);
    }

    /// Notes that `talk` is over, because of `reason`, and should not be.
    pub fn note_broken(&mut self, talk: &mut Talk, reason: &CloseReason, host: &mut Host) {
        let (cause, example) = talk.judge(reason, host.plan.timeout);
        let mut owed = 0;
        if self.visit.is_none() {
            for due in talk.generator().unfinished() {
                owed += 1;
                host.recorder.record_error(cause, due, || example.clone());
            }
            host.outstanding -= owed;
        }
        let was_needed = host.stage < Stage::Draining;
        if owed == 0 && self.visit.is_none() && was_needed {
            host.recorder.record_error(cause, None, || example.clone());
        }
        let is_shut_out = matches!(cause, Cause::GateRefused | Cause::Tls);
        if is_shut_out
            && host.recorder.replies() == 0
            && host.recorder.errors(cause) >= host.plan.connections as u64
        {
            host.failure.get_or_insert((cause, example.clone()));
        }
        self.fail(cause, example, host);
    }

    /// Notes that the connection is closed.
    pub fn note_closed(&mut self, host: &mut Host) {
        if std::mem::take(&mut self.is_established) {
            host.established -= 1;
        }
    }

    /// What all failures have in common: the visit has failed, and it is known whether this
    /// visitor could open a connection.
    fn fail(&mut self, cause: Cause, example: String, host: &mut Host) {
        if let Some(due) = self.visit.take() {
            host.outstanding -= 1;
            host.recorder.record_error(cause, Some(due), || example);
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
