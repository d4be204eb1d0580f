//! The files change while the resolver runs.

use super::*;

#[test]
fn other_settings_count_at_once_for_what_is_being_asked_for() {
    let mut it = Scenario::with("nameserver 192.0.2.1\n");
    let before = it.ask("db");
    it.resolver.change_settings(settings("nameserver 192.0.2.9\nsearch new.example"), it.now);
    let asked = it.asked();
    assert_eq!(it.resolver.servers()[asked[1].server].to_string(), "192.0.2.9:53");
    assert_eq!(asked[1].name(), "db.new.example.");
    assert!(!it.resolver.awaits(before[0].serial), "nobody waits for the old servers");
    it.answer(&asked[0], &[]);
    it.hear(
        &asked[1],
        &asked[1].reply(ResponseCode::NoError, vec![record("db.new.example", 60, "192.0.2.10")]),
    );
    assert_eq!(it.outcome(), found(&["192.0.2.10"]));
}

#[test]
fn what_others_said_no_longer_holds_but_watched_names_keep_their_addresses() {
    let mut it = Scenario::new();
    it.resolver.watch(HOST, it.now);
    for asked in it.asked() {
        it.answer(&asked, if asked.is_v6() { &[] } else { &["192.0.2.10"] });
    }
    for asked in it.ask("other.example") {
        it.fail(&asked, ResponseCode::NXDomain);
    }
    it.resolver.change_settings(settings("nameserver 192.0.2.9"), it.now);
    let again = it.asked();
    assert_eq!((again.len(), again[0].name().as_str()), (2, "db.example."), "it is asked for anew");
    assert_eq!(it.known(HOST), ["192.0.2.10"], "nobody waits");
    it.ask("other.example");
}

#[test]
fn hosts_that_are_known_or_no_longer_known_by_the_file() {
    let mut it = Scenario::new();
    it.resolver.watch("printer", it.now);
    assert!(it.resolver.is_settled() && it.asked().is_empty());
    assert_eq!(it.resolver.poll_timeout(), None);
    it.resolver.change_hosts(Hosts::parse("192.0.2.78 scanner\n"), it.now);
    assert_eq!(it.known("scanner"), ["192.0.2.78"]);
    assert_eq!(it.asked()[0].name(), "printer.", "somebody else may know it");
    assert!(!it.resolver.is_settled());
}
