//! The recipes as their reader has them: the commands of a section of `examples/recipes/README.md`,
//! and what it says that they print.

use std::fs;
use std::path::{Path, PathBuf};

/// A command and what it prints.
pub(crate) struct Step {
    /// Whether it runs on the far machine, with the servers.
    pub(crate) is_far: bool,
    /// The command, for a shell.
    pub(crate) command: String,
    /// What it prints, with `...` for what differs from run to run.
    pub(crate) output: String,
}

/// The folder of the recipes.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes")
}

/// The steps in the console blocks of a section.
pub(crate) fn steps(section: &str) -> Vec<Step> {
    let text = fs::read_to_string(folder().join("README.md")).expect("it is there");
    let (_, section) = text.split_once(&format!("\n## {section}\n")).expect(section);
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let mut steps = Vec::new();
    for block in section.split("```console\n").skip(1) {
        let (block, _) = block.split_once("```").expect("an end of the block");
        for line in block.replace("\\\n", "").lines() {
            read_line(line, &mut steps);
        }
    }
    steps
}

fn read_line(line: &str, steps: &mut Vec<Step>) {
    let far = line.strip_prefix("far$ ");
    if let Some(command) = far.or_else(|| line.strip_prefix("$ ")) {
        let (command, output) = (command.to_owned(), String::new());
        steps.push(Step { is_far: far.is_some(), command, output });
    } else {
        let step = steps.last_mut().expect("a command before its output");
        step.output.push_str(line);
        step.output.push('\n');
    }
}

/// Whether these lines are what the reader was told, `expected`, in which `...` stands for any
/// part of a line.
pub(crate) fn is_as_told(text: &str, expected: &str) -> bool {
    text.lines().count() == expected.lines().count()
        && text.lines().zip(expected.lines()).all(|(line, expected)| is_line(line, expected))
}

fn is_line(line: &str, expected: &str) -> bool {
    let Some((start, rest)) = expected.split_once("...") else { return line == expected };
    let Some(mut line) = line.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once("...").unwrap_or(("", rest));
    for part in middle.split("...") {
        let Some((_, after)) = line.split_once(part) else { return false };
        line = after;
    }
    line.ends_with(end)
}

#[test]
fn dots_stand_for_a_part_of_a_line() {
    for (text, expected) in [
        ("all of it\n", "all of it\n"),
        ("one and two\n", "...two\n"),
        ("one and two\nthree", "one... two\n...three"),
        ("one, two, three, four", "one...two...three...r"),
        ("", ""),
    ] {
        assert!(is_as_told(text, expected), "{text}, {expected}");
    }
    for (text, expected) in [
        ("all of it", "all of"),
        ("one two", "one...three"),
        ("two one", "...two...one...two"),
        ("one\nan error", "one..."),
        ("one", "one\n..."),
    ] {
        assert!(!is_as_told(text, expected), "{text}, {expected}");
    }
}
