//! The table of named frames, and what each must become.

use std::net::SocketAddr;

use xdp_balancer::testing::{FrameBuilder, Query};
use xdp_balancer::{Table, Verdict};

use super::zone::{PRIVATE, SOA, TXT, expected_payload, name_lengths, name_of, plain, record_lengths};
use super::{A, AAAA, frame, ip, query};

/// A cookie (RFC 7873) and a padding option of odd length (RFC 7830).
pub const OPTIONS: &[u8] = &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 12, 0, 3, 0, 0, 0];

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
    let tagged = |tags: &[u16]| tags.iter().fold(frame(false).payload(base().build()), |f, tag| f.tag(*tag, 7)).build();
    row("three VLAN tags", V::NotIp, tagged(&[0x88a8, 0x8100, 0x8100]));
    row("two outer VLAN tags", V::NotIp, tagged(&[0x88a8, 0x88a8]));
    row("ARP behind a VLAN tag", V::NotIp, {
        let mut f = tagged(&[0x8100]);
        f[16..18].copy_from_slice(&[0x08, 0x06]);
        f
    });
    for len in [14, 16, 18, 20, 22] {
        row(&format!("VLAN tags cut at {len}"), V::ShortFrame, tagged(&[0x88a8, 0x8100])[..len].to_vec());
    }
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
    row(
        "from port 53 to another",
        V::Reply,
        edited(false, |f| {
            f[34..36].copy_from_slice(&53_u16.to_be_bytes());
            f[37] = 54;
        }),
    );
    row("port 5353 over IPv6", V::NotDns, edited(true, |f| f[56..58].copy_from_slice(&5353_u16.to_be_bytes())));
    row("other IPv4 address", V::NotLocal, edited(false, |f| f[33] = 55));
    row("other IPv6 address", V::NotLocal, edited(true, |f| f[53] = 0x54));
    row("to a group hardware address", V::NotLocal, edited(false, |f| f[0] |= 1));
    for source in ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0", "ff02::1", "::", "::1"] {
        row(&format!("from {source}"), V::OddSource, from(source, 40000));
    }
    row("from port 0", V::OddSource, from("192.0.2.1", 0));
    row("UDP length within the question", V::ShortFrame, edited(false, |f| f[39] -= 1));
    row("UDP length within the DNS header", V::ShortFrame, edited(true, |f| f[59] = 19));
    row("UDP longer than IPv4", V::BadLength, edited(false, |f| f[39] += 1));
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
    row("five options", V::OddAdditional, plain(base().opt(1232, false, &[0, 12, 0, 0].repeat(5))));
    row("118 bytes of options", V::OddAdditional, plain(base().opt(1232, false, &padding(114))));
    row(
        "options of 516 bytes",
        V::OddAdditional,
        plain(base().opt(1232, false, &[&[0, 12, 2, 0][..], &[0; 512]].concat())),
    );
    row("unknown name", V::UnknownName, plain(Query::new("ww.example.net", A)));
    row("parent of a name", V::UnknownName, plain(Query::new("example.net", A)));
    row("child of a name", V::UnknownType, query(true, &Query::new("a.www.example.net", A)));
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
    for (host, what) in [("host.zone.test", "a name"), ("no.zone.test", "no name"), ("a.wild.zone.test", "a wildcard")]
    {
        for qtype in [41, 128, 249, 250, 251, 252, 253, 254, 255] {
            row(&format!("type {qtype} of {what}"), V::UnknownType, plain(Query::new(host, qtype)));
        }
    }
    row("a delegation", V::UnknownType, plain(Query::new("sub.zone.test", A)));
    row("below a delegation", V::UnknownType, query(true, &Query::new("a.b.sub.zone.test", A)));
    row("nine labels below a zone", V::UnknownName, plain(Query::new("a.b.c.d.e.f.g.h.i.zone.test", A)));
    row("nothing published for a wildcard", V::NoBackend, plain(Query::new("any.lazy.zone.test", A)));
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
    row("one byte short of 1232", V::TooLarge, plain(Query::new("big", A).opt(1231, false, &[])));
    row("table leads nowhere", V::Broken, plain(Query::new("broken.example.net", A)));
    rows
}

/// A padding option of so many bytes, and its header.
fn padding(len: u16) -> Vec<u8> {
    [&[0, 12][..], &len.to_be_bytes(), &vec![0xa5; len.into()]].concat()
}

pub fn answered_rows() -> Vec<Row> {
    use Verdict as V;
    let mut rows = Vec::new();
    let mut row = |name: String, verdict, frame: Vec<u8>, query: &Query| {
        rows.push(Row { name, frame, verdict, query: Some(query.clone()) });
    };
    let www = || Query::new("www.example.net", A);
    for v6 in [false, true] {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let queries = [
            ("plain", www()),
            ("0x20", Query::new("wWw.ExAmPlE.nET", A)),
            ("AAAA", Query::new("www.example.net", AAAA)),
            ("no RD", Query { flags: 0, ..www() }),
            ("AD and CD", Query { flags: 0x0130, ..www() }),
            ("id 0", Query { id: 0, ..www() }),
            ("OPT", www().opt(1232, false, &[])),
            ("OPT and DO", www().opt(4096, true, &[])),
            ("OPT, DO and options", Query::new("www.example.net", AAAA).opt(65535, true, OPTIONS)),
            ("four options", www().opt(1232, false, &[0, 12, 0, 0].repeat(4))),
            ("a client subnet and a cookie of no length", www().opt(1232, false, &[0, 8, 0, 0, 0, 10, 0, 0])),
            ("exactly large enough", Query::new("many.example.net", A).opt(12 + 18 + 4 + 480 + 11, false, &[])),
            ("1232 bytes", Query::new("big", A).opt(1232, false, &[])),
            ("1232 bytes and options", Query::new("biG", A).opt(4096, true, OPTIONS)),
            ("additional records", Query::new("more.example.net", A)),
            ("additional records and OPT", Query::new("more.example.net", A).opt(1232, false, &[])),
            ("no records", Query::new("none.example.net", A)),
            ("no records, OPT", Query::new("none.example.net", A).opt(1232, true, OPTIONS)),
            ("its SOA", Query::new("zone.test", SOA)),
            ("wildcard", Query::new("aNy.wild.zone.test", A)),
            ("wildcard, TXT, OPT", Query::new("any.wild.zone.test", TXT).opt(1232, true, OPTIONS)),
            ("wildcard, eight labels", Query::new("a.b.c.d.e.f.g.h.wild.zone.test", A)),
            ("wildcard itself", Query::new("*.wild.zone.test", A)),
            ("OPT flags other than DO", {
                let mut query = www().opt(1232, true, &[]);
                query.rest[7..9].copy_from_slice(&[0xff, 0xff]);
                query
            }),
        ];
        for (what, q) in &queries {
            let verdict = if what.starts_with("no records") { V::NoData } else { V::Answered };
            row(format!("{family}, {what}"), verdict, query(v6, q), q);
        }
        for (host, qtype, verdict) in [
            ("host.zone.test", 15, V::NoData),
            ("HOST.zone.test", 0, V::NoData),
            ("host.zone.test", 40, V::NoData),
            ("host.zone.test", 127, V::NoData),
            ("host.zone.test", 256, V::NoData),
            ("wild.zone.test", A, V::NoData),
            ("any.wild.zone.test", AAAA, V::NoData),
            ("a.b.wild.zone.test", 15, V::NoData),
            ("any.lazy.zone.test", AAAA, V::NoData),
            ("no.zone.test", A, V::NxDomain),
            ("nO.Zone.test", 65_535, V::NxDomain),
            ("a.host.zone.test", A, V::NxDomain),
            ("a.b.c.d.e.f.g.h.zone.test", A, V::NxDomain),
            ("a.*.wild.zone.test", A, V::NxDomain),
        ] {
            for q in [Query::new(host, qtype), Query::new(host, qtype).opt(1232, true, OPTIONS)] {
                row(format!("{family}, {host} {qtype}, {} behind", q.rest.len()), verdict, query(v6, &q), &q);
            }
        }
        for len in name_lengths() {
            let (host, none) = (name_of("svc.example.net", len), name_of("zone.test", len));
            for (q, verdict) in [
                (Query::new(&host, A), V::Answered),
                (Query::new(&host, AAAA), V::Answered),
                (Query::new(&host.to_uppercase(), A).opt(1232, true, OPTIONS), V::Answered),
                (Query::new(&host, AAAA).opt(1232, true, &OPTIONS[..12]), V::Answered),
                (Query::new(&none, A), V::NxDomain),
                (Query::new(&none.to_uppercase(), A).opt(1232, false, &[]), V::NxDomain),
            ] {
                let what = format!("type {}, {} behind", q.qtype, q.rest.len());
                row(format!("{family}, name of {len} bytes, {verdict:?}, {what}"), verdict, query(v6, &q), &q);
            }
        }
        for len in record_lengths() {
            for host in [format!("r{len}.example.net"), format!("odd{}.example.net", len + 1000)] {
                for q in [Query::new(&host, PRIVATE), Query::new(&host, PRIVATE).opt(1232, false, OPTIONS)] {
                    row(format!("{family}, {host}, {} behind", q.rest.len()), V::Answered, query(v6, &q), &q);
                }
            }
        }
        for len in 0..=113 {
            let q = Query::new(if len & 2 == 0 { "www.example.net" } else { "many.example.net" }, A);
            let q = q.opt(1232, len & 4 == 0, &padding(len));
            row(format!("{family}, option of {len} bytes"), V::Answered, query(v6, &q), &q);
        }
        let names = [("www.example.net", A, V::Answered), ("no.zone.test", A, V::NxDomain)];
        for (host, qtype, verdict) in names {
            for q in [Query::new(host, qtype), Query::new(host, qtype).opt(1232, true, OPTIONS)] {
                let built = || frame(v6).payload(q.build());
                let mut shaped = |what: &str, frame: FrameBuilder| {
                    row(format!("{family}, {host}, {} behind, {what}", q.rest.len()), verdict, frame.build(), &q);
                };
                shaped("802.1Q", built().tag(0x8100, 0x602a));
                shaped("802.1ad", built().tag(0x88a8, 0x0fff));
                shaped("802.1Q twice", built().tag(0x8100, 1).tag(0x8100, 0xffff));
                shaped("802.1ad and 802.1Q", built().tag(0x88a8, 0x0abc).tag(0x8100, 0x0def));
                shaped("802.1Q, padded", built().tag(0x8100, 1).padded_to(300));
                for len in [1, 2, 13, 300] {
                    shaped(&format!("{len} bytes behind UDP"), built().trailer(vec![0xee; len]));
                }
                shaped("bytes behind UDP, two tags, padded", {
                    built().tag(0x88a8, 1).tag(0x8100, 2).trailer(*b"abc").padded_to(200)
                });
                shaped("padded to 600", built().padded_to(600));
            }
        }
    }
    for q in [Query::new("www.example.net", A), Query::new("www.example.net", A).opt(1232, true, OPTIONS)] {
        row("IPv4 without checksum".into(), V::Answered, frame(false).no_checksum().payload(q.build()).build(), &q);
    }
    let to_other = FrameBuilder::new(SocketAddr::new(ip("192.0.2.1"), 53), SocketAddr::new(ip("192.0.2.54"), 53));
    let q = Query::new("www.example.net", A);
    row("to the second address, from port 53".into(), V::Answered, to_other.payload(q.build()).build(), &q);
    // A checksum that comes out as zero is sent as ones, in the query or in the reply.
    for v6 in [false, true] {
        for q in [Query::new("www.example.net", A), Query::new("www.example.net", A).opt(1232, true, OPTIONS)] {
            let q = Query { id: 0, ..q };
            for payload in [q.build(), expected_payload(&plain(), &q, SocketAddr::new(ip("192.0.2.1"), 40000))] {
                let udp = if v6 { 54 } else { 34 };
                // The id adds to the sum: the checksum without it is the id that makes it zero. The
                // addresses and ports of the other direction have the same sum.
                let without = frame(v6).payload(payload).build();
                let id = u16::from_be_bytes([without[udp + 6], without[udp + 7]]);
                let q = Query { id, ..q.clone() };
                row(format!("checksum zero, id {id}"), V::Answered, query(v6, &q), &q);
            }
        }
    }
    rows
}

/// Rows of a table that looks at cookies and client subnets.
pub fn option_rows() -> Vec<Row> {
    use Verdict as V;
    let mut rows = Vec::new();
    let option = |code: u8, value: &[u8]| [&[0, code, 0, value.len() as u8], value].concat();
    let cookie = |len: u8| option(10, &(0..len).map(|i| i.wrapping_mul(37) ^ 0x5a).collect::<Vec<_>>());
    let subnet = option(8, &[0, 1, 24, 0, 198, 51, 100]);
    let unknown = option(12, &[0; 5]);
    for v6 in [false, true] {
        let mut row = |what: String, verdict: Verdict, q: &Query| {
            let answered = matches!(verdict, V::Answered | V::NoData | V::NxDomain);
            let query_of = answered.then(|| q.clone());
            rows.push(Row { name: format!("{what}, v6 {v6}"), frame: query(v6, q), verdict, query: query_of });
        };
        for (host, verdict) in [
            ("www.example.net", V::Answered),
            ("many.example.net", V::Answered),
            ("none.example.net", V::NoData),
            ("no.zone.test", V::NxDomain),
            ("none.zone.test", V::NxDomain),
        ] {
            for dnssec_ok in [false, true] {
                for len in 0..=41_u8 {
                    let q = Query::new(host, A).opt(1232, dnssec_ok, &cookie(len));
                    let good = len == 8 || (16..=40).contains(&len);
                    row(format!("{host}, cookie of {len} bytes"), if good { verdict } else { V::OddCookie }, &q);
                }
                for options in [
                    [cookie(8), unknown.clone()].concat(),
                    [unknown.clone(), cookie(24)].concat(),
                    [unknown.clone(), option(3, &[]), cookie(8), unknown.clone()].concat(),
                    [unknown.clone(), unknown.clone()].concat(),
                    vec![],
                ] {
                    let q = Query::new(host, A).opt(4096, dnssec_ok, &options);
                    row(format!("{host}, options {options:?}"), verdict, &q);
                }
            }
        }
        let www = |options: &[Vec<u8>]| Query::new("www.example.net", A).opt(1232, false, &options.concat());
        row("two cookies".into(), V::OddCookie, &www(&[cookie(8), cookie(8)]));
        row("two cookies, apart".into(), V::OddCookie, &www(&[cookie(24), unknown.clone(), cookie(8)]));
        row("client subnet".into(), V::ClientSubnet, &www(std::slice::from_ref(&subnet)));
        row("client subnet behind a cookie".into(), V::ClientSubnet, &www(&[cookie(8), subnet.clone()]));
        row("no OPT".into(), V::Answered, &Query::new("www.example.net", A));
        // With both cookies it takes 28 bytes more.
        let full = |size| Query::new("many.example.net", A).opt(size, false, &cookie(8));
        row("a cookie, exactly large enough".into(), V::Answered, &full(12 + 18 + 4 + 480 + 39));
        row("a cookie, one byte short".into(), V::TooLarge, &full(12 + 18 + 4 + 480 + 38));
        row("a cookie and a large answer".into(), V::TooLarge, &Query::new("big", A).opt(4096, false, &cookie(8)));
    }
    rows
}

/// Rows of a table of the root alone that answers at any address.
pub fn root_rows() -> Vec<Row> {
    use Verdict as V;
    let mut rows = Vec::new();
    let root = Query::new("", A);
    for v6 in [false, true] {
        for q in [root.clone(), root.clone().opt(1232, false, &[]), root.clone().opt(1232, true, OPTIONS)] {
            let mut row = |name: &str, frame: FrameBuilder| {
                rows.push(Row {
                    name: name.into(),
                    frame: frame.build(),
                    verdict: V::Answered,
                    query: Some(q.clone()),
                });
            };
            row("root", frame(v6).payload(q.build()));
            row("root, padded to 60", frame(v6).payload(q.build()).padded_to(60));
            row("root, tagged", frame(v6).payload(q.build()).tag(0x88a8, 1).tag(0x8100, 2));
        }
    }
    for (from, to, verdict) in [
        ("192.0.2.1", "198.51.100.7", V::Answered),
        ("2001:db8::1", "2001:db8:ffff::7", V::Answered),
        ("192.0.2.1", "224.0.0.251", V::NotLocal),
        ("192.0.2.1", "255.255.255.255", V::NotLocal),
        ("2001:db8::1", "ff02::fb", V::NotLocal),
        ("127.0.0.1", "198.51.100.7", V::OddSource),
        ("::1", "2001:db8:ffff::7", V::OddSource),
    ] {
        let (from, to) = (SocketAddr::new(ip(from), 40000), SocketAddr::new(ip(to), 53));
        let frame = FrameBuilder::new(from, to).payload(root.build()).build();
        let query = (verdict == V::Answered).then(|| root.clone());
        rows.push(Row { name: format!("transparent, {from} to {to}"), frame, verdict, query });
    }
    rows.push(Row {
        name: "below the root".into(),
        frame: query(false, &Query::new("www.example.net", A)),
        verdict: V::UnknownType,
        query: None,
    });
    rows
}

/// Tables with their rows.
pub fn groups() -> Vec<(Table, Vec<Row>)> {
    let rows = passed_rows().into_iter().chain(answered_rows()).collect();
    vec![(plain(), rows), (super::zone::with_options(), option_rows()), (super::zone::root(), root_rows())]
}
