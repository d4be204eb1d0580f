//! The observer of a simulated session: it remembers what was reported, and shows it on replay.

use turnstile::proto::event::{Event, Observer, Subject};
use turnstile::proto::session::Deadline;

/// What was reported.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) is_shown: bool,
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) summary: Option<Totals>,
}

/// What the report of the end said.
pub(crate) struct Totals {
    pub(crate) identity: Option<String>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl Observer for Trace {
    fn wants_detail(&self) -> bool {
        self.is_shown
    }

    fn observe(&mut self, _turn: u64, subject: &Subject<'_>, event: &Event<'_>) {
        if self.is_shown {
            println!("    {}: {event}", subject.name);
        }
        match event {
            Event::Message(bytes) => self.messages.push(bytes.to_vec()),
            Event::Deadline(deadline) => self.deadline = Some(*deadline),
            Event::Closed(summary) => {
                self.summary = Some(Totals {
                    identity: summary.identity.map(str::to_owned),
                    received: summary.received,
                    sent: summary.sent,
                });
            }
            _ => {}
        }
    }
}
