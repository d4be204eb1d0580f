//! That nobody starves the others: what a turn of the loop does, as the trace tells it. The daemon is
//! stopped until everything is ready at once, so that nothing here depends on who is faster.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::thread;

use common::{DEMO_SECRET, Daemon, ask, listener, receive, turnstile};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::Socket;

/// A daemon that tells what its loop does.
fn traced(configuration: &str) -> Daemon {
    let mut command = turnstile(&["serve", "-c", "-"]);
    command.env("RUST_LOG", "info,turnstile::loop=trace");
    Daemon::launch(command, configuration)
}

/// One line of the trace that is about a source.
struct Line {
    turn: u64,
    key: usize,
    /// The listener's name, or `loop`.
    name: String,
    what: String,
}

impl Line {
    fn read(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("] turn ")?;
        let (turn, rest) = rest.split_once(" #")?;
        let (key, rest) = rest.split_once(' ')?;
        let (name, what) = rest.split_once(' ')?;
        Some(Self {
            turn: turn.parse().ok()?,
            key: key.parse().ok()?,
            name: name.to_owned(),
            what: what.to_owned(),
        })
    }

    /// How many bytes were written to the peer.
    fn written(&self) -> Option<usize> {
        let (_, count) = self.what.split_once("write to remote: ")?;
        count.strip_suffix(" bytes")?.parse().ok()
    }
}

/// Lets the daemon go on, to which everything in `wires` and a question of `polite` is ready at once.
/// Answers what was written to others after the question was known and before it was answered, and
/// all that was written to others from then on.
fn race(
    daemon: &Daemon,
    polite: &mut Socket,
    other: &str,
    writes: usize,
) -> (Vec<Line>, Vec<Line>) {
    let before = daemon.lines("] turn ").len();
    polite.write_all(b"a question").expect("sent");
    daemon.signal("CONT");
    assert_eq!(receive(polite, 10), b"a question");
    let name = format!(" {other} ");
    let is_write = |line: &Line| line.name == other && line.written().is_some();
    let lines = loop {
        let lines = daemon.lines("] turn ");
        let read: Vec<_> = lines[before..].iter().filter_map(|line| Line::read(line)).collect();
        if read.iter().filter(|line| is_write(line)).count() >= writes {
            break read;
        }
        let seen = lines.iter().filter(|line| line.contains(&name)).count();
        daemon.wait_for_lines(&name, seen + 1);
    };
    let answered = lines.iter().position(|line| line.name == "echo" && line.written() == Some(10));
    let answered = answered.expect("the answer");
    let key = lines[answered].key;
    let is_known = |line: &Line| line.key == key && line.what.contains("readable");
    let known = lines[..answered].iter().rposition(is_known).expect("the question");
    let mut lines: Vec<_> = lines.into_iter().skip(known).collect();
    let later = lines.split_off(answered - known);
    let writes = |lines: Vec<Line>| lines.into_iter().filter(is_write).collect::<Vec<_>>();
    (writes(lines), writes(later))
}

/// Stops the daemon, and waits until it has.
fn stop(daemon: &Daemon) {
    daemon.signal("STOP");
    let stat = format!("/proc/{}/stat", daemon.pid());
    while !fs::read_to_string(&stat).expect("it is there").contains(") T ") {
        thread::yield_now();
    }
}

/// Throws away what has come and what the kernel still holds for it.
fn drain(wire: &mut Socket) {
    wire.set_nonblocking(true).expect("an option");
    let mut space = vec![0; 1 << 20];
    loop {
        match wire.read(&mut space) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_question_does_not_wait_for_all_streams_at_full_speed() {
    const STREAMS: usize = 60;
    let daemon = traced(&(listener("chargen", "chargen", "") + &listener("echo", "echo", "")));
    let mut polite = daemon.connect("echo");
    let mut streams: Vec<_> = (0..STREAMS).map(|_| daemon.connect("chargen")).collect();
    for wire in &mut streams {
        receive(wire, 1 << 20);
    }
    for _ in 0..10 {
        assert_eq!(ask(&mut polite, b"are they served?"), b"are they served?");
    }
    stop(&daemon);
    streams.iter_mut().for_each(drain);
    let (before, later) = race(&daemon, &mut polite, "chargen", 3 * STREAMS);
    let bytes: usize = before.iter().filter_map(Line::written).sum();
    assert!(bytes < 2 << 20, "{bytes} bytes of streams went before a question of ten");
    let first = later.first().expect("streams").turn;
    let mut served: Vec<_> =
        before.iter().chain(&later).filter(|line| line.turn <= first).map(|it| it.key).collect();
    served.sort_unstable();
    served.dedup();
    assert!(served.len() < STREAMS / 2, "{} streams in one turn", served.len());
}

/// The first message of a client's handshake.
fn client_hello() -> Vec<u8> {
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector takes all");
    hello
}

#[test]
fn a_question_does_not_wait_for_all_handshakes() {
    const CLIENTS: usize = 40;
    let tls = "auth = 'hmac-md5'\n[listener.tls]\ncert = 'built-in:server'\nkey = 'built-in:server-key'\n";
    let daemon = traced(&format!(
        "{DEMO_SECRET}{}{}",
        listener("secure", "echo", tls),
        listener("echo", "echo", "")
    ));
    let mut polite = daemon.connect("echo");
    assert_eq!(ask(&mut polite, b"first"), b"first");
    let spawned = daemon.lines("enters the slab").len();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| daemon.connect("secure")).collect();
    daemon.wait_for_lines("enters the slab", spawned + CLIENTS);
    assert_eq!(ask(&mut polite, b"they wait"), b"they wait");
    stop(&daemon);
    for wire in &mut clients {
        wire.write_all(&client_hello()).expect("sent");
    }
    let (before, later) = race(&daemon, &mut polite, "secure", CLIENTS);
    assert!(before.is_empty(), "{} handshakes went before a question", before.len());
    let (first, last) = (later.first().expect("some"), later.last().expect("some"));
    assert!(first.turn < last.turn, "all handshakes in one turn");
    let mut keys: Vec<_> = later.iter().map(|line| line.key).collect();
    keys.dedup();
    assert!(keys.is_sorted(), "in the order in which they came: {keys:?}");
}
