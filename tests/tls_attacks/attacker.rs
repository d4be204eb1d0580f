//! The peer: rustls as far as the handshake goes, and then whatever it likes, under the keys that
//! were agreed.

use std::sync::Arc;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, RootCertStore,
    ServerConfig, ServerConnection, SupportedProtocolVersion,
};

use crate::dice::Dice;
use crate::warp;

/// How much nonsense is said at once, more or less.
const MOST_NONSENSE: usize = 60_000;

pub(crate) type Version = &'static SupportedProtocolVersion;

/// A certificate for localhost, and the configurations of both sides.
pub(crate) struct Keys {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        parameters.not_before = date_time_ymd(2020, 1, 1);
        parameters.not_after = date_time_ymd(2100, 1, 1);
        let certificate = parameters.self_signed(&key).expect("signed").der().clone();
        Self { certificate, key: key.serialize_der(), provider: warp::provider().into() }
    }

    pub(crate) fn server(&self, version: Version) -> ServerConfig {
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("PKCS#8");
        ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[version])
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .expect("a pair")
    }

    pub(crate) fn client(&self, version: Version) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[version])
            .expect("known versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// The peer, before and after its handshake.
pub(crate) struct Attacker {
    connection: Option<Connection>,
    seal: Option<Seal>,
}

impl Attacker {
    /// One that attacks a server, or a client. Its own records hold so many bytes at the most.
    pub(crate) fn new(keys: &Keys, version: Version, is_client: bool, most: Option<usize>) -> Self {
        let connection = if is_client {
            let mut config = keys.client(version);
            config.enable_secret_extraction = true;
            config.max_fragment_size = most;
            let name = ServerName::try_from("localhost").expect("a name");
            ClientConnection::new(Arc::new(config), name).expect("sound").into()
        } else {
            let mut config = keys.server(version);
            config.enable_secret_extraction = true;
            config.max_fragment_size = most;
            ServerConnection::new(Arc::new(config)).expect("sound").into()
        };
        Self { connection: Some(connection), seal: None }
    }

    /// What it wants to send now, as part of the handshake.
    pub(crate) fn says(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        if let Some(connection) = &mut self.connection {
            while connection.wants_write() {
                connection.write_tls(&mut said).expect("a vector");
            }
        }
        said
    }

    /// Takes in what came, as far as it cares.
    pub(crate) fn hears(&mut self, mut bytes: &[u8]) {
        let Some(connection) = &mut self.connection else { return };
        while !bytes.is_empty() && connection.read_tls(&mut bytes).is_ok_and(|count| count > 0) {
            if connection.process_new_packets().is_err() {
                return;
            }
        }
    }

    /// Takes the keys, if the handshake is done.
    pub(crate) fn takes_keys(&mut self) {
        if self.connection.as_ref().is_some_and(|it| !it.is_handshaking() && !it.wants_write()) {
            let connection = self.connection.take().expect("it is there");
            let is_13 = connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
            // A handshake that was done for itself may have failed for the other side.
            let Ok(secrets) = connection.dangerous_extract_secrets() else { return };
            let (seq, ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets.tx else {
                panic!("there is one suite for each version");
            };
            let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).expect("32 bytes");
            let iv = iv.as_ref().try_into().expect("12 bytes");
            self.seal = Some(Seal { key: LessSafeKey::new(key), iv, seq, is_13 });
        }
    }

    pub(crate) fn has_keys(&self) -> bool {
        self.seal.is_some()
    }

    /// A record of any type, encrypted where it can be.
    pub(crate) fn sealed(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        match &mut self.seal {
            Some(seal) => seal.seal(kind, payload),
            None => plain(kind, payload),
        }
    }

    /// Records of any type with anything in them, mostly encrypted.
    pub(crate) fn nonsense(&mut self, dice: &mut Dice) -> Vec<u8> {
        let count = if dice.one_in(12) { dice.between(20, 120) } else { 1 };
        let (kind, payload) = payload(dice);
        let is_plain = dice.one_in(5);
        let mut bytes = Vec::new();
        for _ in 0..count {
            if bytes.len() > MOST_NONSENSE {
                break;
            }
            let piece = if dice.one_in(3) { 1 + dice.below(payload.len() + 1) } else { 1 << 20 };
            let mut pieces: Vec<&[u8]> = payload.chunks(piece).take(40).collect();
            if pieces.is_empty() || dice.one_in(20) {
                pieces.push(&[]);
            }
            for piece in pieces {
                let record = if is_plain { plain(kind, piece) } else { self.sealed(kind, piece) };
                bytes.extend(record);
            }
        }
        match dice.below(12) {
            0 => dice.bytes(40),
            1 => {
                let at = dice.below(bytes.len());
                bytes[at] ^= 1 << dice.below(8);
                bytes
            }
            2 | 3 => {
                bytes.truncate(dice.below(bytes.len() + 1));
                bytes
            }
            _ => bytes,
        }
    }
}

/// What goes into a record, and the type of the record.
fn payload(dice: &mut Dice) -> (u8, Vec<u8>) {
    match dice.below(10) {
        0 => (23, dice.bytes(20)),
        1 => {
            let len = dice.pick(&[0, 1, 1000, 16_384, 16_385, 17_000, 18_432, 40_000]);
            (23, dice.bytes(len))
        }
        2 => (21, dice.pick(&[vec![1, 0], vec![2, 40], vec![1, 90], vec![1, 100], vec![2, 0]])),
        3 => {
            let len = dice.below(4);
            (21, dice.bytes(len))
        }
        4 => (20, dice.pick(&[vec![1], vec![0], vec![1, 1], vec![]])),
        5 => {
            let (kind, len) = (dice.pick(&[24, 25, 0, 99, 255]), dice.below(40));
            (kind, dice.bytes(len))
        }
        6 => (22, vec![24, 0, 0, 1, dice.pick(&[0, 1, 2])]),
        7 => {
            // Several messages in one.
            let one = message(dice);
            let other = message(dice);
            (22, [one, other].concat())
        }
        _ => (22, message(dice)),
    }
}

/// A handshake message, whole or not, with a length that need not be true.
fn message(dice: &mut Dice) -> Vec<u8> {
    let kind = dice.pick(&[0, 1, 1, 2, 4, 4, 5, 8, 11, 13, 15, 16, 20, 22, 24, 24, 254]);
    let len = dice.pick(&[0, 1, 2, 5, 40, 100, 3000, 0xffff, 0x1_0000, 0xff_ffff]);
    let body = dice.bytes(len.min(70_000));
    let mut message = (len as u32).to_be_bytes().to_vec();
    message[0] = kind;
    message.extend(body);
    if dice.one_in(2) {
        let most = message.len().min(if dice.one_in(2) { 6 } else { 70_000 });
        message.truncate(dice.below(most + 1));
    }
    message
}

/// A record that is not encrypted. One that is too long says so.
pub(crate) fn plain(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len().min(0xffff);
    let mut record = vec![kind, 3, 3, (len >> 8) as u8, len as u8];
    record.extend(&payload[..len]);
    record
}

/// The keys of the way from the attacker (RFC 8446, section 5.2, and RFC 7905).
struct Seal {
    key: LessSafeKey,
    iv: [u8; 12],
    seq: u64,
    is_13: bool,
}

impl Seal {
    fn seal(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        for (byte, counter) in nonce[4..].iter_mut().zip(self.seq.to_be_bytes()) {
            *byte ^= counter;
        }
        let mut sealed = payload[..payload.len().min(60_000)].to_vec();
        let (outer, aad) = if self.is_13 {
            sealed.push(kind);
            let len = (sealed.len() + CHACHA20_POLY1305.tag_len()) as u16;
            (23, [&[23, 3, 3][..], &len.to_be_bytes()].concat())
        } else {
            let len = (sealed.len() as u16).to_be_bytes();
            (kind, [&self.seq.to_be_bytes()[..], &[kind, 3, 3], &len].concat())
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).expect("it fits");
        self.seq += 1;
        plain(outer, &sealed)
    }
}
