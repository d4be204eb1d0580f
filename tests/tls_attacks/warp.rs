//! Cipher suites whose encryption changes what it encrypts: a peer that uses them sends messages of
//! the handshake that are properly encrypted and wrong.

use std::cell::RefCell;

use rustls::crypto::cipher::{
    AeadKey, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter, OutboundOpaqueMessage,
    OutboundPlainMessage, Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite,
    Tls12CipherSuite, Tls13CipherSuite,
};

use crate::dice::Dice;

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// Which record is changed, and how.
struct Plan {
    records_before: usize,
    dice: Dice,
}

/// From now on the encrypted record after so many others is changed, if there is one.
pub(crate) fn arm(records_before: usize, dice: Dice) {
    PLAN.set(Some(Plan { records_before, dice }));
}

/// Nothing is changed any more.
pub(crate) fn disarm() {
    PLAN.set(None);
}

/// A provider with one suite for each version, both with ChaCha20-Poly1305 under a warp.
pub(crate) fn provider() -> CryptoProvider {
    let thirteen = aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    let twelve = aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    let SupportedCipherSuite::Tls13(thirteen) = thirteen else { panic!("a suite of TLS 1.3") };
    let SupportedCipherSuite::Tls12(twelve) = twelve else { panic!("a suite of TLS 1.2") };
    let common = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: common.confidentiality_limit,
    };
    let thirteen = Tls13CipherSuite {
        common: common(&thirteen.common),
        hkdf_provider: thirteen.hkdf_provider,
        aead_alg: Box::leak(Box::new(Warped13(thirteen.aead_alg))),
        quic: None,
    };
    let twelve = Tls12CipherSuite {
        common: common(&twelve.common),
        prf_provider: twelve.prf_provider,
        kx: twelve.kx,
        sign: twelve.sign,
        aead_alg: Box::leak(Box::new(Warped12(twelve.aead_alg))),
    };
    CryptoProvider {
        cipher_suites: vec![
            SupportedCipherSuite::Tls13(Box::leak(Box::new(thirteen))),
            SupportedCipherSuite::Tls12(Box::leak(Box::new(twelve))),
        ],
        ..aws_lc_rs::default_provider()
    }
}

struct Warped13(&'static dyn Tls13AeadAlgorithm);

impl Tls13AeadAlgorithm for Warped13 {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Warped(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

struct Warped12(&'static dyn Tls12AeadAlgorithm);

impl Tls12AeadAlgorithm for Warped12 {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(Warped(self.0.encrypter(key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv, explicit)
    }
}

struct Warped(Box<dyn MessageEncrypter>);

impl MessageEncrypter for Warped {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let OutboundPlainMessage { mut typ, version, payload } = message;
        let mut payload = payload.to_vec();
        if let Some(mut dice) = is_due() {
            change(&mut typ, &mut payload, &mut dice);
        }
        let payload = payload.as_slice().into();
        self.0.encrypt(OutboundPlainMessage { typ, version, payload }, seq)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}

fn is_due() -> Option<Dice> {
    PLAN.with_borrow_mut(|plan| match plan {
        Some(Plan { records_before: 0, .. }) => plan.take().map(|plan| plan.dice),
        Some(plan) => {
            plan.records_before -= 1;
            None
        }
        None => None,
    })
}

fn change(typ: &mut ContentType, payload: &mut Vec<u8>, dice: &mut Dice) {
    match dice.below(5) {
        0 => payload.truncate(dice.below(payload.len() + 1)),
        1 => payload.extend(dice.bytes(100)),
        2 => *typ = ContentType::from(dice.pick(&[20, 21, 22, 23, 24, 99])),
        _ => {
            for _ in 0..=dice.below(3) {
                if let Some(byte) = payload.len().checked_sub(1).map(|last| dice.below(last + 1)) {
                    payload[byte] ^= 1 << dice.below(8);
                }
            }
        }
    }
}
