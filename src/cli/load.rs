//! The words of `turnstile load` and `turnstile report`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use turnstile::config::units::{parse_duration, parse_size};
use turnstile::load::escape::{EscapeError, unescape};
use turnstile::load::objective::Objective;
use turnstile::load::payload::{Expectation, Template};
use turnstile::load::profile::Profile;
use turnstile::load::request::{Destination, Field, parse_method};

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
    /// unix:@name, host:port for tcp, or an http:// or https:// URL
    pub(crate) address: Destination,
    /// How many connections there are at a time
    #[arg(short, long, value_name = "COUNT", default_value_t = 50)]
    pub(crate) connections: usize,
    /// How long it is measured [default: 10s, or as long as a --rate in stages says]
    #[arg(short, long, value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Measure until so many requests have their reply, for --duration at the most [default: 10m];
    /// ends earlier where nothing is answered for three times the --timeout
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) requests: Option<u64>,
    /// How long the load lasts before it is measured
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) warm_up: Duration,
    /// Over how long the connections begin
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) ramp_up: Duration,
    /// An open loop: so many requests a second are due, all connections together, and latency counts
    /// from the moment at which a request was due. It may rise or fall, `100..10000 over 60s`, and go
    /// in stages, `100 for 10s, 1000 for 30s`. Without it each connection sends when it has its
    /// reply: a closed loop
    #[arg(short, long, value_name = "PER-SECOND")]
    pub(crate) rate: Option<Profile>,
    /// How requests follow one another at a --rate: uniform, at equal distances, or poisson, at
    /// random, as those of many people
    #[arg(long, value_name = "KIND", default_value = "uniform")]
    pub(crate) arrivals: Pattern,
    /// What the random moments of --arrivals poisson are made from: the same seed gives the same
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
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
    /// Spread connections over all addresses of the name, and say how many went to each; without it
    /// all go to the one that answers first
    #[arg(long)]
    pub(crate) all_addresses: bool,
    /// What each connection does
    #[command(flatten)]
    pub(crate) activity: Activity,
    /// What is sent
    #[command(flatten)]
    pub(crate) payload: Payload,
    /// The method of requests to an http:// or https:// URL [default: GET, or POST with content]
    #[arg(long, value_name = "METHOD", value_parser = parse_method, help_heading = "HTTP")]
    pub(crate) method: Option<String>,
    /// A header field of requests to an http:// or https:// URL. May be given again
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", help_heading = "HTTP")]
    pub(crate) fields: Vec<Field>,
    #[arg(long, value_name = "REPLY", help = EXPECT_HELP, long_help = EXPECT_LONG_HELP)]
    /// What each reply must be
    pub(crate) expect: Option<Expectation>,
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

const EXPECT_HELP: &str = "What each reply must be: upper, echo, text:TEXT, bytes:FILE, size:N, \
    until:MARK, length:TYPE, http, idle:DURATION, any or none [default: upper; http for a URL]";

const EXPECT_LONG_HELP: &str = r#"What each reply must be [default: upper; http for a URL]

Byte for byte:
  upper, echo     the request in capitals, or as it is
  text:TEXT       this text, with escapes such as \r\n
  bytes:FILE      what is in this file
Of any kind, with an end that is known by
  size:N          its size: N bytes
  until:MARK      what it ends with, as in until:"\r\n" (Redis, SMTP);
                  what a server says unasked is waited for
  length:TYPE[@OFFSET][+MORE | -LESS | ,all]
                  a length in it: TYPE is u8, or u16, u24, u32 or u64
                  with be or le; OFFSET bytes come before it; it counts
                  what follows it, and MORE, or less LESS; with `,all`
                  the whole reply. PostgreSQL has length:u32be@1-4
  http[:STATUS,...]
                  the rules of HTTP/1.1; statuses are counted, and
                  must be, where that is said, such as 200 or 2xx
  idle:DURATION   a silence, as in idle:50ms, which the times leave out
Else:
  any             what comes first; one in two pieces may count twice
  none            nothing: a request is done when it is sent"#;

/// How requests follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pattern {
    /// At equal distances
    Uniform,
    /// At random
    Poisson,
}

/// What is sent; 64 bytes of text where nothing is said, and no content where it is to a URL.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Payload {
    /// Send this text, in which \r, \n, \t, \0, \xHH and \\ stand for bytes
    #[arg(long, value_parser = parse_text)]
    pub(crate) text: Option<Text>,
    /// Send what is in this file
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Send text of this size, such as 64B or 16KiB [default: 64B]
    #[arg(long, value_parser = parse_size)]
    pub(crate) size: Option<usize>,
    /// Send this text, where {counter} is the number of the request, {random:N} are N random digits,
    /// and \r, \n and the like are bytes
    #[arg(long)]
    pub(crate) template: Option<Template>,
}

/// Bytes that were written as text.
#[derive(Clone, Debug)]
pub(crate) struct Text(pub(crate) Vec<u8>);

fn parse_text(text: &str) -> Result<Text, EscapeError> {
    unescape(text).map(Text)
}

fn parse_percentile(text: &str) -> Result<f64, String> {
    let bare = text.trim_start_matches('p').trim_end_matches('%');
    let percentile = bare.parse().ok().filter(|it| (0.0..=100.0).contains(it));
    percentile.ok_or_else(|| "a percentile is a number from 0 to 100, such as 99.9".to_owned())
}

/// Where results go, beside standard output.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Print the report as JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// The percentiles that are shown, such as 50,90,99.9
    #[arg(long, value_name = "P,...", value_delimiter = ',', value_parser = parse_percentile)]
    pub(crate) percentiles: Vec<f64>,
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
