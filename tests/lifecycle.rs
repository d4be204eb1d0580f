//! The life of the daemon: how it begins or says why not, and how it ends.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use std::{fs, thread};

use common::{
    DEMO_SECRET, Daemon, PATIENCE, SpawnWithOutput, ask, has_program, is_closed_silently, listener,
    listener_at, receive, rest, run, signal, skip, text, traced, turnstile, uninterrupted,
};

fn echo_with(limits: &str) -> Daemon {
    Daemon::start(&format!("[limits]\n{limits}\n{}", listener("echo", "echo", "")))
}

#[test]
fn a_signal_stops_accepting_and_lets_the_open_ones_finish() {
    for name in ["TERM", "INT"] {
        let mut daemon = echo_with("drain = '1h'");
        let address = daemon.socket_address("echo");
        let mut wire = daemon.connect("echo");
        assert_eq!(ask(&mut wire, b"before"), b"before");
        daemon.signal(name);
        daemon.wait_for_line("stopping: 1 connections may go on for 3600s");
        // Two more turns of the loop, and the listener is gone.
        assert_eq!(ask(&mut wire, b"after"), b"after");
        assert_eq!(ask(&mut wire, b"long after"), b"long after");
        assert!(TcpStream::connect(address).is_err(), "it still accepts after SIG{name}");
        drop(wire);
        assert_eq!(daemon.wait().code(), Some(0), "SIG{name}");
        daemon.wait_for_line("both sides were done");
        daemon.wait_for_line("stopped accepted=1 ");
    }
}

#[test]
fn who_had_come_before_the_signal_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let configuration = listener("tcp", "echo", "")
        + &listener_at(&format!("unix://{}/s", folder.path().display()), "unix", "echo", "")
        + &listener_at("udp://127.0.0.1:0", "udp", "echo", "");
    for is_busy in [false, true] {
        let mut daemon = Daemon::start(&configuration);
        let before = is_busy.then(|| daemon.connect("tcp"));
        daemon.signal("STOP");
        let wires = |name| (0..150).map(|_| daemon.connect(name)).collect::<Vec<_>>();
        let mut waiting = wires("tcp");
        waiting.extend(wires("unix"));
        for wire in &mut waiting {
            wire.write_all(b"hello").expect("sent");
        }
        let client = daemon.datagrams("udp");
        for _ in 0..100 {
            client.send(b"hello").expect("sent");
        }
        daemon.signal("TERM");
        daemon.signal("CONT");
        for wire in &mut waiting {
            assert_eq!(receive(wire, 5), b"hello");
        }
        for _ in 0..100 {
            assert_eq!(uninterrupted(|| client.recv(&mut [0; 16])).expect("an answer"), 5);
        }
        drop((waiting, before));
        assert_eq!(daemon.wait().code(), Some(0));
        daemon.wait_for_line(&format!("stopped accepted={} ", 300 + usize::from(is_busy)));
    }
}

#[test]
fn a_listener_that_the_loop_cannot_hear_of_ends_it_at_the_start() {
    let configuration =
        listener("tcp", "echo", "") + &listener_at("udp://127.0.0.1:0", "udp", "echo", "");
    // The first registration is that of the signals.
    for (number, name) in [(2, "tcp"), (3, "udp")] {
        let full = format!("inject=epoll_ctl:error=ENOSPC:when={number}");
        let options = ["-o", "/dev/null", "-e", "trace=epoll_ctl", "-e", &full];
        let Some(mut command) = traced(&options) else { return };
        let output = run(&mut command, configuration.as_bytes());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let told = text(&output.stderr);
        let reason =
            format!("listener `{name}`: nobody can be heard on it: No space left on device");
        assert!(told.contains(&reason) && told.contains("fs.epoll.max_user_watches"), "{told}");
    }
}

#[test]
fn a_service_manager_is_told_when_it_serves_and_when_it_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let told = || {
        let mut message = [0; 64];
        let len = uninterrupted(|| manager.recv(&mut message)).expect("a message");
        text(&message[..len])
    };
    let mut command = turnstile(&["serve", "-c", "-"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut daemon = Daemon::launch(command, &listener("echo", "echo", ""));
    assert_eq!(told(), "READY=1\n");
    let mut wire = daemon.connect("echo");
    assert_eq!(ask(&mut wire, b"served"), b"served");
    daemon.signal("TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert_eq!(ask(&mut wire, b"to the end"), b"to the end");
    drop(wire);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    let mut command = turnstile(&["serve", "-c", "-"]);
    command.env("NOTIFY_SOCKET", "/nobody/is/here");
    let daemon = Daemon::launch(command, &listener("echo", "echo", ""));
    daemon.wait_for_line("the service manager cannot be told READY=1");
    assert_eq!(ask(&mut daemon.connect("echo"), b"served"), b"served");
}

#[test]
fn without_connections_a_signal_ends_it_at_once() {
    let mut daemon = Daemon::start(
        &(listener("echo", "echo", "") + &listener_at("udp://127.0.0.1:0", "udp", "echo", "")),
    );
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_second_signal_closes_what_is_open() {
    let configuration = format!(
        "[limits]\ndrain = '1h'\n{DEMO_SECRET}{}{}{}",
        listener("echo", "echo", ""),
        listener("gate", "echo", "auth = 'hmac-md5'"),
        listener("chargen", "chargen", "")
    );
    let mut daemon = Daemon::start(&configuration);
    let mut wires = [daemon.connect("echo"), daemon.connect("gate"), daemon.connect("chargen")];
    assert_eq!(ask(&mut wires[0], b"in"), b"in");
    receive(&mut wires[1], 32);
    receive(&mut wires[2], 1_000_000);
    daemon.signal("TERM");
    daemon.wait_for_line("stopping: 3 connections may go on");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.wait_for_line("a second signal: 3 connections are closed");
    daemon.wait_for_lines("the program was stopped", 3);
    assert!(is_closed_silently(&mut wires[0]));
}

#[test]
fn the_drain_has_an_end() {
    let mut daemon = echo_with("drain = '200ms'");
    let mut wire = daemon.connect("echo");
    assert_eq!(ask(&mut wire, b"in"), b"in");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.wait_for_line("the drain is over: 1 connections are closed");
    assert!(is_closed_silently(&mut wire));

    let mut daemon = echo_with("drain = '0s'");
    let mut wire = daemon.connect("echo");
    assert_eq!(ask(&mut wire, b"in"), b"in");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn what_is_under_way_is_delivered_before_the_end() {
    let mut daemon = echo_with("drain = '1h'");
    let mut wire = daemon.connect("echo");
    assert_eq!(ask(&mut wire, b"in"), b"in");
    let question = common::noise(4 << 20, 7);
    let mut writer = wire.try_clone().expect("a descriptor");
    let sending = thread::spawn({
        let question = question.clone();
        move || {
            writer.write_all(&question).expect("sent");
            writer.shutdown(std::net::Shutdown::Write).expect("ended");
        }
    });
    let mut answer = receive(&mut wire, 1000);
    daemon.signal("TERM");
    daemon.wait_for_line("stopping: ");
    answer.extend(rest(&mut wire));
    assert!(answer == question);
    sending.join().expect("sent");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn the_address_may_be_bound_again_at_once() {
    let mut first = Daemon::start(&listener("once", "once", ""));
    let address = first.socket_address("once");
    let mut wire = first.connect("once");
    wire.write_all(b"hello").expect("sent");
    // The daemon closes first, so it is its port that lingers.
    assert_eq!(rest(&mut wire), b"HELLO");
    drop(wire);
    first.signal("TERM");
    assert!(first.wait().success());
    let second = Daemon::start(&listener_at(&format!("tcp://{address}"), "once", "once", ""));
    let mut wire = second.connect("once");
    wire.write_all(b"again").expect("sent");
    assert_eq!(rest(&mut wire), b"AGAIN");
}

#[test]
fn there_is_one_thread() {
    let daemon = Daemon::start(
        &(listener("echo", "echo", "")
            + &listener("chargen", "chargen", "")
            + &listener_at("udp://127.0.0.1:0", "udp", "echo", "")),
    );
    assert_eq!(daemon.threads(), 1);
    let mut wires: Vec<_> = (0..20).map(|_| daemon.connect("echo")).collect();
    wires.iter_mut().for_each(|wire| assert_eq!(ask(wire, b"busy"), b"busy"));
    receive(&mut daemon.connect("chargen"), 1_000_000);
    assert_eq!(daemon.threads(), 1);
}

/// Runs a daemon that is expected not to start; answers its one line of complaint.
fn refusal(configuration: &str) -> String {
    complaint(&run(&mut turnstile(&["serve", "-c", "-"]), configuration.as_bytes()))
}

fn complaint(output: &Output) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let said: Vec<_> = stderr.lines().filter(|line| line.starts_with("turnstile: ")).collect();
    assert_eq!(said.len(), 1, "{stderr}");
    said[0].to_owned()
}

#[test]
fn an_address_in_use_is_refused() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = tcp.local_addr().expect("bound");
    let line = refusal(&listener_at(&format!("tcp://{address}"), "taken", "echo", ""));
    let expected =
        format!("turnstile: listener `taken`: cannot listen on tcp://{address}: Address already");
    assert!(
        line.starts_with(&expected) && line.contains("stop the program that uses it"),
        "{line}"
    );

    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = udp.local_addr().expect("bound");
    let line = refusal(&listener_at(&format!("udp://{address}"), "taken", "echo", ""));
    assert!(line.contains(&format!("cannot listen on udp://{address}: Address already")), "{line}");
}

#[test]
fn an_address_of_another_machine_is_refused() {
    // RFC 5737: an address that no machine has.
    for scheme in ["tcp", "udp"] {
        let address = format!("{scheme}://192.0.2.1:0");
        let line = refusal(&listener_at(&address, "far", "echo", ""));
        assert!(line.contains(&format!("cannot listen on {address}: ")), "{line}");
        assert!(line.contains("this machine has no such address"), "{line}");
    }
}

#[test]
fn an_unknown_host_is_refused() {
    let line = refusal(&listener_at("tcp://nobody.invalid:0", "lost", "echo", ""));
    assert!(line.contains("listener `lost`: unknown host `nobody.invalid`"), "{line}");
}

#[test]
fn a_port_below_1024_needs_a_right() {
    let limit = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if !limit.is_ok_and(|limit| limit.trim() == "1024") || !nix::unistd::geteuid().is_root() {
        skip("only root can give the right up, where the system asks for one");
        return;
    }
    if !has_program("setpriv") {
        return;
    }
    // Another user may not even see the program where it was built.
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    let program = folder.path().join("turnstile");
    fs::copy(env!("CARGO_BIN_EXE_turnstile"), &program).expect("copied");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
    command.arg(&program).args(["serve", "-c", "-"]);
    let configuration = listener_at("tcp://127.0.0.1:1023", "low", "echo", "");
    let line = complaint(&run(&mut command, configuration.as_bytes()));
    assert!(line.contains("cannot listen on tcp://127.0.0.1:1023: Permission denied"), "{line}");
    assert!(line.contains("CAP_NET_BIND_SERVICE"), "{line}");
}

fn unix_listener(path: &Path, more: &str) -> String {
    listener_at(&format!("unix://{}", path.display()), "unix", "echo", more)
}

#[test]
fn a_stale_socket_is_replaced_and_removed_in_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "left behind");
    let mut daemon = Daemon::start(&unix_listener(&path, "unix_mode = '0640'"));
    assert_eq!(ask(&mut daemon.connect("unix"), b"hello"), b"hello");
    let metadata = fs::metadata(&path).expect("it is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    assert!(!path.exists(), "left behind");
}

#[test]
fn a_socket_after_a_crash_is_stale() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    drop(Daemon::start(&unix_listener(&path, "")));
    assert!(path.exists(), "a killed daemon removes nothing");
    let daemon = Daemon::start(&unix_listener(&path, ""));
    assert_eq!(ask(&mut daemon.connect("unix"), b"hello"), b"hello");
}

#[test]
fn a_socket_that_is_alive_is_refused_and_unharmed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let daemon = Daemon::start(&unix_listener(&path, ""));
    let line = refusal(&unix_listener(&path, ""));
    assert!(line.contains("another process is listening on this socket"), "{line}");
    assert_eq!(ask(&mut daemon.connect("unix"), b"unharmed"), b"unharmed");

    let file = folder.path().join("notes");
    fs::write(&file, "keep me").expect("written");
    let line = refusal(&unix_listener(&file, ""));
    assert!(line.contains("a file that is not a socket has this name"), "{line}");
    assert_eq!(fs::read(&file).expect("still there"), b"keep me");
    let line = refusal(&unix_listener(&folder.path().join("no/such/folder"), ""));
    assert!(line.contains("cannot listen on unix://"), "{line}");
}

#[test]
fn where_one_listener_fails_nothing_is_left_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let far = listener_at("tcp://192.0.2.1:0", "far", "echo", "");
    refusal(&(unix_listener(&path, "") + &far));
    assert!(!path.exists());
}

/// How many visitors it takes.
const CHATTER: usize = 3000;

/// A daemon whose log is in the hands of the test.
struct Unread {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
    /// Hears when standard output is closed, which is when the daemon has ended.
    ended: Receiver<()>,
}

impl Unread {
    fn start(service: &str) -> Self {
        let mut child = turnstile(&["serve", "-c", "-"]).stdin(Stdio::piped()).spawn_with_output();
        let configuration = listener(service, service, "");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(configuration.as_bytes()).expect("read");
        drop(input);
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        log.read_line(&mut line).expect("a line");
        let (_, address) = line.split_once("address=tcp://").expect("a listener");
        let address = address.split(' ').next().expect("a word").parse().expect("an address");
        let mut output = child.stdout.take().expect("a pipe");
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || output.read_to_end(&mut Vec::new()).map(|_| sender.send(())));
        Self { child, log, address, ended }
    }

    /// Sends SIGTERM and waits for the end; answers the exit code.
    fn stop(&mut self) -> Option<i32> {
        signal(self.child.id(), "TERM");
        self.ended.recv_timeout(PATIENCE).expect("it ends");
        self.child.wait().expect("it has ended").code()
    }

    /// Asks `once` as often as it takes to fill any pipe, and the queue before it, with what it logs:
    /// each end of a connection is a line.
    fn chatter(&self) {
        for _ in 0..CHATTER {
            let mut wire = TcpStream::connect(self.address).expect("somebody listens");
            wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            wire.write_all(&[0xff; 1000]).expect("sent");
            let mut answer = Vec::new();
            wire.read_to_end(&mut answer).expect("an answer");
            assert_eq!(answer, [0xff; 1000]);
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let mut daemon = Unread::start("once");
    daemon.chatter();
    // The reader comes back: what was lost is counted, and new lines arrive.
    let address = daemon.address;
    let knocking = thread::spawn(move || {
        for _ in 0..200 {
            let mut wire = TcpStream::connect(address).expect("somebody listens");
            wire.write_all(b"x").expect("sent");
            wire.read_to_end(&mut Vec::new()).expect("an answer");
        }
    });
    let lost = |line: &String| line.ends_with(" log lines were lost: nobody read them");
    let mut lines = daemon.log.by_ref().lines().map(|line| line.expect("text"));
    assert!(lines.any(|line| lost(&line)), "the loss is said");
    assert!(lines.any(|line| line.contains("received=1 sent=1")), "new lines come");
    // The rest must be read while the other thread goes on, or the pipe would fill again.
    knocking.join().expect("served");
    assert_eq!(daemon.stop(), Some(0));
    let mut tail = String::new();
    daemon.log.read_to_string(&mut tail).expect("text");
    assert!(tail.contains(&format!("stopped accepted={} ", CHATTER + 200)), "{tail}");
    let (_, lost) = tail.trim_end().rsplit_once("log_lines_lost=").expect("the count of them");
    assert!(lost.parse::<usize>().is_ok_and(|lost| (1..CHATTER * 2).contains(&lost)), "{lost}");
}

#[test]
fn a_log_is_written_to_its_end_while_nothing_happens() {
    let mut daemon = Unread::start("once");
    daemon.chatter();
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let nothing = BufReader::new(ChildStderr::from(std::os::fd::OwnedFd::from(reader)));
    let log = std::mem::replace(&mut daemon.log, nothing);
    let (sender, loss) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = log.lines().map(|line| line.expect("text"));
        let said = lines.find(|line| line.ends_with(" log lines were lost: nobody read them"));
        said.map(|line| sender.send(line))
    });
    loss.recv_timeout(PATIENCE).expect("the rest, without another visitor");
}

#[test]
fn a_daemon_whose_log_nobody_reads_still_ends() {
    let mut daemon = Unread::start("once");
    daemon.chatter();
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_log_whose_reader_has_gone_stops_nothing() {
    let mut daemon = Unread::start("once");
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    // The reader's end is closed.
    daemon.log = BufReader::new(ChildStderr::from(std::os::fd::OwnedFd::from(reader)));
    daemon.chatter();
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_signal_while_many_come_and_go_still_ends_it() {
    let mut daemon =
        Daemon::start(&format!("[limits]\ndrain = '10s'\n{}", listener("once", "once", "")));
    let address = daemon.socket_address("once");
    let knocking = thread::spawn(move || {
        let mut served = 0;
        while let Ok(mut wire) = TcpStream::connect(address) {
            wire.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
            let mut answer = Vec::new();
            let outcome = wire.write_all(b"x").and_then(|()| wire.read_to_end(&mut answer));
            served += usize::from(outcome.is_ok() && answer == b"X");
        }
        served
    });
    daemon.wait_for_lines("closed listener=once", 100);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(knocking.join().expect("no panic") >= 99);
}
