//! Whom a datagram service may answer, so that no two services answer each other for ever.
//!
//! One datagram with a forged source is enough to begin a loop: the service answers whom it seems to
//! come from, and if that is a service too, it answers the answer (CERT CA-1996-01; CVE-2024-2169).
//! Nothing in a datagram tells a question from an answer. But a loop has no one who would ask again:
//! one answer that is not given ends it, for ever, while a client that misses one repeats itself, as
//! everyone must who uses UDP. So the rules withhold answers:
//!
//! 1. Never from port 0, from those below 1024, where services are and clients are not, or from the port
//!    of any UDP listener of this process on whatever address: the daemon on another host may well
//!    have the same configuration.
//! 2. An address and port has as many answers as its [rate](Rate) allows. Who goes beyond is not
//!    answered at all for a second (`DEAF`), in which everything that goes round has come by and died.
//! 3. So too who has had `STRETCH` answers without ever being silent for a `SILENCE`: what goes round
//!    slowly is never silent, and stays below any rate.
//! 4. The same for a whole address of another machine, or /64 of IPv6, with `PORTS` times as much: what
//!    comes round through a relay may have another port each time.
//!
//! A client on this machine that asks as fast as it can looks just like a loop, yet need not be
//! slowed down: the kernel [knows](crate::net::udp_owner) that its socket hears us alone, so there is a
//! client and no service. It is asked when a rate is spent, and again after `GRANT` answers. A socket
//! of this machine that hears everybody, but at a port as clients get them, is most likely a client
//! too: it is granted as much, and then is not answered for a moment (`BLINK`).
//!
//! Both ledgers have a fixed number of places, found by a keyed hash: who shares one shares its
//! rate, so that no flood of addresses makes room for itself by pushing others out.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::net::udp_owner::{Owner, Owners};

/// How many seconds' worth of a rate may be had at once.
const BURST_SECONDS: u64 = 2;

/// How much more a whole network may have than one address and port.
const PORTS: u64 = 10;

/// How many answers may go without a silence.
const STRETCH: u32 = 1000;

/// A silence that no loop has, unless it goes round more slowly than that.
const SILENCE: Duration = Duration::from_secs(1);

/// How long nothing is answered to who went too far. Longer than anything takes to go round.
const DEAF: Duration = Duration::from_secs(1);

/// The same on this machine, where nothing takes long.
const BLINK: Duration = Duration::from_millis(50);

/// How many answers a socket of this machine has before the kernel is asked about it again.
const GRANT: u32 = 10_000;

/// How many places a ledger has.
const PLACES: usize = 4096;

/// Ports below this are for services (RFC 6335).
const FIRST_CLIENT_PORT: u16 = 1024;

/// The ports that Linux gives to sockets that name none, unless it is told otherwise.
const USUAL_CLIENT_PORTS: RangeInclusive<u16> = 32_768..=60_999;

/// How many answers a second one address and port may have, on average; `None` sets no bound, and
/// then neither does the length of a stretch.
pub type Rate = Option<u32>;

/// Why a datagram is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Its sender's port may be a service's.
    Port,
    /// Its sender has had enough.
    Rate,
}

/// What is known of those who were answered.
pub struct Loops {
    /// The ports of this process, in order.
    own: Vec<u16>,
    client_ports: RangeInclusive<u16>,
    owners: Owners,
    begun: Instant,
    keys: [u64; 2],
    /// By address and port, and by network.
    peers: Ledger,
    networks: Ledger,
}

impl Loops {
    /// Nobody was answered yet. The `keys` are of chance, and make the places of the ledgers such
    /// that nobody can guess them.
    #[must_use]
    pub fn new(keys: [u64; 2], now: Instant) -> Self {
        Self {
            own: Vec::new(),
            client_ports: client_ports(),
            owners: Owners::default(),
            begun: now,
            keys,
            peers: Ledger::default(),
            networks: Ledger::default(),
        }
    }

    /// A service of this process is at `port`.
    pub fn note_own(&mut self, port: u16) {
        if let Err(place) = self.own.binary_search(&port) {
            self.own.insert(place, port);
        }
    }

    /// Whether the service at `to` may answer `from` `now`.
    ///
    /// # Errors
    /// Why it must not.
    pub fn judge(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        rate: Rate,
        now: Instant,
    ) -> Result<(), Withheld> {
        if self.may_be_a_service(from) {
            return Err(Withheld::Port);
        }
        let Some(rate) = rate else { return Ok(()) };
        let now = micros(now.saturating_duration_since(self.begun));
        let (peer, network) = self.places(from);
        let place = self.peers.place(peer);
        match place.take(rate.into(), now) {
            Taken::Granted => return Ok(()),
            Taken::Enough => return Err(Withheld::Rate),
            Taken::One => {}
            Taken::Spent => {
                let standing = self.standing(from, to);
                return self.peers.place(peer).renew(standing, now);
            }
        }
        if is_near(from, to) {
            return Ok(());
        }
        let place = self.networks.place(network);
        match place.take(u64::from(rate) * PORTS, now) {
            Taken::Granted | Taken::One => Ok(()),
            Taken::Enough => Err(Withheld::Rate),
            Taken::Spent => place.renew(Standing::Stranger, now),
        }
    }

    fn may_be_a_service(&self, from: SocketAddr) -> bool {
        from.port() < FIRST_CLIENT_PORT
            || self.own.binary_search(&from.port()).is_ok()
            // That would be sent to ourselves, or to many.
            || from.ip().is_unspecified()
            || from.ip().is_multicast()
    }

    /// What is known of a socket that asks a lot.
    fn standing(&mut self, from: SocketAddr, to: SocketAddr) -> Standing {
        match self.owners.of(to, from) {
            Owner::Client => Standing::Client,
            Owner::Anybody if is_near(from, to) && self.client_ports.contains(&from.port()) => {
                Standing::Neighbour
            }
            Owner::Anybody | Owner::Unknown => Standing::Stranger,
        }
    }

    /// Where the address and port, and where the network, stand in their ledgers.
    fn places(&self, from: SocketAddr) -> (u64, u64) {
        let (network, host) = match from.ip() {
            IpAddr::V4(v4) => (u64::from(v4.to_bits()), 0),
            IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64, v6.to_bits() as u64),
        };
        let [one, other] = self.keys;
        let network = fold(network ^ one, other);
        (fold(network ^ host, other ^ u64::from(from.port())), network)
    }
}

/// Whether `from` is on this machine: from elsewhere the kernel takes no such source.
fn is_near(from: SocketAddr, to: SocketAddr) -> bool {
    from.ip().is_loopback() || from.ip() == to.ip()
}

/// What is known of a socket that asks a lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It hears us alone.
    Client,
    /// It is on this machine, and where clients are.
    Neighbour,
    /// Nothing.
    Stranger,
}

/// A fixed number of places. It takes no storage before somebody is answered.
#[derive(Default)]
struct Ledger(Vec<Place>);

impl Ledger {
    fn place(&mut self, hash: u64) -> &mut Place {
        if self.0.is_empty() {
            self.0 = vec![Place::default(); PLACES];
        }
        &mut self.0[hash as usize % PLACES]
    }
}

/// What those have had who share a place. Times are microseconds since the beginning.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// When all of the rate is there again (the generic cell rate algorithm: one number is enough).
    restored_at: u64,
    /// The last time that anything came.
    seen_at: u64,
    deaf_until: u64,
    /// Answers since the last silence.
    stretch: u32,
    /// Answers that are given without looking at the rate.
    granted: u32,
    /// Whether the last of those were granted to a [neighbour](Standing::Neighbour).
    is_to_pause: bool,
}

/// What came of asking for one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// There is one, and it does not count.
    Granted,
    /// There is one.
    One,
    /// There is none any more.
    Spent,
    /// Nothing is answered for now.
    Enough,
}

impl Place {
    /// Takes one answer at `now`, at a rate of so many a second.
    fn take(&mut self, rate: u64, now: u64) -> Taken {
        if now < self.deaf_until {
            return Taken::Enough;
        }
        if self.granted > 0 {
            self.granted -= 1;
            return Taken::Granted;
        }
        if now.saturating_sub(self.seen_at) >= micros(SILENCE) {
            self.stretch = 0;
        }
        self.seen_at = now;
        let restored_at = self.restored_at.max(now) + micros(Duration::from_secs(1)) / rate.max(1);
        let is_beyond = restored_at > now + micros(Duration::from_secs(BURST_SECONDS));
        if is_beyond || self.stretch >= STRETCH {
            return Taken::Spent;
        }
        self.restored_at = restored_at;
        self.stretch += 1;
        Taken::One
    }

    /// Decides what comes after a rate that is spent: answers for who is known to be a client, and
    /// silence for everybody else.
    fn renew(&mut self, standing: Standing, now: u64) -> Result<(), Withheld> {
        self.stretch = 0;
        let pause = match standing {
            Standing::Stranger => DEAF,
            Standing::Neighbour if self.is_to_pause => BLINK,
            Standing::Neighbour | Standing::Client => {
                self.granted = GRANT - 1;
                self.is_to_pause = standing == Standing::Neighbour;
                return Ok(());
            }
        };
        self.is_to_pause = false;
        self.deaf_until = now + micros(pause);
        Err(Withheld::Rate)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A hash that nobody can foresee who does not know the key.
fn fold(value: u64, key: u64) -> u64 {
    let product = u128::from(value ^ key) * u128::from(key | 1);
    (product >> 64) as u64 ^ product as u64
}

/// The ports that the system gives to sockets that name none.
fn client_ports() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => USUAL_CLIENT_PORTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service of this process, and how many a second one peer may have.
    const OWN: &str = "192.0.2.1:7007";
    const RATE: u32 = 20;

    struct Scene {
        loops: Loops,
        begun: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let begun = Instant::now();
            let mut loops = Loops::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211], begun);
            loops.note_own(7007);
            loops.note_own(7008);
            Self { loops, begun }
        }

        /// Whether `from` is answered so many milliseconds after the beginning.
        fn answers(&mut self, from: &str, at_ms: u64) -> bool {
            let read = |text: &str| text.parse().expect("an address");
            let now = self.begun + Duration::from_millis(at_ms);
            self.loops.judge(read(from), read(OWN), Some(RATE), now).is_ok()
        }

        /// How many answers a loop gets that comes round after so many milliseconds: it ends with the
        /// first that is withheld.
        fn rounds(&mut self, from: &str, round_ms: u64) -> usize {
            (0..100_000).take_while(|round| self.answers(from, round * round_ms)).count()
        }
    }

    #[test]
    fn a_port_that_may_be_a_services_is_never_answered() {
        let mut scene = Scene::new();
        for from in ["198.51.100.1:0", "198.51.100.1:7", "[2001:db8::1]:1023", "127.0.0.1:53"] {
            assert!(!scene.answers(from, 0), "{from}");
        }
        for from in ["198.51.100.1:7007", "127.0.0.2:7008", "[::1]:7007"] {
            assert!(!scene.answers(from, 0), "{from} is like one of ours");
        }
        for from in ["0.0.0.0:9999", "224.0.0.1:9999", "[::]:9999", "[ff02::1]:9999"] {
            assert!(!scene.answers(from, 0), "{from} is nobody");
        }
        assert!(scene.answers("198.51.100.1:1024", 0));
        let unbound = scene.loops.judge(
            "127.0.0.1:7007".parse().expect("an address"),
            OWN.parse().expect("an address"),
            None,
            scene.begun,
        );
        assert_eq!(unbound, Err(Withheld::Port), "also where no rate is set");
    }

    #[test]
    fn a_loop_ends_however_fast_it_goes_round() {
        for (round_ms, most) in [(0, 40), (1, 42), (10, 52), (60, 1000), (999, 1000)] {
            let rounds = Scene::new().rounds("198.51.100.1:9999", round_ms);
            assert!((40..=most).contains(&rounds), "{rounds} rounds of {round_ms} ms");
        }
    }

    #[test]
    fn a_loop_of_many_datagrams_ends_in_the_silence() {
        let mut scene = Scene::new();
        // All of them are on their way at once, and each comes round again 10 ms after its answer.
        let mut on_their_way = 5000;
        for round in 0..10 {
            on_their_way = (0..on_their_way)
                .filter(|_| scene.answers("198.51.100.1:9999", round * 10))
                .count();
        }
        assert_eq!(on_their_way, 0);
    }

    #[test]
    fn a_loop_that_has_another_port_each_time_ends_too() {
        for network in ["198.51.100.1", "[2001:db8::7]"] {
            let mut scene = Scene::new();
            let port = |round: u64| format!("{network}:{}", 9000 + round);
            let rounds = (0..20_000).take_while(|round| scene.answers(&port(*round), 0)).count();
            assert!((200..=400).contains(&rounds), "{rounds} rounds");
        }
        let mut scene = Scene::new();
        let host = |round: u64| format!("[2001:db8::{round:x}]:9999");
        let rounds = (0..20_000).take_while(|round| scene.answers(&host(*round), 0)).count();
        assert!((200..=400).contains(&rounds), "{rounds} rounds from one network");
    }

    #[test]
    fn who_asks_at_leisure_is_always_answered() {
        let mut scene = Scene::new();
        for second in 0..10_000 {
            assert!(scene.answers("198.51.100.1:9999", second * 1000), "after {second} s");
        }
        // A burst now and then is no loop either.
        for hour in 3..6 {
            let burst = (0..40).filter(|_| scene.answers("198.51.100.1:9999", hour * 3_600_000));
            assert_eq!(burst.count(), 40);
        }
    }

    #[test]
    fn who_went_too_far_is_answered_again_after_the_silence() {
        let mut scene = Scene::new();
        assert_eq!(scene.rounds("198.51.100.1:9999", 0), 40);
        assert!(!scene.answers("198.51.100.1:9999", 999));
        assert!(scene.answers("198.51.100.1:9999", 1001));
        assert!(scene.answers("198.51.100.1:9998", 0), "another port is another peer");
    }

    #[test]
    fn a_client_that_hears_us_alone_is_always_answered() {
        let own = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let to = own.local_addr().expect("bound");
        let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let from = client.local_addr().expect("bound");
        let mut scene = Scene::new();
        let mut answered = |count: usize, at_ms| {
            let now = scene.begun + Duration::from_millis(at_ms);
            let judge = |_: &usize| scene.loops.judge(from, to, Some(RATE), now).is_ok();
            (0..count).filter(judge).count()
        };
        client.connect(to).expect("an address");
        assert_eq!(answered(100_000, 0), 100_000);

        // Not connected, it could be a service: what it may send in a circle comes to an end.
        drop(client);
        let _anybody = std::net::UdpSocket::bind(from).expect("the same port");
        let before_the_pause = answered(100_000, 0);
        assert!(before_the_pause < 2 * GRANT as usize + 100, "{before_the_pause}");
        assert_eq!(answered(100, BLINK.as_millis() as u64 + 1), 100, "it is answered on");
    }

    #[test]
    fn a_flood_of_addresses_does_not_make_anybody_forgotten() {
        let mut scene = Scene::new();
        assert_eq!(scene.rounds("198.51.100.1:9999", 0), 40);
        for number in 0..20_000u32 {
            scene.answers(&format!("10.0.{}.{}:2000", number >> 8 & 255, number & 255), 0);
        }
        assert!(!scene.answers("198.51.100.1:9999", 1));
        assert_eq!(scene.loops.peers.0.len(), PLACES);
    }
}
