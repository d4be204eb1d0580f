//! The datagram forms of the services, and what is never sent to whoever may have forged an
//! address.

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use common::{Daemon, PATIENCE, listener_at, noise, skip, text, uninterrupted};

fn udp(name: &str, service: &str, more: &str) -> String {
    listener_at("udp://127.0.0.1:0", name, service, more)
}

fn ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    socket.send(question).expect("sent");
    receive(socket)
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut space = vec![0; 65_536];
    let len = uninterrupted(|| socket.recv(&mut space)).expect("an answer");
    space.truncate(len);
    space
}

#[test]
fn every_service_answers_a_datagram_in_its_way() {
    let services =
        ["upper", "once", "greet", "time", "echo", "daytime", "chargen"].map(|it| udp(it, it, ""));
    let daemon = Daemon::start(&(services.concat() + &udp("reply", "reply", "text = 'a reply'")));
    let answer = |service: &str, question: &[u8]| {
        let socket = daemon.datagrams(service);
        text(&ask(&socket, question))
    };
    assert_eq!(answer("upper", "  grüße \n".as_bytes()), "  GRüßE \n");
    assert_eq!(answer("once", "  grüße \n".as_bytes()), "GRüßE");
    assert_eq!(answer("once", b" \n "), "");
    assert_eq!(answer("greet", b""), "亲,学会了吗");
    assert_eq!(answer("reply", b"anything"), "a reply");
    assert_eq!(answer("echo", b"\0 bytes"), "\0 bytes");
    assert_eq!(answer("time", b"GET TIME").len(), 24);
    assert_eq!(answer("time", b"\xff").len(), 24);
    let daytime = answer("daytime", b"");
    assert!(daytime.len() == 26 && daytime.ends_with("\r\n"), "{daytime}");
    let pattern = answer("chargen", b"");
    assert!(pattern.len() <= 512 && pattern.starts_with(" !\"#"), "{pattern}");
}

#[test]
fn what_asks_for_no_answer_gets_none() {
    let configuration = udp("time", "time", "") + &udp("discard", "discard", "");
    let daemon = Daemon::start(&configuration);
    let socket = daemon.datagrams("time");
    socket.send(b"END").expect("sent");
    assert_eq!(ask(&socket, b"time?").len(), 24);
    // What one socket sends is received in order: the only answer was that to the last.
    socket.set_nonblocking(true).expect("an option");
    assert!(socket.recv(&mut [0; 64]).is_err(), "END was answered");
    let silent = daemon.datagrams("discard");
    silent.send(b"anything").expect("sent");
    socket.set_nonblocking(false).expect("an option");
    assert_eq!(ask(&socket, b"time?").len(), 24);
    silent.set_nonblocking(true).expect("an option");
    assert!(silent.recv(&mut [0; 64]).is_err(), "discard answered");
}

#[test]
fn datagrams_of_every_length_come_back_whole() {
    let daemon = Daemon::start(&(udp("echo", "echo", "") + &udp("upper", "upper", "")));
    for len in [0, 1, 1471, 1472, 1473, 4096, 65_506, 65_507] {
        let question = noise(len, len as u64);
        assert!(ask(&daemon.datagrams("echo"), &question) == question, "{len} bytes");
        let upper = question.to_ascii_uppercase();
        assert!(ask(&daemon.datagrams("upper"), &question) == upper, "{len} bytes");
    }
}

#[test]
fn a_crowd_is_answered_each_with_its_own() {
    let daemon = Daemon::start(&udp("upper", "upper", ""));
    let clients: Vec<_> = (0..150).map(|_| daemon.datagrams("upper")).collect();
    for round in 0..20 {
        for (number, client) in clients.iter().enumerate() {
            let question = format!("round {round} client {number}{}", "x".repeat(number));
            client.send(question.as_bytes()).expect("sent");
        }
        for (number, client) in clients.iter().enumerate() {
            let answer = format!("ROUND {round} CLIENT {number}{}", "X".repeat(number));
            assert_eq!(text(&receive(client)), answer);
        }
    }
}

#[test]
fn a_burst_from_one_client_is_answered_in_order() {
    let daemon = Daemon::start(&udp("echo", "echo", ""));
    let client = daemon.datagrams("echo");
    // More than one batch, and few enough for the kernel's queues.
    for number in 0..200u32 {
        client.send(&number.to_be_bytes()).expect("sent");
    }
    for number in 0..200u32 {
        assert_eq!(receive(&client), number.to_be_bytes());
    }
}

#[test]
fn a_client_that_has_gone_does_not_spoil_it_for_the_others() {
    let daemon = Daemon::start(&udp("echo", "echo", ""));
    let staying = daemon.datagrams("echo");
    for round in 0..50u8 {
        let leaving = daemon.datagrams("echo");
        leaving.send(b"no time to wait").expect("sent");
        drop(leaving);
        assert_eq!(ask(&staying, &[round]), [round]);
    }
}

#[test]
fn ipv6_is_answered_too() {
    if UdpSocket::bind("[::1]:0").is_err() {
        skip("this machine has no IPv6");
        return;
    }
    let daemon = Daemon::start(&listener_at("udp://[::1]:0", "echo", "echo", ""));
    let client = UdpSocket::bind("[::1]:0").expect("a port");
    client.connect(daemon.socket_address("echo")).expect("an address");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(ask(&client, b"hello"), b"hello");
}

/// An address of this machine that is not a loopback address. Connecting a UDP socket looks up a
/// route and sends nothing; the target is one of RFC 5737, which nobody has.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let routed = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let address = routed.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback());
    if address.is_none() {
        skip("this machine has no address but loopback");
    }
    address
}

#[test]
fn the_address_that_was_asked_is_the_one_that_answers() {
    let open = |address: &str, name| listener_at(address, name, "echo", "");
    let mut configuration = open("udp://0.0.0.0:0", "four");
    let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok() || skip("this machine has no IPv6");
    if has_ipv6 {
        configuration += &open("udp://[::]:0", "both");
    }
    let daemon = Daemon::start(&configuration);
    let mut asked: Vec<(&str, IpAddr)> = Vec::new();
    let four = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 9, 9]].map(IpAddr::from);
    let own = own_address().filter(IpAddr::is_ipv4);
    for ip in four.into_iter().chain(own) {
        asked.push(("four", ip));
        asked.extend(has_ipv6.then_some(("both", ip)));
    }
    asked.extend(has_ipv6.then_some(("both", IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))));
    // Several at once: each answer of a batch comes from its own address.
    let clients = asked.iter().cycle().take(40).map(|(name, ip)| {
        let any: IpAddr = if ip.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
        let client = UdpSocket::bind((any, 0)).expect("a port");
        // Connected, it hears nobody but whom it asks.
        let to = SocketAddr::new(*ip, daemon.socket_address(name).port());
        client.connect(to).expect("an address");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client
    });
    let clients: Vec<_> = clients.collect();
    for (number, client) in clients.iter().enumerate() {
        client.send(format!("client {number}").as_bytes()).expect("sent");
    }
    for (number, client) in clients.iter().enumerate() {
        let answer = text(&receive(client));
        assert_eq!(answer, format!("client {number}"), "{:?}", client.peer_addr());
    }
}

#[test]
fn what_was_sent_to_everybody_is_answered_by_nobody() {
    let daemon = Daemon::start(&listener_at("udp://0.0.0.0:0", "echo", "echo", ""));
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    client.set_broadcast(true).expect("an option");
    let port = daemon.socket_address("echo").port();
    if client.send_to(b"who is there?", ("127.255.255.255", port)).is_err() {
        skip("the loopback interface knows no broadcast here");
        return;
    }
    daemon.wait_for_line("they were sent to everybody");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.send_to(b"and now?", ("127.0.0.1", port)).expect("sent");
    assert_eq!(receive(&client), b"and now?", "the only answer");
}

#[test]
fn where_others_reach_it_no_answer_is_longer_than_its_question() {
    let Some(own) = own_address() else { return };
    let open = |name, service, more| listener_at("udp://0.0.0.0:0", name, service, more);
    let daemon = Daemon::start(
        &(open("time", "time", "")
            + &open("reply", "reply", "text = 'UDP server sending data'")
            + &open("generous", "reply", "text = 'UDP server sending data'\namplify = true")
            + &open("echo", "echo", "")),
    );
    let client = UdpSocket::bind((own, 0)).expect("a port");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let to = |listener| SocketAddr::new(own, daemon.socket_address(listener).port());
    let send = |listener, question: &[u8]| {
        client.send_to(question, to(listener)).expect("sent");
    };
    let receive = || {
        let mut space = [0; 2048];
        let (len, from) = uninterrupted(|| client.recv_from(&mut space)).expect("an answer");
        (text(&space[..len]), from)
    };
    for (service, len) in [("time", 24), ("reply", 23)] {
        send(service, &vec![b'x'; len - 1]);
        send(service, &vec![b'x'; len]);
        let (answer, from) = receive();
        assert_eq!((answer.len(), from), (len, to(service)), "only the longer one is answered");
        send("echo", b"who is next?");
        assert_eq!(receive(), ("who is next?".to_owned(), to("echo")));
    }
    send("generous", b"");
    assert_eq!(receive().0, "UDP server sending data");
    daemon.wait_for_line("the reply would have been larger than the request (amplify)");
}

#[test]
fn ports_that_answer_anything_are_not_answered() {
    // Port 7 is below 1024, so only a privileged test can speak from it.
    let Ok(echo_port) = UdpSocket::bind("127.0.0.1:7") else {
        skip("this user may not bind port 7");
        return;
    };
    let daemon = Daemon::start(&udp("echo", "echo", ""));
    echo_port.send_to(b"round and round", daemon.socket_address("echo")).expect("sent");
    daemon
        .wait_for_line("datagrams that were not answered: 1; their sender's port answers answers");
    assert_eq!(ask(&daemon.datagrams("echo"), b"hello"), b"hello");
    echo_port.set_nonblocking(true).expect("an option");
    assert!(echo_port.recv(&mut [0; 64]).is_err());
}
