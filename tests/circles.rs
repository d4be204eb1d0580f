//! Connections that come back to where they began: listeners that forward to themselves, and calls
//! that meet themselves.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::process::Command;

use common::{
    DEMO_SECRET, Daemon, ask, has_program, listener, listener_at, rest, run, skip, text, turnstile,
};

fn forward(name: &str, address: &str, to: &str) -> String {
    listener_at(address, name, "forward", &format!("to = '{to}'\n"))
}

/// What `check` says of a configuration, and its exit code.
fn check(configuration: &str) -> (Option<i32>, String) {
    let output = run(&mut turnstile(&["check", "-c", "-"]), configuration.as_bytes());
    (output.status.code(), text(&output.stderr))
}

/// A port of all addresses that is free now.
fn free_port() -> u16 {
    let any = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    any.local_addr().expect("bound").port()
}

#[test]
fn check_finds_who_forwards_to_itself() {
    let exit =
        listener_at("tcp://127.0.0.1:7001", "exit", "connect", "targets = ['127.0.0.1:7000']\n");
    let asks = "to = 'tcp://127.0.0.1:7001'\nupstream = { target = '127.0.0.1:7000' }\n";
    let circles = [
        (forward("a", "tcp://127.0.0.1:7000", "tcp://127.0.0.1:7000"), "`a` forwards to itself"),
        (forward("a", "tcp://0.0.0.0:7000", "tcp://localhost:7000"), "`a` forwards to itself"),
        (forward("a", "tcp://[::]:7000", "tcp://127.0.0.1:7000"), "`a` forwards to itself"),
        (forward("a", "unix:///tmp/a", "unix:///tmp/a"), "`a` forwards to itself"),
        (
            forward("a", "tcp://127.0.0.1:7000", "tcp://127.0.0.1:7001")
                + &forward("b", "tcp://127.0.0.1:7001", "unix:///tmp/c")
                + &forward("c", "unix:///tmp/c", "tcp://localhost:7000"),
            "`a` forwards to itself, by way of `b` and `c`",
        ),
        (
            exit.clone() + &listener_at("tcp://127.0.0.1:7000", "entry", "forward", asks),
            "`entry` forwards to itself",
        ),
    ];
    for (configuration, message) in circles {
        let (code, told) = check(&configuration);
        assert_eq!(code, Some(0), "{configuration}{told}");
        assert!(told.contains("warning: ") && told.contains(message), "{told}");
        assert_eq!(told.matches("forwards to itself").count(), 1, "said once: {told}");
    }
}

#[test]
fn an_entry_by_hand_does_not_call_itself() {
    let here = format!("127.0.0.1:{}", free_port());
    let output = run(&mut turnstile(&["forward", &here, "db.internal:5432", "--via", &here]), b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("forwards to itself"), "{}", text(&output.stderr));
}

#[test]
fn check_lets_listeners_call_each_other() {
    let sound = [
        forward("a", "tcp://127.0.0.1:7000", "tcp://127.0.0.1:7001")
            + &forward("b", "tcp://127.0.0.1:7001", "tcp://127.0.0.1:7002"),
        forward("a", "tcp://127.0.0.1:0", "tcp://127.0.0.1:1")
            + &forward("b", "tcp://127.0.0.1:7001", "tcp://127.0.0.2:7001"),
        // An exit goes where it is asked to, which is another listener.
        listener_at("tcp://127.0.0.1:7001", "exit", "connect", "targets = ['127.0.0.1:7002']\n")
            + &listener_at(
                "tcp://127.0.0.1:7000",
                "entry",
                "forward",
                "to = 'tcp://127.0.0.1:7001'\nupstream = { target = '127.0.0.1:7002' }\n",
            )
            + &listener_at("tcp://127.0.0.1:7002", "echo", "echo", ""),
    ];
    for configuration in sound {
        let (code, told) = check(&configuration);
        assert_eq!((code, told.contains("itself")), (Some(0), false), "{configuration}{told}");
    }
}

#[test]
fn a_circle_that_check_warns_of_is_cut_all_the_same() {
    let port = free_port();
    let address = format!("tcp://127.0.0.1:{port}");
    let configuration = forward("circle", &address, &address) + &listener("echo", "echo", "");
    let daemon = Daemon::start(&configuration);
    daemon.wait_for_line("listener `circle` forwards to itself");
    assert_is_cut(&daemon);
}

/// Connects to a listener that leads to itself in a way that nobody could know, and sees that it ends.
fn assert_is_cut(daemon: &Daemon) {
    let before = daemon.descriptors();
    let mut wire = daemon.connect("circle");
    let _ = wire.write_all(b"round and round");
    let mut heard = Vec::new();
    // It is refused with a reset, or was before anything was sent.
    let _ = wire.read_to_end(&mut heard);
    assert_eq!(heard, b"");
    drop(wire);
    daemon.wait_for_line("it forwards to itself: 8 of our own calls have led here");
    daemon.wait_for_lines("listener=circle peer=", 8);
    assert!(daemon.descriptors() < before + 40, "a chain of a few");
    assert_eq!(ask(&mut daemon.connect("echo"), b"others"), b"others");
}

#[test]
fn a_circle_through_an_address_of_this_machine_is_cut() {
    // Connecting a UDP socket looks up a route and sends nothing.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let routed = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let Some(own) = routed.ok().map(|at| at.ip()).filter(|ip: &IpAddr| !ip.is_loopback()) else {
        skip("this machine has no address but loopback");
        return;
    };
    let port = free_port();
    let to = format!("tcp://{own}:{port}");
    let circle = forward("circle", &format!("tcp://0.0.0.0:{port}"), &to);
    let mut daemon = Daemon::start(&(circle + &listener("echo", "echo", "")));
    assert_is_cut(&daemon);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    daemon.wait_for_line("forward_loops=1");
}

#[test]
fn a_circle_through_a_unix_socket_of_another_name_is_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    symlink(&real, &link).expect("a link");
    let [real, link] = [real, link].map(|path| format!("unix://{}", path.display()));
    let configuration = forward("circle", &real, &link) + &listener("echo", "echo", "");
    assert_is_cut(&Daemon::start(&configuration));
}

#[test]
fn a_chain_of_listeners_of_one_daemon_carries() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix://{}/middle", folder.path().display());
    let [two, exit, end] = [free_port(), free_port(), free_port()];
    let configuration = format!(
        "{DEMO_SECRET}{}{}{}{}{}",
        forward("one", "tcp://127.0.0.1:0", &format!("tcp://127.0.0.1:{two}")),
        forward("two", &format!("tcp://127.0.0.1:{two}"), &unix),
        listener_at(
            &unix,
            "entry",
            "forward",
            &format!(
                "to = 'tcp://127.0.0.1:{exit}'\n\
                 upstream = {{ auth = 'hmac-md5', secret = 'demo', target = '127.0.0.1:{end}' }}\n"
            )
        ),
        listener_at(
            &format!("tcp://127.0.0.1:{exit}"),
            "exit",
            "connect",
            &format!("auth = 'hmac-md5'\ntargets = ['127.0.0.1:{end}']\n")
        ),
        listener_at(&format!("tcp://127.0.0.1:{end}"), "echo", "echo", "")
    );
    let daemon = Daemon::start(&configuration);
    for _ in 0..20 {
        let mut wire = daemon.connect("one");
        assert_eq!(ask(&mut wire, b"through all of them"), b"through all of them");
        wire.shutdown(std::net::Shutdown::Write).expect("ended");
        assert_eq!(rest(&mut wire), b"");
    }
    assert!(daemon.lines("forwards to itself").is_empty());
}

#[test]
fn a_call_that_meets_itself_has_reached_nobody() {
    if !has_program("unshare") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let entry = format!("unix://{}/entry", folder.path().display());
    let exit = format!("unix://{}/exit", folder.path().display());
    // A network of its own, in which every second call from a port that the system chooses is from the
    // one that it calls.
    let ports = "ip link set lo up && echo 40002 40003 > /proc/sys/net/ipv4/ip_local_port_range";
    let mut shell = Command::new("unshare");
    shell.args(["-rn", "sh", "-c"]);
    if !shell.arg(ports).output().expect("it runs").status.success() {
        println!("skipped, here as in continuous integration: no network namespace can be made");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["-rn", "sh", "-c", &format!("{ports} && exec \"$@\""), "sh"]);
    command.args([env!("CARGO_BIN_EXE_turnstile"), "serve", "-c", "-"]).env_remove("RUST_LOG");
    let target = "127.0.0.1:40002";
    let configuration = forward("entry", &entry, &format!("tcp://{target}"))
        + &listener_at(&exit, "exit", "connect", &format!("targets = ['{target}']\n"));
    let daemon = Daemon::launch(command, &configuration);
    for _ in 0..40 {
        let mut wire = daemon.connect("entry");
        let _ = wire.write_all(b"password");
        let mut heard = Vec::new();
        let _ = wire.read_to_end(&mut heard);
        assert_eq!(heard, b"", "nobody is there, so nobody answers");
        let mut asked = daemon.connect("exit");
        write!(asked, "CONNECT {target} HTTP/1.1\r\n\r\n").expect("sent");
        let said = text(&rest(&mut asked));
        assert!(said.starts_with("HTTP/1.1 502 "), "{said}");
    }
    daemon.wait_for_line("the call met itself");
}
