//! The secrets of connections in a file, in the format of RFC 9850, so that Wireshark can read
//! their traffic. Whoever has the file can read it too.

use std::env;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::KeyLog;

/// The environment variable that names the file.
pub const VARIABLE: &str = "SSLKEYLOGFILE";

/// `O_NONBLOCK`, so that opening a pipe that nobody reads does not wait for a reader.
const NON_BLOCKING: i32 = nix::fcntl::OFlag::O_NONBLOCK.bits();

/// The file that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE} names {}, which cannot be used: {reason}; name a file, or unset it", path.display())]
pub struct KeyLogError {
    path: PathBuf,
    reason: io::Error,
}

/// A regular file that secrets are appended to. Writing to one does not wait for anybody, which is
/// why nothing else will do.
pub struct KeyLogFile {
    file: File,
    path: PathBuf,
}

impl KeyLogFile {
    /// The file that the environment asks for, or `None` where it asks for none. It is made for
    /// its owner alone, and never cut short.
    ///
    /// # Errors
    /// It cannot be opened, or is not a regular file.
    pub fn from_environment() -> Result<Option<Arc<Self>>, KeyLogError> {
        let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let path = PathBuf::from(path);
        match open(&path) {
            Ok(file) => Ok(Some(Arc::new(Self { file, path }))),
            Err(reason) => Err(KeyLogError { path, reason }),
        }
    }

    /// What everyone who starts this program must know.
    #[must_use]
    pub fn warning(&self) -> String {
        format!(
            "{VARIABLE} IS SET: the secrets of every TLS connection are appended to {}; whoever \
             reads it can read the traffic",
            self.path.display()
        )
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(NON_BLOCKING)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        for byte in client_random {
            line.push_str(&format!("{byte:02x}"));
        }
        line.push(' ');
        for byte in secret {
            line.push_str(&format!("{byte:02x}"));
        }
        line.push('\n');
        // One write appends the whole line, whoever else appends. A full disk loses secrets, not
        // connections.
        let _ = (&self.file).write_all(line.as_bytes());
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLogFile").field("path", &self.path).finish_non_exhaustive()
    }
}
