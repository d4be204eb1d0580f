//! How what a tunnel carries may end: by a reset, a kill, a forgery, a stop. Nobody takes a part of a
//! stream for the whole of it.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use common::tunnel::{
    ANY_PORT, Tunnel, accept, entry_to, exit_at, expect_mebibytes, send_mebibytes, target,
    turn_until,
};
use common::{Daemon, PATIENCE, ask, is_reset, listener, receive, reset, rest};
use socket2::Socket;

/// A connection through `entry` to `target`, over which a part of a stream has come each way.
fn in_the_middle(entry: &Daemon, target: &TcpListener) -> [Socket; 2] {
    let mut near = entry.connect("entry");
    let mut far = accept(target);
    near.write_all(b"a part").expect("sent");
    assert_eq!(receive(&mut far, 6), b"a part");
    far.write_all(b"another").expect("sent");
    assert_eq!(receive(&mut near, 7), b"another");
    [near, far]
}

#[test]
fn a_reset_in_the_middle_of_a_transfer_reaches_the_other_side() {
    let (target, address) = target();
    let tunnel = Tunnel::to(&address);
    for turned_round in [false, true] {
        let pair = || {
            let [near, far] = in_the_middle(&tunnel.entry, &target);
            if turned_round { (far, near) } else { (near, far) }
        };

        let (mut resetting, mut sending) = pair();
        let sender = thread::spawn(move || {
            loop {
                if let Err(error) = sending.write_all(&[0; 65536]) {
                    break error.kind();
                }
            }
        });
        receive(&mut resetting, 1_000_000);
        reset(resetting);
        let heard = sender.join().expect("no panic");
        let expected = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(expected.contains(&heard), "{heard}");

        let (mut resetting, mut receiving) = pair();
        resetting.write_all(&[0; 100_000]).expect("sent");
        receive(&mut receiving, 100_000);
        reset(resetting);
        assert!(is_reset(&mut receiving));
    }
}

/// After its end nothing more is read from a peer, and to one that is not answered nothing is
/// written: neither would tell that it has gone.
#[test]
fn a_reset_after_the_end_passes_through_tls() {
    let (target, address) = target();
    let tunnel = Tunnel::with(&address, "timeouts.half_close = '0s'\n");
    for turned_round in [false, true] {
        let [near, far] = in_the_middle(&tunnel.entry, &target);
        let (first, mut second) = if turned_round { (far, near) } else { (near, far) };
        first.shutdown(Shutdown::Write).expect("ended");
        assert_eq!(rest(&mut second), b"");
        reset(first);
        for (daemon, name) in tunnel.ends() {
            daemon.wait_for_lines(&format!("listener={name} peer="), 1 + usize::from(turned_round));
        }
        let heard = second.write_all(b"?").and_then(|()| second.write_all(b"?"));
        assert!(heard.is_err(), "turned round: {turned_round}");
    }
}

#[test]
fn resets_before_a_tunnel_is_up_leave_nothing_behind() {
    const EACH: usize = 100;
    let echo = Daemon::start(&listener("echo", "echo", ""));
    let tunnel = Tunnel::to(&echo.socket_address("echo").to_string());
    let mut polite = tunnel.connect();
    assert_eq!(ask(&mut polite, b"first"), b"first");
    let before = tunnel.ends().map(|(daemon, _)| daemon.descriptors());
    for number in 0..EACH {
        reset(tunnel.connect());
        reset(tunnel.exit.connect("exit"));
        let mut half = tunnel.exit.connect("exit");
        half.write_all(&CLIENT_HELLO_BEGINS[..=number % CLIENT_HELLO_BEGINS.len()]).expect("sent");
        reset(half);
        assert_eq!(ask(&mut polite, b"meanwhile"), b"meanwhile");
    }
    for ((daemon, name), before) in tunnel.ends().into_iter().zip(before) {
        turn_until(&mut polite, &format!("the descriptors of the {name}"), || {
            daemon.descriptors() == before
        });
    }
}

/// The beginning of a TLS record with the beginning of a ClientHello (RFC 8446, 4.1.2 and 5.1).
const CLIENT_HELLO_BEGINS: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0x5c, 0x33, 0x0f];

/// The kernel ends the streams of a process that was killed as if it had been done. Within TLS that
/// is not enough: what ends without a `close_notify` was cut off.
#[test]
fn an_end_of_a_tunnel_that_is_killed_is_no_end_of_a_stream() {
    let (target, address) = target();
    for entry_dies in [true, false] {
        // Who has gone may still listen, for all that the exit knows, and is given time for its answer.
        let tunnel = Tunnel::with(&address, "timeouts.half_close = '1s'\n");
        let [mut near, mut far] = in_the_middle(&tunnel.entry, &target);
        let Tunnel { entry, exit } = tunnel;
        let survivor = if entry_dies {
            drop(entry);
            assert!(is_reset(&mut far), "what the target hears of a dead entry");
            exit
        } else {
            drop(exit);
            assert!(is_reset(&mut near), "what the client hears of a dead exit");
            entry
        };
        survivor.wait_for_line("without a close_notify");
    }
}

#[test]
fn what_was_forged_on_the_way_is_cut_off() {
    let (target, address) = target();
    let exit = Daemon::start(&exit_at(ANY_PORT, &address, ""));
    for towards_exit in [true, false] {
        let forger = Forger::before(exit.socket_address("exit"), towards_exit);
        let entry = Daemon::start(&entry_to(forger.address, &address, ""));
        let [mut near, mut far] = in_the_middle(&entry, &target);
        forger.forges.store(true, Ordering::Relaxed);
        let mut speaker = if towards_exit { &near } else { &far };
        speaker.write_all(b"the rest").expect("sent");
        assert!(is_reset(&mut near), "what the client hears");
        assert!(is_reset(&mut far), "what the target hears");
    }
}

/// Carries one connection between an entry and an exit, and can change what goes one way.
struct Forger {
    address: SocketAddr,
    forges: Arc<AtomicBool>,
}

impl Forger {
    fn before(exit: SocketAddr, towards_exit: bool) -> Self {
        let listener = TcpListener::bind(ANY_PORT).expect("a port");
        let address = listener.local_addr().expect("bound");
        let forges = Arc::new(AtomicBool::new(false));
        let honest = Arc::new(AtomicBool::new(false));
        let (inward, outward) = if towards_exit {
            (Arc::clone(&forges), honest)
        } else {
            (honest, Arc::clone(&forges))
        };
        thread::spawn(move || {
            let (entry, _) = listener.accept().expect("the entry calls");
            let exit = TcpStream::connect(exit).expect("it listens");
            let clone = |wire: &TcpStream| wire.try_clone().expect("a descriptor");
            let (to_exit, from_entry) = (clone(&exit), clone(&entry));
            thread::spawn(move || carry(from_entry, to_exit, &inward));
            carry(exit, entry, &outward);
        });
        Self { address, forges }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, forges: &AtomicBool) {
    let mut space = [0; 65536];
    while let Ok(count @ 1..) = from.read(&mut space) {
        space[count - 1] ^= u8::from(forges.load(Ordering::Relaxed));
        if to.write_all(&space[..count]).is_err() {
            break;
        }
    }
    // Whether it was the end or a reset is not for the forger to tell.
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_stop_lets_transfers_end_whole() {
    const MEBIBYTES: u64 = 64;
    let (target, address) = target();
    let mut tunnel = Tunnel::to(&address);
    let near = tunnel.connect();
    let far = accept(&target);
    thread::scope(|scope| {
        // Nobody listens as yet, so neither can be done.
        for (wire, seed) in [(&near, 1), (&far, 2)] {
            scope.spawn(move || send_mebibytes(wire, MEBIBYTES, seed));
        }
        let addresses = [tunnel.entry.socket_address("entry"), tunnel.exit.socket_address("exit")];
        for ((daemon, _), address) in tunnel.ends().into_iter().zip(addresses) {
            daemon.signal("TERM");
            daemon.wait_for_line("stopping: 1 connections may go on");
            let start = Instant::now();
            while TcpStream::connect(address).is_ok() {
                assert!(start.elapsed() < PATIENCE, "it still accepts");
            }
        }
        for (wire, seed) in [(&near, 2), (&far, 1)] {
            scope.spawn(move || expect_mebibytes(wire, MEBIBYTES, seed));
        }
    });
    for daemon in [&mut tunnel.entry, &mut tunnel.exit] {
        assert_eq!(daemon.wait().code(), Some(0));
        daemon.wait_for_line("both sides were done");
    }
    let line = tunnel.entry.wait_for_line("both sides were done");
    assert!(line.contains(" exit=tls://"), "{line}");
}

#[test]
fn a_second_signal_cuts_transfers_off() {
    let (target, address) = target();
    for entry_stops in [true, false] {
        let mut tunnel = Tunnel::to(&address);
        let [mut near, mut far] = in_the_middle(&tunnel.entry, &target);
        let stopped = if entry_stops { &mut tunnel.entry } else { &mut tunnel.exit };
        stopped.signal("TERM");
        stopped.wait_for_line("stopping: 1 connections may go on");
        let sender = thread::spawn(move || while near.write_all(&[0; 65536]).is_ok() {});
        receive(&mut far, 1_000_000);
        stopped.signal("INT");
        let error = far.read_to_end(&mut Vec::new()).expect_err("cut off");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        sender.join().expect("the sender hears of it");
        assert_eq!(stopped.wait().code(), Some(0));
        stopped.wait_for_line("a second signal: 1 connections are closed");
    }
}
