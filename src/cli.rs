//! The command line: what may be said, and how it is explained. Nothing is done here.

mod load;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jiff::civil::Date;

use turnstile::certificates::issue::{KeyKind, MAX_DAYS};
use turnstile::client::terminal::LineEnds;
use turnstile::client::tls::Options;
use turnstile::config::units::parse_duration;
use turnstile::config::{Address, HostPort, Version};
use turnstile::proto::gate::Digest;
use turnstile::proto::http_connect::Authority;
use turnstile::proto::starttls::Protocol;

pub(crate) use load::{Activity, Load, Output, Pattern, Payload, Report};

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the peer, the network or the system failed; 2 wrong usage; \
3 an objective of a load test was missed; 78 wrong configuration.
Environment: RUST_LOG sets what is logged (error, warn, info, debug, trace); NO_COLOR \
turns colours off.";

/// A single-threaded, non-blocking network gate
#[derive(Debug, Parser)]
#[command(name = "turnstile", version, about, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon; without a file, the built-in configuration (loopback only)
    Serve(Configuration),
    /// Say whether a configuration is sound, and exit
    Check(Check),
    /// Talk to a server: by hand on a terminal, or from a pipe
    Connect(Connect),
    /// Put a server under load, check what it answers, and say how fast that was
    Load(Box<Load>),
    /// Show, add up or compare the reports of load tests
    Report(Report),
    /// Carry a local port's connections to a target, through an exit
    Forward(Forward),
    /// Show a TLS handshake and the server's certificates, and explain what is wrong with them
    Inspect(Inspect),
    /// Make a test authority, and the server and client certificates that it signs
    #[command(subcommand)]
    Cert(Cert),
    /// Print a fresh random secret: 32 bytes as 64 hexadecimal digits
    Secret,
    /// Print a completion script for a shell
    Completions {
        /// The shell it is for
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// Which configuration.
#[derive(Debug, Args)]
pub(crate) struct Configuration {
    /// The configuration file; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `turnstile check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Which configuration
    #[command(flatten)]
    pub(crate) configuration: Configuration,
    /// Print the whole configuration, every default included
    #[arg(long)]
    pub(crate) print: bool,
}

/// `turnstile connect`.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Where to: tcp://host:port, tls://host:port, udp://host:port, unix:///path, unix:@name, or host:port for tcp
    pub(crate) address: Address,
    /// How to get in
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// How long to wait for the connection, for TLS and for the challenge; over udp, for an answer.
    /// 0s waits for ever
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// What is sent behind each line that is typed on a terminal: lf, crlf, or none, which also drops
    /// white space round the line and skips blank ones [default: crlf; none with a gate and over udp]
    #[arg(long, value_name = "END", value_parser = parse_line_ends)]
    pub(crate) line_ends: Option<LineEnds>,
    /// How TLS is spoken, with tls://
    #[command(flatten)]
    pub(crate) tls: Tls,
}

fn parse_line_ends(text: &str) -> Result<LineEnds, String> {
    match text {
        "lf" => Ok(LineEnds::Lf),
        "crlf" => Ok(LineEnds::CrLf),
        "none" => Ok(LineEnds::None),
        _ => Err("expected lf, crlf or none".to_owned()),
    }
}

/// What the certificates of both sides must be.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct Certificates {
    /// The authorities to trust, in PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate to show, in PEM, those between it and the root behind it
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// The name that the server must prove [default: the host of the address]
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
}

/// Whom a client trusts in TLS, and what it shows.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct Trust {
    /// Whose certificates count
    #[command(flatten)]
    pub(crate) certificates: Certificates,
    /// Believe every certificate: ANYONE may be at the other side
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,
}

/// What a client offers in TLS.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct Offer {
    /// The only version of TLS to speak: 1.2 or 1.3 [default: the best that both sides know]
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub(crate) tls_version: Option<Version>,
    /// Application protocols to offer (ALPN), the best first
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    pub(crate) alpn: Vec<String>,
}

/// How a client speaks TLS.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct Tls {
    /// Whom it trusts
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Print the server's certificate
    #[arg(long)]
    pub(crate) show_certificate: bool,
    /// What it offers
    #[command(flatten)]
    pub(crate) offer: Offer,
}

impl From<Trust> for Options {
    fn from(Trust { certificates, insecure }: Trust) -> Self {
        Self {
            ca: certificates.ca,
            credential: certificates.cert.zip(certificates.key),
            server_name: certificates.server_name,
            insecure,
            ..Self::default()
        }
    }
}

impl From<Tls> for Options {
    fn from(tls: Tls) -> Self {
        Self {
            show_certificate: tls.show_certificate,
            version: tls.offer.tls_version,
            alpn: tls.offer.alpn,
            ..tls.trust.into()
        }
    }
}

/// `turnstile inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The server: tls://host:port, or host:port
    #[arg(value_parser = parse_tls_address)]
    pub(crate) address: HostPort,
    /// How long the connection and the handshake may take together; 0s is for ever
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// Ask the server in this protocol to begin TLS, where it begins in the clear: smtp, imap, pop3,
    /// ftp, ldap or postgres
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) starttls: Option<Protocol>,
    /// Print JSON for programs instead of prose
    #[arg(long)]
    pub(crate) json: bool,
    /// Whose certificates count
    #[command(flatten)]
    pub(crate) certificates: Certificates,
    /// What is offered
    #[command(flatten)]
    pub(crate) offer: Offer,
}

fn parse_tls_address(text: &str) -> Result<HostPort, String> {
    match text.parse::<Address>().map_err(|error| error.to_string())? {
        Address::Tls(at) => Ok(at),
        Address::Tcp(at) if !text.contains("://") => Ok(at),
        _ => Err("TLS is tls://host:port, or host:port".to_owned()),
    }
}

fn parse_version(text: &str) -> Result<Version, String> {
    let known = Version::ALL.into_iter().find(|version| version.name() == text);
    known.ok_or_else(|| "expected 1.2 or 1.3".to_owned())
}

/// `turnstile cert`.
#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Make an authority: ca.pem, which its users trust, and ca-key.pem, which signs
    Ca(NewAuthority),
    /// Make a server's certificate and key, signed by an authority
    Server(NewCertificate),
    /// Make a client's certificate and key, signed by an authority
    Client(NewCertificate),
}

/// `turnstile cert ca`.
#[derive(Debug, Args)]
pub(crate) struct NewAuthority {
    /// The directory to write to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What the authority is called
    #[arg(long, default_value = "turnstile test CA")]
    pub(crate) name: String,
    /// How many days it is valid
    #[arg(long, default_value = "3650", value_parser = days())]
    pub(crate) days: u32,
    /// How it is made
    #[command(flatten)]
    pub(crate) making: Making,
}

/// `turnstile cert server` and `turnstile cert client`.
#[derive(Debug, Args)]
pub(crate) struct NewCertificate {
    /// The directory with the authority's ca.pem and ca-key.pem
    #[arg(long, value_name = "DIR")]
    pub(crate) ca: PathBuf,
    /// A name to certify, any number of times: a host name or an IP address; a client's may also
    /// be an e-mail address or a URI, and its first any text. The first is the common name too
    #[arg(long = "name", value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// The directory to write to [default: the authority's]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// What the files are called: FILE.pem and FILE-key.pem [default: server or client]
    #[arg(long = "as", value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// How many days it is valid
    #[arg(long, default_value = "365", value_parser = days())]
    pub(crate) days: u32,
    /// How it is made
    #[command(flatten)]
    pub(crate) making: Making,
}

/// How a certificate is made, whosever it is.
#[derive(Debug, Args)]
pub(crate) struct Making {
    /// The day from which it is valid, such as 2026-01-01 [default: now]
    #[arg(long, value_name = "DATE")]
    pub(crate) from: Option<Date>,
    /// The kind of key: ecdsa (P-256), rsa (2048 bits) or ed25519
    #[arg(long, value_name = "KIND", default_value = "ecdsa")]
    pub(crate) key: KeyKind,
    /// Replace files that are there already
    #[arg(long)]
    pub(crate) force: bool,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS))
}

/// `turnstile forward`.
#[derive(Debug, Args)]
pub(crate) struct Forward {
    /// Where to listen: host:port or unix:///path; port 0 lets the system choose one. The
    /// port is printed, alone, on standard output
    #[arg(value_parser = parse_stream)]
    pub(crate) local: Address,
    /// What the exit is asked to connect to: host:port, as the exit knows it
    pub(crate) target: Authority,
    /// The exit, a turnstile whose listener offers `service = "connect"`: tls://host:port,
    /// or host:port and unix:///path without TLS
    #[arg(long, value_name = "ADDRESS", value_parser = parse_exit)]
    pub(crate) via: Address,
    /// How to get in
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// How long to try to reach the exit; 0s is as long as the system does
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// How TLS is spoken with the exit
    #[command(flatten)]
    pub(crate) tls: Trust,
}

/// How a client passes the gate.
#[derive(Debug, Args)]
pub(crate) struct Credentials {
    /// The file with the secret; else the environment variable TURNSTILE_SECRET holds it.
    /// A secret is never an argument: anyone on the machine could read it
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// How the server's challenge is answered: hmac-md5, hmac-sha256, or none
    /// [default: hmac-md5 where there is a secret, else none]
    #[arg(long, value_name = "DIGEST", value_parser = parse_auth)]
    pub(crate) auth: Option<Auth>,
}

/// What `--auth` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// There is no gate.
    None,
    /// There is one, with this digest.
    Hmac(Digest),
}

/// An address that a stream can go to.
fn parse_exit(text: &str) -> Result<Address, String> {
    match text.parse() {
        Ok(Address::Udp(_)) => {
            Err("expected tls://host:port, host:port or unix:///path".to_owned())
        }
        Ok(address) => Ok(address),
        Err(error) => Err(error.to_string()),
    }
}

/// An address that can be listened on for streams.
fn parse_stream(text: &str) -> Result<Address, String> {
    match text.parse() {
        Ok(address @ (Address::Tcp(_) | Address::Unix(_))) => Ok(address),
        Ok(_) => Err("expected host:port or unix:///path".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_auth(text: &str) -> Result<Auth, String> {
    if text == "none" {
        return Ok(Auth::None);
    }
    text.parse().map(Auth::Hmac).map_err(|_| "expected hmac-md5, hmac-sha256 or none".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
