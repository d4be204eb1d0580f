//! Standard input and output, without ever blocking on them and without changing them.
//!
//! `O_NONBLOCK` is a property of the open file, which a shell and other programs share; setting it
//! would break them. So each read and write asks `poll(2)` first and moves no more than what
//! cannot block then. Readiness events only say when asking is worth while.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::Interest;
use mio::unix::SourceFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::reactor::{Context, Source};
use crate::proto::end::Side;

/// What a pipe that `poll` calls writable takes without blocking: `PIPE_BUF` on Linux (pipe(7)).
const PIECE: usize = 4096;

/// Standard input and output of this process.
#[derive(Debug)]
pub struct Stdio {
    input: io::Stdin,
    output: io::Stdout,
}

impl Stdio {
    /// Those of this process.
    #[must_use]
    pub fn new() -> Self {
        Self { input: io::stdin(), output: io::stdout() }
    }

    /// Registers both for readiness as the local side of `context`'s source. What cannot be
    /// waited for (a file, `/dev/null`) is always ready, and needs no registration.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)` that mean anything else.
    pub fn register<S: Source>(&self, context: &Context<'_, S>) -> io::Result<()> {
        for (descriptor, interest) in [
            (self.input.as_raw_fd(), Interest::READABLE),
            (self.output.as_raw_fd(), Interest::WRITABLE),
        ] {
            match context.register(&mut SourceFd(&descriptor), Side::Local, interest) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is, or those of `read(2)`.
    pub fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if !is_ready(&self.input, PollFlags::POLLIN)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // A buffered reader would keep bytes back, where `poll` does not see them.
        nix::unistd::read(&self.input, space).map_err(io::Error::from)
    }

    /// Writes as much as goes out at once.
    ///
    /// # Errors
    /// `WouldBlock` where nothing does, or those of `write(2)`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !is_ready(&self.output, PollFlags::POLLOUT)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        nix::unistd::write(&self.output, &bytes[..bytes.len().min(PIECE)]).map_err(io::Error::from)
    }
}

impl Default for Stdio {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether `descriptor` can be used as asked, or reports that it never will be, now.
fn is_ready(descriptor: &impl AsFd, wanted: PollFlags) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), wanted)];
    Ok(poll(&mut descriptors, PollTimeout::ZERO)? > 0)
}
