//! What somebody who listens on the loopback interface sees of one port.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::common::{Log, SpawnWithOutput, run, signal, skip, text};
use crate::stage::Stage;

/// A capture that goes on.
pub(crate) struct Capture {
    child: Child,
    log: Arc<Log>,
    file: String,
    at: (Ipv4Addr, u16),
}

/// What was captured: the file itself, and how tshark explains each packet.
pub(crate) struct Captured {
    bytes: Vec<u8>,
    explained: String,
}

/// Whether this user may capture. Where not, the test is skipped.
pub(crate) fn may_capture() -> bool {
    // It opens the interface to print the filter as the kernel would have it.
    let mut dumpcap = Command::new("dumpcap");
    let output = run(dumpcap.args(["-d", "-i", "lo", "-f", "tcp"]), b"");
    text(&output.stdout).contains("(000)")
        || skip("this user may not capture on the loopback interface")
}

impl Capture {
    /// Captures what passes between anybody and a port of the far machine.
    pub(crate) fn start(stage: &Stage, port: u16) -> Self {
        let at = (stage.far().parse().expect("an address"), port);
        let file = stage.path().join(format!("{port}.pcapng")).display().to_string();
        let filter = format!("host {} and port {port}", stage.far());
        let mut tshark = Command::new("tshark");
        tshark.args(["-l", "-P", "-i", "lo", "-f", &filter, "-w", &file]);
        // Standard output tells of packets, and standard error that the capture has begun.
        let mut child = tshark.stdin(Stdio::null()).spawn_with_output();
        Log::collect(child.stderr.take().expect("a pipe")).wait_for_lines("Capture started", 1);
        let log = Log::collect(child.stdout.take().expect("a pipe"));
        Self { child, log, file, at }
    }

    /// Ends it when all is captured that passed on one connection until now.
    pub(crate) fn finish(mut self) -> Captured {
        // Packets come in order: this one is behind them all.
        TcpStream::connect(self.at).expect("somebody listens");
        self.log.wait_for_lines("[SYN] ", 2);
        signal(self.child.id(), "TERM");
        self.child.wait().expect("it ends");
        let decode = format!("tcp.port=={},tls", self.at.1);
        let mut tshark = Command::new("tshark");
        let output = run(tshark.args(["-r", &self.file, "-d", &decode]), b"");
        Captured { bytes: fs::read(&self.file).expect("captured"), explained: text(&output.stdout) }
    }
}

impl Captured {
    /// Whether these words stand in the capture as they are.
    pub(crate) fn holds(&self, words: &str) -> bool {
        self.bytes.windows(words.len()).any(|window| window == words.as_bytes())
    }

    /// Whether tshark's explanation says so.
    pub(crate) fn says(&self, words: &str) -> bool {
        self.explained.contains(words)
    }
}
