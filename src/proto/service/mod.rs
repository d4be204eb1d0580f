//! The services: what an admitted peer talks to.
//!
//! Over a stream, a service is the local [`End`] of a session: it takes bytes from one pipe and
//! puts bytes into the other. Over datagrams it answers each by itself, in the storage in which it
//! came. A stream has no message boundaries; the services that speak of *a message* mean what one
//! look at the pipe shows, which is what one `recv` returned.

pub mod chargen;
pub mod daytime;
pub mod discard;
pub mod echo;
pub mod once;
pub mod reply;
pub mod time;
pub mod upper;

use std::io;
use std::rc::Rc;

use super::end::{Clock, End, Progress, Turn};
use super::pipe::Pipe;

/// The longest message that the services of one question and one answer read, in bytes. What is
/// sent beyond it is thrown away.
pub const MESSAGE_LIMIT: usize = 1024;

/// Which service a listener offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every byte comes back, a-z as A-Z.
    Upper,
    /// One message: stripped of white space, upper-cased, sent back; then the connection closes.
    Once,
    /// One message is read, the greeting is sent, the connection closes.
    Greet,
    /// Each message is answered with the local time as C's `ctime()`; `END` ends it.
    Time,
    /// Every byte comes back (RFC 862).
    Echo,
    /// Every byte is thrown away (RFC 863).
    Discard,
    /// The local time, then close (RFC 867).
    Daytime,
    /// A pattern of printable characters without end (RFC 864).
    Chargen,
    /// One message is read, this text is sent, the connection closes.
    Reply(Rc<[u8]>),
}

impl Kind {
    /// The service for one new connection.
    #[must_use]
    pub fn stream(&self) -> Box<dyn End> {
        match self {
            Self::Upper => Box::new(upper::Upper),
            Self::Once => Box::new(once::Once),
            Self::Greet => Box::new(reply::Reply::new(Rc::from(reply::GREETING))),
            Self::Time => Box::new(time::Time),
            Self::Echo => Box::new(echo::Echo),
            Self::Discard => Box::new(discard::Discard),
            Self::Daytime => Box::new(daytime::Daytime),
            Self::Chargen => Box::new(chargen::Chargen::new()),
            Self::Reply(text) => Box::new(reply::Reply::new(Rc::clone(text))),
        }
    }

    /// Answers one datagram in place: the first `len` bytes of `slot` are the request, and
    /// afterwards as many as are returned are the reply. `None` is no reply, which is not the
    /// same as an empty one.
    ///
    /// # Panics
    /// If the slot is too small for the reply; the longest datagram of IPv4, 65,507 bytes, is
    /// enough for every service.
    #[must_use]
    pub fn datagram(&self, slot: &mut [u8], len: usize, clock: &dyn Clock) -> Option<usize> {
        match self {
            Self::Upper => {
                slot[..len].make_ascii_uppercase();
                Some(len)
            }
            Self::Once => Some(once::answer_in_place(&mut slot[..len])),
            Self::Greet => Some(put(slot, reply::GREETING)),
            Self::Time => (!time::is_end(&slot[..len]))
                .then(|| put(slot, time::ctime(&clock.local_time()).as_bytes())),
            Self::Echo => Some(len),
            Self::Discard => None,
            Self::Daytime => Some(put(slot, daytime::line(&clock.local_time()).as_bytes())),
            Self::Chargen => Some(chargen::datagram(slot)),
            Self::Reply(text) => Some(put(slot, text)),
        }
    }
}

fn put(slot: &mut [u8], text: &[u8]) -> usize {
    slot[..text.len()].copy_from_slice(text);
    text.len()
}

/// The exchange of a service that sends every byte back: the storage goes round, and the end of
/// the stream follows the last byte.
fn send_back(to: &mut Pipe, from: &mut Pipe, transform: fn(&mut [u8])) -> io::Result<Progress> {
    let mut moved = to.hand_over(from, transform);
    if to.is_drained() {
        to.finish();
        from.end();
        moved += 1;
    }
    Ok(Progress::Moved(moved))
}

/// Throws away what waits, and passes on that nothing more will come. Answers how much that was.
fn swallow(to: &mut Pipe, turn: &mut Turn<'_>) -> usize {
    let mut moved = to.discard(turn.pool);
    if to.is_drained() {
        to.finish();
        moved += 1;
    }
    moved
}

/// Whether a message, or the end of the stream in place of one, has come.
fn message_has_come(to: &Pipe) -> bool {
    !to.is_empty() || !to.is_open()
}

/// The one message that waits, up to [`MESSAGE_LIMIT`].
fn message(to: &Pipe) -> &[u8] {
    &to.bytes()[..to.len().min(MESSAGE_LIMIT)]
}

#[cfg(test)]
mod tests;
