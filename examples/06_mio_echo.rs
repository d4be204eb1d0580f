//! Lesson 6: a non-blocking server; many clients, one thread, nobody waits for anybody.
//!
//! The tutorial sets its listening socket non-blocking, lets the system choose the port, prints
//! it, and accepts and echoes in a `while True` that ignores "nothing there".
//!
//! What goes wrong: that loop turns as fast as it can while nothing happens, and burns a processor
//! for it. One client's error ends it for all. It writes as if the socket took everything, and
//! what a slow client does not take is lost, or piles up in memory.
//!
//! What non-blocking means when done in full, and what to look for below:
//!
//! - The program sleeps in one place, `poll`, and only when nobody has work left.
//! - Events are *edge-triggered*: each tells once that something changed. So they only set a flag,
//!   and the flag stands until the socket itself says `WouldBlock`.
//! - Each client has one buffer of fixed size. While it is full nothing is read, the kernel's own
//!   buffers fill, and TCP slows the sender down: *back-pressure*, without a message for it.
//! - Each client gets a bounded turn. What is left waits until the others had theirs.
//! - An error belongs to one client, and ends that one.
//!
//! Left out: time limits. A client that does nothing keeps its place here for ever.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

/// No client has it: theirs are their keys in the slab, which count up from zero.
const LISTENER: Token = Token(usize::MAX);

/// Together these two bound the memory: 8 MiB, however many knock and whatever they send.
const MAX_CLIENTS: usize = 512;
const BUFFER_LEN: usize = 16 * 1024;

/// How often one client may fill and flush before the next one's turn.
const ROUNDS_A_TURN: usize = 4;

fn main() -> ExitCode {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let Ok(address) = address.parse() else {
        eprintln!("`{address}` is no address: give one like 127.0.0.1:9999, port 0 for any");
        return ExitCode::from(2);
    };
    let Err(error) = run(address);
    eprintln!("cannot serve on {address}: {error}");
    ExitCode::FAILURE
}

fn run(address: SocketAddr) -> io::Result<Infallible> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut server = Server::bind(address, poll.registry().try_clone()?)?;
    println!("listening on {}", server.listener.local_addr()?);
    loop {
        // Without work left, sleep until something happens; with it, only look.
        let timeout = (!server.due.is_empty()).then_some(Duration::ZERO);
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            server.note(event);
        }
        server.serve_due();
        // Last, because the clients that have just left made room.
        server.accept();
    }
}

struct Server {
    registry: Registry,
    listener: TcpListener,
    /// Somebody may be waiting to be accepted.
    knocking: bool,
    clients: Slab<Client>,
    /// Keys of the clients that have something to do, each once.
    due: VecDeque<usize>,
}

impl Server {
    fn bind(address: SocketAddr, registry: Registry) -> io::Result<Self> {
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        let (clients, due) = (Slab::new(), VecDeque::new());
        Ok(Self { registry, listener, knocking: false, clients, due })
    }

    /// Remembers what an event says. All work is done later, so that no client's work is done
    /// before another's event is known.
    fn note(&mut self, event: &Event) {
        if event.token() == LISTENER {
            self.knocking = true;
        } else if let Some(client) = self.clients.get_mut(event.token().0) {
            client.note(event);
            if !client.due {
                client.due = true;
                self.due.push_back(event.token().0);
            }
        }
    }

    /// One turn for each client that was due when this began.
    fn serve_due(&mut self) {
        for _ in 0..self.due.len() {
            let Some(key) = self.due.pop_front() else { return };
            let client = &mut self.clients[key];
            match client.turn() {
                Ok(Next::Wait) => client.due = false,
                Ok(Next::Again) => self.due.push_back(key),
                Ok(Next::Close) => drop(self.clients.remove(key)),
                Err(error) => {
                    eprintln!("{}: {error}", client.peer);
                    self.clients.remove(key);
                }
            }
        }
    }

    /// Lets in who waits, while there is room: the same back-pressure, for connections.
    fn accept(&mut self) {
        while self.knocking && self.clients.len() < MAX_CLIENTS {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    if let Err(error) = self.admit(stream, peer) {
                        eprintln!("{peer}: {error}");
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => self.knocking = false,
                    // This one has already gone; another may be behind it.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    // Out of descriptors, most likely. They still knock, and no new edge will say
                    // so: the flag stays set, and every later turn of the loop tries again.
                    _ => {
                        eprintln!("cannot accept: {error}");
                        return;
                    }
                },
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let place = self.clients.vacant_entry();
        let mut client = Client::new(stream, peer);
        // Both directions, once and for all: an edge costs nothing while it does not come.
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut client.stream, Token(place.key()), interest)?;
        place.insert(client);
        Ok(())
    }
}

/// What a client's turn leads to.
enum Next {
    /// Nothing moves: wait for the next event.
    Wait,
    /// The turn is used up, the work is not done.
    Again,
    Close,
}

struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    /// Set by events, cleared by `WouldBlock`.
    readable: bool,
    writable: bool,
    /// The client has sent its last byte; it may still read.
    ended: bool,
    /// Whether the server's list of due clients has this one.
    due: bool,
    /// The bytes from `start` to `end` are still to be sent: start <= end <= BUFFER_LEN.
    buffer: Box<[u8; BUFFER_LEN]>,
    start: usize,
    end: usize,
}

impl Client {
    fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        Self {
            stream,
            peer,
            readable: false,
            writable: false,
            ended: false,
            due: false,
            buffer: Box::new([0; BUFFER_LEN]),
            start: 0,
            end: 0,
        }
    }

    /// An error makes the socket both: the next read or write returns it.
    fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    fn turn(&mut self) -> io::Result<Next> {
        for _ in 0..ROUNDS_A_TURN {
            let filled = self.fill()?;
            let flushed = self.flush()?;
            // The end of what it sends closes nothing before all of it has gone back.
            if self.ended && self.start == self.end {
                return Ok(Next::Close);
            }
            if !filled && !flushed {
                return Ok(Next::Wait);
            }
        }
        Ok(Next::Again)
    }

    /// Reads once, if there is room for it. Whether anything happened.
    fn fill(&mut self) -> io::Result<bool> {
        if !self.readable || self.ended || self.end == BUFFER_LEN {
            return Ok(false);
        }
        let read = self.stream.read(&mut self.buffer[self.end..]);
        let Some(count) = unless_blocked(read, &mut self.readable)? else { return Ok(false) };
        self.ended = count == 0;
        self.end += count;
        Ok(true)
    }

    /// Writes once, if there is anything to write. The socket may take a part of it only.
    fn flush(&mut self) -> io::Result<bool> {
        if !self.writable || self.start == self.end {
            return Ok(false);
        }
        let written = self.stream.write(&self.buffer[self.start..self.end]);
        let Some(count) = unless_blocked(written, &mut self.writable)? else { return Ok(false) };
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        Ok(true)
    }
}

/// `None`, and the flag cleared, where the socket would have blocked: an answer, not an error.
fn unless_blocked(result: io::Result<usize>, ready: &mut bool) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            *ready = false;
            Ok(None)
        }
        result => result.map(Some),
    }
}
