//! What is wrong with a configuration, shown where it stands.
//!
//! Each problem has a message, a place, a label for that place and a sentence that says what would
//! be right. This module collects, orders and renders them; it judges nothing.
//!
//! Invariant: a line that holds, or may hold, a secret is never rendered: such a problem gives its
//! line and column alone. Only the line that a problem begins on is ever shown.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Origin, Padding, Renderer, Snippet};
use zeroize::Zeroizing;

/// Everything that is wrong with one configuration, in the order of its text.
pub struct Report {
    origin: String,
    text: Zeroizing<String>,
    found: Vec<(Range<usize>, Fault)>,
    hidden: Vec<Range<usize>>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem<'a> {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: &'a str,
    /// What would be right.
    pub help: &'a str,
}

impl Report {
    /// The problems, in the order of the text; at least one.
    pub fn problems(&self) -> impl Iterator<Item = Problem<'_>> {
        self.found.iter().map(|(span, fault)| {
            let place = Place::of(&self.text, span);
            let (line, column) = (place.line, place.column);
            Problem { line, column, message: &fault.message, help: &fault.help }
        })
    }

    /// The report for people: each problem with its line, its label and what would be right.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = renderer(colour);
        let rendered: Vec<_> = self
            .found
            .iter()
            .map(|(span, fault)| self.render_one(&renderer, span, fault))
            .collect();
        rendered.join("\n\n")
    }

    fn render_one(&self, renderer: &Renderer, span: &Range<usize>, fault: &Fault) -> String {
        let place = Place::of(&self.text, span);
        let title = Level::ERROR.primary_title(fault.message.as_str());
        let help = Level::HELP.message(fault.help.as_str());
        let group = if self.hidden.iter().any(|hidden| place.touches(hidden)) {
            let origin = Origin::path(&self.origin).line(place.line).char_column(place.column);
            let note = Level::NOTE.message("the line is not shown: it may hold a secret");
            title.element(origin).element(Padding).element(note).element(help)
        } else {
            let mark = AnnotationKind::Primary.span(place.mark).label(fault.label.as_str());
            let snippet = Snippet::source(&self.text[place.whole_line])
                .line_start(place.line)
                .path(&self.origin)
                .annotation(mark);
            title.element(snippet).element(help)
        };
        renderer.render(&[group])
    }
}

/// Keys whose values are no secrets.
const PUBLIC_KEYS: [&str; 26] = [
    "address",
    "amplify",
    "answers_per_second",
    "auth",
    "buffer",
    "connect",
    "connections",
    "connections_per_ip",
    "drain",
    "half_close",
    "head",
    "idle",
    "lifetime",
    "name",
    "proxy",
    "proxy_protocol",
    "proxy_protocol_from",
    "service",
    "target",
    "text",
    "to",
    "unauthenticated",
    "unix_mode",
    "upstream",
    "user_timeout",
    "timeouts",
];

/// Whether the line of a syntax error is sure to hold no secret.
///
/// Where the syntax is wrong, any text may turn out to be inside a string, so this goes by the look
/// of the lines: shown are those of sections that hold no secrets, where the line is a header or
/// begins with a key that is no secret's, and no string of several lines has begun before.
pub(super) fn syntax_may_show(text: &str, span: &Range<usize>) -> bool {
    let whole_line = Place::of(text, span).whole_line;
    let (line, so_far) = (&text[whole_line.clone()], &text[..whole_line.end]);
    let header = so_far.lines().rfind(|line| line.trim_start().starts_with('['));
    let safe_section = header.is_some_and(|header| {
        (header.contains("limits") || header.contains("listener")) && !header.contains("secret")
    });
    let suspect = |mark| so_far.contains(mark);
    // Damage may have swallowed the line of a secret, so what the line is counts, not what it is not.
    let is_header = line.starts_with('[') && !line.contains(['=', '"', '\'']);
    let key = line.split('=').next().unwrap_or_default().trim();
    safe_section
        && (is_header || PUBLIC_KEYS.contains(&key))
        && !line.contains(['#', '\r'])
        && !line.contains("value")
        && !line.contains("secret")
        && !suspect("\"\"\"")
        && !suspect("'''")
}

/// Renders an error that has no place in a text.
pub(super) fn render_message(message: &str, colour: bool) -> String {
    let title = Level::ERROR.primary_title(message);
    renderer(colour).render(&[annotate_snippets::Group::with_title(title)])
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.problems()).finish()
    }
}

impl std::error::Error for Report {}

/// One thing that is wrong, without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What is wrong. Never the bytes of a secret.
    pub(super) message: String,
    /// A few words about the marked place.
    pub(super) label: String,
    /// What would be right.
    pub(super) help: String,
}

impl Fault {
    pub(super) fn new(
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { message: message.into(), label: label.into(), help: help.into() }
    }
}

/// What has been found so far; becomes a [`Report`].
#[derive(Default)]
pub(super) struct Faults {
    found: Vec<(Range<usize>, Fault)>,
    hidden: Vec<Range<usize>>,
}

impl Faults {
    pub(super) fn add(&mut self, span: Range<usize>, fault: Fault) {
        self.found.push((span, fault));
    }

    /// Keeps every line that `span` touches out of the report.
    pub(super) fn hide(&mut self, span: Range<usize>) {
        self.hidden.push(span);
    }

    pub(super) fn are_none(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn into_report(mut self, origin: &str, text: &str) -> Report {
        self.found.sort_by_key(|(span, _)| span.start);
        Report {
            origin: origin.to_owned(),
            text: Zeroizing::new(text.to_owned()),
            found: self.found,
            hidden: self.hidden,
        }
    }
}

/// Where in the text a span begins, and how much of that line it covers.
struct Place {
    line: usize,
    column: usize,
    /// The line without its end.
    whole_line: Range<usize>,
    /// The part of the span on the line, counted from the line's start.
    mark: Range<usize>,
}

impl Place {
    /// Takes any span: the parser's may lie behind the end or inside a character.
    fn of(text: &str, span: &Range<usize>) -> Self {
        let start = floor_char_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[line_start..].lines().next().unwrap_or("");
        let line_end = line_start + line.len();
        let start = start.min(line_end);
        let end = floor_char_boundary(text, span.end).clamp(start, line_end);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            whole_line: line_start..line_end,
            mark: start - line_start..end - line_start,
        }
    }

    fn touches(&self, span: &Range<usize>) -> bool {
        span.start <= self.whole_line.end && self.whole_line.start <= span.end
    }
}

/// The nearest place at or before `at` where a character begins, or the end of the text.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn renderer(colour: bool) -> Renderer {
    if colour { Renderer::styled() } else { Renderer::plain() }
}
