//! The chain from a certificate to an authority, checked as strictly as OpenSSL checks it.
//!
//! rustls' own check looks neither at `keyUsage` nor at anything that an authority's certificate
//! says of itself, and takes a list of revoked certificates that is not in force yet. Whoever comes
//! from nginx or HAProxy expects that all of it counts: so a [`Chain`] judges every path that webpki
//! finds once more, and one that it does not like is passed over for the next.
//!
//! Invariant: nothing is accepted here that webpki would refuse, but for a certificate that is
//! itself among those that are trusted.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::sync::Arc;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    RevocationOptionsBuilder, VerifiedPath, anchor_from_trusted_cert,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::purpose::{self, Misuse, Role};

/// The authorities that are trusted, the lists of what they have revoked, and the rules for what
/// lies between them and a certificate.
#[derive(Debug)]
pub struct Chain {
    role: Role,
    roots: Arc<RootCertStore>,
    anchors: Vec<Anchor>,
    /// Authorities between, which are known beside those that the peer shows.
    between: Vec<CertificateDer<'static>>,
    lists: Vec<List>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// A trusted authority with its certificate, as webpki names it.
#[derive(Debug)]
struct Anchor {
    subject: Vec<u8>,
    key: Vec<u8>,
    certificate: CertificateDer<'static>,
}

#[derive(Debug)]
struct List {
    /// The authority whose list it is, in DER.
    issuer: Vec<u8>,
    /// From when it holds, in seconds since 1970.
    from: i64,
    parsed: CertRevocationList<'static>,
}

impl Chain {
    /// Certificates of `role` below `roots`. `known` are certificates of authorities, those of
    /// `roots` among them; of a root that is not there nothing more is asked than that it signed.
    #[must_use]
    pub fn new(role: Role, roots: Arc<RootCertStore>, known: &[CertificateDer<'static>]) -> Self {
        let (mut anchors, mut between) = (Vec::new(), Vec::new());
        for certificate in known {
            let Ok(anchor) = anchor_from_trusted_cert(certificate) else { continue };
            let (subject, key) = (anchor.subject.to_vec(), anchor.subject_public_key_info.to_vec());
            let is_root = roots
                .roots
                .iter()
                .any(|root| *root.subject == *subject && *root.subject_public_key_info == *key);
            if is_root {
                anchors.push(Anchor { subject, key, certificate: certificate.clone() });
            } else {
                between.push(certificate.clone());
            }
        }
        let algorithms = default_provider().signature_verification_algorithms;
        Self { role, roots, anchors, between, lists: Vec::new(), algorithms }
    }

    /// With lists of revoked certificates: from then on every authority of a chain needs one that
    /// is in force, as with nginx' `ssl_crl`. Of two lists of one authority the later one counts, once
    /// its time has come.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn with_lists<'a>(
        mut self,
        lists: impl IntoIterator<Item = &'a CertificateRevocationListDer<'static>>,
    ) -> Result<Self, Error> {
        for der in lists {
            let unusable = |what: &str| Error::General(format!("a revocation list {what}"));
            let (_, list) =
                CertificateRevocationList::from_der(der).map_err(|_| unusable("cannot be read"))?;
            let (issuer, from) = (list.issuer().as_raw().to_vec(), list.last_update().timestamp());
            let parsed = BorrowedCertRevocationList::from_der(der)
                .and_then(|list| list.to_owned())
                .map_err(|error| unusable(&format!("cannot be used: {error}")))?;
            self.lists.push(List { issuer, from, parsed: parsed.into() });
        }
        self.lists.sort_by_key(|list| Reverse(list.from));
        Ok(self)
    }

    /// The certificates that `shown` and what is known besides hold between an owner and a root.
    pub fn others<'a>(&self, shown: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
        shown.iter().chain(&self.between).cloned().collect()
    }

    /// Whether a chain from `own` over some of `others` leads to a root at the moment `now`.
    ///
    /// # Errors
    /// What speaks against the last path that was found, or that there is none.
    pub fn verify(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), ChainError> {
        if let Some(verdict) = self.pinned(own, now) {
            return verdict.map_err(ChainError::Misuse);
        }
        let parsed = EndEntityCert::try_from(own).map_err(ChainError::Webpki)?;
        let misuse = RefCell::new(None);
        let judge = |path: &VerifiedPath<'_>| {
            self.judge(path, own, now).map_err(|found| {
                *misuse.borrow_mut() = Some(found);
                webpki::Error::ExtensionValueInvalid
            })
        };
        // webpki takes the first that fits.
        let (due, early): (Vec<_>, Vec<_>) = self.lists.iter().partition(|list| list.is_due(now));
        let lists: Vec<_> = due.into_iter().chain(early).map(|list| &list.parsed).collect();
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_expiration_policy(ExpirationPolicy::Enforce).build());
        let usage = match self.role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let (algorithms, roots) = (self.algorithms.all, &self.roots.roots);
        let verified = parsed
            .verify_for_usage(algorithms, roots, others, now, usage, revocation, Some(&judge))
            .map(drop);
        verified.map_err(|error| match misuse.into_inner() {
            Some(misuse) => ChainError::Misuse(misuse),
            None => ChainError::Webpki(error),
        })
    }

    /// The verdict on a certificate that is trusted itself, and may be an authority's, which webpki
    /// would not have; `None` for all others. Where there are lists it needs one as they do.
    fn pinned(&self, own: &CertificateDer<'_>, now: UnixTime) -> Option<Result<(), Misuse>> {
        if !self.lists.is_empty() || !self.anchors.iter().any(|it| it.certificate == *own) {
            return None;
        }
        let (_, parsed) = X509Certificate::from_der(own).ok()?;
        Some(purpose::of_pinned(&parsed, self.role, seconds(now)))
    }

    /// What webpki does not ask of a path.
    fn judge(
        &self,
        path: &VerifiedPath<'_>,
        own: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<(), Misuse> {
        let (_, owned) = X509Certificate::from_der(own).map_err(|_| Misuse::Unreadable)?;
        purpose::of_owner(&owned, self.role)?;
        self.list_in_force(&owned, now)?;
        let mut below = 0;
        for between in path.intermediate_certificates() {
            let der = between.der();
            let (_, authority) = X509Certificate::from_der(&der).map_err(|_| Misuse::Unreadable)?;
            purpose::of_authority(&authority)?;
            self.list_in_force(&authority, now)?;
            below += usize::from(authority.subject() != authority.issuer());
        }
        let is_ours = |anchor: &&Anchor| {
            *anchor.subject == *path.anchor().subject
                && *anchor.key == *path.anchor().subject_public_key_info
        };
        // A root may be there twice, under the same key: one that is good is enough.
        let mut verdict = Ok(());
        for anchor in self.anchors.iter().filter(is_ours) {
            verdict = if anchor.certificate == *own {
                Ok(())
            } else {
                self.root(&anchor.certificate, below, now)
            };
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    fn root(&self, der: &[u8], below: usize, now: UnixTime) -> Result<(), Misuse> {
        let (_, root) = X509Certificate::from_der(der).map_err(|_| Misuse::Unreadable)?;
        purpose::of_root(&root, self.role, below, seconds(now))?;
        let is_revoked = self.lists.iter().any(|list| {
            list.issuer == root.issuer().as_raw()
                && !matches!(list.parsed.find_serial(root.raw_serial()), Ok(None))
        });
        if is_revoked {
            return Err(Misuse::Revoked(purpose::name(root.subject())));
        }
        let signs_lists = self.lists.iter().any(|list| list.issuer == root.subject().as_raw());
        if signs_lists { purpose::may_sign_lists(&root) } else { Ok(()) }
    }

    /// Whether the list of the certificate's issuer, where there is one, holds already.
    fn list_in_force(&self, of: &X509Certificate<'_>, now: UnixTime) -> Result<(), Misuse> {
        let mut lists = self.lists.iter().filter(|list| list.issuer == of.issuer().as_raw());
        match lists.clone().next() {
            Some(list) if !lists.any(|list| list.is_due(now)) => {
                Err(Misuse::EarlyList(purpose::name(of.issuer()), list.from))
            }
            _ => Ok(()),
        }
    }
}

impl List {
    fn is_due(&self, now: UnixTime) -> bool {
        self.from <= seconds(now)
    }
}

/// Why a chain is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// webpki has found no path.
    Webpki(webpki::Error),
    /// Every path that webpki found breaks a rule of this module.
    Misuse(Misuse),
}

impl From<ChainError> for Error {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Misuse(misuse) => CertificateError::Other(OtherError(Arc::new(misuse))),
            ChainError::Webpki(webpki::Error::UnknownIssuer) => CertificateError::UnknownIssuer,
            ChainError::Webpki(webpki::Error::CertRevoked) => CertificateError::Revoked,
            ChainError::Webpki(webpki::Error::UnknownRevocationStatus) => {
                CertificateError::UnknownRevocationStatus
            }
            ChainError::Webpki(webpki::Error::CrlExpired { time, next_update }) => {
                CertificateError::ExpiredRevocationListContext { time, next_update }
            }
            ChainError::Webpki(error) => CertificateError::Other(OtherError(Arc::new(error))),
        }
        .into()
    }
}

fn seconds(moment: UnixTime) -> i64 {
    i64::try_from(moment.as_secs()).unwrap_or(i64::MAX)
}
