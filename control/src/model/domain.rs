//! Domain names: presentation form (RFC 1035, 5.1) ↔ wire form (RFC 1035, 3.1).

/// Longest name in wire form, with length bytes and root (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;

/// Why a text is no domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DomainFault {
    /// Two dots in a row, or one at the start.
    #[error("has an empty label")]
    EmptyLabel,
    /// A label that does not fit into its length byte.
    #[error("has a label of {0} bytes, of at most 63")]
    LabelTooLong(usize),
    /// The whole does not fit.
    #[error("takes {0} bytes, of at most 255")]
    TooLong(usize),
    /// A backslash that is followed by no character, or by a number above 255 or of fewer than three digits.
    #[error("has a \\ that escapes nothing")]
    Escape,
    /// Without the final dot where there is nothing to complete it with.
    #[error("must end in a dot")]
    Relative,
}

/// Reads a name; one without the final dot is completed with `origin`, in wire form. Letter case stays.
///
/// # Errors
/// [`DomainFault`] where it is no name.
pub fn parse_domain(text: &[u8], origin: Option<&[u8]>) -> Result<Vec<u8>, DomainFault> {
    if text == b"." {
        return Ok(vec![0]);
    }
    let mut wire = Vec::with_capacity(text.len() + 2);
    let (mut rest, mut whole) = (text, false);
    while !rest.is_empty() {
        let mut label = Vec::new();
        whole = false;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match first {
                b'.' => {
                    whole = true;
                    break;
                }
                b'\\' => {
                    let (byte, after) = unescape(rest).ok_or(DomainFault::Escape)?;
                    label.push(byte);
                    rest = after;
                }
                _ => label.push(*first),
            }
        }
        match label.len() {
            0 => return Err(DomainFault::EmptyLabel),
            1..=LONGEST_LABEL => wire.push(label.len() as u8),
            long => return Err(DomainFault::LabelTooLong(long)),
        }
        wire.append(&mut label);
    }
    match origin {
        _ if wire.is_empty() => return Err(DomainFault::EmptyLabel),
        _ if whole => wire.push(0),
        Some(origin) => wire.extend_from_slice(origin),
        None => return Err(DomainFault::Relative),
    }
    if wire.len() > LONGEST_NAME { Err(DomainFault::TooLong(wire.len())) } else { Ok(wire) }
}

/// The byte that the text behind a backslash stands for, and what follows: three decimal digits, or one character.
#[must_use]
pub fn unescape(text: &[u8]) -> Option<(u8, &[u8])> {
    let (first, after) = text.split_first()?;
    if !first.is_ascii_digit() {
        return Some((*first, after));
    }
    let (digits, after) = text.split_at_checked(3)?;
    let number = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    Some((number.parse().ok()?, after))
}

/// A name in wire form and every ancestor of it, with the offset at which it begins, down to the root.
pub fn suffixes(name: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let next = |at: &usize| match name.get(*at) {
        None | Some(0) => None,
        Some(length) => Some(at + 1 + usize::from(*length)),
    };
    std::iter::successors(Some(0), next).filter_map(|at| Some((at, name.get(at..)?)))
}

/// Writes a name that is in wire form, with the final dot and all escapes that it needs.
#[must_use]
pub fn show_domain(wire: &[u8]) -> String {
    let mut text = String::with_capacity(wire.len());
    let mut rest = wire;
    while let Some((&length, after)) = rest.split_first()
        && length > 0
        && let Some((label, after)) = after.split_at_checked(length.into())
    {
        for &byte in label {
            match byte {
                b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => text.extend(['\\', byte.into()]),
                b'!'..=b'~' => text.push(byte.into()),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
        text.push('.');
        rest = after;
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_completed_and_unescaped() {
        let origin = b"\x04test\0".as_slice();
        for (text, wire) in [
            (".", b"\0".as_slice()),
            ("a.B.", b"\x01a\x01B\0"),
            ("a", b"\x01a\x04test\0"),
            ("a\\.b", b"\x03a.b\x04test\0"),
            ("\\097\\\\.", b"\x02a\\\0"),
            ("\\000\\255.", b"\x02\x00\xff\0"),
            ("*", b"\x01*\x04test\0"),
        ] {
            assert_eq!(parse_domain(text.as_bytes(), Some(origin)).unwrap(), wire, "{text}");
        }
        for (text, fault) in [
            ("", DomainFault::EmptyLabel),
            ("..", DomainFault::EmptyLabel),
            ("a..b.", DomainFault::EmptyLabel),
            (".a.", DomainFault::EmptyLabel),
            ("a\\", DomainFault::Escape),
            ("a\\25.", DomainFault::Escape),
            ("a\\256.", DomainFault::Escape),
            ("a", DomainFault::Relative),
            (&format!("{}.", "a".repeat(64)), DomainFault::LabelTooLong(64)),
            (&"aaa.".repeat(64), DomainFault::TooLong(257)),
        ] {
            assert_eq!(parse_domain(text.as_bytes(), None), Err(fault), "{text}");
        }
    }

    proptest! {
        #[test]
        fn names_survive_writing_and_reading(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 0..8)) {
            let mut wire: Vec<u8> = Vec::new();
            for label in &labels {
                wire.push(label.len() as u8);
                wire.extend_from_slice(label);
            }
            wire.push(0);
            prop_assert_eq!(parse_domain(show_domain(&wire).as_bytes(), None), Ok(wire));
        }
    }
}
