//! What will not work as it is hoped, or may hurt, although it is no mistake in a configuration.
//!
//! Invariant: a warning never quotes a secret, and never keeps anything from starting.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;

use super::address::Address;
use super::cycles;
use super::overlap;
use super::plan::{Listener, Plan, SecretOrigin, Service};
use super::tls::{ClientAuth, Origin, doubts};
use crate::proto::proxy_protocol::Trusted;

/// The shortest secret that nobody can guess, in bytes.
const MIN_SECRET: usize = 16;

/// What others must not do with a file of secrets: its group may read it, and that is all.
const FORBIDDEN: u32 = 0o026;

impl Plan {
    /// What will not work as it is hoped, or may hurt, although it is no mistake in the
    /// configuration: a sentence for each. Looks at the permissions of the files of secrets, and
    /// may look up the host names that are listened on, so it may block.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut warnings = self.of_secrets();
        for listener in &self.listeners {
            let found = self.of_listener(listener, now);
            warnings
                .extend(found.map(|warning| format!("listener `{}`: {warning}", listener.name)));
        }
        warnings.extend(cycles::warnings(&self.listeners));
        warnings.extend(
            self.secret_files().into_iter().filter_map(|(what, path)| open_to_others(what, path)),
        );
        warnings
    }

    fn of_secrets(&self) -> Vec<String> {
        let secrets = self.secrets.iter().map(|sourced| &sourced.secret);
        let short = secrets.filter(|secret| secret.len() < MIN_SECRET);
        let warn = |secret: &crate::proto::gate::Secret| {
            format!(
                "the secret `{}` is shorter than {MIN_SECRET} bytes: whoever overhears one answer \
                 can try out all of them; make one with `turnstile secret`",
                secret.name()
            )
        };
        short.map(warn).collect()
    }

    fn of_listener<'a>(
        &'a self,
        listener: &'a Listener,
        now: Timestamp,
    ) -> impl Iterator<Item = String> + 'a {
        let tls = listener.tls.iter().flat_map(move |tls| doubts::of(tls, &listener.address, now));
        let upstream = match &listener.service {
            Service::Forward { upstream, .. } => doubts::of_upstream(&upstream.tls, now),
            Service::Own(_) | Service::Connect { .. } => Vec::new(),
        };
        let beside = overlap::beside(&self.listeners, listener).map(|other| {
            format!(
                "it takes IPv6 alone, because `{}` listens on {}; remove one of the two if that \
                 was not meant",
                other.name, other.address
            )
        });
        let credulous = listener.proxies.iter().any(Trusted::is_everyone).then(|| {
            "proxy_protocol_from holds every address there is, so anyone can claim to be anyone; \
             name the proxies alone"
                .to_owned()
        });
        tls.chain(upstream).chain(beside).chain(open_to_all(listener)).chain(credulous)
    }

    /// Every file that holds a secret, and what it holds.
    fn secret_files(&self) -> Vec<(&'static str, &Path)> {
        let mut files: Vec<(&'static str, &Path)> = Vec::new();
        for sourced in &self.secrets {
            match (&sourced.origin, &self.file) {
                (SecretOrigin::File(path), _) => files.push(("a secret", path)),
                (SecretOrigin::Literal, Some(path)) => files.push(("a secret", path)),
                (SecretOrigin::Literal, None) | (SecretOrigin::Environment(_), _) => {}
            }
        }
        for listener in &self.listeners {
            let shown = listener.tls.iter().flat_map(|tls| &tls.credentials);
            let upstream = match &listener.service {
                Service::Forward { upstream, .. } => upstream.tls.credential.as_ref(),
                Service::Own(_) | Service::Connect { .. } => None,
            };
            for credential in shown.chain(upstream) {
                if let Origin::File(path) = &credential.key {
                    files.push(("a private key", path));
                }
            }
            let tickets = listener.tls.iter().filter_map(|tls| tls.ticket_key.as_ref());
            files.extend(tickets.map(|key| ("the key of session tickets", &*key.path)));
        }
        let mut seen = Vec::new();
        files.retain(|(_, path)| {
            let is_new = !seen.contains(path);
            seen.push(*path);
            is_new
        });
        files
    }
}

/// Whether others may read or change a file that they should not.
fn open_to_others(what: &str, path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o777;
    let path = path.display();
    (mode & FORBIDDEN != 0).then(|| {
        let who = if mode & 0o006 != 0 { "everybody on this machine" } else { "its group" };
        let may = if mode & FORBIDDEN == 0o004 { "read" } else { "change" };
        format!(
            "{path} holds {what}, and {who} may {may} it (mode {mode:04o}); take that away: \
             `chmod 600 {path}`"
        )
    })
}

/// Whether everybody off this machine may be carried onward.
fn open_to_all(listener: &Listener) -> Option<String> {
    let carries = match &listener.service {
        Service::Own(_) => false,
        Service::Forward { .. } => true,
        Service::Connect { targets, .. } => !targets.is_empty(),
    };
    let clients = listener.tls.as_ref().and_then(|tls| tls.clients.as_ref());
    let asks = listener.gate.is_some()
        || clients.is_some_and(|clients| clients.auth == ClientAuth::Required);
    let is_local = |address: &Address| address.is_loopback().unwrap_or(true);
    (carries && !asks && !is_local(&listener.address)).then(|| {
        format!(
            "everybody who reaches {} is carried onward from this machine; ask for a secret \
             (auth) or for a certificate (client_auth = \"required\"), or listen on 127.0.0.1",
            listener.address
        )
    })
}
