//! The PROXY protocol: headers that proxies send, and those that targets are sent.

mod common;
#[path = "proxy_protocol/haproxy.rs"]
mod haproxy;
#[path = "proxy_protocol/wire.rs"]
mod wire;

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::process::Command;

use common::{
    DEMO_SECRET, Daemon, PATIENCE, ask, has_program, is_closed_silently, listener, listener_at,
    pass_gate, receive, reset, run, sha256_answer, text,
};
use socket2::Socket;
use wire::{CLIENT, INET, LINE, Told, binary, both, field, fields, value};

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certs");

/// Tests are the proxies.
const BELIEVES: &str = "proxy_protocol_from = ['127.0.0.1']\n";

/// A listener that echoes to whoever a proxy announces.
fn echo(more: &str) -> String {
    listener("echo", "echo", &format!("{BELIEVES}{more}"))
}

/// TLS with the demonstration certificates, as an inline table.
fn tls(more: &str) -> String {
    format!("tls = {{ cert = '{CERTS}/server.pem', key = '{CERTS}/server-key.pem'{more} }}\n")
}

/// What a Python program prints.
fn python(program: &str, arguments: &[String]) -> String {
    let mut command = Command::new("python3");
    let output = run(command.args(["-c", program]).args(arguments), b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_peer_is_whom_the_proxy_announces() {
    let daemon = Daemon::start(&echo(""));
    for (number, header) in both().into_iter().enumerate() {
        let mut wire = daemon.connect("echo");
        let proxy = wire.local_addr().expect("bound").as_socket().expect("an address");
        wire.write_all(&[&header[..], b"at once"].concat()).expect("sent");
        assert_eq!(receive(&mut wire, 7), b"at once");
        assert_eq!(ask(&mut wire, b"and later"), b"and later");
        drop(wire);
        let line = &daemon.wait_for_lines("closed listener=echo", number + 1)[number];
        assert!(line.contains(&format!(" peer={CLIENT} proxy={proxy} identity=- ")), "{line}");
        assert!(line.contains(" received=16 sent=16 "), "without the header: {line}");
    }
}

#[test]
fn a_header_may_come_in_single_bytes() {
    let daemon = Daemon::start(&echo(""));
    announce_in_single_bytes(&daemon, "");
}

/// Announces the client, a byte at a time, by a proxy that the log calls so.
fn announce_in_single_bytes(daemon: &Daemon, proxy: &str) {
    for (number, header) in both().into_iter().enumerate() {
        let mut wire = daemon.connect("echo");
        for byte in header {
            wire.write_all(&[byte]).expect("sent");
        }
        assert_eq!(ask(&mut wire, b"hello"), b"hello");
        drop(wire);
        let line = &daemon.wait_for_lines("closed listener=echo", number + 1)[number];
        assert!(line.contains(&format!("peer={CLIENT} proxy={proxy}")), "{line}");
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_keeps_its_address() {
    let daemon = Daemon::start(&echo(""));
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 1 2\r\n".to_vec(),
        binary(0x20, 0, b""),
        binary(0x20, 0x11, &INET),
    ];
    for (number, header) in headers.into_iter().enumerate() {
        let mut wire = daemon.connect("echo");
        let proxy = wire.local_addr().expect("bound").as_socket().expect("an address");
        wire.write_all(&header).expect("sent");
        assert_eq!(ask(&mut wire, b"hello"), b"hello");
        drop(wire);
        let line = &daemon.wait_for_lines("closed listener=echo", number + 1)[number];
        assert!(line.contains(&format!(" peer={proxy} identity=- ")), "{line}");
    }
}

#[test]
fn what_else_the_proxy_says_is_logged() {
    let daemon = Daemon::start(&echo(""));
    let security =
        [&[7, 0, 0, 0, 0][..], &field(0x21, b"TLSv1.3"), &field(0x22, b"al ice\"\n")].concat();
    let content = [&INET[..], &field(0x02, b"example.org"), &field(0x20, &security)].concat();
    let mut wire = daemon.connect("echo");
    wire.write_all(&binary(0x21, 0x11, &content)).expect("sent");
    assert_eq!(ask(&mut wire, b"hello"), b"hello");
    drop(wire);
    let line = daemon.wait_for_line("closed listener=echo");
    let expected =
        r#" announced="authority=example.org tls=TLSv1.3 cn=al\u{20}ice\u{22}\n" identity=-"#;
    assert!(line.contains(expected), "{line}");
}

#[test]
fn who_brings_no_header_is_turned_away_and_counted() {
    let mut daemon = Daemon::start(&echo(""));
    let cases: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.0\r\n\r\n", "it began with 'GET / HTTP/1.0\\r\\n'"),
        (&[b"PROXY ".as_slice(), &[b'x'; 200]].concat(), "does not end within 107 bytes"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 4660\r\n", "makes no sense"),
        (&binary(0x21, 0x11, &[0; 4081]), "has 4097 bytes, and 4096 is the most"),
        (&binary(0x21, 0x11, &INET[..11]), "makes no sense"),
    ];
    for (bytes, reason) in &cases {
        let mut wire = daemon.connect("echo");
        wire.write_all(bytes).expect("sent");
        assert!(is_closed_silently(&mut wire));
        let line = daemon.wait_for_line(reason);
        assert!(line.contains("refused listener=echo peer=127.0.0.1:"), "{line}");
    }
    for part in [1, 10, 20] {
        let mut wire = daemon.connect("echo");
        wire.write_all(&LINE[..part]).expect("sent");
        wire.shutdown(Shutdown::Write).expect("ended");
        assert!(is_closed_silently(&mut wire));
    }
    daemon.wait_for_lines("it left before its PROXY protocol header was whole", 3);
    // One that brings nothing at all only looks whether somebody listens.
    drop(daemon.connect("echo"));
    reset(daemon.connect("echo"));
    let mut wire = daemon.connect("echo");
    wire.write_all(LINE).expect("sent");
    assert_eq!(ask(&mut wire, b"hello"), b"hello");
    drop(wire);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let counts = daemon.wait_for_line("stopped ");
    assert!(counts.contains(" bad_proxy_headers=8 ") && counts.contains(" silent=2 "), "{counts}");
    assert_eq!(daemon.lines("refused ").len(), 8);
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    for timeouts in ["proxy = '250ms'", "proxy = '0s', idle = '0s', lifetime = '250ms'"] {
        no_header_is_waited_for(&format!("timeouts = {{ {timeouts} }}\n"));
    }
}

fn no_header_is_waited_for(timeouts: &str) {
    let daemon = Daemon::start(&echo(timeouts));
    for part in [0, 20] {
        let mut wire = daemon.connect("echo");
        wire.write_all(&LINE[..part]).expect("sent");
        assert!(is_closed_silently(&mut wire), "{part} bytes");
    }
    daemon.wait_for_lines("its PROXY protocol header was not whole in time", 2);
    let mut wire = daemon.connect("echo");
    wire.write_all(LINE).expect("sent");
    assert_eq!(ask(&mut wire, b"hello"), b"hello");
}

#[test]
fn a_header_of_anybody_else_is_data() {
    let daemon =
        Daemon::start(&listener("echo", "echo", "proxy_protocol_from = ['192.0.2.0/24']\n"));
    for (number, header) in both().into_iter().enumerate() {
        let mut wire = daemon.connect("echo");
        let forger = wire.local_addr().expect("bound").as_socket().expect("an address");
        assert_eq!(ask(&mut wire, &header), header);
        drop(wire);
        let line = &daemon.wait_for_lines("closed listener=echo", number + 1)[number];
        assert!(line.contains(&format!(" peer={forger} identity=- ")), "{line}");
    }
}

#[test]
fn the_announced_address_is_what_the_limit_counts() {
    let limits = "[limits]\nconnections_per_ip = 1\n";
    let daemon = Daemon::start(&format!("{limits}{}", echo("")));
    let come = |last: u8| {
        let mut wire = daemon.connect("echo");
        let line = format!("PROXY TCP4 203.0.113.{last} 192.0.2.1 4660 443\r\n");
        wire.write_all(line.as_bytes()).expect("sent");
        wire
    };
    let mut first = come(1);
    assert_eq!(ask(&mut first, b"first"), b"first");
    assert!(is_closed_silently(&mut come(1)), "the same address again");
    let line = daemon.wait_for_line("its address has 1 connections already");
    assert!(line.contains("peer=203.0.113.1:4660 proxy=127.0.0.1:"), "{line}");
    let mut other = come(2);
    assert_eq!(ask(&mut other, b"another one"), b"another one");
    drop(first);
    daemon.wait_for_line("closed listener=echo peer=203.0.113.1:4660");
    let mut next = come(1);
    assert_eq!(ask(&mut next, b"now there is room"), b"now there is room");
}

#[test]
fn connections_without_their_header_are_bounded_too() {
    let daemon = Daemon::start(&format!("[limits]\nconnections = 2\n{}", echo("")));
    let announced = || {
        let mut wire = daemon.connect("echo");
        wire.write_all(LINE).expect("sent");
        assert_eq!(ask(&mut wire, b"hello"), b"hello");
        wire
    };
    // Who has not sent its header makes room for who comes, and who has does not.
    let mut silent = daemon.connect("echo");
    let mut served = [announced(), announced()];
    assert!(is_closed_silently(&mut silent));
    daemon.wait_for_line("it was not admitted yet and had to make room for another");
    for wire in &mut served {
        assert_eq!(ask(wire, b"still here"), b"still here");
    }
    assert!(is_closed_silently(&mut daemon.connect("echo")));
    daemon.wait_for_line("the limit of 2 connections is reached");
    let [one, _other] = served;
    drop(one);
    daemon.wait_for_line("closed listener=echo");
    let mut next = daemon.connect("echo");
    next.write_all(LINE).expect("sent");
    assert_eq!(ask(&mut next, b"there is room"), b"there is room");
}

#[test]
fn a_second_signal_waits_for_no_header() {
    let mut daemon = Daemon::start(&echo(""));
    let mut waiting = daemon.connect("echo");
    // Who came after it is served, so it has been accepted.
    let mut served = daemon.connect("echo");
    served.write_all(LINE).expect("sent");
    assert_eq!(ask(&mut served, b"hello"), b"hello");
    daemon.signal("TERM");
    daemon.wait_for_line("stopping: 2 connections may go on");
    daemon.signal("TERM");
    assert!(is_closed_silently(&mut waiting));
    assert!(daemon.wait().success());
}

#[test]
fn any_process_may_announce_on_a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = format!("unix://{}", folder.path().join("echo").display());
    let daemon =
        Daemon::start(&listener_at(&path, "echo", "echo", "proxy_protocol_from = ['unix']\n"));
    announce_in_single_bytes(&daemon, "unix(pid=");
}

#[test]
fn the_gate_asks_when_the_header_is_whole() {
    let daemon = Daemon::start(&format!("{DEMO_SECRET}{}", echo("auth = 'hmac-md5'\n")));
    for (number, header) in both().into_iter().enumerate() {
        let mut wire = daemon.connect("echo");
        wire.write_all(&header).expect("sent");
        pass_gate(&mut wire, common::DEMO);
        assert_eq!(ask(&mut wire, b"hello"), b"hello");
        drop(wire);
        let line = &daemon.wait_for_lines("closed listener=echo", number + 1)[number];
        assert!(line.contains(&format!("peer={CLIENT} proxy=")), "{line}");
        assert!(line.contains(" identity=demo "), "{line}");
    }
}

#[test]
fn a_header_stands_before_tls() {
    const PROGRAM: &str = "
import socket, ssl, struct, sys
port, ca = int(sys.argv[1]), sys.argv[2]
text = b'PROXY TCP6 2001:db8::1 2001:db8::2 4660 443\\r\\n'
data = b'\\r\\n\\r\\n\\0\\r\\nQUIT\\n' + struct.pack('!BBH', 0x21, 0x21, 36)
data += socket.inet_pton(socket.AF_INET6, '2001:db8::1')
data += socket.inet_pton(socket.AF_INET6, '2001:db8::2') + struct.pack('!HH', 4660, 443)
for header in (text, data):
    plain = socket.create_connection(('127.0.0.1', port))
    plain.sendall(header)
    with ssl.create_default_context(cafile=ca).wrap_socket(plain, server_hostname='localhost') as wire:
        wire.sendall(b'hello')
        print(wire.recv(5).decode(), wire.version())
        wire.unwrap()
";
    if !has_program("python3") {
        return;
    }
    let daemon = Daemon::start(&echo(&tls("")));
    let port = daemon.socket_address("echo").port().to_string();
    let said = python(PROGRAM, &[port, format!("{CERTS}/ca.pem")]);
    assert_eq!(said, "hello TLSv1.3\nhello TLSv1.3\n");
    daemon.wait_for_lines("closed listener=echo peer=[2001:db8::1]:4660 proxy=127.0.0.1:", 2);
}

/// A target in the test itself.
fn target() -> (TcpListener, String) {
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("{}", target.local_addr().expect("bound"));
    (target, address)
}

fn accept(target: &TcpListener) -> Socket {
    let (wire, _) = target.accept().expect("the relay calls");
    wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    wire.into()
}

/// A relay to this target that tells it who its clients are.
fn relay(to: &str, version: &str, more: &str, upstream: &str) -> String {
    let upstream = format!("[listener.upstream]\nproxy_protocol = '{version}'\n{upstream}");
    listener("relay", "forward", &format!("to = '{to}'\n{more}{upstream}"))
}

#[test]
fn a_target_is_told_the_addresses_before_all_else() {
    let (target, address) = target();
    for version in ["v1", "v2"] {
        let daemon = Daemon::start(&relay(&format!("tcp://{address}"), version, "", ""));
        let mut near = daemon.connect("relay");
        near.write_all(b"hello").expect("sent");
        let client = near.local_addr().expect("bound").as_socket().expect("an address").port();
        let server = daemon.socket_address("relay").port();
        let mut far = accept(&target);
        if version == "v1" {
            let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {client} {server}\r\n");
            assert_eq!(wire::line(&mut far), expected);
        } else {
            let told = Told::receive(&mut far);
            let ports = [client.to_be_bytes(), server.to_be_bytes()].concat();
            let expected = [&[127, 0, 0, 1, 127, 0, 0, 1][..], &ports].concat();
            assert_eq!((told.command, told.family, &told.addresses), (0x21, 0x11, &expected));
            assert_eq!(told.fields, [], "nothing else is known");
        }
        assert_eq!(receive(&mut far, 5), b"hello");
        assert_eq!(ask(&mut far, b""), b"");
        far.write_all(b"answer").expect("sent");
        assert_eq!(receive(&mut near, 6), b"answer");
    }
}

#[test]
fn a_target_is_told_whom_the_proxy_before_announced() {
    let (target, address) = target();
    for header in both() {
        let daemon = Daemon::start(&relay(&format!("tcp://{address}"), "v1", BELIEVES, ""));
        daemon.connect("relay").write_all(&header).expect("sent");
        assert_eq!(wire::line(&mut accept(&target)).as_bytes(), LINE);
    }
}

#[test]
fn a_process_of_this_machine_has_no_address_to_tell() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = format!("unix://{}", folder.path().join("relay").display());
    let (target, address) = target();
    for version in ["v1", "v2"] {
        let upstream = format!("[listener.upstream]\nproxy_protocol = '{version}'\n");
        let to = format!("to = 'tcp://{address}'\n{upstream}");
        let daemon = Daemon::start(&listener_at(&path, "relay", "forward", &to));
        let _near = daemon.connect("relay");
        let mut far = accept(&target);
        if version == "v1" {
            assert_eq!(wire::line(&mut far), "PROXY UNKNOWN\r\n");
        } else {
            let told = Told::receive(&mut far);
            assert_eq!((told.command, told.family), (0x20, 0x00));
        }
    }
}

#[test]
fn the_header_goes_before_the_answer_to_the_targets_gate() {
    let (target, address) = target();
    let gate = "auth = 'hmac-sha256'\nsecret = 'demo'\n";
    let relay = relay(&format!("tcp://{address}"), "v1", "", gate);
    let daemon = Daemon::start(&format!("{DEMO_SECRET}{relay}"));
    let mut near = daemon.connect("relay");
    near.write_all(b"hello").expect("sent");
    let mut far = accept(&target);
    assert!(wire::line(&mut far).starts_with("PROXY TCP4 127.0.0.1 "));
    far.write_all(&[7; 32]).expect("a challenge");
    assert_eq!(receive(&mut far, 32), sha256_answer(common::DEMO, &[7; 32]));
    assert_eq!(receive(&mut far, 5), b"hello");
}

#[test]
fn the_header_goes_before_tls_with_the_target() {
    let (target, address) = target();
    let ca = format!("ca = '{CERTS}/ca.pem'\n");
    let daemon = Daemon::start(&relay(&format!("tls://{address}"), "v2", "", &ca));
    let _near = daemon.connect("relay");
    let mut far = accept(&target);
    assert_eq!(Told::receive(&mut far).addresses[..4], [127, 0, 0, 1]);
    assert_eq!(receive(&mut far, 2), [0x16, 3], "a record of the handshake");
}

#[test]
fn a_target_is_told_of_tls_the_certificate_and_the_identity() {
    const PROGRAM: &str = "
import hmac, socket, ssl, sys
port, certs, key = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=certs + '/ca.pem')
    context.load_cert_chain(certs + '/client.pem', certs + '/client-key.pem')
    context.set_alpn_protocols(['other/1', 'echo/1'])
    context.minimum_version = context.maximum_version = version
    plain = socket.create_connection(('127.0.0.1', port))
    with context.wrap_socket(plain, server_hostname='localhost') as wire:
        challenge = b''
        while len(challenge) < 32:
            challenge += wire.recv(32 - len(challenge))
        wire.sendall(hmac.new(key, challenge, 'md5').digest() + b'hello')
        print(wire.recv(4).decode())
";
    if !has_program("python3") {
        return;
    }
    let (target, address) = target();
    let clients =
        format!(", client_ca = '{CERTS}/ca.pem', client_auth = 'required', alpn = ['echo/1']");
    let near = format!("auth = 'hmac-md5'\n{}", tls(&clients));
    let relay = relay(&format!("tcp://{address}"), "v2", &near, "");
    let daemon = Daemon::start(&format!("{DEMO_SECRET}{relay}"));
    let port = daemon.socket_address("relay").port().to_string();
    let arguments = [port, CERTS.to_owned(), "Jedan has a big key!".to_owned()];
    let client = std::thread::spawn(move || python(PROGRAM, &arguments));
    for version in ["TLSv1.2", "TLSv1.3"] {
        let mut far = accept(&target);
        let told = Told::receive(&mut far);
        assert_eq!(told.addresses[..4], [127, 0, 0, 1]);
        assert_eq!(told.field(0x01), Some(&b"echo/1"[..]), "{told:?}");
        assert_eq!(told.field(0x02), Some(&b"localhost"[..]), "{told:?}");
        assert_eq!(told.field(0xe0), Some(&b"demo"[..]), "{told:?}");
        let security = told.field(0x20).expect("TLS");
        assert_eq!(security[..5], [7, 0, 0, 0, 0], "TLS, with a certificate, verified");
        let security = fields(&security[5..]);
        assert_eq!(value(&security, 0x21), Some(version.as_bytes()));
        assert_eq!(value(&security, 0x22), Some(&b"demo"[..]));
        let cipher = text(value(&security, 0x23).expect("a cipher suite"));
        assert!(cipher.starts_with("TLS_") && cipher.contains("_SHA"), "{cipher}");
        assert_eq!(receive(&mut far, 5), b"hello");
        far.write_all(b"bye.").expect("sent");
    }
    assert_eq!(client.join().expect("served"), "bye.\nbye.\n");
}

#[test]
fn an_exit_sees_the_client_of_its_entry() {
    let gate = "auth = 'hmac-sha256'\n";
    let near = format!("{BELIEVES}{gate}{}", tls(""));
    let exit = Daemon::start(&format!("{DEMO_SECRET}{}", listener("exit", "echo", &near)));
    let upstream = format!("{gate}secret = 'demo'\nca = '{CERTS}/ca.pem'\n");
    let to = format!("tls://localhost:{}", exit.socket_address("exit").port());
    let entry = Daemon::start(&format!("{DEMO_SECRET}{}", relay(&to, "v2", BELIEVES, &upstream)));
    let mut wire = entry.connect("relay");
    wire.write_all(LINE).expect("sent");
    assert_eq!(ask(&mut wire, b"through both"), b"through both");
    drop(wire);
    exit.wait_for_line(&format!("closed listener=exit peer={CLIENT} proxy=127.0.0.1:"));
    entry.wait_for_line(&format!("closed listener=relay peer={CLIENT} proxy=127.0.0.1:"));
}
