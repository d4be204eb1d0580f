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
//! while decrypted bytes wait for room, which are therefore one record at the most; between
//! exchanges `incomplete` holds no whole record. A block of the pool has to hold the largest record.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    AppDataRecord, ConnectionState, EncodeError, EncodeTlsData, EncryptError,
    UnbufferedConnectionCommon, UnbufferedStatus,
};
use rustls::{ClientConfig, Error, HandshakeKind, ProtocolVersion, ServerConfig};

use super::{cause, identity, shown, suite_name};
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
    connection: C,
    stage: Stage,
    inbound: Inbound,
    /// The beginning of a record or handshake message of which more has to come.
    incomplete: Vec<u8>,
    /// Plaintext for which the pipe had no room.
    surplus: Vec<u8>,
    /// Application data, encrypted and to be sent.
    outgoing: Buffer,
    /// Handshake messages and alerts that are to be sent after it.
    flight: Vec<u8>,
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
        let own = self.connection.peer_certificates().and_then(<[_]>::first);
        Some(Security {
            version: match self.connection.protocol_version()? {
                ProtocolVersion::TLSv1_3 => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: suite_name(self.connection.negotiated_cipher_suite()?.suite())?,
            alpn: self.connection.alpn_protocol(),
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
        let mut socket = Self::new(socket, UnbufferedClientConnection::new(config, name)?);
        socket.collect_flight();
        Ok(socket)
    }
}

impl<C: Connection> TlsSocket<C> {
    fn new(socket: Socket, connection: C) -> Self {
        Self {
            socket,
            connection,
            stage: Stage::Handshake,
            inbound: Inbound::Open,
            incomplete: Vec::new(),
            surplus: Vec::new(),
            outgoing: Buffer::new(),
            flight: Vec::new(),
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

    /// From here on, a stream that ends without a `close_notify` fails. Without this it ends, and
    /// the [standing](Standing) tells; but whom its bytes are carried on to would not hear that.
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
        self.connection.peer_certificates()
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
        self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether an earlier session was resumed, which saves the certificates and a signature.
    #[must_use]
    pub fn was_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
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
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process(&mut self.incomplete);
            let mut count = None;
            match state.map_err(io::Error::other)? {
                ConnectionState::EncodeTlsData(message) => encode(message, &mut self.flight),
                ConnectionState::TransmitTlsData(flight) => flight.done(),
                ConnectionState::WriteTraffic(mut traffic) if self.flight.is_empty() => {
                    let fitting = to.len().min(plaintext_that_fits(pool.block_len()));
                    let ends = !to.is_open() && fitting == to.len();
                    let plaintext = &to.bytes()[..fitting];
                    let encrypted = self.outgoing.fill(pool, |space| {
                        let mut written = traffic.encrypt(plaintext, space)?;
                        if ends {
                            written += traffic.queue_close_notify(&mut space[written..])?;
                        }
                        Ok::<_, EncryptError>(written)
                    });
                    encrypted.map_err(io::Error::other)?;
                    to.consume(pool, fitting);
                    count = Some(fitting);
                }
                _ => count = Some(0),
            }
            self.incomplete.drain(..discard);
            if let Some(count) = count {
                return Ok(count);
            }
        }
    }

    /// Sends what is encrypted.
    fn flush(&mut self, turn: &mut Turn<'_>) -> io::Result<usize> {
        let mut moved = 0;
        if !self.outgoing.is_empty() && self.socket.is_writable() {
            let count = self.socket.send(self.outgoing.as_slice(), &mut turn.watch)?;
            self.outgoing.consume(turn.pool, count);
            moved += count;
        }
        if !self.flight.is_empty() && self.outgoing.is_empty() && self.socket.is_writable() {
            let count = self.socket.send(&self.flight, &mut turn.watch)?;
            self.flight.drain(..count);
            if self.flight.is_empty() {
                self.flight = Vec::new();
            }
            moved += count;
        }
        self.outgoing.settle(turn.pool);
        Ok(moved)
    }

    fn is_flushed(&self) -> bool {
        self.outgoing.is_empty() && self.flight.is_empty()
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
        let mut incoming = Buffer::new();
        if !self.incomplete.is_empty() {
            incoming.append(turn.pool, &self.incomplete);
        }
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
        let taken_in = received.map(|count| {
            match transfer {
                Transfer::End => self.handle_end_of_stream(),
                _ => self.take_in(&mut incoming, from, turn.pool),
            }
            count + usize::from(transfer == Transfer::End)
        });
        self.incomplete = match self.inbound {
            Inbound::Open => incoming.as_slice().to_vec(),
            Inbound::Closed | Inbound::Truncated => Vec::new(),
        };
        incoming.clear(turn.pool);
        taken_in
    }

    fn handle_end_of_stream(&mut self) {
        self.inbound = Inbound::Truncated;
        if matches!(self.stage, Stage::Handshake) {
            self.break_off("the peer closed the connection in the middle of it".to_owned());
        }
    }

    fn take_in(&mut self, incoming: &mut Buffer, from: &mut Pipe, pool: &mut Pool) {
        if self.keeps_server_name
            && matches!(self.stage, Stage::Handshake)
            && let Some(hello) = hello::client_hello(incoming.as_slice())
        {
            self.known.get_or_insert_default().server_name = hello.server_name.map(Into::into);
        }
        let was_up = matches!(self.stage, Stage::Up);
        match self.decrypt(incoming, from, pool) {
            Ok(()) if was_up => self.has_heard_since |= self.inbound == Inbound::Open,
            Ok(())
                if matches!(self.stage, Stage::Handshake) && !self.connection.is_handshaking() =>
            {
                self.stage = Stage::Up;
                let own = self.connection.peer_certificates().and_then(<[_]>::first);
                if let Some(identity) = own.map(|own| identity::of(own).to_string().into()) {
                    self.known.get_or_insert_default().identity = Some(identity);
                }
            }
            Ok(()) if matches!(self.stage, Stage::Handshake) && self.inbound == Inbound::Closed => {
                self.break_off("the peer gave it up (close_notify)".to_owned());
            }
            Ok(()) => {}
            Err(error) => {
                if let Some(refused) = shown::take() {
                    self.known.get_or_insert_default().identity = Some(refused);
                }
                let is_first_record = matches!(self.stage, Stage::Handshake);
                self.break_off(cause::explain(&error, incoming.as_slice(), is_first_record));
            }
        }
    }

    /// Lets rustls work on all records that are whole.
    fn decrypt(
        &mut self,
        incoming: &mut Buffer,
        from: &mut Pipe,
        pool: &mut Pool,
    ) -> Result<(), Error> {
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process(incoming.as_mut_slice());
            let mut goes_on = true;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let AppDataRecord { discard: more, payload } = record?;
                        discard += more;
                        let taken = from.append(pool, payload);
                        self.surplus.extend_from_slice(&payload[taken..]);
                    }
                }
                ConnectionState::EncodeTlsData(message) => encode(message, &mut self.flight),
                ConnectionState::TransmitTlsData(flight) => flight.done(),
                ConnectionState::PeerClosed => self.inbound = Inbound::Closed,
                _ => goes_on = false,
            }
            incoming.consume(pool, discard);
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// The connection is beyond help: what rustls has to say about it becomes the last flight.
    fn break_off(&mut self, cause: String) {
        self.collect_flight();
        self.stage = Stage::Broken(cause.into());
    }

    /// Takes what rustls wants to say without having heard anything.
    fn collect_flight(&mut self) {
        while self.connection.wants_write() {
            let UnbufferedStatus { state, .. } = self.connection.process(&mut []);
            let Ok(ConnectionState::EncodeTlsData(message)) = state else { break };
            encode(message, &mut self.flight);
        }
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
            if self.requires_close_notify && self.is_cut_off() {
                // What came before was sound, and goes on first.
                if !from.is_empty() {
                    return Ok(moved);
                }
                let why = "it ended without a close_notify: what came may not be all";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            from.end();
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
        if matches!(self.stage, Stage::Up) {
            self.socket.hear_of_failure(to, from)?;
        }
        let mut moved = self.send(to, from, turn)?;
        if matches!(self.stage, Stage::Broken(_)) {
            moved += self.drain(turn)?;
            self.surplus = Vec::new();
            return Ok(Progress::Moved(moved + self.deliver(from, turn.pool)?));
        }
        moved += self.deliver(from, turn.pool)?;
        if self.may_receive(from, turn.pool) {
            moved += self.receive(from, turn)?;
            moved += self.deliver(from, turn.pool)?;
            moved += self.flush(turn)?;
        }
        if matches!(self.stage, Stage::Broken(_)) {
            return Ok(Progress::Broken);
        }
        Ok(Progress::Moved(moved))
    }

    fn has_carried(&self) -> bool {
        true
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

fn encode<D>(mut message: EncodeTlsData<'_, D>, flight: &mut Vec<u8>) {
    if let Err(EncodeError::InsufficientSize(needed)) = message.encode(&mut []) {
        let start = flight.len();
        flight.resize(start + needed.required_size, 0);
        message.encode(&mut flight[start..]).expect("the size that was asked for");
    }
}

/// Either side of a connection of rustls, which have the same methods but no trait in common.
pub trait Connection: DerefMut + Deref<Target = UnbufferedConnectionCommon<Self::Data>> {
    /// What rustls keeps for this side alone.
    type Data;

    /// Takes in what has come, up to the next thing that concerns the caller.
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}
