//! What the system says about looking names up, in files that others write while this program
//! runs: DHCP, a VPN, an administrator.
//!
//! Invariant: a file that is missing or says nothing counts only when it has been so for a while,
//! because most of those who write a file do not write it at once.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::proto::resolver::{Beside, Hosts, Server, Settings};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// How often the files are looked at, at the most.
const PAUSE: Duration = Duration::from_secs(1);

/// A file that was changed so short a time ago may change again and bear the same time.
const FRESH: Duration = Duration::from_secs(1);

/// How long a file has to say nothing until that is believed.
const DOUBT: Duration = Duration::from_secs(3);

/// How much of a file counts. Lists of hosts that are to be blocked have some megabytes.
const LONGEST: u64 = 16 << 20;

/// Both files, as they were when they were last looked at.
pub(super) struct SystemFiles {
    /// Asked instead of those of the file, where there are any.
    servers: Vec<Server>,
    resolv_conf: Watched,
    hosts: Watched,
}

impl SystemFiles {
    /// The files, and what they say. Whoever is not there says nothing.
    pub(super) fn read(servers: &[Server]) -> (Self, Settings, Hosts) {
        let (resolv_conf, text) = Watched::open(RESOLV_CONF);
        let (hosts, known) = Watched::open(HOSTS);
        let files = Self { servers: servers.to_vec(), resolv_conf, hosts };
        let settings = files.settings(&text);
        (files, settings, Hosts::parse(&known))
    }

    /// What resolv.conf says, where that has changed.
    pub(super) fn changed_settings(&mut self, known: &Settings, now: Instant) -> Option<Settings> {
        if known.is_final {
            return None;
        }
        let text = self.resolv_conf.changed(Settings::names_server, now)?;
        let settings = Some(self.settings(&text)).filter(|settings| settings != known)?;
        let servers: Vec<_> = settings.servers.iter().map(ToString::to_string).collect();
        log::info!("{RESOLV_CONF} has changed: names are asked of {}", servers.join(", "));
        Some(settings)
    }

    /// What the hosts file says, where that has changed.
    pub(super) fn changed_hosts(&mut self, now: Instant) -> Option<Hosts> {
        let text = self.hosts.changed(|text| !text.trim().is_empty(), now)?;
        log::debug!("{HOSTS} has changed");
        Some(Hosts::parse(&text))
    }

    fn settings(&self, text: &str) -> Settings {
        let options = std::env::var("RES_OPTIONS").unwrap_or_default();
        let domains = std::env::var("LOCALDOMAIN").ok();
        let machine = read(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
        let beside = Beside { options: &options, domains: domains.as_deref(), machine: &machine };
        let mut settings = Settings::parse(text, &beside);
        if !self.servers.is_empty() {
            settings.servers.clone_from(&self.servers);
        }
        settings
    }
}

/// A file, and how it was when it was read.
struct Watched {
    path: PathBuf,
    /// `None` where that says nothing about whether it has changed.
    seen: Option<Stamp>,
    /// Since when it says nothing.
    doubted: Option<Instant>,
    next_look: Option<Instant>,
}

impl Watched {
    fn open(path: impl Into<PathBuf>) -> (Self, String) {
        let mut watched = Self { path: path.into(), seen: None, doubted: None, next_look: None };
        let text = watched.read();
        (watched, text)
    }

    /// The text, where it may have changed, and is one that `says_something` holds of or has been
    /// otherwise for a while.
    fn changed(&mut self, says_something: impl Fn(&str) -> bool, now: Instant) -> Option<String> {
        if self.next_look.is_some_and(|at| now < at) {
            return None;
        }
        self.next_look = Some(now + PAUSE);
        if self.seen.is_some() && self.seen == Stamp::of(&self.path) {
            return None;
        }
        let text = self.read();
        if says_something(&text) {
            self.doubted = None;
            return Some(text);
        }
        let is_doubted = now < *self.doubted.get_or_insert(now) + DOUBT;
        if is_doubted {
            self.seen = None;
        }
        (!is_doubted).then_some(text)
    }

    fn read(&mut self) -> String {
        let before = Stamp::of(&self.path);
        let text = read(&self.path).unwrap_or_else(|error| {
            log::debug!("{} is not used: {error}", self.path.display());
            String::new()
        });
        // Who writes while it is read has not finished.
        self.seen = before.filter(|stamp| !stamp.is_fresh && before == Stamp::of(&self.path));
        text
    }
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    numbers: [i128; 5],
    is_fresh: bool,
}

impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Stamp {
    /// `None` where there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        let age = file.modified().ok().map(|at| SystemTime::now().duration_since(at));
        let is_fresh = age.is_some_and(|age| age.is_ok_and(|age| age < FRESH));
        Some(Self { numbers: numbers(&file), is_fresh })
    }
}

fn numbers(file: &Metadata) -> [i128; 5] {
    let time = |seconds: i64, nanoseconds: i64| {
        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
    };
    let modified = time(file.mtime(), file.mtime_nsec());
    let changed = time(file.ctime(), file.ctime_nsec());
    [file.dev().into(), file.ino().into(), file.len().into(), modified, changed]
}

/// A text of any kind; whatever is no file could be waited for without end.
fn read(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file that is looked at again and again, in virtual time.
    struct Scene {
        folder: tempfile::TempDir,
        watched: Watched,
        now: Instant,
    }

    impl Scene {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("resolv.conf");
            fs::write(&path, text).expect("a file");
            let (watched, read) = Watched::open(path);
            assert_eq!(read, text);
            Self { folder, watched, now: Instant::now() }
        }

        /// What it says after the next pause, where that is something new.
        fn look(&mut self) -> Option<String> {
            self.now += PAUSE;
            self.watched.changed(Settings::names_server, self.now)
        }

        fn write(&self, text: &str) {
            fs::write(&self.watched.path, text).expect("written");
        }

        /// As if it had not been changed for a long time.
        fn age(&mut self) {
            let file = File::options().write(true).open(&self.watched.path).expect("a file");
            let long_ago = SystemTime::now() - Duration::from_secs(1000);
            file.set_modified(long_ago).expect("a time");
            self.look();
        }
    }

    const ONE: &str = "nameserver 192.0.2.1\n";
    const TWO: &str = "nameserver 192.0.2.2\n";

    #[test]
    fn a_file_is_read_again_when_it_has_changed() {
        let mut it = Scene::new(ONE);
        it.age();
        assert_eq!(it.look(), None, "nothing has happened");
        it.write(TWO);
        assert_eq!(it.watched.changed(Settings::names_server, it.now), None, "not so soon");
        assert_eq!(it.look().as_deref(), Some(TWO));
        it.write(ONE);
        assert_eq!(it.look().as_deref(), Some(ONE), "it may have the same time and length");
    }

    #[test]
    fn a_link_that_points_elsewhere_is_followed() {
        let mut it = Scene::new(ONE);
        it.age();
        let (other, link) = (it.folder.path().join("other"), it.folder.path().join("link"));
        fs::write(&other, TWO).expect("a file");
        std::os::unix::fs::symlink(&other, &link).expect("a link");
        fs::rename(&link, &it.watched.path).expect("one for the other");
        assert_eq!(it.look().as_deref(), Some(TWO));
    }

    #[test]
    fn a_file_that_is_gone_or_half_written_counts_only_after_a_while() {
        for half in [None, Some(""), Some("# written by\nnamese")] {
            let mut it = Scene::new(ONE);
            it.age();
            match half {
                Some(text) => it.write(text),
                None => fs::remove_file(&it.watched.path).expect("removed"),
            }
            assert_eq!(it.look(), None, "{half:?}");
            it.write(TWO);
            assert_eq!(it.look().as_deref(), Some(TWO), "{half:?}");

            match half {
                Some(text) => it.write(text),
                None => fs::remove_file(&it.watched.path).expect("removed"),
            }
            assert_eq!(it.look(), None, "{half:?}");
            it.now += DOUBT;
            assert_eq!(it.look().as_deref(), Some(half.unwrap_or_default()), "so it is meant");
        }
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        assert!(read(Path::new("/dev/zero")).is_err());
        assert!(read(Path::new("/dev")).is_err());
    }
}
