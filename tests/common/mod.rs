//! What the black-box tests share: a daemon that really runs, programs that really run, and the
//! patience to wait for what they do.
//!
//! Nothing here sleeps. A test waits for a log line, for the end of a stream, or for readable
//! bytes, each with a limit that only a fault reaches.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this")]

pub(crate) mod tunnel;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sha2::Sha256;
use socket2::{Domain, SockAddr, Socket, Type};

/// How long a test waits for what must come. Only a fault waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The secret of the tutorials.
pub(crate) const DEMO: &[u8] = b"Jedan has a big key!";

/// The secret of the tutorials as a configuration has it.
pub(crate) const DEMO_SECRET: &str = "[[secret]]\nname = 'demo'\nvalue = 'Jedan has a big key!'\n";

/// A listener on a port that the system chooses; `more` are further lines of its table.
pub(crate) fn listener(name: &str, service: &str, more: &str) -> String {
    listener_at("tcp://127.0.0.1:0", name, service, more)
}

/// The same on an address of one's own.
pub(crate) fn listener_at(address: &str, name: &str, service: &str, more: &str) -> String {
    format!("[[listener]]\nname = '{name}'\naddress = '{address}'\nservice = '{service}'\n{more}\n")
}

/// A running `turnstile serve`, killed when dropped. Its log is shown where the test fails.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Log>,
}

impl Daemon {
    /// Starts a daemon, and waits until every listener of `configuration` is there.
    pub(crate) fn start(configuration: &str) -> Self {
        Self::launch(turnstile(&["serve", "-c", "-"]), configuration)
    }

    /// The same with a command of one's own, which must read the configuration from its standard
    /// input and must become the daemon.
    pub(crate) fn launch(command: Command, configuration: &str) -> Self {
        Self::launch_with(command, configuration, configuration.matches("[[listener]]").count())
    }

    /// The same with a command that needs no configuration, and has so many listeners.
    pub(crate) fn launch_with_listeners(command: Command, listeners: usize) -> Self {
        Self::launch_with(command, "", listeners)
    }

    fn launch_with(mut command: Command, configuration: &str, listeners: usize) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(configuration.as_bytes()).expect("the configuration is read");
        drop(input);
        let log = Log::collect(child.stderr.take().expect("a pipe"));
        let daemon = Self { child, log };
        daemon.wait_for_lines("listening ", listeners);
        daemon
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What a listener is bound to, as the log says it.
    pub(crate) fn address(&self, listener: &str) -> String {
        let lines = self.lines(&format!("listening listener={listener} "));
        let line = lines.first().expect("a listener of this name");
        let (_, address) = line.split_once("address=").expect("a line that names an address");
        address.split(' ').next().expect("a word").to_owned()
    }

    /// The Internet address that a listener is bound to.
    pub(crate) fn socket_address(&self, listener: &str) -> SocketAddr {
        let address = self.address(listener);
        let (_, address) = address.split_once("://").expect("an address with its scheme");
        address.parse().expect("numbers")
    }

    /// A connection to a TCP or Unix listener.
    pub(crate) fn connect(&self, listener: &str) -> Socket {
        let address = match self.address(listener).strip_prefix("unix://") {
            Some(path) => SockAddr::unix(path).expect("a short path"),
            None => self.socket_address(listener).into(),
        };
        let socket = Socket::new(Domain::from(i32::from(address.family())), Type::STREAM, None)
            .expect("a descriptor");
        socket.connect(&address).expect("somebody listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        if !address.is_unix() {
            socket.set_tcp_nodelay(true).expect("an option");
        }
        socket
    }

    /// A connection to a TCP listener from an address of one's own; all of 127.0.0.0/8 is this
    /// machine.
    pub(crate) fn connect_from(&self, ip: [u8; 4], listener: &str) -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        socket.bind(&SocketAddr::from((ip, 0)).into()).expect("an address");
        socket.connect(&self.socket_address(listener).into()).expect("somebody listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    /// A socket that talks to a UDP listener.
    pub(crate) fn datagrams(&self, listener: &str) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(self.socket_address(listener)).expect("an address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    /// The log lines so far that contain `text`.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        self.log.lines(text)
    }

    /// Waits until `count` log lines contain `text`, and answers them.
    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) -> Vec<String> {
        self.log.wait_for_lines(text, count)
    }

    /// Waits for a log line that contains `text`, and answers it.
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        self.wait_for_lines(text, 1).swap_remove(0)
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.log.wait("the end of the daemon", |log| log.has_ended.then_some(()));
        self.child.wait().expect("it was not waited for before")
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// Lets it open only so many more, whatever gaps there are between the numbers of those that are
    /// open; for those who asked [`has_program`] for `prlimit`.
    pub(crate) fn allow_more_descriptors(&self, more: usize) {
        let is_free = |number: &usize| {
            fs::symlink_metadata(format!("/proc/{}/fd/{number}", self.pid())).is_err()
        };
        let first_denied = (0..).filter(is_free).nth(more);
        self.allow_descriptors(first_denied.expect("numbers have no end"));
    }

    /// Changes the number below which all of them must be; for those who asked [`has_program`] for `prlimit`.
    pub(crate) fn allow_descriptors(&self, count: usize) {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &self.pid().to_string(), &format!("--nofile={count}:")]);
        assert!(prlimit.status().expect("it runs").success());
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").count()
    }

    /// Its resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> usize {
        self.memory_kib("VmRSS:")
    }

    /// The most resident memory that it has ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> usize {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, figure: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(figure)).expect("a line");
        line.split_whitespace().nth(1).expect("a figure").parse().expect("a number")
    }

    /// The processor time that it has used, in hundredths of a second.
    pub(crate) fn processor_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("the name in brackets");
        let figure = |at: usize| -> u64 {
            fields.split(' ').nth(at).expect("a field").parse().expect("a number")
        };
        // utime and stime, the 14th and 15th of proc(5), counted from the third.
        figure(11) + figure(12)
    }

    /// Makes the loop turn by asking the echo listener `echo`, until `is_so`. Every round trip is
    /// a turn in which the daemon may get on with what the test waits for.
    pub(crate) fn turn_until(&self, echo: &str, what: &str, is_so: impl Fn(&Self) -> bool) {
        let mut wire = self.connect(echo);
        ask(&mut wire, b"turn");
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
            ask(&mut wire, b"turn");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!("the daemon's log:\n{}", self.log.lines("").join("\n"));
        }
        assert!(self.lines("panicked").is_empty() || thread::panicking(), "the daemon panicked");
    }
}

/// What a program has written so far.
pub(crate) struct Log {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    has_ended: bool,
}

impl Log {
    /// Collects on a thread of its own, so that the program never has to wait for the test.
    pub(crate) fn collect(output: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self { written: Mutex::default(), changed: Condvar::new() });
        let collector = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let line = line.unwrap_or_else(|error| format!("(not a line: {error})"));
                collector.written.lock().expect("no panic").lines.push(line);
                collector.changed.notify_all();
            }
            collector.written.lock().expect("no panic").has_ended = true;
            collector.changed.notify_all();
        });
        log
    }

    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        matching(&self.written.lock().expect("no panic"), text)
    }

    /// Waits until `count` lines contain `text`, and answers them.
    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) -> Vec<String> {
        self.wait(&format!("{count} log lines with `{text}`"), |log| {
            let lines = matching(log, text);
            (lines.len() >= count).then_some(lines)
        })
    }

    fn wait<T>(&self, what: &str, mut found: impl FnMut(&Written) -> Option<T>) -> T {
        let start = Instant::now();
        let mut written = self.written.lock().expect("no panic");
        loop {
            if let Some(found) = found(&written) {
                return found;
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            if written.has_ended || left.is_zero() {
                let lines = written.lines.join("\n");
                drop(written);
                panic!("waited in vain for {what}; the log:\n{lines}");
            }
            written = self.changed.wait_timeout(written, left).expect("no panic").0;
        }
    }
}

fn matching(log: &Written, text: &str) -> Vec<String> {
    log.lines.iter().filter(|line| line.contains(text)).cloned().collect()
}

/// The program under test with these arguments, and nothing in its environment that changes what
/// it does.
pub(crate) fn turnstile(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstile"));
    command.args(arguments);
    for name in ["RUST_LOG", "TURNSTILE_SECRET", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command
}

/// `turnstile serve -c -` under strace with these options, of which the traced process knows
/// nothing. `None` where strace cannot be used.
pub(crate) fn traced(options: &[&str]) -> Option<Command> {
    if !has_program("strace") {
        return None;
    }
    let traces_here = Command::new("strace").args(["-c", "-o", "/dev/null", "true"]).status();
    if !traces_here.is_ok_and(|status| status.success()) {
        skip("strace may not trace here");
        return None;
    }
    let mut command = Command::new("strace");
    // -D: the tracer is a grandchild, so that the child is the daemon and gets its signals.
    command.args(["-D", "-f"]).args(options);
    command.args([env!("CARGO_BIN_EXE_turnstile"), "serve", "-c", "-"]);
    command.env_remove("RUST_LOG").env_remove("TURNSTILE_SECRET");
    Some(command)
}

/// Runs a program with `input` on its standard input until it ends.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn_with_output();
    let mut writer = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A program may end without having read it all.
    thread::spawn(move || drop(writer.write_all(&input)));
    finish(child)
}

/// Waits until a program whose output is piped has ended.
pub(crate) fn finish(child: Child) -> Output {
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(output) => output.expect("output"),
        Err(_) => {
            signal(pid, "KILL");
            let output = receiver.recv().expect("a result").expect("output");
            panic!("it did not end by itself: {}", text(&output.stderr));
        }
    }
}

/// Starting a program with its output in pipes.
pub(crate) trait SpawnWithOutput {
    /// Starts it.
    fn spawn_with_output(&mut self) -> Child;
}

impl SpawnWithOutput for Command {
    fn spawn_with_output(&mut self) -> Child {
        self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.expect("kill runs").success());
}

/// Output as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a program that a test needs is there. Where it is not, the test is skipped, except in
/// continuous integration, which must have them all.
pub(crate) fn has_program(name: &str) -> bool {
    has_program_in(&std::env::var_os("PATH").unwrap_or_default(), name)
}

/// The same with the folders to look into.
pub(crate) fn has_program_in(path: &OsStr, name: &str) -> bool {
    let is_there = std::env::split_paths(path).any(|folder| folder.join(name).is_file());
    is_there || skip(&format!("there is no {name}"))
}

/// Says that a test is skipped. Answers false.
pub(crate) fn skip(why: &str) -> bool {
    assert!(std::env::var_os("CI").is_none(), "nothing may be skipped here, but {why}");
    println!("skipped: {why}");
    false
}

/// Whether this process may open so many descriptors; raises its limit if it can.
pub(crate) fn may_open(descriptors: u64) -> bool {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if hard < descriptors {
        return skip(&format!("{descriptors} descriptors are needed, and {hard} are allowed"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    true
}

/// A file of the folder `tests`.
pub(crate) fn test_file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", name].iter().collect()
}

/// Sends `question`, and answers as many bytes as it has.
pub(crate) fn ask(wire: &mut Socket, question: &[u8]) -> Vec<u8> {
    wire.write_all(question).expect("sent");
    receive(wire, question.len())
}

/// The next `count` bytes.
pub(crate) fn receive(wire: &mut Socket, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    wire.read_exact(&mut bytes).expect("so many bytes");
    bytes
}

/// All bytes until the other side ends its direction.
pub(crate) fn rest(wire: &mut Socket) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire.read_to_end(&mut bytes).expect("the end of the stream");
    bytes
}

/// Repeats a call that was interrupted: one with a limit of time is, where the whole test was stopped
/// and goes on (signal(7)).
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Whether the other side has closed or reset the connection without another byte.
pub(crate) fn is_closed_silently(wire: &mut Socket) -> bool {
    match uninterrupted(|| wire.read(&mut [0; 1])) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Whether what comes next is a reset.
pub(crate) fn is_reset(wire: &mut Socket) -> bool {
    uninterrupted(|| wire.read(&mut [0; 1]))
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// Closes with a reset instead of an end.
pub(crate) fn reset(wire: Socket) {
    wire.set_linger(Some(Duration::ZERO)).expect("an option");
    drop(wire);
}

/// Answers the challenge that comes next as `hmac-md5` wants it.
pub(crate) fn pass_gate(wire: &mut Socket, secret: &[u8]) {
    let challenge = receive(wire, 32);
    wire.write_all(&md5_answer(secret, &challenge)).expect("sent");
}

/// HMAC-MD5 (RFC 2104).
pub(crate) fn md5_answer(secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Md5>::new_from_slice(secret).expect("any length");
    mac.update(challenge);
    mac.finalize().into_bytes().to_vec()
}

/// HMAC-SHA-256 (RFC 2104).
pub(crate) fn sha256_answer(secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
    mac.update(challenge);
    mac.finalize().into_bytes().to_vec()
}

/// Bytes that do not repeat soon, the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}
