//! PEM (RFC 7468, and RFC 1421 for its headers): the blocks of a file, every one of them.
//!
//! Text around blocks is passed over, as OpenSSL passes it over. What looks like a block and is none
//! is an error that names its line: nothing that was meant to count is left out silently. Read is
//! also what OpenSSL refuses and others write: blocks that are not separated by a line ending, and
//! blocks on a single line.
//!
//! Invariant: the bytes of a block may be a key, so they are wiped when dropped and never quoted.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// What a byte order mark is in UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// The base64 of RFC 4648; like OpenSSL it does not look at the bits that are left over.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// One block.
#[derive(Debug)]
pub struct Block {
    /// What it says that it is, such as `CERTIFICATE`.
    pub label: String,
    /// What is in it.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The line that it begins on, from 1.
    pub line: usize,
    /// Whether its headers say that what is in it is encrypted.
    pub is_encrypted: bool,
}

/// A text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// It is in another encoding.
    #[error("it is saved as UTF-16")]
    Utf16,
    /// It is DER, or what is built from it.
    #[error("it is {0}, and not PEM")]
    Binary(&'static str),
    /// A line is not what it should be.
    #[error("{what} on line {line}")]
    Line {
        /// What is wrong.
        what: String,
        /// The line, from 1.
        line: usize,
    },
}

impl PemError {
    /// What would be right.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Utf16 => "save it as UTF-8, or as plain text",
            Self::Binary(PKCS12) => {
                "take it apart: `openssl pkcs12 -in FILE -nodes -out FILE.pem`, and guard the result"
            }
            Self::Binary(_) => {
                "convert it: `openssl x509 -inform DER -in FILE -out FILE.pem`, with `crl` or `pkey` \
                 for a list or a key"
            }
            Self::Line { .. } => {
                "each block is a line -----BEGIN ...-----, lines of base64, and a line -----END \
                 ...-----"
            }
        }
    }
}

const PKCS12: &str = "a PKCS#12 file (.p12, .pfx)";

/// All blocks of a text, in their order; none where it has none.
///
/// # Errors
/// What is wrong with it first.
pub fn read(text: &[u8]) -> Result<Vec<Block>, PemError> {
    reject_binary(text)?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut reader = Reader { blocks: Vec::new(), open: None };
    let mut line = 1;
    let mut rest = text;
    loop {
        let end = rest.iter().position(|byte| b"\r\n".contains(byte));
        reader.line(&rest[..end.unwrap_or(rest.len())], line)?;
        let Some(end) = end else { break };
        let is_pair = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + if is_pair { 2 } else { 1 }..];
        line += 1;
    }
    match reader.open {
        None => Ok(reader.blocks),
        Some(open) => Err(wrong(format!("the {} that begins has no end", open.name()), open.line)),
    }
}

/// Whether the text is in UTF-16, as some editors save it.
#[must_use]
pub fn is_utf16(text: &[u8]) -> bool {
    let is_marked = text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff");
    let zeros = |odd: usize| text.len() >= 4 && text.iter().skip(odd).step_by(2).all(|it| *it == 0);
    let ascii = |odd: usize| text.iter().skip(odd).step_by(2).all(|it| (1..0x80).contains(it));
    is_marked && text.len().is_multiple_of(2) && text.contains(&0)
        || zeros(0) && ascii(1)
        || zeros(1) && ascii(0)
}

fn reject_binary(text: &[u8]) -> Result<(), PemError> {
    if is_utf16(text) {
        return Err(PemError::Utf16);
    }
    // A SEQUENCE with its length in more bytes than one.
    if text.first() == Some(&0x30) && text.get(1).is_some_and(|len| len & 0x80 != 0) {
        // Those of PKCS#12 begin with their version, 3.
        let is_pkcs12 = text.windows(3).take(8).any(|bytes| bytes == [2, 1, 3]);
        return Err(PemError::Binary(if is_pkcs12 { PKCS12 } else { "DER" }));
    }
    Ok(())
}

fn wrong(what: impl Into<String>, line: usize) -> PemError {
    PemError::Line { what: what.into(), line }
}

struct Reader {
    blocks: Vec<Block>,
    open: Option<Open>,
}

/// A block that has begun.
struct Open {
    label: String,
    line: usize,
    base64: Zeroizing<Vec<u8>>,
    has_headers: bool,
    is_in_headers: bool,
    is_encrypted: bool,
}

impl Reader {
    /// Reads a line, which may hold the end of one block and the beginning of the next.
    fn line(&mut self, mut rest: &[u8], line: usize) -> Result<(), PemError> {
        loop {
            let left = match &mut self.open {
                None => self.outside(rest, line)?,
                Some(open) => match find(rest, DASHES) {
                    None => return open.data(rest, line),
                    Some(at) => {
                        open.data(&rest[..at], line)?;
                        let left = open.end(&rest[at..], line)?;
                        let open = self.open.take().expect("it was open just now");
                        self.blocks.push(open.decode()?);
                        Some(left)
                    }
                },
            };
            match left {
                Some(left) => rest = left,
                None => return Ok(()),
            }
        }
    }

    /// What follows the beginning of a block on this line, where one begins here.
    fn outside<'t>(&mut self, rest: &'t [u8], line: usize) -> Result<Option<&'t [u8]>, PemError> {
        let begin = find(rest, BEGIN);
        if find(rest, END).is_some_and(|end| begin.is_none_or(|begin| end < begin)) {
            return Err(wrong("a block ends that has not begun", line));
        }
        let Some(begin) = begin else {
            return if is_nearly(rest) { Err(not_whole(line)) } else { Ok(None) };
        };
        let (label, left) = label(&rest[begin + BEGIN.len()..]).ok_or_else(|| not_whole(line))?;
        self.open = Some(Open {
            label,
            line,
            base64: Zeroizing::new(Vec::new()),
            has_headers: false,
            is_in_headers: false,
            is_encrypted: false,
        });
        Ok(Some(left))
    }
}

impl Open {
    fn name(&self) -> String {
        format!("block {}", self.label)
    }

    /// A line of headers or of base64, or a part of one.
    fn data(&mut self, data: &[u8], line: usize) -> Result<(), PemError> {
        let data = data.trim_ascii();
        if self.is_in_headers {
            self.is_in_headers = !data.is_empty();
            self.is_encrypted |= is_encryption(data);
            return Ok(());
        }
        if data.contains(&b':') && self.base64.is_empty() && !self.has_headers {
            (self.has_headers, self.is_in_headers) = (true, true);
            self.is_encrypted |= is_encryption(data);
            return Ok(());
        }
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        if !data.iter().all(|&byte| is_base64(byte) || byte.is_ascii_whitespace()) {
            return Err(wrong("what stands there is not base64", line));
        }
        // A vector that grows leaves copies behind that nobody wipes.
        let mut longer = Zeroizing::new(Vec::with_capacity(self.base64.len() + data.len()));
        if self.base64.capacity() < self.base64.len() + data.len() {
            longer.reserve(2 * self.base64.capacity());
            longer.extend_from_slice(&self.base64);
            self.base64 = longer;
        }
        self.base64.extend(data.iter().filter(|byte| !byte.is_ascii_whitespace()));
        Ok(())
    }

    /// What follows the end of this block, which `rest` must begin with.
    fn end<'t>(&self, rest: &'t [u8], line: usize) -> Result<&'t [u8], PemError> {
        if rest.starts_with(BEGIN) {
            let what = format!(
                "the {} of line {} has no end, and the next begins",
                self.name(),
                self.line
            );
            return Err(wrong(what, line));
        }
        let (label, left) =
            rest.strip_prefix(END).and_then(label).ok_or_else(|| not_whole(line))?;
        if label == self.label {
            return Ok(left);
        }
        let what = format!("the {} of line {} ends as {label}", self.name(), self.line);
        Err(wrong(what, line))
    }

    fn decode(self) -> Result<Block, PemError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.base64.len()));
        let decoded = BASE64.decode_vec(&*self.base64, &mut bytes);
        if decoded.is_err() || bytes.is_empty() {
            let what = format!("the {} is damaged (its base64 does not add up)", self.name());
            return Err(wrong(what, self.line));
        }
        let Self { label, line, is_encrypted, .. } = self;
        Ok(Block { label, bytes, line, is_encrypted })
    }
}

/// The label that `text` begins with, up to its dashes, and what follows them.
fn label(text: &[u8]) -> Option<(String, &[u8])> {
    let end = find(text, DASHES)?;
    let (label, left) = (&text[..end], &text[end + DASHES.len()..]);
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b" .#".contains(byte);
    let is_label = !label.is_empty() && label.len() <= 64 && label.iter().all(is_word);
    is_label.then(|| (String::from_utf8_lossy(label).into_owned(), left))
}

fn not_whole(line: usize) -> PemError {
    wrong("what should begin or end a block is not written as it must be", line)
}

fn is_encryption(header: &[u8]) -> bool {
    header.starts_with(b"Proc-Type:") && find(header, b"ENCRYPTED").is_some()
}

/// Whether a line was surely meant to begin or end a block: too few dashes, or others than those.
fn is_nearly(line: &[u8]) -> bool {
    const KINDS: [&str; 6] = ["CERTIFICATE", " KEY", " CRL", "PKCS7", "PARAMETERS", "CMS"];
    let line = String::from_utf8_lossy(line).to_uppercase();
    let words = line.trim_matches(|character: char| !character.is_alphanumeric());
    let before = line.split(words).next().unwrap_or_default();
    let is_dash =
        |character: char| character == '-' || ('\u{2010}'..='\u{2015}').contains(&character);
    before.chars().filter(|&character| is_dash(character)).count() >= 2
        && (words.starts_with("BEGIN ") || words.starts_with("END "))
        && KINDS.iter().any(|kind| words.contains(kind))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nMAMC\nAQE=\n-----END CERTIFICATE-----\n";
    const BYTES: [u8; 5] = [0x30, 3, 2, 1, 1];

    fn labels(text: impl AsRef<[u8]>) -> Result<Vec<(String, usize)>, String> {
        match read(text.as_ref()) {
            Ok(blocks) => {
                for block in &blocks {
                    assert_eq!(*block.bytes, BYTES);
                }
                Ok(blocks.into_iter().map(|block| (block.label, block.line)).collect())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_block_is_found_however_it_is_written() {
        let one = |line| ("CERTIFICATE".to_owned(), line);
        let cases = [
            (ONE.to_owned(), vec![one(1)]),
            (format!("\u{feff}{ONE}"), vec![one(1)]),
            (ONE.replace('\n', "\r\n"), vec![one(1)]),
            (ONE.replace('\n', "\r"), vec![one(1)]),
            (ONE.replace('\n', " \t\n"), vec![one(1)]),
            (ONE.replace('\n', ""), vec![one(1)]),
            (ONE.replace("MC\n", "\nMC"), vec![one(1)]),
            (ONE.replace("MAMC\n", "M A M\n\nC"), vec![one(1)]),
            (ONE.trim_end().repeat(2), vec![one(1), one(4)]),
            (format!("{ONE}\u{feff}{ONE}"), vec![one(1), one(5)]),
            (format!("subject=CN=a\n{ONE}---\n -- the end --\n{ONE}"), vec![one(2), one(8)]),
            (ONE.replace("MAMC", "Comment: a\nmore: b\n\nMAMC"), vec![one(1)]),
            (ONE.replace("CERTIFICATE", "X509 CRL"), vec![("X509 CRL".to_owned(), 1)]),
            ("nothing\n".to_owned(), vec![]),
            (String::new(), vec![]),
        ];
        for (text, expected) in cases {
            assert_eq!(labels(&text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn nothing_that_was_meant_to_be_a_block_is_passed_over() {
        let cases = [
            (ONE.replace("MC\n", "M!\n"), "not base64 on line 2"),
            (ONE.replace("AQE=", "AQE"), "is damaged (its base64 does not add up) on line 1"),
            (ONE.replace("MAMC\nAQE=\n", ""), "is damaged (its base64 does not add up) on line 1"),
            (format!("{ONE}{}", &ONE[..38]), "begins has no end on line 5"),
            (format!("{}{ONE}", &ONE[..33]), "the next begins on line 3"),
            (ONE.replace("END CERT", "END PRIV"), "ends as PRIVIFICATE on line 4"),
            (ONE.replace("-----BEGIN", "----BEGIN"), "not written as it must be on line 1"),
            (ONE.replace("-----BEGIN", "———BEGIN"), "not written as it must be on line 1"),
            (ONE.replace("BEGIN", "begin"), "not written as it must be on line 1"),
            (ONE.replace("CERTIFICATE-----\nM", "CERTIFICATE----\nM"), "as it must be on line 1"),
            (ONE.replace("-----END", "----END"), "not base64 on line 4"),
            (ONE[28..].to_owned(), "a block ends that has not begun on line 3"),
            ("---- BEGIN SSH2 PUBLIC KEY ----\n".to_owned(), "as it must be on line 1"),
        ];
        for (text, expected) in cases {
            let error = labels(&text).expect_err(&text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn other_forms_are_named() {
        let utf16 =
            |order: fn(u16) -> [u8; 2]| ONE.encode_utf16().flat_map(order).collect::<Vec<_>>();
        for text in [utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
            assert_eq!(read(&text).expect_err("not read"), PemError::Utf16);
            let marked = [&b"\xff\xfe"[..], &text].concat();
            assert_eq!(read(&marked).expect_err("not read"), PemError::Utf16);
        }
        let der = read(b"\x30\x82\x01\x00\x30\x81").expect_err("not read");
        assert_eq!(der, PemError::Binary("DER"));
        let pkcs12 = read(b"\x30\x82\x01\x00\x02\x01\x03\x30").expect_err("not read");
        assert!(pkcs12.to_string().contains("PKCS#12") && pkcs12.help().contains("openssl pkcs12"));
    }

    #[test]
    fn an_encrypted_key_says_so_in_its_headers() {
        let headers = "MAMC";
        let text = ONE.replace(headers, "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAMC");
        assert!(read(text.as_bytes()).expect("read")[0].is_encrypted);
        assert!(!read(ONE.as_bytes()).expect("read")[0].is_encrypted);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>, pieces in "((-----(BEGIN|END) [A-C]-----)|[\\r\\n:=A-]){0,40}") {
            let _ = read(&bytes);
            let _ = read(pieces.as_bytes());
        }

        #[test]
        fn what_is_written_is_read(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 0..5), width in 1usize..90) {
            let mut text = String::new();
            for bytes in &contents {
                text.push_str("-----BEGIN A-----\n");
                for line in BASE64.encode(bytes).as_bytes().chunks(width) {
                    text.push_str(str::from_utf8(line).expect("ASCII"));
                    text.push('\n');
                }
                text.push_str("-----END A-----\n");
            }
            let read: Vec<_> = read(text.as_bytes()).expect("sound").into_iter().map(|it| it.bytes.to_vec()).collect();
            prop_assert_eq!(read, contents);
        }
    }
}
