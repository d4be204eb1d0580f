//! Signals as readiness events: a handler writes to a pipe, the pipe becomes readable.

use std::io;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::net::reactor::{Context, Source};
use crate::proto::end::Side;

/// The signals that ask a program to stop: SIGINT and SIGTERM.
pub struct StopSignals(Signals);

impl StopSignals {
    /// Takes the two signals over from their default, which is to kill.
    ///
    /// # Errors
    /// Those of `sigaction(2)` and `socketpair(2)`.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Signals::new([SIGINT, SIGTERM])?))
    }

    /// Registers for readiness as the remote side of `context`'s source.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register<S: Source>(&mut self, context: &Context<'_, S>) -> io::Result<()> {
        context.register(&mut self.0, Side::Remote, mio::Interest::READABLE)
    }

    /// How many have come since the last call.
    pub fn take(&mut self) -> usize {
        self.0.pending().count()
    }
}
