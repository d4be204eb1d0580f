//! `turnstile load` and `turnstile report`: from words to a plan, and from what it came to to files,
//! text and an exit code.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::client::Resumption;

use turnstile::config::Address;
use turnstile::load::compare::{compare, describe};
use turnstile::load::find_rate::Search;
use turnstile::load::framing::{Framing, Statuses};
use turnstile::load::objective::Objective;
use turnstile::load::outcome::Outcome;
use turnstile::load::payload::{Exchange, Expectation, Payload};
use turnstile::load::plan::{Activity, FEWEST, Length, Plan};
use turnstile::load::profile::{Arrivals, Profile};
use turnstile::load::request::{Destination, request};
use turnstile::load::run::run;
use turnstile::load::summary::summarize;
use turnstile::load::{files, hdr_log, html, merge, panel};
use turnstile::net::tls::client::Secure;

use crate::cli;

/// The exit code of a command line that asks for what cannot be: clap's.
const EXIT_USAGE: u8 = 2;

/// The exit code where an objective was missed.
const EXIT_MISSED: u8 = 3;

/// Where a search for a rate begins when nothing is said.
const FIRST_RATE: f64 = 1000.0;

/// How many bytes a request has where nothing is said.
const USUAL_SIZE: usize = 64;

/// How long it is measured where nothing is said.
const USUAL_LENGTH: Duration = Duration::from_secs(10);

/// How long a run that counts its requests may take where nothing is said.
const LONGEST_COUNT: Duration = Duration::from_secs(600);

/// A rate holds only where so much of it was reached.
const REACHED: f64 = 0.98;

/// Runs `turnstile load`.
pub(crate) fn load(words: cli::Load) -> anyhow::Result<ExitCode> {
    let log = turnstile::daemon::log::start_eager("warn");
    let (objectives, output) = (words.objective.clone(), words.output.clone());
    let finds_rate = words.find_rate;
    let plan = plan(words)?;
    if let Err(error) = plan.check() {
        crate::say(&format!("turnstile: {error}\n"));
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    check_writable(&output)?;
    let mut outcome =
        if finds_rate { find_rate(&plan, &objectives)? } else { judged(plan, &objectives)? };
    log.finish();
    turnstile::net::signal::end_at_once()?;
    publish(&mut outcome, &output)?;
    Ok(exit_code(&outcome))
}

/// Runs `turnstile report`.
pub(crate) fn report(words: &cli::Report) -> anyhow::Result<ExitCode> {
    let outcomes: Vec<Outcome> =
        words.files.iter().map(|file| read(file)).collect::<anyhow::Result<_>>()?;
    if words.compare {
        let [before, after] = &outcomes[..] else {
            bail!("--compare takes two reports, and {} were given", outcomes.len());
        };
        crate::print(describe(&compare(before, after)).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut outcome = merge::merge(&outcomes)?;
    if !words.objective.is_empty() {
        judge(&mut outcome, &words.objective);
    }
    publish(&mut outcome, &words.output)?;
    Ok(exit_code(&outcome))
}

fn plan(words: cli::Load) -> anyhow::Result<Plan> {
    let Destination { address, url } = words.address;
    let gate = match (&address, words.credentials.auth) {
        // The environment may hold a secret for other calls.
        (Address::Udp(_), None) => None,
        _ => crate::gate(&words.credentials)?,
    };
    let security = crate::security(&address, &words.tls.into())?;
    let secure = security.map(|it| prepare(it.secure, words.tls_resume, words.connections));
    let activity = match words.activity {
        cli::Activity { connect_per_request: true, .. } => Activity::Visits,
        cli::Activity { handshake_only: true, .. } => Activity::Handshakes,
        cli::Activity { idle: true, .. } => Activity::Idle,
        _ => Activity::Requests,
    };
    let payload = payload(words.payload)?;
    let payload = match &url {
        Some(url) => request(url, words.method.as_deref(), &words.fields, payload),
        None if words.method.is_some() || !words.fields.is_empty() => bail!(
            "--method and --header are for http:// and https:// addresses; {address} is sent what \
             --text, --file, --template or --size says"
        ),
        None => payload.unwrap_or_else(|| Payload::of_size(USUAL_SIZE)),
    };
    let usual = if url.is_some() {
        Expectation::Framed(Framing::Http(Statuses::default()))
    } else {
        Expectation::Upper
    };
    let expectation = words.expect.unwrap_or(usual);
    let profile = words.rate;
    let lasts = profile.as_ref().map(Profile::length).filter(|length| !length.is_zero());
    let length = match words.requests {
        Some(count) => Length::Requests(count, words.duration.unwrap_or(LONGEST_COUNT)),
        None => Length::Time(words.duration.or(lasts).unwrap_or(USUAL_LENGTH)),
    };
    let rate = profile.as_ref().map(|profile| match length {
        Length::Time(length) if !profile.is_constant() => profile.mean(length),
        _ => profile.first_rate(),
    });
    Ok(Plan {
        gate,
        secure,
        activity,
        connections: words.connections,
        length,
        warm_up: words.warm_up,
        ramp_up: words.ramp_up,
        rate,
        profile: profile.filter(|profile| !profile.is_constant()),
        arrivals: match words.arrivals {
            cli::Pattern::Uniform => Arrivals::Uniform,
            cli::Pattern::Poisson => Arrivals::Poisson(words.seed),
        },
        depth: words.depth,
        think: words.think,
        exchange: Exchange::new(payload, expectation),
        timeout: words.timeout,
        sources: words.source,
        all_addresses: words.all_addresses,
        url: url.map(|url| url.to_string()),
        address,
    })
}

/// What is sent, or its content where it goes to a URL; `None` where nothing is said.
fn payload(words: cli::Payload) -> anyhow::Result<Option<Payload>> {
    Ok(Some(match words {
        cli::Payload { text: Some(text), .. } => Payload::Fixed(text.0),
        cli::Payload { file: Some(file), .. } => Payload::Fixed(
            fs::read(&file)
                .with_context(|| format!("the payload in {} cannot be read", file.display()))?,
        ),
        cli::Payload { template: Some(template), .. } => Payload::Template(template),
        cli::Payload { size: Some(size), .. } => Payload::of_size(size),
        _ => return Ok(None),
    }))
}

/// What all connections need for TLS. Sessions are kept for each other only where that is asked for:
/// a full handshake is the more honest default.
fn prepare(mut secure: Secure, resumes: bool, connections: usize) -> Secure {
    if resumes {
        // A ticket is for one connection (RFC 8446, C.4): as many are kept as may be wanted.
        let config = Arc::make_mut(&mut secure.config);
        config.resumption = Resumption::in_memory_sessions(connections);
    }
    secure
}

/// One run, and whether it met what was demanded.
fn judged(plan: Plan, objectives: &[Objective]) -> anyhow::Result<Outcome> {
    let mut outcome = run(plan)?;
    judge(&mut outcome, objectives);
    Ok(outcome)
}

fn judge(outcome: &mut Outcome, objectives: &[Objective]) {
    outcome.objectives = objectives.iter().map(|objective| objective.judge(outcome)).collect();
}

/// The run at the highest rate at which `objectives` hold; where there is none, the last that was
/// tried. Each step is told as it is done.
fn find_rate(plan: &Plan, objectives: &[Objective]) -> anyhow::Result<Outcome> {
    let Length::Time(length) = plan.length else {
        bail!("a search measures each rate for as long: give a --duration, not --requests");
    };
    if plan.profile.is_some() {
        bail!("a search chooses its rates by itself: give a --rate without stages to begin at");
    }
    let lowest = FEWEST as f64 / length.as_secs_f64();
    let mut search = Search::new(plan.rate.unwrap_or(FIRST_RATE), lowest);
    let (mut best, mut last) = (None, None);
    while let Some(rate) = search.next_rate() {
        let outcome = judged(Plan { rate: Some(rate), ..plan.clone() }, objectives)?;
        let reached = outcome.rate_per_second >= rate * REACHED;
        let held = reached && outcome.objectives.iter().all(|verdict| verdict.held);
        tell_step(rate, reached, &outcome);
        search.tell(held);
        let interrupted = outcome.interrupted;
        *(if held { &mut best } else { &mut last }) = Some(outcome);
        if interrupted {
            break;
        }
    }
    best.or(last).context("the search had no step; is --duration long enough?")
}

fn tell_step(rate: f64, reached: bool, outcome: &Outcome) {
    let found: Vec<String> = outcome
        .objectives
        .iter()
        .map(|verdict| {
            let word = if verdict.held { "holds" } else { "missed" };
            format!("{} {word} ({})", verdict.objective, verdict.found)
        })
        .collect();
    let reached = if reached { "reached" } else { "not reached" };
    crate::say(&format!("{rate:.0} a second {reached}; {}\n", found.join("; ")));
}

fn read(file: &Path) -> anyhow::Result<Outcome> {
    let bytes =
        fs::read(file).with_context(|| format!("the report {} cannot be read", file.display()))?;
    let damaged = || format!("the report {} cannot be used", file.display());
    if bytes.starts_with(b"#") {
        return hdr_log::from_log(&bytes).with_context(damaged);
    }
    Outcome::from_json(&String::from_utf8_lossy(&bytes)).with_context(damaged)
}

/// Whether the files that were asked for can be written: nobody wants to learn that at the end.
/// Nothing is made or changed before there is something to write.
fn check_writable(output: &cli::Output) -> anyhow::Result<()> {
    for file in [&output.hdr, &output.html].into_iter().flatten() {
        files::check_writable(file)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// Writes the files that were asked for, and prints the report.
fn publish(outcome: &mut Outcome, output: &cli::Output) -> anyhow::Result<()> {
    outcome.show_percentiles(&output.percentiles).map_err(anyhow::Error::msg)?;
    if let Some(file) = &output.hdr {
        write(file, &hdr_log::to_log(outcome)?)?;
    }
    if let Some(file) = &output.html {
        let page = html::page(outcome).map_err(anyhow::Error::msg)?;
        write(file, page.as_bytes())?;
    }
    let text = if output.json { outcome.to_json() } else { summarize(outcome, width()) };
    crate::print(text.as_bytes())
}

/// How wide the terminal is that the report goes to; where it is none, how wide most are.
fn width() -> usize {
    panel::width_of(&std::io::stdout())
}

fn write(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    files::replace(file, bytes).with_context(|| format!("{} cannot be written", file.display()))
}

/// 3 where an objective was missed; 1 where nothing went well at all.
fn exit_code(outcome: &Outcome) -> ExitCode {
    if outcome.objectives.iter().any(|verdict| !verdict.held) {
        return ExitCode::from(EXIT_MISSED);
    }
    if outcome.replies == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
