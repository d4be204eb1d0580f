//! A plan as the text of a configuration, with every figure written out.
//!
//! Invariant: the text parses to an equal plan, but for secrets that stood in the configuration
//! itself. No secret is printed, so [`NOT_SHOWN`] stands in their place, and a configuration that
//! holds it is refused: a text that lost its secret can never be served.

use std::fmt::{self, Write};
use std::time::Duration;

use toml::Value;

use crate::proto::service::Kind;

use super::address::Address;
use super::plan::{
    Limits, Listener, Plan, Resolver, SecretOrigin, Service, SourcedSecret, Timeouts, Upstream,
    service_name,
};
use super::tls;
use super::units::{show_duration, show_mode, show_size};

/// What is printed for a secret that stands in the configuration itself.
pub(super) const NOT_SHOWN: &str = "<not shown>";

/// The plan as a configuration.
#[must_use]
pub fn to_toml(plan: &Plan) -> String {
    let mut out = String::new();
    write(&mut out, plan).expect("writing to a string does not fail");
    out
}

fn write(out: &mut String, plan: &Plan) -> fmt::Result {
    write_limits(out, &plan.limits)?;
    write_resolver(out, &plan.resolver)?;
    plan.secrets.iter().try_for_each(|secret| write_secret(out, secret))?;
    plan.listeners.iter().try_for_each(|listener| write_listener(out, listener))
}

fn write_limits(out: &mut String, limits: &Limits) -> fmt::Result {
    writeln!(out, "[limits]")?;
    writeln!(out, "connections = {}", limits.connections)?;
    writeln!(out, "connections_per_ip = {}", limits.connections_per_ip)?;
    writeln!(out, "unauthenticated = {}", limits.unauthenticated)?;
    writeln!(out, "drain = {}", quoted(show_duration(limits.drain)))?;
    writeln!(out, "buffer = {}", quoted(show_size(limits.buffer)))?;
    writeln!(out, "head = {}", quoted(show_size(limits.head)))
}

fn write_resolver(out: &mut String, resolver: &Resolver) -> fmt::Result {
    let servers: Vec<_> = resolver.servers.iter().map(|at| quoted(at.to_string())).collect();
    writeln!(out, "\n[resolver]\nservers = [{}]", servers.join(", "))
}

fn write_secret(out: &mut String, sourced: &SourcedSecret) -> fmt::Result {
    writeln!(out, "\n[[secret]]")?;
    writeln!(out, "name = {}", quoted(sourced.secret.name()))?;
    match &sourced.origin {
        SecretOrigin::Literal => writeln!(out, "value = {}", quoted(NOT_SHOWN)),
        SecretOrigin::File(path) => writeln!(out, "file = {}", quoted(path.to_string_lossy())),
        SecretOrigin::Environment(name) => writeln!(out, "env = {}", quoted(name.as_str())),
    }
}

fn write_listener(out: &mut String, listener: &Listener) -> fmt::Result {
    writeln!(out, "\n[[listener]]")?;
    writeln!(out, "name = {}", quoted(listener.name.as_str()))?;
    writeln!(out, "address = {}", quoted(listener.address.to_string()))?;
    writeln!(out, "service = {}", quoted(service_name(&listener.service)))?;
    match &listener.service {
        Service::Own(Kind::Reply(text)) => {
            writeln!(out, "text = {}", quoted(String::from_utf8_lossy(text)))?;
        }
        Service::Own(_) => {}
        Service::Connect { targets, .. } => {
            let targets: Vec<_> = targets.iter().map(|rule| quoted(rule.to_string())).collect();
            writeln!(out, "targets = [{}]", targets.join(", "))?;
        }
        Service::Forward { to, .. } => {
            let to: Vec<_> = to.iter().map(|address| quoted(address.to_string())).collect();
            writeln!(out, "to = [{}]", to.join(", "))?;
        }
    }
    match &listener.gate {
        None => writeln!(out, "auth = \"none\"")?,
        Some(gate) => {
            let names: Vec<_> = gate.secrets.iter().map(|secret| quoted(secret.name())).collect();
            writeln!(out, "auth = {}", quoted(gate.digest.name()))?;
            writeln!(out, "secrets = [{}]", names.join(", "))?;
        }
    }
    match &listener.address {
        Address::Udp(_) => {
            writeln!(out, "amplify = {}", listener.amplify)?;
            return writeln!(out, "answers_per_second = {}", listener.answers_per_second);
        }
        Address::Unix(_) if listener.address.is_abstract() => {}
        Address::Unix(_) => writeln!(out, "unix_mode = {}", quoted(show_mode(listener.unix_mode)))?,
        Address::Tcp(_) | Address::Tls(_) => {}
    }
    let proxies: Vec<_> = listener.proxies.iter().map(|it| quoted(it.to_string())).collect();
    writeln!(out, "proxy_protocol_from = [{}]", proxies.join(", "))?;
    if let Some(tls) = &listener.tls {
        tls::write(out, tls)?;
    }
    write_timeouts(out, &listener.timeouts)?;
    writeln!(out, "user_timeout = {}", show_timeout(listener.user_timeout))?;
    match &listener.service {
        Service::Own(_) => Ok(()),
        Service::Connect { connect, .. } => {
            writeln!(out, "connect = {}", show_timeout(*connect))
        }
        Service::Forward { connect, upstream, .. } => {
            writeln!(out, "connect = {}", show_timeout(*connect))?;
            write_upstream(out, upstream)
        }
    }
}

fn write_upstream(out: &mut String, upstream: &Upstream) -> fmt::Result {
    writeln!(out, "[listener.upstream]")?;
    match &upstream.gate {
        None => writeln!(out, "auth = \"none\"")?,
        Some((secret, digest)) => {
            writeln!(out, "auth = {}", quoted(digest.name()))?;
            writeln!(out, "secret = {}", quoted(secret.name()))?;
        }
    }
    if let Some(version) = upstream.proxy_protocol {
        writeln!(out, "proxy_protocol = {}", quoted(version.to_string()))?;
    }
    match &upstream.target {
        None => Ok(()),
        Some(target) => writeln!(out, "target = {}", quoted(target.to_string())),
    }?;
    tls::write_upstream(out, &upstream.tls)
}

fn write_timeouts(out: &mut String, timeouts: &Timeouts) -> fmt::Result {
    writeln!(out, "[listener.timeouts]")?;
    writeln!(out, "proxy = {}", show_timeout(timeouts.proxy))?;
    writeln!(out, "tls = {}", show_timeout(timeouts.tls))?;
    writeln!(out, "auth = {}", show_timeout(timeouts.auth))?;
    writeln!(out, "idle = {}", show_timeout(timeouts.idle))?;
    writeln!(out, "half_close = {}", show_timeout(timeouts.half_close))?;
    writeln!(out, "lifetime = {}", show_timeout(timeouts.lifetime))
}

fn show_timeout(timeout: Option<Duration>) -> String {
    quoted(show_duration(timeout.unwrap_or_default()))
}

/// A TOML string, quoted and escaped as it needs to be.
pub(super) fn quoted(text: impl Into<String>) -> String {
    Value::String(text.into()).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{IpAddr, SocketAddr};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use crate::config::UpstreamTls;
    use crate::config::plan::{DEFAULT_ANSWERS, DEFAULT_UNIX_MODE, DEFAULT_USER_TIMEOUT, Gate};
    use crate::config::{BUILT_IN, HostPort, parse};
    use crate::proto::gate::{Digest, Secret};
    use crate::proto::proxy_protocol::{Trusted, Version};

    use super::*;
    use crate::proto::resolver::Server;

    /// A variable that every process has.
    const VARIABLE: &str = "PATH";

    /// Two secrets: one from a file of `folder`, one from the environment.
    fn secrets(folder: &Path) -> Vec<SourcedSecret> {
        let path = folder.join("secret \"quoted\"");
        fs::write(&path, "from a file").expect("the folder is ours");
        let variable = std::env::var(VARIABLE).expect("set for every process");
        let secret = |name, text: &str| Secret::new(name, Zeroizing::new(text.as_bytes().to_vec()));
        vec![
            SourcedSecret {
                secret: secret("file", "from a file"),
                origin: SecretOrigin::File(path),
            },
            SourcedSecret {
                secret: secret("variable", &variable),
                origin: SecretOrigin::Environment(VARIABLE.to_owned()),
            },
        ]
    }

    fn duration() -> impl Strategy<Value = Duration> {
        let unit = prop::sample::select(vec![1, 1000, 60_000, 3_600_000]);
        (1u64..8760, unit).prop_map(|(count, ms)| Duration::from_millis(count * ms))
    }

    fn timeouts() -> impl Strategy<Value = Timeouts> {
        let any = || prop::option::of(duration());
        (any(), any(), any(), any(), any(), any()).prop_map(
            |(proxy, tls, auth, idle, half_close, lifetime)| Timeouts {
                proxy,
                tls,
                auth,
                idle,
                half_close,
                lifetime,
            },
        )
    }

    fn limits() -> impl Strategy<Value = Limits> {
        let counts = (1..=1_000_000usize, 0..=1_000_000usize, 1..=1_000_000usize);
        (counts, duration(), 4096..=1_048_576usize).prop_map(|(counts, drain, buffer)| Limits {
            connections: counts.0,
            connections_per_ip: counts.1,
            unauthenticated: counts.2,
            drain,
            buffer,
            head: 1024 + buffer % 3000,
        })
    }

    fn service(secret: Secret) -> impl Strategy<Value = Service> {
        let own = prop_oneof![
            Just(Kind::Upper),
            Just(Kind::Once),
            Just(Kind::Greet),
            Just(Kind::Time),
            Just(Kind::Echo),
            Just(Kind::Discard),
            Just(Kind::Daytime),
            ".{1,40}".prop_map(|text| Kind::Reply(text.into_bytes().into())),
            "[\"'\\\\\n\r\t a]{1,20}".prop_map(|text| Kind::Reply(text.into_bytes().into())),
        ];
        let target = prop_oneof![
            (0..=3u8, 1..=u16::MAX).prop_map(|(net, port)| {
                Address::Tcp(HostPort { host: format!("192.0.{net}.1"), port })
            }),
            "[a-z]{1,8}".prop_map(|name| Address::Unix(Path::new("/run").join(name))),
        ];
        let to = prop::collection::vec(target, 1..4);
        let gate = prop::option::of(prop::sample::select(vec![Digest::Md5, Digest::Sha256]));
        let target = prop::option::of("[a-z]{1,8}:[1-9][0-9]{0,3}");
        let version = prop::option::of(prop::sample::select(vec![Version::V1, Version::V2]));
        let upstream =
            (gate, version, target).prop_map(move |(digest, version, target)| Upstream {
                gate: digest.map(|digest| (secret.clone(), digest)),
                proxy_protocol: version,
                target: target.map(|target| target.parse().expect("host:port")),
                tls: UpstreamTls::default(),
            });
        let forward =
            (to, prop::option::of(duration()), upstream).prop_map(|(to, connect, upstream)| {
                Service::Forward { to, connect, upstream: Box::new(upstream) }
            });
        let rule = prop_oneof!["[a-z]{1,8}:[1-9][0-9]{0,3}", r"\*\.[a-z]{1,8}:\*"];
        let rule = rule.prop_map(|rule| rule.parse().expect("a rule"));
        let connect = (prop::collection::vec(rule, 0..4), prop::option::of(duration()))
            .prop_map(|(targets, connect)| Service::Connect { targets, connect });
        prop_oneof![3 => own.prop_map(Service::Own), 1 => forward, 1 => connect]
    }

    /// A listener without its place in the plan, which gives it its name and address.
    fn listener(secrets: Vec<SourcedSecret>) -> impl Strategy<Value = Listener> {
        let secrets: Vec<_> = secrets.into_iter().map(|sourced| sourced.secret).collect();
        let known = secrets[0].clone();
        let digest = prop::sample::select(vec![Digest::Md5, Digest::Sha256]);
        let gate = (digest, prop::sample::subsequence(secrets, 1..=2))
            .prop_map(|(digest, secrets)| Gate { digest, secrets });
        let place = (0..3u8, any::<bool>(), 0..=0o777u32);
        let proxies = prop::sample::subsequence(vec!["192.0.2.10", "10.0.0.0/8", "::/0"], 0..=3);
        let waits = (timeouts(), prop::option::of(duration()));
        (place, service(known), prop::option::of(gate), proxies, waits).prop_map(
            |((scheme, amplify, mode), service, gate, proxies, (timeouts, user_timeout))| {
                let read = |text: &str| text.parse().expect("a proxy");
                let proxies = proxies.into_iter().map(read).collect();
                let at = HostPort { host: "::1".to_owned(), port: 0 };
                let plain = Listener {
                    name: String::new(),
                    address: Address::Tcp(at.clone()),
                    service,
                    gate,
                    proxies,
                    tls: None,
                    timeouts,
                    user_timeout,
                    amplify: false,
                    answers_per_second: DEFAULT_ANSWERS,
                    unix_mode: DEFAULT_UNIX_MODE,
                    only_ipv6: false,
                    head: 0,
                };
                match scheme {
                    0 => plain,
                    1 => Listener {
                        address: Address::Unix(PathBuf::from("/run/é \"gate\"")),
                        proxies: if amplify { vec![Trusted::Unix] } else { Vec::new() },
                        unix_mode: mode,
                        ..plain
                    },
                    _ => Listener {
                        address: Address::Udp(at),
                        service: Service::Own(Kind::Echo),
                        gate: None,
                        proxies: Vec::new(),
                        timeouts: Timeouts::default(),
                        user_timeout: Some(DEFAULT_USER_TIMEOUT),
                        amplify,
                        answers_per_second: mode,
                        ..plain
                    },
                }
            },
        )
    }

    fn resolver() -> impl Strategy<Value = Resolver> {
        let server =
            (any::<IpAddr>(), 1..=u16::MAX).prop_map(|at| Server::from(SocketAddr::from(at)));
        prop::collection::vec(server, 0..=3).prop_map(|servers| Resolver { servers })
    }

    fn plan(secrets: Vec<SourcedSecret>) -> impl Strategy<Value = Plan> {
        let listeners = prop::collection::vec(listener(secrets.clone()), 1..5);
        (limits(), resolver(), listeners).prop_map(move |(limits, resolver, mut listeners)| {
            for (number, listener) in listeners.iter_mut().enumerate() {
                listener.name = format!("\"{number}\"");
                listener.head = limits.head;
                if let Address::Unix(path) = &mut listener.address {
                    path.push(number.to_string());
                }
            }
            Plan { limits, resolver, secrets: secrets.clone(), listeners, file: None }
        })
    }

    #[test]
    fn a_printed_plan_parses_to_an_equal_plan() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        proptest!(|(plan in plan(secrets(folder.path())))| {
            let text = to_toml(&plan);
            match parse(&text, "printed", Path::new("")) {
                Ok(read) => prop_assert_eq!(read, plan),
                Err(report) => prop_assert!(false, "{}\n{}", report, text),
            }
        });
    }

    #[test]
    fn a_literal_secret_is_left_out_and_cannot_be_served() {
        let plan = parse(BUILT_IN, "built-in", Path::new("")).expect("sound");
        let text = to_toml(&plan);
        assert!(text.contains("value = \"<not shown>\"") && !text.contains("Jedan"), "{text}");
        let report = parse(&text, "printed", Path::new("")).expect_err("its secret is missing");
        assert_eq!(report.problems().count(), 1, "{report}");
        assert!(report.to_string().contains("the secret itself is missing"), "{report}");
    }
}
