//! Peers that finish a handshake, or half of one, and then say anything at all: records of every type,
//! whole and cut, properly encrypted and not, before, in and after the handshake, with every way to
//! end. Whoever is attacked goes on or ends with a reason; nothing that a peer says ends the process.
//!
//! `TURNSTILE_SEED=n` replays one attack; `TURNSTILE_SEEDS=n` sets how many are tried.

mod attacker;
// Of the simulator's dice, what makes up times is not thrown here.
#[allow(dead_code)]
#[path = "../simulation/dice.rs"]
mod dice;
mod inspected;
mod stage;
mod warp;

use std::collections::BTreeMap;
use std::env;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use turnstile::proto::service::Kind;
use turnstile::proto::session::CloseReason;

use attacker::{Attacker, Keys, Version};
use dice::Dice;
use stage::{Role, Stage};

const VERSIONS: [Version; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];
const ROLES: [Role; 4] = [Role::Server, Role::Relay, Role::Client, Role::Entry];

/// How an attacker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// It ends its side and listens.
    HalfClose,
    /// The same, after a `close_notify`.
    Goodbye,
    /// A `close_notify`, and then it goes on talking.
    GoodbyeAndMore,
    /// It closes; what it has not read becomes a reset.
    Close,
    /// It stays, and says nothing more.
    Stay,
}

const LEAVINGS: [Leaving; 5] =
    [Leaving::HalfClose, Leaving::Goodbye, Leaving::GoodbyeAndMore, Leaving::Close, Leaving::Stay];

#[test]
fn a_message_that_is_cut_anywhere_ends_nobody() {
    let keys = Keys::new();
    let messages: [&[u8]; 4] =
        [&[24, 0, 0, 1, 0], &[1, 0, 0, 40, 3, 3], &[4, 0, 0, 9, 0, 0, 1], &[0, 0, 0, 0]];
    for (version, role) in VERSIONS.into_iter().flat_map(|it| ROLES.map(|role| (it, role))) {
        for (message, leaving) in messages.iter().flat_map(|it| LEAVINGS.map(|way| (it, way))) {
            for cut in 1..message.len() {
                let (mut stage, mut attacker) = up(&keys, version, role, &Kind::Upper);
                let record = attacker.sealed(22, &message[..cut]);
                stage.send(&record);
                leave(&mut stage, &mut attacker, leaving);
                stage.wait_for_the_end(true);
            }
        }
    }
}

/// The other direction was closed first, so that no alert may follow.
#[test]
fn a_fault_after_our_goodbye_is_no_fault_of_ours() {
    let keys = Keys::new();
    for version in VERSIONS {
        let faults = [(22, &[254, 0, 0, 0][..]), (21, &[9, 9]), (99, b"?"), (20, &[7]), (22, &[0])];
        for (kind, payload) in faults {
            let (mut stage, mut attacker) = up(&keys, version, Role::Relay, &Kind::Upper);
            stage.other_side_leaves();
            for _ in 0..3 {
                stage.turn();
            }
            stage.listen();
            let record = attacker.sealed(kind, payload);
            let said = stage.send(&record);
            assert_eq!(said, b"", "something follows a close_notify");
            leave(&mut stage, &mut attacker, Leaving::HalfClose);
            stage.wait_for_the_end(true);
        }
    }
}

#[test]
fn no_peer_ends_more_than_its_own_session() {
    let keys = Keys::new();
    if let Some(seed) = number("TURNSTILE_SEED") {
        println!("{:?}", attack(&keys, seed));
        return;
    }
    let mut seen = BTreeMap::<String, usize>::new();
    for seed in 0..number("TURNSTILE_SEEDS").unwrap_or(600) {
        match catch_unwind(AssertUnwindSafe(|| attack(&keys, seed))) {
            Ok(reason) => *seen.entry(format!("{reason:?}")).or_default() += 1,
            Err(_) => panic!("again with TURNSTILE_SEED={seed} cargo test --test tls_attacks"),
        }
    }
    println!("{seen:#?}");
    for reason in [CloseReason::Handshake, CloseReason::Broken, CloseReason::Finished] {
        assert!(seen.contains_key(&format!("{reason:?}")), "no seed ended as {reason:?}");
    }
    let resident = resident_kib();
    assert!(resident < 256 * 1024, "{resident} KiB are resident");
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`, and must be a number")))
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a size");
    line.split_ascii_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
}

/// A stage on which the handshake is done, and an attacker with keys.
fn up(keys: &Keys, version: Version, role: Role, service: &Kind) -> (Stage, Attacker) {
    let mut stage = Stage::new(role, keys, version, service);
    let mut attacker = Attacker::new(keys, version, role.attacker_is_client(), None);
    warp::disarm();
    shake(&mut stage, &mut attacker, usize::MAX, usize::MAX);
    attacker.takes_keys();
    assert!(attacker.has_keys(), "the handshake is done");
    (stage, attacker)
}

/// Goes on with the handshake until the attacker has sent `most` bytes, `piece` at once.
fn shake(stage: &mut Stage, attacker: &mut Attacker, mut most: usize, piece: usize) {
    for _ in 0..20 {
        stage.turn();
        let heard = stage.listen();
        attacker.hears(&heard);
        let said = attacker.says();
        for bytes in said[..said.len().min(most)].chunks(piece) {
            let heard = stage.send(bytes);
            attacker.hears(&heard);
        }
        most = most.saturating_sub(said.len());
        if most == 0 {
            return;
        }
    }
}

fn leave(stage: &mut Stage, attacker: &mut Attacker, leaving: Leaving) {
    if matches!(leaving, Leaving::Goodbye | Leaving::GoodbyeAndMore) {
        let goodbye = attacker.sealed(21, &[1, 0]);
        stage.send(&goodbye);
    }
    match leaving {
        Leaving::HalfClose | Leaving::Goodbye => {
            let _ = stage.wire.shutdown(Shutdown::Write);
        }
        Leaving::GoodbyeAndMore => {
            let more = [attacker.sealed(21, &[2, 40]), attacker.sealed(23, b"more")].concat();
            stage.send(&more);
            let _ = stage.wire.shutdown(Shutdown::Write);
        }
        Leaving::Close => {
            let (gone, _) = UnixStream::pair().expect("a pair");
            stage.wire = gone;
        }
        Leaving::Stay => {}
    }
}

/// One attack; answers how the session that was attacked ended.
fn attack(keys: &Keys, seed: u64) -> CloseReason {
    let mut dice = Dice::new(seed);
    let (version, role) = (dice.pick(&VERSIONS), dice.pick(&ROLES));
    let services =
        [Kind::Upper, Kind::Echo, Kind::Discard, Kind::Chargen, Kind::Daytime, Kind::Once];
    let mut stage = Stage::new(role, keys, version, &dice.pick(&services));
    let record_len = dice.one_in(3).then(|| dice.between(32, 300));
    let mut attacker = Attacker::new(keys, version, role.attacker_is_client(), record_len);
    warp::disarm();
    if dice.one_in(5) {
        warp::arm(dice.below(8), dice.fork());
    }
    let most = match dice.below(4) {
        0 => dice.below(2000),
        _ => usize::MAX,
    };
    let piece = dice.pick(&[1 << 20, 1 << 20, 1000, 101]);
    shake(&mut stage, &mut attacker, most, piece);
    warp::disarm();
    if most == usize::MAX {
        attacker.takes_keys();
    }
    for _ in 0..dice.below(6) {
        if dice.one_in(4) {
            let honest = attacker.sealed(23, b"an honest request\n");
            stage.send(&honest);
        }
        let nonsense = attacker.nonsense(&mut dice);
        let piece = dice.pick(&[1 << 20, 1 << 20, 333, 7]);
        for bytes in nonsense.chunks(piece.max(nonsense.len() / 400 + 1)) {
            stage.send(bytes);
        }
        stage.other_side_talks = dice.one_in(2);
        if dice.one_in(15) {
            stage.other_side_leaves();
        }
    }
    leave(&mut stage, &mut attacker, dice.pick(&LEAVINGS));
    stage.wait_for_the_end(dice.one_in(2))
}
