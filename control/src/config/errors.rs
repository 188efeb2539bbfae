//! What is wrong with a configuration: every fault with its place and its remedy, one line each.

use std::fmt;

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {key}: {what}; {fix}")]
pub struct ConfigError {
    /// The file as it was named.
    pub file: String,
    /// Line in it, from 1.
    pub line: usize,
    /// The key with its section (`service.video.ttl_s`), `(syntax)` or `(file)`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// All faults of a configuration, by line. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorts by place. An empty list is no error: `None`.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort_by(|a, b| (a.line, &a.key, &a.what).cmp(&(b.line, &b.key, &b.what)));
        errors.dedup();
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// A single fault of the file as a whole.
    pub(super) fn of_file(file: &str, line: usize, what: String, fix: &str) -> Self {
        let complaint = Complaint::new(what, fix);
        Self(vec![complaint.at(file, line, "(file)")])
    }

    /// The faults, by line.
    #[must_use]
    pub fn list(&self) -> &[ConfigError] {
        &self.0
    }

    /// Short fixed name: metric label and log field.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        "config"
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i != 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A fault whose place is not known yet: what checks of single values return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    what: String,
    fix: String,
}

impl Complaint {
    pub(super) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }

    /// Values come from the file as they are: what could break the line or the terminal is escaped.
    pub(super) fn at(self, file: &str, line: usize, key: &str) -> ConfigError {
        let (file, key) = (one_line(file), one_line(key));
        ConfigError { file, line, key, what: one_line(&self.what), fix: one_line(&self.fix) }
    }
}

fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The one of `known` that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let best = known.iter().map(|k| (distance(word, k), *k)).min()?;
    (best.0 <= (best.1.len() / 3).max(1)).then_some(best.1)
}

/// Letters to insert, remove, change or swap with their neighbour until `a` is `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows: [Vec<usize>; 3] = [vec![0; b.len() + 1], (0..=b.len()).collect(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        rows.rotate_left(1);
        // rows[0] is the last row, rows[1] the row being replaced, rows[2] the one before the last.
        let [last, row, before] = &mut rows;
        row[0] = i;
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
    }
    rows[1][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_definition() {
        for (a, b, d) in [("", "", 0), ("a", "", 1), ("", "abc", 3), ("ttl", "ttl_s", 2), ("prot", "port", 1)] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["name", "names", "port", "drain_deadline"];
        assert_eq!(nearest("prot", &known), Some("port"));
        assert_eq!(nearest("drain_dedline_s", &known), Some("drain_deadline"));
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn a_line_stays_one_line() {
        let error = Complaint::new("has \n and \u{1b}[2J", "fix\r\nit").at("f\n", 1, "k\t");
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
}
