//! The two ends that a session joins, and what they are given when their turn comes.

use std::fmt;
use std::io;
use std::time::Instant;

use super::buffer::Pool;
use super::event::Watch;
use super::pipe::Pipe;
pub use super::reason::Side;

/// One end of a session: a socket, a terminal, a service.
pub trait End {
    /// Takes what it can from the pipe `to` it, and puts what it has into the pipe `from` it, in
    /// one bounded step and without ever waiting.
    ///
    /// Where `to` is [drained](Pipe::is_drained), the end passes the end of the stream on and
    /// finishes it. Where it has no more to say itself, it ends `from`.
    ///
    /// Where `to` is [cut](Pipe::is_cut), the end takes the bytes, and no more: the session tells it.
    /// An end that has [gone deaf](Progress::Deaf) takes nothing, and only puts.
    ///
    /// # Errors
    /// Only a failure that ends the session: the connection was reset, the device is gone. Nothing
    /// more can be got from this end. Having nothing to do is [`Progress::Moved`]`(0)`.
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress>;

    /// What is known of this end beside its bytes.
    fn standing(&self) -> Standing<'_> {
        Standing::UP
    }

    /// Whether bytes may have been carried to or from somebody at the other side of this end, so
    /// that a stream which is cut off here must not seem to end at the other side of the session.
    fn has_carried(&self) -> bool {
        false
    }

    /// Whether all that it took is on its way, so that a reset would not overtake it, and nobody at
    /// its other side holds it up. Readiness tells when that changes.
    fn has_sent_all(&self) -> bool {
        true
    }

    /// The session is over, and the stream to this end was not: where somebody is at its other
    /// side, closing it becomes a reset.
    fn cut_off(&mut self) {}

    /// Gives back the storage that it borrowed, if it keeps any. The session is over.
    fn dispose(&mut self, _pool: &mut Pool) {}

    /// Whether it has refused what the peer asked of it, and said so.
    fn has_declined(&self) -> bool {
        false
    }

    /// Whether there is somebody to exchange bytes with: not as long as somebody is to be called first.
    fn is_reached(&self) -> bool {
        true
    }

    /// Writes where its bytes go on to, as `key=value` pairs with a blank before each; nothing where
    /// they end here.
    ///
    /// # Errors
    /// Those of `f`.
    fn write_route(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl<E: End + ?Sized> End for Box<E> {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        (**self).exchange(to, from, turn)
    }

    fn standing(&self) -> Standing<'_> {
        (**self).standing()
    }

    fn has_carried(&self) -> bool {
        (**self).has_carried()
    }

    fn has_sent_all(&self) -> bool {
        (**self).has_sent_all()
    }

    fn is_reached(&self) -> bool {
        (**self).is_reached()
    }

    fn cut_off(&mut self) {
        (**self).cut_off();
    }

    fn dispose(&mut self, pool: &mut Pool) {
        (**self).dispose(pool);
    }

    fn has_declined(&self) -> bool {
        (**self).has_declined()
    }

    fn write_route(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).write_route(f)
    }
}

/// What is known of an end beside its bytes. Most ends are up from the beginning and know nobody;
/// one that encrypts has a handshake to make first, in which its peer may say who it is.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Whether bytes can pass. Before that, exchanges only serve to bring it up.
    pub is_up: bool,
    /// Whether its peer went without saying that it was done: what came may not be all.
    pub was_truncated: bool,
    /// Whether something came from its peer that did not come through the pipe: a handshake.
    pub has_heard: bool,
    /// Whom the certificate of the peer names, in a form for logs; of one that is not up, that was not
    /// proven.
    pub identity: Option<&'a str>,
    /// Why it failed, where an error number would not say it.
    pub cause: Option<&'a str>,
}

impl Standing<'_> {
    /// That of an end which knows no more than its bytes.
    pub const UP: Standing<'static> = Standing {
        is_up: true,
        was_truncated: false,
        has_heard: false,
        identity: None,
        cause: None,
    };
}

/// What came of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes or ends of stream moved. After none, only readiness, the other end or a
    /// deadline can make a difference.
    Moved(usize),
    /// This end has said all it will and wants to hear no more: the session is to send what
    /// waits and close.
    Done,
    /// The peer takes nothing more, for this reason: nothing can be sent to it. What it had said
    /// before may still come. Said once.
    Deaf(io::ErrorKind),
    /// The peer broke the rules of this end's protocol. The end tells it so and wants no more of
    /// it; the session is to see that this arrives, and close.
    Broken,
}

/// What a session is given for one run.
pub struct Turn<'a> {
    /// The time, the same for everything that runs in this turn of the loop.
    pub now: Instant,
    /// Where buffers get their storage.
    pub pool: &'a mut Pool,
    /// The wall clock, for services that tell the time.
    pub clock: &'a dyn Clock,
    /// Whoever wants to know what happens.
    pub watch: Watch<'a>,
}

/// A wall clock.
pub trait Clock {
    /// The time of day, in the zone that people here live in.
    fn local_time(&self) -> jiff::Zoned;
}
