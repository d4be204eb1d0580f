//! Who a peer proved to be by a certificate, and the rules by which that lets it in.
//!
//! Reading certificates is for others ([`crate::net::tls`]); here are only the names that stand in
//! them.
//!
//! Invariant: what a [`Rule`] prints, it reads back as an equal rule; no rule admits a peer that is
//! not named by it in full.

use std::fmt::{self, Write};
use std::str::FromStr;

use super::quote::{Pairs, Word};

/// What a certificate says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The whole subject, such as `CN=alice,O=Example` (RFC 4514, but in the certificate's order).
    pub subject: String,
    /// The common names in it.
    pub common_names: Vec<String>,
    /// The alternative names that are DNS names.
    pub dns_names: Vec<String>,
    /// The alternative names that are URIs.
    pub uris: Vec<String>,
    /// SHA-256 of the public key (the whole SubjectPublicKeyInfo).
    pub key: [u8; 32],
}

/// As words that can stand in quotes: no name can be taken for more than one of them.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subject={}", Pairs(&self.subject))?;
        for name in &self.dns_names {
            write!(f, " dns:{}", Word(name.as_bytes()))?;
        }
        for uri in &self.uris {
            write!(f, " uri:{}", Word(uri.as_bytes()))?;
        }
        write!(f, " spki:sha256:{}", hexadecimal(&self.key))
    }
}

/// One way to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A common name of the subject is this.
    CommonName(String),
    /// An alternative name is this DNS name; capitals make no difference.
    Dns(String),
    /// An alternative name is this URI.
    Uri(String),
    /// The public key has this SHA-256.
    Key([u8; 32]),
}

/// Every form of a rule, for help texts.
pub const RULE_FORMS: &str = "cn:NAME, dns:NAME, uri:URI or spki:sha256:64 hexadecimal digits";

impl Rule {
    /// Whether it lets this peer in.
    #[must_use]
    pub fn admits(&self, peer: &Identity) -> bool {
        match self {
            Self::CommonName(name) => peer.common_names.contains(name),
            Self::Dns(name) => peer.dns_names.iter().any(|it| it.eq_ignore_ascii_case(name)),
            Self::Uri(uri) => peer.uris.contains(uri),
            Self::Key(key) => peer.key == *key,
        }
    }
}

/// A text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not say who may come in")]
pub struct RuleError(String);

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = match text.split_once(':') {
            Some(("cn", name)) if !name.is_empty() => Some(Self::CommonName(name.to_owned())),
            Some(("dns", name)) if !name.is_empty() => Some(Self::Dns(name.to_owned())),
            Some(("uri", uri)) if !uri.is_empty() => Some(Self::Uri(uri.to_owned())),
            Some(("spki", key)) => key.strip_prefix("sha256:").and_then(digest).map(Self::Key),
            _ => None,
        };
        rule.ok_or_else(|| RuleError(text.to_owned()))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName(name) => write!(f, "cn:{name}"),
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Key(key) => write!(f, "spki:sha256:{}", hexadecimal(key)),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Identity {
        Identity {
            subject: "CN=alice".to_owned(),
            common_names: vec!["alice".to_owned()],
            dns_names: vec!["alice.example".to_owned()],
            uris: vec!["spiffe://example/alice".to_owned()],
            key: [0xab; 32],
        }
    }

    #[test]
    fn a_rule_admits_whom_it_names_in_full_and_nobody_else() {
        let key = format!("spki:sha256:{}", "ab".repeat(32));
        for text in ["cn:alice", "dns:Alice.Example", "uri:spiffe://example/alice", &key] {
            let rule: Rule = text.parse().expect(text);
            assert!(rule.admits(&alice()), "{text}");
            assert!(!rule.admits(&Identity::default()), "{text}");
        }
        for text in ["cn:alic", "cn:Alice", "cn:alice.example", "dns:example", "uri:alice"] {
            assert!(!text.parse::<Rule>().expect(text).admits(&alice()), "{text}");
        }
    }

    #[test]
    fn rules_are_read_and_printed() {
        let key = format!("spki:sha256:{}", "0f".repeat(32));
        for text in ["cn:a b", "dns:a.example", "uri:a:b", &key] {
            assert_eq!(text.parse::<Rule>().expect(text).to_string(), text);
        }
        for text in ["", "alice", "cn:", "ou:x", "spki:ab", "spki:sha256:0", "spki:sha256:é"] {
            assert_eq!(text.parse::<Rule>(), Err(RuleError(text.to_owned())));
        }
    }

    #[test]
    fn what_is_logged_stays_on_its_line() {
        let mallory = Identity {
            subject: "CN=\"a\"\nb dns:root\u{202e}".to_owned(),
            dns_names: vec!["a b".to_owned()],
            uris: vec!["x uri:y\u{2028}".to_owned()],
            ..Identity::default()
        };
        let words = r"subject=CN=\u{22}a\u{22}\nb\u{20}dns:root\u{202e} dns:a\u{20}b uri:x\u{20}uri:y\u{2028} spki:";
        assert!(mallory.to_string().starts_with(words), "{mallory}");
    }
}
