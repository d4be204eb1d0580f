//! Reads the `[[secret]]` tables and fetches each secret from where it is kept.
//!
//! Invariant: the bytes of a secret are wiped when dropped, and no fault quotes them.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{self, Path, PathBuf};

use toml::Spanned;
use zeroize::Zeroizing;

use crate::proto::gate::Secret;
use crate::proto::pem::{BYTE_ORDER_MARK, is_utf16};

use super::plan::{SecretOrigin, SourcedSecret};
use super::print::NOT_SHOWN;
use super::report::{Fault, Faults};
use super::table::Table;
use super::values;

/// The longest secret, in bytes. Far beyond any use; it bounds what a wrong path can make us read.
const MAX_SECRET: usize = 65_536;

/// Reads a secret from a file, [bare](bare_secret) of what editors put around it. Nothing is read
/// beyond the longest secret.
///
/// # Errors
/// The file cannot be read, is longer than any secret, or is in UTF-16.
pub fn read_secret_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    const LINE_ENDING: usize = 2;
    let limit = BYTE_ORDER_MARK.len() + MAX_SECRET + LINE_ENDING + 1;
    // Room for all of it at once: a vector that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    File::open(path)?.take(limit as u64).read_to_end(&mut bytes)?;
    if is_utf16(&bytes) {
        let why = "it is saved as UTF-16; save it as UTF-8, or as plain text";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    bare_secret(&mut bytes);
    if bytes.len() > MAX_SECRET {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, too_long()));
    }
    Ok(bytes)
}

/// Takes off a secret what does not belong to it, wherever it came from: a byte order mark before
/// it, and one line ending behind it.
pub fn bare_secret(secret: &mut Vec<u8>) {
    if secret.starts_with(BYTE_ORDER_MARK) {
        secret.drain(..BYTE_ORDER_MARK.len());
    }
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
}

/// The secrets of a configuration.
pub(super) struct Secrets {
    /// Whether there is any `[[secret]]`, sound or not.
    pub(super) any: bool,
    /// Every name, also of secrets that could not be fetched, so that one fault does not look
    /// like two.
    pub(super) names: Vec<String>,
    /// Those that could be fetched.
    pub(super) fetched: Vec<SourcedSecret>,
}

impl Secrets {
    /// The secrets of these names.
    pub(super) fn pick(&self, names: &[Spanned<String>], faults: &mut Faults) -> Vec<Secret> {
        for name in names.iter().filter(|name| !self.names.contains(name.get_ref())) {
            let help = match self.names.as_slice() {
                [] => "there is no [[secret]] with a name".to_owned(),
                known => format!("the secrets are {}", known.join(", ")),
            };
            let message = format!("unknown secret `{}`", name.get_ref());
            faults.add(name.span(), Fault::new(message, "unknown", help));
        }
        let of_name = |name: &Spanned<String>| {
            let found = self.fetched.iter().find(|it| it.secret.name() == name.get_ref());
            found.map(|found| found.secret.clone())
        };
        names.iter().filter_map(of_name).collect()
    }
}

/// The keys that say where the bytes of a secret are.
const SOURCES: [&str; 3] = ["value", "file", "env"];

/// Reads every `[[secret]]` of `document`. Relative paths are relative to `folder`.
pub(super) fn read(document: &mut Table<'_>, folder: &Path, faults: &mut Faults) -> Secrets {
    let any = !document.lacks("secret");
    let mut secrets = Secrets { any, names: Vec::new(), fetched: Vec::new() };
    for mut table in document.tables("secret", "[[secret]]", faults) {
        if !SOURCES.iter().any(|source| table.has(source)) {
            // Then what stands there as its name may be the secret itself.
            table.hide("name", faults);
        }
        let name = table.require("name", values::name, faults);
        if let Some(name) = &name {
            declare(name, &mut secrets.names, faults);
        }
        let fetched = fetch(&mut table, folder, faults);
        table.finish(faults);
        if let (Some(name), Some((bytes, origin))) = (name, fetched) {
            let secret = Secret::new(name.into_inner(), bytes);
            secrets.fetched.push(SourcedSecret { secret, origin });
        }
    }
    secrets
}

fn declare(name: &Spanned<String>, names: &mut Vec<String>, faults: &mut Faults) {
    if names.contains(name.get_ref()) {
        let message = format!("the secret `{}` is there twice", name.get_ref());
        faults.add(name.span(), Fault::new(message, "again", "give each secret its own name"));
    }
    names.push(name.get_ref().clone());
}

/// The bytes of a secret and where they came from.
type Fetched = (Zeroizing<Vec<u8>>, SecretOrigin);

fn fetch(table: &mut Table<'_>, folder: &Path, faults: &mut Faults) -> Option<Fetched> {
    let given: Vec<_> = SOURCES.into_iter().filter(|key| table.has(key)).collect();
    table.hide("value", faults);
    let value = table.take("value", values::secret_bytes, faults);
    let file = table.take("file", values::text, faults);
    let variable = table.take("env", values::text, faults);
    if given.len() != 1 {
        let message = match given.len() {
            0 => "a secret without its source".to_owned(),
            _ => format!("a secret with more than one source: {}", given.join(", ")),
        };
        let help = "give exactly one of value = \"...\", file = \"...\", env = \"...\"";
        faults.add(table.span(), Fault::new(message, "this secret", help));
        return None;
    }

    let (span, fetched) = if let Some(value) = value {
        (value.span(), Ok((value.into_inner(), SecretOrigin::Literal)))
    } else if let Some(file) = file {
        (file.span(), from_file(file.get_ref(), folder))
    } else {
        let variable = variable?;
        (variable.span(), from_environment(variable.into_inner()))
    };
    match fetched.and_then(reject_unusable) {
        Ok(fetched) => Some(fetched),
        Err(fault) => {
            faults.add(span, fault);
            None
        }
    }
}

fn from_file(path: &str, folder: &Path) -> Result<Fetched, Fault> {
    let path = path::absolute(folder.join(path)).unwrap_or_else(|_| PathBuf::from(path));
    let bytes = read_secret_file(&path).map_err(|error| {
        let message = format!("the secret's file {} cannot be read: {error}", path.display());
        let help = "check the path, which is relative to this file's folder, and who may read it";
        Fault::new(message, "this file", help)
    })?;
    Ok((bytes, SecretOrigin::File(path)))
}

fn from_environment(name: String) -> Result<Fetched, Fault> {
    match env::var_os(&name) {
        Some(value) => {
            let mut bytes = Zeroizing::new(value.into_vec());
            bare_secret(&mut bytes);
            Ok((bytes, SecretOrigin::Environment(name)))
        }
        None => {
            let message = format!("the environment variable `{name}` is not set");
            let help = "set it, or keep the secret in a file and write file = \"...\"";
            Err(Fault::new(message, "not set", help))
        }
    }
}

fn reject_unusable((bytes, origin): Fetched) -> Result<Fetched, Fault> {
    const MAKE_ONE: &str = "make one with `turnstile secret`";
    if bytes.is_empty() {
        return Err(Fault::new("an empty secret would let everyone in", "empty", MAKE_ONE));
    }
    if bytes.len() > MAX_SECRET {
        return Err(Fault::new(too_long(), "too long", MAKE_ONE));
    }
    if bytes.as_slice() == NOT_SHOWN.as_bytes() {
        let message = "the secret itself is missing: `turnstile check --print` leaves it out";
        let help = "write the secret here, or better file = \"...\" or env = \"...\"";
        return Err(Fault::new(message, "left out", help));
    }
    Ok((bytes, origin))
}

fn too_long() -> String {
    format!("a secret of more than {MAX_SECRET} bytes is surely a mistake")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_holds_a_secret_and_perhaps_one_line_ending() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let longest = vec![b'k'; MAX_SECRET];
        let cases: [(&[u8], &[u8]); 8] = [
            (b"\xef\xbb\xbfkey\r\n", b"key"),
            (b"\xef\xbb\xbf", b""),
            (b"key", b"key"),
            (b"key\n", b"key"),
            (b"key\r\n", b"key"),
            (b"key \n\n", b"key \n"),
            (b"", b""),
            (&[&longest[..], b"\r\n"].concat(), &longest),
        ];
        for (file, secret) in cases {
            fs::write(&path, file).expect("written");
            assert_eq!(read_secret_file(&path).expect("read").as_slice(), secret);
            let mut from_elsewhere = file.to_vec();
            bare_secret(&mut from_elsewhere);
            assert_eq!(from_elsewhere, secret);
        }
        for more in [&b"k"[..], b"k\n", b"\n\n", b"\r\nk"] {
            fs::write(&path, [&longest[..], more].concat()).expect("written");
            let error = read_secret_file(&path).expect_err("too long");
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{more:?}");
        }
        fs::write(&path, b"\xff\xfek\0e\0y\0\r\0\n\0").expect("written");
        let error = read_secret_file(&path).expect_err("another encoding").to_string();
        assert!(error.contains("UTF-16"), "{error}");
        let endless = read_secret_file(Path::new("/dev/zero")).expect_err("too long");
        assert_eq!(endless.kind(), io::ErrorKind::FileTooLarge);
    }
}
