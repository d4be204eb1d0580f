//! Whether what comes back is what should.

use std::fmt;

use super::payload::Expected;

/// What was wrong with what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The end of the stream came first.
    ClosedEarly {
        /// How much of the reply had come.
        received: usize,
    },
    /// A byte that should have been another.
    WrongByte {
        /// Its place in the reply.
        position: usize,
        /// What it should have been.
        expected: u8,
        /// What it was.
        found: u8,
    },
    /// A datagram of another length than the reply's.
    WrongLength {
        /// That of the reply.
        expected: usize,
        /// That of the datagram.
        found: usize,
    },
    /// What came cannot be a reply of the expected kind: how.
    Malformed(String),
    /// Bytes that nothing had asked for.
    Unasked(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedEarly { received } => {
                write!(f, "the server closed after {received} bytes of the reply")
            }
            Self::WrongByte { position, expected, found } => write!(
                f,
                "byte {position} of the reply is 0x{found:02x} ('{}') and should be \
                 0x{expected:02x} ('{}')",
                found.escape_ascii(),
                expected.escape_ascii()
            ),
            Self::WrongLength { expected, found } => {
                write!(f, "the answer has {found} bytes and should have {expected}")
            }
            Self::Malformed(how) => f.write_str(how),
            Self::Unasked(count) => {
                write!(f, "{count} bytes came that belong to no reply; is --expect right?")
            }
        }
    }
}

/// How many of `bytes` belong to the reply of which `received` bytes have come already, and
/// whether that is all of it.
///
/// # Errors
/// They are not what should have come.
pub fn check(
    expected: Expected<'_>,
    received: usize,
    bytes: &[u8],
    is_datagram: bool,
) -> Result<(usize, bool), Fault> {
    let length = match expected {
        Expected::Bytes(reply) => reply.len(),
        Expected::Length(length) => length,
        Expected::Anything | Expected::Framed => return Ok((bytes.len(), true)),
    };
    if is_datagram && bytes.len() != length {
        return Err(Fault::WrongLength { expected: length, found: bytes.len() });
    }
    let taken = bytes.len().min(length - received);
    if let Expected::Bytes(reply) = expected {
        let wanted = &reply[received..received + taken];
        if wanted != &bytes[..taken] {
            let wrong = (0..taken).find(|&at| wanted[at] != bytes[at]).unwrap_or(0);
            let (expected, found) = (wanted[wrong], bytes[wrong]);
            return Err(Fault::WrongByte { position: received + wrong, expected, found });
        }
    }
    Ok((taken, received + taken == length))
}
