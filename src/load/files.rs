//! Files of results: nothing is made or changed before there is something to write, and nobody ever
//! finds half of one.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Whether `file` could be written now, as far as that can be known without touching it.
///
/// # Errors
/// What stands against it.
pub fn check_writable(file: &Path) -> io::Result<()> {
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(access(file, AccessFlags::W_OK)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if file.file_name().is_none() {
                return Err(error);
            }
            Ok(access(folder_of(file), AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        Err(error) => Err(error),
    }
}

/// Writes `bytes` beside `file` and moves them there. What is no regular file, such as a pipe, is
/// written into.
///
/// # Errors
/// Those of the system. What stood in `file` is then still there.
pub fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays, and what it points to is replaced.
    let file = &file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let before = file.metadata().ok();
    if before.as_ref().is_some_and(|it| !it.is_file()) {
        return OpenOptions::new().write(true).open(file)?.write_all(bytes);
    }
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    let draft: PathBuf = folder_of(file).join(name);
    // What is left of a killed process of the same number is nobody's.
    let _ = fs::remove_file(&draft);
    let written =
        OpenOptions::new().write(true).create_new(true).open(&draft).and_then(|mut it| {
            it.write_all(bytes)?;
            if let Some(before) = before {
                it.set_permissions(before.permissions())?;
            }
            fs::rename(&draft, file)
        });
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("a"), folder.path().join("b"));
        check_writable(&file).expect("can be");
        assert!(!file.exists(), "asking makes nothing");
        replace(&file, b"one").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
        symlink(&file, &link).expect("linked");
        replace(&link, b"two").expect("written");
        assert_eq!(fs::read(&file).expect("there"), b"two");
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        assert!(link.symlink_metadata().expect("there").is_symlink());
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2, "no draft is left");
        assert!(check_writable(folder.path()).is_err());
        assert!(check_writable(&folder.path().join("no/such")).is_err());
    }
}
