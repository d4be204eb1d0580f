//! Which certificate a server shows to a client that asks for a name. What the client says is only
//! compared; that there is a certificate at all is up to the configuration.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identity;

/// Certificates, each with the names it is for.
#[derive(Debug)]
pub struct Chooser {
    certificates: Vec<(Vec<String>, Arc<CertifiedKey>)>,
}

impl Chooser {
    /// Chooses among `certificates`, of which the first is for everyone who asks for no name, or
    /// for one that none of them has.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn new(certificates: &[Arc<CertifiedKey>]) -> Self {
        assert!(!certificates.is_empty(), "a server shows a certificate");
        let with_names = |it: &Arc<CertifiedKey>| {
            let names = it.cert.first().map(|own| identity::of(own).dns_names);
            (names.unwrap_or_default(), Arc::clone(it))
        };
        Self { certificates: certificates.iter().map(with_names).collect() }
    }

    /// The certificates for `name`, those that have exactly it before those with a wildcard.
    fn candidates<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<CertifiedKey>> {
        let of_kind = |matches: fn(&str, &str) -> bool| {
            let fits = move |names: &[String]| names.iter().any(|it| matches(it, name));
            self.certificates.iter().filter(move |(names, _)| fits(names)).map(|(_, it)| it)
        };
        of_kind(str::eq_ignore_ascii_case).chain(of_kind(wildcard_matches))
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable =
            |it: &&Arc<CertifiedKey>| it.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = hello.server_name().and_then(|name| self.candidates(name).find(usable));
        let everyones = || &self.certificates[0].1;
        Some(Arc::clone(named.unwrap_or_else(everyones)))
    }
}

/// Whether `pattern` is `*.` and what follows the first label of `name` (RFC 6125, section 6.4.3).
fn wildcard_matches(pattern: &str, name: &str) -> bool {
    let parent = name.split_once('.').map(|(_, parent)| parent);
    match (pattern.strip_prefix("*."), parent) {
        (Some(pattern), Some(parent)) => pattern.eq_ignore_ascii_case(parent),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(wildcard_matches("*.example.org", "a.Example.org"));
        for name in ["example.org", "a.b.example.org", "org", "*.example.org.uk"] {
            assert!(!wildcard_matches("*.example.org", name), "{name}");
        }
        assert!(!wildcard_matches("a.example.org", "a.example.org"), "not a wildcard");
    }
}
