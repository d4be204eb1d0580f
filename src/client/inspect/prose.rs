//! A report as people read it: from the greeting to the verdict, with a word on what things are.

use std::fmt::{self, Display, Formatter};

use super::report::{
    Certificate, Chosen, ClientCertificate, Handshake, Offered, Report, Resumption,
};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { address, peer, server_name, .. } = self;
        let peer = peer.as_deref().unwrap_or("no one");
        writeln!(f, "{address} ({peer}), asked for as {server_name}")?;
        if let Some(offered) = &self.offered {
            write!(f, "\nThe client offered\n{offered}")?;
        }
        if let Some(chosen) = &self.chosen {
            write!(f, "\nThe server chose\n{chosen}")?;
        }
        write!(f, "\nThe handshake\n{}", self.handshake)?;
        if let Some(request) = &self.client_certificate {
            write!(f, "{request}")?;
        }
        if let Some(bytes) = self.ocsp_staple_bytes {
            line(f, "OCSP staple", &format_args!("{bytes} bytes"))?;
        }
        for (position, certificate) in self.certificates.iter().enumerate() {
            match position {
                0 => write!(f, "\nThe server's certificate\n{certificate}")?,
                _ => write!(f, "\nCertificate {} of its chain\n{certificate}", position + 1)?,
            }
        }
        if self.handshake.is_complete {
            write!(f, "\nA second connection\n{}", self.resumption)?;
        }
        // What is wrong is the error of the command, and said there.
        if self.faults.is_empty() { writeln!(f, "\nNothing is wrong.") } else { Ok(()) }
    }
}

impl Display for Offered {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "versions", &self.versions.join(", "))?;
        list(f, "cipher suites", &self.suites)?;
        line(f, "groups", &self.groups.join(", "))?;
        if !self.key_shares.is_empty() {
            line(f, "keys sent along", &self.key_shares.join(", "))?;
        }
        match &self.server_name {
            Some(name) => line(f, "server name", &format_args!("{name} (SNI, readable by all)"))?,
            None => line(f, "server name", &"none (SNI holds names, not addresses)")?,
        }
        if !self.alpn.is_empty() {
            line(f, "protocols", &format_args!("{} (ALPN)", self.alpn.join(", ")))?;
        }
        line(f, "random", &self.random)?;
        line(f, "session id", &or_none(&self.session_id))
    }
}

impl Display for Chosen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "version", &self.version)?;
        line(f, "cipher suite", &self.suite)?;
        match (&self.group, &self.retried_with_group) {
            (Some(group), None) => line(f, "key exchange", group)?,
            (Some(group), Some(_)) => line(
                f,
                "key exchange",
                &format_args!("{group}, for which it had to ask first (HelloRetryRequest)"),
            )?,
            (None, _) => {}
        }
        line(f, "protocol", &self.alpn.as_deref().unwrap_or("none (ALPN)"))?;
        line(f, "random", &self.random)?;
        match self.version.as_str() {
            "TLS 1.3" => line(
                f,
                "session id",
                &format_args!("{} (the client's, sent back)", or_none(&self.session_id)),
            ),
            _ => line(f, "session id", &or_none(&self.session_id)),
        }
    }
}

impl Display for Handshake {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { round_trips, sent_bytes, received_bytes, .. } = self;
        let trips = if *round_trips == 1 { "round trip" } else { "round trips" };
        let outcome = if self.is_complete { "complete" } else { "failed" };
        let ending = format_args!("{outcome}, {round_trips} {trips}");
        line(f, "outcome", &ending)?;
        line(f, "bytes", &format_args!("{sent_bytes} sent, {received_bytes} received"))?;
        match (self.connect_ms, self.handshake_ms) {
            (Some(connect), Some(handshake)) => line(
                f,
                "time",
                &format_args!("{connect:.2} ms to connect, {handshake:.2} ms for the handshake"),
            ),
            (Some(connect), None) => line(f, "time", &format_args!("{connect:.2} ms to connect")),
            _ => Ok(()),
        }
    }
}

impl Display for ClientCertificate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let met = if self.was_sent { "and was shown one" } else { "and was shown none" };
        line(f, "client", &format_args!("the server asked for a certificate {met}"))?;
        if self.authorities.is_empty() {
            return Ok(());
        }
        list(f, "signed by", &self.authorities)
    }
}

impl Display for Certificate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let it = &self.description;
        line(f, "subject", &or_none(&it.subject))?;
        line(f, "issuer", &or_none(&it.issuer))?;
        line(f, "serial", &it.serial)?;
        let days = match self.days_left {
            days @ 0.. => format!("{days} days left"),
            days => format!("over for {} days", -days),
        };
        line(f, "valid", &format_args!("{} to {} ({days})", it.not_before, it.not_after))?;
        line(f, "key", &it.key)?;
        match it.alternative_names.as_slice() {
            [] => line(f, "names", &"none")?,
            names => list(f, "names", names)?,
        }
        if it.is_authority {
            line(f, "authority", &"yes, it may sign others")?;
        }
        if !it.purposes.is_empty() {
            line(f, "for", &it.purposes.join(", "))?;
        }
        if it.version != 3 {
            line(f, "version", &it.version)?;
        }
        line(f, "SHA-256", &it.sha256)?;
        line(f, "key SHA-256", &it.key_sha256)
    }
}

impl Display for Resumption {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.tickets, self.ticket_lifetime_seconds) {
            (0, _) => line(f, "tickets", &"none")?,
            (count, None) => line(f, "tickets", &count)?,
            (count, Some(seconds)) => {
                line(f, "tickets", &format_args!("{count}, for {seconds} seconds"))?;
            }
        }
        let fate = match self.is_resumed {
            Some(true) => "resumed: no certificate was sent again",
            _ => "not resumed: the server asks for a full handshake each time",
        };
        line(f, "session", &fate)?;
        self.handshake.as_ref().map_or(Ok(()), |handshake| write!(f, "{handshake}"))
    }
}

fn line(f: &mut Formatter<'_>, label: &str, value: &impl Display) -> fmt::Result {
    writeln!(f, "  {label:<16} {value}")
}

/// The first value beside the label, the others below it.
fn list(f: &mut Formatter<'_>, label: &str, values: &[String]) -> fmt::Result {
    for (position, value) in values.iter().enumerate() {
        line(f, if position == 0 { label } else { "" }, value)?;
    }
    Ok(())
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
