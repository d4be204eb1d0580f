//! What a seed stands for: who talks to whom through which gate about what, and what goes wrong.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use turnstile::proto::end::Side;
use turnstile::proto::gate::{CHALLENGE_LEN, Challenge, Digest, Keyring, Secret};
use turnstile::proto::service::{Kind, MESSAGE_LIMIT};
use turnstile::proto::session::{Admission, Timeouts};

use crate::dice::Dice;
use crate::link::Plug;
use crate::model::{BEGINNING, Gate};
use crate::peer::{Act, Peer};
use crate::probe::Local;
use crate::relay;
use crate::subject::{Parts, Subject};
use crate::tunnel::{self, ROOM_TO_ASK};
use crate::wire::Wire;
use crate::world::World;

/// More than one turn's budget in one go.
const FLOOD: usize = 400_000;

/// The world of a seed.
pub(crate) fn draw(seed: u64) -> World {
    let mut dice = Dice::new(seed);
    let ((subjects, peers), tunnel) = match dice.below(8) {
        0 => (pair(&mut dice), None),
        1..4 => {
            let (subjects, peers, tunnel) = tunnel::draw(&mut dice);
            ((subjects, peers), Some(tunnel))
        }
        _ => (alone(&mut dice), None),
    };
    let stop_at = dice.one_in(30).then(|| *BEGINNING + dice.gap());
    World { subjects, peers, tunnel, stop_at, dice, is_shown: false }
}

/// One session, with a peer that knows the challenge before it is sent, so that what it says may
/// come at any time.
fn alone(dice: &mut Dice) -> (Vec<Subject>, Vec<Peer>) {
    let service = service(dice);
    let timeouts = timeouts(dice);
    let is_flood = dice.one_in(400);
    let mood = Mood {
        is_patient: timeouts.lifetime.is_none(),
        is_endless: service == Some(Kind::Chargen),
        is_flood,
    };
    let (admission, gate, opening) = admission(dice);
    let (plug, far) = link(dice, is_flood);
    let asks = service.is_none() && !is_flood && dice.one_in(2);
    let request = if asks { request(dice) } else { Vec::new() };
    let stream = [opening, request, speech(dice, service.as_ref(), is_flood)].concat();
    let mut peers = vec![Peer::new(far, script(dice, stream, mood))];
    let local = match &service {
        Some(kind) => Local::Service(kind.stream()),
        None => {
            let (plug, far) = link(dice, is_flood);
            let stream = speech(dice, None, false);
            peers.push(Peer::new(far, script(dice, stream, mood)));
            let wire = Wire::new(plug, Side::Local);
            if asks { Local::Exit(tunnel::exit(dice, wire)) } else { Local::Wire(wire) }
        }
    };
    let remote = Wire::new(plug, Side::Remote);
    let block_len = block_len(dice, service.as_ref()) + usize::from(asks) * ROOM_TO_ASK;
    let name = "session";
    let parts = Parts { name, remote, local, service, admission, gate, timeouts, block_len };
    (vec![Subject::new(parts)], peers)
}

/// Both sides of a tunnel: a client, a session that answers, one that asks, and a service or
/// another peer behind it.
fn pair(dice: &mut Dice) -> (Vec<Subject>, Vec<Peer>) {
    let service = service(dice);
    let (guest_timeouts, guard_timeouts) = (timeouts(dice), timeouts(dice));
    let mood = Mood {
        is_patient: guest_timeouts.lifetime.is_none() || guard_timeouts.lifetime.is_none(),
        is_endless: service == Some(Kind::Chargen),
        is_flood: false,
    };
    let (near, far) = link(dice, false);
    let (client_plug, client) = link(dice, false);
    let stream = speech(dice, service.as_ref(), false);
    let mut peers = vec![Peer::new(client, script(dice, stream, mood))];
    let local = match &service {
        Some(kind) => Local::Service(kind.stream()),
        None => {
            let (plug, far) = link(dice, false);
            let stream = speech(dice, None, false);
            peers.push(Peer::new(far, script(dice, stream, mood)));
            Local::Wire(Wire::new(plug, Side::Local))
        }
    };
    let [(guest_admission, guest_gate), (guard_admission, guard_gate)] = admissions(dice);
    let guest = Subject::new(Parts {
        name: "guest",
        remote: Wire::new(near, Side::Remote),
        local: Local::Wire(Wire::new(client_plug, Side::Local)),
        service: None,
        admission: guest_admission,
        gate: guest_gate,
        timeouts: guest_timeouts,
        block_len: block_len(dice, None),
    });
    let guard = Subject::new(Parts {
        name: "guard",
        remote: Wire::new(far, Side::Remote),
        local,
        block_len: block_len(dice, service.as_ref()),
        service,
        admission: guard_admission,
        gate: guard_gate,
        timeouts: guard_timeouts,
    });
    (vec![guest, guard], peers)
}

fn service(dice: &mut Dice) -> Option<Kind> {
    Some(match dice.below(12) {
        0 => Kind::Upper,
        1 => Kind::Once,
        2 => Kind::Greet,
        3 => Kind::Time,
        4 => Kind::Echo,
        5 => Kind::Discard,
        6 => Kind::Daytime,
        7 => Kind::Chargen,
        8 => {
            let len = dice.pick(&[0, 1, 20, 600]);
            Kind::Reply(Rc::from(dice.bytes(len)))
        }
        _ => return None,
    })
}

/// Small enough to be full all the time, but with room for what has to go in at once: a challenge,
/// a line of daytime, the message of `once`.
pub(crate) fn block_len(dice: &mut Dice, service: Option<&Kind>) -> usize {
    match service {
        Some(Kind::Once) => MESSAGE_LIMIT + dice.below(40),
        _ => {
            let most = dice.pick(&[56, 256]);
            dice.between(40, most)
        }
    }
}

pub(crate) fn timeouts(dice: &mut Dice) -> Timeouts {
    let mut timeout = |unlikely| {
        let limit = dice.pick(&[50, 500, 3000]);
        let limit = Duration::from_millis(dice.between(1, limit) as u64);
        (!dice.one_in(unlikely)).then_some(limit)
    };
    Timeouts {
        proxy: None,
        tls: None,
        auth: timeout(3),
        idle: timeout(3),
        half_close: timeout(3),
        lifetime: timeout(2),
    }
}

pub(crate) fn link(dice: &mut Dice, is_flood: bool) -> (Plug, Plug) {
    let mut capacity = || match dice.below(3) {
        _ if is_flood => FLOOD,
        0 => dice.between(1, 40),
        1 => dice.between(40, 400),
        _ => 4096,
    };
    let capacities = [capacity(), capacity()];
    Plug::pair(capacities, dice.fork())
}

pub(crate) fn secret(dice: &mut Dice, name: &str) -> Rc<Secret> {
    let len = dice.between(1, 80);
    Rc::new(Secret::new(name, dice.bytes(len).into()))
}

pub(crate) fn challenge(dice: &mut Dice) -> Challenge {
    dice.bytes(CHALLENGE_LEN).try_into().expect("so many bytes were asked for")
}

pub(crate) fn guard(secret: &Secret, digest: Digest, challenge: Challenge) -> (Admission, Gate) {
    let keyring = Rc::new(Keyring::new(digest, [secret]));
    let right = secret.answer(digest, &challenge).as_bytes().to_vec();
    (Admission::Guard(keyring, challenge), Gate::Guard { challenge, right })
}

fn guest(secret: Rc<Secret>, digest: Digest) -> (Admission, Gate) {
    (Admission::Guest(Rc::clone(&secret), digest), Gate::Guest { secret, digest })
}

/// A gate, and what a peer says to it first: most often what opens it.
fn admission(dice: &mut Dice) -> (Admission, Gate, Vec<u8>) {
    let digest = dice.pick(&[Digest::Md5, Digest::Sha256]);
    let (ours, theirs) = (secret(dice, "ours"), secret(dice, "theirs"));
    let challenge = challenge(dice);
    match dice.below(5) {
        0 => (Admission::Open, Gate::Open, Vec::new()),
        1 | 2 => {
            let (admission, gate) = guard(&ours, digest, challenge);
            let mut answer = ours.answer(digest, &challenge).as_bytes().to_vec();
            match dice.below(12) {
                0 => answer = theirs.answer(digest, &challenge).as_bytes().to_vec(),
                1 => answer.truncate(dice.below(answer.len())),
                2 => answer = answer.repeat(2)[1..].to_vec(),
                3 => {
                    let at = dice.below(answer.len());
                    answer[at] ^= 1 << dice.below(8);
                }
                _ => {}
            }
            (admission, gate, answer)
        }
        _ => {
            let (admission, gate) = guest(ours, digest);
            let len = if dice.one_in(6) { dice.below(CHALLENGE_LEN) } else { CHALLENGE_LEN };
            (admission, gate, challenge[..len].to_vec())
        }
    }
}

/// The gates of both sides of a tunnel, which now and then do not agree.
fn admissions(dice: &mut Dice) -> [(Admission, Gate); 2] {
    if dice.one_in(6) {
        return [(Admission::Open, Gate::Open), (Admission::Open, Gate::Open)];
    }
    let digest = dice.pick(&[Digest::Md5, Digest::Sha256]);
    let ours = secret(dice, "ours");
    let presented = if dice.one_in(6) { secret(dice, "theirs") } else { Rc::clone(&ours) };
    let presented_as = if dice.one_in(12) { Digest::Md5 } else { digest };
    let challenge = challenge(dice);
    [guest(presented, presented_as), guard(&ours, digest, challenge)]
}

/// What somebody says to an exit: most often what it understands.
fn request(dice: &mut Dice) -> Vec<u8> {
    match dice.below(8) {
        0 => relay::request(relay::FORBIDDEN),
        1 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        2 => b"\x16\x03\x01".to_vec(),
        3 => b"CONNECT nowhere HTTP/1.1\r\n\r\n".to_vec(),
        4 => {
            let more = dice.pick(&[0, 500]);
            [b"CONNECT db.internal:5432 HTTP/1.1\r\nHost: ", &vec![b'x'; more][..]].concat()
        }
        _ => relay::request(relay::TARGET),
    }
}

/// What a peer has to say to `service`, or through a session to another peer.
pub(crate) fn speech(dice: &mut Dice, service: Option<&Kind>, is_flood: bool) -> Vec<u8> {
    let text = ["GET TIME", "END", "END\n", " \t shout \r\n", " ", "亲,学会了吗"];
    match dice.below(6) {
        _ if is_flood => dice.bytes(FLOOD),
        0 => Vec::new(),
        1 | 2 if service == Some(&Kind::Once) => {
            let len = dice.between(MESSAGE_LIMIT - 40, MESSAGE_LIMIT + 40);
            dice.bytes(len)
        }
        1 | 2 if service.is_some() => dice.pick(&text).into(),
        3 => {
            let len = dice.below(3000);
            dice.bytes(len)
        }
        _ => {
            let len = dice.below(200);
            dice.bytes(len)
        }
    }
}

/// What a peer is like.
#[derive(Clone, Copy)]
pub(crate) struct Mood {
    /// No deadline would get rid of it if it fell silent: it takes everything and ends its side.
    pub(crate) is_patient: bool,
    /// It talks to a service that never stops: it takes a little, and only tearing the connection
    /// down is an end.
    pub(crate) is_endless: bool,
    pub(crate) is_flood: bool,
}

/// Says `stream` in pieces over time, and takes what comes, until it has had enough.
pub(crate) fn script(dice: &mut Dice, mut stream: Vec<u8>, mood: Mood) -> VecDeque<(Instant, Act)> {
    let mut acts = Vec::new();
    let mut now = *BEGINNING;
    if dice.one_in(8) {
        stream.truncate(dice.below(stream.len() + 1));
    }
    while !stream.is_empty() {
        now += dice.gap();
        let most = if mood.is_flood || dice.one_in(2) { stream.len() } else { 100 };
        let len = dice.between(1, most.min(stream.len()));
        acts.push((now, Act::Send(stream.drain(..len).collect())));
    }
    let mut later = *BEGINNING;
    for _ in 0..dice.below(4) {
        later += dice.gap();
        let flood = usize::from(mood.is_flood) * FLOOD;
        acts.push((later, Act::Take(dice.between(1, 500) + flood)));
    }
    if !mood.is_endless && dice.one_in(2) {
        acts.push((*BEGINNING, Act::Take(usize::MAX)));
    }
    now += dice.gap();
    if mood.is_patient && !mood.is_endless {
        acts.push((now.max(later), Act::Take(usize::MAX)));
    }
    match dice.below(6) {
        0 => acts.push((*BEGINNING + dice.gap(), Act::Reset)),
        1 if !mood.is_patient => {}
        _ if mood.is_endless && mood.is_patient => acts.push((now, Act::Reset)),
        _ => acts.push((now, Act::End)),
    }
    acts.sort_by_key(|&(at, _)| at);
    acts.into()
}
