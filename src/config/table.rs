//! Reads one TOML table, key by key.
//!
//! Every key that is asked for is thereby known; what is left when the table is finished is an
//! unknown key. What a value means is for [`super::values`] to say, and whether values go together
//! for [`super::check`].
//!
//! Invariant: all faults of a table are found, not only the first: a value that is wrong counts as
//! absent, and reading goes on.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Fault, Faults};
use super::values::{self, wrong_type};

/// A table that is being read.
pub(super) struct Table<'t> {
    /// How the table is written in a file, for messages: `[[listener]]`.
    header: &'static str,
    span: Range<usize>,
    entries: DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'t> Table<'t> {
    pub(super) fn new(header: &'static str, table: Spanned<DeTable<'t>>) -> Self {
        Self { header, span: table.span(), entries: table.into_inner(), known: Vec::new() }
    }

    /// The place of the table's header.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether a key that was not yet taken is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether a key that was not yet taken is absent, or an array of nothing.
    pub(super) fn lacks(&self, key: &str) -> bool {
        let value = self.entries.get(key).map(Spanned::get_ref);
        value.is_none_or(|value| value.as_array().is_some_and(|array| array.is_empty()))
    }

    /// Keeps the lines of a key's value out of every report.
    pub(super) fn hide(&self, key: &str, faults: &mut Faults) {
        if let Some(value) = self.entries.get(key) {
            hide_scalars(value, faults);
        }
    }

    /// Takes what `key` holds, if it is there and `read` approves of it.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(DeValue<'t>) -> Result<T, Fault>,
        faults: &mut Faults,
    ) -> Option<Spanned<T>> {
        self.known.push(key);
        let value = self.entries.remove(key)?;
        let span = value.span();
        match read(value.into_inner()) {
            Ok(value) => Some(Spanned::new(span, value)),
            Err(mut fault) => {
                fault.message = format!("`{key}`: {}", fault.message);
                faults.add(span, fault);
                None
            }
        }
    }

    /// Takes what `key` holds; a fault if it is not there.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(DeValue<'t>) -> Result<T, Fault>,
        faults: &mut Faults,
    ) -> Option<Spanned<T>> {
        if !self.has(key) {
            let message = format!("{} has no `{key}`", self.header);
            let help = format!("add a line `{key} = ...` below it");
            faults.add(self.span(), Fault::new(message, "here", help));
        }
        self.take(key, read, faults)
    }

    /// Takes the table below `key`, written `header`.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        header: &'static str,
        faults: &mut Faults,
    ) -> Option<Table<'t>> {
        self.take(key, |value| values::table(value, header), faults)
            .map(|table| Table::new(header, table))
    }

    /// Takes the array of tables below `key`, each written `header`.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        header: &'static str,
        faults: &mut Faults,
    ) -> Vec<Table<'t>> {
        if !self.entries.get(key).is_some_and(|value| value.get_ref().is_array()) {
            self.hide(key, faults);
        }
        let found = self.take(key, |value| values::tables(value, header), faults);
        let elements = found.into_iter().flat_map(Spanned::into_inner);
        elements.filter_map(|element| element_table(element, header, faults)).collect()
    }

    /// Every key that is left is unknown.
    pub(super) fn finish(self, faults: &mut Faults) {
        for (key, value) in &self.entries {
            let near = closest(key.get_ref(), &self.known);
            if !near.is_some_and(|near| self.holds_no_secret(near)) {
                hide_scalars(value, faults);
            }
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let message = format!("unknown key `{}` in {}", key.get_ref(), self.header);
            faults.add(key.span(), Fault::new(message, "unknown", help));
        }
    }

    /// A misspelt key may be a misspelt place for a secret.
    fn holds_no_secret(&self, near: &str) -> bool {
        const HARMLESS: [&str; 6] = [
            "[limits]",
            "[resolver]",
            "[[listener]]",
            "[listener.timeouts]",
            "[listener.tls]",
            "certificates = [{ cert, key }]",
        ];
        HARMLESS.contains(&self.header) && near != "secrets"
    }
}

fn element_table<'t>(
    element: Spanned<DeValue<'t>>,
    header: &'static str,
    faults: &mut Faults,
) -> Option<Table<'t>> {
    let span = element.span();
    match element.into_inner() {
        DeValue::Table(table) => Some(Table::new(header, Spanned::new(span, table))),
        other => {
            faults.hide(span.clone());
            faults.add(span, wrong_type(&other, "a table", &format!("write {header}")));
            None
        }
    }
}

/// Hides the values inside `value`, not the headers and keys of its tables.
fn hide_scalars(value: &Spanned<DeValue<'_>>, faults: &mut Faults) {
    match value.get_ref() {
        DeValue::Table(table) => table.values().for_each(|value| hide_scalars(value, faults)),
        DeValue::Array(array) => array.iter().for_each(|value| hide_scalars(value, faults)),
        _ => faults.hide(value.span()),
    }
}

/// The known word that `word` is most likely meant to be: at most a third of it is wrong.
fn closest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let distances = known.iter().map(|candidate| (edit_distance(word, candidate), *candidate));
    let (distance, candidate) = distances.min()?;
    (distance <= candidate.len().div_ceil(3)).then_some(candidate)
}

/// How many characters to insert, remove or replace to make `from` into `to` (Levenshtein).
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["address", "service", "secrets", "auth"];
        let cases = [
            ("adress", Some("address")),
            ("Address", Some("address")),
            ("servcie", Some("service")),
            ("secret", Some("secrets")),
            ("oath", Some("auth")),
            ("tls", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(closest(word, &known), expected, "{word}");
        }
    }

    #[test]
    fn the_edit_distance_counts_edits() {
        let cases = [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)];
        for (from, to, expected) in cases {
            assert_eq!(edit_distance(from, to), expected);
            assert_eq!(edit_distance(to, from), expected);
        }
    }
}
