//! What must come out, said a second time and in another way than the program says it.

use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Instant;

use jiff::tz::TimeZone;

use turnstile::proto::end::Clock;
use turnstile::proto::gate::{CHALLENGE_LEN, Challenge, Digest, Secret};
use turnstile::proto::service::Kind;

use crate::probe::Look;

/// What the gate of a session says and hears.
pub(crate) enum Gate {
    Open,
    /// This challenge goes out; this answer opens.
    Guard {
        challenge: Challenge,
        right: Vec<u8>,
    },
    /// A challenge comes in; this secret's answer goes out.
    Guest {
        secret: Rc<Secret>,
        digest: Digest,
    },
}

impl Gate {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Open => "no gate",
            Self::Guard { .. } => "a gate that asks",
            Self::Guest { .. } => "a gate that answers",
        }
    }

    /// How many bytes it takes before the service has its own.
    pub(crate) fn takes(&self) -> usize {
        match self {
            Self::Open => 0,
            Self::Guard { right, .. } => right.len(),
            Self::Guest { .. } => CHALLENGE_LEN,
        }
    }

    /// Whether somebody who has said `taken` is in.
    pub(crate) fn admits(&self, taken: &[u8]) -> bool {
        match self {
            Self::Open => true,
            Self::Guard { right, .. } => taken.starts_with(right),
            Self::Guest { .. } => taken.len() >= CHALLENGE_LEN,
        }
    }

    /// What it says to a peer that has said `taken`.
    pub(crate) fn says(&self, taken: &[u8]) -> Vec<u8> {
        match self {
            Self::Open => Vec::new(),
            Self::Guard { challenge, .. } => challenge.to_vec(),
            Self::Guest { secret, digest } => match taken.first_chunk() {
                Some(challenge) => secret.answer(*digest, challenge).as_bytes().to_vec(),
                None => Vec::new(),
            },
        }
    }
}

/// All that `service` may have sent by now, `at_least` so many bytes of it where it has no end,
/// when its peer has said `input` and it acted on each of `looks`.
pub(crate) fn output(service: &Kind, input: &[u8], looks: &[Look], at_least: usize) -> Vec<u8> {
    let upper = |byte: &u8| if (97..=122).contains(byte) { byte - 32 } else { *byte };
    match service {
        Kind::Upper => input.iter().map(upper).collect(),
        Kind::Echo => input.to_vec(),
        Kind::Discard => Vec::new(),
        Kind::Chargen => pattern(at_least),
        Kind::Time => looks.iter().filter_map(answer_to).flatten().collect(),
        Kind::Daytime => {
            looks.iter().flat_map(|look| (ctime(look.at) + "\r\n").into_bytes()).collect()
        }
        Kind::Greet => looks.first().map_or_else(Vec::new, |_| "亲,学会了吗".into()),
        Kind::Reply(text) => looks.first().map_or_else(Vec::new, |_| text.to_vec()),
        Kind::Once => looks.first().map_or_else(Vec::new, |look| {
            let message = &look.message[..look.message.len().min(1024)];
            let space = |byte: &&u8| [9, 10, 11, 12, 13, 32].contains(*byte);
            let from = message.iter().take_while(space).count();
            let behind = message[from..].iter().rev().take_while(space).count();
            message[from..message.len() - behind].iter().map(upper).collect()
        }),
    }
}

/// Whether `service` waits for a message before it says anything.
pub(crate) fn waits(service: &Kind) -> bool {
    !matches!(service, Kind::Daytime | Kind::Chargen)
}

/// The messages that `service` must have had logged.
pub(crate) fn logged(service: &Kind, looks: &[Look]) -> Vec<Vec<u8>> {
    let asks_for_it = matches!(service, Kind::Once | Kind::Greet | Kind::Reply(_));
    let first = looks.first().filter(|_| asks_for_it);
    first.map(|look| look.message[..look.message.len().min(1024)].to_vec()).into_iter().collect()
}

fn answer_to(look: &Look) -> Option<Vec<u8>> {
    let is_the_end = ["", "END", "END\n", "END\r\n"].iter().any(|it| it.as_bytes() == look.message);
    (!is_the_end).then(|| ctime(look.at).into_bytes())
}

/// RFC 864, as a table of one line for each first character.
fn pattern(len: usize) -> Vec<u8> {
    let ring: Vec<u8> = (32..127).chain(32..127).collect();
    let line = |first: usize| [&ring[first..first + 72], b"\r\n"].concat();
    (0..=len / 74).flat_map(|number| line(number % 95)).collect()
}

/// What an end got is `expected`: all of it, or the beginning of it.
#[track_caller]
pub(crate) fn check_delivery(side: &str, sent: &[u8], expected: &[u8], whole: bool) {
    let agreed = sent.iter().zip(expected).take_while(|(one, other)| one == other).count();
    assert!(agreed == sent.len(), "the {side} end got something else from byte {agreed} on");
    let (got, due) = (sent.len(), expected.len());
    assert!(!whole || got == due, "the {side} end got {got} of {due} bytes before its end");
}

/// The moment at which every simulation begins: noon, on a day of one digit.
pub(crate) static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A wall clock that shows virtual time.
pub(crate) struct WallClock(pub Instant);

impl Clock for WallClock {
    fn local_time(&self) -> jiff::Zoned {
        let noon = jiff::civil::date(2015, 3, 1).at(12, 0, 0, 0);
        let noon = noon.to_zoned(TimeZone::UTC).expect("UTC has every time");
        &noon + (self.0 - *BEGINNING)
    }
}

fn ctime(at: Instant) -> String {
    let seconds = (at - *BEGINNING).as_secs();
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    format!("Sun Mar  1 {:02}:{:02}:{seconds:02} 2015", 12 + minutes / 60, minutes % 60)
}
