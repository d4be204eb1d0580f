//! The lines of the log on their way to standard error, for which nothing ever waits.
//!
//! A line is queued whole or not at all, and the queue is bounded: where nobody reads, or the disk is
//! full, lines are lost. How many is counted, and said as soon as something can be said again.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::throttle::Throttle;
use crate::net::output::Output;

/// How many bytes of log may wait for a reader.
const QUEUE_LIMIT: usize = 256 * 1024;

/// When to try again where standard error takes no more. Nothing tells when it does: a file or a
/// terminal cannot be waited for beside the sockets.
const RETRY: Duration = Duration::from_millis(100);

/// How long the end of the program waits for a reader of its last lines who takes none, and for one
/// who takes them slowly.
const LAST_WORDS: Duration = Duration::from_millis(250);
const LONGEST_LAST_WORDS: Duration = Duration::from_secs(2);

/// The lines that wait to be written to standard error.
#[derive(Clone)]
pub struct LogQueue {
    lines: Arc<Mutex<Lines<io::Stderr>>>,
    libraries: Arc<Mutex<Throttle>>,
    /// Whether each line is tried at once.
    is_eager: bool,
}

impl LogQueue {
    /// An empty queue. One that `is_eager` writes what it can as it comes; else it is for the loop to
    /// [flush](Self::flush) it, once a turn.
    #[must_use]
    pub fn new(is_eager: bool) -> Self {
        let lines = Arc::new(Mutex::new(Lines::new(io::stderr())));
        Self { lines, libraries: Arc::default(), is_eager }
    }

    /// What bounds the lines that libraries write.
    #[must_use]
    pub fn libraries(&self) -> Arc<Mutex<Throttle>> {
        Arc::clone(&self.libraries)
    }

    /// Writes as much as standard error takes without blocking. Answers when to try again, where
    /// something is left.
    #[must_use]
    pub fn flush(&self) -> Option<Duration> {
        let mut lines = self.lock();
        lines.write();
        (!lines.waiting.is_empty()).then_some(RETRY)
    }

    /// Writes the rest before the program ends, with some patience for whoever reads it.
    pub fn finish(&self) {
        self.lock().finish();
    }

    /// How many lines were lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> MutexGuard<'_, Lines<io::Stderr>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line comes in one `write`.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.lock();
        lines.push(line);
        if self.is_eager {
            lines.write();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Lines<D> {
    output: Output<D>,
    waiting: Vec<u8>,
    /// Lost since the start.
    lost: u64,
    /// How many of them were said.
    said: u64,
    /// What the disk said, where that was why.
    failure: Option<io::Error>,
}

impl<D: AsFd> Lines<D> {
    fn new(descriptor: D) -> Self {
        let output = Output::new(descriptor);
        Self { output, waiting: Vec::new(), lost: 0, said: 0, failure: None }
    }

    fn push(&mut self, line: &[u8]) {
        if self.waiting.len() + line.len() > QUEUE_LIMIT {
            // One turn may have more to say than the queue holds, to a reader who is quick.
            self.write_waiting();
        }
        if self.waiting.len() + line.len() <= QUEUE_LIMIT {
            self.waiting.extend_from_slice(line);
        } else {
            self.lost += 1;
        }
    }

    /// Writes what goes out at once, and last what was lost before it.
    fn write(&mut self) {
        self.write_waiting();
        if self.waiting.is_empty() && self.lost > self.said {
            let lost = self.lost - self.said;
            let now = Timestamp::now();
            let why = match self.failure.take() {
                Some(error) => error.to_string(),
                None => "nobody read them".to_owned(),
            };
            self.waiting = format!("[{now:.0} WARN ] {lost} log lines were lost: {why}\n").into();
            self.said = self.lost;
            self.write_waiting();
        }
    }

    fn write_waiting(&mut self) {
        let mut written = 0;
        while written < self.waiting.len() {
            match self.output.write(piece(&self.waiting[written..])) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // There may be room again.
                Err(error) if self.output.is_file() => {
                    self.failure = Some(error);
                    break;
                }
                // Nobody will ever read it.
                Err(_) => {
                    let rest = &self.waiting[written..];
                    self.lost += rest.iter().filter(|byte| **byte == b'\n').count() as u64;
                    self.said = self.lost;
                    written = self.waiting.len();
                }
            }
        }
        self.waiting.drain(..written);
    }

    fn finish(&mut self) {
        let (start, mut since) = (Instant::now(), Instant::now());
        loop {
            let before = self.waiting.len();
            self.write();
            let is_stuck = self.waiting.len() == before && since.elapsed() >= LAST_WORDS;
            if self.waiting.is_empty() || is_stuck || start.elapsed() >= LONGEST_LAST_WORDS {
                return;
            }
            if self.output.is_file() {
                return;
            }
            if self.waiting.len() < before {
                since = Instant::now();
            }
            self.output.wait(LAST_WORDS);
        }
    }
}

/// What is written at once: whole lines, as many as a pipe takes without mixing them with those of
/// others who write to it (`PIPE_BUF` on Linux).
fn piece(lines: &[u8]) -> &[u8] {
    const ATOMIC: usize = 4096;
    if lines.len() <= ATOMIC {
        return lines;
    }
    let whole = lines[..ATOMIC].iter().rposition(|byte| *byte == b'\n');
    &lines[..whole.map_or(ATOMIC, |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_not_the_loop() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut lines = Lines::new(writer);
        let line = [b'x'; 1024];
        for _ in 0..1000 {
            lines.push(&line);
        }
        lines.write();
        assert!(!lines.waiting.is_empty(), "a pipe holds 64 KiB, the queue had 256");
        let lost = lines.lost;
        assert!((600..744).contains(&lost), "all but what they hold: {lost}");

        let mut read = 0;
        while !lines.waiting.is_empty() {
            read += reader.read(&mut [0; 65536]).expect("what was written");
            lines.write();
        }
        drop(lines);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        let told = format!("Z WARN ] {lost} log lines were lost: nobody read them\n");
        assert!(rest.ends_with(&told), "{read}");
    }

    #[test]
    fn the_last_write_tells_what_was_lost_and_waits_for_nobody() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut lines = Lines::new(writer);
        lines.push(b"a line\n");
        lines.lost = 3;
        lines.finish();
        lines.push(&[b'x'; 100_000]);
        let start = Instant::now();
        lines.finish();
        assert!(start.elapsed() >= LAST_WORDS);
        drop(lines);
        let mut written = String::new();
        reader.read_to_string(&mut written).expect("text");
        assert!(written.starts_with("a line\n["), "{written}");
        assert!(written.contains("WARN ] 3 log lines were lost: nobody read them\nxxx"));
    }

    #[test]
    fn a_full_disk_keeps_what_fits_the_queue_and_a_reader_who_is_gone_nothing() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
        let mut lines = Lines::new(full);
        lines.push(b"a line\n");
        lines.write();
        assert_eq!(lines.waiting, b"a line\n");
        assert_eq!(lines.failure.map(|it| it.kind()), Some(io::ErrorKind::StorageFull));

        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut lines = Lines::new(writer);
        lines.push(b"one\n");
        lines.push(b"two\n");
        lines.write();
        assert_eq!((lines.waiting.len(), lines.lost), (0, 2));
    }
}
