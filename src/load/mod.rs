//! The load tester: thousands of clients on one thread, and figures that can be trusted.
//!
//! A [`plan`] is checked and [`run`]: each connection is a [visitor](visitor::Visitor), a source
//! of the reactor that [talks](talk::Talk) through the same [session](crate::proto::session) as
//! everything else here, with a [generator] for its local end. Its [tally](tally::Tally) tells the
//! [recorder](statistics) what became of that, and from there it goes to an [`outcome`], which is
//! shown, written, merged and compared.
//!
//! The files name each other one way only:
//!
//! ```text
//! run -> source -> conductor, pacer, visitor -> tally -> talk -> host -> lateness -> statistics -> generator -> ledger, reply
//! ```
//!
//! Two kinds of load are told apart everywhere. In a *closed loop* each connection sends when it
//! has its reply: the server sets the pace. In an *open loop* requests are [due](pace) at a
//! constant rate, and their latency counts from that moment, whatever kept them from being sent.
//!
//! This module judges the tester as well as the server: what it [spent](tester), how late its loop
//! was, and what this machine [allows](limits).

pub mod account;
pub mod asks;
pub mod bottleneck;
pub mod compare;
pub mod comparison_page;
pub mod conductor;
pub mod escape;
pub mod fed;
pub mod files;
pub mod find_rate;
pub mod framing;
pub mod generator;
pub mod hdr_log;
pub mod host;
pub mod html;
pub mod http;
pub mod lateness;
pub mod ledger;
pub mod length;
pub mod limits;
pub mod lines;
pub mod merge;
pub mod objective;
pub mod outcome;
pub mod pace;
pub mod pacer;
pub mod packed;
pub mod panel;
pub mod payload;
pub mod places;
pub mod plan;
pub mod profile;
pub mod reading;
pub mod remarks;
pub mod reply;
pub mod request;
pub mod run;
pub mod settings;
pub mod show;
pub mod source;
pub mod statistics;
pub mod summary;
pub mod talk;
pub mod tally;
pub mod tester;
pub mod traffic;
pub mod unique;
pub mod visitor;
