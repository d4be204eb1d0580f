//! Forwarding: a listener whose connections are carried onward, over plain and gated hops.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use common::{
    DEMO_SECRET, Daemon, PATIENCE, ask, listener, listener_at, noise, receive, reset, rest,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::Socket;

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certs");

/// A listener named `relay` that forwards to these targets.
fn relay(targets: &[String], more: &str) -> String {
    listener("relay", "forward", &format!("to = {targets:?}\n{more}"))
}

/// A target in the test itself.
fn target() -> (TcpListener, String) {
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", target.local_addr().expect("bound"));
    (target, address)
}

fn is_reset(wire: &mut Socket) -> bool {
    wire.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// A client's side of TLS with the demonstration server.
fn tls_session() -> ClientConnection {
    let ca = CertificateDer::from_pem_file(format!("{CERTS}/ca.pem")).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(ca).expect("an authority");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("sound")
}

fn accept(target: &TcpListener) -> Socket {
    let (wire, _) = target.accept().expect("the relay calls");
    wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    wire.into()
}

/// A port on which nobody listens, and nobody will: it stays bound.
fn dead_port() -> (Socket, String) {
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let address = socket.local_addr().expect("bound").as_socket().expect("an Internet address");
    (socket, format!("tcp://{address}"))
}

#[test]
fn bytes_go_both_ways_at_once_through_entry_gate_and_exit() {
    const LEN: usize = 24 << 20;
    let (target, address) = target();
    let exit = Daemon::start(&format!(
        "{DEMO_SECRET}{}",
        listener("exit", "forward", &format!("auth = 'hmac-sha256'\nto = '{address}'\n"))
    ));
    let entry = Daemon::start(&format!(
        "{DEMO_SECRET}{}",
        relay(
            &[exit.address("exit")],
            "[listener.upstream]\nauth = 'hmac-sha256'\nsecret = 'demo'\n"
        )
    ));
    let near = entry.connect("relay");
    let far = accept(&target);
    let send = |wire: &Socket, seed| {
        let mut wire = wire.try_clone().expect("a descriptor");
        thread::spawn(move || {
            wire.write_all(&noise(LEN, seed)).expect("sent");
            wire.shutdown(Shutdown::Write).expect("ended");
        })
    };
    let receive = |wire: Socket| thread::spawn(move || rest(&mut { wire }));
    let senders = [send(&near, 1), send(&far, 2)];
    let (at_near, at_far) = (receive(near), receive(far));
    assert!(at_far.join().expect("received") == noise(LEN, 1), "what the near side sent");
    assert!(at_near.join().expect("received") == noise(LEN, 2), "what the far side sent");
    senders.into_iter().for_each(|sender| sender.join().expect("sent"));
    let line = entry.wait_for_line("closed listener=relay");
    assert!(line.contains(&format!("received={LEN} sent={LEN}")), "{line}");
    assert!(exit.wait_for_line("closed listener=exit").contains("identity=demo"));
}

#[test]
fn each_direction_ends_by_itself() {
    let (target, address) = target();
    let daemon = Daemon::start(&relay(&[address], ""));
    let mut near = daemon.connect("relay");
    let mut far = accept(&target);
    near.write_all(b"the question").expect("sent");
    near.shutdown(Shutdown::Write).expect("ended");
    assert_eq!(rest(&mut far), b"the question");
    assert_eq!(ask(&mut far, b""), b"");
    far.write_all(b"the answer").expect("sent after the end came");
    assert_eq!(receive(&mut near, 10), b"the answer");
    far.write_all(b", and more").expect("sent");
    drop(far);
    assert_eq!(rest(&mut near), b", and more");
    assert!(daemon.wait_for_line("closed listener=relay").contains("both sides were done"));
}

#[test]
fn a_target_that_speaks_first_is_heard() {
    let (target, address) = target();
    let daemon = Daemon::start(&relay(&[address], ""));
    let mut near = daemon.connect("relay");
    accept(&target).write_all(b"220 ready\r\n").expect("sent");
    assert_eq!(rest(&mut near), b"220 ready\r\n");
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    let (target, address) = target();
    let daemon = Daemon::start(&relay(&[address], ""));
    let mut near = daemon.connect("relay");
    let mut far = accept(&target);
    assert_eq!((near.write(b"x").expect("sent"), receive(&mut far, 1)), (1, b"x".to_vec()));
    reset(far);
    assert!(is_reset(&mut near), "the target's reset");

    let mut near = daemon.connect("relay");
    let mut far = accept(&target);
    assert_eq!((near.write(b"x").expect("sent"), receive(&mut far, 1)), (1, b"x".to_vec()));
    reset(near);
    assert!(is_reset(&mut far), "the client's reset");
}

#[test]
fn damage_inside_tls_is_a_reset_for_the_target() {
    let (target, address) = target();
    let tls = format!("tls = {{ cert = '{CERTS}/server.pem', key = '{CERTS}/server-key.pem' }}\n");
    let daemon = Daemon::start(&relay(&[address], &tls));
    let mut near = daemon.connect("relay");
    let mut session = tls_session();
    rustls::Stream::new(&mut session, &mut near).write_all(b"x").expect("sent");
    let mut far = accept(&target);
    assert_eq!(receive(&mut far, 1), b"x");
    near.write_all(&[&[0x17, 3, 3, 0, 40], &[7; 40][..]].concat()).expect("sent");
    near.shutdown(Shutdown::Write).expect("ended");
    assert!(is_reset(&mut far), "a part must not look like the whole");
    daemon.wait_for_line("the peer broke the rules of TLS");
}

#[test]
fn targets_are_tried_in_order() {
    let (_bound, dead) = dead_port();
    let (target, alive) = target();
    let daemon = Daemon::start(&relay(&[dead.clone(), alive], ""));
    for _ in 0..3 {
        let mut near = daemon.connect("relay");
        let mut far = accept(&target);
        assert_eq!((near.write(b"x").expect("sent"), receive(&mut far, 1)), (1, b"x".to_vec()));
    }
    daemon.wait_for_line(&format!("target {dead} cannot be reached"));
    let told = daemon.lines("cannot be reached").len();
    assert_eq!(told, 1, "a target that stays away is told of once");
}

#[test]
fn a_target_that_comes_back_is_found_without_a_restart() {
    let (bound, address) = dead_port();
    let daemon = Daemon::start(&relay(&[address], ""));
    for _ in 0..100 {
        assert!(common::is_closed_silently(&mut daemon.connect("relay")));
    }
    assert_eq!(daemon.wait_for_lines("failed listener=relay", 20).len(), 20);
    bound.listen(16).expect("back again");
    let target = TcpListener::from(bound);
    let mut near = daemon.connect("relay");
    let mut far = accept(&target);
    assert_eq!((near.write(b"x").expect("sent"), receive(&mut far, 1)), (1, b"x".to_vec()));
    daemon.wait_for_line("answers again, after 100 failures");
}

#[test]
fn a_slow_reader_stops_the_sender_at_the_other_end() {
    let (target, address) = target();
    let config = format!("[limits]\nbuffer = '16KiB'\n{}", relay(&[address], ""));
    let daemon = Daemon::start(&config);
    let near = daemon.connect("relay");
    let mut far = accept(&target);
    let before = daemon.resident_kib();
    near.set_nonblocking(true).expect("an option");
    // Sends until it is stopped, by buffers of the kernel and two of the relay.
    let piece = vec![7; 1 << 20];
    let mut sent = 0;
    let stopped = loop {
        match (&near).write(&piece) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        assert!(sent < 1 << 30, "nobody stops the sender");
    };
    assert_eq!(stopped.kind(), ErrorKind::WouldBlock);
    assert!(daemon.resident_kib() < before + 1024, "the relay holds no more than its buffers");
    drop(near);
    assert!(rest(&mut far).len() <= sent);
}

#[test]
fn a_wrong_secret_for_the_exit_is_told() {
    let (_target, address) = target();
    let exit = Daemon::start(&format!(
        "{DEMO_SECRET}{}",
        listener("exit", "forward", &format!("auth = 'hmac-md5'\nto = '{address}'\n"))
    ));
    let secret = "[[secret]]\nname = 'other'\nvalue = 'not the same'\n";
    let upstream = "[listener.upstream]\nauth = 'hmac-md5'\nsecret = 'other'\n";
    let entry = Daemon::start(&format!("{secret}{}", relay(&[exit.address("exit")], upstream)));
    let mut near = entry.connect("relay");
    assert_eq!(rest(&mut near), b"");
    exit.wait_for_line("the answer to the challenge was wrong");
}

#[test]
fn many_connections_at_once() {
    let daemon = Daemon::start(&listener("echo", "echo", ""));
    let front = Daemon::start(&relay(&[daemon.address("echo")], ""));
    let mut wires: Vec<_> = (0..500).map(|_| front.connect("relay")).collect();
    for (number, wire) in (0u32..).zip(&mut wires) {
        wire.write_all(&number.to_be_bytes()).expect("sent");
    }
    for (number, wire) in (0u32..).zip(&mut wires) {
        assert_eq!(receive(wire, 4), number.to_be_bytes());
    }
    drop(wires);
    front.wait_for_lines("closed listener=relay", 500);
    assert_eq!(front.threads(), 1);
}

#[test]
fn unix_sockets_on_both_sides() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| format!("unix://{}", folder.path().join(name).display());
    let daemon = Daemon::start(&format!(
        "{}{}",
        listener_at(&path("target"), "echo", "echo", ""),
        listener_at(&path("relay"), "relay", "forward", &format!("to = '{}'\n", path("target"))),
    ));
    assert_eq!(ask(&mut daemon.connect("relay"), b"through files"), b"through files");
}
