//! Replies of HTTP/1.1, as a client reads them (RFC 9112): where each ends, which status it has, and
//! whether the connection goes on after it.
//!
//! It keeps nothing of a reply but a head that comes in pieces, of at most 64 KiB.
//! Interim replies (1xx) are passed over.

use std::mem;

use super::fed::{Fed, Malformed};

/// The longest head, chunk line or trailer section that is read, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;

/// The most header fields that are read of a head.
const MOST_FIELDS: usize = 128;

/// How many hexadecimal digits the size of a chunk may have: a reply of 2^60 bytes is none.
const LONGEST_CHUNK_DIGITS: u8 = 15;

/// The place of one connection in its replies.
#[derive(Debug)]
pub struct HttpReader {
    is_head: bool,
    place: Place,
    /// What has come of a head in pieces.
    head: Vec<u8>,
    status: u16,
    is_last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    /// So many bytes of content are left.
    Content(u64),
    Chunks(Chunk),
    /// The content ends with the connection.
    UntilClose,
}

/// Where in a chunked content (RFC 9112, 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In the digits of a size.
    Size { digits: u8, size: u64 },
    /// Behind them, up to the end of the line; `seen` bytes of it have come.
    Extension { size: u64, seen: u32 },
    /// So many bytes of data are left.
    Data(u64),
    /// At the end of the line that follows data.
    DataEnd,
    /// In the trailers; `line` bytes of this line and `seen` of all have come.
    Trailer { line: u32, seen: u32 },
}

impl HttpReader {
    pub(super) fn new(is_head: bool) -> Self {
        Self { is_head, place: Place::Head, head: Vec::new(), status: 0, is_last: false }
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    pub(super) fn ends_with_stream(&self) -> bool {
        self.place == Place::UntilClose
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Fed, Malformed> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            if rest.is_empty() && self.place != Place::Content(0) {
                return Ok(Fed { taken, is_whole: false });
            }
            match self.place {
                Place::Head => taken += self.read_head(rest)?,
                Place::Content(left) => {
                    let count = left.min(rest.len() as u64);
                    taken += count as usize;
                    self.place = Place::Content(left - count);
                    if count == left {
                        self.place = Place::Head;
                        return Ok(Fed { taken, is_whole: true });
                    }
                }
                Place::Chunks(chunk) => {
                    let (count, next) = read_chunk(chunk, rest)?;
                    taken += count;
                    self.place = next.map_or(Place::Content(0), Place::Chunks);
                }
                Place::UntilClose => taken = bytes.len(),
            }
        }
    }

    /// Reads a head, as far as it has come; answers how many of `bytes` belong to it.
    fn read_head(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        if self.head.is_empty() {
            // RFC 9112, 2.2: empty lines before it belong to nothing.
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if blank > 0 {
                return Ok(blank);
            }
            // Most heads come in one piece, and are read where they lie.
            return Ok(match self.parse(bytes)? {
                Some(length) => length,
                None => self.keep(bytes)?,
            });
        }
        let before = self.head.len();
        let end = end_of_head(&self.head, bytes);
        let count = self.keep(&bytes[..end.unwrap_or(bytes.len())])?;
        if end.is_some() {
            let head = mem::take(&mut self.head);
            let parsed = self.parse(&head)?;
            if parsed != Some(before + count) {
                return Err(Malformed("the head of the reply ends in the middle".to_owned()));
            }
        }
        Ok(count)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        if self.head.len() + bytes.len() > LONGEST_HEAD {
            return Err(Malformed(format!(
                "the head of the reply has more than {LONGEST_HEAD} bytes"
            )));
        }
        self.head.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Reads a head that is whole, and goes on to what it announces.
    fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut reply = httparse::Response::new(&mut fields);
        let length = match reply.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => {
                let begin = bytes[..bytes.len().min(32)].escape_ascii();
                return Err(Malformed(format!(
                    "what came is not an HTTP/1.1 reply ({error}); it begins with \"{begin}\""
                )));
            }
        };
        self.status = reply.code.unwrap_or(0);
        let facts = Facts::read(reply.headers)?;
        let is_old = reply.version == Some(0);
        self.is_last = facts.closes || is_old && !facts.keeps_alive;
        self.place = match self.status {
            // RFC 9110, 15.2.2: behind it, another protocol is spoken.
            101 => {
                self.is_last = true;
                Place::Content(0)
            }
            100..=199 => Place::Head,
            204 | 304 => Place::Content(0),
            _ if self.is_head => Place::Content(0),
            _ if facts.is_chunked => Place::Chunks(Chunk::START),
            _ => match facts.length.filter(|_| !facts.is_encoded) {
                Some(length) => Place::Content(length),
                None => {
                    self.is_last = true;
                    Place::UntilClose
                }
            },
        };
        Ok(Some(length))
    }
}

/// What the fields of a head say about the end of the reply and of the connection.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    /// The content has a transfer coding, of which the last is chunked or is not.
    is_encoded: bool,
    is_chunked: bool,
    closes: bool,
    keeps_alive: bool,
}

impl Facts {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, Malformed> {
        let mut facts = Self::default();
        for field in fields {
            match field.name.len() {
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    facts.add_length(field.value)?;
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    let last = words(field.value).last().unwrap_or_default();
                    facts.is_encoded = true;
                    facts.is_chunked = last.eq_ignore_ascii_case(b"chunked");
                }
                10 if field.name.eq_ignore_ascii_case("connection") => {
                    for word in words(field.value) {
                        facts.closes |= word.eq_ignore_ascii_case(b"close");
                        facts.keeps_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// A length may be said again, but not another one (RFC 9112, 6.3).
    fn add_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        for word in words(value) {
            let digits = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(word).ok().filter(|_| digits);
            let length: Option<u64> = length.and_then(|length| length.parse().ok());
            if length.is_none() || self.length.is_some_and(|known| Some(known) != length) {
                let shown = value[..value.len().min(40)].escape_ascii();
                return Err(Malformed(format!("the reply has a Content-Length of \"{shown}\"")));
            }
            self.length = length;
        }
        Ok(())
    }
}

fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Where in `bytes`, which follow `before`, a head ends with its empty line.
fn end_of_head(before: &[u8], bytes: &[u8]) -> Option<usize> {
    let mut last = [0; 2];
    let kept = before.len().min(2);
    last[2 - kept..].copy_from_slice(&before[before.len() - kept..]);
    for (at, &byte) in bytes.iter().enumerate() {
        if byte == b'\n' && (last[1] == b'\n' || last == *b"\n\r") {
            return Some(at + 1);
        }
        last = [last[1], byte];
    }
    None
}

impl Chunk {
    const START: Self = Self::Size { digits: 0, size: 0 };
}

/// Takes of `bytes`, which are not none, what belongs to `chunk`; answers how many and what is next,
/// `None` after the last.
fn read_chunk(chunk: Chunk, bytes: &[u8]) -> Result<(usize, Option<Chunk>), Malformed> {
    let wrong = |what: &str| {
        let shown = bytes[..bytes.len().min(16)].escape_ascii();
        Err(Malformed(format!("the chunks of the reply are damaged: {what} at \"{shown}\"")))
    };
    let byte = bytes[0];
    let next = match chunk {
        Chunk::Size { digits, size } => match (byte as char).to_digit(16) {
            Some(_) if digits == LONGEST_CHUNK_DIGITS => return wrong("a size that is too large"),
            Some(digit) => Chunk::Size { digits: digits + 1, size: size << 4 | u64::from(digit) },
            None if digits == 0 => return wrong("no size"),
            None if matches!(byte, b'\r' | b'\n' | b';' | b' ' | b'\t') => {
                return Ok((0, Some(Chunk::Extension { size, seen: 0 })));
            }
            None => return wrong("no size"),
        },
        Chunk::Extension { size: 0, .. } if byte == b'\n' => Chunk::Trailer { line: 0, seen: 0 },
        Chunk::Extension { size, .. } if byte == b'\n' => Chunk::Data(size),
        Chunk::Extension { seen, .. } if seen as usize >= LONGEST_HEAD => {
            return wrong("a line that does not end");
        }
        Chunk::Extension { size, seen } => Chunk::Extension { size, seen: seen + 1 },
        Chunk::Data(left) => {
            let count = left.min(bytes.len() as u64);
            let next = if count == left { Chunk::DataEnd } else { Chunk::Data(left - count) };
            return Ok((count as usize, Some(next)));
        }
        Chunk::DataEnd if byte == b'\r' => Chunk::DataEnd,
        Chunk::DataEnd if byte == b'\n' => Chunk::START,
        Chunk::DataEnd => return wrong("no end of a line after the data"),
        Chunk::Trailer { line: 0, .. } if byte == b'\n' => return Ok((1, None)),
        Chunk::Trailer { seen, .. } if seen as usize >= LONGEST_HEAD => {
            return wrong("trailers that do not end");
        }
        Chunk::Trailer { seen, .. } if byte == b'\n' => Chunk::Trailer { line: 0, seen: seen + 1 },
        Chunk::Trailer { line, seen } if byte == b'\r' => Chunk::Trailer { line, seen: seen + 1 },
        Chunk::Trailer { line, seen } => Chunk::Trailer { line: line + 1, seen: seen + 1 },
    };
    Ok((1, Some(next)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fed::tests::ends;
    use super::*;

    /// Replies that are whole, each with its status, whether it is the last, and whether it answers
    /// HEAD.
    const REPLIES: [(&[u8], u16, bool, bool); 10] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, false, false),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\nContent-Length: 2\r\n\r\nok", 200, false, false),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 404, true, false),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, false, false),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, false, false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", 200, false, true),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, true, false),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n\
           HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx", 201, false, false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n\
           3;name=\"x\"\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: y\r\n\r\n", 200, false, false),
        (b"HTTP/1.1 500 No\nTransfer-Encoding: gzip, chunked\nConnection: Keep-Alive\n\n1\nx\n0\n\n",
         500, false, false),
    ];

    #[test]
    fn every_form_of_reply_ends_where_it_should_wherever_it_is_cut() {
        for (reply, status, is_last, is_head) in REPLIES {
            for cut in 1..=reply.len() {
                let mut reader = HttpReader::new(is_head);
                let shown = String::from_utf8_lossy(reply);
                assert_eq!(
                    ends(|it| reader.feed(it), reply, &[cut]),
                    Ok(vec![reply.len()]),
                    "{shown}"
                );
                assert_eq!((reader.status(), reader.is_last()), (status, is_last), "{shown}");
            }
        }
    }

    #[test]
    fn a_reply_without_a_length_ends_with_the_connection() {
        for reply in [
            &b"HTTP/1.0 200 OK\r\n\r\nall"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            let mut reader = HttpReader::new(false);
            assert!(!reader.ends_with_stream());
            assert_eq!(ends(|it| reader.feed(it), reply, &[3]), Ok(vec![]));
            assert!(reader.ends_with_stream() && reader.is_last());
        }
    }

    #[test]
    fn what_is_no_reply_is_said() {
        let long = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'x'; LONGEST_HEAD]].concat();
        let cases: [(&[u8], &str); 7] = [
            (b"SSH-2.0-x\r\n\r\n", "not an HTTP/1.1 reply"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "Content-Length",
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "Content-Length"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "no size"),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1111111111111111\r\n",
                "too large",
            ),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab", "after the data"),
            (&long, "more than 65536 bytes"),
        ];
        for (stream, what) in cases {
            for cut in [1, 7, stream.len()] {
                let mut reader = HttpReader::new(false);
                let error = ends(|it| reader.feed(it), stream, &[cut]).expect_err(what).to_string();
                assert!(error.contains(what), "{error}");
            }
        }
    }

    proptest! {
        #[test]
        fn replies_in_a_row_are_told_apart_however_they_are_cut(
            picks in prop::collection::vec(prop::sample::select(vec![0usize, 1, 3, 4, 7, 8, 9]), 1..8),
            cuts in prop::collection::vec(1usize..60, 1..9),
        ) {
            let (mut stream, mut expected) = (Vec::new(), Vec::new());
            for pick in picks {
                stream.extend_from_slice(REPLIES[pick].0);
                expected.push(stream.len());
            }
            let mut reader = HttpReader::new(false);
            prop_assert_eq!(ends(|it| reader.feed(it), &stream, &cuts), Ok(expected));
        }

        #[test]
        fn whatever_comes_neither_panics_nor_is_kept(
            begin in prop::sample::select(REPLIES.iter().map(|it| it.0).collect::<Vec<_>>()),
            change in (any::<prop::sample::Index>(), any::<u8>()),
            cuts in prop::collection::vec(1usize..9, 1..9),
        ) {
            let mut bytes = begin.to_vec();
            let at = change.0.index(bytes.len());
            bytes[at] = change.1;
            let mut reader = HttpReader::new(false);
            let _ = ends(|it| reader.feed(it), &bytes, &cuts);
        }
    }
}
