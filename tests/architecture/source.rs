//! A source as the rules see it: the tokens of its code, and the paths that these name. Comments,
//! strings and tests are left out.

use std::fmt;

/// Names joined by `::`, one for each leaf of an import.
pub(crate) struct NamedPath {
    pub(crate) line: usize,
    pub(crate) names: Vec<String>,
}

impl NamedPath {
    /// Whether the names of `wanted` stand in it, one after the other; a lone one, such as that
    /// of a crate, must be the first.
    pub(crate) fn has(&self, wanted: &str) -> bool {
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
pub(crate) fn paths(tokens: &[Token<'_>]) -> Vec<NamedPath> {
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
pub(crate) struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Token<'_> {
    fn is_name(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// The tokens of a source, without its comments, strings and characters.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
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
pub(crate) fn without_tests<'a>(tokens: &[Token<'a>]) -> (Vec<Token<'a>>, usize) {
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
