//! `turnstile inspect` from outside, with servers that are none of ours: what it shows is what
//! happened, and what it says of a bad server names the cause.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tempfile::TempDir;

const TURNSTILE: &str = env!("CARGO_BIN_EXE_turnstile");

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(30);

/// What an inspection came to.
struct Inspection {
    code: Option<i32>,
    report: Value,
    said: String,
}

impl Inspection {
    fn kinds(&self) -> Vec<&str> {
        let faults = self.report["faults"].as_array().expect("a list");
        faults.iter().map(|fault| fault["kind"].as_str().expect("a text")).collect()
    }

    /// Fails unless just these things are wrong, and each part is said about them in one line.
    fn must_fault(&self, kinds: &[&str], parts: &[&str]) {
        assert_eq!(self.kinds(), kinds, "{}", self.said);
        assert_eq!(self.code, Some(1), "{}", self.said);
        assert_eq!(self.said.lines().count(), 1, "{}", self.said);
        for part in parts {
            assert!(self.said.contains(part), "`{part}` is missing in: {}", self.said);
        }
    }

    fn must_be_sound(&self) {
        assert_eq!((self.code, self.said.as_str()), (Some(0), ""));
        assert!(self.kinds().is_empty());
    }
}

fn turnstile(directory: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = assert_cmd::Command::new(TURNSTILE);
    command.current_dir(directory).args(arguments).timeout(LIMIT);
    command.output().expect("turnstile runs")
}

fn inspect(directory: &Path, address: SocketAddr, arguments: &[&str]) -> Inspection {
    let address = address.to_string();
    let output = turnstile(directory, &[&["inspect", &address, "--json"], arguments].concat());
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    Inspection { code: output.status.code(), report, said }
}

/// A directory with an authority for a century (`ca`) and a server's certificate.
fn certificates() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    made(directory.path(), &["ca", "--out", ".", "--days", "36500"]);
    let names = ["--name", "localhost", "--name", "127.0.0.1"];
    made(directory.path(), &[&["server", "--ca", "."][..], &names].concat());
    directory
}

fn made(directory: &Path, arguments: &[&str]) {
    let output = turnstile(directory, &[&["cert"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a certificate that `turnstile cert` would not make, signed by the authority: its only name
/// is a common name.
fn made_by_hand(directory: &Path, file: &str, common_name: &str, is_ca: IsCa) {
    let text = |file: &str| fs::read_to_string(directory.join(file)).expect("it exists");
    let authority_key = KeyPair::from_pem(&text("ca-key.pem")).expect("a key");
    let authority = Issuer::from_ca_cert_pem(&text("ca.pem"), authority_key).expect("a CA");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = is_ca;
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &authority).expect("signed");
    fs::write(directory.join(format!("{file}.pem")), certificate.pem()).expect("written");
    fs::write(directory.join(format!("{file}-key.pem")), key.serialize_pem()).expect("written");
}

/// Whether there is an `openssl` here; CI does not do without.
fn has_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output();
    if let Err(error) = &found {
        assert!(std::env::var_os("CI").is_none(), "openssl is missing: {error}");
        println!("skipped: there is no openssl here ({error})");
    }
    found.is_ok()
}

fn openssl(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output();
    let output = output.expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// `openssl s_server` on a port of its own, until it is dropped.
struct OpensslServer {
    child: Child,
    address: SocketAddr,
}

impl OpensslServer {
    /// Serves with `NAME.pem` and `NAME-key.pem`.
    fn start(directory: &Path, name: &str, arguments: &[&str]) -> Self {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}-key.pem"));
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert", &certificate, "-key", &key])
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let lines = output.by_ref().lines().map_while(Result::ok);
            let port = lines.filter_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
            for address in port.take(1) {
                let _ = sender.send(address);
            }
            // What else it prints must go somewhere, or it would stop printing, and serving.
            let _ = std::io::copy(&mut output, &mut std::io::sink());
        });
        let address = receiver.recv_timeout(LIMIT).expect("it says where it listens");
        Self { child, address: address.parse().expect("an address") }
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves connections one after the other, as long as the test runs.
fn serve(handle: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(LIMIT)).expect("a limit");
            handle(stream);
        }
    });
    address
}

#[test]
fn a_sound_server_is_shown_in_both_versions() {
    if !has_openssl() {
        return;
    }
    let directory = certificates();
    let at = directory.path();
    let server = OpensslServer::start(at, "server", &["-keylogfile", "keys", "-alpn", "h2"]);
    let facts = [
        ("1.3", 1, "TLS_AES_256_GCM_SHA384"),
        ("1.2", 2, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ];
    for (version, round_trips, suite) in facts {
        let options = ["--ca", "ca.pem", "--tls-version", version, "--alpn", "x,h2"];
        let seen = inspect(at, server.address, &options);
        seen.must_be_sound();
        let report = &seen.report;
        assert_eq!(report["chosen"]["version"], format!("TLS {version}"));
        assert_eq!(report["offered"]["versions"], serde_json::json!([format!("TLS {version}")]));
        assert_eq!(report["chosen"]["suite"], suite);
        assert_eq!(report["chosen"]["group"], "X25519");
        assert_eq!(report["chosen"]["alpn"], "h2");
        assert_eq!(report["offered"]["alpn"], serde_json::json!(["x", "h2"]));
        assert_eq!(report["handshake"]["round_trips"], round_trips);
        assert_eq!(report["resumption"]["is_resumed"], true);
        assert_eq!(report["resumption"]["handshake"]["round_trips"], 1);
        let bytes = |it: &Value| it["received_bytes"].as_u64().expect("a number");
        assert!(bytes(&report["resumption"]["handshake"]) < bytes(&report["handshake"]));

        // OpenSSL notes the client's random value beside the keys.
        let keys = fs::read_to_string(at.join("keys")).expect("written");
        let random = report["offered"]["random"].as_str().expect("a text");
        assert_eq!(random.len(), 64);
        assert!(keys.contains(random), "{random} is not in {keys}");
    }
}

#[test]
fn a_certificate_is_described_as_openssl_describes_it() {
    if !has_openssl() {
        return;
    }
    let directory = certificates();
    let at = directory.path();
    let server = OpensslServer::start(at, "server", &[]);
    let seen = inspect(at, server.address, &["--ca", "ca.pem"]);
    let certificate = &seen.report["certificates"][0];
    let shown = |option| openssl(at, &["x509", "-in", "server.pem", "-noout", option, "-sha256"]);
    let fingerprint = certificate["sha256"].as_str().expect("a text");
    assert!(shown("-fingerprint").trim_end().ends_with(fingerprint));
    let serial = certificate["serial"].as_str().expect("a text").replace(':', "");
    assert_eq!(shown("-serial").trim_end(), format!("serial={serial}"));
    assert_eq!(certificate["subject"], "CN=localhost");
    assert_eq!(certificate["issuer"], "CN=turnstile test CA");
    assert_eq!(certificate["key"]["curve"], "P-256");
    assert_eq!(
        certificate["alternative_names"],
        serde_json::json!(["dns:localhost", "ip:127.0.0.1"])
    );
    assert_eq!(certificate["days_left"], 364);
    assert_eq!(seen.report["offered"]["server_name"], Value::Null, "SNI holds no addresses");
}

/// A server whose certificate a client should not accept.
struct Bad {
    certificate: &'static str,
    /// Whom the client trusts, and whom it asks for.
    ca: &'static str,
    name: &'static str,
    kinds: &'static [&'static str],
    parts: &'static [&'static str],
}

const BAD: [Bad; 9] = [
    Bad {
        certificate: "server",
        ca: "twin/ca.pem",
        name: "localhost",
        kinds: &["bad-certificate"],
        parts: &["changed its key and kept its name", "--ca"],
    },
    Bad {
        certificate: "expired",
        ca: "ca.pem",
        name: "localhost",
        kinds: &["expired"],
        parts: &["expired on 2000-01-31T00:00:00Z", "days ago", "renewed"],
    },
    Bad {
        certificate: "early",
        ca: "ca.pem",
        name: "localhost",
        kinds: &["not-yet-valid"],
        parts: &["valid only from 2090-01-01T00:00:00Z", "clock"],
    },
    Bad {
        certificate: "server",
        ca: "ca.pem",
        name: "wrong.example",
        kinds: &["wrong-name"],
        parts: &["`wrong.example` was asked for", "dns:localhost, ip:127.0.0.1", "--server-name"],
    },
    Bad {
        certificate: "server",
        ca: "other/ca.pem",
        name: "localhost",
        kinds: &["unknown-issuer"],
        parts: &["signed by CN=turnstile test CA", "the authorities of other/ca.pem", "--ca"],
    },
    Bad {
        certificate: "common-name",
        ca: "ca.pem",
        name: "localhost",
        kinds: &["no-alternative-names"],
        parts: &["only in the subject (CN=localhost)", "`localhost` as an alternative name"],
    },
    Bad {
        certificate: "authority",
        ca: "ca.pem",
        name: "localhost",
        kinds: &["authority-as-server", "no-alternative-names"],
        parts: &["shows an authority's certificate (CN=localhost, CA:TRUE) as its own"],
    },
    Bad {
        certificate: "client",
        ca: "ca.pem",
        name: "localhost",
        kinds: &["wrong-purpose"],
        parts: &["not for servers, only for client", "serverAuth"],
    },
    Bad {
        certificate: "expired",
        ca: "other/ca.pem",
        name: "wrong.example",
        kinds: &["expired", "unknown-issuer", "wrong-name"],
        parts: &["expired on 2000-01-31", "signed by CN=turnstile test CA", "`wrong.example`"],
    },
];

#[test]
fn what_is_wrong_with_a_certificate_is_said_in_both_versions() {
    if !has_openssl() {
        return;
    }
    let directory = certificates();
    let at = directory.path();
    let past = ["--from", "2000-01-01", "--days", "30", "--as", "expired"];
    let future = ["--from", "2090-01-01", "--days", "30", "--as", "early"];
    for life in [past, future] {
        made(at, &[&["server", "--ca", ".", "--name", "localhost"][..], &life].concat());
    }
    made(at, &["client", "--ca", ".", "--name", "localhost"]);
    made(at, &["ca", "--out", "other", "--name", "another CA"]);
    made(at, &["ca", "--out", "twin"]);
    made_by_hand(at, "common-name", "localhost", IsCa::ExplicitNoCa);
    made_by_hand(at, "authority", "localhost", IsCa::Ca(BasicConstraints::Unconstrained));
    for Bad { certificate, ca, name, kinds, parts } in BAD {
        let server = OpensslServer::start(at, certificate, &[]);
        for version in ["1.2", "1.3"] {
            let options = ["--tls-version", version, "--ca", ca, "--server-name", name];
            let seen = inspect(at, server.address, &options);
            seen.must_fault(kinds, parts);
            must_be_said_by_connect(at, &server, &options, &seen);
            assert_eq!(seen.report["handshake"]["is_complete"], true);
            assert_eq!(seen.report["certificates"].as_array().map(Vec::len), Some(1));
        }
    }
}

/// What mends a fault is said in the same words to who connects; only who inspects hears of several,
/// and by whom a certificate is signed.
fn must_be_said_by_connect(at: &Path, server: &OpensslServer, options: &[&str], seen: &Inspection) {
    let [kind] = seen.kinds()[..] else { return };
    if kind == "unknown-issuer" {
        return;
    }
    let mend = seen.said.trim_end().rsplit(": ").next().expect("a mend");
    let address = format!("tls://{}", server.address);
    let output = turnstile(at, &[&["connect", &address], options].concat());
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains(mend), "`{mend}` is missing in: {said}");
}

#[test]
fn a_certificate_of_version_1_is_told() {
    if !has_openssl() {
        return;
    }
    let directory = certificates();
    let at = directory.path();
    let request = ["req", "-new", "-key", "server-key.pem", "-subj", "/CN=localhost"];
    openssl(at, &[&request[..], &["-out", "v1.csr"]].concat());
    let sign = ["x509", "-req", "-in", "v1.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem"];
    openssl(at, &[&sign[..], &["-CAcreateserial", "-days", "30", "-out", "v1.pem"]].concat());
    fs::copy(at.join("server-key.pem"), at.join("v1-key.pem")).expect("copied");
    if !openssl(at, &["x509", "-in", "v1.pem", "-noout", "-text"]).contains("Version: 1 ") {
        println!("skipped: this openssl makes no certificates of version 1");
        return;
    }
    let server = OpensslServer::start(at, "v1", &[]);
    for version in ["1.2", "1.3"] {
        let seen = inspect(at, server.address, &["--ca", "ca.pem", "--tls-version", version]);
        seen.must_fault(&["old-version"], &["X.509 version 1", "version 3"]);
        assert_eq!(seen.report["handshake"]["is_complete"], true);
    }
}

#[test]
fn a_server_that_requires_a_client_certificate_says_so_at_last() {
    if !has_openssl() {
        return;
    }
    let directory = certificates();
    let at = directory.path();
    made(at, &["client", "--ca", ".", "--name", "alice"]);
    made(at, &["ca", "--out", "other", "--name", "another CA"]);
    made(at, &["client", "--ca", "other", "--name", "mallory"]);
    let require = ["-Verify", "1", "-CAfile", "ca.pem", "-verify_return_error"];
    let server = OpensslServer::start(at, "server", &require);
    for version in ["1.2", "1.3"] {
        let usual = ["--ca", "ca.pem", "--tls-version", version];
        let seen = inspect(at, server.address, &usual);
        let sentence = "requires a client certificate";
        let parts = [sentence, "signed by CN=turnstile test CA", "--cert and --key"];
        seen.must_fault(&["client-certificate-required"], &parts);
        let learnt_late = seen.said.contains("in TLS 1.3 it learns this only afterwards");
        assert_eq!(learnt_late, version == "1.3");

        let mallory = ["--cert", "other/client.pem", "--key", "other/client-key.pem"];
        let seen = inspect(at, server.address, &[usual, mallory].concat());
        seen.must_fault(&["client-certificate-refused"], &["does not accept", "UnknownCA"]);

        let alice = ["--cert", "client.pem", "--key", "client-key.pem"];
        let seen = inspect(at, server.address, &[usual, alice].concat());
        seen.must_be_sound();
        assert_eq!(seen.report["client_certificate"]["was_sent"], true);
    }
}

#[test]
fn a_retry_a_staple_and_a_session_that_ends_are_shown() {
    if !has_openssl() {
        return;
    }
    let directory = certificates();
    let at = directory.path();
    // An OCSP response that says to try later (RFC 6960): the shortest there is.
    fs::write(at.join("ocsp.der"), [0x30, 3, 0x0a, 1, 3]).expect("written");
    let options = ["-groups", "P-384", "-status_file", "ocsp.der", "-num_tickets", "0"];
    let server = OpensslServer::start(at, "server", &options);
    let seen = inspect(at, server.address, &["--ca", "ca.pem"]);
    seen.must_be_sound();
    assert_eq!(seen.report["chosen"]["group"], "secp384r1");
    assert_eq!(seen.report["chosen"]["retried_with_group"], "secp384r1");
    assert_eq!(seen.report["handshake"]["round_trips"], 2);
    assert_eq!(seen.report["ocsp_staple_bytes"], 5);
    assert_eq!(seen.report["resumption"]["tickets"], 0);
    assert_eq!(seen.report["resumption"]["is_resumed"], false);
}

#[test]
fn a_server_with_nothing_in_common_refuses_by_an_alert() {
    if !has_openssl() {
        return;
    }
    let directory = certificates();
    let at = directory.path();
    let server = OpensslServer::start(at, "server", &["-tls1_2"]);
    let seen = inspect(at, server.address, &["--ca", "ca.pem", "--tls-version", "1.3"]);
    seen.must_fault(&["alert"], &["ProtocolVersion", "none of the versions", "--tls-version"]);
}

#[test]
fn the_post_quantum_group_is_chosen_where_both_have_it() {
    let directory = certificates();
    let at = directory.path();
    let chain = vec![CertificateDer::from_pem_file(at.join("server.pem")).expect("readable")];
    let key = PrivateKeyDer::from_pem_file(at.join("server-key.pem")).expect("readable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("both versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they fit");
    let config = Arc::new(config);
    let address = serve(move |mut stream| {
        let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut rest = Vec::new();
        let _ = rustls::Stream::new(&mut tls, &mut stream).read_to_end(&mut rest);
    });
    let seen = inspect(at, address, &["--ca", "ca.pem"]);
    seen.must_be_sound();
    assert_eq!(seen.report["chosen"]["group"], "X25519MLKEM768");
    assert_eq!(seen.report["offered"]["key_shares"][0], "X25519MLKEM768");
}

#[test]
fn what_is_not_tls_is_shown() {
    let directory = certificates();
    let at = directory.path();
    let cases: [(&'static [u8], &str); 4] = [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "\"HTTP/1.1 400 Bad Request\\r\\n\\r\\n\": it is a plain HTTP",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "an SSH server"),
        (b"220 mail.example ESMTP\r\n", "--starttls smtp"),
        (b"\x00\x1b[2J", "\"\\x00\\x1b[2J\""),
    ];
    for (answer, part) in cases {
        let address = serve(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        });
        let seen = inspect(at, address, &["--ca", "ca.pem"]);
        seen.must_fault(&["not-tls"], &["does not speak TLS here", part]);
    }
}

#[test]
fn a_connection_that_ends_in_the_handshake_is_told_from_a_silent_one() {
    let directory = certificates();
    let at = directory.path();
    let closing = serve(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&[22, 3, 3, 0, 100, 2]);
    });
    let seen = inspect(at, closing, &["--ca", "ca.pem"]);
    seen.must_fault(&["closed-in-handshake"], &["after 6 bytes"]);

    let resetting = serve(drop);
    let seen = inspect(at, resetting, &["--ca", "ca.pem"]);
    seen.must_fault(&["closed-in-handshake"], &["after 0 bytes"]);

    let silent = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let seen = inspect(at, silent, &["--ca", "ca.pem", "--timeout", "300ms"]);
    seen.must_fault(&["timed-out"], &["said nothing for 300ms", "--starttls"]);

    let stuck = serve(|mut stream| {
        let _ = stream.write_all(&[22, 3, 3, 0, 100, 2]);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let seen = inspect(at, stuck, &["--ca", "ca.pem", "--timeout", "300ms"]);
    seen.must_fault(&["timed-out"], &["stopped after 6 bytes"]);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = listener.local_addr().expect("bound");
    drop(listener);
    let seen = inspect(at, nobody, &["--ca", "ca.pem"]);
    seen.must_fault(&["unreachable"], &["refused"]);
}

#[test]
fn prose_tells_what_json_tells_and_moves_no_cursor() {
    if !has_openssl() {
        return;
    }
    let directory = certificates();
    let at = directory.path();
    made_by_hand(at, "hostile", "local\u{1b}[2Jhost", IsCa::ExplicitNoCa);
    let server = OpensslServer::start(at, "hostile", &[]);
    let address = format!("tls://localhost:{}", server.address.port());
    let output = turnstile(at, &["inspect", &address, "--ca", "ca.pem"]);
    assert_eq!(output.status.code(), Some(1));
    let prose = String::from_utf8(output.stdout).expect("UTF-8");
    for part in ["TLS 1.3", "TLS_AES_256_GCM_SHA384", "X25519", "1 round trip", "days left", "SNI"]
    {
        assert!(prose.contains(part), "`{part}` is missing in {prose}");
    }
    assert!(prose.contains(r"CN=local\u{1b}[2Jhost"), "{prose}");
    assert!(!prose.contains('\u{1b}'));
    assert!(!output.stderr.contains(&0x1b));
}

#[test]
fn what_cannot_be_asked_is_refused_before_anything_is_sent() {
    let directory = certificates();
    let at = directory.path();
    made(at, &["client", "--ca", ".", "--name", "alice"]);
    let cases: [(&[&str], i32, &str); 5] = [
        (&["udp://127.0.0.1:1"], 2, "TLS is tls://host:port, or host:port"),
        (&["127.0.0.1:1", "--cert", "client.pem"], 2, "--key"),
        (&["127.0.0.1:1", "--ca", "missing.pem"], 1, "missing.pem cannot be read"),
        (&["127.0.0.1:1", "--server-name", "no name"], 1, "`no name` cannot be asked for"),
        (
            &["127.0.0.1:1", "--cert", "client.pem", "--key", "server-key.pem"],
            1,
            "the client certificate and its key cannot be used",
        ),
    ];
    for (arguments, code, part) in cases {
        let output = turnstile(at, &[&["inspect"], arguments].concat());
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(part), "`{part}` is missing in: {said}");
        assert!(output.stdout.is_empty());
    }
}

/// Serves one plain exchange, then TLS on the same connection: `says` before each line of the client's
/// and behind the last.
fn serve_starttls(directory: &Path, says: &'static [&'static str]) -> SocketAddr {
    let read = |file: &str| fs::read(directory.join(file)).expect("it exists");
    let chain = CertificateDer::pem_slice_iter(&read("server.pem"))
        .collect::<Result<Vec<_>, _>>()
        .expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(&read("server-key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    let config = Arc::new(config);
    serve(move |mut stream| {
        for (place, answer) in says.iter().enumerate() {
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
            let mut byte = [0];
            while place + 1 < says.len() && byte[0] != b'\n' {
                if !matches!(stream.read(&mut byte), Ok(1)) {
                    return;
                }
            }
        }
        let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut rest = Vec::new();
        let _ = rustls::Stream::new(&mut tls, &mut stream).read_to_end(&mut rest);
    })
}

#[test]
fn tls_is_asked_for_where_a_protocol_begins_in_the_clear() {
    let directory = certificates();
    let at = directory.path();
    let cases: [(&str, &'static [&'static str]); 4] = [
        ("smtp", &["220-mail\r\n220 x\r\n", "250-x\r\n250 STARTTLS\r\n", "220 go\r\n"]),
        ("imap", &["* OK hi\r\n", "a OK go\r\n"]),
        ("pop3", &["+OK hi\r\n", "+OK go\r\n"]),
        ("ftp", &["220 hi\r\n", "234 go\r\n"]),
    ];
    for (protocol, says) in cases {
        let address = serve_starttls(at, says);
        let seen = inspect(at, address, &["--ca", "ca.pem", "--starttls", protocol]);
        seen.must_be_sound();
        assert_eq!(seen.report["chosen"]["version"], "TLS 1.3", "{protocol}");
    }
    let address = serve_starttls(at, &["220 mail\r\n", "250 SIZE\r\n", ""]);
    let seen = inspect(at, address, &["--ca", "ca.pem", "--starttls", "smtp"]);
    seen.must_fault(&["not-started"], &["does not offer STARTTLS", "250 SIZE"]);
    let silent = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let seen = inspect(at, silent, &["--starttls", "imap", "--timeout", "300ms"]);
    seen.must_fault(&["not-started"], &["did not answer in time"]);
    let refusing = serve(|mut stream| {
        let _ = stream.read(&mut [0; 8]);
        let _ = stream.write_all(b"N");
    });
    let seen = inspect(at, refusing, &["--starttls", "postgres"]);
    seen.must_fault(&["not-started"], &["has no TLS"]);
}

/// `openssl req -x509`, with a key of this kind, as `NAME.pem` and `NAME-key.pem`.
fn self_signed(directory: &Path, name: &str, key: &[&str]) {
    let (certificate, file) = (format!("{name}.pem"), format!("{name}-key.pem"));
    let arguments = ["req", "-x509", "-nodes", "-days", "9", "-subj", "/CN=localhost", "-newkey"];
    let names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    let files = ["-keyout", &file, "-out", &certificate];
    openssl(directory, &[&arguments[..], key, &names, &files].concat());
}

#[test]
fn a_certificate_of_openssl_req_is_trusted_where_it_is_given() {
    if !has_openssl() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    self_signed(at, "own", &["rsa:2048"]);
    self_signed(at, "other", &["rsa:2048"]);
    let server = OpensslServer::start(at, "own", &["-www"]);
    inspect(at, server.address, &["--ca", "own.pem"]).must_be_sound();
    inspect(at, server.address, &["--ca", "own.pem", "--tls-version", "1.2"]).must_be_sound();
    let seen = inspect(at, server.address, &["--ca", "own.pem", "--server-name", "example.org"]);
    seen.must_fault(&["wrong-name"], &["`example.org` was asked for"]);
    let seen = inspect(at, server.address, &["--ca", "other.pem"]);
    assert_eq!(seen.code, Some(1), "{}", seen.said);

    let url = format!("tls://{}", server.address);
    let connect = |ca: &str, more: &[&str]| {
        let mut command = assert_cmd::Command::new(TURNSTILE);
        command.current_dir(at).args(["connect", &url, "--ca", ca]).args(more).timeout(LIMIT);
        command.write_stdin("GET / HTTP/1.0\r\n\r\n").output().expect("turnstile runs")
    };
    let output = connect("own.pem", &[]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.0 200"), "{output:?}");
    for (ca, more, what) in [
        ("other.pem", &[][..], "an authority's certificate (CA:TRUE) as its own"),
        ("own.pem", &["--server-name", "example.org"], "`example.org` was asked for"),
    ] {
        let output = connect(ca, more);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(what), "{said}");
    }
}

#[test]
fn a_weak_key_is_called_weak() {
    if !has_openssl() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    self_signed(at, "weak", &["rsa:1024"]);
    let server = OpensslServer::start(at, "weak", &["-www", "-cipher", "DEFAULT@SECLEVEL=0"]);
    let seen = inspect(at, server.address, &["--ca", "weak.pem"]);
    seen.must_fault(&["weak-key"], &["RSA of 1024 bits, which is too weak"]);
    let url = format!("tls://{}", server.address);
    let output = turnstile(at, &["connect", &url, "--ca", "weak.pem"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("RSA of 1024 bits, which is too weak"), "{said}");
}

#[test]
fn a_closed_pipe_does_not_change_the_verdict() {
    let directory = certificates();
    let address = serve(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"SSH-2.0-x\r\n");
    });
    let mut child = Command::new(TURNSTILE)
        .current_dir(directory.path())
        .args(["inspect", &address.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("turnstile runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
}
