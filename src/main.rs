//! Parse, dispatch, exit code: nothing else.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser};

use turnstile::cli::{Check, Cli, Command, Configuration};
use turnstile::config::{self, ConfigError, Source};
use turnstile::{client, daemon};

/// A configuration that cannot be used: `EX_CONFIG` of sysexits(3).
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
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

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(Configuration { config }) => {
            let plan = config::load(&Source::from_option(config))?;
            let log = daemon::log::start();
            let outcome = daemon::serve(&plan, &log);
            log.finish(daemon::log::LAST_WORDS);
            outcome?;
        }
        Command::Check(check) => print!(out, check_configuration(check)?),
        Command::Connect(connect) => {
            env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
                .init();
            client::connect::run(&connect)?;
        }
        Command::Secret => {}
        Command::Completions { shell } => {}
        Command::Man => {}
    }
    Ok(ExitCode::SUCCESS)
}
