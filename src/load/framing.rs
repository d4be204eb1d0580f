//! Where a reply ends whose length nobody knows beforehand.
//!
//! A [`Framing`] is what is asked for; a [`Reader`] is one connection's place in it. A reader is fed
//! what has come, in pieces of any size, and says how much of it belongs to the reply and whether
//! that is all. It keeps no reply: its memory is that of a few counters, and of an HTTP head that
//! comes in pieces.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::escape::unquote;
use super::fed::{Fed, Malformed};
use super::http::HttpReader;
use super::length::{LengthField, LengthReader};
use crate::config::units::{parse_duration, show_duration};

/// The longest mark that can end a reply, in bytes.
const LONGEST_MARK: usize = 64;

/// The longest silence that can end a reply.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// The statuses of HTTP that are right: from one to another, several times; any where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// Whether `status` is right.
    #[must_use]
    pub fn contain(&self, status: u16) -> bool {
        self.0.is_empty() || self.0.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }
}

impl FromStr for Statuses {
    type Err = String;

    /// Reads `200`, `2xx`, or several of these with commas between.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let one = |word: &str| {
            let (from, to) = match word.strip_suffix("xx") {
                Some(class) => (format!("{class}00"), format!("{class}99")),
                None => (word.to_owned(), word.to_owned()),
            };
            let range = (from.parse().ok()?, to.parse().ok()?);
            Some(range).filter(|(from, to)| (100..=999).contains(from) && *to <= 999)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(one).collect();
        ranges
            .map(Self)
            .ok_or_else(|| format!("`http:{text}` is not http, http:200 or http:2xx,304"))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (from, to)) in self.0.iter().enumerate() {
            f.write_str(if place > 0 { "," } else { "" })?;
            if from == to { write!(f, "{from}")? } else { write!(f, "{}xx", from / 100)? }
        }
        Ok(())
    }
}

/// How the end of a reply is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By these bytes, which belong to it.
    Until(Vec<u8>),
    /// By a length that it contains.
    Length(LengthField),
    /// By the rules of HTTP/1.1 (RFC 9112); its status must be one of these.
    Http(Statuses),
    /// By nothing having come for so long.
    Idle(Duration),
}

impl FromStr for Framing {
    type Err = String;

    /// Reads `until:MARK`, `length:...`, `http` or `idle:DURATION`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "http" if text == "http" => Ok(Self::Http(Statuses::default())),
            "http" => rest.parse().map(Self::Http),
            "until" => {
                let mark = unquote(rest).map_err(|error| error.to_string())?;
                if (1..=LONGEST_MARK).contains(&mark.len()) {
                    return Ok(Self::Until(mark));
                }
                Err(format!(
                    "`{text}`: a mark has 1 to {LONGEST_MARK} bytes, as in until:\"\\r\\n\""
                ))
            }
            "length" => rest.parse().map(Self::Length),
            "idle" => {
                let silence = parse_duration(rest).map_err(|error| error.to_string())?;
                if !silence.is_zero() && silence <= LONGEST_SILENCE {
                    return Ok(Self::Idle(silence));
                }
                let longest = show_duration(LONGEST_SILENCE);
                Err(format!("`{text}`: a silence is from 1ms to {longest}, as in idle:50ms"))
            }
            _ => Err(format!("`{text}` is none of until:MARK, length:TYPE, http, idle:DURATION")),
        }
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until(mark) => write!(f, "until:\"{}\"", mark.escape_ascii()),
            Self::Length(field) => write!(f, "length:{field}"),
            Self::Http(statuses) if statuses.0.is_empty() => f.write_str("http"),
            Self::Http(statuses) => write!(f, "http:{statuses}"),
            Self::Idle(silence) => write!(f, "idle:{}", show_duration(*silence)),
        }
    }
}

/// Where one connection is in its replies.
#[derive(Debug)]
pub enum Reader {
    /// Looks for a mark.
    Until(MarkReader),
    /// Counts.
    Length(LengthReader),
    /// Reads HTTP.
    Http(Box<HttpReader>),
    /// Takes all; how long nothing has come is another's to know.
    Idle,
}

impl Reader {
    /// A reader of replies; `is_head` where the requests are HTTP's HEAD, whose replies have no
    /// content.
    #[must_use]
    pub fn new(framing: &Framing, is_head: bool) -> Self {
        match framing {
            Framing::Until(mark) => Self::Until(MarkReader::new(mark)),
            Framing::Length(field) => Self::Length(LengthReader::new(*field)),
            Framing::Http(_) => Self::Http(Box::new(HttpReader::new(is_head))),
            Framing::Idle(_) => Self::Idle,
        }
    }

    /// Takes of `bytes` what belongs to the reply. After a whole one it is ready for the next.
    ///
    /// # Errors
    /// What came cannot be a reply.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Fed, Malformed> {
        match self {
            Self::Until(reader) => Ok(reader.feed(bytes)),
            Self::Length(reader) => reader.feed(bytes),
            Self::Http(reader) => reader.feed(bytes),
            Self::Idle => Ok(Fed { taken: bytes.len(), is_whole: false }),
        }
    }

    /// Whether a reply of which `received` bytes have come is whole because the stream has ended.
    #[must_use]
    pub fn ends_with_stream(&self, received: usize) -> bool {
        match self {
            Self::Until(_) | Self::Length(_) => false,
            Self::Http(reader) => reader.ends_with_stream(),
            Self::Idle => received > 0,
        }
    }

    /// The status of the reply that was read last, where replies have one.
    #[must_use]
    pub fn status(&self) -> u16 {
        if let Self::Http(reader) = self { reader.status() } else { 0 }
    }

    /// Whether the last reply said that it is the connection's last.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Http(reader) if reader.is_last())
    }
}

/// Looks for a mark, whose bytes may come in pieces (Knuth, Morris and Pratt's way).
#[derive(Debug)]
pub struct MarkReader {
    mark: Vec<u8>,
    /// For each length of a matched beginning of the mark: the longest shorter beginning of the mark
    /// with which it ends.
    shorter: Vec<u8>,
    matched: usize,
}

impl MarkReader {
    fn new(mark: &[u8]) -> Self {
        let mut shorter = vec![0; mark.len() + 1];
        let mut length = 0;
        for at in 1..mark.len() {
            while length > 0 && mark[at] != mark[length] {
                length = shorter[length] as usize;
            }
            length += usize::from(mark[at] == mark[length]);
            shorter[at + 1] = length as u8;
        }
        Self { mark: mark.to_vec(), shorter, matched: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) -> Fed {
        for (at, &byte) in bytes.iter().enumerate() {
            while self.matched > 0 && byte != self.mark[self.matched] {
                self.matched = self.shorter[self.matched] as usize;
            }
            self.matched += usize::from(byte == self.mark[self.matched]);
            if self.matched == self.mark.len() {
                self.matched = 0;
                return Fed { taken: at + 1, is_whole: true };
            }
        }
        Fed { taken: bytes.len(), is_whole: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fed::tests::ends;
    use super::*;

    #[test]
    fn each_framing_is_read_and_printed() {
        for text in [
            "until:\"\\r\\n\"",
            "http",
            "http:200",
            "http:2xx,304",
            "idle:50ms",
            "length:u16be",
            "length:u32le@4-4",
        ] {
            assert_eq!(text.parse::<Framing>().expect(text).to_string(), text);
        }
        let long = format!("until:{}", "x".repeat(65));
        for text in [
            "until:",
            "until",
            "http:1",
            "http:",
            "http:20x",
            "http:xx",
            "http:9xxx",
            "idle:",
            "idle:0s",
            "idle:2h",
            &long,
        ] {
            assert!(text.parse::<Framing>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_mark_that_begins_like_itself_is_found() {
        let mut reader = Reader::new(&Framing::Until(b"aab".to_vec()), false);
        assert_eq!(ends(|it| reader.feed(it), b"aaabxaab", &[1]), Ok(vec![4, 8]));
    }

    proptest! {
        #[test]
        fn a_mark_is_found_wherever_the_pieces_are_cut(
            mark in prop::collection::vec(0u8..3, 1..6),
            stream in prop::collection::vec(0u8..3, 0..200),
            cuts in prop::collection::vec(1usize..9, 1..9),
        ) {
            let (mut expected, mut from) = (Vec::new(), 0);
            while let Some(at) = stream[from..].windows(mark.len()).position(|it| it == mark) {
                from += at + mark.len();
                expected.push(from);
            }
            let mut reader = Reader::new(&Framing::Until(mark), false);
            prop_assert_eq!(ends(|it| reader.feed(it), &stream, &cuts), Ok(expected));
        }
    }
}
