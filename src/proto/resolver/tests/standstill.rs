//! The loop stood still for longer than anybody waits, and what came meanwhile is read first.

use super::sharing::client;
use super::*;

const PAUSE: Duration = Duration::from_secs(4);

impl Scenario {
    /// Every question that is open goes on, although all that is due is done.
    fn expect_to_go_on(&mut self, asked: &Asked) {
        assert!(self.resolver.heard(HOST) >= Some(self.now));
        self.resolver.handle_timeout(self.now);
        assert!(self.resolver.awaits(asked.serial), "it has back the time that was lost");
        let put_again = self.asked();
        assert!(put_again.iter().all(|other| other.is_v6() != asked.is_v6()), "{put_again:?}");
    }
}

#[test]
fn an_answer_counts_and_ends_the_lookup() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.now += PAUSE;
    for asked in asked {
        it.answer(&asked, if asked.is_v6() { &[] } else { &["192.0.2.10"] });
    }
    it.resolver.handle_timeout(it.now);
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
}

#[test]
fn what_an_answer_makes_necessary_has_time() {
    let mut it = Scenario::new();
    it.capitals.set(true);
    let asked = it.ask(HOST);
    assert_eq!(it.resolver.heard(HOST), None);
    it.now += PAUSE;
    // Nothing is found in capitals, so the same server is asked in small letters.
    it.fail(&asked[1], ResponseCode::NXDomain);
    let plain = it.asked_one();
    it.expect_to_go_on(&plain);

    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.now += PAUSE;
    it.hear(&asked[1], &asked[1].truncated(Vec::new()));
    let whole = it.asked_one();
    it.expect_to_go_on(&whole);

    // The server has taken the call meanwhile, or has begun to answer.
    let until = it.now + PAUSE;
    it.now = until + PAUSE;
    it.resolver.handle_progress(whole.serial, it.now);
    it.expect_to_go_on(&whole);
    it.answer(&whole, &["192.0.2.10"]);
    it.expire();
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
}

#[test]
fn a_lookup_keeps_its_place_until_its_answer_is_read() {
    let mut it = Scenario::new();
    let mut asked = it.ask_for("first.example", client(1));
    it.flood(1, MAX_LOOKUPS + 9);
    it.now += PAUSE;
    // Somebody else asks, and somebody else is answered, before.
    assert_eq!(it.resolver.lookup("next.example", client(2), it.now), Lookup::Pending);
    it.resolver.watch("own.example", it.now);
    it.resolver.change_hosts(Hosts::parse("192.0.2.78 scanner\n"), it.now);
    it.asked().iter().for_each(|own| it.lose(own));
    asked.retain(|asked| !asked.is_v6());
    assert!(it.resolver.awaits(asked[0].serial));
    it.resolver.handle_timeout(it.now);
    assert!(it.running() <= MAX_LOOKUPS + 1);
    assert!(it.asked().iter().any(|asked| asked.name() == "next.example."), "now it does not");
}

#[test]
fn who_said_nothing_gains_nothing() {
    let mut it = Scenario::new();
    let asked = it.ask(HOST);
    it.now += PAUSE;
    it.hear_bytes(&asked[1], b"a guess");
    it.resolver.handle_progress(asked[1].serial + 100, it.now);
    assert_eq!(it.resolver.heard(HOST), None);
    it.resolver.handle_timeout(it.now);
    assert!(it.asked().iter().all(|asked| asked.server == 1), "the next server is asked");
}
