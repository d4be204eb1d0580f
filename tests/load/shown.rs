//! How a load is put on and shown: rates that change, addresses, limits, files and terminals.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::servers::{Server, serve, upper};
use crate::{PATIENCE, all_errors, load, number, talk_of, turnstile};

#[test]
fn a_ramp_and_stages_have_the_requests_that_lie_under_them() {
    let server = serve(upper);
    let ramp = load(&server, &["--rate", "100..300 over 2s", "-c", "4"]);
    assert_eq!((number(&ramp, "/replies"), all_errors(&ramp)), (400, 0), "{ramp:#}");
    assert_eq!(ramp["asked"]["schedule"], "100..300 over 2s");
    assert_eq!(ramp["asked"]["rate_per_second"].as_f64(), Some(200.0));
    let stages = load(&server, &["--rate", "100 for 1s, 50 for 1s", "-c", "4", "-d", "3s"]);
    assert_eq!((number(&stages, "/replies"), all_errors(&stages)), (200, 0), "{stages:#}");
}

#[test]
fn arrivals_at_random_are_the_same_again_with_the_same_seed() {
    let server = serve(upper);
    let run = |seed: &str| {
        let words =
            ["--rate", "300", "--arrivals", "poisson", "--seed", seed, "-c", "4", "-d", "1s"];
        number(&load(&server, &words), "/replies")
    };
    let first = run("7");
    assert_eq!(first, run("7"));
    // 300 are expected, and the standard deviation is 17.
    assert!((200..400).contains(&first), "{first}");
}

#[test]
fn a_count_that_is_never_reached_ends() {
    let silent = serve(|number, stream, request| {
        if number > 150 {
            thread::sleep(PATIENCE);
        }
        upper(number, stream, request)
    });
    let begin = Instant::now();
    let words = ["-n", "100000", "-c", "2", "--timeout", "300ms"];
    let report = load(&silent, &words);
    assert!(number(&report, "/replies") <= 150 && begin.elapsed() < PATIENCE / 2);
    assert!(report["remarks"].to_string().contains("nothing was answered for 900ms"), "{report:#}");

    let slow = serve(|number, stream, request| {
        thread::sleep(Duration::from_millis(10));
        upper(number, stream, request)
    });
    let report = load(&slow, &["-n", "100000", "-c", "2", "-d", "1s"]);
    assert!(report["remarks"].to_string().contains("the time was up, 1s"), "{report:#}");
}

#[test]
fn chosen_percentiles_are_shown() {
    let server = serve(upper);
    let words = ["load", &server.address, "-n", "500", "-c", "2", "--percentiles", "10,75,99.5"];
    let output = turnstile(&words).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let head = text.lines().find(|line| line.starts_with("Times")).expect("a table");
    let words: Vec<_> = head.split_whitespace().collect();
    assert_eq!(words, ["Times", "min", "p10", "p75", "p99.5", "max", "count"]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("B/s received") || text.contains("KiB/s received"), "{text}");
    let report = load(&server, &["-n", "500", "--percentiles", "50"]);
    let phase = &report["phases"]["request"];
    assert_eq!(phase["percentiles"][0]["ns"], phase["p50_ns"]);
}

#[test]
fn files_are_made_only_when_there_is_something_to_write() {
    let folder = tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("old.html"), "kept").expect("written");
    // Nobody listens where somebody listened a moment ago.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = gone.local_addr().expect("bound").to_string();
    drop(gone);
    let words = ["load", &address, "--html", &path("old.html"), "--hdr", &path("new.hdr")];
    let output = turnstile(&words).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1), "{}", talk_of(&output));
    assert_eq!(fs::read_to_string(path("old.html")).expect("there"), "kept");
    assert!(!Path::new(&path("new.hdr")).exists());

    let server = serve(upper);
    load(&server, &["-n", "100", "--html", &path("old.html"), "--hdr", &path("new.hdr")]);
    assert!(fs::read_to_string(path("old.html")).expect("there").contains("</html>"));
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2, "nothing else is left");
    let nowhere = ["load", &server.address, "--html", "/no/such/folder/x.html"];
    let output = turnstile(&nowhere).output().expect("it starts");
    assert!(talk_of(&output).contains("/no/such/folder/x.html cannot be written"));
}

#[test]
fn connections_go_to_all_addresses_of_a_name_where_that_is_asked_for() {
    let server = serve(upper);
    let port = server.address.rsplit(':').next().expect("a port").to_owned();
    let named = Server { address: format!("localhost:{port}"), seen: server.seen };
    let report = load(&named, &["-n", "200", "-c", "4", "--all-addresses"]);
    let spread = report["traffic"]["connections"].as_object().expect("a table");
    assert!(spread[&format!("tcp://127.0.0.1:{port}")].as_u64() >= Some(1), "{report:#}");
    let alone = load(&named, &["-n", "200", "-c", "4"]);
    assert!(alone["traffic"]["connections"].is_null(), "{alone:#}");
    assert_eq!(all_errors(&alone), 0, "an address that does not answer is no error");
}

#[test]
fn the_live_line_fits_the_terminal() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/terminal.py");
    let server = serve(upper);
    let play = Command::new("python3")
        .arg(program)
        .env("TERM", "xterm")
        .args([
            env!("CARGO_BIN_EXE_turnstile"),
            "load",
            &server.address,
            "--rate",
            "200",
            "-d",
            "1s",
            "-c",
            "2",
            "--",
        ])
        .output();
    let Ok(play) = play else {
        assert!(std::env::var_os("CI").is_none(), "there is no Python");
        println!("skipped: there is no Python to make a terminal with");
        return;
    };
    let shown = String::from_utf8_lossy(&play.stdout);
    let frames: Vec<_> = shown.split("\r\x1b[J").collect();
    assert!(frames.len() > 3, "{shown:?}");
    for frame in &frames[..frames.len() - 1] {
        assert!(frame.chars().count() < 80 && !frame.contains('\n'), "{frame:?}");
    }
}
