//! What serving costs in system calls: counted by strace, so the same on every machine.

mod common;

use std::fs;
use std::process::Command;

use common::{Daemon, ask, has_program, listener, skip};

/// How many system calls a daemon makes in its whole life, in which `idle` connections do nothing
/// and one asks `requests` times. `None` where strace cannot be used.
fn calls(idle: usize, requests: usize) -> Option<u64> {
    if !has_program("strace") {
        return None;
    }
    let traces_here = Command::new("strace").args(["-c", "-o", "/dev/null", "true"]).status();
    if !traces_here.is_ok_and(|status| status.success()) {
        skip("strace may not trace here");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let table = folder.path().join("calls");
    let mut command = Command::new("strace");
    // -D: the tracer is a grandchild, so that the child is the daemon and gets its signals.
    command.args(["-D", "-f", "-c", "-o"]).arg(&table);
    command.args([env!("CARGO_BIN_EXE_turnstile"), "serve", "-c", "-"]);
    let mut daemon = Daemon::launch(command, &listener("echo", "echo", ""));
    let mut wires: Vec<_> = (0..=idle).map(|_| daemon.connect("echo")).collect();
    for wire in &mut wires {
        assert_eq!(ask(wire, b"here"), b"here");
    }
    for _ in 0..requests {
        assert_eq!(
            ask(&mut wires[0], b"sixty-four bytes, or nearly so"),
            b"sixty-four bytes, or nearly so"
        );
    }
    drop(wires);
    daemon.wait_for_lines("closed listener=echo", idle + 1);
    daemon.signal("TERM");
    // The tracer holds the log open until it has written its table.
    assert!(daemon.wait().success());
    let table = fs::read_to_string(&table).expect("a table");
    let total = table.lines().find(|line| line.ends_with(" total")).expect(&table);
    Some(total.split_whitespace().nth(3).expect(&table).parse().expect(&table))
}

/// Calls for 1,000 requests among `idle` connections that do nothing.
fn calls_of_a_thousand(idle: usize) -> Option<f64> {
    let (few, many) = (calls(idle, 100)?, calls(idle, 1100)?);
    Some((many - few) as f64)
}

#[test]
fn a_request_costs_three_calls_among_any_number_of_idle_connections() {
    // Waiting, receiving, sending. The rest is what differs between two runs: how many lines of
    // log a write takes, how many connections a batch.
    for idle in [0, 200] {
        let Some(calls) = calls_of_a_thousand(idle) else { return };
        let off = (calls - 3000.0).abs();
        assert!(off <= 60.0 + idle as f64, "{calls} calls for 1,000 requests among {idle}");
    }
}
