//! How a value stands in a log line: the one rule for all of them.
//!
//! A line is words and `key=value` pairs with blanks between them. A value that is a plain word
//! (letters, digits and `._:/@%+-*~[]`) stands as it is, any other in double quotes.
//!
//! Invariant: nothing that a value holds ends it, ends its line, or changes how what stands beside it
//! is read or shown. A backslash is `\\`; line ends and tabs are `\n`, `\r` and `\t`; a byte that is no
//! text is `\x` and two digits. `\u{...}` is a double quote or an equals sign, so that a program which looks
//! for `key=` or for the next quote, and knows nothing of backslashes, finds no other than ours; what
//! nobody sees; and what moves other characters about (controls, bidirectional marks, line separators,
//! joiners, blanks of other widths).

use std::fmt::{self, Display, Write};

/// A value: as it is where it is a plain word, else in quotes.
pub struct Value<T>(pub T);

impl<T: Display> Display for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain = Plain { is_empty: true };
        if write!(plain, "{}", self.0).is_ok() && !plain.is_empty {
            return self.0.fmt(f);
        }
        Quoted(&self.0).fmt(f)
    }
}

/// A value in quotes whatever it is: sentences, and what a peer has written.
pub struct Quoted<T>(pub T);

impl<T: Display> Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write!(Escape::sentence(f), "{}", self.0)?;
        f.write_char('"')
    }
}

/// Bytes in quotes, which may be no text.
pub struct QuotedBytes<'a>(pub &'a [u8]);

impl Display for QuotedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        Escape::sentence(f).write_bytes(self.0)?;
        f.write_char('"')
    }
}

/// One word of a list that stands in quotes already: a blank in it is escaped too, so that it stays
/// one word.
pub struct Word<'a>(pub &'a [u8]);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escape { blanks: true, ..Escape::sentence(f) }.write_bytes(self.0)
    }
}

/// The same for a word that holds pairs of its own, and has a backslash before any other equals sign.
pub struct Pairs<'a>(pub &'a str);

impl Display for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escape { to: f, blanks: true, equals: false }.write_str(self.0)
    }
}

/// A whole line, its quotes left alone: the last guard, for what others have put together.
pub struct Line<T>(pub T);

impl<T: Display> Display for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Unseen(f), "{}", self.0)
    }
}

/// Fails at the first character that a plain word cannot hold.
struct Plain {
    is_empty: bool,
}

impl Write for Plain {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.is_empty &= text.is_empty();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@%+-*~[]".contains(&byte);
        if text.bytes().all(is_plain) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Escapes characters on their way into quotes.
struct Escape<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    /// Whether blanks are escaped.
    blanks: bool,
    /// Whether equals signs are.
    equals: bool,
}

impl<'a, 'f> Escape<'a, 'f> {
    fn sentence(to: &'a mut fmt::Formatter<'f>) -> Self {
        Self { to, blanks: false, equals: true }
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> fmt::Result {
        for chunk in bytes.utf8_chunks() {
            self.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(self.to, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Self { to, blanks, equals } = self;
        write_kept(to, text, |character| match character {
            '"' | '\\' => false,
            ' ' => !*blanks,
            '=' => !*equals,
            other => is_seen(other),
        })
    }
}

/// Escapes what nobody sees, and nothing else.
struct Unseen<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Unseen<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_kept(self.0, text, is_seen)
    }
}

/// Writes a text of which every character is escaped that is not to be kept.
fn write_kept(
    to: &mut fmt::Formatter<'_>,
    text: &str,
    is_kept: impl Fn(char) -> bool,
) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(|character| !is_kept(character)) {
        to.write_str(&rest[..at])?;
        let mut characters = rest[at..].chars();
        match characters.next() {
            Some('\\') => to.write_str("\\\\"),
            Some('\n') => to.write_str("\\n"),
            Some('\r') => to.write_str("\\r"),
            Some('\t') => to.write_str("\\t"),
            Some(other) => write!(to, "{}", other.escape_unicode()),
            None => Ok(()),
        }?;
        rest = characters.as_str();
    }
    to.write_str(rest)
}

/// Whether a character is seen, and leaves its neighbours alone. What the standard library does not
/// show by itself has no glyph, is a blank, or hangs on the character before it.
fn is_seen(character: char) -> bool {
    match character {
        ' '..='~' => true,
        // Letters and a symbol whose glyph is empty.
        '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' => false,
        other => !other.is_ascii() && other.escape_debug().len() == 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a text in quotes back; what is left behind it.
    fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
        let mut bytes = Vec::new();
        let mut rest = text.strip_prefix('"')?.chars();
        let digits = |text: &str| u32::from_str_radix(text, 16).ok();
        loop {
            let (character, after) = (rest.next()?, rest.as_str());
            match character {
                '"' => return Some((bytes, after)),
                '\\' => match rest.next()? {
                    'n' => bytes.push(b'\n'),
                    'r' => bytes.push(b'\r'),
                    't' => bytes.push(b'\t'),
                    'x' => {
                        bytes.push(u8::try_from(digits(rest.as_str().get(..2)?)?).ok()?);
                        rest = rest.as_str()[2..].chars();
                    }
                    'u' => {
                        let (code, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
                        let character = char::from_u32(digits(code)?)?;
                        bytes.extend(character.to_string().bytes());
                        rest = after.chars();
                    }
                    '\\' => bytes.push(b'\\'),
                    _ => return None,
                },
                it => bytes.extend(it.to_string().bytes()),
            }
        }
    }

    #[test]
    fn plain_words_stand_as_they_are_and_others_in_quotes() {
        for word in
            ["gate", "tcp://127.0.0.1:9999", "[2001:db8::1]:80", "hmac-md5", "a@b%eth0", "-"]
        {
            assert_eq!(Value(word).to_string(), word);
        }
        let others = [
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a=b", r#""a\u{3d}b""#),
            ("a\"b\\", r#""a\u{22}b\\""#),
            ("\0\x1b[31m\r\n\t\x7f", r#""\u{0}\u{1b}[31m\r\n\t\u{7f}""#),
            ("\u{85}\u{9b}", r#""\u{85}\u{9b}""#),
            ("\u{202e}\u{2066}\u{200f}\u{61c}", r#""\u{202e}\u{2066}\u{200f}\u{61c}""#),
            (
                "\u{2028}\u{2029}\u{feff}\u{200b}\u{a0}",
                r#""\u{2028}\u{2029}\u{feff}\u{200b}\u{a0}""#,
            ),
            ("\u{ad}\u{2800}\u{3000}\u{e0041}", r#""\u{ad}\u{2800}\u{3000}\u{e0041}""#),
            ("it's José, 亲", "\"it's José, 亲\""),
        ];
        for (value, expected) in others {
            assert_eq!(Value(value).to_string(), expected);
            assert_eq!(Quoted(value).to_string(), expected);
        }
        assert_eq!(QuotedBytes(b"caf\xe9 \xff").to_string(), r#""caf\xe9 \xff""#);
        assert_eq!(Word(b"a b\"\xe9=").to_string(), r#"a\u{20}b\u{22}\xe9\u{3d}"#);
        assert_eq!(Pairs("CN=a b\\=c").to_string(), r"CN=a\u{20}b\\=c");
        assert_eq!(Line("a \"b\"\n\u{202e}").to_string(), r#"a "b"\n\u{202e}"#);
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back_and_ends_nothing(
            value in prop_oneof![any::<String>(), "[ \"\\\\=\\PC\u{80}-\u{9f}\u{2028}-\u{202e}]{0,20}"],
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let line = format!("a={} b={} c", Quoted(&value), QuotedBytes(&bytes));
            prop_assert!(line.chars().all(is_seen), "{line:?}");
            let (read, rest) = unquote(&line[2..]).expect("quoted");
            prop_assert_eq!(read, value.as_bytes());
            let (read, rest) = unquote(&rest[3..]).expect("quoted");
            prop_assert_eq!(read, bytes.clone());
            prop_assert_eq!(rest, " c");
            prop_assert!(!Word(&bytes).to_string().contains([' ', '=', '"']));
            prop_assert_eq!(line.matches('=').count(), 2);
        }
    }
}
