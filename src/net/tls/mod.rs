//! TLS: the one place that names rustls' connection types.
//!
//! | file | what it is |
//! |---|---|
//! | [`socket`] | TLS over a stream socket as an end of a session |
//! | [`cause`] | what went wrong, in sentences for people |
//! | [`meaning`] | what is wrong with a certificate, and how it is mended |
//! | [`identity`] | whom a certificate names, and whether those are let in |
//! | [`shown`] | whose certificate was refused |
//! | [`client`] | what a client trusts, shows and speaks |
//! | [`chooser`] | which certificate a server shows |
//! | [`chain`] | what leads from a certificate to an authority, as strictly as OpenSSL has it |
//! | [`purpose`] | what certificates say that they may be used for |
//! | [`verifier`] | where rustls asks for a chain |
//! | [`ticket`] | session tickets that any process with the same key file understands |
//! | [`trust`] | a client that believes everything, for those who ask for it loudly |
//! | [`weakness`] | what is weak or odd about a certificate's key |
//! | [`key_log`] | the secrets of connections in a file, for Wireshark |

pub mod cause;
pub mod chain;
pub mod chooser;
pub mod client;
pub mod identity;
pub mod key_log;
pub mod meaning;
pub mod purpose;
pub mod shown;
pub mod socket;
pub mod ticket;
pub mod trust;
pub mod verifier;
pub mod weakness;

use rustls::CipherSuite;

/// The name of a cipher suite in the IANA registry, where it has one; rustls calls those of TLS 1.3
/// by names of its own.
#[must_use]
pub fn suite_name(suite: CipherSuite) -> Option<String> {
    suite.as_str().map(|name| name.replacen("TLS13_", "TLS_", 1))
}
