//! Tells the service manager that started the daemon how far it has come, as sd_notify(3) describes it.
//! Where nobody asks, with `NOTIFY_SOCKET` in the environment, nothing is sent.
//!
//! Invariant: serving does not depend on it; a message that cannot be sent at once, because a manager
//! does not read its socket, say, costs a line in the log.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Every listener is open.
pub fn ready() {
    tell("READY=1");
}

/// The daemon accepts no more, and ends when its connections have.
pub fn stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    if let Err(error) = send(state) {
        log::warn!("the service manager cannot be told {state}: {error} (NOTIFY_SOCKET)");
    }
}

fn send(state: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let manager = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(format!("{state}\n").as_bytes(), &manager)?;
    Ok(())
}
