//! Parameters of service bindings: SVCB and HTTPS (RFC 9460, 2.1 and appendix A).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::lexer::Token;
use super::types::SERVICE_KEYS;
use super::words::{Parsed, base64, decimal, plain};
use crate::model::unescape;

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6HINT: u16 = 6;
const OHTTP: u16 = 8;

/// All parameters in the order of their keys, each at most once.
pub(super) fn parameters(tokens: &[Token]) -> Parsed<Vec<u8>> {
    let mut found: Vec<(u16, Vec<u8>)> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let (name, value) = match token.text.iter().position(|b| *b == b'=') {
            Some(at) => (&token.text[..at], Some(&token.text[at + 1..])),
            None => (&token.text[..], None),
        };
        let key = key(name).ok_or_else(|| format!("{:?} is no parameter", String::from_utf8_lossy(name)))?;
        let bytes = parameter(key, value.unwrap_or_default(), value.is_some())
            .map_err(|what| format!("{}: {what}", token.shown()))?;
        if found.iter().any(|(other, _)| *other == key) {
            return Err(format!("{:?} is there twice", String::from_utf8_lossy(name)));
        }
        found.push((key, bytes));
    }
    found.sort();
    check(&found)?;
    let mut wire = Vec::new();
    for (key, bytes) in found {
        let length = u16::try_from(bytes.len()).map_err(|_| "a parameter is too long".to_owned())?;
        wire.extend(key.to_be_bytes());
        wire.extend(length.to_be_bytes());
        wire.extend(bytes);
    }
    Ok(wire)
}

/// What parameters say of each other (RFC 9460, 7.1.1 and 8).
fn check(found: &[(u16, Vec<u8>)]) -> Parsed<()> {
    let has = |key: u16| found.iter().any(|(other, _)| *other == key);
    if has(NO_DEFAULT_ALPN) && !has(ALPN) {
        return Err("no-default-alpn needs alpn".to_owned());
    }
    let mandatory = found.iter().find(|(key, _)| *key == MANDATORY);
    let keys = mandatory.map_or(&[][..], |(_, bytes)| bytes.as_chunks::<2>().0);
    let missing = keys.iter().map(|key| u16::from_be_bytes(*key)).find(|key| !has(*key) || *key == MANDATORY);
    missing.map_or(Ok(()), |key| Err(format!("key {key} is mandatory and not there")))
}

fn key(name: &[u8]) -> Option<u16> {
    if let Some(known) = SERVICE_KEYS.iter().position(|known| known.as_bytes() == name) {
        return u16::try_from(known).ok();
    }
    decimal(name.strip_prefix(b"key")?)
}

fn parameter(key: u16, value: &[u8], given: bool) -> Parsed<Vec<u8>> {
    let wants_none = matches!(key, NO_DEFAULT_ALPN | OHTTP);
    let wants_some = key < NO_DEFAULT_ALPN || (PORT..OHTTP).contains(&key);
    if wants_none && given {
        return Err("has no value".to_owned());
    }
    if wants_some && value.is_empty() {
        return Err("needs a value".to_owned());
    }
    match key {
        MANDATORY => {
            let names = value.split(|b| *b == b',');
            let keys: Option<Vec<u16>> = names.map(self::key).collect();
            let mut keys = keys.ok_or("has an unknown key")?;
            keys.sort_unstable();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err("has a key twice".to_owned());
            }
            Ok(keys.into_iter().flat_map(u16::to_be_bytes).collect())
        }
        ALPN => {
            let mut wire = Vec::new();
            for protocol in list(&plain(value)?)? {
                match u8::try_from(protocol.len()) {
                    Ok(length @ 1..) => wire.push(length),
                    _ => return Err("each protocol has 1 to 255 bytes".to_owned()),
                }
                wire.extend(protocol);
            }
            Ok(wire)
        }
        PORT => decimal::<u16>(value).map(|p| p.to_be_bytes().to_vec()).ok_or_else(|| "is no port".to_owned()),
        IPV4HINT => addresses(value, |address: Ipv4Addr| address.octets().to_vec()),
        IPV6HINT => addresses(value, |address: Ipv6Addr| address.octets().to_vec()),
        ECH => base64(value),
        _ => plain(value),
    }
}

fn addresses<A: std::str::FromStr>(value: &[u8], octets: impl Fn(A) -> Vec<u8>) -> Parsed<Vec<u8>> {
    let text = String::from_utf8_lossy(value);
    let read: Option<Vec<Vec<u8>>> = text.split(',').map(|part| part.parse().ok().map(&octets)).collect();
    Ok(read.ok_or("has something that is no address")?.concat())
}

/// A comma-separated list, in which `\,` and `\\` are no separators (RFC 9460, A.1); other escapes are gone already.
fn list(text: &[u8]) -> Parsed<Vec<Vec<u8>>> {
    let mut items = vec![Vec::new()];
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let byte = match first {
            b',' => {
                items.push(Vec::new());
                continue;
            }
            b'\\' => {
                let (byte, after) = unescape(rest).ok_or("a \\ escapes nothing")?;
                rest = after;
                byte
            }
            _ => *first,
        };
        if let Some(item) = items.last_mut() {
            item.push(byte);
        }
    }
    Ok(items)
}
