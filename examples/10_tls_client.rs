//! Lesson 10: a TLS client by hand: connect, check who is there, ask, and print the answer.
//!
//! The tutorial wraps a socket, prints the server's certificate, sends `GET / ` and prints what comes
//! back. What it hides is that TLS is a state machine between two streams: *ciphertext*, which the
//! socket carries, and *plaintext*, which is yours. rustls keeps the machine and touches no socket.
//!
//! What goes wrong when it is done by hand:
//!
//! - Readable does not mean that there is something for you: a handshake message was perhaps all.
//!   And writing may be due before you said anything. So ask rustls what it wants, every time.
//! - One read may bring several records, or half of one. Read until the socket says `WouldBlock`.
//! - When a record is refused, an alert waits to be sent that tells the server why. Send it first.
//! - The end of the stream is only the end if a `close_notify` came before it. Without that, anyone
//!   on the way could cut the answer short, and you would take the rest for all of it.
//!
//! What to look for in Wireshark (`tls` as the display filter, and see lesson 11 for the keys):
//!
//! - *Client Hello*: the random bytes, the cipher suites offered, the server's name in clear (SNI),
//!   the versions in `supported_versions` (the field `Version` says 1.2, for old boxes on the way),
//!   and a *key share*: half of a Diffie-Hellman exchange, sent before anybody asked.
//! - *Server Hello*: the one suite chosen, the other half of the exchange. From here on TLS 1.3 is
//!   *Application Data* to everyone else: the certificate too. With TLS 1.2 you can read it, its
//!   serial number, its validity, its subject and its key; compare `turnstile connect
//!   --show-certificate --tls-version 1.2`.
//! - After the handshake, *New Session Ticket*: what the client may show next time.

use std::env;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

const SERVER: Token = Token(0);

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "localhost:8000".into());
    let ca = arguments.next().unwrap_or_else(|| "certs/ca.pem".into());
    match run(&server, &ca) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{server}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(server: &str, ca: &str) -> Result<(), Box<dyn Error>> {
    let Some((host, _)) = server.rsplit_once(':') else {
        return Err("give host:port, such as localhost:8000".into());
    };
    // The name that the certificate must have. Without this check, anyone's certificate would do.
    let name = ServerName::try_from(host.to_owned())?;
    let mut tls = ClientConnection::new(Arc::new(trusting(ca)?), name)?;
    tls.writer().write_all(b"GET / \n")?;

    let address = server.to_socket_addrs()?.next().ok_or("the name has no address")?;
    let mut socket = TcpStream::connect(address)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut socket, SERVER, Interest::READABLE | Interest::WRITABLE)?;
    let mut events = Events::with_capacity(8);
    let mut introduced = false;
    loop {
        poll.poll(&mut events, None)?;
        if let Some(error) = socket.take_error()? {
            return Err(error.into());
        }
        let is_over = exchange(&mut tls, &mut socket)?;
        if !introduced && !tls.is_handshaking() {
            introduced = true;
            introduce(&tls);
        }
        if is_over {
            return Ok(());
        }
    }
}

fn trusting(ca: &str) -> Result<ClientConfig, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Moves ciphertext both ways until the socket would block. Answers whether the server is done.
fn exchange(tls: &mut ClientConnection, socket: &mut TcpStream) -> Result<bool, Box<dyn Error>> {
    loop {
        let sent = unless_blocked(if tls.wants_write() { tls.write_tls(socket) } else { Ok(0) })?;
        let received = match unless_blocked(tls.read_tls(socket))? {
            // The end: of everything, if a `close_notify` came before.
            Some(0) if tls.process_new_packets()?.peer_has_closed() => return Ok(true),
            Some(0) => return Err("the connection was cut: that may not have been all".into()),
            received => received.is_some(),
        };
        if let Err(error) = tls.process_new_packets() {
            // What is wrong is said to the server, too.
            let _ = tls.write_tls(socket);
            return Err(error.into());
        }
        print_what_came(tls)?;
        if !received && sent.is_none_or(|count| count == 0) {
            return Ok(false);
        }
    }
}

fn print_what_came(tls: &mut ClientConnection) -> io::Result<()> {
    let mut plaintext = [0; 4096];
    while let Some(count @ 1..) = unless_blocked(tls.reader().read(&mut plaintext))? {
        io::stdout().write_all(&plaintext[..count])?;
    }
    Ok(())
}

fn introduce(tls: &ClientConnection) {
    let version = tls.protocol_version().and_then(|it| it.as_str()).unwrap_or("?");
    let suite = tls.negotiated_cipher_suite().map(|it| it.suite());
    let group = tls.negotiated_key_exchange_group().map(SupportedKxGroup::name);
    eprintln!("{version} {suite:?} {group:?}");
}

/// `None` where the other side is not ready for more.
fn unless_blocked(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
