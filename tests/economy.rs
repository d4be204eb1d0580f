//! What serving costs in system calls: counted by strace, so the same on every machine.

mod common;

use std::fs;

use common::{Daemon, ask, listener, traced};

/// How many system calls a daemon makes in its whole life, in which `idle` connections do nothing
/// and one asks `requests` times. `None` where strace cannot be used.
fn calls(idle: usize, requests: usize) -> Option<u64> {
    let folder = tempfile::tempdir().expect("a folder");
    let table = folder.path().join("calls");
    let command = traced(&["-c", "-o", table.to_str().expect("text")])?;
    let mut daemon = Daemon::launch(command, &listener("echo", "echo", ""));
    let arrive = |_| {
        let mut wire = daemon.connect("echo");
        assert_eq!(ask(&mut wire, b"here"), b"here");
        wire
    };
    let mut wires: Vec<_> = (0..=idle).map(arrive).collect();
    for _ in 0..requests {
        assert_eq!(
            ask(&mut wires[0], b"sixty-four bytes, or nearly so"),
            b"sixty-four bytes, or nearly so"
        );
    }
    // Killed, so that closing, which is batched by chance, is not counted. The tracer holds the
    // log open until it has written its table.
    daemon.signal("KILL");
    daemon.wait();
    let table = fs::read_to_string(&table).expect("a table");
    let total = table.lines().find(|line| line.ends_with(" total")).expect(&table);
    Some(total.split_whitespace().nth(3).expect(&table).parse().expect(&table))
}

#[test]
fn a_request_costs_three_calls_among_any_number_of_idle_connections() {
    for idle in [0, 200] {
        let (Some(few), Some(many)) = (calls(idle, 100), calls(idle, 1100)) else { return };
        let calls = many - few;
        // To wait, to receive, to send. A few may differ between two starts: whether the first
        // bytes are there when a connection is accepted is chance.
        println!("{calls} calls for 1,000 requests among {idle} idle connections");
        assert!((2960..=3040).contains(&calls), "{calls} calls for 1,000 requests among {idle}");
    }
}
