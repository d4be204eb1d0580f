//! The secrets of connections in a file, in the format of RFC 9850, so that Wireshark can read
//! their traffic. Whoever has the file can read it too.

use std::env;
use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use rustls::KeyLog;

/// The environment variable that names the file.
pub const VARIABLE: &str = "SSLKEYLOGFILE";

/// Opening a pipe that nobody reads does not wait for a reader, and a link that somebody else has laid
/// leads nowhere.
const CAUTIOUS: i32 = OFlag::O_NONBLOCK.union(OFlag::O_NOFOLLOW).bits();

/// Its owner may read and write it, and nobody else anything.
const OWNER_ONLY: u32 = 0o600;

/// The file that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE} names {}, which cannot be used: {reason}; name a file, or unset it", path.display())]
pub struct KeyLogError {
    path: PathBuf,
    reason: io::Error,
}

/// A regular file that secrets are appended to. Writing to one does not wait for anybody, which is
/// why nothing else will do. It belongs to whom this program runs as, and only they can read it.
pub struct KeyLogFile {
    file: File,
    path: PathBuf,
    /// What it allowed others before.
    former_mode: Option<u32>,
}

impl KeyLogFile {
    /// The file that the environment asks for, or `None` where it asks for none. It is made for
    /// its owner alone, and never cut short. One that others could read is taken from them, which
    /// the [warning](Self::warning) says.
    ///
    /// # Errors
    /// It cannot be opened, is a symbolic link or no regular file, or belongs to somebody else.
    pub fn from_environment() -> Result<Option<Arc<Self>>, KeyLogError> {
        let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let path = PathBuf::from(path);
        Self::open(path).map(|file| Some(Arc::new(file)))
    }

    fn open(path: PathBuf) -> Result<Self, KeyLogError> {
        match open(&path) {
            Ok((file, former_mode)) => Ok(Self { file, path, former_mode }),
            Err(reason) => Err(KeyLogError { path, reason }),
        }
    }

    /// What everyone who starts this program must know.
    #[must_use]
    pub fn warning(&self) -> String {
        let narrowed = self.former_mode.map_or_else(String::new, |mode| {
            format!("; its mode was {mode:04o}, and is {OWNER_ONLY:04o} now")
        });
        format!(
            "{VARIABLE} IS SET: the secrets of every TLS connection are appended to {}; whoever \
             reads it can read the traffic{narrowed}",
            self.path.display()
        )
    }
}

/// The file, and the mode that it had where others were allowed something.
fn open(path: &Path) -> io::Result<(File, Option<u32>)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(OWNER_ONLY)
        .custom_flags(CAUTIOUS)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::ELOOP as i32 => {
                io::Error::other("it is a symbolic link, and none is followed")
            }
            _ => error,
        })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to somebody else, who could read the secrets"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & !OWNER_ONLY == 0 {
        return Ok((file, None));
    }
    file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    Ok((file, Some(mode)))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let log = KeyLogFile::open(path.clone()).expect("made");
        log.log("LABEL", &[1], &[2]);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read(&path).expect("readable"), b"LABEL 01 02\n");
        assert!(!log.warning().contains("mode"), "{}", log.warning());
    }

    #[test]
    fn a_file_that_others_can_read_is_taken_from_them_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        fs::write(&path, "before\n").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        let log = KeyLogFile::open(path.clone()).expect("opened");
        log.log("LABEL", &[1], &[2]);
        assert_eq!(mode(&path), 0o600);
        assert!(log.warning().contains("its mode was 0644, and is 0600 now"), "{}", log.warning());
        assert_eq!(fs::read(&path).expect("readable"), b"before\nLABEL 01 02\n");
    }

    #[test]
    fn no_link_is_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, path) = (folder.path().join("link"), folder.path().join("keys"));
        symlink(&path, &link).expect("laid");
        for _ in 0..2 {
            let error = KeyLogFile::open(link.clone()).expect_err("refused").to_string();
            assert!(error.contains("it is a symbolic link, and none is followed"), "{error}");
            fs::write(&path, "").expect("and now there is a file behind it");
        }
        assert_eq!(fs::read(&path).expect("readable"), b"");
    }

    #[test]
    fn what_belongs_to_others_or_is_no_file_is_refused() {
        let error = KeyLogFile::open("/dev/null".into()).expect_err("refused").to_string();
        assert!(error.contains("not a regular file"), "{error}");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        fs::write(&path, "").expect("written");
        if std::os::unix::fs::chown(&path, Some(65534), None).is_err() {
            println!("skipped: only root can give a file away");
            return;
        }
        let error = KeyLogFile::open(path).expect_err("refused").to_string();
        assert!(error.contains("belongs to somebody else"), "{error}");
    }
}
