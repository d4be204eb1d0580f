//! Standard input and output, without ever blocking on them and without changing them.
//!
//! `O_NONBLOCK` is a property of the open file, which a shell and other programs share; setting it
//! would break them. So each read asks `poll(2)` first, and how to write, [`Output`] knows. Readiness
//! events only say when trying is worth while.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use mio::Interest;
use mio::unix::SourceFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::output::Output;
use super::reactor::{Context, Source};
use crate::proto::end::Side;

/// Standard input and output of this process.
#[derive(Debug)]
pub struct Stdio {
    input: io::Stdin,
    output: Output<io::Stdout>,
    /// To be registered.
    output_descriptor: RawFd,
}

impl Stdio {
    /// Those of this process.
    #[must_use]
    pub fn new() -> Self {
        let output = io::stdout();
        let output_descriptor = output.as_raw_fd();
        Self { input: io::stdin(), output: Output::new(output), output_descriptor }
    }

    /// Registers both for readiness as the local side of `context`'s source. What cannot be
    /// waited for (a file, `/dev/null`) is always ready, and needs no registration.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)` that mean anything else.
    pub fn register<S: Source>(&self, context: &Context<'_, S>) -> io::Result<()> {
        for (descriptor, interest) in [
            (self.input.as_raw_fd(), Interest::READABLE),
            (self.output_descriptor, Interest::WRITABLE),
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
        if !has_input(&self.input)? {
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
        self.output.write(bytes)
    }
}

impl Default for Stdio {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether something can be read now, or will never be.
fn has_input(descriptor: &impl AsFd) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut descriptors, PollTimeout::ZERO)? > 0)
}
