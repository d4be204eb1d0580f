//! What a tunnel carries: a great deal, for many at once, in small pieces, each direction to its own
//! end. Every byte passes an entry, TLS, the gate and an exit.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use common::tunnel::{
    ANY_PORT, CERTS, Tunnel, accept, entry_to, exchange_mebibytes, exit_at, target, turn_until,
};
use common::{Daemon, ask, listener, may_open, noise, receive, rest, run, text, turnstile};
use socket2::Socket;

/// A service of this program as a target, and its `host:port`.
fn service(name: &str) -> (Daemon, String) {
    let daemon = Daemon::start(&listener(name, name, ""));
    let address = daemon.socket_address(name).to_string();
    (daemon, address)
}

#[test]
fn a_gibibyte_goes_each_way_at_once() {
    const MEBIBYTES: u64 = 1024;
    let (target, address) = target();
    let tunnel = Tunnel::to(&address);
    let near = tunnel.connect();
    let far = accept(&target);
    let before = tunnel.ends().map(|(daemon, _)| daemon.resident_kib());
    exchange_mebibytes(&near, &far, MEBIBYTES);
    for ((daemon, name), before) in tunnel.ends().into_iter().zip(before) {
        let grown = daemon.peak_kib().saturating_sub(before);
        assert!(grown < 4096, "the {name} grew by {grown} KiB over {before}");
    }
    let len = MEBIBYTES << 20;
    let line = tunnel.entry.wait_for_line("closed listener=entry");
    assert!(line.contains(&format!("received={len} sent={len}")), "{line}");
    let line = tunnel.exit.wait_for_line("closed listener=exit");
    assert!(line.contains("identity=tunnel") && line.contains("both sides were done"), "{line}");
}

#[test]
fn two_thousand_are_connected_at_once_and_each_has_its_own_bytes() {
    const CROWD: usize = 2000;
    // Handshakes have a deadline, so no more begin together than are made in a moment.
    const GROUP: usize = 100;
    // What one connection may cost either end: two sockets' states and the keys of TLS.
    const KIB_EACH: usize = 24;
    if !may_open(CROWD as u64 + 100) {
        return;
    }
    let (_backend, address) = service("upper");
    let tunnel = Tunnel::to(&address);
    let before = tunnel.ends().map(|(daemon, _)| daemon.resident_kib());
    let mut wires = Vec::new();
    while wires.len() < CROWD {
        let mut group: Vec<_> = (0..GROUP).map(|_| tunnel.connect()).collect();
        exchange_all(wires.len(), &mut group);
        wires.append(&mut group);
    }
    // Once more, with all of them under way at the same time.
    exchange_all(0, &mut wires);
    for ((daemon, name), before) in tunnel.ends().into_iter().zip(before) {
        assert!(daemon.descriptors() > 2 * CROWD, "the {name} has all of them");
        assert_eq!(daemon.threads(), 1);
        let grown = daemon.peak_kib().saturating_sub(before);
        println!("{name}: {} bytes a connection", grown * 1024 / CROWD);
        assert!(grown < KIB_EACH * CROWD, "the {name} grew by {grown} KiB");
    }
    let mut last = wires.swap_remove(0);
    drop(wires);
    for (daemon, name) in tunnel.ends() {
        turn_until(&mut last, &format!("the descriptors of the {name}"), || {
            daemon.descriptors() < 100
        });
    }
}

/// Lets each of `wires` ask what nobody else asks, and then all of them hear their answers.
fn exchange_all(first: usize, wires: &mut [Socket]) {
    let question = |number: usize| format!("question number {number} ").repeat(20);
    for (at, wire) in wires.iter_mut().enumerate() {
        wire.write_all(question(first + at).as_bytes()).expect("sent");
    }
    for (at, wire) in wires.iter_mut().enumerate().rev() {
        let expected = question(first + at).to_uppercase();
        assert_eq!(receive(wire, expected.len()), expected.as_bytes());
    }
}

#[test]
fn single_bytes_arrive_one_by_one_and_in_their_order() {
    let (target, address) = target();
    let tunnel = Tunnel::to(&address);
    let mut near = tunnel.connect();
    let mut far = accept(&target);
    // Each waits for the one before it, ...
    for byte in 0..=255 {
        near.write_all(&[byte]).expect("sent");
        assert_eq!(receive(&mut far, 1), [byte]);
        far.write_all(&[!byte]).expect("sent");
        assert_eq!(receive(&mut near, 1), [!byte]);
    }
    // ... and then as fast as they can.
    let bytes = noise(20_000, 3);
    thread::scope(|scope| {
        for mut wire in [&near, &far] {
            let bytes = &bytes;
            scope.spawn(move || {
                bytes.chunks(1).for_each(|byte| wire.write_all(byte).expect("sent"));
                wire.shutdown(Shutdown::Write).expect("ended");
            });
        }
        for mut wire in [&near, &far] {
            let bytes = &bytes;
            scope.spawn(move || {
                let mut received = Vec::new();
                wire.read_to_end(&mut received).expect("the end");
                assert!(received == *bytes);
            });
        }
    });
}

#[test]
fn each_direction_ends_by_itself_through_tls() {
    let (target, address) = target();
    let tunnel = Tunnel::to(&address);
    for near_ends_first in [true, false] {
        let near = tunnel.connect();
        let far = accept(&target);
        let (mut first, mut second) = if near_ends_first { (near, far) } else { (far, near) };
        first.write_all(b"the question").expect("sent");
        first.shutdown(Shutdown::Write).expect("ended");
        assert_eq!(rest(&mut second), b"the question");
        second.write_all(b"the answer").expect("sent after the end came");
        assert_eq!(receive(&mut first, 10), b"the answer");
        second.write_all(&[b'.'; 1 << 20]).expect("sent");
        drop(second);
        assert_eq!(rest(&mut first).len(), 1 << 20);
    }
    for (daemon, name) in tunnel.ends() {
        for line in daemon.wait_for_lines(&format!("closed listener={name}"), 2) {
            assert!(line.contains("both sides were done"), "{line}");
        }
    }
}

/// Its first words come in the same records as the answers of the gate and the exit.
#[test]
fn a_target_that_speaks_first_and_at_length_is_heard() {
    let (target, address) = target();
    let tunnel = Tunnel::to(&address);
    let speech = noise(300_000, 4);
    for _ in 0..10 {
        let mut near = tunnel.connect();
        let mut far = accept(&target);
        far.write_all(&speech).expect("sent");
        drop(far);
        assert!(rest(&mut near) == speech);
    }
}

/// A record of TLS may be twice as long as the longest answer of an exit.
#[test]
fn an_exit_with_a_long_certificate_is_believed() {
    let (_backend, target) = service("echo");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("text");
    let names: Vec<_> =
        (0..400).map(|number| format!("--name=host-{number}.example.org")).collect();
    let mut server = turnstile(&["cert", "server", "--ca", path, "--name", "127.0.0.1"]);
    server.args(["--out", path]).args(names);
    for mut command in [turnstile(&["cert", "ca", "--out", path]), server] {
        let output = run(&mut command, b"");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let certificate = fs::metadata(folder.path().join("server.pem")).expect("it was written");
    assert!(certificate.len() > 10_000, "only {} bytes", certificate.len());
    let exit = Daemon::start(&exit_at(ANY_PORT, &target, "").replace(CERTS, path));
    let entry = entry_to(exit.socket_address("exit"), &target, "").replace(CERTS, path);
    let entry = Daemon::start(&entry);
    assert_eq!(ask(&mut entry.connect("entry"), b"believed"), b"believed");
}

#[test]
fn those_who_come_and_go_leave_nothing_behind() {
    const VISITORS: usize = 4;
    const VISITS: usize = 500;
    let (_backend, address) = service("echo");
    let tunnel = Tunnel::to(&address);
    let visit = |number: usize| {
        let question = number.to_be_bytes();
        let mut wire = tunnel.connect();
        assert_eq!(ask(&mut wire, &question), question);
    };
    let closed = |count| {
        for (daemon, name) in tunnel.ends() {
            daemon.wait_for_lines(&format!("closed listener={name}"), count);
        }
    };
    (0..VISITORS).for_each(visit);
    closed(VISITORS);
    let before = tunnel.ends().map(|(daemon, _)| (daemon.descriptors(), daemon.resident_kib()));
    thread::scope(|scope| {
        for visitor in 0..VISITORS {
            scope.spawn(move || (0..VISITS).for_each(|number| visit(visitor * VISITS + number)));
        }
    });
    closed(VISITORS + VISITORS * VISITS);
    for ((daemon, name), (descriptors, resident)) in tunnel.ends().into_iter().zip(before) {
        assert_eq!(daemon.descriptors(), descriptors, "descriptors of the {name}");
        let left = daemon.resident_kib().saturating_sub(resident);
        assert!(left < 4096, "{left} KiB are left in the {name}");
    }
}
