//! The services.

/// Which service a listener offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every byte comes back, a-z as A-Z.
    Upper,
    /// One message: stripped of white space, upper-cased, sent back; then the connection closes.
    Once,
    /// One message is read, the greeting is sent, the connection closes.
    Greet,
    /// Each message is answered with the local time as C's `ctime()`; `END` ends it.
    Time,
    /// Every byte comes back (RFC 862).
    Echo,
    /// Every byte is thrown away (RFC 863).
    Discard,
    /// The local time, then close (RFC 867).
    Daytime,
    /// A pattern of printable characters without end (RFC 864).
    Chargen,
    /// One message is read, this text is sent, the connection closes.
    Reply(Vec<u8>),
}
