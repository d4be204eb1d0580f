//! `turnstile load` and `turnstile report`: from words to a plan, and from what it came to to files,
//! text and an exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::client::Resumption;

use turnstile::config::Address;
use turnstile::load::compare::{Judgement, compare};
use turnstile::load::find_rate::{self, Search};
use turnstile::load::framing::{Framing, Statuses};
use turnstile::load::objective::Objective;
use turnstile::load::outcome::{Outcome, Trial};
use turnstile::load::payload::{Exchange, Expectation, Payload};
use turnstile::load::plan::{Activity, FEWEST, Length, Plan};
use turnstile::load::profile::{Arrivals, Profile};
use turnstile::load::request::{Destination, request};
use turnstile::load::run::run;
use turnstile::load::summary::summarize;
use turnstile::load::{comparison_page, files, hdr_log, html, merge, panel, reading};
use turnstile::net::tls::client::Secure;

use crate::cli;

/// The exit code of a command line that asks for what cannot be: clap's.
const EXIT_USAGE: u8 = 2;

/// The exit code where an objective was missed.
const EXIT_MISSED: u8 = 3;

/// Where a search for a rate begins when nothing is said.
const FIRST_RATE: f64 = 1000.0;

/// The exit code of a run that a signal has stopped: as shells say of SIGINT.
const EXIT_STOPPED: u8 = 130;

/// How many bytes all reports together may have.
const MOST_BYTES: usize = 64 << 20;

/// How many bytes a request has where nothing is said.
const USUAL_SIZE: usize = 64;

/// How long it is measured where nothing is said.
const USUAL_LENGTH: Duration = Duration::from_secs(10);

/// How long a run that counts its requests may take where nothing is said.
const LONGEST_COUNT: Duration = Duration::from_secs(600);

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
    let outcomes = read_all(&words.files)?;
    if words.compare {
        return compare_two(words, &outcomes);
    }
    let mut outcome = match merge::merge(&outcomes) {
        Err(merge::MergeError::Misfit { one, other, why }) => {
            let [one, other] = [one, other].map(|at| words.files[at].display());
            bail!("{one} and {other} do not add up: {why}");
        }
        merged => merged?,
    };
    if !words.objective.is_empty() {
        judge(&mut outcome, &words.objective);
    }
    publish(&mut outcome, &words.output)?;
    Ok(exit_code(&outcome))
}

fn compare_two(words: &cli::Report, outcomes: &[Outcome]) -> anyhow::Result<ExitCode> {
    let [before, after] = outcomes else {
        bail!("--compare takes two reports, and {} were given", outcomes.len());
    };
    let [one, two] = [0, 1].map(|at| words.files[at].display().to_string());
    let comparison = compare((&one, before), (&two, after));
    let written = words.output.html.as_ref().map_or(Ok(()), |file| {
        let page = comparison_page::page(&comparison).map_err(anyhow::Error::msg)?;
        write(file, page.as_bytes())
    });
    let text = match words.output.json {
        true => comparison_page::json(&comparison),
        false => comparison_page::text(&comparison, width()),
    };
    print_all(&text)?;
    written?;
    Ok(match comparison.verdict {
        Judgement::Worse => ExitCode::from(EXIT_MISSED),
        Judgement::NotComparable => ExitCode::from(EXIT_USAGE),
        Judgement::Better | Judgement::Same | Judgement::Unknown => ExitCode::SUCCESS,
    })
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
    let usual = if url.is_some() {
        Expectation::Framed(Framing::Http(Statuses::default()))
    } else {
        Expectation::Upper
    };
    let expectation = words.expect.unwrap_or(usual);
    let is_numbered = is_numbered(&address, &expectation);
    let payload = payload(words.payload, is_numbered)?;
    let payload = match &url {
        Some(url) => request(url, words.method.as_deref(), &words.fields, payload),
        None if words.method.is_some() || !words.fields.is_empty() => bail!(
            "--method and --header are for http:// and https:// addresses; {address} is sent what \
             --text, --file, --template or --size says"
        ),
        None => payload.unwrap_or_else(|| sized(USUAL_SIZE, is_numbered)),
    };
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
        timeout: words.timeout.unwrap_or(Plan::default().timeout),
        adapts: words.timeout.is_none() && matches!(address, Address::Udp(_)),
        run: words.run,
        sources: words.source,
        all_addresses: words.all_addresses,
        url: url.map(|url| url.to_string()),
        address,
    })
}

/// What is sent, or its content where it goes to a URL; `None` where nothing is said. Where it
/// `is_numbered`, each request is another, by which its reply is known.
fn payload(words: cli::Payload, is_numbered: bool) -> anyhow::Result<Option<Payload>> {
    Ok(Some(match words {
        cli::Payload { text: Some(text), .. } => Payload::Fixed(text.0),
        cli::Payload { file: Some(file), .. } => Payload::Fixed(
            fs::read(&file)
                .with_context(|| format!("the payload in {} cannot be read", file.display()))?,
        ),
        cli::Payload { template: Some(template), .. } => Payload::Template(template),
        cli::Payload { size: Some(size), .. } => sized(size, is_numbered),
        _ => return Ok(None),
    }))
}

fn sized(size: usize, is_numbered: bool) -> Payload {
    if is_numbered { Payload::numbered(size) } else { Payload::of_size(size) }
}

/// Whether requests get a number, by which their replies are known: datagrams that come back.
fn is_numbered(address: &Address, expectation: &Expectation) -> bool {
    let comes_back = matches!(expectation, Expectation::Upper | Expectation::Echo);
    comes_back && matches!(address, Address::Udp(_))
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
    let (mut best, mut last): (Option<Outcome>, _) = (None, None);
    let mut steps = Vec::new();
    while let Some(rate) = search.next_rate() {
        let outcome = judged(Plan { rate: Some(rate), ..plan.clone() }, objectives)?;
        let step = trial(rate, &outcome);
        tell_step(&step, &outcome);
        if outcome.interrupted {
            // Half a run says nothing of its rate.
            last = Some(outcome);
            break;
        }
        search.tell(step.held);
        if step.held && search.holds() == Some(rate) {
            best = Some(outcome);
        } else {
            last = Some(outcome);
        }
        // What held once, and then did not, is not the answer.
        best = best.filter(|it| {
            it.asked.rate_per_second.is_some_and(|it| search.fails().is_none_or(|fails| it < fails))
        });
        steps.push(step);
    }
    let found = find_rate::summarize(&search, steps);
    let interrupted = last.as_ref().is_some_and(|last| last.interrupted);
    let mut outcome =
        best.or(last).context("the search had no step; is --duration long enough?")?;
    outcome.interrupted |= interrupted;
    outcome.remarks.insert(0, find_rate::describe(&found));
    crate::say(&format!("{}\n", find_rate::describe(&found)));
    outcome.search = Some(found);
    Ok(outcome)
}

fn trial(rate: f64, outcome: &Outcome) -> Trial {
    let times = outcome.headline().map(|(_, times)| times);
    let kept_pace = outcome.has_kept_pace();
    Trial {
        rate_per_second: rate,
        achieved: outcome.rate_per_second,
        p50_ns: times.map(|times| times.p50_ns),
        p99_ns: times.map(|times| times.p99_ns),
        kept_pace,
        held: kept_pace && outcome.objectives.iter().all(|verdict| verdict.held),
        limit: outcome.limit.clone(),
    }
}

fn tell_step(step: &Trial, outcome: &Outcome) {
    let found: Vec<String> = outcome
        .objectives
        .iter()
        .map(|verdict| {
            let word = if verdict.held { "holds" } else { "missed" };
            format!("{} {word} ({})", verdict.objective, verdict.found)
        })
        .collect();
    let reached = if step.kept_pace { "reached" } else { "not reached" };
    let rate = step.rate_per_second;
    crate::say(&format!("{rate:.0} a second {reached}; {}\n", found.join("; ")));
}

fn read_all(files: &[PathBuf]) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut sum = 0;
    for file in files {
        let bytes = reading::read_file(file)
            .with_context(|| format!("the report {} cannot be read", file.display()))?;
        sum += bytes.len();
        if sum > MOST_BYTES {
            bail!("the reports up to {} have more than {} MiB", file.display(), MOST_BYTES >> 20);
        }
        let damaged = || format!("the report {} cannot be used", file.display());
        outcomes.push(if bytes.starts_with(b"#") {
            hdr_log::from_log(&bytes).with_context(damaged)?
        } else {
            reading::from_json(&String::from_utf8_lossy(&bytes)).with_context(damaged)?
        });
    }
    Ok(outcomes)
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

/// Writes the files that were asked for, and prints the report: that even where a file cannot be written.
fn publish(outcome: &mut Outcome, output: &cli::Output) -> anyhow::Result<()> {
    outcome.show_percentiles(&output.percentiles).map_err(anyhow::Error::msg)?;
    let written = write_files(outcome, output);
    let text = if output.json { outcome.to_json() } else { summarize(outcome, width()) };
    print_all(&text)?;
    written
}

fn write_files(outcome: &Outcome, output: &cli::Output) -> anyhow::Result<()> {
    if let Some(file) = &output.hdr {
        write(file, &hdr_log::to_log(outcome)?)?;
    }
    if let Some(file) = &output.html {
        let page = html::page(outcome).map_err(anyhow::Error::msg)?;
        write(file, page.as_bytes())?;
    }
    Ok(())
}

/// Prints `text`. That its reader has seen enough, and gone, changes no verdict.
fn print_all(text: &str) -> anyhow::Result<()> {
    match crate::print(text.as_bytes()) {
        Err(error) if crate::is_closed_pipe(&error) => Ok(()),
        printed => printed,
    }
}

/// How wide the terminal is that the report goes to; where it is none, how wide most are.
fn width() -> usize {
    panel::width_of(&std::io::stdout())
}

fn write(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    files::replace(file, bytes).with_context(|| format!("{} cannot be written", file.display()))
}

/// 3 where an objective was missed, or no rate was found; 130 where somebody stopped it; 1 where nothing
/// was answered at all.
fn exit_code(outcome: &Outcome) -> ExitCode {
    let found_none = outcome.search.as_ref().is_some_and(|found| found.rate_per_second.is_none());
    let has_missed = outcome.objectives.iter().any(|verdict| !verdict.held);
    match outcome {
        Outcome { interrupted: true, search: Some(_), .. } => ExitCode::from(EXIT_STOPPED),
        _ if found_none || has_missed => ExitCode::from(EXIT_MISSED),
        Outcome { interrupted: true, .. } => ExitCode::from(EXIT_STOPPED),
        Outcome { replies: 0, .. } => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
