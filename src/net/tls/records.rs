//! A TLS connection of rustls, together with the ciphertext that it still counts on. This file is
//! the only one that calls rustls' unbuffered interface, and [`Records`] offers no way to call it
//! wrongly.
//!
//! # What rustls counts on, and why it holds here
//!
//! `process_tls_records` keeps nothing of what it is given, but remembers *places* in it: where the
//! fragments of a handshake message lie that is not whole yet, and how far it has read. It slices
//! there, before anything else, when it is called the next time. So it must always be given the same
//! bytes again, less what it said may be discarded, plus what has come since. A shorter buffer is a
//! panic, which any peer could bring about with three bytes and an end of stream.
//!
//! - Every call is given `unread` or a block that begins with it ([`begin`](Records::begin)), for as
//!   long as the connection may read: also when the stream has ended, when receiving or sending
//!   failed, and when all there is to do is to encrypt. Only what rustls discards leaves it.
//! - After an error there is no further call with input: rustls would read the broken record again.
//!   What it has to say about the error is fetched while `wants_write` holds, and then it answers
//!   before it looks at its input, which may therefore be empty. The same is true of the first
//!   flight of a client. Plaintext would come before that, but none is left behind: it is always
//!   taken until there is none before rustls is called again.
//! - After the peer's `close_notify` rustls looks at no input any more, so `unread` is dropped.
//! - Nothing follows a `close_notify` of ours (RFC 8446, section 6.1). rustls encodes an alert all
//!   the same when the peer errs after it, and asserts in debug builds that this does not happen,
//!   which any peer could make it do; `Cargo.toml` turns its assertions off for that reason. The
//!   alert is dropped here.
//!
//! Everything else that could panic is about our own figures: rustls discards no more than it was
//! given, a flight that was sent is no longer than the flight, and a message that needs a number of
//! bytes gets them.
//!
//! `unread` is bounded: it holds less than a record, or a handshake message up to the block that
//! it has to fit in. So is `flight`: rustls answers at most one renegotiation and holds one key
//! update back at a time, and else only writes in the handshake, whose messages it takes in order.

use std::io;
use std::ops::{Deref, DerefMut};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    AppDataRecord, ConnectionState, EncodeError, EncodeTlsData, UnbufferedConnectionCommon,
    UnbufferedStatus,
};
use rustls::{CommonState, Error};

use super::cause;
use crate::proto::buffer::{Buffer, Pool};

/// A connection of rustls, what it has not let go of, and what it wants to have sent.
pub struct Records<C> {
    connection: C,
    /// The beginning of a record or handshake message of which more has to come.
    unread: Vec<u8>,
    /// Handshake messages and alerts that are to be sent.
    flight: Vec<u8>,
    reading: Reading,
    has_said_goodbye: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// More may come.
    Open,
    /// The peer has said that it is done (`close_notify`).
    Done,
    /// The peer broke the rules.
    Failed,
}

impl<C: Connection> Records<C> {
    /// What `connection` says first, if it does, is to be sent.
    #[must_use]
    pub fn new(connection: C) -> Self {
        let (unread, flight) = (Vec::new(), Vec::new());
        let reading = Reading::Open;
        let mut records = Self { connection, unread, flight, reading, has_said_goodbye: false };
        records.collect_flight();
        records
    }

    /// What was agreed, and with whom.
    #[must_use]
    pub fn state(&self) -> &CommonState {
        &self.connection
    }

    /// Whether the peer has said that it is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reading == Reading::Done
    }

    /// A block that begins with what is unread, for more to be received behind it. It is to be
    /// handed to [`take_in`](Self::take_in); if nothing was received, it may also be cleared.
    #[must_use]
    pub fn begin(&self, pool: &mut Pool) -> Buffer {
        let mut incoming = Buffer::new();
        if !self.unread.is_empty() {
            incoming.append(pool, &self.unread);
        }
        incoming
    }

    /// Works on all records that are whole in a block that has [begun](Self::begin) here. The
    /// plaintext goes to `sink`, one record after the other.
    ///
    /// # Errors
    /// The peer broke the rules, in a sentence for people; the [flight](Self::flight) ends with the
    /// alert that says so. Nothing can be taken in any more.
    pub fn take_in(
        &mut self,
        mut incoming: Buffer,
        pool: &mut Pool,
        sink: impl FnMut(&mut Pool, &[u8]),
    ) -> Result<(), String> {
        if self.reading != Reading::Open {
            incoming.clear(pool);
            return Ok(());
        }
        let outcome = self.process(&mut incoming, pool, sink).map_err(|error| {
            let is_handshaking = self.connection.is_handshaking();
            self.fail();
            cause::explain(&error, incoming.as_slice(), is_handshaking)
        });
        self.unread.clear();
        if self.reading == Reading::Open && !incoming.is_empty() {
            self.unread.extend_from_slice(incoming.as_slice());
        } else {
            self.unread = Vec::new();
        }
        incoming.clear(pool);
        outcome
    }

    fn process(
        &mut self,
        incoming: &mut Buffer,
        pool: &mut Pool,
        mut sink: impl FnMut(&mut Pool, &[u8]),
    ) -> Result<(), Error> {
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process(incoming.as_mut_slice());
            let mut goes_on = true;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let AppDataRecord { discard: more, payload } = record?;
                        discard += more;
                        sink(pool, payload);
                    }
                }
                ConnectionState::EncodeTlsData(message) => encode(message, &mut self.flight),
                ConnectionState::TransmitTlsData(flight) => flight.done(),
                ConnectionState::PeerClosed => self.reading = Reading::Done,
                _ => goes_on = false,
            }
            incoming.consume(pool, discard);
            if self.has_said_goodbye {
                self.flight = Vec::new();
            }
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Encrypts `plaintext` into `space`, and a `close_notify` after it where it `ends` the stream;
    /// answers how much it wrote. That is nothing, and nothing was taken, while the flight has to be
    /// sent first, and after the peer broke the rules.
    ///
    /// # Errors
    /// `space` is too small, or so much was encrypted that the keys must not be used any more.
    pub fn encrypt(&mut self, plaintext: &[u8], ends: bool, space: &mut [u8]) -> io::Result<usize> {
        while self.reading != Reading::Failed {
            let UnbufferedStatus { discard, state } = self.connection.process(&mut self.unread);
            let mut written = None;
            match state {
                Ok(ConnectionState::EncodeTlsData(message)) => encode(message, &mut self.flight),
                Ok(ConnectionState::TransmitTlsData(flight)) => flight.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) if self.flight.is_empty() => {
                    let mut count = traffic.encrypt(plaintext, space).map_err(io::Error::other)?;
                    if ends {
                        self.has_said_goodbye = true;
                        let rest = &mut space[count..];
                        count += traffic.queue_close_notify(rest).map_err(io::Error::other)?;
                    }
                    written = Some(count);
                }
                Ok(_) => written = Some(0),
                Err(error) => {
                    self.fail();
                    return Err(io::Error::other(error));
                }
            }
            self.unread.drain(..discard);
            if let Some(written) = written {
                return Ok(written);
            }
        }
        Ok(0)
    }

    /// What is to be sent, before anything else is encrypted.
    #[must_use]
    pub fn flight(&self) -> &[u8] {
        &self.flight
    }

    /// So much of the flight has been sent.
    pub fn sent(&mut self, count: usize) {
        self.flight.drain(..count);
        if self.flight.is_empty() {
            self.flight = Vec::new();
        }
    }

    /// Nothing of the peer is taken in any more. What rustls has to say about it becomes the last
    /// flight.
    pub fn fail(&mut self) {
        self.reading = Reading::Failed;
        self.unread = Vec::new();
        if !self.has_said_goodbye {
            self.collect_flight();
        }
    }

    /// Takes what rustls wants to say without having heard anything.
    fn collect_flight(&mut self) {
        while self.connection.wants_write() {
            let UnbufferedStatus { state, .. } = self.connection.process(&mut []);
            let Ok(ConnectionState::EncodeTlsData(message)) = state else { break };
            encode(message, &mut self.flight);
        }
    }
}

/// A first attempt without room asks for the size, so that the second has it: only a message
/// without any bytes would do without.
fn encode<D>(mut message: EncodeTlsData<'_, D>, flight: &mut Vec<u8>) {
    if let Err(EncodeError::InsufficientSize(needed)) = message.encode(&mut []) {
        let start = flight.len();
        flight.resize(start + needed.required_size, 0);
        message.encode(&mut flight[start..]).expect("the size that was asked for");
    }
}

/// Either side of a connection of rustls, which have the same methods but no trait in common.
pub trait Connection: DerefMut + Deref<Target = UnbufferedConnectionCommon<Self::Data>> {
    /// What rustls keeps for this side alone.
    type Data;

    /// Takes in what has come, up to the next thing that concerns the caller.
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}
