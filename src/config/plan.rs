//! What the daemon is to do: the checked and typed form of a configuration.
//!
//! A plan holds values only. It reads no file and opens no socket; whatever is in it has passed
//! every check, so that nothing that takes a plan needs to check it again.

use std::path::PathBuf;
use std::time::Duration;

use crate::proto::gate::{CHALLENGE_LEN, Digest, Secret};
use crate::proto::http_connect::{Authority, HEAD_LIMIT, Rule};
use crate::proto::proxy_protocol::{Trusted, Version};
use crate::proto::resolver::Server;
use crate::proto::service::Kind;
pub use crate::proto::session::Timeouts;

use super::address::Address;
use super::tls::{Tls, UpstreamTls};

/// The smallest buffer that may be asked for, in bytes.
pub const MIN_BUFFER: usize = 4096;

/// The largest buffer that may be asked for, in bytes.
pub const MAX_BUFFER: usize = 1 << 20;

/// The shortest longest head of HTTP CONNECT that may be asked for, in bytes.
pub const MIN_HEAD: usize = 1024;

/// Connections open at once through an entry without a file. Each takes two descriptors.
const ENTRY_CONNECTIONS: usize = 5_000;

/// One part in so many of all places is kept from strangers, unless a limit says otherwise.
const KEPT_PART: usize = 16;

/// How long what was sent may wait for its acknowledgement unless a listener says otherwise. A peer
/// whose receive buffer stays full counts like one that is gone, so a shorter time would cut off
/// who only pauses in the middle of a long answer; and the standard of TCP itself gives five
/// minutes (RFC 9293, 3.8.3).
pub const DEFAULT_USER_TIMEOUT: Duration = Duration::from_secs(240);

/// Answers a second that one peer of a udp listener may have unless a listener says otherwise: more
/// than a person or a monitor asks for, and few enough that what goes round in a circle soon ends.
pub const DEFAULT_ANSWERS: u32 = 20;

/// Permission bits of a Unix socket unless a listener says otherwise: its owner alone.
pub const DEFAULT_UNIX_MODE: u32 = 0o600;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the process as a whole may use.
    pub limits: Limits,
    /// How host names are looked up.
    pub resolver: Resolver,
    /// Every secret, in the order of the file, with where it came from.
    pub secrets: Vec<SourcedSecret>,
    /// What to listen on, in the order of the file; at least one.
    pub listeners: Vec<Listener>,
    /// The file that it was read from, where it was.
    pub file: Option<PathBuf>,
}

impl Plan {
    /// A plan of one listener at `local`, with the defaults for everything but idleness and a full
    /// receive buffer: what a person forwards by hand may rest as long as they like.
    #[must_use]
    pub fn entry(local: Address, service: Service) -> Self {
        let listener = Listener {
            name: "forward".to_owned(),
            address: local,
            service,
            gate: None,
            proxies: Vec::new(),
            tls: None,
            timeouts: Timeouts { idle: None, ..Timeouts::default() },
            user_timeout: None,
            amplify: false,
            answers_per_second: DEFAULT_ANSWERS,
            unix_mode: DEFAULT_UNIX_MODE,
            only_ipv6: false,
            head: HEAD_LIMIT,
        };
        Self {
            limits: Limits::of(ENTRY_CONNECTIONS),
            resolver: Resolver::default(),
            secrets: Vec::new(),
            listeners: vec![listener],
            file: None,
        }
    }
}

/// What the process as a whole may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once, over all listeners.
    pub connections: usize,
    /// Connections open at once from one IP address; 0 sets no limit of its own.
    pub connections_per_ip: usize,
    /// Connections open at once whose peers were not admitted: their PROXY header, TLS handshake or
    /// answer to the gate is not there yet. Where one more comes, one of them makes room.
    pub unauthenticated: usize,
    /// How long a stop waits for open connections; zero does not wait.
    pub drain: Duration,
    /// Bytes that a connection may hold in each direction, [`MIN_BUFFER`] to [`MAX_BUFFER`].
    pub buffer: usize,
    /// Bytes that the head of a request or an answer of HTTP CONNECT may have, [`MIN_HEAD`] to
    /// 64 KiB and no more than the buffer holds.
    pub head: usize,
}

impl Limits {
    /// The limits for so many connections: one part in sixteen of the places is kept from each
    /// single address and from those who are not admitted, so that no stranger takes them all. It
    /// is a small part, because many may come from one address: those behind a proxy that does not
    /// announce them, or a test.
    #[must_use]
    pub fn of(connections: usize) -> Self {
        let most = connections - connections / KEPT_PART;
        Self {
            connections,
            connections_per_ip: most,
            unauthenticated: most,
            drain: Duration::from_secs(30),
            buffer: 65_536,
            head: HEAD_LIMIT,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(10_000)
    }
}

/// How the names of forwarding targets are looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// The name servers, in the order in which they are asked; where there are none, those of
    /// /etc/resolv.conf.
    pub servers: Vec<Server>,
}

/// One address and what is offered there.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name in logs and metrics, unique in the plan.
    pub name: String,
    /// Where it listens: tcp, udp or unix, and unique in the plan unless its port is 0.
    pub address: Address,
    /// What an admitted peer talks to.
    pub service: Service,
    /// Who is admitted; `None` admits everyone, as every udp listener does.
    pub gate: Option<Gate>,
    /// The proxies, which say with a header of the PROXY protocol for whom they connect. Nobody
    /// else's header is read, and a udp listener's neither.
    pub proxies: Vec<Trusted>,
    /// The TLS that it speaks; `None` speaks none, as every udp listener does.
    pub tls: Option<Tls>,
    /// How long its connections may wait; of no meaning to a udp listener.
    pub timeouts: Timeouts,
    /// How long its TCP connections, and those that they make onward, may wait for what was sent
    /// to be acknowledged; `None` leaves that to the system.
    pub user_timeout: Option<Duration>,
    /// Whether a udp listener that is not on loopback may answer a datagram with a larger one,
    /// which lets a forger of source addresses multiply traffic.
    pub amplify: bool,
    /// How many datagrams of one address and port a udp listener answers in a second, on average; 0
    /// sets no bound. A socket of this machine that hears nobody else is always answered.
    pub answers_per_second: u32,
    /// Permission bits of a Unix socket's path; of no meaning to other listeners.
    pub unix_mode: u32,
    /// Whether `[::]` takes IPv6 alone, because another listener has the port for IPv4.
    pub only_ipv6: bool,
    /// The head that the [`Limits`] allow.
    pub head: usize,
}

/// What an admitted peer talks to.
#[derive(Clone, Debug, PartialEq)]
pub enum Service {
    /// A service of this program.
    Own(Kind),
    /// Whoever the peer asks for with HTTP CONNECT, within what is allowed.
    Connect {
        /// What may be asked for; nothing else is.
        targets: Vec<Rule>,
        /// How long the request and the call to its target may take.
        connect: Option<Duration>,
    },
    /// Somebody else: its bytes are carried onward.
    Forward {
        /// Where to: tcp, tls or unix, tried in this order; at least one.
        to: Vec<Address>,
        /// How long each is tried, and then how long it may take to let the entry in.
        connect: Option<Duration>,
        /// What it is told first.
        upstream: Box<Upstream>,
    },
}

/// What an entry says to the exit that it forwards to, before it carries a byte.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// What answers the exit's challenge, where it has a gate.
    pub gate: Option<(Secret, Digest)>,
    /// In which version of the PROXY protocol the target is told who the client is, where it is.
    pub proxy_protocol: Option<Version>,
    /// What the exit is asked to connect to, where it is not told by its own configuration.
    pub target: Option<Authority>,
    /// How TLS is spoken with targets that are `tls://`.
    pub tls: UpstreamTls,
}

impl PartialEq for Upstream {
    fn eq(&self, other: &Self) -> bool {
        let gates_are_equal = match (&self.gate, &other.gate) {
            (Some((one, by)), Some((other, with))) => by == with && same_secret(one, other),
            (None, None) => true,
            _ => false,
        };
        gates_are_equal
            && (self.proxy_protocol, &self.target, &self.tls)
                == (other.proxy_protocol, &other.target, &other.tls)
    }
}

/// Who is admitted.
#[derive(Clone, Debug)]
pub struct Gate {
    /// What answers are made with.
    pub digest: Digest,
    /// Any one of these lets a client in; at least one.
    pub secrets: Vec<Secret>,
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
            && self.secrets.len() == other.secrets.len()
            && self.secrets.iter().zip(&other.secrets).all(|(a, b)| same_secret(a, b))
    }
}

/// A secret and where it came from.
#[derive(Clone, Debug)]
pub struct SourcedSecret {
    /// The secret itself.
    pub secret: Secret,
    /// Where its bytes were read.
    pub origin: SecretOrigin,
}

impl PartialEq for SourcedSecret {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin && same_secret(&self.secret, &other.secret)
    }
}

/// Where the bytes of a secret came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretOrigin {
    /// They stand in the configuration itself.
    Literal,
    /// The file at this absolute path.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
}

/// The name by which a configuration asks for a service.
#[must_use]
pub fn service_name(service: &Service) -> &'static str {
    match service {
        Service::Own(kind) => kind_name(kind),
        Service::Forward { .. } => FORWARD,
        Service::Connect { .. } => CONNECT,
    }
}

/// The name of the service that carries bytes to where the peer asks.
pub(super) const CONNECT: &str = "connect";

/// The name of the service that carries bytes onward.
pub(super) const FORWARD: &str = "forward";

pub(super) fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Upper => "upper",
        Kind::Once => "once",
        Kind::Greet => "greet",
        Kind::Time => "time",
        Kind::Echo => "echo",
        Kind::Discard => "discard",
        Kind::Daytime => "daytime",
        Kind::Chargen => "chargen",
        Kind::Reply(_) => "reply",
    }
}

/// A secret does not show its bytes, but two that answer alike let the same clients in.
fn same_secret(one: &Secret, other: &Secret) -> bool {
    let answer = |secret: &Secret| secret.answer(Digest::Sha256, &[0; CHALLENGE_LEN]);
    one.name() == other.name() && answer(one).as_bytes() == answer(other).as_bytes()
}
