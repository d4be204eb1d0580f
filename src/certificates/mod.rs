//! Certificates: a small test authority, the files it keeps, and what a certificate says.
//!
//! [`issue`] makes certificates, [`store`] reads and writes their files, and [`describe`] reads any
//! certificate for people and programs. Nothing here connects to anything, and nothing here decides
//! whom to trust: that is for those who hold a connection.

pub mod describe;
pub mod issue;
pub mod store;
