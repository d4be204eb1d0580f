//! Lesson 7: bytes that nobody can guess.
//!
//! The tutorial prints ten tokens, each the MD5 in hexadecimal of 24 random bytes: the stuff that
//! session names and challenges are made of.
//!
//! What goes wrong: a token is as good as the source of its bytes, and hashing adds nothing. From
//! a generator for games and statistics, who sees a few tokens computes the rest; from the clock,
//! one tries them all. The right source is the operating system's. (MD5 merely shortens the 24
//! bytes to 16 here, which is plenty. That it is broken for signatures does not matter for this:
//! nobody gains from two inputs that collide.)
//!
//! What non-blocking changes: nothing, and that is worth knowing. The system's source waits once,
//! early in the boot; after that it answers at once, so an event loop may call it for each client.

use std::process::ExitCode;

use md5::{Digest, Md5};
use rand::TryRng;
use rand::rngs::{SysError, SysRng};

const TOKENS: usize = 10;
const RANDOM_BYTES: usize = 24;

fn main() -> ExitCode {
    for _ in 0..TOKENS {
        match token() {
            Ok(token) => println!("{token}"),
            // Better no token than one that can be guessed.
            Err(error) => {
                eprintln!("the operating system gave no random bytes: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn token() -> Result<String, SysError> {
    let mut bytes = [0; RANDOM_BYTES];
    SysRng.try_fill_bytes(&mut bytes)?;
    Ok(hex(&Md5::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
