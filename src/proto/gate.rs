//! The gate: an HMAC challenge that decides who may come in.
//!
//! The server sends a [`Challenge`] of 32 random bytes; the client answers with
//! `HMAC(secret, challenge)` and nothing else: no framing, no acknowledgement. Bytes after the
//! answer belong to the service behind the gate.
//!
//! This module computes and compares. It does not wait, time out or move bytes: that is the
//! session's work ([`super::session`]). Randomness is an argument.
//!
//! Invariant: every secret of a [`Keyring`] is tried against every answer, whichever matches
//! first, and each comparison takes the same time whatever the bytes are; so the time that an
//! answer takes says nothing about which secrets exist or how close a guess was.
//!
//! HMAC is RFC 2104; the test vectors are those of RFC 2202 (MD5) and RFC 4231 (SHA-256).

use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::Sha256;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

/// Length of a challenge, in bytes.
pub const CHALLENGE_LEN: usize = 32;

/// Length of the longest answer of any [`Digest`], in bytes.
pub const MAX_ANSWER_LEN: usize = 32;

/// What the server sends first: 32 bytes that were never sent before and cannot be guessed.
pub type Challenge = [u8; CHALLENGE_LEN];

/// Which hash function the HMAC of the answer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// HMAC-MD5: answers of 16 bytes. MD5 is broken for signatures, not (yet) for HMAC; it is
    /// here because the tutorials speak it.
    Md5,
    /// HMAC-SHA-256: answers of 32 bytes.
    Sha256,
}

impl Digest {
    /// Length of an answer, in bytes.
    #[must_use]
    pub const fn answer_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha256 => 32,
        }
    }

    /// The name that configuration and command line use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "hmac-md5",
            Self::Sha256 => "hmac-sha256",
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text named no digest this gate knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown authentication `{0}`: expected `hmac-md5` or `hmac-sha256`")]
pub struct UnknownDigest(String);

impl FromStr for Digest {
    type Err = UnknownDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "hmac-md5" => Ok(Self::Md5),
            "hmac-sha256" => Ok(Self::Sha256),
            other => Err(UnknownDigest(other.to_owned())),
        }
    }
}

/// A named secret. The name is public (it is a client's identity in logs); the bytes are never
/// printed and are wiped from memory when the secret is dropped.
#[derive(Clone)]
pub struct Secret {
    name: String,
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// A secret of any length; HMAC hashes keys that are longer than its block.
    #[must_use]
    pub fn new(name: impl Into<String>, bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { name: name.into(), bytes }
    }

    /// The public name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes it has.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "one without bytes is refused beforehand")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether this secret is exactly `bytes`, in time that depends on the length alone.
    #[must_use]
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.bytes.ct_eq(bytes).into()
    }

    /// The answer to `challenge` under this secret: the client's side of the gate.
    #[must_use]
    pub fn answer(&self, digest: Digest, challenge: &Challenge) -> Answer {
        Keyed::new(digest, &self.bytes).answer(challenge)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a client answers to a challenge.
#[derive(Clone, Copy)]
pub struct Answer {
    bytes: [u8; MAX_ANSWER_LEN],
    len: usize,
}

impl Answer {
    /// The bytes as they go on the wire: 16 or 32 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The secrets that one listener accepts, each prepared for its digest.
///
/// Preparing hashes the key once; an answer then costs two hash blocks a secret. The prepared
/// state is as good as the key and is wiped like one.
pub struct Keyring {
    digest: Digest,
    keys: Vec<(Rc<str>, Keyed)>,
}

impl Keyring {
    /// A keyring that tries `secrets` in the order given. An empty one lets nobody in.
    pub fn new<'a>(digest: Digest, secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let keys = secrets
            .into_iter()
            .map(|secret| (Rc::from(secret.name()), Keyed::new(digest, &secret.bytes)))
            .collect();
        Self { digest, keys }
    }

    /// The digest that answers are made with.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many secrets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, so that nobody is let in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The name of the secret that `answer` proves: the client's identity. `None` where it
    /// proves none, the first one's where two secrets are equal.
    #[must_use]
    pub fn verify(&self, challenge: &Challenge, answer: &[u8]) -> Option<Rc<str>> {
        let mut matched = Choice::from(0);
        let mut index = 0u32;
        for (position, (_, key)) in (0u32..).zip(&self.keys) {
            let equal = key.answer(challenge).as_bytes().ct_eq(answer);
            index.conditional_assign(&position, equal & !matched);
            matched |= equal;
        }
        bool::from(matched).then(|| Rc::clone(&self.keys[index as usize].0))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.keys.iter().map(|(name, _)| name).collect();
        f.debug_struct("Keyring").field("digest", &self.digest).field("names", &names).finish()
    }
}

/// An HMAC that has taken its key in already.
#[derive(Clone)]
enum Keyed {
    Md5(Hmac<Md5>),
    Sha256(Hmac<Sha256>),
}

impl Keyed {
    fn new(digest: Digest, key: &[u8]) -> Self {
        const ANY_LENGTH: &str = "HMAC takes keys of any length";
        match digest {
            Digest::Md5 => Self::Md5(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Digest::Sha256 => Self::Sha256(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
        }
    }

    fn answer(&self, message: &[u8]) -> Answer {
        match self {
            Self::Md5(mac) => {
                Answer::new(&mac.clone().chain_update(message).finalize().into_bytes())
            }
            Self::Sha256(mac) => {
                Answer::new(&mac.clone().chain_update(message).finalize().into_bytes())
            }
        }
    }
}

impl Answer {
    fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; MAX_ANSWER_LEN];
        bytes[..digest.len()].copy_from_slice(digest);
        Self { bytes, len: digest.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn secret(name: &str, bytes: &[u8]) -> Secret {
        Secret::new(name, Zeroizing::new(bytes.to_vec()))
    }

    fn mac(digest: Digest, key: &[u8], message: &[u8]) -> String {
        hex(Keyed::new(digest, key).answer(message).as_bytes())
    }

    #[test]
    fn md5_answers_are_those_of_rfc_2202() {
        let cases: [(&[u8], &[u8], &str); 7] = [
            (&[0x0b; 16], b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d"),
            (b"Jefe", b"what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"),
            (&[0xaa; 16], &[0xdd; 50], "56be34521d144c88dbb8c733f0e8b3f6"),
            (&(1..=25).collect::<Vec<u8>>(), &[0xcd; 50], "697eaf0aca3a3aea3a75164746ffaa79"),
            (&[0x0c; 16], b"Test With Truncation", "56461ef2342edc00f9bab995690efd4c"),
            (
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd",
            ),
            (
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data",
                "6f630fad67cda0ee1fb1f562db3aa53e",
            ),
        ];
        for (key, message, expected) in cases {
            assert_eq!(mac(Digest::Md5, key, message), expected);
        }
    }

    #[test]
    fn sha256_answers_are_those_of_rfc_4231() {
        let cases: [(&[u8], &[u8], &str); 6] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &(1..=25).collect::<Vec<u8>>(),
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &[0xaa; 131],
                b"This is a test using a larger than block-size key and a larger than \
                  block-size data. The key needs to be hashed before being used by the HMAC \
                  algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, message, expected) in cases {
            assert_eq!(mac(Digest::Sha256, key, message), expected);
        }
    }

    #[test]
    fn the_name_of_the_matching_secret_is_the_identity() {
        let secrets = [secret("alice", b"one"), secret("bob", b"two"), secret("twin", b"two")];
        let challenge = [7; CHALLENGE_LEN];
        for digest in [Digest::Md5, Digest::Sha256] {
            let keyring = Keyring::new(digest, &secrets);
            let by_bob = secrets[1].answer(digest, &challenge);
            let identity = keyring.verify(&challenge, by_bob.as_bytes());
            assert_eq!(identity.as_deref(), Some("bob"));
            assert_eq!(by_bob.as_bytes().len(), digest.answer_len());
        }
    }

    #[test]
    fn nothing_but_the_whole_right_answer_is_let_in() {
        let secrets = [secret("alice", b"one"), secret("bob", b"two")];
        let challenge = [9; CHALLENGE_LEN];
        let keyring = Keyring::new(Digest::Md5, &secrets);
        let right = secrets[0].answer(Digest::Md5, &challenge);
        for bit in 0..128 {
            let mut wrong = right.as_bytes().to_vec();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keyring.verify(&challenge, &wrong), None, "bit {bit}");
        }
        assert_eq!(keyring.verify(&challenge, &right.as_bytes()[..15]), None);
        assert_eq!(keyring.verify(&challenge, &[]), None);
        assert_eq!(keyring.verify(&[8; CHALLENGE_LEN], right.as_bytes()), None, "replayed");
        assert_eq!(Keyring::new(Digest::Md5, []).verify(&challenge, right.as_bytes()), None);
    }

    #[test]
    fn secrets_are_never_printed() {
        let secret = secret("alice", b"open sesame");
        let keyring = Keyring::new(Digest::Sha256, [&secret]);
        let printed = format!("{secret:?} {keyring:?} {:?}", secret.answer(Digest::Md5, &[0; 32]));
        assert!(!printed.contains("sesame") && !printed.contains("111, 112"), "{printed}");
    }
}
