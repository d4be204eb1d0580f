//! Signals as readiness events: a handler writes to a pipe, the pipe becomes readable.
//!
//! What a process inherits from whoever started it may be anything: signals that are blocked, or
//! ignored. [`settle`] makes it the same for every start.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook_mio::v1_0::Signals;

use crate::net::reactor::{Context, Source};
use crate::proto::end::Side;

/// Signals that ask a running program for something, and must not kill one that knows nothing of it.
const REQUESTS: [i32; 3] = [SIGHUP, SIGUSR1, SIGUSR2];

/// What every command begins with: no signal is blocked because it was for the parent, and a file
/// that has reached its limit (`ulimit -f`) is an error of the write, and not the end.
///
/// # Errors
/// Those of `sigaction(2)` and `pthread_sigmask(3)`.
pub fn settle() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    disarm(SIGXFSZ)
}

/// What a daemon goes on with, before it has a loop that could hear of signals: none that asks for
/// something kills it.
///
/// # Errors
/// Those of `sigaction(2)`.
pub fn survive_requests() -> io::Result<()> {
    REQUESTS.into_iter().try_for_each(disarm)
}

/// What a command goes on with whose loop is over, and heard of the signals to stop: they end it again,
/// as it may wait for somebody to read what it prints.
///
/// # Errors
/// Those of `sigaction(2)`.
pub fn end_at_once() -> io::Result<()> {
    let always = Arc::new(AtomicBool::new(true));
    [SIGINT, SIGTERM].into_iter().try_for_each(|signal| {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&always)).map(|_| ())
    })
}

/// A handler that does nothing of importance, in the place of death.
fn disarm(signal: i32) -> io::Result<()> {
    signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map(|_| ())
}

/// From now on a terminal can be written to in the background, too, where it would stop those who do
/// (`stty tostop`): SIGTTOU is blocked.
pub(super) fn write_from_the_background() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTTOU);
    // Where that is refused, all is as it was.
    let _ = set.thread_block();
}

/// The signals that ask a program to stop: SIGINT and SIGTERM; and for a daemon, those that ask it for
/// something else.
pub struct StopSignals(Signals);

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To stop.
    Stop,
    /// To read the configuration again.
    Reload,
    /// For something that has no meaning; the name of the signal.
    Nothing(&'static str),
}

impl StopSignals {
    /// Takes the two signals over from their default, which is to kill.
    ///
    /// # Errors
    /// Those of `sigaction(2)` and `socketpair(2)`.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Signals::new([SIGINT, SIGTERM])?))
    }

    /// The same, with the requests to a daemon.
    ///
    /// # Errors
    /// Those of `sigaction(2)` and `socketpair(2)`.
    pub fn with_requests() -> io::Result<Self> {
        let signals = Self::new()?;
        REQUESTS.into_iter().try_for_each(|signal| signals.0.add_signal(signal))?;
        Ok(signals)
    }

    /// Registers for readiness as the remote side of `context`'s source.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register<S: Source>(&mut self, context: &Context<'_, S>) -> io::Result<()> {
        context.register(&mut self.0, Side::Remote, mio::Interest::READABLE)
    }

    /// How many that ask to stop have come since the last call.
    pub fn take(&mut self) -> usize {
        self.hear().filter(|asked| *asked == Asked::Stop).count()
    }

    /// What has come since the last call.
    pub fn hear(&mut self) -> impl Iterator<Item = Asked> + '_ {
        self.0.pending().map(|signal| match signal {
            SIGHUP => Asked::Reload,
            SIGUSR1 => Asked::Nothing("SIGUSR1"),
            SIGUSR2 => Asked::Nothing("SIGUSR2"),
            _ => Asked::Stop,
        })
    }
}
