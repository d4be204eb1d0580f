//! `turnstile connect`: from a pipe, from a file, by hand; and what it says when it cannot.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{fs, thread};

use common::{
    DEMO_SECRET, Daemon, SpawnWithOutput, finish, has_program, listener, listener_at, noise, run,
    test_file, text, turnstile,
};

const SECRET: &str = "Jedan has a big key!";

fn gated(service: &str) -> Daemon {
    let gate = listener("gate", service, "auth = 'hmac-md5'");
    Daemon::start(&format!("{DEMO_SECRET}{gate}"))
}

fn connect(address: &str, arguments: &[&str]) -> Command {
    let mut command = turnstile(&["connect", address]);
    command.args(arguments);
    command
}

/// What it printed, where all went well and it had nothing to complain of.
fn printed(output: &Output) -> String {
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    text(&output.stdout)
}

/// The one line that it complained with.
fn complaint(output: &Output) -> String {
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    said.strip_prefix("turnstile: ").expect(&said).trim_end().to_owned()
}

#[test]
fn what_comes_from_a_pipe_is_sent_and_the_answer_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix://{}", folder.path().join("socket").display());
    let daemon = Daemon::start(
        &(listener("upper", "upper", "")
            + &listener_at(&unix, "unix", "upper", "")
            + &listener_at("udp://127.0.0.1:0", "udp", "upper", "")),
    );
    for name in ["upper", "unix", "udp"] {
        let output = run(&mut connect(&daemon.address(name), &[]), "grüße\nquit\n".as_bytes());
        assert_eq!(printed(&output), "GRüßE\nQUIT\n", "{name}");
        assert_eq!(printed(&run(&mut connect(&daemon.address(name), &[]), b"")), "", "{name}");
    }
    let bare = daemon.address("upper").replace("tcp://", "");
    assert_eq!(printed(&run(&mut connect(&bare, &[]), b"bare")), "BARE");
    let named = bare.replace("127.0.0.1", "localhost");
    assert_eq!(printed(&run(&mut connect(&named, &[]), b"named")), "NAMED");
}

#[test]
fn eight_mebibytes_come_back_through_a_pipe_and_from_a_file() {
    let daemon = Daemon::start(&(listener("echo", "echo", "") + &listener("upper", "upper", "")));
    let question = noise(8 << 20, 4);
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, &question).expect("written");
    for service in ["echo", "upper"] {
        let mut answer = question.clone();
        if service == "upper" {
            answer.make_ascii_uppercase();
        }
        let address = daemon.address(service);
        let output = run(&mut connect(&address, &[]), &question);
        assert!(output.status.success() && output.stdout == answer, "{service} through pipes");

        let mut command = connect(&address, &[]);
        command.stdin(File::open(&from).expect("there"));
        let output = finish(command.spawn_with_output());
        assert!(output.status.success() && output.stdout == answer, "{service} from a file");

        command.stdin(File::open(&from).expect("there")).stdout(File::create(&to).expect("made"));
        let output = finish(command.stderr(Stdio::piped()).spawn().expect("it runs"));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(fs::read(&to).expect("made") == answer, "{service} from a file to a file");
    }
}

#[test]
fn an_answer_that_nobody_takes_for_a_while_waits() {
    let daemon = Daemon::start(&listener("echo", "echo", ""));
    let question = noise(2 << 20, 5);
    let mut child = connect(&daemon.address("echo"), &[]).stdin(Stdio::piped()).spawn_with_output();
    let mut writer = child.stdin.take().expect("a pipe");
    let sending = thread::spawn({
        let question = question.clone();
        move || writer.write_all(&question).expect("taken")
    });
    // The answer stands in the pipe, the daemon's buffers and the kernel's until it is read.
    let mut first = [0; 1];
    let mut output = child.stdout.take().expect("a pipe");
    output.read_exact(&mut first).expect("an answer");
    assert_eq!(common::ask(&mut daemon.connect("echo"), b"meanwhile"), b"meanwhile");
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).expect("an answer");
    sending.join().expect("sent");
    assert!(first == question[..1] && rest == question[1..]);
    assert!(finish(child).status.success());
}

#[test]
fn the_secret_comes_from_a_file_or_the_environment() {
    let daemon = gated("upper");
    let sha256 = listener("gate", "upper", "auth = 'hmac-sha256'");
    let sha256 = Daemon::start(&format!("{DEMO_SECRET}{sha256}"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    let file_option = ["--secret-file", file.to_str().expect("text")];
    let address = daemon.address("gate");
    for content in [SECRET.to_owned(), format!("{SECRET}\n"), format!("{SECRET}\r\n")] {
        fs::write(&file, content).expect("written");
        assert_eq!(printed(&run(&mut connect(&address, &file_option), b"in")), "IN");
    }
    let mut command = connect(&address, &[]);
    assert_eq!(printed(&run(command.env("TURNSTILE_SECRET", SECRET), b"in")), "IN");
    let mut command = connect(&sha256.address("gate"), &["--auth", "hmac-sha256"]);
    assert_eq!(printed(&run(command.env("TURNSTILE_SECRET", SECRET), b"in")), "IN");
    let mut command = connect(&address, &file_option);
    assert_eq!(printed(&run(command.env("TURNSTILE_SECRET", "not this one"), b"in")), "IN");
}

#[test]
fn a_shut_gate_is_explained() {
    let daemon = gated("upper");
    let address = daemon.address("gate");
    for input in [&b"hello"[..], &noise(1 << 20, 6)] {
        let mut command = connect(&address, &[]);
        let output = run(command.env("TURNSTILE_SECRET", "a wrong secret"), input);
        let line = complaint(&output);
        assert!(line.contains("it probably refused it; check the secret"), "{line}");
        assert!(!line.contains("a wrong secret") && output.stdout.is_empty(), "{line}");
    }
    let mut command = connect(&address, &["--auth", "hmac-sha256"]);
    let line = complaint(&run(command.env("TURNSTILE_SECRET", SECRET), b"hello"));
    assert!(line.contains("check the secret"), "{line}");
}

#[test]
fn without_a_gate_there_is_none_to_pass() {
    let daemon = gated("upper");
    let mut command = connect(&daemon.address("gate"), &["--auth", "none"]);
    let output = run(command.env("TURNSTILE_SECRET", SECRET), b"");
    assert_eq!(output.stdout.len(), 32, "the challenge is all that comes");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));

    let open =
        Daemon::start(&(listener("upper", "upper", "") + &listener("daytime", "daytime", "")));
    let with_secret = |name: &str, more: &[&str]| {
        let mut command = connect(&open.address(name), more);
        run(command.env("TURNSTILE_SECRET", SECRET), b"hello")
    };
    let line = complaint(&with_secret("upper", &["--timeout", "200ms"]));
    assert!(line.ends_with("no challenge within 200ms; is there a gate (--auth)?"), "{line}");
    let line = complaint(&with_secret("daytime", &[]));
    assert!(line.contains("closed the connection before it had sent a challenge"), "{line}");
    assert_eq!(printed(&with_secret("upper", &["--auth", "none"])), "HELLO");
}

#[test]
fn datagrams_have_no_gate() {
    let daemon = Daemon::start(&listener_at("udp://127.0.0.1:0", "udp", "upper", ""));
    let mut command = connect(&daemon.address("udp"), &[]);
    let output = run(command.env("TURNSTILE_SECRET", SECRET), b"for other calls");
    assert_eq!(printed(&output), "FOR OTHER CALLS");
    let line = complaint(&run(command.args(["--auth", "hmac-md5"]), b"hello"));
    assert!(line.starts_with("--auth hmac-md5 is for streams"), "{line}");
}

#[test]
fn a_secret_that_cannot_be_used_is_explained() {
    let line = complaint(&run(&mut connect("localhost:1", &["--secret-file", "/no/such"]), b""));
    assert!(line.contains("the secret file /no/such cannot be read: No such file"), "{line}");
    let line = complaint(&run(&mut connect("localhost:1", &["--secret-file", "/dev/zero"]), b""));
    assert!(line.contains("the secret file /dev/zero cannot be read: a secret of more"), "{line}");
    let line = complaint(&run(&mut connect("localhost:1", &["--secret-file", "/dev/null"]), b""));
    assert!(line.contains("the secret in the file /dev/null is empty"), "{line}");
    let mut command = connect("localhost:1", &[]);
    let line = complaint(&run(command.env("TURNSTILE_SECRET", "\n"), b""));
    assert!(line.contains("the secret in the variable TURNSTILE_SECRET is empty"), "{line}");
    let line = complaint(&run(&mut connect("localhost:1", &["--auth", "hmac-md5"]), b""));
    assert!(line.contains("--auth hmac-md5 needs a secret"), "{line}");
}

#[test]
fn nobody_there_is_said_in_one_line() {
    // A port that was free a moment ago, and is bound by nobody who listens.
    let unheard = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a descriptor");
    unheard.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let port = unheard.local_addr().expect("bound").as_socket().expect("inet").port();
    let address = format!("tcp://127.0.0.1:{port}");
    let line = complaint(&run(&mut connect(&address, &[]), b"hello"));
    let expected = format!("cannot connect to {address}: Connection refused (os error 111)");
    assert_eq!(line, expected + "; nothing listens there");

    let line = complaint(&run(&mut connect("nobody.invalid:1", &[]), b"hello"));
    assert!(line.starts_with("unknown host `nobody.invalid`: "), "{line}");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let address = format!("unix://{}", path.display());
    let line = complaint(&run(&mut connect(&address, &[]), b"hello"));
    assert!(line.ends_with("; there is no such socket file"), "{line}");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let line = complaint(&run(&mut connect(&address, &[]), b"hello"));
    assert!(line.ends_with("; nothing listens there"), "{line}");

    let closed = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = format!("udp://{}", closed.local_addr().expect("bound"));
    drop(closed);
    let line = complaint(&run(&mut connect(&address, &[]), b"hello"));
    assert!(line.to_lowercase().contains("connection refused"), "{line}");
}

#[test]
fn no_answer_to_a_datagram_is_said() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = format!("udp://{}", silent.local_addr().expect("bound"));
    let line = complaint(&run(&mut connect(&address, &["--timeout", "200ms"]), b"hello"));
    assert_eq!(line, format!("{address}: no answer within 200ms"));
}

#[test]
fn the_longest_datagram_goes_and_a_longer_one_is_explained() {
    let daemon = Daemon::start(&listener_at("udp://127.0.0.1:0", "echo", "echo", ""));
    let address = daemon.address("echo");
    let longest = noise(65_507, 8);
    let output = run(&mut connect(&address, &[]), &longest);
    assert!(output.status.success() && output.stdout == longest);
    for len in [65_508, 65_536, 65_537, 1 << 20] {
        let line = complaint(&run(&mut connect(&address, &[]), &noise(len, 9)));
        assert!(line.contains("65,507"), "{len} bytes: {line}");
    }
}

#[test]
fn usage_is_checked() {
    for arguments in [&["connect"][..], &["connect", "localhost"], &["connect", "http://x:1"]] {
        let output = run(&mut turnstile(arguments), b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    for option in [["--auth", "sha1"], ["--timeout", "soon"]] {
        assert_eq!(run(&mut connect("localhost:1", &option), b"").status.code(), Some(2));
    }
}

/// A server of one connection.
fn serve_one(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || serve(listener.accept().expect("a client").0));
    address
}

#[test]
fn a_server_that_is_gone_in_the_middle_is_said() {
    let address = serve_one(|mut server| {
        server.write_all(b"the beginning\n").expect("sent");
        server.read_exact(&mut [0; 5]).expect("a question");
        common::reset(server.into());
    });
    let output = run(&mut connect(&address, &[]), b"hello");
    assert_eq!(text(&output.stdout), "the beginning\n");
    let line = complaint(&output);
    assert!(line.starts_with(&format!("the connection to tcp://{address} was lost: ")), "{line}");
    assert!(line.to_lowercase().contains("reset"), "{line}");
}

#[test]
fn a_server_that_speaks_first_is_heard_every_time() {
    let daemon = gated("upper");
    for _ in 0..30 {
        let mut command = connect(&daemon.address("gate"), &["--timeout", "5s"]);
        assert_eq!(printed(&run(command.env("TURNSTILE_SECRET", SECRET), b"in")), "IN");
    }
}

#[test]
fn a_server_that_is_gone_before_it_has_asked_is_said() {
    let address = serve_one(|mut server| server.write_all(&[7; 31]).expect("sent"));
    let mut command = connect(&address, &[]);
    let line = complaint(&run(command.env("TURNSTILE_SECRET", SECRET), b"hello"));
    assert!(line.contains("before it had sent a challenge"), "{line}");
}

#[test]
fn a_server_that_has_said_all_ends_it_although_there_is_more_to_send() {
    let daemon = Daemon::start(&listener("daytime", "daytime", ""));
    // Standard input stays open and silent.
    let mut child =
        connect(&daemon.address("daytime"), &[]).stdin(Stdio::piped()).spawn_with_output();
    let input = child.stdin.take();
    let output = finish(child);
    assert_eq!(printed(&output).len(), 26);
    drop(input);
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let daemon = Daemon::start(&listener("chargen", "chargen", ""));
    let mut child =
        connect(&daemon.address("chargen"), &[]).stdin(Stdio::null()).spawn_with_output();
    let mut output = child.stdout.take().expect("a pipe");
    output.read_exact(&mut [0; 100]).expect("a pattern");
    drop(output);
    assert_eq!(printed(&finish(child)), "");
    let line = daemon.wait_for_line("closed listener=chargen");
    assert!(line.contains("state=Established"), "{line}");
}

/// Plays a person at a terminal; answers what the program showed. `None` without Python.
fn at_terminal(command: &Command, play: &[&str]) -> Option<Output> {
    if !has_program("python3") {
        return None;
    }
    let mut terminal = Command::new("python3");
    terminal.arg(test_file("common/terminal.py")).arg(command.get_program());
    terminal.args(command.get_args()).arg("--").args(play);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    Some(run(&mut terminal, b""))
}

#[test]
fn a_person_is_prompted_and_answered() {
    let daemon = gated("upper");
    let mut command = connect(&daemon.address("gate"), &[]);
    command.env("TURNSTILE_SECRET", SECRET);
    let play = [
        (">>: ", r"  hello there  \n"),
        ("HELLO THERE\n>>: ", r"\n"),
        (">>: ", r"   \n"),
        (">>: ", r"grüße, 亲\n"),
        ("GRüßE, 亲\n>>: ", r" quit \n"),
    ];
    let play: Vec<_> = play.iter().flat_map(|(expected, typed)| [*expected, *typed]).collect();
    let Some(output) = at_terminal(&command, &play) else { return };
    let expected = ">>: HELLO THERE\n>>: >>: >>: GRüßE, 亲\n>>: ";
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    let line = daemon.wait_for_line("identity=demo");
    let sent = 32 + "HELLO THEREGRüßE, 亲".len();
    assert!(line.contains(&format!("sent={sent} ")), "the lines go without their ends: {line}");
}

#[test]
fn the_message_that_ends_a_conversation_ends_the_program() {
    let daemon = Daemon::start(&listener("time", "time", ""));
    let command = connect(&daemon.address("time"), &[]);
    let play = [">>: ", r"one\n", "\n>>: ", r"two\n", "\n>>: ", r"END\n"];
    let Some(output) = at_terminal(&command, &play) else { return };
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    daemon.wait_for_line("received=15 sent=48 ");
}

#[test]
fn the_end_key_ends_a_conversation_after_the_last_answer() {
    let daemon = Daemon::start(&listener("upper", "upper", ""));
    let command = connect(&daemon.address("upper"), &[]);
    let Some(output) = at_terminal(&command, &[">>: ", r"last\n\x04"]) else { return };
    assert!(text(&output.stdout).contains("LAST"), "{}", text(&output.stdout));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_person_hears_that_the_server_has_gone_or_refused() {
    let daemon = gated("upper");
    let mut command = connect(&daemon.address("gate"), &[]);
    command.env("TURNSTILE_SECRET", "a wrong secret");
    let Some(output) = at_terminal(&command, &[]) else { return };
    assert!(text(&output.stdout).contains("it probably refused it"), "{}", text(&output.stdout));
    assert_eq!(output.status.code(), Some(1));

    let open = Daemon::start(&listener("once", "once", ""));
    let command = connect(&open.address("once"), &[]);
    let output = at_terminal(&command, &[">>: ", r"hello\n"]).expect("as before");
    assert!(text(&output.stdout).starts_with(">>: HELLO"), "{}", text(&output.stdout));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn datagrams_by_hand_go_line_by_line() {
    let daemon = Daemon::start(&listener_at("udp://127.0.0.1:0", "udp", "upper", ""));
    let command = connect(&daemon.address("udp"), &[]);
    let play = [">>: ", r"one\n", "ONE\n>>: ", r"two\n", "TWO\n>>: ", r"quit\n"];
    let Some(output) = at_terminal(&command, &play) else { return };
    assert_eq!(text(&output.stdout), ">>: ONE\n>>: TWO\n>>: ", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_end_key_ends_a_conversation_in_datagrams_too() {
    let daemon = Daemon::start(&listener_at("udp://127.0.0.1:0", "udp", "upper", ""));
    let command = connect(&daemon.address("udp"), &[]);
    for (play, shown) in [
        (vec![">>: ", r"\x04"], ">>: "),
        (vec![">>: ", r"one\n", "ONE\n>>: ", r"\x04"], ">>: ONE\n>>: "),
    ] {
        let Some(output) = at_terminal(&command, &play) else { return };
        assert!(text(&output.stdout).starts_with(shown), "{}", text(&output.stdout));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    }
    let output = at_terminal(&command, &[">>: ", r"last\n\x04"]).expect("as before");
    assert!(text(&output.stdout).contains("LAST"), "{}", text(&output.stdout));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[test]
fn a_timeout_of_nothing_is_none() {
    let daemon = gated("upper");
    let mut command = connect(&daemon.address("gate"), &["--timeout", "0s"]);
    assert_eq!(printed(&run(command.env("TURNSTILE_SECRET", SECRET), b"in")), "IN");
    let udp = Daemon::start(&listener_at("udp://127.0.0.1:0", "udp", "upper", ""));
    let command = &mut connect(&udp.address("udp"), &["--timeout", "0s"]);
    assert_eq!(printed(&run(command, b"in")), "IN");
}

#[test]
fn connecting_gives_up_in_time() {
    // A listener whose backlog is full does not answer, and connecting to it waits.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a descriptor");
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    full.listen(0).expect("it listens");
    let address = full.local_addr().expect("bound").as_socket().expect("inet");
    let filling: Vec<_> = (0..4)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok())
        .collect();
    assert!(filling.len() < 4, "its backlog is never full");
    let command = &mut connect(&address.to_string(), &["--timeout", "200ms"]);
    let line = complaint(&run(command, b"hello"));
    assert!(line.starts_with(&format!("tcp://{address}: ")) && line.contains("200ms"), "{line}");
}

#[test]
fn a_server_that_has_only_half_closed_gets_all_of_the_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let unix = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tcp_address = tcp.local_addr().expect("bound").to_string();
    let input = noise(8 << 20, 7);
    let half_close = |mut server: socket2::Socket| {
        server.write_all(b"ready\n").expect("sent");
        server.shutdown(std::net::Shutdown::Write).expect("open");
        let mut taken = Vec::new();
        server.read_to_end(&mut taken).expect("all");
        taken
    };
    let over_tcp = thread::spawn(move || half_close(tcp.accept().expect("a client").0.into()));
    let over_unix = thread::spawn(move || half_close(unix.accept().expect("a client").0.into()));
    for (address, server) in
        [(tcp_address, over_tcp), (format!("unix://{}", path.display()), over_unix)]
    {
        let output = run(&mut connect(&address, &[]), &input);
        assert_eq!(printed(&output), "ready\n");
        assert!(server.join().expect("a server") == input, "{address}");
    }
}

#[test]
fn input_that_comes_after_the_server_has_half_closed_is_sent() {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let address = serve_one(move |mut server| {
        server.write_all(b"ready\n").expect("sent");
        server.shutdown(std::net::Shutdown::Write).expect("open");
        let mut taken = String::new();
        server.read_to_string(&mut taken).expect("all");
        ready.send(taken).expect("wanted");
    });
    let mut child = connect(&address, &[]).stdin(Stdio::piped()).spawn_with_output();
    let mut shown = [0; 6];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut shown).expect("it says so");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"one\n").expect("taken");
    input.write_all(b"two\n").expect("taken");
    drop(input);
    assert!(finish(child).status.success());
    assert_eq!(is_ready.recv().expect("it ended"), "one\ntwo\n");
}

#[test]
fn a_server_that_closes_and_takes_no_more_is_an_error() {
    let address = serve_one(|mut server| {
        server.write_all(b"enough\n").expect("sent");
        server.read_exact(&mut [0; 10]).expect("a little");
    });
    let output = run(&mut connect(&address, &[]), &noise(8 << 20, 8));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let line = text(&output.stderr);
    let is_said = line.contains("taken all of the input") || line.contains("was lost");
    assert!(is_said && line.lines().count() == 1, "{line}");
}

/// A server that answers each line, as it came, with how it ended; `None` at the end.
fn serve_lines() -> String {
    serve_one(|server| {
        let mut writer = server.try_clone().expect("a descriptor");
        let mut reader = std::io::BufReader::new(server);
        let mut line = String::new();
        while std::io::BufRead::read_line(&mut reader, &mut line).is_ok_and(|count| count > 0) {
            writer.write_all(format!("{}\n", line.escape_default()).as_bytes()).expect("sent");
            line.clear();
        }
    })
}

#[test]
fn lines_typed_by_hand_end_as_servers_want_them() {
    let cases: [(&[&str], &str, &str); 3] = [
        (&[], r"PING\r\n", r"\r\n"),
        (&["--line-ends", "crlf"], r"PING\r\n", r"\r\n"),
        (&["--line-ends", "lf"], r"PING\n", r"\n"),
    ];
    for (words, answer, blank) in cases {
        let command = connect(&serve_lines(), words);
        let (answer, blank) = (format!("{answer}\n>>: "), format!("{blank}\n>>: "));
        let play = [">>: ", r"PING\n", &answer, r"\n", &blank, r"quit\n"];
        let Some(output) = at_terminal(&command, &play) else { return };
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    }
    let echo = Daemon::start(&listener("echo", "echo", ""));
    let command = connect(&echo.address("echo"), &["--line-ends", "none"]);
    let play = [">>: ", r"  bare \n", "bare\n>>: ", r"quit\n"];
    let output = at_terminal(&command, &play).expect("as before");
    assert_eq!(text(&output.stdout), ">>: bare\n>>: ");
    let words = ["connect", "localhost:1", "--line-ends", "cr"];
    assert_eq!(run(&mut turnstile(&words), b"").status.code(), Some(2));
}

#[test]
fn a_gate_without_a_secret_and_a_secret_without_a_gate_are_said() {
    let daemon = gated("upper");
    let address = daemon.address("gate");
    let Some(output) = at_terminal(&connect(&address, &[]), &[]) else { return };
    let shown = text(&output.stdout);
    assert!(shown.contains("look like the challenge of a gate"), "{shown}");
    assert!(shown.contains("--secret-file") && output.status.code() == Some(1), "{shown}");

    let line = complaint(&run(&mut connect(&address, &[]), b"hello, this is no answer"));
    assert!(line.contains("look like the challenge of a gate"), "{line}");
    let key = serve_one(|mut server| server.write_all(&[0xfe; 32]).expect("sent"));
    let output = run(&mut connect(&key, &[]), b"");
    assert_eq!((output.status.code(), output.stdout), (Some(0), vec![0xfe; 32]), "data is data");

    let open = Daemon::start(&listener("upper", "upper", ""));
    let mut command = connect(&open.address("upper"), &["--timeout", "3s"]);
    let output = run(command.env("TURNSTILE_SECRET", SECRET), b"hello");
    let said = text(&output.stderr);
    assert!(said.contains("has sent no challenge yet; if there is no gate"), "{said}");
    assert!(said.contains("no challenge within 3s"), "{said}");
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 2), "{said}");
}

#[test]
fn a_unix_socket_whose_queue_is_full_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let socket = socket.expect("a descriptor");
    let address = socket2::SockAddr::unix(&path).expect("short");
    socket.bind(&address).expect("bound");
    socket.listen(0).expect("it listens");
    let waiting = std::os::unix::net::UnixStream::connect(&path).expect("the queue's only place");
    let full = connect(&format!("unix://{}", path.display()), &["--timeout", "300ms"])
        .stdin(Stdio::null())
        .spawn_with_output();
    let line = complaint(&finish(full));
    assert!(line.contains("no connection within 300ms"), "{line}");

    let mut child = connect(&format!("unix://{}", path.display()), &[]);
    let child = child.stdin(Stdio::null()).spawn_with_output();
    drop(waiting);
    let server = thread::spawn(move || {
        // The one that has gone, and the one that had no place.
        for _ in 0..2 {
            let (mut server, _) = socket.accept().expect("a client");
            let _ = server.write_all(b"in\n");
        }
    });
    assert_eq!(printed(&finish(child)), "in\n");
    server.join().expect("a server");
}
