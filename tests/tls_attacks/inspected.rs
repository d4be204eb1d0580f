//! The client that only looks (`inspect`), attacked by the server that it looks at.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ProtocolVersion, RootCertStore};

use turnstile::net::tls_probe::{Prober, Setup};

use crate::attacker::{Attacker, Keys, Version};
use crate::dice::Dice;
use crate::{VERSIONS, warp};

static ONLY_12: &[Version] = &[&rustls::version::TLS12];
static ONLY_13: &[Version] = &[&rustls::version::TLS13];

/// A server that says nothing more is left after this.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn who_looks_at_a_server_survives_it() {
    let keys = Keys::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    for seed in 0..120 {
        let mut dice = Dice::new(seed);
        let version = dice.pick(&VERSIONS);
        let setup = Setup {
            authorities: Vec::new(),
            starttls: None,
            roots: RootCertStore::empty(),
            credential: None,
            alpn: Vec::new(),
            versions: if version.version == ProtocolVersion::TLSv1_3 { ONLY_13 } else { ONLY_12 },
            key_log: None,
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let prober = Prober::new(setup, name, Some(LIMIT)).expect("sound");
        let sighting = thread::scope(|scope| {
            scope.spawn(|| {
                let (wire, _) = listener.accept().expect("it calls");
                serve(wire, &keys, version, &mut dice);
            });
            prober.probe(&[address])
        });
        let sighting = sighting.expect("the loop goes on");
        assert!(sighting.agreed.is_some() || sighting.failure.is_some(), "seed {seed}");
        assert!(sighting.received_bytes.len() <= 64 * 1024, "seed {seed}");
    }
}

/// Shakes hands, as far as chance wills, says anything, and hangs up.
fn serve(mut wire: TcpStream, keys: &Keys, version: Version, dice: &mut Dice) {
    warp::disarm();
    if dice.one_in(4) {
        warp::arm(dice.below(6), dice.fork());
    }
    let mut attacker = Attacker::new(keys, version, false, dice.one_in(3).then_some(100));
    let rounds = dice.pick(&[0, 1, 5, 5, 5]);
    wire.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let mut space = [0; 16 * 1024];
    for _ in 0..rounds {
        if let Ok(count) = wire.read(&mut space) {
            attacker.hears(&space[..count]);
        }
        if wire.write_all(&attacker.says()).is_err() {
            return;
        }
        attacker.takes_keys();
        if attacker.has_keys() {
            break;
        }
    }
    for _ in 0..dice.below(4) {
        let nonsense = attacker.nonsense(dice);
        let piece = dice.pick(&[1 << 20, 100]).max(nonsense.len() / 50 + 1);
        for bytes in nonsense.chunks(piece) {
            if wire.write_all(bytes).is_err() {
                return;
            }
        }
    }
    if dice.one_in(2) {
        let _ = wire.write_all(&attacker.sealed(21, &[1, 0]));
    }
    // What it says last is read, so that the end is none by a reset; or it is one.
    let _ = wire.shutdown(Shutdown::Write);
    if dice.one_in(2) {
        while wire.read(&mut space).is_ok_and(|count| count > 0) {}
    }
}
