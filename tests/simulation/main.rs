//! The seeded simulator: the real session code in virtual time, over connections that do what
//! networks do, alone and as a tunnel of two. Every seed is a story of its own; whatever happens in it,
//! the same promises hold.
//!
//! `TURNSTILE_SEED=n` replays one seed and shows it; `TURNSTILE_SEEDS=n` sets how many are tried.

mod call;
mod dice;
mod link;
mod model;
mod peer;
mod probe;
mod relay;
mod scenario;
mod subject;
mod trace;
mod tunnel;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::world::Fate;

/// With fewer seeds than this, something rare may not have come up.
const ENOUGH_TO_SEE_ALL: u64 = 10_000;

/// Everything that can become of a session.
const FATES: [&str; 21] = [
    "Stopped",
    "Finished",
    "Served",
    "Refused",
    "LeftAtGate",
    "NoChallenge",
    "Deadline(Auth)",
    "Deadline(Idle)",
    "Deadline(HalfClose)",
    "Deadline(Lifetime)",
    "Deadline(Closing)",
    "Failed(Remote, ConnectionReset)",
    "Failed(Remote, BrokenPipe)",
    "Failed(Local, ConnectionReset)",
    "stopped by its budget",
    "entry Finished",
    "entry Failed(Local, PermissionDenied)",
    "entry Failed(Local, TimedOut)",
    "entry Failed(Local, UnexpectedEof)",
    "exit Finished",
    "exit Refused",
];

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = number("TURNSTILE_SEED") {
        return replay(seed);
    }
    let mut seen = BTreeMap::new();
    for seed in seeds() {
        match catch_unwind(AssertUnwindSafe(|| scenario::draw(seed).run())) {
            Ok(fates) => count(&mut seen, &fates),
            Err(_) => {
                println!("seed {seed} breaks a promise; to see it again:");
                println!("    TURNSTILE_SEED={seed} cargo test --test simulation -- --nocapture");
                replay(seed);
                panic!("seed {seed} broke a promise, and kept it when it was replayed");
            }
        }
    }
    println!("{seen:#?}");
    if seeds().end >= ENOUGH_TO_SEE_ALL {
        for fate in FATES {
            let is_seen = seen.keys().any(|key| key.ends_with(fate));
            assert!(is_seen, "no seed made a session end as {fate}");
        }
    }
}

fn seeds() -> Range<u64> {
    let default = if env::var_os("CI").is_some() { 100_000 } else { 20_000 };
    0..number("TURNSTILE_SEEDS").unwrap_or(default)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`, and must be a number")))
}

fn replay(seed: u64) {
    let mut world = scenario::draw(seed);
    world.show();
    world.run();
}

fn count(seen: &mut BTreeMap<String, usize>, fates: &[Fate]) {
    for fate in fates {
        *seen.entry(format!("{} {:?}", fate.name, fate.reason)).or_default() += 1;
        if fate.was_cut_short {
            *seen.entry(format!("{} stopped by its budget", fate.name)).or_default() += 1;
        }
    }
}
