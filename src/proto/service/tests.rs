//! What each service says, byte for byte, over a stream and over datagrams.

use std::time::Instant;

use super::*;
use crate::proto::buffer::Pool;
use crate::proto::event::{Event, Observer, Subject, Watch};

const NOW: &str = "2015-03-15T12:09:16+01:00[Europe/Belgrade]";
const CTIME: &[u8] = b"Sun Mar 15 12:09:16 2015";
const GREETING: &[u8] = b"\xe4\xba\xb2,\xe5\xad\xa6\xe4\xbc\x9a\xe4\xba\x86\xe5\x90\x97";

mod upper_service {
    use super::*;

    #[test]
    fn changes_the_letters_a_to_z_and_no_other_byte() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let mut expected = every_byte.clone();
        for (letter, capital) in (b'a'..=b'z').zip(b'A'..=b'Z') {
            expected[usize::from(letter)] = capital;
        }
        assert_eq!(Talk::with(&Kind::Upper).say(&every_byte), expected);
    }

    #[test]
    fn leaves_text_beyond_ascii_as_it_is() {
        let said = Talk::with(&Kind::Upper).say("naïve, 亲, ß, ı".as_bytes());
        assert_eq!(String::from_utf8(said).as_deref(), Ok("NAïVE, 亲, ß, ı"));
    }

    #[test]
    fn answers_the_end_with_the_end() {
        let mut talk = Talk::with(&Kind::Upper);
        assert_eq!(talk.say(b"one"), b"ONE");
        assert_eq!(talk.end(), b"");
        assert!(talk.has_ended() && !talk.is_done);
    }
}

mod echo_service {
    use super::*;

    #[test]
    fn sends_every_byte_back_and_the_end_too() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let mut talk = Talk::with(&Kind::Echo);
        assert_eq!(talk.say(&every_byte), every_byte);
        assert_eq!(talk.end(), b"");
        assert!(talk.has_ended() && !talk.is_done);
    }

    #[test]
    fn lets_the_next_bytes_wait_while_the_last_are_not_taken() {
        let mut talk = Talk::with(&Kind::Echo);
        talk.put(b"one");
        talk.act();
        talk.put(b"two");
        talk.act();
        assert_eq!((talk.from.bytes(), talk.to.bytes()), (&b"one"[..], &b"two"[..]));
        assert_eq!((talk.hear(), talk.hear()), (b"one".to_vec(), b"two".to_vec()));
    }
}

mod discard_service {
    use super::*;

    #[test]
    fn says_nothing_and_ends_when_the_peer_ends() {
        let mut talk = Talk::with(&Kind::Discard);
        assert_eq!(talk.say(b"anything"), b"");
        assert!(talk.to.is_empty() && !talk.has_ended());
        assert_eq!(talk.end(), b"");
        assert!(talk.has_ended() && !talk.is_done);
    }
}

mod once_service {
    use super::*;

    #[test]
    fn strips_and_shouts_one_message_and_is_done() {
        let mut talk = Talk::with(&Kind::Once);
        assert_eq!(talk.hear(), b"", "nothing was said yet");
        assert!(!talk.is_done);
        assert_eq!(talk.say(b" \t hello world\r\n"), b"HELLO WORLD");
        assert!(talk.is_done);
        assert_eq!(talk.messages(), [b" \t hello world\r\n"], "it is logged as it came");
    }

    #[test]
    fn reads_1024_bytes_and_throws_the_rest_away() {
        let message = [&[b'a'; 1023][..], b" bcd"].concat();
        let mut talk = Talk::with(&Kind::Once);
        assert_eq!(talk.say(&message), [b'A'; 1023], "the space is the last of the 1,024");
        assert!(talk.is_done && talk.to.is_empty());
        assert_eq!(talk.messages(), [&message[..1024]]);
    }

    #[test]
    fn has_nothing_to_say_to_silence_and_white_space() {
        let mut talk = Talk::with(&Kind::Once);
        assert_eq!(talk.say(b" \r\n"), b"");
        assert!(talk.is_done);
        let mut talk = Talk::with(&Kind::Once);
        assert_eq!(talk.end(), b"");
        assert!(talk.is_done);
    }

    #[test]
    fn leaves_text_beyond_ascii_as_it_is() {
        let said = Talk::with(&Kind::Once).say("\u{3000}亲 é\n".as_bytes());
        assert_eq!(said, "\u{3000}亲 é".as_bytes());
        assert_eq!(Talk::with(&Kind::Once).say(b"\xff\xfea\x80 "), b"\xff\xfeA\x80");
    }

    #[test]
    fn waits_until_there_is_room_for_the_longest_answer() {
        let mut talk = Talk::with(&Kind::Once);
        talk.from.append(&mut talk.pool, &[b'-'; BLOCK - 1023]);
        talk.put(b"hello");
        talk.act();
        assert!(!talk.is_done && talk.from.len() == BLOCK - 1023);
        talk.from.consume(&mut talk.pool, 1);
        talk.act();
        assert!(talk.is_done && talk.from.bytes().ends_with(b"-HELLO"));
    }
}

mod greet_service {
    use super::*;

    #[test]
    fn greets_whoever_says_anything_and_is_done() {
        let mut talk = Talk::with(&Kind::Greet);
        assert_eq!(talk.hear(), b"", "nothing was said yet");
        assert_eq!(talk.say(b"\xff\xfe"), GREETING);
        assert!(talk.is_done);
        assert_eq!(talk.messages(), [b"\xff\xfe"]);
    }

    #[test]
    fn greets_whoever_ends_without_a_word() {
        let mut talk = Talk::with(&Kind::Greet);
        assert_eq!(talk.end(), GREETING);
        assert!(talk.is_done);
    }
}

mod reply_service {
    use super::*;

    #[test]
    fn sends_its_text_whatever_the_message_was() {
        let mut talk = Talk::with(&reply(b"200 OK\r\n\r\n"));
        assert_eq!(talk.hear(), b"", "nothing was said yet");
        assert_eq!(talk.say(b"GET / "), b"200 OK\r\n\r\n");
        assert!(talk.is_done);
        assert_eq!(talk.messages(), [b"GET / "]);
    }

    #[test]
    fn sends_a_text_that_is_longer_than_a_pipe_in_as_many_pieces_as_it_takes() {
        let text: Vec<u8> = (0..5 * BLOCK + 7).map(|index| (index % 251) as u8).collect();
        let mut talk = Talk::with(&reply(&text));
        talk.put(b"ask");
        let mut said = talk.hear();
        assert_eq!(said.len(), BLOCK, "a pipe that is full takes no more");
        assert!(!talk.is_done);
        talk.put(b"and ask again");
        while !talk.is_done {
            said.extend(talk.hear());
        }
        assert!(said == text && talk.is_done && talk.to.is_empty());
        assert_eq!(talk.messages(), [b"ask"], "the first message is the message");
    }

    #[test]
    fn may_have_nothing_to_say() {
        let mut talk = Talk::with(&reply(b""));
        assert_eq!(talk.say(b"ask"), b"");
        assert!(talk.is_done);
    }

    #[test]
    fn logs_no_more_than_a_message() {
        let mut talk = Talk::with(&reply(b"no"));
        talk.say(&[b'x'; 1100]);
        assert_eq!(talk.messages(), [[b'x'; 1024]]);
    }
}

mod time_service {
    use super::*;

    #[test]
    fn answers_each_message_with_the_time() {
        let mut talk = Talk::with(&Kind::Time);
        assert_eq!(talk.hear(), b"", "nothing was said yet");
        assert_eq!(talk.say(b"GET TIME"), CTIME);
        assert_eq!(talk.say(b"\xff\xfe\x80"), CTIME, "a message need not be text");
        assert_eq!(talk.say(b"END of the world"), CTIME);
        assert!(!talk.is_done);
    }

    #[test]
    fn ends_without_an_answer_when_it_is_told_to() {
        for message in ["END", "END\n", "END\r\n"] {
            let mut talk = Talk::with(&Kind::Time);
            assert_eq!(talk.say(message.as_bytes()), b"");
            assert!(talk.is_done, "{message:?}");
        }
    }

    #[test]
    fn ends_when_the_peer_has_ended_and_every_message_is_answered() {
        let mut talk = Talk::with(&Kind::Time);
        talk.put(b"GET TIME");
        assert_eq!(talk.end(), CTIME);
        assert!(talk.is_done);
    }

    #[test]
    fn lets_the_next_message_wait_while_the_last_answer_is_not_taken() {
        let mut talk = Talk::with(&Kind::Time);
        talk.put(b"GET TIME");
        talk.act();
        talk.put(b"GET TIME");
        talk.act();
        assert_eq!((talk.from.bytes(), talk.to.bytes()), (CTIME, &b"GET TIME"[..]));
        assert_eq!((talk.hear(), talk.hear()), (CTIME.to_vec(), CTIME.to_vec()));
    }
}

mod daytime_service {
    use super::*;

    #[test]
    fn tells_the_time_without_being_asked_and_is_done() {
        let mut talk = Talk::with(&Kind::Daytime);
        assert_eq!(talk.hear(), [CTIME, b"\r\n"].concat());
        assert!(talk.is_done);
    }

    #[test]
    fn waits_until_there_is_room_for_the_line() {
        let mut talk = Talk::with(&Kind::Daytime);
        talk.from.append(&mut talk.pool, &[b'-'; BLOCK - 25]);
        talk.act();
        assert!(!talk.is_done && talk.from.len() == BLOCK - 25);
        talk.from.consume(&mut talk.pool, 1);
        talk.act();
        assert!(talk.is_done && talk.from.len() == BLOCK);
    }
}

mod chargen_service {
    use super::*;

    #[test]
    fn goes_on_where_it_stopped_for_as_long_as_somebody_takes() {
        let mut talk = Talk::with(&Kind::Chargen);
        let first = talk.hear();
        assert_eq!(first.len(), BLOCK, "a pipe that is full takes no more");
        assert!(first.starts_with(b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ"));
        let second = talk.say(b"stop");
        let lines = [first, second].concat();
        for (number, line) in lines.chunks_exact(74).enumerate() {
            assert!(line.ends_with(b"\r\n"));
            assert_eq!(usize::from(line[0]), 32 + number % 95, "line {number}");
        }
        assert!(talk.to.is_empty(), "what the peer says is thrown away");
    }

    #[test]
    fn goes_on_when_the_peer_has_ended() {
        let mut talk = Talk::with(&Kind::Chargen);
        talk.end();
        assert!(talk.to.is_finished() && !talk.has_ended() && !talk.is_done);
    }
}

mod a_datagram {
    use super::*;

    #[test]
    fn is_answered_by_every_service_in_its_own_way() {
        let line = [CTIME, b"\r\n"].concat();
        type Case<'a> = (Kind, &'a [u8], Option<&'a [u8]>);
        let cases: [Case<'_>; 16] = [
            (Kind::Upper, b"hello \xe4\xba\xb2", Some(b"HELLO \xe4\xba\xb2")),
            (Kind::Upper, b"", Some(b"")),
            (Kind::Once, b" hello\n", Some(b"HELLO")),
            (Kind::Once, b" \n", Some(b"")),
            (Kind::Greet, b"", Some(GREETING)),
            (Kind::Greet, b"a message that is longer than the greeting", Some(GREETING)),
            (Kind::Time, b"GET TIME", Some(CTIME)),
            (Kind::Time, b"\xff", Some(CTIME)),
            (Kind::Time, b"END", None),
            (Kind::Time, b"END\r\n", None),
            (Kind::Echo, b"\x00\xff", Some(b"\x00\xff")),
            (Kind::Echo, b"", Some(b"")),
            (Kind::Discard, b"anything", None),
            (Kind::Daytime, b"", Some(&line)),
            (reply(b"UDP server sending data"), b"Hello", Some(b"UDP server sending data")),
            (reply(b""), b"Hello", Some(b"")),
        ];
        for (kind, request, expected) in cases {
            let answer = answer(&kind, request);
            assert_eq!(answer.as_deref(), expected, "{kind:?} of {}", request.escape_ascii());
        }
    }

    #[test]
    fn of_once_is_not_cut_because_it_is_one_message_as_it_is() {
        assert_eq!(answer(&Kind::Once, &[b'a'; 2000]), Some(vec![b'A'; 2000]));
    }

    #[test]
    fn of_chargen_is_the_beginning_of_the_pattern() {
        let answer = answer(&Kind::Chargen, b"ignored").expect("an answer");
        assert!(Talk::with(&Kind::Chargen).hear().starts_with(&answer) && answer.len() == 6 * 74);
    }

    /// What `kind` makes of one datagram.
    fn answer(kind: &Kind, request: &[u8]) -> Option<Vec<u8>> {
        let mut slot = vec![0x55; 4096];
        slot[..request.len()].copy_from_slice(request);
        let len = kind.datagram(&mut slot, request.len(), &StoppedClock)?;
        Some(slot[..len].to_vec())
    }
}

const BLOCK: usize = 1100;

fn reply(text: &[u8]) -> Kind {
    Kind::Reply(Rc::from(text))
}

/// A service alone with somebody who talks to it.
struct Talk {
    service: Box<dyn End>,
    to: Pipe,
    from: Pipe,
    pool: Pool,
    log: Log,
    is_done: bool,
}

impl Talk {
    fn with(kind: &Kind) -> Self {
        Self {
            service: kind.stream(),
            to: Pipe::new(),
            from: Pipe::new(),
            pool: Pool::new(BLOCK, 0),
            log: Log::default(),
            is_done: false,
        }
    }

    /// The peer has said `bytes`.
    fn put(&mut self, bytes: &[u8]) {
        assert_eq!(self.to.append(&mut self.pool, bytes), bytes.len(), "more than a pipe holds");
    }

    /// The service does what it can, and nobody takes what it says.
    fn act(&mut self) {
        while !self.is_done {
            let watch = Watch::new(&mut self.log, 0, Subject::LOOP);
            let (now, clock) = (Instant::now(), &StoppedClock);
            let mut turn = Turn { now, pool: &mut self.pool, clock, watch };
            match self.service.exchange(&mut self.to, &mut self.from, &mut turn) {
                Ok(Progress::Moved(0)) => return,
                Ok(Progress::Moved(_)) => {}
                Ok(Progress::Broken | Progress::Deaf(_)) => panic!("a service has no peer"),
                Ok(Progress::Done) => self.is_done = true,
                Err(error) => panic!("a service failed: {error}"),
            }
        }
    }

    /// The service does what it can; answers what it has said, which is a pipe full at the most.
    fn hear(&mut self) -> Vec<u8> {
        self.act();
        let said = self.from.bytes().to_vec();
        self.from.discard(&mut self.pool);
        said
    }

    /// Says one message; answers what comes back.
    fn say(&mut self, message: &[u8]) -> Vec<u8> {
        self.put(message);
        self.hear()
    }

    /// Says no more; answers what comes back.
    fn end(&mut self) -> Vec<u8> {
        self.to.end();
        self.hear()
    }

    /// Whether the service has passed an end of its own on.
    fn has_ended(&self) -> bool {
        !self.from.is_open()
    }

    /// What it asked to have logged.
    fn messages(&self) -> &[Vec<u8>] {
        &self.log.0
    }
}

/// An observer that keeps the messages.
#[derive(Default)]
struct Log(Vec<Vec<u8>>);

impl Observer for Log {
    fn wants_detail(&self) -> bool {
        false
    }

    fn observe(&mut self, _turn: u64, _subject: &Subject<'_>, event: &Event<'_>) {
        if let Event::Message(message) = event {
            self.0.push(message.to_vec());
        }
    }
}

/// It is always the same time.
struct StoppedClock;

impl Clock for StoppedClock {
    fn local_time(&self) -> jiff::Zoned {
        NOW.parse().expect("a zoned time")
    }
}
