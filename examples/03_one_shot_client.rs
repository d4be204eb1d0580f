//! Lesson 3: one message out, one answer back.
//!
//! The tutorial connects, sends `hello` and a newline, calls `recv(1024)` once, and prints what it
//! sent and what came back.
//!
//! What goes wrong: one `recv` may return half of the answer. Before one can read "the answer",
//! something must say where it ends: a length, a separator or, as here, the end of the connection.
//! And one that reads to the end must say how much it will take, or the peer chooses how much
//! memory is used.
//!
//! What non-blocking changes: half an answer is not an error but the usual case, and "not all
//! there yet" becomes a return value that every protocol must have.

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

const MESSAGE: &str = "hello\n";
const LONGEST_ANSWER: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let server = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9998".into());
    match exchange(&server) {
        Ok(answer) => {
            println!("Sent:     {}", MESSAGE.trim_end());
            println!("Received: {}", String::from_utf8_lossy(&answer));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("no answer from {server}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn exchange(server: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // `write` may take a part, as `read` may return one; `write_all` goes on until all is taken.
    stream.write_all(MESSAGE.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}
