//! Lesson 5: question and answer, again and again on one connection.
//!
//! The tutorial asks for the server's host and port, sends `GET TIME`, prints the answer of one
//! `recv`, asks whether to send more, and what.
//!
//! What goes wrong: the protocol does not say where a message ends. The server takes what one read
//! returns for a message, which holds only while messages are short and one waits for each answer.
//! The answers are better off: the time as C's `ctime()` writes it always has 24 characters, so
//! this client knows when it has all of one. It must also know what no answer looks like: `END`
//! closes the connection, and an empty message is never sent, so its answer would never come.
//!
//! What non-blocking changes: here the program waits either for the person or for the server, and
//! does not notice a server that goes away while the person thinks. An event loop waits for both
//! at once; `turnstile`'s own client does.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

const QUESTION: &str = "GET TIME";
const ANSWER_LEN: u64 = "Sun Mar 15 12:09:16 2015".len() as u64;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if env::args().len() > 1 {
        eprintln!("usage: 05_time_client   (it asks for the server's host and port)");
        return ExitCode::from(2);
    }
    match converse() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn converse() -> io::Result<()> {
    let host = ask("Enter hostname", "localhost")?;
    let port = ask("Enter port", "12345")?;
    let Ok(port) = port.parse::<u16>() else {
        return Err(io::Error::other(format!("`{port}` is no port: give a number up to 65535")));
    };
    let mut stream = TcpStream::connect((host.as_str(), port))
        .map_err(|error| io::Error::other(format!("cannot reach {host}, port {port}: {error}")))?;
    stream.set_read_timeout(Some(PATIENCE))?;

    let mut message = QUESTION.to_owned();
    loop {
        stream.write_all(message.as_bytes())?;
        let answer = receive(&stream)?;
        if answer.is_empty() {
            println!("The server closed the connection.");
            return Ok(());
        }
        println!("{}", String::from_utf8_lossy(&answer));
        if !ask("Send more", "no")?.to_lowercase().starts_with('y') {
            return Ok(());
        }
        message = ask("Enter message", QUESTION)?;
    }
}

/// One answer; empty where the server closed instead.
fn receive(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    match stream.take(ANSWER_LEN).read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        // A server of another kind may answer in fewer characters. Show them, though late.
        Err(error) if error.kind() == ErrorKind::WouldBlock && !answer.is_empty() => Ok(answer),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(io::Error::new(ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}")))
        }
        Err(error) => Err(error),
    }
}

/// What the person types, or `default` for an empty line or the end of the input.
fn ask(question: &str, default: &str) -> io::Result<String> {
    print!("{question} [{default}]: ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    let answer = answer.trim();
    Ok(if answer.is_empty() { default } else { answer }.to_owned())
}
