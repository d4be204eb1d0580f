//! Lesson 2: ask a web server for its first page, by hand.
//!
//! The tutorial connects, sends `GET / HTTP/1.0` and an empty line, and prints what comes until
//! the server closes. HTTP/1.0 suits it: the end of the connection is the end of the answer.
//!
//! What goes wrong: `recv(1024)` does not return "the answer". TCP carries bytes, not messages,
//! and each read returns as many as happen to be there; only the loop to the end is right. And a
//! server that says nothing and never closes holds the program for ever.
//!
//! What non-blocking changes: a read with nothing to return says `WouldBlock`, and the program
//! turns to another connection. What has come so far is then state that must be kept somewhere,
//! where here it is simply the place in the loop.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

/// How long the server may be silent. (Lesson 1 shows how to bound the connecting, too.)
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let server = env::args().nth(1).unwrap_or_else(|| "localhost:80".into());
    match get(&server) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            eprintln!("{server} has sent nothing for {PATIENCE:?}: gave up");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot get the page from {server}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn get(server: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;

    let mut output = io::stdout().lock();
    let mut bytes = [0; 4096];
    loop {
        // No bytes does not mean "none yet": it is the end of what the server sends.
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        // As bytes: a page need not be UTF-8, and a character may lie across two reads.
        match output.write_all(&bytes[..count]).and_then(|()| output.flush()) {
            // Who reads our output has seen enough (`| head`): a right, not an error.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
}
