//! The house rules that a compiler does not know, read off the sources: imports run one way, the
//! core is pure, one folder names mio, nobody starts a thread, no file grows without end.
//!
//! This reads tokens, not types: it resolves `crate`, `self` and `super` and nothing else. That is
//! enough to catch whoever breaks a rule without noticing, which is whom it is for.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

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
    let mut violations = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source is UTF-8 text");
        let name = file.strip_prefix(&src).expect("it was found there").to_owned();
        violations.extend(check(&name, &text));
    }
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
        if let Some(other) = imported_module(&module, &path.names)
            && other != own
            && tier_of(&other).is_some_and(|tier| tier <= own_tier)
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

/// The top-level module of this crate that a path named in `module` leads to, if to any.
fn imported_module(module: &[String], names: &[String]) -> Option<String> {
    let ups = names.iter().take_while(|name| *name == "super").count();
    if ups > 0 {
        let reached = &module[..module.len().saturating_sub(ups)];
        return reached.iter().chain(&names[ups..]).next().cloned();
    }
    match names.first()?.as_str() {
        "crate" | "turnstile" => names.get(1).cloned(),
        _ => None,
    }
}

/// Names joined by `::`, one for each leaf of an import.
struct NamedPath {
    line: usize,
    names: Vec<String>,
}

impl NamedPath {
    /// Whether the names of `wanted` stand in it, one after the other; a lone one, such as that
    /// of a crate, must be the first.
    fn has(&self, wanted: &str) -> bool {
        let wanted: Vec<&str> = wanted.split("::").collect();
        match wanted[..] {
            [only] => self.names.first().is_some_and(|name| name == only),
            _ => self.names.windows(wanted.len()).any(|names| names == wanted),
        }
    }
}

impl fmt::Display for NamedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join("::"))
    }
}

/// Every path in a source. Braces after `::` are those of an import and branch the path.
fn paths(tokens: &[Token<'_>]) -> Vec<NamedPath> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is_name() {
            at = follow(tokens, at, &mut Vec::new(), &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Follows the path whose next name stands `at`, after those of `prefix`; answers where it ends.
fn follow<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &mut Vec<&'a str>,
    found: &mut Vec<NamedPath>,
) -> usize {
    let depth = prefix.len();
    let line = tokens[at].line;
    loop {
        prefix.push(tokens[at].text);
        at += 1;
        if tokens.get(at).is_none_or(|token| token.text != "::") {
            break;
        }
        match tokens.get(at + 1) {
            Some(next) if next.is_name() => at += 1,
            Some(next) if next.text == "{" => {
                at = follow_group(tokens, at + 2, prefix, found);
                prefix.truncate(depth);
                return at;
            }
            _ => break,
        }
    }
    found.push(NamedPath { line, names: prefix.iter().map(ToString::to_string).collect() });
    prefix.truncate(depth);
    at
}

fn follow_group<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &mut Vec<&'a str>,
    found: &mut Vec<NamedPath>,
) -> usize {
    while let Some(token) = tokens.get(at) {
        if token.text == "}" {
            return at + 1;
        }
        at = if token.is_name() { follow(tokens, at, prefix, found) } else { at + 1 };
    }
    at
}

/// A name, `::`, or a single other character.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Token<'_> {
    fn is_name(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// The tokens of a source, without its comments, strings and characters.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (len, is_code) = match first {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            _ if rest.starts_with("/*") => (rest.find("*/").map_or(rest.len(), |at| at + 2), false),
            _ if raw_string_len(rest) > 0 => (raw_string_len(rest), false),
            '"' => (quoted_len(rest, '"'), false),
            '\'' if is_character(rest) => (quoted_len(rest, '\''), false),
            _ if rest.starts_with("::") => (2, true),
            _ if first.is_alphanumeric() || first == '_' => {
                let is_inside = |it: char| it.is_alphanumeric() || it == '_';
                (rest.find(|it| !is_inside(it)).unwrap_or(rest.len()), true)
            }
            _ => (first.len_utf8(), !first.is_whitespace()),
        };
        let (taken, left) = rest.split_at(len);
        if is_code {
            found.push(Token { text: taken, line });
        }
        line += taken.matches('\n').count();
        rest = left;
    }
    found
}

/// The length of the quoted text that `rest` begins with, quotes included.
fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of the raw string that `rest` begins with, or 0.
fn raw_string_len(rest: &str) -> usize {
    let Some(after) = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')) else { return 0 };
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = rest.len() - after.len() + hashes + 1;
    rest[body..].find(&close).map_or(rest.len(), |at| body + at + close.len())
}

/// Whether a quote begins a character, and not the name of a lifetime.
fn is_character(rest: &str) -> bool {
    let mut following = rest.chars().skip(1);
    following.next() == Some('\\') || following.next() == Some('\'')
}

/// What is left without the items marked `#[cfg(test)]`, and how many lines those take.
fn without_tests<'a>(tokens: &[Token<'a>]) -> (Vec<Token<'a>>, usize) {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut lines) = (Vec::new(), 0);
    let mut at = 0;
    while at < tokens.len() {
        let is_mark = tokens.len() - at >= MARK.len()
            && MARK.iter().zip(&tokens[at..]).all(|(mark, token)| *mark == token.text);
        if is_mark {
            let end = item_end(tokens, at + MARK.len());
            lines += tokens[end - 1].line - tokens[at].line + 1;
            at = end;
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    (kept, lines)
}

/// Where the item that begins `at` ends: after its `;`, or after the brace that closes it.
fn item_end(tokens: &[Token<'_>], at: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            ";" if depth == 0 => return index + 1,
            "{" => depth += 1,
            "}" if depth == 1 => return index + 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
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
