//! A record's data in presentation form → wire form, part by part.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::lexer::Token;
use super::types::{ALGORITHMS, CERTIFICATES, Part, by_number, number};
use super::words::{Parsed, Words, base32, base64, decimal, hex, parsed, period, plain};
use super::{exotic, svcb};

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

fn rtype(token: &Token) -> Parsed<u16> {
    number(&token.text).ok_or_else(|| format!("{:?} is no type", token.shown()))
}

fn named<T: Copy + std::str::FromStr>(token: &Token, names: &[(&str, T)], what: &str) -> Parsed<T> {
    let by_name = names.iter().find(|(name, _)| token.is(name)).map(|(_, number)| *number);
    by_name.or_else(|| decimal(&token.text)).ok_or_else(|| format!("{:?} is no {what}", token.shown()))
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
