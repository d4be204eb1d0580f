//! A connection in memory, with the manners of a kernel: each way holds so many bytes and no more,
//! a change is announced once (edge-triggered), and the news of it may arrive later than the change.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use turnstile::proto::event::Readiness;

use crate::dice::Dice;

/// One end of a connection.
pub(crate) struct Plug {
    link: Rc<RefCell<Link>>,
    end: usize,
}

/// Trouble in the middle of a connection, which neither end has made.
pub(crate) struct Trouble(Rc<RefCell<Link>>);

struct Link {
    /// The way from each end to the other.
    ways: [Way; 2],
    /// What each end will hear.
    inboxes: [Inbox; 2],
    is_cut: bool,
    /// Whether each end was told that it is.
    were_told: [bool; 2],
    dice: Dice,
}

struct Way {
    bytes: VecDeque<u8>,
    capacity: usize,
    has_ended: bool,
    /// Nobody will read this way any more.
    is_abandoned: bool,
    /// The writer was told that there is no room, and waits to hear of some.
    is_starved: bool,
}

#[derive(Default)]
struct Inbox {
    news: Vec<(Instant, Readiness)>,
    /// What was answered with `WouldBlock` since the last news.
    refused: Option<Readiness>,
}

const HANGUP: Readiness = Readiness::READABLE.with(Readiness::READ_CLOSED);

impl Plug {
    /// A new connection whose ways hold so many bytes each, as its two ends.
    pub(crate) fn pair(capacities: [usize; 2], dice: Dice) -> (Self, Self) {
        let way = |capacity| Way {
            bytes: VecDeque::new(),
            capacity,
            has_ended: false,
            is_abandoned: false,
            is_starved: false,
        };
        let (ways, inboxes) = (capacities.map(way), Default::default());
        let link = Link { ways, inboxes, is_cut: false, were_told: [false; 2], dice };
        let link = Rc::new(RefCell::new(link));
        (Self { link: Rc::clone(&link), end: 0 }, Self { link, end: 1 })
    }

    /// How much fits into the way from this end, and into the way to it.
    pub(crate) fn capacities(&self) -> [usize; 2] {
        let link = self.link.borrow();
        [self.end, 1 - self.end].map(|end| link.ways[end].capacity)
    }

    /// What can tear this connection from outside.
    pub(crate) fn trouble(&self) -> Trouble {
        Trouble(Rc::clone(&self.link))
    }

    /// Reads as `recv(2)` does: what had arrived before a reset can still be read, and the reset is
    /// told once, here or to a writer; behind it comes an end that is none.
    pub(crate) fn read(&self, space: &mut [u8], now: Instant) -> io::Result<usize> {
        let mut link = self.link.borrow_mut();
        let is_cut = link.is_cut;
        let way = &mut link.ways[1 - self.end];
        if way.bytes.is_empty() {
            if way.has_ended || (is_cut && link.were_told[self.end]) {
                return Ok(0);
            }
            link.were_told[self.end] = is_cut;
            return Err(match is_cut {
                true => io::ErrorKind::ConnectionReset.into(),
                false => link.inboxes[self.end].refuse(Readiness::READABLE),
            });
        }
        let count = space.len().min(way.bytes.len());
        for (place, byte) in space.iter_mut().zip(way.bytes.drain(..count)) {
            *place = byte;
        }
        if std::mem::take(&mut way.is_starved) {
            link.announce(1 - self.end, Readiness::WRITABLE, now);
        }
        Ok(count)
    }

    /// Writes as `send(2)` does: after a reset, the error says whether the end had come first.
    pub(crate) fn write(&self, bytes: &[u8], now: Instant) -> io::Result<usize> {
        let mut link = self.link.borrow_mut();
        if link.is_cut {
            let was_told = std::mem::replace(&mut link.were_told[self.end], true);
            return Err(match link.ways[1 - self.end].has_ended || was_told {
                true => io::ErrorKind::BrokenPipe.into(),
                false => io::ErrorKind::ConnectionReset.into(),
            });
        }
        let way = &mut link.ways[self.end];
        assert!(!way.has_ended, "wrote after the end of the stream");
        if way.is_abandoned {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(way.capacity - way.bytes.len());
        way.bytes.extend(&bytes[..count]);
        way.is_starved |= count < bytes.len();
        if count == 0 {
            return Err(link.inboxes[self.end].refuse(Readiness::WRITABLE));
        }
        link.announce(1 - self.end, Readiness::READABLE, now);
        Ok(count)
    }

    /// Ends the way to the other side, as `shutdown(SHUT_WR)` does.
    pub(crate) fn end(&self, now: Instant) {
        let mut link = self.link.borrow_mut();
        if link.is_cut {
            return;
        }
        let already = std::mem::replace(&mut link.ways[self.end].has_ended, true);
        assert!(!already, "passed the end of the stream on twice");
        link.announce(1 - self.end, HANGUP, now);
    }

    /// Tears the connection down, as a process that crashes does.
    pub(crate) fn reset(&self, now: Instant) {
        let mut link = self.link.borrow_mut();
        link.is_cut = true;
        link.announce(1 - self.end, HANGUP.with(Readiness::WRITABLE), now);
    }

    /// Closes, as `close(2)` does: what was not read becomes a reset.
    pub(crate) fn close(&self, now: Instant) {
        let (unread, has_ended) = {
            let mut link = self.link.borrow_mut();
            link.ways[1 - self.end].is_abandoned = true;
            (!link.ways[1 - self.end].bytes.is_empty(), link.ways[self.end].has_ended)
        };
        if unread {
            self.reset(now);
        } else if !has_ended {
            self.end(now);
        }
    }

    /// Whether everything that was written has been taken from here.
    pub(crate) fn is_read(&self) -> bool {
        self.link.borrow().ways[1 - self.end].bytes.is_empty()
    }

    /// Whether a read would do anything but block.
    pub(crate) fn is_readable(&self) -> bool {
        let link = self.link.borrow();
        let way = &link.ways[1 - self.end];
        link.is_cut || way.has_ended || !way.bytes.is_empty()
    }

    /// Whether a write would do anything but block.
    pub(crate) fn is_writable(&self) -> bool {
        let link = self.link.borrow();
        let way = &link.ways[self.end];
        link.is_cut || way.is_abandoned || way.bytes.len() < way.capacity
    }

    /// Takes the news that have arrived by `now`.
    pub(crate) fn poll(&self, now: Instant) -> Readiness {
        let inbox = &mut self.link.borrow_mut().inboxes[self.end];
        let mut readiness = Readiness::NONE;
        inbox.news.retain(|&(at, what)| {
            if at <= now {
                readiness = readiness.with(what);
            }
            at > now
        });
        inbox.refused = inbox.refused.map(|refused| refused.without(readiness));
        readiness
    }

    /// When the next news arrives.
    pub(crate) fn next_news(&self) -> Option<Instant> {
        self.link.borrow().inboxes[self.end].news.iter().map(|&(at, _)| at).min()
    }

    /// Whether news of that kind are on their way.
    pub(crate) fn expects(&self, readiness: Readiness) -> bool {
        let link = self.link.borrow();
        link.inboxes[self.end].news.iter().any(|(_, what)| what.contains(readiness))
    }
}

impl Trouble {
    /// Tears the connection; some of what is on its way does not arrive.
    pub(crate) fn strike(&self, now: Instant) {
        let link = &mut *self.0.borrow_mut();
        link.is_cut = true;
        for end in [0, 1] {
            let len = link.ways[end].bytes.len();
            let arrives = link.dice.below(len + 1);
            link.ways[end].bytes.truncate(arrives);
            link.ways[end].has_ended &= arrives == len;
            link.announce(end, HANGUP.with(Readiness::WRITABLE), now);
        }
    }
}

impl Link {
    /// Sends news to `end`. Some are slow, and now and then there are some that mean nothing.
    fn announce(&mut self, end: usize, readiness: Readiness, now: Instant) {
        let mut delay = |unlikely| match self.dice.one_in(unlikely) {
            true => Duration::from_micros(self.dice.below(3000) as u64),
            false => Duration::ZERO,
        };
        let news = &mut self.inboxes[end].news;
        news.push((now + delay(4), readiness));
        let (spurious, at) = (self.dice.one_in(16), Duration::from_micros(500));
        if spurious {
            news.push((now + at, Readiness::READABLE.with(Readiness::WRITABLE)));
        }
    }
}

impl Inbox {
    /// `WouldBlock`. Asking twice although nothing was heard in between is a waste of system
    /// calls, and a loop that does so spins.
    fn refuse(&mut self, what: Readiness) -> io::Error {
        let refused = self.refused.unwrap_or(Readiness::NONE);
        assert!(!refused.contains(what), "asked again although it was not {what} and no news came");
        self.refused = Some(refused.with(what));
        io::ErrorKind::WouldBlock.into()
    }
}
