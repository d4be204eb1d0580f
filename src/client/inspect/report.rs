//! What an inspection found, as programs read it (`--json`).
//!
//! The names of the fields are an interface: they are added to, not changed.

use std::time::Duration;

use jiff::Timestamp;
use rustls::{CipherSuite, NamedGroup};
use serde::Serialize;

use super::faults::{self, Case, Fault};
use crate::certificates::describe::{Description, distinguished_name, hexadecimal, printable};
use crate::config::HostPort;
use crate::net::tls;
use crate::net::tls_probe::{CertificateRequest, Sighting};
use crate::proto::hello::{self, ClientHello, ServerHello};

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where the server is.
    pub address: String,
    /// The socket address that answered.
    pub peer: Option<String>,
    /// The name that the certificate must be for.
    pub server_name: String,
    /// How the handshake went.
    pub handshake: Handshake,
    /// What the client offered.
    pub offered: Option<Offered>,
    /// What the server chose.
    pub chosen: Option<Chosen>,
    /// The server's certificates, its own first.
    pub certificates: Vec<Certificate>,
    /// The size of the stapled OCSP answer; none: there is none.
    pub ocsp_staple_bytes: Option<usize>,
    /// What the server asked for as a client certificate, where it did.
    pub client_certificate: Option<ClientCertificate>,
    /// Whether a second connection resumed the session of the first.
    pub resumption: Resumption,
    /// What is wrong, the most telling first; empty: nothing.
    pub faults: Vec<Fault>,
}

/// How a handshake went.
#[derive(Clone, Debug, Serialize)]
pub struct Handshake {
    /// Whether it was carried through, and not taken back afterwards.
    pub is_complete: bool,
    /// How often the client waited for an answer.
    pub round_trips: u32,
    /// Bytes that the client sent.
    pub sent_bytes: u64,
    /// Bytes that the client received.
    pub received_bytes: u64,
    /// Milliseconds until there was a connection.
    pub connect_ms: Option<f64>,
    /// Milliseconds from there to the end of the handshake.
    pub handshake_ms: Option<f64>,
}

/// What the client offered, in its order of preference.
#[derive(Clone, Debug, Serialize)]
pub struct Offered {
    /// Protocol versions.
    pub versions: Vec<String>,
    /// Cipher suites.
    pub suites: Vec<String>,
    /// Key exchange groups.
    pub groups: Vec<String>,
    /// The groups for which a key was sent along.
    pub key_shares: Vec<String>,
    /// The server's name (SNI); none where it is an IP address.
    pub server_name: Option<String>,
    /// Application protocols.
    pub alpn: Vec<String>,
    /// The client's random value.
    pub random: String,
    /// The session id.
    pub session_id: String,
}

/// What the server chose.
#[derive(Clone, Debug, Serialize)]
pub struct Chosen {
    /// The protocol version.
    pub version: String,
    /// The cipher suite.
    pub suite: String,
    /// The key exchange group.
    pub group: Option<String>,
    /// The group that the server had to ask for because no key for it was sent along.
    pub retried_with_group: Option<String>,
    /// The application protocol.
    pub alpn: Option<String>,
    /// The server's random value.
    pub random: String,
    /// The session id.
    pub session_id: String,
}

/// A certificate, and how long it lives.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// What it says.
    #[serde(flatten)]
    pub description: Description,
    /// Whole days until it expires; negative once it has.
    pub days_left: i64,
}

/// What the server asked for as a client certificate.
#[derive(Clone, Debug, Serialize)]
pub struct ClientCertificate {
    /// The authorities that it accepts; empty: it does not say.
    pub authorities: Vec<String>,
    /// Whether it was given one.
    pub was_sent: bool,
}

/// What became of the session on a second connection.
#[derive(Clone, Debug, Serialize)]
pub struct Resumption {
    /// How many tickets the server gave.
    pub tickets: u32,
    /// How long the server means to honour its ticket, in seconds (TLS 1.2).
    pub ticket_lifetime_seconds: Option<u32>,
    /// Whether the second connection went on with the session; none: there was no second one.
    pub is_resumed: Option<bool>,
    /// The handshake of the second connection.
    pub handshake: Option<Handshake>,
}

impl Report {
    pub(super) fn new(address: &HostPort, case: &Case<'_>, second: Option<&Sighting>) -> Self {
        let &Case { sighting: first, name, now, .. } = case;
        let presented = first.presented.as_ref();
        let chain = presented.map(|it| it.chain.as_slice()).unwrap_or_default();
        let staple = presented.map(|it| it.ocsp.len()).filter(|&len| len > 0);
        Self {
            address: format!("tls://{address}"),
            peer: first.peer.map(|peer| peer.to_string()),
            server_name: name.to_owned(),
            handshake: Handshake::new(first),
            offered: hello::client_hello(&first.sent_bytes).map(Offered::new),
            chosen: Chosen::new(first),
            certificates: chain.iter().filter_map(|der| Certificate::new(der, now)).collect(),
            ocsp_staple_bytes: staple,
            client_certificate: first.certificate_request.as_ref().map(ClientCertificate::new),
            resumption: Resumption::new(first, second),
            faults: faults::find(case),
        }
    }
}

impl Handshake {
    fn new(sighting: &Sighting) -> Self {
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e5).round() / 100.0;
        Self {
            is_complete: sighting.agreed.is_some() && sighting.failure.is_none(),
            round_trips: sighting.round_trips,
            sent_bytes: sighting.sent,
            received_bytes: sighting.received,
            connect_ms: sighting.connecting.map(ms),
            handshake_ms: sighting.handshake.map(ms),
        }
    }
}

impl Offered {
    fn new(hello: ClientHello) -> Self {
        Self {
            versions: hello.versions.iter().copied().map(version_name).collect(),
            suites: hello.suites.iter().copied().map(suite_name).collect(),
            groups: hello.groups.iter().copied().map(group_name).collect(),
            key_shares: hello.key_shares.iter().copied().map(group_name).collect(),
            server_name: hello.server_name,
            alpn: hello.alpn,
            random: hexadecimal(&hello.random),
            session_id: hexadecimal(&hello.session_id),
        }
    }
}

impl Chosen {
    fn new(sighting: &Sighting) -> Option<Self> {
        let flight = hello::server_flight(&sighting.received_bytes);
        let ServerHello { random, session_id, suite, version, group, .. } = flight.hello?;
        let agreed = sighting.agreed.as_ref();
        let agreed_group = agreed.and_then(|it| it.group.clone());
        Some(Self {
            version: version_name(version),
            suite: suite_name(suite),
            group: agreed_group.or_else(|| group.map(group_name)),
            retried_with_group: flight.retry.and_then(|it| it.group).map(group_name),
            alpn: agreed.and_then(|it| it.alpn.as_deref()).map(printable),
            random: hexadecimal(&random),
            session_id: hexadecimal(&session_id),
        })
    }
}

impl Certificate {
    fn new(der: &[u8], now: Timestamp) -> Option<Self> {
        let description = Description::read(der).ok()?;
        Some(Self { days_left: description.days_left(now), description })
    }
}

impl ClientCertificate {
    fn new(request: &CertificateRequest) -> Self {
        Self {
            authorities: request.authorities.iter().map(|der| distinguished_name(der)).collect(),
            was_sent: request.was_met,
        }
    }
}

impl Resumption {
    fn new(first: &Sighting, second: Option<&Sighting>) -> Self {
        let clear = hello::server_flight(&first.received_bytes).ticket;
        let sealed = first.agreed.as_ref().map_or(0, |it| it.tickets);
        let resumed = |it: &Sighting| it.agreed.as_ref().is_some_and(|it| it.is_resumed);
        Self {
            tickets: sealed + u32::from(clear.is_some()),
            ticket_lifetime_seconds: clear.map(|it| it.lifetime).filter(|&seconds| seconds > 0),
            is_resumed: second.map(resumed),
            handshake: second.map(Handshake::new),
        }
    }
}

fn version_name(version: u16) -> String {
    match version {
        0x0304 => "TLS 1.3".to_owned(),
        0x0303 => "TLS 1.2".to_owned(),
        0x0302 => "TLS 1.1".to_owned(),
        0x0301 => "TLS 1.0".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

fn suite_name(suite: u16) -> String {
    tls::suite_name(CipherSuite::from(suite)).unwrap_or_else(|| format!("0x{suite:04x}"))
}

fn group_name(group: u16) -> String {
    NamedGroup::from(group).as_str().map_or_else(|| format!("0x{group:04x}"), str::to_owned)
}
