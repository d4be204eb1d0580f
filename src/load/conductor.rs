//! Leads a run from stage to stage: opening, loading, draining, over. It also looks at the clock
//! every few milliseconds, and how late it came to that is how late anything else in the loop
//! would have been: the tester's own lag.

use std::io;
use std::time::{Duration, Instant};

use super::host::{Host, Stage};
use super::panel::Panel;
use super::plan::{Activity, Length};
use super::tester::Usage;
use crate::config::units::show_duration;
use crate::net::reactor::{Context, Next, Source};
use crate::net::signal::StopSignals;

/// How often it looks.
const BEAT: Duration = Duration::from_millis(10);

/// How many intervals a window of known length has.
const INTERVALS: u32 = 60;

/// The shortest interval.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// After so many intervals they become twice as long, so that a run whose length nobody knows does
/// not fill the memory with them.
const COARSEN_AFTER: usize = 200;

/// A run that counts its requests ends where for so many timeouts none had its reply.
const SILENT_TIMEOUTS: u32 = 3;

/// The source that leads all others.
pub struct Conductor {
    signals: StopSignals,
    panel: Option<Panel>,
    next_beat: Instant,
    interval: Duration,
    next_interval: Option<Instant>,
    opened: Instant,
    /// When the number of replies last grew, and to what.
    last_count: (Instant, u64),
}

impl Conductor {
    /// Takes the stop signals over; shows progress on `panel`, where there is one.
    ///
    /// # Errors
    /// The signals cannot be had.
    pub fn new(panel: Option<Panel>, length: Length, now: Instant) -> io::Result<Self> {
        let interval = match length {
            Length::Time(length) => (length / INTERVALS).max(SHORTEST_INTERVAL),
            Length::Requests(..) => SHORTEST_INTERVAL,
        };
        let signals = StopSignals::new()?;
        Ok(Self {
            signals,
            panel,
            next_beat: now,
            interval,
            next_interval: None,
            opened: now,
            last_count: (now, 0),
        })
    }

    /// It has entered the slab.
    pub fn start(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Next {
        context.host.conductor = Some(context.waker());
        if let Err(error) = self.signals.register(context) {
            log::warn!("signals will kill, not stop: {error}");
        }
        self.next_beat = context.now + BEAT;
        context.wake_at(self.next_beat);
        Next::Wait
    }

    /// A beat, or something that may end a stage.
    pub fn run(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Next {
        let now = Instant::now();
        if now >= self.next_beat {
            let late = now - self.next_beat;
            self.next_beat = now + BEAT;
            context.wake_at(self.next_beat);
            self.beat(late, now, context.host);
        }
        if self.signals.take() > 0 {
            context.host.interrupted = true;
            self.finish(now, context.host);
        }
        if context.host.failure.is_some() {
            self.finish(now, context.host);
        }
        let before = context.host.stage;
        self.advance(now, context.host);
        if before == Stage::Opening
            && let (Stage::Loading, Some(pacer)) = (context.host.stage, context.host.pacer)
        {
            context.wake(pacer);
        }
        Next::Wait
    }

    /// What is done every few milliseconds.
    fn beat(&mut self, late: Duration, now: Instant, host: &mut Host) {
        let Some(window) = host.recorder.window() else { return self.show(now, host) };
        let due = (now - late).max(window.begin);
        if now >= window.begin && window.contains(due) {
            // A pause that goes on beyond the end of the window spoils what was due in it all the same.
            host.lateness.note(due, now - due, BEAT);
        }
        if window.contains(now) {
            host.usage_before.get_or_insert_with(Usage::now);
            let next = *self.next_interval.get_or_insert(window.begin + self.interval);
            if now >= next {
                host.recorder.turn_interval(now, host.lateness.take_worst());
                if host.recorder.intervals().len().is_multiple_of(COARSEN_AFTER) {
                    self.interval *= 2;
                }
                self.next_interval = Some(now + self.interval);
            }
        }
        self.show(now, host);
    }

    fn show(&mut self, now: Instant, host: &Host) {
        if let Some(panel) = &mut self.panel {
            panel.show(now, host);
        }
    }

    /// Goes on to the next stage, where this one is done.
    fn advance(&mut self, now: Instant, host: &mut Host) {
        match host.stage {
            Stage::Opening => {
                let is_open = match host.plan.activity {
                    Activity::Requests | Activity::Idle => host.settled == host.plan.connections,
                    Activity::Visits | Activity::Handshakes => true,
                };
                if is_open && now >= self.opened + host.plan.ramp_up {
                    host.open_window(now);
                }
            }
            Stage::Loading => {
                self.limit_count(now, host);
                let end = host.recorder.window().and_then(|window| window.end);
                if let Some(end) = end.filter(|end| *end <= now) {
                    host.close_window(end);
                    self.end_window(now, host);
                }
            }
            Stage::Draining => {
                self.end_window(now, host);
                let end = host.recorder.window().and_then(|window| window.end).unwrap_or(now);
                let is_drained = host.outstanding == 0 && !host.has_waiting(now);
                if is_drained || now >= end + host.plan.timeout {
                    self.finish(now, host);
                }
            }
            Stage::Over => {}
        }
    }

    /// Ends a run that counts its requests where they do not come: the time is up, or nothing has
    /// been answered for so long that nothing will be.
    fn limit_count(&mut self, now: Instant, host: &mut Host) {
        let Length::Requests(count, limit) = host.plan.length else { return };
        let Some(window) = host.recorder.window() else { return };
        let replies = host.recorder.replies();
        if replies > self.last_count.1 {
            self.last_count = (now, replies);
        }
        let since = self.last_count.0.max(window.begin);
        let silence = host.plan.timeout.saturating_mul(SILENT_TIMEOUTS);
        let why = if now >= window.begin + limit {
            format!("the time was up, {}; --duration sets it", show_duration(limit))
        } else if now >= since + silence {
            format!("nothing was answered for {}", show_duration(silence))
        } else {
            return;
        };
        host.cut_short = Some(format!("The run ended after {replies} of {count} requests: {why}."));
        host.close_window(now);
        self.end_window(now, host);
    }

    /// Closes the books of the window, once.
    fn end_window(&mut self, now: Instant, host: &mut Host) {
        if host.usage_after.is_none() {
            host.usage_after = Some(Usage::now());
            host.established_at_end = host.established;
            let end = host.recorder.window().and_then(|window| window.end);
            let waiting = host.pace.as_ref().zip(end).map(|(pace, end)| pace.waiting(end));
            host.backlog = waiting.unwrap_or(0);
            host.recorder.turn_interval(now, host.lateness.take_worst());
        }
    }

    /// Nothing more is waited for.
    fn finish(&mut self, now: Instant, host: &mut Host) {
        if host.stage == Stage::Over {
            return;
        }
        host.close_window(now);
        self.end_window(now, host);
        host.recorder.turn_interval(now, host.lateness.take_worst());
        host.stage = Stage::Over;
        if let Some(panel) = &mut self.panel {
            panel.clear();
        }
    }
}
