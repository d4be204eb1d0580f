//! The command line: what may be said, and how it is explained. Nothing is done here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use turnstile::config::Address;
use turnstile::config::units::parse_duration;
use turnstile::proto::gate::Digest;
use turnstile::proto::http_connect::Authority;

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
    /// Carry a local port's connections to a target, through an exit
    Forward(Forward),
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
    /// Where to: tcp://host:port, udp://host:port, unix:///path, or host:port for tcp
    pub(crate) address: Address,
    /// How to get in
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// How long to wait for the connection and the challenge; over udp, for an answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
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
    /// The exit: a turnstile whose listener offers `service = "connect"`
    #[arg(long, value_name = "ADDRESS", value_parser = parse_stream)]
    pub(crate) via: Address,
    /// How to get in
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// How long to try to reach the exit
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
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

/// An address that can be listened on and connected to for streams.
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
