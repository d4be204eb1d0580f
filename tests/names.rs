//! Forwarding to names: followed when they move, kept when nobody answers, tried at every address
//! they have, and asked for over TCP where those are many or somebody forges answers. The name
//! server is in the test.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};

use common::tunnel::BlackHole;
use common::{
    Daemon, PATIENCE, ask, has_program, listener, listener_at, receive, rest, run, text, turnstile,
    uninterrupted,
};

const HOST: &str = "db.test";

/// No name server answers a question for a name below this one.
const SILENT: &str = "silent.test";

const FIRST: [u8; 4] = [127, 0, 0, 1];
const SECOND: [u8; 4] = [127, 0, 0, 2];

/// The addresses of each name, and their time to live in seconds.
type Zone = Arc<Mutex<HashMap<String, (Vec<IpAddr>, u32)>>>;

/// A name server that answers from a zone until it is dropped.
struct NameServer {
    zone: Zone,
    /// Whether each answer comes behind many that nobody has asked for.
    is_wrong: Arc<AtomicBool>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    fn start() -> Self {
        Self::start_at(SocketAddr::from((FIRST, 0)))
    }

    fn start_at(address: SocketAddr) -> Self {
        Self::on(UdpSocket::bind(address).expect("a port"))
    }

    /// One that is reached over TCP too, where as yet nobody answers.
    fn start_with_tcp() -> (Self, TcpListener) {
        loop {
            let listener = TcpListener::bind(SocketAddr::from((FIRST, 0))).expect("a port");
            let address = listener.local_addr().expect("bound");
            if let Ok(socket) = UdpSocket::bind(address) {
                return (Self::on(socket), listener);
            }
        }
    }

    fn on(socket: UdpSocket) -> Self {
        let address = socket.local_addr().expect("bound");
        let (zone, is_wrong) = (Zone::default(), Arc::new(AtomicBool::new(false)));
        let (own, guesses) = (Arc::clone(&zone), Arc::clone(&is_wrong));
        let thread = thread::spawn(move || {
            let mut bytes = [0; 1500];
            loop {
                let (len, from) = socket.recv_from(&mut bytes).expect("a datagram");
                let Ok(question) = Message::from_vec(&bytes[..len]) else { return };
                let name = question.queries[0].name.to_ascii().to_ascii_lowercase();
                if name.ends_with(&format!("{SILENT}.")) {
                    continue;
                }
                if guesses.load(Ordering::Relaxed) {
                    for guess in 1..=50 {
                        let mut forged = answer(&question, &own);
                        forged.metadata.id = forged.metadata.id.wrapping_add(guess);
                        // Whom it is for may have heard enough.
                        let _ = socket.send_to(&forged.to_vec().expect("it fits"), from);
                    }
                    continue;
                }
                let mut answer = answer(&question, &own);
                if answer.to_vec().expect("it fits").len() > usize::from(question.max_payload()) {
                    answer.answers.clear();
                    answer.metadata.truncation = true;
                }
                socket.send_to(&answer.to_vec().expect("it fits"), from).expect("sent");
            }
        });
        Self { zone, is_wrong, address, thread: Some(thread) }
    }

    /// Answers over TCP too. Tells of each connection that its client has closed it after the answer.
    fn answers_on(&self, listener: TcpListener) -> Receiver<()> {
        let zone = Arc::clone(&self.zone);
        let (sender, closed) = mpsc::channel();
        thread::spawn(move || {
            for wire in listener.incoming() {
                let mut wire = wire.expect("a connection");
                let question = Message::from_vec(&framed(&mut wire)).expect("a question");
                let answer = answer(&question, &zone).to_vec().expect("it fits");
                let len = u16::try_from(answer.len()).expect("it fits").to_be_bytes();
                // Torn where it hurts: in the length.
                for piece in [&len[..1], &len[1..], &answer[..7], &answer[7..]] {
                    wire.write_all(piece).expect("sent");
                }
                assert_eq!(
                    uninterrupted(|| wire.read(&mut [0; 1])).expect("the end"),
                    0,
                    "one question each"
                );
                // Nobody may care.
                let _ = sender.send(());
            }
        });
        closed
    }

    /// Has more addresses than fit a datagram, of which the first is `FIRST`.
    fn says_many(&self) {
        let others = (0..100).map(|number| [127, 1, 0, number]);
        self.says([FIRST].into_iter().chain(others), 3600);
    }

    fn says<I: Into<IpAddr>>(&self, addresses: impl IntoIterator<Item = I>, ttl: u32) {
        self.says_of(HOST, addresses, ttl);
    }

    fn says_of<I: Into<IpAddr>>(
        &self,
        host: &str,
        addresses: impl IntoIterator<Item = I>,
        ttl: u32,
    ) {
        let addresses = addresses.into_iter().map(Into::into).collect();
        self.zone.lock().expect("whole").insert(host.to_owned(), (addresses, ttl));
    }

    /// From now on somebody else is always faster, and guesses.
    fn answers_wrongly(&self) {
        self.is_wrong.store(true, Ordering::Relaxed);
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

/// The message that comes next over TCP.
fn framed(wire: &mut TcpStream) -> Vec<u8> {
    let mut len = [0; 2];
    wire.read_exact(&mut len).expect("a length");
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    wire.read_exact(&mut message).expect("a message");
    message
}

fn answer(question: &Message, zone: &Zone) -> Message {
    let query = question.queries.first().expect("a question");
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    let name = query.name.to_ascii().to_ascii_lowercase();
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
    resolver(&[server]) + &relay
}

fn resolver(servers: &[SocketAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    format!("[resolver]\nservers = {servers:?}\n")
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
    daemon.wait_for_line("host db.test is 127.0.0.1");
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
fn an_answer_too_long_for_a_datagram_is_fetched_over_tcp() {
    let port = two_signposts();
    let (server, listener) = NameServer::start_with_tcp();
    server.says_many();
    let closed = server.answers_on(listener);
    let daemon = Daemon::start(&configuration(server.address, port));
    let line = daemon.wait_for_line("host db.test is 127.0.0.1, 127.1.0.0, 127.1.0.1, ");
    assert_eq!(line.matches("127.").count(), 8, "few of many are kept: {line}");
    assert_eq!(destination(&daemon), "127.0.0.1");
    closed.recv_timeout(PATIENCE).expect("the connection is closed after the answer");
}

#[test]
fn a_server_that_refuses_tcp_is_passed_over_for_the_next() {
    let port = signpost(SocketAddr::from((SECOND, 0))).port();
    let [refusing, able] = [NameServer::start(), NameServer::start()];
    refusing.says_many();
    able.says([SECOND], 3600);
    let relay = listener("relay", "forward", &format!("to = 'tcp://{HOST}:{port}'\n"));
    let begun = Instant::now();
    let daemon = Daemon::start(&(resolver(&[refusing.address, able.address]) + &relay));
    assert_eq!(destination(&daemon), "127.0.0.2");
    assert!(begun.elapsed().as_secs() < 5, "a refusal need not be waited for");
}

#[test]
fn a_server_that_stalls_over_tcp_holds_nobody_up_but_its_question() {
    let port = signpost(SocketAddr::from((SECOND, 0))).port();
    let (stalling, listens) = NameServer::start_with_tcp();
    let able = NameServer::start();
    stalling.says_many();
    able.says([SECOND], 3600);
    let more = format!("targets = ['{HOST}:{port}']\ntimeouts.connect = '1m'\n");
    let daemon = Daemon::start(&format!(
        "{}{}{}",
        resolver(&[stalling.address, able.address]),
        listener("exit", "connect", &more),
        listener("echo", "echo", "")
    ));
    let mut wire = daemon.connect("exit");
    write!(wire, "CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n").expect("sent");
    let (mut stalled, _) = listens.accept().expect("it asks over TCP");
    stalled.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let question = Message::from_vec(&framed(&mut stalled)).expect("a question");
    assert!(question.queries[0].name.to_ascii().eq_ignore_ascii_case("db.test."));
    stalled.write_all(b"\x10").expect("the half of a length");

    assert_eq!(ask(&mut daemon.connect("echo"), b"meanwhile"), b"meanwhile");
    let answer = text(&receive(&mut wire, 12));
    assert_eq!(answer, "HTTP/1.1 200", "the next server has an answer");
    assert!(text(&rest(&mut wire)).ends_with("127.0.0.2"));
    assert_eq!(uninterrupted(|| stalled.read(&mut [0; 1])).expect("the end"), 0, "it was given up");
}

#[test]
fn the_place_of_a_call_is_kept_while_its_name_is_looked_up() {
    if !has_program("prlimit") {
        return;
    }
    let port = signpost(SocketAddr::from((FIRST, 0))).port();
    let server = UdpSocket::bind(SocketAddr::from((FIRST, 0))).expect("a port");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let daemon = Daemon::start(&format!(
        "{}{}{}",
        resolver(&[server.local_addr().expect("bound")]),
        listener("exit", "connect", &format!("targets = ['*.test:{port}']\n")),
        listener("echo", "echo", "")
    ));
    // The second name stays unanswered, so that no socket to the server makes room.
    let [mut wire, _other] = [HOST, "silent.test"].map(|host| {
        let mut wire = daemon.connect("exit");
        write!(wire, "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")
            .expect("sent");
        wire
    });
    let questions = [(); 4].map(|()| {
        let mut bytes = [0; 1500];
        let (len, from) =
            uninterrupted(|| server.recv_from(&mut bytes)).expect("two for each name");
        (Message::from_vec(&bytes[..len]).expect("a question"), from)
    });
    daemon.allow_more_descriptors(0);
    let _crowd = [(); 3].map(|()| daemon.connect("echo"));
    daemon.wait_for_line("refused listener=echo peer= reason=\"accepting pauses: ");
    let zone = Zone::default();
    zone.lock().expect("whole").insert(HOST.to_owned(), (vec![FIRST.into()], 60));
    for (question, from) in questions {
        if question.queries[0].name.to_ascii().to_ascii_lowercase().starts_with(HOST) {
            server
                .send_to(&answer(&question, &zone).to_vec().expect("it fits"), from)
                .expect("sent");
        }
    }
    assert_eq!(text(&receive(&mut wire, 12)), "HTTP/1.1 200");
}

#[test]
fn a_name_that_nobody_knows_is_told_at_the_start_and_looked_for_again() {
    let port = signpost(SocketAddr::from((SECOND, 0))).port();
    let server = NameServer::start();
    let daemon = Daemon::start(&configuration(server.address, port));
    daemon.wait_for_line(
        "listener `relay`: where the target tcp://db.test:PORT is, is not known yet: there is no \
         such name"
            .replace("PORT", &port.to_string())
            .as_str(),
    );
    assert_eq!(destination(&daemon), "", "nobody knows where");
    server.says([SECOND], 3600);
    daemon.wait_for_line("host db.test is 127.0.0.2");
    assert_eq!(destination(&daemon), "127.0.0.2");
}

#[test]
fn a_target_that_nobody_knows_leaves_the_others() {
    let port = signpost(SocketAddr::from((SECOND, 0))).port();
    let server = NameServer::start();
    let more = format!("to = ['tcp://{HOST}:{port}', 'tcp://127.0.0.2:{port}']\n");
    let relay = listener("relay", "forward", &more);
    let daemon = Daemon::start(&(resolver(&[server.address]) + &relay));
    assert_eq!(destination(&daemon), "127.0.0.2");
}

#[test]
fn a_silent_name_server_does_not_hold_the_start_up() {
    let silent = UdpSocket::bind(SocketAddr::from((FIRST, 0))).expect("a port");
    let mut more = configuration(silent.local_addr().expect("bound"), 80);
    more.push_str(&listener("echo", "echo", ""));
    let daemon = Daemon::start(&more);
    assert_eq!(ask(&mut daemon.connect("echo"), b"at once"), b"at once");
    daemon.wait_for_line("is not known yet: no name server has answered yet");
}

#[test]
fn a_name_that_cannot_be_one_is_an_error() {
    for (host, reason) in
        [("a..b", "cannot be a name"), ("b\u{fc}cher.example", "xn--bcher-kva.example")]
    {
        let more = format!("to = 'tcp://{host}:80'\n");
        let output = run(
            &mut turnstile(&["check", "-c", "-"]),
            listener("relay", "forward", &more).as_bytes(),
        );
        assert_eq!(output.status.code(), Some(78));
        let told = text(&output.stderr);
        assert!(told.contains(reason), "{told}");
    }
    let more = "targets = ['*.b\u{fc}cher.example:80']\n";
    let output =
        run(&mut turnstile(&["check", "-c", "-"]), listener("exit", "connect", more).as_bytes());
    assert!(text(&output.stderr).contains("it is written xn--bcher-kva.example"));
}

/// Asks an exit for `host`; its answer's status.
fn status(daemon: &Daemon, host: &str) -> String {
    let mut wire = daemon.connect("exit");
    write!(wire, "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("sent");
    text(&receive(&mut wire, 12)).split_off(9)
}

#[test]
fn an_exit_looks_for_a_name_in_no_domain_but_a_relay_does() {
    let port = signpost(SocketAddr::from((FIRST, 0))).port();
    let server = NameServer::start();
    server.says_of("db.test.search.example", [FIRST], 60);
    let configuration = configuration(server.address, port)
        + &listener("exit", "connect", &format!("targets = ['*.test:{port}']\n"));
    let mut command = turnstile(&["serve", "-c", "-"]);
    command.env("LOCALDOMAIN", "search.example");
    let daemon = Daemon::launch(command, &configuration);
    daemon.wait_for_line("host db.test is 127.0.0.1");
    assert_eq!(destination(&daemon), "127.0.0.1");
    assert_eq!(status(&daemon, &format!("{HOST}:{port}")), "502");
}

#[test]
fn names_that_nobody_answers_stop_no_others() {
    let port = signpost(SocketAddr::from((FIRST, 0))).port();
    let server = NameServer::start();
    server.says([FIRST], 60);
    let daemon = Daemon::start(
        &(resolver(&[server.address])
            + &listener("exit", "connect", &format!("targets = ['*.test:{port}']\n"))),
    );
    // More than are asked for at a time.
    let _waiting: Vec<_> = (0..300)
        .map(|number| {
            let mut wire = daemon.connect("exit");
            let host = format!("{number}.{SILENT}:{port}");
            write!(wire, "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("sent");
            wire
        })
        .collect();
    assert_eq!(status(&daemon, &format!("{HOST}:{port}")), "200");
}

#[test]
fn who_forges_answers_makes_the_name_be_asked_for_over_tcp() {
    let port = two_signposts();
    let (server, listens) = NameServer::start_with_tcp();
    server.says([FIRST], 3600);
    server.answers_wrongly();
    let closed = server.answers_on(listens);
    let daemon = Daemon::start(&configuration(server.address, port));
    daemon.wait_for_line("host db.test: too many wrong answers in the name of the name server");
    daemon.wait_for_line("host db.test is 127.0.0.1");
    assert_eq!(destination(&daemon), "127.0.0.1");
    closed.recv_timeout(PATIENCE).expect("the connection is closed after the answer");
}

/// `serve` in namespaces of its own, after a script has prepared them. `None` where that may not be:
/// containers often may not, so that it is no failure in continuous integration.
fn serve_after(script: &str, flags: &str) -> Option<Command> {
    let is_allowed = Command::new("unshare")
        .args([flags, "sh", "-c", script])
        .stderr(std::process::Stdio::null())
        .status();
    if !is_allowed.is_ok_and(|status| status.success()) {
        println!("skipped: no namespaces can be made here (needs unshare, ip, mount and root)");
        return None;
    }
    let mut command = Command::new("unshare");
    let program = format!("{script}; exec {} serve -c -", env!("CARGO_BIN_EXE_turnstile"));
    command.args([flags, "sh", "-c", &program]);
    command.env_remove("RUST_LOG").env_remove("TURNSTILE_SECRET").env_remove("LOCALDOMAIN");
    Some(command)
}

#[test]
fn other_name_servers_and_hosts_in_the_files_of_the_system_count_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let [resolv_conf, hosts] = ["resolv.conf", "hosts"].map(|name| folder.path().join(name));
    // Others may run the same test.
    let own = (std::process::id() % 250) as u8;
    let address = |last| SocketAddr::from(([127, 82, own, last], 53));
    let Ok(first) = UdpSocket::bind(address(1)) else {
        println!("skipped: the port of name servers cannot be used here (needs root)");
        return;
    };
    let second = NameServer::start_at(address(2));
    let first = NameServer::on(first);
    let port = two_signposts();
    first.says([FIRST], 3600);
    second.says([SECOND], 3600);
    fs::write(&resolv_conf, format!("nameserver {}\n", address(1).ip())).expect("a file");
    fs::write(&hosts, "127.0.0.1 localhost\n").expect("a file");
    let script = format!(
        "mount --bind {} /etc/resolv.conf && mount --bind {} /etc/hosts",
        resolv_conf.display(),
        hosts.display()
    );
    let Some(command) = serve_after(&script, "-m") else { return };
    let relay = listener("relay", "forward", &format!("to = 'tcp://{HOST}:{port}'\n"));
    let daemon = Daemon::launch(command, &relay);
    assert_eq!(destination(&daemon), "127.0.0.1");

    let comes_out_at = |expected: &str| {
        let begun = Instant::now();
        while destination(&daemon) != expected {
            assert!(begun.elapsed() < PATIENCE, "the file was not read again");
        }
    };
    fs::write(&resolv_conf, format!("nameserver {}\n", address(2).ip())).expect("a file");
    comes_out_at("127.0.0.2");
    let line = format!("/etc/resolv.conf has changed: names are asked of {}", address(2));
    daemon.wait_for_line(&line);
    fs::write(&hosts, "127.0.0.1 localhost DB.test\n").expect("a file");
    comes_out_at("127.0.0.1");
}

#[test]
fn localhost_is_listened_on_where_there_is_only_one_kind_of_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n::1 localhost\n").expect("a file");
    let script = format!(
        "mount --bind {} /etc/hosts && ip link set lo up && \
         echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6",
        hosts.display()
    );
    let Some(command) = serve_after(&script, "-nm") else { return };
    let configuration = listener_at("tcp://localhost:7013", "here", "echo", "")
        + &listener_at("udp://localhost:7013", "there", "echo", "");
    let daemon = Daemon::launch(command, &configuration);
    daemon.wait_for_line("listening listener=here address=tcp://127.0.0.1:7013");
    daemon.wait_for_line("listening listener=there address=udp://127.0.0.1:7013");
    daemon.wait_for_line("listener `here` does not listen on tcp://[::1]:7013");
}

#[test]
fn an_address_behind_an_interface_is_listened_on_and_forwarded_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "ip link set lo up && ip link add br-lan_0.1 type veth peer name other && \
                  ip link set br-lan_0.1 up && ip link set other up && \
                  ip address add fe80::7/64 dev br-lan_0.1 nodad";
    let Some(command) = serve_after(script, "-n") else { return };
    let at = format!("unix://{}", folder.path().join("relay.sock").display());
    let configuration = listener_at("tcp://[fe80::7%br-lan_0.1]:7000", "echo", "echo", "")
        + &listener_at(&at, "relay", "forward", "to = 'tcp://[fe80::7%br-lan_0.1]:7000'\n")
        + &listener_at(
            &format!("unix://{}", folder.path().join("lost.sock").display()),
            "lost",
            "forward",
            "to = 'tcp://[fe80::7%none0]:7000'\n",
        );
    let daemon = Daemon::launch(command, &configuration);
    assert_eq!(ask(&mut daemon.connect("relay"), b"behind it"), b"behind it");
    assert_eq!(text(&rest(&mut daemon.connect("lost"))), "");
    daemon.wait_for_line("there is no interface `none0`");
}

#[test]
fn a_stop_is_heard_and_warnings_are_told_while_names_are_looked_up() {
    let silent = UdpSocket::bind(SocketAddr::from((FIRST, 0))).expect("a port");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = silent.local_addr().expect("bound");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("turnstile.toml");
    let credulous = "proxy_protocol_from = ['0.0.0.0/0']\n";
    fs::write(&path, configuration(address, 80) + credulous).expect("a file");
    let mut command = turnstile(&["serve", "-c"]);
    command.arg(&path);
    let mut daemon = Daemon::launch_with_listeners(command, 0);
    uninterrupted(|| silent.recv(&mut [0; 512])).expect("it asks");
    daemon.wait_for_line("proxy_protocol_from holds every address there is");
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}
