//! Writing to a descriptor that was inherited, whatever it is, without ever waiting for its reader.
//!
//! `O_NONBLOCK` is a property of the open file, which a shell and other programs share; setting it
//! for good would break them. What can be done instead depends on what the file is:
//!
//! | what | how |
//! |---|---|
//! | a pipe or a terminal | opened anew, so that the open file is our own (`/proc/self/fd`) |
//! | a socket | `MSG_DONTWAIT` with each message |
//! | a file, `/dev/null` | as it is: a disk is not waited for, it is full or not |
//! | any other, or what may not be opened anew | non-blocking for the moment of each write |
//!
//! A terminal opened anew is the same one in flow control (^S) too: it takes nothing then, and says so.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat, major, makedev};
use nix::unistd::{isatty, write};

use super::signal;

/// The device number of memory: `/dev/null` and its like, which never wait.
const MEMORY_DEVICES: u64 = 1;

/// The device number of `/dev/ptmx`.
const MASTER: u64 = makedev(5, 2);

/// A descriptor that is written to without waiting.
#[derive(Debug)]
pub struct Output<D> {
    descriptor: D,
    way: Way,
}

#[derive(Debug)]
enum Way {
    AsItIs,
    Anew(OwnedFd),
    Message,
    ForTheMoment,
}

impl<D: AsFd> Output<D> {
    /// Finds out how `descriptor` is best written to.
    pub fn new(descriptor: D) -> Self {
        let way = way(descriptor.as_fd());
        Self { descriptor, way }
    }

    /// Writes as much as goes out at once.
    ///
    /// # Errors
    /// `WouldBlock` where nothing does, or those of `write(2)`.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let descriptor = self.descriptor.as_fd();
        let written = match &self.way {
            Way::AsItIs => write(descriptor, bytes),
            Way::Anew(own) => write(own, bytes),
            Way::Message => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(descriptor.as_raw_fd(), bytes, flags)
            }
            Way::ForTheMoment => write_for_the_moment(descriptor, bytes),
        };
        match written {
            Err(Errno::EINTR) => Err(io::ErrorKind::WouldBlock.into()),
            outcome => Ok(outcome?),
        }
    }

    /// Whether it is a file on a disk, where an error may pass: the disk has room again.
    pub fn is_file(&self) -> bool {
        matches!(self.way, Way::AsItIs)
    }

    /// Writes all of `bytes`, with some patience for the reader: no longer than `limit`.
    ///
    /// # Errors
    /// `TimedOut` where the reader took too long, or those of `write(2)`.
    pub fn write_within(&self, mut bytes: &[u8], limit: Duration) -> io::Result<()> {
        let start = Instant::now();
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = limit.saturating_sub(start.elapsed());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    self.wait(left);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until something may go out, at most so long.
    pub fn wait(&self, limit: Duration) {
        let mut descriptors = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLOUT)];
        // What `poll` cannot tell, the next write does.
        let _ = poll(&mut descriptors, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
    }
}

/// Says `text` on standard error, with so much patience for whoever reads it: what is not taken then is
/// lost.
pub fn say(text: &str, patience: Duration) {
    let _ = Output::new(io::stderr()).write_within(text.as_bytes(), patience);
}

fn way(descriptor: BorrowedFd<'_>) -> Way {
    let Ok(status) = fstat(descriptor) else { return Way::AsItIs };
    match SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG | SFlag::S_IFBLK => Way::AsItIs,
        SFlag::S_IFSOCK => Way::Message,
        SFlag::S_IFIFO => anew(descriptor),
        // Opened anew, the master of a pseudo-terminal is that of another one.
        SFlag::S_IFCHR if status.st_rdev == MASTER => Way::ForTheMoment,
        SFlag::S_IFCHR if isatty(descriptor) == Ok(true) => {
            // `stty tostop` would stop the whole process for a line of its log.
            signal::write_from_the_background();
            anew(descriptor)
        }
        SFlag::S_IFCHR if major(status.st_rdev) == MEMORY_DEVICES => Way::AsItIs,
        _ => Way::ForTheMoment,
    }
}

/// Opens it anew, where that is allowed: not with a terminal that belongs to another user, say.
fn anew(descriptor: BorrowedFd<'_>) -> Way {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty()).map_or(Way::ForTheMoment, Way::Anew)
}

fn write_for_the_moment(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let before = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    if before.contains(OFlag::O_NONBLOCK) {
        return write(descriptor, bytes);
    }
    fcntl(descriptor, FcntlArg::F_SETFL(before | OFlag::O_NONBLOCK))?;
    let written = write(descriptor, bytes);
    fcntl(descriptor, FcntlArg::F_SETFL(before))?;
    written
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Writes until nothing more goes out; how much did.
    fn fill(output: &Output<impl AsFd>) -> usize {
        let mut written = 0;
        loop {
            match output.write(&[b'x'; 3000]) {
                Ok(count) => written += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return written;
                }
            }
        }
    }

    fn is_blocking(descriptor: impl AsFd) -> bool {
        let flags = fcntl(descriptor, FcntlArg::F_GETFL).expect("flags");
        !OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn nobody_is_waited_for_and_the_shared_file_stays_as_it_was() {
        let (mut pipe, writer) = io::pipe().expect("a pipe");
        let output = Output::new(writer.try_clone().expect("a descriptor"));
        assert!(matches!(output.way, Way::Anew(_)));
        let held = fill(&output);
        assert!((30_000..=65_536).contains(&held), "a pipe holds 64 KiB: {held}");
        assert!(is_blocking(&writer));
        pipe.read_exact(&mut vec![0; held]).expect("what was written");

        let output =
            Output { descriptor: writer.try_clone().expect("one"), way: Way::ForTheMoment };
        assert_eq!(fill(&output), held);
        assert!(is_blocking(&writer));

        let (near, _far) = UnixStream::pair().expect("sockets");
        let output = Output::new(near.try_clone().expect("a descriptor"));
        assert!(matches!(output.way, Way::Message));
        assert!(fill(&output) > 0);
        assert!(is_blocking(&near));
    }

    #[test]
    fn a_reader_is_given_some_time_and_no_more() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let output = Output::new(writer);
        let limit = Duration::from_millis(20);
        let error = output.write_within(&[0; 100_000], limit).expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(reader);
        let error = output.write_within(&[0; 1], limit).expect_err("nobody will");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn files_are_written_as_they_are() {
        let file = tempfile::tempfile().expect("a file");
        assert!(Output::new(file).is_file());
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("it is there");
        assert!(Output::new(null).is_file());
    }
}
