//! Forwarding to names: followed when they move, kept when nobody answers, and tried at every
//! address they have. The name server is in the test.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};

use common::tunnel::BlackHole;
use common::{Daemon, PATIENCE, listener, rest, run, text, turnstile};

const HOST: &str = "db.test";
const FIRST: [u8; 4] = [127, 0, 0, 1];
const SECOND: [u8; 4] = [127, 0, 0, 2];

/// The addresses of each name, and their time to live in seconds.
type Zone = Arc<Mutex<HashMap<String, (Vec<IpAddr>, u32)>>>;

/// A name server that answers from a zone until it is dropped.
struct NameServer {
    zone: Zone,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    fn start() -> Self {
        Self::start_at(SocketAddr::from((FIRST, 0)))
    }

    fn start_at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).expect("a port");
        let address = socket.local_addr().expect("bound");
        let zone = Zone::default();
        let own = Arc::clone(&zone);
        let thread = thread::spawn(move || {
            let mut bytes = [0; 1500];
            loop {
                let (len, from) = socket.recv_from(&mut bytes).expect("a datagram");
                let Ok(question) = Message::from_vec(&bytes[..len]) else { return };
                let answer = answer(&question, &own).to_vec().expect("it fits");
                socket.send_to(&answer, from).expect("sent");
            }
        });
        Self { zone, address, thread: Some(thread) }
    }

    fn says<I: Into<IpAddr>>(&self, addresses: impl IntoIterator<Item = I>, ttl: u32) {
        let addresses = addresses.into_iter().map(Into::into).collect();
        self.zone.lock().expect("whole").insert(HOST.to_owned(), (addresses, ttl));
    }
}

/// Ends with what is no question, so that the port is free when it has gone.
impl Drop for NameServer {
    fn drop(&mut self) {
        let socket = UdpSocket::bind(SocketAddr::from((FIRST, 0))).expect("a port");
        socket.send_to(b"", self.address).expect("sent");
        let ended = self.thread.take().expect("it is dropped once").join();
        assert!(ended.is_ok() || thread::panicking(), "the name server failed");
    }
}

fn answer(question: &Message, zone: &Zone) -> Message {
    let query = question.queries.first().expect("a question");
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.add_query(query.clone());
    let name = query.name.to_ascii();
    let Some((addresses, ttl)) =
        zone.lock().expect("whole").get(name.trim_end_matches('.')).cloned()
    else {
        answer.metadata.response_code = ResponseCode::NXDomain;
        return answer;
    };
    for address in addresses {
        let data = match (address, query.query_type) {
            (IpAddr::V4(address), RecordType::A) => RData::A(A(address)),
            (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(AAAA(address)),
            _ => continue,
        };
        answer.add_answer(Record::from_rdata(query.name.clone(), ttl, data));
    }
    answer
}

/// Tells everyone who connects to it where they are.
fn signpost(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("an address");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for wire in listener.incoming() {
            // Whoever lost a race is gone already.
            let _ = wire.and_then(|mut wire| write!(wire, "{}", address.ip()));
        }
    });
    address
}

/// The same port on both addresses.
fn two_signposts() -> u16 {
    let port = signpost(SocketAddr::from((FIRST, 0))).port();
    signpost(SocketAddr::from((SECOND, port)));
    port
}

/// A daemon that asks only `server`, and forwards to the name's port.
fn configuration(server: SocketAddr, port: u16) -> String {
    let relay = listener("relay", "forward", &format!("to = 'tcp://{HOST}:{port}'\n"));
    format!("[resolver]\nservers = ['{server}']\n{relay}")
}

/// Where a new connection through the relay comes out; nowhere where it is closed.
fn destination(daemon: &Daemon) -> String {
    text(&rest(&mut daemon.connect("relay")))
}

#[test]
fn a_name_that_moves_is_followed() {
    let port = two_signposts();
    let server = NameServer::start();
    server.says([FIRST], 1);
    let daemon = Daemon::start(&configuration(server.address, port));
    assert_eq!(destination(&daemon), "127.0.0.1");
    server.says([SECOND], 1);
    daemon.wait_for_line("host db.test is 127.0.0.2");
    assert_eq!(destination(&daemon), "127.0.0.2");
    assert_eq!(daemon.threads(), 1);
}

#[test]
fn a_name_whose_address_is_dead_is_asked_for_before_its_time() {
    let port = signpost(SocketAddr::from((SECOND, 0))).port();
    let server = NameServer::start();
    server.says([FIRST], 3600);
    let daemon = Daemon::start(&configuration(server.address, port));
    assert_eq!(destination(&daemon), "", "nobody listens there");
    daemon
        .wait_for_line(&format!("target tcp://db.test:{port} cannot be reached: tcp://127.0.0.1"));
    server.says([SECOND], 3600);
    let begun = Instant::now();
    while destination(&daemon) != "127.0.0.2" {
        assert!(begun.elapsed() < PATIENCE, "the name was not asked for again");
    }
    daemon.wait_for_line("answers again");
    assert_eq!(daemon.lines("host db.test is ").len(), 2, "each answer that is news is told once");
}

#[test]
fn whoever_has_an_address_does_without_the_name_server() {
    let port = two_signposts();
    let server = NameServer::start();
    let address = server.address;
    server.says([FIRST], 1);
    let daemon = Daemon::start(&configuration(address, port));
    drop(server);
    daemon.wait_for_line("host db.test was not found: no name server has an answer");
    assert_eq!(destination(&daemon), "127.0.0.1");

    let server = NameServer::start_at(address);
    server.says([SECOND], 3600);
    daemon.wait_for_line("host db.test is 127.0.0.2");
    assert_eq!(destination(&daemon), "127.0.0.2");
    assert_eq!(daemon.lines("was not found").len(), 1, "a failure is told once");
}

#[test]
fn the_second_address_is_reached_past_a_first_that_refuses() {
    let port = signpost(SocketAddr::from((FIRST, 0))).port();
    let server = NameServer::start();
    server.says([IpAddr::from(FIRST), Ipv6Addr::LOCALHOST.into()], 60);
    let daemon = Daemon::start(&configuration(server.address, port));
    daemon.wait_for_line("host db.test is ::1, 127.0.0.1");
    assert_eq!(destination(&daemon), "127.0.0.1");
    assert!(daemon.lines("cannot be reached").is_empty(), "the target as a whole is well");
}

#[test]
fn the_second_address_is_reached_past_a_first_that_is_silent() {
    let port = signpost(SocketAddr::from((SECOND, 0))).port();
    let _hole = BlackHole::at(SocketAddr::from((FIRST, port)));
    let server = NameServer::start();
    server.says([FIRST, SECOND], 60);
    let daemon = Daemon::start(&configuration(server.address, port));
    let before = daemon.descriptors();
    let begun = Instant::now();
    let wires: Vec<_> = (0..20).map(|_| daemon.connect("relay")).collect();
    for mut wire in wires {
        assert_eq!(text(&rest(&mut wire)), "127.0.0.2");
    }
    assert!(begun.elapsed().as_secs() < 5, "the first address had its whole time limit");
    daemon.wait_for_lines("closed listener=relay", 20);
    assert_eq!(daemon.descriptors(), before, "the losers are closed");
}

#[test]
fn a_name_that_nobody_knows_is_told_at_the_start() {
    let server = NameServer::start();
    let configuration = configuration(server.address, 80);
    let output = run(&mut turnstile(&["serve", "-c", "-"]), configuration.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    let reason = "listener `relay`: unknown host `db.test`: there is no such name";
    assert!(told.contains(reason), "{told}");
}

#[test]
fn a_stop_is_heard_while_names_are_looked_up() {
    let silent = UdpSocket::bind(SocketAddr::from((FIRST, 0))).expect("a port");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = silent.local_addr().expect("bound");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("turnstile.toml");
    fs::write(&path, configuration(address, 80)).expect("a file");
    let mut command = turnstile(&["serve", "-c"]);
    command.arg(&path);
    let mut daemon = Daemon::launch_with_listeners(command, 0);
    silent.recv(&mut [0; 512]).expect("it asks");
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}
