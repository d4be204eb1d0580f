//! The commands that do their work and end, and the daemon as it is without a file.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Output, Stdio};

use common::{
    DEMO, DEMO_SECRET, Daemon, SpawnWithOutput, ask, finish, listener, pass_gate, receive, rest,
    run, skip, text, turnstile, uninterrupted,
};

/// Runs the program with `input` on its standard input.
fn call(arguments: &[&str], input: &str) -> Output {
    run(&mut turnstile(arguments), input.as_bytes())
}

/// What it printed, where all went well and it had nothing to complain of.
fn printed(arguments: &[&str], input: &str) -> String {
    let output = call(arguments, input);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    text(&output.stdout)
}

#[test]
fn a_sound_configuration_is_called_sound() {
    let configuration = listener("echo", "echo", "");
    assert_eq!(
        printed(&["check", "-c", "-"], &configuration),
        "<standard input> is sound: 1 listeners\n"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("turnstile.toml");
    fs::write(&file, configuration.repeat(2).replacen("'echo'", "'other'", 1)).expect("written");
    let path = file.to_str().expect("text");
    assert_eq!(
        printed(&["check", "--config", path], ""),
        format!("{path} is sound: 2 listeners\n")
    );
    assert!(printed(&["check"], "").ends_with(" is sound: 11 listeners\n"));
}

#[test]
fn an_unsound_configuration_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("turnstile.toml");
    let cases = [
        ("[limits]\nconnections = 'many'\n[[listener]]\n", "2:15", "expected a whole number"),
        ("[[listener]]\nname = 'a'\naddress = 'localhost'\n", "3:11", "it has no port"),
        ("[[listener]]\nname = 'a'\nadress = 'localhost:1'\n", "3:1", "address"),
        ("[[listener]\n", "1:", "turnstile.toml"),
        ("", "1:1", "nothing to listen on"),
    ];
    let path = file.to_str().expect("text");
    for (configuration, place, part) in cases {
        fs::write(&file, configuration).expect("written");
        for command in ["check", "serve"] {
            let output = call(&[command, "-c", path], "");
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{command}: {said}");
            assert!(output.stdout.is_empty());
            assert!(said.contains(&format!("{path}:{place}")) && said.contains(part), "{said}");
        }
        let output = call(&["check", "-c", "-"], configuration);
        assert_eq!(output.status.code(), Some(78));
        let said = text(&output.stderr);
        assert!(said.contains(&format!("<standard input>:{place}")), "{said}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let output = call(&["check", "-c", "/no/such/file"], "");
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(said.contains("/no/such/file") && said.contains("No such file"), "{said}");
    let output = run(turnstile(&["check", "-c", "-"]).stdout(Stdio::null()), b"\xff\xfe");
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
}

#[test]
fn what_print_prints_is_read_again_and_printed_the_same() {
    let configuration = format!(
        "[[secret]]\nname = 's'\nenv = 'GATE'\n[limits]\ndrain = '90s'\n{}{}",
        listener("gate", "upper", "auth = 'hmac-md5'\n[listener.timeouts]\nidle = '0s'"),
        listener("reply", "reply", r#"text = "a \"quoted\" text\nof two lines""#),
    );
    let print = |configuration: &str| {
        let mut command = turnstile(&["check", "--print", "-c", "-"]);
        let output = run(command.env("GATE", "open, sesame, please"), configuration.as_bytes());
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
        text(&output.stdout)
    };
    let once = print(&configuration);
    assert!(once.contains("connections = 10000") && once.contains("half_close = \"30s\""));
    assert!(once.contains("drain = \"90s\"") && once.contains("idle = \"0s\""), "{once}");
    assert_eq!(print(&once), once);
    assert!(!once.contains("open, sesame, please"));
}

#[test]
fn the_built_in_configuration_is_printed_as_it_is_read() {
    let built_in = printed(&["check", "--print"], "");
    let said = printed(&["check", "-c", "-"], &built_in);
    assert_eq!(said, "<standard input> is sound: 11 listeners\n");
}

#[test]
fn a_secret_in_the_file_is_not_printed() {
    let configuration = format!("{DEMO_SECRET}{}", listener("gate", "upper", "auth = 'hmac-md5'"));
    let once = printed(&["check", "--print", "-c", "-"], &configuration);
    assert!(!once.contains("Jedan"), "{once}");
    let output = call(&["check", "-c", "-"], &once);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("leaves it out"), "{}", text(&output.stderr));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_fault() {
    for arguments in [&["check", "--print"][..], &["man"], &["completions", "bash"], &["secret"]] {
        let mut child = turnstile(arguments).stdin(Stdio::null()).spawn_with_output();
        drop(child.stdout.take());
        let output = finish(child);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    }
}

#[test]
fn secrets_are_fresh_and_let_in() {
    let (one, two) = (printed(&["secret"], ""), printed(&["secret"], ""));
    assert_ne!(one, two);
    for secret in [&one, &two] {
        assert_eq!(secret.len(), 65);
        assert!(secret.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()), "{secret}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    fs::write(&file, &one).expect("written");
    let configuration = format!(
        "[[secret]]\nname = 'file'\nfile = '{}'\n[[secret]]\nname = 'environment'\nenv = 'GATE'\n{}",
        file.display(),
        listener("gate", "echo", "auth = 'hmac-md5'")
    );
    let mut command = turnstile(&["serve", "-c", "-"]);
    command.env("GATE", two.trim_end());
    let daemon = Daemon::launch(command, &configuration);
    for (secret, name) in [(one, "file"), (two, "environment")] {
        let mut wire = daemon.connect("gate");
        pass_gate(&mut wire, secret.trim_end().as_bytes());
        assert_eq!(ask(&mut wire, b"in"), b"in");
        drop(wire);
        daemon.wait_for_line(&format!("identity={name} "));
    }
}

#[test]
fn packagers_get_their_pages() {
    let script = printed(&["completions", "bash"], "");
    assert!(script.contains("complete -F _turnstile") && script.contains("connect"), "{script}");
    for shell in ["zsh", "fish"] {
        assert!(printed(&["completions", shell], "").contains("turnstile"));
    }
    let page = printed(&["man"], "");
    assert!(page.contains(".TH turnstile 1") && page.contains("EX_CONFIG") | page.contains("78"));
}

#[test]
fn help_and_usage() {
    let help = printed(&["--help"], "");
    for command in ["serve", "check", "connect", "secret", "completions", "man"] {
        assert!(help.contains(command), "{help}");
        assert!(printed(&[command, "--help"], "").contains("Usage: turnstile"));
    }
    let version = printed(&["--version"], "");
    assert_eq!(version, format!("turnstile {}\n", env!("CARGO_PKG_VERSION")));
    for wrong in [&["serve", "extra"][..], &["unknown"], &[], &["completions", "tcsh"]] {
        assert_eq!(call(wrong, "").status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn without_a_file_every_service_of_the_tutorials_is_there() {
    let ports = [9999, 9998, 8090, 12345, 7007, 7009, 7013, 7019];
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let all_are_free =
        ports.iter().all(is_free) && UdpSocket::bind((Ipv4Addr::LOCALHOST, 12345)).is_ok();
    if !all_are_free {
        skip("another program uses the built-in ports");
        return;
    }
    let built_in = printed(&["check", "--print"], "");
    let daemon = Daemon::launch_with_listeners(
        turnstile(&["serve"]),
        built_in.lines().filter(|line| line.starts_with("[[listener]]")).count(),
    );
    let mut gate = daemon.connect("gate");
    pass_gate(&mut gate, DEMO);
    assert_eq!(ask(&mut gate, "grüße".as_bytes()), "GRüßE".as_bytes());
    let answer = |name: &str, question: &[u8]| {
        let mut wire = daemon.connect(name);
        wire.write_all(question).expect("sent");
        text(&rest(&mut wire))
    };
    assert_eq!(answer("once", b" hello\n"), "HELLO");
    assert_eq!(answer("greet", b"hello"), "亲,学会了吗");
    assert_eq!(answer("time", b"END"), "");
    assert_eq!(answer("daytime", b"").len(), 26);
    assert_eq!(ask(&mut daemon.connect("echo"), b"same"), b"same");
    assert_eq!(receive(&mut daemon.connect("chargen"), 4), b" !\"#");
    assert_eq!(ask(&mut daemon.connect("any-port"), b"any"), b"ANY");
    let udp = daemon.datagrams("udp-reply");
    udp.send(b"Hello UDP server").expect("sent");
    let mut space = [0; 64];
    let len = uninterrupted(|| udp.recv(&mut space)).expect("an answer");
    assert_eq!(&space[..len], b"UDP server sending data");
    for (name, port) in [("gate", 9999), ("once", 9998), ("greet", 8090), ("time", 12345)] {
        assert_eq!(daemon.socket_address(name), (Ipv4Addr::LOCALHOST, port).into());
    }
}

#[test]
fn a_daemon_says_its_lines_and_nothing_on_standard_output() {
    let mut child = turnstile(&["serve", "-c", "-"]).stdin(Stdio::piped()).spawn_with_output();
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(listener("echo", "echo", "").as_bytes()).expect("read");
    drop(input);
    let mut first = [0; 1];
    child.stderr.as_mut().expect("a pipe").read_exact(&mut first).expect("a line");
    common::signal(child.id(), "TERM");
    let output = finish(child);
    assert!(output.status.success() && output.stdout.is_empty());
    let said = text(&first) + &text(&output.stderr);
    assert!(said.lines().any(|line| line.contains("stopped accepted=0 ")), "{said}");
}

#[test]
fn an_inspection_leaves_the_secrets_of_its_handshakes_where_it_is_told() {
    use std::os::unix::fs::PermissionsExt;

    let certs = concat!(env!("CARGO_MANIFEST_DIR"), "/certs");
    let tls = format!("tls = {{ cert = '{certs}/server.pem', key = '{certs}/server-key.pem' }}\n");
    let daemon = Daemon::start(&listener("secure", "echo", &tls));
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys.log");
    let address = format!("localhost:{}", daemon.socket_address("secure").port());
    let mut inspect = turnstile(&["inspect", &address, "--ca", &format!("{certs}/ca.pem")]);
    let output = run(inspect.env("SSLKEYLOGFILE", &keys), b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("SSLKEYLOGFILE IS SET"));
    let written = fs::read_to_string(&keys).expect("written");
    // Two connections: the second shows whether the session is resumed.
    assert_eq!(
        written.lines().filter(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0")).count(),
        2
    );
    let mode = fs::metadata(&keys).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
