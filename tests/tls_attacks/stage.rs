//! What is attacked: a session of ours whose remote or local end speaks TLS, with all that a reactor
//! would give it, over socket pairs and in a time that passes only when it is told to.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;

use turnstile::net::socket::{Socket, Stream};
use turnstile::net::tls::socket::{ClientSocket, ServerSocket};
use turnstile::proto::buffer::Pool;
use turnstile::proto::end::{Clock, End, Side, Turn};
use turnstile::proto::event::{Event, Observer, Readiness, Subject, Watch};
use turnstile::proto::service::Kind;
use turnstile::proto::session::{Admission, CloseReason, Session, Step, Timeouts};

use crate::attacker::{Keys, Version};

const BLOCK: usize = 20 * 1024;

/// A session has two pipes, and a TLS socket a block of ciphertext.
const MOST_BLOCKS: usize = 4;

const READY: Readiness = Readiness::READABLE.with(Readiness::WRITABLE);

/// Who is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A service that speaks TLS.
    Server,
    /// A relay that a client reaches by TLS.
    Relay,
    /// A client, as of `connect` and `load`.
    Client,
    /// The entry of a tunnel, attacked by its exit.
    Entry,
}

impl Role {
    pub(crate) fn attacker_is_client(self) -> bool {
        matches!(self, Self::Server | Self::Relay)
    }
}

/// The session, and both ends of the world.
pub(crate) struct Stage {
    session: Box<dyn Attacked>,
    pool: Pool,
    now: Instant,
    /// The attacker's end.
    pub(crate) wire: UnixStream,
    /// The other side of a relay.
    other_side: Option<UnixStream>,
    /// Whether the other side goes on talking.
    pub(crate) other_side_talks: bool,
    pub(crate) end: Option<CloseReason>,
}

impl Stage {
    pub(crate) fn new(role: Role, keys: &Keys, version: Version, service: &Kind) -> Self {
        let (wire, ours) = UnixStream::pair().expect("a pair");
        wire.set_nonblocking(true).expect("non-blocking");
        let name = ServerName::try_from("localhost").expect("a name");
        let accept = |ours| ServerSocket::accept(stream(ours), Arc::new(keys.server(version)));
        let connect = |ours, side| {
            let socket = Socket::new(stream(ours), side);
            ClientSocket::over(socket, Arc::new(keys.client(version)), name).expect("sound")
        };
        let mut other_side = None;
        let mut relayed = || {
            let (far, near) = UnixStream::pair().expect("a pair");
            far.set_nonblocking(true).expect("non-blocking");
            other_side = Some(far);
            stream(near)
        };
        let wake_server = |it: &mut ServerSocket| it.handle_readiness(READY);
        let wake_client = |it: &mut ClientSocket| it.handle_readiness(READY);
        let wake_plain = |it: &mut Socket| it.handle_readiness(READY);
        let service = || (service.stream(), (|_| ()) as fn(&mut Box<dyn End>));
        let session: Box<dyn Attacked> = match role {
            Role::Server => Held::over((accept(ours), wake_server), service()),
            Role::Client => Held::over((connect(ours, Side::Remote), wake_client), service()),
            Role::Relay => {
                let mut remote = accept(ours).keep_server_name();
                remote.require_close_notify();
                let local = Socket::new(relayed(), Side::Local);
                Held::over((remote, wake_server), (local, wake_plain))
            }
            Role::Entry => {
                let mut local = connect(ours, Side::Local);
                local.require_close_notify();
                let remote = Socket::new(relayed(), Side::Remote);
                Held::over((remote, wake_plain), (local, wake_client))
            }
        };
        let (pool, now) = (Pool::new(BLOCK, 4), Instant::now());
        Self { session, pool, now, wire, other_side, other_side_talks: true, end: None }
    }

    /// Runs as if everything had become ready; checks what it holds, and that it leaves nothing.
    pub(crate) fn turn(&mut self) {
        if let Some(other_side) = &mut self.other_side {
            let mut space = [0; 4096];
            let _ = other_side.read(&mut space);
            if self.other_side_talks {
                let _ = other_side.write(b"more");
            }
        }
        if self.end.is_some() {
            return;
        }
        let mut observer = Nobody;
        let watch = Watch::new(&mut observer, 0, Subject::LOOP);
        let (pool, now) = (&mut self.pool, self.now);
        let mut turn = Turn { now, pool, clock: &NoClock, watch };
        let step = self.session.run(&mut turn);
        if let Step::Close(reason) = step {
            self.session.dispose(&mut turn, &reason);
            self.end = Some(reason);
            assert_eq!(self.pool.lent(), 0, "keeps a block");
        }
        assert!(self.pool.lent() <= MOST_BLOCKS, "holds {} blocks", self.pool.lent());
    }

    /// Sends to the session, as much as it takes; answers what it said meanwhile.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut heard = Vec::new();
        for _ in 0..50 {
            let count = self.wire.write(bytes).unwrap_or(0);
            bytes = &bytes[count..];
            self.turn();
            heard.extend(self.listen());
            if bytes.is_empty() || self.end.is_some() {
                break;
            }
        }
        heard
    }

    /// What the session said.
    pub(crate) fn listen(&mut self) -> Vec<u8> {
        let mut heard = vec![0; 1 << 15];
        let count = self.wire.read(&mut heard).unwrap_or(0);
        heard.truncate(count);
        heard
    }

    /// The other side of a relay ends its stream, and listens on.
    pub(crate) fn other_side_leaves(&mut self) {
        self.other_side_talks = false;
        if let Some(other_side) = &self.other_side {
            let _ = other_side.shutdown(Shutdown::Write);
        }
    }

    /// Lets time pass until the session is over.
    pub(crate) fn wait_for_the_end(&mut self, other_side_leaves: bool) -> CloseReason {
        for _ in 0..20 {
            self.turn();
            self.listen();
        }
        if other_side_leaves {
            self.other_side = None;
        }
        self.other_side_talks = false;
        for round in 0..200 {
            if let Some(reason) = self.end {
                return reason;
            }
            self.turn();
            // A service that never stops talking goes on for as long as somebody listens.
            if round < 100 {
                self.listen();
            }
            if let Some(deadline) = self.session.deadline() {
                self.now = self.now.max(deadline);
            }
        }
        panic!("it goes on for ever, in {:?}", self.session.deadline().map(|it| it - self.now));
    }
}

/// A session between ends of any kind.
trait Attacked {
    fn run(&mut self, turn: &mut Turn<'_>) -> Step;
    fn deadline(&self) -> Option<Instant>;
    fn dispose(&mut self, turn: &mut Turn<'_>, reason: &CloseReason);
}

struct Held<R, L> {
    session: Session<R, L>,
    wake_remote: fn(&mut R),
    wake_local: fn(&mut L),
}

impl<R: End + 'static, L: End + 'static> Held<R, L> {
    fn over(
        (remote, wake_remote): (R, fn(&mut R)),
        (local, wake_local): (L, fn(&mut L)),
    ) -> Box<dyn Attacked> {
        let timeouts = Rc::new(Timeouts::default());
        let session = Session::new(remote, local, Admission::Open, timeouts, Instant::now());
        Box::new(Self { session, wake_remote, wake_local })
    }
}

impl<R: End, L: End> Attacked for Held<R, L> {
    fn run(&mut self, turn: &mut Turn<'_>) -> Step {
        (self.wake_remote)(self.session.remote());
        (self.wake_local)(self.session.local());
        self.session.run(turn)
    }

    fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    fn dispose(&mut self, turn: &mut Turn<'_>, reason: &CloseReason) {
        self.session.dispose(turn, reason);
    }
}

fn stream(wire: UnixStream) -> Stream {
    wire.set_nonblocking(true).expect("non-blocking");
    Stream::Unix(mio::net::UnixStream::from_std(wire))
}

struct Nobody;

impl Observer for Nobody {
    fn wants_detail(&self) -> bool {
        false
    }

    fn observe(&mut self, _: u64, _: &Subject<'_>, _: &Event<'_>) {}
}

struct NoClock;

impl Clock for NoClock {
    fn local_time(&self) -> jiff::Zoned {
        jiff::Zoned::default()
    }
}
