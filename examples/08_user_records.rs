//! Lesson 8: to check a password without keeping it.
//!
//! The tutorial has a helper for HMAC-MD5 in hexadecimal, and a user record that it keeps instead
//! of the password: the name, a random key of 20 characters, and HMAC-MD5(key, password).
//!
//! What goes wrong: comparing with `==` stops at the first difference, and the time that it takes
//! tells a patient stranger how far a guess was right. And the record protects less than it seems.
//! The key lies beside the result, so it is a salt and no secret: it makes equal passwords look
//! different, and no more. MD5 is made to be fast: whoever steals the records tries billions of
//! passwords a second. Today one keeps the result of a *password hash*, such as Argon2, which is
//! made to cost time and memory for every guess.
//!
//! What non-blocking changes: HMAC-MD5 is over in a microsecond, but a good password hash takes a
//! tenth of a second by design, and in a loop with one thread every client waits that long. That is
//! one reason for a gate that proves a long random secret (lesson 9): nobody can guess through
//! those, so a fast hash is enough.

use std::process::ExitCode;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use subtle::ConstantTimeEq;

const KEY_LEN: usize = 20;

fn main() -> ExitCode {
    let record = match UserRecord::new("jedan", "correct horse battery staple") {
        Ok(record) => record,
        Err(error) => {
            eprintln!("the operating system gave no random bytes: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("name: {}", record.name);
    println!("key:  {}", record.key);
    println!("hmac: {}", record.hmac);
    println!("the right password: {}", verdict(&record, "correct horse battery staple"));
    println!("one letter wrong:   {}", verdict(&record, "correct horse battery stable"));
    ExitCode::SUCCESS
}

fn verdict(record: &UserRecord, password: &str) -> &'static str {
    if record.verify(password) { "accepted" } else { "refused" }
}

/// What is kept of a user: enough to know the password when it comes, not to say it.
struct UserRecord {
    name: String,
    key: String,
    hmac: String,
}

impl UserRecord {
    fn new(name: &str, password: &str) -> Result<Self, SysError> {
        let key = random_key()?;
        let hmac = hmac_md5_hex(&key, password);
        Ok(Self { name: name.to_owned(), key, hmac })
    }

    fn verify(&self, password: &str) -> bool {
        equal_in_constant_time(&self.hmac, &hmac_md5_hex(&self.key, password))
    }
}

/// Characters from `0` (code point 48) to `z` (122), each as likely as any other.
fn random_key() -> Result<String, SysError> {
    let mut key = String::with_capacity(KEY_LEN);
    while key.len() < KEY_LEN {
        let mut byte = [0];
        SysRng.try_fill_bytes(&mut byte)?;
        // Drawn again where it does not fit. `48 + byte % 75` would always fit, but 75 does not
        // divide 256, and some characters would come more often than others.
        if (b'0'..=b'z').contains(&byte[0]) {
            key.push(char::from(byte[0]));
        }
    }
    Ok(key)
}

fn hmac_md5_hex(key: &str, text: &str) -> String {
    let mut hmac =
        Hmac::<Md5>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    hmac.update(text.as_bytes());
    hex(&hmac.finalize().into_bytes())
}

/// The time tells the lengths, which are no secret, and nothing about the characters.
fn equal_in_constant_time(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
