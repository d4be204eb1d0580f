//! What Wireshark would capture of one connection, without the right to capture: a relay that
//! writes down every piece as a packet.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Lets `talk` speak with the server on `port` through another port, and answers the capture.
pub(crate) fn of_a_relay(port: u16, talk: impl FnOnce(u16)) -> Vec<u8> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let relay_port = listener.local_addr().expect("bound").port();
    let relay = thread::spawn(move || {
        let (client, _) = listener.accept().expect("the client");
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server");
        let capture = Arc::new(Mutex::new(Capture::new()));
        let clone = |it: &TcpStream| it.try_clone().expect("a descriptor");
        let (from, to, shared) = (clone(&server), clone(&client), Arc::clone(&capture));
        let back = thread::spawn(move || carry(from, to, 1, &shared));
        carry(client, server, 0, &capture);
        back.join().expect("carried");
        let capture = capture.lock().expect("nobody else");
        capture.bytes.clone()
    });
    talk(relay_port);
    relay.join().expect("relayed")
}

fn carry(mut from: TcpStream, mut to: TcpStream, direction: usize, capture: &Mutex<Capture>) {
    let mut piece = [0; 1400];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        capture.lock().expect("alive").packet(direction, &piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A pcap file of raw IPv4 packets.
struct Capture {
    bytes: Vec<u8>,
    sequence: [u32; 2],
}

impl Capture {
    fn new() -> Self {
        // Magic, version 2.4, zone, accuracy, longest packet, LINKTYPE_RAW.
        let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 101];
        let bytes = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Self { bytes, sequence: [1, 1] }
    }

    fn packet(&mut self, direction: usize, payload: &[u8]) {
        const PORTS: [[u16; 2]; 2] = [[40_000, 443], [443, 40_000]];
        let len = 40 + payload.len();
        let mut packet = vec![0x45, 0];
        packet.extend((len as u16).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        packet.extend(if direction == 0 {
            [10, 0, 0, 1, 10, 0, 0, 2]
        } else {
            [10, 0, 0, 2, 10, 0, 0, 1]
        });
        packet.extend(PORTS[direction].iter().flat_map(|port| port.to_be_bytes()));
        packet.extend(self.sequence[direction].to_be_bytes());
        packet.extend(self.sequence[1 - direction].to_be_bytes());
        packet.extend([0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        self.sequence[direction] += payload.len() as u32;
        for word in [0, 0, len as u32, len as u32] {
            self.bytes.extend(word.to_ne_bytes());
        }
        self.bytes.extend(packet);
    }
}
