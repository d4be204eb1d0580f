//! Lesson 11: a TLS server by hand, for many clients at once.
//!
//! The tutorial accepts, wraps the socket, which waits until the handshake is done, prints what the
//! client sent, answers `200 OK`, and closes.
//!
//! What goes wrong: while it waits for one handshake, everybody else waits too, and a client that
//! connects and says nothing stops the server for ever. And closing the socket is not the end of the
//! conversation: without a `close_notify` the client cannot know that the answer was whole.
//!
//! What non-blocking changes: each client is a socket and a TLS machine. When something is ready,
//! the machine takes in what there is, and sends what it has to say; whether that was a handshake or
//! an answer makes no difference to the loop.
//!
//! What to look for in Wireshark. Run `SSLKEYLOGFILE=keys.log cargo run --example 11_tls_server`,
//! capture the port on `lo`, and give `keys.log` to Wireshark (Preferences, Protocols, TLS,
//! *(Pre)-Master-Secret log filename*):
//!
//! - Without the keys, everything after *Server Hello* is *Application Data* and unreadable, the
//!   server's certificate included: that is TLS 1.3.
//! - With them: *Encrypted Extensions*, *Certificate* (serial number, validity, subject, key),
//!   *Certificate Verify* (the proof that the server has the key), *Finished*, *New Session Ticket*,
//!   and then `GET /` and `200 OK` in clear.
//! - The *Alert* at the end is `close_notify`. Only then comes TCP's FIN.
//! - Call the port with plain `curl http://...`: the alert says what the server thinks of that.
//!
//! Left out: time limits, and a bound on the number of clients; `src/daemon` has both.

use std::env;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{KeyLogFile, ServerConfig, ServerConnection};
use slab::Slab;

/// No client has it: theirs are their keys in the slab, which count up from zero.
const LISTENER: Token = Token(usize::MAX);

const ANSWER: &[u8] = b"200 OK\r\n\r\n";

fn main() -> ExitCode {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    match serve(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve on {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let config = Arc::new(config()?);
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address.parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening on {}", listener.local_addr()?);
    let mut clients = Slab::new();
    let mut events = Events::with_capacity(256);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &mut clients, &config, &poll)?;
            } else if let Some(client) = clients.get_mut(event.token().0)
                && client.turn().unwrap_or_else(|error| {
                    eprintln!("a client: {error}");
                    true
                })
            {
                clients.remove(event.token().0);
            }
        }
    }
}

fn config() -> Result<ServerConfig, Box<dyn Error>> {
    let chain: Result<_, _> = CertificateDer::pem_file_iter("certs/server.pem")?.collect();
    let key = PrivateKeyDer::from_pem_file("certs/server-key.pem")?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain?, key)?;
    // Does nothing unless SSLKEYLOGFILE is set. Then whoever reads that file reads the traffic.
    config.key_log = Arc::new(KeyLogFile::new());
    Ok(config)
}

fn accept(
    listener: &TcpListener,
    clients: &mut Slab<Client>,
    config: &Arc<ServerConfig>,
    poll: &Poll,
) -> Result<(), Box<dyn Error>> {
    loop {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let entry = clients.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(entry.key()), interest)?;
        let tls = ServerConnection::new(Arc::clone(config))?;
        entry.insert(Client { socket, tls, has_answered: false });
    }
}

struct Client {
    socket: TcpStream,
    tls: ServerConnection,
    has_answered: bool,
}

impl Client {
    /// Takes in all there is and sends all there is to say. Answers whether the client is done.
    fn turn(&mut self) -> Result<bool, Box<dyn Error>> {
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => {
                    self.tls.send_close_notify();
                    self.send()?;
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            if let Err(error) = self.tls.process_new_packets() {
                // The alert says why; half-closing lets it arrive, which closing would not.
                self.send()?;
                self.socket.shutdown(Shutdown::Write)?;
                return Err(error.into());
            }
            self.answer()?;
        }
        self.send()?;
        Ok(false)
    }

    /// Answers the first message, whatever it says, and ends our side.
    fn answer(&mut self) -> io::Result<()> {
        let mut message = [0; 1024];
        match self.tls.reader().read(&mut message) {
            Ok(count) if count > 0 && !self.has_answered => {
                println!("{}", message[..count].escape_ascii());
                self.has_answered = true;
                self.tls.writer().write_all(ANSWER)?;
                self.tls.send_close_notify();
                Ok(())
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
