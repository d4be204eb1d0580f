//! The words for what becomes of a session: which side, which state, which deadline, and why it
//! ended. Each has a plain sentence for the log.

use std::fmt;
use std::io;

/// Which end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that faces the network and passes the gate.
    Remote,
    /// The end that an admitted peer talks to.
    Local,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Remote => "remote",
            Self::Local => "local",
        })
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides had ended their direction.
    Finished,
    /// The service had said all it had to.
    Served,
    /// The answer to the challenge was wrong.
    Refused,
    /// The peer ended its side before it had answered the challenge.
    LeftAtGate,
    /// The server ended its side before it had sent a whole challenge.
    NoChallenge,
    /// A deadline passed.
    Deadline(Deadline),
    /// The peer ended the connection without saying that it was done.
    Truncated,
    /// The TLS handshake failed.
    Handshake,
    /// The peer broke the rules of TLS after the handshake.
    Broken,
    /// An end failed.
    Failed(Side, io::ErrorKind),
    /// The peer was not let in yet, and others needed its place.
    MadeRoom,
    /// The program is stopping.
    Stopped,
}

impl CloseReason {
    /// Whether streams may have been cut off that had not come to their end.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.is_given_up() || matches!(self, Self::Failed(..) | Self::Broken)
    }

    /// Whether nobody failed, and the session was given up all the same.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        matches!(self, Self::Deadline(_) | Self::Stopped)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("both sides were done"),
            Self::Served => f.write_str("the service was done"),
            Self::Refused => f.write_str("the answer to the challenge was wrong"),
            Self::LeftAtGate => f.write_str("the peer left before it answered the challenge"),
            Self::NoChallenge => f.write_str("the server closed before it sent a whole challenge"),
            Self::Deadline(deadline) => deadline.fmt(f),
            Self::Truncated => f.write_str(
                "the peer went without a close_notify: what it sent may not have been all",
            ),
            Self::Handshake => f.write_str("the TLS handshake failed"),
            Self::Broken => f.write_str("the peer broke the rules of TLS"),
            Self::Failed(Side::Remote, kind) => write!(f, "the connection failed: {kind}"),
            Self::Failed(Side::Local, kind) => write!(f, "the local end failed: {kind}"),
            Self::MadeRoom => {
                f.write_str("it was not admitted yet and had to make room for another")
            }
            Self::Stopped => f.write_str("the program was stopped"),
        }
    }
}

/// The deadlines of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The TLS handshake was not finished in time.
    Tls,
    /// The gate was not passed in time.
    Auth,
    /// Nothing moved for too long.
    Idle,
    /// One direction had ended and nothing moved in the other for too long.
    HalfClose,
    /// The session became too old.
    Lifetime,
    /// The peer did not take the last bytes and close in time.
    Closing,
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "the TLS handshake was not finished in time",
            Self::Auth => "the challenge was not answered in time",
            Self::Idle => "nothing was sent or received for too long",
            Self::HalfClose => "one side had ended and the other was silent for too long",
            Self::Lifetime => "the connection reached its greatest age",
            Self::Closing => "the peer did not take the last bytes and close in time",
        })
    }
}

/// The name of a state, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateName {
    /// The remote end is coming up, or the gate is being passed.
    AuthPending,
    /// Bytes go both ways.
    Established,
    /// The last bytes are on their way.
    Closing,
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
