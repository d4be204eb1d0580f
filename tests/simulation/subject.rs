//! A session under test: the real one, with a pool of its own, and all that is known of it. Every
//! run is followed by every check that can be made from outside.

use std::time::{Duration, Instant};

use turnstile::proto::buffer::Pool;
use turnstile::proto::end::{Side, Turn};
use turnstile::proto::event::{Subject as EventSubject, Watch};
use turnstile::proto::service::Kind;
use turnstile::proto::session::{
    Admission, CloseReason, Deadline, Session, StateName, Step, TURN_BUDGET, Timeouts,
};

use crate::model::{self, BEGINNING, Gate, WallClock, check_delivery};
use crate::probe::{Local, Probe};
use crate::trace::Trace;
use crate::wire::{BLOCKS_PER_SESSION, Wire};

/// How long Closing may take where no half-close deadline is set.
const CLOSING_LIMIT: Duration = Duration::from_secs(30);

/// A loop that is later than this stood still.
const STANDSTILL: Duration = Duration::from_millis(100);

/// A session and its surroundings.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    session: Session<Wire, Probe>,
    pool: Pool,
    gate: Gate,
    /// What stands at the local end, unless that is a wire.
    service: Option<Kind>,
    timeouts: Timeouts,
    /// Since when the gate's time counts: later than the beginning where the loop stood still.
    gate_since: Instant,
    state: StateName,
    /// Ready, new, or stopped by its budget.
    is_due: bool,
    pub(crate) was_cut_short: bool,
    pub(crate) closed: Option<CloseReason>,
    trace: Trace,
}

/// What a subject is made of.
pub(crate) struct Parts {
    pub(crate) name: &'static str,
    pub(crate) remote: Wire,
    pub(crate) local: Local,
    pub(crate) service: Option<Kind>,
    pub(crate) admission: Admission,
    pub(crate) gate: Gate,
    pub(crate) timeouts: Timeouts,
    pub(crate) block_len: usize,
}

/// Whether it closed for a reason that comes before any deadline.
fn closed_by_itself(step: &Step) -> bool {
    matches!(step, Step::Close(reason) if !matches!(reason, CloseReason::Deadline(_)))
}

impl Subject {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { name, remote, local, service, admission, gate, timeouts, block_len } = parts;
        let probe = Probe::new(local);
        let session = Session::new(remote, probe, admission, timeouts.into(), *BEGINNING);
        Self {
            name,
            session,
            pool: Pool::new(block_len, 1),
            gate,
            service,
            timeouts,
            gate_since: *BEGINNING,
            state: StateName::AuthPending,
            is_due: true,
            was_cut_short: false,
            closed: None,
            trace: Trace::default(),
        }
    }

    /// Takes the news in; answers whether it is to run `now`.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        if self.closed.is_some() {
            return false;
        }
        self.is_due |= self.session.remote().poll(now);
        self.is_due |= self.session.local().poll(now);
        self.is_due || self.deadline().is_some_and(|at| at <= now)
    }

    /// When it runs even if nobody does anything. While nobody is let in, and when nobody is any
    /// more, the local end is not asked.
    fn deadline(&mut self) -> Option<Instant> {
        let is_established = self.session.state_name() == StateName::Established;
        let local = self.session.local().deadline().filter(|_| is_established);
        [self.session.deadline(), local].into_iter().flatten().min()
    }

    /// When it runs next if nobody else does anything.
    pub(crate) fn next_run(&mut self) -> Option<Instant> {
        if self.closed.is_some() {
            return None;
        }
        let news = self.session.remote().plug.next_news();
        let local_news = self.session.local().next_news();
        [news, local_news, self.deadline()].into_iter().flatten().min()
    }

    /// Whether its budget stopped it, and it goes on in the next turn.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due && self.closed.is_none()
    }

    /// Whether its gate has let its peer in.
    pub(crate) fn admits(&mut self) -> bool {
        self.gate.admits(&self.session.remote().record.taken)
    }

    /// Whether it does not carry its peer's bytes onward yet.
    pub(crate) fn is_opening(&mut self) -> bool {
        let probe = self.session.local();
        probe.reached_at.is_none() || probe.is_opening()
    }

    /// Shows what it is, and what happens to it from now on.
    pub(crate) fn show(&mut self) {
        let Self { name, service, gate, timeouts, pool, .. } = self;
        let (gate, block_len) = (gate.name(), pool.block_len());
        println!("{name}: {service:?} behind {gate}, blocks of {block_len} bytes, {timeouts:?}");
        self.trace.is_shown = true;
    }

    /// Gives it its turn. `twice`: and, if it waits, another, in which nothing may happen.
    pub(crate) fn run(&mut self, now: Instant, twice: bool) {
        let step = self.run_once(now);
        self.give_time_back(now);
        // What has come counts before a deadline does.
        let due = if closed_by_itself(&step) { Vec::new() } else { self.due_deadlines(now) };
        self.is_due = step == Step::Again;
        self.was_cut_short |= self.is_due;
        self.check_budget(&step);
        match step {
            Step::Close(reason) => self.close(now, reason, &due),
            Step::Wait | Step::Again => {
                assert!(due.is_empty(), "lives on after {due:?}");
                self.check_state();
                let expected = self.deadlines().into_iter().map(|(at, _)| at).min();
                let deadline = self.session.deadline().map(|at| at - *BEGINNING);
                assert_eq!(deadline, expected, "the next deadline");
                let is_late = self.deadline().is_some_and(|at| at <= now);
                assert!(!is_late, "a deadline has passed, and nothing came of it");
            }
        }
        if step == Step::Wait {
            self.check_rest();
            if twice {
                assert_eq!(self.run_once(now), Step::Wait, "at rest, and then not");
                assert_eq!(self.moved(), 0, "moved although it had nothing to move");
            }
        }
    }

    /// The program stops.
    pub(crate) fn stop(&mut self, now: Instant) {
        self.close(now, CloseReason::Stopped, &[]);
    }

    /// A run, and what its owner does after it: an exit's call is made.
    fn run_once(&mut self, now: Instant) -> Step {
        self.session.remote().begin_run();
        self.session.local().begin_run();
        let step = self.run_session(now);
        let goes_on = step == Step::Wait && self.session.local().calls_onward(now);
        if goes_on { self.run_session(now) } else { step }
    }

    fn run_session(&mut self, now: Instant) -> Step {
        let clock = WallClock(now);
        let subject = EventSubject { key: None, name: self.name, peer: &"" };
        let watch = Watch::new(&mut self.trace, 0, subject);
        self.session.run(&mut Turn { now, pool: &mut self.pool, clock: &clock, watch })
    }

    fn moved(&mut self) -> usize {
        self.session.remote().record.moved + self.session.local().moved
    }

    /// The budget stops a run when it is spent, and neither before nor after. What the gate takes
    /// and what Closing throws away counts too, and is not seen here: at most what was read.
    fn check_budget(&mut self, step: &Step) {
        let seen = self.moved();
        let at_most = seen + self.session.remote().record.moved + 64;
        let overshoot = 5 * self.pool.block_len();
        assert!(seen < TURN_BUDGET + overshoot, "moved {seen} in one run");
        match step {
            Step::Again => assert!(at_most >= TURN_BUDGET, "again after only {at_most}"),
            Step::Wait => assert!(seen < TURN_BUDGET, "waits with its budget spent"),
            Step::Close(_) => {}
        }
    }

    /// States follow one another in their order, and nobody is let in who should not be.
    fn check_state(&mut self) {
        let (before, after) = (self.state, self.session.state_name());
        assert!(before as u8 <= after as u8, "went from {before} to {after}");
        self.state = after;
        let record = &self.session.remote().record;
        let (taken, sent) = (&record.taken, &record.sent);
        let admits = self.gate.admits(taken);
        assert_eq!(admits, after != StateName::AuthPending, "{after} after {taken:02x?}");
        if !admits {
            assert!(taken.len() < self.gate.takes(), "waits although the answer is wrong");
            assert!(self.gate.says(taken).starts_with(sent), "sent {sent:02x?} before the gate");
            assert_eq!(self.session.local().reached_at, None, "served before the gate");
        }
    }

    /// It waits: neither end could be used, and what it holds is held up by an end that is full.
    /// A service holds input up only while its output waits; the gate and Closing never do.
    fn check_rest(&mut self) {
        let remote = self.session.remote();
        remote.check_quiet();
        let mut held_up = usize::from(remote.wants_out());
        if self.session.state_name() == StateName::Established {
            let probe = self.session.local();
            held_up += probe.blocks_to_open();
            if let Some(wire) = probe.wire() {
                wire.check_quiet();
                held_up += usize::from(wire.wants_out());
            } else if let Local::Service(_) = probe.local {
                held_up *= BLOCKS_PER_SESSION;
            }
        }
        let lent = self.pool.lent();
        assert!(lent <= held_up, "holds {lent} blocks although {held_up} are held up");
        self.check_ends();
    }

    /// No end of stream is kept back behind the last byte.
    fn check_ends(&mut self) {
        let state = self.session.state_name();
        let remote = self.session.remote();
        let (is_held_up, has_passed) = (remote.wants_out(), remote.record.passed_end);
        let has_heard = remote.record.heard_end;
        let probe = self.session.local();
        let is_over = !probe.is_open || state == StateName::Closing;
        assert!(!is_over || is_held_up || has_passed, "keeps the end from the remote end");
        let is_held_up = is_held_up
            || probe.may_keep_the_end()
            || probe.wire().is_some_and(|wire| wire.wants_out());
        let was_told = probe.ends_heard == 1 || state == StateName::Closing;
        assert!(!has_heard || is_held_up || was_told, "keeps the end from the local end");
    }

    /// Who has said something in time at the gate gets back what the loop has lost since its end.
    fn give_time_back(&mut self, now: Instant) {
        let is_at_gate = self.session.state_name() == StateName::AuthPending;
        let due = self.due_deadlines(now);
        if let (true, true, [(at, Deadline::Auth), ..]) = (is_at_gate, self.moved() > 0, &due[..])
            && let late = now - (*BEGINNING + *at)
            && late > STANDSTILL
        {
            self.gate_since += 2 * late;
        }
    }

    /// The deadlines that have passed: one, but for those that are equal.
    fn due_deadlines(&mut self, now: Instant) -> Vec<(Duration, Deadline)> {
        let mut passed = self.deadlines();
        let first = passed.iter().map(|&(at, _)| at).min();
        passed.retain(|&(at, _)| at <= now - *BEGINNING && Some(at) == first);
        passed
    }

    /// Every deadline that runs, counted from the beginning, worked out from what was seen to move.
    fn deadlines(&mut self) -> Vec<(Duration, Deadline)> {
        let state = self.session.state_name();
        let timeouts = self.timeouts;
        let remote = &self.session.remote().record;
        let (remote_has_ended, remote_moved_at) = (remote.heard_end, remote.moved_at);
        let probe = self.session.local();
        let is_half_closed = remote_has_ended || !probe.is_open;
        let moved_at = probe.moved_at.max(remote_moved_at).unwrap_or(*BEGINNING);
        let (since, limit, deadline) = match (state, probe.done_at) {
            (StateName::AuthPending, _) if timeouts.auth.is_some() => {
                (self.gate_since, timeouts.auth, Deadline::Auth)
            }
            (StateName::Established, _) if is_half_closed && timeouts.half_close.is_some() => {
                (moved_at, timeouts.half_close, Deadline::HalfClose)
            }
            (StateName::AuthPending | StateName::Established, _) => {
                (moved_at, timeouts.idle, Deadline::Idle)
            }
            (StateName::Closing, done_at) => {
                let limit = timeouts.half_close.unwrap_or(CLOSING_LIMIT);
                (done_at.expect("the service was done"), Some(limit), Deadline::Closing)
            }
        };
        let condition = limit.map(|limit| (since - *BEGINNING + limit, deadline));
        let lifetime = timeouts.lifetime.map(|limit| (limit, Deadline::Lifetime));
        condition.into_iter().chain(lifetime).collect()
    }

    fn close(&mut self, now: Instant, reason: CloseReason, due: &[(Duration, Deadline)]) {
        self.closed = Some(reason);
        let clock = WallClock(now);
        let subject = EventSubject { key: None, name: self.name, peer: &"" };
        let watch = Watch::new(&mut self.trace, 0, subject);
        let mut turn = Turn { now, pool: &mut self.pool, clock: &clock, watch };
        self.session.dispose(&mut turn, &reason);
        assert_eq!(self.pool.lent(), 0, "kept a block after it had closed");
        self.check_reason(reason, due);
        self.check_bytes(reason);
        self.check_trace(reason);
        self.session.remote().close(now, reason);
        if let Some(wire) = self.session.local().wire() {
            wire.close(now, reason);
        }
    }

    /// The reason is what happened.
    fn check_reason(&mut self, reason: CloseReason, due: &[(Duration, Deadline)]) {
        let state = self.session.state_name();
        let admits = self.admits();
        let failure = self.failure();
        let probe = self.session.local();
        let (ends_heard, is_done) = (probe.ends_heard, probe.done_at.is_some());
        let was_served = probe.reached_at.is_some();
        let record = &self.session.remote().record;
        let has_answered = record.taken.len() >= self.gate.takes();
        let has_left = record.heard_end && !has_answered;
        let both_ended = record.heard_end && record.passed_end;
        let (is_guard, is_guest) =
            (matches!(self.gate, Gate::Guard { .. }), matches!(self.gate, Gate::Guest { .. }));
        let is_true = match reason {
            CloseReason::Stopped => true,
            CloseReason::Failed(..) => failure == Some(reason),
            CloseReason::Deadline(deadline) => due.iter().any(|&(_, it)| it == deadline),
            CloseReason::Finished => {
                state == StateName::Established && both_ended && ends_heard == 1 && !is_done
            }
            CloseReason::Served => state == StateName::Closing && both_ended && is_done,
            CloseReason::Refused => is_guard && has_answered && !admits,
            CloseReason::LeftAtGate => is_guard && has_left,
            CloseReason::NoChallenge => is_guest && has_left,
            // Of ends that encrypt, and of limits; there are none here.
            CloseReason::Truncated
            | CloseReason::Handshake
            | CloseReason::Broken
            | CloseReason::MadeRoom => false,
        };
        assert!(is_true, "said {reason:?}, which is not what happened");
        if reason != CloseReason::Stopped {
            let is_late = matches!(reason, CloseReason::Deadline(_));
            assert_eq!(is_late, !due.is_empty(), "closed as {reason:?} after {due:?}");
            let has_failed = matches!(reason, CloseReason::Failed(..));
            assert_eq!(has_failed, failure.is_some(), "closed as {reason:?} after {failure:?}");
        }
        let was_admitted = state != StateName::AuthPending;
        assert!(admits || !was_admitted, "let in somebody with the wrong answer");
        assert!(was_admitted || !was_served, "served somebody at the gate");
    }

    /// The reason that a failed end is.
    fn failure(&mut self) -> Option<CloseReason> {
        let remote = self.session.remote().record.failure;
        let local = self.session.local().failure;
        let failed = |side| move |kind| CloseReason::Failed(side, kind);
        remote.map(failed(Side::Remote)).or(local.map(failed(Side::Local)))
    }

    /// What came out is what must come of what went in: all of it where the end was reached in
    /// peace, and otherwise the beginning of it.
    fn check_bytes(&mut self, reason: CloseReason) {
        let whole = matches!(reason, CloseReason::Finished | CloseReason::Served);
        let record = &self.session.remote().record;
        let (taken, sent) = (record.taken.clone(), record.sent.clone());
        let mut expected = self.gate.says(&taken);
        let probe = self.session.local();
        if self.gate.admits(&taken) {
            let input = &taken[self.gate.takes()..];
            match (&mut probe.local, &self.service) {
                (Local::Service(_), Some(service)) => {
                    expected.extend(model::output(service, input, &probe.looks, sent.len()));
                    if let Some(look) = probe.looks.first() {
                        assert!(input.starts_with(&look.message), "saw what nobody sent");
                        let may_speak = look.was_asked() || !model::waits(service);
                        assert!(may_speak, "answered before it was asked");
                    }
                }
                (Local::Wire(wire), _) => {
                    expected.extend(&wire.record.taken);
                    check_delivery("local", &wire.record.sent, input, whole);
                    assert!(!whole || wire.record.passed_end, "the local end never heard the end");
                }
                (Local::Entry(entry), _) => expected.extend(entry.check(input, whole)),
                (Local::Exit(exit), _) => {
                    let said = sent.get(expected.len()..).unwrap_or_default();
                    expected.extend(exit.check(input, said, whole));
                }
                (Local::Service(_), None) => unreachable!("a service has a kind"),
            }
        }
        check_delivery("remote", &sent, &expected, whole);
    }

    /// What was reported is what happened.
    fn check_trace(&mut self, reason: CloseReason) {
        let deadline = match reason {
            CloseReason::Deadline(deadline) => Some(deadline),
            _ => None,
        };
        assert_eq!(self.trace.deadline, deadline, "the deadline that was reported");
        let (received, sent) = self.session.carried();
        let summary = self.trace.summary.take().expect("its end is reported");
        assert_eq!((summary.received, summary.sent), (received, sent), "bytes reported");
        let remote = self.session.remote();
        assert_eq!(received, remote.record.taken.len() as u64, "bytes received");
        let delivered = remote.record.sent.len() as u64;
        let whole = matches!(reason, CloseReason::Finished | CloseReason::Served);
        assert!(if whole { sent == delivered } else { sent >= delivered }, "bytes sent");
        let passed = self.session.state_name() != StateName::AuthPending;
        let is_named = matches!(self.gate, Gate::Guard { .. }) && passed;
        assert_eq!(summary.identity.as_deref(), is_named.then_some("ours"), "identity");
        if let Some(service) = &self.service {
            let expected = model::logged(service, &self.session.local().looks);
            assert_eq!(self.trace.messages, expected, "messages logged");
        }
    }
}
