//! The clockwork of an open loop: whenever a request becomes due, it wakes the connection that has
//! rested longest, which then takes the request from the schedule.
//!
//! Where none rests the request waits, and its latency grows, until some connection has its reply
//! and takes it. That is the point of an open loop: the schedule waits for nobody.

use std::time::Instant;

use super::host::Host;
use crate::net::reactor::{Context, Next, Source};

/// Wakes connections on schedule.
#[derive(Debug, Default)]
pub struct Pacer {
    /// The alarm that was set last.
    alarm: Option<Instant>,
}

impl Pacer {
    /// It has entered the slab; the schedule may not exist yet.
    pub fn start(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Next {
        context.host.pacer = Some(context.waker());
        self.run(context)
    }

    /// The alarm has come, or the schedule has begun.
    pub fn run(&mut self, context: &mut Context<'_, impl Source<Host = Host>>) -> Next {
        let now = context.now;
        let Some(pace) = &context.host.pace else { return Next::Wait };
        let next = pace.next_after(now);
        for _ in 0..pace.waiting(now) {
            let Some(rested) = context.host.rested() else { break };
            context.wake(rested);
        }
        if let Some(next) = next
            && self.alarm.is_none_or(|alarm| alarm <= now)
        {
            self.alarm = Some(next);
            context.wake_at(next);
        }
        Next::Wait
    }
}
