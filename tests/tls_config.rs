//! `[listener.tls]` as people write it: every file that is not what it should be is named, at its
//! place, and nothing of a key is ever shown.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use turnstile::config::{self, ClientAuth, Plan, Report, Version};

const LISTENER: &str =
    "[[listener]]\nname = 'a'\naddress = 'localhost:80'\nservice = 'upper'\n[listener.tls]\n";

const PAIR: &str = "cert = 'cert.pem'\nkey = 'key.pem'\n";

/// A folder with a certificate, its key, another key, an authority, and a revocation list.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("the folder is ours");
    };
    let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let certificate = parameters().self_signed(&key).expect("signed");
    write("cert.pem", &certificate.pem());
    write("key.pem", &key.serialize_pem());
    write("other-key.pem", &other.serialize_pem());
    let authority = authority();
    write("ca.pem", &authority.pem());
    write("crl.pem", &revocation_list(&authority));
    write("empty.pem", "");
    write("prose.pem", "There is nothing here.\n");
    write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write(
        "encrypted.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    write("tickets", "0123456789abcdef0123456789abcdef");
    folder
}

fn parameters() -> CertificateParams {
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2100, 1, 1);
    parameters
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = parameters();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("signed")
}

fn revocation_list(authority: &CertifiedIssuer<'_, KeyPair>) -> String {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(7),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(authority).expect("signed").pem().expect("PEM")
}

fn parse(text: &str, folder: &Path) -> Result<Plan, Report> {
    config::parse(text, "test.toml", folder)
}

#[test]
fn everything_that_can_be_written_is_read_and_printed() {
    let folder = folder();
    let text = format!(
        "{LISTENER}{PAIR}certificates = [{{ cert = 'cert.pem', key = 'key.pem' }}]\n\
         client_ca = 'ca.pem'\nclient_auth = 'required'\ncrl = ['crl.pem']\n\
         allow = ['cn:alice', 'dns:a.example', 'uri:spiffe://a', 'spki:sha256:{}']\n\
         versions = ['1.3']\nalpn = ['h2', 'http/1.1']\nticket_key = 'tickets'\n",
        "0f".repeat(32)
    );
    let plan = parse(&text, folder.path()).expect("sound");
    let tls = plan.listeners[0].tls.as_ref().expect("TLS");
    assert_eq!((tls.credentials.len(), tls.versions.as_slice()), (2, &[Version::Tls13][..]));
    assert_eq!(tls.alpn, ["h2", "http/1.1"]);
    let clients = tls.clients.as_ref().expect("clients");
    assert_eq!((clients.auth, clients.allow.len()), (ClientAuth::Required, 4));

    let printed = config::to_toml(&plan);
    assert_eq!(parse(&printed, Path::new("")).expect(&printed), plan);
}

#[test]
fn a_certificate_and_its_key_are_enough() {
    let folder = folder();
    let plan = parse(&format!("{LISTENER}{PAIR}"), folder.path()).expect("sound");
    let tls = plan.listeners[0].tls.as_ref().expect("TLS");
    assert_eq!(tls.versions, Version::ALL);
    assert!(tls.clients.is_none() && tls.ticket_key.is_none() && tls.alpn.is_empty());
    let asked = parse(&format!("{LISTENER}{PAIR}client_ca = 'ca.pem'\n"), folder.path());
    let asked = asked.expect("sound").listeners[0].tls.as_ref().and_then(|it| it.clients.clone());
    assert_eq!(asked.expect("clients").auth, ClientAuth::Required, "the safe default");
}

#[test]
fn what_is_wrong_is_said_at_its_place() {
    let folder = folder();
    let pair = |cert: &str, key: &str| format!("cert = '{cert}'\nkey = '{key}'");
    let with = |line: &str| format!("{PAIR}{line}");
    let cases = [
        (pair("cert.pem", "other-key.pem"), "7:7", "the key does not belong to the certificate"),
        (pair("cert.pem", "encrypted.pem"), "7:7", "is encrypted, and nobody is there to ask"),
        (pair("cert.pem", "prose.pem"), "7:7", "holds no private key"),
        (pair("cert.pem", "empty.pem"), "7:7", "is empty"),
        (pair("empty.pem", "key.pem"), "6:8", "is empty"),
        (pair("prose.pem", "key.pem"), "6:8", "holds no certificate"),
        (pair("broken.pem", "key.pem"), "6:8", "line 1: the certificate cannot be read"),
        (pair("missing.pem", "key.pem"), "6:8", "missing.pem cannot be read: No such file"),
        (pair("built-in:server", "other-key.pem"), "7:7", "the key does not belong"),
        ("cert = 'cert.pem'".to_owned(), "5:1", "[listener.tls] has no `key`"),
        (with("client_ca = 'prose.pem'"), "8:13", "holds no certificate"),
        (with("client_ca = 'ca.pem'\ncrl = ['prose.pem']"), "9:8", "holds no revocation list"),
        (with("crl = ['crl.pem']"), "8:7", "`crl` without `client_ca`"),
        (with("allow = ['cn:a']"), "8:9", "`allow` without `client_ca`"),
        (with("client_auth = 'optional'"), "8:15", "`client_auth` without `client_ca`"),
        (with("client_auth = 'maybe'"), "8:15", "`maybe` is unknown"),
        (with("client_ca = 'ca.pem'\nallow = []"), "9:9", "an empty list lets nobody in"),
        (with("client_ca = 'ca.pem'\nallow = ['bob']"), "9:9", "`bob` does not say who may"),
        (
            with("client_ca = 'ca.pem'\nclient_auth = 'optional'\nallow = ['cn:a']"),
            "10:9",
            "`allow` where clients need no certificate",
        ),
        (with("versions = ['1.1']"), "8:12", "TLS 1.1 is not spoken here"),
        (with("versions = []"), "8:12", "no version is left"),
        (with("alpn = ['']"), "8:8", "not a protocol"),
        (with("ticket_key = 'prose.pem'"), "8:14", "is too short for a ticket key"),
        (with("ciphers = 'all'"), "8:1", "unknown key `ciphers` in [listener.tls]"),
    ];
    for (lines, place, message) in cases {
        let report = parse(&format!("{LISTENER}{lines}\n"), folder.path()).expect_err(&lines);
        let found: Vec<_> = report.problems().collect();
        let said = format!("{}:{} {}", found[0].line, found[0].column, found[0].message);
        assert!(found.len() == 1, "{lines}: {report}");
        assert!(said.starts_with(place) && said.contains(message), "{lines}: {said}");
        assert!(!found[0].help.is_empty());
    }
}

#[test]
fn a_certificate_that_has_expired_is_no_fault_but_a_warning() {
    let folder = folder();
    let plan = parse(&format!("{LISTENER}{PAIR}"), folder.path()).expect("sound");
    let at = |text: &str| text.parse().expect("a moment");
    assert_eq!(plan.warnings(at("2099-12-31T23:59:59Z")), [""; 0]);
    let warnings = plan.warnings(at("2100-01-01T00:00:00Z"));
    assert!(warnings[0].contains("cert.pem expired on 2100-01-01T00:00:00Z"), "{warnings:?}");
}

#[test]
fn the_demonstration_key_stays_on_loopback_also_when_it_comes_from_a_file() {
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    let (cert, key) = (certs.join("server.pem"), certs.join("server-key.pem"));
    let file = format!("cert = '{}'\nkey = '{}'\n", cert.display(), key.display());
    let built_in = "cert = 'built-in:server'\nkey = 'built-in:server-key'\n";
    for lines in [file.as_str(), built_in] {
        let text = format!("{LISTENER}{lines}");
        parse(&text, Path::new("")).expect("loopback");
        let report = parse(&text.replace("localhost", "0.0.0.0"), Path::new(""));
        let report = report.expect_err("anyone could pretend to be this server").to_string();
        assert!(report.contains("a demonstration key, which is public"), "{report}");
    }
}

#[test]
fn tls_goes_with_streams_and_a_buffer_that_holds_a_record() {
    let folder = folder();
    let text = format!("{LISTENER}{PAIR}").replace("'localhost:80'", "'udp://localhost:80'");
    let report = parse(&text, folder.path()).expect_err("udp").to_string();
    assert!(report.contains("datagrams have no TLS here"), "{report}");
    let text = format!("[limits]\nbuffer = '16KiB'\n{LISTENER}{PAIR}");
    let report = parse(&text, folder.path()).expect_err("small").to_string();
    assert!(report.contains("a record of TLS does not fit"), "{report}");
}
