//! Lesson 12: a service of your own on the library's reactor.
//!
//! The bare loop of lesson 06 did three jobs at once: it waited for readiness, it moved bytes
//! without losing any, and it decided what to answer. The library takes them apart. The reactor
//! waits and knows no protocol; a session moves bytes between two ends; what is left for you is the
//! end that answers. Here that is ROT13, with the gate in front of it for free.
//!
//! Run it, then talk to it from another terminal:
//!
//! ```text
//! cargo run --example 12_own_service
//! TURNSTILE_SECRET='open sesame' cargo run -- connect --auth hmac-sha256 127.0.0.1:PORT
//! RUST_LOG=trace cargo run --example 12_own_service     # watch every event, read and write
//! ```

use std::io;
use std::rc::Rc;
use std::time::Instant;

use rand::TryRng;
use rand::rngs::SysRng;

use turnstile::net::clock::SystemClock;
use turnstile::net::listener::{Accept, Listener, Peer};
use turnstile::net::reactor::{Context, Next, Reactor, Source};
use turnstile::net::socket::Socket;
use turnstile::proto::buffer::Pool;
use turnstile::proto::end::{End, Progress, Side, Turn};
use turnstile::proto::event::{Event, Observer, Readiness, Subject};
use turnstile::proto::gate::{CHALLENGE_LEN, Digest, Keyring, Secret};
use turnstile::proto::pipe::Pipe;
use turnstile::proto::session::{Admission, Session, Step, Timeouts};

/// The service: an end that answers. It is shown what has come (`to` it) and where its answer goes
/// (`from` it), and never waits: when there is nothing to do, nothing moved.
struct Rot13;

impl End for Rot13 {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        _turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        // The storage itself goes from one pipe to the other; nothing is copied.
        let mut moved = to.hand_over(from, |bytes| bytes.iter_mut().for_each(rot13));
        // The client has ended its side and everything is answered: end ours. That is half-close.
        if to.is_drained() {
            to.finish();
            from.end();
            moved += 1;
        }
        Ok(Progress::Moved(moved))
    }
}

fn rot13(byte: &mut u8) {
    let first = if byte.is_ascii_uppercase() { b'A' } else { b'a' };
    if byte.is_ascii_alphabetic() {
        *byte = (*byte - first + 13) % 26 + first;
    }
}

/// What lives in the reactor: the listener, and every connection that it accepted.
enum Room {
    Door { listener: Listener, keyring: Rc<Keyring> },
    Guest { session: Box<Session<Socket, Rot13>>, peer: Peer },
}

impl Source for Room {
    type Host = SystemClock;

    fn start(&mut self, context: &mut Context<'_, Self>) -> Next {
        let registered = match self {
            Self::Door { listener, .. } => listener.register(context),
            Self::Guest { session, .. } => session.remote().register(context),
        };
        if registered.is_err() { Next::Close } else { self.run(context) }
    }

    fn handle_readiness(&mut self, _side: Side, readiness: Readiness) {
        if let Self::Guest { session, .. } = self {
            session.remote().handle_readiness(readiness);
        }
    }

    fn run(&mut self, context: &mut Context<'_, Self>) -> Next {
        match self {
            Self::Door { listener, keyring } => accept(listener, keyring, context),
            Self::Guest { session, peer } => {
                let now = context.now;
                let (pool, clock, watch) = context.parts("rot13", &*peer);
                let mut turn = Turn { now, pool, clock, watch };
                match session.run(&mut turn) {
                    Step::Wait => Next::Wait,
                    Step::Again => Next::Again,
                    Step::Close(reason) => {
                        session.dispose(&mut turn, &reason);
                        Next::Close
                    }
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Door { .. } => None,
            Self::Guest { session, .. } => session.deadline(),
        }
    }
}

/// Accepts until nobody waits. The daemon's acceptor also bounds how many there may be, and how
/// many it takes in one turn.
fn accept(listener: &Listener, keyring: &Rc<Keyring>, context: &mut Context<'_, Room>) -> Next {
    loop {
        match listener.accept() {
            Accept::Connection(stream, peer) => {
                let mut challenge = [0; CHALLENGE_LEN];
                if SysRng.try_fill_bytes(&mut challenge).is_err() {
                    return Next::Close;
                }
                let admission = Admission::Guard(Rc::clone(keyring), challenge);
                let socket = Socket::new(stream, Side::Remote);
                let timeouts = Rc::new(Timeouts::default());
                let session = Session::new(socket, Rot13, admission, timeouts, context.now);
                context.spawn(Room::Guest { session: Box::new(session), peer });
            }
            Accept::WouldBlock => return Next::Wait,
            Accept::Lost(error) => eprintln!("not accepted: {error}"),
            // Trying again at once would spin; the next who comes is the next try.
            Accept::Exhausted(error) => {
                eprintln!("not accepted: {error}");
                return Next::Wait;
            }
            // The daemon binds another; here that is the end.
            Accept::Dead(error) => {
                eprintln!("nobody can come any more: {error}");
                return Next::Close;
            }
        }
    }
}

/// Whoever wants to know what the loop does; here, whoever sets `RUST_LOG`.
struct Log;

impl Observer for Log {
    fn wants_detail(&self) -> bool {
        log::log_enabled!(log::Level::Trace)
    }

    fn observe(&mut self, turn: u64, subject: &Subject<'_>, event: &Event<'_>) {
        let Subject { name, peer, .. } = subject;
        match event {
            Event::Closed(_) | Event::Refused(_) => log::info!("{name} {peer} {event}"),
            _ => log::trace!("turn {turn} {name} {peer} {event}"),
        }
    }
}

fn main() -> io::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let secret = Secret::new("ali baba", b"open sesame".to_vec().into());
    let keyring = Rc::new(Keyring::new(Digest::Sha256, [&secret]));
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into(), false, None)?;
    println!("listening on {}", listener.bound());
    let pool = Pool::new(16 * 1024, 8);
    let mut reactor = Reactor::new(pool, Box::new(Log), SystemClock::new())?;
    reactor.spawn(Room::Door { listener, keyring });
    while !reactor.is_empty() {
        reactor.turn()?;
    }
    Ok(())
}
