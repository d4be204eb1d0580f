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
            let shown = &incoming[..incoming.len().min(SHOWN)];
            format!("the peer does not speak TLS: it began with '{}'", shown.escape_ascii())
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
