//! A tunnel: an entry that takes plain TCP, an exit that calls the target, and between them TLS and
//! the gate.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::thread;
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use super::{Daemon, PATIENCE, ask, listener, listener_at, noise, uninterrupted};

/// The folder of the demonstration certificates.
pub(crate) const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certs");

/// The secret of a tunnel as a configuration has it.
pub(crate) const SECRET: &str = "[[secret]]\nname = 'tunnel'\nvalue = 'only the two of us'\n";

/// An address of this machine at a port that the system chooses.
pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

/// Both ends of a tunnel, each a program of its own.
pub(crate) struct Tunnel {
    pub(crate) entry: Daemon,
    pub(crate) exit: Daemon,
}

impl Tunnel {
    /// A tunnel to `target`, which is `host:port`.
    pub(crate) fn to(target: &str) -> Self {
        Self::with(target, "")
    }

    /// The same; `more` are further lines of both listeners.
    pub(crate) fn with(target: &str, more: &str) -> Self {
        let exit = Daemon::start(&exit_at(ANY_PORT, target, more));
        let entry = Daemon::start(&entry_to(exit.socket_address("exit"), target, more));
        Self { entry, exit }
    }

    /// A connection to the entry.
    pub(crate) fn connect(&self) -> Socket {
        self.entry.connect("entry")
    }

    /// Both ends, each with its listener's name.
    pub(crate) fn ends(&self) -> [(&Daemon, &'static str); 2] {
        [(&self.entry, "entry"), (&self.exit, "exit")]
    }
}

/// The configuration of an exit at `address` that carries its peers to `target`.
pub(crate) fn exit_at(address: &str, target: &str, more: &str) -> String {
    let tls = format!("tls = {{ cert = '{CERTS}/server.pem', key = '{CERTS}/server-key.pem' }}\n");
    let more = format!("targets = ['{target}']\nauth = 'hmac-sha256'\n{tls}{more}");
    format!("{SECRET}{}", listener_at(&format!("tcp://{address}"), "exit", "connect", &more))
}

/// The configuration of an entry that asks the exit at `exit` for `target`.
pub(crate) fn entry_to(exit: SocketAddr, target: &str, more: &str) -> String {
    let upstream = format!(
        "ca = '{CERTS}/ca.pem', auth = 'hmac-sha256', secret = 'tunnel', target = '{target}'"
    );
    let more = format!("to = 'tls://{exit}'\nupstream = {{ {upstream} }}\n{more}");
    format!("{SECRET}{}", listener("entry", "forward", &more))
}

/// A target in the test itself, and its `host:port`.
pub(crate) fn target() -> (TcpListener, String) {
    let target = TcpListener::bind(ANY_PORT).expect("a port");
    let address = target.local_addr().expect("bound").to_string();
    (target, address)
}

/// The next connection to a target.
pub(crate) fn accept(target: &TcpListener) -> Socket {
    let (wire, _) = target.accept().expect("the relay calls");
    wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    wire.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    wire.set_nodelay(true).expect("an option");
    wire.into()
}

/// A port at which connections are refused until somebody makes it listen: it stays bound.
pub(crate) fn dead_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let address = socket.local_addr().expect("bound").as_socket().expect("an Internet address");
    (socket, address)
}

/// Sends so many mebibytes that belong to `seed`, and the end.
pub(crate) fn send_mebibytes(mut wire: &Socket, count: u64, seed: u64) {
    let mut mebibytes = Mebibytes::new(seed);
    for number in 0..count {
        wire.write_all(mebibytes.nth(number)).expect("sent");
    }
    wire.shutdown(Shutdown::Write).expect("ended");
}

/// Receives what [`send_mebibytes`] sends, and compares every byte.
pub(crate) fn expect_mebibytes(mut wire: &Socket, count: u64, seed: u64) {
    let mut mebibytes = Mebibytes::new(seed);
    let mut received = vec![0; MEBIBYTE];
    for number in 0..count {
        wire.read_exact(&mut received).expect("a whole mebibyte");
        assert!(received == mebibytes.nth(number), "mebibyte {number} is another");
    }
    assert_eq!(uninterrupted(|| wire.read(&mut received)).expect("the end"), 0);
}

/// Sends so many each way at once, and compares every byte.
pub(crate) fn exchange_mebibytes(near: &Socket, far: &Socket, count: u64) {
    thread::scope(|scope| {
        for (wire, own, others) in [(near, 1, 2), (far, 2, 1)] {
            scope.spawn(move || send_mebibytes(wire, count, own));
            scope.spawn(move || expect_mebibytes(wire, count, others));
        }
    });
}

const MEBIBYTE: usize = 1 << 20;

/// A stream of any length that nobody has to hold, and quick to make: the same noise in each
/// mebibyte, behind a number that no other has.
struct Mebibytes(Vec<u8>);

impl Mebibytes {
    fn new(seed: u64) -> Self {
        Self(noise(MEBIBYTE, seed))
    }

    fn nth(&mut self, number: u64) -> &[u8] {
        self.0[..8].copy_from_slice(&number.to_be_bytes());
        &self.0
    }
}

/// Asks through `wire`, which leads to an echo or `upper`, until `is_so`: each round trip is a turn of every
/// loop between, in which it may get on with what the test waits for.
pub(crate) fn turn_until(wire: &mut Socket, what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        assert_eq!(ask(wire, b"TURN"), b"TURN");
    }
}

/// A port that takes no connection and refuses none: its backlog is full.
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _backlog: Vec<Socket>,
}

impl BlackHole {
    /// At a port that the system chooses.
    pub(crate) fn new() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// At an address of one's own.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        let listener = socket();
        listener.bind(&address.into()).expect("an address");
        listener.listen(0).expect("a backlog");
        let address = listener.local_addr().expect("bound");
        // One more than fits: the last waits for ever, as everyone will who comes after it.
        let backlog = (0..3).map(|_| socket()).collect::<Vec<_>>();
        for wire in &backlog {
            wire.set_nonblocking(true).expect("an option");
            let _ = wire.connect(&address);
        }
        let address = address.as_socket().expect("an Internet address");
        Self { address, _listener: listener, _backlog: backlog }
    }
}
