//! Forwarding: a listener whose connections are carried onward, over plain and gated hops.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;

use common::tunnel::{self, CERTS, accept, exchange_mebibytes};
use common::{
    DEMO_SECRET, Daemon, ask, is_closed_silently, is_reset, listener, listener_at, noise, receive,
    reset, rest,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use socket2::Socket;

/// A listener named `relay` that forwards to these targets.
fn relay(targets: &[String], more: &str) -> String {
    listener("relay", "forward", &format!("to = {targets:?}\n{more}"))
}

/// A target in the test itself, and its address.
fn target() -> (TcpListener, String) {
    let (target, address) = tunnel::target();
    (target, format!("tcp://{address}"))
}

/// A port at which nobody listens, and its address.
fn dead_port() -> (Socket, String) {
    let (bound, address) = tunnel::dead_port();
    (bound, format!("tcp://{address}"))
}

#[test]
fn bytes_go_both_ways_at_once_through_entry_gate_and_exit() {
    const MEBIBYTES: u64 = 24;
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
    exchange_mebibytes(&near, &accept(&target), MEBIBYTES);
    let line = entry.wait_for_line("closed listener=relay");
    let len = MEBIBYTES << 20;
    assert!(line.contains(&format!("received={len} sent={len}")), "{line}");
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

/// The end was passed on, so nothing is cut off when the wait for the other direction is over.
#[test]
fn the_rest_of_a_whole_answer_reaches_a_reader_that_pauses() {
    const LEN: usize = 300_000;
    let (target, address) = target();
    let daemon = Daemon::start(&relay(&[address], "timeouts.half_close = '250ms'\n"));
    let mut near = daemon.connect("relay");
    let mut far = accept(&target);
    far.write_all(&noise(LEN, 1)).expect("sent");
    drop(far);
    daemon.wait_for_line("closed listener=relay");
    assert!(rest(&mut near) == noise(LEN, 1), "the whole answer, and its end");
}

#[test]
fn a_target_that_never_shakes_hands_is_not_waited_for() {
    let (target, address) = target();
    let address = address.replace("tcp:", "tls:");
    let limits = "timeouts = { connect = '250ms', idle = '0s' }\n";
    let upstream = format!("upstream.ca = '{CERTS}/ca.pem'\n");
    let daemon = Daemon::start(&relay(&[address], &(limits.to_owned() + &upstream)));
    let mut near = daemon.connect("relay");
    let _far = accept(&target);
    assert!(is_closed_silently(&mut near));
    daemon.wait_for_line("did not finish TLS in time");
}

/// The stream was cut off, and the client learns that; what came before was sound.
#[test]
fn bytes_before_a_missing_close_notify_are_delivered() {
    const LEN: usize = 10_000;
    let (target, address) = target();
    let upstream = format!("upstream = {{ ca = '{CERTS}/ca.pem', server_name = 'localhost' }}\n");
    let daemon = Daemon::start(&relay(&[address.replace("tcp:", "tls:")], &upstream));
    let mut near = daemon.connect("relay");
    let mut far = accept(&target);
    let mut session = tls_server();
    let mut stream = rustls::Stream::new(&mut session, &mut far);
    near.write_all(b"?").expect("sent");
    stream.read_exact(&mut [0]).expect("the question");
    stream.write_all(&noise(LEN, 1)).expect("sent");
    far.shutdown(Shutdown::Both).expect("gone without a word");
    assert!(receive(&mut near, LEN) == noise(LEN, 1), "all that came");
    assert!(is_reset(&mut near), "and no end");
}

/// The server's side of TLS, with the demonstration certificate.
fn tls_server() -> ServerConnection {
    let read = |name: &str| format!("{CERTS}/{name}.pem");
    let certificate = CertificateDer::from_pem_file(read("server")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(read("server-key")).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    ServerConnection::new(Arc::new(config)).expect("sound")
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
        assert!(is_closed_silently(&mut daemon.connect("relay")));
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
