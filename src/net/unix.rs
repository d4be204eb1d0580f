//! Unix sockets by their names: files, which outlive whoever listened, and the names of the abstract
//! namespace of Linux (unix(7)), which do not. The latter are written behind an `@`.
//!
//! A file that nobody listens on any more is in the way of the next start. To see that, remove it and
//! bind anew takes several calls, so whoever does it holds a lock on the folder: of several that start
//! at once, one wins, and the others find it alive.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::poll;
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

/// How long to wait for somebody else who is binding a socket in the same folder. Whoever holds a
/// lock for longer is doing something else, and is not waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// How often to look whether the lock is free, in milliseconds.
const LOCK_STEP_MS: u8 = 5;

/// An address as people write it.
#[must_use]
pub fn show(path: &Path) -> String {
    let scheme = if abstract_name(path).is_some() { "unix:" } else { "unix://" };
    format!("{scheme}{}", path.display())
}

/// Begins to connect.
///
/// # Errors
/// Those of `connect(2)`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    match abstract_name(path) {
        None => UnixStream::connect(path),
        Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
    }
}

/// Binds a path with the permissions `mode`, or an abstract name, and listens with room for
/// `backlog` connections. A socket file that nobody listens on any more is replaced; one that is
/// alive, or a file of another kind, is not.
///
/// # Errors
/// Those of `bind(2)`, `listen(2)` and `chmod(2)`; `AddrInUse` where the name is taken.
pub fn bind(path: &Path, mode: u32, backlog: i32) -> io::Result<(UnixListener, SocketName)> {
    let is_file = abstract_name(path).is_none();
    let _lock = if is_file { lock_folder(path)? } else { None };
    if is_file {
        remove_stale(path)?;
    }
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&address(path)?)?;
    let name = SocketName::new(path, is_file)?;
    if is_file {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog)?;
    Ok((UnixListener::from_std(socket.into()), name))
}

/// The name of a Unix socket. A file is removed when this is dropped, if it is still the one that was
/// made.
#[derive(Debug)]
pub struct SocketName {
    path: PathBuf,
    device_and_inode: Option<(u64, u64)>,
}

impl SocketName {
    fn new(path: &Path, is_file: bool) -> io::Result<Self> {
        let device_and_inode = if is_file { Some(device_and_inode(path)?) } else { None };
        Ok(Self { path: path.to_owned(), device_and_inode })
    }

    /// The path, or the name behind an `@`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketName {
    fn drop(&mut self) {
        let Some(made) = self.device_and_inode else { return };
        // Whoever starts now may be putting its own in the place of this one.
        let _lock = lock_folder(&self.path);
        if device_and_inode(&self.path).is_ok_and(|now| now == made) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn device_and_inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What follows the `@` of an abstract name.
fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"@")
}

fn address(path: &Path) -> io::Result<SockAddr> {
    match abstract_name(path) {
        None => SockAddr::unix(path),
        Some(name) => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())),
    }
}

/// The lock on the folder of a socket, where there is one to be had: not every file system knows
/// locks, and not everybody may read a folder that they may write to.
fn lock_folder(path: &Path) -> io::Result<Option<Flock<File>>> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let Ok(mut folder) = File::open(folder) else { return Ok(None) };
    let until = Instant::now() + LOCK_LIMIT;
    loop {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((unlocked, Errno::EAGAIN | Errno::EINTR)) if Instant::now() < until => {
                folder = unlocked;
            }
            Err(_) => return Ok(None),
        }
        // With nothing to wait for, this only waits; that a signal cuts it short does not matter.
        let _ = poll(&mut [], LOCK_STEP_MS);
    }
}

/// Whether a socket can be made at `path`, as far as that shows without making one.
///
/// # Errors
/// Its folder is not there, or something else has its name.
pub fn check_place(path: &Path) -> io::Result<()> {
    if abstract_name(path).is_none() && !is_there(path)? {
        fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
    }
    Ok(())
}

/// Whether a socket has this name already, be it in use or left behind.
fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => Ok(true),
        Ok(_) => Err(taken("a file that is not a socket has this name; it was left alone")),
    }
}

fn taken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, why)
}

/// Makes way for a new socket file where an old one is left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !is_there(path)? {
        return Ok(());
    }
    match knock(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(taken("another process is listening on this socket")),
    }
}

/// Tries to connect; `WouldBlock` says that somebody listens, with a full backlog.
fn knock(path: &Path) -> io::Result<()> {
    RawSocket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?.connect(&SockAddr::unix(path)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    const BACKLOG: i32 = 16;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
        assert!(path.exists(), "std leaves the file behind");

        let listener = bind(&path, 0o600, BACKLOG).expect("stale: replaced");
        assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o600);
        let refusal = bind(&path, 0o600, BACKLOG).expect_err("alive: refused");
        assert_eq!(refusal.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists(), "removed with the listener");
    }

    #[test]
    fn of_many_that_start_at_once_over_a_stale_socket_one_wins() {
        const STARTS: usize = 8;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        for _ in 0..50 {
            drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
            let barrier = Barrier::new(STARTS);
            let start = || {
                barrier.wait();
                bind(&path, 0o600, BACKLOG)
            };
            let outcomes: Vec<_> = thread::scope(|scope| {
                let starts: Vec<_> = (0..STARTS).map(|_| scope.spawn(start)).collect();
                starts.into_iter().map(|start| start.join().expect("no panic")).collect()
            });
            let lost = outcomes.iter().filter_map(|it| it.as_ref().err()).map(io::Error::kind);
            assert!(lost.clone().all(|kind| kind == io::ErrorKind::AddrInUse), "{outcomes:?}");
            assert_eq!(lost.count(), STARTS - 1, "{outcomes:?}");
            knock(&path).expect("the one that won is there");
        }
    }

    #[test]
    fn a_folder_that_somebody_else_locks_keeps_nobody_out_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = File::open(folder.path()).expect("a folder");
        let _lock = Flock::lock(open, FlockArg::LockExclusive).expect("locked");
        bind(&folder.path().join("gate.sock"), 0o600, BACKLOG).expect("bound all the same");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.txt");
        fs::write(&path, "keep me").expect("write");
        assert!(bind(&path, 0o600, BACKLOG).is_err());
        assert_eq!(fs::read(&path).expect("still there"), b"keep me");
    }

    #[test]
    fn a_socket_file_that_somebody_replaced_is_not_ours_to_remove() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.sock");
        let listener = bind(&path, 0o600, BACKLOG).expect("bind");
        fs::rename(&path, folder.path().join("moved")).expect("rename");
        fs::write(&path, "another's").expect("write");
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn an_abstract_name_is_taken_while_somebody_listens_and_leaves_nothing() {
        let name = PathBuf::from(format!("@turnstile test {}", std::process::id()));
        let listener = bind(&name, 0o600, BACKLOG).expect("free");
        let refusal = bind(&name, 0o600, BACKLOG).expect_err("taken");
        assert_eq!(refusal.kind(), io::ErrorKind::AddrInUse);
        connect(&name).expect("it listens");
        assert!(!name.exists());
        drop(listener);
        connect(&name).expect_err("nobody listens");
        bind(&name, 0o600, BACKLOG).expect("free again");
    }
}
