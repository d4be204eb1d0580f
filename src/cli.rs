//! The command line: what may be said, and how it is explained. Nothing is done here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use turnstile::client::tls::Options;
use turnstile::config::units::parse_duration;
use turnstile::config::{Address, Version};
use turnstile::proto::gate::Digest;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the peer, the network or the system failed; 2 wrong usage; \
78 wrong configuration.
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
    /// Where to: tcp://host:port, tls://host:port, udp://host:port, unix:///path, or host:port for tcp
    pub(crate) address: Address,
    /// How to get in
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// How TLS is spoken, with tls://
    #[command(flatten)]
    pub(crate) tls: Tls,
    /// How long to wait for the connection, for TLS and for the challenge; over udp, for an answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// How a client speaks TLS.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct Tls {
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
    /// Believe every certificate: ANYONE may be at the other side
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,
    /// Print the server's certificate
    #[arg(long)]
    pub(crate) show_certificate: bool,
    /// The only version of TLS to speak: 1.2 or 1.3 [default: the best that both sides know]
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub(crate) tls_version: Option<Version>,
    /// Application protocols to offer (ALPN), the best first
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    pub(crate) alpn: Vec<String>,
}

impl From<Tls> for Options {
    fn from(tls: Tls) -> Self {
        Self {
            ca: tls.ca,
            credential: tls.cert.zip(tls.key),
            server_name: tls.server_name,
            insecure: tls.insecure,
            show_certificate: tls.show_certificate,
            version: tls.tls_version,
            alpn: tls.alpn,
        }
    }
}

fn parse_version(text: &str) -> Result<Version, String> {
    let known = Version::ALL.into_iter().find(|version| version.name() == text);
    known.ok_or_else(|| "expected 1.2 or 1.3".to_owned())
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
