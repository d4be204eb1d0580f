//! Host names with other letters than those of ASCII (RFC 5891).
//!
//! Such a name is never taken: two that look alike may be written otherwise in the name system, and
//! a rule means what is written there. Whoever writes one is told how it is written.

/// The longest text that is looked at, in bytes: a name that can be written has fewer, and a peer may
/// send more.
const LONGEST: usize = 1024;

/// How such a host name is written in the name system; `None` where it has only letters of ASCII,
/// or cannot be written there.
#[must_use]
pub fn ascii_form(host: &str) -> Option<String> {
    if host.is_ascii() || host.len() > LONGEST {
        return None;
    }
    let ascii = idna::domain_to_ascii(host).ok()?;
    ascii.split('.').any(|label| label.starts_with("xn--")).then_some(ascii)
}

/// What to say behind a complaint about `text`, a `host:port` or `*.domain:port`, where such letters
/// may be all that is wrong; else nothing.
#[must_use]
pub fn hint(text: &str) -> String {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let ascii = ascii_form(host.strip_prefix("*.").unwrap_or(host));
    ascii.map(|ascii| format!("; in the name system it is written {ascii}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_letters_are_written_in_those_of_ascii() {
        assert_eq!(ascii_form("b\u{fc}cher.Example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(ascii_form(&"\u{fc}".repeat(LONGEST)), None);
        for host in ["books.example", "xn--bcher-kva.example", "\u{fffd}", "\u{661}.example"] {
            assert_eq!(ascii_form(host), None, "{host}");
        }
        assert_eq!(
            hint("*.b\u{fc}cher.example:80"),
            "; in the name system it is written xn--bcher-kva.example"
        );
        assert_eq!((hint("a b:80"), hint("")), (String::new(), String::new()));
    }
}
