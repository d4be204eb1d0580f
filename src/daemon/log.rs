//! The log: an observer that writes lines, and a writer that never blocks.
//!
//! Lines are put in a bounded queue and written after each turn, as far as whoever reads standard
//! error takes them. Nothing waits for a reader: where the queue is full, lines are dropped, and
//! how many is said as soon as there is room again.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::throttle::Throttle;
use crate::proto::event::{Event, Observer, Subject};
use crate::proto::reason::{CloseReason, Side};

/// How many bytes of log may wait for a reader.
const QUEUE_LIMIT: usize = 256 * 1024;

/// What one write may be without blocking on a pipe that `poll` called writable: POSIX promises
/// that this much fits (`PIPE_BUF` on Linux).
const PIECE: usize = 4096;

/// When to try again where standard error takes no more. Nothing tells when it does: a file or a
/// terminal cannot be waited for beside the sockets.
const RETRY: Duration = Duration::from_millis(100);

/// How long the end of the program waits for a reader of its last lines.
const LAST_WORDS_MS: u8 = 250;

/// Writes what happens as lines, one for each connection that ends.
pub struct LogObserver {
    refusals: Throttle,
    failures: Throttle,
}

impl LogObserver {
    /// An observer that writes through the `log` crate.
    #[must_use]
    pub fn new() -> Self {
        Self { refusals: Throttle::default(), failures: Throttle::default() }
    }
}

impl Default for LogObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for LogObserver {
    fn wants_detail(&self) -> bool {
        log::log_enabled!(target: "turnstile::loop", log::Level::Trace)
    }

    fn observe(&mut self, turn: u64, subject: &Subject<'_>, event: &Event<'_>) {
        let Subject { key, name, peer } = subject;
        match event {
            Event::Closed(end) if matches!(end.reason, CloseReason::Failed(Side::Local, _)) => {
                if let Some(kept_back) = self.failures.pass(Instant::now()) {
                    log::warn!("failed listener={name} peer={peer} {end}{kept_back}");
                }
            }
            Event::Closed(end) if end.was_admitted => {
                log::info!("closed listener={name} peer={peer} {end}");
            }
            Event::Closed(end) => {
                if log::log_enabled!(log::Level::Info)
                    && let Some(kept_back) = self.refusals.pass(Instant::now())
                {
                    log::info!("refused listener={name} peer={peer} {end}{kept_back}");
                }
            }
            Event::Refused(reason) => {
                if let Some(kept_back) = self.refusals.pass(Instant::now()) {
                    log::warn!(
                        "refused listener={name} peer={peer} reason=\"{reason}\"{kept_back}"
                    );
                }
            }
            Event::Message(bytes) => {
                log::info!("message listener={name} peer={peer} text=\"{}\"", bytes.escape_ascii());
            }
            detail => match key {
                Some(key) => {
                    log::trace!(target: "turnstile::loop", "turn {turn} #{key} {name} {peer} {detail}");
                }
                None => log::trace!(target: "turnstile::loop", "turn {turn} {detail}"),
            },
        }
    }
}

/// Starts logging to standard error through a queue, at the level that `RUST_LOG` says, else at
/// `default`. The caller [flushes](LogQueue::flush).
#[must_use]
pub fn start(default: &str) -> LogQueue {
    let queue = LogQueue::default();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(default))
        .target(env_logger::Target::Pipe(Box::new(queue.clone())))
        .format_target(false)
        .init();
    queue
}

/// The lines that wait to be written to standard error.
#[derive(Clone, Default)]
pub struct LogQueue(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    waiting: Vec<u8>,
    dropped: u64,
}

impl LogQueue {
    /// Writes as much as standard error takes without blocking. Answers when to try again, where
    /// something is left.
    #[must_use]
    pub fn flush(&self) -> Option<Duration> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.waiting.is_empty() && lines.dropped == 0 {
            return None;
        }
        lines.write_to(&mut io::stderr(), PollTimeout::ZERO);
        (!lines.waiting.is_empty()).then_some(RETRY)
    }

    /// Writes the rest before the program ends, with some patience for whoever reads it.
    pub fn finish(&self) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.write_to(&mut io::stderr(), PollTimeout::from(LAST_WORDS_MS));
    }
}

impl Lines {
    fn write_to(&mut self, output: &mut (impl Write + AsFd), timeout: PollTimeout) {
        self.write_waiting(output, timeout);
        if self.waiting.is_empty() && self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.waiting
                .extend(format!("{dropped} log lines were lost: nobody read them\n").bytes());
            self.write_waiting(output, timeout);
        }
    }

    fn write_waiting(&mut self, output: &mut (impl Write + AsFd), timeout: PollTimeout) {
        let mut written = 0;
        while written < self.waiting.len() && is_writable(output, timeout) {
            let piece = &self.waiting[written..self.waiting.len().min(written + PIECE)];
            match output.write(piece) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody will ever read it.
                Err(_) => written = self.waiting.len(),
            }
        }
        self.waiting.drain(..written);
    }
}

/// A line comes in one `write`; it is queued whole or not at all.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.waiting.len() + line.len() <= QUEUE_LIMIT {
            lines.waiting.extend_from_slice(line);
        } else {
            lines.dropped += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_writable(output: &impl AsFd, timeout: PollTimeout) -> bool {
    let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
    poll(&mut descriptors, timeout).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_not_the_loop() {
        let (mut reader, mut writer) = io::pipe().expect("a pipe");
        let mut queue = LogQueue::default();
        let line = [b'x'; 1024];
        for _ in 0..1000 {
            queue.write_all(&line).expect("queued or dropped");
        }
        let mut lines = queue.0.lock().expect("one thread");
        lines.write_to(&mut writer, PollTimeout::ZERO);
        assert!(!lines.waiting.is_empty(), "a pipe holds 64 KiB, the queue had 256");
        assert_eq!(lines.dropped, 1000 - (QUEUE_LIMIT / line.len()) as u64);

        let mut read = 0;
        while !lines.waiting.is_empty() {
            read += reader.read(&mut [0; 65536]).expect("what was written");
            lines.write_to(&mut writer, PollTimeout::ZERO);
        }
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        assert!(rest.ends_with("744 log lines were lost: nobody read them\n"), "{read}");
    }

    #[test]
    fn the_last_write_tells_what_was_lost() {
        let (mut reader, mut writer) = io::pipe().expect("a pipe");
        let mut lines = Lines { waiting: b"a line\n".to_vec(), dropped: 3 };
        lines.write_to(&mut writer, PollTimeout::ZERO);
        drop(writer);
        let mut written = String::new();
        reader.read_to_string(&mut written).expect("text");
        assert_eq!(written, "a line\n3 log lines were lost: nobody read them\n");
    }
}
