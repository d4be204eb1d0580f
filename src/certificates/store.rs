//! The files of certificates and keys: read with errors that say what to do, written so that a key
//! is never readable by others, never half there, and never lost by mistake.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::issue::{Authority, IssueError, Issued};
use crate::proto::pem::{self, BYTE_ORDER_MARK, PemError};

/// Who may read a private key: its owner.
const KEY_MODE: u32 = 0o600;

/// Who may read a certificate: everybody, as far as the umask allows.
const CERTIFICATE_MODE: u32 = 0o644;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be read.
    #[error("{} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It could not be written.
    #[error("{} cannot be written: {reason}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It is there already.
    #[error("{} exists and is left as it is; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// It is not the PEM that it should be.
    #[error("{}: {reason}; {}", path.display(), reason.help())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: PemError,
    },
    /// It belongs to the authority that signs.
    #[error(
        "{} belongs to the authority that signs, and is never replaced: give the new certificate \
         another name (--as) or directory (--out)",
        .0.display()
    )]
    IsAuthority(PathBuf),
    /// It holds no certificate.
    #[error("{} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// The authority in a directory cannot sign.
    #[error("the authority in {}: {reason}", directory.display())]
    Authority {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        reason: IssueError,
    },
}

/// The two files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The certificate, `NAME.pem`.
    pub certificate: PathBuf,
    /// The private key, `NAME-key.pem`.
    pub key: PathBuf,
}

impl Paths {
    /// Where the certificate called `name` is kept in `directory`.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Self {
        Self {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}-key.pem")),
        }
    }

    /// Checks that none of these files is one of the authority's in `directory`.
    ///
    /// # Errors
    /// One is.
    pub fn check_apart(&self, directory: &Path) -> Result<(), StoreError> {
        let authority = Self::new(directory, "ca");
        let kept = [&authority.certificate, &authority.key];
        match [&self.certificate, &self.key]
            .into_iter()
            .find(|new| kept.iter().any(|it| is_same(it, new)))
        {
            Some(path) => Err(StoreError::IsAuthority(path.clone())),
            None => Ok(()),
        }
    }

    /// Writes the key, then the certificate. Files that are there already are replaced only where
    /// `force` says so. Makes the directory if it is missing.
    ///
    /// # Errors
    /// A file exists and is not to be replaced, or the system refused.
    pub fn write(&self, issued: &Issued, force: bool) -> Result<(), StoreError> {
        if !force
            && let Some(path) = [&self.key, &self.certificate].into_iter().find(|it| exists(it))
        {
            return Err(StoreError::Exists(path.clone()));
        }
        let key = issued.key_pem.as_bytes();
        write_whole(&self.key, key, KEY_MODE, force)?;
        let certificate = issued.certificate_pem.as_bytes();
        write_whole(&self.certificate, certificate, CERTIFICATE_MODE, force)
    }
}

/// The authority whose certificate and key are `ca.pem` and `ca-key.pem` in `directory`.
///
/// # Errors
/// A file cannot be read, or what it holds cannot sign.
pub fn load_authority(directory: &Path) -> Result<Authority, StoreError> {
    let paths = Paths::new(directory, "ca");
    let certificate = read_certificate(&paths.certificate)?;
    let key = Zeroizing::new(read(&paths.key)?);
    let key = key.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&key);
    let key = std::str::from_utf8(key).unwrap_or_default();
    Authority::new(&certificate, key)
        .map_err(|reason| StoreError::Authority { directory: directory.to_owned(), reason })
}

/// The first certificate of a PEM file.
fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, StoreError> {
    let blocks = pem::read(&read(path)?)
        .map_err(|reason| StoreError::Damaged { path: path.to_owned(), reason })?;
    let first = blocks.into_iter().find(|block| block.label.ends_with("CERTIFICATE"));
    let first = first.ok_or_else(|| StoreError::NoCertificate(path.to_owned()))?;
    Ok(CertificateDer::from(first.bytes.to_vec()))
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|reason| StoreError::Unreadable { path: path.to_owned(), reason })
}

/// Whether both paths lead to one file, however they are spelled.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    one == other || place(one).is_some_and(|it| Some(it) == place(other))
}

/// Whether there is anything at `path`, even a link to nowhere.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Writes a file beside its place and then moves it there, so that nobody finds half of it.
fn write_whole(path: &Path, bytes: &[u8], mode: u32, force: bool) -> Result<(), StoreError> {
    let unwritable = |reason| StoreError::Unwritable { path: path.to_owned(), reason };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).map_err(unwritable)?;
    let draft = directory.join(format!(".turnstile-{}.tmp", std::process::id()));
    // What is left of a killed process of the same number is nobody's.
    let _ = fs::remove_file(&draft);
    let written = write_new(&draft, bytes, mode).map_err(unwritable);
    let moved = written.and_then(|()| put_in_place(&draft, path, force));
    // After a rename there is nothing left to remove.
    let _ = fs::remove_file(&draft);
    moved?;
    // The new name is on the disk once the directory is.
    File::open(directory).and_then(|it| it.sync_all()).map_err(unwritable)
}

fn put_in_place(draft: &Path, path: &Path, force: bool) -> Result<(), StoreError> {
    // A link, unlike a rename, fails where something has appeared meanwhile.
    let moved = if force { fs::rename(draft, path) } else { fs::hard_link(draft, path) };
    moved.map_err(|reason| match reason.kind() {
        io::ErrorKind::AlreadyExists => StoreError::Exists(path.to_owned()),
        _ => StoreError::Unwritable { path: path.to_owned(), reason },
    })
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
