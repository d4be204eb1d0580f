//! The secret of a client: from a file or the environment, never from an argument, which every
//! process on the machine could read.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::proto::gate::Secret;

/// The environment variable that holds the secret where no file does.
pub const VARIABLE: &str = "TURNSTILE_SECRET";

/// Why there is no usable secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("the secret file {} cannot be read: {reason}", path.display())]
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

/// Reads the secret from `file`, where one is given, else from the environment. A file's last
/// line ending does not belong to the secret. `None` where there is none.
///
/// # Errors
/// The file cannot be read, or the secret is empty.
pub fn secret(file: Option<&Path>) -> Result<Option<Secret>, SecretError> {
    let (bytes, origin) = match file {
        Some(path) => {
            let bytes = std::fs::read(path).map(Zeroizing::new);
            let bytes = bytes
                .map_err(|reason| SecretError::Unreadable { path: path.to_owned(), reason })?;
            (bytes, path.display().to_string())
        }
        None => match std::env::var_os(VARIABLE) {
            Some(value) => {
                (Zeroizing::new(value.into_encoded_bytes()), format!("the variable {VARIABLE}"))
            }
            None => return Ok(None),
        },
    };
    let secret = without_line_end(&bytes);
    if secret.is_empty() {
        return Err(SecretError::Empty(origin));
    }
    Ok(Some(Secret::new("client", Zeroizing::new(secret.to_vec()))))
}

fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_ending_is_not_part_of_a_secret() {
        assert_eq!(without_line_end(b"key\n"), b"key");
        assert_eq!(without_line_end(b"key\r\n"), b"key");
        assert_eq!(without_line_end(b"key \n\n"), b"key \n");
        assert_eq!(without_line_end(b"key"), b"key");
    }
}
