//! Every stream service to the byte, over TCP and over a Unix socket, and the tutorials' own
//! clients against the services that they were written for.

mod common;

use std::io::{IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Command, Output};

use common::{
    DEMO_SECRET, Daemon, PATIENCE, ask, has_program, listener, listener_at, noise, receive, rest,
    run, test_file, text,
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::Socket;
use tempfile::TempDir;

/// A service on both kinds of stream: the listeners are called `tcp` and `unix`.
struct Both {
    daemon: Daemon,
    _folder: TempDir,
}

impl Both {
    fn start(service: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let unix = format!("unix://{}", folder.path().join("socket").display());
        let configuration =
            listener("tcp", service, more) + &listener_at(&unix, "unix", service, more);
        Self { daemon: Daemon::start(&configuration), _folder: folder }
    }

    fn each(&self, mut talk: impl FnMut(&mut Socket)) {
        for name in ["tcp", "unix"] {
            talk(&mut self.daemon.connect(name));
        }
    }
}

/// Sends all of `question` and the end while it reads the answer to its end.
fn exchange(wire: &mut Socket, question: &[u8]) -> Vec<u8> {
    std::thread::scope(|scope| {
        let mut writer = wire.try_clone().expect("a descriptor");
        scope.spawn(move || {
            writer.write_all(question).expect("sent");
            writer.shutdown(Shutdown::Write).expect("ended");
        });
        rest(wire)
    })
}

/// A read ends where urgent data begins. All of this is there before the daemon looks, so nothing
/// but its own memory makes it read on.
#[test]
fn urgent_data_keeps_its_place_and_holds_nothing_up() {
    let daemon = Daemon::start(&listener("upper", "upper", ""));
    let mut wire = daemon.connect("upper");
    assert_eq!(ask(&mut wire, b"hello"), b"HELLO");
    daemon.signal("STOP");
    wire.write_all(b"before").expect("sent");
    assert_eq!(wire.send_out_of_band(b"!").expect("sent"), 1);
    wire.write_all(b"behind").expect("sent");
    daemon.signal("CONT");
    assert_eq!(receive(&mut wire, 13), b"BEFORE!BEHIND");
}

/// A read ends where descriptors were passed, although nobody here takes them.
#[test]
fn passed_descriptors_hold_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("unix://{}", folder.path().join("socket").display());
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = format!("to = 'tcp://{}'", target.local_addr().expect("bound"));
    let daemon = Daemon::start(&listener_at(&address, "relay", "forward", &to));
    let mut wire = daemon.connect("relay");
    let (stream, _) = target.accept().expect("called");
    let mut far = Socket::from(stream);
    far.set_read_timeout(Some(PATIENCE)).expect("an option");
    wire.write_all(b"hello").expect("sent");
    assert_eq!(receive(&mut far, 5), b"hello");
    daemon.signal("STOP");
    let descriptor = [wire.as_raw_fd()];
    let message = [IoSlice::new(b"before")];
    let passed = [ControlMessage::ScmRights(&descriptor)];
    sendmsg::<()>(wire.as_raw_fd(), &message, &passed, MsgFlags::empty(), None).expect("sent");
    wire.write_all(b"behind").expect("sent");
    daemon.signal("CONT");
    assert_eq!(receive(&mut far, 12), b"beforebehind");
}

#[test]
fn upper_answers_every_byte() {
    let question = noise(300_000, 1);
    Both::start("upper", "").each(|wire| {
        assert_eq!(ask(wire, "straße".as_bytes()), "STRAßE".as_bytes());
        assert!(exchange(wire, &question) == question.to_ascii_uppercase());
    });
}

#[test]
fn echo_answers_every_byte() {
    let question = noise(8 << 20, 2);
    Both::start("echo", "").each(|wire| assert!(exchange(wire, &question) == question));
}

#[test]
fn the_end_alone_is_answered_with_the_end() {
    for service in ["upper", "echo", "discard", "time"] {
        Both::start(service, "").each(|wire| assert_eq!(exchange(wire, b""), b"", "{service}"));
    }
}

#[test]
fn discard_takes_everything_and_says_nothing() {
    let both = Both::start("discard", "");
    both.each(|wire| assert_eq!(exchange(wire, &noise(2 << 20, 3)), b""));
    both.daemon.wait_for_lines("received=2097152 sent=0 ", 2);
}

#[test]
fn once_strips_and_answers_one_message() {
    let long = [b" ".repeat(10), b"y".repeat(1014), b"never read".to_vec()].concat();
    let cases: [(&[u8], &[u8]); 7] = [
        (b"hello\n", b"HELLO"),
        (b" \t\r\n\x0b\x0chello you \n\n", b"HELLO YOU"),
        (b"   \n", b""),
        ("grüße\n".as_bytes(), "GRüßE".as_bytes()),
        (b"\xff\xfe ok", b"\xff\xfe OK"),
        (&long, &[b'Y'; 1014]),
        (b"", b""),
    ];
    let both = Both::start("once", "");
    for (message, answer) in cases {
        both.each(|wire| {
            wire.write_all(message).expect("sent");
            if message.is_empty() {
                wire.shutdown(Shutdown::Write).expect("ended");
            }
            assert_eq!(text(&rest(wire)), text(answer));
        });
    }
    let lines = both.daemon.wait_for_lines("message listener=tcp peer=127.0.0.1:", cases.len());
    assert!(lines[0].ends_with(r#"text="hello\n""#), "{}", lines[0]);
    assert!(lines[4].ends_with(r#"text="\xff\xfe ok""#), "{}", lines[4]);
    both.daemon.wait_for_lines("message listener=unix peer=unix(pid=", cases.len());
}

#[test]
fn what_is_sent_after_the_message_does_not_spoil_the_answer() {
    // The answer and the end must arrive although more input does: a reset would overtake them.
    for service in ["once", "greet"] {
        Both::start(service, "").each(|wire| {
            wire.write_all(b"first").expect("sent");
            let answer = match service {
                "once" => b"FIRST",
                _ => &"亲,学会了吗".as_bytes()[..5],
            };
            assert_eq!(receive(wire, 5), answer);
            for _ in 0..50 {
                wire.write_all(&[b'x'; 4096]).expect("the other side still listens");
            }
            assert!(rest(wire).len() < 16, "the rest of the answer, and the end");
        });
    }
}

#[test]
fn greet_and_reply_answer_any_message_with_their_text() {
    let cases = [
        ("greet", "", "亲,学会了吗"),
        ("reply", "text = 'a text\twith a tab'", "a text\twith a tab"),
    ];
    for (service, more, answer) in cases {
        let both = Both::start(service, more);
        for message in [&b"hello"[..], &[0xff; 1024], &[b'x'; 3000], b"\n"] {
            both.each(|wire| {
                wire.write_all(message).expect("sent");
                assert_eq!(text(&rest(wire)), answer);
            });
        }
        both.each(|wire| assert_eq!(text(&exchange(wire, b"")), answer, "to the end alone"));
    }
}

#[test]
fn nobody_is_greeted_before_a_word() {
    let both = Both::start("greet", "");
    both.each(|wire| {
        wire.set_nonblocking(true).expect("an option");
        // A whole conversation later, the first connection has still heard nothing.
        assert_eq!(text(&exchange(&mut both.daemon.connect("tcp"), b"hi")), "亲,学会了吗");
        let outcome = wire.read(&mut [0; 1]);
        assert!(outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    });
}

#[test]
fn time_answers_each_message_and_end_ends_it() {
    let both = Both::start("time", "");
    for end in [&b"END"[..], b"END\n", b"END\r\n"] {
        both.each(|wire| {
            for message in [&b"GET TIME"[..], b"what time is it?", b"\xff\xfe", b"end", b"END?"] {
                wire.write_all(message).expect("sent");
                let answer = receive(wire, 24);
                assert_eq!(answer, ctime_like(&answer));
            }
            wire.write_all(end).expect("sent");
            assert_eq!(rest(wire), b"");
        });
    }
}

/// `answer`, if it has the form of `Sun Mar  1 12:09:16 2015`; else what that form is.
fn ctime_like(answer: &[u8]) -> &[u8] {
    let form = b"Aaa Aaa _9 99:99:99 9999";
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'A' => byte.is_ascii_uppercase(),
        b'a' => byte.is_ascii_lowercase(),
        b'_' => matches!(byte, b' ' | b'1'..=b'3'),
        b'9' => byte.is_ascii_digit(),
        other => byte == other,
    };
    let is_like = answer.len() == form.len() && answer.iter().zip(form).all(fits);
    if is_like { answer } else { form }
}

#[test]
fn time_is_that_of_the_zone() {
    let zones = [("UTC0", 0), ("XXX-5:30", 5 * 60 + 30), ("YYY+9", -9 * 60)];
    for (zone, minutes) in zones {
        let mut command = common::turnstile(&["serve", "-c", "-"]);
        command.env("TZ", zone);
        let daemon = Daemon::launch(command, &listener("time", "time", ""));
        let mut wire = daemon.connect("time");
        let before = jiff::Timestamp::now();
        wire.write_all(b"now?").expect("sent");
        let answer = text(&receive(&mut wire, 24));
        let after = jiff::Timestamp::now();
        let offset = jiff::tz::Offset::from_seconds(minutes * 60).expect("in range");
        let local =
            jiff::civil::DateTime::strptime("%a %b %e %H:%M:%S %Y", &answer).expect(&answer);
        let told = offset.to_timestamp(local).expect("in range");
        let second = jiff::SignedDuration::from_secs(1);
        assert!(before - second <= told && told <= after, "{zone}: {answer}");
    }
}

#[test]
fn daytime_says_the_time_unasked_and_closes() {
    Both::start("daytime", "").each(|wire| {
        let answer = rest(wire);
        assert!(answer.ends_with(b"\r\n"), "{}", text(&answer));
        assert_eq!(&answer[..24], ctime_like(&answer[..24]));
        assert_eq!(answer.len(), 26);
    });
}

#[test]
fn chargen_turns_the_characters_round_for_ever() {
    // RFC 864: 72 of the 95 printable characters a line, each line one further on.
    let printable: Vec<u8> = (b' '..=b'~').collect();
    let line = |number: usize| -> Vec<u8> {
        let characters = printable.iter().cycle().skip(number % 95).take(72);
        characters.copied().chain(*b"\r\n").collect()
    };
    let expected: Vec<u8> = (0..3000).flat_map(line).collect();
    Both::start("chargen", "").each(|wire| {
        wire.write_all(b"input does not matter").expect("sent");
        assert!(receive(wire, expected.len()) == expected);
    });
}

#[test]
fn half_close_leaves_the_other_direction_open() {
    Both::start("chargen", "").each(|wire| {
        wire.shutdown(Shutdown::Write).expect("ended");
        let pattern = receive(wire, 1 << 20);
        assert_eq!(&pattern[..4], b" !\"#");
    });
}

#[test]
fn an_unix_peer_is_named_by_its_process() {
    let both = Both::start("echo", "");
    let mut wire = both.daemon.connect("unix");
    assert_eq!(ask(&mut wire, b"who am I?"), b"who am I?");
    drop(wire);
    let peer = format!("peer=unix(pid={},uid=", std::process::id());
    both.daemon.wait_for_line(&format!("closed listener=unix {peer}"));
}

/// Runs one of the tutorials' clients against a listener of `daemon`; `None` without Python.
fn seed(script: &str, arguments: &[&str], input: &str) -> Option<Output> {
    if !has_program("python3") {
        return None;
    }
    let mut command = Command::new("python3");
    command.arg(test_file("seeds").join(script)).args(arguments).env("PYTHONIOENCODING", "utf-8");
    let output = run(&mut command, input.as_bytes());
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    Some(output)
}

fn host_and_port(daemon: &Daemon, listener: &str) -> [String; 2] {
    let address = daemon.socket_address(listener);
    [address.ip().to_string(), address.port().to_string()]
}

#[test]
fn the_gate_client_of_the_tutorials_comes_in() {
    let gate = listener("gate", "upper", "auth = 'hmac-md5'");
    let daemon = Daemon::start(&format!("{DEMO_SECRET}{gate}"));
    let [host, port] = host_and_port(&daemon, "gate");
    let input = "hello\n\n   \n  grüße, 亲!  \nquit\nnever sent\n";
    let Some(output) = seed("gate_client.py", &[&host, &port, "Jedan has a big key!"], input)
    else {
        return;
    };
    assert_eq!(text(&output.stdout), ">>: HELLO\n>>: >>: >>: GRüßE, 亲!\n>>: ");
    daemon.wait_for_line("identity=demo");
    let output = seed("gate_client.py", &[&host, &port, "a wrong secret"], "hello\n");
    let said = text(&output.expect("as before").stdout);
    assert_eq!(said, ">>: the server closed the connection\n");
}

#[test]
fn the_one_shot_clients_of_the_tutorials_are_answered() {
    let daemon = Daemon::start(&(listener("once", "once", "") + &listener("greet", "greet", "")));
    let cases = [
        ("once", "hello", "HELLO"),
        ("once", "  two words ", "TWO WORDS"),
        ("greet", "hello", "亲,学会了吗"),
    ];
    for (service, message, answer) in cases {
        let [host, port] = host_and_port(&daemon, service);
        let Some(output) = seed("once_client.py", &[&host, &port, message], "") else { return };
        let expected = format!("Sent:     {message}\nReceived: {answer}\n");
        assert_eq!(text(&output.stdout), expected);
    }
}

#[test]
fn the_time_client_of_the_tutorials_is_told_the_time() {
    let daemon = Daemon::start(&listener("time", "time", ""));
    let [host, port] = host_and_port(&daemon, "time");
    let input = format!("{host}\n{port}\ny\nagain\ny\nEND\n");
    let Some(output) = seed("time_client.py", &[], &input) else { return };
    let said = text(&output.stdout);
    let questions = "Enter hostname [localhost]: Enter port [12345]: ";
    let answers = said.strip_prefix(questions).expect(&said);
    for answer in answers.split("Send more? [y/N]: ").take(2) {
        let time = answer.trim_start_matches("Message: ").trim_end().as_bytes();
        assert_eq!(time, ctime_like(time), "{said}");
    }
}

#[test]
fn the_datagram_client_of_the_tutorials_is_answered() {
    let text_of_it = "text = 'UDP server sending data'";
    let daemon = Daemon::start(&listener_at("udp://127.0.0.1:0", "udp", "reply", text_of_it));
    let [host, port] = host_and_port(&daemon, "udp");
    let Some(output) = seed("udp_client.py", &[&host, &port], "") else { return };
    let expected = format!("{host}:{port} UDP server sending data\n");
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn clients_at_any_pace_do_not_block_one_another() {
    let daemon = Daemon::start(&listener("any-port", "upper", ""));
    assert_ne!(daemon.socket_address("any-port").port(), 0, "the log says which port it is");
    let [host, port] = host_and_port(&daemon, "any-port");
    let Some(output) = seed("crowd_client.py", &[&host, &port, "100"], "") else { return };
    assert_eq!(text(&output.stdout), "100 served while 100 were silent\n");
}

#[test]
fn a_service_that_is_done_lets_go_of_a_peer_that_is_not() {
    let more = "[listener.timeouts]\nhalf_close = '200ms'";
    let both = Both::start("once", more);
    for name in ["tcp", "unix"] {
        let mut wire = both.daemon.connect(name);
        wire.write_all(b"hello").expect("sent");
        assert_eq!(rest(&mut wire), b"HELLO");
        let line = both.daemon.wait_for_line(&format!("closed listener={name}"));
        assert!(line.contains("the peer did not take the last bytes and close in time"), "{line}");
        // It has closed its side for reading too, so more input is answered with a reset.
        let written = (0..100).map(|_| wire.write(b"x"));
        assert!(written.into_iter().any(|outcome| outcome.is_err()), "{name}");
    }
}
