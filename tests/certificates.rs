//! `turnstile cert` from outside: what it writes is what OpenSSL reads, and nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const TURNSTILE: &str = env!("CARGO_BIN_EXE_turnstile");

fn cert(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(TURNSTILE);
    command.arg("cert").args(arguments).current_dir(directory);
    command.output().expect("turnstile runs")
}

/// Makes a certificate, which must succeed.
fn made(directory: &Path, arguments: &[&str]) {
    let output = cert(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

/// What the command says when it must fail: one line.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let output = cert(directory, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// What `openssl` prints; `None` where the machine has none, which CI does not allow.
fn openssl(directory: &Path, arguments: &[&str]) -> Option<String> {
    match Command::new("openssl").args(arguments).current_dir(directory).output() {
        Ok(output) => {
            assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
            Some(text(&output.stdout))
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "openssl is missing: {error}");
            println!("skipped: there is no openssl here ({error})");
            None
        }
    }
}

/// A directory with an authority in it.
fn authority() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    made(directory.path(), &["ca", "--out", "."]);
    directory
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

#[test]
fn openssl_accepts_every_kind_of_key() {
    for kind in ["ecdsa", "rsa", "ed25519"] {
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path();
        made(at, &["ca", "--out", "here", "--key", kind]);
        let server = ["server", "--ca", "here", "--name", "localhost", "--key", kind];
        made(at, &server);
        made(at, &["client", "--ca", "here", "--name", "alice", "--key", kind]);
        let verify = ["verify", "-x509_strict", "-CAfile", "here/ca.pem", "-purpose"];
        for (purpose, name) in [("sslserver", "server"), ("sslclient", "client")] {
            let certificate = format!("here/{name}.pem");
            let arguments = [&verify[..], &[purpose, &certificate]].concat();
            let Some(said) = openssl(at, &arguments) else { return };
            assert_eq!(said.trim_end(), format!("{certificate}: OK"));

            let key = format!("here/{name}-key.pem");
            let of_key = openssl(at, &["pkey", "-in", &key, "-pubout"]);
            let of_certificate = openssl(at, &["x509", "-in", &certificate, "-noout", "-pubkey"]);
            assert_eq!(of_key, of_certificate, "{kind} {name}");
        }
    }
}

#[test]
fn openssl_reads_the_extensions_that_were_meant() {
    let directory = authority();
    let at = directory.path();
    let names = ["--name", "localhost", "--name", "127.0.0.1", "--name", "::1"];
    made(at, &[&["server", "--ca", "."][..], &names, &["--name", "*.example.org"]].concat());
    let more = ["--name", "mailto@example.org", "--name", "urn:staff:7"];
    made(at, &[&["client", "--ca", ".", "--name", "Alice Liddell"][..], &more].concat());
    let shown = |file| openssl(at, &["x509", "-in", file, "-noout", "-text"]);
    let (Some(ca), Some(server), Some(client)) =
        (shown("ca.pem"), shown("server.pem"), shown("client.pem"))
    else {
        return;
    };
    let contains = |shown: &str, parts: &[&str]| {
        for part in parts {
            assert!(shown.contains(part), "{part} is missing in {shown}");
        }
    };
    contains(&ca, &["Version: 3", "CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"]);
    contains(&ca, &["CN = turnstile test CA", "Subject Key Identifier"]);
    let names =
        "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:*.example.org";
    contains(&server, &[names, "CN = localhost", "CA:FALSE", "TLS Web Server Authentication"]);
    contains(&server, &["Subject Key Identifier", "Authority Key Identifier", "Digital Signature"]);
    assert!(!server.contains("TLS Web Client Authentication"));
    contains(&client, &["email:mailto@example.org, URI:urn:staff:7", "CN = Alice Liddell"]);
    contains(&client, &["TLS Web Client Authentication", "CA:FALSE"]);
}

#[test]
fn serial_numbers_are_long_and_never_the_same() {
    let directory = authority();
    let at = directory.path();
    let mut seen = Vec::new();
    for file in ["a", "b", "c"] {
        made(at, &["client", "--ca", ".", "--name", "a", "--as", file]);
        let certificate = format!("{file}.pem");
        let Some(serial) = openssl(at, &["x509", "-in", &certificate, "-noout", "-serial"]) else {
            return;
        };
        // `serial=` and 16 bytes in hexadecimal.
        assert_eq!(serial.trim_end().len(), 7 + 32, "{serial}");
        assert!(!seen.contains(&serial), "{serial} twice");
        seen.push(serial);
    }
}

#[test]
fn only_the_owner_may_read_a_key() {
    let directory = authority();
    let at = directory.path();
    made(at, &["server", "--ca", ".", "--name", "localhost"]);
    for key in ["ca-key.pem", "server-key.pem"] {
        assert_eq!(mode(&at.join(key)), 0o600, "{key}");
    }
    let open_key = at.join("server-key.pem");
    fs::set_permissions(&open_key, PermissionsExt::from_mode(0o644)).expect("it is ours");
    made(at, &["server", "--ca", ".", "--name", "localhost", "--force"]);
    assert_eq!(mode(&open_key), 0o600, "a replaced key takes over no permissions");
}

#[test]
fn nothing_is_overwritten_unless_told() {
    let directory = authority();
    let at = directory.path();
    made(at, &["server", "--ca", ".", "--name", "localhost"]);
    let contents = || {
        let files = ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"];
        files.map(|file| fs::read(at.join(file)).expect("it exists"))
    };
    let before = contents();
    let said = refused(at, &["ca", "--out", "."]);
    assert_eq!(said, "turnstile: ./ca-key.pem exists and is left as it is; --force replaces it\n");
    refused(at, &["server", "--ca", ".", "--name", "localhost"]);
    assert_eq!(contents(), before);

    // One of the two is enough: a new key beside an old certificate would be of no use.
    fs::remove_file(at.join("server-key.pem")).expect("it exists");
    let said = refused(at, &["server", "--ca", ".", "--name", "localhost"]);
    assert!(said.contains("./server.pem exists"), "{said}");
    assert!(!at.join("server-key.pem").exists());

    made(at, &["server", "--ca", ".", "--name", "localhost", "--force"]);
    assert_ne!(contents()[2], before[2]);
    assert_eq!(contents()[0], before[0]);
    let left: Vec<_> = fs::read_dir(at).expect("it exists").collect();
    assert_eq!(left.len(), 4, "no draft is left behind: {left:?}");
}

#[test]
fn a_key_is_not_written_through_a_link() {
    let directory = authority();
    let at = directory.path();
    let elsewhere = at.join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, at.join("server-key.pem")).expect("a link");
    refused(at, &["server", "--ca", ".", "--name", "localhost"]);
    made(at, &["server", "--ca", ".", "--name", "localhost", "--force"]);
    assert!(!elsewhere.exists());
}

#[test]
fn a_life_is_as_long_as_asked_for_and_within_its_authority() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    made(at, &["ca", "--out", ".", "--from", "2020-01-01", "--days", "30"]);
    made(at, &["server", "--ca", ".", "--name", "a", "--from", "2020-01-02", "--days", "28"]);
    if let Some(dates) = openssl(at, &["x509", "-in", "server.pem", "-noout", "-dates"]) {
        let expected = "notBefore=Jan  2 00:00:00 2020 GMT\nnotAfter=Jan 30 00:00:00 2020 GMT\n";
        assert_eq!(dates, expected);
    }
    let longer = ["server", "--ca", ".", "--name", "a", "--from", "2020-01-02", "--as", "b"];
    let said = refused(at, &longer);
    assert!(said.contains("expires on 2020-01-31T00:00:00Z: ask for --days 29 or less"), "{said}");
    let said = refused(at, &["server", "--ca", ".", "--name", "a", "--as", "b"]);
    assert!(said.contains("expired on 2020-01-31T00:00:00Z: make a new one"), "{said}");
}

#[test]
fn what_cannot_be_made_is_refused_with_the_right_form() {
    let directory = authority();
    let at = directory.path();
    made(at, &["ca", "--out", "other"]);
    made(at, &["server", "--ca", "other", "--name", "localhost"]);
    let signs_by_no_authority = at.join("leaf");
    fs::create_dir(&signs_by_no_authority).expect("a directory");
    fs::copy(at.join("other/server.pem"), at.join("leaf/ca.pem")).expect("copied");
    fs::copy(at.join("other/server-key.pem"), at.join("leaf/ca-key.pem")).expect("copied");
    fs::copy(at.join("ca-key.pem"), at.join("other/ca-key.pem")).expect("copied");
    fs::create_dir(at.join("empty")).expect("a directory");
    fs::write(at.join("empty/ca.pem"), "").expect("written");
    let long = "x".repeat(65);
    let cases: [(&[&str], &str); 8] = [
        (&["server", "--ca", ".", "--name", "local host"], "`local host` is no name of a server"),
        (&["server", "--ca", ".", "--name", "a@b.org"], "`a@b.org` is no name of a server"),
        (&["client", "--ca", ".", "--name", "a", "--name", "b c"], "`b c` is no alternative name"),
        (&["ca", "--out", "new", "--name", &long], "1 to 64 characters"),
        (&["client", "--ca", "nowhere", "--name", "a"], "nowhere/ca.pem cannot be read"),
        (&["client", "--ca", "empty", "--name", "a"], "empty/ca.pem holds no certificate in PEM"),
        (&["client", "--ca", "leaf", "--name", "a"], "is not that of an authority"),
        (&["client", "--ca", "other", "--name", "a"], "do not belong together"),
    ];
    for (arguments, part) in cases {
        let said = refused(at, arguments);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    assert!(!at.join("client.pem").exists());
}

#[test]
fn the_demonstration_certificates_are_sound() {
    let certs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/certs"));
    let verify = ["verify", "-x509_strict", "-CAfile", "ca.pem", "-purpose"];
    for (purpose, file) in [("sslserver", "server.pem"), ("sslclient", "client.pem")] {
        let arguments = [&verify[..], &[purpose, file]].concat();
        let Some(said) = openssl(certs, &arguments) else { return };
        assert_eq!(said, format!("{file}: OK\n"));
    }
    assert!(!certs.join("ca-key.pem").exists(), "the authority signs nothing more");
}

#[test]
fn the_authority_that_signs_is_never_replaced() {
    let directory = authority();
    let at = directory.path();
    std::os::unix::fs::symlink(".", at.join("link")).expect("linked");
    let before = ["ca.pem", "ca-key.pem"].map(|file| fs::read(at.join(file)).expect("there"));
    let cases: [&[&str]; 5] = [
        &["server", "--ca", ".", "--as", "ca"],
        &["client", "--ca", ".", "--as", "ca"],
        &["server", "--ca", ".", "--as", "ca-key"],
        &["server", "--ca", ".", "--out", "link", "--as", "ca"],
        &["server", "--ca", "link", "--out", "./link/link/.", "--as", "ca"],
    ];
    for words in cases {
        let said = refused(at, &[words, &["--name", "localhost", "--force"]].concat());
        assert!(said.contains("belongs to the authority that signs"), "{said}");
    }
    let after = ["ca.pem", "ca-key.pem"].map(|file| fs::read(at.join(file)).expect("there"));
    assert!(before == after, "it is still there");
    made(at, &["server", "--ca", ".", "--name", "localhost", "--out", "other", "--as", "ca"]);
    made(at, &["ca", "--out", ".", "--force"]);
}

#[test]
fn names_in_any_language_are_certified_in_the_form_that_is_looked_up() {
    let directory = authority();
    let at = directory.path();
    let names = ["--name", "Bücher.example", "--name", "*.münchen.example"];
    made(at, &[&["server", "--ca", "."][..], &names].concat());
    made(at, &["client", "--ca", ".", "--name", "Jörg", "--name", "j@bücher.example"]);
    let shown = |file| openssl(at, &["x509", "-in", file, "-noout", "-ext", "subjectAltName"]);
    let (Some(server), Some(client)) = (shown("server.pem"), shown("client.pem")) else { return };
    assert!(server.contains("DNS:xn--bcher-kva.example, DNS:*.xn--mnchen-3ya.example"), "{server}");
    assert!(
        client.contains("email:j@xn--bcher-kva.example") && !client.contains("DNS"),
        "{client}"
    );
    let said = refused(at, &["server", "--ca", ".", "--name", "a b.münchen", "--as", "x"]);
    assert!(said.contains("is no name of a server"), "{said}");
}
