//! What libc finds with the same files: search lists, options, and servers that are not as they
//! should be.

use super::super::asking::PROBE;
use super::*;

/// Answers every question that is put in the given way until none is, and tells the names of those
/// for IPv4 addresses in their order.
fn answer_all(
    it: &mut Scenario,
    host: &str,
    answer: impl Fn(&mut Scenario, &Asked),
) -> Vec<String> {
    let (mut names, mut asked) = (Vec::new(), it.ask(host));
    while !asked.is_empty() {
        for one in &asked {
            names.extend((!one.is_v6()).then(|| one.name()));
            answer(it, one);
        }
        asked = it.asked();
    }
    names
}

#[test]
fn a_name_that_is_not_there_for_one_family_may_be_for_the_other() {
    for late in [0, 1] {
        let mut it = Scenario::new();
        let asked = it.ask(HOST);
        it.fail(&asked[1 - late], ResponseCode::NXDomain);
        assert_eq!(it.outcome(), None, "the other may have some");
        let address = if late == 0 { "2001:db8::1" } else { "192.0.2.10" };
        it.answer(&asked[late], &[address]);
        assert_eq!(it.outcome(), found(&[address]));
    }
}

#[test]
fn what_one_family_says_of_the_name_counts_where_the_other_is_silent() {
    let outcome = |code| {
        let mut it = Scenario::new();
        let asked = it.ask(HOST);
        it.fail(&asked[1], code);
        while !it.is_idle() {
            it.expire();
        }
        it.outcome()
    };
    assert_eq!(outcome(ResponseCode::NXDomain), Some(Err(Failure::NoSuchName)));
    assert_eq!(outcome(ResponseCode::NoError), Some(Err(Failure::NoAnswer)));
}

#[test]
fn short_names_are_searched_for() {
    let mut it = Scenario::with("nameserver 192.0.2.1\nsearch one.example two.example .\n");
    let gone = |it: &mut Scenario, asked: &Asked| it.fail(asked, ResponseCode::NXDomain);
    assert_eq!(answer_all(&mut it, "db", gone), ["db.one.example.", "db.two.example.", "db."]);
    assert_eq!(it.outcome(), Some(Err(Failure::NoSuchName)));
    let long = ["a.b.", "a.b.one.example.", "a.b.two.example."];
    assert_eq!(answer_all(&mut it, "a.b", gone), long, "a dot makes it long");
    assert_eq!(answer_all(&mut it, "c.", gone), ["c."], "a last dot makes it whole");
}

#[test]
fn any_number_of_domains_is_searched() {
    let domains: Vec<_> = (0..40).map(|number| format!("d{number}.example")).collect();
    let conf = format!("nameserver 192.0.2.1\nsearch {}\n", domains.join(" "));
    let mut it = Scenario::with(&conf);
    let names = answer_all(&mut it, "db", |it, asked| {
        let code = if asked.name() == "db.d39.example." {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        };
        it.fail(asked, code);
    });
    assert_eq!((names.len(), names[39].as_str()), (41, "db.d39.example."));
    assert_eq!(it.outcome(), Some(Err(Failure::NoAddress)), "a name that is there says more");
}

#[test]
fn a_domain_that_cannot_be_answered_for_is_passed_over() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let mut it = Scenario::with("nameserver 192.0.2.1\nsearch gone.example good.example\n");
        answer_all(&mut it, "db", |it, asked| {
            if asked.name() == "db.gone.example." {
                it.fail(asked, code);
            } else {
                let address = if asked.is_v6() { "2001:db8::1" } else { "192.0.2.10" };
                let records = vec![record(&asked.name(), 60, address)];
                it.hear(asked, &asked.reply(ResponseCode::NoError, records));
            }
        });
        assert_eq!(it.outcome(), found(&["2001:db8::1", "192.0.2.10"]), "{code}");
    }
}

#[test]
fn a_domain_that_could_not_be_answered_for_may_have_the_name() {
    let mut it = Scenario::with("nameserver 192.0.2.1\nsearch gone.example\n");
    answer_all(&mut it, "db", |it, asked| {
        let is_gone = asked.name() == "db.gone.example.";
        it.fail(asked, if is_gone { ResponseCode::ServFail } else { ResponseCode::NXDomain });
    });
    assert_eq!(it.outcome(), Some(Err(Failure::NoAnswer)));

    let mut it = Scenario::with("nameserver 192.0.2.1\nsearch gone.example\n");
    answer_all(&mut it, "db.example", |it, asked| {
        let is_gone = asked.name() == "db.example.gone.example.";
        it.fail(asked, if is_gone { ResponseCode::ServFail } else { ResponseCode::NXDomain });
    });
    assert_eq!(it.outcome(), Some(Err(Failure::NoSuchName)), "of a long name it says it first");
}

#[test]
fn after_silence_about_one_domain_only_the_name_itself_is_asked_for() {
    let mut it =
        Scenario::with("nameserver 192.0.2.1\nsearch one.example two.example\noptions attempts:1");
    assert_eq!(it.ask("db")[1].name(), "db.one.example.");
    it.expire();
    let asked = it.asked();
    assert_eq!(asked[1].name(), "db.");
    let records = vec![record("db", 60, "192.0.2.10")];
    it.fail(&asked[0], ResponseCode::NoError);
    it.hear(&asked[1], &asked[1].reply(ResponseCode::NoError, records));
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
}

#[test]
fn a_server_of_old_is_asked_in_the_old_way() {
    let conf = "nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0 timeout:3";
    for code in [ResponseCode::FormErr, ResponseCode::NotImp] {
        for has_question in [true, false] {
            let mut it = Scenario::with(conf);
            let asked = it.ask(HOST);
            assert!(asked.iter().all(|asked| asked.is_extended));
            it.answer(&asked[0], &[]);
            let mut error = asked[1].reply(code, Vec::new());
            if !has_question {
                error.queries.clear();
            }
            it.hear(&asked[1], &error);
            let again = it.asked_one();
            assert_eq!((again.server, again.is_extended), (0, false));
            error.metadata.id = again.id;
            it.hear(&again, &error);
            assert_eq!(it.asked_one().server, 1, "and no third time");
        }
    }
    let mut it = Scenario::with(conf);
    it.ask(HOST);
    it.expire();
    assert!(it.asked().iter().all(|asked| !asked.is_extended), "silence is an answer too");
    assert!(Scenario::new().ask(HOST).iter().all(|asked| !asked.is_extended), "unless asked for");
}

#[test]
fn an_error_whose_header_promises_a_question_is_an_error() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.answer(&asked[0], &[]);
    let error = asked[1].reply(ResponseCode::FormErr, Vec::new()).to_vec().expect("fits");
    it.hear_bytes(&asked[1], &error[..12]);
    assert_eq!(it.asked_one().server, 1);
}

#[test]
fn a_long_answer_cut_in_the_middle_of_a_record_is_fetched_over_a_stream() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.answer(&asked[0], &[]);
    let records = vec![record(HOST, 60, "192.0.2.10"), record(HOST, 60, "192.0.2.11")];
    let cut = asked[1].truncated(records).to_vec().expect("fits");
    it.hear_bytes(&asked[1], &cut[..cut.len() - 3]);
    assert_eq!(it.asked_one().transport, Transport::Stream);
}

#[test]
fn what_stands_beside_the_answers_need_not_be_sound() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.answer(&asked[0], &[]);
    let mut reply = asked[1].reply(ResponseCode::NoError, vec![record(HOST, 60, "192.0.2.10")]);
    reply.add_authority(record("example", 60, "192.0.2.1"));
    let bytes = reply.to_vec().expect("fits");
    it.hear_bytes(&asked[1], &bytes[..bytes.len() - 3]);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
}

#[test]
fn a_server_that_only_points_elsewhere_is_passed_over() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.answer(&asked[0], &[]);
    let mut elsewhere = asked[1].reply(ResponseCode::NoError, Vec::new());
    elsewhere.metadata.recursion_available = false;
    it.hear(&asked[1], &elsewhere);
    assert_eq!(it.asked_one().server, 1);
}

#[test]
fn a_server_that_is_slower_than_its_time_limit_is_heard_during_the_next_try() {
    let mut it = Scenario::with("nameserver 192.0.2.1\noptions timeout:3");
    let first = it.ask(HOST);
    it.expire();
    let second = it.asked();
    assert!(second[0].id != first[0].id && it.resolver.awaits(first[0].serial));
    it.fail(&first[0], ResponseCode::ServFail);
    assert!(it.asked().is_empty() && !it.resolver.awaits(first[0].serial), "of no use");
    it.answer(&first[1], &["192.0.2.10"]);
    it.answer(&second[0], &[]);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));

    let mut it = Scenario::new();
    let first = it.ask(HOST);
    it.expire();
    it.asked();
    it.lose(&first[1]);
    assert!(it.asked().is_empty(), "that it was lost is no news");
}

#[test]
fn servers_take_turns_where_they_are_to() {
    let mut it =
        Scenario::with("nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions rotate attempts:1");
    let first: Vec<_> =
        (0..4).map(|number| it.ask(&format!("{number}.example"))[0].server).collect();
    assert!(first == [0, 1, 0, 1] || first == [1, 0, 1, 0], "{first:?}");
}

#[test]
fn every_question_is_put_over_a_stream_where_it_is_to_be() {
    let mut it = Scenario::with("nameserver 192.0.2.1\noptions use-vc attempts:2");
    let asked = it.ask(HOST);
    assert!(asked.iter().all(|asked| asked.transport == Transport::Stream));
    it.answer(&asked[0], &[]);
    it.lose(&asked[1]);
    let again = it.asked_one();
    assert_eq!(again.transport, Transport::Stream);
    it.answer(&again, &["192.0.2.10"]);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
}

#[test]
fn questions_are_put_one_by_one_where_they_are_to_be() {
    let mut it = Scenario::with("nameserver 192.0.2.1\noptions single-request");
    let four = &it.ask(HOST)[..];
    assert!(four.len() == 1 && !four[0].is_v6());
    it.answer(&four[0], &["192.0.2.10"]);
    let six = it.asked_one();
    assert!(six.is_v6());
    assert_eq!(it.outcome(), None);
    it.answer(&six, &["2001:db8::1"]);
    assert_eq!(it.outcome(), found(&["2001:db8::1", "192.0.2.10"]));
}

#[test]
fn nobody_is_asked_for_addresses_that_are_of_no_use() {
    let mut it = Scenario::with("nameserver 192.0.2.1\noptions no-aaaa");
    let asked = it.ask(HOST);
    assert!(asked.len() == 1 && !asked[0].is_v6());
    it.fail(&asked[0], ResponseCode::NXDomain);
    assert_eq!(it.outcome(), Some(Err(Failure::NoSuchName)));
    let asked = it.ask("other.example");
    it.hear(
        &asked[0],
        &asked[0].reply(ResponseCode::NoError, vec![record("other.example", 60, "192.0.2.1")]),
    );
    assert_eq!(it.outcome(), found(&["192.0.2.1"]));
}

#[test]
fn the_roots_are_spared_where_they_are_to_be() {
    let gone = |it: &mut Scenario, asked: &Asked| it.fail(asked, ResponseCode::NXDomain);
    let mut it = Scenario::with("nameserver 192.0.2.1\nsearch one.example\noptions no-tld-query");
    assert_eq!(answer_all(&mut it, "db", gone), ["db.one.example."]);
}

#[test]
fn the_order_of_servers_counts_again_after_a_while() {
    let mut it = Scenario::new();
    it.ask(HOST);
    it.expire();
    for asked in it.asked() {
        it.fail(&asked, ResponseCode::NXDomain);
    }
    let soon = it.ask("soon.example");
    assert_eq!(soon[0].server, 1);
    for asked in soon {
        it.fail(&asked, ResponseCode::NXDomain);
    }
    it.now += FAVOUR;
    it.resolver.handle_timeout(it.now);
    it.asked();
    assert_eq!(it.ask("later.example")[0].server, 0);
    let before = it.now;
    it.expire();
    assert_eq!(it.now - before, PROBE, "it has less time as long as another is known to answer");
    assert_eq!(it.asked()[0].server, 1);
    let before = it.now;
    it.expire();
    assert_eq!(it.now - before, TIMEOUT);
}
