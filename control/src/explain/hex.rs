//! Frames as people write them: digits, and the dumps of `xxd`, `hexdump -C`, `tcpdump -XX` and our own.

use std::fmt::Write as _;

/// Shortest frame that has an Ethernet header.
const SHORTEST: usize = 14;
/// Longest that the kernel takes for a test run in one page.
const LONGEST: usize = 3500;
/// Bytes in a line of a dump.
const WIDTH: usize = 16;

/// Why a text is no frame.
#[derive(Debug, thiserror::Error)]
pub enum HexError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Something else than hexadecimal digits.
    #[error("line {line}: {found:?} are no pairs of hexadecimal digits")]
    Digits {
        /// Its number, from 1.
        line: usize,
        /// What stands there.
        found: String,
    },
    /// Too short for a frame, or too long for the kernel's test run.
    #[error("{found} bytes are no frame; it has {SHORTEST} to {LONGEST}, with its Ethernet header")]
    Length {
        /// Bytes that are there.
        found: usize,
    },
}

impl HexError {
    /// Short fixed name: JSON's code.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Digits { .. } => "digits",
            Self::Length { .. } => "length",
        }
    }
}

/// The frame that is meant: `@FILE` with bytes or a dump, or at least 28 digits, with or without blanks, colons and
/// `0x`. `None` where the text is a name.
///
/// # Errors
/// [`HexError`].
pub fn frame(text: &str) -> Result<Option<Vec<u8>>, HexError> {
    let bytes = match text.strip_prefix('@') {
        Some(path) => {
            let content = std::fs::read(path).map_err(|source| HexError::File { path: path.to_owned(), source })?;
            of_file(content)?
        }
        None => match digits_only(text) {
            Some(bytes) => bytes,
            None => return Ok(None),
        },
    };
    let found = bytes.len();
    if (SHORTEST..=LONGEST).contains(&found) { Ok(Some(bytes)) } else { Err(HexError::Length { found }) }
}

/// Digits and what may stand between them, enough of them for a frame.
fn digits_only(text: &str) -> Option<Vec<u8>> {
    let allowed = |c: char| c.is_ascii_hexdigit() || c.is_ascii_whitespace() || matches!(c, ':' | 'x' | 'X');
    let bytes = if text.chars().all(allowed) { pairs(text)? } else { return None };
    (bytes.len() >= SHORTEST).then_some(bytes)
}

/// A text is a dump; anything else is the frame itself.
fn of_file(content: Vec<u8>) -> Result<Vec<u8>, HexError> {
    let readable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match std::str::from_utf8(&content) {
        Ok(text) if !content.is_empty() && content.iter().all(readable) => parse(text),
        _ => Ok(content),
    }
}

/// Reads a dump, or plain digits over any number of lines.
///
/// # Errors
/// [`HexError::Digits`].
pub fn parse(text: &str) -> Result<Vec<u8>, HexError> {
    let mut bytes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let digits = without_margins(line, bytes.len());
        let wrong = || HexError::Digits { line: number + 1, found: digits.trim().to_owned() };
        bytes.extend(pairs(digits).ok_or_else(wrong)?);
    }
    Ok(bytes)
}

/// A line of a dump without the offset before and the characters behind; `at` is where it should begin.
fn without_margins(line: &str, at: usize) -> &str {
    let line = line.trim();
    // "0000:" of xxd, "0x0000:" of tcpdump.
    let colon = line.split_once(':').filter(|(offset, _)| offset_of(offset) == Some(at));
    // "00000000  " of hexdump -C and of ours; its last line is an offset alone.
    let blanks = || line.split_once("  ").or(Some((line, ""))).filter(|(offset, _)| offset_of(offset) == Some(at));
    match colon.or_else(blanks) {
        Some((_, rest)) => {
            let rest = rest.trim_start();
            match rest.split_once('|') {
                Some((digits, _)) => digits,
                // One blank between groups, more before the characters; hexdump's two halves come with a bar.
                None => rest.split_once("  ").map_or(rest, |(digits, _)| digits),
            }
        }
        None => line,
    }
}

/// Four digits or more, as dumps have them.
fn offset_of(text: &str) -> Option<usize> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plausible = (4..=8).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit());
    if plausible { usize::from_str_radix(digits, 16).ok() } else { None }
}

/// Pairs of digits, alone or in groups, with blanks, colons and `0x` between them.
fn pairs(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for group in text.split(|c: char| c.is_ascii_whitespace() || c == ':').filter(|group| !group.is_empty()) {
        let digits = group.strip_prefix("0x").or_else(|| group.strip_prefix("0X")).unwrap_or(group).as_bytes();
        for pair in digits.chunks(2) {
            let [high, low] = pair else { return None };
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
        }
    }
    Some(bytes)
}

/// All digits in one word.
#[must_use]
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing into a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Lines of an offset, sixteen bytes and their characters.
#[must_use]
pub fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (number, line) in bytes.chunks(WIDTH).enumerate() {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' };
        let characters: String = line.iter().map(printable).collect();
        let _ = writeln!(out, "{:04x}  {:<47}  |{characters}|", number * WIDTH, digits.join(" "));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    const BYTES: [u8; 18] = *b"\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00E\x00|:";

    #[test]
    fn frames_are_read_in_every_usual_form() {
        for text in [
            "020000000002020000000001080045007c3a",
            "02 00 00 00 00 02 02 00 00 00 00 01 08 00 45 00 7C 3A",
            "02:00:00:00:00:02:02:00:00:00:00:01:08:00:45:00:7c:3a",
            "0x020000000002 0x020000000001 0x0800 0x45007c3a",
            "0x02 0x00 0x00 0x00 0x00 0x02 0x02 0x00 0x00 0x00 0x00 0x01 0x08 0x00 0x45 0x00 0x7c 0x3a",
        ] {
            assert_eq!(frame(text).unwrap().as_deref(), Some(&BYTES[..]), "{text}");
        }
        for dump in [
            // hexdump -C
            "00000000  02 00 00 00 00 02 02 00  00 00 00 01 08 00 45 00  |..............E.|\n\
             00000010  7c 3a                                             ||:|\n00000012\n",
            // xxd
            "00000000: 0200 0000 0002 0200 0000 0001 0800 4500  ..............E.\n\
             00000010: 7c3a                                     |:\n",
            // tcpdump -XX
            "\t0x0000:  0200 0000 0002 0200 0000 0001 0800 4500  ..............E.\n\t0x0010:  7c3a                                     |:\n",
            // tcpdump -xx
            "\t0x0000:  0200 0000 0002 0200 0000 0001 0800 4500\n\t0x0010:  7c3a\n",
            "02000000 0002\n0200 0000 0001\n080045007c3a\n",
        ] {
            assert_eq!(parse(dump).unwrap(), BYTES, "{dump}");
        }
    }

    #[test]
    fn names_are_no_frames() {
        for name in [
            "video.edge.test",
            "deadbeef",
            "dead.beef.",
            "020000000002020000000001080045007c3a.",
            "",
            "a b",
            // An odd digit too many.
            "020000000002020000000001080045007c3",
        ] {
            assert_eq!(frame(name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn files_hold_bytes_or_a_dump() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frame");
        let argument = format!("@{}", path.display());
        for content in [&BYTES[..], dump(&BYTES).as_bytes()] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(frame(&argument).unwrap().as_deref(), Some(&BYTES[..]));
        }
        for (content, label) in [("02 00 zz", "digits"), ("0200", "length"), ("", "length")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(frame(&argument).unwrap_err().label(), label, "{content:?}");
        }
        std::fs::write(&path, vec![0; 3501]).unwrap();
        assert_eq!(frame(&argument).unwrap_err().label(), "length");
        assert_eq!(frame("@/nonexistent/frame").unwrap_err().label(), "file");
        let error = parse("02 00\n02 0\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2: \"02 0\""), "{error}");
    }

    proptest! {
        /// Whatever stands in the column of characters, bars and colons and digits too.
        #[test]
        fn a_dump_is_read_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(parse(&dump(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(parse(&digits(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn texts_are_read_or_refused(text in "[ -~\n]{0,80}") {
            let _ = parse(&text);
            let _ = frame(text.trim_start_matches('@'));
        }
    }
}
