//! Lesson 4: both ends of a conversation in datagrams.
//!
//! The tutorial's server answers whatever comes with one fixed text; its client sends one
//! datagram and waits for the answer.
//!
//! What goes wrong: a datagram may be lost without a word, on either way, and then the client
//! waits for ever. So it must have a timeout, and ask again; and a server must bear being asked
//! twice. Nothing shows who really sent a datagram, either: an unconnected client takes anybody's
//! for the answer.
//!
//! What non-blocking changes: little for the server. One socket serves all clients, nobody has a
//! connection to wait on, and that is why UDP servers were event loops long before the others. The
//! client's timeout becomes a timer.

use std::env;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

const QUESTION: &[u8] = b"Hello UDP server";
const ANSWER: &[u8] = b"UDP server sending data";

/// How often the client asks, and how long it waits each time.
const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(1);

/// No datagram is longer, so none is cut off.
const LONGEST_DATAGRAM: usize = 65_535;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let mode = arguments.next();
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:12345".into());
    let Ok(address) = address.parse() else {
        eprintln!("`{address}` is no address: give one like 127.0.0.1:12345 or [::1]:12345");
        return ExitCode::from(2);
    };
    let done = match mode.as_deref() {
        Some("server") => serve(address),
        Some("client") => ask(address),
        _ => {
            eprintln!("usage: 04_udp_pair server|client [ADDRESS:PORT]");
            return ExitCode::from(2);
        }
    };
    done.map_or_else(
        |error| {
            eprintln!("{address}: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn serve(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    println!("listening on {}", socket.local_addr()?);
    let mut datagram = vec![0; LONGEST_DATAGRAM];
    loop {
        let (count, client) = socket.recv_from(&mut datagram)?;
        println!("{count} bytes from {client}");
        // A client that cannot be answered is no reason to stop serving the others.
        if let Err(error) = socket.send_to(ANSWER, client) {
            eprintln!("cannot answer {client}: {error}");
        }
    }
}

fn ask(server: SocketAddr) -> io::Result<()> {
    let any_address =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any_address, 0))?;
    // No packet is sent by this. It makes the kernel drop what others send, and report to us when
    // the server's host says that nobody listens there.
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;

    let mut datagram = vec![0; LONGEST_DATAGRAM];
    for _ in 0..TRIES {
        socket.send(QUESTION)?;
        match socket.recv(&mut datagram) {
            Ok(count) => {
                println!("{}", String::from_utf8_lossy(&datagram[..count]));
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                eprintln!("no answer within {PATIENCE:?}");
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, format!("no answer to {TRIES} datagrams")))
}
