//! A stage on which the recipes are played: two loopback addresses that no other test uses stand
//! for 127.0.0.1 and 127.0.0.2, so the recipes keep their ports, and a folder for the files.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tempfile::TempDir;

use crate::common::{self, Daemon, Log, run, signal, text, turnstile};
use crate::readme::{self, Step, is_as_told, steps};

/// The addresses in the recipes: the near machine and the far one.
const TOLD: [&str; 2] = ["127.0.0.1", "127.0.0.2"];

/// The user `nobody`, for servers that refuse to run as root.
const NOBODY: u32 = 65_534;

/// The machines of a recipe.
pub(crate) struct Stage {
    folder: TempDir,
    machines: [String; 2],
    user: Option<u32>,
}

impl Stage {
    /// A folder with the files of the recipes and the keys that they need.
    pub(crate) fn new() -> Self {
        let stage = Self {
            folder: tempfile::tempdir().expect("a folder"),
            machines: machines(),
            user: None,
        };
        for file in fs::read_dir(readme::folder()).expect("the recipes") {
            let file = file.expect("a file");
            let told = fs::read_to_string(file.path()).expect("text");
            fs::write(stage.path().join(file.file_name()), stage.cast(&told)).expect("written");
        }
        stage.play(&steps("Keys"));
        stage
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The address of the far machine.
    pub(crate) fn far(&self) -> &str {
        &self.machines[1]
    }

    /// Where this runs as root: from now on commands do not.
    pub(crate) fn leave_root(&mut self) {
        if is_root() {
            chown(self.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
            self.user = Some(NOBODY);
        }
    }

    /// Runs each step to its end, which must be a good one and print what the reader was told.
    pub(crate) fn play(&self, steps: &[Step]) {
        for Step { command, output, .. } in steps {
            let ended = run(&mut self.shell(command), b"");
            let said = self.uncast(&text(&ended.stdout));
            let is_good = ended.status.success() && is_as_told(&said, output);
            assert!(is_good, "{command}: {}, it printed:\n{said}", ended.status);
        }
    }

    /// A server on the far machine, when it has said that it is `ready`.
    pub(crate) fn server(&self, command: &str, ready: &str) -> Server {
        let mut child = self.shell(&format!("exec {command}")).spawn().expect("there is a shell");
        let log = Log::collect(child.stdout.take().expect("a pipe"));
        let server = Server { child, log };
        server.log.wait_for_lines(ready, 1);
        server
    }

    /// The daemon with a configuration of the recipes.
    pub(crate) fn daemon(&self, file: &str) -> Daemon {
        let configuration = fs::read_to_string(self.path().join(file)).expect("it is there");
        let listeners = configuration.matches("[[listener]]").count();
        let mut command = turnstile(&["serve", "-c", file]);
        command.current_dir(self.path());
        Daemon::launch_with_listeners(command, listeners)
    }

    /// A command for this stage, whose output and errors come in one stream.
    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-ec", &format!("exec 2>&1\n{}", self.cast(command))]);
        shell.current_dir(self.path()).env("PATH", path()).env("HOME", self.path());
        // Python keeps back what it prints into a pipe.
        shell.env("PYTHONUNBUFFERED", "1").env_remove("RUST_LOG");
        for name in ["http_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "HTTPS_PROXY"] {
            shell.env_remove(name);
        }
        if let Some(user) = self.user {
            shell.uid(user).gid(user);
        }
        shell.stdin(Stdio::null()).stdout(Stdio::piped());
        shell
    }

    /// With the addresses of this stage for those of the recipes.
    fn cast(&self, text: &str) -> String {
        let text = text.replace(TOLD[0], &self.machines[0]);
        text.replace(TOLD[1], &self.machines[1])
    }

    fn uncast(&self, text: &str) -> String {
        let text = text.replace(&self.machines[0], TOLD[0]);
        text.replace(&self.machines[1], TOLD[1])
    }
}

/// A server of somebody else's, stopped when dropped.
pub(crate) struct Server {
    child: Child,
    log: Arc<Log>,
}

impl Drop for Server {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("the server's log:\n{}", self.log.lines("").join("\n"));
        }
    }
}

/// Whether all of these programs are there; the test is skipped where one is not.
pub(crate) fn has_programs(names: &[&str]) -> bool {
    names.iter().all(|name| common::has_program_in(&path(), name))
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").expect("Linux").uid() == 0
}

/// Where programs are: also servers, which Debian keeps out of the path of a user, and the program
/// under test.
fn path() -> OsString {
    let ours = Path::new(env!("CARGO_BIN_EXE_turnstile")).parent().expect("a folder").to_owned();
    let users = std::env::var_os("PATH").unwrap_or_default();
    let postgresql = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = std::iter::once(ours)
        .chain(std::env::split_paths(&users))
        .chain([PathBuf::from("/usr/sbin")])
        .chain(postgresql.map(|version| version.path().join("bin")));
    std::env::join_paths(folders).expect("paths without colons")
}

/// Two addresses that nobody else uses: this process' number is in them.
fn machines() -> [String; 2] {
    static STAGES: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let last = 2 * STAGES.fetch_add(1, Ordering::Relaxed) + 1;
    [last, last + 1].map(|last| format!("127.{high}.{low}.{last}"))
}
