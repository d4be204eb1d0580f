//! A session between two scripted ends, told as scenes: who says what, when, and what comes of it.

mod scene;

use std::io;

use super::*;
use crate::proto::gate::{CHALLENGE_LEN, Digest, Keyring};
use scene::{Actor, BLOCK, CHALLENGE, SECOND, Scene, answer, secret};

mod the_guard {
    //! Server role: a challenge goes out, and only its answer lets in.

    use super::*;

    #[test]
    fn asks_first_and_lets_the_right_answer_in() {
        let mut scene = Scene::guard();
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.remote().take_heard(), CHALLENGE);
        scene.remote().say(&answer());
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.state(), StateName::Established);
        assert_eq!(scene.remote().take_heard(), b"", "the gate does not say that it opened");
        assert_eq!(scene.close(CloseReason::Stopped).identity.as_deref(), Some("alice"));
    }

    #[test]
    fn refuses_a_wrong_answer_without_a_word() {
        for bit in 0..answer().len() * 8 {
            let mut scene = Scene::guard();
            let mut wrong = answer();
            wrong[bit / 8] ^= 1 << (bit % 8);
            scene.local().say(b"welcome");
            scene.remote().say(&wrong);
            assert_eq!(scene.run(), Step::Close(CloseReason::Refused), "bit {bit}");
            assert_eq!(scene.remote().take_heard(), b"", "even the challenge was not sent yet");
            assert_eq!(scene.close(CloseReason::Refused).identity, None);
        }
    }

    #[test]
    fn takes_the_answer_in_pieces_and_leaves_what_follows_to_the_service() {
        let stream = [&answer()[..], b"first words"].concat();
        for first in 1..stream.len() {
            for second in first..stream.len() {
                let mut scene = Scene::guard();
                for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                    scene.remote().say(piece);
                    scene.run();
                }
                assert_eq!(scene.local().take_heard(), b"first words", "cut at {first}, {second}");
            }
        }
    }

    #[test]
    fn is_not_kept_waiting_by_drops() {
        let mut scene = Scene::guard();
        for byte in &answer()[..9] {
            scene.remote().say(&[*byte]);
            assert_eq!(scene.run(), Step::Wait);
            assert_eq!(scene.deadline(), Some(10 * SECOND), "bytes do not extend it");
            scene.pass(SECOND);
        }
        scene.pass(SECOND);
        scene.remote().say(&answer()[9..10]);
        assert_eq!(scene.run(), Step::Close(CloseReason::Deadline(Deadline::Auth)));
        assert_eq!(scene.state(), StateName::AuthPending, "another drop makes no difference");
    }

    #[test]
    fn takes_an_answer_that_was_there_before_anybody_looked() {
        let mut scene = Scene::guard();
        scene.run();
        scene.remote().say(&[&answer()[..], b"first words"].concat());
        scene.pass(3600 * SECOND);
        assert_eq!(scene.run(), Step::Wait, "the process was paused, and not the peer");
        assert_eq!(scene.local().take_heard(), b"first words");
    }

    #[test]
    fn gives_time_back_to_who_was_in_time_when_nobody_looked() {
        let mut scene = Scene::guard();
        scene.run();
        scene.remote().say(&answer()[..3]);
        scene.pass(13 * SECOND);
        assert_eq!(scene.run(), Step::Wait, "three seconds were lost after the deadline");
        assert_eq!(scene.deadline(), Some(16 * SECOND));
        scene.pass(3 * SECOND);
        scene.remote().say(&answer()[3..4]);
        assert_eq!(scene.run(), Step::Close(CloseReason::Deadline(Deadline::Auth)), "none more");

        let mut silent = Scene::guard();
        silent.run();
        silent.pass(13 * SECOND);
        assert_eq!(silent.run(), Step::Close(CloseReason::Deadline(Deadline::Auth)));
    }

    #[test]
    fn notices_who_leaves_before_the_whole_answer() {
        for said in 0..answer().len() {
            let mut scene = Scene::guard();
            scene.remote().say(&answer()[..said]);
            scene.remote().end();
            assert_eq!(scene.run(), Step::Close(CloseReason::LeftAtGate), "after {said} bytes");
        }
    }

    #[test]
    fn lets_in_who_answers_and_ends_at_once() {
        let mut scene = Scene::guard();
        scene.remote().say(&answer());
        scene.remote().end();
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.state(), StateName::Established);
        assert!(scene.local().heard_end);
    }

    #[test]
    fn keeps_no_storage_for_half_an_answer_and_reads_nothing_from_the_service() {
        let mut scene = Scene::guard();
        scene.local().say(b"welcome");
        scene.remote().say(&answer()[..15]);
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.pool.lent(), 0);
        assert_eq!(scene.local().unread(), 7);
        assert_eq!(scene.remote().take_heard(), CHALLENGE);
    }

    #[test]
    fn expects_the_longer_answer_of_sha_256() {
        let secret = secret("alice", b"one");
        let keyring = Rc::new(Keyring::new(Digest::Sha256, [&secret]));
        let mut scene = Scene::new(Admission::Guard(keyring, CHALLENGE), Timeouts::default());
        let right = secret.answer(Digest::Sha256, &CHALLENGE);
        scene.remote().say(&right.as_bytes()[..31]);
        scene.run();
        assert_eq!(scene.state(), StateName::AuthPending);
        scene.remote().say(&right.as_bytes()[31..]);
        scene.run();
        assert_eq!(scene.state(), StateName::Established);
    }
}

mod the_guest {
    //! Client role: a challenge comes in, and its answer goes out before anything else.

    use super::*;

    #[test]
    fn answers_the_challenge_and_then_talks() {
        let stream = [&CHALLENGE[..], b"welcome"].concat();
        for cut in 0..stream.len() {
            let mut scene = Scene::guest();
            scene.local().say(b"hello");
            scene.remote().say(&stream[..cut]);
            scene.run();
            let expected = [&answer()[..], b"hello"].concat();
            let expected = if cut < CHALLENGE_LEN { Vec::new() } else { expected };
            assert_eq!(scene.remote().take_heard(), expected, "cut at {cut}");
            scene.remote().say(&stream[cut..]);
            scene.run();
            assert_eq!(scene.local().take_heard(), b"welcome", "cut at {cut}");
        }
    }

    #[test]
    fn notices_a_server_that_ends_before_the_whole_challenge() {
        for said in 0..CHALLENGE_LEN {
            let mut scene = Scene::guest();
            scene.remote().say(&CHALLENGE[..said]);
            scene.remote().end();
            assert_eq!(scene.run(), Step::Close(CloseReason::NoChallenge), "after {said} bytes");
        }
    }

    #[test]
    fn does_not_wait_for_ever_for_a_challenge() {
        let mut scene = Scene::guest();
        scene.remote().say(&CHALLENGE[..31]);
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.pool.lent(), 0);
        scene.pass(10 * SECOND);
        assert_eq!(scene.run(), Step::Close(CloseReason::Deadline(Deadline::Auth)));
    }
}

mod an_open_session {
    //! Established: bytes both ways, each way ending by itself.

    use super::*;

    #[test]
    fn carries_bytes_both_ways_in_their_order() {
        let mut scene = Scene::open();
        assert_eq!(scene.state(), StateName::Established, "where there is no gate");
        scene.remote().say(&[1; 100]);
        scene.remote().say(&[2; 100]);
        scene.local().say(&[3; 100]);
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.local().take_heard(), [[1; 100], [2; 100]].concat());
        assert_eq!(scene.remote().take_heard(), [3; 100]);
        assert_eq!(scene.session.carried(), (200, 100));
        assert_eq!(scene.pool.lent(), 0, "an idle session holds no storage");
    }

    #[test]
    fn goes_on_one_way_when_the_remote_end_has_said_all() {
        let mut scene = Scene::open();
        scene.remote().say(b"last words");
        scene.remote().end();
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.local().take_heard(), b"last words");
        assert!(scene.local().heard_end && !scene.remote().heard_end);
        scene.local().say(b"answer");
        assert_eq!(scene.run(), Step::Wait);
        scene.local().end();
        assert_eq!(scene.run(), Step::Close(CloseReason::Finished));
        assert_eq!(scene.remote().take_heard(), b"answer");
        assert!(scene.remote().heard_end);
    }

    #[test]
    fn goes_on_one_way_when_the_local_end_has_said_all() {
        let mut scene = Scene::open();
        scene.local().say(b"last words");
        scene.local().end();
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.remote().take_heard(), b"last words");
        assert!(scene.remote().heard_end && !scene.local().heard_end && scene.session.is_flushed());
        scene.remote().say(b"answer");
        assert_eq!(scene.run(), Step::Wait);
        scene.remote().end();
        assert_eq!(scene.run(), Step::Close(CloseReason::Finished));
        assert_eq!(scene.local().take_heard(), b"answer");
    }

    #[test]
    fn passes_no_end_on_before_the_last_byte() {
        let mut scene = Scene::open();
        scene.remote().window = 0;
        scene.local().say(b"last words");
        scene.local().end();
        scene.run();
        assert!(!scene.remote().heard_end && !scene.session.is_flushed());
        scene.remote().window = 9;
        scene.run();
        assert!(!scene.remote().heard_end);
        scene.remote().window = 1;
        scene.run();
        assert_eq!(scene.remote().take_heard(), b"last words");
        assert!(scene.remote().heard_end && scene.session.is_flushed());
    }

    #[test]
    fn reads_no_more_than_a_slow_reader_leaves_room_for() {
        let mut scene = Scene::open();
        scene.remote().window = 0;
        scene.local().say(&[5; 1000]);
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.local().unread(), 1000 - BLOCK, "one block waits, the rest is not read");
        scene.remote().window = 10;
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.local().unread(), 1000 - BLOCK - 10);
        scene.remote().window = usize::MAX;
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!((scene.local().unread(), scene.remote().take_heard().len()), (0, 1000));
    }

    #[test]
    fn stops_when_its_budget_is_spent_and_goes_on_in_the_next_turn() {
        let len = TURN_BUDGET / 4 * 3;
        let mut scene = Scene::open();
        scene.remote().say(&vec![1; len]);
        assert_eq!(scene.run(), Step::Again);
        let first = scene.local().take_heard().len();
        assert!(
            first.abs_diff(TURN_BUDGET / 2) <= BLOCK,
            "in and out counts: {first} went through"
        );
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(first + scene.local().take_heard().len(), len);
    }

    #[test]
    fn ends_when_an_end_fails() {
        let mut scene = Scene::open();
        scene.remote().fail(io::ErrorKind::ConnectionReset);
        let reason = CloseReason::Failed(Side::Remote, io::ErrorKind::ConnectionReset);
        assert_eq!(scene.run(), Step::Close(reason));

        let mut scene = Scene::open();
        scene.local().fail(io::ErrorKind::BrokenPipe);
        let reason = CloseReason::Failed(Side::Local, io::ErrorKind::BrokenPipe);
        assert_eq!(scene.run(), Step::Close(reason));
    }

    #[test]
    fn gives_all_storage_back_and_reports_its_life() {
        let mut scene = Scene::open();
        scene.remote().window = 3;
        scene.local().window = 0;
        scene.remote().say(&[b'?'; BLOCK]);
        scene.local().say(&[b'!'; BLOCK]);
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.pool.lent(), 2);
        scene.pass(5 * SECOND);
        let told = scene.close(CloseReason::Stopped);
        assert_eq!(scene.pool.lent(), 0);
        assert_eq!((told.received, told.sent), (BLOCK as u64, BLOCK as u64));
        assert_eq!(told.age, 5 * SECOND);
        assert_eq!((told.state, told.reason), (StateName::Established, CloseReason::Stopped));
    }

    #[test]
    fn holds_no_block_where_a_few_bytes_wait() {
        let mut scene = Scene::open();
        (scene.remote().window, scene.local().window) = (0, 0);
        scene.remote().say(b"half a");
        scene.local().say(b"an answer");
        assert_eq!((scene.run(), scene.pool.lent()), (Step::Wait, 0));
        scene.remote().say(b" request");
        assert_eq!((scene.run(), scene.pool.lent()), (Step::Wait, 1), "more than a quarter of one");
        (scene.remote().window, scene.local().window) = (usize::MAX, usize::MAX);
        assert_eq!((scene.run(), scene.pool.lent()), (Step::Wait, 0));
        assert_eq!(scene.local().take_heard(), b"half a request");
        assert_eq!(scene.remote().take_heard(), b"an answer");
    }
}

mod a_closing_session {
    //! The service is done: the last bytes go out, and nothing that still comes may destroy them.

    use super::*;

    #[test]
    fn sends_what_waits_and_lingers_until_the_peer_has_ended_too() {
        let mut scene = Scene::open();
        scene.remote().window = 4;
        scene.local().say(b"farewell");
        scene.local().is_done_after_last_word = true;
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.state(), StateName::Closing);
        assert!(!scene.remote().heard_end);
        scene.remote().window = usize::MAX;
        assert_eq!(scene.run(), Step::Wait, "closing now might reset the connection");
        assert_eq!(scene.remote().take_heard(), b"farewell");
        assert!(scene.remote().heard_end && scene.session.is_flushed());
        scene.remote().end();
        assert_eq!(scene.run(), Step::Close(CloseReason::Served));
    }

    #[test]
    fn throws_away_what_still_comes() {
        let mut scene = Scene::served();
        scene.remote().say(&[9; 1000]);
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!((scene.remote().unread(), scene.pool.lent()), (0, 0));
        assert_eq!(scene.local().take_heard(), b"");
    }

    #[test]
    fn has_so_long_and_no_longer() {
        for (limit, expected) in [(Some(5 * SECOND), 5 * SECOND), (None, 30 * SECOND)] {
            let timeouts = Timeouts { half_close: limit, ..Timeouts::NONE };
            let mut scene = Scene::served_with(timeouts);
            scene.pass(4 * SECOND);
            scene.remote().say(b"and another thing");
            assert_eq!(scene.run(), Step::Wait);
            assert_eq!(scene.deadline(), Some(expected), "traffic does not extend it");
            scene.pass(expected - 4 * SECOND);
            assert_eq!(scene.run(), Step::Close(CloseReason::Deadline(Deadline::Closing)));
        }
    }
}

mod a_deadline {
    use super::*;

    #[test]
    fn of_an_idle_session_is_extended_by_traffic_either_way() {
        let mut scene = Scene::open();
        scene.run();
        assert_eq!(scene.deadline(), Some(600 * SECOND));
        scene.pass(SECOND);
        scene.remote().say(b"a");
        scene.run();
        assert_eq!(scene.deadline(), Some(601 * SECOND));
        scene.pass(SECOND);
        scene.local().say(b"b");
        scene.run();
        assert_eq!(scene.deadline(), Some(602 * SECOND));
        scene.pass(SECOND);
        scene.run();
        assert_eq!(scene.deadline(), Some(602 * SECOND), "nothing moved");
        scene.pass(599 * SECOND);
        assert_eq!(scene.run(), Step::Close(CloseReason::Deadline(Deadline::Idle)));
    }

    #[test]
    fn that_is_turned_off_leaves_that_of_idleness() {
        let timeouts = Timeouts { idle: Some(600 * SECOND), ..Timeouts::NONE };
        let keyring = Rc::new(Keyring::new(Digest::Md5, []));
        let mut at_gate = Scene::new(Admission::Guard(keyring, CHALLENGE), timeouts);
        at_gate.run();
        assert_eq!(at_gate.deadline(), Some(600 * SECOND));
        let mut half_closed = Scene::new(Admission::Open, timeouts);
        half_closed.remote().end();
        half_closed.run();
        half_closed.pass(600 * SECOND);
        assert_eq!(half_closed.run(), Step::Close(CloseReason::Deadline(Deadline::Idle)));
    }

    #[test]
    fn of_a_half_closed_session_is_its_own() {
        type Role = fn(&mut Scene) -> &mut Actor;
        let roles: [(Role, Role); 2] =
            [(Scene::remote, Scene::local), (Scene::local, Scene::remote)];
        for (one, other) in roles {
            let mut scene = Scene::open();
            one(&mut scene).end();
            scene.run();
            assert_eq!(scene.deadline(), Some(30 * SECOND));
            scene.pass(20 * SECOND);
            other(&mut scene).say(b"more");
            scene.run();
            assert_eq!(scene.deadline(), Some(50 * SECOND), "extended by traffic");
            scene.pass(30 * SECOND);
            assert_eq!(scene.run(), Step::Close(CloseReason::Deadline(Deadline::HalfClose)));
        }
    }

    #[test]
    fn of_age_is_extended_by_nothing_and_the_first_one_counts() {
        let timeouts =
            Timeouts { idle: Some(3 * SECOND), lifetime: Some(4 * SECOND), ..Timeouts::NONE };
        let mut scene = Scene::new(Admission::Open, timeouts);
        assert_eq!(scene.deadline(), Some(3 * SECOND));
        scene.pass(2 * SECOND);
        scene.remote().say(b"a");
        scene.run();
        assert_eq!(scene.deadline(), Some(4 * SECOND));
        scene.pass(2 * SECOND);
        scene.remote().say(b"b");
        assert_eq!(scene.run(), Step::Close(CloseReason::Deadline(Deadline::Lifetime)));
        assert_eq!(scene.local().take_heard(), b"ab", "what has come is passed on before");
    }

    #[test]
    fn is_looked_at_after_what_has_come_was_read() {
        type Role = fn(&mut Scene) -> &mut Actor;
        for speaker in [Scene::remote as Role, Scene::local as Role] {
            let mut scene = Scene::open();
            scene.run();
            speaker(&mut scene).say(b"in time");
            scene.pass(3600 * SECOND);
            assert_eq!(scene.run(), Step::Wait, "nobody looked for an hour");
            assert_eq!(scene.deadline(), Some((3600 + 600) * SECOND));
            scene.pass(600 * SECOND);
            assert_eq!(scene.run(), Step::Close(CloseReason::Deadline(Deadline::Idle)));
        }
        let mut scene = Scene::open();
        scene.run();
        scene.remote().end();
        scene.local().end();
        scene.pass(3600 * SECOND);
        assert_eq!(scene.run(), Step::Close(CloseReason::Finished), "both had ended in time");
    }

    #[test]
    fn that_is_not_set_never_comes() {
        let mut scene = Scene::new(Admission::Open, Timeouts::NONE);
        assert_eq!(scene.deadline(), None);
        scene.pass(365 * 24 * 3600 * SECOND);
        assert_eq!(scene.run(), Step::Wait);
        let timeouts = Timeouts { idle: Some(Duration::MAX), ..Timeouts::NONE };
        assert_eq!(Scene::new(Admission::Open, timeouts).deadline(), None, "beyond all clocks");
    }
}

mod the_states {
    //! Every change of state goes through `enter`, which knows which ones there are.

    use super::*;

    #[test]
    fn follow_one_another_and_are_reported() {
        let mut scene = Scene::guard();
        scene.local().say(b"farewell");
        scene.local().is_done_after_last_word = true;
        scene.remote().say(&answer());
        scene.run();
        let changes = ["AuthPending -> Established", "Established -> Closing"];
        let told = scene.told.events.iter().filter(|event| event.contains("->"));
        assert_eq!(told.collect::<Vec<_>>(), changes);
    }

    #[test]
    #[should_panic(expected = "a session went from AuthPending to Closing")]
    fn do_not_leave_the_gate_for_closing() {
        Scene::guard().enter(State::Closing(CloseReason::Served, Reached::Gate));
    }

    #[test]
    #[should_panic(expected = "a session went from Closing to Established")]
    fn do_not_come_back_from_closing() {
        Scene::served().enter(State::Established);
    }

    #[test]
    #[should_panic(expected = "a session went from Established to Established")]
    fn do_not_change_into_themselves() {
        Scene::open().enter(State::Established);
    }
}

#[test]
fn every_reason_is_a_sentence_of_its_own() {
    let deadlines = [
        Deadline::Auth,
        Deadline::Idle,
        Deadline::HalfClose,
        Deadline::Lifetime,
        Deadline::Closing,
    ];
    let mut sentences: Vec<String> = [
        CloseReason::Finished,
        CloseReason::Served,
        CloseReason::Refused,
        CloseReason::LeftAtGate,
        CloseReason::NoChallenge,
        CloseReason::Failed(Side::Remote, io::ErrorKind::BrokenPipe),
        CloseReason::Failed(Side::Local, io::ErrorKind::BrokenPipe),
        CloseReason::MadeRoom,
        CloseReason::Stopped,
    ]
    .into_iter()
    .chain(deadlines.map(CloseReason::Deadline))
    .map(|reason| reason.to_string())
    .collect();
    let count = sentences.len();
    sentences.sort();
    sentences.dedup();
    assert_eq!(sentences.len(), count, "{sentences:#?}");
}

mod a_failure {
    //! What an end had said before it failed is delivered before the other hears of it.

    use super::*;

    const RESET: io::ErrorKind = io::ErrorKind::ConnectionReset;
    const OF_TARGET: CloseReason = CloseReason::Failed(Side::Local, RESET);
    const QUIET: Duration = Duration::from_millis(250);

    /// More than both pipes hold.
    const ANSWER: [u8; 3 * BLOCK] = [b'a'; 3 * BLOCK];

    /// The peer uploads to a target that has answered and takes no more.
    fn answered_early(kind: io::ErrorKind) -> Scene {
        let mut scene = Scene::relay();
        scene.remote().window = 10;
        scene.remote().say(&[b'u'; 2 * BLOCK]);
        scene.local().say(&ANSWER);
        scene.local().go_deaf(kind);
        scene
    }

    #[test]
    fn of_a_target_is_told_after_all_that_it_had_said() {
        let mut scene = answered_early(RESET);
        scene.local().cut();
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.state(), StateName::Closing);
        assert_eq!(scene.remote().unread(), 0, "what the peer uploads is thrown away");
        assert!(!scene.remote().was_cut_off, "before it has the answer");
        scene.remote().window = usize::MAX;
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.remote().take_heard(), ANSWER);
        assert!(!scene.remote().was_cut_off, "while it may still be sending");
        scene.pass(QUIET);
        assert_eq!(scene.run(), Step::Close(OF_TARGET));
        assert_eq!(scene.close(OF_TARGET).received, 2 * BLOCK as u64);
        assert!(scene.remote().was_cut_off && !scene.remote().heard_end);
    }

    #[test]
    fn of_a_target_that_had_come_to_its_end_is_an_end() {
        const PIPE: io::ErrorKind = io::ErrorKind::BrokenPipe;
        for peer_ends in [true, false] {
            let mut scene = answered_early(PIPE);
            scene.remote().window = usize::MAX;
            scene.local().end();
            assert_eq!(scene.run(), Step::Wait);
            assert_eq!(scene.remote().take_heard(), ANSWER);
            assert!(scene.remote().heard_end);
            if peer_ends {
                scene.remote().end();
            } else {
                scene.pass(LAST_WORD_LIMIT);
            }
            let reason = CloseReason::Failed(Side::Local, PIPE);
            assert_eq!(scene.run(), Step::Close(reason));
            scene.close(reason);
            assert!(!scene.remote().was_cut_off, "a whole answer is not taken back");
        }
    }

    #[test]
    fn does_not_wait_for_ever_for_a_peer_that_does_not_stop() {
        let mut scene = answered_early(RESET);
        scene.remote().window = usize::MAX;
        scene.local().fail(RESET);
        let mut waited = Duration::ZERO;
        while scene.run() == Step::Wait {
            scene.remote().say(b"and more");
            scene.pass(QUIET / 2);
            waited += QUIET / 2;
            assert!(waited <= LAST_WORD_LIMIT);
        }
        assert!(waited > QUIET);
        scene.close(OF_TARGET);
        assert!(scene.remote().was_cut_off);
    }

    #[test]
    fn asks_a_peer_that_is_heard_out_only_once_whether_all_was_sent() {
        let mut scene = answered_early(RESET);
        scene.remote().window = usize::MAX;
        scene.local().fail(RESET);
        for _ in 0..10 {
            scene.remote().say(b"and more");
            assert_eq!(scene.run(), Step::Wait);
        }
        assert_eq!(scene.remote().questions.get(), 1);
    }

    #[test]
    fn of_a_target_that_had_said_nothing_is_told_at_once() {
        let mut scene = Scene::relay();
        scene.remote().say(&[b'u'; 2 * BLOCK]);
        scene.local().fail(RESET);
        assert_eq!(scene.run(), Step::Close(OF_TARGET));
        assert!(scene.remote().was_cut_off);
    }

    #[test]
    fn does_not_overtake_what_is_not_on_its_way_yet() {
        let mut scene = Scene::relay();
        scene.remote().has_sent_all = false;
        scene.local().say(b"answer");
        scene.local().fail(RESET);
        assert_eq!(scene.run(), Step::Wait);
        assert!(!scene.remote().was_cut_off);
        scene.remote().has_sent_all = true;
        assert_eq!(scene.run(), Step::Close(OF_TARGET), "a peer that says nothing is told at once");
        assert!(scene.remote().was_cut_off);
        assert_eq!(scene.remote().take_heard(), b"answer");
    }

    #[test]
    fn of_a_peer_is_told_to_its_target_after_its_last_words() {
        for is_deaf in [true, false] {
            let mut scene = Scene::relay();
            scene.local().window = 10;
            scene.local().say(b"of no use any more");
            scene.remote().say(&ANSWER);
            if is_deaf {
                scene.remote().go_deaf(RESET);
            }
            scene.remote().fail(RESET);
            assert_eq!(scene.run(), Step::Wait);
            assert!(!scene.local().was_cut_off);
            scene.local().window = usize::MAX;
            let reason = CloseReason::Failed(Side::Remote, RESET);
            assert_eq!(scene.run(), Step::Close(reason), "and it is told at once");
            assert_eq!(scene.local().take_heard(), ANSWER);
            scene.close(reason);
            assert!(scene.local().was_cut_off && !scene.local().heard_end);
        }
    }

    #[test]
    fn of_a_peer_of_a_service_is_the_end() {
        let mut scene = Scene::open();
        scene.remote().say(b"hello");
        scene.remote().fail(RESET);
        assert_eq!(scene.run(), Step::Close(CloseReason::Failed(Side::Remote, RESET)));
        assert_eq!(scene.local().take_heard(), b"hello");
    }

    #[test]
    fn of_both_ends_is_the_end() {
        let mut scene = answered_early(RESET);
        scene.remote().fail(RESET);
        assert_eq!(scene.run(), Step::Close(OF_TARGET), "the first that failed is the reason");
    }

    #[test]
    fn is_waited_for_no_longer_than_a_half_closed_connection() {
        let mut scene = answered_early(RESET);
        scene.run();
        assert_eq!(scene.deadline(), Some(30 * SECOND));
        scene.pass(30 * SECOND);
        assert_eq!(scene.run(), Step::Close(OF_TARGET));
    }
}

mod a_cut {
    //! A peer that goes without a farewell may have asked a whole question.

    use super::*;

    fn cut_after_a_question() -> Scene {
        let mut scene = Scene::relay();
        scene.remote().say(b"question");
        scene.remote().cut();
        assert_eq!(scene.run(), Step::Wait);
        assert_eq!(scene.local().take_heard(), b"question");
        assert!(!scene.local().heard_end && !scene.local().was_cut_off, "not yet");
        scene
    }

    #[test]
    fn is_told_when_the_answer_is_there() {
        let mut scene = cut_after_a_question();
        scene.local().say(b"answer");
        scene.local().end();
        assert_eq!(scene.run(), Step::Close(CloseReason::Truncated));
        scene.close(CloseReason::Truncated);
        assert_eq!(scene.remote().take_heard(), b"answer");
        assert!(scene.remote().heard_end && !scene.remote().was_cut_off);
        assert!(!scene.local().heard_end && scene.local().was_cut_off);
    }

    #[test]
    fn is_told_when_there_is_no_answer_for_too_long() {
        let mut scene = cut_after_a_question();
        scene.pass(30 * SECOND);
        assert_eq!(scene.run(), Step::Close(CloseReason::Truncated));
        scene.close(CloseReason::Truncated);
        assert!(scene.local().was_cut_off && scene.remote().was_cut_off);
    }

    #[test]
    fn is_told_when_nobody_is_there_to_be_answered() {
        let mut scene = cut_after_a_question();
        scene.remote().go_deaf(io::ErrorKind::ConnectionReset);
        scene.local().say(b"answer");
        let reason = CloseReason::Failed(Side::Remote, io::ErrorKind::ConnectionReset);
        assert_eq!(scene.run(), Step::Close(reason));
        assert!(scene.local().was_cut_off && !scene.local().heard_end);
    }

    #[test]
    fn at_the_gate_is_a_departure() {
        let mut scene = Scene::guard();
        scene.remote().say(&answer()[..5]);
        scene.remote().cut();
        assert_eq!(scene.run(), Step::Close(CloseReason::LeftAtGate));
    }

    #[test]
    fn of_a_target_is_a_failure() {
        let mut scene = Scene::relay();
        scene.local().say(b"half an answer");
        scene.local().cut();
        let reason = CloseReason::Failed(Side::Local, io::ErrorKind::UnexpectedEof);
        assert_eq!(scene.run(), Step::Close(reason));
        assert_eq!(scene.remote().take_heard(), b"half an answer");
        assert!(scene.remote().was_cut_off && !scene.remote().heard_end);
    }
}
