//! What a forwarding listener asks of a target behind TLS: revocation lists, and an application
//! protocol that both speak.

mod common;

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use common::{Daemon, is_closed_silently, listener, rest, text, turnstile};

/// The number of the target's certificate.
const SERIAL: u64 = 7;

/// A folder with an authority, a target's certificate, and lists that revoke it or nothing.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("the folder is ours");
    };
    let key = || KeyPair::generate().expect("a key");
    let mut authority = parameters();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("signed");
    let mut own = parameters();
    own.serial_number = Some(SerialNumber::from(SERIAL));
    let own_key = key();
    let own = own.signed_by(&own_key, &authority).expect("signed");
    write("ca.pem", &authority.pem());
    write("target.pem", &own.pem());
    write("target-key.pem", &own_key.serialize_pem());
    write("none.pem", &list(&authority, &[]));
    write("revoked.pem", &list(&authority, &[SERIAL]));
    folder
}

fn parameters() -> CertificateParams {
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    parameters.use_authority_key_identifier_extension = true;
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2100, 1, 1);
    parameters
}

fn list(authority: &CertifiedIssuer<'_, KeyPair>, revoked: &[u64]) -> String {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2021, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(authority).expect("signed").pem().expect("PEM")
}

/// A daemon whose files are in `folder`.
fn start(folder: &Path, configuration: &str) -> Daemon {
    let mut command = turnstile(&["serve", "-c", "-"]);
    command.current_dir(folder);
    Daemon::launch(command, configuration)
}

/// A target that speaks TLS, with `more` lines of its table.
fn target(folder: &Path, more: &str) -> Daemon {
    let tls = "[listener.tls]\ncert = 'target.pem'\nkey = 'target-key.pem'\n";
    start(folder, &listener("target", "daytime", &format!("{tls}{more}")))
}

/// A listener that forwards to it, with `more` lines about how.
fn entry(folder: &Path, target: &Daemon, more: &str) -> Daemon {
    let port = target.socket_address("target").port();
    let lines =
        format!("to = 'tls://localhost:{port}'\n[listener.upstream]\nca = 'ca.pem'\n{more}");
    start(folder, &listener("entry", "forward", &lines))
}

#[test]
fn a_target_whose_certificate_was_revoked_is_not_forwarded_to() {
    let folder = folder();
    let target = target(folder.path(), "");
    let sound = entry(folder.path(), &target, "crl = ['none.pem']\n");
    assert!(text(&rest(&mut sound.connect("entry"))).contains("20"), "the time");
    let wary = entry(folder.path(), &target, "crl = ['revoked.pem']\n");
    assert!(is_closed_silently(&mut wary.connect("entry")));
    wary.wait_for_line("the certificate has been revoked");
}

#[test]
fn a_target_that_insists_on_a_protocol_is_offered_it() {
    let folder = folder();
    let target = target(folder.path(), "alpn = ['postgresql']\n");
    let right = entry(folder.path(), &target, "alpn = ['h2', 'postgresql']\n");
    assert!(text(&rest(&mut right.connect("entry"))).contains("20"), "the time");
    let wrong = entry(folder.path(), &target, "alpn = ['h2']\n");
    assert!(is_closed_silently(&mut wrong.connect("entry")));
    wrong.wait_for_line("none of the protocols offered (ALPN)");
}
