//! The secret of a client: from a file or the environment, never from an argument, which every
//! process on the machine could read.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{bare_secret, read_secret_file};
use crate::proto::gate::Secret;

/// The environment variable that holds the secret where no file does.
pub const VARIABLE: &str = "TURNSTILE_SECRET";

/// Why there is no usable secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read, or holds more than a secret.
    #[error(
        "the secret file {} cannot be read: {reason}; check the path (--secret-file), and who may \
         read it",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// There is nothing in it.
    #[error("the secret in {0} is empty; `turnstile secret` makes one")]
    Empty(String),
}

/// Reads the secret from `file`, where one is given, else from the environment. The last line
/// ending does not belong to the secret. `None` where there is none.
///
/// # Errors
/// The file cannot be read, or the secret is empty.
pub fn secret(file: Option<&Path>) -> Result<Option<Secret>, SecretError> {
    let (bytes, origin) = match file {
        Some(path) => {
            let bytes = read_secret_file(path)
                .map_err(|reason| SecretError::Unreadable { path: path.to_owned(), reason })?;
            (bytes, format!("the file {}", path.display()))
        }
        None => match std::env::var_os(VARIABLE) {
            Some(value) => {
                let mut bytes = Zeroizing::new(value.into_encoded_bytes());
                bare_secret(&mut bytes);
                (bytes, format!("the variable {VARIABLE}"))
            }
            None => return Ok(None),
        },
    };
    if bytes.is_empty() {
        return Err(SecretError::Empty(origin));
    }
    Ok(Some(Secret::new("client", bytes)))
}
