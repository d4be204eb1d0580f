//! Instructions that one request costs above the system calls: the session, its pipes and the
//! service, over ends in memory.
//!
//! Times jitter, instruction counts do not. So this runs itself under valgrind's callgrind with
//! two numbers of requests, and prints the difference for each request, beside the *bare* loop
//! that does the same work on the bytes (in, upper-case, out) and nothing else.
//!
//!     cargo bench --bench instructions

use std::hint::black_box;
use std::io;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use turnstile::proto::buffer::Pool;
use turnstile::proto::end::{Clock, End, Progress, Turn};
use turnstile::proto::event::{Event, Observer, Subject, Watch};
use turnstile::proto::gate::{Digest, Keyring, Secret};
use turnstile::proto::pipe::Pipe;
use turnstile::proto::service::Kind;
use turnstile::proto::session::{Admission, Session, Step, Timeouts};

/// A name, and what does so many requests.
type Scenario = (&'static str, fn(usize));

const SCENARIO: &str = "TURNSTILE_BENCH_SCENARIO";
const REQUESTS: &str = "TURNSTILE_BENCH_REQUESTS";

const SCENARIOS: [Scenario; 5] = [
    ("bare 64 B", |requests| bare(requests, 64)),
    ("session 64 B", |requests| upper(requests, 64)),
    ("bare 16 KiB", |requests| bare(requests, 16 * 1024)),
    ("session 16 KiB", |requests| upper(requests, 16 * 1024)),
    ("gate", gate),
];

fn main() {
    if let (Ok(scenario), Ok(requests)) = (std::env::var(SCENARIO), std::env::var(REQUESTS)) {
        let requests = requests.parse().expect("a number of requests");
        let (_, run) = SCENARIOS.iter().find(|(name, _)| *name == scenario).expect("a scenario");
        return run(requests);
    }
    let mut bare = 0.0;
    for (name, _) in SCENARIOS {
        let Some(each) = instructions_each(name) else {
            println!("valgrind is not installed: no instructions were counted");
            return;
        };
        if name.starts_with("bare") {
            bare = each;
            println!("{name:<16} {each:>8.0} instructions");
        } else if name.starts_with("session") {
            let above = each - bare;
            println!("{name:<16} {each:>8.0} instructions a request: {above:.0} above bare");
        } else {
            println!("{name:<16} {each:>8.0} instructions an admission, HMAC-MD5 included");
        }
    }
}

fn instructions_each(scenario: &str) -> Option<f64> {
    let (few, many) = (1_000, 3_000);
    let difference = instructions(scenario, many)? - instructions(scenario, few)?;
    Some(difference as f64 / f64::from(many - few))
}

fn instructions(scenario: &str, requests: u32) -> Option<i64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("the path of this benchmark"))
        .env(SCENARIO, scenario)
        .env(REQUESTS, requests.to_string())
        .output()
        .ok()?;
    let report = String::from_utf8_lossy(&output.stderr);
    let collected = report.lines().find_map(|line| line.split_once("Collected : "))?;
    collected.1.trim().parse().ok()
}

fn bare(requests: usize, len: usize) {
    let (request, mut buffer, mut reply) = (vec![b'a'; len], vec![0; len], vec![0; len]);
    for _ in 0..requests {
        buffer.copy_from_slice(black_box(&request));
        buffer.make_ascii_uppercase();
        reply.copy_from_slice(black_box(&buffer));
        black_box(&reply);
    }
}

fn upper(requests: usize, len: usize) {
    let mut bench = Bench::new();
    let remote = Memory { request: vec![b'a'; len], reply: vec![0; len], pending: false };
    let timeouts = Rc::new(Timeouts::default());
    let service = Kind::Upper.stream();
    let mut session = Session::new(remote, service, Admission::Open, timeouts, bench.now);
    for _ in 0..requests {
        session.remote().pending = true;
        bench.run(|turn| assert_eq!(session.run(turn), Step::Wait));
        black_box(session.deadline());
        assert_eq!(session.remote().reply[len - 1], b'A');
    }
}

fn gate(admissions: usize) {
    let mut bench = Bench::new();
    let secret = Secret::new("demo", b"Jedan has a big key!".to_vec().into());
    let keyring = Rc::new(Keyring::new(Digest::Md5, [&secret]));
    let timeouts = Rc::new(Timeouts::default());
    let answer = secret.answer(Digest::Md5, &[7; 32]).as_bytes().to_vec();
    for _ in 0..admissions {
        let remote = Memory { request: answer.clone(), reply: vec![0; 32], pending: true };
        let admission = Admission::Guard(Rc::clone(&keyring), [7; 32]);
        let timeouts = Rc::clone(&timeouts);
        let mut session =
            Session::new(remote, Kind::Upper.stream(), admission, timeouts, bench.now);
        bench.run(|turn| assert_eq!(session.run(turn), Step::Wait));
        assert!(!session.remote().pending, "the answer was read");
    }
}

/// A remote end in memory: one request at a time comes in, replies go out.
struct Memory {
    request: Vec<u8>,
    reply: Vec<u8>,
    pending: bool,
}

impl End for Memory {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let mut moved = to.len();
        if moved > 0 {
            self.reply[..moved].copy_from_slice(to.bytes());
            to.consume(turn.pool, moved);
        }
        if self.pending {
            self.pending = false;
            moved += from.append(turn.pool, &self.request);
        }
        Ok(Progress::Moved(moved))
    }
}

struct Bench {
    now: Instant,
    pool: Pool,
    observer: Nobody,
}

impl Bench {
    fn new() -> Self {
        Self { now: Instant::now(), pool: Pool::new(64 * 1024, 4), observer: Nobody }
    }

    fn run(&mut self, step: impl FnOnce(&mut Turn<'_>)) {
        self.now += Duration::from_micros(10);
        let subject = Subject { key: Some(0), name: "bench", peer: &"" };
        step(&mut Turn {
            now: self.now,
            pool: &mut self.pool,
            clock: &NoClock,
            watch: Watch::new(&mut self.observer, 0, subject),
        });
    }
}

struct Nobody;

impl Observer for Nobody {
    fn wants_detail(&self) -> bool {
        false
    }

    fn observe(&mut self, _turn: u64, _subject: &Subject<'_>, _event: &Event<'_>) {}
}

struct NoClock;

impl Clock for NoClock {
    fn local_time(&self) -> jiff::Zoned {
        jiff::Zoned::default()
    }
}
