//! Configurations as people write them: what is right makes a plan, and what is wrong is said,
//! with its place, and without ever showing a secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use turnstile::config::{
    self, BUILT_IN, ConfigError, Limits, Plan, Report, SecretOrigin, Service, Source, Timeouts,
    service_name,
};
use turnstile::proto::gate::Digest;
use turnstile::proto::service::Kind;

/// Two sound lines that most listeners below begin with.
const UPPER: &str = "[[listener]]\nname = 'a'\naddress = 'localhost:80'\nservice = 'upper'\n";

/// One secret, which is not the demonstration secret.
const SECRET: &str = "[[secret]]\nname = 's'\nvalue = 'open sesame'\n";

fn parse(text: &str) -> Result<Plan, Report> {
    config::parse(text, "test.toml", Path::new(""))
}

fn plan(text: &str) -> Plan {
    parse(text).unwrap_or_else(|report| panic!("{report}"))
}

/// Each problem as `line:column message`.
fn problems(text: &str) -> Vec<String> {
    let report = parse(text).expect_err(text);
    let said = |it: config::Problem<'_>| format!("{}:{} {}", it.line, it.column, it.message);
    report.problems().map(said).collect()
}

fn rendered(text: &str) -> String {
    parse(text).expect_err(text).render(false)
}

#[test]
fn the_built_in_configuration_is_sound_and_complete() {
    let plan = config::load(&Source::BuiltIn).expect("sound");
    let listeners: Vec<_> = plan
        .listeners
        .iter()
        .map(|it| (it.name.as_str(), it.address.to_string(), service_name(&it.service)))
        .collect();
    let expected = [
        ("gate", "tcp://127.0.0.1:9999", "upper"),
        ("once", "tcp://127.0.0.1:9998", "once"),
        ("greet", "tcp://127.0.0.1:8090", "greet"),
        ("time", "tcp://127.0.0.1:12345", "time"),
        ("tls", "tcp://127.0.0.1:8000", "reply"),
        ("udp-reply", "udp://127.0.0.1:12345", "reply"),
        ("echo", "tcp://127.0.0.1:7007", "echo"),
        ("discard", "tcp://127.0.0.1:7009", "discard"),
        ("daytime", "tcp://127.0.0.1:7013", "daytime"),
        ("chargen", "tcp://127.0.0.1:7019", "chargen"),
        ("any-port", "tcp://127.0.0.1:0", "upper"),
    ];
    let expected = expected.map(|(name, address, service)| (name, address.to_owned(), service));
    assert_eq!(listeners, expected);
    assert_eq!(
        plan.listeners[5].service,
        Service::Own(Kind::Reply(b"UDP server sending data".as_slice().into()))
    );

    let gate = plan.listeners[0].gate.as_ref().expect("the first listener has a gate");
    assert_eq!(gate.digest, Digest::Md5);
    assert!(gate.secrets.len() == 1 && gate.secrets[0].is(config::DEMONSTRATION_SECRET));
    assert!(plan.listeners[1..].iter().all(|listener| listener.gate.is_none()));
}

#[test]
fn the_figures_of_the_built_in_configuration_are_the_defaults() {
    let built_in = plan(BUILT_IN);
    let bare = plan(UPPER);
    assert_eq!((built_in.limits, built_in.resolver), (bare.limits.clone(), bare.resolver.clone()));
    assert_eq!(built_in.listeners[0].timeouts, bare.listeners[0].timeouts);
    assert_eq!(bare.limits.connections, 10_000);
    assert_eq!(bare.limits.buffer, 65_536);
    let expected = Timeouts {
        proxy: Some(Duration::from_secs(10)),
        tls: Some(Duration::from_secs(10)),
        auth: Some(Duration::from_secs(10)),
        idle: Some(Duration::from_secs(600)),
        half_close: Some(Duration::from_secs(30)),
        lifetime: None,
    };
    assert_eq!(bare.listeners[0].timeouts, expected);
    for listener in [&bare.listeners[0], &built_in.listeners[0]] {
        assert_eq!(listener.user_timeout, Some(Duration::from_secs(240)));
    }
}

#[test]
fn every_key_reaches_the_plan() {
    let plan = plan(
        "[limits]\nconnections = 5\nconnections_per_ip = 2\nunauthenticated = 3\n\
         drain = '0s'\nbuffer = 4096\n\
         [resolver]\nservers = ['192.0.2.53', '::1', '[::1]:5353']\n\
         [[secret]]\nname = 'one'\nvalue = '1'\n[[secret]]\nname = 'two'\nvalue = '2'\n\
         [[listener]]\nname = 'a'\naddress = 'unix:///run/a'\nservice = 'echo'\n\
         auth = 'hmac-sha256'\nunix_mode = '0660'\n\
         timeouts = { proxy = '3s', auth = '0s', idle = '250ms', half_close = '1h', \
         lifetime = '2m', user_timeout = '90s' }\n\
         [[listener]]\nname = 'b'\naddress = 'udp://0.0.0.0:7'\nservice = 'echo'\namplify = true\n\
         answers_per_second = 0\n\
         [[listener]]\nname = 'c'\naddress = 'tcp://[::]:7'\nservice = 'echo'\n\
         auth = 'hmac-md5'\nsecrets = ['two']\ntimeouts.user_timeout = '0s'\n",
    );
    let Limits { connections, connections_per_ip, unauthenticated, .. } = plan.limits;
    assert_eq!((connections, connections_per_ip, unauthenticated), (5, 2, 3));
    assert_eq!((plan.limits.drain, plan.limits.buffer), (Duration::ZERO, 4096));
    let servers: Vec<_> = plan.resolver.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[::1]:53", "[::1]:5353"]);
    let [a, b, c] = plan.listeners.as_slice() else { panic!("three listeners") };
    assert_eq!((a.unix_mode, b.unix_mode), (0o660, 0o600));
    assert_eq!((a.amplify, b.amplify), (false, true));
    assert_eq!((a.answers_per_second, b.answers_per_second), (20, 0));
    let expected = Timeouts {
        proxy: Some(Duration::from_secs(3)),
        tls: Some(Duration::from_secs(10)),
        auth: None,
        idle: Some(Duration::from_millis(250)),
        half_close: Some(Duration::from_secs(3600)),
        lifetime: Some(Duration::from_secs(120)),
    };
    assert_eq!(a.timeouts, expected);
    assert_eq!((a.user_timeout, c.user_timeout), (Some(Duration::from_secs(90)), None));
    let names = |listener: &config::Listener| -> Vec<String> {
        let gate = listener.gate.as_ref().expect("a gate");
        gate.secrets.iter().map(|secret| secret.name().to_owned()).collect()
    };
    assert_eq!(names(a), ["one", "two"], "all by default");
    assert_eq!(names(c), ["two"]);
}

#[test]
fn a_sixteenth_of_all_places_is_kept_from_any_stranger() {
    let listener = "[[listener]]\nname = 'a'\naddress = 'tcp://127.0.0.1:7'\nservice = 'echo'\n";
    for (limits, expected) in [
        ("", 9375),
        ("[limits]\nconnections = 200\n", 188),
        ("[limits]\nconnections = 16\n", 15),
        ("[limits]\nconnections = 3\n", 3),
    ] {
        let limits = plan(&format!("{limits}{listener}")).limits;
        assert_eq!((limits.connections_per_ip, limits.unauthenticated), (expected, expected));
    }
}

#[test]
fn wrong_values_are_pointed_at() {
    let cases = [
        ("connections = 0", "2:15 `connections`: 0 is out of range"),
        ("connections = -1", "2:15 `connections`: -1 is out of range"),
        ("connections = '9'", "2:15 `connections`: expected a whole number, found a string"),
        ("connections_per_ip = 1000001", "2:22 `connections_per_ip`: 1000001 is out of range"),
        ("unauthenticated = 0", "2:19 `unauthenticated`: 0 is out of range"),
        ("drain = 5", "2:9 `drain`: expected a duration, found a whole number"),
        ("buffer = 4095", "2:10 `buffer`: 4095 is out of range"),
        ("head = '100KiB'", "2:8 `head`: 100KiB is out of range"),
        ("buffer = 4096\nhead = '8KiB'", "3:8 a head of this length does not fit a buffer of 4096"),
        ("buffer = '2MiB'", "2:10 `buffer`: 2MiB is out of range"),
        ("bufer = 4096", "2:1 unknown key `bufer` in [limits]"),
    ];
    for (line, expected) in cases {
        assert_eq!(problems(&format!("[limits]\n{line}\n{UPPER}")), [expected]);
    }

    let cases = [
        ("servers = '192.0.2.1'", "2:11 `servers`: expected a list, found a string"),
        ("servers = [53]", "2:11 `servers`: expected a string, found a whole number"),
        ("servers = ['ns.example']", "2:11 `servers`: `ns.example` is not the address of a name"),
        ("servers = ['192.0.2.1:0']", "2:11 `servers`: `192.0.2.1:0` is not the address of a name"),
        ("servers = ['::1', '::2', '::3', '::4']", "2:11 `servers`: 4 name servers are too many"),
        ("server = []", "2:1 unknown key `server` in [resolver]"),
    ];
    for (line, expected) in cases {
        let found = problems(&format!("[resolver]\n{line}\n{UPPER}"));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{line}: {found:?}");
    }

    let cases = [
        ("auth = 'md5'", "5:8 `auth`: unknown authentication `md5`"),
        ("text = 'hello'", "5:8 `upper` has no use for `text`"),
        ("amplify = 1", "5:11 `amplify`: expected true or false, found a whole number"),
        ("amplify = true", "5:11 `amplify` is for datagrams"),
        ("answers_per_second = 5", "5:22 `answers_per_second` is for datagrams"),
        (
            "answers_per_second = '5/s'",
            "5:22 `answers_per_second`: expected a whole number, found a string",
        ),
        ("unix_mode = '0600'", "5:13 `unix_mode` is for Unix sockets"),
        ("secrets = []", "5:11 `secrets` without `auth`: this listener lets everyone in"),
        ("secrets = 's'", "5:11 `secrets`: expected a list, found a string"),
        ("auth = 'hmac-md5'", "5:8 a gate without a secret lets nobody in"),
        ("timeouts.connect = '1s'", "5:20 `upper` has no use for `connect`"),
        ("tls = 1", "5:7 `tls`: expected a table, found a whole number"),
        ("timeouts = 5", "5:12 `timeouts`: expected a table, found a whole number"),
    ];
    for (line, expected) in cases {
        assert_eq!(problems(&format!("{UPPER}{line}\n")), [expected]);
    }
    let idle = problems(&format!("{UPPER}timeouts.idle = '10 min'\n"));
    assert_eq!(idle.len(), 1);
    assert!(idle[0].starts_with("5:17 `idle`: `10 min` is not a duration"), "{idle:?}");
}

#[test]
fn proxies_are_read_and_wrong_ones_pointed_at() {
    let with = |address: &str, proxies: &str| {
        format!("{}proxy_protocol_from = {proxies}\n", UPPER.replace("localhost:80", address))
    };
    let cases = [
        ("h:80", "'10.0.0.1'", "expected a list, found a string"),
        ("h:80", "[10]", "expected a string, found a whole number"),
        ("h:80", "['10.0.0.0/33']", "`10.0.0.0/33` is no address of a proxy"),
        ("h:80", "['10.1.2.3/8']", "`10.1.2.3/8` is in the middle of the network 10.0.0.0/8"),
    ];
    for (address, proxies, expected) in cases {
        let expected = format!("5:23 `proxy_protocol_from`: {expected}");
        assert_eq!(problems(&with(address, proxies)), [expected]);
    }
    let cases = [
        ("h:80", "['unix']", "nobody comes to a tcp address from a Unix socket"),
        ("unix:///run/a", "['10.0.0.1', 'unix']", "who comes to a Unix socket has no address"),
        ("udp://h:80", "['10.0.0.1']", "datagrams have no connection to announce"),
    ];
    for (address, proxies, expected) in cases {
        assert_eq!(problems(&with(address, proxies)), [format!("5:23 {expected}")]);
    }
    let misspelt = format!("{UPPER}proxy_protocol_form = []\n");
    let report = parse(&misspelt).expect_err("a misspelt key");
    let help = report.problems().next().map(|problem| problem.help.to_owned());
    assert_eq!(help.as_deref(), Some("did you mean `proxy_protocol_from`?"));

    let sound = plan(&with("h:80", "['192.0.2.10', '10.0.0.0/8', '2001:db8::/32']"));
    let proxies: Vec<_> = sound.listeners[0].proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["192.0.2.10", "10.0.0.0/8", "2001:db8::/32"]);
    assert_eq!(plan(&with("unix:///run/a", "['unix']")).listeners[0].proxies.len(), 1);
    assert_eq!(plan(UPPER).listeners[0].proxies, []);
}

#[test]
fn believing_everyone_is_warned_of() {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let warnings = |proxies: &str| {
        plan(&format!("{UPPER}proxy_protocol_from = ['{proxies}']\n")).warnings(now)
    };
    for everyone in ["0.0.0.0/0", "::/0"] {
        let warnings = warnings(everyone);
        let expected = "listener `a`: proxy_protocol_from holds every address there is";
        assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{warnings:?}");
    }
    assert_eq!(warnings("10.0.0.0/8"), [""; 0]);
}

#[test]
fn wrong_versions_of_the_proxy_protocol_are_pointed_at() {
    let forward = |version: &str| {
        let to = "'forward'\nto = 'b:1'\n[listener.upstream]";
        format!("{}proxy_protocol = {version}\n", UPPER.replace("'upper'", to))
    };
    let unknown = "7:18 `proxy_protocol`: unknown version `v3` of the PROXY protocol";
    assert_eq!(problems(&forward("'v3'")), [unknown]);
    let number = "7:18 `proxy_protocol`: expected a string, found a whole number";
    assert_eq!(problems(&forward("2")), [number]);
    let Service::Forward { upstream, .. } = plan(&forward("'v2'")).listeners.remove(0).service
    else {
        panic!("it forwards");
    };
    assert_eq!(upstream.proxy_protocol.map(|version| version.to_string()).as_deref(), Some("v2"));
}

#[test]
fn wrong_listeners_are_pointed_at() {
    let cases = [
        ("'a b'", "'localhost:80'", "'upper'", "2:8 `name`: not a name"),
        ("''", "'localhost:80'", "'upper'", "2:8 `name`: not a name"),
        ("'a'", "'tls://h:80'", "'upper'", "3:11 `address`: `tls://h:80` cannot be listened on"),
        ("'a'", "'localhost:80'", "'uper'", "4:11 `service`: unknown service `uper`"),
        ("'a'", "'localhost:80'", "'proxy'", "4:11 `service`: unknown service `proxy`"),
        ("'a'", "'localhost:80'", "'reply'", "4:11 this service needs `text`"),
        ("'a'", "'localhost:80'", "'forward'", "4:11 this service needs `to`"),
        (
            "'a'",
            "'udp://localhost:80'",
            "'forward'\nto = 'b:1'",
            "3:11 datagrams cannot be forwarded",
        ),
        (
            "'a'",
            "'udp://localhost:80'",
            "'connect'\ntargets = ['b:1']",
            "3:11 datagrams cannot be forwarded",
        ),
        ("'a'", "'localhost:80'", "'echo'\nto = 'b:1'", "5:6 `echo` has no use for `to`"),
        ("'a'", "'localhost:80'", "'forward'\nto = []", "5:6 `to`: there is nowhere to forward to"),
        (
            "'a'",
            "'localhost:80'",
            "'forward'\nto = 'udp://b:1'",
            "5:6 `to`: `udp://b:1` cannot be forwarded to",
        ),
        ("'a'", "'localhost:80'", "7", "4:11 `service`: expected a string, found a whole number"),
    ];
    for (name, address, service, expected) in cases {
        let text =
            format!("[[listener]]\nname = {name}\naddress = {address}\nservice = {service}\n");
        assert_eq!(problems(&text), [expected]);
    }
    let text = "[[listener]]\nname = 'a'\naddress = 'udp://[::1]:80'\nservice = 'echo'\n\
                auth = 'hmac-md5'\ntimeouts = { idle = '1s' }\n";
    let expected =
        ["5:8 datagrams have no session to admit", "6:12 datagrams have no session to time"];
    assert_eq!(problems(&format!("{text}{SECRET}")), expected);
}

#[test]
fn wrong_shapes_are_pointed_at() {
    let cases = [
        ("", "1:1 nothing to listen on"),
        ("listener = []", "1:1 nothing to listen on"),
        ("listener = 5", "1:12 `listener`: expected a list of tables, found a whole number"),
        ("listener = [5]", "1:13 expected a table, found a whole number"),
        ("[listener]", "1:1 `listener`: expected a list of tables, found a table"),
        ("a = ", "1:5 not TOML: "),
    ];
    for (text, expected) in cases {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{text}: {found:?}");
    }
}

#[test]
fn wrong_secrets_are_pointed_at() {
    let cases = [
        ("[[secret]]\nvalue = 'x'", "5:1 [[secret]] has no `name`"),
        ("[[secret]]\nname = 's'", "5:1 a secret without its source"),
        (
            "[[secret]]\nname = 's'\nvalue = 'x'\nenv = 'X'",
            "5:1 a secret with more than one source: value, env",
        ),
        ("[[secret]]\nname = 's'\nvalue = ''", "7:9 an empty secret would let everyone in"),
        (
            "[[secret]]\nname = 's'\nvalue = 5",
            "7:9 `value`: expected a string, found a whole number",
        ),
        (
            "[[secret]]\nname = 's'\nvalue = '<not shown>'",
            "7:9 the secret itself is missing: `turnstile check --print` leaves it out",
        ),
        (
            "[[secret]]\nname = 's'\nenv = 'TURNSTILE_NO_SUCH'",
            "7:7 the environment variable `TURNSTILE_NO_SUCH` is not set",
        ),
        (
            "[[secret]]\nname = 's'\nfile = '/no/such'",
            "7:8 the secret's file /no/such cannot be read: No such file or directory (os error 2)",
        ),
        (
            "[[secret]]\nname = 's'\nfile = '/dev/zero'",
            "7:8 the secret's file /dev/zero cannot be read: a secret of more than 65536 bytes is \
             surely a mistake",
        ),
        (
            "[[secret]]\nname = 's'\nvalue = 'x'\n[[secret]]\nname = 's'\nvalue = 'y'",
            "9:8 the secret `s` is there twice",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(&format!("{UPPER}{text}\n")), [expected]);
    }
}

#[test]
fn an_unknown_secret_is_named_with_those_that_there_are() {
    let text = format!("{UPPER}auth = 'hmac-md5'\nsecrets = ['s', 't']\n{SECRET}");
    assert_eq!(problems(&text), ["6:17 unknown secret `t`"]);
    let report = parse(&text).expect_err("unknown secret");
    assert_eq!(report.problems().next().map(|problem| problem.help), Some("the secrets are s"));
}

#[test]
fn names_and_addresses_are_used_once() {
    let again = UPPER.replace("localhost", "LOCALHOST");
    let expected =
        ["6:8 the listener `a` is there twice", "7:11 tcp://localhost:80 is listened on twice"];
    assert_eq!(problems(&format!("{UPPER}{again}")), expected);

    let any_port = UPPER.replace(":80", ":0");
    let other = any_port.replace("'a'", "'b'");
    assert_eq!(plan(&format!("{any_port}{other}")).listeners.len(), 2);
    let udp = UPPER.replace("localhost", "udp://localhost").replace("'a'", "'b'");
    assert_eq!(plan(&format!("{UPPER}{udp}")).listeners.len(), 2);
}

#[test]
fn the_demonstration_secret_stays_on_this_machine() {
    let gate = |address: &str| {
        let upper = UPPER.replace("localhost:80", address);
        format!(
            "{upper}auth = 'hmac-md5'\n[[secret]]\nname = 'd'\nvalue = 'Jedan has a big key!'\n"
        )
    };
    for address in ["127.0.0.1:80", "[::1]:80", "localhost:80", "unix:///run/a"] {
        assert_eq!(plan(&gate(address)).listeners.len(), 1);
    }
    for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
        let report = parse(&gate(address)).expect_err(address);
        let problem = report.problems().next().expect("a problem");
        assert_eq!((problem.line, problem.column), (3, 11));
        assert!(problem.message.contains("the secret `d` is the demonstration secret"));
        assert!(problem.help.contains("`turnstile secret`"));
    }
    let unknown = problems(&gate("nobody.invalid:80"));
    assert!(unknown[0].starts_with("3:11 unknown host `nobody.invalid`"), "{unknown:?}");
    let open = UPPER.replace("localhost", "0.0.0.0");
    assert_eq!(plan(&format!("{open}{SECRET}")).listeners.len(), 1);
}

#[test]
fn every_problem_is_reported_in_the_order_of_the_text() {
    let text = "[limits]\nconnections = 0\n\
                [[listener]]\nadress = 'localhost:80'\nservice = 'uper'\n\
                [[listener]]\nname = 'a'\naddress = 'localhost'\nservice = 'upper'\n\
                [[secret]]\nname = 's'\n[lmits]\n";
    let expected = [
        "2:15 `connections`: 0 is out of range",
        "3:1 [[listener]] has no `name`",
        "3:1 [[listener]] has no `address`",
        "4:1 unknown key `adress` in [[listener]]",
        "5:11 `service`: unknown service `uper`",
        "8:11 `address`: `localhost` is not an address: it has no port; write host:port",
        "10:1 a secret without its source",
        "12:2 unknown key `lmits` in the file",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn a_problem_is_shown_on_its_line() {
    let text = "[[listener]]\nname = 'a'\nadress = 'localhost:80'\naddress = 'localhost:80'\n\
                service = 'upper'\n";
    let expected = "\
error: unknown key `adress` in [[listener]]
 --> test.toml:3:1
  |
3 | adress = 'localhost:80'
  | ^^^^^^ unknown
  |
  = help: did you mean `address`?";
    assert_eq!(rendered(text), expected);
    let coloured = parse(text).expect_err("unknown key").render(true);
    assert!(coloured.contains('\u{1b}') && coloured.contains("did you mean"));
}

#[test]
fn a_problem_on_a_secret_line_gives_its_place_alone() {
    let expected = "\
error: `value`: expected a string, found a whole number
--> test.toml:3:9
 |
 = note: the line is not shown: it may hold a secret
 = help: put it in quotes";
    assert_eq!(rendered(&format!("[[secret]]\nname = 's'\nvalue = 5150\n{UPPER}")), expected);
}

#[test]
fn no_secret_is_ever_shown() {
    let cases = [
        // Not TOML, on the line of the secret or near it.
        "[[secret]]\nname = 's'\nvalue = 'sesame\n",
        "[[secret]]\nname = 's'\nvalue = sesame\n",
        "[[secret]]\nname = 's'\nvalue = 'sesame' x\n",
        "[[secret]]\nname = 's' value = 'sesame'\n",
        "[[secret]]\nname = 's', vlue = 'sesame'\n",
        "[[secret]\nvalue = 'sesame'\n",
        "value = \"se\\qsame sesame\"\n",
        "secret = [{ name = 's', value = 'sesame' ]\n",
        "secret = [\n  { name = 's',\n value = 'sesame' ]\n",
        "[[secret]]\nvalue = '''\n[[listener]]\nsesame = '''\nx\n",
        "[[listener]]\nname = 'a'\nvalue = 'sesame\n",
        "[[listener]]\nname = 'a'\nsecrets = ['sesame\n",
        // TOML, and the secret stands where it should not, or not as it should.
        "[[secret]]\nname = 's'\nvalu = 'sesame'\n",
        "[[secret]]\nname = 's'\nvalue = ['sesame']\n",
        "[[secret]]\nname = 's'\nvalue = { a = 'sesame' }\n",
        "[[secret]]\nname = 's'\nvalue = 'sesame'\nenv = 'X'\n",
        "secret = [{ name = '', value = 'sesame' }]\n",
        "secret = [{ value = '''\nsesame''', name = '' }]\n",
        "secret = { name = 's', value = 'sesame' }\n",
        "secret = 'sesame'\n",
        "secret = ['sesame']\n",
        "secret = [['sesame']]\n",
        "[secret]\nvalue = 'sesame'\n",
        "secrets = [{ name = 's', value = 'sesame' }]\n",
        "[[secrets]]\nvalue = 'sesame'\n",
        "[[listener]]\nname = 'a'\nsecret = 'sesame'\n",
        "[[listener]]\nname = 'a'\npassword = 'sesame'\n",
        "[[listener]]\nvalue = 'sesame'\nname = 5\n",
        "[limits]\nsecret = { value = 'sesame' }\n",
        "value = 'sesame'\n",
    ];
    for text in cases {
        let report = parse(text).expect_err(text);
        for shown in [report.to_string(), report.render(true), format!("{report:?}")] {
            assert!(!shown.contains("same"), "{text}\n{shown}");
        }
        let error = ConfigError::from(report);
        assert!(!format!("{error} {error:?}").contains("same"), "{text}");
    }
    let plan = plan(&format!("{UPPER}{SECRET}"));
    assert!(!format!("{plan:?}{}", config::to_toml(&plan)).contains("same"));
}

#[test]
fn syntax_errors_far_from_secrets_show_their_line() {
    let shown = rendered(&format!("{SECRET}[[listener]]\nname = 'a'\naddress = 'localhost:80\n"));
    assert!(shown.contains("address = 'localhost:80\n"), "{shown}");
}

#[test]
fn secrets_are_fetched_from_files_and_from_the_environment() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let cases: [(&str, &[u8], &[u8]); 4] = [
        ("bare", b"sesame", b"sesame"),
        ("line", b"sesame\n", b"sesame"),
        ("dos", b"sesame\r\n", b"sesame"),
        ("two", b"\xff sesame\n\n", b"\xff sesame\n"),
    ];
    for (name, content, secret) in cases {
        fs::write(folder.path().join(name), content)?;
        let text = format!("{UPPER}[[secret]]\nname = 's'\nfile = '{name}'\n");
        fs::write(folder.path().join("config.toml"), text)?;
        let plan = config::load(&Source::File(folder.path().join("config.toml"))).expect(name);
        assert!(plan.secrets[0].secret.is(secret), "{name}");
        let expected = SecretOrigin::File(folder.path().join(name));
        assert_eq!(plan.secrets[0].origin, expected);
    }

    for (name, content) in [("empty", ""), ("newline", "\n")] {
        fs::write(folder.path().join(name), content)?;
        let text = format!("{UPPER}[[secret]]\nname = 's'\nfile = '{name}'\n");
        let report = config::parse(&text, "test.toml", folder.path()).expect_err(name);
        assert!(report.to_string().contains("an empty secret would let everyone in"));
    }
    fs::write(folder.path().join("long"), vec![b'x'; 65_537])?;
    let text = format!("{UPPER}[[secret]]\nname = 's'\nfile = 'long'\n");
    let report = config::parse(&text, "test.toml", folder.path()).expect_err("too long");
    assert!(report.to_string().contains("a secret of more than 65536 bytes"));

    // Cargo sets this one for every test that it runs.
    let plan = plan(&format!("{UPPER}[[secret]]\nname = 's'\nenv = 'CARGO_PKG_NAME'\n"));
    assert!(plan.secrets[0].secret.is(b"turnstile"));
    assert_eq!(plan.secrets[0].origin, SecretOrigin::Environment("CARGO_PKG_NAME".to_owned()));
    Ok(())
}

#[test]
fn what_cannot_be_read_is_refused() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config.toml");
    let refused = || config::load(&Source::File(path.clone())).expect_err("refused").render(false);
    let at = path.display();

    let missing = refused();
    assert!(missing.starts_with(&format!("error: {at} cannot be read: No such file")), "{missing}");
    fs::write(&path, vec![b'#'; (1 << 20) + 1])?;
    assert_eq!(refused(), format!("error: {at} is longer than 1 MiB; is it a configuration?"));
    fs::write(&path, b"# one\n# \xff\n")?;
    assert_eq!(refused(), format!("error: {at} is not UTF-8 on line 2; save it as UTF-8 text"));
    fs::write(&path, UPPER)?;
    assert!(config::load(&Source::File(path.clone())).is_ok());
    Ok(())
}

#[test]
fn the_command_line_names_the_source() {
    let source = |path: Option<&str>| Source::from_option(path.map(PathBuf::from));
    assert_eq!(source(None), Source::BuiltIn);
    assert_eq!(source(Some("-")), Source::Stdin);
    assert_eq!(source(Some("./-")), Source::File(PathBuf::from("./-")));
}

proptest! {
    #[test]
    fn any_text_is_a_plan_or_a_report(text: String) {
        if let Err(report) = parse(&text) {
            prop_assert!(!report.render(false).is_empty());
        }
    }

    #[test]
    fn any_damage_to_a_configuration_is_a_plan_or_a_report(
        at in 0..BUILT_IN.len(),
        length in 0usize..40,
        patch in "[\\]\\[{}=\"'#a-z0-9\\\\ \n\r\té\u{feff}]{0,8}",
    ) {
        // The built-in configuration is ASCII, so that any place is between two characters.
        let mut text = BUILT_IN.to_owned();
        text.replace_range(at..(at + length).min(BUILT_IN.len()), &patch);
        if let Err(report) = parse(&text) {
            let shown = report.render(false);
            prop_assert!(report.problems().count() >= 1);
            prop_assert!(!shown.contains("Jedan") && !shown.contains("big key"), "{}", shown);
        }
    }
}
