//! The configuration: TOML in, a checked and typed [`Plan`] out, or a [`Report`] of everything
//! that is wrong, each problem with its line, its column and what would be right.
//!
//! A text becomes TOML tables ([`toml`]), each table is read key by key (`table`, `values`), the
//! values are checked against each other (`check`, `secrets`), and a plan comes out. [`to_toml`]
//! goes the other way. Secrets are fetched on the way, from files and from the environment, and so
//! is what [`tls`] needs; `report` keeps secrets out of what it shows.
//!
//! This layer opens no socket. Of `proto` it knows which services and digests there are.
//!
//! Invariant: a [`Plan`] exists only when the whole configuration is sound.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use zeroize::Zeroizing;

pub use self::address::{Address, AddressError, HostPort, ResolveError};
pub use self::check::DEMONSTRATION_SECRET;
pub use self::plan::{
    Gate, Limits, Listener, Plan, Resolver, SecretOrigin, Service, SourcedSecret, Timeouts,
    Upstream, service_name,
};
pub use self::print::to_toml;
pub use self::report::{Problem, Report};
pub use self::secrets::{bare_secret, read_secret_file};
pub use self::tls::{
    Authorities, ClientAuth, Clients, Credential, DEMONSTRATION_CA, NoAuthorities, Origin,
    PemError, RevocationList, TicketKey, Tls, UpstreamTls, Version, authorities, credential,
    system_authorities,
};

use self::report::{Fault, Faults};

pub mod address;
mod check;
mod cycles;
mod overlap;
pub mod plan;
mod print;
mod report;
mod secrets;
mod services;
mod table;
pub mod tls;
pub mod units;
mod values;
mod warnings;

/// The configuration that is used when none is given.
pub const BUILT_IN: &str = include_str!("built_in.toml");

/// The longest configuration that is read, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input, to its end.
    Stdin,
    /// [`BUILT_IN`].
    BuiltIn,
}

impl Source {
    /// What the command line's `-c` says: a path, `-` for standard input, or nothing.
    #[must_use]
    pub fn from_option(path: Option<PathBuf>) -> Self {
        match path {
            None => Self::BuiltIn,
            Some(path) if path.as_os_str() == "-" => Self::Stdin,
            Some(path) => Self::File(path),
        }
    }

    /// The folder that relative paths in the configuration are relative to.
    fn folder(&self) -> PathBuf {
        match self {
            Self::File(path) => path.parent().unwrap_or(Path::new("")).to_owned(),
            Self::Stdin | Self::BuiltIn => PathBuf::new(),
        }
    }

    fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        // Room for all of it at once: a vector that grows leaves copies of secrets behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TEXT + 1));
        let limit = MAX_TEXT as u64 + 1;
        match self {
            Self::File(path) => File::open(path)?.take(limit).read_to_end(&mut bytes)?,
            Self::Stdin => io::stdin().lock().take(limit).read_to_end(&mut bytes)?,
            Self::BuiltIn => BUILT_IN.as_bytes().read_to_end(&mut bytes)?,
        };
        Ok(bytes)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("<standard input>"),
            Self::BuiltIn => f.write_str("<built-in configuration>"),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("{origin} cannot be read: {reason}; check the path and who may read it")]
    Unreadable {
        /// The file's path, or what stands for it.
        origin: String,
        /// What the system said.
        reason: io::Error,
    },
    /// It is longer than any configuration.
    #[error("{origin} is longer than 1 MiB; is it a configuration?")]
    TooLong {
        /// The file's path, or what stands for it.
        origin: String,
    },
    /// It is not text.
    #[error("{origin} is not UTF-8 on line {line}; save it as UTF-8 text")]
    NotText {
        /// The file's path, or what stands for it.
        origin: String,
        /// The line of the first wrong byte, from 1.
        line: usize,
    },
    /// It was read and is wrong.
    #[error(transparent)]
    Unsound(#[from] Report),
}

impl ConfigError {
    /// The error for people, ready for standard error but for the last newline.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        match self {
            Self::Unsound(report) => report.render(colour),
            other => report::render_message(&other.to_string(), colour),
        }
    }
}

/// Reads and checks a configuration, and fetches its secrets.
///
/// Blocks while it reads files, and where the demonstration secret stands on a host name, while
/// that is looked up: for start-up and reload, not for the event loop.
///
/// # Errors
/// The configuration cannot be read, or is not sound.
pub fn load(source: &Source) -> Result<Plan, ConfigError> {
    let origin = source.to_string();
    let bytes = match source.read() {
        Ok(bytes) => bytes,
        Err(reason) => return Err(ConfigError::Unreadable { origin, reason }),
    };
    if bytes.len() > MAX_TEXT {
        return Err(ConfigError::TooLong { origin });
    }
    match str::from_utf8(&bytes) {
        Ok(text) => {
            let mut plan = parse(text, &origin, &source.folder())?;
            if let Source::File(path) = source {
                plan.file = Some(path.clone());
            }
            Ok(plan)
        }
        Err(error) => {
            let sound = &bytes[..error.valid_up_to()];
            let line = sound.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(ConfigError::NotText { origin, line })
        }
    }
}

/// Checks a configuration that has been read, and fetches its secrets. `origin` names it in the
/// report; relative paths in it are relative to `folder`.
///
/// # Errors
/// It is not sound: the report says all that is wrong.
pub fn parse(text: &str, origin: &str, folder: &Path) -> Result<Plan, Report> {
    let mut faults = Faults::default();
    let plan = match DeTable::parse(text) {
        Ok(document) => check::plan(document, folder, &mut faults),
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            if !report::syntax_may_show(text, &span) {
                faults.hide(span.clone());
            }
            let help = "the file is TOML: see https://toml.io";
            faults.add(span, Fault::new(format!("not TOML: {}", error.message()), "here", help));
            None
        }
    };
    plan.ok_or_else(|| faults.into_report(origin, text))
}
