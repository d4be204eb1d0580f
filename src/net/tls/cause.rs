//! What went wrong with TLS, in sentences for people: the cause, and where it is known, the mend.

use jiff::Timestamp;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

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
        Error::InvalidCertificate(error) => certificate(error),
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

/// Says what is wrong with a certificate.
#[must_use]
pub fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate expired on {}", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is not valid before {}", date(*not_before))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            wrong_name(expected, presented)
        }
        CertificateError::UnknownIssuer => {
            "the certificate was not signed by any authority that is trusted here".to_owned()
        }
        CertificateError::Revoked => "the certificate has been revoked".to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "no revocation list says whether the certificate was revoked".to_owned()
        }
        CertificateError::ExpiredRevocationListContext { next_update, .. } => {
            format!("the revocation list is out of date since {}", date(*next_update))
        }
        CertificateError::InvalidPurposeContext { required, presented } => {
            let presented: Vec<_> = presented.iter().map(ToString::to_string).collect();
            format!("the certificate is not for {required}, but for {}", presented.join(", "))
        }
        CertificateError::ApplicationVerificationFailure => {
            "the certificate is sound, but its owner is not among those who may come in (allow)"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "the certificate was not signed by the authority of that name that is trusted here"
                .to_owned()
        }
        CertificateError::Other(error) if error.0.to_string() == "CaUsedAsEndEntity" => {
            "the peer shows an authority's certificate (CA:TRUE) as its own, and it is not one of \
             those that are trusted here"
                .to_owned()
        }
        CertificateError::Other(error) => error.0.to_string(),
        other => other.to_string(),
    }
}

fn wrong_name(expected: &ServerName<'_>, presented: &[String]) -> String {
    let asked = expected.to_str();
    if presented.is_empty() {
        return format!("`{asked}` was asked for, and the certificate has no alternative names");
    }
    let presented: Vec<_> = presented.iter().map(|name| bare(name)).collect();
    format!("`{asked}` was asked for, but the certificate is for {}", presented.join(", "))
}

/// webpki writes `DnsName("example.org")`.
fn bare(name: &str) -> &str {
    name.split_once("(\"").and_then(|(_, rest)| rest.strip_suffix("\")")).unwrap_or(name)
}

fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| "a day beyond all calendars".to_owned(), |moment| moment.to_string())
}
