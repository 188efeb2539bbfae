//! Words of an entry → numbers, names and bytes.

use super::lexer::Token;
use crate::model::{parse_domain, unescape};

/// What is wrong with data.
pub(super) type Parsed<T> = Result<T, String>;

/// Words that are left of an entry, and what relative names are completed with.
pub(super) struct Words<'t> {
    tokens: std::slice::Iter<'t, Token>,
    pub origin: &'t [u8],
}

impl<'t> Words<'t> {
    pub(super) fn new(tokens: &'t [Token], origin: &'t [u8]) -> Self {
        Self { tokens: tokens.iter(), origin }
    }

    pub(super) fn next(&mut self) -> Parsed<&'t Token> {
        self.tokens.next().ok_or_else(|| "something is missing at the end".to_owned())
    }

    pub(super) fn rest(&mut self) -> &'t [Token] {
        let rest = self.tokens.as_slice();
        self.tokens = [].iter();
        rest
    }

    /// The words that are left as one, without what stood between them.
    pub(super) fn joined(&mut self) -> Vec<u8> {
        self.rest().iter().flat_map(|token| &token.text).copied().collect()
    }

    /// A whole number that fits.
    pub(super) fn number<T: std::str::FromStr>(&mut self, what: &str) -> Parsed<T> {
        let token = self.next()?;
        decimal(&token.text).ok_or_else(|| format!("{:?} is no {what}", token.shown()))
    }

    pub(super) fn name(&mut self) -> Parsed<Vec<u8>> {
        let token = self.next()?;
        if token.is("@") {
            return Ok(self.origin.to_vec());
        }
        parse_domain(&token.text, Some(self.origin)).map_err(|fault| format!("the name {:?} {fault}", token.shown()))
    }
}

/// A whole number without a sign.
pub(super) fn decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// Seconds, or numbers with units: `1h30m` (BIND's form, which all servers read).
pub(super) fn period(text: &[u8]) -> Option<u32> {
    let (mut total, mut number, mut digits) = (0u64, 0u64, false);
    for byte in text {
        let unit = match byte.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
                digits = true;
                continue;
            }
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        if !std::mem::take(&mut digits) {
            return None;
        }
        total = total.checked_add(std::mem::take(&mut number).checked_mul(unit)?)?;
    }
    let last = text.last()?;
    if digits == last.is_ascii_digit() { u32::try_from(total.checked_add(number)?).ok() } else { None }
}

/// Takes the escapes out.
pub(super) fn plain(text: &[u8]) -> Parsed<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if *first == b'\\' {
            let (byte, after) = unescape(after).ok_or("a \\ escapes nothing")?;
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Ok(bytes)
}

/// What the standard library reads.
pub(super) fn parsed<T: std::str::FromStr>(token: &Token, what: &str) -> Parsed<T> {
    let text = std::str::from_utf8(&token.text).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| format!("{:?} is not {what}", token.shown()))
}

pub(super) fn hex(text: &[u8]) -> Parsed<Vec<u8>> {
    let (pairs, odd) = text.as_chunks::<2>();
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[a, b]| Some(digit(*a)? << 4 | digit(*b)?)).collect();
    bytes.filter(|_| odd.is_empty()).ok_or_else(|| "the hexadecimal digits are not pairs of 0-9 and a-f".to_owned())
}

/// Bits of `width` per digit, most significant first; what is left over must be zero.
fn digits(text: &[u8], width: u32, value: impl Fn(u8) -> Option<u8>) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for digit in text {
        held = held << width | u32::from(value(*digit)?);
        bits += width;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    (held == 0 && bits < width).then_some(bytes)
}

pub(super) fn base64(text: &[u8]) -> Parsed<Vec<u8>> {
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let value = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let bytes = digits(&text[..text.len() - padding], 6, value);
    bytes.filter(|_| text.len().is_multiple_of(4) && padding < 3).ok_or_else(|| "the base64 is broken".to_owned())
}

pub(super) fn base32(text: &[u8]) -> Parsed<Vec<u8>> {
    let value = |b: u8| match b.to_ascii_lowercase() {
        b @ b'0'..=b'9' => Some(b - b'0'),
        b @ b'a'..=b'v' => Some(b - b'a' + 10),
        _ => None,
    };
    digits(text, 5, value).filter(|bytes| !bytes.is_empty()).ok_or_else(|| "the base32 is broken".to_owned())
}
