//! Unix sockets by their names: those of the abstract namespace, and one that several daemons want.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Daemon, finish, listener_at, run, signal, text, turnstile};

/// A name of the abstract namespace that nobody else has.
fn name(of: &str) -> String {
    format!("unix:@turnstile-{of}-{}", std::process::id())
}

#[test]
fn an_abstract_name_is_listened_on_forwarded_to_and_put_under_load() {
    let (upper, entry) = (name("upper"), name("entry"));
    let service = listener_at(&upper, "upper", "upper", "");
    let forward = listener_at(&entry, "entry", "forward", &format!("to = '{upper}'"));
    let daemon = Daemon::start(&format!("{service}{forward}"));
    assert_eq!((daemon.address("upper"), daemon.address("entry")), (upper, entry.clone()));
    let answer = run(&mut turnstile(&["connect", &entry]), b"hello");
    assert_eq!(text(&answer.stdout), "HELLO");
    daemon.wait_for_line("listener=entry peer=unix(pid=");
    let words = ["load", &entry, "-c", "4", "-n", "100", "--text", "abc", "--expect", "upper"];
    let report = finish(
        turnstile(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs"),
    );
    assert!(report.status.success(), "{}", text(&report.stderr));
}

#[test]
fn an_abstract_name_that_is_taken_is_in_use() {
    let text_of = listener_at(&name("taken"), "taken", "echo", "");
    let _daemon = Daemon::start(&text_of);
    let second = run(&mut turnstile(&["serve", "-c", "-"]), text_of.as_bytes());
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("in use"), "{}", text(&second.stderr));
    let wrong = listener_at(&name("taken"), "taken", "echo", "unix_mode = '0660'");
    let refused = run(&mut turnstile(&["check", "-c", "-"]), wrong.as_bytes());
    assert_eq!(refused.status.code(), Some(78));
}

#[test]
fn of_daemons_that_start_at_once_over_a_stale_socket_one_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gate.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound, and left behind"));
    let configuration = folder.path().join("gate.toml");
    let listener = listener_at(&format!("unix://{}", path.display()), "gate", "echo", "");
    std::fs::write(&configuration, listener).expect("ours");
    let start = |_| {
        let mut command = turnstile(&["serve", "-c", configuration.to_str().expect("UTF-8")]);
        command.stderr(Stdio::piped()).spawn().expect("it runs")
    };
    let daemons: Vec<_> = (0..6).map(start).collect();
    let mut winners = Vec::new();
    // Whoever has won says that it listens; all others say why they end.
    for mut daemon in daemons {
        let log = BufReader::new(daemon.stderr.take().expect("a pipe"));
        let said = log.lines().map_while(Result::ok).find(|line| {
            line.contains("listening listener=gate") || line.contains("cannot listen on")
        });
        let said = said.expect("one of the two");
        if said.contains("listening listener=gate") {
            winners.push(Kill(daemon.id()));
            let answer =
                run(&mut turnstile(&["connect", &format!("unix://{}", path.display())]), b"hello");
            assert_eq!(text(&answer.stdout), "hello");
        } else {
            assert!(said.contains("another process is listening"), "{said}");
            assert_eq!(daemon.wait().expect("it ends").code(), Some(1));
        }
    }
    assert_eq!(winners.len(), 1);
}

/// A daemon that is killed when this is dropped.
struct Kill(u32);

impl Drop for Kill {
    fn drop(&mut self) {
        signal(self.0, "KILL");
    }
}
