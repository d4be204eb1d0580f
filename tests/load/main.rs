//! `turnstile load` and `turnstile report`, as a person runs them, against servers whose behaviour is
//! known.
//!
//! Times are only ever compared with bounds that hold on the slowest machine: a reply cannot come
//! before the server has sent it, and of a thousand requests four are less than one in a hundred.

mod books;
mod page;
mod replies;
mod schema;
mod servers;
mod shown;
mod together;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::tempdir;

use servers::{Server, over, reset, serve, serve_datagrams, serve_slowly, upper};

const TURNSTILE: &str = env!("CARGO_BIN_EXE_turnstile");

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn turnstile(words: &[&str]) -> Command {
    let mut command = Command::new(TURNSTILE);
    command.args(words).stdin(Stdio::null()).env_remove("TURNSTILE_SECRET").env_remove("RUST_LOG");
    command
}

/// A run whose report is wanted, whatever its exit code. `words` come after the address.
fn load(server: &Server, words: &[&str]) -> Value {
    let output = turnstile(&["load", &server.address, "--json", "--warm-up", "0s"])
        .args(words)
        .output()
        .expect("it starts");
    report_of(&output)
}

/// The report that was printed, whose books must balance.
fn report_of(output: &Output) -> Value {
    let talk = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {talk}"));
    if report.get("due").is_some() {
        let parts = ["/replies", "/failed", "/unsent", "/in_flight"];
        let sum: u64 = parts.iter().map(|part| number(&report, part)).sum();
        assert_eq!(number(&report, "/due"), sum, "{report:#}");
        assert_eq!(number(&report, "/failed"), all_errors(&report), "{report:#}");
        assert!(!talk.contains("internal error"), "{talk}");
    }
    report
}

fn talk_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {report:#}"))
}

fn errors(report: &Value, cause: &str) -> u64 {
    report["errors"][cause].as_u64().unwrap_or(0)
}

fn all_errors(report: &Value) -> u64 {
    let errors = report["errors"].as_object().expect("an object");
    errors.values().filter_map(Value::as_u64).sum()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::yield_now();
    }
}

#[test]
fn a_count_of_requests_is_sent_checked_and_reported() {
    let server = serve(upper);
    let report = load(&server, &["-n", "500", "-c", "3"]);
    assert_eq!(number(&report, "/replies"), 500);
    assert_eq!(number(&report, "/phases/request/count"), 500);
    assert_eq!(number(&report, "/phases/connect/count"), 3);
    assert_eq!((all_errors(&report), server.seen.connections()), (0, 3));
    assert!(server.seen.requests() >= 500);
}

#[test]
fn a_fixed_delay_is_in_every_time() {
    let server = serve(|number, stream, request| {
        thread::sleep(Duration::from_millis(20));
        upper(number, stream, request)
    });
    let report = load(&server, &["-d", "2s", "-c", "4"]);
    // A histogram of three digits is at most one part in a thousand off.
    assert!(number(&report, "/phases/request/min_ns") >= 19_980_000, "{report:#}");
    assert!(number(&report, "/phases/first_byte/min_ns") >= 19_980_000);
    assert!(report["rate_per_second"].as_f64().expect("a rate") <= 4.0 / 0.020);
}

/// Holds every request back for a second, once.
fn stall_once(
    number: usize,
    stream: &mut std::net::TcpStream,
    request: &[u8],
) -> std::io::Result<()> {
    static STALL: Mutex<()> = Mutex::new(());
    let guard = STALL.lock().expect("no panic");
    if number == 200 {
        thread::sleep(Duration::from_secs(1));
    }
    drop(guard);
    upper(number, stream, request)
}

#[test]
fn a_stall_is_in_the_p99_of_an_open_loop_and_not_of_a_closed_one() {
    let open = load(&serve(stall_once), &["-d", "4s", "-c", "4", "-r", "200"]);
    // All that was due within the second waited: 200 of 800 requests, evenly up to a second.
    assert!(number(&open, "/phases/response/p99_ns") > 800_000_000, "{open:#}");
    assert!(number(&open, "/phases/response/p90_ns") > 400_000_000);

    let closed = load(&serve(stall_once), &["-n", "2000", "-c", "4"]);
    assert!(number(&closed, "/phases/request/max_ns") > 990_000_000, "{closed:#}");
    assert!(number(&closed, "/phases/request/p99_ns") < 990_000_000, "{closed:#}");
    assert!(closed["remarks"].to_string().contains("A closed loop"));
}

#[test]
fn an_open_loop_that_a_server_cannot_follow_says_so() {
    let server = serve(|number, stream, request| {
        thread::sleep(Duration::from_millis(20));
        upper(number, stream, request)
    });
    let words = ["-d", "1s", "-c", "2", "-r", "1000", "--timeout", "500ms"];
    let report = load(&server, &words);
    // Two connections, 20 ms each: at the most 100 a second.
    assert!(report["rate_per_second"].as_f64().expect("a rate") <= 101.0, "{report:#}");
    assert_eq!(report["asked"]["rate_per_second"], 1000.0);
    assert!(number(&report, "/unsent") > 0);
    assert_eq!(number(&report, "/due"), 1000, "{report:#}");
    assert!(number(&report, "/in_flight") <= 2, "each connection has one at the most: {report:#}");
    assert!(report["remarks"].to_string().contains("The rate was not reached"));
}

#[test]
fn resets_are_counted_and_the_load_goes_on() {
    let server = serve(|number, stream, request| {
        if number.is_multiple_of(100) { reset(stream) } else { upper(number, stream, request) }
    });
    let report = load(&server, &["-n", "2000", "-c", "4"]);
    let resets = (server.seen.requests() / 100) as u64;
    assert_eq!(number(&report, "/replies"), 2000);
    // One that was sent before the window or after its end may be missing.
    let found = errors(&report, "reset");
    assert!((resets - 2..=resets).contains(&found), "{found} of {resets}: {report:#}");
    assert_eq!(all_errors(&report), found);
}

#[test]
fn wrong_bytes_are_named() {
    let server = serve(|number, stream, request| {
        let mut reply = request.to_ascii_uppercase();
        if number.is_multiple_of(50) {
            reply[7] = b'#';
        }
        stream.write_all(&reply)
    });
    let report = load(&server, &["-n", "500", "-c", "2"]);
    assert!(errors(&report, "wrong_bytes") >= 8, "{report:#}");
    let example = report["error_examples"]["wrong_bytes"].as_str().expect("an example");
    assert!(example.contains("byte 7 of the reply is 0x23 ('#')"), "{example}");
}

#[test]
fn half_replies_are_early_ends_or_late() {
    let closes = serve(|_, stream, request| {
        stream.write_all(&request.to_ascii_uppercase()[..32])?;
        over()
    });
    let report = load(&closes, &["-d", "1s", "-c", "2"]);
    assert!(errors(&report, "closed_early") > 0, "{report:#}");
    assert_eq!(
        (number(&report, "/replies"), all_errors(&report)),
        (0, errors(&report, "closed_early"))
    );

    let hangs = serve(|_, stream, request| stream.write_all(&request.to_ascii_uppercase()[..32]));
    let report = load(&hangs, &["-d", "1s", "-c", "2", "--timeout", "300ms"]);
    assert!(errors(&report, "timed_out") > 0, "{report:#}");
    assert_eq!(number(&report, "/replies"), 0);
}

#[test]
fn a_slow_accept_is_in_the_time_of_a_visit() {
    let server = serve_slowly(Duration::from_millis(50), upper);
    let report = load(&server, &["-d", "2s", "-c", "4", "--connect-per-request"]);
    assert!(number(&report, "/replies") > 0, "{report:#}");
    assert!(number(&report, "/phases/response/p50_ns") >= 49_950_000, "{report:#}");
    let peers = server.seen.peers.lock().expect("no panic");
    let first = peers.first().expect("a peer").ip();
    assert!(peers.iter().any(|peer| peer.ip() != first), "one address has too few ports");
}

#[test]
fn pipelined_requests_are_on_the_way_together() {
    // Answers nothing until four have come.
    let server = serve(|number, stream, request| {
        if number.is_multiple_of(4) {
            stream.write_all(&request.to_ascii_uppercase().repeat(4))
        } else {
            Ok(())
        }
    });
    let report = load(&server, &["-n", "400", "-c", "1", "--depth", "4"]);
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (400, 0), "{report:#}");
}

#[test]
fn think_time_slows_a_connection_down() {
    let server = serve(upper);
    let report = load(&server, &["-d", "1s", "-c", "2", "--think", "50ms"]);
    assert!(number(&report, "/replies") <= 2 * 21, "{report:#}");
    assert!(number(&report, "/replies") >= 2);
}

#[test]
fn templates_are_checked_like_everything_else() {
    let server = serve(upper);
    let template = format!("{{random:{}}}", servers::REQUEST);
    let report = load(&server, &["-n", "300", "-c", "3", "--template", &template]);
    assert_eq!((number(&report, "/replies"), all_errors(&report)), (300, 0), "{report:#}");
}

#[test]
fn idle_connections_are_held_and_send_nothing() {
    let server = serve(upper);
    let report = load(&server, &["-d", "1s", "-c", "40", "--idle"]);
    assert_eq!(number(&report, "/connections_at_end"), 40);
    assert_eq!((server.seen.connections(), server.seen.requests()), (40, 0));
}

#[test]
fn lost_datagrams_are_counted() {
    let server = serve_datagrams(|number| number.is_multiple_of(20));
    let report = load(&server, &["-n", "400", "-c", "2", "--timeout", "200ms"]);
    assert_eq!(number(&report, "/replies"), 400);
    let lost = (server.seen.requests() / 20) as u64;
    let found = errors(&report, "lost");
    assert!(found > 0 && found <= lost, "{found} of {lost}: {report:#}");
    assert_eq!(all_errors(&report), found);
}

/// A daemon with a gate, stopped at the end of the test.
struct Gate {
    daemon: Child,
    server: Server,
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn gate(folder: &Path, digest: &str) -> Gate {
    let socket = folder.join("gate.sock");
    let config = folder.join("gate.toml");
    let address = format!("unix://{}", socket.display());
    let text = format!(
        "[[secret]]\nname = \"test\"\nvalue = \"open sesame\"\n\
         [[listener]]\nname = \"gate\"\naddress = \"{address}\"\nservice = \"upper\"\nauth = \"{digest}\"\n"
    );
    std::fs::write(&config, text).expect("written");
    let config = config.display().to_string();
    let daemon =
        turnstile(&["serve", "-c", &config]).stderr(Stdio::null()).spawn().expect("it starts");
    wait_until("the daemon listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    Gate { daemon, server: Server { address, seen: std::sync::Arc::default() } }
}

#[test]
fn the_gate_is_passed_with_either_digest_and_timed() {
    for digest in ["hmac-md5", "hmac-sha256"] {
        let folder = tempdir().expect("a folder");
        let gate = gate(folder.path(), digest);
        for way in [
            &["-n", "300"][..],
            &["-n", "300", "--connect-per-request"],
            &["-n", "300", "--handshake-only"],
        ] {
            let output =
                turnstile(&["load", &gate.server.address, "--json", "-c", "5", "--auth", digest])
                    .args(way)
                    .env("TURNSTILE_SECRET", "open sesame")
                    .output()
                    .expect("it starts");
            let report = report_of(&output);
            assert_eq!((number(&report, "/replies"), all_errors(&report)), (300, 0), "{report:#}");
            assert!(number(&report, "/phases/gate/count") >= 5);
        }
    }
}

#[test]
fn a_gate_that_stays_shut_ends_the_run() {
    let folder = tempdir().expect("a folder");
    let gate = gate(folder.path(), "hmac-md5");
    let output = turnstile(&["load", &gate.server.address, "-c", "3"])
        .env("TURNSTILE_SECRET", "open barley")
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(talk_of(&output).contains("check the secret and --auth"), "{}", talk_of(&output));
    assert!(!talk_of(&output).contains("barley"), "a secret was printed");
}

#[test]
fn no_server_is_one_line_and_exit_code_1() {
    // Bound and dropped: nothing listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let address = free.expect("bound").to_string();
    let output = turnstile(&["load", &address]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let talk = talk_of(&output);
    assert!(talk.contains("nothing listens there") && talk.lines().count() == 1, "{talk}");
}

#[test]
fn a_server_that_goes_in_the_middle_leaves_its_share() {
    let folder = tempdir().expect("a folder");
    let mut gate = gate(folder.path(), "hmac-md5");
    let socket = folder.path().join("gate.sock");
    let report = folder.path().join("report.json");
    let mut run = turnstile(&["load", &gate.server.address, "--json", "-d", "3s", "-c", "4"])
        .args(["--warm-up", "0s"])
        .env("TURNSTILE_SECRET", "open sesame")
        .stdout(std::fs::File::create(&report).expect("a file"))
        .spawn()
        .expect("it starts");
    // The tester's connections are in the daemon's table before the socket file goes.
    wait_until("the run has used time", || used_time(run.id()) > 50);
    gate.daemon.kill().expect("it runs");
    gate.daemon.wait().expect("it ends");
    let _ = std::fs::remove_file(&socket);
    assert!(run.wait().expect("it ends").success());
    let text = std::fs::read(&report).expect("a report");
    let report: Value = serde_json::from_slice(&text).expect("JSON");
    assert!(number(&report, "/replies") > 0, "{report:#}");
    assert!(errors(&report, "refused") > 0, "{report:#}");
    assert_eq!(number(&report, "/connections_at_end"), 0);
}

/// Processor time of a process, in hundredths of a second.
fn used_time(process: u32) -> u64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return 0 };
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[test]
fn an_interrupted_run_prints_what_it_has() {
    let server = serve(upper);
    let run = turnstile(&["load", &server.address, "-d", "600s", "-c", "2", "--warm-up", "0s"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    wait_until("requests come", || server.seen.requests() > 500);
    let killed = Command::new("kill").args(["-INT", &run.id().to_string()]).status();
    assert!(killed.expect("kill exists").success());
    let output = run.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("stopped before its end") && text.contains("replies a second"), "{text}");
}

#[test]
fn too_few_descriptors_are_said_before_the_run() {
    let server = serve(upper);
    let script = format!("ulimit -n 100; exec {TURNSTILE} load {} -c 90", server.address);
    let output = Command::new("sh").args(["-c", &script]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let talk = talk_of(&output);
    assert!(
        talk.contains("90 connections need 122 descriptors, and this process may open 100"),
        "{talk}"
    );
    assert_eq!(server.seen.connections(), 0);
}

#[test]
fn what_means_nothing_is_wrong_usage() {
    for words in
        [&["-d", "200ms"][..], &["-n", "5"], &["-r", "3"], &["--depth", "0"], &["--expect", "x"]]
    {
        let output = turnstile(&["load", "127.0.0.1:9"]).args(words).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", talk_of(&output));
    }
}

#[test]
fn objectives_decide_the_exit_code() {
    let server = serve(upper);
    let judged = |objective: &str| {
        let words = ["load", &server.address, "-n", "200", "-c", "2", "--objective", objective];
        turnstile(&words).output().expect("it starts")
    };
    assert_eq!(judged("errors<0.1%").status.code(), Some(0));
    let missed = judged("p99<1ns");
    assert_eq!(missed.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&missed.stdout).contains("p99<1ns: MISSED"));
}

#[test]
fn a_search_finds_a_rate_that_holds() {
    // Four connections, 10 ms each: at the most 400 a second.
    let server = serve(|number, stream, request| {
        thread::sleep(Duration::from_millis(10));
        upper(number, stream, request)
    });
    let folder = tempdir().expect("a folder");
    let html = folder.path().join("search.html");
    let output = turnstile(&["load", &server.address, "--json", "-c", "4", "-d", "1s"])
        .args(["--find-rate", "--rate", "100", "--objective", "errors<1%", "--timeout", "2s"])
        .args(["--warm-up", "0s", "--html", &html.display().to_string()])
        .output()
        .expect("it starts");
    let report = report_of(&output);
    let asked = report["asked"]["rate_per_second"].as_f64().expect("a rate");
    assert!((100.0..=410.0).contains(&asked), "{asked}: {}", talk_of(&output));
    assert!(talk_of(&output).contains("a second not reached"), "{}", talk_of(&output));
    let schema = serde_json::from_str(turnstile::load::outcome::JSON_SCHEMA).expect("JSON");
    schema::check(&report, &schema);
    let search = &report["search"];
    assert_eq!(search["rate_per_second"].as_f64(), Some(asked), "{search:#}");
    assert!(search["high"].as_f64().expect("a rate that fails") <= asked * 1.06, "{search:#}");
    // The plots of a run that has errors; this one may have none.
    assert!(std::fs::read_to_string(&html).expect("a page").contains("\"knee\":"));
    page::check_figure(&html, "search", "<polyline");
}

#[test]
fn reports_add_up_compare_and_follow_their_schema() {
    let folder = tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let server = serve(upper);
    let schema: Value =
        serde_json::from_str(turnstile::load::outcome::JSON_SCHEMA).expect("the schema is JSON");
    let begun = ["a", "b"].map(|name| {
        turnstile(&["load", &server.address, "--json", "--warm-up", "0s", "-d", "2s", "-c", "2"])
            .args(["--hdr", &path(&format!("{name}.hdr"))])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts")
    });
    let runs = begun.map(|run| report_of(&run.wait_with_output().expect("it ends")));
    for (name, report) in ["a.json", "b.json"].into_iter().zip(&runs) {
        schema::check(report, &schema);
        std::fs::write(path(name), report.to_string()).expect("written");
    }
    let sum = |names: [&str; 2]| {
        let [one, two] = names.map(path);
        report_of(&turnstile(&["report", "--json", &one, &two]).output().expect("it starts"))
    };
    let from_json = sum(["a.json", "b.json"]);
    schema::check(&from_json, &schema);
    for field in ["/replies", "/completed", "/phases/request/count", "/asked/connections"] {
        let parts: u64 = runs.iter().map(|run| number(run, field)).sum();
        assert_eq!(number(&from_json, field), parts, "{field}");
    }
    assert_eq!(sum(["a.hdr", "b.hdr"]), from_json, "both forms hold the same");
    assert_eq!(sum(["b.json", "a.hdr"])["phases"], from_json["phases"], "in either order");

    let compared = turnstile(&["report", "--compare", &path("a.json"), &path("a.hdr")]).output();
    let text = String::from_utf8(compared.expect("it starts").stdout).expect("text");
    assert_eq!(text.matches("no more than noise").count(), 4, "{text}");
}

#[test]
fn a_damaged_report_is_refused_by_name() {
    let folder = tempdir().expect("a folder");
    let file = folder.path().join("bad.json").display().to_string();
    std::fs::write(&file, "{}").expect("written");
    let output = turnstile(&["report", &file]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(talk_of(&output).contains("bad.json cannot be used"), "{}", talk_of(&output));
}

#[test]
fn the_page_has_its_plots_in_a_browser() {
    let folder = tempdir().expect("a folder");
    let html = folder.path().join("report.html");
    let server = serve(|number, stream, request| {
        if number.is_multiple_of(100) { reset(stream) } else { upper(number, stream, request) }
    });
    load(&server, &["-d", "2s", "-c", "3", "-r", "500", "--html", &html.display().to_string()]);
    page::check(&html);
}

#[test]
fn tls_is_spoken_in_full_or_resumed_and_timed() {
    let folder = tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = |words: &[&str]| {
        assert!(turnstile(words).output().expect("it starts").status.success(), "{words:?}");
    };
    made(&["cert", "ca", "--out", &path("")]);
    made(&["cert", "server", "--ca", &path(""), "--name", "localhost"]);
    let config = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"tcp://127.0.0.1:0\"\nservice = \"upper\"\n\
         [listener.tls]\ncert = \"{}\"\nkey = \"{}\"\n",
        path("server.pem"),
        path("server-key.pem")
    );
    let daemon = daemon(folder.path(), &config);
    let address = format!("tls://{}", daemon.address);
    let run = |words: &[&str]| {
        let fixed =
            ["load", &address, "--json", "-n", "200", "-c", "4", "--server-name", "localhost"];
        turnstile(&fixed).args(words).output().expect("it starts")
    };
    let full = report_of(&run(&["--ca", &path("ca.pem"), "--connect-per-request"]));
    assert_eq!((number(&full, "/replies"), all_errors(&full)), (200, 0), "{full:#}");
    assert_eq!(number(&full, "/tls_resumed"), 0);
    assert!(number(&full, "/phases/tls/count") >= 200);

    let resumed =
        report_of(&run(&["--ca", &path("ca.pem"), "--connect-per-request", "--tls-resume"]));
    assert_eq!((number(&resumed, "/replies"), all_errors(&resumed)), (200, 0), "{resumed:#}");
    assert!(number(&resumed, "/tls_resumed") > 100, "{resumed:#}");

    let only = report_of(&run(&["--insecure", "--handshake-only"]));
    assert_eq!((number(&only, "/replies"), all_errors(&only)), (200, 0), "{only:#}");

    // The server's own certificate is as good as its authority's; that of another authority is not.
    let pinned = report_of(&run(&["--ca", &path("server.pem")]));
    assert_eq!((number(&pinned, "/replies"), all_errors(&pinned)), (200, 0), "{pinned:#}");
    made(&["cert", "ca", "--out", &path("other")]);
    let distrusted = run(&["--ca", &path("other/ca.pem")]);
    assert_eq!(distrusted.status.code(), Some(1));
    assert!(talk_of(&distrusted).contains("--ca says whom to trust"), "{}", talk_of(&distrusted));
}

/// A daemon with one listener on a port of its own, stopped at the end of the test.
struct Daemon {
    process: Child,
    address: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn daemon(folder: &Path, config: &str) -> Daemon {
    let file = folder.join("daemon.toml");
    std::fs::write(&file, config).expect("written");
    let mut process = turnstile(&["serve", "-c", &file.display().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let log = BufReader::new(process.stderr.take().expect("piped"));
    let mut lines = log.lines().map_while(Result::ok);
    let address = lines
        .find_map(|line| Some(line.split_once("address=tcp://")?.1.split(' ').next()?.to_owned()))
        .expect("it says where it listens");
    thread::spawn(move || lines.for_each(drop));
    Daemon { process, address }
}
