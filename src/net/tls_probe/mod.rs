//! One TLS handshake, carried out to be looked at: nothing is asked of the server afterwards.
//!
//! A [`Prober`] connects, shakes hands, says goodbye, and tells all that was seen, the bytes
//! included. It lets a handshake finish that a client would break off because of the server's
//! certificate, so that everything can be shown at once; the verdict on the certificate is part of
//! what was seen. This is no way to talk to a server, and offers none.
//!
//! Invariant: it never sends application data, so what it lets pass cannot be misused.

mod line;
mod plain;
mod witness;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection};

use super::dial::{self, Target};
use super::reactor::{Context, Next, Reactor, Source};
use super::socket::Stream;
use crate::proto::buffer::Pool;
use crate::proto::end::Side;
use crate::proto::event::{Readiness, Silent};
use crate::proto::hello;
use crate::proto::starttls::Protocol;

use line::{Exchanged, Line};
use plain::Plain;
use witness::Witness;
pub use witness::{CertificateRequest, Presented, Setup};

/// How long to listen, at least, for what a server says after the handshake: tickets, or that it
/// wanted a client certificate, which TLS 1.3 tells no sooner. Most servers answer the goodbye, and
/// then there is nothing to wait for.
const LISTEN_AFTER: Duration = Duration::from_secs(3);

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
    /// The server did not go on to TLS when it was asked to: why.
    NotStarted(String),
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
    starttls: Option<Protocol>,
    timeout: Option<Duration>,
}

impl Prober {
    /// Prepares handshakes with the server called `server_name`, each of which may take `timeout`;
    /// `None` is for ever.
    ///
    /// # Errors
    /// What is offered cannot be offered.
    pub fn new(
        setup: Setup,
        server_name: ServerName<'static>,
        timeout: Option<Duration>,
    ) -> Result<Self, rustls::Error> {
        let starttls = setup.starttls;
        let (config, witness) = setup.into_config()?;
        Ok(Self { config, witness, server_name, starttls, timeout })
    }

    /// Shakes hands once, with the first of `addresses` that answers, of which only the first few
    /// are called.
    ///
    /// # Errors
    /// The event loop failed. What the network or the server did wrong is in the sighting.
    pub fn probe(&self, addresses: &[SocketAddr]) -> io::Result<Sighting> {
        let call = Call {
            prober: self,
            addresses: addresses.iter().copied().take(dial::MAX_CALLS).collect(),
            stage: Stage::Dialing { stream: None },
            until: self.timeout.and_then(|limit| Instant::now().checked_add(limit)),
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
    /// When the present stage must be over.
    until: Option<Instant>,
    /// When the present stage began.
    began: Instant,
    sighting: Sighting,
}

enum Stage {
    Dialing {
        stream: Option<Stream>,
    },
    /// Asking the server in the clear to go on to TLS.
    Asking(Box<Plain>),
    Shaking(Box<Line>),
    Listening(Box<Line>),
}

impl Call<'_> {
    /// Begins with the next address, or gives up with what was wrong with the last.
    fn dial(&mut self, context: &mut Context<'_, Self>, mut reason: io::Error) -> Next {
        while let Some(address) = self.addresses.pop_front() {
            self.sighting.peer = Some(address);
            let begun = dial::begin(&Target::Tcp(address), Side::Remote, context);
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
        let is_late = self.is_late(context);
        let Stage::Dialing { stream } = &mut self.stage else { return Next::Wait };
        let Some(dialed) = stream.take() else { return Next::Wait };
        match dial::outcome(&dialed) {
            Err(error) => self.dial(context, error),
            Ok(false) if is_late => self.end(context, Some(Failure::ConnectTimedOut)),
            Ok(false) => {
                *stream = Some(dialed);
                Next::Wait
            }
            Ok(true) => {
                self.sighting.connecting = Some(context.now.duration_since(self.began));
                match self.prober.starttls {
                    None => self.begin(dialed, context),
                    Some(protocol) => {
                        self.stage = Stage::Asking(Box::new(Plain::new(dialed, protocol)));
                        self.ask(context)
                    }
                }
            }
        }
    }

    /// Takes the exchange before TLS further.
    fn ask(&mut self, context: &mut Context<'_, Self>) -> Next {
        let Stage::Asking(plain) = &mut self.stage else { return Next::Wait };
        match plain.exchange() {
            Ok(true) => {}
            Ok(false) if self.is_late(context) => {
                let why = "the server did not answer in time before TLS could begin".to_owned();
                return self.end(context, Some(Failure::NotStarted(why)));
            }
            Ok(false) => return Next::Wait,
            Err(why) => return self.end(context, Some(Failure::NotStarted(why))),
        }
        match mem::replace(&mut self.stage, Stage::Dialing { stream: None }) {
            Stage::Asking(plain) => self.begin(plain.into_stream(), context),
            _ => Next::Wait,
        }
    }

    /// Begins the handshake.
    fn begin(&mut self, stream: Stream, context: &mut Context<'_, Self>) -> Next {
        self.began = Instant::now();
        let config = Arc::clone(&self.prober.config);
        let name = self.prober.server_name.clone();
        match ClientConnection::new(config, name) {
            Ok(tls) => self.stage = Stage::Shaking(Box::new(Line::new(stream, tls))),
            Err(error) => return self.end(context, Some(Failure::Refused(error))),
        }
        self.shake(context)
    }

    fn shake(&mut self, context: &mut Context<'_, Self>) -> Next {
        let Stage::Shaking(line) = &mut self.stage else { return Next::Wait };
        let outcome = line.exchange();
        match outcome {
            Exchanged::Failed(failure) => return self.end(context, Some(failure)),
            Exchanged::Closed(error) => return self.end(context, Some(Failure::Closed(error))),
            Exchanged::More | Exchanged::Blocked if line.is_handshaking() => {
                if matches!(outcome, Exchanged::Blocked) && self.is_late(context) {
                    return self.end(context, Some(Failure::HandshakeTimedOut));
                }
                return outcome.next();
            }
            Exchanged::More | Exchanged::Blocked => {}
        }
        line.finish();
        let lasted = Instant::now().duration_since(self.began);
        self.sighting.handshake = Some(lasted);
        self.until = Some(context.now + LISTEN_AFTER.max(lasted * 4));
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
        let may_be_refused = self.prober.witness.was_asked_for_certificate();
        let is_silent = matches!(outcome, Exchanged::Blocked);
        if line.has_heard_all(may_be_refused) || is_silent && self.is_late(context) {
            return self.end(context, None);
        }
        outcome.next()
    }

    fn is_late(&self, context: &Context<'_, Self>) -> bool {
        self.until.is_some_and(|until| until <= context.now)
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
            Stage::Asking(_) => self.ask(context),
            Stage::Shaking(_) => self.shake(context),
            Stage::Listening(_) => self.listen(context),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.until
    }
}
