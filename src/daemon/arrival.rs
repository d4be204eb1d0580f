//! A connection from a proxy that has yet to say for whom it is, and becomes a
//! [`Connection`](super::connection) when it has.
//!
//! It is a source of its own, so that connections without a proxy know nothing of this. What comes
//! is looked at where it lies, and only the header is taken: what is behind it belongs to the
//! session. The kernel tells the connection of it, because registering a socket anew tells anew what
//! it is ready for.
//!
//! Invariant: it is counted in the total from the beginning, and by its address when that is known;
//! however it ends, both are settled.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use super::DaemonSource;
use super::connection::{Connection, Offer};
use super::host::{Host, Phase};
use crate::net::listener::Peer;
use crate::net::reactor::{Context, Next};
use crate::net::socket::Stream;
use crate::proto::end::Side;
use crate::proto::event::{Event, Readiness};
use crate::proto::proxy_protocol::{self, Announced, HEADER_LIMIT, Malformed};
use crate::proto::quote::{Quoted, Value};
use crate::proto::reason::CloseReason;

/// An accepted connection without its header.
pub struct Arrival {
    /// Gone when it has become a connection.
    stream: Option<Stream>,
    /// The proxy, until it has said who is behind it.
    peer: Peer,
    offer: Rc<Offer>,
    until: Option<Instant>,
    /// Keeps a descriptor free for the connection onward.
    reserved: Option<OwnedFd>,
    /// How many of our own calls have led here.
    depth: u8,
    /// Whether the proxy has ended its side.
    is_cut: bool,
    /// Whether anything came.
    has_heard: bool,
}

/// Why there will be no header.
#[derive(Debug, thiserror::Error)]
enum NoHeader {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("its PROXY protocol header was not whole in time")]
    Late,
    #[error("it left before its PROXY protocol header was whole")]
    Cut,
    #[error("the connection failed before its PROXY protocol header was whole: {0}")]
    Failed(#[from] io::Error),
}

impl Arrival {
    /// A connection that `proxy` has made `now`, and that is counted without a name.
    #[must_use]
    pub fn new(stream: Stream, proxy: Peer, offer: Rc<Offer>, now: Instant) -> Self {
        let timeouts = &offer.timeouts;
        let limits = [timeouts.proxy.or(timeouts.idle), timeouts.lifetime];
        let limit = limits.into_iter().flatten().min();
        let until = limit.and_then(|limit| now.checked_add(limit));
        Self {
            stream: Some(stream),
            peer: proxy,
            offer,
            until,
            reserved: None,
            depth: 0,
            is_cut: false,
            has_heard: false,
        }
    }

    /// Remembers how many of our own calls have led here.
    #[must_use]
    pub fn at_depth(self, depth: u8) -> Self {
        Self { depth, ..self }
    }

    /// Keeps `reserved` for the connection onward, so that it finds a descriptor.
    #[must_use]
    pub fn with_reserve(self, reserved: Option<OwnedFd>) -> Self {
        Self { reserved, ..self }
    }

    /// Registers the socket.
    pub fn start(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        context.host.admissions.begin();
        let Some(stream) = &mut self.stream else { return Next::Close };
        match context.register_duplex(stream, Side::Remote) {
            Ok(()) => {
                let proxy = self.peer.address().map(|address| address.ip());
                let waker = context.waker();
                if let Some(gone) = context.host.admissions.wait_for_name(waker, proxy) {
                    context.wake(gone);
                }
                Next::Wait
            }
            Err(error) => {
                context.host.admissions.counts.accept_failures += 1;
                self.turn_away(&error, context);
                Next::Close
            }
        }
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.is_cut |= readiness.contains(Readiness::READ_CLOSED);
    }

    /// Looks whether the header is whole, and begins the connection when it is.
    pub fn run(&mut self, context: &mut Context<'_, DaemonSource>) -> Next {
        if context.host.phase == Phase::Stopping {
            context.host.admissions.leave(context.waker(), None);
            let (name, peer) = (Value(&self.offer.name), &self.peer);
            log::info!(
                "closed listener={name} peer={peer} reason={}",
                Quoted(CloseReason::Stopped)
            );
            return Next::Close;
        }
        if context.host.admissions.is_leaving(context.waker()) {
            self.turn_away(&CloseReason::MadeRoom, context);
            return Next::Close;
        }
        match self.hear(context.now) {
            Ok(None) => return Next::Wait,
            Ok(Some(announced)) => self.begin(announced, context),
            Err(NoHeader::Cut | NoHeader::Failed(_)) if !self.has_heard => {
                let waker = context.waker();
                let Host { admissions, .. } = &mut *context.host;
                admissions.counts.silent += 1;
                admissions.leave(waker, None);
                let (name, peer) = (Value(&self.offer.name), &self.peer);
                log::debug!("silent listener={name} peer={peer}");
            }
            Err(reason) => {
                context.host.admissions.counts.bad_proxy_headers += 1;
                self.turn_away(&reason, context);
            }
        }
        Next::Close
    }

    /// When the header must be whole.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Takes the header, if it is whole.
    fn hear(&mut self, now: Instant) -> Result<Option<Announced>, NoHeader> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let mut bytes = [0; HEADER_LIMIT];
        let waiting = match stream.peek(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            outcome => outcome?,
        };
        self.has_heard |= waiting > 0;
        match proxy_protocol::read(&bytes[..waiting])? {
            Some((announced, len)) => {
                stream.read_exact(&mut bytes[..len])?;
                Ok(Some(announced))
            }
            None if self.is_cut => Err(NoHeader::Cut),
            None if self.until.is_some_and(|until| until <= now) => Err(NoHeader::Late),
            None => Ok(None),
        }
    }

    /// Lets the one in whom the proxy has announced.
    fn begin(&mut self, announced: Announced, context: &mut Context<'_, DaemonSource>) {
        let Some(mut stream) = self.stream.take() else { return };
        self.peer = self.peer.clone().announcing(announced);
        let challenge = match self.offer.challenge(&mut context.host.nonces) {
            Ok(challenge) => challenge,
            Err(reason) => {
                context.host.admissions.counts.accept_failures += 1;
                return self.turn_away(&reason, context);
            }
        };
        if let Err(error) = context.deregister(&mut stream) {
            context.host.admissions.counts.accept_failures += 1;
            return self.turn_away(&error, context);
        }
        match context.host.admissions.name(self.offer.source_of(&self.peer)) {
            Ok(gone) => gone.into_iter().for_each(|gone| context.wake(gone)),
            Err(reason) => return self.turn_away(&reason, context),
        }
        // It waits on as what it becomes.
        context.host.admissions.pass(context.waker());
        let (peer, offer) = (self.peer.clone(), Rc::clone(&self.offer));
        let connection = Connection::new(stream, peer, offer, challenge, context.now);
        let connection = connection.with_reserve(self.reserved.take()).at_depth(self.depth);
        context.spawn(DaemonSource::Connection(connection));
    }

    fn turn_away(&self, reason: &dyn fmt::Display, context: &mut Context<'_, DaemonSource>) {
        context.host.admissions.leave(context.waker(), None);
        context.watch(&self.offer.name, &self.peer).report(&Event::Refused(reason));
    }
}
