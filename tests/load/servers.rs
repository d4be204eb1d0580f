//! Servers whose behaviour is known, each on a thread of the test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How long a request is in all these tests.
pub(crate) const REQUEST: usize = 64;

/// What a server has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Connections.
    pub(crate) connections: AtomicUsize,
    /// Whole requests.
    pub(crate) requests: AtomicUsize,
    /// The addresses that connections came from.
    pub(crate) peers: Mutex<Vec<SocketAddr>>,
}

impl Seen {
    /// How many whole requests there were.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A server of this test.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) seen: Arc<Seen>,
}

/// What to do about request number `.0`, counted over all connections from 1.
pub(crate) type Answer = fn(usize, &mut TcpStream, &[u8]) -> io::Result<()>;

/// Answers in capitals.
pub(crate) fn upper(_: usize, stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    stream.write_all(&request.to_ascii_uppercase())
}

/// Ends the conversation, as an error does.
pub(crate) fn over() -> io::Result<()> {
    Err(io::ErrorKind::Other.into())
}

/// A server with a thread for each connection, which gives each request to `answer`.
pub(crate) fn serve(answer: Answer) -> Server {
    serve_slowly(Duration::ZERO, answer)
}

/// As [`serve`], but it takes so long before each accept, and serves one connection at a time where
/// that is more than nothing.
pub(crate) fn serve_slowly(pause: Duration, answer: Answer) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let seen = Arc::new(Seen::default());
    let server = Server { address, seen: Arc::clone(&seen) };
    thread::spawn(move || {
        loop {
            thread::sleep(pause);
            let Ok((stream, peer)) = listener.accept() else { break };
            seen.connections.fetch_add(1, Ordering::SeqCst);
            seen.peers.lock().expect("no panic").push(peer);
            let seen = Arc::clone(&seen);
            let conversation = thread::spawn(move || converse(stream, &seen, answer));
            if !pause.is_zero() {
                conversation.join().expect("no panic");
            }
        }
    });
    server
}

/// As [`serve`], but it closes connections on which nothing has come for so long.
pub(crate) fn serve_impatiently(patience: Duration, answer: Answer) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let seen = Arc::new(Seen::default());
    let server = Server { address, seen: Arc::clone(&seen) };
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(patience)).expect("it is not zero");
            let seen = Arc::clone(&seen);
            thread::spawn(move || converse(stream, &seen, answer));
        }
    });
    server
}

fn converse(mut stream: TcpStream, seen: &Seen, answer: Answer) {
    let _ = stream.set_nodelay(true);
    let mut request = [0; REQUEST];
    while stream.read_exact(&mut request).is_ok() {
        let number = seen.requests.fetch_add(1, Ordering::SeqCst) + 1;
        if answer(number, &mut stream, &request).is_err() {
            break;
        }
    }
}

/// Resets the connection instead of closing it.
pub(crate) fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    over()
}

/// A server of datagrams that answers in capitals, but not those whose number `is_lost` names.
pub(crate) fn serve_datagrams(is_lost: fn(usize) -> bool) -> Server {
    serve_datagrams_by(move |number, socket, peer, answer| {
        if !is_lost(number) {
            let _ = socket.send_to(answer, peer);
        }
    })
}

/// A server of datagrams that has an answer in capitals ready for each, and lets `reply` do with it what
/// it likes.
pub(crate) fn serve_datagrams_by(
    reply: impl Fn(usize, &UdpSocket, SocketAddr, &[u8]) + Send + 'static,
) -> Server {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = format!("udp://{}", socket.local_addr().expect("bound"));
    let seen = Arc::new(Seen::default());
    let server = Server { address, seen: Arc::clone(&seen) };
    thread::spawn(move || {
        let mut space = [0; 2048];
        while let Ok((count, peer)) = socket.recv_from(&mut space) {
            let number = seen.requests.fetch_add(1, Ordering::SeqCst) + 1;
            reply(number, &socket, peer, &space[..count].to_ascii_uppercase());
        }
    });
    server
}
