//! TLS: the one place that names rustls' connection types.
//!
//! | file | what it is |
//! |---|---|
//! | [`socket`] | TLS over a stream socket as an end of a session |
//! | [`wire`] | a stream socket with TLS or without |
//! | [`cause`] | what went wrong, in sentences for people |
//! | [`identity`] | whom a certificate names, and whether those are let in |
//! | [`client`] | what a client trusts, shows and speaks |
//! | [`chooser`] | which certificate a server shows |
//! | [`ticket`] | session tickets that any process with the same key file understands |
//! | [`trust`] | a client that believes everything, for those who ask for it loudly |
//! | [`key_log`] | the secrets of connections in a file, for Wireshark |

pub mod cause;
pub mod chooser;
pub mod client;
pub mod identity;
pub mod key_log;
pub mod socket;
pub mod ticket;
pub mod trust;
pub mod wire;
