//! HTTP CONNECT (RFC 9110, section 9.3.6): how a client asks an exit to carry its bytes to a target,
//! and how the exit answers. Both roles, over bytes that may not all be there yet.
//!
//! The head is parsed by a library and bounded here. What an exit allows is a list of [`Rule`]s;
//! nothing is allowed that none names.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use super::{host, idn};

/// The longest head, of a request or an answer, in bytes, where nothing else is said. What goes
/// before a final answer counts too.
pub const HEAD_LIMIT: usize = 8 * 1024;

/// The longest head that may be allowed, in bytes. It is parsed again whenever more of it comes.
pub const MAX_HEAD: usize = 64 * 1024;

/// The room that header fields take at the least, in bytes, on average: so many may be in a head.
const FIELD_LEN: usize = 128;

/// A host and a port, as CONNECT asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// A name in lower case without its final dot, or an IP address without brackets, in the
    /// [one form](host::normal) that each has.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The text is no `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not host:port (an IPv6 address stands in brackets){hint}", hint = idn::hint(.0))]
pub struct AuthorityError(String);

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = || {
            let (host, port) = text.rsplit_once(':')?;
            Some((host::normal(host)?, host::port(port)?))
        };
        let (host, port) = parts().ok_or_else(|| AuthorityError(text.to_owned()))?;
        Ok(Self { host, port })
    }
}

/// What an exit allows: `host:port`, `*.domain:port` for every name below a domain, and `*` for
/// every port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    host: HostRule,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostRule {
    Exactly(String),
    /// Every name that ends in this, its first dot included.
    Below(String),
}

/// The text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not host:port, *.domain:port or host:*{hint}", hint = idn::hint(.0))]
pub struct RuleError(String);

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = match port {
                "*" => None,
                port => Some(host::port(port)?),
            };
            let host = match host.strip_prefix("*.") {
                Some(domain) => {
                    let domain = host::normal(domain).filter(|it| it.parse::<IpAddr>().is_err())?;
                    HostRule::Below(format!(".{domain}"))
                }
                None => HostRule::Exactly(host::normal(host)?),
            };
            Some(Self { host, port })
        };
        rule().ok_or_else(|| RuleError(text.to_owned()))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostRule::Exactly(host) if host.contains(':') => write!(f, "[{host}]:")?,
            HostRule::Exactly(host) => write!(f, "{host}:")?,
            HostRule::Below(domain) => write!(f, "*{domain}:")?,
        }
        match self.port {
            Some(port) => port.fmt(f),
            None => f.write_str("*"),
        }
    }
}

impl Rule {
    /// Whether this rule allows `target`.
    #[must_use]
    pub fn allows(&self, target: &Authority) -> bool {
        let host = match &self.host {
            HostRule::Exactly(host) => *host == target.host,
            HostRule::Below(domain) => target.host.ends_with(domain.as_str()),
        };
        host && self.port.is_none_or(|port| port == target.port)
    }
}

/// Why an exit does not carry a request onward.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400.
    #[error("the request is not HTTP: {0}")]
    NotHttp(String),
    /// 405.
    #[error("the method is {0}; this server knows CONNECT alone")]
    Method(String),
    /// 400.
    #[error("the target {0}")]
    Target(#[from] AuthorityError),
    /// 408.
    #[error("the head of the request was not whole in time")]
    Late,
    /// 431.
    #[error("the head is too long")]
    TooLong,
    /// 403.
    #[error("the target {0} is not one that this server allows")]
    NotAllowed(Authority),
    /// 502.
    #[error("the target {0} cannot be reached: {1}")]
    Unreachable(Authority, String),
    /// 504.
    #[error("the target {0} did not answer in time")]
    TimedOut(Authority),
}

impl Refusal {
    /// The target, where the request named one.
    #[must_use]
    pub fn target(&self) -> Option<&Authority> {
        match self {
            Self::NotAllowed(target) | Self::Unreachable(target, _) | Self::TimedOut(target) => {
                Some(target)
            }
            Self::NotHttp(_) | Self::Method(_) | Self::Target(_) | Self::Late | Self::TooLong => {
                None
            }
        }
    }

    /// The answer to send: a status line and the reason as a text of its own.
    #[must_use]
    pub fn answer(&self) -> String {
        let status = match self {
            Self::NotHttp(_) | Self::Target(_) => "400 Bad Request",
            Self::Method(_) => "405 Method Not Allowed\r\nAllow: CONNECT",
            Self::Late => "408 Request Timeout",
            Self::TooLong => "431 Request Header Fields Too Large",
            Self::NotAllowed(_) => "403 Forbidden",
            Self::Unreachable(..) => "502 Bad Gateway",
            Self::TimedOut(_) => "504 Gateway Timeout",
        };
        let reason = format!("{self}\n");
        let length = reason.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{reason}"
        )
    }
}

/// What an exit answers once it is connected to the target.
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";

/// Reads the request at the beginning of `bytes`: what it asks for and how long its head is, which
/// may be `limit` bytes. `None` while the head is not whole.
///
/// # Errors
/// Why it is not a request to connect.
pub fn read_request(bytes: &[u8], limit: usize) -> Result<Option<(Authority, usize)>, Refusal> {
    let mut fields = fields(limit);
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(&bytes[..bytes.len().min(limit)]);
    match parsed {
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::TooLong),
        Err(error) => Err(Refusal::NotHttp(error.to_string())),
        Ok(httparse::Status::Partial) if bytes.len() >= limit => Err(Refusal::TooLong),
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(len)) => match (request.method, request.path) {
            (Some("CONNECT"), Some(target)) => Ok(Some((target.parse()?, len))),
            (method, _) => Err(Refusal::Method(method.unwrap_or("?").to_owned())),
        },
    }
}

fn fields<'b>(limit: usize) -> Vec<httparse::Header<'b>> {
    vec![httparse::EMPTY_HEADER; limit.max(HEAD_LIMIT) / FIELD_LEN]
}

/// The request to be carried to `target`.
#[must_use]
pub fn request(target: &Authority) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

/// Reads an exit's answer at the beginning of `bytes`: how long its head is, where the exit is
/// connected, with the interim answers before it (RFC 9110, section 15.2), which say nothing; `limit`
/// bytes together. `None` while the head, or the reason after it, is not whole; `is_all` says that
/// no more will come.
///
/// # Errors
/// What the exit said instead, in one line.
pub fn read_answer(bytes: &[u8], is_all: bool, limit: usize) -> Result<Option<usize>, String> {
    let bytes = &bytes[..bytes.len().min(limit)];
    let mut begin = 0;
    loop {
        let mut fields = fields(limit);
        let mut answer = httparse::Response::new(&mut fields);
        match answer.parse(&bytes[begin..]) {
            Err(error) => return Err(format!("its answer is not HTTP: {error}")),
            Ok(httparse::Status::Partial) if bytes.len() == limit => {
                return Err("its answer is too long".to_owned());
            }
            Ok(httparse::Status::Partial) if is_all => {
                return Err("it gave no whole answer".to_owned());
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(len)) => match answer.code {
                // Nobody has asked it to switch protocols (101).
                Some(100 | 102..=199) => begin += len,
                Some(200..=299) => return Ok(Some(begin + len)),
                _ => return no(&answer, &bytes[begin + len..], is_all || bytes.len() == limit),
            },
        }
    }
}

/// An answer that is not yes; `said` is what follows its head so far, and all of it where `is_all`.
fn no(
    answer: &httparse::Response<'_, '_>,
    said: &[u8],
    is_all: bool,
) -> Result<Option<usize>, String> {
    let length =
        answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let wanted = length
        .and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok())
        .unwrap_or(0usize);
    if said.len() < wanted && !is_all {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(said);
    let line = said.lines().next().unwrap_or_default();
    Err(format!(
        "{} {}: {}",
        answer.code.unwrap_or(0),
        answer.reason.unwrap_or(""),
        line.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn authority(text: &str) -> Authority {
        text.parse().expect("host:port")
    }

    #[test]
    fn a_request_is_read_whole_or_not_yet() {
        let head = request(&authority("db.internal:5432"));
        let bytes = [head.as_bytes(), b"early"].concat();
        for len in 0..head.len() {
            assert_eq!(read_request(&bytes[..len], HEAD_LIMIT), Ok(None), "{len} bytes");
        }
        let expected = Ok(Some((authority("db.internal:5432"), head.len())));
        assert_eq!(read_request(&bytes, HEAD_LIMIT), expected);
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        let status = |bytes: &[u8]| {
            let answer = read_request(bytes, HEAD_LIMIT).expect_err("refused").answer();
            answer.split(' ').nth(1).expect("a status").to_owned()
        };
        assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(status(b"\x16\x03\x01\x02\x00\x01"), "400");
        assert_eq!(status(b"CONNECT nowhere HTTP/1.1\r\n\r\n"), "400");
        assert_eq!(status(b"CONNECT host:0 HTTP/1.1\r\n\r\n"), "400");
        let endless = [b"CONNECT host:1 HTTP/1.1\r\nX: ".as_slice(), &[b'x'; HEAD_LIMIT]].concat();
        assert_eq!(status(&endless), "431");
    }

    #[test]
    fn nothing_is_allowed_that_no_rule_names() {
        let allowed = |rule: &str, target: &str| {
            rule.parse::<Rule>().expect("a rule").allows(&authority(target))
        };
        assert!(allowed("db.internal:5432", "DB.internal.:5432"));
        assert!(!allowed("db.internal:5432", "db.internal:22"));
        assert!(!allowed("db.internal:5432", "xdb.internal:5432"));
        assert!(allowed("*.internal:5432", "a.b.internal:5432"));
        assert!(!allowed("*.internal:5432", "internal:5432"));
        assert!(!allowed("*.internal:5432", "evilinternal:5432"));
        assert!(allowed("host:*", "host:1") && !allowed("host:*", "other:1"));
        assert!(allowed("[::1]:22", "[::1]:22") && !allowed("[::1]:22", "[::2]:22"));
        assert!(allowed("[0:0::1]:22", "[::1]:22") && allowed("[::1]:022", "[0::0:1]:22"));
        assert!(allowed("127.0.0.1:22", "[::ffff:127.0.0.1]:22"));
        assert!(allowed("[::ffff:7f00:1]:22", "127.1:22") && !allowed("127.1:22", "[::1]:22"));
        assert!(!allowed("*.example:1", "0x7f.1:1"), "an address is below no domain");
        for text in
            ["", "host", "*:1", "host:0", "host:x", "::1:22", "*.:1", "a b:1", "*.0.0.1:1", "a:+1"]
        {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_rule_prints_as_it_is_written() {
        for text in ["db.internal:5432", "*.internal:*", "[::1]:22", "10.0.0.1:80"] {
            assert_eq!(text.parse::<Rule>().expect("a rule").to_string(), text);
        }
    }

    #[test]
    fn an_answer_opens_the_way_or_says_why_not() {
        let yes = [ESTABLISHED, b"220 ready"].concat();
        assert_eq!(read_answer(&yes, false, HEAD_LIMIT), Ok(Some(ESTABLISHED.len())));
        assert_eq!(read_answer(&yes[..20], false, HEAD_LIMIT), Ok(None));
        assert!(read_answer(&yes[..20], true, HEAD_LIMIT).is_err());
        let no = Refusal::NotAllowed(authority("a:1")).answer();
        assert_eq!(
            read_answer(&no.as_bytes()[..no.len() - 5], false, HEAD_LIMIT),
            Ok(None),
            "half a reason"
        );
        assert_eq!(
            read_answer(no.as_bytes(), false, HEAD_LIMIT),
            Err("403 Forbidden: the target a:1 is not one that this server allows".to_owned())
        );
        assert!(read_answer(b"SSH-2.0-OpenSSH\r\n", false, HEAD_LIMIT).is_err());
    }

    #[test]
    fn a_head_may_be_as_long_as_is_allowed() {
        let long = format!("CONNECT a:1 HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(20_000));
        assert_eq!(read_request(long.as_bytes(), HEAD_LIMIT), Err(Refusal::TooLong));
        let read = read_request(long.as_bytes(), 32 * 1024);
        assert_eq!(read, Ok(Some((authority("a:1"), long.len()))));
        let many = format!("CONNECT a:1 HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(200));
        assert_eq!(read_request(many.as_bytes(), HEAD_LIMIT), Err(Refusal::TooLong));
        assert!(read_request(many.as_bytes(), 32 * 1024).is_ok_and(|read| read.is_some()));
        let answer = format!("HTTP/1.1 200 OK\r\nCookie: {}\r\n\r\n", "x".repeat(20_000));
        assert!(read_answer(answer.as_bytes(), false, HEAD_LIMIT).is_err());
        assert_eq!(read_answer(answer.as_bytes(), false, 32 * 1024), Ok(Some(answer.len())));
    }

    #[test]
    fn interim_answers_are_passed_over_and_bounded() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
        let yes = [interim.as_bytes(), ESTABLISHED].concat();
        for len in 0..yes.len() {
            assert_eq!(read_answer(&yes[..len], false, HEAD_LIMIT), Ok(None), "{len} bytes");
        }
        assert_eq!(read_answer(&yes, false, HEAD_LIMIT), Ok(Some(yes.len())));
        let no = format!("{interim}{}", Refusal::NotAllowed(authority("a:1")).answer());
        let said = read_answer(no.as_bytes(), false, HEAD_LIMIT).expect_err("refused");
        assert!(said.starts_with("403 Forbidden: the target a:1"), "{said}");
        let endless = interim.repeat(HEAD_LIMIT / interim.len() + 1);
        assert!(read_answer(endless.as_bytes(), false, HEAD_LIMIT).is_err());
        let switched = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        assert!(read_answer(switched, false, HEAD_LIMIT).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>, is_ended: bool) {
            let _ = read_request(&bytes, HEAD_LIMIT);
            let _ = read_answer(&bytes, is_ended, HEAD_LIMIT);
        }
    }
}
