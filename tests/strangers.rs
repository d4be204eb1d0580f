//! What strangers cannot do, who only come and stay: keep out those who are let in.

mod common;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{
    DEMO, DEMO_SECRET, Daemon, ask, is_closed_silently, listener, md5_answer, pass_gate, receive,
};
use socket2::Socket;

const GATE: &str = "auth = 'hmac-md5'\n";
const TLS: &str = "[listener.tls]\ncert = 'built-in:server'\nkey = 'built-in:server-key'\n";
const PROXIED: &str = "proxy_protocol_from = ['127.0.0.0/8']\n";

/// A figure of the line that the daemon ends with.
fn count(mut daemon: Daemon, name: &str) -> usize {
    daemon.signal("TERM");
    daemon.signal("INT");
    assert!(daemon.wait().success());
    let line = daemon.wait_for_line("stopped ");
    let (_, figure) = line.split_once(&format!(" {name}=")).expect(&line);
    figure.split(' ').next().expect("a word").parse().expect(&line)
}

/// A stranger: one of ten addresses in turn.
fn stranger(daemon: &Daemon, listener: &str, number: usize) -> Socket {
    daemon.connect_from([127, 0, 1, 2 + (number % 10) as u8], listener)
}

/// Whether the daemon has closed this connection, whatever it said before.
fn has_gone(mut wire: &Socket) -> bool {
    wire.set_nonblocking(true).expect("an option");
    loop {
        match wire.read(&mut [0; 64]) {
            Ok(0) => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return true,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn silent_strangers_keep_nobody_out() {
    const PLACES: usize = 60;
    const STRANGERS: usize = 200;
    for (what, stage) in [("gate", GATE), ("tls", TLS), ("proxied", PROXIED)] {
        let daemon = Daemon::start(&format!(
            "[limits]\nconnections = {PLACES}\n{DEMO_SECRET}{}{}{}",
            listener("stage", "upper", stage),
            listener("gate", "upper", GATE),
            listener("echo", "echo", "")
        ));
        let mut polite = daemon.connect("echo");
        assert_eq!(ask(&mut polite, b"first"), b"first");
        let descriptors = daemon.descriptors();
        let strangers: Vec<_> =
            (0..STRANGERS).map(|number| stranger(&daemon, "stage", number)).collect();
        for _ in 0..10 {
            let mut honest = daemon.connect("gate");
            pass_gate(&mut honest, DEMO);
            assert_eq!(ask(&mut honest, b"in spite of them"), b"IN SPITE OF THEM", "{what}");
            let mut open = daemon.connect("echo");
            assert_eq!(ask(&mut open, b"me too"), b"me too", "{what}");
        }
        daemon.wait_for_line("it was not admitted yet and had to make room for another");
        assert_eq!(ask(&mut polite, b"and I am still here"), b"and I am still here");
        // Some may not even have been accepted yet.
        daemon.turn_until("echo", "those who made room to go", |daemon| {
            strangers.iter().filter(|it| has_gone(it)).count() >= STRANGERS - PLACES
                && daemon.descriptors() <= descriptors + PLACES
        });
        let made_room = count(daemon, "made_room");
        assert!(made_room >= STRANGERS - PLACES, "{what}: {made_room}");
        drop(strangers);
    }
}

/// Whether somebody who answers at once is let in.
fn gets_in(daemon: &Daemon) -> io::Result<bool> {
    let mut wire = daemon.connect("gate");
    let mut challenge = [0; 32];
    wire.read_exact(&mut challenge)?;
    wire.write_all(&[&md5_answer(DEMO, &challenge)[..], b"in"].concat())?;
    let mut answer = [0; 2];
    wire.read_exact(&mut answer)?;
    Ok(answer == *b"IN")
}

#[test]
fn a_flood_of_silent_strangers_keeps_nobody_out() {
    const FLOODERS: usize = 3;
    let limits = "[limits]\nconnections = 200\n";
    let daemon =
        Daemon::start(&format!("{limits}{DEMO_SECRET}{}", listener("gate", "upper", GATE)));
    let (enough, came) = (AtomicBool::new(false), AtomicUsize::new(0));
    let outcome = thread::scope(|scope| {
        for _ in 0..FLOODERS {
            scope.spawn(|| {
                let mut held = VecDeque::new();
                while !enough.load(Ordering::Relaxed) {
                    let number = came.fetch_add(1, Ordering::Relaxed);
                    held.push_back(stranger(&daemon, "gate", number));
                    if held.len() > 200 {
                        held.pop_front();
                    }
                }
            });
        }
        let honest = scope.spawn(|| {
            while came.load(Ordering::Relaxed) < 1000 {
                thread::yield_now();
            }
            (0..50).filter(|_| gets_in(&daemon).unwrap_or(false)).count()
        });
        let outcome = honest.join();
        enough.store(true, Ordering::Relaxed);
        outcome
    });
    let let_in = outcome.expect("the honest one has finished");
    // Whoever is thrown out once comes again: the next attempt is as good.
    assert!(let_in >= 25, "{let_in} of 50 were let in");
}

#[test]
fn one_address_does_not_take_every_place() {
    let limits = "[limits]\nconnections = 40\n";
    let daemon = Daemon::start(&format!("{limits}{}", listener("echo", "echo", "")));
    let mut many: Vec<_> = (0..38).map(|_| daemon.connect_from([127, 0, 0, 66], "echo")).collect();
    many.iter_mut().for_each(|wire| assert_eq!(ask(wire, b"one of many"), b"one of many"));
    assert!(is_closed_silently(&mut daemon.connect_from([127, 0, 0, 66], "echo")));
    daemon.wait_for_line("its address has 38 connections already (limits.connections_per_ip)");
    assert_eq!(ask(&mut daemon.connect("echo"), b"another"), b"another");
    assert_eq!(count(daemon, "over_ip_limit"), 1);
}

#[test]
fn an_address_that_has_all_its_places_at_the_gate_can_still_pass_it() {
    let limits = "[limits]\nconnections = 100\nconnections_per_ip = 3\n";
    let daemon =
        Daemon::start(&format!("{limits}{DEMO_SECRET}{}", listener("gate", "upper", GATE)));
    let _silent: Vec<_> = (0..10).map(|_| daemon.connect("gate")).collect();
    let mut served = Vec::new();
    for _ in 0..3 {
        let mut wire = daemon.connect("gate");
        pass_gate(&mut wire, DEMO);
        assert_eq!(ask(&mut wire, b"in"), b"IN");
        served.push(wire);
    }
    assert!(
        is_closed_silently(&mut daemon.connect("gate")),
        "nobody waits: it is as full as it may"
    );
    daemon.wait_for_line("its address has 3 connections already (limits.connections_per_ip)");
    served.iter_mut().for_each(|wire| assert_eq!(ask(wire, b"still in"), b"STILL IN"));
}

#[test]
fn who_is_admitted_makes_room_for_nobody() {
    let limits = "[limits]\nconnections = 4\nunauthenticated = 2\n";
    let daemon =
        Daemon::start(&format!("{limits}{DEMO_SECRET}{}", listener("gate", "upper", GATE)));
    let admitted = || {
        let mut wire = daemon.connect("gate");
        pass_gate(&mut wire, DEMO);
        assert_eq!(ask(&mut wire, b"in"), b"IN");
        wire
    };
    let mut served: Vec<_> = (0..3).map(|_| admitted()).collect();
    let mut waiting = daemon.connect("gate");
    receive(&mut waiting, 32);
    served.push(admitted());
    assert!(is_closed_silently(&mut waiting), "it made room for the fourth");
    assert!(is_closed_silently(&mut daemon.connect("gate")), "and now nobody waits");
    daemon.wait_for_line("the limit of 4 connections is reached (limits.connections)");
    served.iter_mut().for_each(|wire| assert_eq!(ask(wire, b"still in"), b"STILL IN"));
}

#[test]
fn a_proxy_that_speaks_for_itself_is_not_counted() {
    let limits = "[limits]\nconnections_per_ip = 1\n";
    let daemon = Daemon::start(&format!("{limits}{}", listener("echo", "echo", PROXIED)));
    let checks: Vec<_> = (0..5)
        .map(|_| {
            let mut wire = daemon.connect("echo");
            wire.write_all(b"PROXY UNKNOWN\r\n").expect("sent");
            assert_eq!(ask(&mut wire, b"are you well?"), b"are you well?");
            wire
        })
        .collect();
    drop(checks);
    daemon.wait_for_lines("closed listener=echo", 5);
    let announced = |number: u8| {
        let mut wire = daemon.connect("echo");
        let header = format!("PROXY TCP4 203.0.113.{number} 192.0.2.1 4660 443\r\n");
        wire.write_all(header.as_bytes()).expect("sent");
        wire
    };
    let mut first = announced(1);
    assert_eq!(ask(&mut first, b"one"), b"one");
    assert!(is_closed_silently(&mut announced(1)));
}

#[test]
fn strangers_do_not_keep_the_last_descriptors() {
    let mut command = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_turnstile");
    command.args(["-c", "ulimit -n 60; exec \"$0\" serve -c -", program]);
    let gate = listener("gate", "upper", GATE);
    let daemon = Daemon::launch(command, &format!("{DEMO_SECRET}{gate}"));
    let strangers: Vec<_> = (0..200).map(|number| stranger(&daemon, "gate", number)).collect();
    for _ in 0..10 {
        let mut honest = daemon.connect("gate");
        pass_gate(&mut honest, DEMO);
        assert_eq!(ask(&mut honest, b"in"), b"IN");
    }
    drop(strangers);
    assert_eq!(count(daemon, "accept_pauses"), 0);
}
