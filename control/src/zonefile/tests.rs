//! Files on disk, as an operator has them; what they mean and what is wrong with them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::lexer::Lexer;
use super::types::by_number;
use super::*;
use crate::model::show_domain;

const APEX: &str = "edge.test.";
const HEAD: &str = "$TTL 300\n@ SOA ns host 1 2 3 4 5\n@ NS ns\nns A 192.0.2.53\n";

fn zone(files: &[(&str, &str)]) -> Result<ZoneFile, Vec<Fault>> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    read(&directory.path().join(files[0].0), APEX)
}

/// Records as `NAME TTL TYPE HEX`.
fn shown(zone: &ZoneFile) -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let record = |r: &ZoneRecord| format!("{} {} {} {}", r.name, r.ttl_s, type_text(r.rtype), hex(&r.rdata));
    zone.records.iter().map(record).collect()
}

fn one(record: &str) -> Result<Vec<u8>, String> {
    let entry = Lexer::new(record.as_bytes()).next().unwrap().map_err(|b| b.what.to_owned())?;
    let (kind, data) = entry.tokens.split_first().unwrap();
    let number = types::number(&kind.text).ok_or("no type")?;
    rdata::rdata(number, data, b"\x04edge\x04test\0")
}

#[test]
fn what_a_line_leaves_out_is_the_last_that_was_said() {
    let main = "
$ORIGIN Test.
$TTL 1h
EDGE	IN	SOA	ns.Edge hostmaster\\.one.edge (
		2026010203 ; serial
		1d 2h 1w
		1m30s )	; minimum
	NS	ns.edge
	60	NS	ns.elsewhere.example.
$ORIGIN edge.test.
ns	A	192.0.2.53
	IN 7 AAAA 2001:db8::53
	CLASS1 A 192.0.2.54 ; the set has one TTL
$INCLUDE more.zone inner
after	8 IN A	192.0.2.1
	A	192.0.2.2
$INCLUDE most.zone
here	A 192.0.2.4
@	TXT	\"two\" words
";
    let zone = zone(&[
        ("main.zone", main),
        ("more.zone", "a A 192.0.2.3\n$ORIGIN elsewhere.edge.test.\n$TTL 9\n@ A 192.0.2.3\n"),
        ("most.zone", "\tTXT kept\n"),
    ])
    .unwrap();
    let zone_records = shown(&zone);
    assert_eq!(
        zone_records,
        [
            "a.inner.edge.test. 3600 A c0000203",
            "ns.edge.test. 3600 A c0000235",
            "ns.edge.test. 3600 A c0000236",
            "ns.edge.test. 7 AAAA 20010db8000000000000000000000053",
            "edge.test. 9 TXT 0374776f05776f726473",
            "here.edge.test. 9 A c0000204",
            "after.edge.test. 8 A c0000201",
            "after.edge.test. 8 A c0000202",
            "after.edge.test. 9 TXT 046b657074",
            "elsewhere.edge.test. 9 A c0000203",
        ]
    );
    assert_eq!((zone.primary.as_str(), zone.contact.as_str()), ("ns.Edge.test.", "hostmaster\\.one.edge.test."));
    assert_eq!(zone.nameservers, ["ns.edge.test.", "ns.elsewhere.example."]);
    assert_eq!((zone.ttl_s, zone.minimum_s), (3600, 90));
    let told = Authority { serial: 2_026_010_203, refresh_s: 86_400, retry_s: 7200, expire_s: 604_800, ns_ttl_s: 3600 };
    assert_eq!(zone.authority, told);
    assert_eq!((zone.places[0].line, zone.places[1].line), (1, 11));
    assert!(zone.places[0].file.ends_with("more.zone") && zone.places[1].file.ends_with("main.zone"));
}

#[test]
fn without_ttl_directive_the_last_ttl_holds_and_before_any_the_minimum() {
    let zone = zone(&[("z", "@ SOA ns host 1 2 3 4 77\n@ NS ns\nns A 192.0.2.1\na 5 A 192.0.2.1\nb A 192.0.2.1\n")]);
    let zone = zone.unwrap();
    assert_eq!((zone.ttl_s, zone.authority.ns_ttl_s), (77, 77));
    assert_eq!(shown(&zone), ["a.edge.test. 5 A c0000201", "b.edge.test. 5 A c0000201", "ns.edge.test. 77 A c0000201"]);
}

#[test]
fn odd_names_and_equal_records() {
    let zone = zone(&[(
        "z",
        &format!(
            "{HEAD}a\\.b A 192.0.2.1\n\\097\\032c 1 A 192.0.2.1\nA.B TXT x\na.b TXT x\n*.w TXT x\n\\@ TXT x\n_x._tcp TXT y"
        ),
    )])
    .unwrap();
    let mut zone = shown(&zone);
    zone.sort();
    assert_eq!(
        zone,
        [
            "*.w.edge.test. 300 TXT 0178",
            "\\@.edge.test. 300 TXT 0178",
            "_x._tcp.edge.test. 300 TXT 0179",
            "a.b.edge.test. 300 TXT 0178",
            "a\\.b.edge.test. 300 A c0000201",
            "a\\032c.edge.test. 1 A c0000201",
            "ns.edge.test. 300 A c0000235",
        ]
    );
}

#[test]
fn data_become_their_wire_form() {
    let edge: &[u8] = b"\x04edge\x04test\0";
    let name = |label: &str| [&[label.len() as u8], label.as_bytes(), edge].concat();
    for (record, wire) in [
        ("A 192.0.2.1", vec![192, 0, 2, 1]),
        ("CNAME WWW", name("WWW")),
        ("CNAME @", edge.to_vec()),
        ("PTR WWW", name("WWW")),
        ("MX 10 mail", [vec![0, 10], name("mail")].concat()),
        ("TXT \"a b\" c \"d\\\"e\" \\065\\;", b"\x03a b\x01c\x03d\"e\x02A;".to_vec()),
        ("TXT \"\"", vec![0]),
        ("TXT \"\\200\\255\"", vec![2, 200, 255]),
        ("TYPE16 \"x\"", vec![1, b'x']),
        ("CAA 0 issue \"ca.example\"", b"\0\x05issueca.example".to_vec()),
        ("URI 10 1 \"https://a/\"", b"\0\x0a\0\x01https://a/".to_vec()),
        ("SSHFP 4 2 AB CD", vec![4, 2, 0xAB, 0xCD]),
        ("DS 1 ECDSAP256SHA256 2 0a0B", vec![0, 1, 13, 2, 10, 11]),
        ("DNSKEY 257 3 13 AQ ID", vec![1, 1, 3, 13, 1, 2, 3]),
        ("TYPE65280 \\# 3 0A 0bfF", vec![0x0A, 0x0B, 0xFF]),
        ("TYPE65280 \\# 0", vec![]),
        ("A \\# 4 c0 00 02 01", vec![192, 0, 2, 1]),
        ("CNAME \\# 3 01 41 00", vec![1, b'A', 0]),
        (
            "NSEC b A MX TYPE1234",
            [name("b"), vec![0, 2, 0x40, 1, 4, 27]].concat().into_iter().chain([0; 26]).chain([0x20]).collect(),
        ),
        ("NSEC3PARAM 1 0 0 -", vec![1, 0, 0, 0, 0]),
        (
            "LOC 42 21 54 N 71 06 18 W -24m 30m",
            [&[0, 0x33, 0x16, 0x13][..], &[0x89, 0x17, 0x2D, 0xD0, 0x70, 0xBE, 0x15, 0xF0, 0x00, 0x98, 0x8D, 0x20]]
                .concat(),
        ),
        ("APL 1:192.168.38.0/28 !2:ff00::/8", vec![0, 1, 28, 3, 192, 168, 38, 0, 2, 8, 0x81, 0xFF]),
        ("EUI48 00-00-5E-00-53-2a", vec![0, 0, 0x5E, 0, 0x53, 0x2A]),
        ("L64 10 2001:db8:1140:1000", vec![0, 10, 0x20, 1, 0xD, 0xB8, 0x11, 0x40, 0x10, 0]),
        (
            "HTTPS 1 . port=53 alpn=\"h2,h3\"",
            vec![0, 1, 0, 0, 1, 0, 6, 2, b'h', b'2', 2, b'h', b'3', 0, 3, 0, 2, 0, 53],
        ),
        (
            "SVCB 1 . mandatory=port,alpn alpn=a port=1",
            vec![0, 1, 0, 0, 0, 0, 4, 0, 1, 0, 3, 0, 1, 0, 2, 1, b'a', 0, 3, 0, 2, 0, 1],
        ),
        // RFC 9460, D.2 figure 5 and D.2 figure 8.
        ("SVCB 1 . key667=\"hello\\210qoo\"", b"\0\x01\0\x02\x9b\0\x09hello\xd2qoo".to_vec()),
        ("SVCB 16 . alpn=\"f\\\\\\\\oo\\\\,bar,h2\"", b"\0\x10\0\0\x01\0\x0c\x08f\\oo,bar\x02h2".to_vec()),
        (
            "SVCB 1 . alpn=h2 no-default-alpn ipv4hint=192.0.2.1,192.0.2.2",
            b"\0\x01\0\0\x01\0\x03\x02h2\0\x02\0\0\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02".to_vec(),
        ),
    ] {
        assert_eq!(one(record).as_deref(), Ok(wire.as_slice()), "{record}");
    }
    // 2026-02-01 00:00:00 UTC.
    let signature = one("RRSIG A 8 3 3600 20260201000000 1767225600 12345 edge.test. AAAA").unwrap();
    assert_eq!(signature[8..12], 1_769_904_000u32.to_be_bytes());
}

#[test]
fn every_example_is_what_it_shows() {
    let kinds: Vec<_> = (0..=u16::MAX).filter_map(by_number).collect();
    assert!(kinds.len() > 60);
    for kind in kinds {
        let wire = one(&format!("{} {}", kind.name, kind.example)).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
        let hex: String = wire.iter().map(|b| format!("{b:02x}")).collect();
        let generic = one(&format!("{} \\# {} {hex}", kind.name, wire.len()));
        assert_eq!(generic.as_ref(), Ok(&wire), "{}", kind.name);
        let more = one(&format!("{} {} !", kind.name, kind.example));
        assert!(more.is_err() || kind.parts.ends_with(&[types::Part::Texts]), "{}", kind.name);
    }
}

#[test]
fn wrong_data_are_told() {
    for record in [
        "A 192.0.2.256",
        "A 192.0.2.1 192.0.2.2",
        "A",
        "AAAA 192.0.2.1",
        "MX mail",
        "MX 65536 mail",
        "MX +1 mail",
        "CNAME a..b.",
        "CNAME \\# 2 0141",
        "CNAME \\# 4 01410000",
        "A \\# 3 c00002",
        "A \\# 4 c00002",
        "A \\# 1 0",
        "SRV 0 0 65536 a.",
        "TXT",
        "TXT \\25",
        "TXT \\256",
        "DS 1 13 2 0",
        "DS 1 NOALGORITHM 2 00",
        "DNSKEY 1 3 13 AQI",
        "DNSKEY 1 3 13 AQ==AQ==",
        "NSEC b NOTYPE",
        "NSEC3 1 1 1 - wxyz A",
        "LOC 91 N 0 E 0m",
        "LOC 1 N 1 X 0m",
        "LOC 1 60 N 0 E 0m",
        "APL 3:1.2.3.4/8",
        "APL 1:1.2.3.4/33",
        "EUI48 00-00-5e-00-53",
        "L64 1 1:2:3",
        "NSAP 47",
        "HTTPS 1 . alpn=h2 alpn=h3",
        "SVCB 1 . no-default-alpn",
        "SVCB 1 . mandatory=port",
        "SVCB 1 . port=x",
        "SVCB 1 . alpn",
        "SVCB 1 . ohttp=1",
        "SVCB 1 . nokey=1",
        "SVCB 1 . ipv4hint=::1",
        "IPSECKEY 10 4 2 . AQID",
        "RRSIG A 8 3 3600 20261301000000 0 1 edge.test. AAAA",
        "TYPE65280 0a",
        "TYPE65280 \\# 2 0a",
        "TYPE65280 \\# 1 xx",
    ] {
        assert!(one(record).is_err(), "{record}");
    }
    assert!(one(&format!("TXT \"{}\"", "x".repeat(256))).is_err());
}

/// Files under `tests/configs/broken-zones`, each with its faults in its head: `; expect: LINE: FRAGMENT`.
#[test]
fn broken_files_are_refused_with_place_and_remedy() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/configs/broken-zones");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "zone"));
    assert!(files.len() >= 20, "only {} files", files.len());
    for path in files {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        let expected: Vec<_> = text.lines().map_while(|line| line.strip_prefix("; expect: ")).collect();
        let faults = read(&path, APEX).expect_err(&format!("{} is sound", path.display()));
        let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{}: {told:#?}", path.display());
        for (fault, expected) in faults.iter().zip(expected) {
            let (line, fragment) = expected.split_once(": ").unwrap();
            assert_eq!(fault.place.line.to_string(), line, "{fault}");
            assert!(fault.what.contains(fragment) && !fault.fix.is_empty(), "{fault}\nwithout {fragment:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_names_stay_inside(text in "[a-cA-C0-9.@$*;()\"\\\\# \t\nNSOATXIC]{0,200}") {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("z");
        fs::write(&path, format!("{HEAD}{text}")).unwrap();
        match read(&path, APEX) {
            Ok(zone) => prop_assert!(zone.records.iter().all(|r| r.name.ends_with(APEX)) && zone.records.len() == zone.places.len()),
            Err(faults) => prop_assert!(!faults.is_empty()),
        }
    }

    #[test]
    fn data_of_every_type_survive_the_generic_form(number in any::<u16>(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let read = one(&format!("TYPE{number} \\# {} {hex}", bytes.len()));
        if by_number(number).is_none() {
            prop_assert_eq!(read, Ok(bytes));
        } else if let Ok(wire) = read {
            prop_assert_eq!(wire, bytes);
        }
    }
}

#[test]
fn names_are_written_as_they_are_read() {
    assert_eq!(show_domain(b"\x03a.b\x01 \0"), "a\\.b.\\032.");
}
