//! Parts of data with a form of their own.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::lexer::Token;
use super::words::{Parsed, Words, decimal, hex, parsed};

/// A set of types as windows of bits (RFC 4034, 4.1.2).
pub(super) fn bitmap(types: &[u16]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut sorted = types.to_vec();
    sorted.sort_unstable();
    for window in sorted.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0u8; 32];
        let mut length = 0;
        for rtype in window {
            let low = usize::from(*rtype & 0xFF);
            bits[low / 8] |= 0x80 >> (low % 8);
            length = low / 8 + 1;
        }
        wire.extend([(window[0] >> 8) as u8, length as u8]);
        wire.extend_from_slice(&bits[..length]);
    }
    wire
}

/// Seconds since 1970 modulo 2^32, or YYYYMMDDHHmmSS in UTC (RFC 4034, 3.2).
pub(super) fn time(token: &Token) -> Parsed<u32> {
    let wrong = || format!("{:?} is no time as YYYYMMDDHHmmSS", token.shown());
    let text = &token.text;
    if text.len() != 14 {
        return decimal(text).ok_or_else(wrong);
    }
    let part = |from: usize, to: usize| decimal::<i64>(&text[from..to]).ok_or_else(wrong);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    let valid = (1970..2106).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 60 {
        return Err(wrong());
    }
    // Days since 1970-01-01 of a proleptic Gregorian date, with the year beginning in March.
    let shifted = if month > 2 { year } else { year - 1 };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + of_year - 719_468;
    u32::try_from(((days * 24 + hour) * 60 + minute) * 60 + second).map_err(|_| wrong())
}

/// `00-00-5e-00-53-2a` (RFC 7043).
pub(super) fn eui(token: &Token, bytes: usize) -> Parsed<Vec<u8>> {
    let groups: Vec<&[u8]> = token.text.split(|b| *b == b'-').collect();
    let wrong = || format!("{:?} is not {bytes} bytes as 00-00-5e-…", token.shown());
    if groups.len() != bytes || groups.iter().any(|group| group.len() != 2) {
        return Err(wrong());
    }
    hex(&groups.concat()).map_err(|_| wrong())
}

/// Four groups of at most four hexadecimal digits (RFC 6742, 2.1.2).
pub(super) fn locator(token: &Token) -> Parsed<Vec<u8>> {
    let groups = token.shown();
    let read: Option<Vec<u16>> = groups
        .split(':')
        .map(|g| u16::from_str_radix(g, 16).ok().filter(|_| g.len() <= 4 && !g.starts_with('+')))
        .collect();
    match read {
        Some(groups) if groups.len() == 4 => Ok(groups.into_iter().flat_map(u16::to_be_bytes).collect()),
        _ => Err(format!("{groups:?} is not four groups as 0014:4fff:ff20:ee64")),
    }
}

/// `0x` and hexadecimal digits with dots anywhere (RFC 1706, 7).
pub(super) fn nsap(token: &Token) -> Parsed<Vec<u8>> {
    let wrong = || format!("{:?} is no NSAP address as 0x47.0005…", token.shown());
    let digits = token.text.strip_prefix(b"0x").or_else(|| token.text.strip_prefix(b"0X")).ok_or_else(wrong)?;
    let digits: Vec<u8> = digits.iter().copied().filter(|b| *b != b'.').collect();
    hex(&digits).ok().filter(|bytes| !bytes.is_empty()).ok_or_else(wrong)
}

/// `[!]FAMILY:ADDRESS/PREFIX`, as many as there are (RFC 3123, 4 and 5).
pub(super) fn prefixes(tokens: &[Token]) -> Parsed<Vec<u8>> {
    let mut wire = Vec::new();
    for token in tokens {
        let text = token.shown();
        let wrong = || format!("{text:?} is no prefix as 1:192.0.2.0/24");
        let (negated, rest) = text.strip_prefix('!').map_or((0, text.as_str()), |rest| (0x80, rest));
        let (family, rest) = rest.split_once(':').ok_or_else(wrong)?;
        let (address, prefix) = rest.split_once('/').ok_or_else(wrong)?;
        let (family, octets) = match family {
            "1" => (1u16, address.parse::<Ipv4Addr>().map_err(|_| wrong())?.octets().to_vec()),
            "2" => (2, address.parse::<Ipv6Addr>().map_err(|_| wrong())?.octets().to_vec()),
            _ => return Err(wrong()),
        };
        let prefix: u8 = decimal(prefix.as_bytes()).ok_or_else(wrong)?;
        if usize::from(prefix) > octets.len() * 8 {
            return Err(wrong());
        }
        let length = octets.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        wire.extend(family.to_be_bytes());
        wire.extend([prefix, negated | length as u8]);
        wire.extend_from_slice(&octets[..length]);
    }
    Ok(wire)
}

/// Kind, algorithm and gateway of an IPSECKEY (RFC 4025, 2.3 to 2.5).
pub(super) fn gateway(words: &mut Words<'_>, wire: &mut Vec<u8>) -> Parsed<()> {
    let kind: u8 = words.number("gateway type")?;
    let algorithm: u8 = words.number("algorithm")?;
    wire.extend([kind, algorithm]);
    match kind {
        0 if words.next()?.is(".") => {}
        1 => wire.extend(parsed::<Ipv4Addr>(words.next()?, "an IPv4 address")?.octets()),
        2 => wire.extend(parsed::<Ipv6Addr>(words.next()?, "an IPv6 address")?.octets()),
        3 => wire.extend(words.name()?),
        _ => return Err(format!("gateway type {kind} and its gateway do not fit")),
    }
    Ok(())
}

/// A decimal number with at most `places` digits behind the point, times ten to the power of `places`.
fn fixed(text: &str, places: usize) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || fraction.len() > places {
        return None;
    }
    let number: i64 = decimal(format!("{whole}{fraction:0<places$}").as_bytes())?;
    Some(if negative { -number } else { number })
}

/// A position on Earth (RFC 1876, 2 and 3).
pub(super) fn position(words: &mut Words<'_>) -> Parsed<Vec<u8>> {
    let mut wire = vec![0];
    let latitude = angle(words, ["N", "S"], 90)?;
    let longitude = angle(words, ["E", "W"], 180)?;
    let altitude = metres(words.next()?)? + 10_000_000;
    let altitude = u32::try_from(altitude).map_err(|_| "the altitude is out of range".to_owned())?;
    for default in [0x12, 0x16, 0x13] {
        let rest = words.rest();
        let precision = match rest.split_first() {
            Some((first, after)) => {
                *words = Words::new(after, words.origin);
                precision(metres(first)?)?
            }
            None => default,
        };
        wire.push(precision);
    }
    wire.extend(latitude.to_be_bytes());
    wire.extend(longitude.to_be_bytes());
    wire.extend(altitude.to_be_bytes());
    Ok(wire)
}

/// Degrees, perhaps minutes, perhaps seconds, and the side: thousandths of an arc second around 2^31.
fn angle(words: &mut Words<'_>, sides: [&str; 2], most: i64) -> Parsed<u32> {
    let mut total = 0;
    for (unit, limit) in [(3_600_000, most), (60_000, 59), (1000, 59)] {
        let token = words.next()?;
        if token.is(sides[0]) || token.is(sides[1]) {
            return side(total, token.is(sides[0]), most);
        }
        let wrong = || format!("{:?} is no part of a position", token.shown());
        let number = fixed(&token.shown(), 3).ok_or_else(wrong)?;
        let whole = unit == 1000 || number % 1000 == 0;
        if !(0..(limit + 1) * 1000).contains(&number) || !whole {
            return Err(wrong());
        }
        total += number * unit / 1000;
    }
    let token = words.next()?;
    if token.is(sides[0]) || token.is(sides[1]) {
        side(total, token.is(sides[0]), most)
    } else {
        Err(format!("{:?} is neither {} nor {}", token.shown(), sides[0], sides[1]))
    }
}

fn side(total: i64, positive: bool, most: i64) -> Parsed<u32> {
    let around = (1 << 31) + if positive { total } else { -total };
    let valid = total <= most * 3_600_000;
    u32::try_from(around).ok().filter(|_| valid).ok_or_else(|| "an angle is out of range".to_owned())
}

/// Metres as centimetres.
fn metres(token: &Token) -> Parsed<i64> {
    let text = token.shown();
    let number = text.strip_suffix('m').unwrap_or(&text);
    fixed(number, 2).ok_or_else(|| format!("{text:?} is no length in metres"))
}

/// Centimetres as one digit and a power of ten.
fn precision(centimetres: i64) -> Parsed<u8> {
    let (mut digit, mut power) = (centimetres, 0);
    while digit > 9 {
        digit /= 10;
        power += 1;
    }
    if (0..=9).contains(&power) && digit >= 0 {
        Ok((digit as u8) << 4 | power)
    } else {
        Err("a precision is out of range".to_owned())
    }
}
