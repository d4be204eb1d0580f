//! A test authority, and the server and client certificates that it signs (RFC 5280).
//!
//! For tests, lessons and closed networks. It keeps no register of what it signed, publishes no
//! revocations, and its key lies in a file.
//!
//! Invariants: every certificate is of version 3, with a random serial number and both key
//! identifiers; the authority signs end entities only (path length 0); and no certificate outlives
//! the one that signed it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rand::TryRng;
use rand::rngs::SysRng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, DnsName};
use zeroize::Zeroizing;

use super::describe::{Description, UnreadableCertificate};

/// The longest life that can be asked for, in days: a hundred years.
pub const MAX_DAYS: u32 = 36_500;

/// The years in which a life may begin: any that a clock shows, and a certificate can express.
const START_YEARS: RangeInclusive<i16> = 1970..=9000;

/// How far in the past a certificate that is valid from now begins to be.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// The longest common name, in characters (RFC 5280, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// Bytes of randomness in a serial number; RFC 5280 allows 20 in all.
const SERIAL_LEN: usize = 16;

/// What kind of key a certificate is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on the curve P-256: small, fast and known everywhere.
    #[default]
    Ecdsa,
    /// RSA of 2048 bits.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To prove a server's name to its clients.
    Server,
    /// To prove a client's identity to servers.
    Client,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    not_before: Timestamp,
    /// What the days are counted from.
    start: Timestamp,
    not_after: Timestamp,
}

/// A certificate that is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    /// What it is for.
    pub purpose: Purpose,
    /// What it certifies. The first is the common name too, which is for people to read.
    pub names: Vec<String>,
    /// When it is valid.
    pub life: Life,
    /// What kind of key it is for.
    pub key: KeyKind,
}

/// A certificate and its key, as they go into files.
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The private key in PEM (PKCS #8).
    pub key_pem: Zeroizing<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// An empty or overlong common name.
    #[error("the name `{0}` cannot be used: a name has 1 to {MAX_COMMON_NAME} characters")]
    CommonName(String),
    /// No name at all.
    #[error("a certificate needs a name: give --name")]
    NoName,
    /// A server is known by a name that its clients can look up.
    #[error(
        "`{0}` is no name of a server: write a host name such as localhost, *.example.org, or an \
         IP address"
    )]
    NotAServerName(String),
    /// A second name of a client that fits none of the forms.
    #[error(
        "`{0}` is no alternative name: write a host name, an IP address, an e-mail address or a \
         URI (only the first --name may be any text)"
    )]
    NotAnAlternativeName(String),
    /// Nothing lives for no time or for ever.
    #[error("a certificate lives 1 to {MAX_DAYS} days, not {0}")]
    Days(u32),
    /// A start that no clock shows.
    #[error("a certificate cannot be valid from {0}")]
    Start(Timestamp),
    /// It would outlive its authority.
    #[error("the authority itself expires on {not_after}: ask for --days {days} or less")]
    OutlivesAuthority {
        /// When the authority expires.
        not_after: Timestamp,
        /// How many whole days are left.
        days: i64,
    },
    /// The authority is past its time.
    #[error("the authority expired on {0}: make a new one (turnstile cert ca)")]
    AuthorityExpired(Timestamp),
    /// The authority's certificate does not allow it to sign.
    #[error("the authority's certificate is not that of an authority (CA:TRUE is missing)")]
    NotAnAuthority,
    /// The authority's certificate and key do not belong together.
    #[error("the authority's certificate and key do not belong together")]
    WrongKey,
    /// The authority's certificate cannot be read.
    #[error("the authority's certificate cannot be used: {0}")]
    Unreadable(#[from] UnreadableCertificate),
    /// The authority's key cannot be read.
    #[error("the authority's key cannot be used: it is not an unencrypted private key in PEM")]
    UnreadableKey,
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    NoRandomness(#[from] rand::rngs::SysError),
    /// The cryptographic library refused.
    #[error("the certificate cannot be made: {0}")]
    Refused(#[from] rcgen::Error),
}

/// Makes an authority: a certificate signed by its own key.
///
/// # Errors
/// The name cannot be used, or the system refused.
pub fn new_authority(name: &str, life: Life, key: KeyKind) -> Result<Issued, IssueError> {
    if name.is_empty() || name.chars().count() > MAX_COMMON_NAME {
        return Err(IssueError::CommonName(name.to_owned()));
    }
    let mut params = params(name, life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = key.generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(issued(&certificate, &key))
}

/// An authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    not_after: Timestamp,
}

impl Authority {
    /// Takes an authority's certificate and its key in PEM.
    ///
    /// # Errors
    /// One of them cannot be read, they do not belong together, or the certificate is not an
    /// authority's.
    pub fn new(certificate: &CertificateDer<'_>, key_pem: &str) -> Result<Self, IssueError> {
        let description = Description::read(certificate)?;
        if !description.is_authority {
            return Err(IssueError::NotAnAuthority);
        }
        let key = KeyPair::from_pem(key_pem).map_err(|_| IssueError::UnreadableKey)?;
        if !description.has_key(&key.subject_public_key_info()) {
            return Err(IssueError::WrongKey);
        }
        let issuer = Issuer::from_ca_cert_der(certificate, key)?;
        Ok(Self { issuer, not_after: description.not_after })
    }

    /// Signs a certificate for a new key.
    ///
    /// # Errors
    /// The order cannot be met, or the system refused.
    pub fn issue(&self, order: &Order) -> Result<Issued, IssueError> {
        self.check_life(order.life)?;
        let first = order.names.first().ok_or(IssueError::NoName)?;
        let mut params = params(first, order.life)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = alternative_names(order)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if order.key == KeyKind::Rsa && order.purpose == Purpose::Server {
            // Old clients of TLS 1.2 encrypt to an RSA key rather than have it sign.
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = vec![match order.purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = order.key.generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(issued(&certificate, &key))
    }

    fn check_life(&self, life: Life) -> Result<(), IssueError> {
        let authority_ends = self.not_after;
        if life.not_after <= authority_ends {
            return Ok(());
        }
        match authority_ends.duration_since(life.start).as_hours() / 24 {
            ..1 => Err(IssueError::AuthorityExpired(authority_ends)),
            days => Err(IssueError::OutlivesAuthority { not_after: authority_ends, days }),
        }
    }
}

impl Life {
    /// Valid from an hour before `now`, for machines whose clocks are late, to `days` after it.
    ///
    /// # Errors
    /// No days, or more than [`MAX_DAYS`].
    pub fn from_now(now: Timestamp, days: u32) -> Result<Self, IssueError> {
        Ok(Self { not_before: now - BACKDATED, ..Self::from_start(now, days)? })
    }

    /// Valid from `start` to `days` after it. It may be over already, or yet to begin: such
    /// certificates are what clients are tested with.
    ///
    /// # Errors
    /// No days, more than [`MAX_DAYS`], or a start that certificates cannot express.
    pub fn from_start(start: Timestamp, days: u32) -> Result<Self, IssueError> {
        if !(1..=MAX_DAYS).contains(&days) {
            return Err(IssueError::Days(days));
        }
        if !START_YEARS.contains(&start.to_zoned(TimeZone::UTC).year()) {
            return Err(IssueError::Start(start));
        }
        let not_after = start + SignedDuration::from_hours(24 * i64::from(days));
        Ok(Self { not_before: start, start, not_after })
    }
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::Ecdsa => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::Rsa => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256),
            Self::Ed25519 => {
                // Without the public key (PKCS #8 version 1): OpenSSL reads no other before 3.2.
                let pair = Ed25519KeyPair::generate().map_err(|_| rcgen::Error::RingUnspecified)?;
                let der = pair.to_pkcs8v1().map_err(|_| rcgen::Error::RingUnspecified)?;
                KeyPair::try_from(der.as_ref())
            }
        }
    }
}

/// One word, as commands and files are called.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

impl FromStr for KeyKind {
    type Err = UnknownKeyKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ecdsa" => Ok(Self::Ecdsa),
            "rsa" => Ok(Self::Rsa),
            "ed25519" => Ok(Self::Ed25519),
            _ => Err(UnknownKeyKind),
        }
    }
}

/// A text is not a kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected ecdsa, rsa or ed25519")]
pub struct UnknownKeyKind;

/// What every certificate has. A first name that is too long to be a common name is left out of
/// the subject: clients go by the alternative names alone (RFC 9525).
fn params(first_name: &str, life: Life) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if first_name.chars().count() <= MAX_COMMON_NAME {
        params.distinguished_name.push(DnType::CommonName, first_name);
    }
    let epoch = date_time_ymd(1970, 1, 1);
    let seconds = |at: Timestamp| Duration::from_secs(at.as_second().unsigned_abs());
    params.not_before = epoch + seconds(life.not_before);
    params.not_after = epoch + seconds(life.not_after);
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

/// Unpredictable, positive, and never with leading zeroes, which DER would drop.
fn random_serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; SERIAL_LEN];
    SysRng.try_fill_bytes(&mut bytes)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn alternative_names(order: &Order) -> Result<Vec<SanType>, IssueError> {
    let mut names = Vec::with_capacity(order.names.len());
    for (position, text) in order.names.iter().enumerate() {
        // A client's first name may be any text, of which only one with dots is a host's.
        let may_be_host = order.purpose == Purpose::Server || position > 0 || text.contains('.');
        let spelled = if may_be_host { in_ascii(text) } else { Cow::Borrowed(text.as_str()) };
        let name = alternative_name(&spelled);
        match (order.purpose, name) {
            (Purpose::Server, Some(name @ (SanType::DnsName(_) | SanType::IpAddress(_))))
            | (Purpose::Client, Some(name)) => names.push(name),
            (Purpose::Server, _) => return Err(IssueError::NotAServerName(text.clone())),
            (Purpose::Client, None) if text.is_empty() => {
                return Err(IssueError::CommonName(text.clone()));
            }
            (Purpose::Client, None) if position == 0 => {
                if text.chars().count() > MAX_COMMON_NAME {
                    return Err(IssueError::CommonName(text.clone()));
                }
            }
            (Purpose::Client, None) => {
                return Err(IssueError::NotAnAlternativeName(text.clone()));
            }
        }
    }
    Ok(names)
}

/// A host name of any language in the form that certificates and name servers have (`xn--...`,
/// RFC 5890); what is none stays as it is. That of an e-mail address is what follows the `@`.
fn in_ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let (before, host) = match text.split_once('@') {
        Some((user, host)) => (format!("{user}@"), host),
        None => match text.strip_prefix("*.") {
            Some(host) => ("*.".to_owned(), host),
            None => (String::new(), text),
        },
    };
    match idna::domain_to_ascii_strict(host) {
        Ok(host) => Cow::Owned(before + &host),
        Err(_) => Cow::Borrowed(text),
    }
}

/// What a text is as an alternative name, by its form; `None` where it has none of them.
fn alternative_name(text: &str) -> Option<SanType> {
    let has_blanks = text.contains(|c: char| c.is_whitespace() || c.is_control());
    if let Ok(ip) = text.parse::<IpAddr>() {
        Some(SanType::IpAddress(ip))
    } else if has_blanks {
        None
    } else if text.contains(':') {
        text.try_into().ok().map(SanType::URI)
    } else if text.contains('@') {
        text.try_into().ok().map(SanType::Rfc822Name)
    } else {
        DnsName::try_from(text.strip_prefix("*.").unwrap_or(text)).ok()?;
        text.try_into().ok().map(SanType::DnsName)
    }
}

fn issued(certificate: &rcgen::Certificate, key: &KeyPair) -> Issued {
    Issued {
        certificate: certificate.der().clone(),
        certificate_pem: certificate.pem(),
        key_pem: Zeroizing::new(key.serialize_pem()),
    }
}
