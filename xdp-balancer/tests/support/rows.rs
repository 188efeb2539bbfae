//! The table of named frames, and what each must become.

use std::net::SocketAddr;

use xdp_balancer::testing::{FrameBuilder, Query, wire};
use xdp_balancer::{Name, Rendered, Verdict};

use super::{A, AA, AAAA, addresses, frame, ip, name, query};

/// A cookie (RFC 7873) and a padding option of odd length (RFC 7830).
pub const OPTIONS: &[u8] = &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 12, 0, 3, 0, 0, 0];
pub const TXT: u16 = 16;

/// NODATA for a name whose first label has so many bytes: a SOA in the authority section, its owner
/// the rest of the question's name.
pub fn nodata(first_label: u8) -> Rendered {
    let zone = 12 + 1 + first_label;
    let mut bytes = vec![0xc0, zone, 0, 6, 0, 1, 0, 0, 0, 60, 0, 0];
    bytes.extend_from_slice(&[&b"\x02ns\xc0"[..], &[zone], b"\x0ahostmaster\xc0", &[zone]].concat());
    for word in [1_u32, 3600, 600, 86400, 60] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    let rdata_len = bytes.len() - 12;
    bytes[11] = rdata_len as u8;
    Rendered { flags: AA, ancount: 0, nscount: 1, bytes }
}

/// A name of exactly so many bytes in wire form, under the zone.
pub fn name_of(wire_len: usize) -> String {
    let zone = "svc.example.net";
    let mut left = wire_len - (zone.len() + 2);
    let mut labels = Vec::new();
    while left > 0 {
        // A label costs a byte more than it has; never leave a single byte, which no label fits.
        let take = if left > 64 { if left == 65 { 62 } else { 63 } } else { left - 1 };
        labels.push("x".repeat(take));
        left -= take + 1;
    }
    labels.push(zone.to_owned());
    let name = labels.join(".");
    assert_eq!(wire(&name).len(), wire_len);
    name
}

pub fn names() -> Vec<Name> {
    let thirty: Vec<String> = (0..30).map(|i| format!("10.1.0.{i}")).collect();
    let thirty: Vec<&str> = thirty.iter().map(String::as_str).collect();
    let mut names = vec![
        name(
            "www.example.net",
            1,
            vec![
                (A, vec![addresses(&["10.0.0.1", "10.0.0.2"])]),
                (AAAA, vec![addresses(&["fd00::1"])]),
                (TXT, vec![nodata(3)]),
            ],
        ),
        name("idle.example.net", 2, vec![(A, vec![]), (AAAA, vec![nodata(4)])]),
        name("many.example.net", 3, vec![(A, vec![addresses(&thirty)])]),
        name("broken.example.net", 4, vec![(A, vec![addresses(&["10.0.0.9"])])]),
        name("", 5, vec![(A, vec![addresses(&["10.0.0.5"])])]),
    ];
    // Every position of the name's end within a chunk, and the longest name.
    for len in (19..=44).chain([120, 248, 249, 254, 255]) {
        names.push(name(
            &name_of(len),
            6,
            vec![(A, vec![addresses(&["10.0.0.6"])]), (AAAA, vec![addresses(&["fd00::6", "fd00::7"])])],
        ));
    }
    names
}

pub struct Row {
    pub name: String,
    pub frame: Vec<u8>,
    pub verdict: Verdict,
    /// The query of an answered frame.
    pub query: Option<Query>,
}

/// Changes bytes of a frame that would otherwise be answered.
pub fn edited(v6: bool, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = query(v6, &Query::new("www.example.net", A));
    edit(&mut frame);
    frame
}

pub fn passed_rows() -> Vec<Row> {
    use Verdict as V;
    let mut rows = Vec::new();
    let mut row = |name: &str, verdict, frame: Vec<u8>| {
        rows.push(Row { name: name.into(), frame, verdict, query: None });
    };
    let base = || Query::new("www.example.net", A);
    let plain = |q: Query| query(false, &q);
    let from = |source: &str, port| {
        let source = SocketAddr::new(ip(source), port);
        let ours = if source.is_ipv4() { "192.0.2.53" } else { "2001:db8::53" };
        FrameBuilder::new(source, SocketAddr::new(ip(ours), 53)).payload(base().build()).build()
    };

    row("ARP", V::NotIp, edited(false, |f| f[12..14].copy_from_slice(&[0x08, 0x06])));
    row("VLAN tag", V::NotIp, {
        let mut f = plain(base());
        f.splice(12..12, [0x81, 0x00, 0x00, 0x2a]);
        f
    });
    row("version 6 under EtherType IPv4", V::NotIp, edited(false, |f| f[14] = 0x65));
    row("version 4 under EtherType IPv6", V::NotIp, edited(true, |f| f[14] = 0x40));
    row("IPv4 cut", V::ShortFrame, edited(false, |f| f.truncate(33)));
    row("IPv6 cut", V::ShortFrame, edited(true, |f| f.truncate(53)));
    row("Ethernet alone", V::ShortFrame, edited(false, |f| f.truncate(14)));
    row("UDP header cut", V::ShortFrame, edited(false, |f| f.truncate(41)));
    row("IPv4 longer than the frame", V::ShortFrame, edited(false, |f| f[17] += 1));
    row("IPv6 longer than the frame", V::ShortFrame, edited(true, |f| f[19] += 1));
    row("datagram without a DNS header", V::ShortFrame, frame(false).payload([0; 11]).build());
    row("DNS header alone", V::ShortFrame, frame(false).payload(&base().build()[..12]).build());
    row("cut within the name", V::ShortFrame, frame(true).payload(&base().build()[..20]).build());
    row(
        "cut within the name, padded",
        V::ShortFrame,
        frame(false).payload(&base().build()[..16]).padded_to(60).build(),
    );
    row("cut before the type", V::ShortFrame, frame(false).payload(&base().build()[..29]).build());
    row("cut within the class", V::ShortFrame, frame(false).payload(&base().build()[..32]).padded_to(90).build());
    row("IPv4 options", V::IpOptions, edited(false, |f| f[14] = 0x46));
    row("IPv4 header shorter than itself", V::BadLength, edited(false, |f| f[14] = 0x44));
    row("first fragment", V::Fragment, edited(false, |f| f[20] |= 0x20));
    row("last fragment", V::Fragment, edited(false, |f| f[21] = 3));
    row("IPv6 fragment header", V::ExtensionHeader, edited(true, |f| f[20] = 44));
    row("IPv6 hop-by-hop options", V::ExtensionHeader, edited(true, |f| f[20] = 0));
    row("TCP over IPv4", V::NotUdp, edited(false, |f| f[23] = 6));
    row("TCP over IPv6", V::NotUdp, edited(true, |f| f[20] = 6));
    row("ICMPv6", V::NotUdp, edited(true, |f| f[20] = 58));
    row("port 54", V::NotDns, edited(false, |f| f[37] = 54));
    row("port 5353 over IPv6", V::NotDns, edited(true, |f| f[56..58].copy_from_slice(&5353_u16.to_be_bytes())));
    row("other IPv4 address", V::NotLocal, edited(false, |f| f[33] = 55));
    row("other IPv6 address", V::NotLocal, edited(true, |f| f[53] = 0x54));
    row("to a group hardware address", V::NotLocal, edited(false, |f| f[0] |= 1));
    for source in ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0", "ff02::1", "::", "::1"] {
        row(&format!("from {source}"), V::OddSource, from(source, 40000));
    }
    row("from port 0", V::OddSource, from("192.0.2.1", 0));
    row("UDP shorter than IPv4", V::BadLength, edited(false, |f| f[39] -= 1));
    row("UDP longer than IPv6", V::BadLength, edited(true, |f| f[59] += 1));
    row("IPv4 total shorter than its header", V::ShortFrame, edited(false, |f| f[17] = 19));
    row("no checksum over IPv6", V::BadLength, frame(true).no_checksum().payload(base().build()).build());
    row("a response", V::NotQuery, plain(Query { flags: 0x8180, ..base() }));
    row("NOTIFY", V::OddHeader, plain(Query { flags: 0x2400, ..base() }));
    for (bit, what) in [(0x0400, "AA"), (0x0200, "TC"), (0x0080, "RA"), (0x0040, "Z"), (0x0003, "RCODE")] {
        row(&format!("{what} set"), V::OddHeader, plain(Query { flags: bit, ..base() }));
    }
    for counts in [[0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 2]] {
        row(&format!("counts {counts:?}"), V::OddCounts, plain(Query { counts, ..base() }));
    }
    row("no end of the name", V::OddName, plain(Query { name: [1, b'a'].repeat(140), ..base() }));
    row("name of 256 bytes", V::OddName, {
        let long = [[&[63_u8][..], &[b'x'; 63]].concat(), vec![]].concat().repeat(3);
        let name = [&long[..], &[62], &[b'x'; 62], &[0]].concat();
        assert_eq!(name.len(), 256);
        plain(Query { name, ..base() })
    });
    row("class CH", V::OddClass, plain(Query { qclass: 3, ..base() }));
    row("class ANY over IPv6", V::OddClass, query(true, &Query { qclass: 255, ..base() }));
    row("bytes behind the question", V::OddAdditional, plain(Query { rest: vec![0], ..base() }));
    row("additional announced, not there", V::OddAdditional, plain(Query { counts: [1, 0, 0, 1], ..base() }));
    let opt = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut query = base().opt(1232, false, OPTIONS);
        edit(&mut query.rest);
        query
    };
    row("OPT cut", V::OddAdditional, plain(opt(&|rest| rest.truncate(10))));
    row("OPT not at the root", V::OddAdditional, plain(opt(&|rest| rest[0] = 1)));
    row("TSIG", V::OddAdditional, plain(opt(&|rest| rest[2] = 250)));
    row("EDNS version 1", V::OddAdditional, plain(opt(&|rest| rest[6] = 1)));
    row("extended RCODE", V::OddAdditional, plain(opt(&|rest| rest[5] = 1)));
    row("OPT shorter than the rest", V::OddAdditional, plain(opt(&|rest| rest[10] -= 1)));
    row("OPT longer than the rest", V::OddAdditional, plain(opt(&|rest| rest[10] += 1)));
    row("option longer than the OPT", V::OddAdditional, query(true, &opt(&|rest| rest[14] += 1)));
    row("option shorter than the OPT", V::OddAdditional, plain(opt(&|rest| rest[14] = 3)));
    row("nine options", V::OddAdditional, plain(base().opt(1232, false, &[0, 10, 0, 0].repeat(9))));
    row(
        "options of 516 bytes",
        V::OddAdditional,
        plain(base().opt(1232, false, &[&[0, 12, 2, 0][..], &[0; 512]].concat())),
    );
    row("unknown name", V::UnknownName, plain(Query::new("ww.example.net", A)));
    row("parent of a name", V::UnknownName, plain(Query::new("example.net", A)));
    row("child of a name", V::UnknownName, query(true, &Query::new("a.www.example.net", A)));
    row("letters are folded, other bytes are not", V::UnknownName, plain(Query::new("www.example\x0enet", A)));
    row("other labels, same text", V::UnknownName, {
        let mut query = base();
        query.name[3] = 4;
        plain(query)
    });
    row("compression pointer", V::UnknownName, plain(Query { name: b"\x03www\xc0\x0c\0".to_vec(), ..base() }));
    row(
        "reserved label type",
        V::UnknownName,
        plain(Query { name: b"\x43www\x07example\x03net\0".to_vec(), ..base() }),
    );
    row("type not held", V::UnknownType, plain(Query { qtype: 15, ..base() }));
    row("type 0", V::UnknownType, query(true, &Query { qtype: 0, ..base() }));
    row("nothing published", V::NoBackend, plain(Query::new("idle.example.net", A)));
    row(
        "nothing published, OPT",
        V::NoBackend,
        query(true, &Query::new("idle.example.net", A).opt(1232, true, OPTIONS)),
    );
    row("512 bytes are too few", V::TooLarge, plain(Query::new("many.example.net", A)));
    row("OPT below 512", V::TooLarge, plain(Query::new("many.example.net", A).opt(100, false, &[])));
    row(
        "one byte short",
        V::TooLarge,
        plain(Query::new("many.example.net", A).opt(12 + 18 + 4 + 480 + 11 - 1, false, &[])),
    );
    row("table leads nowhere", V::Broken, plain(Query::new("broken.example.net", A)));
    rows
}

pub fn answered_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: String, frame: Vec<u8>, query: &Query| {
        rows.push(Row { name, frame, verdict: Verdict::Answered, query: Some(query.clone()) });
    };
    for v6 in [false, true] {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let queries = [
            ("plain", Query::new("www.example.net", A)),
            ("0x20", Query::new("wWw.ExAmPlE.nET", A)),
            ("AAAA", Query::new("www.example.net", AAAA)),
            ("NODATA", Query::new("www.example.net", TXT)),
            ("NODATA of a name without backends", Query::new("idle.example.net", AAAA)),
            ("root", Query::new("", A)),
            ("root with OPT", Query::new("", A).opt(1232, false, &[])),
            ("no RD", Query { flags: 0, ..Query::new("www.example.net", A) }),
            ("AD and CD", Query { flags: 0x0130, ..Query::new("www.example.net", A) }),
            ("id 0", Query { id: 0, ..Query::new("www.example.net", A) }),
            ("OPT", Query::new("www.example.net", A).opt(1232, false, &[])),
            ("OPT and DO", Query::new("www.example.net", A).opt(4096, true, &[])),
            ("OPT, DO and options", Query::new("www.example.net", AAAA).opt(65535, true, OPTIONS)),
            ("eight options", Query::new("www.example.net", A).opt(1232, false, &[0, 10, 0, 0].repeat(8))),
            (
                "options of 512 bytes",
                Query::new("www.example.net", A).opt(1232, false, &[&[0, 12, 1, 252][..], &[0xa5; 508]].concat()),
            ),
            ("exactly large enough", Query::new("many.example.net", A).opt(12 + 18 + 4 + 480 + 11, false, &[])),
            ("OPT flags other than DO", {
                let mut query = Query::new("www.example.net", A).opt(1232, true, &[]);
                query.rest[7..9].copy_from_slice(&[0xff, 0xff]);
                query
            }),
        ];
        for (what, q) in &queries {
            row(format!("{family}, {what}"), query(v6, q), q);
        }
        for len in (19..=44).chain([120, 248, 249, 254, 255]) {
            for q in [
                Query::new(&name_of(len), A),
                Query::new(&name_of(len), AAAA),
                Query::new(&name_of(len).to_uppercase(), A).opt(1232, true, OPTIONS),
                Query::new(&name_of(len), AAAA).opt(1232, true, &OPTIONS[..12]),
            ] {
                row(
                    format!("{family}, name of {len} bytes, type {}, {} bytes behind", q.qtype, q.rest.len()),
                    query(v6, &q),
                    &q,
                );
            }
        }
        let root = Query::new("", A);
        row(format!("{family}, padded to 60"), frame(v6).payload(root.build()).padded_to(60).build(), &root);
        let www = Query::new("www.example.net", A);
        row(format!("{family}, padded to 600"), frame(v6).payload(www.build()).padded_to(600).build(), &www);
    }
    for q in [Query::new("www.example.net", A), Query::new("www.example.net", A).opt(1232, true, OPTIONS)] {
        row("IPv4 without checksum".into(), frame(false).no_checksum().payload(q.build()).build(), &q);
    }
    let to_other = FrameBuilder::new(SocketAddr::new(ip("192.0.2.1"), 53), SocketAddr::new(ip("192.0.2.54"), 53));
    let q = Query::new("www.example.net", A);
    row("to the second address, from port 53".into(), to_other.payload(q.build()).build(), &q);
    // A checksum that comes out as zero is sent as ones, in the query or in the reply.
    for v6 in [false, true] {
        for q in [Query::new("www.example.net", A), Query::new("www.example.net", A).opt(1232, true, OPTIONS)] {
            let q = Query { id: 0, ..q };
            for payload in [q.build(), expected_payload(&q)] {
                let udp = if v6 { 54 } else { 34 };
                // The id adds to the sum: the checksum without it is the id that makes it zero. The
                // addresses and ports of the other direction have the same sum.
                let without = frame(v6).payload(payload).build();
                let id = u16::from_be_bytes([without[udp + 6], without[udp + 7]]);
                let q = Query { id, ..q.clone() };
                row(format!("checksum zero, id {id}"), query(v6, &q), &q);
            }
        }
    }
    rows
}

/// The rendered answer that a query must get.
pub fn expected(query: &Query) -> Rendered {
    let asked = query.name.to_ascii_lowercase();
    let names = names();
    let name = names.iter().find(|name| name.wire == asked).unwrap();
    name.rrsets.iter().find(|rrset| rrset.qtype == query.qtype).unwrap().ring[0].clone()
}

/// The reply that a query must get, byte for byte.
pub fn expected_payload(query: &Query) -> Vec<u8> {
    let rendered = expected(query);
    let with_opt = query.counts[3] == 1;
    let mut reply = Query {
        flags: 0x8000 | (query.flags & 0x0100) | rendered.flags,
        counts: [1, rendered.ancount, rendered.nscount, 0],
        rest: rendered.bytes,
        ..query.clone()
    };
    if with_opt {
        reply.counts[3] = 1;
        reply.rest.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, query.rest[7] & 0x80, 0, 0, 0]);
    }
    reply.build()
}
