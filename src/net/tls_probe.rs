//! One TLS handshake, carried out to be looked at: nothing is asked of the server afterwards.
//!
//! A [`Prober`] connects, shakes hands, says goodbye, and tells all that was seen, the bytes
//! included. It lets a handshake finish that a client would break off because of the server's
//! certificate, so that everything can be shown at once; the verdict on the certificate is part of
//! what was seen. This is no way to talk to a server, and offers none.
//!
//! Invariant: it never sends application data, so what it lets pass cannot be misused.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Interest;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection, HandshakeKind};

use super::dial::{self, Target};
use super::reactor::{Context, Next, Reactor, Source};
use super::socket::Stream;
use super::tls_witness::{CertificateRequest, Presented, Setup, SetupError, Witness};
use crate::proto::buffer::Pool;
use crate::proto::end::Side;
use crate::proto::event::{Event, Observer, Readiness, Subject};
use crate::proto::hello;

/// How much of what each side sends is kept: the greetings are in it, and all of TLS 1.2.
const KEPT: usize = 64 * 1024;

/// How long to listen, at least, for what a server says after the handshake: tickets, or that it
/// wanted a client certificate, which TLS 1.3 tells no sooner.
const LISTEN_AFTER: Duration = Duration::from_secs(1);

/// How many reads one turn may take.
const READS_PER_TURN: usize = 16;

/// All that was seen of one connection.
#[derive(Debug, Default)]
pub struct Sighting {
    /// Who answered.
    pub peer: Option<SocketAddr>,
    /// How long the connection took to come about.
    pub connecting: Option<Duration>,
    /// How long the handshake took from there, as the client sees it.
    pub handshake: Option<Duration>,
    /// How often the client had to wait for an answer before it could go on.
    pub round_trips: u32,
    /// Bytes that the client sent until the end of its handshake.
    pub sent: u64,
    /// Bytes that it had received by then.
    pub received: u64,
    /// What the client sent, from its first byte; at most 64 KiB are kept.
    pub sent_bytes: Vec<u8>,
    /// What the server sent, likewise.
    pub received_bytes: Vec<u8>,
    /// What was agreed, once the handshake is done.
    pub agreed: Option<Agreed>,
    /// The server's certificates; none where a session was resumed.
    pub presented: Option<Presented>,
    /// What the server asked for as a client certificate, where it did.
    pub certificate_request: Option<CertificateRequest>,
    /// Why it went no further.
    pub failure: Option<Failure>,
}

/// What both sides agreed on.
#[derive(Debug)]
pub struct Agreed {
    /// The key exchange group; none where a session was resumed without one.
    pub group: Option<String>,
    /// The application protocol.
    pub alpn: Option<String>,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
    /// How many session tickets came after the handshake (TLS 1.3).
    pub tickets: u32,
}

/// Why a handshake did not come about, or was taken back.
#[derive(Debug)]
pub enum Failure {
    /// There was no connection.
    Unreachable(io::Error),
    /// No connection within the time.
    ConnectTimedOut,
    /// No end of the handshake within the time.
    HandshakeTimedOut,
    /// The server closed the connection during the handshake; with an error where it was reset.
    Closed(Option<io::Error>),
    /// What came is not TLS.
    NotTls,
    /// The server refused with an alert.
    Alert(AlertDescription),
    /// This side could not go on with what the server sent.
    Refused(rustls::Error),
}

/// Makes handshakes with one server; later ones resume the session of the first, where they may.
pub struct Prober {
    config: Arc<ClientConfig>,
    witness: Arc<Witness>,
    server_name: ServerName<'static>,
    timeout: Duration,
}

impl Prober {
    /// Prepares handshakes with the server called `server_name`, each of which may take `timeout`.
    ///
    /// # Errors
    /// What is offered cannot be offered.
    pub fn new(
        setup: Setup,
        server_name: ServerName<'static>,
        timeout: Duration,
    ) -> Result<Self, SetupError> {
        let (config, witness) = setup.into_config()?;
        Ok(Self { config, witness, server_name, timeout })
    }

    /// Shakes hands once, with the first of `addresses` that answers.
    ///
    /// # Errors
    /// The event loop failed. What the network or the server did wrong is in the sighting.
    pub fn probe(&self, addresses: &[SocketAddr]) -> io::Result<Sighting> {
        let call = Call {
            prober: self,
            addresses: addresses.iter().copied().collect(),
            stage: Stage::Dialing { stream: None },
            until: Instant::now() + self.timeout,
            began: Instant::now(),
            sighting: Sighting::default(),
        };
        let mut reactor = Reactor::new(Pool::new(1, 0), Box::new(Silent), None)?;
        reactor.spawn(call);
        loop {
            if let Some(mut sighting) = reactor.host().take() {
                (sighting.presented, sighting.certificate_request) = self.witness.take();
                return Ok(sighting);
            }
            reactor.turn()?;
        }
    }
}

/// One connection: first it dials, then it shakes hands, then it listens a little.
struct Call<'a> {
    prober: &'a Prober,
    addresses: VecDeque<SocketAddr>,
    stage: Stage,
    until: Instant,
    /// When the present stage began.
    began: Instant,
    sighting: Sighting,
}

enum Stage {
    Dialing { stream: Option<Stream> },
    Shaking(Box<Line>),
    Listening(Box<Line>),
}

impl Call<'_> {
    /// Begins with the next address, or gives up with what was wrong with the last.
    fn dial(&mut self, context: &mut Context<'_, Self>, mut reason: io::Error) -> Next {
        while let Some(address) = self.addresses.pop_front() {
            self.sighting.peer = Some(address);
            let begun = dial::begin(&Target::Tcp(address)).and_then(|mut stream| {
                context.register(&mut stream, Side::Remote, BOTH)?;
                Ok(stream)
            });
            match begun {
                Ok(stream) => {
                    self.stage = Stage::Dialing { stream: Some(stream) };
                    return Next::Wait;
                }
                Err(error) => reason = error,
            }
        }
        self.end(context, Some(Failure::Unreachable(reason)))
    }

    fn check(&mut self, context: &mut Context<'_, Self>) -> Next {
        if context.now >= self.until {
            return self.end(context, Some(Failure::ConnectTimedOut));
        }
        let Stage::Dialing { stream } = &mut self.stage else { return Next::Wait };
        let Some(dialed) = stream.take() else { return Next::Wait };
        match dial::outcome(&dialed) {
            Err(error) => self.dial(context, error),
            Ok(false) => {
                *stream = Some(dialed);
                Next::Wait
            }
            Ok(true) => {
                self.sighting.connecting = Some(context.now.duration_since(self.began));
                self.began = context.now;
                let config = Arc::clone(&self.prober.config);
                let name = self.prober.server_name.clone();
                match ClientConnection::new(config, name) {
                    Ok(tls) => self.stage = Stage::Shaking(Box::new(Line::new(dialed, tls))),
                    Err(error) => return self.end(context, Some(Failure::Refused(error))),
                }
                self.shake(context)
            }
        }
    }

    fn shake(&mut self, context: &mut Context<'_, Self>) -> Next {
        let Stage::Shaking(line) = &mut self.stage else { return Next::Wait };
        let outcome = line.exchange();
        match outcome {
            Exchanged::Failed(failure) => return self.end(context, Some(failure)),
            Exchanged::Closed(error) => return self.end(context, Some(Failure::Closed(error))),
            Exchanged::More | Exchanged::Blocked if line.tls.is_handshaking() => {
                if context.now >= self.until {
                    return self.end(context, Some(Failure::HandshakeTimedOut));
                }
                return outcome.next();
            }
            Exchanged::More | Exchanged::Blocked => {}
        }
        // The client's last message belongs to the handshake, its goodbye does not.
        line.flush();
        line.handshake_end = Some((line.sent, line.received));
        line.tls.send_close_notify();
        let lasted = Instant::now().duration_since(self.began);
        self.sighting.handshake = Some(lasted);
        self.until = context.now + LISTEN_AFTER.max(lasted * 4);
        let Stage::Shaking(line) = mem::replace(&mut self.stage, Stage::Dialing { stream: None })
        else {
            return Next::Wait;
        };
        self.stage = Stage::Listening(line);
        self.listen(context)
    }

    /// Waits for what comes after the handshake, if anything can.
    fn listen(&mut self, context: &mut Context<'_, Self>) -> Next {
        let Stage::Listening(line) = &mut self.stage else { return Next::Wait };
        let outcome = line.exchange();
        match outcome {
            Exchanged::Failed(failure) => return self.end(context, Some(failure)),
            Exchanged::Closed(_) => return self.end(context, None),
            Exchanged::More | Exchanged::Blocked => {}
        }
        let is_tls_1_2 = line.tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2);
        let has_tickets = line.tls.tls13_tickets_received() > 0;
        let may_be_refused = self.prober.witness.was_asked_for_certificate();
        let has_heard_all = is_tls_1_2 || (has_tickets && !may_be_refused);
        if (has_heard_all && !line.tls.wants_write()) || context.now >= self.until {
            return self.end(context, None);
        }
        outcome.next()
    }

    /// Leaves behind what was seen.
    fn end(&mut self, context: &mut Context<'_, Self>, failure: Option<Failure>) -> Next {
        let mut sighting = mem::take(&mut self.sighting);
        if let Stage::Shaking(line) | Stage::Listening(line) = &mut self.stage {
            line.describe(&mut sighting);
        }
        let is_tls = hello::looks_like_tls(&sighting.received_bytes);
        sighting.failure = if is_tls { failure } else { Some(Failure::NotTls) };
        *context.host = Some(sighting);
        Next::Close
    }
}

impl Source for Call<'_> {
    type Host = Option<Sighting>;

    fn start(&mut self, context: &mut Context<'_, Self>) -> Next {
        self.dial(context, io::ErrorKind::AddrNotAvailable.into())
    }

    fn handle_readiness(&mut self, _side: Side, _readiness: Readiness) {}

    fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
        match self.stage {
            Stage::Dialing { .. } => self.check(context),
            Stage::Shaking(_) => self.shake(context),
            Stage::Listening(_) => self.listen(context),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.until)
    }
}

/// A connected stream, TLS over it, and what passed.
struct Line {
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
enum Exchanged {
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
    fn next(&self) -> Next {
        if matches!(self, Self::More) { Next::Again } else { Next::Wait }
    }
}

impl Line {
    fn new(stream: Stream, tls: ClientConnection) -> Self {
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
    fn exchange(&mut self) -> Exchanged {
        let was_handshaking = self.tls.is_handshaking();
        for _ in 0..READS_PER_TURN {
            self.flush();
            let mut space = [0; 16 * 1024];
            match self.stream.read(&mut space) {
                Ok(0) => return Exchanged::Closed(None),
                Ok(count) => {
                    if let Err(failure) = self.take(&space[..count]) {
                        self.flush();
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

    fn describe(&mut self, sighting: &mut Sighting) {
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

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = KEPT - kept.len();
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A probe reports at its end, not on the way.
struct Silent;

impl Observer for Silent {
    fn wants_detail(&self) -> bool {
        false
    }

    fn observe(&mut self, _turn: u64, _subject: &Subject<'_>, _event: &Event<'_>) {}
}
