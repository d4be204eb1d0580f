//! The fuzz targets without a fuzzer: every seed of `fuzz/corpus`, and damaged copies of it.
//!
//! `fuzz/` needs a nightly compiler and finds its way by itself; this needs neither, and finds what lies
//! near the seeds. The damage is seeded, and the same each time: `CORPORA_SEED` looks elsewhere, and
//! `CORPORA_ROUNDS` sets how many copies of each seed are tried.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How many damaged copies of each seed are tried.
const ROUNDS: u64 = 200;

/// The longest copy, in bytes: what is larger teaches nothing more.
const LONGEST: usize = 16 * 1024;

#[test]
fn no_seed_and_no_damaged_seed_is_too_much_for_a_parser() {
    let first = number("CORPORA_SEED").unwrap_or(1);
    let rounds = number("CORPORA_ROUNDS").unwrap_or(ROUNDS);
    println!("CORPORA_SEED={first}");
    for (name, target) in targets::ALL {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (path, bytes) in &seeds {
            run(target, bytes, &format!("{}", path.display()));
            for round in 0..rounds {
                let mut dice = SmallRng::seed_from_u64(first.wrapping_add(round));
                let other = &seeds[dice.random_range(0..seeds.len())].1;
                let damaged = damage(bytes, other, &mut dice);
                run(target, &damaged, &format!("{} in round {round} of {first}", path.display()));
            }
        }
    }
}

fn run(target: fn(&[u8]), bytes: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
        panic!("{what} was too much: {}", bytes.escape_ascii());
    }
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("a folder that can be read").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a seed"))).collect()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// A copy of `bytes` with some bytes changed, cut out, doubled, or taken from `other`.
fn damage(bytes: &[u8], other: &[u8], dice: &mut SmallRng) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    for _ in 0..dice.random_range(1..8) {
        let at = dice.random_range(0..=copy.len());
        let end = dice.random_range(at..=copy.len().min(at + 16));
        match dice.random_range(0..7) {
            0 if at < copy.len() => copy[at] = dice.random(),
            1 if at < copy.len() => copy[at] ^= 1 << dice.random_range(0..8),
            2 if at < copy.len() => copy[at] = [0, 1, 0x7f, 0x80, 0xff][dice.random_range(0..5)],
            3 => drop(copy.drain(at..end)),
            4 => copy.truncate(at),
            5 => {
                let again = copy[at..end].to_vec();
                copy.splice(at..at, again);
            }
            _ => {
                let from = dice.random_range(0..=other.len());
                copy.splice(at..end, other[from..].iter().copied());
            }
        }
        copy.truncate(LONGEST);
    }
    copy
}
