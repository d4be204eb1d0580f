//! Stopping: the first signal stops accepting and lets what is open finish; a second one, or the
//! end of the drain, closes what is left.

use std::time::{Duration, Instant};

use super::host::Phase;
use super::{DaemonSource, manager};
use crate::net::reactor::{Context, Next};
use crate::net::signal::{Asked, StopSignals};

/// The signal handler.
pub struct Stop {
    signals: StopSignals,
    drain: Duration,
    drain_ends: Option<Instant>,
    /// Whether its end was seen: those who were heard from in the same turn have theirs first.
    is_over: bool,
}

impl Stop {
    /// A handler that lets open connections go on for `drain` after the first signal.
    #[must_use]
    pub fn new(signals: StopSignals, drain: Duration) -> Self {
        Self { signals, drain, drain_ends: None, is_over: false }
    }

    /// Registers for the signals.
    pub fn start(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        if let Err(error) = self.signals.register(context) {
            log::error!("signals cannot be watched: {error}; only SIGKILL will stop this process");
        }
        Next::Wait
    }

    /// Goes on to the next phase for each signal that asks for it, and when the drain is over.
    pub fn run(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        let before = context.host.phase;
        let asked: Vec<Asked> = self.signals.hear().collect();
        for asked in asked {
            match asked {
                Asked::Stop => self.next_phase(context),
                Asked::Reload => log::warn!(
                    "SIGHUP: a running daemon does not read its configuration again yet; it goes on \
                     with the one that it has, and a restart takes up a changed one"
                ),
                Asked::Nothing(name) => log::info!("{name} asks for nothing that is known here"),
            }
        }
        if let Phase::Draining(until) = context.host.phase
            && until <= context.now
        {
            if !std::mem::replace(&mut self.is_over, true) && !self.drain.is_zero() {
                return Next::Again;
            }
            context.host.phase = Phase::Stopping;
            log::warn!(
                "the drain is over: {} connections are closed",
                context.host.admissions.open()
            );
        }
        if context.host.phase != before {
            context.wake_all();
        }
        Next::Wait
    }

    /// The end of the drain.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.drain_ends
    }

    fn next_phase(&mut self, context: &mut Context<'_, DaemonSource>) {
        let open = context.host.admissions.open();
        context.host.phase = match context.host.phase {
            Phase::Running => {
                log::info!(
                    "stopping: {open} connections may go on for {:?}; a second signal closes them",
                    self.drain
                );
                manager::stopping();
                let until = context.now + self.drain;
                self.drain_ends = Some(until);
                Phase::Draining(until)
            }
            Phase::Draining(_) | Phase::Stopping => {
                log::warn!("a second signal: {open} connections are closed");
                Phase::Stopping
            }
        };
    }
}
