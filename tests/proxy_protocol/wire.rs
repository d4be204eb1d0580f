//! Headers as they are on the wire, put together and taken apart by hand.

use std::io::Read;

use socket2::Socket;

use crate::common::receive;

/// Of whom the headers made here tell, and what that one connected to.
pub(crate) const CLIENT: &str = "203.0.113.7:4660";
pub(crate) const INET: [u8; 12] = [203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x34, 0x01, 0xbb];
pub(crate) const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n";

const SIGNATURE: [u8; 12] = [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10];

/// A header of version 2: its command, its family, and what follows.
pub(crate) fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("a short one").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &len, content].concat()
}

/// A field of it.
pub(crate) fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("a short one").to_be_bytes();
    [&[kind][..], &len, value].concat()
}

/// The headers of both versions that tell of [`CLIENT`].
pub(crate) fn both() -> [Vec<u8>; 2] {
    [LINE.to_vec(), binary(0x21, 0x11, &INET)]
}

/// What a header of version 2 told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) command: u8,
    pub(crate) family: u8,
    /// Source, destination, and their ports.
    pub(crate) addresses: Vec<u8>,
    pub(crate) fields: Vec<(u8, Vec<u8>)>,
}

impl Told {
    /// The header that comes first, and not a byte of what is behind it.
    pub(crate) fn receive(wire: &mut Socket) -> Self {
        let fixed = receive(wire, 16);
        assert_eq!(fixed[..12], SIGNATURE);
        let len = u16::from_be_bytes([fixed[14], fixed[15]]);
        let mut content = receive(wire, len.into());
        let addresses = match fixed[13] {
            0x00 => 0,
            0x11 => 12,
            0x21 => 36,
            other => panic!("a family {other:#x}"),
        };
        let fields = fields(&content.split_off(addresses));
        Self { command: fixed[12], family: fixed[13], addresses: content, fields }
    }

    /// What its field of this kind holds.
    pub(crate) fn field(&self, kind: u8) -> Option<&[u8]> {
        value(&self.fields, kind)
    }
}

/// Takes fields apart.
pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<3>() {
        let (value, rest) = rest.split_at(u16::from_be_bytes([head[1], head[2]]).into());
        found.push((head[0], value.to_vec()));
        bytes = rest;
    }
    assert_eq!(bytes, b"", "something that is no field");
    found
}

/// The value of the first field of this kind.
pub(crate) fn value(fields: &[(u8, Vec<u8>)], kind: u8) -> Option<&[u8]> {
    fields.iter().find(|(it, _)| *it == kind).map(|(_, value)| value.as_slice())
}

/// The line that comes first, and not a byte of what is behind it.
pub(crate) fn line(wire: &mut Socket) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte).expect("a line");
        line.extend(byte);
    }
    String::from_utf8(line).expect("text")
}
