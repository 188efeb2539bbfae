//! A record's data in presentation form → wire form, by hickory's parser. The one place here that knows hickory.

use std::str::FromStr;

use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use super::errors::{Complaint, nearest};

/// Types that can be written by name.
const TYPES: [&str; 18] = [
    "A",
    "AAAA",
    "CAA",
    "CERT",
    "CNAME",
    "HINFO",
    "HTTPS",
    "MX",
    "NAPTR",
    "NS",
    "OPENPGPKEY",
    "PTR",
    "SMIMEA",
    "SRV",
    "SSHFP",
    "SVCB",
    "TLSA",
    "TXT",
];
/// Types that have a meaning for a server: SOA is made here, zones are not signed, DNAME stands in master files only, the
/// types of messages are no data. 32769 and on are assigned like any other.
const REFUSED: [u16; 8] = [0, 6, 39, 41, 46, 47, 50, 51];
const META: std::ops::RangeInclusive<u16> = 128..=255;
/// A set that no reply can hold is no use.
const LONGEST: usize = 16_000;

/// Reads a type: one of the names, or `TYPE` with its number (RFC 3597).
pub(super) fn rtype(text: &str) -> Result<u16, Complaint> {
    let upper = text.to_ascii_uppercase();
    if TYPES.contains(&upper.as_str())
        && let Ok(known) = RecordType::from_str(&upper)
    {
        return Ok(known.into());
    }
    if upper == "SOA" {
        let fix = "set primary, contact, ttl_s and negative_ttl_s of the zone instead";
        return Err(Complaint::new("SOA is made from the zone's own keys", fix));
    }
    if let Some(number) = upper.strip_prefix("TYPE").and_then(|number| number.parse::<u16>().ok()) {
        let known = RecordType::from(number).to_string();
        if TYPES.contains(&known.as_str()) {
            return Err(Complaint::new(format!("{text:?} has a name"), format!("write {known:?}")));
        }
        if REFUSED.contains(&number) || META.contains(&number) {
            return Err(Complaint::new(format!("{text:?} is no type that a zone here can hold"), "use another type"));
        }
        return Ok(number);
    }
    let fix = match nearest(&upper, &TYPES) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("use one of {}, or TYPE with a number", TYPES.join(", ")),
    };
    Err(Complaint::new(format!("{text:?} is not a known type"), fix))
}

/// How a type is written.
pub(super) fn type_name(rtype: u16) -> String {
    let name = RecordType::from(rtype).to_string();
    if TYPES.contains(&name.as_str()) { name } else { format!("TYPE{rtype}") }
}

/// What data of a type look like.
fn example(rtype: RecordType) -> &'static str {
    match rtype {
        RecordType::A => "192.0.2.1",
        RecordType::AAAA => "2001:db8::1",
        RecordType::CAA => "0 issue \"ca.example.net\"",
        RecordType::CNAME | RecordType::NS | RecordType::PTR => "www.edge.example.",
        RecordType::HTTPS | RecordType::SVCB => "1 . alpn=h2,h3 port=8443",
        RecordType::MX => "10 mail.edge.example.",
        RecordType::NAPTR => "100 10 \"S\" \"SIP+D2U\" \"\" _sip._udp.edge.example.",
        RecordType::SRV => "0 5 5060 sip.edge.example.",
        RecordType::TXT => "\"v=spf1 -all\"",
        RecordType::TLSA | RecordType::SMIMEA => "3 1 1 0d6fce3a…",
        RecordType::SSHFP => "4 2 123456…",
        _ => "\\# 4 c0000201",
    }
}

/// Reads data of a type. A name in them is whole with its final dot, or one label of the zone `apex`.
pub(super) fn rdata(rtype: u16, text: &str, apex: &str) -> Result<Vec<u8>, Complaint> {
    let kind = RecordType::from(rtype);
    let wrong = |what: String| {
        let fix = format!("write it as in '{}'", example(kind));
        Complaint::new(format!("{text:?} is no data of type {}: {what}", type_name(rtype)), fix)
    };
    if !TYPES.contains(&kind.to_string().as_str()) {
        return generic(text).map_err(|what| wrong(what.to_owned()));
    }
    let tokens = text.split_whitespace().count();
    let fields = match kind {
        RecordType::A | RecordType::AAAA | RecordType::CNAME | RecordType::NS | RecordType::PTR => Some(1),
        RecordType::MX => Some(2),
        RecordType::SRV => Some(4),
        _ => None,
    };
    // The parser takes what it needs and leaves the rest.
    if let Some(fields) = fields.filter(|fields| *fields != tokens) {
        return Err(wrong(format!("it has {tokens} fields, not {fields}")));
    }
    if tokens == 0 {
        return Err(wrong("it is empty".to_owned()));
    }
    if has_high_escape(text) {
        // hickory makes two bytes of one there.
        return Err(wrong("an escape above \\127 is not understood".to_owned()));
    }
    let mut data = RData::try_from_str(kind, text).map_err(|error| wrong(error.to_string()))?;
    match &mut data {
        RData::CNAME(name) => complete(&mut name.0, apex)?,
        RData::NS(name) => complete(&mut name.0, apex)?,
        RData::PTR(name) => complete(&mut name.0, apex)?,
        RData::MX(mx) => complete(&mut mx.exchange, apex)?,
        RData::SRV(srv) => complete(&mut srv.target, apex)?,
        RData::NAPTR(naptr) => complete(&mut naptr.replacement, apex)?,
        RData::SVCB(svcb) => service_binding(svcb, apex)?,
        RData::HTTPS(https) => service_binding(&mut https.0, apex)?,
        RData::TXT(txt) if txt.txt_data.iter().any(|part| part.len() > 255) => {
            return Err(wrong("a part is longer than 255 bytes; split it into several in double quotes".to_owned()));
        }
        _ => {}
    }
    let bytes = wire(&data).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() > LONGEST {
        return Err(wrong(format!("it takes {} bytes, more than {LONGEST}", bytes.len())));
    }
    Ok(bytes)
}

/// Parameters stand in the order of their keys (RFC 9460, 2.2), whatever order they are written in.
fn service_binding(svcb: &mut hickory_proto::rr::rdata::SVCB, apex: &str) -> Result<(), Complaint> {
    svcb.svc_params.sort_by_key(|(key, _)| *key);
    complete(&mut svcb.target_name, apex)
}

/// Makes a name of the data whole. `mail.example.org` without a dot would mean a name below the apex to one
/// reader and a whole name to another, so it is refused.
fn complete(name: &mut Name, apex: &str) -> Result<(), Complaint> {
    let whole = if name.is_fqdn() {
        Ok(name.to_lowercase())
    } else if name.num_labels() <= 1 {
        Name::from_ascii(apex).and_then(|apex| name.clone().append_domain(&apex)).map(|name| name.to_lowercase())
    } else {
        let fix = format!("end it in a dot: '{name}.' (or '{name}.{apex}', if that is meant)");
        return Err(Complaint::new(format!("the name {:?} in it does not end in a dot", name.to_string()), fix));
    };
    *name = whole.map_err(|error| {
        Complaint::new(format!("the name {:?} in it is no domain name: {error}", name.to_string()), "correct it")
    })?;
    Ok(())
}

fn wire(data: &RData) -> Result<Vec<u8>, hickory_proto::ProtoError> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    data.emit(&mut encoder)?;
    Ok(bytes)
}

/// `\DDD` above 127.
fn has_high_escape(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        rest = &rest[at + 1..];
        let number = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        if number.is_some_and(|digits| digits > b"127".as_slice()) {
            return true;
        }
        // What is escaped, so that the second of two backslashes begins nothing.
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// `\# LENGTH HEX`, the form for every type (RFC 3597, 5).
fn generic(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut parts = text.split_whitespace();
    if parts.next() != Some("\\#") {
        return Err("a type without a name has data that begin with \\#");
    }
    let length: usize = parts.next().and_then(|n| n.parse().ok()).ok_or("the length is no number")?;
    let digits: String = parts.collect();
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let digits: Vec<u8> = digits.bytes().map(|b| digit(&b)).collect::<Option<_>>().ok_or("the rest is not hex")?;
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() || pairs.len() != length || length > LONGEST {
        return Err("the length is not that of the hex digits");
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    const APEX: &str = "edge.example.";

    fn read(kind: &str, data: &str) -> Result<Vec<u8>, Complaint> {
        rdata(rtype(kind)?, data, APEX)
    }

    #[test]
    fn data_become_their_wire_form() {
        let whole: &[u8] = b"\x03www\x04edge\x07example\0";
        for (kind, data, wire) in [
            ("A", "192.0.2.1", &[192, 0, 2, 1][..]),
            ("txt", "\"a b\" c \"d\\\"e\"", b"\x03a b\x01c\x03d\"e"),
            ("CNAME", "WWW.edge.example.", whole),
            ("CNAME", "www", whole),
            ("NS", "www", whole),
            ("MX", "10 www", &[&[0, 10], whole].concat()),
            ("SRV", "1 2 80 www", &[&[0, 1, 0, 2, 0, 80], whole].concat()),
            ("CAA", "0 issue \"ca.example\"", b"\0\x05issueca.example"),
            ("HTTPS", "1 . port=53 alpn=h2", &[0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2', 0, 3, 0, 2, 0, 53]),
            ("SSHFP", "4 2 ABCD", &[4, 2, 0xAB, 0xCD]),
            ("TYPE65280", "\\# 3 0A 0bfF", &[0x0A, 0x0B, 0xFF]),
            ("TYPE43", "\\# 0", &[]),
        ] {
            assert_eq!(read(kind, data).unwrap(), wire, "{kind} {data}");
        }
    }

    #[test]
    fn every_example_is_what_it_shows() {
        for kind in TYPES {
            let kind = RecordType::from_str(kind).unwrap();
            let example = example(kind).replace('…', "");
            if !example.starts_with('\\') {
                rdata(kind.into(), &example, APEX).unwrap();
            }
        }
    }

    #[test]
    fn wrong_data_are_told() {
        for (kind, data) in [
            ("A", "192.0.2.256"),
            ("A", "192.0.2.1 192.0.2.2"),
            ("A", ""),
            ("AAAA", "192.0.2.1"),
            ("MX", "mail"),
            ("MX", "10 mail.example.org"),
            ("CNAME", "a..b."),
            ("SRV", "0 0 65536 a."),
            ("TXT", "\"unclosed"),
            ("TXT", "\\200"),
            ("HTTPS", "1 . alpn=h2 alpn=h3"),
            ("TYPE65280", "0a"),
            ("TYPE65280", "\\# 2 0a"),
            ("TYPE65280", "\\# 1 0"),
            ("TYPE65280", "\\# 1 xx"),
        ] {
            assert!(read(kind, data).is_err(), "{kind} {data}");
        }
        assert!(read("TXT", &format!("\"{}\"", "x".repeat(256))).is_err());
        for kind in ["SOA", "RRSIG", "DNAME", "TYPE6", "TYPE1", "TYPE255", "TYPE41", "ANY", "TXTT", "TYPE70000"] {
            assert!(rtype(kind).is_err(), "{kind}");
        }
    }
}
