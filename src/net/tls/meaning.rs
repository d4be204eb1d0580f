//! What is wrong with a certificate, and how it is mended: one catalogue for all who say it, be it in
//! the log, to a person at a terminal, or in a report.
//!
//! rustls knows some faults by names of its own and hands webpki's on for the others; both are told
//! apart here, so that nobody else needs to.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{CertRevocationListError, CertificateError, ExtendedKeyPurpose, OtherError};

use super::purpose::Misuse;
use super::weakness::Weakness;

/// One fault of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// What it is, for programs.
    pub kind: Kind,
    /// What is wrong.
    pub what: String,
    /// What would mend it; may be empty.
    pub mend: Cow<'static, str>,
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
    fn means(self, what: impl Into<String>, mend: impl Into<Cow<'static, str>>) -> Meaning {
        Meaning { kind: self, what: what.into(), mend: mend.into() }
    }
}

/// A certificate, called `whose`, whose time is over since `when`.
#[must_use]
pub fn expired(whose: &str, when: &str) -> Meaning {
    Kind::Expired.means(format!("{whose} expired on {when}"), "have it renewed")
}

/// A certificate, called `whose`, whose time comes at `when`.
#[must_use]
pub fn early(whose: &str, when: &str) -> Meaning {
    let mend = "check the clock of this machine and of the one that issued it";
    Kind::NotYetValid.means(format!("{whose} is valid only from {when}"), mend)
}

/// A certificate for the names `presented`, where `asked` was asked for.
#[must_use]
pub fn wrong_name(asked: &str, presented: &str) -> Meaning {
    let what = format!("`{asked}` was asked for, but the certificate is for {presented}");
    let mend = format!("ask for one of these (--server-name), or have it issued for `{asked}` too");
    Kind::WrongName.means(what, mend)
}

/// A certificate without alternative names, where `asked` was asked for; `subject` is a blank and
/// its subject in brackets, or nothing.
#[must_use]
pub fn nameless(asked: &str, subject: &str) -> Meaning {
    let what = format!(
        "`{asked}` was asked for, and the certificate names its owner only in the \
         subject{subject}, where clients no longer look"
    );
    let mend = format!("have it issued with `{asked}` as an alternative name");
    Kind::NoAlternativeNames.means(what, mend)
}

/// An authority's certificate that is shown as somebody's own; `subject` is its subject and a comma
/// with a blank, or nothing.
#[must_use]
pub fn authority(subject: &str) -> Meaning {
    Kind::Authority.means(
        format!("the peer shows an authority's certificate ({subject}CA:TRUE) as its own"),
        "have that authority issue one for the peer, and show that; or, if you know it to be the \
         right one, trust it itself (--ca)",
    )
}

/// A certificate that is older than alternative names.
#[must_use]
pub fn old_version() -> Meaning {
    Kind::OldVersion.means(
        "the certificate is of X.509 version 1 or 2, which can hold neither alternative names nor \
         purposes",
        "have it issued as version 3",
    )
}

/// What `error` means.
#[must_use]
pub fn of(error: &CertificateError) -> Meaning {
    use CertificateError as E;
    const OWN: &str = "the certificate";
    const SOME_DAY: &str = "a day that is not said";
    match error {
        E::Expired => expired(OWN, SOME_DAY),
        E::ExpiredContext { not_after, .. } => expired(OWN, &date(*not_after)),
        E::NotValidYet => early(OWN, SOME_DAY),
        E::NotValidYetContext { not_before, .. } => early(OWN, &date(*not_before)),
        E::NotValidForName => wrong_name("another name", "others"),
        E::NotValidForNameContext { expected, presented } => match &presented[..] {
            [] => nameless(&expected.to_str(), ""),
            names => {
                let names: Vec<_> = names.iter().map(|name| bare(name)).collect();
                wrong_name(&expected.to_str(), &names.join(", "))
            }
        },
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
        E::InvalidPurpose => {
            Kind::WrongPurpose.means("the certificate is for something else", ISSUE_ANEW)
        }
        E::InvalidPurposeContext { required, presented } => purpose(required, presented),
        E::ApplicationVerificationFailure => Kind::NotAllowed.means(
            "the certificate is sound, but its owner is not among those who may come in (allow)",
            "",
        ),
        E::BadSignature => Kind::Other.means(
            "the certificate was not signed by the authority of that name that is trusted here",
            "that has changed its key and kept its name, or the certificate was changed; trust \
             its present certificate (--ca), or have this one issued anew",
        ),
        E::BadEncoding => Kind::Other.means("the certificate cannot be read", ISSUE_ANEW),
        E::Other(other) => of_other(other),
        other => unacceptable(other),
    }
}

fn unacceptable(error: &impl fmt::Display) -> Meaning {
    Kind::Other.means(format!("the certificate is not acceptable ({error})"), ISSUE_ANEW)
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

const NEW_LIST: &str = "fetch the present list of that authority";
const ISSUE_ANEW: &str = "have it issued anew";

fn purpose(required: &ExtendedKeyPurpose, presented: &[ExtendedKeyPurpose]) -> Meaning {
    let name = |purpose: &ExtendedKeyPurpose| match purpose {
        ExtendedKeyPurpose::ClientAuth => "client".to_owned(),
        ExtendedKeyPurpose::ServerAuth => "server".to_owned(),
        ExtendedKeyPurpose::Other(oid) => {
            oid.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
        }
    };
    let wanted = name(required);
    let presented: Vec<_> = presented.iter().map(name).collect();
    Kind::WrongPurpose.means(
        format!("the certificate is not for {wanted}s, only for {}", presented.join(", ")),
        format!("have it issued with the extended key usage {wanted}Auth"),
    )
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
    if let Some(weakness) = other.0.downcast_ref::<Weakness>() {
        return Kind::Other.means(weakness.to_string(), "");
    }
    let Some(error) = other.0.downcast_ref::<E>() else {
        return Kind::Other
            .means(format!("the certificate is not acceptable ({other})"), ISSUE_ANEW);
    };
    match error {
        E::CaUsedAsEndEntity => authority(""),
        E::EndEntityUsedAsCa => Kind::WrongPurpose.means(
            "the certificate was signed by one that is no authority's (CA:FALSE)",
            "have it issued by an authority",
        ),
        E::UnsupportedCertVersion => old_version(),
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
        other => unacceptable(&format_args!("{other:?}")),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::pki_types::ServerName;

    use super::*;

    fn of_webpki(error: webpki::Error) -> CertificateError {
        CertificateError::Other(OtherError(Arc::new(error)))
    }

    #[test]
    fn every_fault_says_its_cause_and_its_mend() {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(1_600_000_000));
        let name = ServerName::try_from("a.example").expect("a name");
        let presented = vec!["DnsName(\"b.example\")".to_owned()];
        let cases = [
            (
                CertificateError::ExpiredContext { time: at, not_after: at },
                "the certificate expired on 2020-09-13T12:26:40Z: have it renewed",
            ),
            (
                CertificateError::NotValidForNameContext { expected: name.clone(), presented },
                "`a.example` was asked for, but the certificate is for b.example: ask for one",
            ),
            (
                CertificateError::NotValidForNameContext { expected: name, presented: vec![] },
                "names its owner only in the subject, where clients no longer look: have it issued",
            ),
            (
                CertificateError::InvalidPurposeContext {
                    required: ExtendedKeyPurpose::ClientAuth,
                    presented: vec![
                        ExtendedKeyPurpose::ServerAuth,
                        ExtendedKeyPurpose::Other(vec![1, 2, 3]),
                    ],
                },
                "is not for clients, only for server, 1.2.3: have it issued with the extended key \
                 usage clientAuth",
            ),
            (of_webpki(webpki::Error::CaUsedAsEndEntity), "certificate (CA:TRUE) as its own: have"),
            (of_webpki(webpki::Error::UnsupportedCertVersion), "of X.509 version 1 or 2"),
            (of_webpki(webpki::Error::PathLenConstraintViolated), "allows (pathlen): have it"),
            (of_webpki(webpki::Error::BadDer), "is not acceptable (BadDer): have it issued anew"),
            (CertificateError::Revoked, "has been revoked"),
        ];
        for (error, part) in cases {
            let said = of(&error).to_string();
            assert!(said.contains(part), "{part}: {said}");
        }
        let misuse = Misuse::AuthoritysKey("`CN=a`".to_owned());
        let meaning = of(&CertificateError::Other(OtherError(Arc::new(misuse))));
        assert_eq!(meaning.kind, Kind::WrongPurpose);
        assert!(meaning.to_string().ends_with("issued with keyCertSign"), "{meaning}");
    }
}
