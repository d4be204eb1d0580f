//! What becomes of every request that was due, and of every connection: servers that hang, close, lose
//! and double.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::tempdir;

use super::servers::{Server, over, serve, serve_datagrams_by, serve_impatiently, upper};
use super::{all_errors, daemon, errors, gate, load, number, report_of, talk_of, turnstile};

fn said(report: &Value, words: &str) -> bool {
    report["remarks"].to_string().contains(words)
}

/// Answers so many, and then nobody any more.
fn hang_after<const COUNT: usize>(
    number: usize,
    stream: &mut std::net::TcpStream,
    request: &[u8],
) -> std::io::Result<()> {
    if number <= COUNT { upper(number, stream, request) } else { Ok(()) }
}

#[test]
fn a_server_that_stops_answering_holds_no_objective() {
    let server = serve(hang_after::<100>);
    let output = turnstile(&["load", &server.address, "--json", "--warm-up", "0s"])
        .args(["-d", "2s", "-c", "4", "-r", "200", "--timeout", "500ms"])
        .args(["--objective", "p99<100ms", "--objective", "errors<5%"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(3));
    let report = report_of(&output);
    assert_eq!((number(&report, "/due"), number(&report, "/replies")), (400, 100), "{report:#}");
    assert!(number(&report, "/failed") > 0 && number(&report, "/unsent") > 0, "{report:#}");
    for verdict in report["objectives"].as_array().expect("a list") {
        assert_eq!(verdict["held"], false, "{verdict}");
    }
    assert!(report["objectives"][0]["found"].to_string().contains("never: 300 of 400"));
    assert_eq!(report["limit"], "silence");
}

#[test]
fn nothing_answered_has_an_exit_code_of_its_own() {
    let server = serve(hang_after::<0>);
    let output = turnstile(&["load", &server.address, "--json", "--warm-up", "0s"])
        .args(["-d", "1s", "-c", "2", "--timeout", "300ms"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(number(&report_of(&output), "/replies"), 0);
}

#[test]
fn a_verdict_survives_a_reader_that_has_gone() {
    let server = serve(upper);
    for (objective, code) in [("p99<1ns", 3), ("errors<1%", 0)] {
        let mut run = turnstile(&["load", &server.address, "-n", "200", "--warm-up", "0s"])
            .args(["--objective", objective])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        drop(run.stdout.take());
        assert_eq!(run.wait().expect("it ends").code(), Some(code), "{objective}");
    }
}

/// Closes after every tenth request of a connection.
fn close_after_ten(
    number: usize,
    stream: &mut std::net::TcpStream,
    request: &[u8],
) -> std::io::Result<()> {
    thread_local!(static SERVED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });
    upper(number, stream, request)?;
    // Each connection has a thread of its own.
    let served = SERVED.get() + 1;
    SERVED.set(served);
    if served == 10 { end_in_order(stream) } else { Ok(()) }
}

/// Ends the stream and waits for the peer to go, so that no reset follows what was sent meanwhile.
fn end_in_order(stream: &mut std::net::TcpStream) -> std::io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    std::io::copy(stream, &mut std::io::sink())?;
    over()
}

#[test]
fn used_up_connections_cost_reconnects_and_no_errors() {
    for depth in ["1", "3"] {
        let server = serve(close_after_ten);
        let report = load(&server, &["-n", "600", "-c", "3", "--depth", depth]);
        assert_eq!((number(&report, "/replies"), all_errors(&report)), (600, 0), "{report:#}");
        let closed = number(&report, "/connections/closed_idle")
            + number(&report, "/connections/closed_used");
        assert!(closed >= 50, "{report:#}");
        assert!(said(&report, "after 10 replies on the average"), "{report:#}");
    }
}

#[test]
fn what_was_due_is_sent_over_new_connections_after_the_window_too() {
    let server = serve(|number, stream, request| {
        thread::sleep(Duration::from_millis(10));
        close_after_ten(number, stream, request)
    });
    let report = load(&server, &["-d", "1s", "-r", "200", "-c", "1"]);
    let figures = ["/due", "/replies", "/unsent"].map(|name| number(&report, name));
    assert_eq!((figures, all_errors(&report)), ([200, 200, 0], 0), "{report:#}");
}

#[test]
fn a_close_instead_of_an_answer_is_an_error() {
    // Every seventh request, after it was read and thought about; no connection lives as long as the last.
    let server = serve(|number, stream, request| {
        thread::sleep(Duration::from_millis(5));
        if number.is_multiple_of(7) { end_in_order(stream) } else { upper(number, stream, request) }
    });
    let report = load(&server, &["-n", "300", "-c", "3"]);
    let closes = (server.seen.requests() / 7) as u64;
    // The best is thought of the first of them, and of some that by chance served as many as one before.
    let found = errors(&report, "closed_early");
    assert!(found >= closes / 2 && found <= closes, "{found} of {closes}: {report:#}");
}

#[test]
fn a_server_that_closes_after_each_reply_is_told_from_one_that_fails() {
    let server = serve(|number, stream, request| {
        upper(number, stream, request)?;
        end_in_order(stream)
    });
    for kind in [&["-n", "200"][..], &["-d", "1s", "-r", "200"]] {
        let report = load(&server, &[kind, &["-c", "2"]].concat());
        assert_eq!(all_errors(&report), 0, "{report:#}");
        assert!(said(&report, "--connect-per-request"), "{report:#}");
    }
}

#[test]
fn closes_of_idle_connections_fail_nobody() {
    let server = serve_impatiently(Duration::from_millis(200), upper);
    // Some closes cross a request, more of them where the machine is busy: these cannot be told apart.
    let output = turnstile(&["load", &server.address, "--json", "--warm-up", "0s"])
        .args(["-d", "2s", "-c", "30", "-r", "100", "--objective", "errors<5%"])
        .output()
        .expect("it starts");
    let report = report_of(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert!(number(&report, "/connections/closed_idle") > 0, "{report:#}");
    assert_eq!(number(&report, "/due"), 200);
}

#[test]
fn a_handshake_counts_once_the_server_has_let_it_in() {
    let folder = tempdir().expect("a folder");
    let gate = gate(folder.path(), "hmac-sha256");
    let run = |secret: &str| {
        turnstile(&["load", &gate.server.address, "--json", "--warm-up", "0s", "-d", "1s"])
            .args(["-c", "2", "--auth", "hmac-sha256", "--handshake-only"])
            .env("TURNSTILE_SECRET", secret)
            .output()
            .expect("it starts")
    };
    let shut = run("open barley");
    assert_eq!(shut.status.code(), Some(1));
    assert!(talk_of(&shut).contains("check the secret"), "{}", talk_of(&shut));
    let open = report_of(&run("open sesame"));
    assert!(number(&open, "/replies") > 0 && all_errors(&open) == 0, "{open:#}");
    assert!(number(&open, "/admission/by_wait") >= number(&open, "/replies"), "{open:#}");
    assert!(said(&open, "did not close for a while"));
}

#[test]
fn a_client_that_tls_1_3_turns_away_was_not_let_in() {
    let folder = tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    for words in [
        &["cert", "ca", "--out", &path("")][..],
        &["cert", "server", "--ca", &path(""), "--name", "localhost"],
        &["cert", "client", "--ca", &path(""), "--name", "somebody"],
    ] {
        let made = turnstile(words).output().expect("it starts");
        assert!(made.status.success(), "{words:?}: {}", talk_of(&made));
    }
    let config = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"tcp://127.0.0.1:0\"\nservice = \"upper\"\n\
         [listener.tls]\ncert = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\nclient_auth = \"required\"\n",
        path("server.pem"),
        path("server-key.pem"),
        path("ca.pem")
    );
    let daemon = daemon(folder.path(), &config);
    let address = format!("tls://{}", daemon.address);
    let run = |words: &[&str]| {
        turnstile(&["load", &address, "--json", "--warm-up", "0s", "-n", "100", "-c", "2"])
            .args(["--ca", &path("ca.pem"), "--server-name", "localhost", "--handshake-only"])
            .args(words)
            .output()
            .expect("it starts")
    };
    let nobody = run(&[]);
    assert_eq!(nobody.status.code(), Some(1), "{}", String::from_utf8_lossy(&nobody.stdout));
    let (cert, key) = (path("client.pem"), path("client-key.pem"));
    let report = report_of(&run(&["--cert", &cert, "--key", &key]));
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (100, 0), "{report:#}");
    let admission = &report["admission"];
    assert_eq!(admission["by_protocol"], 0, "{report:#}");
}

#[test]
fn lost_and_doubled_datagrams_are_never_wrong_bytes() {
    let text = "all the same, and of the length that the server of this test expects";
    for payload in [&[][..], &["--template", "number {counter} of many"], &["--text", text]] {
        let server = serve_datagrams_by(|number, socket, peer, answer| {
            for _ in 0..usize::from(!number.is_multiple_of(20)) * 2 {
                let _ = socket.send_to(answer, peer);
            }
        });
        let words = [&["-n", "300", "-c", "2", "--depth", "4"][..], payload].concat();
        let report = load(&server, &words);
        assert_eq!(number(&report, "/replies"), 300, "{report:#}");
        assert_eq!(errors(&report, "wrong_bytes"), 0, "{payload:?}: {report:#}");
        assert!(number(&report, "/datagrams/duplicates") > 0, "{payload:?}: {report:#}");
        assert_eq!(report["asked"]["timeout_seconds"], Value::Null);
        if payload.first() != Some(&"--text") {
            assert!(errors(&report, "lost") > 0, "{payload:?}: {report:#}");
        }
    }
}

#[test]
fn a_wrong_datagram_fails_one_request_and_a_late_one_is_late() {
    let server = serve_datagrams_by(|number, socket, peer, answer| {
        if number == 30 {
            let _ = socket.send_to(b"something else", peer);
        } else if number == 60 {
            let (socket, answer) = (socket.try_clone().expect("a socket"), answer.to_vec());
            thread::spawn(move || {
                // Far longer than the shortest time that a datagram is waited for, and than the noise.
                thread::sleep(Duration::from_millis(1500));
                let _ = socket.send_to(&answer, peer);
            });
        } else {
            let _ = socket.send_to(answer, peer);
        }
    });
    let report = load(&server, &["-d", "4s", "-c", "1", "--depth", "2", "-r", "100"]);
    assert_eq!(errors(&report, "wrong_bytes"), 1, "{report:#}");
    assert!(errors(&report, "lost") >= 1 && number(&report, "/datagrams/late") >= 1, "{report:#}");
}

#[test]
fn a_pause_of_the_tester_is_the_testers() {
    let server = serve(upper);
    let run = turnstile(&["load", &server.address, "--json", "--warm-up", "0s", "-d", "3s"])
        .args(["-c", "4", "-r", "200"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    super::wait_until("requests come", || server.seen.requests() > 100);
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &run.id().to_string()]).status();
        assert!(sent.expect("kill exists").success());
    };
    signal("-STOP");
    // This is the pause itself, not a wait for something.
    thread::sleep(Duration::from_secs(1));
    signal("-CONT");
    let report = report_of(&run.wait_with_output().expect("it ends"));
    assert!(number(&report, "/tester/lag_max_ns") >= 900_000_000, "{report:#}");
    // A quarter of all beats were due in it or later than it could serve them.
    assert!(number(&report, "/tester/lag_p99_ns") >= 500_000_000, "{report:#}");
    assert!(said(&report, "The tester itself stood still"), "{report:#}");
    let intervals = report["intervals"].as_array().expect("a list");
    assert!(intervals.iter().any(|it| it["tester_late_ns"].as_u64() >= Some(900_000_000)));
}

#[test]
fn what_kept_the_rate_down_is_named() {
    let fixed = serve(|number, stream, request| {
        thread::sleep(Duration::from_millis(50));
        upper(number, stream, request)
    });
    let few = load(&fixed, &["-d", "2s", "-c", "2", "-r", "200", "--timeout", "500ms"]);
    assert_eq!(few["limit"], "connections", "{few:#}");
    assert!(said(&few, "too few connections") && said(&few, "connections would do"), "{few:#}");

    // So many do, and then nothing is said of the rate, though each reply takes long.
    let many = load(&fixed, &["-d", "2s", "-c", "60", "-r", "200"]);
    assert!(!said(&many, "not reached"), "{many:#}");

    let serial = serve(|number, stream, request| {
        static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one = ONE.lock().expect("no panic");
        thread::sleep(Duration::from_millis(20));
        upper(number, stream, request)
    });
    let full = load(&serial, &["-d", "2s", "-c", "8", "-r", "200", "--timeout", "5s"]);
    assert_eq!(full["limit"], "server", "{full:#}");
    assert!(said(&full, "waited for one another"), "{full:#}");
}

#[test]
fn a_queue_that_is_full_is_waited_for_and_named() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("narrow.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let listener = listener.expect("a socket");
    listener.bind(&socket2::SockAddr::unix(&path).expect("a path")).expect("bound");
    listener.listen(1).expect("it listens");
    let listener = std::os::unix::net::UnixListener::from(listener);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a stream");
            thread::sleep(Duration::from_millis(10));
            thread::spawn(move || {
                let mut output = stream.try_clone().expect("a stream");
                std::io::copy(&mut stream, &mut output)
            });
        }
    });
    let address = format!("unix://{}", path.display());
    let output =
        turnstile(&["load", &address, "--json", "--warm-up", "0s", "-d", "1s", "-c", "20"])
            .args(["--expect", "echo"])
            .output()
            .expect("it starts");
    let report = report_of(&output);
    assert_eq!(
        (all_errors(&report), number(&report, "/connections_at_end")),
        (0, 20),
        "{report:#}"
    );
    assert!(number(&report, "/connections/queue_full") > 0, "{report:#}");
    assert!(said(&report, "queue of new connections was full"), "{report:#}");
}

#[test]
fn a_search_that_finds_none_says_so() {
    let server: Server = serve(|number, stream, request| {
        static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one = ONE.lock().expect("no panic");
        thread::sleep(Duration::from_millis(30));
        upper(number, stream, request)
    });
    let output =
        turnstile(&["load", &server.address, "--json", "-c", "4", "-d", "1s", "-r", "120"])
            .args([
                "--find-rate",
                "--objective",
                "errors<50%",
                "--timeout",
                "1s",
                "--warm-up",
                "0s",
            ])
            .output()
            .expect("it starts");
    assert_eq!(output.status.code(), Some(3));
    assert!(talk_of(&output).contains("No rate was found"), "{}", talk_of(&output));
    let search = &report_of(&output)["search"];
    assert_eq!(search["rate_per_second"], Value::Null);
    // Each of the two rates is tried twice before it is believed.
    assert_eq!(search["steps"].as_array().map(Vec::len), Some(4), "{search:#}");
}
