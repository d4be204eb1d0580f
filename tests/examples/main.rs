//! Runs every lesson of `examples/` as a person would, and talks to it.
//!
//! The other side is either a few lines of `std` here, which can be as awkward as a network is, or
//! a python program written the way the tutorials write theirs, which knows nothing of this crate.
//! Every wait has a limit.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use socket2::{Domain, SockRef, Socket, Type};

use support::{
    A_WHILE, LIMIT, PYTHON_GATE, PYTHON_SERVER, Peer, Queues, Running, admit, any_port,
    assert_one_line, assert_silent, connect, example, expect, hex, lesson, pattern, python,
    round_trip, send_apart, wait_until_read,
};

const DEMONSTRATION_SECRET: &str = "Jedan has a big key!";
const A_TIME: &str = "Sun Mar  1 12:09:16 2015";

#[test]
fn the_readme_leads_through_every_lesson() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let mut lessons = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(readme.contains(&format!("cargo run --example {name}")), "{name} is missing");
            lessons += 1;
        }
    }
    let commands = readme.lines().filter(|line| line.contains("cargo run --example")).count();
    assert_eq!(commands, lessons, "the README has a row for a lesson that does not exist");
}

#[test]
fn connect_check_says_that_it_connected() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.port().to_string();
    lesson("01_connect_check")
        .args(["127.0.0.1", &port])
        .assert()
        .success()
        .stdout(format!("connected to {address}\n"));
    lesson("01_connect_check")
        .write_stdin(format!("127.0.0.1\n{port}\n"))
        .assert()
        .success()
        .stdout(format!("Host: Port: connected to {address}\n"));
}

#[test]
fn connect_check_says_why_it_could_not() {
    // Bound, so that nobody else gets the port, and not listening.
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    silent.bind(&any_port().into()).unwrap();
    let refusing = silent.local_addr().unwrap().as_socket().unwrap().port().to_string();

    let cases = [
        ("127.0.0.1", refusing.as_str(), "refused: nothing listens on this port"),
        // RFC 6761 promises that no such name will ever be.
        ("no-such-host.invalid", "80", "unknown host `no-such-host.invalid`"),
        ("127.0.0.1", "65536", "`65536` is no port"),
        ("127.0.0.1", "0", "`0` is no port"),
    ];
    for (host, port, expected) in cases {
        let output = lesson("01_connect_check").args([host, port]).assert().code(1).stdout("");
        assert_one_line(&output.get_output().stderr, expected);
    }
}

#[test]
fn connect_check_does_not_wait_for_ever() {
    // Nobody accepts, and there is place for one to wait: from then on the kernel ignores who knocks.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    deaf.bind(&any_port().into()).unwrap();
    deaf.listen(0).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, A_WHILE) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the backlog of {address} never fills");
    }
    let port = address.port().to_string();
    let output = lesson("01_connect_check").args(["127.0.0.1", &port]).assert().code(1);
    assert_one_line(&output.get_output().stderr, "timed out after 3s");
}

#[test]
fn http_get_prints_the_answer_to_the_last_byte() {
    // Not UTF-8, and more than fits into one read.
    let body = (0..100_000u32).map(|number| number.to_le_bytes()[0]).collect::<Vec<_>>();
    let page = [b"HTTP/1.0 200 OK\r\n\r\n", body.as_slice()].concat();
    let sent = page.clone();
    let server = Peer::start(move |mut stream| {
        expect(&mut stream, b"GET / HTTP/1.0\r\n\r\n");
        stream.write_all(&sent).unwrap();
    });
    lesson("02_http_get").arg(server.address()).assert().success().stdout(page);
    server.finish();
}

#[test]
fn the_one_shot_client_waits_for_the_whole_answer() {
    let server = Peer::start(|mut stream| {
        expect(&mut stream, b"hello\n");
        send_apart(&mut stream, b"HE", b"LLO");
    });
    lesson("03_one_shot_client")
        .arg(server.address())
        .assert()
        .success()
        .stdout("Sent:     hello\nReceived: HELLO\n");
    server.finish();
}

#[test]
fn the_udp_client_asks_again_when_an_answer_is_lost() {
    let socket = UdpSocket::bind(any_port()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let address = socket.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut datagram = [0; 100];
        let mut client = address;
        for _ in 0..2 {
            let (count, from) = socket.recv_from(&mut datagram).unwrap();
            assert_eq!(&datagram[..count], b"Hello UDP server");
            client = from;
        }
        socket.send_to(b"at last", client).unwrap();
    });
    let output = lesson("04_udp_pair").args(["client", &address.to_string()]).assert();
    let output = output.success().stdout("at last\n");
    assert_one_line(&output.get_output().stderr, "no answer within 1s");
    server.join().unwrap();
}

#[test]
fn the_udp_client_gives_up_in_the_end() {
    let silent = UdpSocket::bind(any_port()).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let output = lesson("04_udp_pair").args(["client", &address]).assert().code(1).stdout("");
    let said = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(said.ends_with(&format!("{address}: no answer to 3 datagrams\n")), "{said}");
}

#[test]
fn the_udp_server_answers_every_datagram() {
    let server = Running::start(Command::new(example("04_udp_pair")).args(["server", "[::1]:0"]));
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.connect(server.address).unwrap();
    let longest = vec![b'x'; 60_000];
    for question in [b"Hello UDP server".as_slice(), b"", b"\xff", &longest] {
        let mut answer = [0; 100];
        client.send(question).unwrap();
        let count = client.recv(&mut answer).unwrap();
        assert_eq!(&answer[..count], b"UDP server sending data");
    }
    let address = server.address.to_string();
    lesson("04_udp_pair")
        .args(["client", &address])
        .assert()
        .success()
        .stdout("UDP server sending data\n");
}

#[test]
fn the_time_client_asks_as_often_as_one_likes() {
    let server = Peer::start(|mut stream| {
        expect(&mut stream, b"GET TIME");
        send_apart(&mut stream, &A_TIME.as_bytes()[..10], &A_TIME.as_bytes()[10..]);
        expect(&mut stream, b"And now?");
        stream.write_all(A_TIME.as_bytes()).unwrap();
        expect(&mut stream, b"END");
    });
    let port = server.address.port();
    lesson("05_time_client")
        .write_stdin(format!("127.0.0.1\n{port}\nyes\nAnd now?\ny\nEND\n"))
        .assert()
        .success()
        .stdout(format!(
            "Enter hostname [localhost]: Enter port [12345]: {A_TIME}\n\
             Send more [no]: Enter message [GET TIME]: {A_TIME}\n\
             Send more [no]: Enter message [GET TIME]: The server closed the connection.\n"
        ));
    server.finish();
}

#[test]
fn an_echo_comes_back_whole_and_its_end_too() {
    let server = Running::start(&mut Command::new(example("06_mio_echo")));
    let sent = pattern(3_000_000);
    let mut stream = connect(server.address);
    let mut writer = stream.try_clone().unwrap();
    let to_send = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&to_send).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
}

#[test]
fn a_client_that_does_not_read_is_held_back_and_holds_nobody_back() {
    let server = Running::start(&mut Command::new(example("06_mio_echo")));
    let mut stalled = connect(server.address);
    let mut other = connect(server.address);
    round_trip(&mut other);

    // It sends and sends, until the server reads no more.
    let sent = pattern(64 * 1024 * 1024);
    stalled.set_write_timeout(Some(A_WHILE)).unwrap();
    let mut accepted = 0;
    while let Ok(count) = stalled.write(&sent[accepted..]) {
        accepted += count;
        assert!(accepted < sent.len(), "the server takes more than the kernel's buffers hold");
    }

    for _ in 0..100 {
        round_trip(&mut other);
    }
    let before = server.processor_ticks();
    assert_silent(&mut other);
    let used = server.processor_ticks() - before;
    assert!(used <= 5, "{used} hundredths of a second of work in {A_WHILE:?} of nothing to do");
    assert_eq!(server.threads(), 1);

    // And nothing that it sent was lost.
    stalled.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    stalled.read_to_end(&mut received).unwrap();
    assert!(received == sent[..accepted], "{} bytes came back of {accepted}", received.len());
}

#[test]
fn the_end_overtakes_nothing_that_still_waits_in_the_buffer() {
    let server = Running::start(&mut Command::new(example("06_mio_echo")));
    // In small segments, of which the kernels' buffers hold less.
    let stalled = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    stalled.set_tcp_mss(1000).unwrap();
    stalled.connect(&server.address.into()).unwrap();
    stalled.set_tcp_nodelay(true).unwrap();
    stalled.set_read_timeout(Some(LIMIT)).unwrap();
    let mut stalled = TcpStream::from(stalled);
    let mut other = connect(server.address);

    // There is one loop: when it answers another client, it has done what it could for this one.
    // What the kernels do not hold then, the server does.
    let mut server_holds_some_of = |count: usize, stalled: &TcpStream| {
        round_trip(&mut other);
        // Confirmed at once, so that no byte is counted at both ends.
        SockRef::from(stalled).set_tcp_quickack(true).unwrap();
        let [here, there] = Queues::of(stalled.local_addr().unwrap(), server.address);
        there.unconfirmed + here.unread < count
    };

    // In steps smaller than the server's buffer, so that it has room left to read the end.
    let sent = pattern(16 * 1024 * 1024);
    let mut count = 0;
    for step in sent.chunks(12 * 1024) {
        stalled.write_all(step).unwrap();
        count += step.len();
        if server_holds_some_of(count, &stalled) {
            // It may only have been late.
            wait_until_read(&stalled);
            if server_holds_some_of(count, &stalled) {
                break;
            }
        }
    }
    assert!(count < sent.len(), "the server writes more than the kernels' buffers hold");

    stalled.shutdown(Shutdown::Write).unwrap();
    wait_until_read(&stalled);
    assert!(server_holds_some_of(count, &stalled), "the test's own premise");
    let mut received = Vec::new();
    stalled.read_to_end(&mut received).unwrap();
    assert!(received == sent[..count], "{} bytes came back of {count}", received.len());
}

#[test]
fn an_error_ends_one_client_and_not_the_loop() {
    // It reports each of the errors that follow; they would only clutter the test's own report.
    let server = Running::start(Command::new(example("06_mio_echo")).stderr(Stdio::null()));
    let mut other = connect(server.address);
    for _ in 0..20 {
        let mut rude = connect(server.address);
        rude.write_all(&pattern(100_000)).unwrap();
        // Closing at once, without lingering, sends a reset.
        SockRef::from(&rude).set_linger(Some(Duration::ZERO)).unwrap();
        drop(rude);
        round_trip(&mut other);
    }
    round_trip(&mut connect(server.address));
}

#[test]
fn who_finds_no_room_waits_until_somebody_leaves() {
    let server = Running::start(&mut Command::new(example("06_mio_echo")));
    let mut clients = (0..512).map(|_| connect(server.address)).collect::<Vec<_>>();
    clients.iter_mut().for_each(round_trip);
    let mut one_more = connect(server.address);
    one_more.write_all(b"still there?").unwrap();
    assert_silent(&mut one_more);
    clients.pop();
    expect(&mut one_more, b"still there?");
}

#[test]
fn tokens_are_ten_and_all_different() {
    let output = lesson("07_tokens").assert().success().get_output().stdout.clone();
    let output = String::from_utf8(output).unwrap();
    let mut tokens = output.lines().collect::<Vec<_>>();
    assert!(tokens.iter().all(|token| token.len() == 32), "{output}");
    assert!(tokens.concat().chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{output}");
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 10, "{output}");
}

#[test]
fn a_user_record_knows_the_password_and_does_not_say_it() {
    let output = lesson("08_user_records").assert().success().get_output().stdout.clone();
    let output = String::from_utf8(output).unwrap();
    let [name, key, hmac, right, wrong] = output.lines().collect::<Vec<_>>()[..] else {
        panic!("five lines expected: {output}");
    };
    assert_eq!(name, "name: jedan");
    let key = key.strip_prefix("key:  ").unwrap();
    assert_eq!(key.len(), 20);
    assert!(key.bytes().all(|byte| (48..=122).contains(&byte)), "{key}");
    let mut expected = Hmac::<Md5>::new_from_slice(key.as_bytes()).unwrap();
    expected.update(b"correct horse battery staple");
    assert_eq!(hmac, format!("hmac: {}", hex(&expected.finalize().into_bytes())));
    assert_eq!(right, "the right password: accepted");
    assert_eq!(wrong, "one letter wrong:   refused");
}

#[test]
fn the_gate_client_gets_in_and_talks() {
    let server = Peer::start(|mut stream| {
        assert!(admit(&mut stream, "open sesame"));
        expect(&mut stream, b"hello");
        send_apart(&mut stream, b"HE", b"LLO");
        expect(&mut stream, "Grüße".as_bytes());
        stream.write_all("GRüßE".as_bytes()).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "something was sent after `quit`");
    });
    lesson("09_gate_client")
        .arg(server.address())
        .env("TURNSTILE_SECRET", "open sesame")
        .write_stdin("hello\n\n   \n  Grüße \t\nquit\nafterwards\n")
        .assert()
        .success()
        .stdout(">>: HELLO\n>>: >>: >>: GRüßE\n>>: ");
    server.finish();
}

#[test]
fn the_gate_client_says_what_a_closed_gate_means() {
    let server = Peer::start(|mut stream| assert!(!admit(&mut stream, DEMONSTRATION_SECRET)));
    let output = lesson("09_gate_client")
        .arg(server.address())
        .env("TURNSTILE_SECRET", "a guess")
        .write_stdin("hello\nhello\n")
        .assert()
        .code(1);
    assert_one_line(&output.get_output().stderr, "is the secret right?");
    assert!(!String::from_utf8_lossy(&output.get_output().stderr).contains("a guess"));
    server.finish();
}

#[test]
fn the_clients_understand_the_tutorials_servers() {
    let served = |body: &str| python(&format!("{PYTHON_SERVER}\n{body}"));
    let Some(server) = served("connection.sendall(connection.recv(1024).strip().upper())") else {
        return;
    };
    lesson("03_one_shot_client")
        .arg(server.address.to_string())
        .assert()
        .success()
        .stdout("Sent:     hello\nReceived: HELLO\n");

    let body = "assert connection.recv(1024) == b'GET TIME'\n\
                connection.sendall(time.ctime(1425211756).encode())";
    let server = served(body).expect("python3 was there a moment ago");
    let output = lesson("05_time_client")
        .write_stdin(format!("127.0.0.1\n{}\n\n", server.address.port()))
        .assert()
        .success();
    let said = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert!(said.contains("]: Sun Mar  1 ") && said.contains(" 2015\n"), "{said}");

    let server = served(PYTHON_GATE).expect("python3 was there a moment ago");
    lesson("09_gate_client")
        .arg(server.address.to_string())
        .env_remove("TURNSTILE_SECRET")
        .write_stdin("hello, gate\n")
        .assert()
        .success()
        .stdout(">>: HELLO, GATE\n>>: ");
}
