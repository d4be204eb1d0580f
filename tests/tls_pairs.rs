//! Both ends of TLS joined by a socket pair in one process: every chunking of a handshake, an end
//! at every point of it, floods and damage. Nothing waits: each side runs until nothing moves.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use turnstile::net::socket::{Socket, Stream};
use turnstile::net::tls::socket::{ClientSocket, ServerSocket};
use turnstile::proto::buffer::Pool;
use turnstile::proto::end::{Clock, End, Side, Turn};
use turnstile::proto::event::{Event, Observer, Readiness, Subject, Watch};
use turnstile::proto::service::Kind;
use turnstile::proto::session::{Admission, CloseReason, Deadline, Session, Step, Timeouts};

const BLOCK: usize = 20 * 1024;

#[test]
fn a_handshake_may_come_in_pieces_of_any_size() {
    let keys = Keys::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for piece in (1..64).chain([100, 517, 1000, 1 << 16]) {
            let mut pair = Pair::new(&keys, version);
            pair.client.writer().write_all(b"hello").expect("buffered");
            pair.run_in_pieces(piece);
            pair.client.send_close_notify();
            pair.run_in_pieces(piece);
            assert_eq!(pair.heard, b"HELLO", "{version:?} in pieces of {piece}");
            assert_eq!(pair.end, Some(CloseReason::Finished), "{version:?} in pieces of {piece}");
            assert_eq!(pair.server.pool.lent(), 0);
        }
    }
}

#[test]
fn handshake_messages_may_be_spread_over_many_records() {
    let keys = Keys::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for piece in [1, 7, 37, 70, 500, 1 << 16] {
            let mut pair = Pair::with_records_of(&keys, version, Some(37));
            pair.client.writer().write_all(&[b'a'; 1000]).expect("buffered");
            pair.run_in_pieces(piece);
            pair.client.send_close_notify();
            pair.run_in_pieces(piece);
            assert_eq!(pair.heard, [b'A'; 1000], "{version:?} in pieces of {piece}");
            assert_eq!(pair.end, Some(CloseReason::Finished), "{version:?} in pieces of {piece}");
        }
    }
}

#[test]
fn keys_may_be_changed_in_the_middle() {
    let keys = Keys::new();
    let mut pair = Pair::new(&keys, &rustls::version::TLS13);
    for round in 1..=20 {
        pair.client.writer().write_all(b"x").expect("buffered");
        pair.run_in_pieces(11);
        pair.client.refresh_traffic_keys().expect("TLS 1.3 can");
        pair.run_in_pieces(11);
        assert_eq!(pair.heard.len(), round);
    }
}

#[test]
fn a_bit_that_flips_anywhere_is_noticed() {
    let keys = Keys::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let whole = Pair::new(&keys, version).handshake_len();
        for at in 0..whole {
            let mut pair = Pair::with_records_of(&keys, version, Some(100));
            pair.flip_at = Some(at);
            pair.run_in_pieces(64);
            if pair.end.is_none() {
                pair.hang_up();
            }
            let end = pair.end.expect("over");
            assert_ne!(end, CloseReason::Finished, "{version:?}, byte {at}");
            assert_eq!(pair.server.pool.lent(), 0);
        }
    }
}

#[test]
fn random_bytes_are_refused() {
    let keys = Keys::new();
    let begins_like_tls = prop::collection::vec(any::<u8>(), 0..600).prop_map(|rest| {
        let len = (rest.len() as u16).to_be_bytes();
        [&[0x16, 3, 1, len[0], len[1]][..], &rest].concat()
    });
    let bytes = prop_oneof![prop::collection::vec(any::<u8>(), 1..600), begins_like_tls];
    proptest!(|(bytes in bytes)| {
        let mut pair = Pair::new(&keys, &rustls::version::TLS13);
        let _ = pair.wire.write_all(&bytes);
        pair.turn();
        pair.hang_up();
        prop_assert_eq!(pair.end, Some(CloseReason::Handshake));
        prop_assert_eq!(pair.server.pool.lent(), 0);
    });
}

#[test]
fn an_end_at_any_point_of_the_handshake_is_told_apart_from_one_after_it() {
    let keys = Keys::new();
    let whole = Pair::new(&keys, &rustls::version::TLS13).handshake_len();
    assert!(whole > 200, "a hello and a finished: {whole}");
    for cut in 0..=whole {
        let mut pair = Pair::new(&keys, &rustls::version::TLS13);
        pair.run_up_to(cut);
        pair.hang_up();
        let expected = if cut < whole { CloseReason::Handshake } else { CloseReason::Truncated };
        assert_eq!(pair.end, Some(expected), "cut after {cut} of {whole} bytes");
        assert_eq!(pair.server.pool.lent(), 0);
    }
}

#[test]
fn a_reset_at_any_point_ends_the_session_and_leaves_nothing_behind() {
    let keys = Keys::new();
    let whole = Pair::new(&keys, &rustls::version::TLS13).handshake_len();
    for cut in 0..=whole {
        let mut pair = Pair::new(&keys, &rustls::version::TLS13);
        pair.send_without_listening(cut);
        // What the server has answered is unread, so that closing is a reset.
        let (gone, _) = UnixStream::pair().expect("a pair");
        drop(std::mem::replace(&mut pair.wire, gone));
        for _ in 0..3 {
            pair.turn();
        }
        let end = pair.end.expect("over");
        let expected = matches!(
            end,
            CloseReason::Handshake | CloseReason::Truncated | CloseReason::Failed(Side::Remote, _)
        );
        assert!(expected, "reset after {cut} of {whole} bytes: {end:?}");
        assert_eq!(pair.server.pool.lent(), 0);
    }
}

#[test]
fn a_handshake_that_the_client_gives_up_is_over() {
    let keys = Keys::new();
    let mut pair = Pair::new(&keys, &rustls::version::TLS13);
    pair.wire.write_all(&[0x15, 3, 1, 0, 2, 1, 0]).expect("sent");
    pair.turn();
    pair.hang_up();
    assert_eq!(pair.end, Some(CloseReason::Handshake));
}

#[test]
fn a_handshake_that_drips_is_over_at_its_deadline() {
    let keys = Keys::new();
    let mut pair = Pair::new(&keys, &rustls::version::TLS13);
    pair.run_up_to(50);
    assert_eq!(pair.end, None);
    let deadline = pair.server.session.deadline().expect("a handshake has one");
    assert_eq!(deadline, pair.server.now + Duration::from_secs(10));
    pair.server.now += Duration::from_secs(9);
    pair.run_up_to(60);
    assert_eq!(pair.server.session.deadline(), Some(deadline), "bytes do not extend it");
    pair.server.now = deadline;
    assert_eq!(pair.server.run(), Step::Close(CloseReason::Deadline(Deadline::Tls)));
}

#[test]
fn what_is_not_tls_gets_an_alert_and_not_a_reset() {
    let keys = Keys::new();
    let http = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".as_slice();
    let (old, huge) = (&[0x80, 46, 1, 3, 1, 0, 21][..], &[0x16, 3, 1, 0xff, 0xff, 1][..]);
    for (bytes, cause) in [
        (http, Some("it began with 'GET / HTTP/1.1")),
        (old, Some("does not speak TLS")),
        (huge, None),
        (&[0x17, 3, 3, 0, 1, 0], None),
        (&[0x15, 3, 3, 0, 2, 2, 40], Some("it finds nothing that both sides support")),
    ] {
        let mut pair = Pair::new(&keys, &rustls::version::TLS13);
        pair.wire.write_all(bytes).expect("sent");
        // A scanner sends more than is read; it must not turn the alert into a reset.
        pair.wire.write_all(&[0; 4096]).expect("sent");
        pair.turn();
        let mut answer = Vec::new();
        let _ = pair.wire.read_to_end(&mut answer);
        if bytes[0] != 0x15 {
            assert_eq!(answer.first(), Some(&0x15), "an alert for {bytes:?}");
        }
        let said = pair.server.session.remote().standing().cause.map(str::to_owned);
        let said = said.expect("a cause");
        assert!(cause.is_none_or(|cause| said.contains(cause)), "{bytes:?}: {said}");
        pair.hang_up();
        assert_eq!(pair.end, Some(CloseReason::Handshake), "{bytes:?}");
        assert!(!pair.server.session.was_admitted());
    }
}

#[test]
fn a_handshake_message_that_fits_no_buffer_is_a_reason() {
    let keys = Keys::new();
    let mut pair = Pair::new(&keys, &rustls::version::TLS13);
    // A ClientHello of 60,000 bytes, in records of 1,000.
    let hello = [&[1, 0, 0xea, 0x60][..], &[0; 60_000]].concat();
    for piece in hello.chunks(1000) {
        let len = (piece.len() as u16).to_be_bytes();
        let _ = pair.wire.write_all(&[&[0x16, 3, 1, len[0], len[1]], piece].concat());
        pair.turn();
    }
    let cause = pair.server.session.remote().standing().cause.map(str::to_owned);
    assert_eq!(cause.as_deref(), Some("a handshake message is larger than limits.buffer"));
    pair.hang_up();
    assert_eq!(pair.end, Some(CloseReason::Handshake));
    assert_eq!(pair.server.pool.lent(), 0);
}

#[test]
fn a_peer_that_hears_the_alert_and_stays_is_left_after_a_while() {
    let keys = Keys::new();
    let mut pair = Pair::new(&keys, &rustls::version::TLS13);
    pair.wire.write_all(b"SSH-2.0-scanner\r\n").expect("sent");
    pair.turn();
    let deadline = pair.server.session.deadline().expect("its patience is bounded");
    assert!(deadline <= pair.server.now + Duration::from_secs(2));
    pair.server.now = deadline;
    pair.turn();
    assert_eq!(pair.end, Some(CloseReason::Handshake));
}

#[test]
fn damage_and_floods_after_the_handshake_end_the_connection() {
    let keys = Keys::new();
    let mut damaged = vec![0x17, 3, 3, 0, 40];
    damaged.extend([7; 40]);
    let oversized = [&[0x17, 3, 3, 0x48, 0][..], &[0; 0x4800]].concat();
    let plain_alerts = [0x15, 3, 3, 0, 2, 1, 0].repeat(100);
    let plain_hello = [0x16, 3, 3, 0, 4, 1, 0, 0, 0];
    for bytes in [&damaged[..], &oversized, &plain_alerts, &plain_hello] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut pair = Pair::new(&keys, version);
            pair.run_in_pieces(1 << 16);
            assert_eq!(pair.end, None, "the connection is idle");
            pair.wire.write_all(bytes).expect("sent");
            pair.turn();
            pair.hang_up();
            assert_eq!(pair.end, Some(CloseReason::Broken), "{version:?} {:?}", &bytes[..5]);
            assert_eq!(pair.server.pool.lent(), 0);
        }
    }
}

#[test]
fn both_ends_of_ours_carry_more_than_any_buffer_holds() {
    let keys = Keys::new();
    let (one, other) = UnixStream::pair().expect("a pair");
    let mut server = Server::new(&keys, one, &[&rustls::version::TLS13]);
    let name = ServerName::try_from("localhost").expect("a name");
    let socket = Socket::new(stream(other), Side::Remote);
    let socket = ClientSocket::over(socket, keys.client(&rustls::version::TLS13), name);
    let mut client = Server::over(socket.expect("sound"), &Kind::Chargen);
    for _ in 0..1000 {
        server.run();
        client.run();
    }
    let (received, sent) = server.session.carried();
    assert!(received > 5_000_000 && sent > 5_000_000, "{received} in, {sent} out");
}

/// A certificate for localhost, and those who trust it.
struct Keys {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Keys {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        parameters.not_before = date_time_ymd(2020, 1, 1);
        parameters.not_after = date_time_ymd(2100, 1, 1);
        let certificate = parameters.self_signed(&key).expect("signed").der().clone();
        Self { certificate, key: key.serialize_der() }
    }

    fn server(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("PKCS#8");
        let config = ServerConfig::builder_with_protocol_versions(versions)
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key);
        Arc::new(config.expect("a pair"))
    }

    fn client(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// A session with all that a reactor would give it.
struct Server<R> {
    session: Session<R, Box<dyn End>>,
    wakes: fn(&mut R),
    pool: Pool,
    now: Instant,
}

impl Server<ServerSocket> {
    fn new(
        keys: &Keys,
        wire: UnixStream,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let socket = ServerSocket::accept(stream(wire), keys.server(versions));
        Self::over(socket, &Kind::Upper)
    }
}

trait Wakes: End {
    fn wake(&mut self);
}

impl Wakes for ServerSocket {
    fn wake(&mut self) {
        self.handle_readiness(READY);
    }
}

impl Wakes for ClientSocket {
    fn wake(&mut self) {
        self.handle_readiness(READY);
    }
}

const READY: Readiness = Readiness::READABLE.with(Readiness::WRITABLE);

impl<R: Wakes> Server<R> {
    fn over(remote: R, service: &Kind) -> Self {
        let now = Instant::now();
        let timeouts = Rc::new(Timeouts::default());
        let session = Session::new(remote, service.stream(), Admission::Open, timeouts, now);
        Self { session, wakes: R::wake, pool: Pool::new(BLOCK, 4), now }
    }

    /// Runs as if everything had become ready; disposes of the session when it is over.
    fn run(&mut self) -> Step {
        (self.wakes)(self.session.remote());
        let mut observer = Nobody;
        let watch = Watch::new(&mut observer, 0, Subject::LOOP);
        let (pool, now) = (&mut self.pool, self.now);
        let mut turn = Turn { now, pool, clock: &NoClock, watch };
        let step = self.session.run(&mut turn);
        if let Step::Close(reason) = &step {
            self.session.dispose(&mut turn, reason);
        }
        step
    }
}

/// A server of ours, and a client of rustls' own whose bytes pass through our hands.
struct Pair {
    server: Server<ServerSocket>,
    client: ClientConnection,
    wire: UnixStream,
    /// What the client has sent, up to now.
    sent: usize,
    /// What the client wants to send.
    waiting: Vec<u8>,
    heard: Vec<u8>,
    /// Which byte of the client is damaged on the way.
    flip_at: Option<usize>,
    end: Option<CloseReason>,
}

impl Pair {
    fn new(keys: &Keys, version: &'static rustls::SupportedProtocolVersion) -> Self {
        Self::with_records_of(keys, version, None)
    }

    /// With a client whose records are no longer than that.
    fn with_records_of(
        keys: &Keys,
        version: &'static rustls::SupportedProtocolVersion,
        record_len: Option<usize>,
    ) -> Self {
        let (wire, other) = UnixStream::pair().expect("a pair");
        wire.set_nonblocking(true).expect("non-blocking");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut config = (*keys.client(version)).clone();
        config.max_fragment_size = record_len;
        let client = ClientConnection::new(Arc::new(config), name).expect("sound");
        let server = Server::new(keys, other, &[version]);
        let (waiting, heard) = (Vec::new(), Vec::new());
        Self { server, client, wire, sent: 0, waiting, heard, flip_at: None, end: None }
    }

    fn turn(&mut self) {
        if self.end.is_none()
            && let Step::Close(reason) = self.server.run()
        {
            self.end = Some(reason);
        }
    }

    /// Sends the next bytes of the client, and takes in the answer. Answers how many that was.
    fn step(&mut self, most: usize) -> usize {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.waiting).expect("a vector");
        }
        let count = self.waiting.len().min(most);
        let mut piece: Vec<u8> = self.waiting.drain(..count).collect();
        if let Some(at) = self.flip_at
            && (self.sent..self.sent + count).contains(&at)
        {
            piece[at - self.sent] ^= 1;
        }
        let _ = self.wire.write_all(&piece);
        self.sent += count;
        self.turn();
        let mut answer = Vec::new();
        let _ = self.wire.read_to_end(&mut answer);
        let mut rest = &answer[..];
        while !rest.is_empty() && self.client.read_tls(&mut rest).is_ok_and(|count| count > 0) {
            let understood = self.client.process_new_packets();
            assert!(understood.is_ok() || self.flip_at.is_some(), "{understood:?}");
            let _ = self.client.reader().read_to_end(&mut self.heard);
        }
        count
    }

    fn run_in_pieces(&mut self, piece: usize) {
        while self.step(piece) > 0 || self.client.wants_write() {}
    }

    /// Runs until the client has sent `most` bytes.
    fn run_up_to(&mut self, most: usize) {
        while self.sent < most && self.step(most - self.sent) > 0 {}
        self.turn();
    }

    /// Sends the first `most` bytes of the client, and reads no answer to the last of them.
    fn send_without_listening(&mut self, most: usize) {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.waiting).expect("a vector");
        }
        let hello = self.waiting.len();
        if most > hello {
            self.run_up_to(hello);
            while self.client.wants_write() {
                self.client.write_tls(&mut self.waiting).expect("a vector");
            }
        }
        let count = (most - self.sent).min(self.waiting.len());
        let piece: Vec<u8> = self.waiting.drain(..count).collect();
        self.wire.write_all(&piece).expect("sent");
        self.turn();
    }

    /// How much the client sends until it has nothing more to say.
    fn handshake_len(mut self) -> usize {
        self.run_in_pieces(1 << 16);
        self.sent
    }

    fn hang_up(&mut self) {
        self.wire.shutdown(std::net::Shutdown::Write).expect("open");
        for _ in 0..3 {
            self.turn();
        }
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
