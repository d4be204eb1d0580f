//! What is wrong with a certificate, and how it is mended: one catalogue for all who say it, be it in
//! the log, to a person at a terminal, or in a report.
//!
//! rustls knows some faults by names of its own and hands webpki's on for the others; both are told
//! apart here, so that nobody else needs to.

use std::fmt;

use jiff::Timestamp;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertRevocationListError, CertificateError, OtherError};

use super::purpose::Misuse;

/// One fault of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// What it is, for programs.
    pub kind: Kind,
    /// What is wrong.
    pub what: String,
    /// What would mend it; may be empty.
    pub mend: &'static str,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// Nobody trusted has signed it.
    UnknownIssuer,
    /// It is for another name.
    WrongName,
    /// It has a common name only.
    NoAlternativeNames,
    /// It is an authority's.
    Authority,
    /// It is of version 1 or 2.
    OldVersion,
    /// It, or one that signs it, is for something else.
    WrongPurpose,
    /// It, or one that signs it, was revoked, or nobody knows whether it was.
    Revoked,
    /// It is sound, and its owner not wanted.
    NotAllowed,
    /// It is wrong in another way.
    Other,
}

/// The cause, and the mend after a colon.
impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, ": {}", self.mend) }
    }
}

impl Kind {
    fn means(self, what: impl Into<String>, mend: &'static str) -> Meaning {
        Meaning { kind: self, what: what.into(), mend }
    }
}

/// Have it renewed, whoever it is that has expired.
pub const RENEW: &str = "have it renewed";

/// What `error` means.
#[must_use]
pub fn of(error: &CertificateError) -> Meaning {
    use CertificateError as E;
    match error {
        E::Expired => Kind::Expired.means("the certificate has expired", RENEW),
        E::ExpiredContext { not_after, .. } => {
            Kind::Expired.means(format!("the certificate expired on {}", date(*not_after)), RENEW)
        }
        E::NotValidYet | E::NotValidYetContext { .. } => early(error),
        E::NotValidForName => {
            Kind::WrongName.means("the certificate is for another name", FOR_THIS_NAME)
        }
        E::NotValidForNameContext { expected, presented } => wrong_name(expected, presented),
        E::UnknownIssuer => Kind::UnknownIssuer.means(
            "the certificate was not signed by any authority that is trusted here",
            "trust the one that signed it, and have those between it and the certificate sent along",
        ),
        E::Revoked => Kind::Revoked.means(
            "the certificate has been revoked, or that of an authority that signs it",
            "have another one issued",
        ),
        E::UnknownRevocationStatus => Kind::Revoked.means(
            "no revocation list says whether the certificate was revoked",
            "each authority of its chain needs a list in `crl`",
        ),
        E::ExpiredRevocationList => {
            Kind::Revoked.means("a revocation list is out of date", NEW_LIST)
        }
        E::ExpiredRevocationListContext { next_update, .. } => Kind::Revoked.means(
            format!("the revocation list is out of date since {}", date(*next_update)),
            NEW_LIST,
        ),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => purpose(error),
        E::ApplicationVerificationFailure => Kind::NotAllowed.means(
            "the certificate is sound, but its owner is not among those who may come in (allow)",
            "",
        ),
        E::BadSignature => Kind::Other.means(
            "the certificate was not signed by the authority of that name that is trusted here",
            "that has changed its key and kept its name, or the certificate was changed; trust \
             its present certificate, or have this one issued anew",
        ),
        E::BadEncoding => Kind::Other.means("the certificate cannot be read", ISSUE_ANEW),
        E::Other(other) => of_other(other),
        other => Kind::Other.means(format!("the certificate is not acceptable ({other})"), ISSUE_ANEW),
    }
}

/// What is wrong with a revocation list.
#[must_use]
pub fn of_list(error: &CertRevocationListError) -> Meaning {
    let what = match error {
        CertRevocationListError::BadSignature => {
            "a revocation list was not signed by the authority whose list it says that it is"
        }
        CertRevocationListError::IssuerInvalidForCrl => {
            "a revocation list comes from an authority that may not sign lists (cRLSign)"
        }
        other => {
            return Kind::Revoked
                .means(format!("a revocation list is faulty ({other:?})"), NEW_LIST);
        }
    };
    Kind::Revoked.means(what, NEW_LIST)
}

const FOR_THIS_NAME: &str = "ask for a name that it has, or have it issued for this one too";
const NEW_LIST: &str = "fetch the present list of that authority";
const ISSUE_ANEW: &str = "have it issued anew";

fn early(error: &CertificateError) -> Meaning {
    let when = match error {
        CertificateError::NotValidYetContext { not_before, .. } => date(*not_before),
        _ => "a later day".to_owned(),
    };
    Kind::NotYetValid.means(
        format!("the certificate is not valid before {when}"),
        "check the clock of this machine and of the one that issued it",
    )
}

fn purpose(error: &CertificateError) -> Meaning {
    const MEND: &str = "have it issued with the extended key usage clientAuth for a client, \
                        serverAuth for a server";
    let CertificateError::InvalidPurposeContext { required, presented } = error else {
        return Kind::WrongPurpose.means("the certificate is for something else", MEND);
    };
    let presented: Vec<_> = presented.iter().map(ToString::to_string).collect();
    let what = format!("the certificate is not for {required}, but for {}", presented.join(", "));
    Kind::WrongPurpose.means(what, MEND)
}

fn wrong_name(expected: &ServerName<'_>, presented: &[String]) -> Meaning {
    let asked = expected.to_str();
    if presented.is_empty() {
        return Kind::NoAlternativeNames.means(
            format!("`{asked}` was asked for, and the certificate has no alternative names"),
            "clients no longer look at the subject: have it issued with this name among them",
        );
    }
    let presented: Vec<_> = presented.iter().map(|name| bare(name)).collect();
    let what =
        format!("`{asked}` was asked for, but the certificate is for {}", presented.join(", "));
    Kind::WrongName.means(what, FOR_THIS_NAME)
}

/// What webpki, or our own rules, say.
fn of_other(other: &OtherError) -> Meaning {
    use webpki::Error as E;
    if let Some(misuse) = other.0.downcast_ref::<Misuse>() {
        let kind = match misuse {
            Misuse::Expired(..) => Kind::Expired,
            Misuse::Early(..) => Kind::NotYetValid,
            Misuse::Revoked(..) | Misuse::EarlyList(..) => Kind::Revoked,
            _ => Kind::WrongPurpose,
        };
        return kind.means(misuse.to_string(), "");
    }
    let Some(error) = other.0.downcast_ref::<E>() else {
        return Kind::Other
            .means(format!("the certificate is not acceptable ({other})"), ISSUE_ANEW);
    };
    match error {
        E::CaUsedAsEndEntity => Kind::Authority.means(
            "the certificate is an authority's (CA:TRUE), and is shown as somebody's own",
            "have that authority issue one, and show that",
        ),
        E::EndEntityUsedAsCa => Kind::WrongPurpose.means(
            "the certificate was signed by one that is no authority's (CA:FALSE)",
            "have it issued by an authority",
        ),
        E::UnsupportedCertVersion => Kind::OldVersion.means(
            "the certificate is of X.509 version 1 or 2, which can hold neither alternative names \
             nor purposes",
            "have it issued as version 3",
        ),
        E::NameConstraintViolation => Kind::WrongName.means(
            "the certificate has a name that its authority may not give (name constraints)",
            "have it issued by an authority for this name",
        ),
        E::PathLenConstraintViolated => Kind::WrongPurpose.means(
            "there are more authorities between than one of them allows (pathlen)",
            "have it issued by one that may",
        ),
        E::UnsupportedCriticalExtension => Kind::Other.means(
            "the certificate, or that of an authority that signs it, has a critical extension that \
             is unknown here",
            "have it issued without, or with the extension not critical",
        ),
        E::MaximumPathDepthExceeded => {
            Kind::Other.means("the chain of certificates is too long", "send only what is needed")
        }
        other => {
            Kind::Other.means(format!("the certificate is not acceptable ({other:?})"), ISSUE_ANEW)
        }
    }
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
