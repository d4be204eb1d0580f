//! The recipes of `examples/recipes`, played with the real programs: every command that its README
//! tells a reader to type is run there, and must print what the README says.

#[path = "recipes/capture.rs"]
mod capture;
mod common;
#[path = "recipes/readme.rs"]
mod readme;
#[path = "recipes/stage.rs"]
mod stage;

use std::fs;
use std::path::Path;
use std::process::Command;

use capture::{Capture, may_capture};
use common::{Daemon, run, skip, text};
use readme::steps;
use stage::{Server, Stage, has_programs, is_root};

/// What runs while a recipe is played; the servers are the last to go.
struct Tunnel {
    entry: Daemon,
    exit: Daemon,
    _server: Server,
}

/// Plays a section: the last command of the far machine is its server, which says that it is
/// `ready`; then entry and exit start, and the near machine's commands are run through them.
fn play(stage: &Stage, section: &str, ready: &str) -> Tunnel {
    let (mut far, near): (Vec<_>, Vec<_>) = steps(section).into_iter().partition(|it| it.is_far);
    let server = far.pop().expect("a server");
    stage.play(&far);
    let server = stage.server(&server.command, ready);
    let exit = stage.daemon("exit.toml");
    let entry = stage.daemon("entry.toml");
    assert!(!near.is_empty(), "commands in {section}");
    stage.play(&near);
    Tunnel { entry, exit, _server: server }
}

#[test]
fn the_configurations_are_sound() {
    let stage = Stage::new();
    let files = fs::read_dir(stage.path()).expect("a folder").map(|it| it.expect("a file").path());
    let configurations: Vec<_> = files.filter(|it| is_a(it, "toml")).collect();
    assert!(configurations.len() >= 2);
    for file in configurations {
        let file = file.to_str().expect("text");
        let said = run(&mut common::turnstile(&["check", "-c", file]), b"");
        assert!(said.status.success(), "{}", text(&said.stderr));
    }
    stage.play(&steps("Entry and exit"));
}

#[test]
fn systemd_understands_the_units() {
    if !has_programs(&["systemd-analyze"]) {
        return;
    }
    let stage = Stage::new();
    for unit in ["turnstile-entry.service", "turnstile-exit.service"] {
        let file = stage.path().join(unit);
        let told = fs::read_to_string(&file).expect("text");
        let ours = env!("CARGO_BIN_EXE_turnstile");
        fs::write(&file, told.replace("/usr/local/bin/turnstile", ours)).expect("written");
        let said = run(Command::new("systemd-analyze").arg("verify").arg(&file), b"");
        let said = (said.status.success(), text(&said.stderr));
        assert_eq!(said, (true, String::new()), "{unit}");
    }
}

#[test]
fn http() {
    if !has_programs(&["python3", "curl"]) {
        return;
    }
    let tunnel = play(&Stage::new(), "HTTP", "Serving HTTP on");
    tunnel.entry.wait_for_line("closed listener=http");
    tunnel.exit.wait_for_line("subject=CN=laptop");
}

#[test]
fn redis() {
    if !has_programs(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    let tunnel = play(&Stage::new(), "Redis", "Ready to accept connections");
    // Those of the benchmark.
    tunnel.entry.wait_for_lines("closed listener=redis", 50);
    assert_eq!((tunnel.entry.threads(), tunnel.exit.threads()), (1, 1));
}

#[test]
fn postgresql() {
    if !has_programs(&["initdb", "postgres", "psql"]) {
        return;
    }
    let mut stage = Stage::new();
    stage.leave_root();
    let tunnel = play(&stage, "PostgreSQL", "ready to accept connections");
    tunnel.exit.wait_for_line("closed listener=exit");
}

#[test]
fn ssh() {
    if !has_programs(&["sshd", "ssh", "scp", "ssh-keygen"]) {
        return;
    }
    if is_root() && !Path::new("/run/sshd").is_dir() {
        skip("there is no /run/sshd, which sshd wants when root starts it");
        return;
    }
    let tunnel = play(&Stage::new(), "SSH", "Server listening on");
    tunnel.exit.wait_for_line("closed listener=ssh");
}

#[test]
fn ftp() {
    if !has_programs(&["python3", "lftp", "curl"]) || !has_pyftpdlib() {
        return;
    }
    let stage = Stage::new();
    let tunnel = play(&stage, "FTP", "starting FTP server");
    // Two folders of three files, and a listing at the least, by ports of the tunnel.
    tunnel.entry.wait_for_lines("closed listener=ftp-data-", 7);
    assert_eq!(fs::read_dir(stage.path().join("ftp/copies")).expect("sent back").count(), 3);
}

#[test]
fn an_eavesdropper_learns_sizes_and_times() {
    if !has_programs(&["tshark", "dumpcap", "redis-server", "redis-cli"]) || !may_capture() {
        return;
    }
    let stage = Stage::new();
    let captures = [18443, 16379].map(|port| Capture::start(&stage, port));
    let tunnel = play(&stage, "What an eavesdropper sees", "Ready to accept connections");
    tunnel.exit.wait_for_line("closed listener=exit");
    let [hop, plain] = captures.map(Capture::finish);
    for words in ["open sesame", "greeting", "the quick brown fox"] {
        assert!(plain.holds(words), "behind the exit there is no `{words}`");
        assert!(!hop.holds(words), "between entry and exit `{words}` can be read");
    }
    let secret = fs::read_to_string(stage.path().join("tunnel.secret")).expect("text");
    for words in ["tunnel", "16379", "CONNECT", secret.trim()] {
        assert!(!hop.holds(words), "between entry and exit `{words}` can be read");
    }
    assert!(hop.holds("exit.example"), "the first message of TLS names the server");
    assert!(hop.says("TLSv1.3") && hop.says("Application Data") && !plain.says("TLS"));
}

/// Whether there is an FTP server; the test is skipped where there is none.
fn has_pyftpdlib() -> bool {
    let found = Command::new("python3").args(["-c", "import pyftpdlib"]).output();
    found.expect("it runs").status.success() || skip("python3 has no pyftpdlib")
}

fn is_a(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|it| it == extension)
}
