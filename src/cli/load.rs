//! The words of `turnstile load` and `turnstile report`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use turnstile::config::Address;
use turnstile::config::units::{parse_duration, parse_size};
use turnstile::load::objective::Objective;
use turnstile::load::payload::{Expectation, Template};

use super::{Credentials, Tls};

/// What is said under the options of both.
const EXIT_CODES: &str = "\
Exit codes: 0 it ran; 1 nothing was answered; 2 the command line asks for what means nothing; \
3 an objective was missed, no rate was found, or a comparison is worse; 130 a signal stopped it. \
An objective that was missed comes first.";

/// `turnstile load`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Load {
    /// What to put under load: tcp://host:port, tls://host:port, udp://host:port, unix:///path,
    /// or host:port for tcp
    pub(crate) address: Address,
    /// How many connections there are at a time
    #[arg(short, long, value_name = "COUNT", default_value_t = 50)]
    pub(crate) connections: usize,
    /// How long it is measured
    #[arg(short, long, default_value = "10s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// Measure until so many requests have their reply, however long that takes
    #[arg(short = 'n', long, value_name = "COUNT", conflicts_with = "duration")]
    pub(crate) requests: Option<u64>,
    /// How long the load lasts before it is measured
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) warm_up: Duration,
    /// Over how long the connections begin
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) ramp_up: Duration,
    /// An open loop: so many requests a second are due, all connections together, and latency counts
    /// from the moment at which a request was due. Without it each connection sends when it has its
    /// reply: a closed loop
    #[arg(short, long, value_name = "PER-SECOND")]
    pub(crate) rate: Option<f64>,
    /// How many requests may be on the way in each connection
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) depth: usize,
    /// How long a connection waits after each reply
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) think: Duration,
    /// How long a connection, the gate or a reply may take [default: 10s; for the reply to a datagram what
    /// the round trips say, as TCP does: from 200ms to 10s, 1s before any is known]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// The name of the run that this is a part of, where several hosts make it together: `report` adds up
    /// only parts of one name
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// Connect from these local addresses, in turn
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',')]
    pub(crate) source: Vec<IpAddr>,
    /// What each connection does
    #[command(flatten)]
    pub(crate) activity: Activity,
    /// What is sent
    #[command(flatten)]
    pub(crate) payload: Payload,
    /// What each reply must be, byte for byte: upper, echo, bytes:FILE, size:N (so many of any kind),
    /// any (whatever comes first), or none (there is no reply)
    #[arg(long, default_value = "upper")]
    pub(crate) expect: Expectation,
    /// How to get in
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// What must hold, such as 'p99<5ms', 'errors<0.1%' or 'rate>1000'; exit code 3 where it
    /// does not. May be given again
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) objective: Vec<Objective>,
    /// Search for the highest rate at which the objectives hold, beginning at --rate or 1000; exit code 3
    /// where none does
    #[arg(long, requires = "objective")]
    pub(crate) find_rate: bool,
    /// Where the results go
    #[command(flatten)]
    pub(crate) output: Output,
    /// How TLS is spoken, with tls://
    #[command(flatten)]
    pub(crate) tls: Tls,
    /// Resume earlier TLS sessions where the server offers it, instead of a full handshake each time
    #[arg(long, help_heading = "TLS")]
    pub(crate) tls_resume: bool,
}

/// What each connection does; one request after the other where nothing is said.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Activity {
    /// Open a new connection for each request
    #[arg(long)]
    pub(crate) connect_per_request: bool,
    /// Connect, pass the gate, close, and begin again. Counted once the server has let the client in: with
    /// a gate or a client certificate that shows in a word of it, or in 50ms or more without a close
    #[arg(long)]
    pub(crate) handshake_only: bool,
    /// Hold connections that send nothing
    #[arg(long)]
    pub(crate) idle: bool,
}

/// What is sent; 64 bytes of text where nothing is said.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Payload {
    /// Send this text
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// Send what is in this file
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Send text of this size, such as 64B or 16KiB [default: 64B]
    #[arg(long, value_parser = parse_size)]
    pub(crate) size: Option<usize>,
    /// Send this text, where {counter} is the number of the request and {random:N} are N random
    /// digits
    #[arg(long)]
    pub(crate) template: Option<Template>,
}

/// Where results go, beside standard output.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Print the report as JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the times to this file, as a log of HdrHistogram (version 2)
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,
    /// Write the report to this file, as a page with plots that needs no network
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// `turnstile report`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Report {
    /// Reports that `turnstile load` wrote with --json or --hdr; several are added up, where they are parts
    /// of one run: the same settings, at the same time
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Say what has changed from the first file to the second, and whether more than noise; exit code 3
    /// where something is worse, 2 where they were asked for different things
    #[arg(long, conflicts_with_all = ["hdr", "objective"])]
    pub(crate) compare: bool,
    /// What must hold; exit code 3 where it does not
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) objective: Vec<Objective>,
    /// Where the results go
    #[command(flatten)]
    pub(crate) output: Output,
}
