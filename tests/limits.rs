//! What nobody can take from the others: places, descriptors, memory, turns of the loop.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use common::{
    DEMO, DEMO_SECRET, Daemon, PATIENCE, ask, has_program, is_closed_silently, listener,
    listener_at, md5_answer, pass_gate, receive, reset, rest, traced, uninterrupted,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// A figure of the line that the daemon ends with.
fn count(daemon: &mut Daemon, name: &str) -> u64 {
    if daemon.lines("stopped ").is_empty() {
        daemon.signal("TERM");
        daemon.signal("INT");
        assert!(daemon.wait().success());
    }
    let line = daemon.wait_for_line("stopped ");
    let (_, figure) = line.split_once(&format!("{name}=")).expect(&line);
    figure.split(' ').next().expect("a word").parse().expect(&line)
}

#[test]
fn no_more_connections_than_allowed() {
    let limits = "[limits]\nconnections = 3\n";
    let mut daemon = Daemon::start(&format!("{limits}{}", listener("echo", "echo", "")));
    let mut inside: Vec<_> = (0..3).map(|_| daemon.connect("echo")).collect();
    for wire in &mut inside {
        assert_eq!(ask(wire, b"in"), b"in");
    }
    for _ in 0..5 {
        assert!(is_closed_silently(&mut daemon.connect("echo")));
    }
    daemon.wait_for_line("the limit of 3 connections is reached (limits.connections)");
    inside.pop();
    daemon.wait_for_line("closed listener=echo");
    inside.push(daemon.connect("echo"));
    for wire in &mut inside {
        assert_eq!(ask(wire, b"still in"), b"still in");
    }
    assert_eq!(count(&mut daemon, "over_limit"), 5);
    assert_eq!(count(&mut daemon, "accepted"), 4);
}

#[test]
fn no_more_connections_of_one_address_than_allowed() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix://{}", folder.path().join("socket").display());
    let mut daemon = Daemon::start(&format!(
        "[limits]\nconnections_per_ip = 2\n{}{}{}",
        listener("echo", "echo", ""),
        listener("other", "echo", ""),
        listener_at(&unix, "unix", "echo", "")
    ));
    let mut one = daemon.connect_from([127, 0, 0, 1], "echo");
    let mut two = daemon.connect_from([127, 0, 0, 1], "other");
    assert_eq!((ask(&mut one, b"1"), ask(&mut two, b"2")), (b"1".to_vec(), b"2".to_vec()));
    for name in ["echo", "other"] {
        assert!(is_closed_silently(&mut daemon.connect_from([127, 0, 0, 1], name)));
    }
    daemon.wait_for_line("its address has 2 connections already (limits.connections_per_ip)");
    let mut others = [daemon.connect_from([127, 0, 0, 2], "echo"), daemon.connect("unix")];
    others.iter_mut().for_each(|wire| assert_eq!(ask(wire, b"other"), b"other"));
    drop(one);
    daemon.wait_for_line("closed listener=echo");
    assert_eq!(ask(&mut daemon.connect_from([127, 0, 0, 1], "other"), b"again"), b"again");
    assert_eq!(count(&mut daemon, "over_ip_limit"), 2);
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let mut command = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_turnstile");
    command.args(["-c", "ulimit -n 40; exec \"$0\" serve -c -", program]);
    let mut daemon = Daemon::launch(command, &listener("echo", "echo", ""));
    daemon.wait_for_line("this process may open only 40;");
    let start = Instant::now();
    let mut wires: Vec<_> = (0..60).map(|_| daemon.connect("echo")).collect();
    wires.iter_mut().for_each(|wire| wire.write_all(b"hello").expect("sent"));
    assert_eq!(receive(&mut wires[0], 5), b"hello");
    daemon.wait_for_line("accepting pauses: ");
    // The loop wakes once for each pause of a tenth of a second; so many wakes are two seconds.
    let ticks = daemon.processor_ticks();
    let wakes = voluntary_switches(&daemon);
    while voluntary_switches(&daemon) < wakes + 20 {
        assert!(start.elapsed() < PATIENCE, "nothing tries to accept again");
        thread::yield_now();
    }
    assert_eq!(daemon.lines("accepting pauses: ").len(), 1, "a pause that goes on is told once");
    let spent = daemon.processor_ticks() - ticks;
    assert!(spent < 50, "{spent} hundredths of a second, while it had nothing to do");
    assert_eq!(ask(&mut wires[0], b"those inside"), b"those inside");
    // Each that leaves makes room for one that waits, and all get their answer.
    drop(wires.remove(0));
    for mut wire in wires {
        assert_eq!(receive(&mut wire, 5), b"hello");
    }
    let tenths = start.elapsed().as_millis() as u64 / 100;
    let pauses = count(&mut daemon, "accept_pauses");
    assert!((19..=tenths + 2).contains(&pauses), "{pauses} pauses in {tenths} tenths of a second");
    assert_eq!(count(&mut daemon, "accepted"), 60);
}

#[test]
fn whoever_takes_the_last_descriptor_gives_no_reason_to_pause() {
    if !has_program("prlimit") {
        return;
    }
    let echo = Daemon::start(&listener("echo", "echo", ""));
    let to = format!("to = 'tcp://{}'\n", echo.socket_address("echo"));
    for (service, more, each) in [("echo", "", 1), ("forward", &*to, 2)] {
        let mut daemon = Daemon::start(&listener("door", service, more));
        let mut first = daemon.connect("door");
        assert_eq!(ask(&mut first, b"first"), b"first");
        let descriptors = daemon.descriptors();
        daemon.allow_more_descriptors(each);
        let mut last = daemon.connect("door");
        assert_eq!(ask(&mut last, b"last"), b"last");
        assert_eq!(daemon.descriptors(), descriptors + each, "{service}: none is left");
        drop((first, last));
        assert_eq!(count(&mut daemon, "accept_pauses"), 0, "{service}: nobody waits");
    }
}

/// How often a daemon has gone to sleep by itself.
fn voluntary_switches(daemon: &Daemon) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line =
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).expect("told");
    line.split_whitespace().last().and_then(|count| count.parse().ok()).expect("a number")
}

/// Writes without reading until nothing more is taken.
fn stuff(wire: &Socket) {
    wire.set_nonblocking(true).expect("an option");
    let mut writer = wire;
    loop {
        match writer.write(&[b'x'; 65536]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn those_who_never_read_cost_a_bounded_buffer() {
    const CROWD: usize = 60;
    let daemon = Daemon::start(&format!(
        "{}{}{}",
        listener("echo", "echo", ""),
        listener("chargen", "chargen", ""),
        listener("upper", "upper", "")
    ));
    let mut polite = daemon.connect("echo");
    assert_eq!(ask(&mut polite, b"first"), b"first");
    let (descriptors, before) = (daemon.descriptors(), daemon.resident_kib());
    let mut deaf: Vec<_> = (0..CROWD).map(|_| daemon.connect("chargen")).collect();
    deaf.extend((0..CROWD).map(|_| daemon.connect("upper")));
    for _ in 0..3 {
        deaf[CROWD..].iter().for_each(stuff);
        for _ in 0..100 {
            assert_eq!(ask(&mut polite, b"meanwhile"), b"meanwhile");
        }
    }
    let buffers = (CROWD + 2 * CROWD) * 64;
    let grown = daemon.resident_kib().saturating_sub(before);
    assert!(grown < buffers + 8192, "{grown} KiB for {buffers} KiB of buffers");
    drop(deaf);
    daemon.wait_for_lines("closed listener=", 2 * CROWD);
    assert_eq!(daemon.descriptors(), descriptors);
    let left = daemon.resident_kib().saturating_sub(before);
    assert!(left < 64 * 64 + 8192, "{left} KiB are left, where 64 blocks of 64 KiB are kept");
}

#[test]
fn half_a_request_costs_no_more_than_its_bytes() {
    const CROWD: usize = 400;
    // Nobody answers there, so the relay keeps what its peers say until the call is given up.
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    silent.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("an address");
    silent.listen(0).expect("a backlog");
    let to = silent.local_addr().ok().and_then(|it| it.as_socket()).expect("bound");
    let daemon = Daemon::start(&format!(
        "{}{}{}",
        listener("exit", "connect", "targets = ['127.0.0.1:9']"),
        listener("relay", "forward", &format!("to = 'tcp://{to}'")),
        listener("echo", "echo", "")
    ));
    let mut polite = daemon.connect("echo");
    assert_eq!(ask(&mut polite, b"first"), b"first");
    let before = daemon.resident_kib();
    let mut crowd = Vec::new();
    for name in ["exit", "relay"] {
        for _ in 0..CROWD / 2 {
            let mut wire = daemon.connect(name);
            wire.write_all(b"CONNECT 1").expect("sent");
            crowd.push(wire);
        }
    }
    for _ in 0..CROWD {
        assert_eq!(ask(&mut polite, b"meanwhile"), b"meanwhile");
    }
    let grown = daemon.resident_kib().saturating_sub(before);
    assert!(grown < CROWD * 16, "{grown} KiB for {CROWD} peers that sent nine bytes each");
    drop(crowd);
}

#[test]
fn those_who_never_read_are_idle_in_the_end() {
    let timeouts = "[listener.timeouts]\nidle = '300ms'";
    let daemon = Daemon::start(&(listener("chargen", "chargen", timeouts)));
    let deaf = daemon.connect("chargen");
    let line = daemon.wait_for_line("closed listener=chargen");
    assert!(line.contains("nothing was sent or received for too long"), "{line}");
    drop(deaf);
}

#[test]
fn streams_at_full_speed_starve_nobody() {
    const ANSWERS: usize = 300;
    const ENOUGH: u64 = 1 << 20;
    let daemon =
        Daemon::start(&(listener("chargen", "chargen", "") + &listener("echo", "echo", "")));
    let (enough, streamed) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut wire = daemon.connect("chargen");
            let (enough, streamed) = (&enough, &streamed);
            scope.spawn(move || {
                let mut space = vec![0; 1 << 18];
                while !enough.load(Ordering::Relaxed) {
                    let count = uninterrupted(|| wire.read(&mut space)).expect("more");
                    streamed.fetch_add(count as u64, Ordering::Relaxed);
                }
            });
        }
        let outcome = thread::scope(|inner| {
            inner
                .spawn(|| {
                    let mut wire = daemon.connect("echo");
                    let (start, mut answers) = (Instant::now(), 0);
                    // The streams have their turns between, however fast the answers are.
                    while answers < ANSWERS || streamed.load(Ordering::Relaxed) <= ENOUGH {
                        assert!(start.elapsed() < PATIENCE, "the streams wait for the answers");
                        assert_eq!(ask(&mut wire, b"my turn?"), b"my turn?");
                        answers += 1;
                    }
                })
                .join()
        });
        enough.store(true, Ordering::Relaxed);
        outcome.expect("every answer came");
    });
}

#[test]
fn the_lifetime_ends_even_what_is_busy() {
    let timeouts = "[listener.timeouts]\nlifetime = '500ms'";
    let daemon = Daemon::start(&listener("echo", "echo", timeouts));
    let mut wire = daemon.connect("echo");
    let mut space = [0; 4];
    while wire.write_all(b"busy").is_ok() && wire.read(&mut space).is_ok_and(|count| count > 0) {}
    let line = daemon.wait_for_line("closed listener=echo");
    assert!(line.contains("the connection reached its greatest age"), "{line}");
}

#[test]
fn a_silent_half_closed_connection_is_closed() {
    let timeouts = "[listener.timeouts]\nhalf_close = '200ms'";
    let daemon = Daemon::start(&listener("chargen", "chargen", timeouts));
    let wire = daemon.connect("chargen");
    wire.shutdown(std::net::Shutdown::Write).expect("ended");
    let line = daemon.wait_for_line("closed listener=chargen");
    assert!(line.contains("one side had ended and the other was silent for too long"), "{line}");
}

#[test]
fn accepting_that_only_fails_is_given_a_rest() {
    // So does a security module that forbids it: the connection goes on waiting, and is reported.
    let failing = "inject=accept4:error=EPERM:when=1..128";
    let options = ["-o", "/dev/null", "-e", "trace=accept4", "-e", failing];
    let Some(command) = traced(&options) else { return };
    let mut daemon = Daemon::launch(command, &listener("echo", "echo", ""));
    let mut wire = daemon.connect("echo");
    assert_eq!(ask(&mut wire, b"at last"), b"at last");
    assert_eq!(count(&mut daemon, "accept_failures"), 128);
    assert_eq!(count(&mut daemon, "accept_pauses"), 2, "one after each batch of them");
}

#[test]
fn a_flood_of_those_who_stop_at_the_gate_leaves_nothing_behind() {
    const FLOOD: usize = 800;
    let gate = listener("gate", "upper", "auth = 'hmac-md5'\n[listener.timeouts]\nauth = '1s'");
    let mut daemon = Daemon::start(&format!("{DEMO_SECRET}{gate}{}", listener("echo", "echo", "")));
    let mut polite = daemon.connect("echo");
    assert_eq!(ask(&mut polite, b"first"), b"first");
    let (descriptors, before) = (daemon.descriptors(), daemon.resident_kib());
    let mut flood: Vec<_> = (0..FLOOD).map(|_| daemon.connect("gate")).collect();
    let mut admitted = daemon.connect("gate");
    pass_gate(&mut admitted, DEMO);
    assert_eq!(ask(&mut admitted, b"in spite of them"), b"IN SPITE OF THEM");
    assert_eq!(ask(&mut polite, b"meanwhile"), b"meanwhile");
    for wire in &mut flood {
        assert_eq!(rest(wire).len(), 32, "a challenge, and in time the end");
    }
    drop(admitted);
    daemon.wait_for_line("closed listener=gate");
    assert_eq!(daemon.descriptors(), descriptors);
    let left = daemon.resident_kib().saturating_sub(before);
    assert!(left < 4096, "{left} KiB are left of {FLOOD} connections");
    assert_eq!(count(&mut daemon, "refused_at_gate"), FLOOD as u64);
    // Twenty lines a second, over the second or two that it took, and a count of the others.
    let lines = daemon.lines("the challenge was not answered in time").len();
    assert!((1..FLOOD / 4).contains(&lines), "{lines} lines");
}

#[test]
fn a_flood_of_wrong_answers_becomes_a_few_lines() {
    const FLOOD: usize = 1000;
    let gate = listener("gate", "upper", "auth = 'hmac-md5'");
    let mut daemon = Daemon::start(&format!("{DEMO_SECRET}{gate}"));
    let start = Instant::now();
    for _ in 0..FLOOD {
        let mut wire = daemon.connect("gate");
        receive(&mut wire, 32);
        wire.write_all(&[0; 16]).expect("sent");
        assert!(is_closed_silently(&mut wire));
    }
    let seconds = start.elapsed().as_secs() as usize;
    assert_eq!(count(&mut daemon, "refused_at_gate"), FLOOD as u64);
    let lines = daemon.lines("refused listener=gate").len();
    assert!(lines <= 20 * (seconds + 2), "{lines} lines in {seconds} seconds");
}

#[test]
fn only_who_comes_to_the_gate_and_does_not_pass_it_is_refused_there() {
    let auth = "auth = 'hmac-md5'\n";
    let tls = "[listener.tls]\ncert = 'built-in:server'\nkey = 'built-in:server-key'\n";
    let mut daemon = Daemon::start(&format!(
        "{DEMO_SECRET}{}{}",
        listener("gate", "upper", auth),
        listener("tls", "upper", &format!("{auth}{tls}"))
    ));
    let asked = |daemon: &Daemon| {
        let mut wire = daemon.connect("gate");
        receive(&mut wire, 32);
        wire
    };
    asked(&daemon).write_all(&[0; 16]).expect("a wrong answer");
    drop(asked(&daemon));
    reset(asked(&daemon));
    asked(&daemon).write_all(&[0; 5]).expect("a part of one");
    let mut unsecured = daemon.connect("tls");
    unsecured.write_all(b"this is no TLS").expect("sent");
    let _alert = rest(&mut unsecured);
    drop(unsecured);
    let mut hesitant = daemon.connect("tls");
    hesitant.write_all(b"\x16\x03\x01").expect("sent");
    drop(hesitant);
    drop(daemon.connect("tls"));
    reset(daemon.connect("tls"));
    let mut admitted = daemon.connect("gate");
    pass_gate(&mut admitted, DEMO);
    assert_eq!(ask(&mut admitted, b"in"), b"IN");
    drop(admitted);
    daemon.wait_for_lines("refused listener=gate", 2);
    daemon.wait_for_lines("refused listener=tls", 2);
    daemon.wait_for_line("closed listener=gate");
    let _stopped_there = asked(&daemon);
    assert_eq!(count(&mut daemon, "refused_at_gate"), 2);
    let counts = daemon.wait_for_line("the program was stopped");
    assert!(counts.contains(" closed listener=gate"), "it was not refused: {counts}");
    let counts = daemon.wait_for_line("stopped ");
    assert!(counts.contains(" refused_by_tls=2 "), "{counts}");
    assert!(counts.contains(" silent=4 "), "those who said nothing: {counts}");
    assert_eq!(daemon.lines("refused ").len(), 4);
}

#[test]
fn a_reset_is_survived_in_every_state() {
    let gate = |name, service| listener(name, service, "auth = 'hmac-md5'");
    let daemon = Daemon::start(&format!(
        "{DEMO_SECRET}{}{}{}{}",
        gate("upper", "upper"),
        gate("chargen", "chargen"),
        listener("once", "once", ""),
        listener("echo", "echo", "")
    ));
    let mut polite = daemon.connect("echo");
    assert_eq!(ask(&mut polite, b"first"), b"first");
    let descriptors = daemon.descriptors();
    for _ in 0..30 {
        for state in
            [at_once, asked, in_the_answer, admitted, in_the_middle, with_full_pipes, closing]
        {
            reset(state(&daemon));
        }
        assert_eq!(ask(&mut polite, b"next"), b"next");
    }
    daemon.turn_until("echo", "the descriptors to come back", |daemon| {
        daemon.descriptors() <= descriptors + 1
    });
    daemon.wait_for_line("state=AuthPending");
    daemon.wait_for_lines("state=Established", 3 * 30);
    daemon.wait_for_lines("state=Closing", 30);
}

/// Whoever gets a part of a stream and then its end would take it for the whole.
#[test]
fn what_a_deadline_cuts_off_in_a_relay_is_reset_at_both_sides() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = target.local_addr().expect("bound");
    let more = format!("to = 'tcp://{address}'\n[listener.timeouts]\nidle = '200ms'");
    let daemon = Daemon::start(&listener("relay", "forward", &more));
    let mut near = daemon.connect("relay");
    let (stream, _) = target.accept().expect("called");
    let mut far = Socket::from(stream);
    far.set_read_timeout(Some(PATIENCE)).expect("an option");
    far.write_all(b"a part").expect("sent");
    assert_eq!(receive(&mut near, 6), b"a part");
    for mut wire in [near, far] {
        let error = uninterrupted(|| wire.read(&mut [0; 1])).expect_err("cut off");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// After its end nothing more is read from a peer, and to one that is not answered nothing is
/// written: neither would tell that it has gone.
#[test]
fn a_reset_after_the_end_is_passed_on() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = target.local_addr().expect("bound");
    let more = format!("to = 'tcp://{address}'\n[listener.timeouts]\nhalf_close = '0s'");
    let daemon = Daemon::start(&listener("relay", "forward", &more));
    let mut wire = daemon.connect("relay");
    wire.write_all(b"question").expect("sent");
    wire.shutdown(std::net::Shutdown::Write).expect("ended");
    let (stream, _) = target.accept().expect("called");
    let mut far = Socket::from(stream);
    far.set_read_timeout(Some(PATIENCE)).expect("an option");
    assert_eq!(rest(&mut far), b"question");
    reset(wire);
    daemon.wait_for_line("reason=\"the connection failed: broken pipe\"");
    let error = far.write_all(b"answer").and_then(|()| far.write_all(b"answer"));
    assert!(error.is_err(), "the target hears of it too");
}

fn at_once(daemon: &Daemon) -> Socket {
    daemon.connect("upper")
}

fn asked(daemon: &Daemon) -> Socket {
    let mut wire = daemon.connect("upper");
    receive(&mut wire, 32);
    wire
}

fn in_the_answer(daemon: &Daemon) -> Socket {
    let mut wire = daemon.connect("upper");
    let answer = md5_answer(DEMO, &receive(&mut wire, 32));
    wire.write_all(&answer[..7]).expect("sent");
    wire
}

fn admitted(daemon: &Daemon) -> Socket {
    let mut wire = daemon.connect("upper");
    pass_gate(&mut wire, DEMO);
    assert_eq!(ask(&mut wire, b"in"), b"IN");
    wire
}

fn in_the_middle(daemon: &Daemon) -> Socket {
    let mut wire = admitted(daemon);
    wire.write_all(&[b'x'; 10_000]).expect("sent");
    receive(&mut wire, 5);
    wire
}

fn with_full_pipes(daemon: &Daemon) -> Socket {
    let mut wire = daemon.connect("chargen");
    pass_gate(&mut wire, DEMO);
    receive(&mut wire, 200_000);
    wire
}

fn closing(daemon: &Daemon) -> Socket {
    let mut wire = daemon.connect("once");
    wire.write_all(b"done").expect("sent");
    assert_eq!(rest(&mut wire), b"DONE");
    wire
}

#[test]
fn a_flood_of_connections_that_are_gone_at_once_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = folder.path().join("socket");
    let address = format!("unix://{}", unix.display());
    let daemon = Daemon::start(&format!(
        "{DEMO_SECRET}{}{}{}",
        listener("gate", "upper", "auth = 'hmac-md5'"),
        listener_at(&address, "unix", "upper", "auth = 'hmac-md5'"),
        listener("echo", "echo", "")
    ));
    let mut polite = daemon.connect("echo");
    assert_eq!(ask(&mut polite, b"first"), b"first");
    let (descriptors, before) = (daemon.descriptors(), daemon.resident_kib());
    let gate: SockAddr = daemon.socket_address("gate").into();
    let unix = SockAddr::unix(&unix).expect("a short path");
    for number in 0..3000 {
        let (domain, address) =
            if number % 2 == 0 { (Domain::IPV4, &gate) } else { (Domain::UNIX, &unix) };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a descriptor");
        socket.connect(address).expect("somebody listens");
        if number % 3 == 0 {
            reset(socket);
        }
    }
    daemon.turn_until("echo", "the descriptors to come back", |daemon| {
        daemon.descriptors() <= descriptors + 1
    });
    let left = daemon.resident_kib().saturating_sub(before);
    assert!(left < 4096, "{left} KiB are left of 3,000 connections");
    assert_eq!(ask(&mut polite, b"last"), b"last");
}
