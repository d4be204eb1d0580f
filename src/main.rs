//! Parse, dispatch, exit code: nothing else.

mod cli;
mod load_command;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory, Parser};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use cli::{
    Auth, Cert, Check, Cli, Command, Configuration, Connect, Credentials, Forward, Inspect, Making,
    NewCertificate,
};
use turnstile::certificates::describe::Description;
use turnstile::certificates::issue::{self, Issued, Life, Order, Purpose};
use turnstile::certificates::store::{self, Paths};
use turnstile::client::connect::{self, Request};
use turnstile::client::{credentials, inspect, tls};
use turnstile::config::{self, Address, ConfigError, Plan, Service, Source, Upstream, units};
use turnstile::daemon::{self, Daemon};
use turnstile::net::output::{self, Output};
use turnstile::net::signal;
use turnstile::proto::gate::{Digest, Secret};

/// A configuration that cannot be used: `EX_CONFIG` of sysexits(3).
const EX_CONFIG: u8 = 78;

/// How long somebody who reads neither results nor complaints is waited for, where a signal would not
/// end that.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if let Err(error) = signal::settle() {
        say(&format!("turnstile: signals are as they were inherited: {error}\n"));
    }
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(error) = error.downcast_ref::<ConfigError>() {
                say(&format!("{}\n", error.render(wants_colour())));
                return ExitCode::from(EX_CONFIG);
            }
            say(&format!("turnstile: {error:#}\n"));
            // What can be known before anything is opened is a matter of the configuration.
            if error.is::<daemon::OpenError>() { EX_CONFIG.into() } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Load(words) => return load_command::load(*words),
        Command::Report(words) => return load_command::report(&words),
        Command::Serve(configuration) => serve(configuration)?,
        Command::Check(check) => print(&self::check(check)?)?,
        Command::Connect(connect) => self::connect(connect)?,
        Command::Forward(forward) => self::forward(forward)?,
        Command::Inspect(inspect) => self::inspect(inspect)?,
        Command::Cert(cert) => print(self::cert(cert)?.as_bytes())?,
        Command::Secret => print(&secret()?)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "turnstile", &mut script);
            print(&script)?;
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            print(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(configuration: Configuration) -> anyhow::Result<()> {
    signal::survive_requests()?;
    let plan = config::load(&Source::from_option(configuration.config))?;
    daemon::check(&plan)?;
    let log = daemon::log::start("info");
    let outcome = Daemon::open(&plan, &log).and_then(Daemon::run);
    log.finish();
    Ok(outcome?)
}

fn forward(forward: Forward) -> anyhow::Result<()> {
    let Forward { local, target, via, credentials, tls, timeout } = forward;
    let options = tls::Options::from(tls);
    if !matches!(via, Address::Tls(_)) && options != tls::Options::default() {
        anyhow::bail!("{via} has no TLS to set up: write tls://, or leave those options out");
    }
    if options.insecure {
        say(&format!("turnstile: {}\n", tls::INSECURE));
    }
    let tls = tls::upstream(&options)?;
    let gate = gate(&credentials)?;
    let upstream = Upstream { gate, target: Some(target), tls, ..Upstream::default() };
    let upstream = Box::new(upstream);
    let connect = units::limit(timeout);
    let plan = Plan::entry(local, Service::Forward { to: vec![via], connect, upstream });
    if let Some(circle) = plan.circle() {
        anyhow::bail!(circle);
    }
    signal::survive_requests()?;
    let log = daemon::log::start("warn");
    let outcome = Daemon::open(&plan, &log).map_err(anyhow::Error::from).and_then(|daemon| {
        for address in daemon.bound() {
            let port = address.rsplit(':').next().filter(|_| address.starts_with("tcp://"));
            let line = format!("{}\n", port.unwrap_or(address));
            match Output::new(io::stdout()).write_within(line.as_bytes(), PATIENCE) {
                // Whoever does not want to know it may still want to be served.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                outcome => outcome?,
            }
        }
        Ok(daemon.run()?)
    });
    log.finish();
    outcome
}

fn check(check: Check) -> anyhow::Result<Vec<u8>> {
    let source = Source::from_option(check.configuration.config);
    let plan = config::load(&source)?;
    daemon::check(&plan)?;
    daemon::check_places(&plan)?;
    for warning in plan.warnings(Timestamp::now()) {
        say(&format!("warning: {warning}\n"));
    }
    Ok(match (check.print, &source) {
        (false, _) => {
            format!("{source} is sound: {} listeners\n", plan.listeners.len()).into_bytes()
        }
        (true, Source::BuiltIn) => config::BUILT_IN.into(),
        (true, _) => config::to_toml(&plan).into_bytes(),
    })
}

fn connect(connect: Connect) -> anyhow::Result<()> {
    let log = daemon::log::start_eager("warn");
    let gate = match (&connect.address, connect.credentials.auth) {
        // The environment may hold a secret for other calls.
        (Address::Udp(_), None) => None,
        (Address::Udp(_), Some(Auth::Hmac(digest))) => {
            anyhow::bail!("--auth {digest} is for streams: datagrams have no gate; leave it out")
        }
        _ => gate(&connect.credentials)?,
    };
    let notices_gate = connect.credentials.auth.is_none();
    let (address, timeout) = (connect.address, units::limit(connect.timeout));
    let security = security(&address, &connect.tls.into())?;
    let line_ends = connect.line_ends;
    let request = Request { address, gate, security, notices_gate, line_ends, timeout };
    let outcome = connect::run(request);
    log.finish();
    Ok(outcome?)
}

/// How TLS is spoken with `address`, where it is; says aloud what the user must know of it.
fn security(address: &Address, options: &tls::Options) -> anyhow::Result<Option<tls::Security>> {
    let security = match address {
        Address::Tls(at) => Some(tls::prepare(options, at)?),
        _ if *options == tls::Options::default() => None,
        _ => anyhow::bail!(
            "{address} has no TLS to set up: write tls://, or leave those options out"
        ),
    };
    for warning in security.iter().flat_map(|security| &security.warnings) {
        say(&format!("turnstile: {warning}\n"));
    }
    Ok(security)
}

/// What answers the challenge of a gate, where there is one.
fn gate(credentials: &Credentials) -> anyhow::Result<Option<(Secret, Digest)>> {
    let secret = credentials::secret(credentials.secret_file.as_deref())?;
    Ok(match (credentials.auth, secret) {
        (Some(Auth::None), _) | (None, None) => None,
        (Some(Auth::Hmac(digest)), Some(secret)) => Some((secret, digest)),
        (None, Some(secret)) => Some((secret, Digest::Md5)),
        (Some(Auth::Hmac(digest)), None) => anyhow::bail!(
            "--auth {digest} needs a secret: set {} or give --secret-file",
            credentials::VARIABLE
        ),
    })
}

/// Prints what was found, and fails with what is wrong.
fn inspect(inspect: Inspect) -> anyhow::Result<()> {
    let Inspect { address, certificates, offer, timeout, starttls, json } = inspect;
    let inspected = inspect::run(inspect::Request {
        address,
        server_name: certificates.server_name,
        ca: certificates.ca,
        credential: certificates.cert.zip(certificates.key),
        alpn: offer.alpn,
        version: offer.tls_version,
        starttls,
        timeout: units::limit(timeout),
    })?;
    let inspect::Inspected { report, warnings } = inspected;
    for warning in warnings {
        say(&format!("turnstile: {warning}\n"));
    }
    let text = if json {
        format!("{}\n", serde_json::to_string_pretty(&report)?)
    } else {
        report.to_string()
    };
    let printed = print(text.as_bytes());
    // Whoever read as much as they wanted still learns what the verdict is.
    let faults: Vec<_> = report.faults.iter().map(|fault| fault.sentence.as_str()).collect();
    anyhow::ensure!(faults.is_empty(), "{}: {}", report.address, faults.join("; moreover, "));
    printed
}

fn cert(cert: Cert) -> anyhow::Result<String> {
    let (purpose, new) = match cert {
        Cert::Ca(new) => {
            let Making { from, key, force } = new.making;
            let issued = issue::new_authority(&new.name, life(from, new.days)?, key)?;
            return keep(&Paths::new(&new.out, "ca"), &issued, force);
        }
        Cert::Server(new) => (Purpose::Server, new),
        Cert::Client(new) => (Purpose::Client, new),
    };
    let NewCertificate { ca, names, out, file, days, making } = new;
    let Making { from, key, force } = making;
    let file = file.unwrap_or_else(|| purpose.to_string());
    let paths = Paths::new(out.as_deref().unwrap_or(&ca), &file);
    paths.check_apart(&ca)?;
    let authority = store::load_authority(&ca)?;
    let issued = authority.issue(&Order { purpose, names, life: life(from, days)?, key })?;
    keep(&paths, &issued, force)
}

fn life(from: Option<Date>, days: u32) -> anyhow::Result<Life> {
    Ok(match from {
        None => Life::from_now(Timestamp::now(), days)?,
        Some(date) => Life::from_start(date.to_zoned(TimeZone::UTC)?.timestamp(), days)?,
    })
}

/// Writes a new certificate to its files, and says what it is.
fn keep(paths: &Paths, issued: &Issued, force: bool) -> anyhow::Result<String> {
    paths.write(issued, force)?;
    let Description { subject, not_after, key, sha256, .. } =
        Description::read(&issued.certificate)?;
    Ok(format!(
        "{}: {subject}, {key}, valid until {not_after}, SHA-256 {sha256}\n{}: its private key\n",
        paths.certificate.display(),
        paths.key.display()
    ))
}

/// 256 bits, in characters that every file and shell can hold.
fn secret() -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(&mut bytes[..]).context("the system gives no randomness")?;
    let mut text = Zeroizing::new(Vec::with_capacity(2 * bytes.len() + 1));
    for byte in bytes.iter() {
        write!(text, "{byte:02x}")?;
    }
    text.push(b'\n');
    Ok(text)
}

fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text)?;
    Ok(output.flush()?)
}

/// Says something on standard error to whoever listens. Nobody has to.
fn say(text: &str) {
    output::say(text, PATIENCE);
}

/// Whoever read our output has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn wants_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
