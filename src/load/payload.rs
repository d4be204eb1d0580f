//! What is sent, and what must come back.
//!
//! Requests are numbered. A payload makes the bytes of any number again at any time, so nothing
//! of a request has to be kept while its reply is on the way.
//!
//! This module makes and compares bytes. It does not send or time them.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::escape::{EscapeError, unescape, unquote};
use super::framing::{Framing, Reader, Statuses};

/// What a payload of a given size is made of: every kind of letter, so that `upper` is put to work.
const FILLING: &[u8] = b"the quick brown fox 0123456789 Jumps over.";

/// The bytes of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The same bytes each time.
    Fixed(Vec<u8>),
    /// A text with parts that change.
    Template(Template),
    /// Such a text as the content of an HTTP request, whose head says how long it is.
    Http(Vec<u8>, Template),
}

impl Payload {
    /// Printable text of `size` bytes.
    #[must_use]
    pub fn of_size(size: usize) -> Self {
        Self::Fixed(FILLING.iter().copied().cycle().take(size).collect())
    }

    /// Printable text of `size` bytes that is another for each request: it begins with random digits, by
    /// which a datagram is known again. In less than four bytes there is no room for that.
    #[must_use]
    pub fn numbered(size: usize) -> Self {
        let digits = size.min(16);
        if digits < 4 {
            return Self::of_size(size);
        }
        let text = FILLING.iter().copied().cycle().take(size - digits).collect();
        Self::Template(Template(vec![Part::Random(digits), Part::Text(text)]))
    }

    /// The length of request number 0, which the others have too but for the digits of a counter.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut scratch = Vec::new();
        self.request(0, &mut scratch).len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of request `number`; `scratch` is where they are put if they must be made.
    pub fn request<'a>(&'a self, number: u64, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Template(template) => {
                scratch.clear();
                template.render(number, scratch);
                scratch
            }
            Self::Http(head, content) => {
                scratch.clear();
                content.render(number, scratch);
                let head = [head, format!("{}\r\n\r\n", scratch.len()).as_bytes()].concat();
                scratch.splice(0..0, head);
                scratch
            }
        }
    }
}

/// A text in which `{counter}` stands for the number of the request and `{random:N}` for `N`
/// random hexadecimal digits; `{{` is a brace. [Escapes](super::escape) stand for bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Counter,
    Random(usize),
}

/// A text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// What stands in braces is no part.
    #[error(
        "`{{{0}` is not a part of a template: write {{counter}}, {{random:N}} with N from 1 to \
         4096, or {{{{ for a brace"
    )]
    Part(String),
    /// A backslash means nothing.
    #[error(transparent)]
    Escape(#[from] EscapeError),
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('{') {
                literal.push('{');
                rest = after;
                continue;
            }
            let wrong = || TemplateError::Part(after.chars().take(20).collect());
            let (name, after) = after.split_once('}').ok_or_else(wrong)?;
            let part = match name.split_once(':') {
                None if name == "counter" => Part::Counter,
                Some(("random", digits)) => {
                    let digits = digits.parse().ok().filter(|count| (1..=4096).contains(count));
                    Part::Random(digits.ok_or_else(wrong)?)
                }
                _ => return Err(wrong()),
            };
            if !literal.is_empty() {
                parts.push(Part::Text(unescape(&std::mem::take(&mut literal))?));
            }
            parts.push(part);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(unescape(&literal)?));
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// Whether anything in it changes from request to request.
    fn varies(&self) -> bool {
        self.0.iter().any(|part| !matches!(part, Part::Text(_)))
    }

    /// Random parts depend on the number alone: whoever checks the reply makes the same ones.
    fn render(&self, number: u64, output: &mut Vec<u8>) {
        let mut state = number;
        for part in &self.0 {
            match part {
                Part::Text(text) => output.extend_from_slice(text),
                Part::Counter => output.extend_from_slice(number.to_string().as_bytes()),
                Part::Random(digits) => {
                    for _ in 0..*digits {
                        let digit = split_mix(&mut state) >> 60;
                        output.push(b"0123456789abcdef"[digit as usize]);
                    }
                }
            }
        }
    }
}

/// SplitMix64: one multiplication chain, well mixed, and the same everywhere.
pub(super) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What the reply to a request must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// The request with a-z as A-Z.
    Upper,
    /// The request.
    Echo,
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes of any kind.
    Size(usize),
    /// Whatever comes: the first bytes are taken for the whole reply.
    Any,
    /// Nothing: a request is done when the kernel has taken it.
    None,
    /// Bytes of any kind, whose end is known by this.
    Framed(Framing),
}

/// A text says no expectation.
#[derive(Debug, thiserror::Error)]
pub enum ExpectationError {
    /// Not one of the forms.
    #[error(
        "`{0}` is none of upper, echo, text:TEXT, bytes:FILE, size:N (bytes, N from 1), \
         until:MARK, length:TYPE, http, idle:DURATION, any, none"
    )]
    Unknown(String),
    /// One of the forms, with something wrong in it.
    #[error("{0}")]
    Wrong(String),
    /// The file of `bytes:FILE`.
    #[error("the reply in {} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The file holds nothing.
    #[error("the reply in {0} is empty; a service that answers nothing is `none`")]
    Empty(String),
}

impl FromStr for Expectation {
    type Err = ExpectationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ExpectationError::Unknown(text.to_owned());
        match text.split_once(':') {
            None if text == "upper" => Ok(Self::Upper),
            None if text == "echo" => Ok(Self::Echo),
            None if text == "any" => Ok(Self::Any),
            None if text == "none" => Ok(Self::None),
            Some(("size", size)) => {
                let size = size.parse().ok().filter(|size| *size > 0);
                size.map(Self::Size).ok_or_else(unknown)
            }
            Some(("bytes", path)) => {
                let path = PathBuf::from(path);
                match fs::read(&path) {
                    Ok(bytes) if bytes.is_empty() => {
                        Err(ExpectationError::Empty(path.display().to_string()))
                    }
                    Ok(bytes) => Ok(Self::Bytes(bytes)),
                    Err(reason) => Err(ExpectationError::Unreadable { path, reason }),
                }
            }
            Some(("text", text)) => match unquote(text) {
                Ok(bytes) if bytes.is_empty() => Err(ExpectationError::Empty("text:".to_owned())),
                Ok(bytes) => Ok(Self::Bytes(bytes)),
                Err(error) => Err(ExpectationError::Wrong(error.to_string())),
            },
            Some(("until" | "length" | "idle" | "http", _)) => {
                text.parse().map(Self::Framed).map_err(ExpectationError::Wrong)
            }
            None if text == "http" => Ok(Self::Framed(Framing::Http(Statuses::default()))),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upper => f.write_str("upper"),
            Self::Echo => f.write_str("echo"),
            Self::Bytes(bytes) => write!(f, "{} given bytes", bytes.len()),
            Self::Size(size) => write!(f, "size:{size}"),
            Self::Any => f.write_str("any"),
            Self::None => f.write_str("none"),
            Self::Framed(framing) => framing.fmt(f),
        }
    }
}

/// What is sent and what must come back, ready for use.
#[derive(Clone, Debug)]
pub struct Exchange {
    payload: Payload,
    expectation: Expectation,
    /// The reply, where it is the same for every request.
    reply: Option<Vec<u8>>,
}

/// The reply to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many.
    Length(usize),
    /// The next that come, however many.
    Anything,
    /// Bytes of which a [`Reader`] says where they end.
    Framed,
}

impl Exchange {
    /// Works out what can be known beforehand.
    #[must_use]
    pub fn new(payload: Payload, expectation: Expectation) -> Self {
        let reply = match (&expectation, &payload) {
            (Expectation::Bytes(bytes), _) => Some(bytes.clone()),
            (Expectation::Echo, Payload::Fixed(request)) => Some(request.clone()),
            (Expectation::Upper, Payload::Fixed(request)) => Some(request.to_ascii_uppercase()),
            _ => None,
        };
        Self { payload, expectation, reply }
    }

    /// What is sent.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// What must come back.
    #[must_use]
    pub fn expectation(&self) -> &Expectation {
        &self.expectation
    }

    /// Whether a request is done without a reply.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.expectation == Expectation::None
    }

    /// Whether each request has a reply of its own, by which it is known.
    #[must_use]
    pub fn replies_differ(&self) -> bool {
        let echoes = matches!(self.expectation, Expectation::Upper | Expectation::Echo);
        echoes && matches!(&self.payload, Payload::Template(template) if template.varies())
    }

    /// Says where replies end, where their length is not known beforehand.
    #[must_use]
    pub fn reader(&self) -> Option<Reader> {
        let Expectation::Framed(framing) = &self.expectation else { return None };
        let mut scratch = Vec::new();
        let is_head = self.payload.request(0, &mut scratch).starts_with(b"HEAD ");
        Some(Reader::new(framing, is_head))
    }

    /// What is wrong with the status of a reply, where one must be right.
    #[must_use]
    pub fn refuses(&self, status: u16) -> Option<String> {
        match &self.expectation {
            Expectation::Framed(Framing::Http(statuses)) if !statuses.contain(status) => {
                Some(format!("the status is {status}, and should be {statuses}"))
            }
            _ => None,
        }
    }

    /// How long nothing must come for a reply to be over, where that is how it ends.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        match self.expectation {
            Expectation::Framed(Framing::Idle(silence)) => Some(silence),
            _ => None,
        }
    }

    /// Whether a server may be one that speaks first, which is worth waiting for: a greeting that
    /// was taken for the first reply would shift all others.
    #[must_use]
    pub fn may_be_greeted(&self) -> bool {
        matches!(self.expectation, Expectation::Framed(Framing::Until(_)))
    }

    /// The reply to request `number`; `scratch` is where it is put if it must be made.
    pub fn reply<'a>(&'a self, number: u64, scratch: &'a mut Vec<u8>) -> Expected<'a> {
        if let Some(reply) = &self.reply {
            return Expected::Bytes(reply);
        }
        match &self.expectation {
            Expectation::Size(size) => Expected::Length(*size),
            Expectation::Upper | Expectation::Echo => {
                self.payload.request(number, scratch);
                if self.expectation == Expectation::Upper {
                    scratch.make_ascii_uppercase();
                }
                Expected::Bytes(scratch)
            }
            Expectation::Framed(_) => Expected::Framed,
            Expectation::Bytes(_) | Expectation::Any | Expectation::None => Expected::Anything,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_makes_the_same_bytes_of_a_number_again() {
        let template: Template = "get {{{counter} {random:6}!".parse().expect("well formed");
        let payload = Payload::Template(template);
        let bytes = |number| payload.request(number, &mut Vec::new()).to_vec();
        let first = bytes(7);
        assert!(first.starts_with(b"get {7 ") && first.ends_with(b"!"));
        assert_eq!(first.len(), "get {7 ".len() + 6 + 1);
        assert_eq!(bytes(7), first);
        assert_ne!(bytes(7)[7..], bytes(8)[7..]);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let escaped: Template = r"{counter}\r\n".parse().expect("well formed");
        assert_eq!(Payload::Template(escaped).request(3, &mut Vec::new()), b"3\r\n");
        for text in ["{", "{count}", "{random}", "{random:0}", "{random:x}", "{counter"] {
            let error = text.parse::<Template>().expect_err(text).to_string();
            assert!(error.contains("write {counter}, {random:N}"), "{error}");
        }
    }

    #[test]
    fn each_expectation_is_read() {
        let cases = [
            ("upper", Expectation::Upper),
            ("echo", Expectation::Echo),
            ("size:5", Expectation::Size(5)),
            ("any", Expectation::Any),
            ("none", Expectation::None),
        ];
        for (text, expectation) in cases {
            assert_eq!(text.parse::<Expectation>().expect(text), expectation);
        }
        let text = r"text:'+PONG\r\n'".parse::<Expectation>().expect("well formed");
        assert_eq!(text, Expectation::Bytes(b"+PONG\r\n".to_vec()));
        let until = r#"until:"\r\n""#.parse::<Expectation>().expect("well formed");
        assert_eq!(until, Expectation::Framed(Framing::Until(b"\r\n".to_vec())));
        assert_eq!("http".parse::<Expectation>().expect("well formed").to_string(), "http");
        let wrong = ["", "Upper", "size", "size:0", "size:-1", "bytes:/does/not/exist", "http:x"];
        for text in wrong.into_iter().chain(["text:", r"text:\q", "until:", "idle:x", "length:"]) {
            assert!(text.parse::<Expectation>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_expected_reply_follows_from_the_request() {
        let fixed = Payload::Fixed(b"aB1".to_vec());
        let counted = Payload::Template("n{counter}".parse().expect("well formed"));
        let reply = |payload: &Payload, expectation| {
            let exchange = Exchange::new(payload.clone(), expectation);
            match exchange.reply(12, &mut Vec::new()) {
                Expected::Bytes(bytes) => bytes.to_vec(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reply(&fixed, Expectation::Upper), b"AB1");
        assert_eq!(reply(&fixed, Expectation::Echo), b"aB1");
        assert_eq!(reply(&counted, Expectation::Upper), b"N12");
        assert_eq!(reply(&counted, Expectation::Echo), b"n12");
        assert_eq!(reply(&counted, Expectation::Bytes(b"ok".to_vec())), b"ok");
    }
}
