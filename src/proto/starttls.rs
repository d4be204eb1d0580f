//! How protocols that begin in the clear go on to TLS: what a client says, and what it must hear,
//! before the handshake.
//!
//! | protocol | the exchange | specified in |
//! |---|---|---|
//! | SMTP | greeting, `EHLO`, `STARTTLS` | RFC 3207 |
//! | IMAP | greeting, `STARTTLS` | RFC 9051, 6.2.1 |
//! | POP3 | greeting, `STLS` | RFC 2595, 4 |
//! | FTP | greeting, `AUTH TLS` | RFC 4217 |
//! | LDAP | an extended request | RFC 4511, 4.14 |
//! | PostgreSQL | `SSLRequest` | its manual, 54.2.10 |
//!
//! This module reads and writes bytes. It keeps no more than one answer, of at most
//! [`LONGEST_ANSWER`] bytes.

use std::fmt;
use std::str::FromStr;

/// The longest answer that is read, in bytes.
pub const LONGEST_ANSWER: usize = 16 * 1024;

/// How many bytes of an answer are shown.
const SHOWN: usize = 100;

/// A protocol in which TLS begins on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Mail, on its way.
    Smtp,
    /// Mail, in its box.
    Imap,
    /// Mail, on its way out of the box.
    Pop3,
    /// Files.
    Ftp,
    /// Directories.
    Ldap,
    /// A database.
    Postgres,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Smtp, Self::Imap, Self::Pop3, Self::Ftp, Self::Ldap, Self::Postgres];

    /// The word for it on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Ftp => "ftp",
            Self::Ldap => "ldap",
            Self::Postgres => "postgres",
        }
    }

    fn speaks_in_lines(self) -> bool {
        !matches!(self, Self::Ldap | Self::Postgres)
    }

    /// What the client says when the server may be asked for TLS.
    fn request(self) -> &'static [u8] {
        match self {
            Self::Smtp => b"STARTTLS\r\n",
            Self::Imap => b"a STARTTLS\r\n",
            Self::Pop3 => b"STLS\r\n",
            Self::Ftp => b"AUTH TLS\r\n",
            Self::Ldap => b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037",
            Self::Postgres => b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|protocol| protocol.name() == text);
        known.ok_or_else(|| format!("expected {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// The client's side of the exchange before TLS.
#[derive(Debug)]
pub struct StartTls {
    protocol: Protocol,
    step: Step,
    heard: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Greeting,
    Extensions,
    Answer,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for more.
    Wait,
    /// Say this.
    Say(&'static [u8]),
    /// Begin the handshake.
    Begin,
}

impl StartTls {
    /// The beginning, and what is said first, where the client speaks first.
    #[must_use]
    pub fn new(protocol: Protocol) -> (Self, &'static [u8]) {
        let (step, first) = match protocol {
            Protocol::Ldap | Protocol::Postgres => (Step::Answer, protocol.request()),
            _ => (Step::Greeting, &b""[..]),
        };
        (Self { protocol, step, heard: Vec::new() }, first)
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// The server does not go on to TLS: why, in a sentence for people.
    pub fn handle(&mut self, bytes: &[u8]) -> Result<Next, String> {
        if self.heard.len() + bytes.len() > LONGEST_ANSWER {
            return Err(format!("the server's answer has more than {LONGEST_ANSWER} bytes"));
        }
        self.heard.extend_from_slice(bytes);
        let whole = if self.protocol.speaks_in_lines() { self.lines() } else { self.message()? };
        let Some(length) = whole else { return Ok(Next::Wait) };
        let answer: Vec<u8> = self.heard.drain(..length).collect();
        if !self.heard.is_empty() {
            // What follows in the clear could be taken for what comes inside TLS (CVE-2011-0411).
            return Err("the server says more than it was asked before TLS begins".to_owned());
        }
        self.judge(&answer)
    }

    fn judge(&mut self, answer: &[u8]) -> Result<Next, String> {
        let protocol = self.protocol;
        match self.step {
            Step::Greeting if !self.is_good(answer) => {
                Err(format!("this is no {protocol} server: it said {}", shown(answer)))
            }
            Step::Greeting if protocol == Protocol::Smtp => {
                self.step = Step::Extensions;
                Ok(Next::Say(b"EHLO turnstile.invalid\r\n"))
            }
            Step::Extensions if !offers_starttls(answer) => {
                Err(format!("the server does not offer STARTTLS; it said {}", shown(answer)))
            }
            Step::Greeting | Step::Extensions => {
                self.step = Step::Answer;
                Ok(Next::Say(protocol.request()))
            }
            Step::Answer if self.is_good(answer) => Ok(Next::Begin),
            Step::Answer if answer == b"N" => {
                Err("the server has no TLS: it answered N to the request for it (is `ssl = on` in \
                     postgresql.conf?)"
                    .to_owned())
            }
            Step::Answer => Err(format!("the server refused to begin TLS: {}", shown(answer))),
        }
    }

    /// Whether an answer is the one that is hoped for.
    fn is_good(&self, answer: &[u8]) -> bool {
        let begins = |prefix: &[u8]| {
            answer.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
        };
        match (self.protocol, self.step) {
            (Protocol::Smtp, _) => begins(b"220"),
            (Protocol::Ftp, Step::Greeting) => begins(b"220"),
            (Protocol::Ftp, _) => begins(b"234"),
            (Protocol::Imap, Step::Greeting) => begins(b"* OK") || begins(b"* PREAUTH"),
            (Protocol::Imap, _) => last_line(answer).to_ascii_uppercase().starts_with(b"A OK"),
            (Protocol::Pop3, _) => begins(b"+OK"),
            (Protocol::Postgres, _) => answer == b"S",
            (Protocol::Ldap, _) => ldap_result(answer) == Some(0),
        }
    }

    /// The length of a whole answer in lines, if it is there.
    fn lines(&self) -> Option<usize> {
        let mut at = 0;
        while let Some(length) = self.heard[at..].iter().position(|&byte| byte == b'\n') {
            let line = &self.heard[at..at + length];
            at += length + 1;
            let is_last = match (self.protocol, self.step) {
                // `250-` goes on and `250 ` is the last line.
                (Protocol::Smtp | Protocol::Ftp, _) => {
                    line.len() >= 3
                        && line[..3].iter().all(u8::is_ascii_digit)
                        && line.get(3) != Some(&b'-')
                }
                (Protocol::Imap, Step::Answer) => line.to_ascii_lowercase().starts_with(b"a "),
                _ => true,
            };
            // What is no SMTP at all need not be read to its end.
            let is_other = at == length + 1 && !line.first().is_some_and(u8::is_ascii_digit);
            if is_last || is_other && matches!(self.protocol, Protocol::Smtp | Protocol::Ftp) {
                return Some(at);
            }
        }
        None
    }

    /// The length of a whole answer that is no text, if it is there.
    fn message(&self) -> Result<Option<usize>, String> {
        match (self.protocol, &self.heard[..]) {
            (_, []) => Ok(None),
            (Protocol::Postgres, [b'S' | b'N', ..]) => Ok(Some(1)),
            (Protocol::Postgres, [b'E', ..]) => Ok(Some(self.heard.len())),
            (Protocol::Ldap, [0x30, rest @ ..]) => {
                let Some((length, content)) = der_length(rest) else { return Ok(None) };
                let whole = self.heard.len() - content.len() + length;
                Ok(Some(whole).filter(|whole| *whole <= self.heard.len()))
            }
            (protocol, heard) => {
                Err(format!("this is no {protocol} server: it said {}", shown(heard)))
            }
        }
    }
}

fn offers_starttls(answer: &[u8]) -> bool {
    let mut lines = answer.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    answer.starts_with(b"250")
        && lines
            .any(|line| line.get(4..).is_some_and(|word| word.eq_ignore_ascii_case(b"STARTTLS")))
}

fn last_line(answer: &[u8]) -> &[u8] {
    answer.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default()
}

/// A length of BER, of at most two bytes, and what follows it.
fn der_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [length @ 0..=0x7f, rest @ ..] => Some(((*length).into(), rest)),
        [0x81, length, rest @ ..] => Some(((*length).into(), rest)),
        [0x82, high, low, rest @ ..] => Some((usize::from(*high) << 8 | usize::from(*low), rest)),
        _ => None,
    }
}

/// The result code of an answer to an extended request (RFC 4511, 4.12).
fn ldap_result(answer: &[u8]) -> Option<u8> {
    let (_, content) = der_length(answer.get(1..)?)?;
    let [0x02, 0x01, 0x01, 0x78, rest @ ..] = content else { return None };
    let (_, rest) = der_length(rest)?;
    let [0x0a, 0x01, code, ..] = rest else { return None };
    Some(*code)
}

/// What a server said, in a form that is safe to print.
fn shown(answer: &[u8]) -> String {
    let answer = answer.trim_ascii();
    format!("\"{}\"", answer[..answer.len().min(SHOWN)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a server says, one after the other.
    type Says<'a> = &'a [&'a [u8]];

    /// Plays a server that says `says`, one after the other, in pieces of `cut` bytes; answers what
    /// the client said and how it ended.
    fn play(protocol: Protocol, says: Says<'_>, cut: usize) -> (Vec<u8>, Result<Next, String>) {
        let (mut client, first) = StartTls::new(protocol);
        let mut said = first.to_vec();
        let mut last = Ok(Next::Wait);
        for answer in says {
            for piece in answer.chunks(cut) {
                last = client.handle(piece);
                match &last {
                    Ok(Next::Say(text)) => said.extend_from_slice(text),
                    Ok(Next::Wait) => {}
                    Ok(Next::Begin) | Err(_) => return (said, last),
                }
            }
        }
        (said, last)
    }

    const LDAP_OK: &[u8] = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00";
    const LDAP_NO: &[u8] = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x34\x04\x00\x04\x00";

    #[test]
    fn each_protocol_begins_however_its_answers_are_cut() {
        let cases: [(Protocol, Says, &[u8]); 6] = [
            (
                Protocol::Smtp,
                &[b"220-a\r\n220 b\r\n", b"250-x\r\n250-starttls\r\n250 OK\r\n", b"220 go\r\n"],
                b"EHLO turnstile.invalid\r\nSTARTTLS\r\n",
            ),
            (Protocol::Imap, &[b"* OK hi\r\n", b"* BYE not\r\na OK go\r\n"], b"a STARTTLS\r\n"),
            (Protocol::Pop3, &[b"+OK hi\r\n", b"+OK go\r\n"], b"STLS\r\n"),
            (Protocol::Ftp, &[b"220 hi\r\n", b"234 go\r\n"], b"AUTH TLS\r\n"),
            (Protocol::Ldap, &[LDAP_OK], Protocol::Ldap.request()),
            (Protocol::Postgres, &[b"S"], Protocol::Postgres.request()),
        ];
        for (protocol, says, client) in cases {
            for cut in 1..60 {
                assert_eq!(play(protocol, says, cut), (client.to_vec(), Ok(Next::Begin)));
            }
        }
    }

    #[test]
    fn a_refusal_is_said() {
        let cases: [(Protocol, Says, &str); 9] = [
            (Protocol::Smtp, &[b"554 no\r\n"], "no smtp server: it said \"554 no\""),
            (Protocol::Smtp, &[b"SSH-2.0-x\r\n"], "no smtp server"),
            (Protocol::Smtp, &[b"220 a\r\n", b"250 OK\r\n"], "does not offer STARTTLS"),
            (
                Protocol::Smtp,
                &[b"220 a\r\n", b"250 STARTTLS\r\n", b"454 later\r\n"],
                "refused to begin TLS: \"454 later\"",
            ),
            (
                Protocol::Smtp,
                &[b"220 a\r\n", b"250 STARTTLS\r\n", b"220 go\r\n250 forged\r\n"],
                "more than it was asked",
            ),
            (Protocol::Imap, &[b"* OK hi\r\n", b"a NO\x1b[2J\r\n"], "\\x1b[2J"),
            (Protocol::Ldap, &[LDAP_NO], "refused to begin TLS"),
            (Protocol::Postgres, &[b"N"], "has no TLS"),
            (Protocol::Postgres, &[b"SSH-2.0"], "more than it was asked"),
        ];
        for (protocol, says, what) in cases {
            let error = play(protocol, says, 1000).1.expect_err(what);
            assert!(error.contains(what), "{error}");
        }
        let endless = vec![b'2'; LONGEST_ANSWER + 1];
        assert!(play(Protocol::Smtp, &[&endless], 100).1.is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered(
            which in 0usize..6,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cut in 1usize..20,
        ) {
            let _ = play(Protocol::ALL[which], &[&bytes], cut);
        }
    }
}
