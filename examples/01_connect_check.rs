//! Lesson 1: can one connect at all?
//!
//! The tutorial makes a socket, calls `connect`, and prints that it worked.
//!
//! What goes wrong: `connect` fails for several reasons, each with its own cure, and the tutorial
//! tells none from another. Where a firewall drops packets silently it does not even fail: on
//! Linux it waits for more than two minutes. And a name may have several addresses, of which only
//! the second works.
//!
//! What non-blocking changes: `connect` returns at once, "in progress". When the socket turns
//! writable the matter is decided, and the socket's error says which way; the timeout is a timer
//! like any other. `connect_timeout` does just that inside, for one socket. Looking up a name
//! stays blocking: the C library offers nothing else.

use std::env;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::Duration;

/// How long one address may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match check() {
        Ok(address) => {
            println!("connected to {address}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<SocketAddr, String> {
    let mut arguments = env::args().skip(1);
    let host = arguments.next().map_or_else(|| ask("Host: "), Ok)?;
    let port = arguments.next().map_or_else(|| ask("Port: "), Ok)?;
    let port: NonZeroU16 =
        port.parse().map_err(|_| format!("`{port}` is no port: give a number from 1 to 65535"))?;
    connect(&host, port.get())
}

/// The first address of `host` that can be connected to, or why the last one could not.
fn connect(host: &str, port: u16) -> Result<SocketAddr, String> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("unknown host `{host}`: {error}"))?;
    let mut problem = format!("unknown host `{host}`: the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_stream) => return Ok(address),
            Err(error) => problem = format!("cannot connect to {address}: {}", explain(&error)),
        }
    }
    Err(problem)
}

/// What happened, and where to look next.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        // The host answered, and said no: it is up, and the network works.
        ErrorKind::ConnectionRefused => "refused: nothing listens on this port".into(),
        // Nobody answered: that is what a firewall, or a host that is down, looks like.
        ErrorKind::TimedOut => {
            format!("timed out after {PATIENCE:?}: the host is down, or a firewall drops packets")
        }
        // Our own kernel said no, before anything was sent.
        ErrorKind::PermissionDenied => "not permitted: a rule on this machine forbids it".into(),
        _ => error.to_string(),
    }
}

fn ask(question: &str) -> Result<String, String> {
    let mut answer = String::new();
    print!("{question}");
    io::stdout()
        .flush()
        .and_then(|()| io::stdin().read_line(&mut answer))
        .map_err(|error| format!("cannot ask on the terminal: {error}"))?;
    Ok(answer.trim().to_owned())
}
