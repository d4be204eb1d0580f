//! What an end has to say and hear before it carries anybody's bytes: the answer to a gate's
//! challenge, and the request to be carried to a target. The peer that the bytes come from sees
//! nothing of it.
//!
//! An [`Introduced`] end wraps another. Until its introduction is over it talks to the other side
//! through two small pipes of its own, with storage of their own that goes when it is over; from then
//! on it is the end that it wraps.

use std::io;
use std::time::Instant;

use super::buffer::Pool;
use super::end::{End, Progress, Standing, Turn};
use super::gate::{CHALLENGE_LEN, Digest, Secret};
use super::http_connect::{self, Authority, HEAD_LIMIT};
use super::pipe::Pipe;

/// One thing to be said and answered.
#[derive(Clone, Debug)]
pub enum Line {
    /// A gate asks; this secret answers.
    Answer(Secret, Digest),
    /// An exit is asked to carry bytes to this target.
    Ask(Authority),
}

/// An end that introduces itself first.
pub struct Introduced<E> {
    end: E,
    introduction: Option<Box<Introduction>>,
    /// When the introduction must be over.
    until: Option<Instant>,
}

struct Introduction {
    /// What is left, the next one last.
    lines: Vec<Line>,
    /// Whether the request of the current line is on its way.
    has_asked: bool,
    outgoing: Pipe,
    incoming: Pipe,
    pool: Pool,
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
                pool: Pool::new(HEAD_LIMIT, 0),
            })
        });
        Self { end, introduction, until: None }
    }

    /// The other side is there: the introduction must be over by `until`.
    pub fn begin(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    /// When to run even if nothing becomes ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.introduction.as_ref().and(self.until)
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

    fn introduce(&mut self, from: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<Progress> {
        let Some(introduction) = &mut self.introduction else { return Ok(Progress::Moved(0)) };
        if self.until.is_some_and(|until| until <= turn.now) {
            let why = "the other end did not finish the introduction in time";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        let mut moved = introduction.exchange(&mut self.end, turn)?;
        moved += introduction.speak()?;
        if introduction.lines.is_empty() && introduction.outgoing.is_empty() {
            // What the other side said right after its answer belongs to the peer. It may be more
            // than the peer's pipe has room for, and the rest waits here then.
            let passed = from.append(turn.pool, introduction.incoming.bytes());
            introduction.incoming.consume(&mut introduction.pool, passed);
            moved += passed;
            if introduction.incoming.is_empty() {
                if !introduction.incoming.is_open() {
                    from.end();
                }
                self.introduction = None;
                moved += 1;
            }
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
        if self.introduction.is_some() {
            self.introduce(from, turn)
        } else {
            self.end.exchange(to, from, turn)
        }
    }

    fn standing(&self) -> Standing<'_> {
        self.end.standing()
    }

    fn cut_off(&mut self) -> bool {
        self.end.cut_off() && !self.is_introducing()
    }

    fn dispose(&mut self, pool: &mut Pool) {
        self.end.dispose(pool);
    }
}

impl Introduction {
    /// Lets the end move the introduction's bytes, with storage that is the introduction's own.
    fn exchange(&mut self, end: &mut impl End, turn: &mut Turn<'_>) -> io::Result<usize> {
        let mut own = Turn {
            now: turn.now,
            pool: &mut self.pool,
            clock: turn.clock,
            watch: turn.watch.reborrow(),
        };
        match end.exchange(&mut self.outgoing, &mut self.incoming, &mut own)? {
            Progress::Moved(count) => Ok(count),
            Progress::Done => Err(io::ErrorKind::UnexpectedEof.into()),
            Progress::Broken => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Says what is to be said next, and hears what was answered.
    fn speak(&mut self) -> io::Result<usize> {
        let mut heard = 0;
        while let Some(line) = self.lines.last() {
            let len = match line {
                Line::Answer(secret, digest) => {
                    let Some(challenge) = self.incoming.bytes().first_chunk::<CHALLENGE_LEN>()
                    else {
                        break;
                    };
                    let answer = secret.answer(*digest, challenge);
                    self.outgoing.append(&mut self.pool, answer.as_bytes());
                    CHALLENGE_LEN
                }
                Line::Ask(target) => {
                    if !self.has_asked {
                        let request = http_connect::request(target);
                        self.outgoing.append(&mut self.pool, request.as_bytes());
                        self.has_asked = true;
                        heard += request.len();
                    }
                    let is_ended = !self.incoming.is_open();
                    match http_connect::read_answer(self.incoming.bytes(), is_ended) {
                        Ok(Some(len)) => len,
                        Ok(None) => break,
                        Err(said) => {
                            let why = format!("the exit refused {target}: {said}");
                            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                        }
                    }
                }
            };
            self.incoming.consume(&mut self.pool, len);
            self.lines.pop();
            self.has_asked = false;
            heard += len;
        }
        if !self.lines.is_empty() && !self.incoming.is_open() {
            let why = "the other end closed before the introduction was over: is the secret right?";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        Ok(heard)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::proto::end::Clock;
    use crate::proto::event::{Event, Observer, Subject, Watch};

    use super::*;

    /// The far side, as a script: what it sends, a piece for each exchange, and what it heard.
    #[derive(Default)]
    struct Far {
        sends: Vec<Vec<u8>>,
        ends: bool,
        heard: Vec<u8>,
    }

    impl End for Far {
        fn exchange(
            &mut self,
            to: &mut Pipe,
            from: &mut Pipe,
            turn: &mut Turn<'_>,
        ) -> io::Result<Progress> {
            self.heard.extend_from_slice(to.bytes());
            let mut moved = to.discard(turn.pool);
            if !self.sends.is_empty() {
                moved += from.append(turn.pool, &self.sends.remove(0));
            } else if self.ends && from.is_open() {
                from.end();
                moved += 1;
            }
            Ok(Progress::Moved(moved))
        }
    }

    struct Nobody;

    impl Observer for Nobody {
        fn wants_detail(&self) -> bool {
            false
        }

        fn observe(&mut self, _: u64, _: &Subject<'_>, _: &Event<'_>) {}
    }

    impl Clock for Nobody {
        fn local_time(&self) -> jiff::Zoned {
            jiff::Zoned::default()
        }
    }

    /// Exchanges until nothing moves; answers what came for the peer.
    fn play(introduced: &mut Introduced<Far>, peer_says: &[u8]) -> io::Result<Vec<u8>> {
        let mut pool = Pool::new(16 * 1024, 2);
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
        let mut nobody = Nobody;
        let watch = Watch::new(&mut nobody, 0, Subject::LOOP);
        let mut turn = Turn { now: Instant::now(), pool, clock: &Nobody, watch };
        match introduced.exchange(to, from, &mut turn)? {
            Progress::Moved(count) => Ok(count),
            Progress::Done | Progress::Broken => panic!("the far side never says that"),
        }
    }

    fn lines() -> Vec<Line> {
        let secret = Secret::new("demo", b"key".to_vec().into());
        vec![
            Line::Answer(secret, Digest::Sha256),
            Line::Ask("db.internal:5432".parse().expect("host:port")),
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
    fn more_early_bytes_than_the_peer_has_room_for_wait() {
        let early: Vec<u8> = (0..=255).collect();
        let sends = vec![[&[7; CHALLENGE_LEN], http_connect::ESTABLISHED, &early].concat()];
        let mut introduced = Introduced::new(Far { sends, ..Far::default() }, lines());
        let mut pool = Pool::new(16, 2);
        let (mut to, mut from, mut came) = (Pipe::new(), Pipe::new(), Vec::new());
        while exchange(&mut introduced, &mut to, &mut from, &mut pool).expect("no error") > 0 {
            came.extend_from_slice(from.bytes());
            from.discard(&mut pool);
        }
        assert_eq!(came, early);
        assert!(!introduced.is_introducing());
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
