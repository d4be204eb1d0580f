//! One connection that shakes hands: bytes from the socket through rustls and back, and a record of
//! what passed.
//!
//! rustls' buffered interface owns what it has not understood yet, so there is no way to give it too
//! little. After an error, and after the end of the stream, it is not called again.

use std::io::{self, Read, Write};
use std::mem;

use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};

use super::{Agreed, Failure, Sighting};
use crate::net::reactor::Next;
use crate::net::socket::Stream;
use crate::proto::hello;

/// How much of what each side sends is kept: the greetings are in it, and all of TLS 1.2.
const KEPT: usize = 64 * 1024;

/// How many reads one turn may take.
const READS_PER_TURN: usize = 16;

/// A connected stream, TLS over it, and what passed.
pub(super) struct Line {
    stream: Stream,
    tls: ClientConnection,
    sent: u64,
    received: u64,
    /// Both at the end of the client's handshake.
    handshake_end: Option<(u64, u64)>,
    round_trips: u32,
    awaits_answer: bool,
    sent_bytes: Vec<u8>,
    received_bytes: Vec<u8>,
}

/// What came of moving bytes.
pub(super) enum Exchanged {
    /// There may be more at once.
    More,
    /// Nothing more until readiness.
    Blocked,
    /// The peer has gone.
    Closed(Option<io::Error>),
    /// Either side refuses to go on.
    Failed(Failure),
}

impl Exchanged {
    /// When to go on.
    pub(super) fn next(&self) -> Next {
        if matches!(self, Self::More) { Next::Again } else { Next::Wait }
    }
}

impl Line {
    pub(super) fn new(stream: Stream, tls: ClientConnection) -> Self {
        Self {
            stream,
            tls,
            sent: 0,
            received: 0,
            handshake_end: None,
            round_trips: 0,
            awaits_answer: false,
            sent_bytes: Vec::new(),
            received_bytes: Vec::new(),
        }
    }

    /// Sends what there is to send, and takes what there is to take: until the kernel blocks, the
    /// handshake ends, or the turn's share is used up.
    pub(super) fn exchange(&mut self) -> Exchanged {
        let was_handshaking = self.tls.is_handshaking();
        for _ in 0..READS_PER_TURN {
            self.flush();
            let mut space = [0; 16 * 1024];
            match self.stream.read(&mut space) {
                Ok(0) => return Exchanged::Closed(None),
                Ok(count) => {
                    if let Err(failure) = self.take(&space[..count]) {
                        // Nothing follows a goodbye, an alert neither (RFC 8446, section 6.1).
                        if self.handshake_end.is_none() {
                            self.flush();
                        }
                        return Exchanged::Failed(failure);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Exchanged::Blocked,
                    io::ErrorKind::Interrupted => {}
                    _ => return Exchanged::Closed(Some(error)),
                },
            }
            if was_handshaking && !self.tls.is_handshaking() {
                return Exchanged::More;
            }
        }
        Exchanged::More
    }

    /// Whether the handshake is still going on.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The handshake is done: sends its last message, and then, which does not count, a goodbye.
    pub(super) fn finish(&mut self) {
        self.flush();
        self.handshake_end = Some((self.sent, self.received));
        self.tls.send_close_notify();
    }

    /// Whether all is sent, and the server has nothing left to say about the handshake.
    pub(super) fn has_heard_all(&self, may_be_refused: bool) -> bool {
        let has_tickets = self.tls.tls13_tickets_received() > 0;
        let is_tls_1_2 = self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_2);
        !self.tls.wants_write() && (is_tls_1_2 || has_tickets && !may_be_refused)
    }

    /// Sends as much as the kernel takes. That the peer has gone is told by the next read, which
    /// may also tell why.
    fn flush(&mut self) {
        while self.tls.wants_write() {
            let mut sent = Tap { stream: &mut self.stream, kept: &mut self.sent_bytes };
            match self.tls.write_tls(&mut sent) {
                Ok(count) if count > 0 => {
                    self.sent += count as u64;
                    self.awaits_answer = true;
                }
                _ => return,
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        self.received += bytes.len() as u64;
        keep(&mut self.received_bytes, bytes);
        if mem::take(&mut self.awaits_answer) && self.tls.is_handshaking() {
            self.round_trips += 1;
        }
        if !hello::looks_like_tls(&self.received_bytes) {
            return Err(Failure::NotTls);
        }
        while !bytes.is_empty() {
            // Its buffer cannot be full for long: every call is followed by processing.
            let taken = self.tls.read_tls(&mut bytes);
            let processed = self.tls.process_new_packets().map_err(|error| match error {
                rustls::Error::AlertReceived(alert) => Failure::Alert(alert),
                error => Failure::Refused(error),
            })?;
            // Nobody asked for data; what the server sends all the same is thrown away.
            let mut unasked = vec![0; processed.plaintext_bytes_to_read()];
            let _ = self.tls.reader().read(&mut unasked);
            if !matches!(taken, Ok(count) if count > 0) {
                break;
            }
        }
        Ok(())
    }

    /// Writes down what passed.
    pub(super) fn describe(&mut self, sighting: &mut Sighting) {
        (sighting.sent, sighting.received) =
            self.handshake_end.unwrap_or((self.sent, self.received));
        sighting.round_trips = self.round_trips;
        sighting.sent_bytes = mem::take(&mut self.sent_bytes);
        sighting.received_bytes = mem::take(&mut self.received_bytes);
        if !self.tls.is_handshaking() {
            let group = self.tls.negotiated_key_exchange_group();
            let alpn = self.tls.alpn_protocol();
            sighting.agreed = Some(Agreed {
                group: group.map(|group| format!("{:?}", group.name())),
                alpn: alpn.map(|name| String::from_utf8_lossy(name).into_owned()),
                is_resumed: self.tls.handshake_kind() == Some(HandshakeKind::Resumed),
                tickets: self.tls.tls13_tickets_received(),
            });
        }
    }
}

/// Writes to the stream, and keeps what the kernel took.
struct Tap<'a> {
    stream: &'a mut Stream,
    kept: &'a mut Vec<u8>,
}

impl Write for Tap<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        keep(self.kept, &bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what there is room for, so that no more than [`KEPT`] is ever there.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = KEPT - kept.len();
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
