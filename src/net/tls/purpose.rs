//! What a certificate says that it may be used for, where webpki does not ask: the key usage of each
//! certificate of a chain, and all that a root says of itself. The rules are those of OpenSSL
//! (`X509_check_purpose`, `X509_check_ca`), and so of nginx and HAProxy.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::KeyUsage;
use x509_parser::x509::X509Name;

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client's.
    Client,
    /// A server's.
    Server,
}

/// What a certificate is used for, although it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// It cannot be read.
    #[error("a certificate of the chain cannot be read: have it issued anew")]
    Unreadable,
    /// Its key may not do what its owner does with it.
    #[error(
        "the certificate's key usage does not let {0} prove itself: have it issued with \
         digitalSignature"
    )]
    OwnersKey(&'static str),
    /// An authority may not sign certificates.
    #[error(
        "the key usage of {0} does not let it sign certificates: have that authority's own \
         certificate issued with keyCertSign"
    )]
    AuthoritysKey(String),
    /// An authority may not sign revocation lists.
    #[error(
        "the key usage of {0} does not let it sign revocation lists: have that authority's own \
         certificate issued with cRLSign"
    )]
    ListsKey(String),
    /// The root is no authority.
    #[error(
        "{0} is trusted, but is no authority by its own certificate: have that issued with the \
         basic constraint CA:TRUE"
    )]
    NoAuthority(String),
    /// There are more authorities between than the root allows.
    #[error("{0} allows fewer authorities below it than the chain has (pathlen)")]
    TooLong(String),
    /// The root is for something else.
    #[error("{0}, which is trusted, is for other purposes only (extended key usage)")]
    OtherPurpose(String),
    /// The root demands something that is unknown here.
    #[error("{0} has a critical extension that is unknown here ({1})")]
    UnknownExtension(String, String),
    /// The root's time is over.
    #[error("the certificate of {0}, which is trusted, expired on {at}: give its new one", at = date(*.1))]
    Expired(String, i64),
    /// The root's time has not come.
    #[error(
        "the certificate of {0}, which is trusted, is not valid before {at}: check the clocks",
        at = date(*.1)
    )]
    Early(String, i64),
    /// An authority that is trusted was revoked.
    #[error("the certificate of {0}, which is trusted, has been revoked: trust it no longer")]
    Revoked(String),
    /// The list's time has not come.
    #[error(
        "the revocation list of {0} is not valid before {at}: check the clocks, or give the one \
         before it",
        at = date(*.1)
    )]
    EarlyList(String, i64),
}

/// Extensions that may be critical because somebody here, or webpki, looks at them; and policies,
/// which restrict nobody who asks for none.
const KNOWN: [&str; 8] = [
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.32",
    "2.5.29.36",
    "2.5.29.37",
];

/// The owner of the certificate signs with its key, or lets a key be agreed on with it.
pub(super) fn of_owner(certificate: &X509Certificate<'_>, role: Role) -> Result<(), Misuse> {
    let Some(usage) = usage(certificate)? else { return Ok(()) };
    let may = match role {
        Role::Client => usage.digital_signature() || usage.key_agreement(),
        Role::Server => {
            usage.digital_signature() || usage.key_agreement() || usage.key_encipherment()
        }
    };
    let whom = match role {
        Role::Client => "a client",
        Role::Server => "a server",
    };
    if may { Ok(()) } else { Err(Misuse::OwnersKey(whom)) }
}

/// An authority between signs certificates. That it is one webpki has seen.
pub(super) fn of_authority(certificate: &X509Certificate<'_>) -> Result<(), Misuse> {
    match usage(certificate)? {
        Some(usage) if !usage.key_cert_sign() => Err(Misuse::AuthoritysKey(owner(certificate))),
        _ => Ok(()),
    }
}

/// An authority that is trusted: is one, is for `role`, is in force `now` (seconds since 1970), and
/// lets `below` others stand between it and the owner.
pub(super) fn of_root(
    root: &X509Certificate<'_>,
    role: Role,
    below: usize,
    now: i64,
) -> Result<(), Misuse> {
    of_authority(root)?;
    let constraints = root.basic_constraints().map_err(|_| Misuse::Unreadable)?;
    match constraints.map(|it| it.value) {
        Some(constraints) if !constraints.ca => return Err(Misuse::NoAuthority(owner(root))),
        Some(constraints)
            if constraints.path_len_constraint.is_some_and(|most| below > most as usize) =>
        {
            return Err(Misuse::TooLong(owner(root)));
        }
        Some(_) => {}
        // A root of version 1 cannot say it, and one that may sign has said as much.
        None if root.version().0 == 0 || usage(root)?.is_some() => {}
        None => return Err(Misuse::NoAuthority(owner(root))),
    }
    of_trusted(root, role, now)
}

/// The owner's own certificate, which is trusted as it is: nobody else needs to have signed it.
pub(super) fn of_pinned(own: &X509Certificate<'_>, role: Role, now: i64) -> Result<(), Misuse> {
    of_owner(own, role)?;
    of_trusted(own, role, now)
}

/// What webpki asks of every certificate but those that are trusted.
fn of_trusted(root: &X509Certificate<'_>, role: Role, now: i64) -> Result<(), Misuse> {
    let validity = root.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if until < now {
        return Err(Misuse::Expired(owner(root), until));
    }
    if from > now {
        return Err(Misuse::Early(owner(root), from));
    }
    let purposes = root.extended_key_usage().map_err(|_| Misuse::Unreadable)?;
    let is_for = match (role, purposes.map(|it| it.value)) {
        (_, None) => true,
        (Role::Client, Some(purposes)) => purposes.client_auth,
        (Role::Server, Some(purposes)) => purposes.server_auth,
    };
    if !is_for {
        return Err(Misuse::OtherPurpose(owner(root)));
    }
    let unknown = root.extensions().iter().find(|extension| {
        extension.critical && !KNOWN.contains(&extension.oid.to_id_string().as_str())
    });
    unknown.map_or(Ok(()), |extension| {
        Err(Misuse::UnknownExtension(owner(root), extension.oid.to_id_string()))
    })
}

/// An authority whose list counts signs lists.
pub(super) fn may_sign_lists(root: &X509Certificate<'_>) -> Result<(), Misuse> {
    match usage(root)? {
        Some(usage) if !usage.crl_sign() => Err(Misuse::ListsKey(owner(root))),
        _ => Ok(()),
    }
}

/// A name for a sentence: nothing in it can end the sentence, or move a cursor.
pub(super) fn name(name: &X509Name<'_>) -> String {
    format!("`{}`", name.to_string().escape_debug())
}

fn owner(certificate: &X509Certificate<'_>) -> String {
    name(certificate.subject())
}

fn usage<'a>(certificate: &'a X509Certificate<'_>) -> Result<Option<&'a KeyUsage>, Misuse> {
    let usage = certificate.key_usage().map_err(|_| Misuse::Unreadable)?;
    Ok(usage.map(|usage| usage.value))
}

fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .map_or_else(|_| "an unknown date".to_owned(), |it| it.to_string())
}
