//! Sockets that fail or die under the daemon: it goes on after what passes, and binds anew what has died.

mod common;

use std::process::Command;

use common::{Daemon, ask, has_program, listener, listener_at, traced, uninterrupted};

/// The daemon under strace, which lets system calls fail as these say.
fn failing(configuration: &str, injections: &[&str]) -> Option<Daemon> {
    let mut options = vec!["-o", "/dev/null", "-e", "trace=recvmmsg,accept4,bind,listen"];
    for injection in injections {
        options.extend(["-e", injection]);
    }
    Some(Daemon::launch(traced(&options)?, configuration))
}

fn is_answered(daemon: &Daemon, name: &str) -> bool {
    let client = daemon.datagrams(name);
    client.send(b"hello").expect("sent");
    uninterrupted(|| client.recv(&mut [0; 16])).expect("an answer") == 5
}

#[test]
fn an_error_of_one_receive_does_not_end_a_datagram_service() {
    let errors =
        ["ENOMEM", "ENOBUFS", "ECONNREFUSED", "EHOSTUNREACH", "EPROTO", "EMSGSIZE", "EIO", "EINTR"];
    for error in errors {
        let injection = format!("inject=recvmmsg:error={error}:when=1");
        let configuration = listener_at("udp://127.0.0.1:0", "echo", "echo", "");
        let Some(mut daemon) = failing(&configuration, &[&injection]) else { return };
        assert!(is_answered(&daemon, "echo") && is_answered(&daemon, "echo"), "after {error}");
        if error != "EINTR" {
            daemon.wait_for_line("receiving failed and goes on");
        }
        daemon.signal("TERM");
        assert!(daemon.wait().success());
        daemon.wait_for_line("sockets_rebound=0");
    }
}

#[test]
fn an_error_that_comes_again_and_again_costs_no_more_than_a_try_now_and_then() {
    let injection = "inject=recvmmsg:error=EIO:when=1..100";
    let configuration = listener_at("udp://127.0.0.1:0", "udp", "echo", "");
    let Some(daemon) = failing(&configuration, &[injection]) else { return };
    assert!(is_answered(&daemon, "udp"), "it was tried until it went well");
    assert_eq!(daemon.lines("receiving failed").len(), 1, "said once");
}

#[test]
fn a_datagram_socket_that_is_none_any_more_is_bound_anew() {
    let injections =
        ["inject=recvmmsg:error=EBADF:when=1", "inject=bind:error=EADDRINUSE:when=2..3"];
    let configuration = listener_at("udp://127.0.0.1:0", "echo", "echo", "");
    let Some(daemon) = failing(&configuration, &injections) else { return };
    let client = daemon.datagrams("echo");
    client.send(b"lost with the socket").expect("sent");
    daemon.wait_for_line("the UDP socket has died");
    daemon.wait_for_lines("cannot be bound anew: Address already in use", 2);
    daemon.wait_for_line("listener=echo listens again on udp://127.0.0.1:");
    assert!(is_answered(&daemon, "echo"), "at the same port");
}

#[test]
fn a_stream_listener_that_listens_no_more_is_bound_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix://{}/echo.sock", folder.path().display());
    for address in ["tcp://127.0.0.1:0", &unix] {
        let injections =
            ["inject=accept4:error=EINVAL:when=2", "inject=listen:error=EADDRINUSE:when=2"];
        let configuration = listener_at(address, "echo", "echo", "");
        let Some(mut daemon) = failing(&configuration, &injections) else { return };
        let mut before = daemon.connect("echo");
        assert_eq!(ask(&mut before, b"before"), b"before");
        // The second attempt was to tell whether somebody waits behind the first connection.
        daemon.wait_for_line("the listening socket has died: Invalid argument");
        daemon.wait_for_line("cannot be bound anew: Address already in use");
        daemon.wait_for_line("listener=echo listens again on");
        assert_eq!(ask(&mut daemon.connect("echo"), b"again"), b"again");
        assert_eq!(ask(&mut before, b"still there"), b"still there");
        drop(before);
        daemon.signal("TERM");
        assert!(daemon.wait().success());
        daemon.wait_for_line("sockets_rebound=1");
    }
}

#[test]
fn what_an_administrator_destroys_is_bound_anew() {
    if !has_program("ss") {
        return;
    }
    let configuration =
        listener("tcp", "echo", "") + &listener_at("udp://127.0.0.1:0", "udp", "echo", "");
    let daemon = Daemon::start(&configuration);
    let destroy = |options, name| {
        let port = format!(":{}", daemon.socket_address(name).port());
        let ss = Command::new("ss").args([options, "sport", "=", &port]).output();
        ss.expect("it runs").status.success()
    };
    let _ = destroy("-Kltn", "tcp") && destroy("-Kuan", "udp");
    // Where this user may not, or the kernel cannot, nothing has happened.
    if std::net::TcpStream::connect(daemon.socket_address("tcp")).is_ok()
        && daemon.lines("has died").is_empty()
    {
        println!("skipped, here as in continuous integration: this kernel destroys no sockets");
        return;
    }
    daemon.wait_for_line("listener=tcp listens again on");
    assert_eq!(ask(&mut daemon.connect("tcp"), b"again"), b"again");
    // A port that the system has chosen is taken from a datagram socket that is destroyed.
    let client = daemon.datagrams("udp");
    client.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("a timeout");
    let answered = (0..100).any(|_| {
        let _ = client.send(b"hello");
        client.recv(&mut [0; 16]).is_ok()
    });
    assert!(answered, "it is heard again");
}
