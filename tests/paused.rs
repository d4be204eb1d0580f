//! A process that was stopped, or whose machine was: what arrived in time counts, and deadlines are for
//! those who did not come.
//!
//! Here time has to pass while nobody runs; nothing else is waited for by sleeping.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::tunnel::{ANY_PORT, CERTS};
use common::{
    DEMO, DEMO_SECRET, Daemon, PATIENCE, ask, finish, has_program, listener, md5_answer, receive,
    rest, signal, text, turnstile, uninterrupted,
};
use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use socket2::SockRef;

/// A timeout, and a time in which it passes for certain.
const TIMEOUT: &str = "1s";
const LONGER: Duration = Duration::from_millis(1700);

/// Does `act` while the process stands still, and lets every timeout pass.
fn while_paused(process: u32, act: impl FnOnce()) {
    signal(process, "STOP");
    act();
    thread::sleep(LONGER);
    signal(process, "CONT");
}

#[test]
fn an_answer_to_the_gate_and_bytes_of_the_idle_count() {
    let timeouts = format!("timeouts = {{ auth = '{TIMEOUT}', idle = '{TIMEOUT}' }}\n");
    let gate = listener("gate", "echo", &format!("auth = 'hmac-md5'\n{timeouts}"));
    let daemon =
        Daemon::start(&format!("{DEMO_SECRET}{gate}{}", listener("open", "echo", &timeouts)));
    let (mut guest, mut idle) = (daemon.connect("gate"), daemon.connect("open"));
    let mut slow = daemon.connect("gate");
    let [challenge, slowly] = [&mut guest, &mut slow].map(|wire| receive(wire, 32));
    assert_eq!(ask(&mut idle, b"here"), b"here");
    while_paused(daemon.pid(), || {
        guest.write_all(&md5_answer(DEMO, &challenge)).expect("sent");
        guest.write_all(b"hello").expect("sent");
        idle.write_all(b"still here").expect("sent");
        slow.write_all(&md5_answer(DEMO, &slowly)[..7]).expect("sent");
    });
    assert_eq!(receive(&mut guest, 5), b"hello");
    assert_eq!(receive(&mut idle, 10), b"still here");
    // Who said a part in time gets back the time that was lost, and no more.
    daemon.wait_for_line("the challenge was not answered in time");
    assert_eq!(rest(&mut slow), b"");
}

#[test]
fn a_proxys_header_counts() {
    let more =
        format!("proxy_protocol_from = ['127.0.0.1']\ntimeouts = {{ proxy = '{TIMEOUT}' }}\n");
    let daemon = Daemon::start(&(listener("echo", "echo", &more) + &listener("turn", "echo", "")));
    let mut wire = daemon.connect("echo");
    // The next is accepted after this one.
    assert_eq!(ask(&mut daemon.connect("turn"), b"turn"), b"turn");
    while_paused(daemon.pid(), || {
        wire.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\nhello").expect("sent");
    });
    assert_eq!(receive(&mut wire, 5), b"hello");
    assert!(daemon.lines("not whole in time").is_empty());
}

#[test]
fn a_tls_handshake_goes_on_where_its_beginning_came_in_time() {
    if !has_program("openssl") {
        return;
    }
    for version in ["-tls1_2", "-tls1_3"] {
        let tls = format!(
            "tls = {{ cert = '{CERTS}/server.pem', key = '{CERTS}/server-key.pem' }}\n\
             timeouts = {{ tls = '{TIMEOUT}' }}\n"
        );
        let configuration = listener("echo", "echo", &tls) + &listener("turn", "echo", "");
        let daemon = Daemon::start(&configuration);
        // Somebody between the client and us, so that the connection is there before its first byte.
        let between = server();
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", version, "-connect"])
            .arg(between.local_addr().expect("bound").to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let (near, _) = between.accept().expect("the client calls");
        let far = daemon.connect("echo");
        assert_eq!(ask(&mut daemon.connect("turn"), b"turn"), b"turn");
        let carry = |mut from: Box<dyn Read + Send>, mut to: Box<dyn Write + Send>| {
            thread::spawn(move || std::io::copy(&mut from, &mut to))
        };
        let clone = || near.try_clone().expect("a descriptor");
        while_paused(daemon.pid(), || {
            carry(Box::new(clone()), Box::new(far.try_clone().expect("a descriptor")));
            carry(Box::new(far.try_clone().expect("a descriptor")), Box::new(clone()));
        });
        let mut input = client.stdin.take().expect("a pipe");
        input.write_all(b"through TLS\n").expect("sent");
        let mut line = String::new();
        BufReader::new(client.stdout.take().expect("a pipe")).read_line(&mut line).expect("text");
        assert_eq!(line, "through TLS\n", "{version}");
        client.kill().expect("it runs");
        client.wait().expect("ended");
    }
}

#[test]
fn what_is_said_to_an_exit_and_to_its_resolver_counts() {
    let server = UdpSocket::bind(ANY_PORT).expect("a port");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let target = Daemon::start(&listener("echo", "echo", ""));
    let port = target.socket_address("echo").port();
    let configuration = format!(
        "[resolver]\nservers = ['{}']\n{}{}",
        server.local_addr().expect("bound"),
        listener(
            "exit",
            "connect",
            &format!(
                "targets = ['127.0.0.1:{port}', 'db.test:{port}']\ntimeouts = {{ connect = '{TIMEOUT}' }}\n"
            )
        ),
        listener("turn", "echo", "")
    );
    let daemon = Daemon::start(&configuration);
    let mut wire = daemon.connect("exit");
    assert_eq!(ask(&mut daemon.connect("turn"), b"turn"), b"turn");
    while_paused(daemon.pid(), || {
        write!(wire, "CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nhello").expect("sent");
    });
    let said = receive(&mut wire, 39 + 5);
    assert!(said.starts_with(b"HTTP/1.1 200 ") && said.ends_with(b"hello"), "{}", text(&said));

    let mut named = daemon.connect("exit");
    write!(named, "CONNECT db.test:{port} HTTP/1.1\r\n\r\nhello").expect("sent");
    let questions: Vec<_> = (0..2).map(|_| question(&server)).collect();
    while_paused(daemon.pid(), || {
        for (question, from) in &questions {
            server.send_to(&answer(question), from).expect("sent");
        }
    });
    let said = receive(&mut named, 39 + 5);
    assert!(said.starts_with(b"HTTP/1.1 200 ") && said.ends_with(b"hello"), "{}", text(&said));
}

#[test]
fn an_exit_goes_on_waiting_for_a_name_server_that_has_spoken_and_for_no_other() {
    let server = UdpSocket::bind(ANY_PORT).expect("a port");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let target = Daemon::start(&listener("echo", "echo", ""));
    let port = target.socket_address("echo").port();
    let more = format!(
        "targets = ['silent.test:{port}', 'db.test:{port}']\ntimeouts = {{ connect = '{TIMEOUT}' }}\n"
    );
    let daemon = Daemon::start(&format!(
        "[resolver]\nservers = ['{}']\n{}",
        server.local_addr().expect("bound"),
        listener("exit", "connect", &more)
    ));
    let ask_for = |host: &str| {
        let mut wire = daemon.connect("exit");
        write!(wire, "CONNECT {host}:{port} HTTP/1.1\r\n\r\n").expect("sent");
        (wire, [question(&server), question(&server)])
    };
    let (mut silent, _) = ask_for("silent.test");
    let (mut named, questions) = ask_for("db.test");
    while_paused(daemon.pid(), || {
        // The exit hears its peers first.
        silent.write_all(b"hello").expect("sent");
        named.write_all(b"hello").expect("sent");
        for (question, from) in &questions {
            server.send_to(&refusal(question), from).expect("sent");
        }
    });
    assert!(receive(&mut silent, 13).starts_with(b"HTTP/1.1 504 "));
    // The server is asked again, of the one name.
    let mut said = 0;
    while said < 2 {
        let (question, from) = question(&server);
        if question.queries[0].name.to_ascii().eq_ignore_ascii_case("db.test.") {
            server.send_to(&answer(&question), from).expect("sent");
            said += 1;
        }
    }
    let said = receive(&mut named, 39 + 5);
    assert!(said.starts_with(b"HTTP/1.1 200 ") && said.ends_with(b"hello"), "{}", text(&said));
}

/// The server cannot say now.
fn refusal(question: &Message) -> Vec<u8> {
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.response_code = ResponseCode::ServFail;
    answer.add_query(question.queries[0].clone());
    answer.to_vec().expect("it fits")
}

fn question(server: &UdpSocket) -> (Message, std::net::SocketAddr) {
    let mut bytes = [0; 512];
    let (len, from) = uninterrupted(|| server.recv_from(&mut bytes)).expect("a question");
    (Message::from_vec(&bytes[..len]).expect("a message"), from)
}

/// The answer: 127.0.0.1, and nothing of the other family.
fn answer(question: &Message) -> Vec<u8> {
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    if query.query_type == RecordType::A {
        let address = RData::A(A([127, 0, 0, 1].into()));
        answer.add_answer(Record::from_rdata(query.name.clone(), 60, address));
    }
    answer.add_query(query);
    answer.to_vec().expect("it fits")
}

#[test]
fn what_an_exit_says_to_its_entry_counts() {
    let exit = server();
    let more = format!(
        "to = 'tcp://{}'\ntimeouts = {{ connect = '{TIMEOUT}' }}\n\
         upstream = {{ auth = 'hmac-md5', secret = 'demo', target = 'db.internal:5432' }}\n",
        exit.local_addr().expect("bound")
    );
    let daemon = Daemon::start(&format!("{DEMO_SECRET}{}", listener("entry", "forward", &more)));
    let mut wire = daemon.connect("entry");
    let (mut call, _) = exit.accept().expect("the entry calls");
    call.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    while_paused(daemon.pid(), || call.write_all(&[7; 32]).expect("sent"));
    let mut said = [0; 16];
    call.read_exact(&mut said).expect("the answer");
    assert_eq!(said[..], md5_answer(DEMO, &[7; 32])[..]);
    // The time that was lost is given back, so that the exit can still answer the request.
    call.write_all(b"HTTP/1.1 200 OK\r\n\r\nearly").expect("sent");
    assert_eq!(receive(&mut wire, 5), b"early");
}

#[test]
fn the_drain_hears_who_spoke_before_its_end() {
    let mut daemon =
        Daemon::start(&format!("[limits]\ndrain = '{TIMEOUT}'\n{}", listener("echo", "echo", "")));
    let mut wire = daemon.connect("echo");
    assert_eq!(ask(&mut wire, b"before"), b"before");
    daemon.signal("TERM");
    daemon.wait_for_line("stopping: 1 connections may go on");
    while_paused(daemon.pid(), || {
        wire.write_all(b"in time").expect("sent");
        wire.shutdown(Shutdown::Write).expect("ended");
    });
    assert_eq!(rest(&mut wire), b"in time");
    assert!(daemon.wait().success());
    daemon.wait_for_line("both sides were done");
}

#[test]
fn a_client_that_was_stopped_hears_what_its_server_has_said() {
    let server = server();
    let address = server.local_addr().expect("bound").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, DEMO).expect("written");
    let secret = secret.to_str().expect("text");
    let mut client = turnstile(&[
        "connect",
        &address,
        "--auth",
        "hmac-md5",
        "--secret-file",
        secret,
        "--timeout",
        TIMEOUT,
    ])
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("it runs");
    let (mut wire, _) = server.accept().expect("the client calls");
    wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    while_paused(client.id(), || wire.write_all(&[7; 32]).expect("sent"));
    let mut said = [0; 16];
    let heard = wire.read_exact(&mut said);
    drop(client.stdin.take());
    drop(wire);
    let output = finish(client);
    heard.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    assert_eq!(said[..], md5_answer(DEMO, &[7; 32])[..]);
}

#[test]
fn a_tester_that_was_stopped_counts_the_replies_that_came() {
    let server = server();
    let address = server.local_addr().expect("bound").to_string();
    let what = ["--text", "hello", "--expect", "any", "--timeout", TIMEOUT];
    let client = turnstile(&["load", &address, "-c", "1", "-n", "100", "--warm-up", "0s"])
        .args(what)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let (mut wire, _) = server.accept().expect("the tester calls");
    wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut request = [0; 5];
    wire.read_exact(&mut request).expect("a request");
    while_paused(client.id(), || wire.write_all(b"reply").expect("sent"));
    let mut answer = || wire.read_exact(&mut request).and_then(|()| wire.write_all(b"reply"));
    let others = (0..1000).take_while(|_| answer().is_ok()).count();
    drop(wire);
    let output = finish(client);
    let told = text(&output.stdout) + &text(&output.stderr);
    assert!(others >= 99 && output.status.success(), "{told}");
}

/// A server in the test itself, which does not wait for ever.
fn server() -> TcpListener {
    let server = TcpListener::bind(ANY_PORT).expect("a port");
    SockRef::from(&server).set_read_timeout(Some(PATIENCE)).expect("a timeout");
    server
}
