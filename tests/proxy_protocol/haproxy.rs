//! HAProxy, whose protocol it is, at either side of the daemon.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::common::{Daemon, PATIENCE, ask, has_program, listener};

/// A running HAProxy, killed when dropped.
struct Haproxy {
    child: Child,
    address: SocketAddr,
}

impl Haproxy {
    /// Starts one with this configuration, in which `BIND` stands for where it listens. Its socket
    /// is made here, and inherited: whoever connects before it runs waits for it.
    fn start(configuration: &str) -> Self {
        let socket = inheritable().expect("a socket that it inherits");
        let address = socket.local_addr().expect("bound").as_socket().expect("an address");
        let configuration = format!(
            "defaults\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n{}\n",
            configuration.replace("BIND", &format!("bind fd@{}", socket.as_raw_fd()))
        );
        let mut child = Command::new("haproxy")
            .args(["-db", "-f", "/dev/stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(configuration.as_bytes()).expect("it reads its configuration");
        Self { child, address }
    }

    fn connect(&self) -> Socket {
        let wire = TcpStream::connect(self.address).expect("its socket listens");
        wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        wire.into()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A listening socket that a child process gets too: without `close-on-exec`.
fn inheritable() -> io::Result<Socket> {
    let socket = Socket::new_raw(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))?;
    socket.listen(16)?;
    Ok(socket)
}

#[test]
fn haproxy_announces_its_clients() {
    if !has_program("haproxy") {
        return;
    }
    let believes = "proxy_protocol_from = ['127.0.0.1']\n";
    let daemon = Daemon::start(&listener("echo", "echo", believes));
    let target = daemon.socket_address("echo");
    for (number, way) in
        ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"]
            .into_iter()
            .enumerate()
    {
        let haproxy = Haproxy::start(&format!(
            "listen near\n mode tcp\n unique-id-format %ci-%cp\n BIND\n server far {target} {way}"
        ));
        let mut wire = haproxy.connect();
        assert_eq!(ask(&mut wire, b"hello"), b"hello", "{way}");
        let client = wire.local_addr().expect("bound").as_socket().expect("an address");
        drop(wire);
        let line = &daemon.wait_for_lines("closed listener=echo", number + 1)[number];
        assert!(line.contains(&format!("peer={client} proxy=127.0.0.1:")), "{way}: {line}");
    }
}

#[test]
fn haproxy_believes_what_it_is_told() {
    if !has_program("haproxy") {
        return;
    }
    let haproxy = Haproxy::start(
        "frontend far\n mode http\n BIND accept-proxy\n http-request return status 200 \
         content-type text/plain lf-string \"client %[src]:%[src_port] of %[dst]:%[dst_port]\"",
    );
    for version in ["v1", "v2"] {
        let daemon = Daemon::start(&listener(
            "relay",
            "forward",
            &format!(
                "to = 'tcp://{}'\n[listener.upstream]\nproxy_protocol = '{version}'\n",
                haproxy.address
            ),
        ));
        let mut wire = daemon.connect("relay");
        let client = wire.local_addr().expect("bound").as_socket().expect("an address");
        wire.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        wire.read_to_string(&mut answer).expect("an answer");
        let expected = format!("client {client} of {}", daemon.socket_address("relay"));
        assert!(answer.ends_with(&expected), "{version}: {answer}, and not {expected}");
    }
}
