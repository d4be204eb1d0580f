//! Services that would answer each other for ever, and clients that only look as if they did.
//!
//! A loop needs no forged datagram here: a service of the test's own says the first word.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use common::{Daemon, PATIENCE, listener_at, skip, text, uninterrupted};
use socket2::{Domain, Protocol, Socket, Type};

/// How long a service of the test waits before it takes it that nothing comes any more. What goes
/// round on one machine does so in far less.
const SILENCE: Duration = Duration::from_secs(1);

/// More rounds than any loop may have.
const TOO_MANY: usize = 100;

fn udp(name: &str, service: &str, more: &str) -> String {
    listener_at("udp://127.0.0.1:0", name, service, more)
}

/// A service of the test's own, at a port where services are. It hears everybody.
fn foreign_service() -> UdpSocket {
    let ports = 20_000..30_000u16;
    let from = std::process::id() as u16 % 5000;
    let mut free = ports
        .skip(from.into())
        .filter_map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok());
    let service = free.next().expect("one of thousands");
    service.set_read_timeout(Some(SILENCE)).expect("a timeout");
    service
}

/// Lets `service` say the first word and echo all that comes, until nothing does or there were
/// `most` rounds. Answers how many there were.
fn rounds(service: &UdpSocket, to: SocketAddr, most: usize) -> usize {
    let mut space = [0; 2048];
    service.send_to(b"ping", to).expect("sent");
    for round in 0..most {
        let Ok((len, from)) = service.recv_from(&mut space) else { return round };
        service.send_to(&space[..len], from).expect("sent");
    }
    most
}

#[test]
fn a_service_that_answers_answers_is_soon_left_alone() {
    let services = ["echo", "upper", "time", "greet", "daytime", "chargen", "once"];
    let daemon = Daemon::start(&services.map(|it| udp(it, it, "")).concat());
    for name in services {
        let service = foreign_service();
        let count = rounds(&service, daemon.socket_address(name), TOO_MANY);
        assert!((1..TOO_MANY).contains(&count), "{name}: {count} rounds");
    }
    daemon.wait_for_line("their sender has had too many answers (answers_per_second)");
    let client = daemon.datagrams("echo");
    client.send(b"honest").expect("sent");
    assert_eq!(uninterrupted(|| client.recv(&mut [0; 16])).expect("an answer"), 6);
}

#[test]
fn many_that_go_round_at_once_end_too() {
    let daemon = Daemon::start(&udp("echo", "echo", ""));
    let service = foreign_service();
    let to = daemon.socket_address("echo");
    for _ in 0..200 {
        service.send_to(b"one of many", to).expect("sent");
    }
    let count = rounds(&service, to, 10 * TOO_MANY);
    assert!(count < TOO_MANY, "{count} rounds");
}

#[test]
fn a_rate_of_its_own_is_what_a_listener_keeps_to() {
    let configuration = udp("open", "echo", "answers_per_second = 0")
        + &udp("strict", "echo", "answers_per_second = 2");
    let daemon = Daemon::start(&configuration);
    let count = rounds(&foreign_service(), daemon.socket_address("strict"), TOO_MANY);
    assert!((1..=10).contains(&count), "{count} rounds");
    let unbound = rounds(&foreign_service(), daemon.socket_address("open"), 5000);
    assert_eq!(unbound, 5000, "whoever wants a loop has it");
}

#[test]
fn the_port_of_a_service_of_ours_is_answered_on_no_address() {
    let daemon = Daemon::start(&(udp("echo", "echo", "") + &udp("time", "time", "")));
    for name in ["echo", "time"] {
        // As another host would have it that has the same configuration.
        let twin = (Ipv4Addr::new(127, 0, 0, 9), daemon.socket_address(name).port());
        let twin = UdpSocket::bind(twin).expect("its port on another address");
        twin.set_read_timeout(Some(SILENCE)).expect("a timeout");
        assert_eq!(rounds(&twin, daemon.socket_address("echo"), TOO_MANY), 0, "{name}");
    }
    daemon.wait_for_line("their sender's port answers answers");
}

#[test]
fn a_forged_datagram_starts_nothing_between_two_of_ours() {
    let kind = Type::RAW;
    let Ok(raw) = Socket::new(Domain::IPV4, kind, Some(Protocol::from(255))) else {
        skip("this user may not forge datagrams");
        return;
    };
    let mut daemon = Daemon::start(&(udp("one", "echo", "") + &udp("other", "upper", "")));
    let (one, other) = (daemon.socket_address("one"), daemon.socket_address("other"));
    for (from, to) in [(one, other), (one, one), (other, one)] {
        raw.send_to(&forged(from, to), &to.into()).expect("sent");
    }
    daemon.wait_for_lines("their sender's port answers answers", 2);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    daemon.wait_for_line(" datagrams=3 ");
}

/// A datagram with any source, as IPv4 (RFC 791) and UDP (RFC 768) have it. Linux adds the checksum of
/// the one and does without that of the other.
fn forged(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => panic!("IPv4 is forged here"),
    };
    let body = b"ping";
    let len = 8 + body.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + len).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    packet.extend(octets(from));
    packet.extend(octets(to));
    for field in [from.port(), to.port(), len, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(body);
    packet
}

#[test]
fn a_tester_on_this_machine_is_answered_however_fast_it_asks() {
    let daemon = Daemon::start(&udp("upper", "upper", ""));
    let client = daemon.datagrams("upper");
    for number in 0..15_000 {
        let question = format!("question {number}");
        client.send(question.as_bytes()).expect("sent");
        let mut space = [0; 64];
        let len = uninterrupted(|| client.recv(&mut space)).expect("an answer");
        assert_eq!(text(&space[..len]), question.to_uppercase());
    }
    // One that is not connected, too, but for the moment in which a loop would end.
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for number in 0..5000 {
        let question = format!("question {number}");
        client.send_to(question.as_bytes(), daemon.socket_address("upper")).expect("sent");
        let mut space = [0; 64];
        let (len, _) = uninterrupted(|| client.recv_from(&mut space)).expect("an answer");
        assert_eq!(text(&space[..len]), question.to_uppercase());
    }
    assert!(daemon.lines("not answered").is_empty());
}
