//! What is wrong with a handshake or a certificate: each fault in one sentence that names the
//! cause and how it is mended.
//!
//! rustls stops at the first thing that it finds wrong with a certificate, which is seldom the one
//! that helps. Here its verdict decides *whether* something is wrong; what the certificate says
//! decides what else is.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, PeerIncompatible, RootCertStore};
use serde::Serialize;

use crate::certificates::describe::{Description, distinguished_name, printable};
use crate::config::units::show_duration;
use crate::net::tls::meaning::{self, Meaning};
use crate::net::tls::weakness::{is_of_signature, key_weakness, weakness};
use crate::net::tls_probe::{CertificateRequest, Failure, Presented, Sighting};

/// How many bytes are shown of an answer that is not TLS.
const SHOWN: usize = 48;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What it is, for programs.
    pub kind: Kind,
    /// The cause and the mend, for people.
    pub sentence: String,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// No connection came about.
    Unreachable,
    /// The time was up.
    TimedOut,
    /// The connection ended in the middle of the handshake.
    ClosedInHandshake,
    /// The server speaks something else.
    NotTls,
    /// The server was asked to begin, and did not.
    NotStarted,
    /// The server wants to see a client certificate.
    ClientCertificateRequired,
    /// The server does not take the client certificate that it was shown.
    ClientCertificateRefused,
    /// The server refused for another reason.
    Alert,
    /// The two have no version, suite or group in common, or the server broke the protocol.
    Incompatible,
    /// A certificate's time is over.
    Expired,
    /// A certificate's time has not come.
    NotYetValid,
    /// Nobody trusted has signed it.
    UnknownIssuer,
    /// It is for another name.
    WrongName,
    /// It has a common name only.
    NoAlternativeNames,
    /// It is an authority's.
    AuthorityAsServer,
    /// It is of version 1 or 2.
    OldVersion,
    /// Its key or its signature is too weak, or of a kind that is not known.
    WeakKey,
    /// It is not for servers.
    WrongPurpose,
    /// It is wrong in another way.
    BadCertificate,
}

/// Whom a client trusts.
pub struct Trust {
    /// The authorities.
    pub roots: RootCertStore,
    /// The file that they came from; none: the system's.
    pub file: Option<PathBuf>,
}

/// What is judged, and by what.
pub(super) struct Case<'a> {
    pub(super) sighting: &'a Sighting,
    /// The name that was asked for.
    pub(super) name: &'a str,
    pub(super) trust: &'a Trust,
    /// How long it was waited for, which is of interest where it was not long enough.
    pub(super) timeout: Option<Duration>,
    pub(super) now: Timestamp,
}

/// All that is wrong: first with the connection, then with the certificate.
pub(super) fn find(case: &Case<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(failure) = &case.sighting.failure {
        faults.push(of_failure(failure, case));
    }
    if let Some(presented) = &case.sighting.presented {
        let others = case.of_certificates(presented);
        faults.extend(others);
    }
    faults
}

impl Kind {
    /// What the catalogue of certificates' faults calls it.
    fn of(kind: meaning::Kind) -> Self {
        match kind {
            meaning::Kind::Expired => Self::Expired,
            meaning::Kind::NotYetValid => Self::NotYetValid,
            meaning::Kind::UnknownIssuer => Self::UnknownIssuer,
            meaning::Kind::WrongName => Self::WrongName,
            meaning::Kind::NoAlternativeNames => Self::NoAlternativeNames,
            meaning::Kind::Authority => Self::AuthorityAsServer,
            meaning::Kind::OldVersion => Self::OldVersion,
            meaning::Kind::WrongPurpose => Self::WrongPurpose,
            meaning::Kind::Revoked | meaning::Kind::NotAllowed | meaning::Kind::Other => {
                Self::BadCertificate
            }
        }
    }

    fn says(self, sentence: impl Into<String>) -> Fault {
        Fault { kind: self, sentence: sentence.into() }
    }
}

fn of_failure(failure: &Failure, case: &Case<'_>) -> Fault {
    let received = case.sighting.received_bytes.as_slice();
    let limit = show_duration(case.timeout.unwrap_or_default());
    match failure {
        Failure::Unreachable(reason) => Kind::Unreachable.says(format!(
            "no connection: {reason}; is the address right, and does the server run?"
        )),
        Failure::ConnectTimedOut => Kind::TimedOut.says(format!(
            "no connection within {limit}: is the address right, and no firewall between?"
        )),
        Failure::HandshakeTimedOut if received.is_empty() => Kind::TimedOut.says(format!(
            "the server accepted the connection and then said nothing for {limit}: it may not \
             speak TLS, or want a plain command first (--starttls); else it is stuck"
        )),
        Failure::HandshakeTimedOut => Kind::TimedOut.says(format!(
            "the handshake stopped after {} bytes from the server and was not done within {limit}: \
             the server is stuck or slow, or something between drops large packets",
            received.len()
        )),
        Failure::Closed(reason) => of_close(reason.as_ref(), received.len()),
        Failure::NotTls => Kind::NotTls.says(not_tls(received)),
        Failure::NotStarted(why) => Kind::NotStarted.says(why.clone()),
        Failure::Alert(alert) => of_alert(*alert, case.sighting),
        Failure::Refused(error) => Kind::Incompatible.says(incompatible(error)),
    }
}

fn of_close(reason: Option<&std::io::Error>, received: usize) -> Fault {
    let how =
        reason.map_or_else(|| "closed the connection".into(), |it| format!("broke off ({it})"));
    Kind::ClosedInHandshake.says(format!(
        "the server {how} in the middle of the handshake, after {received} bytes and without \
         saying why: it may not speak TLS here, only versions that are not offered, or refuse \
         this client; its log should tell"
    ))
}

fn not_tls(received: &[u8]) -> String {
    let begins = |prefix: &[u8]| received.starts_with(prefix);
    let what = if begins(b"HTTP/") {
        "it is a plain HTTP server: use its HTTPS port"
    } else if begins(b"SSH-") {
        "it is an SSH server"
    } else if begins(b"220") {
        "it is a mail or file server that wants a plain command first: use its TLS port, or \
         --starttls smtp (or ftp)"
    } else if begins(b"* OK") || begins(b"* PREAUTH") {
        "it is a mail server that wants a plain command first: use its TLS port, or --starttls imap"
    } else if begins(b"+OK") {
        "it is a mail server that wants a plain command first: use its TLS port, or --starttls pop3"
    } else {
        "use the port on which it does, or connect without TLS"
    };
    let shown = &received[..received.len().min(SHOWN)];
    format!(
        "the server does not speak TLS here, its answer begins with \"{}\": {what}",
        shown.escape_ascii()
    )
}

/// What an alert of the server's means (RFC 8446 section 6.2).
fn of_alert(alert: AlertDescription, sighting: &Sighting) -> Fault {
    use AlertDescription as A;
    let name = format!("{alert:?}");
    if let Some(request) = &sighting.certificate_request {
        let is_about_certificate = matches!(
            alert,
            A::CertificateRequired
                | A::HandshakeFailure
                | A::NoCertificate
                | A::BadCertificate
                | A::UnsupportedCertificate
                | A::CertificateRevoked
                | A::CertificateExpired
                | A::CertificateUnknown
                | A::UnknownCA
                | A::AccessDenied
        );
        if is_about_certificate {
            return of_client_certificate(&name, request, sighting.agreed.is_some());
        }
    }
    let mend = match alert {
        A::HandshakeFailure | A::InsufficientSecurity => {
            "it accepts nothing of what was offered (versions, suites, groups); it may also not \
             know the name that was asked for"
        }
        A::ProtocolVersion => {
            "it speaks none of the versions that were offered; leave out --tls-version, or have \
             it speak TLS 1.2 or 1.3"
        }
        A::UnrecognisedName => "it does not know the name that was asked for; set --server-name",
        A::NoApplicationProtocol => {
            "it speaks none of the application protocols that were offered; change --alpn"
        }
        A::InternalError => {
            "it failed in itself, perhaps for lack of a certificate or key; its log should tell"
        }
        A::AccessDenied => "it does not let this client in",
        _ => "its log should tell why",
    };
    Kind::Alert.says(format!("the server refused with the alert {name}: {mend}"))
}

fn of_client_certificate(alert: &str, request: &CertificateRequest, was_complete: bool) -> Fault {
    if request.was_met {
        return Kind::ClientCertificateRefused.says(format!(
            "the server does not accept the client certificate (alert {alert}): show one that is \
             in force, for clients, and signed by {}",
            accepted(request)
        ));
    }
    let when = if was_complete {
        "; the client had finished its handshake by then: in TLS 1.3 it learns this only afterwards"
    } else {
        ""
    };
    Kind::ClientCertificateRequired.says(format!(
        "the server requires a client certificate (alert {alert}): give one signed by {} with \
         --cert and --key{when}",
        accepted(request)
    ))
}

fn accepted(request: &CertificateRequest) -> String {
    if request.authorities.is_empty() {
        return "an authority that it trusts (it does not say which)".to_owned();
    }
    let names: Vec<_> = request.authorities.iter().map(|der| distinguished_name(der)).collect();
    names.join(" or ")
}

fn incompatible(error: &rustls::Error) -> String {
    use rustls::Error as E;
    match error {
        E::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => {
            "the server chose a version that was not offered: leave out --tls-version, or have it \
              speak TLS 1.2 or 1.3"
                .to_owned()
        }
        E::PeerIncompatible(why) => {
            format!("client and server do not fit together ({why:?}): one of them needs an update")
        }
        error => format!(
            "the server broke the protocol ({error}): it is faulty, or something between changes \
             what it sends"
        ),
    }
}

impl Case<'_> {
    fn of_certificates(&self, presented: &Presented) -> Vec<Fault> {
        let read = |der: &[u8]| Description::read(der).ok();
        let chain: Vec<_> = presented.chain.iter().map_while(|der| read(der)).collect();
        let mut faults = Vec::new();
        let Some(own) = chain.first() else {
            let sentence = "the server's certificate cannot be read: have it issued anew";
            return vec![Kind::BadCertificate.says(sentence)];
        };
        if !presented.chain_faults.is_empty() {
            faults.extend(self.of_shape(own));
            for (position, certificate) in chain.iter().enumerate() {
                faults.extend(self.of_time(certificate, position == 0));
            }
        }
        let weak = presented.chain.iter().enumerate().find_map(|(position, der)| {
            let is_suspect = presented.chain_faults.iter().any(is_of_signature);
            let own_key = if position == 0 { key_weakness(der) } else { None };
            own_key.or_else(|| weakness(der).filter(|_| is_suspect))
        });
        if let Some(weak) = weak {
            faults.push(Kind::WeakKey.says(weak.to_string()));
        }
        for verdict in &presented.chain_faults {
            faults.extend(self.of_verdict(verdict, &chain, &faults));
        }
        if presented.name_verdict.is_err() {
            faults.extend(self.of_names(own));
        }
        faults
    }

    /// What kind of certificate it is.
    fn of_shape(&self, own: &Description) -> Option<Fault> {
        if own.version < 3 {
            return Some(meaning::old_version().into());
        }
        own.is_authority.then(|| meaning::authority(&format!("{}, ", own.subject)).into())
    }

    fn of_time(&self, certificate: &Description, is_own: bool) -> Option<Fault> {
        let whose: Cow<'_, str> = if is_own {
            "the server's certificate".into()
        } else {
            format!("the certificate of {}, which signs in its chain,", certificate.subject).into()
        };
        let days = |from: Timestamp, to: Timestamp| match to.duration_since(from).as_hours() / 24 {
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        let Description { not_before, not_after, .. } = certificate;
        if *not_after < self.now {
            let when = format!("{not_after}, {} ago", days(*not_after, self.now));
            return Some(meaning::expired(&whose, &when).into());
        }
        (*not_before > self.now).then(|| {
            let days = days(self.now, *not_before);
            let when = format!("{not_before} on, in {days} (now it is {:.0})", self.now);
            meaning::early(&whose, &when).into()
        })
    }

    /// What rustls found, unless that has been said already.
    fn of_verdict(
        &self,
        verdict: &CertificateError,
        chain: &[Description],
        said: &[Fault],
    ) -> Option<Fault> {
        use CertificateError as E;
        let is_said = |kind: Kind| said.iter().any(|fault| fault.kind == kind);
        match verdict {
            E::UnknownIssuer => Some(Kind::UnknownIssuer.says(self.unknown_issuer(chain))),
            E::Expired | E::ExpiredContext { .. } if is_said(Kind::Expired) => None,
            E::NotValidYet | E::NotValidYetContext { .. } if is_said(Kind::NotYetValid) => None,
            verdict if is_said(Kind::WeakKey) && is_of_signature(verdict) => None,
            other => {
                let meaning = meaning::of(other);
                let is_new = said.is_empty() || meaning.kind == meaning::Kind::WrongPurpose;
                is_new.then(|| meaning.into())
            }
        }
    }

    fn unknown_issuer(&self, chain: &[Description]) -> String {
        let trusted = match &self.trust.file {
            Some(file) => format!("not among the authorities of {}", file.display()),
            None if self.trust.roots.is_empty() => {
                "not known, because this system trusts no authority at all (is the package \
                 ca-certificates installed?)"
                    .to_owned()
            }
            None => "not among the authorities that this system trusts".to_owned(),
        };
        let Some(last) = chain.last() else { return trusted };
        if last.subject == last.issuer && chain.len() == 1 {
            return format!(
                "the certificate is signed by its own key ({}), which is {trusted}: if you know \
                 it to be the right one, give it as --ca",
                last.subject
            );
        }
        format!(
            "the certificate is signed by {}, which is {trusted}: give the authority's certificate \
             as --ca, or, if it is an intermediate one, have the server send it with its own",
            last.issuer
        )
    }

    fn of_names(&self, own: &Description) -> Option<Fault> {
        let name = self.name;
        if own.version < 3 {
            return None;
        }
        if own.alternative_names.is_empty() {
            return Some(meaning::nameless(name, &format!(" ({})", own.subject)).into());
        }
        Some(meaning::wrong_name(name, &own.alternative_names.join(", ")).into())
    }
}

impl From<Meaning> for Fault {
    fn from(meaning: Meaning) -> Self {
        Kind::of(meaning.kind).says(printable(&meaning.to_string()))
    }
}
