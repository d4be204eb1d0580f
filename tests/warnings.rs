//! What `check` warns of, and `serve` in its log: what is no mistake, and may hurt.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use turnstile::config;

mod common;

use common::{Daemon, listener_at, skip, turnstile};

/// The warnings about a configuration, now.
fn warnings(text: &str) -> Vec<String> {
    let plan = config::parse(text, "test.toml", Path::new(""));
    plan.unwrap_or_else(|report| panic!("{report}")).warnings(jiff::Timestamp::now())
}

const SECRET: &str = "[[secret]]\nname = 's'\nvalue = '0123456789abcdef'\n";

#[test]
fn a_secret_that_can_be_guessed_is_named() {
    let gate = |value: &str| {
        let listener = listener_at("tcp://127.0.0.1:0", "a", "echo", "auth = 'hmac-sha256'");
        format!("[[secret]]\nname = 'weak'\nvalue = '{value}'\n{listener}")
    };
    assert_eq!(warnings(&gate("0123456789abcdef")), [""; 0]);
    let found = warnings(&gate("0123456789abcde"));
    assert!(found.len() == 1 && found[0].contains("the secret `weak` is shorter"), "{found:?}");
    assert!(!found[0].contains("0123"), "{found:?}");
}

#[test]
fn what_everybody_may_use_to_get_further_is_named() {
    let forward = "to = 'tcp://192.0.2.1:1'\n";
    let connect = "targets = ['db.internal:5432']\n";
    for (service, lines) in [("forward", forward), ("connect", connect)] {
        let with = |address: &str, more: &str| {
            let listener = listener_at(address, "open", service, &format!("{lines}{more}"));
            warnings(&format!("{SECRET}{listener}"))
        };
        for address in ["tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://192.0.2.1:80"] {
            let found = with(address, "");
            let expected = "listener `open`: everybody who reaches tcp://";
            assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
            assert_eq!(with(address, "auth = 'hmac-sha256'"), [""; 0]);
        }
        for address in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://localhost:0", "unix:///run/a"]
        {
            assert_eq!(with(address, ""), [""; 0], "{address}");
        }
    }
    assert_eq!(warnings(&listener_at("tcp://0.0.0.0:0", "a", "echo", "")), [""; 0]);
    let nowhere = listener_at("tcp://0.0.0.0:0", "a", "connect", "targets = []");
    assert_eq!(warnings(&nowhere), [""; 0]);
}

#[test]
fn listeners_that_take_in_one_another_are_refused_and_both_wildcards_are_not() {
    let two = |one: &str, other: &str| {
        let pair = listener_at(one, "one", "echo", "") + &listener_at(other, "two", "echo", "");
        config::parse(&pair, "test.toml", Path::new(""))
    };
    for (one, other) in [
        ("tcp://0.0.0.0:80", "tcp://127.0.0.1:80"),
        ("tcp://127.1:80", "tcp://127.0.0.1:80"),
        ("udp://[::]:80", "udp://[::1]:80"),
        ("tcp://localhost:80", "tcp://127.0.0.1:80"),
        ("tcp://[::ffff:192.0.2.1]:80", "tcp://192.0.2.1:80"),
    ] {
        let report = two(one, other).expect_err(other).to_string();
        assert!(report.contains("same addresses") || report.contains("twice"), "{report}");
    }
    for scheme in ["tcp", "udp"] {
        let (four, six) = (format!("{scheme}://0.0.0.0:80"), format!("{scheme}://[::]:80"));
        for (one, other) in [(&four, &six), (&six, &four)] {
            let plan = two(one, other).expect("both");
            let found = plan.warnings(jiff::Timestamp::now());
            assert!(found.len() == 1 && found[0].contains("takes IPv6 alone"), "{found:?}");
        }
    }
}

#[test]
fn both_wildcards_are_listened_on() {
    if TcpListener::bind("[::1]:0").is_err() {
        skip("this machine has no IPv6");
        return;
    }
    // Whoever takes the port meanwhile makes the daemon end, and the next port is tried.
    let daemon = (0..10).find_map(|_| {
        let port = TcpListener::bind("[::]:0").ok()?.local_addr().ok()?.port();
        let pair = listener_at(&format!("tcp://[::]:{port}"), "six", "echo", "")
            + &listener_at(&format!("tcp://0.0.0.0:{port}"), "four", "daytime", "");
        let daemon = std::panic::catch_unwind(|| Daemon::start(&pair)).ok()?;
        Some((daemon, port))
    });
    let (daemon, port) = daemon.expect("a port that is free for both");
    daemon.wait_for_line("listener `six`: it takes IPv6 alone, because `four` listens on");
    let mut time = String::new();
    let mut four = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    std::io::Read::read_to_string(&mut four, &mut time).expect("the time");
    assert!(!time.is_empty());
    TcpStream::connect(("::1", port)).expect("it listens");
    daemon.wait_for_line("listener=six peer=[::1]:");
}

fn check(folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstile"));
    command.args(["check", "-c", "gate.toml"]).current_dir(folder);
    command.output().expect("it runs")
}

#[test]
fn a_configuration_that_holds_a_secret_is_a_file_of_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("ours");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
    };
    let listener = listener_at("tcp://127.0.0.1:0", "a", "echo", "auth = 'hmac-sha256'");
    let by_file = format!("[[secret]]\nname = 's'\nfile = 'secret'\n{listener}");
    write("secret", "0123456789abcdef\n", 0o600);
    for (text, mode, expected) in [
        (format!("{SECRET}{listener}"), 0o644, Some("gate.toml holds a secret")),
        (format!("{SECRET}{listener}"), 0o600, None),
        (by_file.clone(), 0o644, None),
    ] {
        write("gate.toml", &text, mode);
        let output = check(folder.path());
        assert!(output.status.success(), "a warning changes nothing");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        match expected {
            None => assert_eq!(said, ""),
            Some(expected) => assert!(said.contains(expected), "{said}"),
        }
    }
    write("secret", "0123456789abcdef\n", 0o644);
    let said = String::from_utf8(check(folder.path()).stderr).expect("UTF-8");
    assert!(said.contains("secret holds a secret") && said.contains("chmod 600"), "{said}");
}

#[test]
fn what_is_missing_on_this_machine_is_said_by_check_and_serve_alike() {
    let text = listener_at("tcp://127.0.0.1:0", "a", "forward", "to = 'tls://localhost:1'");
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("gate.toml"), text).expect("ours");
    for command in ["check", "serve"] {
        let mut command = turnstile(&[command, "-c", "gate.toml"]);
        command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nonexistent");
        let output = command.current_dir(folder.path()).output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("no list of authorities to trust"), "{said}");
    }
}

#[test]
fn a_host_that_nobody_knows_cannot_be_listened_on() {
    let text = listener_at("tcp://nobody.invalid:0", "lost", "echo", "");
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("gate.toml"), text).expect("ours");
    let output = check(folder.path());
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains("listener `lost`: unknown host `nobody.invalid`"), "{said}");
}

#[test]
fn where_no_socket_can_be_made_none_is_listened_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    fs::write(at.join("file"), "precious").expect("ours");
    for (path, why) in [
        ("file", "a file that is not a socket has this name"),
        (".", "a file that is not a socket has this name"),
        ("none/socket", "make it first"),
        ("file/socket", "is not a folder"),
    ] {
        let address = format!("unix://{}", at.join(path).display());
        fs::write(at.join("gate.toml"), listener_at(&address, "a", "echo", "")).expect("ours");
        let checked = check(at);
        assert_eq!(checked.status.code(), Some(78), "{path}");
        let served = turnstile(&["serve", "-c", "gate.toml"]).current_dir(at).output();
        let served = served.expect("it runs");
        assert_eq!(served.status.code(), Some(1), "{path}");
        let said = String::from_utf8(checked.stderr).expect("UTF-8");
        assert!(said.contains(why), "{said}");
        assert_eq!(said, String::from_utf8(served.stderr).expect("UTF-8"));
    }
    assert_eq!(fs::read_to_string(at.join("file")).expect("left alone"), "precious");
}

#[test]
fn a_secret_is_the_same_wherever_it_comes_from() {
    let text = listener_at("tcp://127.0.0.1:0", "a", "echo", "auth = 'hmac-sha256'");
    for value in ["0123456789abcdef", "0123456789abcdef\n", "0123456789abcdef\r\n"] {
        let text = format!("[[secret]]\nname = 's'\nenv = 'GATE_KEY'\n{text}");
        let mut command = turnstile(&["serve", "-c", "-"]);
        command.env("GATE_KEY", value);
        let daemon = Daemon::launch(command, &text);
        let mut client = turnstile(&["connect", &daemon.address("a"), "--auth", "hmac-sha256"]);
        client.env("TURNSTILE_SECRET", value);
        let mut client = client
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it runs");
        daemon.wait_for_line("identity=s");
        client.wait().expect("it ends");
    }
}
