//! What was said before something failed arrives, whoever said it and through whatever it is carried,
//! and the failure after it.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::thread;

use common::tunnel::{self, BlackHole, CERTS, Tunnel, accept};
use common::{Daemon, is_reset, listener, noise, receive, reset, rest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::Socket;

const UPLOAD: usize = 3_000_000;
const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";

/// A way to carry bytes to a target.
struct Way {
    name: &'static str,
    entry: Daemon,
    /// Where it goes on, if it does.
    _exit: Option<Daemon>,
}

impl Way {
    fn all_to(address: &str) -> [Self; 3] {
        let forward = |name, to: &str, more: &str| {
            Daemon::start(&listener(name, "forward", &format!("to = '{to}'\n{more}")))
        };
        let relay = forward("entry", &format!("tcp://{address}"), "");
        let far = forward("exit", &format!("tcp://{address}"), TLS);
        let upstream =
            format!("upstream = {{ ca = '{CERTS}/ca.pem', server_name = 'localhost' }}\n");
        let near = forward("entry", &format!("tls://{}", far.socket_address("exit")), &upstream);
        let Tunnel { entry, exit } = Tunnel::to(address);
        [
            Self { name: "a relay", entry: relay, _exit: None },
            Self { name: "TLS", entry: near, _exit: Some(far) },
            Self { name: "a tunnel", entry, _exit: Some(exit) },
        ]
    }

    fn connect(&self) -> Socket {
        self.entry.connect("entry")
    }
}

const TLS: &str = concat!(
    "tls = { cert = '",
    env!("CARGO_MANIFEST_DIR"),
    "/certs/server.pem', key = '",
    env!("CARGO_MANIFEST_DIR"),
    "/certs/server-key.pem' }\n"
);

/// A server may answer a request that it does not want to read, and close; its kernel sends a reset
/// behind the answer, because bytes were unread.
#[test]
fn an_early_answer_reaches_a_client_that_uploads() {
    let (target, address) = tunnel::target();
    for way in Way::all_to(&address) {
        for round in 0..10 {
            let mut near = way.connect();
            let server = thread::spawn({
                let target = target.try_clone().expect("a descriptor");
                move || answer_and_close(&target)
            });
            let _ = near.write_all(&vec![b'u'; UPLOAD]);
            let heard = read_what_comes(&mut near);
            assert!(heard == ANSWER, "{}, round {round}: {heard:?}", way.name);
            server.join().expect("it answers");
        }
    }
}

fn answer_and_close(target: &TcpListener) {
    let mut far = accept(target);
    receive(&mut far, 100);
    far.write_all(ANSWER).expect("sent");
}

/// Everything up to the end or a reset.
fn read_what_comes(wire: &mut Socket) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut space = [0; 4096];
    while let Ok(count @ 1..) = wire.read(&mut space) {
        heard.extend(&space[..count]);
    }
    heard
}

/// The answer ends before the connection fails, so the client hears its end.
#[test]
fn an_answer_that_had_ended_ends() {
    const LEN: usize = 50_000;
    let (target, address) = tunnel::target();
    for way in Way::all_to(&address) {
        let mut near = way.connect();
        near.write_all(&[b'u'; 100]).expect("sent");
        let mut far = accept(&target);
        far.write_all(&noise(LEN, 1)).expect("sent");
        far.shutdown(Shutdown::Write).expect("ended");
        assert!(receive(&mut near, LEN) == noise(LEN, 1), "{}", way.name);
        assert_eq!(rest(&mut near), b"", "{}", way.name);
        reset(far);
        // It is told in time that nobody listens.
        while near.write_all(&[b'u'; 4096]).is_ok() {}
    }
}

#[test]
fn an_answer_that_was_cut_off_is_followed_by_a_reset() {
    const LEN: usize = 50_000;
    let (target, address) = tunnel::target();
    for way in Way::all_to(&address) {
        let mut near = way.connect();
        near.write_all(b"?").expect("sent");
        let mut far = accept(&target);
        receive(&mut far, 1);
        far.write_all(&noise(LEN, 2)).expect("sent");
        // Something unread turns the close into a reset.
        near.write_all(b"unread").expect("sent");
        assert_eq!(far.peek(&mut [std::mem::MaybeUninit::uninit()]).expect("it came"), 1);
        drop(far);
        assert!(receive(&mut near, LEN) == noise(LEN, 2), "{}", way.name);
        assert!(is_reset(&mut near), "{}", way.name);
    }
}

#[test]
fn the_last_words_of_a_client_reach_a_target_that_sends() {
    let (target, address) = tunnel::target();
    for way in Way::all_to(&address) {
        let mut near = way.connect();
        near.write_all(b"?").expect("sent");
        let mut far = accept(&target);
        receive(&mut far, 1);
        let mut sending = far.try_clone().expect("a descriptor");
        let sender = thread::spawn(move || while sending.write_all(&[0; 65536]).is_ok() {});
        receive(&mut near, 100_000);
        near.write_all(b"last words").expect("sent");
        // Closed with bytes unread, which is a reset.
        drop(near);
        assert_eq!(receive(&mut far, 10), b"last words", "{}", way.name);
        sender.join().expect("it hears of it");
    }
}

/// Nobody would hear it, and it would keep its place until every deadline has passed.
#[test]
fn nobody_is_called_for_a_client_that_has_gone() {
    let hole = BlackHole::new();
    let patient = "timeouts = { connect = '10m', half_close = '10m' }\n";
    let (forward, exit) =
        (format!("to = 'tcp://{}'\n", hole.address), format!("targets = ['{}']\n", hole.address));
    let daemon = Daemon::start(
        &(listener("relay", "forward", &(forward + patient))
            + &listener("exit", "connect", &(exit + patient))),
    );
    let request = format!("CONNECT {} HTTP/1.1\r\n\r\nlast words", hole.address);
    for (name, words) in [("relay", "last words"), ("exit", &*request)] {
        let mut near = daemon.connect(name);
        near.write_all(words.as_bytes()).expect("sent");
        reset(near);
        let line = daemon.wait_for_line(&format!("closed listener={name}"));
        assert!(line.contains("the connection failed: connection reset"), "{line}");
    }
}

/// As `ncat --ssl` does at the end of its input: TCP ends, and TLS does not.
#[test]
fn a_client_that_goes_without_close_notify_gets_its_answer() {
    let (target, address) = tunnel::target();
    let more = format!("to = 'tcp://{address}'\n{TLS}");
    let daemon = Daemon::start(&listener("relay", "forward", &more));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut near = daemon.connect("relay");
        let mut session = tls_client(version);
        let mut stream = rustls::Stream::new(&mut session, &mut near);
        stream.write_all(b"question").expect("sent");
        let mut far = accept(&target);
        assert_eq!(receive(&mut far, 8), b"question");
        near.shutdown(Shutdown::Write).expect("half closed");
        far.write_all(b"answer").expect("sent");
        far.shutdown(Shutdown::Write).expect("ended");
        let mut heard = Vec::new();
        let mut stream = rustls::Stream::new(&mut session, &mut near);
        stream.read_to_end(&mut heard).expect("an end, with a close_notify");
        assert_eq!(heard, b"answer");
        assert!(is_reset(&mut far), "the target must not take the cut for an end");
    }
    daemon.wait_for_lines("went without a close_notify", 2);
}

fn tls_client(version: &'static rustls::SupportedProtocolVersion) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(format!("{CERTS}/ca.pem"));
    roots.add(authority.expect("a certificate")).expect("an authority");
    let config = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("sound")
}

/// A client of ours hears the answer that it can no longer finish asking for.
#[test]
fn connect_prints_an_early_answer() {
    let (target, address) = tunnel::target();
    let server = thread::spawn(move || answer_and_close(&target));
    let address = format!("tcp://{address}");
    let output = common::run(&mut common::turnstile(&["connect", &address]), &vec![b'u'; UPLOAD]);
    server.join().expect("it answers");
    assert!(output.stdout == ANSWER, "{output:?}");
    assert_eq!(output.status.code(), Some(1), "not all was sent: {output:?}");
}
