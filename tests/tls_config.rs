//! `[listener.tls]` as people write it: every file that is not what it should be is named, at its
//! place, and nothing of a key is ever shown.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
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
        let path = folder.path().join(name);
        fs::write(&path, text).expect("the folder is ours");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("the file is ours");
    };
    let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let certificate = parameters().self_signed(&key).expect("signed");
    write("cert.pem", &certificate.pem());
    write("key.pem", &key.serialize_pem());
    write("other-key.pem", &other.serialize_pem());
    let authority = authority();
    write("ca.pem", &authority.pem());
    write("crl.pem", &revocation_list(&authority));
    let (cert, ca, key_pem) = (certificate.pem(), authority.pem(), key.serialize_pem());
    let crl = revocation_list(&authority);
    write("both.pem", &format!("{cert}{key_pem}"));
    write("glued.pem", &format!("{}{}", cert.trim_end(), ca));
    write("bom.pem", &format!("\u{feff}{}", cert.replace('\n', "\r\n")));
    write("old-label.pem", &cert.replace("CERTIFICATE", "X509 CERTIFICATE"));
    write("damaged.pem", &format!("{cert}{}", ca.replace("\nM", "\n!")));
    write("cut.pem", &format!("{cert}{}", ca.trim_end().trim_end_matches('-')));
    write("with-list.pem", &format!("{ca}{crl}"));
    write("with-key.pem", &format!("{ca}{key_pem}"));
    write("two-keys.pem", &key_pem.repeat(2));
    write("openssh.pem", &key_pem.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY"));
    write("request.pem", &cert.replace("CERTIFICATE", "CERTIFICATE REQUEST"));
    let utf16: Vec<u8> = cert.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(folder.path().join("utf16.pem"), utf16).expect("the folder is ours");
    fs::write(folder.path().join("cert.der"), certificate.der()).expect("the folder is ours");
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
        (
            pair("damaged.pem", "key.pem"),
            "6:8",
            "damaged.pem: what stands there is not base64 on line ",
        ),
        (pair("cut.pem", "key.pem"), "6:8", "is not written as it must be on line "),
        (pair("utf16.pem", "key.pem"), "6:8", "it is saved as UTF-16"),
        (pair("cert.der", "key.pem"), "6:8", "it is DER, and not PEM"),
        (pair("with-list.pem", "key.pem"), "6:8", "there is no use for a X509 CRL"),
        (pair("request.pem", "key.pem"), "6:8", "no use for a CERTIFICATE REQUEST"),
        (pair("cert.pem", "two-keys.pem"), "7:7", "there is a second private key"),
        (pair("cert.pem", "openssh.pem"), "7:7", "of the kind OPENSSH PRIVATE KEY cannot be"),
        (with("client_ca = 'with-key.pem'"), "8:13", "there is no use for a PRIVATE KEY"),
        (with("client_ca = 'with-list.pem'"), "8:13", "there is no use for a X509 CRL"),
        (
            with("client_ca = 'ca.pem'\ncrl = ['with-list.pem']"),
            "9:8",
            "there is no use for a CERTIFICATE",
        ),
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

#[test]
fn pem_is_read_however_it_was_saved() {
    let folder = folder();
    for (cert, key, chain) in [
        ("both.pem", "both.pem", 1),
        ("glued.pem", "key.pem", 2),
        ("bom.pem", "key.pem", 1),
        ("old-label.pem", "key.pem", 1),
    ] {
        let text = format!("{LISTENER}cert = '{cert}'\nkey = '{key}'\nclient_ca = '{cert}'\n");
        let text = text.replace("client_ca = 'both.pem'\n", "");
        let plan = parse(&text, folder.path()).expect(cert);
        let tls = plan.listeners[0].tls.as_ref().expect("TLS");
        assert_eq!(tls.credentials[0].certified.cert.len(), chain, "{cert}");
        if let Some(clients) = &tls.clients {
            assert_eq!(clients.authorities.certificates.len(), chain, "{cert}");
        }
    }
}

/// The warnings about `lines` of `[listener.tls]` at a moment.
fn warnings(folder: &TempDir, lines: &str, at: &str) -> Vec<String> {
    let plan = parse(&format!("{LISTENER}{PAIR}{lines}"), folder.path()).expect("sound");
    plan.warnings(at.parse().expect("a moment"))
}

#[test]
fn what_is_out_of_date_or_too_early_is_a_warning() {
    let folder = folder();
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("the folder is ours");
    };
    let mut old = parameters();
    old.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    old.not_after = date_time_ymd(2022, 1, 1);
    old.distinguished_name.push(rcgen::DnType::CommonName, "old");
    let key = KeyPair::generate().expect("a key");
    write("old-ca.pem", &old.self_signed(&key).expect("signed").pem());
    let clients = "client_ca = 'ca.pem'\ncrl = ['crl.pem']\n";
    let cases = [
        ("", "2019-06-01T00:00:00Z", "cert.pem is not valid before 2020-01-01T00:00:00Z"),
        (clients, "2100-01-01T00:00:00Z", "crl.pem is out of date since 2100-01-01T00:00:00Z"),
        (clients, "2023-06-01T00:00:00Z", "crl.pem is not valid before 2024-01-01T00:00:00Z"),
        ("client_ca = 'old-ca.pem'\n", "2024-06-01T00:00:00Z", "expired on 2022-01-01T00:00:00Z"),
        (
            "client_ca = 'old-ca.pem'\ncrl = ['crl.pem']\n",
            "2021-06-01T00:00:00Z",
            "`crl` has no list of `CN=old`",
        ),
    ];
    assert_eq!(warnings(&folder, clients, "2024-06-01T00:00:00Z"), [""; 0]);
    for (lines, at, expected) in cases {
        let found = warnings(&folder, lines, at);
        assert!(found.iter().any(|it| it.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn a_certificate_that_no_client_will_take_is_a_warning() {
    let folder = folder();
    let key = KeyPair::from_pem(&fs::read_to_string(folder.path().join("key.pem")).expect("ours"));
    let key = key.expect("a key");
    let mut nameless = parameters();
    nameless.subject_alt_names.clear();
    let mut client = parameters();
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let now = "2024-06-01T00:00:00Z";
    for (parameters, expected) in
        [(nameless, "has no alternative names"), (client, "is for other purposes")]
    {
        let pem = parameters.self_signed(&key).expect("signed").pem();
        fs::write(folder.path().join("cert.pem"), pem).expect("ours");
        let found = warnings(&folder, "", now);
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
    let named = format!("{LISTENER}{PAIR}").replace("localhost:80", "gate.invalid:80");
    let found = parse(&named, folder.path()).expect("sound").warnings(now.parse().expect("now"));
    assert!(found.iter().any(|it| it.contains("no certificate is for the name")), "{found:?}");
}

#[test]
fn files_that_others_can_read_or_change_are_named() {
    let folder = folder();
    let lines = "ticket_key = 'tickets'\n";
    let now = "2024-06-01T00:00:00Z";
    for (mode, expected) in [
        (0o600, None),
        (0o640, None),
        (0o400, None),
        (0o644, Some("everybody on this machine may read it (mode 0644)")),
        (0o604, Some("everybody on this machine may read it (mode 0604)")),
        (0o660, Some("its group may change it (mode 0660)")),
        (0o666, Some("everybody on this machine may change it (mode 0666)")),
    ] {
        for (file, what) in [("key.pem", "a private key"), ("tickets", "session tickets")] {
            let path = folder.path().join(file);
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
            let found = warnings(&folder, lines, now);
            match expected {
                None => assert_eq!(found, [""; 0], "{file} {mode:o}"),
                Some(expected) => {
                    assert_eq!(found.len(), 1, "{found:?}");
                    let parts = [file, what, expected, "chmod 600"];
                    assert!(parts.iter().all(|it| found[0].contains(it)), "{found:?}");
                }
            }
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        }
    }
}

#[test]
fn a_target_behind_tls_has_a_name_that_can_be_proved() {
    let forward = |to: &str, more: &str| {
        format!(
            "[[listener]]\nname = 'a'\naddress = 'localhost:0'\nservice = 'forward'\n\
             to = ['{to}']\n[listener.upstream]\n{more}\n"
        )
    };
    for (to, more, place) in [
        ("tls://-x:1", "", "5:6 `-x` cannot be the name of a server"),
        ("tls://127.0.0.1:1", "server_name = ''", "7:15 `server_name`: `` cannot be the name"),
        ("tls://127.0.0.1:1", "server_name = 'a b'", "7:15 `server_name`: `a b` cannot be"),
        ("tls://127.0.0.1:1", "alpn = ['']", "7:8 `alpn`: not a protocol"),
        (
            "tls://127.0.0.1:1",
            "crl = ['crl.pem']",
            "7:7 `crl` without `ca`: whose lists are these?",
        ),
        ("tcp://127.0.0.1:1", "alpn = ['h2']", "6:1 `alpn` is for TLS, and no target is tls://"),
    ] {
        let report = parse(&forward(to, more), Path::new("")).expect_err(to);
        let found = report.problems().next().expect("a problem");
        let said = format!("{}:{} {}", found.line, found.column, found.message);
        assert!(said.starts_with(place), "{said}");
    }
    let folder = folder();
    let lists = forward("tls://127.0.0.1:1", "ca = 'ca.pem'\ncrl = ['crl.pem']");
    let plan = parse(&lists, folder.path()).expect("sound");
    assert_eq!(parse(&config::to_toml(&plan), Path::new("")).expect("printed"), plan);
    let late = plan.warnings("2101-01-01T00:00:00Z".parse().expect("a moment"));
    assert!(late.iter().any(|it| it.contains("crl.pem is out of date since 2100")), "{late:?}");
    let sound = forward("tls://-x:1", "server_name = 'x.example'\nalpn = ['postgresql', 'h2']");
    let plan = parse(&sound, Path::new("")).expect("sound");
    let printed = config::to_toml(&plan);
    assert!(printed.contains("alpn = [\"postgresql\", \"h2\"]"), "{printed}");
    assert_eq!(parse(&printed, Path::new("")).expect(&printed), plan);
}
