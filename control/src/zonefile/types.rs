//! Types by name and number, and what their data consist of.

/// One part of a type's data, as it is written and as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    U8,
    U16,
    U32,
    /// Seconds, or a number with units as in `1h30m`.
    Period,
    V4,
    V6,
    /// A name. Letter case stays.
    Name,
    /// A character-string.
    Text,
    /// One character-string or more.
    Texts,
    /// Bytes without a length, up to the end.
    Bytes,
    /// Hexadecimal digits, up to the end.
    Hex,
    /// Hexadecimal digits behind a length byte, `-` for none.
    Salt,
    /// Base32hex (RFC 4648, 7) behind a length byte.
    Hash,
    /// Base64, up to the end.
    Base64,
    /// A type.
    Type,
    /// A set of types (RFC 4034, 4.1.2), up to the end.
    Types,
    /// Seconds since 1970 or YYYYMMDDHHmmSS.
    Time,
    /// A DNSSEC algorithm, by number or name.
    Algorithm,
    /// A certificate's kind, by number or name (RFC 4398, 2.1).
    Certificate,
    /// So many bytes in hexadecimal with a dash between two.
    Eui(usize),
    /// 64 bits as four groups of hexadecimal digits (RFC 6742).
    Locator,
    /// An NSAP address (RFC 1706).
    Nsap,
    /// A position (RFC 1876).
    Position,
    /// Address prefixes (RFC 3123), up to the end.
    Prefixes,
    /// An IPSECKEY's gateway, whose kind was said before (RFC 4025), behind kind and algorithm.
    Gateway,
    /// A service binding's parameters (RFC 9460), up to the end.
    Parameters,
}

/// A type.
#[derive(Debug)]
pub(super) struct Kind {
    pub name: &'static str,
    pub number: u16,
    pub parts: &'static [Part],
    pub example: &'static str,
}

const fn kind(name: &'static str, number: u16, parts: &'static [Part], example: &'static str) -> Kind {
    Kind { name, number, parts, example }
}

use Part::*;

const SVCB: &[Part] = &[U16, Name, Parameters];
const DIGEST: &[Part] = &[U16, Algorithm, U8, Hex];
const KEY: &[Part] = &[U16, U8, Algorithm, Base64];
const SIGNATURE: &[Part] = &[Type, Algorithm, U8, Period, Time, Time, U16, Name, Base64];

/// Every type that has a name here. Others are written `TYPE123 \# LENGTH HEX` (RFC 3597).
#[rustfmt::skip]
const KINDS: &[Kind] = &[
    kind("A", 1, &[V4], "192.0.2.1"),
    kind("NS", 2, &[Name], "ns1.edge.example."),
    kind("MD", 3, &[Name], "mail.edge.example."),
    kind("MF", 4, &[Name], "mail.edge.example."),
    kind("CNAME", 5, &[Name], "www.edge.example."),
    kind("SOA", 6, &[Name, Name, U32, Period, Period, Period, Period],
        "ns1.edge.example. hostmaster.edge.example. 2026010101 3600 600 604800 60"),
    kind("MB", 7, &[Name], "host.edge.example."),
    kind("MG", 8, &[Name], "group.edge.example."),
    kind("MR", 9, &[Name], "new.edge.example."),
    kind("PTR", 12, &[Name], "www.edge.example."),
    kind("HINFO", 13, &[Text, Text], "\"PC\" \"Linux\""),
    kind("MINFO", 14, &[Name, Name], "owner.edge.example. errors.edge.example."),
    kind("MX", 15, &[U16, Name], "10 mail.edge.example."),
    kind("TXT", 16, &[Texts], "\"v=spf1 -all\""),
    kind("RP", 17, &[Name, Name], "admin.edge.example. text.edge.example."),
    kind("AFSDB", 18, &[U16, Name], "1 host.edge.example."),
    kind("X25", 19, &[Text], "\"311061700956\""),
    kind("ISDN", 20, &[Texts], "\"150862028003217\" \"004\""),
    kind("RT", 21, &[U16, Name], "10 relay.edge.example."),
    kind("NSAP", 22, &[Nsap], "0x47.0005.80.005a00.0000.0001.e133.ffffff000161.00"),
    kind("NSAP-PTR", 23, &[Name], "host.edge.example."),
    kind("SIG", 24, SIGNATURE, "A 8 3 3600 20260201000000 20260101000000 12345 edge.example. AAAA"),
    kind("KEY", 25, KEY, "256 3 8 AwEAAQ=="),
    kind("PX", 26, &[U16, Name, Name], "10 a.edge.example. b.edge.example."),
    kind("GPOS", 27, &[Text, Text, Text], "\"-32.6882\" \"116.8652\" \"10.0\""),
    kind("AAAA", 28, &[V6], "2001:db8::1"),
    kind("LOC", 29, &[Position], "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"),
    kind("SRV", 33, &[U16, U16, U16, Name], "0 5 5060 sip.edge.example."),
    kind("NAPTR", 35, &[U16, U16, Text, Text, Text, Name], "100 10 \"S\" \"SIP+D2U\" \"\" _sip._udp.edge.example."),
    kind("KX", 36, &[U16, Name], "10 kx.edge.example."),
    kind("CERT", 37, &[Certificate, U16, Algorithm, Base64], "PGP 0 0 AwEAAQ=="),
    kind("DNAME", 39, &[Name], "other.example."),
    kind("APL", 42, &[Prefixes], "1:192.0.2.0/24 !2:2001:db8::/32"),
    kind("DS", 43, DIGEST, "12345 13 2 0d6fce3a"),
    kind("SSHFP", 44, &[U8, U8, Hex], "4 2 123456"),
    kind("IPSECKEY", 45, &[U8, Gateway, Base64], "10 1 2 192.0.2.38 AwEAAQ=="),
    kind("RRSIG", 46, SIGNATURE, "A 8 3 3600 20260201000000 20260101000000 12345 edge.example. AAAA"),
    kind("NSEC", 47, &[Name, Types], "next.edge.example. A TXT NSEC"),
    kind("DNSKEY", 48, KEY, "257 3 13 AwEAAQ=="),
    kind("DHCID", 49, &[Base64], "AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA="),
    kind("NSEC3", 50, &[U8, U8, U16, Salt, Hash, Types], "1 1 12 aabbccdd 2vptu5timamqttgl4luu9kg21e0aor3s A RRSIG"),
    kind("NSEC3PARAM", 51, &[U8, U8, U16, Salt], "1 0 12 aabbccdd"),
    kind("TLSA", 52, &[U8, U8, U8, Hex], "3 1 1 0d6fce3a"),
    kind("SMIMEA", 53, &[U8, U8, U8, Hex], "3 1 1 0d6fce3a"),
    kind("NINFO", 56, &[Texts], "\"status\""),
    kind("RKEY", 57, KEY, "0 3 8 AwEAAQ=="),
    kind("TALINK", 58, &[Name, Name], "a.edge.example. b.edge.example."),
    kind("CDS", 59, DIGEST, "12345 13 2 0d6fce3a"),
    kind("CDNSKEY", 60, KEY, "257 3 13 AwEAAQ=="),
    kind("OPENPGPKEY", 61, &[Base64], "AwEAAQ=="),
    kind("CSYNC", 62, &[U32, U16, Types], "66 3 A NS AAAA"),
    kind("ZONEMD", 63, &[U32, U8, U8, Hex], "2026010101 1 1 0d6fce3a"),
    kind("SVCB", 64, SVCB, "1 svc.edge.example. port=8443"),
    kind("HTTPS", 65, SVCB, "1 . alpn=h2,h3 port=8443"),
    kind("SPF", 99, &[Texts], "\"v=spf1 -all\""),
    kind("NID", 104, &[U16, Locator], "10 0014:4fff:ff20:ee64"),
    kind("L32", 105, &[U16, V4], "10 192.0.2.0"),
    kind("L64", 106, &[U16, Locator], "10 2001:0db8:1140:1000"),
    kind("LP", 107, &[U16, Name], "10 l64.edge.example."),
    kind("EUI48", 108, &[Eui(6)], "00-00-5e-00-53-2a"),
    kind("EUI64", 109, &[Eui(8)], "00-00-5e-ef-10-00-00-2a"),
    kind("URI", 256, &[U16, U16, Bytes], "10 1 \"https://www.edge.example/\""),
    kind("CAA", 257, &[U8, Text, Bytes], "0 issue \"ca.example.net\""),
    kind("AVC", 258, &[Texts], "\"app-name:x\""),
    kind("RESINFO", 261, &[Texts], "\"qnamemin\""),
    kind("WALLET", 262, &[Texts], "\"BTC\" \"address\""),
    kind("TA", 32_768, DIGEST, "12345 13 2 0d6fce3a"),
    kind("DLV", 32_769, DIGEST, "12345 13 2 0d6fce3a"),
];

/// How a type without a name here is written.
pub(super) const GENERIC_EXAMPLE: &str = "\\# 4 c0000201";

/// The type of that number, if it has a name here.
pub(super) fn by_number(number: u16) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.number == number)
}

/// The number of a type: by its name or as `TYPE123`.
pub(super) fn number(text: &[u8]) -> Option<u16> {
    if let Some(kind) = KINDS.iter().find(|kind| text.eq_ignore_ascii_case(kind.name.as_bytes())) {
        return Some(kind.number);
    }
    let (prefix, digits) = text.split_at_checked(4)?;
    let decimal = prefix.eq_ignore_ascii_case(b"TYPE") && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| decimal)?.parse().ok()
}

/// How a type is written.
#[must_use]
pub fn type_text(number: u16) -> String {
    by_number(number).map_or_else(|| format!("TYPE{number}"), |kind| kind.name.to_owned())
}

/// DNSSEC algorithms by name (RFC 8624 and IANA's registry).
pub(super) const ALGORITHMS: [(&str, u8); 16] = [
    ("RSAMD5", 1),
    ("DH", 2),
    ("DSA", 3),
    ("RSASHA1", 5),
    ("DSA-NSEC3-SHA1", 6),
    ("RSASHA1-NSEC3-SHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECC-GOST", 12),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("INDIRECT", 252),
    ("PRIVATEDNS", 253),
    ("PRIVATEOID", 254),
];

/// Kinds of certificates by name (RFC 4398, 2.1).
pub(super) const CERTIFICATES: [(&str, u16); 10] = [
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPKIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];

/// Keys of service bindings by name, at the index that is their number (RFC 9460, 14.3.2; RFC 9461; RFC 9540).
pub(super) const SERVICE_KEYS: [&str; 9] =
    ["mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp"];
