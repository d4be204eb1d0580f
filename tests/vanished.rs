//! A host that vanishes without a word: found out on either side of a relay, within the user
//! timeout. Two network namespaces play the hosts, and a route into nowhere is the end of one.
//!
//! The test itself stands in neither: it talks to the relay over Unix sockets.

mod common;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Daemon, PATIENCE, ask, is_closed_silently, listener_at, receive, rest};
use socket2::Socket;

/// Nothing but the user timeout can end a connection here.
const SHORT: &str = "timeouts = { user_timeout = '2s', idle = '0s', half_close = '0s' }\n";

/// Where the relay is, and where the host is that will vanish.
const NEAR: &str = "198.18.0.1";
const FAR: &str = "198.18.0.2";

/// Two hosts and a cable between them, as network namespaces.
struct Hosts {
    near: String,
    far: String,
}

impl Hosts {
    /// `None` where they cannot be made. That is no failure anywhere, in continuous integration
    /// neither: containers often may not.
    fn new(test: &str) -> Option<Self> {
        let name = |side| format!("turnstile-{test}-{side}-{}", std::process::id());
        let hosts = Self { near: name("near"), far: name("far") };
        let Self { near, far } = &hosts;
        let is_made = ip(&["netns", "add", near])
            && ip(&["netns", "add", far])
            && ip(&[
                "-n", near, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", far,
            ])
            && ip(&["-n", near, "address", "add", &format!("{NEAR}/30"), "dev", "cable"])
            && ip(&["-n", far, "address", "add", &format!("{FAR}/30"), "dev", "cable"])
            && ip(&["-n", near, "link", "set", "cable", "up"])
            && ip(&["-n", far, "link", "set", "cable", "up"]);
        if !is_made {
            println!(
                "skipped, here as in continuous integration: no network namespaces with a cable \
                 between them can be made (needs `ip` of iproute2, root, and CAP_NET_ADMIN)"
            );
        }
        is_made.then_some(hosts)
    }

    /// From now on nothing that the far host says arrives, and so it is silent.
    fn vanish(&self) {
        assert!(ip(&["-n", &self.far, "route", "add", "blackhole", NEAR]), "it stays");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.near]);
        ip(&["netns", "delete", &self.far]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let silent = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
    silent.is_ok_and(|status| status.success())
}

/// The program under test on one of the hosts. `ip` becomes it, and is no parent of it.
fn on(host: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host, env!("CARGO_BIN_EXE_turnstile")]).args(arguments);
    command.env_remove("RUST_LOG").env_remove("TURNSTILE_SECRET");
    command
}

fn serve(host: &str, configuration: &str) -> Daemon {
    Daemon::launch(on(host, &["serve", "-c", "-"]), configuration)
}

/// A service on the far host, and a relay to it on the near one.
fn relay_to(service: &str, hosts: &Hosts, folder: &Path) -> (Daemon, Daemon) {
    let far = serve(&hosts.far, &listener_at(&format!("tcp://{FAR}:0"), "far", service, ""));
    let at = format!("unix://{}", folder.join("relay.sock").display());
    let more = format!("to = '{}'\n{SHORT}", far.address("far"));
    let near = serve(&hosts.near, &listener_at(&at, "relay", "forward", &more));
    (near, far)
}

#[test]
fn a_target_that_vanishes_while_bytes_are_on_the_way_to_it_is_given_up() {
    let Some(hosts) = Hosts::new("to") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (relay, _far) = relay_to("echo", &hosts, folder.path());
    let mut wire = relay.connect("relay");
    assert_eq!(ask(&mut wire, b"there"), b"there");
    hosts.vanish();
    wire.write_all(b"and gone").expect("the relay takes it");
    assert!(is_closed_silently(&mut wire), "the near side is told");
    let line = relay.wait_for_line("failed listener=relay");
    assert!(line.contains("the local end failed") && line.contains("timed out"), "{line}");
}

#[test]
fn a_target_that_vanishes_while_it_sends_is_given_up() {
    let Some(hosts) = Hosts::new("from") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (relay, _far) = relay_to("chargen", &hosts, folder.path());
    let mut wire = relay.connect("relay");
    receive(&mut wire, 1 << 20);
    hosts.vanish();
    // What had arrived before, and then the end.
    rest(&mut wire);
    let line = relay.wait_for_line("failed listener=relay");
    assert!(line.contains("the local end failed") && line.contains("timed out"), "{line}");
}

#[test]
fn a_client_that_vanishes_while_bytes_are_on_the_way_to_it_is_given_up() {
    let Some(hosts) = Hosts::new("client") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("target.sock");
    let target = UnixListener::bind(&path).expect("a socket");
    let more = format!("to = 'unix://{}'\n{SHORT}", path.display());
    let at = format!("tcp://{NEAR}:0");
    let relay = serve(&hosts.near, &listener_at(&at, "relay", "forward", &more));

    let mut client = on(&hosts.far, &["connect", &relay.address("relay")]);
    let client =
        Killed(client.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs"));
    let mut input = client.0.stdin.as_ref().expect("a pipe");
    input.write_all(b"there").expect("sent");
    let mut wire = Socket::from(target.accept().expect("the relay calls").0);
    wire.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(receive(&mut wire, 5), b"there");
    hosts.vanish();
    wire.write_all(b"who is gone").expect("the relay takes it");
    assert!(is_closed_silently(&mut wire), "the target is told");
    let line = relay.wait_for_line("closed listener=relay");
    assert!(line.contains("the connection failed") && line.contains("timed out"), "{line}");
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
