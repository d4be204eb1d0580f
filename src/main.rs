//! Parse, dispatch, exit code: nothing else.

mod cli;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser};
use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use cli::{Auth, Check, Cli, Command, Configuration, Connect};
use turnstile::client::connect::{self, Request};
use turnstile::client::{credentials, tls};
use turnstile::config::{self, Address, ConfigError, Source};
use turnstile::daemon;
use turnstile::proto::gate::Digest;

/// A configuration that cannot be used: `EX_CONFIG` of sysexits(3).
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(error) = error.downcast_ref::<ConfigError>() {
                let _ = writeln!(io::stderr(), "{}", error.render(wants_colour()));
                return ExitCode::from(EX_CONFIG);
            }
            let _ = writeln!(io::stderr(), "turnstile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(configuration) => serve(configuration),
        Command::Check(check) => print(&self::check(check)?),
        Command::Connect(connect) => self::connect(connect),
        Command::Secret => print(&secret()?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "turnstile", &mut script);
            print(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            print(&page)
        }
    }
}

fn serve(configuration: Configuration) -> anyhow::Result<()> {
    let plan = config::load(&Source::from_option(configuration.config))?;
    let log = daemon::log::start();
    let outcome = daemon::serve(&plan, &log);
    log.finish();
    Ok(outcome?)
}

fn check(check: Check) -> anyhow::Result<Vec<u8>> {
    let source = Source::from_option(check.configuration.config);
    let plan = config::load(&source)?;
    for warning in plan.warnings(jiff::Timestamp::now()) {
        let _ = writeln!(io::stderr(), "warning: {warning}");
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
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let secret = credentials::secret(connect.credentials.secret_file.as_deref())?;
    let gate = match (connect.credentials.auth, secret) {
        (Some(Auth::None), _) | (None, None) => None,
        (Some(Auth::Hmac(digest)), Some(secret)) => Some((secret, digest)),
        (None, Some(secret)) => Some((secret, Digest::Md5)),
        (Some(Auth::Hmac(digest)), None) => anyhow::bail!(
            "--auth {digest} needs a secret: set {} or give --secret-file",
            credentials::VARIABLE
        ),
    };
    let Connect { address, timeout, .. } = connect;
    let options = connect.tls.into();
    let security = match &address {
        Address::Tls(at) => Some(tls::prepare(&options, at)?),
        _ if options == tls::Options::default() => None,
        _ => anyhow::bail!(
            "{address} has no TLS to set up: write tls://, or leave those options out"
        ),
    };
    for warning in security.iter().flat_map(|security| &security.warnings) {
        let _ = writeln!(io::stderr(), "turnstile: {warning}");
    }
    Ok(connect::run(Request { address, gate, security, timeout })?)
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

/// Whoever read our output has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn wants_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
