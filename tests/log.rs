//! What the log says: that it can be believed, whoever it is about, and that nothing waits for its
//! reader.

mod common;
#[path = "proxy_protocol/wire.rs"]
#[allow(dead_code, reason = "it is shared, and a part is used here")]
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::tunnel::{CERTS, Tunnel, target};
use common::{
    DEMO, DEMO_SECRET, Daemon, PATIENCE, ask, has_program, is_closed_silently, listener, pass_gate,
    receive, rest, run, text, turnstile,
};
use nix::pty::openpty;
use socket2::{Domain, Socket, Type};
use wire::{INET, binary, field};

/// What a peer would like to put into a line.
const EVIL: &str =
    "x\" identity=root reason=\"ok\"\\ \u{85}\u{9b}31m\u{202e}\u{2066}\u{2028}\u{feff}\u{a0}=";

/// The pairs of a line, each value without its quotes; fails where the line is none of ours.
fn fields(line: &str) -> BTreeMap<String, String> {
    let (_, line) = line.split_once("] ").expect("the time");
    let (_, mut rest) = line.split_once(' ').expect("what happened");
    let mut fields = BTreeMap::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').unwrap_or_else(|| panic!("`{rest}` in {line}"));
        assert!(
            key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{key} in {line}"
        );
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("the quote ends"),
            None => after.split_at(after.find(' ').unwrap_or(after.len())),
        };
        assert!(
            value
                .chars()
                .all(|it| it == ' ' || it.escape_debug().len() == 1 || it == '\\' || it == '\''),
            "{line}"
        );
        let known = fields.insert(key.to_owned(), value.to_owned());
        assert_eq!(known, None, "{key} stands twice in {line}");
        let is_list = key == "certificate" || key == "announced" || key == "from";
        assert!(is_list || !fields[key].contains('='), "{line}");
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    fields
}

#[test]
fn nothing_that_a_peer_says_ends_its_field() {
    let believes = "proxy_protocol_from = ['127.0.0.1']\n";
    let daemon = Daemon::start(&format!(
        "{}{}{}",
        listener("once", "once", ""),
        listener("exit", "connect", "targets = ['db.internal:1']\n"),
        listener("proxied", "echo", believes),
    ));
    let mut wire = daemon.connect("once");
    wire.write_all(&[EVIL.as_bytes(), b"\xe9\n"].concat()).expect("sent");
    rest(&mut wire);
    let line = daemon.wait_for_line("message listener=once");
    let keys: Vec<_> = fields(&line).into_keys().collect();
    assert_eq!(keys, ["listener", "peer", "text"]);
    let escaped = r"\u{85}\u{9b}31m\u{202e}\u{2066}\u{2028}\u{feff}\u{a0}\u{3d}\xe9\n";
    assert!(line.ends_with(&format!("{escaped}\"")), "{line}");

    let words = EVIL.replace(' ', "\u{a0}");
    for request in [
        format!("CONNECT {words}:1 HTTP/1.1\r\n\r\n"),
        format!("CONNECT db.internal:1{words} HTTP/1.1\r\n\r\n"),
        format!("{words} db.internal:1 HTTP/1.1\r\n\r\n"),
        "G\"=\" db.internal:1 HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let mut wire = daemon.connect("exit");
        wire.write_all(request.as_bytes()).expect("sent");
        rest(&mut wire);
    }
    for line in daemon.wait_for_lines("refused listener=exit", 4) {
        let keys: Vec<_> = fields(&line).into_keys().collect();
        assert_eq!(keys, ["listener", "peer", "reason", "target"], "{line}");
    }

    let latin = [EVIL.as_bytes(), b"Jos\xe9"].concat();
    let security = [&[7, 0, 0, 0, 0][..], &field(0x21, &latin), &field(0x22, &latin)].concat();
    let foreign = field(0xe0, b"root");
    let content = [&INET[..], &field(0x02, &latin), &field(0x20, &security), &foreign].concat();
    let mut wire = daemon.connect("proxied");
    wire.write_all(&binary(0x21, 0x11, &content)).expect("sent");
    assert_eq!(ask(&mut wire, b"served"), b"served");
    drop(wire);
    let line = daemon.wait_for_line("closed listener=proxied");
    let fields = fields(&line);
    assert_eq!(
        (&*fields["identity"], fields["peer"].as_str()),
        ("-", "203.0.113.7:4660"),
        "{line}"
    );
    let announced: Vec<_> = fields["announced"].split(' ').collect();
    assert_eq!(announced.len(), 3, "a word each, and none of a stranger's own field: {line}");
    assert!(announced[1].starts_with("tls=x") && announced[2].ends_with(r"Jos\xe9"), "{line}");
}

/// The first record of a TLS client that asks for a host of this name, whatever is in it.
fn client_hello(host: &[u8]) -> Vec<u8> {
    let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &long(body)].concat();
    let extensions = [
        extension(0, &long(&[&[0][..], &long(host)].concat())),
        extension(10, &[0, 2, 0, 0x1d]),
        extension(13, &[0, 2, 4, 3]),
    ];
    let suites = [0, 2, 0xc0, 0x2b];
    let body =
        [&[3, 3], &[7; 32][..], &[0], &suites, &[1, 0], &long(&extensions.concat())].concat();
    [&[22, 3, 1][..], &long(&[&[1, 0][..], &long(&body)].concat())].concat()
}

#[test]
fn what_a_library_says_of_a_peer_is_quoted_too() {
    let tls = format!("tls = {{ cert = '{CERTS}/server.pem', key = '{CERTS}/server-key.pem' }}\n");
    let daemon = Daemon::start(&listener("secure", "echo", &tls));
    let mut wire = daemon.connect("secure");
    let evil = format!("{EVIL} refused listener=secure peer=192.0.2.1:1 ");
    wire.write_all(&client_hello(evil.as_bytes())).expect("sent");
    rest(&mut wire);
    let line = daemon.wait_for_line("Illegal SNI");
    let (_, line) = line.split_once("] ").expect("the time");
    let fields = fields(&format!("] said {line}"));
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["library", "text"], "{line}");
    assert!(!line.contains("listener="), "{line}");
}

#[test]
fn nothing_that_an_exit_says_ends_its_field() {
    let (exit, address) = target();
    let to = format!("to = 'tcp://{address}'\nupstream = {{ target = 'db.internal:1' }}\n");
    let daemon = Daemon::start(&listener("entry", "forward", &to));
    let mut wire = daemon.connect("entry");
    let mut far = common::tunnel::accept(&exit);
    receive(&mut far, b"CONNECT db.internal:1".len());
    let reason = "no\" identity=root";
    let body = format!("{EVIL}\nclosed listener=entry peer=192.0.2.1:1 identity=root");
    let len = body.len();
    write!(far, "HTTP/1.1 403 {reason}\r\nContent-Length: {len}\r\n\r\n{body}").expect("sent");
    drop(far);
    assert!(is_closed_silently(&mut wire));
    let line = daemon.wait_for_line("failed listener=entry");
    let fields = fields(&line);
    assert_eq!(fields["identity"], "-", "{line}");
    assert_eq!(
        (&*fields["target"], &*fields["exit"]),
        ("db.internal:1", &*format!("tcp://{address}"))
    );
    assert!(daemon.lines("identity=root").iter().all(|line| line.contains("failed listener")));
}

#[test]
fn who_only_looks_whether_somebody_listens_is_never_refused() {
    let tls = format!("tls = {{ cert = '{CERTS}/server.pem', key = '{CERTS}/server-key.pem' }}\n");
    let names = ["plain", "gate", "secure", "both", "proxied", "exit"];
    let mut daemon = Daemon::start(&format!(
        "{DEMO_SECRET}{}{}{}{}{}{}",
        listener("plain", "echo", ""),
        listener("gate", "echo", "auth = 'hmac-md5'\n"),
        listener("secure", "echo", &tls),
        listener("both", "echo", &format!("auth = 'hmac-md5'\n{tls}")),
        listener("proxied", "echo", "proxy_protocol_from = ['127.0.0.1']\n"),
        listener("exit", "connect", "targets = ['db.internal:1']\n"),
    ));
    for name in names {
        drop(daemon.connect(name));
        common::reset(daemon.connect(name));
        // Whoever says something and leaves is another matter, but where nothing is asked.
        let mut wire = daemon.connect(name);
        wire.write_all(b"P").expect("sent");
        wire.shutdown(std::net::Shutdown::Write).expect("ended");
        let _ = wire.read(&mut [0; 64]);
    }
    for name in ["gate", "secure", "both", "proxied", "exit"] {
        daemon.wait_for_line(&format!("refused listener={name}"));
    }
    // After them, so that they were seen.
    assert_eq!(ask(&mut daemon.connect("plain"), b"here"), b"here");
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    assert_eq!(daemon.lines("refused listener=").len(), 5);
    let counts = daemon.wait_for_line("stopped ");
    assert!(counts.contains(" silent=8 "), "{counts}");
    assert!(
        counts.contains(" bad_proxy_headers=1 refused_at_gate=1 refused_by_tls=2 "),
        "{counts}"
    );
    assert!(counts.contains(" refused_requests=1 "), "{counts}");
}

/// Certificates for one name by an authority of their own.
fn certificates(folder: &std::path::Path, name: &str) {
    let folder = folder.to_str().expect("text");
    for arguments in
        [&["cert", "ca", "--out", folder][..], &["cert", "client", "--ca", folder, "--name", name]]
    {
        let output = turnstile(arguments).output().expect("it runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

#[test]
fn a_client_certificate_is_named_whether_it_is_let_in_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "mallory dns:admin.internal uri:root\" spki:=\u{202e}\u{85}\u{2028}";
    certificates(folder.path(), name);
    let own = folder.path().display();
    let with = |name: &str, more: &str| {
        let tls = format!("cert = '{CERTS}/server.pem', key = '{CERTS}/server-key.pem'");
        listener(name, "upper", &format!("tls = {{ {tls}, {more} }}\n"))
    };
    let daemon = Daemon::start(&format!(
        "{}{}{}",
        with("open", &format!("client_ca = '{own}/ca.pem'")),
        with("stranger", &format!("client_ca = '{CERTS}/ca.pem'")),
        with("other", &format!("client_ca = '{own}/ca.pem', allow = ['cn:alice']")),
    ));
    for (listener, word) in [("open", "closed"), ("stranger", "refused"), ("other", "refused")] {
        let address = daemon.address(listener).replace("tcp://127.0.0.1", "tls://localhost");
        let (ca, own) = (format!("{CERTS}/ca.pem"), folder.path().join("client"));
        let (cert, key) = (format!("{}.pem", own.display()), format!("{}-key.pem", own.display()));
        let arguments = ["connect", &address, "--ca", &ca, "--cert", &cert, "--key", &key];
        run(&mut turnstile(&arguments), b"hello");
        let line = daemon.wait_for_line(&format!("{word} listener={listener}"));
        let certificate = &fields(&line)["certificate"];
        let words: Vec<_> = certificate.split(' ').collect();
        assert!(
            words[0].starts_with(r"subject=CN=mallory\u{20}dns:admin.internal\u{20}"),
            "{line}"
        );
        assert!(words.last().is_some_and(|it| it.starts_with("spki:sha256:")), "{line}");
        assert!(!words[1..].iter().any(|it| it.contains("admin")), "{line}");
    }
}

/// A connection from an address of one's own.
fn connect_from(ip: [u8; 4], to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    socket.bind(&SocketAddr::from((ip, 0)).into()).expect("an address of this machine");
    socket.connect(&to.into()).expect("somebody listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

#[test]
fn a_flood_hides_nobody_and_is_counted_by_address() {
    const FLOOD: usize = 500;
    let gate = |name: &str| listener(name, "upper", "auth = 'hmac-md5'\n");
    let mut daemon = Daemon::start(&format!("{DEMO_SECRET}{}{}", gate("noisy"), gate("quiet")));
    let guess = |ip: [u8; 4], listener: &str| {
        let mut wire = connect_from(ip, daemon.socket_address(listener));
        receive(&mut wire, 32);
        wire.write_all(&[0; 16]).expect("sent");
        assert!(is_closed_silently(&mut wire));
    };
    for _ in 0..FLOOD {
        guess([127, 0, 0, 1], "noisy");
    }
    guess([127, 0, 0, 2], "noisy");
    guess([127, 0, 0, 1], "quiet");
    daemon.wait_for_line("refused listener=noisy peer=127.0.0.2:");
    daemon.wait_for_line("refused listener=quiet peer=127.0.0.1:");
    // It is said by itself, while nothing happens.
    let held_back = |daemon: &Daemon| -> usize {
        let lines = daemon.lines("held_back listener=noisy kind=refused ");
        lines.iter().map(|line| fields(line)["lines"].parse::<usize>().expect("a number")).sum()
    };
    let line = daemon.wait_for_line("held_back listener=noisy kind=refused ");
    assert!(fields(&line)["from"].starts_with("127.0.0.1="), "{line}");
    for _ in 0..40 {
        guess([127, 0, 0, 1], "noisy");
    }
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let said = daemon.lines("refused listener=noisy ").len();
    assert_eq!(said + held_back(&daemon), FLOOD + 41, "each is said or counted");
    let counts = daemon.wait_for_line("stopped ");
    assert!(counts.contains(&format!(" refused_at_gate={} ", FLOOD + 42)), "{counts}");
}

#[test]
fn what_peers_make_a_service_say_is_bounded_and_counted() {
    const FLOOD: usize = 300;
    let mut daemon = Daemon::start(&format!(
        "{}{}",
        listener("once", "once", ""),
        listener("exit", "connect", "targets = ['db.internal:1']\n")
    ));
    for _ in 0..FLOOD {
        let mut wire = daemon.connect("once");
        wire.write_all(b"hello").expect("sent");
        assert_eq!(rest(&mut wire), b"HELLO");
        let mut wire = daemon.connect("exit");
        wire.write_all(b"CONNECT db.internal:2 HTTP/1.1\r\n\r\n").expect("sent");
        rest(&mut wire);
    }
    daemon.wait_for_lines("closed listener=once", FLOOD);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    for (word, listener, kind) in [
        ("message", "once", "message"),
        ("refused", "exit", "denied"),
        ("closed", "exit", "declined"),
    ] {
        let said = daemon.lines(&format!(" {word} listener={listener} ")).len();
        let held: usize = daemon
            .lines(&format!("held_back listener={listener} kind={kind} "))
            .iter()
            .map(|line| fields(line)["lines"].parse::<usize>().expect("a number"))
            .sum();
        assert!(said < FLOOD && held > 0, "{kind}: {said} and {held}");
        assert_eq!(said + held, FLOOD, "{kind}");
    }
    let counts = daemon.wait_for_line("stopped ");
    assert!(counts.contains(&format!(" refused_requests={FLOOD} ")), "{counts}");
}

#[test]
fn both_ends_of_a_tunnel_tell_of_a_connection_so_that_it_can_be_joined() {
    let (echo, address) = target();
    let tunnel = Tunnel::to(&address);
    let mut wire = tunnel.connect();
    let mut far = common::tunnel::accept(&echo);
    wire.write_all(b"hello").expect("sent");
    assert_eq!(receive(&mut far, 5), b"hello");
    let here = far.peer_addr().expect("connected").as_socket().expect("an address");
    drop((wire, far));
    let entry = fields(&tunnel.entry.wait_for_line("closed listener=entry"));
    let exit = fields(&tunnel.exit.wait_for_line("closed listener=exit"));
    assert_eq!(entry["target"], address);
    let secure = tunnel.exit.address("exit").replace("tcp://", "tls://");
    assert!(entry["exit"].ends_with(secure.trim_start_matches("tls://")), "{}", entry["exit"]);
    assert_eq!(entry["via"], exit["peer"]);
    assert_eq!(exit["target"], format!("tcp://{address}"));
    assert_eq!(exit["via"], here.to_string());
}

#[test]
fn a_target_stands_in_every_line_of_a_relay() {
    let (bound, address) = common::tunnel::dead_port();
    let gate = format!("auth = 'hmac-md5'\nto = 'tcp://{address}'\n");
    let daemon = Daemon::start(&format!("{DEMO_SECRET}{}", listener("relay", "forward", &gate)));
    let mut wrong = daemon.connect("relay");
    receive(&mut wrong, 32);
    wrong.write_all(&[0; 16]).expect("sent");
    assert!(is_closed_silently(&mut wrong));
    let mut right = daemon.connect("relay");
    pass_gate(&mut right, DEMO);
    assert!(is_closed_silently(&mut right));
    for word in ["refused", "failed"] {
        let line = daemon.wait_for_line(&format!("{word} listener=relay"));
        assert_eq!(fields(&line)["target"], format!("tcp://{address}"), "{line}");
    }
    drop(bound);
}

/// Starts an echo whose standard error is `log`; the address is fixed, for nobody can read it there.
fn serve_into(command: &mut Command, log: impl Into<Stdio>, port: u16) -> Child {
    let mut child = command.stdin(Stdio::piped()).stderr(log).spawn().expect("it runs");
    let address = format!("tcp://127.0.0.1:{port}");
    let configuration = common::listener_at(&address, "once", "once", "");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(configuration.as_bytes()).expect("read");
    child
}

/// A port that is free now.
fn free_port() -> u16 {
    let (_listener, address) = target();
    address.rsplit(':').next().and_then(|it| it.parse().ok()).expect("a port")
}

/// Is served so many times.
fn visit(port: u16, count: usize) {
    let start = std::time::Instant::now();
    for _ in 0..count {
        let mut wire = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(wire) => break wire,
                Err(error) => assert!(start.elapsed() < PATIENCE, "nobody listens: {error}"),
            }
        };
        wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        wire.write_all(b"x").expect("sent");
        let mut answer = Vec::new();
        wire.read_to_end(&mut answer).expect("an answer");
        assert_eq!(answer, b"X");
    }
}

/// Asks it to stop, and sees that it does.
fn stops(mut child: Child) {
    common::signal(child.id(), "TERM");
    let start = std::time::Instant::now();
    let status = loop {
        match child.try_wait().expect("it was started here") {
            Some(status) => break status,
            None => assert!(start.elapsed() < PATIENCE, "it does not stop"),
        }
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_terminal_that_nobody_reads_stops_nothing() {
    let terminal = openpty(None, None).expect("a terminal");
    let port = free_port();
    let child = serve_into(&mut turnstile(&["serve", "-c", "-"]), terminal.slave, port);
    visit(port, 1000);
    stops(child);
    drop(terminal.master);
}

#[test]
fn a_socket_that_nobody_reads_stops_nothing() {
    let (near, _far) = UnixStream::pair().expect("sockets");
    let port = free_port();
    let log = std::os::fd::OwnedFd::from(near);
    let child = serve_into(&mut turnstile(&["serve", "-c", "-"]), log, port);
    visit(port, 3000);
    stops(child);
}

#[test]
fn a_file_that_may_not_grow_costs_lines_and_not_the_daemon() {
    if !has_program("prlimit") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let log = fs::File::create(&path).expect("a file");
    let port = free_port();
    let mut command = Command::new("prlimit");
    command.args(["--fsize=8192:8192", env!("CARGO_BIN_EXE_turnstile"), "serve", "-c", "-"]);
    let child = serve_into(command.env_remove("RUST_LOG"), log, port);
    visit(port, 200);
    stops(child);
    assert_eq!(fs::metadata(&path).expect("it is there").len(), 8192);
}

#[test]
fn lines_that_a_full_disk_lost_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let open = || fs::OpenOptions::new().append(true).create(true).open(&path).expect("a file");
    // What is full is a limit that can be raised again, which a disk is not for a test.
    if !has_program("prlimit") {
        return;
    }
    let port = free_port();
    let mut command = Command::new("prlimit");
    command.args(["--fsize=4096:unlimited", env!("CARGO_BIN_EXE_turnstile"), "serve", "-c", "-"]);
    let child = serve_into(command.env_remove("RUST_LOG"), open(), port);
    visit(port, 3000);
    let pid = child.id().to_string();
    let raised =
        Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:unlimited"]).status();
    assert!(raised.expect("it runs").success());
    visit(port, 1);
    stops(child);
    let log = fs::read_to_string(&path).expect("text");
    assert!(log.contains(" log lines were lost: File too large"), "{log}");
    assert!(log.lines().all(|line| line.starts_with('[')), "each line is whole");
    let last = log.lines().last().expect("a line");
    assert!(last.contains("stopped accepted=3001 ") && !last.ends_with("lost=0"), "{last}");
}

#[test]
fn a_level_that_says_nothing_means_the_default_and_is_said() {
    for (asked, is_said) in
        [("", true), (" ", true), ("\"info\"", true), ("inof", true), ("INFO", false)]
    {
        let mut command = turnstile(&["serve", "-c", "-"]);
        let mut daemon = Daemon::launch(
            {
                command.env("RUST_LOG", asked);
                command
            },
            &listener("echo", "echo", ""),
        );
        daemon.signal("TERM");
        assert!(daemon.wait().success());
        assert_eq!(daemon.lines("WARN ] RUST_LOG=\"").len(), usize::from(is_said), "{asked}");
    }
}

#[test]
fn requests_by_signal_are_answered_and_kill_nobody() {
    let mut daemon = Daemon::start(&listener("echo", "echo", ""));
    let mut wire = daemon.connect("echo");
    assert_eq!(ask(&mut wire, b"before"), b"before");
    for (name, part) in [
        ("HUP", "SIGHUP: a running daemon does not read its configuration again yet"),
        ("USR1", "SIGUSR1 asks for nothing"),
        ("USR2", "SIGUSR2 asks for nothing"),
    ] {
        daemon.signal(name);
        daemon.wait_for_line(part);
        assert_eq!(ask(&mut wire, b"after"), b"after");
    }
    drop(wire);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

#[test]
fn what_the_parent_did_with_signals_is_not_inherited() {
    for inherited in ["--block-signal", "--ignore-signal=TERM"] {
        let mut command = Command::new("env");
        command.args([inherited, env!("CARGO_BIN_EXE_turnstile"), "serve", "-c", "-"]);
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        let mut daemon = Daemon::launch(command, &listener("echo", "echo", ""));
        daemon.signal("TERM");
        assert_eq!(daemon.wait().code(), Some(0), "{inherited}");
    }
}

#[test]
fn a_service_manager_that_does_not_listen_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let _manager = UnixDatagram::bind(&path).expect("a socket");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("an option");
    while filler.send_to(b"full", &path).is_ok() {}
    let mut command = turnstile(&["serve", "-c", "-"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut daemon = Daemon::launch(command, &listener("echo", "echo", ""));
    daemon.wait_for_line("the service manager cannot be told READY=1: ");
    assert_eq!(ask(&mut daemon.connect("echo"), b"served"), b"served");
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

#[test]
fn a_complaint_that_nobody_reads_is_not_waited_for() {
    let (near, far) = UnixStream::pair().expect("sockets");
    near.set_nonblocking(true).expect("an option");
    while (&near).write(&[b'x'; 4096]).is_ok() {}
    near.set_nonblocking(false).expect("an option");
    let mut command = turnstile(&["check", "-c", "/none"]);
    command.stderr(std::os::fd::OwnedFd::from(near));
    let status = command.status().expect("it ends by itself");
    assert!(!status.success());
    far.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
}
