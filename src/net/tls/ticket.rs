//! Session tickets that any process with the same key file understands, before a restart and
//! after it, on this machine and on another.
//!
//! Nothing is kept for a ticket: it holds the session itself, encrypted. The key is made anew from
//! the file's secret, the listener's name and the number of the period that the ticket was made in,
//! so keys change by themselves, and a ticket of one listener is worth nothing at another.
//!
//! A ticket is a stranger's bytes until it is decrypted: it is only split where it is long enough, and
//! the one subtraction follows the comparison that allows it.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

/// How long one key encrypts, in seconds. It decrypts for as long again.
const PERIOD_SECONDS: u64 = 6 * 60 * 60;

const PERIOD_LEN: usize = size_of::<u64>();
const NONCE_LEN: usize = 12;

/// Makes tickets, and reads its own.
pub struct Ticketer {
    secret: hmac::Key,
    listener: String,
}

impl Ticketer {
    /// Tickets of `listener` under a secret from a key file.
    #[must_use]
    pub fn new(secret: &[u8], listener: &str) -> Self {
        Self { secret: hmac::Key::new(hmac::HMAC_SHA256, secret), listener: listener.to_owned() }
    }

    fn encrypt_in(&self, period: u64, session: &[u8]) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = rand::generate(&rand::SystemRandom::new()).ok()?.expose();
        let period_bytes = period.to_be_bytes();
        let mut sealed = session.to_vec();
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.key(period)?
            .seal_in_place_append_tag(nonce_of, Aad::from(period_bytes), &mut sealed)
            .ok()?;
        Some([&period_bytes[..], &nonce, &sealed].concat())
    }

    fn decrypt_in(&self, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (period_bytes, rest) = ticket.split_first_chunk::<PERIOD_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let period = u64::from_be_bytes(*period_bytes);
        if period > now || now - period > 1 {
            return None;
        }
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = self
            .key(period)?
            .open_in_place(nonce, Aad::from(*period_bytes), &mut opened)
            .ok()?
            .len();
        opened.truncate(len);
        Some(opened)
    }

    fn key(&self, period: u64) -> Option<LessSafeKey> {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(b"turnstile session ticket\0");
        context.update(self.listener.as_bytes());
        context.update(&period.to_be_bytes());
        UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).ok().map(LessSafeKey::new)
    }
}

impl std::fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticketer").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD_SECONDS as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_in(period_now()?, session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_in(period_now()?, ticket)
    }
}

fn period_now() -> Option<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs() / PERIOD_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_listener_in_its_period_and_the_next() {
        let ticketer = Ticketer::new(b"a secret from a file", "gate");
        let ticket = ticketer.encrypt_in(7, b"session").expect("encrypted");
        assert!(!ticket.windows(7).any(|it| it == b"session"));
        assert_eq!(ticketer.decrypt_in(7, &ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(ticketer.decrypt_in(8, &ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(ticketer.decrypt_in(9, &ticket), None);
        assert_eq!(ticketer.decrypt_in(6, &ticket), None);

        let same = Ticketer::new(b"a secret from a file", "gate");
        assert!(same.decrypt_in(7, &ticket).is_some(), "a restart changes nothing");
        let elsewhere = Ticketer::new(b"a secret from a file", "other");
        assert_eq!(elsewhere.decrypt_in(7, &ticket), None);
    }

    #[test]
    fn a_ticket_with_any_bit_changed_is_none() {
        let ticketer = Ticketer::new(b"a secret from a file", "gate");
        let ticket = ticketer.encrypt_in(7, b"session").expect("encrypted");
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(ticketer.decrypt_in(7, &forged), None, "byte {at}");
            assert_eq!(ticketer.decrypt_in(7, &ticket[..at]), None, "cut at {at}");
        }
    }
}
