//! What an end has to say and hear before it carries anybody's bytes: the answer to a gate's
//! challenge, and the request to be carried to a target. The peer that the bytes come from sees
//! nothing of it.
//!
//! An [`Introduced`] end wraps another. Until its introduction is over it talks to the other side
//! through two pipes of its own, so that its session may hold two blocks of storage more; from then on
//! it is the end that it wraps. What the other side says early is handed over to the peer in one go,
//! and never kept back here.

use std::fmt;
use std::io;
use std::time::Instant;

use super::buffer::Pool;
use super::end::{End, Progress, Standing, Turn};
use super::gate::{CHALLENGE_LEN, Digest, Secret};
use super::http_connect::{self, Authority};
use super::pipe::Pipe;
use super::timeouts::given_back;

/// One thing to be said and answered.
#[derive(Clone, Debug)]
pub enum Line {
    /// A gate asks; this secret answers.
    Answer(Secret, Digest),
    /// An exit is asked to carry bytes to this target; its answer may be so many bytes long, without
    /// what it says after a no.
    Ask(Authority, usize),
}

/// An end that introduces itself first.
pub struct Introduced<E> {
    end: E,
    introduction: Option<Box<Introduction>>,
    /// When the end must be up and the introduction over, as long as they are not.
    until: Option<Instant>,
}

struct Introduction {
    /// What is left, the next one last.
    lines: Vec<Line>,
    /// Whether the request of the current line is on its way.
    has_asked: bool,
    outgoing: Pipe,
    incoming: Pipe,
    /// Why nothing more can be said, if so. What was heard may tell more.
    deaf: Option<io::ErrorKind>,
}

impl<E: End> Introduced<E> {
    /// An end that says `lines`, in this order, before anything else.
    pub fn new(end: E, mut lines: Vec<Line>) -> Self {
        lines.reverse();
        let introduction = (!lines.is_empty()).then(|| {
            Box::new(Introduction {
                lines,
                has_asked: false,
                outgoing: Pipe::new(),
                incoming: Pipe::new(),
                deaf: None,
            })
        });
        Self { end, introduction, until: None }
    }

    /// The other side is there: the end must be up, and the introduction over, by `until`.
    pub fn begin(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    /// When to run even if nothing becomes ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Whether it is still introducing itself.
    #[must_use]
    pub fn is_introducing(&self) -> bool {
        self.introduction.is_some()
    }

    /// The end itself.
    pub fn end(&mut self) -> &mut E {
        &mut self.end
    }

    /// The same, to be looked at.
    pub fn end_ref(&self) -> &E {
        &self.end
    }

    /// Fails where time is up, and puts the deadline away where it was kept.
    fn judge(&mut self, now: Instant) -> io::Result<()> {
        let Some(until) = self.until else { return Ok(()) };
        let is_up = self.end.standing().is_up;
        if !self.is_introducing() && is_up {
            self.until = None;
        } else if until <= now {
            let what = if is_up { "the introduction" } else { "TLS" };
            let why = format!("the other end did not finish {what} in time");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        Ok(())
    }

    fn introduce(&mut self, from: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<Progress> {
        let Some(introduction) = &mut self.introduction else { return Ok(Progress::Moved(0)) };
        let mut moved = match introduction.exchange(&mut self.end, turn) {
            // Whoever refuses may go without a word of farewell. What was said before tells more.
            Err(error) if is_departure(&error) => {
                introduction.incoming.end();
                introduction.speak(turn)?;
                return Err(error);
            }
            outcome => outcome?,
        };
        moved += introduction.speak(turn)?;
        let Introduction { lines, outgoing, incoming, deaf, .. } = &mut **introduction;
        let deaf = *deaf;
        if lines.is_empty() && outgoing.is_empty() {
            // What the other side said right after its answer belongs to the peer.
            moved += incoming.hand_over(from, |_| ());
            if incoming.is_empty() {
                if incoming.is_cut() {
                    from.cut();
                } else if !incoming.is_open() {
                    from.end();
                }
                self.introduction = None;
                if let Some(kind) = deaf {
                    return Ok(Progress::Deaf(kind));
                }
                moved += 1;
            }
        }
        if let (0, Some(introduction)) = (moved, &mut self.introduction) {
            introduction.outgoing.settle(turn.pool);
            introduction.incoming.settle(turn.pool);
        }
        Ok(Progress::Moved(moved))
    }
}

impl<E: End> End for Introduced<E> {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let progress = if self.introduction.is_some() {
            self.introduce(from, turn)?
        } else {
            self.end.exchange(to, from, turn)?
        };
        // What has come in time counts; more can come only where something moved.
        if progress == Progress::Moved(0) {
            self.judge(turn.now)?;
        } else {
            self.until = self.until.map(|until| given_back(until, turn.now).unwrap_or(until));
        }
        Ok(progress)
    }

    fn standing(&self) -> Standing<'_> {
        self.end.standing()
    }

    fn has_carried(&self) -> bool {
        self.end.has_carried() && !self.is_introducing()
    }

    fn has_sent_all(&self) -> bool {
        self.end.has_sent_all()
    }

    fn is_reached(&self) -> bool {
        self.end.is_reached()
    }

    fn cut_off(&mut self) {
        self.end.cut_off();
    }

    fn dispose(&mut self, pool: &mut Pool) {
        if let Some(introduction) = &mut self.introduction {
            introduction.outgoing.discard(pool);
            introduction.incoming.discard(pool);
        }
        self.end.dispose(pool);
    }

    fn write_route(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.end.write_route(f)
    }
}

impl Introduction {
    /// Lets the end move the introduction's bytes.
    fn exchange(&mut self, end: &mut impl End, turn: &mut Turn<'_>) -> io::Result<usize> {
        match end.exchange(&mut self.outgoing, &mut self.incoming, turn)? {
            Progress::Moved(count) => Ok(count),
            Progress::Done => Err(io::ErrorKind::UnexpectedEof.into()),
            Progress::Broken => Err(io::ErrorKind::InvalidData.into()),
            Progress::Deaf(kind) => {
                self.deaf = Some(kind);
                Ok(1 + self.outgoing.discard(turn.pool))
            }
        }
    }

    /// Says what is to be said next, and hears what was answered.
    fn speak(&mut self, turn: &mut Turn<'_>) -> io::Result<usize> {
        let mut heard = 0;
        while let Some(line) = self.lines.last() {
            let len = match line {
                Line::Answer(secret, digest) => {
                    let Some(challenge) = self.incoming.bytes().first_chunk::<CHALLENGE_LEN>()
                    else {
                        break;
                    };
                    let answer = secret.answer(*digest, challenge);
                    self.outgoing.append(turn.pool, answer.as_bytes());
                    CHALLENGE_LEN
                }
                Line::Ask(target, limit) => {
                    if !self.has_asked {
                        let request = http_connect::request(target);
                        let put = self.outgoing.append(turn.pool, request.as_bytes());
                        assert_eq!(put, request.len(), "a request fits behind an answer");
                        self.has_asked = true;
                        heard += put;
                    }
                    if !self.incoming.is_open() && self.incoming.is_empty() {
                        break;
                    }
                    let is_all = !self.incoming.wants_more(turn.pool);
                    match http_connect::read_answer(self.incoming.bytes(), is_all, *limit) {
                        Ok(Some(len)) => len,
                        Ok(None) => break,
                        Err(said) => {
                            let why = format!("the exit refused {target}: {said}");
                            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                        }
                    }
                }
            };
            self.incoming.consume(turn.pool, len);
            self.lines.pop();
            self.has_asked = false;
            heard += len;
        }
        if !self.lines.is_empty() && !self.incoming.is_open() {
            let why = "the other end closed before the introduction was over: if it has a gate, is \
                       the secret right?";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        Ok(heard)
    }
}

fn is_departure(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::proto::end::Clock;
    use crate::proto::event::{Silent, Subject, Watch};

    use super::*;

    const ROOM: usize = 16 * 1024;

    /// The far side, as a script: what it sends, a piece for each exchange, and what it heard.
    #[derive(Default)]
    struct Far {
        sends: Vec<Vec<u8>>,
        ends: bool,
        heard: Vec<u8>,
        /// The storage that it was given.
        block_len: usize,
    }

    impl End for Far {
        fn exchange(
            &mut self,
            to: &mut Pipe,
            from: &mut Pipe,
            turn: &mut Turn<'_>,
        ) -> io::Result<Progress> {
            self.block_len = turn.pool.block_len();
            self.heard.extend_from_slice(to.bytes());
            let mut moved = to.discard(turn.pool);
            if let Some(piece) = self.sends.first_mut().filter(|_| from.wants_more(turn.pool)) {
                let count = from.append(turn.pool, piece);
                piece.drain(..count);
                self.sends.retain(|piece| !piece.is_empty());
                moved += count;
            }
            if self.sends.is_empty() && std::mem::take(&mut self.ends) {
                from.end();
                moved += 1;
            }
            Ok(Progress::Moved(moved))
        }
    }

    struct NoClock;

    impl Clock for NoClock {
        fn local_time(&self) -> jiff::Zoned {
            jiff::Zoned::default()
        }
    }

    /// Exchanges until nothing moves; answers what came for the peer.
    fn play(introduced: &mut Introduced<Far>, peer_says: &[u8]) -> io::Result<Vec<u8>> {
        let mut pool = Pool::new(ROOM, 2);
        let (mut to, mut from) = (Pipe::new(), Pipe::new());
        to.append(&mut pool, peer_says);
        while exchange(introduced, &mut to, &mut from, &mut pool)? > 0 {}
        Ok(from.bytes().to_vec())
    }

    fn exchange(
        introduced: &mut Introduced<Far>,
        to: &mut Pipe,
        from: &mut Pipe,
        pool: &mut Pool,
    ) -> io::Result<usize> {
        let mut silent = Silent;
        let watch = Watch::new(&mut silent, 0, Subject::LOOP);
        let mut turn = Turn { now: Instant::now(), pool, clock: &NoClock, watch };
        match introduced.exchange(to, from, &mut turn)? {
            Progress::Moved(count) => Ok(count),
            Progress::Done | Progress::Broken | Progress::Deaf(_) => {
                panic!("the far side never says that")
            }
        }
    }

    fn lines() -> Vec<Line> {
        let secret = Secret::new("demo", b"key".to_vec().into());
        vec![
            Line::Answer(secret, Digest::Sha256),
            Line::Ask("db.internal:5432".parse().expect("host:port"), http_connect::HEAD_LIMIT),
        ]
    }

    #[test]
    fn it_answers_the_gate_then_asks_and_then_carries_bytes() {
        let all = [&[7; CHALLENGE_LEN], http_connect::ESTABLISHED, b"early"].concat();
        for cut in 1..all.len() {
            let sends = all.chunks(cut).map(<[u8]>::to_vec).collect();
            let mut introduced = Introduced::new(Far { sends, ..Far::default() }, lines());
            let came = play(&mut introduced, b"hello").expect("introduced");
            assert_eq!(came, b"early", "pieces of {cut}");
            assert!(!introduced.is_introducing());
            let heard = &introduced.end().heard;
            assert_eq!(
                heard[32..].strip_suffix(b"hello"),
                Some(
                    http_connect::request(&"db.internal:5432".parse().expect("host:port"))
                        .as_bytes()
                )
            );
        }
    }

    #[test]
    fn early_bytes_never_stand_in_the_way_of_the_peer() {
        let early: Vec<u8> = (0..=255).collect();
        let sends = vec![[&[7; CHALLENGE_LEN], http_connect::ESTABLISHED, &early].concat()];
        let mut introduced = Introduced::new(Far { sends, ..Far::default() }, lines());
        introduced.begin(Some(Instant::now() + Duration::from_secs(60)));
        let mut pool = Pool::new(128, 2);
        let (mut to, mut from) = (Pipe::new(), Pipe::new());
        to.append(&mut pool, b"first");
        while exchange(&mut introduced, &mut to, &mut from, &mut pool).expect("no error") > 0 {}
        assert_eq!(from.room(&pool), 0, "the peer takes nothing");
        assert!(introduced.end().heard.ends_with(b"first"), "and is heard all the same");
        assert_eq!(introduced.deadline(), None);
        let mut came = Vec::new();
        while !from.is_empty() {
            came.extend_from_slice(from.bytes());
            from.discard(&mut pool);
            exchange(&mut introduced, &mut to, &mut from, &mut pool).expect("no error");
        }
        assert_eq!(came, early);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn the_end_has_the_storage_of_its_session_and_gives_it_back() {
        let far = Far { sends: vec![vec![7; 5]], ..Far::default() };
        let mut introduced = Introduced::new(far, lines());
        let mut pool = Pool::new(ROOM, 2);
        let (mut to, mut from) = (Pipe::new(), Pipe::new());
        exchange(&mut introduced, &mut to, &mut from, &mut pool).expect("no error");
        assert_eq!(introduced.end().block_len, ROOM, "a record of TLS must fit");
        assert_eq!(pool.lent(), 1, "five bytes of a challenge");
        introduced.dispose(&mut pool);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn nothing_of_the_peer_is_said_before_it_is_over() {
        let far = Far { sends: vec![vec![7; CHALLENGE_LEN]], ..Far::default() };
        let mut introduced = Introduced::new(far, lines());
        play(&mut introduced, b"hello").expect("waits");
        assert!(introduced.is_introducing());
        assert!(!introduced.end().heard.ends_with(b"hello"));
    }

    #[test]
    fn a_refusal_says_why() {
        let refusal = http_connect::Refusal::NotAllowed("a:1".parse().expect("host:port"));
        let sends = vec![vec![7; CHALLENGE_LEN], refusal.answer().into_bytes()];
        let far = Far { sends, ..Far::default() };
        let error = play(&mut Introduced::new(far, lines()), b"").expect_err("refused");
        assert!(error.to_string().contains("403 Forbidden"), "{error}");
    }

    #[test]
    fn an_end_in_the_middle_is_an_error() {
        for sends in [vec![], vec![vec![7; 10]], vec![vec![7; CHALLENGE_LEN]]] {
            let far = Far { sends, ends: true, ..Far::default() };
            assert!(play(&mut Introduced::new(far, lines()), b"").is_err());
        }
    }

    #[test]
    fn an_end_right_behind_the_answer_is_passed_on() {
        let sends = vec![vec![7; CHALLENGE_LEN], [http_connect::ESTABLISHED, b"bye"].concat()];
        let mut introduced = Introduced::new(Far { sends, ends: true, ..Far::default() }, lines());
        let mut pool = Pool::new(ROOM, 2);
        let (mut to, mut from) = (Pipe::new(), Pipe::new());
        while exchange(&mut introduced, &mut to, &mut from, &mut pool).expect("no error") > 0 {}
        assert_eq!(from.bytes(), b"bye");
        assert!(!from.is_open() && !introduced.is_introducing());
    }

    #[test]
    fn without_anything_to_say_it_is_the_end_itself() {
        let far = Far { sends: vec![b"hello".to_vec()], ..Far::default() };
        let mut introduced = Introduced::new(far, vec![]);
        assert_eq!(play(&mut introduced, b"").expect("carried"), b"hello");
    }

    #[test]
    fn it_does_not_wait_for_ever() {
        let mut introduced = Introduced::new(Far::default(), lines());
        assert_eq!(introduced.deadline(), None, "nobody is there yet");
        introduced.begin(Some(Instant::now() + Duration::from_secs(60)));
        assert!(play(&mut introduced, b"").is_ok() && introduced.deadline().is_some());
        introduced.begin(Some(Instant::now()));
        let error = play(&mut introduced, b"").expect_err("too late");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
