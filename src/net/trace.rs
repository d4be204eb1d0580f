//! The observer of a command that keeps no log of its own.

use crate::proto::event::{Event, Observer, Subject};

/// Shows what the loop does, to whoever asks for `RUST_LOG=trace`.
pub struct TraceObserver;

impl Observer for TraceObserver {
    fn wants_detail(&self) -> bool {
        log::log_enabled!(target: "turnstile::loop", log::Level::Trace)
    }

    fn observe(&mut self, turn: u64, subject: &Subject<'_>, event: &Event<'_>) {
        log::trace!(target: "turnstile::loop", "turn {turn} {} {event}", subject.name);
    }
}
