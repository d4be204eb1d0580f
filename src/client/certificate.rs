//! A certificate for people to read.

use std::fmt::Write;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// Who owns it, who signed it, its serial number, how long it is valid, its alternative names, and
/// its SHA-256: a line each.
#[must_use]
pub fn describe(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{}", printable(value));
    };
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        line("certificate", "it cannot be read");
        return text;
    };
    let names = alternative_names(&parsed);
    let validity = parsed.validity();
    line("subject", &parsed.subject().to_string());
    line("issuer", &parsed.issuer().to_string());
    line("serial", &parsed.raw_serial_as_string());
    line("valid from", &moment(&validity.not_before));
    line("valid until", &moment(&validity.not_after));
    line("names", if names.is_empty() { "none" } else { &names });
    line("sha256", &hexadecimal(&Sha256::digest(certificate)));
    text
}

fn alternative_names(certificate: &X509Certificate<'_>) -> String {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return String::new() };
    let shown: Vec<_> = extension.value.general_names.iter().map(general_name).collect();
    shown.join(", ")
}

fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), bytes.len()) {
            (Ok(v4), _) => IpAddr::from(v4).to_string(),
            (Err(_), 16) => {
                let v6: [u8; 16] = (*bytes).try_into().expect("its length was looked at");
                IpAddr::from(v6).to_string()
            }
            _ => "a malformed IP address".to_owned(),
        },
        GeneralName::URI(uri) => (*uri).to_owned(),
        GeneralName::RFC822Name(mail) => (*mail).to_owned(),
        other => format!("{other:?}"),
    }
}

fn moment(time: &ASN1Time) -> String {
    jiff::Timestamp::from_second(time.timestamp())
        .map_or_else(|_| time.to_string(), |moment| moment.to_string())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What others wrote must not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
