//! Messages and records for people: presentation form as `dig` and master files have it (RFC 1035, 5.1), what has
//! none as RFC 3597 says. And the way back for a type's name.

use std::fmt::Write as _;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable, DecodeError, Restrict};
use serde::Serialize;
use xdp_balancer_common::EDNS_PAYLOAD;

use super::TYPE_DNAME;
use super::client::QuestionError;
use crate::model::show_domain;

/// A message in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decoded {
    /// Its identifier.
    pub id: u16,
    /// OPCODE.
    pub opcode: u8,
    /// RCODE with its high bits, by name where it has one.
    pub rcode: String,
    /// Of `qr aa tc rd ra ad cd`, those that are set.
    pub flags: Vec<&'static str>,
    /// `NAME CLASS TYPE`.
    pub questions: Vec<String>,
    /// Records, one line each.
    pub answers: Vec<String>,
    /// Records, one line each.
    pub authorities: Vec<String>,
    /// Records other than OPT, one line each.
    pub additionals: Vec<String>,
    /// What the OPT says, if there is one.
    pub edns: Option<DecodedEdns>,
}

/// An OPT in words (RFC 6891).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DecodedEdns {
    /// Version.
    pub version: u8,
    /// Bytes that its sender can take over UDP.
    pub payload: u16,
    /// DO.
    pub dnssec_ok: bool,
    /// Options: code, data in hexadecimal digits.
    pub options: Vec<(u16, String)>,
}

/// Reads a message.
///
/// # Errors
/// [`DecodeError`] where it is none.
pub fn decode(message: &[u8]) -> Result<Decoded, DecodeError> {
    let message = Message::from_vec(message)?;
    let head = &message.metadata;
    let flags = [
        ("qr", head.message_type == MessageType::Response),
        ("aa", head.authoritative),
        ("tc", head.truncation),
        ("rd", head.recursion_desired),
        ("ra", head.recursion_available),
        ("ad", head.authentic_data),
        ("cd", head.checking_disabled),
    ];
    let lines = |records: &[Record]| records.iter().map(line).collect();
    Ok(Decoded {
        id: head.id,
        opcode: head.op_code.into(),
        rcode: rcode_name(head.response_code.into()),
        flags: flags.into_iter().filter_map(|(name, set)| set.then_some(name)).collect(),
        questions: message
            .queries
            .iter()
            .map(|q| format!("{} {} {}", q.name(), q.query_class(), type_name(q.query_type().into())))
            .collect(),
        answers: lines(&message.answers),
        authorities: lines(&message.authorities),
        additionals: lines(&message.additionals),
        edns: message.edns.as_ref().map(edns),
    })
}

fn edns(opt: &Edns) -> DecodedEdns {
    let option = |option: &EdnsOption| {
        let data = Vec::<u8>::try_from(option).unwrap_or_default();
        hex(&data)
    };
    DecodedEdns {
        version: opt.version(),
        payload: opt.max_payload(),
        dnssec_ok: opt.flags().dnssec_ok,
        options: opt.options().options.iter().map(|(code, o)| (u16::from(*code), option(o))).collect(),
    }
}

fn line(record: &Record) -> String {
    let rtype = record.record_type();
    format!("{} {} {} {} {}", record.name, record.ttl, record.dns_class, type_name(rtype.into()), data(&record.data))
}

/// Data of a record from its wire form, which may not point anywhere.
#[must_use]
pub fn rdata(rtype: u16, bytes: &[u8]) -> String {
    let Ok(length) = u16::try_from(bytes.len()) else { return generic(bytes) };
    let mut decoder = BinDecoder::new(bytes);
    match RData::read(&mut decoder, RecordType::from(rtype), Restrict::new(length)) {
        Ok(read) if decoder.is_empty() => data(&read),
        _ => generic(bytes),
    }
}

fn data(data: &RData) -> String {
    match data {
        // hickory's form of it has no quotes and loses bytes.
        RData::TXT(txt) => txt.txt_data.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(" "),
        RData::Unknown { code, rdata } if u16::from(*code) == TYPE_DNAME => show_domain(&rdata.anything),
        RData::Unknown { .. } | RData::NULL(_) | RData::OPT(_) | RData::Update0(_) => {
            generic(&data.to_bytes().unwrap_or_default())
        }
        known => known.to_string(),
    }
}

/// `\# LENGTH HEX` (RFC 3597, section 5).
fn generic(bytes: &[u8]) -> String {
    format!("\\# {} {}", bytes.len(), hex(bytes)).trim_end().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing into a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A character string of RFC 1035, 5.1: in quotes, bytes that are not printable as `\DDD`.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "\\{byte:03}");
            }
        }
    }
    out.push('"');
    out
}

/// The name of a type: its mnemonic, or `TYPEnnn` (RFC 3597, section 5).
#[must_use]
pub fn type_name(rtype: u16) -> String {
    match RecordType::from(rtype) {
        RecordType::Unknown(_) => format!("TYPE{rtype}"),
        known => known.to_string(),
    }
}

/// The type of that name, in whatever letters.
#[must_use]
pub fn type_code(name: &str) -> Option<u16> {
    let name = name.to_ascii_uppercase();
    match name.strip_prefix("TYPE").map(str::parse) {
        Some(Ok(code)) => Some(code),
        // hickory reads fewer names than it writes.
        _ => (0..=u16::MAX)
            .find(|code| !matches!(RecordType::from(*code), RecordType::Unknown(_)) && type_name(*code) == name),
    }
}

/// The name of an RCODE (IANA's registry of DNS parameters).
fn rcode_name(code: u16) -> String {
    let name = match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        16 => "BADVERS",
        23 => "BADCOOKIE",
        _ => return format!("RCODE{code}"),
    };
    name.to_owned()
}

/// A query as stub resolvers ask it: RD, and EDNS with a payload size of 1232 where wanted. Letters stay as they
/// are; a final dot may be left out.
///
/// # Errors
/// [`QuestionError`] where `name` is no domain name.
pub fn query(id: u16, name: &str, qtype: u16, with_edns: bool) -> Result<Vec<u8>, QuestionError> {
    let encode = || -> Result<Vec<u8>, ProtoError> {
        let mut name = Name::from_ascii(name)?;
        name.set_fqdn(true);
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, RecordType::from(qtype)));
        if with_edns {
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_PAYLOAD);
            message.set_edns(edns);
        }
        message.to_vec()
    };
    encode().map_err(|source| QuestionError { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn types_are_known_by_name_and_number() {
        for (name, code) in [("A", 1), ("aaaa", 28), ("Https", 65), ("TYPE65280", 65280), ("type1", 1), ("ANY", 255)] {
            assert_eq!(type_code(name), Some(code), "{name}");
        }
        assert_eq!((type_name(1), type_name(65280)), ("A".to_owned(), "TYPE65280".to_owned()));
        for wrong in ["", "TYPE", "TYPE65536", "TYPE-1", "nonsense"] {
            assert_eq!(type_code(wrong), None, "{wrong}");
        }
        for code in (1..=110).chain([249, 250, 251, 252, 255, 256, 257]) {
            let name = type_name(code);
            assert_eq!(type_code(&name), Some(code), "{name}");
        }
    }

    #[test]
    fn data_is_written_as_master_files_have_it() {
        let mx = b"\x00\x0a\x04mail\x04edge\x04test\x00";
        for (rtype, bytes, text) in [
            (1, &[192, 0, 2, 1][..], "192.0.2.1"),
            (16, b"\x03a\"b\x02\x00z", "\"a\\\"b\" \"\\000z\""),
            (15, mx, "10 mail.edge.test."),
            (65280, &[1, 255], "\\# 2 01ff"),
            (65280, &[], "\\# 0"),
            // Not what the type has.
            (1, &[1, 2, 3], "\\# 3 010203"),
            (1, &[1, 2, 3, 4, 5], "\\# 5 0102030405"),
        ] {
            assert_eq!(rdata(rtype, bytes), text);
        }
    }

    #[test]
    fn a_query_reads_as_it_was_asked() {
        let asked = query(7, "ViDeo.edge.test", 28, true).unwrap();
        let decoded = decode(&asked).unwrap();
        assert_eq!((decoded.id, decoded.opcode, decoded.rcode.as_str()), (7, 0, "NOERROR"));
        assert_eq!(decoded.flags, ["rd"]);
        assert_eq!(decoded.questions, ["ViDeo.edge.test. IN AAAA"]);
        let edns = decoded.edns.unwrap();
        assert_eq!((edns.version, edns.payload, edns.options.len()), (0, 1232, 0));
        assert_eq!(decode(&query(7, "a.", 1, false).unwrap()).unwrap().edns, None);
        assert!(decode(&asked[..20]).is_err());
        assert!(query(1, "a..b", 1, false).is_err());
    }

    #[test]
    fn options_and_records_are_shown() {
        let mut reply = query(1, "a.test", 1, false).unwrap();
        // QR, AA, one answer, one additional record.
        (reply[2], reply[7], reply[11]) = (0x85, 1, 1);
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 1]);
        reply.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        let decoded = decode(&reply).unwrap();
        assert_eq!(decoded.flags, ["qr", "aa", "rd"]);
        assert_eq!(decoded.answers, ["a.test. 30 IN A 10.0.0.1"]);
        assert_eq!(decoded.edns.unwrap().options, [(10, "0102030405060708".to_owned())]);
        assert!(decoded.additionals.is_empty());
    }
}
