//! A certificate for people to read.

use std::fmt::Write;

use crate::certificates::describe::Description;

/// Who owns it, who signed it, its serial number, how long it is valid, its alternative names, and
/// its SHA-256: a line each.
#[must_use]
pub fn describe(certificate: &[u8]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    let Ok(it) = Description::read(certificate) else {
        line("certificate", "it cannot be read");
        return text;
    };
    let names: Vec<_> = it.alternative_names.iter().map(|name| without_kind(name)).collect();
    line("subject", &it.subject);
    line("issuer", &it.issuer);
    line("serial", &it.serial.to_lowercase());
    line("valid from", &it.not_before.to_string());
    line("valid until", &it.not_after.to_string());
    line("names", &if names.is_empty() { "none".to_owned() } else { names.join(", ") });
    line("sha256", &it.sha256.replace(':', "").to_lowercase());
    text
}

/// A name is told from an address by how it looks: `dns:localhost` is `localhost`.
fn without_kind(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_kind, bare)| bare)
}
