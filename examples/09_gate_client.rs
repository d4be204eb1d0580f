//! Lesson 9: the client's side of the gate.
//!
//! The tutorial's server sends 32 random bytes; the client answers with HMAC-MD5(secret, those
//! bytes), and from then on everything that it sends comes back in upper case. So the secret never
//! crosses the wire, and an answer that somebody overheard opens nothing: the next challenge is
//! another. The client reads lines at the prompt `>>: ` until `quit`.
//!
//! What goes wrong: `recv(32)` may return fewer than 32 bytes, and then the answer is wrong though
//! the secret is right. The same holds for the reply to a line. And there is no acknowledgement:
//! a wrong answer shows only when the server closes, which may be after the first line is sent.
//!
//! What non-blocking changes: "read exactly 32 bytes" becomes a state of its own, in which the
//! connection may stay for many turns of the loop, so it needs a time limit. The server lives in
//! that state for each client that has not answered yet; `turnstile::proto::gate` has its side.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;

const CHALLENGE_LEN: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);

/// The tutorial's own, and known to all: for trying things out on one machine, and no more.
const DEMONSTRATION_SECRET: &str = "Jedan has a big key!";

fn main() -> ExitCode {
    let server = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9999".into());
    // From the environment: everybody on the machine can read a program's arguments.
    let secret = env::var("TURNSTILE_SECRET").unwrap_or_else(|_| DEMONSTRATION_SECRET.into());
    match enter(&server, secret.as_bytes()).and_then(converse) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{server}: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Answers the server's challenge. Whether that opened the gate shows only later.
fn enter(server: &str, secret: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut challenge = [0; CHALLENGE_LEN];
    stream.read_exact(&mut challenge)?;
    let mut hmac = Hmac::<Md5>::new_from_slice(secret).expect("HMAC takes keys of any length");
    hmac.update(&challenge);
    stream.write_all(&hmac.finalize().into_bytes())?;
    Ok(stream)
}

/// Sends what the person types, line by line, and prints what comes back.
fn converse(mut stream: TcpStream) -> io::Result<()> {
    let mut line = String::new();
    loop {
        print!(">>: ");
        io::stdout().flush()?;
        line.clear();
        let ended = io::stdin().read_line(&mut line)? == 0;
        let text = line.trim();
        if ended || text == "quit" {
            return Ok(());
        }
        // The server would have nothing to answer to an empty line, and we would wait for it.
        if text.is_empty() {
            continue;
        }
        stream.write_all(text.as_bytes())?;
        // Each byte comes back as one byte; that is how we know when the reply is complete.
        let mut reply = vec![0; text.len()];
        stream.read_exact(&mut reply)?;
        println!("{}", String::from_utf8_lossy(&reply));
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        // Depending on what it had already received from us, the same close looks different.
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "the server closed the connection: is the secret right? (set TURNSTILE_SECRET)".into()
        }
        ErrorKind::WouldBlock => format!("no answer within {PATIENCE:?}"),
        _ => error.to_string(),
    }
}
