//! The places that a process has for descriptors: keeping one, and seeing that none is left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

/// A descriptor that stands for one that will be needed later: dropped, it leaves its place to it.
///
/// # Errors
/// No descriptor is left.
pub fn reserve() -> io::Result<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned()
}

/// Whether `error` says that this process or its system has no descriptor or memory left: whoever
/// was to be called is not to blame.
#[must_use]
pub fn have_run_out(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}
