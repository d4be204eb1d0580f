//! The exit: a listener that carries its peers to where they ask with HTTP CONNECT, and the entry
//! that asks it.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::process::{Child, Stdio};

use common::tunnel::{ANY_PORT, CERTS, SECRET, exit_at};
use common::{
    Daemon, PATIENCE, ask, finish, has_program, listener, receive, rest, run, sha256_answer, text,
    turnstile,
};
use socket2::Socket;

/// An exit that allows these targets.
fn exit(targets: &[String], more: &str) -> String {
    listener("exit", "connect", &format!("targets = {targets:?}\n{more}"))
}

/// An echo service and its `host:port`.
fn backend() -> (Daemon, String) {
    let daemon = Daemon::start(&listener("echo", "echo", ""));
    let address = daemon.socket_address("echo").to_string();
    (daemon, address)
}

fn demand(wire: &mut Socket, target: &str) {
    write!(wire, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").expect("sent");
}

const YES: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

#[test]
fn bytes_go_where_the_peer_asks() {
    let (_backend, target) = backend();
    let daemon = Daemon::start(&exit(std::slice::from_ref(&target), ""));
    let mut wire = daemon.connect("exit");
    demand(&mut wire, &target);
    assert_eq!(receive(&mut wire, YES.len()), YES);
    assert_eq!(ask(&mut wire, b"hello"), b"hello");
    wire.shutdown(Shutdown::Write).expect("ended");
    assert_eq!(rest(&mut wire), b"");
}

#[test]
fn what_follows_the_request_at_once_belongs_to_the_target() {
    let (_backend, target) = backend();
    let daemon = Daemon::start(&exit(std::slice::from_ref(&target), ""));
    let mut wire = daemon.connect("exit");
    write!(wire, "CONNECT {target} HTTP/1.1\r\n\r\nearly").expect("sent");
    wire.shutdown(Shutdown::Write).expect("ended");
    assert_eq!(rest(&mut wire), [YES, b"early"].concat());
}

#[test]
fn a_request_may_come_in_pieces() {
    let (_backend, target) = backend();
    let daemon = Daemon::start(&exit(std::slice::from_ref(&target), ""));
    let mut wire = daemon.connect("exit");
    for piece in format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes().chunks(3) {
        wire.write_all(piece).expect("sent");
    }
    assert_eq!(receive(&mut wire, YES.len()), YES);
}

/// The status of the answer to these bytes, after which the exit ends the connection.
fn status(daemon: &Daemon, request: &[u8]) -> String {
    let mut wire = daemon.connect("exit");
    wire.write_all(request).expect("sent");
    let answer = text(&rest(&mut wire));
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn who_may_not_is_told_why() {
    let (_backend, target) = backend();
    let bound = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dead = bound.local_addr().expect("bound").to_string();
    drop(bound);
    let daemon = Daemon::start(&exit(&[target, dead.clone(), "*.invalid:80".to_owned()], ""));
    let connect = |to: &str| format!("CONNECT {to} HTTP/1.1\r\n\r\n").into_bytes();
    assert_eq!(status(&daemon, &connect("localhost:22")), "403");
    assert_eq!(status(&daemon, &connect("invalid:80")), "403");
    assert_eq!(status(&daemon, &connect(&dead)), "502");
    assert_eq!(status(&daemon, &connect("no port")), "400");
    assert_eq!(status(&daemon, b"GET / HTTP/1.1\r\n\r\n"), "405");
    assert_eq!(status(&daemon, b"\x16\x03\x01\x00\x10nothing of HTTP"), "400");
    assert_eq!(
        status(&daemon, &[b"CONNECT a:1 HTTP/1.1\r\nX: ", &[b'x'; 9000][..]].concat()),
        "431"
    );
    daemon.wait_for_line("the target localhost:22 is not one that this server allows");
}

#[test]
fn a_head_that_fills_the_buffer_is_too_long() {
    let daemon = Daemon::start(&format!("[limits]\nbuffer = '4KiB'\n{}", exit(&[], "")));
    let endless = [b"CONNECT a:1 HTTP/1.1\r\nX: ", &[b'x'; 5000][..]].concat();
    assert_eq!(status(&daemon, &endless), "431");
}

#[test]
fn nothing_is_allowed_by_default() {
    let (_backend, target) = backend();
    let daemon = Daemon::start(&exit(&[], ""));
    let request = format!("CONNECT {target} HTTP/1.1\r\n\r\n");
    assert_eq!(status(&daemon, request.as_bytes()), "403");
}

#[test]
fn a_request_that_never_ends_is_not_waited_for() {
    let daemon = Daemon::start(&exit(&[], "timeouts.connect = '250ms'\n"));
    assert_eq!(status(&daemon, b"CONNECT a:1 HTTP/1.1\r\n"), "408");
}

#[test]
fn time_at_the_gate_is_not_taken_from_the_request() {
    let (_backend, target) = backend();
    let limits = "timeouts = { connect = '250ms', auth = '0s' }\n";
    let gated = exit(std::slice::from_ref(&target), &format!("{limits}auth = 'hmac-sha256'\n"));
    let open = listener("clock", "connect", &format!("targets = []\n{limits}"));
    let daemon = Daemon::start(&format!("{SECRET}{gated}{open}"));
    let mut wire = daemon.connect("exit");
    let challenge = receive(&mut wire, 32);
    // Who came later has run out of time already.
    assert!(rest(&mut daemon.connect("clock")).starts_with(b"HTTP/1.1 408 "));
    let answer = sha256_answer(b"only the two of us", &challenge);
    wire.write_all(&answer).expect("sent");
    demand(&mut wire, &target);
    assert_eq!(receive(&mut wire, YES.len()), YES);
    assert_eq!(ask(&mut wire, b"hello"), b"hello");
}

/// An exit inside TLS and the gate.
fn secure_exit(target: &str) -> Daemon {
    Daemon::start(&exit_at(ANY_PORT, target, ""))
}

/// `turnstile forward` to `target`, and the address at which it listens.
fn entry(exit: &Daemon, target: &str, secret: &str) -> (Child, SocketAddr) {
    let via = format!("tls://localhost:{}", exit.socket_address("exit").port());
    let ca = format!("{CERTS}/ca.pem");
    let arguments = ["forward", "127.0.0.1:0", target, "--via", &via, "--ca", &ca];
    let mut child = turnstile(&arguments)
        .args(["--auth", "hmac-sha256"])
        .env("TURNSTILE_SECRET", secret)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut port = String::new();
    let output = child.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut port).expect("the port, alone");
    (child, ([127, 0, 0, 1], port.trim().parse().expect(&port)).into())
}

fn call(address: SocketAddr) -> Socket {
    let wire = std::net::TcpStream::connect(address).expect("it listens");
    wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    wire.into()
}

#[test]
fn an_entry_carries_a_port_through_tls_and_the_gate() {
    let (_backend, target) = backend();
    let exit = secure_exit(&target);
    let (child, address) = entry(&exit, &target, "only the two of us");
    let mut wires: Vec<_> = (0..20).map(|_| call(address)).collect();
    for wire in &mut wires {
        assert_eq!(ask(wire, b"through the tunnel"), b"through the tunnel");
    }
    drop(wires);
    assert!(exit.wait_for_line("closed listener=exit").contains("identity=tunnel"));
    common::signal(child.id(), "INT");
    assert!(finish(child).status.success());
}

#[test]
fn an_entry_says_why_the_exit_refused() {
    let (_backend, target) = backend();
    let exit = secure_exit(&target);
    let (child, address) = entry(&exit, "localhost:22", "only the two of us");
    assert!(common::is_closed_silently(&mut call(address)));
    common::signal(child.id(), "TERM");
    let said = text(&finish(child).stderr);
    assert!(said.contains("403 Forbidden: the target localhost:22 is not one"), "{said}");
}

#[test]
fn an_entry_believes_no_exit_that_nobody_signed() {
    let (_backend, target) = backend();
    let exit = secure_exit(&target);
    let via = format!("tls://127.0.0.2:{}", exit.socket_address("exit").port());
    let tls = format!("[listener.upstream]\nca = '{CERTS}/ca.pem'\ntarget = '{target}'\n");
    let entry = Daemon::start(&listener("entry", "forward", &format!("to = '{via}'\n{tls}")));
    // Nobody listens on 127.0.0.2, and `localhost` is what the certificate is for.
    assert!(common::is_closed_silently(&mut entry.connect("entry")));
    let port = exit.socket_address("exit").port();
    let wrong = format!("{tls}server_name = 'example.org'\n");
    let to = format!("to = 'tls://127.0.0.1:{port}'\n{wrong}");
    let entry = Daemon::start(&listener("entry", "forward", &to));
    assert!(common::is_closed_silently(&mut entry.connect("entry")));
    entry.wait_for_line("TLS with the target failed");
}

#[test]
fn curl_uses_an_exit_with_a_client_certificate() {
    if !has_program("curl") {
        return;
    }
    let web = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = web.local_addr().expect("bound").to_string();
    let tls = format!(
        "[listener.tls]\ncert = '{CERTS}/server.pem'\nkey = '{CERTS}/server-key.pem'\n\
         client_ca = '{CERTS}/ca.pem'\nclient_auth = 'required'\nallow = ['cn:demo']\n"
    );
    let exit = Daemon::start(&exit(std::slice::from_ref(&target), &tls));
    let page = std::thread::spawn(move || {
        let (mut wire, _) = web.accept().expect("the exit calls");
        let mut line = String::new();
        BufReader::new(wire.try_clone().expect("a descriptor"))
            .read_line(&mut line)
            .expect("asked");
        wire.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\ninside").expect("sent");
        line
    });
    let proxy = format!("https://localhost:{}", exit.socket_address("exit").port());
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "50", "--proxytunnel", "--proxy", &proxy]);
    curl.args(["--proxy-cacert", &format!("{CERTS}/ca.pem")]);
    curl.args(["--proxy-cert", &format!("{CERTS}/client.pem")]);
    curl.args(["--proxy-key", &format!("{CERTS}/client-key.pem")]);
    curl.arg(format!("http://{target}/secret")).env_remove("no_proxy").env_remove("NO_PROXY");
    let output = run(&mut curl, b"");
    assert_eq!(text(&output.stdout), "inside", "{}", text(&output.stderr));
    assert_eq!(page.join().expect("served"), "GET /secret HTTP/1.1\r\n");
    assert!(exit.wait_for_line("closed listener=exit").contains("subject=CN=demo"));
}

#[test]
fn a_head_may_be_longer_where_the_limits_say_so() {
    let (_backend, target) = backend();
    let long = format!("CONNECT {target} HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(30_000));
    let allowed = exit(std::slice::from_ref(&target), "");
    let daemon = Daemon::start(&allowed);
    assert_eq!(status(&daemon, long.as_bytes()), "431");
    let daemon = Daemon::start(&format!("[limits]\nhead = '32KiB'\n{allowed}"));
    let mut wire = daemon.connect("exit");
    wire.write_all(long.as_bytes()).expect("sent");
    assert_eq!(receive(&mut wire, YES.len()), YES);
    assert_eq!(ask(&mut wire, b"hello"), b"hello");
}

#[test]
fn an_entry_passes_over_what_an_exit_says_before_its_answer() {
    let exit = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = exit.local_addr().expect("an address");
    let lines = format!("to = 'tcp://{at}'\n[listener.upstream]\ntarget = 'db.internal:5432'\n");
    let daemon = Daemon::start(&listener("entry", "forward", &lines));
    let mut wire = daemon.connect("entry");
    let (mut server, _) = exit.accept().expect("the entry calls");
    let mut head = BufReader::new(server.try_clone().expect("a descriptor")).lines();
    assert_eq!(head.next().expect("a line").expect("read"), "CONNECT db.internal:5432 HTTP/1.1");
    for part in ["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 1", "03 Early Hints\r\nLink: a\r\n\r\n"] {
        server.write_all(part.as_bytes()).expect("sent");
    }
    server.write_all(&[YES, b"hello"].concat()).expect("sent");
    assert_eq!(receive(&mut wire, 5), b"hello");
}

#[test]
fn an_address_is_allowed_however_it_is_spelt() {
    let (_backend, target) = backend();
    let port = target.rsplit(':').next().expect("a port").to_owned();
    let daemon = Daemon::start(&exit(&[format!("[::ffff:7f00:1]:{port}")], ""));
    for host in ["127.0.0.1", "[::FFFF:127.0.0.1]", "127.1", "0x7f.0.0.1", "2130706433"] {
        let mut wire = daemon.connect("exit");
        demand(&mut wire, &format!("{host}:{port}"));
        assert_eq!(receive(&mut wire, YES.len()), YES, "{host}");
    }
    for host in ["127.0.0.2", "[::1]", "[::127.0.0.1]"] {
        let request = format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n");
        assert_eq!(status(&daemon, request.as_bytes()), "403", "{host}");
    }
}
