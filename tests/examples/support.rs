//! What the tests of the lessons are told with: programs that are started and ended, and the other
//! end of their connections.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use turnstile::proto::gate::{Digest, Keyring, Secret};

/// Far longer than anything here takes, so that only a lesson that hangs meets it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// How long "nothing comes" is watched for, where that is what should happen.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);

/// Accepts one connection; what it does with it follows.
pub(crate) const PYTHON_SERVER: &str = "
import hmac, os, socket, time
listener = socket.create_server(('127.0.0.1', 0))
print('listening on 127.0.0.1:%d' % listener.getsockname()[1], flush=True)
connection, _ = listener.accept()";

pub(crate) const PYTHON_GATE: &str = "
challenge = os.urandom(32)
connection.sendall(challenge)
answer = hmac.new(b'Jedan has a big key!', challenge, 'md5').digest()
if hmac.compare_digest(answer, connection.recv(16)):
    while data := connection.recv(1024):
        connection.sendall(data.upper())";

/// A lesson that runs to its end by itself.
pub(crate) fn lesson(name: &str) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(example(name));
    command.timeout(LIMIT);
    command
}

/// The lesson's program. Cargo puts it beside the folder that this test runs from, and `cargo test`
/// builds it; `cargo test --test examples` does not, and would run whatever was there before.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).expect("tests run from PROFILE/deps");
    let program = profile.join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(format!("{name}.rs"));
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    assert!(
        changed(&program) >= changed(&source),
        "{} is missing or older than its source: run `cargo build --examples` first",
        program.display()
    );
    program
}

/// A program that serves until it is dropped, and says where in its first line.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            // On past the first line, or the program would meet a closed pipe.
            while output.read_line(&mut line).is_ok_and(|count| count > 0) {
                let _ = sender.send(line.clone());
                line.clear();
            }
        });
        let mut running = Self { child, address: any_port() };
        let line = lines.recv_timeout(LIMIT).expect("the server says nothing");
        let address = line.trim_end().strip_prefix("listening on ");
        running.address = address.expect(&line).parse().expect(&line);
        running
    }

    /// Time spent so far, in hundredths of a second: utime and stime of proc_pid_stat(5).
    pub(crate) fn processor_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let fields = after_name.split_whitespace().collect::<Vec<_>>();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `source` under python3. Where there is none the test may pass without, but not in CI.
pub(crate) fn python(source: &str) -> Option<Running> {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(env::var_os("CI").is_none(), "CI needs python3 for the tutorials' programs");
        println!("skipped: there is no python3 to run the tutorials' programs");
        return None;
    }
    Some(Running::start(Command::new("python3").args(["-c", source])))
}

/// The other end of one connection, played by a thread of this test.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    done: Receiver<()>,
}

impl Peer {
    pub(crate) fn start(play: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind(any_port()).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, done) = mpsc::channel();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            play(stream);
            let _ = sender.send(());
        });
        Self { address, done }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Fails where the thread did: its own message is in the output.
    pub(crate) fn finish(self) {
        self.done.recv_timeout(LIMIT).expect("the other end saw something else");
    }
}

/// The server's side of the gate, by the library: the challenge in two pieces, then the verdict.
pub(crate) fn admit(stream: &mut TcpStream, secret: &str) -> bool {
    let secret = Secret::new("test", Zeroizing::new(secret.as_bytes().to_vec()));
    let challenge = std::array::from_fn(|index| u8::try_from(index * 7).unwrap());
    send_apart(stream, &challenge[..5], &challenge[5..]);
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    Keyring::new(Digest::Md5, [&secret]).verify(&challenge, &answer).is_some()
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
    // What is written is sent then, and not with what comes later.
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

pub(crate) fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received, bytes);
}

/// Sends the second piece when the peer has read the first: it cannot see both at once.
pub(crate) fn send_apart(stream: &mut TcpStream, first: &[u8], second: &[u8]) {
    stream.set_nodelay(true).unwrap();
    stream.write_all(first).unwrap();
    wait_until_read(stream);
    stream.write_all(second).unwrap();
}

/// Returns when the peer has read all that was written to `stream`, and its kernel has said so.
pub(crate) fn wait_until_read(stream: &TcpStream) {
    let (here, there) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let deadline = Instant::now() + LIMIT;
    loop {
        let [at_here, at_there] = Queues::of(here, there);
        if at_here.unconfirmed == 0 && at_there.unread == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{there} does not read what was sent");
        thread::yield_now();
    }
}

/// What the kernel holds at one end of a connection, in bytes: proc_net_tcp(5).
pub(crate) struct Queues {
    /// Written at this end, and not confirmed by the other.
    pub(crate) unconfirmed: usize,
    /// Received at this end, and not read.
    pub(crate) unread: usize,
}

impl Queues {
    /// Those of both ends of a connection between two addresses of IPv4, from one look.
    pub(crate) fn of(one: SocketAddr, other: SocketAddr) -> [Self; 2] {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        [(one, other), (other, one)].map(|(local, remote)| {
            let ends = [local, remote].map(proc_address).join(" ");
            let (_, after) = table.split_once(&ends).expect("no such connection");
            let queues = after.split_whitespace().nth(1).unwrap();
            let (unconfirmed, unread) = queues.split_once(':').unwrap();
            let bytes = |hex| usize::from_str_radix(hex, 16).unwrap();
            Self { unconfirmed: bytes(unconfirmed), unread: bytes(unread) }
        })
    }
}

/// As the kernel writes it there: the address as a number in the machine's own byte order.
fn proc_address(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

pub(crate) fn round_trip(stream: &mut TcpStream) {
    stream.write_all(b"ping").unwrap();
    expect(stream, b"ping");
}

pub(crate) fn assert_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(A_WHILE)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
}

pub(crate) fn assert_one_line(bytes: &[u8], expected: &str) {
    let text = String::from_utf8_lossy(bytes);
    assert!(text.contains(expected) && text.lines().count() == 1, "{text:?} says not {expected:?}");
}

/// Bytes in which a lost, doubled or exchanged piece shows: the period is a prime.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = (0..=250).collect::<Vec<u8>>().repeat(len / 251 + 1);
    bytes.truncate(len);
    bytes
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
