//! TLS over a stream socket as an end of a session.
//!
//! Ciphertext is received into a block of the pool, decrypted there by rustls, and the plaintext
//! appended to the pipe; the other way, a block is filled with ciphertext and sent. Both blocks go
//! back as soon as they are empty, and rustls' unbuffered connections hold no buffers of their own:
//! an idle connection is its keys and little else.
//!
//! The handshake takes place in here, before the session sees a byte. The alert that says why it
//! failed is sent before the connection is closed, and so is a `close_notify` at the end of the
//! stream.
//!
//! Invariants: nothing is encrypted while earlier ciphertext waits to be sent; nothing is received
//! while decrypted bytes wait for room, which are therefore one record at the most. A block of the
//! pool has to hold the largest record, which the configuration sees to. What rustls is given, and
//! when it is not asked any more, is the business of [`Records`] alone.
//!
//! No bytes of a peer reach an assertion. A pipe is appended to while it is open: it is only received
//! into then, and only `deliver` closes it, when no surplus is left. What is
//! consumed or drained is what was counted just before. The only subtraction takes a constant from
//! the length of a block, which is larger.

use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, Error, HandshakeKind, ProtocolVersion, ServerConfig};

pub use super::records::Connection;
use super::records::Records;
use super::{identity, shown, suite_name};
use crate::net::reactor::{Context, Source};
use crate::net::socket::{Socket, Stream};
use crate::proto::buffer::{Buffer, Pool};
use crate::proto::end::{End, Progress, Side, Standing, Turn};
use crate::proto::event::{Readiness, Transfer};
use crate::proto::hello;
use crate::proto::pipe::Pipe;
use crate::proto::proxy_protocol::Security;

/// The most plaintext that a record holds (RFC 8446, section 5.1).
const MAX_PLAINTEXT: usize = 16 * 1024;

/// What a record needs beside its plaintext: header, nonce, content type and tag, rounded up.
const RECORD_OVERHEAD: usize = 64;

/// Room that is left in a block for a key update and a `close_notify`.
const RESERVE: usize = 256;

/// The server's side of TLS.
pub type ServerSocket = TlsSocket<UnbufferedServerConnection>;

/// The client's side of TLS.
pub type ClientSocket = TlsSocket<UnbufferedClientConnection>;

/// A socket that speaks TLS.
pub struct TlsSocket<C> {
    socket: Socket,
    records: Records<C>,
    stage: Stage,
    inbound: Inbound,
    /// Plaintext for which the pipe had no room.
    surplus: Vec<u8>,
    /// Application data, encrypted and to be sent before the next flight.
    outgoing: Buffer,
    keeps_server_name: bool,
    /// Whether anything came from the peer after the handshake: a ticket counts too.
    has_heard_since: bool,
    /// Whether anything came from the peer.
    has_heard: bool,
    /// Whether the end of the stream has to be said with a `close_notify`.
    requires_close_notify: bool,
    known: Option<Box<Known>>,
}

/// What the handshake told of the peer. Of most peers it tells nothing.
#[derive(Default)]
struct Known {
    /// Whom its certificate names, in a form for logs.
    identity: Option<Box<str>>,
    /// The host that it asked for, where that is kept: an unbuffered connection does not tell.
    server_name: Option<Box<str>>,
}

enum Stage {
    /// The handshake goes on.
    Handshake,
    /// Application data goes both ways.
    Up,
    /// The rules were broken, as this sentence says. An alert may still wait to be sent.
    Broken(Box<str>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inbound {
    /// More may come.
    Open,
    /// The peer has said that it is done.
    Closed,
    /// The stream ended without it.
    Truncated,
}

impl ServerSocket {
    /// The server's side over an accepted stream.
    ///
    /// # Panics
    /// If the configuration sets a size of fragments that TLS does not know.
    #[must_use]
    pub fn accept(stream: Stream, config: Arc<ServerConfig>) -> Self {
        let connection = UnbufferedServerConnection::new(config).expect("a sound configuration");
        Self::new(Socket::new(stream, Side::Remote), connection)
    }

    /// Keeps the name that the client will ask for, to be told to others.
    #[must_use]
    pub fn keep_server_name(mut self) -> Self {
        self.keeps_server_name = true;
        self
    }

    /// What is known of the client's TLS, once the handshake is over.
    #[must_use]
    pub fn security(&self) -> Option<Security<'_>> {
        let state = self.records.state();
        let own = state.peer_certificates().and_then(<[_]>::first);
        Some(Security {
            version: match state.protocol_version()? {
                ProtocolVersion::TLSv1_3 => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: suite_name(state.negotiated_cipher_suite()?.suite())?,
            alpn: state.alpn_protocol(),
            server_name: self.known.as_ref().and_then(|known| known.server_name.as_deref()),
            certificate: own.map(|own| identity::of(own).common_names),
        })
    }
}

impl ClientSocket {
    /// The client's side over a connected socket, to a server that must prove to be `name`.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn over(
        socket: Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        Ok(Self::new(socket, UnbufferedClientConnection::new(config, name)?))
    }
}

impl<C: Connection> TlsSocket<C> {
    fn new(socket: Socket, connection: C) -> Self {
        Self {
            socket,
            records: Records::new(connection),
            stage: Stage::Handshake,
            inbound: Inbound::Open,
            surplus: Vec::new(),
            outgoing: Buffer::new(),
            keeps_server_name: false,
            has_heard_since: false,
            has_heard: false,
            requires_close_notify: false,
            known: None,
        }
    }

    /// The socket under it, for what is to be said before TLS is.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// The same, to be looked at.
    pub fn socket_ref(&self) -> &Socket {
        &self.socket
    }

    /// From here on, a stream that ends without a `close_notify` is [cut](Pipe::cut). Without this it
    /// ends, and the [standing](Standing) tells; but whom its bytes are carried on to would not hear
    /// that.
    pub fn require_close_notify(&mut self) {
        self.requires_close_notify = true;
    }

    /// Registers for readiness as this side of `context`'s source.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register<S: Source>(&mut self, context: &Context<'_, S>) -> io::Result<()> {
        self.socket.register(context)
    }

    /// Remembers what an event said.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        self.socket.handle_readiness(readiness);
    }

    /// The certificates that the peer showed, its own first.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.records.state().peer_certificates()
    }

    /// Whether the peer has said anything since the handshake, even if only a ticket. In TLS 1.3 that is
    /// how a client learns that its certificate was accepted (RFC 8446, 4.4.2.4 and 4.6.1).
    #[must_use]
    pub fn has_heard_since(&self) -> bool {
        self.has_heard_since
    }

    /// Whether the client's part in the handshake is over before the server has seen its certificate.
    #[must_use]
    pub fn is_tls_1_3(&self) -> bool {
        self.records.state().protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether an earlier session was resumed, which saves the certificates and a signature.
    #[must_use]
    pub fn was_resumed(&self) -> bool {
        self.records.state().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Encrypts and sends what it can, and passes the end on when all of it is sent.
    fn send(&mut self, to: &mut Pipe, from: &Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        let mut moved = 0;
        let has_more_to_say = !to.is_empty() || to.is_drained();
        if matches!(self.stage, Stage::Up) && has_more_to_say && self.is_flushed() {
            moved += self.encrypt(to, turn.pool)?;
        }
        moved += self.flush(turn)?;
        if to.is_drained() && self.is_flushed() {
            self.socket.pass_end_on(to, from, turn)?;
            moved += 1;
        }
        Ok(moved)
    }

    /// Encrypts as much of what waits as a block holds, and `close_notify` after the last of it.
    fn encrypt(&mut self, to: &mut Pipe, pool: &mut Pool) -> io::Result<usize> {
        let fitting = to.len().min(plaintext_that_fits(pool.block_len()));
        let ends = !to.is_open() && !to.is_cut() && fitting == to.len();
        let (records, plaintext) = (&mut self.records, &to.bytes()[..fitting]);
        let written = self.outgoing.fill(pool, |space| records.encrypt(plaintext, ends, space))?;
        if written == 0 {
            return Ok(0);
        }
        to.consume(pool, fitting);
        Ok(fitting)
    }

    /// Sends what is encrypted.
    fn flush(&mut self, turn: &mut Turn<'_>) -> io::Result<usize> {
        let mut moved = 0;
        if !self.outgoing.is_empty() && self.socket.is_writable() {
            let count = self.socket.send(self.outgoing.as_slice(), &mut turn.watch)?;
            self.outgoing.consume(turn.pool, count);
            moved += count;
        }
        let has_flight = !self.records.flight().is_empty();
        if has_flight && self.outgoing.is_empty() && self.socket.is_writable() {
            let count = self.socket.send(self.records.flight(), &mut turn.watch)?;
            self.records.sent(count);
            moved += count;
        }
        self.outgoing.settle(turn.pool);
        Ok(moved)
    }

    /// Lets `send` send, unless that has failed before. Should it fail now, what waits is dropped.
    fn unless_deaf(
        &mut self,
        turn: &mut Turn<'_>,
        send: impl FnOnce(&mut Self, &mut Turn<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.is_deaf() {
            return Ok(0);
        }
        let outcome = send(self, turn);
        if self.is_deaf() {
            self.outgoing.clear(turn.pool);
            return Ok(1);
        }
        outcome
    }

    fn is_deaf(&self) -> bool {
        self.socket.deafness().is_some()
    }

    fn is_flushed(&self) -> bool {
        self.outgoing.is_empty() && self.records.flight().is_empty()
    }

    /// Whether there is room for whatever one more record brings.
    fn may_receive(&self, from: &Pipe, pool: &Pool) -> bool {
        self.inbound == Inbound::Open
            && self.surplus.is_empty()
            && self.socket.is_readable()
            && from.is_open()
            && (from.is_empty() || from.room(pool) >= MAX_PLAINTEXT)
    }

    /// Receives ciphertext and takes in what it says.
    fn receive(&mut self, from: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        let mut incoming = self.records.begin(turn.pool);
        if incoming.room(turn.pool) == 0 {
            incoming.clear(turn.pool);
            self.break_off("a handshake message is larger than limits.buffer".to_owned());
            return Ok(1);
        }
        let room = from.room(turn.pool);
        let mut transfer = Transfer::WouldBlock;
        let received = incoming.fill(turn.pool, |space| {
            let limit = space.len().min(room);
            transfer = self.socket.receive(&mut space[..limit], &mut turn.watch)?;
            Ok::<_, io::Error>(if let Transfer::Bytes(count) = transfer { count } else { 0 })
        });
        self.has_heard |= matches!(transfer, Transfer::Bytes(_));
        match (&received, transfer) {
            (Ok(_), Transfer::Bytes(_)) => self.take_in(incoming, from, turn.pool),
            (Ok(_), Transfer::End) => {
                incoming.clear(turn.pool);
                self.handle_end_of_stream();
                return Ok(1);
            }
            _ => incoming.clear(turn.pool),
        }
        received
    }

    /// The connection may still be written to, so what is unread of it stays with the records.
    fn handle_end_of_stream(&mut self) {
        self.inbound = Inbound::Truncated;
        if matches!(self.stage, Stage::Handshake) {
            self.break_off("the peer closed the connection in the middle of it".to_owned());
        }
    }

    fn take_in(&mut self, incoming: Buffer, from: &mut Pipe, pool: &mut Pool) {
        let was_handshaking = matches!(self.stage, Stage::Handshake);
        if self.keeps_server_name
            && was_handshaking
            && let Some(hello) = hello::client_hello(incoming.as_slice())
        {
            self.known.get_or_insert_default().server_name = hello.server_name.map(Into::into);
        }
        let surplus = &mut self.surplus;
        let outcome = self.records.take_in(incoming, pool, |pool, payload| {
            let taken = from.append(pool, payload);
            surplus.extend_from_slice(&payload[taken..]);
        });
        if self.records.is_done() {
            self.inbound = Inbound::Closed;
        }
        match outcome {
            Ok(()) if !was_handshaking => {
                self.has_heard_since |= self.inbound == Inbound::Open;
            }
            Ok(()) if was_handshaking && !self.records.state().is_handshaking() => {
                self.stage = Stage::Up;
                let own = self.peer_certificates().and_then(<[_]>::first);
                if let Some(identity) = own.map(|own| identity::of(own).to_string().into()) {
                    self.known.get_or_insert_default().identity = Some(identity);
                }
            }
            Ok(()) if was_handshaking && self.inbound == Inbound::Closed => {
                self.break_off("the peer gave it up (close_notify)".to_owned());
            }
            Ok(()) => {}
            Err(cause) => {
                if let Some(refused) = shown::take() {
                    self.known.get_or_insert_default().identity = Some(refused);
                }
                self.stage = Stage::Broken(cause.into());
            }
        }
    }

    /// The connection is beyond help: what rustls has to say about it becomes the last flight.
    fn break_off(&mut self, cause: String) {
        self.records.fail();
        self.stage = Stage::Broken(cause.into());
    }

    /// Hands over what had no room before, and the end after it.
    fn deliver(&mut self, from: &mut Pipe, pool: &mut Pool) -> io::Result<usize> {
        let mut moved = 0;
        if !self.surplus.is_empty() {
            moved = from.append(pool, &self.surplus);
            self.surplus.drain(..moved);
            if self.surplus.is_empty() {
                self.surplus = Vec::new();
            }
        }
        if self.surplus.is_empty() && self.inbound != Inbound::Open && from.is_open() {
            // What came before was sound, and goes on first.
            if self.requires_close_notify && self.is_cut_off() {
                from.cut();
            } else {
                from.end();
            }
            moved += 1;
        }
        Ok(moved)
    }

    fn is_cut_off(&self) -> bool {
        matches!(self.stage, Stage::Up) && self.inbound == Inbound::Truncated
    }

    /// Throws away what a peer still sends that broke the rules, so that the alert is not lost to
    /// a reset.
    fn drain(&mut self, turn: &mut Turn<'_>) -> io::Result<usize> {
        if self.inbound != Inbound::Open || !self.socket.is_readable() {
            return Ok(0);
        }
        let mut dropped = Buffer::new();
        let mut transfer = Transfer::WouldBlock;
        let outcome = dropped.fill(turn.pool, |space| {
            transfer = self.socket.receive(space, &mut turn.watch)?;
            Ok::<_, io::Error>(0)
        });
        outcome?;
        match transfer {
            Transfer::Bytes(count) => Ok(count),
            Transfer::WouldBlock => Ok(0),
            Transfer::End => {
                self.inbound = Inbound::Truncated;
                Ok(1)
            }
        }
    }
}

impl<C: Connection> End for TlsSocket<C> {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let was_up = matches!(self.stage, Stage::Up);
        let is_known_deaf = was_up && self.is_deaf();
        if was_up && !self.is_deaf() {
            self.socket.hear_of_failure(to, from)?;
        }
        let mut moved = self.unless_deaf(turn, |it, turn| it.send(to, from, turn))?;
        if matches!(self.stage, Stage::Broken(_)) {
            if self.is_deaf() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            moved += self.drain(turn)?;
            self.surplus = Vec::new();
            return Ok(Progress::Moved(moved + self.deliver(from, turn.pool)?));
        }
        moved += self.deliver(from, turn.pool)?;
        if self.may_receive(from, turn.pool) {
            moved += self.receive(from, turn)?;
            moved += self.deliver(from, turn.pool)?;
            moved += self.unless_deaf(turn, Self::flush)?;
        }
        Ok(match (&self.stage, self.socket.deafness()) {
            (Stage::Broken(_), _) => Progress::Broken,
            // In a handshake, what the peer had said may tell why, so that is read first.
            (Stage::Up, Some(kind)) if !is_known_deaf => Progress::Deaf(kind),
            _ => Progress::Moved(moved),
        })
    }

    fn has_carried(&self) -> bool {
        true
    }

    fn has_sent_all(&self) -> bool {
        self.is_flushed() && self.socket.has_sent_all()
    }

    fn cut_off(&mut self) {
        self.socket.cut_off();
    }

    fn dispose(&mut self, pool: &mut Pool) {
        self.outgoing.clear(pool);
    }

    fn standing(&self) -> Standing<'_> {
        Standing {
            is_up: matches!(self.stage, Stage::Up),
            was_truncated: self.inbound == Inbound::Truncated,
            has_heard: self.has_heard,
            identity: self.known.as_ref().and_then(|known| known.identity.as_deref()),
            cause: match &self.stage {
                Stage::Broken(cause) => Some(cause),
                Stage::Handshake | Stage::Up => None,
            },
        }
    }
}

/// How much plaintext can be encrypted into a block.
fn plaintext_that_fits(block_len: usize) -> usize {
    let space = block_len - RESERVE;
    let record = MAX_PLAINTEXT + RECORD_OVERHEAD;
    space / record * MAX_PLAINTEXT + (space % record).saturating_sub(RECORD_OVERHEAD)
}
