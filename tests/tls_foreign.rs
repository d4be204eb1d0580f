//! TLS as others speak it: OpenSSL, Python, curl, GnuTLS, sslyze and tshark against the daemon, and
//! `turnstile connect` against OpenSSL. A program that is not installed is skipped with a line that
//! says so; where the variable CI is set it must be there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

#[path = "tls_foreign/authority.rs"]
mod authority;
#[path = "tls_foreign/capture.rs"]
mod capture;

use authority::Authority;

/// How long anything may take. Nothing waits for it to pass.
const LIMIT: Duration = Duration::from_secs(20);

const REPLY: &str = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";

#[test]
fn openssl_speaks_both_versions_and_resumes() {
    let Some(openssl) = program("openssl") else { return };
    let folder = folder();
    let daemon = Daemon::start(&folder, "");
    for version in ["-tls1_2", "-tls1_3"] {
        let session = folder.path().join("session");
        let first = daemon.s_client(&openssl, &[version, "-sess_out", path(&session)]);
        assert!(first.contains("New, TLSv1.") && first.contains("hello"), "{version}: {first}");
        assert!(first.contains("Verify return code: 0 (ok)"), "{version}: {first}");
        let second = daemon.s_client(&openssl, &[version, "-sess_in", path(&session)]);
        assert!(second.contains("Reused, TLSv1."), "{version}: {second}");
    }
    let old = daemon.s_client(&openssl, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(old.contains("alert"), "{old}");
    daemon.expect_log("it speaks no version of TLS that is still safe");
}

#[test]
fn a_session_outlives_a_restart_only_with_a_ticket_key() {
    let Some(openssl) = program("openssl") else { return };
    let folder = folder();
    fs::write(folder.path().join("tickets"), [7; 32]).expect("ours");
    let session = folder.path().join("session");
    for (lines, expected) in [("ticket_key = 'tickets'\n", "Reused"), ("", "New, TLSv1.3")] {
        Daemon::start(&folder, lines).s_client(&openssl, &["-sess_out", path(&session)]);
        let restarted = Daemon::start(&folder, lines);
        let said = restarted.s_client(&openssl, &["-sess_in", path(&session)]);
        assert!(said.contains(expected), "{lines}: {said}");
    }
}

#[test]
fn a_revoked_authority_lets_none_of_its_clients_in() {
    let Some(openssl) = program("openssl") else { return };
    let folder = folder();
    let authority = Authority::new(folder.path());
    let lists = [
        authority.revocation_list(),
        authority.issue_below("sound-ca", 6, "carol"),
        authority.issue_below("revoked-ca", 7, "dave"),
    ];
    authority.issue_unsigning_client("erin");
    fs::write(folder.path().join("lists.pem"), lists.concat()).expect("ours");
    let daemon = Daemon::start(&folder, "client_ca = 'clients-ca.pem'\ncrl = ['lists.pem']\n");
    let with = |name: &str, chain: &[&str]| {
        let (cert, key) = (format!("{name}.pem"), format!("{name}-key.pem"));
        daemon.s_client(&openssl, &[&["-cert", &cert, "-key", &key], chain].concat())
    };
    assert!(with("carol", &["-cert_chain", "sound-ca.pem"]).contains("hello"));
    let said = with("dave", &["-cert_chain", "revoked-ca.pem"]);
    assert!(!said.contains("hello") && said.contains("alert"), "{said}");
    daemon.expect_log("revoked, or that of an authority that signs it");
    assert!(!with("erin", &[]).contains("hello"));
    daemon.expect_log("key usage does not let a client prove itself");
}

#[test]
fn renegotiation_is_refused() {
    let Some(openssl) = program("openssl") else { return };
    let folder = folder();
    let daemon = Daemon::start(&folder, "");
    let arguments = ["-tls1_2", "-connect", &daemon.at("upper"), "-CAfile", "ca.pem"];
    let said = run_with_input(openssl.in_folder(&folder, &["s_client"], &arguments), "R\n");
    assert!(said.contains("no renegotiation") || said.contains("RENEGOTIATING"), "{said}");
    assert!(!said.contains("HELLO"), "{said}");
}

#[test]
fn clients_are_asked_for_certificates_and_the_log_says_why_one_is_refused() {
    let Some(openssl) = program("openssl") else { return };
    let folder = folder();
    let authority = Authority::new(folder.path());
    authority.issue_clients();
    let crl = authority.revocation_list();
    fs::write(folder.path().join("crl.pem"), crl).expect("ours");
    let daemon = Daemon::start(
        &folder,
        "client_ca = 'clients-ca.pem'\ncrl = ['crl.pem']\nallow = ['cn:alice', 'cn:expired']\n",
    );
    let with = |name: &str| {
        let (cert, key) = (format!("{name}.pem"), format!("{name}-key.pem"));
        daemon.s_client(&openssl, &["-cert", &cert, "-key", &key])
    };
    assert!(with("alice").contains("hello"));
    daemon.expect_log("certificate=\"subject=CN=alice");
    for (name, cause) in [
        ("bob", "is not among those who may come in (allow)"),
        ("expired", "the certificate expired on 2021-01-01T00:00:00Z"),
        ("stranger", "was not signed by any authority that is trusted here"),
        ("revoked", "the certificate has been revoked"),
        ("server-only", "the certificate is not for"),
    ] {
        assert!(!with(name).contains("hello"), "{name} was let in");
        daemon.expect_log(cause);
    }
    assert!(!daemon.s_client(&openssl, &[]).contains("hello"));
    daemon.expect_log("the peer showed no certificate, and one is required");
}

#[test]
fn a_weak_key_of_a_client_is_called_weak() {
    let Some(openssl) = program("openssl") else { return };
    let folder = folder();
    let arguments = ["-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=weak"];
    let files = ["-keyout", "weak-key.pem", "-out", "weak.pem"];
    run_with_input(openssl.in_folder(&folder, &["req"], &[&arguments[..], &files].concat()), "");
    let daemon = Daemon::start(&folder, "client_ca = 'weak.pem'\n");
    let own = ["-cert", "weak.pem", "-key", "weak-key.pem", "-cipher", "DEFAULT@SECLEVEL=0"];
    assert!(!daemon.s_client(&openssl, &own).contains("hello"));
    daemon.expect_log("RSA of 1024 bits, which is too weak");
}

#[test]
fn a_second_certificate_is_shown_to_those_who_ask_for_its_name() {
    let Some(openssl) = program("openssl") else { return };
    let folder = folder();
    Authority::new(folder.path()).issue_server("other", "*.other.example");
    let more = "certificates = [{ cert = 'other.pem', key = 'other-key.pem' }]\n";
    let daemon = Daemon::start(&folder, more);
    for (name, shown) in [("a.other.example", "CN = other"), ("nobody.example", "CN = server")] {
        let said = daemon.s_client(&openssl, &["-servername", name]);
        assert!(said.contains(shown), "{name}: {said}");
    }
}

#[test]
fn python_talks_and_says_goodbye() {
    let Some(python) = program("python3") else { return };
    let folder = folder();
    let daemon = Daemon::start(&folder, "");
    let script = "import socket, ssl, sys\n\
        context = ssl.create_default_context(cafile='ca.pem')\n\
        raw = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
        s = context.wrap_socket(raw, server_hostname='localhost')\n\
        s.sendall(b'x' * 300000)\n\
        n = 0\n\
        while n < 300000: n += s.recv(65536).count(b'X')\n\
        s.unwrap()\nprint('goodbye', n)\n";
    let port = daemon.port("upper").to_string();
    let said = run(python.in_folder(&folder, &["-c"], &[script, &port]));
    assert!(said.contains("goodbye 300000"), "{said}");
    daemon.expect_log("received=300000 sent=300000");
}

#[test]
fn curl_fetches_and_plain_http_is_told_off() {
    let Some(curl) = program("curl") else { return };
    let folder = folder();
    let daemon = Daemon::start(&folder, "");
    let port = daemon.port("reply");
    let url = format!("https://localhost:{port}/");
    let said = run(curl.in_folder(&folder, &["-sS", "--cacert", "ca.pem"], &[&url]));
    assert_eq!(said, "hello\n");
    let said = run(curl.in_folder(&folder, &["-sS"], &[&format!("http://127.0.0.1:{port}/")]));
    assert!(!said.contains("hello"), "{said}");
    daemon.expect_log("the peer does not speak TLS: it began with 'GET / HTTP/1.1");
}

#[test]
fn psql_is_told_why_it_gets_no_tls() {
    let Some(psql) = program("psql") else { return };
    let folder = folder();
    let daemon = Daemon::start(&folder, "");
    let port = daemon.port("reply");
    let to = format!("host=127.0.0.1 port={port} sslmode=require gssencmode=disable");
    let output = psql.in_folder(&folder, &["-c", "select 1"], &[&to]).output().expect("it runs");
    assert!(!output.status.success(), "{output:?}");
    daemon.expect_log("it is a client of PostgreSQL that asks whether it may (SSLRequest)");
}

#[test]
fn gnutls_talks() {
    let Some(gnutls) = program("gnutls-cli") else { return };
    let folder = folder();
    let daemon = Daemon::start(&folder, "");
    let port = daemon.port("reply").to_string();
    for priority in ["NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"] {
        let fixed = ["--x509cafile", "ca.pem", "--priority", priority];
        let command = gnutls.in_folder(&folder, &fixed, &["-p", &port, "localhost"]);
        let said = run_with_input(command, "GET /\n");
        assert!(said.contains("hello"), "{priority}: {said}");
    }
}

#[test]
fn sslyze_finds_nothing_against_mozillas_advice() {
    let Some(sslyze) = program("sslyze") else { return };
    let folder = folder();
    for (lines, policy) in [("", "intermediate"), ("versions = ['1.3']\n", "modern")] {
        let daemon = Daemon::start(&folder, lines);
        let at = format!("localhost:{}", daemon.port("upper"));
        let policy = format!("--mozilla_config={policy}");
        let said = run(sslyze.in_folder(&folder, &["--certinfo_ca_file=ca.pem"], &[&policy, &at]));
        assert!(said.contains("OK - Compliant"), "{policy}: {said}");
    }
}

#[test]
fn wireshark_reads_what_went_over_the_wire_with_the_key_log() {
    let Some(tshark) = program("tshark") else { return };
    let folder = folder();
    let keys = folder.path().join("keys.log");
    let daemon = Daemon::start_with(&folder, "", |command| {
        command.env("SSLKEYLOGFILE", &keys);
    });
    let capture = capture::of_a_relay(daemon.port("upper"), |port| {
        let said = connect(&folder, port, &["--ca", "ca.pem"], "the quick brown fox\n");
        assert!(said.status.success(), "{said:?}");
    });
    assert_eq!(fs::metadata(&keys).expect("written").permissions().mode() & 0o777, 0o600);
    fs::write(folder.path().join("capture.pcap"), capture).expect("ours");
    let option = format!("tls.keylog_file:{}", path(&keys));
    let fixed = ["-r", "capture.pcap", "-o", &option, "-q", "-z"];
    let said = run(tshark.in_folder(&folder, &fixed, &["follow,tls,ascii,0"]));
    assert!(said.contains("THE QUICK BROWN FOX"), "{said}");
}

#[test]
fn a_key_log_that_is_no_file_is_refused() {
    let folder = folder();
    let mut command = turnstile(&folder, &["connect", "tls://127.0.0.1:1", "--ca", "ca.pem"]);
    let said = command.env("SSLKEYLOGFILE", "/dev/null").output().expect("it runs");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("SSLKEYLOGFILE names /dev/null, which cannot be used"), "{said}");
}

#[test]
fn our_client_talks_to_openssl_and_says_what_is_wrong() {
    let Some(openssl) = program("openssl") else { return };
    let folder = folder();
    let authority = Authority::new(folder.path());
    authority.issue_expired_server("old");
    for (certificate, arguments, expected) in [
        ("server", &["--ca", "ca.pem"][..], Ok("olleh\n")),
        ("server", &["--ca", "ca.pem", "--tls-version", "1.2"], Ok("olleh\n")),
        ("server", &["--insecure", "--server-name", "elsewhere.example"], Ok("olleh\n")),
        (
            "server",
            &["--ca", "ca.pem", "--server-name", "elsewhere.example"],
            Err("`elsewhere.example` was asked for, but the certificate is for localhost"),
        ),
        ("server", &["--ca", "clients-ca.pem"], Err("was not signed by any authority")),
        ("old", &["--ca", "clients-ca.pem"], Err("the certificate expired on 2021-01-01")),
    ] {
        let server = Server::openssl(&openssl, &folder, certificate);
        let said = connect(&folder, server.port, arguments, "hello\n");
        let (output, error) =
            (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        match expected {
            Ok(expected) => assert_eq!(output, expected, "{arguments:?}: {error}"),
            Err(expected) => {
                assert!(error.contains(expected), "{arguments:?}: {error}");
                assert_eq!(said.status.code(), Some(1), "{arguments:?}: {error}");
                assert_eq!(error.lines().count(), 1, "{error}");
            }
        }
    }
}

#[test]
fn our_client_shows_the_certificate() {
    let folder = folder();
    let daemon = Daemon::start(&folder, "");
    let arguments = ["--ca", "ca.pem", "--show-certificate"];
    let said = connect(&folder, daemon.port("reply"), &arguments, "GET / \n");
    let shown = String::from_utf8_lossy(&said.stderr);
    for line in ["subject     CN=server", "issuer      CN=ca", "names       localhost"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert_eq!(said.stdout, REPLY.as_bytes());
}

#[test]
fn the_gate_stands_inside_tls() {
    let folder = folder();
    fs::write(folder.path().join("secret"), "open sesame").expect("ours");
    fs::write(folder.path().join("wrong"), "open barley").expect("ours");
    let config = "[[secret]]\nname = 'ali'\nfile = 'secret'\n[[listener]]\nname = 'gate'\n\
         address = 'tcp://127.0.0.1:0'\nservice = 'upper'\nauth = 'hmac-sha256'\n\
         [listener.tls]\ncert = 'server.pem'\nkey = 'server-key.pem'\n";
    let daemon = Daemon::serve(&folder, config, 1, |_| ());
    let with = |secret: &str| {
        let arguments = ["--ca", "ca.pem", "--auth", "hmac-sha256", "--secret-file", secret];
        connect(&folder, daemon.port("gate"), &arguments, "hello\n")
    };
    assert_eq!(with("secret").stdout, b"HELLO\n");
    daemon.expect_log("identity=ali");
    let said = with("wrong");
    assert!(String::from_utf8_lossy(&said.stderr).contains("probably refused it"), "{said:?}");
    daemon.expect_log("the answer to the challenge was wrong");
}

/// A folder with an authority, `ca.pem`, and a certificate of it for localhost, `server.pem`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    Authority::named(folder.path(), "ca").issue_server("server", "localhost");
    folder
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A program of somebody else's.
struct Program(PathBuf);

/// Finds a program, in the folder that `TOOLS` names or on the path.
fn program(name: &str) -> Option<Program> {
    let paths = [std::env::var_os("TOOLS"), std::env::var_os("PATH")].into_iter().flatten();
    let folders: Vec<_> =
        paths.flat_map(|it| std::env::split_paths(&it).collect::<Vec<_>>()).collect();
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} must be installed");
        eprintln!("skipped: {name} is not installed");
    }
    found.map(Program)
}

impl Program {
    fn in_folder(&self, folder: &TempDir, fixed: &[&str], more: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg(LIMIT.as_secs().to_string()).arg(&self.0).args(fixed).args(more);
        command.current_dir(folder.path());
        command
    }
}

fn turnstile(folder: &TempDir, arguments: &[&str]) -> Command {
    Program(PathBuf::from(env!("CARGO_BIN_EXE_turnstile"))).in_folder(folder, arguments, &[])
}

fn connect(folder: &TempDir, port: u16, arguments: &[&str], input: &str) -> Output {
    let address = format!("tls://localhost:{port}");
    let mut command = turnstile(folder, &["connect", &address]);
    command.args(arguments);
    spawn_with_input(command, input).wait_with_output().expect("it ends")
}

fn spawn_with_input(mut command: Command, input: &str) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child
}

/// All that a program says, on either stream.
fn run_with_input(command: Command, input: &str) -> String {
    let output = spawn_with_input(command, input).wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn run(command: Command) -> String {
    run_with_input(command, "")
}

/// The daemon with two listeners that speak TLS, `reply` and `upper`.
struct Daemon {
    child: Child,
    ports: Vec<(String, u16)>,
    log: Receiver<String>,
    folder: PathBuf,
}

impl Daemon {
    fn start(folder: &TempDir, tls_lines: &str) -> Self {
        Self::start_with(folder, tls_lines, |_| ())
    }

    fn start_with(folder: &TempDir, tls_lines: &str, set_up: impl FnOnce(&mut Command)) -> Self {
        let listener = |name: &str, more: &str| {
            format!(
                "[[listener]]\nname = '{name}'\naddress = 'tcp://127.0.0.1:0'\nservice = '{name}'\n\
                 {more}\n[listener.tls]\ncert = 'server.pem'\nkey = 'server-key.pem'\n{tls_lines}"
            )
        };
        let text = format!("text = {REPLY:?}");
        let config = listener("reply", &text) + &listener("upper", "");
        Self::serve(folder, &config, 2, set_up)
    }

    /// Serves `listeners` listeners, and returns when all of them listen.
    fn serve(
        folder: &TempDir,
        config: &str,
        listeners: usize,
        set_up: impl FnOnce(&mut Command),
    ) -> Self {
        fs::write(folder.path().join("turnstile.toml"), config).expect("ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnstile"));
        command.args(["serve", "-c", "turnstile.toml"]).current_dir(folder.path());
        command.env("RUST_LOG", "info").stderr(Stdio::piped());
        set_up(&mut command);
        let mut child = command.spawn().expect("it starts");
        let (sender, log) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|it| sender.send(it))
        });
        let folder = folder.path().to_owned();
        let mut daemon = Self { child, ports: Vec::new(), log, folder };
        while daemon.ports.len() < listeners {
            let line = daemon.expect_log("listening listener=");
            let word = |key: &str| {
                let (_, rest) = line.split_once(key).expect(key);
                rest.split(' ').next().expect("a word").to_owned()
            };
            let port = word("address=tcp://127.0.0.1:").parse().expect("a port");
            daemon.ports.push((word("listener="), port));
        }
        daemon
    }

    fn port(&self, listener: &str) -> u16 {
        self.ports.iter().find(|(name, _)| name == listener).expect("a listener").1
    }

    fn at(&self, listener: &str) -> String {
        format!("127.0.0.1:{}", self.port(listener))
    }

    /// Waits for a line of the log, and answers it.
    fn expect_log(&self, part: &str) -> String {
        let mut seen = String::new();
        while let Ok(line) = self.log.recv_timeout(LIMIT) {
            if line.contains(part) {
                return line;
            }
            seen = seen + &line + "\n";
        }
        panic!("the log does not say `{part}`, but:\n{seen}")
    }

    /// OpenSSL's client against the listener that replies.
    fn s_client(&self, openssl: &Program, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command.arg(LIMIT.as_secs().to_string()).arg(&openssl.0).current_dir(&self.folder);
        command.args(["s_client", "-connect", &self.at("reply"), "-CAfile", "ca.pem", "-ign_eof"]);
        command.args(arguments);
        run_with_input(command, "GET /\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of somebody else's.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// One that sends every line back to front.
    fn openssl(openssl: &Program, folder: &TempDir, name: &str) -> Self {
        let (cert, key) = (format!("{name}.pem"), format!("{name}-key.pem"));
        let mut command = Command::new(&openssl.0);
        command.args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-cert", &cert, "-key", &key]);
        command.current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.by_ref().map_while(Result::ok).find(|it| it.starts_with("ACCEPT "));
        let port = line.as_deref().and_then(|it| it.rsplit(':').next()?.parse().ok());
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, port: port.expect("the port that it accepts on") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
