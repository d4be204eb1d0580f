//! The lessons on TLS: each against the other, against ours, and against what is not TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

#[test]
fn the_client_and_the_server_understand_each_other() {
    let mut server = Server::start();
    let said = client(server.address, "certs/ca.pem");
    assert_eq!(said.stdout, b"200 OK\r\n\r\n", "{said:?}");
    assert!(said.status.success() && said.stderr.starts_with(b"TLSv1_3 "), "{said:?}");
    assert_eq!(server.line(), "GET / \\n");
}

#[test]
fn one_client_waits_for_no_other() {
    let mut server = Server::start();
    let _silent = TcpStream::connect(server.address).expect("a client that says nothing");
    assert!(client(server.address, "certs/ca.pem").status.success());
    assert_eq!(server.line(), "GET / \\n");
}

#[test]
fn the_client_believes_nobody_else() {
    let server = Server::start();
    let said = client(server.address, "Cargo.toml");
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stdout.is_empty(), "{said:?}");
}

#[test]
fn what_is_not_tls_gets_an_alert() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&21), "an alert (RFC 8446, section 5.1): {answer:?}");
}

fn client(server: SocketAddr, ca: &str) -> Output {
    let address = format!("localhost:{}", server.port());
    let mut command = Command::new("timeout");
    command.arg("20").arg(lesson("10_tls_client")).args([&address, ca]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("it ends")
}

/// Cargo puts examples beside the folder that this test runs from.
fn lesson(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    test.ancestors().nth(2).expect("PROFILE/deps").join("examples").join(name)
}

struct Server {
    child: Child,
    address: SocketAddr,
    output: BufReader<ChildStdout>,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(lesson("11_tls_server"));
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it was built");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, address, output };
        let line = server.line();
        let address = line.strip_prefix("listening on ").expect("says where");
        server.address = address.parse().expect("an address");
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
