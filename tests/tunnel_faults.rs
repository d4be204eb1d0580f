//! A tunnel in bad times: an end or the target dies and comes back, nobody answers, strangers flood
//! it, descriptors run out. Whoever can be served is, whoever cannot is told, and nothing is left.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;

use common::tunnel::{ANY_PORT, BlackHole, Tunnel, dead_port, entry_to, exit_at, turn_until};
use common::{
    Daemon, PATIENCE, ask, has_program, is_closed_silently, listener, listener_at, may_open, noise,
    rest,
};
use socket2::Socket;

/// An echo, which is the target of most of these tunnels, and its `host:port`.
fn echo() -> (Daemon, String) {
    let echo = Daemon::start(&listener("echo", "echo", ""));
    let address = echo.socket_address("echo").to_string();
    (echo, address)
}

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    /// All that was sent came back.
    Whole,
    /// Nothing came back.
    Refused,
    /// A part came back, and then an error.
    CutOff,
    /// A part came back, and then the end, as if it had been all.
    Short,
}

/// Sends a question of some length and waits for its echo.
fn visit(entry: SocketAddr, question: &[u8]) -> Visit {
    let mut answer = Vec::new();
    let outcome = TcpStream::connect(entry).and_then(|mut wire| {
        wire.set_read_timeout(Some(PATIENCE))?;
        wire.write_all(question)?;
        wire.shutdown(Shutdown::Write)?;
        wire.read_to_end(&mut answer)
    });
    assert!(question.starts_with(&answer), "the echo of something else");
    match outcome {
        Ok(len) if len == question.len() => Visit::Whole,
        _ if answer.is_empty() => Visit::Refused,
        Ok(_) => Visit::Short,
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it waits for ever"),
        Err(_) => Visit::CutOff,
    }
}

/// Visits so far, by how they ended.
#[derive(Default)]
struct Visits {
    ended: Mutex<Vec<Visit>>,
    changed: Condvar,
}

impl Visits {
    fn count(&self, kind: Visit) -> usize {
        self.ended.lock().expect("no panic").iter().filter(|visit| **visit == kind).count()
    }

    /// Waits until so many more visits have ended so.
    fn wait_for_more(&self, kind: Visit, more: usize) {
        let wanted = self.count(kind) + more;
        let ended = self.ended.lock().expect("no panic");
        let is_short =
            |ended: &mut Vec<Visit>| ended.iter().filter(|visit| **visit == kind).count() < wanted;
        let (ended, waited) =
            self.changed.wait_timeout_while(ended, PATIENCE, is_short).expect("no panic");
        assert!(!waited.timed_out(), "waited in vain for {wanted} {kind:?} of {}", ended.len());
    }
}

/// Lets many visit `entry` again and again, while `meanwhile` does what it does.
fn under_load(entry: SocketAddr, meanwhile: impl FnOnce(&Visits) + Send) -> Visits {
    const VISITORS: usize = 8;
    let (visits, enough) = (Visits::default(), AtomicBool::new(false));
    let question = noise(60_000, 5);
    thread::scope(|scope| {
        for _ in 0..VISITORS {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let ended = visit(entry, &question);
                    visits.ended.lock().expect("no panic").push(ended);
                    visits.changed.notify_all();
                }
            });
        }
        let outcome = scope.spawn(|| meanwhile(&visits)).join();
        enough.store(true, Ordering::Relaxed);
        outcome.expect("all went as it should");
    });
    visits
}

#[test]
fn an_exit_may_be_killed_and_restarted_under_load() {
    let (_echo, target) = echo();
    let exit = Daemon::start(&exit_at(ANY_PORT, &target, ""));
    let address = exit.socket_address("exit");
    let entry = Daemon::start(&entry_to(address, &target, ""));
    let visits = under_load(entry.socket_address("entry"), |visits| {
        visits.wait_for_more(Visit::Whole, 50);
        drop(exit);
        visits.wait_for_more(Visit::Refused, 200);
        let _exit = Daemon::start(&exit_at(&address.to_string(), &target, ""));
        visits.wait_for_more(Visit::Whole, 50);
        assert_eq!(entry.lines("cannot be reached").len(), 1, "a row of failures is told once");
        entry.wait_for_line("answers again, after ");
    });
    assert_eq!(visits.count(Visit::Short), 0, "a part was taken for the whole");
}

/// A target without TLS that is killed while nothing is unread ends its streams like any other,
/// so a short answer is no fault of the tunnel here.
#[test]
fn a_target_may_be_killed_and_restarted_under_load() {
    let (echo, target) = echo();
    let tunnel = Tunnel::to(&target);
    under_load(tunnel.entry.socket_address("entry"), |visits| {
        visits.wait_for_more(Visit::Whole, 50);
        drop(echo);
        visits.wait_for_more(Visit::Refused, 200);
        let _echo = Daemon::start(&listener_at(&format!("tcp://{target}"), "echo", "echo", ""));
        visits.wait_for_more(Visit::Whole, 50);
    });
    tunnel.entry.wait_for_line("502 Bad Gateway");
    assert!(tunnel.entry.lines(" target tls://").is_empty(), "the exit was well");
}

/// Knocks with a thousand clients at once; answers when each was told no.
fn a_thousand_knock(entry: &Daemon) {
    let mut crowd: Vec<_> = (0..1000).map(|_| entry.connect("entry")).collect();
    for wire in &mut crowd {
        assert!(is_closed_silently(wire));
    }
}

#[test]
fn a_thousand_knock_while_the_exit_is_dead() {
    if !may_open(2000) {
        return;
    }
    let (_echo, target) = echo();
    let (bound, address) = dead_port();
    let entry = Daemon::start(&entry_to(address, &target, ""));
    let (descriptors, ticks) = (entry.descriptors(), entry.processor_ticks());
    a_thousand_knock(&entry);
    let spent = entry.processor_ticks() - ticks;
    assert!(spent < 100, "{spent} hundredths of a second to refuse a thousand");
    assert_eq!(entry.descriptors(), descriptors);
    assert_eq!(entry.lines("cannot be reached").len(), 1);
    assert!(entry.lines("failed listener=entry").len() < 200, "the others are counted");
    drop(bound);
    let _exit = Daemon::start(&exit_at(&address.to_string(), &target, ""));
    assert_eq!(ask(&mut entry.connect("entry"), b"back"), b"back");
    entry.wait_for_line("answers again, after 1000 failures");
}

#[test]
fn a_thousand_knock_while_the_target_is_dead() {
    if !may_open(2000) {
        return;
    }
    let (bound, address) = dead_port();
    let target = address.to_string();
    let tunnel = Tunnel::with(&target, "timeouts = { tls = '1m', connect = '1m' }\n");
    let descriptors = tunnel.ends().map(|(daemon, _)| daemon.descriptors());
    a_thousand_knock(&tunnel.entry);
    drop(bound);
    let _echo = Daemon::start(&listener_at(&format!("tcp://{target}"), "echo", "echo", ""));
    let mut wire = tunnel.connect();
    assert_eq!(ask(&mut wire, b"back"), b"back");
    drop(wire);
    for (daemon, name) in tunnel.ends() {
        daemon.wait_for_line(&format!("closed listener={name}"));
        let lines = daemon.lines(&target).len();
        assert!((1..200).contains(&lines), "{lines} lines of the {name} for one dead target");
    }
    let left = tunnel.ends().map(|(daemon, _)| daemon.descriptors());
    assert_eq!(left, descriptors);
}

#[test]
fn a_thousand_wait_for_nobody_without_a_turn_of_the_loop() {
    if !may_open(2000) {
        return;
    }
    let hole = BlackHole::new();
    let config = entry_to(hole.address, "nobody:1", "timeouts.connect = '3s'\n");
    let entry = Daemon::start(&config);
    let (descriptors, ticks) = (entry.descriptors(), entry.processor_ticks());
    a_thousand_knock(&entry);
    let spent = entry.processor_ticks() - ticks;
    assert!(spent < 30, "{spent} hundredths of the three seconds, in which it had only to wait");
    entry.wait_for_line("cannot be reached: timed out");
    assert_eq!(entry.descriptors(), descriptors);
}

#[test]
fn the_entry_knows_why_there_is_no_way() {
    let (_bound, refusing) = dead_port();
    let hole = BlackHole::new();
    let cases = [
        (refusing.to_string(), "502 Bad Gateway", "Connection refused"),
        (hole.address.to_string(), "504 Gateway Timeout", "did not answer in time"),
        ("nobody.invalid:80".to_owned(), "502 Bad Gateway", "nobody.invalid"),
    ];
    for (target, status, why) in cases {
        let exit = Daemon::start(&exit_at(ANY_PORT, &target, "timeouts.connect = '500ms'\n"));
        let entry = Daemon::start(&entry_to(exit.socket_address("exit"), &target, ""));
        assert!(is_closed_silently(&mut entry.connect("entry")), "{target}");
        exit.wait_for_line(why);
        let line = entry.wait_for_line(&format!("the exit refused {target}: {status}"));
        assert!(line.contains(why), "{line}");
    }
}

#[test]
fn a_wrong_secret_inside_tls_is_told_at_both_ends() {
    let (_echo, target) = echo();
    let exit = Daemon::start(&exit_at(ANY_PORT, &target, ""));
    let wrong = entry_to(exit.socket_address("exit"), &target, "").replace("the two", "the three");
    let entry = Daemon::start(&wrong);
    assert!(is_closed_silently(&mut entry.connect("entry")));
    entry.wait_for_line("is the secret right?");
    exit.wait_for_line("the answer to the challenge was wrong");
}

#[test]
fn strangers_at_the_exit_keep_nobody_out() {
    if !may_open(3 * STRANGERS as u64) {
        return;
    }
    let (_echo, target) = echo();
    let exit = Daemon::start(&exit_at(ANY_PORT, &target, "timeouts.tls = '2s'\n"));
    let entry = Daemon::start(&entry_to(exit.socket_address("exit"), &target, ""));
    let mut polite = entry.connect("entry");
    assert_eq!(ask(&mut polite, b"first"), b"first");
    let descriptors = exit.descriptors();
    // What a first flood leaves is room for a second.
    let [first, second] = [(); 2].map(|()| {
        flood(&exit, || {
            assert_eq!(ask(&mut polite, b"meanwhile"), b"meanwhile");
            assert_eq!(ask(&mut entry.connect("entry"), b"one more"), b"one more");
        });
        turn_until(&mut polite, "the descriptors of the exit", || {
            exit.descriptors() == descriptors
        });
        exit.resident_kib()
    });
    assert!(second < first + 2048, "{first} KiB after one flood, {second} KiB after two");
}

const STRANGERS: usize = 1000;

/// So many who say nothing and so many who do not speak TLS, and `meanwhile` now and then. Answers
/// when the exit has got rid of all of them.
fn flood(exit: &Daemon, mut meanwhile: impl FnMut()) {
    let silent: Vec<_> = (0..STRANGERS).map(|_| exit.connect("exit")).collect();
    let mut loud: Vec<_> = (0..STRANGERS).map(|_| exit.connect("exit")).collect();
    let garbage = noise(5000, 6);
    for (number, wire) in loud.iter_mut().enumerate() {
        // One of them may have been answered and closed before all of it was sent.
        let _ = wire.write_all(&garbage[number..]);
        if number % 100 == 0 {
            meanwhile();
        }
    }
    for mut wire in loud {
        let mut alert = Vec::new();
        let _ = wire.read_to_end(&mut alert);
        assert_eq!(alert.first(), Some(&0x15), "an alert");
    }
    for mut wire in silent {
        assert_eq!(rest(&mut wire), b"", "the end of the time for a handshake");
    }
}

#[test]
fn an_entry_whose_descriptors_run_out_pauses_and_goes_on() {
    const CROWD: usize = 60;
    if !has_program("prlimit") {
        return;
    }
    let (_echo, target) = echo();
    let tunnel = Tunnel::to(&target);
    let entry = &tunnel.entry;
    let mut inside = tunnel.connect();
    assert_eq!(ask(&mut inside, b"in"), b"in");
    let descriptors = entry.descriptors();
    entry.allow_more_descriptors(9);
    let mut crowd: Vec<Socket> = (0..CROWD).map(|_| tunnel.connect()).collect();
    crowd.iter_mut().for_each(|wire| wire.write_all(b"hello").expect("sent"));
    entry.wait_for_line("accepting pauses: ");
    assert_eq!(ask(&mut inside, b"still in"), b"still in");
    entry.allow_descriptors(4096);
    let served = crowd.iter().filter(|wire| is_echoed(wire)).count();
    assert_eq!(served, CROWD, "those who waited are served when there is room");
    assert!(entry.lines("cannot be reached").is_empty(), "the exit is not to blame");
    drop(crowd);
    turn_until(&mut inside, "the descriptors of the entry", || entry.descriptors() == descriptors);
}

fn is_echoed(mut wire: &Socket) -> bool {
    let mut answer = [0; 5];
    wire.read_exact(&mut answer).is_ok() && answer == *b"hello"
}
