//! Reads sections out of the parsed file with their places.
//!
//! The tree of `toml` is walked here rather than handed to serde, since serde stops at the first wrong
//! type or unknown key, and all faults are to be told at once.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::{Complaint, ConfigError, nearest};

/// The text being read and what was found wrong with it so far.
pub(super) struct Reader<'a> {
    file: &'a str,
    line_starts: Vec<usize>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, text: &str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self { file, line_starts: std::iter::once(0).chain(after_breaks).collect(), errors: RefCell::new(Vec::new()) }
    }

    /// The line, from 1, that holds the first byte of `span`.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.line_starts.partition_point(|start| *start <= span.start).max(1)
    }

    /// Where paths of the file that are not absolute begin: its own directory.
    pub(super) fn directory(&self) -> &Path {
        Path::new(self.file).parent().unwrap_or(Path::new(""))
    }

    pub(super) fn complain(&self, line: usize, key: &str, complaint: Complaint) {
        self.errors.borrow_mut().push(complaint.at(self.file, line, key));
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }
}

/// A value with its place. `broken` marks a stand-in for a value that was complained about; checks over
/// several values leave it out, so that one fault gives one line.
#[derive(Debug, Clone)]
pub(super) struct Field<T> {
    pub(super) value: T,
    pub(super) line: usize,
    pub(super) broken: bool,
    /// False for a default.
    pub(super) written: bool,
}

impl<T> Field<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Field<U> {
        Field { value: f(self.value), line: self.line, broken: self.broken, written: self.written }
    }
}

/// One table of the file, or the absence of it.
pub(super) struct Section<'a, 'i> {
    pub(super) reader: &'a Reader<'a>,
    /// How its keys are named in complaints, without a final dot; empty for the file itself.
    pub(super) path: String,
    /// How its header names it in the file: without the names of single sections.
    header: String,
    /// The line of its header.
    pub(super) line: usize,
    table: Option<&'a DeTable<'i>>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn root(reader: &'a Reader<'a>, table: &'a DeTable<'i>) -> Self {
        Self { reader, path: String::new(), header: String::new(), line: 1, table: Some(table) }
    }

    /// The full name of a key of this section.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The header of a section of this one.
    fn header(&self, key: &str) -> String {
        if self.header.is_empty() { key.to_owned() } else { format!("{}.{key}", self.header) }
    }

    /// Complains of every key that is not in `known`.
    pub(super) fn allow(&self, known: &[&str]) {
        for (key, _) in self.table.into_iter().flat_map(|t| t.iter()) {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let fix = match nearest(name, known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("remove it, or use one of {}", known.join(", ")),
                };
                let line = self.reader.line(&key.span());
                self.reader.complain(line, &self.key(name), Complaint::new("unknown key", fix));
            }
        }
    }

    pub(super) fn complain(&self, line: usize, key: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.reader.complain(line, &self.key(key), Complaint::new(what, fix));
    }

    /// The line of a key, where it is there.
    pub(super) fn line_of(&self, key: &str) -> Option<usize> {
        self.get(key).map(|(_, line)| line)
    }

    fn get(&self, key: &str) -> Option<(&'a Spanned<DeValue<'i>>, usize)> {
        let (name, value) = self.table?.get_key_value(key)?;
        Some((value, self.reader.line(&name.span())))
    }

    /// The value of `key` as `parse` understands it; `None` where the key is absent.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        stand_in: T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Complaint>,
    ) -> Option<Field<T>> {
        let (value, line) = self.get(key)?;
        Some(match parse(value.get_ref()) {
            Ok(value) => Field { value, line, broken: false, written: true },
            Err(complaint) => {
                self.reader.complain(line, &self.key(key), complaint);
                Field { value: stand_in, line, broken: true, written: true }
            }
        })
    }

    /// The value of `key`, or `default` with the section's line where the key is absent.
    pub(super) fn or<T: Clone>(
        &self,
        key: &str,
        default: T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Complaint>,
    ) -> Field<T> {
        let line = self.line;
        self.optional(key, default.clone(), parse).unwrap_or(Field {
            value: default,
            line,
            broken: false,
            written: false,
        })
    }

    /// The value of `key`; its absence is complained of, with `example` as the remedy.
    pub(super) fn required<T>(
        &self,
        key: &str,
        stand_in: T,
        example: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Complaint>,
    ) -> Field<T>
    where
        T: Clone,
    {
        self.optional(key, stand_in.clone(), parse).unwrap_or_else(|| {
            self.complain(self.line, key, "is missing", format!("add {key} = {example}"));
            Field { value: stand_in, line: self.line, broken: true, written: false }
        })
    }

    /// The elements of the list at `key`, each with its own line; empty where the key is absent.
    /// Elements that are complained of are left out and mark the list as broken.
    pub(super) fn list<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Complaint>,
    ) -> Option<Field<Vec<Field<T>>>> {
        let (value, line) = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let what = format!("expects a list, has {}", kind(value.get_ref()));
            self.complain(line, key, what, format!("write {key} = {example}"));
            return Some(Field { value: Vec::new(), line, broken: true, written: true });
        };
        let mut list = Field { value: Vec::new(), line, broken: false, written: true };
        for (i, item) in array.iter().enumerate() {
            let line = self.reader.line(&item.span());
            match parse(item.get_ref()) {
                Ok(value) => list.value.push(Field { value, line, broken: false, written: true }),
                Err(complaint) => {
                    self.reader.complain(line, &format!("{}[{i}]", self.key(key)), complaint);
                    list.broken = true;
                }
            }
        }
        Some(list)
    }

    /// The section `[key]`; where it is absent, one of defaults only.
    pub(super) fn section(&self, key: &str) -> Self {
        let (path, header) = (self.key(key), self.header(key));
        match self.get(key) {
            None => Self { reader: self.reader, path, header, line: self.line, table: None },
            Some((value, key_line)) => {
                let table = value.get_ref().as_table();
                if table.is_none() {
                    let what = format!("expects a section, has {}", kind(value.get_ref()));
                    self.complain(key_line, key, what, format!("write [{header}] on a line of its own"));
                }
                Self { reader: self.reader, path, header, line: key_line, table }
            }
        }
    }

    /// The sections `[[key]]`, in the order of the file.
    pub(super) fn sections(&self, key: &str) -> Vec<Self> {
        let Some((value, line)) = self.get(key) else { return Vec::new() };
        let tables = value.get_ref().as_array().map(|array| {
            array.iter().enumerate().map(|(i, item)| {
                let (path, line) = (format!("{}[{i}]", self.key(key)), self.reader.line(&item.span()));
                let header = self.header(key);
                item.get_ref().as_table().map(|table| Self {
                    reader: self.reader,
                    path,
                    header,
                    line,
                    table: Some(table),
                })
            })
        });
        let sections: Option<Vec<Self>> = tables.and_then(Iterator::collect);
        sections.unwrap_or_else(|| {
            let what = format!("expects sections, has {}", kind(value.get_ref()));
            self.complain(line, key, what, format!("write [[{}]] before each", self.header(key)));
            Vec::new()
        })
    }
}

/// What a value is, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        let reader = Reader::new("f", "a\nbc\n\nd");
        for (at, line) in [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (6, 4), (7, 4)] {
            assert_eq!(reader.line(&(at..at)), line, "byte {at}");
        }
    }
}
