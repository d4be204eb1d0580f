//! What is in files of certificates and lists that others will not accept: times that are over or
//! have not come, names that are missing. No mistake, and yet seldom what was meant.

use jiff::Timestamp;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use super::{Authorities, Credential, Origin, RevocationList, Tls, UpstreamTls};
use crate::config::address::Address;

/// Who will be shown a certificate.
#[derive(Clone, Copy)]
enum Viewer {
    Clients,
    Targets,
}

impl Viewer {
    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Targets => "targets",
        }
    }
}

/// The doubts about what a listener at `address` shows and asks for.
pub(in crate::config) fn of(tls: &Tls, address: &Address, now: Timestamp) -> Vec<String> {
    let mut doubts = Vec::new();
    for credential in &tls.credentials {
        doubts.extend(of_credential(credential, Viewer::Clients, now));
        doubts.extend(of_names(credential));
    }
    doubts.extend(of_host(tls, address));
    if let Some(clients) = &tls.clients {
        doubts.extend(of_authorities(&clients.authorities, &clients.ca, now));
        doubts.extend(of_lists(&clients.revoked, &clients.authorities, now));
    }
    doubts
}

/// The doubts about what targets are shown, and about whom they must have been certified by.
pub(in crate::config) fn of_upstream(tls: &UpstreamTls, now: Timestamp) -> Vec<String> {
    let shown = tls.credential.iter();
    let mut doubts: Vec<_> = shown.flat_map(|it| of_credential(it, Viewer::Targets, now)).collect();
    if let Some((origin, authorities)) = &tls.ca {
        doubts.extend(of_authorities(authorities, origin, now));
        doubts.extend(of_lists(&tls.revoked, authorities, now));
    }
    doubts
}

fn of_credential(credential: &Credential, viewer: Viewer, now: Timestamp) -> Vec<String> {
    let (file, who) = (&credential.cert, viewer.name());
    let mut doubts = Vec::new();
    for (position, der) in credential.certified.cert.iter().enumerate() {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { continue };
        let whose = if position == 0 {
            format!("the certificate in {file}")
        } else {
            format!("the certificate of {} in {file}", name(certificate.subject()))
        };
        doubts.extend(
            time_of(&certificate, now)
                .map(|when| format!("{whose} {when}, and {who} will refuse it; make a new one")),
        );
        if position == 0 && !is_for(&certificate, viewer) {
            doubts.push(format!(
                "{whose} is for other purposes (extended key usage), and {who} will refuse it; \
                 make a new one"
            ));
        }
    }
    doubts
}

fn is_for(certificate: &X509Certificate<'_>, viewer: Viewer) -> bool {
    let Ok(Some(purposes)) = certificate.extended_key_usage() else { return true };
    match viewer {
        Viewer::Clients => purposes.value.server_auth,
        Viewer::Targets => purposes.value.client_auth,
    }
}

fn of_names(credential: &Credential) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(credential.certified.cert.first()?).ok()?;
    let has_names = matches!(certificate.subject_alternative_name(), Ok(Some(_)));
    (!has_names).then(|| {
        format!(
            "the certificate in {} has no alternative names, and clients no longer look at its \
             subject; make a new one",
            credential.cert
        )
    })
}

/// A listener with a name should be able to prove it. What it is called on this machine alone does
/// not count.
fn of_host(tls: &Tls, address: &Address) -> Option<String> {
    let at = address.host_port().filter(|at| at.is_named() && at.host != "localhost")?;
    let expected = ServerName::try_from(at.host.as_str()).ok()?;
    let proves = |der: &CertificateDer<'_>| {
        let parsed = ParsedCertificate::try_from(der).ok()?;
        verify_server_name(&parsed, &expected).ok()
    };
    let own = tls.credentials.iter().filter_map(|it| it.certified.cert.first());
    let is_proved = own.filter_map(proves).next().is_some();
    (!is_proved).then(|| format!("no certificate is for the name `{}` that it listens on", at.host))
}

fn of_authorities(authorities: &Authorities, file: &Origin, now: Timestamp) -> Vec<String> {
    let read = |der| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate);
    let all: Vec<_> = authorities.certificates.iter().filter_map(|der| read(der)).collect();
    let doubt = |certificate: &X509Certificate<'_>| {
        let when = time_of(certificate, now)?;
        let is_same = |it: &&X509Certificate<'_>| it.subject() == certificate.subject();
        if all.iter().filter(is_same).any(|it| time_of(it, now).is_none()) {
            return None; // It was renewed.
        }
        let whose = name(certificate.subject());
        Some(format!(
            "the certificate of {whose} in {file} {when}, and whoever that has certified will be \
             refused; give its present one"
        ))
    };
    all.iter().filter_map(doubt).collect()
}

/// What lists are not in force, and whose are missing.
fn of_lists(revoked: &[RevocationList], authorities: &Authorities, now: Timestamp) -> Vec<String> {
    let files = revoked.iter().flat_map(|it| it.lists.iter().map(move |der| (&it.path, der)));
    let lists: Vec<_> = files
        .filter_map(|(path, der)| Some((path, CertificateRevocationList::from_der(der).ok()?.1)))
        .collect();
    let fault = |list: &CertificateRevocationList<'_>| {
        let (from, until) = (Some(list.last_update()), list.next_update());
        outside(from, until, now, "is out of date since")
    };
    let mut doubts = Vec::new();
    for (path, list) in &lists {
        let replaced =
            lists.iter().any(|(_, it)| it.issuer() == list.issuer() && fault(it).is_none());
        if let (false, Some(when)) = (replaced, fault(list)) {
            doubts.push(format!(
                "the revocation list of {} in {} {when}, and whoever that authority has certified \
                 will be refused; fetch its present one",
                name(list.issuer()),
                path.display()
            ));
        }
    }
    if lists.is_empty() {
        return doubts;
    }
    for der in &authorities.certificates {
        let Ok((_, authority)) = X509Certificate::from_der(der) else { continue };
        if authority.is_ca() && !lists.iter().any(|(_, it)| it.issuer() == authority.subject()) {
            doubts.push(format!(
                "`crl` has no list of {}, and whoever that has certified will be refused; add it",
                name(authority.subject())
            ));
        }
    }
    doubts
}

fn time_of(certificate: &X509Certificate<'_>, now: Timestamp) -> Option<String> {
    let validity = certificate.validity();
    outside(Some(validity.not_before), Some(validity.not_after), now, "expired on")
}

/// What is wrong with a time that does not hold `now`.
fn outside(
    from: Option<ASN1Time>,
    until: Option<ASN1Time>,
    now: Timestamp,
    over: &str,
) -> Option<String> {
    let moment = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    if let Some(until) = until.and_then(moment).filter(|until| *until <= now) {
        return Some(format!("{over} {until}"));
    }
    let from = from.and_then(moment).filter(|from| *from > now)?;
    Some(format!("is not valid before {from}"))
}

/// A name for a sentence: nothing in it can end the sentence, or move a cursor.
fn name(name: &X509Name<'_>) -> String {
    format!("`{}`", name.to_string().escape_debug())
}
