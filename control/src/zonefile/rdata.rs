//! A record's data in presentation form → wire form, part by part.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::lexer::Token;
use super::types::{ALGORITHMS, CERTIFICATES, Part, by_number, number};
use super::{exotic, svcb};
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

/// Bytes behind their length.
fn counted(wire: &mut Vec<u8>, bytes: &[u8]) -> Parsed<()> {
    let length = u8::try_from(bytes.len()).map_err(|_| format!("a part has {} bytes, of at most 255", bytes.len()))?;
    wire.push(length);
    wire.extend_from_slice(bytes);
    Ok(())
}

/// Reads all words of a record's data.
pub(super) fn rdata(rtype: u16, tokens: &[Token], origin: &[u8]) -> Parsed<Vec<u8>> {
    let generic = tokens.first().is_some_and(|token| token.is("\\#"));
    let wire = match by_number(rtype) {
        Some(kind) if !generic => {
            let mut words = Words::new(tokens, origin);
            let mut wire = Vec::new();
            for part in kind.parts {
                read(*part, &mut words, &mut wire)?;
            }
            if let Ok(more) = words.next() {
                return Err(format!("{:?} is too much", more.shown()));
            }
            wire
        }
        kind => {
            let wire = unknown(tokens)?;
            if let Some(kind) = kind {
                verify(kind.parts, &wire)?;
            }
            wire
        }
    };
    if wire.len() > usize::from(u16::MAX) { Err(format!("it takes {} bytes", wire.len())) } else { Ok(wire) }
}

/// `\# LENGTH HEX` (RFC 3597, 5).
fn unknown(tokens: &[Token]) -> Parsed<Vec<u8>> {
    let mut words = Words::new(tokens, &[]);
    if !words.next()?.is("\\#") {
        return Err("a type without a name has data that begin with \\#".to_owned());
    }
    let length: usize = words.number("length")?;
    let bytes = hex(&words.joined())?;
    if bytes.len() == length { Ok(bytes) } else { Err(format!("{} bytes follow, not {length}", bytes.len())) }
}

fn read(part: Part, words: &mut Words<'_>, wire: &mut Vec<u8>) -> Parsed<()> {
    match part {
        Part::U8 => wire.push(words.number("number up to 255")?),
        Part::U16 => wire.extend(words.number::<u16>("number up to 65535")?.to_be_bytes()),
        Part::U32 => wire.extend(words.number::<u32>("number of 32 bits")?.to_be_bytes()),
        Part::Period => {
            let token = words.next()?;
            let seconds = period(&token.text).ok_or_else(|| format!("{:?} is no time in seconds", token.shown()))?;
            wire.extend(seconds.to_be_bytes());
        }
        Part::V4 => wire.extend(parsed::<Ipv4Addr>(words.next()?, "an IPv4 address")?.octets()),
        Part::V6 => wire.extend(parsed::<Ipv6Addr>(words.next()?, "an IPv6 address")?.octets()),
        Part::Name => wire.extend(words.name()?),
        Part::Text => counted(wire, &plain(&words.next()?.text)?)?,
        Part::Texts => {
            counted(wire, &plain(&words.next()?.text)?)?;
            words.rest().iter().try_for_each(|token| counted(wire, &plain(&token.text)?))?;
        }
        Part::Bytes => wire.extend(plain(&words.next()?.text)?),
        Part::Hex => wire.extend(hex(&words.joined())?),
        Part::Salt => {
            let token = words.next()?;
            counted(wire, &if token.is("-") { Vec::new() } else { hex(&token.text)? })?;
        }
        Part::Hash => counted(wire, &base32(&words.next()?.text)?)?,
        Part::Base64 => wire.extend(base64(&words.joined())?),
        Part::Type => wire.extend(rtype(words.next()?)?.to_be_bytes()),
        Part::Types => {
            let types: Vec<u16> = words.rest().iter().map(rtype).collect::<Parsed<_>>()?;
            wire.extend(exotic::bitmap(&types));
        }
        Part::Time => wire.extend(exotic::time(words.next()?)?.to_be_bytes()),
        Part::Algorithm => wire.push(named(words.next()?, &ALGORITHMS, "algorithm")?),
        Part::Certificate => wire.extend(named(words.next()?, &CERTIFICATES, "certificate type")?.to_be_bytes()),
        Part::Eui(bytes) => wire.extend(exotic::eui(words.next()?, bytes)?),
        Part::Locator => wire.extend(exotic::locator(words.next()?)?),
        Part::Nsap => wire.extend(exotic::nsap(words.next()?)?),
        Part::Position => wire.extend(exotic::position(words)?),
        Part::Prefixes => wire.extend(exotic::prefixes(words.rest())?),
        Part::Gateway => exotic::gateway(words, wire)?,
        Part::Parameters => wire.extend(svcb::parameters(words.rest())?),
    }
    Ok(())
}

/// What the standard library reads.
pub(super) fn parsed<T: std::str::FromStr>(token: &Token, what: &str) -> Parsed<T> {
    let text = std::str::from_utf8(&token.text).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| format!("{:?} is not {what}", token.shown()))
}

fn rtype(token: &Token) -> Parsed<u16> {
    number(&token.text).ok_or_else(|| format!("{:?} is no type", token.shown()))
}

fn named<T: Copy + std::str::FromStr>(token: &Token, names: &[(&str, T)], what: &str) -> Parsed<T> {
    let by_name = names.iter().find(|(name, _)| token.is(name)).map(|(_, number)| *number);
    by_name.or_else(|| decimal(&token.text)).ok_or_else(|| format!("{:?} is no {what}", token.shown()))
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

fn base32(text: &[u8]) -> Parsed<Vec<u8>> {
    let value = |b: u8| match b.to_ascii_lowercase() {
        b @ b'0'..=b'9' => Some(b - b'0'),
        b @ b'a'..=b'v' => Some(b - b'a' + 10),
        _ => None,
    };
    digits(text, 5, value).filter(|bytes| !bytes.is_empty()).ok_or_else(|| "the base32 is broken".to_owned())
}

/// Looks whether data given as bytes have the parts that their type has, as far as our own answers depend on it:
/// numbers, addresses and names.
fn verify(parts: &[Part], wire: &[u8]) -> Parsed<()> {
    let mut at = 0;
    for part in parts {
        let length = match part {
            Part::U8 | Part::Algorithm => 1,
            Part::U16 | Part::Type | Part::Certificate => 2,
            Part::U32 | Part::Period | Part::Time | Part::V4 => 4,
            Part::V6 => 16,
            Part::Locator => 8,
            Part::Eui(bytes) => *bytes,
            Part::Name => name_length(wire.get(at..).unwrap_or_default()).ok_or("a name in the bytes is broken")?,
            Part::Text => wire.get(at).map_or(1, |length| 1 + usize::from(*length)),
            // Up to the end, or of a form that no answer depends on.
            _ => return if at <= wire.len() { Ok(()) } else { Err("the bytes are too few".to_owned()) },
        };
        at += length;
    }
    if at == wire.len() { Ok(()) } else { Err(format!("the bytes should be {at}")) }
}

/// Bytes of the uncompressed name that stands at the start.
fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return (at < 255).then_some(at + 1),
            label @ 1..=63 => at += 1 + usize::from(label),
            _ => return None,
        }
    }
}
