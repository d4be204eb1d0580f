//! From the first bytes of a connection to what they announce.
//!
//! A checksum that a header may carry (PP2_TYPE_CRC32C) is not verified: TCP has one of its own.
//!
//! Invariant: how long a header is can be told from its own bytes, so that whoever reads takes
//! exactly those and leaves what belongs to the client. Anything that cannot become a header is
//! refused with the first byte that shows it.

use std::fmt::Write;

use proxy_header::{Error, ParseConfig, ProxyHeader};

use super::{Addresses, IDENTITY_FIELD, MAKER, MAKER_FIELD};
use crate::proto::quote::Word;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family, and the length of what follows.
const FIXED_LEN: usize = 16;

/// The version and command of a proxy that speaks for itself, to see whether somebody is there.
const LOCAL: u8 = 0x20;

/// What a header of version 1 begins with, and its longest line (proxy-protocol.txt, 2.1).
const WORD: &[u8; 6] = b"PROXY ";
const LINE_LIMIT: usize = 107;

/// The longest header of version 2 that is read, in bytes. The format allows 64 KiB; what proxies
/// send is below one.
pub const HEADER_LIMIT: usize = 4096;

/// The most of a field that is kept for the log, in bytes.
const SHOWN_LIMIT: usize = 255;

/// How many of the first bytes of something that is no header are shown.
const SHOWN_BYTES: usize = 16;

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// For whom the proxy has connected; `None` where it did so for itself, or does not know.
    pub addresses: Option<Addresses>,
    /// What else it says of the client, as words of the form `key=value` for logs.
    pub details: String,
}

/// Bytes that are no header, or none that is read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They begin otherwise; as they are, so not for a terminal.
    #[error("it began with '{0}' and not with a header of the PROXY protocol")]
    NoHeader(String),
    /// A line that does not end.
    #[error("the line of its PROXY protocol header does not end within {LINE_LIMIT} bytes")]
    LongLine,
    /// More than is read.
    #[error("its PROXY protocol header has {0} bytes, and {HEADER_LIMIT} is the most")]
    TooLong(usize),
    /// It is whole and means nothing.
    #[error("its PROXY protocol header makes no sense")]
    Senseless,
}

impl From<Error> for Malformed {
    fn from(_: Error) -> Self {
        Self::Senseless
    }
}

/// Reads the header that `bytes`, the first of a connection, begin with; answers what it says and
/// how long it is. `None` as long as it is not whole.
///
/// # Errors
/// Why no byte that may follow will make it a header.
pub fn read(bytes: &[u8]) -> Result<Option<(Announced, usize)>, Malformed> {
    let Some(len) = header_len(bytes)? else { return Ok(None) };
    let Some(whole) = bytes.get(..len) else { return Ok(None) };
    if whole.starts_with(SIGNATURE) && whole[SIGNATURE.len()] == LOCAL {
        // Whatever else it holds is to be ignored (proxy-protocol.txt, 2.2).
        return Ok(Some((Announced::default(), len)));
    }
    match ProxyHeader::parse(whole, ParseConfig::default())? {
        (header, read) if read == len => {
            let addresses = header
                .proxied_address()
                .map(|it| Addresses { source: it.source, destination: it.destination });
            let details = fields_of(whole).map_or(Ok(String::new()), details)?;
            Ok(Some((Announced { addresses, details }, len)))
        }
        _ => Err(Malformed::Senseless),
    }
}

/// How long the header is, once its first bytes say so.
fn header_len(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    if agree(bytes, WORD) {
        let line = &bytes[..bytes.len().min(LINE_LIMIT)];
        return match line.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => Ok(Some(at + 2)),
            None if line.len() == LINE_LIMIT => Err(Malformed::LongLine),
            None => Ok(None),
        };
    }
    if !agree(bytes, SIGNATURE) {
        let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
        return Err(Malformed::NoHeader(String::from_utf8_lossy(shown).into_owned()));
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_LEN>() else { return Ok(None) };
    let len = FIXED_LEN + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > HEADER_LIMIT {
        return Err(Malformed::TooLong(len));
    }
    Ok(Some(len))
}

/// Whether one of them is the beginning of the other.
fn agree(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(one, other)| one == other)
}

/// The fields of a header of version 2, which is whole and sound: what follows its addresses.
fn fields_of(header: &[u8]) -> Option<&[u8]> {
    if !header.starts_with(SIGNATURE) {
        return None;
    }
    let addresses = match header[SIGNATURE.len() + 1] >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    header.get(FIXED_LEN + addresses..)
}

/// The kinds of the fields that are shown (proxy-protocol.txt, 2.2), and the words for them.
const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;

/// What a field of kind [`SSL`] begins with: a byte of bits, and the outcome of a verification.
const SSL_FIXED_LEN: usize = 5;

/// What the fields say of the client. They only adorn the log: what is no text is escaped, and not
/// refused.
fn details(fields: &[u8]) -> Result<String, Malformed> {
    let mut details = String::new();
    let is_ours = Fields(fields).any(|it| matches!(it, Ok((MAKER_FIELD, MAKER))));
    for field in Fields(fields) {
        match field? {
            (AUTHORITY, name) => show(&mut details, "authority", name),
            (IDENTITY_FIELD, name) if is_ours => show(&mut details, "identity", name),
            (SSL, security) => {
                let inner = security.get(SSL_FIXED_LEN..).ok_or(Malformed::Senseless)?;
                for field in Fields(inner) {
                    match field? {
                        (SSL_VERSION, version) => show(&mut details, "tls", version),
                        (SSL_CN, name) => show(&mut details, "cn", name),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(details)
}

/// Fields, one after the other: kind, length, value.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let [kind, high, low, rest @ ..] = bytes else { return Some(Err(Malformed::Senseless)) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, rest)) = rest.split_at_checked(len) else {
            return Some(Err(Malformed::Senseless));
        };
        self.0 = rest;
        Some(Ok((*kind, value)))
    }
}

/// Adds a field so that it stays one word, whatever the client called itself.
fn show(details: &mut String, key: &str, value: &[u8]) {
    let separator = if details.is_empty() { "" } else { " " };
    let value = &value[..value.len().min(SHOWN_LIMIT)];
    let _ = write!(details, "{separator}{key}={}", Word(value));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2 of this command, family and content.
    fn second(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).expect("a short one").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, content].concat()
    }

    /// A field, the same for a field inside another.
    fn field(kind: u8, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len()).expect("a short one").to_be_bytes();
        [&[kind][..], &len, value].concat()
    }

    const INET: [u8; 12] = [203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x34, 0x01, 0xbb];

    fn addresses(source: &str, destination: &str) -> Option<Addresses> {
        let read = |text: &str| text.parse().expect("an address");
        Some(Addresses { source: read(source), destination: read(destination) })
    }

    /// Headers, with whom they announce.
    fn headers() -> Vec<(Vec<u8>, Option<Addresses>)> {
        let inet6: Vec<u8> = [
            &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
            &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            &[0, 80, 0, 81],
        ]
        .concat();
        let unknown_fields = [&INET[..], &field(0xea, b"vpce-1"), &field(0x04, &[0; 9])].concat();
        vec![
            (
                b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n".to_vec(),
                addresses("203.0.113.7:4660", "192.0.2.1:443"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 80 81\r\n".to_vec(),
                addresses("[2001:db8::1]:80", "[2001:db8::2]:81"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:: whatever it likes\r\n".to_vec(), None),
            (second(0x21, 0x11, &INET), addresses("203.0.113.7:4660", "192.0.2.1:443")),
            (second(0x21, 0x21, &inet6), addresses("[2001:db8::1]:80", "[2001:db8::2]:81")),
            (second(0x21, 0x11, &unknown_fields), addresses("203.0.113.7:4660", "192.0.2.1:443")),
            (second(0x21, 0x31, &[b'x'; 216]), None),
            (second(0x20, 0x00, b""), None),
            (second(0x20, 0x11, &INET), None),
            (second(0x20, 0xff, b"whatever it likes"), None),
            (second(0x21, 0x00, b""), None),
        ]
    }

    #[test]
    fn every_kind_of_header_is_read_and_nothing_behind_it() {
        for (header, expected) in headers() {
            for behind in ["", "P", "\r\n", "what the client said"] {
                let bytes = [&header, behind.as_bytes()].concat();
                let (announced, len) = read(&bytes).expect("sound").expect("whole");
                let shown = header.escape_ascii();
                assert_eq!((announced.addresses, len), (expected, header.len()), "{shown}");
            }
        }
    }

    #[test]
    fn no_beginning_of_a_header_is_whole_and_none_is_wrong() {
        for (header, _) in headers() {
            for len in 0..header.len() {
                let shown = header[..len].escape_ascii();
                assert_eq!(read(&header[..len]), Ok(None), "{shown}");
            }
        }
    }

    #[test]
    fn what_is_said_of_the_client_is_kept_for_the_log() {
        let security = [
            &[0x07, 0, 0, 0, 0][..],
            &field(0x21, b"TLSv1.3"),
            &field(0x22, "al\"ice\n".as_bytes()),
            &field(0x23, b"TLS_AES_128_GCM_SHA256"),
        ]
        .concat();
        let fields = [
            &INET[..],
            &field(0x01, b"h2"),
            &field(0x02, b"example.org"),
            &field(0x20, &security),
            &field(IDENTITY_FIELD, b"tunnel"),
            &field(MAKER_FIELD, MAKER),
        ]
        .concat();
        let (announced, _) = read(&second(0x21, 0x11, &fields)).expect("sound").expect("whole");
        let expected = "authority=example.org tls=TLSv1.3 cn=al\\u{22}ice\\n identity=tunnel";
        assert_eq!(announced.details, expected);
        let long = [&INET[..], &field(0x02, &[b'a'; 1000])].concat();
        let (announced, _) = read(&second(0x21, 0x11, &long)).expect("sound").expect("whole");
        assert_eq!(announced.details.len(), "authority=".len() + SHOWN_LIMIT);
    }

    #[test]
    fn what_can_be_no_header_is_refused_with_its_first_byte() {
        let cases: [(&[u8], &str); 8] = [
            (b"G", "it began with 'G' and not with"),
            (b"\x16\x03\x01", "it began with '\x16\x03\x01' and not with"),
            (b"PROXIES", "it began with 'PROXIES' and not with"),
            (b"\r\n\r\n\0\r\nQUIT\r", "and not with"),
            (&[b"PROXY ".as_slice(), &[b'x'; 101]].concat(), "does not end within 107 bytes"),
            (&second(0x21, 0x11, &[0; 4081])[..16], "has 4097 bytes, and 4096 is the most"),
            (&second(0x21, 0x11, &[0; 11]), "makes no sense"),
            (&second(0x21, 0x11, &[&INET[..], &[1, 0, 9, 1]].concat()), "makes no sense"),
        ];
        for (bytes, part) in cases {
            let error = read(bytes).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_line_must_have_every_part() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 4660\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 4660 443 1\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 4660 65536\r\n",
            "PROXY TCP4 2001:db8::1 192.0.2.1 4660 443\r\n",
            "PROXY TCP6 203.0.113.7 192.0.2.1 4660 443\r\n",
            "PROXY  TCP4 203.0.113.7 192.0.2.1 4660 443\r\n",
            "PROXY UDP4 203.0.113.7 192.0.2.1 4660 443\r\n",
            "PROXY tcp4 203.0.113.7 192.0.2.1 4660 443\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Err(Malformed::Senseless), "{line:?}");
        }
    }

    #[test]
    fn versions_commands_and_families_that_are_unknown_are_refused() {
        for (command, family) in
            [(0x11, 0x11), (0x22, 0x11), (0x31, 0x11), (0x21, 0x41), (0x21, 0x13)]
        {
            let header = second(command, family, &INET);
            assert_eq!(read(&header), Err(Malformed::Senseless), "{command:#x} {family:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_within_their_bound(
            beginning in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"]),
            bytes in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let bytes = [beginning, &bytes].concat();
            if let Ok(Some((_, len))) = read(&bytes) {
                prop_assert!(len <= bytes.len().min(HEADER_LIMIT));
            }
        }

        #[test]
        fn a_damaged_header_is_read_without_a_panic(
            which in 0..12usize,
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let (mut header, _) = headers().swap_remove(which);
            let at = at.index(header.len());
            header[at] = byte;
            for len in 0..=header.len() {
                let _ = read(&header[..len]);
            }
        }
    }
}
