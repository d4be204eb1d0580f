//! What both sides of a TLS connection say in the clear when they greet (RFC 8446 section 4.1,
//! RFC 5246 section 7.4): for showing a handshake to people, never for taking part in one.
//!
//! The bytes come from strangers. Every length is checked against what is there, nothing is
//! allocated beyond the size of the input, and what cannot be read is left out. Every index is into
//! bytes that `Fields::take` or `chunks_exact` has just made so many of, and no arithmetic is done
//! with a length.

/// The bytes before a handshake message's body: its type, and its length in three bytes.
const MESSAGE_HEADER: usize = 4;

/// The bytes before a record's body: its type, a version, and its length in two bytes.
const RECORD_HEADER: usize = 5;

/// The longest body of a record (RFC 5246 section 6.2.3; TLS 1.3 allows less).
const MAX_RECORD: usize = (1 << 14) + 2048;

/// The random value that makes a ServerHello a HelloRetryRequest (RFC 8446 section 4.1.3).
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What the client offers. Suites, versions and groups are the numbers of the IANA registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The random value, which goes into every key.
    pub random: [u8; 32],
    /// The session to resume (TLS 1.2), or a random value that TLS 1.3 only carries for old
    /// middleboxes.
    pub session_id: Vec<u8>,
    /// The cipher suites, in the client's order.
    pub suites: Vec<u16>,
    /// The protocol versions, in the client's order.
    pub versions: Vec<u16>,
    /// The key exchange groups, in the client's order.
    pub groups: Vec<u16>,
    /// The groups for which it sends a key along.
    pub key_shares: Vec<u16>,
    /// The name of the server that it wants to talk to.
    pub server_name: Option<String>,
    /// The application protocols (ALPN), in the client's order.
    pub alpn: Vec<String>,
    /// Whether it offers to resume an earlier session.
    pub offers_resumption: bool,
}

/// What the server chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHello {
    /// The random value, which goes into every key.
    pub random: [u8; 32],
    /// The session's name (TLS 1.2), or the client's own value sent back (TLS 1.3).
    pub session_id: Vec<u8>,
    /// The cipher suite.
    pub suite: u16,
    /// The protocol version.
    pub version: u16,
    /// The group of the server's key, or the group that a retry asks for (TLS 1.3).
    pub group: Option<u16>,
    /// Whether it goes on with an earlier session (TLS 1.3; in TLS 1.2 the session id tells).
    pub resumes: bool,
}

/// A session ticket that was sent in the clear, as in TLS 1.2 (RFC 5077).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// How long the server means to honour it, in seconds; 0: it does not say.
    pub lifetime: u32,
    /// Its size in bytes.
    pub len: usize,
}

/// What the server said in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFlight {
    /// The request to greet again with another key (TLS 1.3).
    pub retry: Option<ServerHello>,
    /// Its greeting.
    pub hello: Option<ServerHello>,
    /// Its ticket (TLS 1.2; in TLS 1.3 tickets are encrypted).
    pub ticket: Option<Ticket>,
}

/// The client's first greeting in what it sent, as far as that is there.
#[must_use]
pub fn client_hello(sent: &[u8]) -> Option<ClientHello> {
    let messages = clear_messages(sent);
    let (kind, body) = Messages(&messages).next()?;
    (kind == CLIENT_HELLO).then(|| ClientHello::read(body)).flatten()
}

/// What the server said in the clear, as far as it is there.
#[must_use]
pub fn server_flight(received: &[u8]) -> ServerFlight {
    let mut flight = ServerFlight::default();
    let messages = clear_messages(received);
    for (kind, body) in Messages(&messages) {
        match kind {
            SERVER_HELLO => match ServerHello::read(body) {
                Some(hello) if hello.is_retry() => flight.retry = Some(hello),
                hello => flight.hello = hello,
            },
            NEW_SESSION_TICKET => flight.ticket = Ticket::read(body),
            _ => {}
        }
    }
    flight
}

/// Whether bytes can be the beginning of a TLS connection's answer; true of none at all.
#[must_use]
pub fn looks_like_tls(received: &[u8]) -> bool {
    let kind_fits = received.first().is_none_or(|kind| (20..=23).contains(kind));
    let version_fits = received.get(1).is_none_or(|major| *major == 3);
    kind_fits && version_fits
}

impl ServerHello {
    /// Whether it asks the client to greet again, rather than to go on.
    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.random == RETRY_RANDOM
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let mut hello = Self {
            version: fields.u16()?,
            random: fields.array()?,
            session_id: fields.short_vector()?.to_vec(),
            suite: fields.u16()?,
            ..Self::default()
        };
        let _compression = fields.u8()?;
        for (kind, data) in extensions(&mut fields) {
            let mut data = Fields(data);
            match kind {
                SUPPORTED_VERSIONS => hello.version = data.u16()?,
                KEY_SHARE => hello.group = data.u16(),
                PRE_SHARED_KEY => hello.resumes = true,
                _ => {}
            }
        }
        Some(hello)
    }
}

impl ClientHello {
    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let legacy_version = fields.u16()?;
        let mut hello = Self {
            random: fields.array()?,
            session_id: fields.short_vector()?.to_vec(),
            suites: numbers(fields.vector()?),
            versions: vec![legacy_version],
            ..Self::default()
        };
        let _compression = fields.short_vector()?;
        for (kind, data) in extensions(&mut fields) {
            let mut data = Fields(data);
            match kind {
                SERVER_NAME => hello.server_name = server_name(&mut data),
                SUPPORTED_GROUPS => hello.groups = numbers(data.vector()?),
                ALPN => hello.alpn = protocols(data.vector()?),
                SESSION_TICKET => hello.offers_resumption |= !data.0.is_empty(),
                PRE_SHARED_KEY => hello.offers_resumption = true,
                SUPPORTED_VERSIONS => hello.versions = numbers(data.short_vector()?),
                KEY_SHARE => hello.key_shares = key_shares(data.vector()?),
                _ => {}
            }
        }
        Some(hello)
    }
}

impl Ticket {
    fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let lifetime = u32::from_be_bytes(fields.array()?);
        Some(Self { lifetime, len: fields.vector()?.len() })
    }
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const NEW_SESSION_TICKET: u8 = 4;

const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const ALPN: u16 = 16;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

/// The bodies of the records that hold handshake messages in the clear, joined: messages may run
/// over the ends of records. What follows ChangeCipherSpec is encrypted, except that TLS 1.3 sends
/// one for the sake of middleboxes, after a retry even before its greeting.
fn clear_messages(bytes: &[u8]) -> Vec<u8> {
    const CHANGE_CIPHER_SPEC: u8 = 20;
    const HANDSHAKE: u8 = 22;
    let mut fields = Fields(bytes);
    let mut messages = Vec::new();
    while let Some(header) = fields.take(RECORD_HEADER) {
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let body = fields.take(len.min(fields.0.len())).unwrap_or_default();
        match header[0] {
            HANDSHAKE if len <= MAX_RECORD => messages.extend_from_slice(body),
            CHANGE_CIPHER_SPEC if is_only_a_retry(&messages) => {}
            _ => break,
        }
    }
    messages
}

fn is_only_a_retry(messages: &[u8]) -> bool {
    let mut messages = Messages(messages);
    let Some((SERVER_HELLO, body)) = messages.next() else { return false };
    ServerHello::read(body).is_some_and(|hello| hello.is_retry()) && messages.next().is_none()
}

/// Handshake messages one after the other: the type and the body of each that is there whole.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields = Fields(self.0);
        let header = fields.take(MESSAGE_HEADER)?;
        let len = u32::from_be_bytes([0, header[1], header[2], header[3]]);
        let body = fields.take(len as usize)?;
        self.0 = fields.0;
        Some((header[0], body))
    }
}

/// The extensions at the end of a greeting: the type and the content of each.
fn extensions<'a>(fields: &mut Fields<'a>) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
    let mut rest = Fields(fields.vector().unwrap_or_default());
    std::iter::from_fn(move || Some((rest.u16()?, rest.vector()?)))
}

fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

fn server_name(data: &mut Fields<'_>) -> Option<String> {
    const HOST_NAME: u8 = 0;
    let mut names = Fields(data.vector()?);
    let is_host_name = names.u8()? == HOST_NAME;
    let name = names.vector()?;
    is_host_name.then(|| String::from_utf8_lossy(name).into_owned())
}

fn protocols(list: &[u8]) -> Vec<String> {
    let mut list = Fields(list);
    std::iter::from_fn(|| list.short_vector())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

fn key_shares(list: &[u8]) -> Vec<u16> {
    let mut list = Fields(list);
    std::iter::from_fn(|| {
        let group = list.u16()?;
        list.vector().map(|_key| group)
    })
    .collect()
}

/// The rest of a message, read field by field. `None` is always: there is less than that.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        self.take(LEN)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// What has its length before it in one byte.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// What has its length before it in two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn short_vector(content: &[u8]) -> Vec<u8> {
        [&[content.len() as u8][..], content].concat()
    }

    fn vector(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u16).to_be_bytes()[..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector(content)].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u32).to_be_bytes();
        [&[kind][..], &len[1..], body].concat()
    }

    /// Cuts `messages` into records of at most `len` bytes.
    fn records(messages: &[u8], len: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 3][..], &vector(part)].concat();
        messages.chunks(len).flat_map(record).collect()
    }

    fn server_hello(random: [u8; 32], extensions: &[Vec<u8>]) -> Vec<u8> {
        let fixed = [&[3, 3][..], &random, &short_vector(b"session"), &[0x13, 1, 0]].concat();
        message(SERVER_HELLO, &[fixed, vector(&extensions.concat())].concat())
    }

    const CHANGE_CIPHER_SPEC: &[u8] = &[20, 3, 3, 0, 1, 1];

    #[test]
    fn a_client_hello_is_read_however_it_is_cut_into_records() {
        let extensions = [
            extension(SERVER_NAME, &vector(&[&[0][..], &vector(b"example.org")].concat())),
            extension(SUPPORTED_GROUPS, &vector(&[0x11, 0xec, 0, 29])),
            extension(KEY_SHARE, &vector(&[&[0, 29][..], &vector(&[7; 32])].concat())),
            extension(SUPPORTED_VERSIONS, &short_vector(&[3, 4, 3, 3])),
            extension(ALPN, &vector(&[short_vector(b"h2"), short_vector(b"http/1.1")].concat())),
            extension(SESSION_TICKET, b""),
        ];
        let fixed = [&[3, 3][..], &[9; 32], &short_vector(b"id"), &vector(&[0x13, 1, 0xc0, 0x2b])];
        let body = [&fixed.concat()[..], &short_vector(&[0]), &vector(&extensions.concat())];
        let message = message(CLIENT_HELLO, &body.concat());
        let expected = ClientHello {
            random: [9; 32],
            session_id: b"id".to_vec(),
            suites: vec![0x1301, 0xc02b],
            versions: vec![0x0304, 0x0303],
            groups: vec![0x11ec, 29],
            key_shares: vec![29],
            server_name: Some("example.org".to_owned()),
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
            offers_resumption: false,
        };
        for len in 1..=message.len() {
            assert_eq!(client_hello(&records(&message, len)).as_ref(), Some(&expected), "{len}");
        }
        let whole = records(&message, message.len());
        for end in 0..whole.len() {
            assert_eq!(client_hello(&whole[..end]), None, "cut after {end} bytes");
        }
    }

    #[test]
    fn a_greeting_of_tls_1_3_is_read_behind_a_retry() {
        let version = extension(SUPPORTED_VERSIONS, &[3, 4]);
        let wish = extension(KEY_SHARE, &[0, 23]);
        let share = extension(KEY_SHARE, &[&[0, 23][..], &vector(&[4; 65])].concat());
        let psk = extension(PRE_SHARED_KEY, &[0, 0]);
        let retry = records(&server_hello(RETRY_RANDOM, &[version.clone(), wish]), 1000);
        let hello = records(&server_hello([5; 32], &[version, share, psk]), 1000);
        let sealed = [&[23, 3, 3][..], &vector(&[1; 40])].concat();
        let flight = server_flight(&[&retry, CHANGE_CIPHER_SPEC, &hello, &sealed].concat());
        assert_eq!(flight.retry.and_then(|it| it.group), Some(23));
        let hello = flight.hello.expect("a greeting");
        assert_eq!((hello.version, hello.suite, hello.group), (0x0304, 0x1301, Some(23)));
        assert_eq!((hello.random, hello.resumes), ([5; 32], true));
    }

    #[test]
    fn a_ticket_of_tls_1_2_is_read_and_nothing_after_it() {
        let ticket =
            message(NEW_SESSION_TICKET, &[&[0, 0, 0x1c, 0x20][..], &vector(&[8; 192])].concat());
        let clear = records(&[server_hello([5; 32], &[]), ticket].concat(), 100);
        let sealed = records(&server_hello([6; 32], &[]), 1000);
        let flight = server_flight(&[&clear, CHANGE_CIPHER_SPEC, &sealed].concat());
        assert_eq!(flight.ticket, Some(Ticket { lifetime: 7200, len: 192 }));
        let hello = flight.hello.expect("a greeting");
        assert_eq!((hello.version, hello.random), (0x0303, [5; 32]));
    }

    #[test]
    fn what_is_not_tls_is_told_by_its_first_bytes() {
        for answer in [&b"HTTP/1.1 400"[..], b"SSH-2.0", b"220 ready", &[22, 2], &[0]] {
            assert!(!looks_like_tls(answer), "{answer:?}");
        }
        for answer in [&b""[..], &[21], &[21, 3, 3, 0, 2, 2, 40], &[22, 3, 1]] {
            assert!(looks_like_tls(answer), "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let look = |bytes: &[u8]| (client_hello(bytes), server_flight(bytes));
            look(&bytes);
            for kind in [CLIENT_HELLO, SERVER_HELLO, NEW_SESSION_TICKET] {
                look(&records(&message(kind, &bytes), 100));
            }
        }
    }
}
