//! Why a listener could not be opened: one line each, with what to do.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;

use crate::config::{NoAuthorities, ResolveError};

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A host name is not known.
    #[error("listener `{name}`: {error}")]
    Resolve {
        /// The listener's name.
        name: String,
        /// What the resolver said.
        error: ResolveError,
    },
    /// An address could not be bound.
    #[error("listener `{name}`: cannot listen on {address}: {error}{}", advice(.error, .address))]
    Bind {
        /// The listener's name.
        name: String,
        /// The address as it is bound.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The event loop cannot be told of it.
    #[error("listener `{name}`: nobody can be heard on it: {error}{}", loop_advice(.error))]
    Register {
        /// The listener's name.
        name: String,
        /// What the system said.
        error: io::Error,
    },
    /// What TLS needs cannot be made.
    #[error("listener `{name}`: TLS cannot be prepared: {error}")]
    Tls {
        /// The listener's name.
        name: String,
        /// What is missing or wrong.
        error: TlsError,
    },
}

/// Why TLS cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls does not want it so.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// Nobody is there to be trusted.
    #[error("{0} (ca)")]
    NoAuthorities(#[from] NoAuthorities),
    /// A target's host is no name that a certificate could have.
    #[error("`{0}` cannot be the name of a server; write its name as server_name")]
    Name(String),
}

/// What to do, by what the system said and what kind of address it is.
fn advice(error: &io::Error, address: &str) -> String {
    let known = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    match address.split_once("://") {
        Some(("unix", path)) => file_advice(error, known, path),
        Some((_, at)) => socket_advice(known, at).to_owned(),
        // An abstract name is no file: nothing can be wrong with it but that it is taken.
        None if known == Errno::EADDRINUSE => {
            "; stop the program that uses it (`ss -lpx` names it), or choose another name"
                .to_owned()
        }
        None => String::new(),
    }
}

fn file_advice(error: &io::Error, known: Errno, path: &str) -> String {
    let folder = match Path::new(path).parent() {
        Some(folder) if folder != Path::new("") => folder.display().to_string(),
        _ => ".".to_owned(),
    };
    match known {
        Errno::EACCES | Errno::EPERM => {
            let user = nix::unistd::geteuid();
            format!(
                "; user {user} needs the right to enter and write the folder {folder}, and to replace \
                 what has this name there"
            )
        }
        Errno::ENOENT if Path::new(&folder).is_dir() => {
            format!("; the file system of {folder} takes no sockets: choose another path")
        }
        Errno::ENOENT => format!("; the folder {folder} is not there: make it first"),
        Errno::ENOTDIR => format!("; {folder} is not a folder"),
        Errno::EROFS => format!("; {folder} is mounted to be read only"),
        Errno::ENOSPC | Errno::EDQUOT => format!("; make room where {folder} is"),
        Errno::ENAMETOOLONG => "; choose a shorter path".to_owned(),
        Errno::EPROTOTYPE => {
            "; a socket of another kind has this name: choose another path".to_owned()
        }
        Errno::ELOOP => "; the links on the way to it go round in a circle".to_owned(),
        _ if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = |it: fs::Metadata| it.file_type().is_socket();
            if fs::symlink_metadata(path).is_ok_and(|it| !is_socket(it)) {
                "; choose another path, or move it away".to_owned()
            } else {
                "; stop the program that uses it (`ss -lpx` names it), or choose another path"
                    .to_owned()
            }
        }
        // Paths that no socket can have are refused before the system sees them.
        _ if error.kind() == io::ErrorKind::InvalidInput => {
            "; a path has at most 107 bytes: choose a shorter one".to_owned()
        }
        _ => String::new(),
    }
}

fn socket_advice(known: Errno, at: &str) -> &'static str {
    let is_low =
        at.rsplit(':').next().and_then(|port| port.parse().ok()).is_some_and(|it: u16| it < 1024);
    match known {
        Errno::EACCES if is_low => {
            "; ports below 1024 need a right: choose another port, give the program \
             CAP_NET_BIND_SERVICE, or lower net.ipv4.ip_unprivileged_port_start (`sysctl`)"
        }
        Errno::EACCES | Errno::EPERM => {
            "; a security module or a filter of system calls forbids it (`dmesg` may tell)"
        }
        Errno::EADDRINUSE => {
            "; stop the program that uses it (`ss -lntup` names it), or choose another address"
        }
        Errno::EADDRNOTAVAIL => "; this machine has no such address (`ip address`)",
        Errno::EAFNOSUPPORT => {
            "; this system has no addresses of this family: it may be turned off in the kernel"
        }
        Errno::EINVAL if at.starts_with("[fe80") => {
            "; an address of one link needs its interface, such as [fe80::1%eth0]"
        }
        Errno::EMFILE | Errno::ENFILE => "; raise the limit on open files (`ulimit -n`)",
        Errno::ENOBUFS | Errno::ENOMEM => "; the system has no memory left for it",
        _ => "",
    }
}

fn loop_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; raise fs.epoll.max_user_watches (`sysctl`)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_fits_the_error_and_the_kind_of_address() {
        let cases = [
            (Errno::EACCES, "tcp://127.0.0.1:80", "CAP_NET_BIND_SERVICE"),
            (Errno::EACCES, "udp://[::]:53", "CAP_NET_BIND_SERVICE"),
            (Errno::EACCES, "tcp://127.0.0.1:8080", "security module"),
            (Errno::EACCES, "unix:///run/gate/a.sock", "write the folder /run/gate,"),
            (Errno::EADDRINUSE, "tcp://127.0.0.1:80", "ss -lntup"),
            (Errno::EADDRINUSE, "unix:///run/a.sock", "ss -lpx"),
            (Errno::EADDRINUSE, "unix:@a", "another name"),
            (Errno::ENOENT, "unix:///none/a.sock", "the folder /none is not there"),
            (Errno::ENOENT, "unix://none/a.sock", "the folder none is not there"),
            (Errno::ENOTDIR, "unix:///etc/passwd/a", "/etc/passwd is not a folder"),
            (Errno::ENOENT, "unix:///proc/a", "the file system of /proc takes no sockets"),
            (Errno::EADDRINUSE, "unix:///proc", "move it away"),
            (Errno::EROFS, "unix:///proc/a", "/proc is mounted to be read only"),
            (Errno::ENAMETOOLONG, "unix:///a", "shorter path"),
            (Errno::EPROTOTYPE, "unix:///a", "another kind"),
            (Errno::EADDRNOTAVAIL, "tcp://192.0.2.1:80", "ip address"),
            (Errno::EAFNOSUPPORT, "tcp://[::1]:80", "family"),
        ];
        for (errno, address, part) in cases {
            let advice = advice(&io::Error::from(errno), address);
            assert!(advice.contains(part), "{errno} {address}: {advice}");
            let is_unix = address.starts_with("unix");
            assert!(!is_unix || !advice.contains("port"), "{advice}");
        }
        assert_eq!(advice(&io::Error::other("odd"), "unix:///a"), "");
    }
}
