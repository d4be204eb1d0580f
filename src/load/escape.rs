//! Bytes as people write them in a text: `\r\n`, `\t`, `\\`, `\x00`.

/// A text has a backslash that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`\\{0}` means nothing: write \\r, \\n, \\t, \\0, \\e, \\xHH with two hexadecimal digits, or \
     \\\\ for a backslash"
)]
pub struct EscapeError(String);

/// The bytes that `text` stands for. What is not behind a backslash stands for itself.
///
/// # Errors
/// A backslash is followed by something that means nothing.
pub fn unescape(text: &str) -> Result<Vec<u8>, EscapeError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let wrong = || EscapeError(after.chars().take(3).collect());
        let (byte, length) = match after.as_bytes().first() {
            Some(b'r') => (b'\r', 1),
            Some(b'n') => (b'\n', 1),
            Some(b't') => (b'\t', 1),
            Some(b'0') => (0, 1),
            Some(b'e') => (0x1b, 1),
            Some(sign @ (b'\\' | b'"' | b'\'')) => (*sign, 1),
            Some(b'x') => {
                let digits = after.get(1..3).filter(|it| it.bytes().all(|b| b.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.ok_or_else(wrong)?, 3)
            }
            _ => return Err(wrong()),
        };
        bytes.push(byte);
        rest = &after[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// As [`unescape`], of a text that may stand in a pair of quotes, which a shell may have left.
///
/// # Errors
/// As [`unescape`].
pub fn unquote(text: &str) -> Result<Vec<u8>, EscapeError> {
    let bare = ['"', '\''].iter().find_map(|&quote| {
        text.strip_prefix(quote)?.strip_suffix(quote).filter(|bare| !bare.ends_with('\\'))
    });
    unescape(bare.unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_their_bytes() {
        assert_eq!(unescape(r"PING\r\n").expect("sound"), b"PING\r\n");
        assert_eq!(unescape(r"\x00\xfF\t\\r\0\e").expect("sound"), b"\0\xff\t\\r\0\x1b");
        assert_eq!(unescape("grüße").expect("sound"), "grüße".as_bytes());
        assert_eq!(unquote(r#""\r\n""#).expect("sound"), b"\r\n");
        assert_eq!(unquote(r"'.\n'").expect("sound"), b".\n");
        assert_eq!(unquote("\"").expect("sound"), b"\"");
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in [r"\q", r"\", r"\x", r"\x1", r"\xg0", r"\xä", r"a\ü"] {
            let error = unescape(text).expect_err(text).to_string();
            assert!(error.contains("means nothing"), "{error}");
        }
    }
}
