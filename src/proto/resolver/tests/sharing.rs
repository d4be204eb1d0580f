//! More names are asked for than can be at a time.

use super::*;

const TURN: Duration = Duration::from_millis(500);

pub(super) fn client(number: u8) -> Requester {
    Requester::client(Some(IpAddr::from([192, 0, 2, number])))
}

impl Scenario {
    /// So many names that nobody answers, on behalf of a client. Answers how many are asked for.
    pub(super) fn flood(&mut self, client: u8, count: usize) -> usize {
        for number in 0..count {
            let host = format!("{number}.{client}.{}.silent", self.resolver.begun);
            let found = self.resolver.lookup(&host, self::client(client), self.now);
            assert_eq!(found, Lookup::Pending);
            self.now += Duration::from_micros(1);
        }
        self.asked().len() / 2
    }

    pub(super) fn running(&self) -> usize {
        self.resolver.asking.iter().filter(|asking| asking.is_running()).count()
    }

    /// Whether `host` is asked for, if not at once then before `limit` has passed.
    fn is_asked_for_within(&mut self, host: &str, requester: Requester, limit: Duration) -> bool {
        let until = self.now + limit;
        assert_eq!(self.resolver.lookup(host, requester, self.now), Lookup::Pending);
        self.resolver.handle_timeout(self.now);
        loop {
            if self.asked().iter().any(|asked| asked.name() == format!("{host}.")) {
                return true;
            }
            if self.resolver.poll_timeout().expect("something is due") > until {
                return false;
            }
            self.expire();
        }
    }
}

#[test]
fn a_name_is_found_soon_whatever_else_nobody_answers() {
    for (flooding, asking) in [(1, 2), (1, 1)] {
        let mut it = Scenario::new();
        assert_eq!(it.flood(flooding, MAX_LOOKUPS + 200), MAX_LOOKUPS);
        assert!(it.is_asked_for_within("good.example", client(asking), TURN));
        assert!(it.running() <= MAX_LOOKUPS);
    }
}

#[test]
fn who_asks_for_much_loses_places_and_who_asks_for_little_none() {
    let mut it = Scenario::new();
    let modest = it.ask_for("modest.example", client(2));
    it.flood(1, MAX_LOOKUPS - 1);
    it.now += TURN;
    assert!(it.is_asked_for_within("next.example", client(1), Duration::ZERO));
    assert!(it.resolver.awaits(modest[0].serial), "its turn is over, but it has only one place");
    it.flood(3, 5);
    assert_eq!(it.running(), MAX_LOOKUPS);
    assert!(it.resolver.awaits(modest[0].serial));
}

impl Scenario {
    pub(super) fn ask_for(&mut self, host: &str, requester: Requester) -> Vec<Asked> {
        assert_eq!(self.resolver.lookup(host, requester, self.now), Lookup::Pending);
        self.resolver.handle_timeout(self.now);
        self.asked()
    }
}

#[test]
fn who_lost_a_place_goes_on_when_one_is_free() {
    let mut it = Scenario::with("nameserver 192.0.2.1\noptions timeout:30");
    let first = it.ask_for("first.example", client(1));
    it.flood(1, MAX_LOOKUPS - 1);
    it.now += TURN;
    let newcomer = it.ask_for("newcomer.example", client(1));
    assert!(!it.resolver.awaits(first[0].serial), "the oldest makes room");
    for asked in &newcomer {
        it.fail(asked, ResponseCode::NXDomain);
    }
    let again = it.asked();
    assert_eq!(again[0].name(), "first.example.", "and is asked for again");
    it.answer(&again[0], &[]);
    it.hear(
        &again[1],
        &again[1].reply(ResponseCode::NoError, vec![record("first.example", 60, "192.0.2.1")]),
    );
    assert_eq!(it.lookup("first.example"), Lookup::Known(Rc::new([[192, 0, 2, 1].into()])));
}

#[test]
fn waiting_is_bounded_and_refuses_nobody_who_asks_for_little() {
    let mut it = Scenario::new();
    it.flood(1, MAX_LOOKUPS + MAX_WAITING);
    let before = it.resolver.asking.len();
    assert_eq!(before, MAX_LOOKUPS + MAX_WAITING);
    assert_eq!(it.resolver.lookup("modest.example", client(2), it.now), Lookup::Pending);
    assert_eq!(it.resolver.asking.len(), before);
    let refused = it.resolver.poll_answer().expect("one had to go");
    assert_eq!(refused.outcome, Err(Failure::Busy));
    let again = |it: &mut Scenario, requester| it.resolver.lookup(&refused.host, requester, it.now);
    assert_eq!(again(&mut it, client(1)), Lookup::Failed(Failure::Busy));
    assert_eq!(again(&mut it, client(3)), Lookup::Pending, "that is nobody else's affair");
}

#[test]
fn addresses_that_are_known_outlive_a_lookup_that_has_no_place() {
    let mut it = Scenario::new();
    for asked in it.ask(HOST) {
        it.answer(&asked, if asked.is_v6() { &[] } else { &["192.0.2.10"] });
    }
    it.now += SHORTEST_PAUSE;
    it.flood(1, MAX_LOOKUPS);
    it.resolver.renew(HOST, client(1), it.now);
    it.flood(1, MAX_WAITING + 1);
    assert!(!is_asking(&it.resolver.asking, HOST), "it was the oldest of those who wait");
    assert_eq!(it.known(HOST), ["192.0.2.10"]);
}

#[test]
fn every_lookup_of_a_flood_ends() {
    let mut it = Scenario::new();
    it.flood(1, MAX_LOOKUPS + MAX_WAITING);
    let begun = it.now;
    while !it.is_idle() {
        it.expire();
        it.asked();
        assert!(it.running() <= MAX_LOOKUPS);
        assert!(it.now < begun + Duration::from_secs(300), "it goes on for ever");
    }
    let ended = std::iter::from_fn(|| it.resolver.poll_answer()).count();
    assert_eq!(ended, MAX_LOOKUPS + MAX_WAITING, "each is told");
}

#[test]
fn what_this_program_itself_wants_to_know_waits_for_nobody() {
    let mut it = Scenario::new();
    it.flood(1, MAX_LOOKUPS + MAX_WAITING);
    it.resolver.watch(HOST, it.now);
    assert_eq!(it.asked()[0].name(), "db.example.");
}

#[test]
fn a_client_is_its_address_or_its_network() {
    let of = |text: &str| Requester::client(Some(text.parse().expect("an address")));
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    assert_eq!(Requester::client(None), Requester::Local);
}

/// What may happen to a resolver.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A client asks for so many names that nobody has asked for before.
    Flood(u8, usize),
    /// This program wants to know of one more.
    Watch,
    /// Time passes.
    Wait(u64),
    /// Of the open questions, each of so many gets an answer, and the next is lost.
    Answers(usize),
    /// The name servers change.
    Change,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (1..4u8, 0..500usize).prop_map(|(client, count)| Happening::Flood(client, count)),
        Just(Happening::Watch),
        (0..3000u64).prop_map(Happening::Wait),
        (2..9usize).prop_map(Happening::Answers),
        Just(Happening::Change),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// Whatever happens, nobody has more than there is, and the loop neither spins nor forgets.
    #[test]
    fn bounds_hold_and_every_lookup_ends(
        happenings in prop::collection::vec(happening(), 1..9),
    ) {
        let mut it = Scenario::new();
        let (mut named, mut open) = (0, Vec::new());
        for happening in happenings {
            match happening {
                Happening::Flood(client, count) => {
                    for _ in 0..count {
                        named += 1;
                        let requester = self::client(client);
                        it.resolver.lookup(&format!("{named}.example"), requester, it.now);
                    }
                }
                Happening::Watch => {
                    named += 1;
                    it.resolver.watch(&format!("{named}.example"), it.now);
                }
                Happening::Wait(milliseconds) => it.now += Duration::from_millis(milliseconds),
                Happening::Answers(every) => {
                    for (number, asked) in std::mem::take(&mut open).iter().enumerate() {
                        if number % every == 0 {
                            it.lose(asked);
                        } else {
                            it.fail(asked, ResponseCode::NXDomain);
                        }
                    }
                }
                Happening::Change => {
                    it.resolver.change_settings(settings("nameserver 192.0.2.9"), it.now);
                }
            }
            it.resolver.handle_timeout(it.now);
            open.extend(it.asked());
            let own = it.resolver.asking.iter().filter(|it| it.requester == Requester::Ourselves);
            let own = own.count();
            prop_assert!(it.running() <= MAX_LOOKUPS + own);
            prop_assert!(it.resolver.asking.len() <= MAX_LOOKUPS + MAX_WAITING + own);
            prop_assert!(it.resolver.awaited().len() <= 4 * (MAX_LOOKUPS + own));
            prop_assert!(it.resolver.poll_timeout().is_none_or(|at| at > it.now), "it spins");
        }
        let begun = it.now;
        while it.resolver.asking.iter().any(|asking| asking.requester != Requester::Ourselves) {
            it.expire();
            it.asked();
            prop_assert!(it.now < begun + Duration::from_secs(300), "it goes on for ever");
        }
    }
}
