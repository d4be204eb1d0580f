//! A tunnel: a client, an entry, an exit and a target, with a wire between each and the next that may
//! be slow, full, or torn. What the sessions promise is checked at each of them; here stands what
//! holds from end to end.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use turnstile::proto::end::Side;
use turnstile::proto::gate::{Digest, Secret};
use turnstile::proto::http_connect::HEAD_LIMIT;
use turnstile::proto::introduction::Line;
use turnstile::proto::session::{Admission, CloseReason};

use crate::call::Call;
use crate::dice::Dice;
use crate::link::{Plug, Trouble};
use crate::model::{BEGINNING, Gate};
use crate::peer::{Outcome, Peer};
use crate::probe::Local;
use crate::relay::{Entry, Exit, FORBIDDEN, TARGET};
use crate::scenario::{self, Mood};
use crate::subject::{Parts, Subject};
use crate::wire::Wire;

/// A request has to fit into a buffer, beside the answer to a challenge.
pub(crate) const ROOM_TO_ASK: usize = 64;

/// What holds from end to end.
pub(crate) struct Tunnel {
    /// How much may be under way from the client to the target, and back.
    room: [usize; 2],
    /// When the wire between entry and exit is torn, and with what.
    strike: Option<(Instant, Trouble)>,
}

/// A tunnel between a client and a target: the sessions and the peers, each from the near side on.
pub(crate) fn draw(dice: &mut Dice) -> (Vec<Subject>, Vec<Peer>, Tunnel) {
    let (entry_timeouts, exit_timeouts) = (scenario::timeouts(dice), scenario::timeouts(dice));
    let mood = Mood {
        is_patient: entry_timeouts.lifetime.is_none() || exit_timeouts.lifetime.is_none(),
        is_endless: false,
        is_flood: false,
    };
    let [(client_plug, client), (near, far), (target_plug, target)] =
        [(); 3].map(|()| scenario::link(dice, false));
    let [entry_block, exit_block] = [(); 2].map(|()| scenario::block_len(dice, None) + ROOM_TO_ASK);
    let room = room([&client_plug, &near, &target_plug], [entry_block, exit_block]);
    let strike = dice.one_in(6).then(|| (*BEGINNING + dice.gap(), near.trouble()));

    let (mut lines, admission, gate) = gates(dice);
    let target_wire = Wire::new(target_plug, Side::Local);
    let exit_local = if dice.one_in(3) {
        Local::Wire(target_wire)
    } else {
        let target = if dice.one_in(8) { FORBIDDEN } else { TARGET };
        lines.push(Line::Ask(target.parse().expect("host:port"), HEAD_LIMIT));
        Local::Exit(exit(dice, target_wire))
    };
    let entry = Entry::new(Wire::new(near, Side::Local), lines, limit(dice));
    let peers = [client, target].map(|plug| {
        let stream = scenario::speech(dice, None, false);
        Peer::new(plug, scenario::script(dice, stream, mood))
    });
    let entry = Subject::new(Parts {
        name: "entry",
        remote: Wire::new(client_plug, Side::Remote),
        local: Local::Entry(entry),
        service: None,
        admission: Admission::Open,
        gate: Gate::Open,
        timeouts: entry_timeouts,
        block_len: entry_block,
    });
    let exit = Subject::new(Parts {
        name: "exit",
        remote: Wire::new(far, Side::Remote),
        local: exit_local,
        service: None,
        admission,
        gate,
        timeouts: exit_timeouts,
        block_len: exit_block,
    });
    (vec![entry, exit], peers.into(), Tunnel { room, strike })
}

/// An exit whose target is there soon, late, or never.
pub(crate) fn exit(dice: &mut Dice, target: Wire) -> Exit {
    let reasons = [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable, ErrorKind::TimedOut];
    let failure = dice.one_in(6).then(|| dice.pick(&reasons));
    Exit::new(Call::new(target, dice.gap(), failure), limit(dice), *BEGINNING)
}

fn limit(dice: &mut Dice) -> Option<Duration> {
    (!dice.one_in(3)).then(|| Duration::from_millis(dice.between(1, 3000) as u64))
}

/// What the entry says to the gate of the exit, which now and then lets it in without a word, or not
/// at all.
fn gates(dice: &mut Dice) -> (Vec<Line>, Admission, Gate) {
    if dice.one_in(6) {
        return (Vec::new(), Admission::Open, Gate::Open);
    }
    let digest = dice.pick(&[Digest::Md5, Digest::Sha256]);
    let (ours, theirs) = (scenario::secret(dice, "ours"), scenario::secret(dice, "theirs"));
    let presented = if dice.one_in(8) { &theirs } else { &ours };
    let challenge = scenario::challenge(dice);
    let (admission, gate) = scenario::guard(&ours, digest, challenge);
    (vec![Line::Answer(Secret::clone(presented), digest)], admission, gate)
}

/// What fits into the wires and the buffers of both sessions, each way.
fn room(wires: [&Plug; 3], blocks: [usize; 2]) -> [usize; 2] {
    let [client, hop, target] = wires.map(Plug::capacities);
    let blocks: usize = blocks.iter().sum();
    [client[1] + hop[0] + target[0] + blocks, target[1] + hop[1] + client[0] + blocks]
}

impl Tunnel {
    /// No more is under way than there is room for: a reader that stops stops the sender.
    pub(crate) fn check_flow(&self, peers: &[Peer]) {
        let [client, target] = peers else { panic!("a tunnel has two ends") };
        for (from, to, room) in [(client, target, self.room[0]), (target, client, self.room[1])] {
            let under_way = from.sent().len() - to.received().len();
            assert!(under_way <= room, "{under_way} bytes are under way, and {room} have room");
        }
    }

    pub(crate) fn next_strike(&self) -> Option<Instant> {
        self.strike.as_ref().map(|&(at, _)| at)
    }

    /// Tears the wire between entry and exit when its time has come.
    pub(crate) fn strike(&mut self, now: Instant) {
        if let Some((_, trouble)) = self.strike.take_if(|(at, _)| *at <= now) {
            trouble.strike(now);
        }
    }

    /// What each of both got is what the other had sent, or the beginning of it; and nobody takes a
    /// part for the whole.
    pub(crate) fn check_ends(self, subjects: &mut [Subject], peers: &mut [Peer], now: Instant) {
        let [entry, exit] = subjects else { panic!("a tunnel has two sessions") };
        let [client, target] = peers else { panic!("a tunnel has two ends") };
        client.drain(now);
        target.drain(now);
        let is_let_in = exit.admits();
        let (client_is_served, target_is_served) =
            (is_let_in && !entry.is_opening(), is_let_in && !exit.is_opening());
        check_end("client", client, target, client_is_served);
        check_end("target", target, client, target_is_served);
        if [entry, exit].iter().all(|subject| subject.closed == Some(CloseReason::Finished)) {
            for peer in [client, target].into_iter().filter(|peer| !peer.has_torn()) {
                assert_eq!(peer.outcome(), Some(Outcome::Ended), "an end was kept back");
            }
        }
    }
}

/// What `reader` got of `writer`. `is_served`: whether the tunnel had come to carry bytes there.
fn check_end(name: &str, reader: &Peer, writer: &Peer, is_served: bool) {
    let (got, sent) = (reader.received(), writer.sent());
    assert!(sent.starts_with(got), "the {name} got what nobody sent");
    assert!(is_served || got.is_empty(), "the {name} got what was not to be carried");
    if is_served && reader.outcome() == Some(Outcome::Ended) {
        assert!(writer.has_ended(), "the {name} heard an end that nobody made");
        assert_eq!(got.len(), sent.len(), "the {name} takes a part for the whole");
    }
}
