//! What this machine allows, looked at before a run begins.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::places::Place;
use super::plan::{Activity, Plan};
use crate::net::dial::Target;

/// Descriptors that a run needs beside one for each connection: standard streams, epoll, the
/// signal pipe, the timer, the files of its reports, and some room.
const DESCRIPTORS_BESIDE: u64 = 32;

/// How many local addresses a run spreads its connections over where it must: each has all ports of
/// its own.
const LOOPBACK_SOURCES: u8 = 64;

/// The system does not allow the run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Too few descriptors.
    #[error(
        "{connections} connections need {needed} descriptors, and this process may open {limit}: \
         ask for at most {} connections, or raise the limit (`ulimit -Hn`, or LimitNOFILE= of a \
         systemd unit)",
        limit.saturating_sub(DESCRIPTORS_BESIDE)
    )]
    Descriptors {
        /// What was asked for.
        connections: u64,
        /// What that takes.
        needed: u64,
        /// What there is.
        limit: u64,
    },
    /// Too few ports.
    #[error(
        "{connections} connections to one address need as many local ports, and {sources} local \
         address{} {ports}: give more addresses (--source A,B,...), or widen \
         net.ipv4.ip_local_port_range",
        if *sources == 1 { " has" } else { "es have" }
    )]
    Ports {
        /// What was asked for.
        connections: u64,
        /// How many local addresses there are.
        sources: u64,
        /// What these have.
        ports: u64,
    },
}

/// Raises the soft limit on descriptors to the hard one, and looks whether `plan` fits; gives it
/// local addresses where one would run out of ports and the server is on this machine.
///
/// # Errors
/// It does not fit: what it needs, and what there is.
pub fn prepare(plan: &mut Plan, places: &[Place]) -> Result<(), LimitError> {
    check_descriptors(plan.connections as u64, raise_descriptor_limit())?;
    let is_tcp = places.iter().any(|place| matches!(place, Place::Stream(Target::Tcp(_))));
    if !is_tcp {
        return Ok(());
    }
    let ports = local_ports();
    let leaves_ports_behind = matches!(plan.activity, Activity::Visits | Activity::Handshakes);
    let is_tight = plan.connections as u64 > ports * 3 / 4 || leaves_ports_behind;
    if plan.sources.is_empty() && is_tight && places.iter().all(is_ipv4_loopback) {
        plan.sources = loopback_sources().collect();
    }
    check_ports(plan.connections as u64, plan.sources.len().max(1) as u64, ports)
}

fn check_descriptors(connections: u64, limit: u64) -> Result<(), LimitError> {
    let needed = connections + DESCRIPTORS_BESIDE;
    if needed > limit {
        return Err(LimitError::Descriptors { connections, needed, limit });
    }
    Ok(())
}

fn check_ports(connections: u64, sources: u64, ports: u64) -> Result<(), LimitError> {
    let ports = ports * sources;
    if connections > ports {
        return Err(LimitError::Ports { connections, sources, ports });
    }
    Ok(())
}

fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// How many ports the kernel chooses from for connections that do not name one.
fn local_ports() -> u64 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().map_while(|bound| bound.parse::<u64>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) if last >= first => last - first + 1,
        _ => 28_232,
    }
}

fn is_ipv4_loopback(place: &Place) -> bool {
    matches!(place, Place::Stream(Target::Tcp(address))
        if address.is_ipv4() && address.ip().is_loopback())
}

/// 127.0.0.2 and on: all of 127.0.0.0/8 is this machine.
fn loopback_sources() -> impl Iterator<Item = IpAddr> {
    (2..2 + LOOPBACK_SOURCES).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_said_with_its_figures() {
        check_descriptors(992, 1024).expect("fits to the last");
        let error = check_descriptors(5000, 1024).expect_err("does not").to_string();
        assert!(error.starts_with("5000 connections need 5032 descriptors"), "{error}");
        assert!(error.contains("may open 1024: ask for at most 992 connections"), "{error}");
    }

    #[test]
    fn ports_are_counted_for_each_source() {
        check_ports(1000, 1, 1000).expect("fits to the last");
        check_ports(2000, 2, 1000).expect("two sources have twice as many");
        let error = check_ports(1001, 1, 1000).expect_err("does not").to_string();
        assert!(error.contains("1 local address has 1000: give more addresses"), "{error}");
    }

    #[test]
    fn visits_to_this_machine_come_from_many_addresses() {
        let mut plan = Plan { activity: Activity::Visits, ..Plan::default() };
        let place = Place::Stream(Target::Tcp(([127, 0, 0, 1], 9).into()));
        prepare(&mut plan, std::slice::from_ref(&place)).expect("fits");
        assert_eq!(plan.sources.len(), usize::from(LOOPBACK_SOURCES));
        let mut plan = Plan::default();
        prepare(&mut plan, &[place]).expect("fits");
        assert!(plan.sources.is_empty(), "one address is enough");
    }
}
