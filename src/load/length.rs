//! Replies that say their own length, as `--expect length:...` describes it.
//!
//! ```text
//! length:TYPE[@OFFSET][+MORE | -LESS | ,all]
//! ```
//!
//! `TYPE` is how the length is written (`u8`, `u16be`, `u16le`, `u24be`, `u24le`, `u32be`, `u32le`,
//! `u64be`, `u64le`), and `OFFSET` how many bytes come before it. It counts the bytes that follow
//! it; `+MORE` and `-LESS` correct that (a length that counts its own four bytes is `-4`), and
//! `,all` says that it counts the whole reply from its first byte.

use std::fmt;
use std::str::FromStr;

use super::fed::{Fed, Malformed};

/// The furthest that a length may stand from the beginning, and the furthest that it may be
/// corrected, in bytes.
const FURTHEST: u16 = 4096;

/// The longest reply that is believed in, in bytes: beyond it, the field is not where it is looked
/// for.
const LONGEST: u64 = 1 << 40;

/// Where the length stands in a reply, and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthField {
    width: u8,
    is_little: bool,
    offset: u16,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    /// What follows the field, but for so many bytes.
    Following(i32),
    /// All.
    All,
}

impl FromStr for LengthField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "`length:{text}` is not length:TYPE[@OFFSET][+MORE | -LESS | ,all], where TYPE is \
                 u8 or one of u16, u24, u32 and u64 with be or le, as in length:u32be@1-4, and no \
                 number is above {FURTHEST}"
            )
        };
        let (text, counts) = match text.strip_suffix(",all") {
            Some(rest) => (rest, Counts::All),
            None => match text.find(['+', '-']) {
                Some(at) => {
                    let number = number(&text[at + 1..]).map(i32::from).ok_or_else(wrong)?;
                    let correction = if text[at..].starts_with('-') { -number } else { number };
                    (&text[..at], Counts::Following(correction))
                }
                None => (text, Counts::Following(0)),
            },
        };
        let (kind, offset) = match text.split_once('@') {
            Some((kind, offset)) => (kind, number(offset).ok_or_else(wrong)?),
            None => (text, 0),
        };
        let (bits, order) = kind.split_at(kind.find(['b', 'l']).unwrap_or(kind.len()));
        let width = match (bits, order) {
            ("u8", "") => 1,
            ("u16", "be" | "le") => 2,
            ("u24", "be" | "le") => 3,
            ("u32", "be" | "le") => 4,
            ("u64", "be" | "le") => 8,
            _ => return Err(wrong()),
        };
        Ok(Self { width, is_little: order == "le", offset, counts })
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number <= FURTHEST)
}

impl fmt::Display for LengthField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}", 8 * u32::from(self.width))?;
        match (self.width, self.is_little) {
            (1, _) => {}
            (_, true) => f.write_str("le")?,
            (_, false) => f.write_str("be")?,
        }
        if self.offset > 0 {
            write!(f, "@{}", self.offset)?;
        }
        match self.counts {
            Counts::Following(0) => Ok(()),
            Counts::Following(correction) => write!(f, "{correction:+}"),
            Counts::All => f.write_str(",all"),
        }
    }
}

impl LengthField {
    /// How many bytes come up to the end of the field.
    fn end(self) -> u64 {
        u64::from(self.offset) + u64::from(self.width)
    }

    /// The length of the whole reply where the field says `value`.
    fn total(self, value: u64) -> Result<u64, Malformed> {
        let total = match self.counts {
            Counts::All => Some(value),
            Counts::Following(correction) => {
                (self.end() + value.min(LONGEST)).checked_add_signed(correction.into())
            }
        };
        total.filter(|total| value <= LONGEST && (self.end()..=LONGEST).contains(total)).ok_or_else(
            || {
                Malformed(format!(
                    "the length in the reply is {value}, which cannot be; does it stand where \
                 --expect length:{self} says?"
                ))
            },
        )
    }
}

/// One connection's place in such replies.
#[derive(Debug)]
pub struct LengthReader {
    field: LengthField,
    received: u64,
    value: u64,
}

impl LengthReader {
    pub(super) fn new(field: LengthField) -> Self {
        Self { field, received: 0, value: 0 }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Fed, Malformed> {
        let mut taken = 0;
        while self.received < self.field.end() {
            let Some(&byte) = bytes.get(taken) else { return Ok(Fed { taken, is_whole: false }) };
            if let Some(place) = self.received.checked_sub(self.field.offset.into()) {
                self.value = if self.field.is_little {
                    self.value | u64::from(byte) << (8 * place)
                } else {
                    self.value << 8 | u64::from(byte)
                };
            }
            self.received += 1;
            taken += 1;
        }
        let left = self.field.total(self.value)? - self.received;
        let count = left.min((bytes.len() - taken) as u64);
        self.received += count;
        taken += count as usize;
        let is_whole = count == left;
        if is_whole {
            (self.received, self.value) = (0, 0);
        }
        Ok(Fed { taken, is_whole })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fed::tests::ends;
    use super::*;

    fn read(text: &str, stream: &[u8], cuts: &[usize]) -> Result<Vec<usize>, Malformed> {
        let mut reader = LengthReader::new(text.parse().expect(text));
        ends(|bytes| reader.feed(bytes), stream, cuts)
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for text in [
            "",
            "u16",
            "u8be",
            "u16xe",
            "u32be@",
            "u32be@x",
            "u32be@5000",
            "u16be+",
            "u16be,some",
            "u16be-9999",
        ] {
            assert!(text.parse::<LengthField>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_length_counts_what_it_says() {
        let cases: [(&str, &[u8]); 6] = [
            ("u8", b"\x02ab"),
            ("u16be", b"\x00\x02ab"),
            ("u16le", b"\x02\x00ab"),
            ("u32be@1-4", b"Z\x00\x00\x00\x06ab"),
            ("u24le@2,all", b"xx\x07\x00\x00ab"),
            ("u64be+1", b"\x00\x00\x00\x00\x00\x00\x00\x01ab"),
        ];
        for (text, reply) in cases {
            let stream = [reply, reply].concat();
            let expected = vec![reply.len(), 2 * reply.len()];
            for cut in 1..=stream.len() {
                assert_eq!(read(text, &stream, &[cut]), Ok(expected.clone()), "{text}");
            }
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_said() {
        for (text, bytes) in [("u8,all", &b"\x00"[..]), ("u8-4", b"\x03"), ("u64be", &[0xff; 8])] {
            let error = read(text, bytes, &[bytes.len()]).expect_err(text).to_string();
            assert!(error.contains("which cannot be"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_reply_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(1usize..9, 1..9),
            text in prop::sample::select(vec!["u8", "u16be@3-5", "u32le,all", "u64le+4096"]),
        ) {
            let at_once = read(text, &bytes, &[bytes.len()]);
            prop_assert_eq!(read(text, &bytes, &cuts), at_once);
        }
    }
}
