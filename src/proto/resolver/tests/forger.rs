//! Somebody who is not the name server answers in its name.

use super::*;

/// What is nearly the answer to a question.
fn nearly(asked: &Asked) -> Vec<Message> {
    let right = asked.reply(ResponseCode::NoError, vec![record(HOST, 60, "192.0.2.66")]);
    let spoils: [fn(&mut Message); 6] = [
        |it| it.metadata.id ^= 1,
        |it| it.queries[0].name = name("evil.example"),
        |it| it.queries[0].query_type = RecordType::MX,
        |it| it.queries.clear(),
        |it| it.metadata.message_type = MessageType::Query,
        |it| it.metadata.op_code = OpCode::Status,
    ];
    let spoilt = |spoil: &fn(&mut Message)| {
        let mut message = right.clone();
        spoil(&mut message);
        message
    };
    spoils.iter().map(spoilt).collect()
}

#[test]
fn only_the_answer_to_an_open_question_counts() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    for message in nearly(&asked[1]) {
        it.hear(&asked[1], &message);
    }
    let other = asked[1].reply(ResponseCode::NoError, vec![record(HOST, 60, "192.0.2.66")]);
    it.resolver.handle_answer(&other.to_vec().expect("fits"), 99, it.now);
    it.answer(&asked[0], &[]);
    assert_eq!(it.outcome(), None, "none of those was the answer");
    assert!(it.asked().is_empty());
    it.answer(&asked[1], &["192.0.2.10"]);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    it.hear(&asked[1], &other);
    assert_eq!(it.outcome(), None, "the question is no longer open");
}

#[test]
fn each_try_has_a_number_and_letters_of_its_own() {
    let mut it = Scenario::new();
    it.capitals.set(true);
    let mut seen = std::collections::HashSet::new();
    let mut asked = it.ask(HOST);
    while !asked.is_empty() {
        for one in asked {
            assert!(seen.insert((one.serial, one.id)), "{one:?}");
        }
        it.expire();
        asked = it.asked();
    }
    assert_eq!(seen.len(), 8);
    assert_eq!(it.ask("other.example")[0].name(), "OTHER.EXAMPLE.");
}

#[test]
fn letters_have_to_come_back_as_they_went() {
    let mut it = Scenario::new();
    it.capitals.set(true);
    let asked = it.ask(HOST);
    assert_eq!(asked[1].name(), "DB.EXAMPLE.");
    let mut forged = asked[1].reply(ResponseCode::NoError, vec![record(HOST, 60, "192.0.2.66")]);
    forged.queries[0].name = name("dB.EXAMPLE");
    it.hear(&asked[1], &forged);
    assert_eq!(it.outcome(), None);
    let again = it.asked_one();
    assert_eq!((again.server, again.name()), (0, "db.example.".to_owned()), "it is put plainly");
    assert!(again.id != asked[1].id && !it.resolver.awaits(asked[1].serial));
    it.answer(&again, &["192.0.2.10"]);
    it.answer(&asked[0], &["2001:db8::1"]);
    assert_eq!(it.outcome(), found(&["2001:db8::1", "192.0.2.10"]));
}

#[test]
fn a_server_that_does_not_bear_capitals_is_asked_without_them() {
    for code in [ResponseCode::NXDomain, ResponseCode::NoError, ResponseCode::ServFail] {
        let mut it = Scenario::new();
        it.capitals.set(true);
        for asked in it.ask(HOST) {
            it.fail(&asked, code);
        }
        let again = it.asked();
        assert!(again.iter().all(|asked| asked.server == 0 && asked.name() == "db.example."));
        it.answer(&again[0], &[]);
        it.answer(&again[1], &["192.0.2.10"]);
        assert_eq!(it.outcome(), found(&["192.0.2.10"]), "{code}");
    }
    let mut it = Scenario::new();
    it.capitals.set(true);
    it.ask(HOST);
    it.expire();
    assert!(it.asked().iter().all(|asked| asked.name() == "db.example."), "nor one that is silent");

    let mut it = Scenario::new();
    it.capitals.set(true);
    let asked = it.ask(HOST);
    it.lose(&asked[0]);
    assert_eq!(it.asked_one().name(), "DB.EXAMPLE.", "who was not reached has not shown that");
}

#[test]
fn guesses_at_two_tries_of_a_question_are_counted_together() {
    let mut it = Scenario::new();
    let first = it.ask(HOST);
    it.expire();
    let second = it.asked();
    for _ in 0..4 {
        it.hear(&first[1], &nearly(&first[1])[0]);
        it.hear(&second[1], &nearly(&second[1])[0]);
    }
    assert_eq!(it.asked_one().transport, Transport::Stream);
    assert!(!it.resolver.awaits(first[1].serial) && !it.resolver.awaits(second[1].serial));
}

#[test]
fn who_guesses_too_often_is_not_listened_to_any_more() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.answer(&asked[0], &[]);
    let wrong = &nearly(&asked[1])[0];
    let mut guesses = 0;
    while it.resolver.awaits(asked[1].serial) {
        it.hear(&asked[1], wrong);
        guesses += 1;
        assert!(guesses < 100, "guesses are not counted");
    }
    assert_eq!(guesses, 8);
    let suspicion = it.resolver.poll_suspicion().expect("it is said");
    assert_eq!((&*suspicion.host, suspicion.server), (HOST, 0));
    let again = it.asked_one();
    assert_eq!((again.server, again.transport), (0, Transport::Stream));
    it.lose(&again);
    let next = it.asked_one();
    assert_eq!((next.server, next.transport), (1, Transport::Stream), "of the others neither");
    it.answer(&next, &["192.0.2.10"]);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
    assert!(it.resolver.poll_suspicion().is_none());
}
