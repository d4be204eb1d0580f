//! What went wrong with TLS, in sentences for people: the cause, and where it is known, the mend.

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

use super::meaning;

/// How many of the first bytes of something that is not TLS are shown.
const SHOWN: usize = 32;

/// Says what `error` means. `incoming` is what was received and not understood, from the
/// beginning of the stream where `in_handshake`.
#[must_use]
pub fn explain(error: &Error, incoming: &[u8], in_handshake: bool) -> String {
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) if in_handshake => {
            format!("the peer does not speak TLS: {}", not_tls(incoming))
        }
        Error::InvalidMessage(what) => format!("the peer sent a malformed message ({what:?})"),
        Error::PeerMisbehaved(what) => format!("the peer did what it must not ({what:?})"),
        Error::PeerIncompatible(what) => incompatible(what),
        Error::AlertReceived(alert) => format!("the peer said: {}", alert_meaning(*alert)),
        Error::NoCertificatesPresented => {
            "the peer showed no certificate, and one is required".to_owned()
        }
        Error::InvalidCertificate(error) => meaning::of(error).to_string(),
        Error::InvalidCertRevocationList(error) => meaning::of_list(error).to_string(),
        Error::NoApplicationProtocol => "no protocol offered (ALPN) is spoken here".to_owned(),
        Error::DecryptError => "a record was damaged, or encrypted with other keys".to_owned(),
        other => other.to_string(),
    }
}

/// What something is that is not TLS, as far as its first bytes tell.
fn not_tls(incoming: &[u8]) -> String {
    // rustls gives its judgement after a record's header.
    let fits = |begin: &[u8]| {
        incoming.starts_with(begin) || (incoming.len() >= 5 && begin.starts_with(incoming))
    };
    if let Some((_, what)) = GREETINGS.iter().find(|(begin, _)| fits(begin)) {
        return (*what).to_owned();
    }
    let shown = &incoming[..incoming.len().min(SHOWN)];
    format!("it began with '{}'", shown.escape_ascii())
}

/// How other protocols begin that ask for TLS in their own way, or say first who they are, so that
/// what they say next to nobody who expects TLS can be read as words.
const GREETINGS: &[(&[u8], &str)] = &[
    (
        &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f],
        "it is a client of PostgreSQL that asks whether it may (SSLRequest); one of version 17 or \
         later does not ask with sslnegotiation=direct, and in front of others the server itself \
         must do TLS",
    ),
    (
        &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30],
        "it is a client of PostgreSQL that asks for Kerberos (GSSENCRequest); with \
         gssencmode=disable it does not",
    ),
    (
        &[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e],
        "it is a client of PostgreSQL that cancels a request, in the clear",
    ),
    (
        b"\r\n\r\n\0\r\nQUIT\n",
        "it began with a header of the PROXY protocol (version 2), which is only expected from those \
         in proxy_protocol_from",
    ),
    (
        b"PROXY ",
        "it began with a header of the PROXY protocol (version 1), which is only expected from those \
         in proxy_protocol_from",
    ),
];

fn incompatible(what: &PeerIncompatible) -> String {
    match what {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            format!("there is no version of TLS that both sides want ({what:?})")
        }
        // TLS 1.1 and older do not know this extension, and whoever speaks 1.2 sends it.
        PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            "it speaks no version of TLS that is still safe".to_owned()
        }
        PeerIncompatible::NoCipherSuitesInCommon => {
            "there is no cipher suite that both sides know".to_owned()
        }
        PeerIncompatible::NoKxGroupsInCommon => {
            "there is no key exchange group that both sides know".to_owned()
        }
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "the peer accepts no signature that our key can make".to_owned()
        }
        other => format!("the two sides have no way in common ({other:?})"),
    }
}

fn alert_meaning(alert: AlertDescription) -> String {
    let meaning = match alert {
        AlertDescription::UnknownCA => "it does not trust whoever signed our certificate",
        AlertDescription::CertificateRequired => "it wants a certificate from us",
        AlertDescription::BadCertificate => "it does not accept our certificate",
        AlertDescription::CertificateExpired => "our certificate has expired",
        AlertDescription::CertificateRevoked => "our certificate has been revoked",
        AlertDescription::CertificateUnknown => "it cannot accept our certificate",
        AlertDescription::UnsupportedCertificate => "our certificate is not for this use",
        AlertDescription::AccessDenied => "our certificate is sound, but not let in",
        AlertDescription::ProtocolVersion => "it does not speak this version of TLS",
        AlertDescription::HandshakeFailure => "it finds nothing that both sides support",
        AlertDescription::UnrecognisedName => "it knows no server of this name",
        AlertDescription::NoApplicationProtocol => "it speaks none of the protocols offered (ALPN)",
        AlertDescription::DecryptError => "a signature or a key of ours is wrong",
        _ => return format!("{alert:?}"),
    };
    format!("{meaning} ({alert:?})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(incoming: &[u8]) -> String {
        explain(&Error::InvalidMessage(InvalidMessage::InvalidContentType), incoming, true)
    }

    #[test]
    fn protocols_that_are_not_tls_are_named() {
        for (greeting, name) in [
            (&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f][..], "PostgreSQL"),
            (&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30], "gssencmode"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "version 1"),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0", "version 2"),
            (b"GET / HTTP/1.1\r\n", "it began with 'GET / HTTP/1.1\\r\\n'"),
            (&[0, 0, 0, 8, 0x04], "PostgreSQL"),
            (&[0, 0, 0, 9, 0x04], "it began with '\\x00\\x00\\x00\\t\\x04'"),
            (&[0xe2, 0x80, 0xae, b'\'', b'\n'], "it began with '\\xe2\\x80\\xae\\'\\n'"),
        ] {
            let said = explained(greeting);
            assert!(said.starts_with("the peer does not speak TLS: "), "{said}");
            assert!(said.contains(name) && said.is_ascii(), "{said}");
        }
    }
}
