//! Bytes of a master file → entries: what stands on one line, or on several inside parentheses (RFC 1035, 5.1).

/// One word of an entry. Escapes are still in it: `\.` in a name is no dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub text: Vec<u8>,
    /// Whether it stood in quotes, so that `"@"` or `"\#"` mean themselves.
    pub quoted: bool,
}

impl Token {
    /// Whether it is this word, unquoted, in any letter case.
    pub(super) fn is(&self, word: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(word.as_bytes())
    }

    /// The text as complaints show it.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// The words of one directive or record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The line, from 1, on which it begins.
    pub line: usize,
    /// Whether it begins with a blank: its owner is the one of the entry before.
    pub continued: bool,
    pub tokens: Vec<Token>,
}

/// A text that cannot be taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub line: usize,
    pub what: &'static str,
    pub fix: &'static str,
}

/// Takes a file apart, entry by entry.
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes), line: 1 }
    }

    fn take(&mut self) -> Option<u8> {
        let (first, after) = self.rest.split_first()?;
        self.rest = after;
        self.line += usize::from(*first == b'\n');
        Some(*first)
    }

    /// Leaves the rest of a line that cannot be understood.
    fn give_up(&mut self, line: usize, what: &'static str, fix: &'static str) -> Broken {
        while self.rest.first().is_some_and(|b| *b != b'\n') {
            self.take();
        }
        Broken { line, what, fix }
    }

    /// A word in quotes, whose opening one has been taken.
    fn quoted(&mut self, text: &mut Vec<u8>) -> Result<(), Broken> {
        let line = self.line;
        loop {
            match self.rest.first() {
                None | Some(b'\n') => return Err(self.give_up(line, "a quote is not closed", "close it with \"")),
                Some(b'"') => {
                    self.take();
                    return Ok(());
                }
                Some(_) => self.byte(text),
            }
        }
    }

    /// One byte, or an escaped one with its backslash.
    fn byte(&mut self, text: &mut Vec<u8>) {
        let Some(first) = self.take() else { return };
        text.push(first);
        if first == b'\\' && self.rest.first().is_some_and(|b| *b != b'\n') {
            text.extend(self.take());
        }
    }

    fn word(&mut self) -> Result<Token, Broken> {
        let mut text = Vec::new();
        while let Some(next) = self.rest.first() {
            match next {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' => break,
                // As in key="value": part of the word.
                b'"' => {
                    self.take();
                    self.quoted(&mut text)?;
                }
                _ => self.byte(&mut text),
            }
        }
        Ok(Token { text, quoted: false })
    }

    fn entry(&mut self) -> Result<Option<Entry>, Broken> {
        let mut tokens = Vec::new();
        let (mut line, mut continued, mut line_begins) = (self.line, false, true);
        let mut open: Vec<usize> = Vec::new();
        while let Some(next) = self.rest.first() {
            if tokens.is_empty() && open.is_empty() {
                line = self.line;
            }
            let begins = std::mem::replace(&mut line_begins, false);
            match next {
                b'\n' => {
                    self.take();
                    line_begins = open.is_empty();
                    if open.is_empty() && !tokens.is_empty() {
                        return Ok(Some(Entry { line, continued, tokens }));
                    }
                    continued &= !line_begins;
                }
                b' ' | b'\t' | b'\r' => {
                    continued |= begins;
                    self.take();
                }
                b';' => {
                    while self.rest.first().is_some_and(|b| *b != b'\n') {
                        self.take();
                    }
                }
                b'(' => {
                    open.push(self.line);
                    self.take();
                }
                b')' => {
                    let here = self.line;
                    self.take();
                    if open.pop().is_none() {
                        return Err(self.give_up(here, "a parenthesis is closed that was not opened", "remove the )"));
                    }
                }
                b'"' => {
                    self.take();
                    let mut text = Vec::new();
                    self.quoted(&mut text)?;
                    tokens.push(Token { text, quoted: true });
                }
                _ => tokens.push(self.word()?),
            }
        }
        match open.first() {
            Some(opened) => Err(Broken { line: *opened, what: "a parenthesis is not closed", fix: "close it with )" }),
            None if tokens.is_empty() => Ok(None),
            None => Ok(Some(Entry { line, continued, tokens })),
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Result<Entry, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entry().transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn show(text: &str) -> Vec<String> {
        let shown = |entry: Result<Entry, Broken>| match entry {
            Ok(entry) => {
                let words: Vec<String> = entry
                    .tokens
                    .iter()
                    .map(|t| if t.quoted { format!("\"{}\"", t.shown()) } else { t.shown() })
                    .collect();
                format!("{}{}{}", entry.line, if entry.continued { "+" } else { " " }, words.join(" "))
            }
            Err(broken) => format!("{}!{}", broken.line, broken.what),
        };
        Lexer::new(text.as_bytes()).map(shown).collect()
    }

    #[test]
    fn lines_and_parentheses_make_entries() {
        for (text, entries) in [
            ("", &[][..]),
            ("\n ; x\n\t\n", &[]),
            ("a A 1", &["1 a A 1"]),
            ("a A 1\r\n  B 2;c\n", &["1 a A 1", "2+B 2"]),
            (" \nb", &["2 b"]),
            ("a ( b ; c)\n  d\n) e\nf", &["1 a b d e", "4 f"]),
            ("\n\n\ta (\n)\n", &["3+a"]),
            ("a \"b c\" d\\ e \"\\\"\" k=\"v w\"x", &["1 a \"b c\" d\\ e \"\\\"\" k=v wx"]),
            ("a \"b;(\" c", &["1 a \"b;(\" c"]),
            ("a\\;b\\(", &["1 a\\;b\\("]),
            ("\"a\"\"b\"", &["1 \"a\" \"b\""]),
            ("a \"b\nc d", &["1!a quote is not closed", "2 c d"]),
            ("x\na (\n b\nc", &["1 x", "2!a parenthesis is not closed"]),
            ("a )\nb", &["1!a parenthesis is closed that was not opened", "2 b"]),
            ("a \\\nb", &["1 a \\", "2 b"]),
        ] {
            assert_eq!(show(text), entries, "{text:?}");
        }
    }
}
