//! The house rules that a compiler does not know, read off the sources: imports run one way, between
//! folders and within most, the core is pure, one folder names mio, nobody starts a thread, no file
//! grows without end.
//!
//! This reads tokens, not types: it resolves `crate`, `self` and `super` and nothing else. That is
//! enough to catch whoever breaks a rule without noticing, which is whom it is for.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use source::{paths, tokens, without_tests};

/// From the top of the house down. A module imports from below its own tier only, so the modules
/// of one tier do not know each other.
const TIERS: [&[&str]; 6] = [
    &["main", "lib"],
    &["load_command"],
    &["cli"],
    &["daemon", "client", "load"],
    &["config", "net", "certificates"],
    &["proto"],
];

/// Folders within which imports run one way too, so that each file can be read without those above
/// it. What a folder's `mod.rs` names does not count.
const ONE_WAY: [&str; 6] = ["certificates", "client", "daemon", "load", "net", "proto"];

/// What would make the core depend on the machine it runs on: sockets, files, clocks, chance.
const IMPURE: [&str; 10] = [
    "mio",
    "rustls",
    "rand",
    "std::net",
    "std::fs",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

/// How many lines a file may have, its test module not counted.
const LINE_LIMIT: usize = 600;

#[test]
fn the_sources_keep_the_rules_of_the_house() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&src);
    assert!(files.len() > 30, "found only {} sources under {}", files.len(), src.display());
    let named = files.into_iter().map(|file| {
        let text = fs::read_to_string(&file).expect("a source is UTF-8 text");
        (file.strip_prefix(&src).expect("it was found there").to_owned(), text)
    });
    let named: Vec<_> = named.collect();
    let mut violations = circles(&named);
    violations.extend(named.iter().flat_map(|(file, text)| check(file, text)));
    let report: Vec<_> = violations.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "the house rules are broken:\n{}", report.join("\n"));
}

/// A rule that a line breaks.
#[derive(Debug)]
struct Violation {
    file: PathBuf,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file.display(), self.line, self.rule)
    }
}

/// Every rule that the source `text` of `file`, a path below `src`, breaks.
fn check(file: &Path, text: &str) -> Vec<Violation> {
    let module = module_of(file);
    if module.iter().any(|name| name == "tests") {
        return Vec::new();
    }
    let violation = |line, rule| Violation { file: file.to_owned(), line, rule };
    let own = module[0].as_str();
    let Some(own_tier) = tier_of(own) else {
        return vec![violation(1, format!("`{own}` stands in no tier: give it one"))];
    };
    let (tokens, test_lines) = without_tests(&tokens(text));
    let mut violations = Vec::new();
    for path in paths(&tokens) {
        let mut broken = |rule| violations.push(violation(path.line, rule));
        if let Some(other) = imported(&module, &path.names).first()
            && other != own
            && tier_of(other).is_some_and(|tier| tier <= own_tier)
        {
            broken(format!("`{path}` runs against the arrows: {own} must not know {other}"));
        }
        if own == "proto"
            && let Some(name) = IMPURE.iter().find(|name| path.has(name))
        {
            broken(format!("`{path}`: proto is pure and does not name {name}"));
        }
        if own != "net" && path.has("mio") {
            broken(format!("`{path}`: only net names mio"));
        }
        if path.has("std::thread") || path.has("thread::spawn") {
            broken(format!("`{path}`: there are no threads here"));
        }
    }
    let lines = text.lines().count() - test_lines;
    if lines > LINE_LIMIT {
        let rule = format!("{lines} lines without its tests, and {LINE_LIMIT} is the most");
        violations.push(violation(LINE_LIMIT + 1, rule));
    }
    violations
}

/// Every `.rs` file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("its entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn tier_of(module: &str) -> Option<usize> {
    TIERS.iter().position(|tier| tier.contains(&module))
}

/// The path of the module that a file is: `net/tls.rs` and `net/tls/mod.rs` are `net`, `tls`.
fn module_of(file: &Path) -> Vec<String> {
    let whole = file.with_extension("");
    let mut names: Vec<String> =
        whole.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.len() > 1 && names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names
}

/// Where in this crate a path named in `module` leads, from the top; empty where it leads elsewhere.
fn imported(module: &[String], names: &[String]) -> Vec<String> {
    let ups = names.iter().take_while(|name| *name == "super").count();
    if ups > 0 {
        let reached = &module[..module.len().saturating_sub(ups)];
        return reached.iter().chain(&names[ups..]).cloned().collect();
    }
    match names.first().map(String::as_str) {
        Some("crate" | "turnstile") => names[1..].to_vec(),
        _ => Vec::new(),
    }
}

/// An import of one file or folder from another that stands beside it.
struct Import {
    from: String,
    to: String,
    place: (PathBuf, usize),
}

/// Every import between files of [`ONE_WAY`] folders that is part of a circle.
fn circles(files: &[(PathBuf, String)]) -> Vec<Violation> {
    let mut folders: BTreeMap<Vec<String>, Vec<Import>> = BTreeMap::new();
    for (file, text) in files {
        let module = module_of(file);
        if !ONE_WAY.contains(&module[0].as_str()) || module.iter().any(|name| name == "tests") {
            continue;
        }
        for path in paths(&without_tests(&tokens(text)).0) {
            let target = imported(&module, &path.names);
            let depth = module.iter().zip(&target).take_while(|(own, other)| own == other).count();
            if let (1.., Some(from), Some(to)) = (depth, module.get(depth), target.get(depth)) {
                let place = (file.clone(), path.line);
                let import = Import { from: from.clone(), to: to.clone(), place };
                folders.entry(module[..depth].to_vec()).or_default().push(import);
            }
        }
    }
    folders.into_values().flat_map(tangle).collect()
}

/// What is left of the imports of one folder when those that lead out of every circle are taken away.
fn tangle(mut imports: Vec<Import>) -> Vec<Violation> {
    loop {
        let before = imports.len();
        let sources: BTreeSet<_> = imports.iter().map(|import| import.from.clone()).collect();
        let targets: BTreeSet<_> = imports.iter().map(|import| import.to.clone()).collect();
        imports.retain(|it| sources.contains(&it.to) && targets.contains(&it.from));
        if imports.len() == before {
            break;
        }
    }
    let violation = |Import { from, to, place: (file, line) }| Violation {
        file,
        line,
        rule: format!("`{from}` names `{to}`, which leads back to it: untangle the two"),
    };
    imports.into_iter().map(violation).collect()
}

mod the_checker {
    //! A check that cannot fail checks nothing: here it is made to.

    use super::*;

    /// What is said of a made-up source.
    fn said(file: &str, text: &str) -> Vec<String> {
        check(Path::new(file), text).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn objects(file: &str, text: &str, place: &str, word: &str) {
        let said = said(file, text);
        assert_eq!(said.len(), 1, "{text}: {said:?}");
        assert!(said[0].starts_with(&format!("src/{place}: ")), "{said:?}");
        assert!(said[0].contains(word), "{said:?}");
    }

    /// Where circles are found in made-up sources.
    fn tangled(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> =
            files.iter().map(|(file, text)| (PathBuf::from(file), (*text).to_owned())).collect();
        let places = circles(&files);
        places.iter().map(|it| format!("{}:{}", it.file.display(), it.line)).collect()
    }

    #[track_caller]
    fn allows(file: &str, text: &str) {
        assert_eq!(said(file, text), [""; 0], "{text}");
    }

    #[test]
    fn objects_to_an_arrow_that_runs_back() {
        let against = "against the arrows";
        objects("net/tls.rs", "\nuse crate::config::Plan;", "net/tls.rs:2", against);
        objects("proto/a.rs", "use crate::net::tls;", "proto/a.rs:1", against);
        objects("config/mod.rs", "fn f() { crate::daemon::start() }", "config/mod.rs:1", against);
        objects("client/a.rs", "use super::super::daemon::log;", "client/a.rs:1", against);
        objects("client/mod.rs", "use super::load::plan;", "client/mod.rs:1", against);
        objects(
            "daemon/a.rs",
            "use crate::{\n  net::udp,\n  client::b\n};",
            "daemon/a.rs:3",
            against,
        );
        objects("cli.rs", "use crate::main;", "cli.rs:1", against);
    }

    #[test]
    fn objects_to_files_that_name_each_other_in_a_circle() {
        let (top, low) = (("load/run.rs", "use super::a;"), ("load/low.rs", "use std::io;"));
        let (a, b) =
            (("load/a.rs", "\nuse super::b::B;"), ("load/b.rs", "use super::{low, c::C};"));
        let c = ("load/c/mod.rs", "use crate::load::a::A;");
        assert_eq!(
            tangled(&[top, a, b, c, low]),
            ["load/a.rs:2", "load/b.rs:1", "load/c/mod.rs:1"]
        );
        assert_eq!(tangled(&[top, a, b, low]), [""; 0]);
        let deep = [("net/tls/a.rs", "use super::b;"), ("net/tls/b.rs", "use super::a;")];
        assert_eq!(tangled(&deep), ["net/tls/a.rs:1", "net/tls/b.rs:1"]);
        let parent =
            [("net/tls/mod.rs", "use crate::net::tls::a;"), ("net/tls/a.rs", "use super::A;")];
        assert_eq!(tangled(&parent), [""; 0]);
    }

    #[test]
    fn allows_the_arrows_that_run_down() {
        allows("daemon/a.rs", "use crate::{config::Plan, net::{udp, tls}, proto::end::End};");
        allows("daemon/deep/a.rs", "use super::super::log; use super::b; use self::c;");
        allows("main.rs", "mod cli; use cli::Cli; use turnstile::daemon;");
        allows("proto/service/a.rs", "use super::super::pipe::Pipe; use crate::proto::end::End;");
    }

    #[test]
    fn objects_to_a_core_that_is_not_pure() {
        for name in IMPURE.iter().filter(|name| !["mio", "std::thread"].contains(name)) {
            objects("proto/a.rs", &format!("fn f() {{ {name}::g(); }}"), "proto/a.rs:1", name);
        }
        objects("proto/a.rs", "use std::{io, net::IpAddr};", "proto/a.rs:1", "std::net");
        objects(
            "proto/a.rs",
            "let now = std::time::Instant::now();",
            "proto/a.rs:1",
            "Instant::now",
        );
        allows("proto/a.rs", "use std::time::Instant; fn f(now: Instant, operand: u8) {}");
        allows("net/a.rs", "use std::net::IpAddr; use mio::Poll; use std::time::SystemTime;");
    }

    #[test]
    fn objects_to_mio_outside_net() {
        objects("daemon/a.rs", "use mio::Interest;", "daemon/a.rs:1", "only net names mio");
        objects("client/a.rs", "type It = mio::Token;", "client/a.rs:1", "only net names mio");
    }

    #[test]
    fn objects_to_threads() {
        objects("net/a.rs", "use std::{thread};", "net/a.rs:1", "no threads");
        objects("net/a.rs", "std::thread::scope(|_| ());", "net/a.rs:1", "no threads");
        objects("net/a.rs", "fn f() {\n thread::spawn(g); }", "net/a.rs:2", "no threads");
    }

    #[test]
    fn objects_to_a_file_without_end() {
        let long = "fn f() {}\n".repeat(LINE_LIMIT);
        allows("net/a.rs", &long);
        allows("net/a.rs", &format!("{long}#[cfg(test)]\nmod tests {{\n  mod more {{}}\n}}\n"));
        objects("net/a.rs", &format!("{long}\n"), "net/a.rs:601", "601 lines");
    }

    #[test]
    fn objects_to_a_module_without_a_tier() {
        objects("misc/a.rs", "", "misc/a.rs:1", "no tier");
    }

    #[test]
    fn looks_through_comments_strings_and_tests() {
        allows("proto/a.rs", "//! mio::Poll\n/* rand::rng() */ const A: &str = \"mio::Poll\";");
        allows("proto/a.rs", "const A: &str = r#\"say \"mio::Poll\"\"#; const B: char = '\"';");
        allows(
            "proto/a.rs",
            "const A: &str = \"\\\"mio::Poll\"; fn f<'a>(b: &'a u8) -> &'a u8 { b }",
        );
        allows("proto/a.rs", "#[cfg(test)]\nmod tests { fn f() { Instant::now() } }");
        allows("proto/a/tests.rs", "use std::net::IpAddr;");
        allows("proto/a/tests/b.rs", "use std::net::IpAddr;");
        let after = "#[cfg(test)]\nmod tests { mod a {} }\nuse mio::Poll;";
        objects("daemon/a.rs", after, "daemon/a.rs:3", "only net names mio");
    }
}
