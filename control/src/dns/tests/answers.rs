//! What is answered to whom.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record};

use super::*;

struct Reply {
    outcome: Outcome,
    service: Option<u32>,
    message: Message,
}

fn ask_bytes(query: &[u8], transport: Transport) -> Reply {
    let response = respond(query, &index(), transport, Pick::Slot(0));
    let bytes = response.bytes.expect("a reply");
    let message = Message::from_vec(&bytes).expect("a reply that parses");
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert!(!message.metadata.recursion_available && !message.metadata.authentic_data);
    assert!(!message.metadata.checking_disabled);
    Reply { outcome: response.outcome, service: response.service, message }
}

fn ask(message: &Message) -> Reply {
    ask_bytes(&bytes(message), Transport::Udp)
}

fn ask_name(name: &str, kind: RecordType) -> Reply {
    ask(&query(name, kind))
}

fn code(reply: &Reply) -> ResponseCode {
    reply.message.metadata.response_code
}

fn addresses(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| match &record.data {
        RData::A(a) => a.0.to_string(),
        RData::AAAA(a) => a.0.to_string(),
        other => panic!("{other:?} is no address"),
    };
    records.iter().map(text).collect()
}

/// NOERROR or NXDOMAIN with the SOA of `zone`, whose TTL is `ttl`.
fn assert_negative(reply: &Reply, zone: &str, ttl: u32, nxdomain: bool) {
    let expected = if nxdomain { ResponseCode::NXDomain } else { ResponseCode::NoError };
    assert_eq!(code(reply), expected);
    assert!(reply.message.metadata.authoritative);
    assert!(reply.message.answers.is_empty());
    let [soa] = reply.message.authorities.as_slice() else { panic!("one SOA") };
    assert!(matches!(&soa.data, RData::SOA(data) if data.minimum == 60 && data.serial == 7));
    assert_eq!(soa.name.to_lowercase(), Name::from_ascii(zone).unwrap());
    assert_eq!(soa.ttl, ttl);
}

#[test]
fn addresses_come_in_the_rings_order() {
    let query = bytes(&query("VideO.edge.TEST.", RecordType::A));
    let index = index();
    let firsts: Vec<String> = (0..5)
        .map(|slot| {
            let reply = respond(&query, &index, Transport::Udp, Pick::Slot(slot)).bytes.unwrap();
            let message = Message::from_vec(&reply).unwrap();
            let found = addresses(&message.answers);
            assert_eq!(found.len(), 2);
            assert_ne!(found[0], found[1]);
            assert!(message.answers.iter().all(|r| r.ttl == 30 && r.name.to_ascii() == "VideO.edge.TEST."));
            found[0].clone()
        })
        .collect();
    assert_eq!(firsts, ["10.7.0.1", "10.7.0.2", "10.7.0.3", "10.7.0.1", "10.7.0.1"]);
}

#[test]
fn the_next_turn_goes_round_every_backend_by_its_share() {
    let (query, index) = (bytes(&query("video.edge.test.", RecordType::AAAA)), index());
    let mut turns = std::collections::BTreeMap::new();
    for _ in 0..400 {
        let reply = respond(&query, &index, Transport::Udp, Pick::Next).bytes.unwrap();
        *turns.entry(addresses(&Message::from_vec(&reply).unwrap().answers)[0].clone()).or_insert(0) += 1;
    }
    let expected = [("fd07::1", 200), ("fd07::2", 100), ("fd07::3", 100)];
    assert_eq!(turns.into_iter().collect::<Vec<_>>(), expected.map(|(a, n)| (a.to_owned(), n)));
}

#[test]
fn nodata_is_never_nxdomain() {
    for (name, kind, zone) in [
        ("video.edge.test.", RecordType::MX, "edge.test."),
        ("video.edge.test.", RecordType::NS, "edge.test."),
        ("four.edge.test.", RecordType::AAAA, "edge.test."),
        ("edge.test.", RecordType::A, "edge.test."),
        ("edge.test.", RecordType::HTTPS, "edge.test."),
        ("b.c.inner.edge.test.", RecordType::A, "inner.edge.test."),
        ("c.inner.edge.test.", RecordType::ANY, "inner.edge.test."),
        ("ns1.edge.test.", RecordType::A, "edge.test."),
        ("inner.edge.test.", RecordType::TXT, "inner.edge.test."),
    ] {
        let reply = ask_name(name, kind);
        assert_negative(&reply, zone, 60, false);
        assert_eq!(reply.outcome, Outcome::NoData, "{name} {kind}");
    }
}

#[test]
fn a_service_without_backends_exists() {
    for name in ["idle.edge.test.", "paused.edge.test."] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::ANY] {
            let reply = ask_name(name, kind);
            assert_negative(&reply, "edge.test.", 5, false);
            assert_eq!(reply.outcome, Outcome::NoBackend);
            assert!(reply.service.is_some());
        }
        assert_eq!(ask_name(name, RecordType::MX).outcome, Outcome::NoData);
    }
}

#[test]
fn unknown_names_are_nxdomain_with_soa() {
    for (name, zone) in [
        ("nothing.edge.test.", "edge.test."),
        ("x.video.edge.test.", "edge.test."),
        ("x.INNER.edge.test.", "inner.edge.test."),
    ] {
        let reply = ask_name(name, RecordType::A);
        assert_negative(&reply, zone, 60, true);
        assert_eq!(reply.outcome, Outcome::NxDomain);
    }
}

#[test]
fn apexes_have_soa_and_ns() {
    let reply = ask_name("Edge.test.", RecordType::SOA);
    let RData::SOA(soa) = &reply.message.answers[0].data else { panic!("a SOA") };
    assert_eq!(soa.mname.to_lowercase().to_ascii(), "ns1.edge.test.");
    assert_eq!(soa.rname.to_lowercase().to_ascii(), "hostmaster.edge.test.");
    assert_eq!((reply.message.answers[0].ttl, soa.minimum), (3600, 60));

    let reply = ask_name("inner.edge.test.", RecordType::NS);
    let targets: Vec<String> = reply.message.answers.iter().map(|ns| ns.data.to_string()).collect();
    assert_eq!(targets, ["ns1.inner.edge.test.", "ns.elsewhere.example."]);

    assert_eq!(addresses(&ask_name("inner.edge.test.", RecordType::A).message.answers), ["10.7.0.5"]);
}

#[test]
fn any_gets_one_rrset() {
    let reply = ask_name("video.edge.test.", RecordType::ANY);
    assert_eq!(addresses(&reply.message.answers), ["10.7.0.1", "10.7.0.2"]);
    assert!(matches!(ask_name("edge.test.", RecordType::ANY).message.answers[0].data, RData::SOA(_)));
}

#[test]
fn what_is_not_ours_is_refused_without_aa() {
    let chaos = of_class(query("authors.bind.", RecordType::TXT), DNSClass::CH);
    let hesiod = of_class(query("video.edge.test.", RecordType::A), DNSClass::HS);
    for message in [
        query("example.org.", RecordType::A),
        query(".", RecordType::NS),
        query("test.", RecordType::SOA),
        query("edge.test.", RecordType::AXFR),
        query("edge.test.", RecordType::IXFR),
        chaos,
        hesiod,
    ] {
        for transport in Transport::ALL {
            let reply = ask_bytes(&bytes(&message), transport);
            assert_eq!((code(&reply), reply.outcome), (ResponseCode::Refused, Outcome::Refused));
            assert!(!reply.message.metadata.authoritative);
            assert_eq!(reply.message.queries, message.queries);
        }
    }
}

#[test]
fn transfers_of_what_is_no_zone_are_notauth() {
    for (name, kind) in [("video.edge.test.", RecordType::AXFR), ("test.", RecordType::IXFR)] {
        let reply = ask_name(name, kind);
        assert_eq!((code(&reply), reply.outcome), (ResponseCode::NotAuth, Outcome::NotAuth), "{name}");
        assert!(!reply.message.metadata.authoritative);
    }
}

#[test]
fn any_class_is_answered_without_aa() {
    let reply = ask(&of_class(query("video.edge.test.", RecordType::A), DNSClass::ANY));
    assert_eq!(addresses(&reply.message.answers), ["10.7.0.1", "10.7.0.2"]);
    assert!(!reply.message.metadata.authoritative && reply.outcome == Outcome::Answered);
    let reply = ask(&of_class(query("missing.edge.test.", RecordType::A), DNSClass::ANY));
    assert!(!reply.message.metadata.authoritative && reply.outcome == Outcome::NxDomain);
}

#[test]
fn the_server_speaks_of_itself_in_class_ch() {
    let policy = Policy { identity: "edge-7".to_owned(), ..Policy::default() };
    for (name, kind, expected) in [
        ("ID.server.", RecordType::TXT, Some("edge-7")),
        ("hostname.bind.", RecordType::TXT, Some("edge-7")),
        ("version.bind.", RecordType::TXT, Some("selvedge")),
        ("version.server.", RecordType::TXT, Some("selvedge")),
        ("id.server.", RecordType::A, None),
        ("video.edge.test.", RecordType::TXT, None),
    ] {
        let query = bytes(&of_class(query(name, kind), DNSClass::CH));
        let context = Context { transport: Transport::Udp, client: [192, 0, 2, 1].into(), time: 0, policy: &policy };
        let response = super::super::respond(&query, &index(), &context, Pick::Next);
        let reply = Message::from_vec(&response.bytes.unwrap()).unwrap();
        let texts: Vec<_> = reply.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(texts, expected.into_iter().collect::<Vec<_>>(), "{name}");
        assert!(reply.answers.iter().all(|record| record.dns_class == DNSClass::CH && record.ttl == 0));
        assert_eq!(response.outcome, if expected.is_some() { Outcome::Answered } else { Outcome::Refused });
    }
    // Who has no name says nothing of it.
    assert_eq!(ask(&of_class(query("id.server.", RecordType::TXT), DNSClass::CH)).outcome, Outcome::Refused);
}

/// A TSIG's record: its own class, TTL and what its data end in.
fn tsig(class: u8, ttl: u8, end: &[u8]) -> Vec<u8> {
    let algorithm = b"\x0bhmac-sha256\0";
    let signed = [algorithm.as_slice(), &[0, 0, 0x5F, 0, 0, 0, 1, 44, 0, 2, 0xAA, 0xBB, 0x12, 0x34, 0, 0, 0, 0], end];
    let signed = signed.concat();
    [b"\x03key\0\0\xfa\0".as_slice(), &[class, 0, 0, 0, ttl, 0, signed.len() as u8], &signed].concat()
}

#[test]
fn no_tsig_key_is_known() {
    let good = bytes(&query("video.edge.test.", RecordType::A));
    let with_opt = bytes(&with_edns(query("video.edge.test.", RecordType::A), 1232));
    let extended = |base: &[u8], additional: &[u8], count: u8| {
        let mut message = [base, additional].concat();
        message[11] = count;
        message
    };
    for (message, count) in
        [(extended(&good, &tsig(255, 0, b""), 1), 1), (extended(&with_opt, &tsig(255, 0, b""), 2), 2)]
    {
        for transport in Transport::ALL {
            let reply = respond(&message, &index(), transport, Pick::Next);
            let told = reply.bytes.unwrap();
            assert_eq!((reply.outcome, told[3], told[11]), (Outcome::NotAuth, 9, count));
            // Key, algorithm, time and id as they were asked, no signature, BADKEY.
            let end = told.len() - 8;
            assert_eq!(told[end..], [0, 0, 0x12, 0x34, 0, 17, 0, 0]);
            assert!(told[..end].ends_with(&[0, 0, 0x5F, 0, 0, 0, 1, 44]));
            assert!(Message::from_vec(&told).is_ok());
        }
    }
    let opt = &with_opt[good.len()..];
    for message in [
        extended(&good, &[tsig(255, 0, b""), opt.to_vec()].concat(), 2),
        extended(&good, &[tsig(255, 0, b""), tsig(255, 0, b"")].concat(), 2),
        extended(&good, &tsig(1, 0, b""), 1),
        extended(&good, &tsig(255, 1, b""), 1),
        extended(&good, &tsig(255, 0, b"more"), 1),
        extended(&good, b"\xc0\x0c\0\xfa\0\xff\0\0\0\0\0\0", 1),
    ] {
        let reply = respond(&message, &index(), Transport::Udp, Pick::Next);
        assert_eq!(reply.outcome, Outcome::FormErr);
    }
}

#[test]
fn an_ixfr_with_its_soa_is_refused_not_malformed() {
    let soa = ask_name("edge.test.", RecordType::SOA).message.answers.remove(0);
    let mut ixfr = query("edge.test.", RecordType::IXFR);
    ixfr.add_authority(soa.clone());
    assert_eq!(ask(&ixfr).outcome, Outcome::Refused);
    let mut other = query("edge.test.", RecordType::A);
    other.add_authority(soa);
    assert_eq!(ask(&other).outcome, Outcome::FormErr);
}

#[test]
fn other_opcodes_are_not_implemented() {
    for opcode in [OpCode::Status, OpCode::Notify, OpCode::Update, OpCode::Unknown(9)] {
        let mut message = with_edns(query("video.edge.test.", RecordType::A), 1232);
        message.metadata.op_code = opcode;
        let reply = ask(&message);
        assert_eq!((code(&reply), reply.outcome), (ResponseCode::NotImp, Outcome::NotImp));
        assert_eq!(reply.message.metadata.op_code, opcode);
        assert!(reply.message.edns.is_some());
    }
}

#[test]
fn malformed_queries_are_formerr() {
    let good = bytes(&query("video.edge.test.", RecordType::A));
    let with_opt = bytes(&with_edns(query("video.edge.test.", RecordType::A), 1232));
    let edit = |base: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let mut copy = base.to_vec();
        change(&mut copy);
        copy
    };
    let opt = with_opt[good.len()..].to_vec();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("header only, no question", edit(&good[..12], &|q| q[5] = 0)),
        ("question missing", good[..12].to_vec()),
        ("two questions", edit(&good, &|q| q[5] = 2)),
        ("name cut", good[..20].to_vec()),
        ("class cut", good[..good.len() - 1].to_vec()),
        ("trailing byte", edit(&good, &|q| q.push(0))),
        ("trailing byte behind OPT", edit(&with_opt, &|q| q.push(0))),
        ("answer announced", edit(&good, &|q| q[7] = 1)),
        ("authority announced", edit(&good, &|q| q[9] = 1)),
        ("additional announced", edit(&good, &|q| q[11] = 1)),
        ("pointer for a name", edit(&good, &|q| drop(q.splice(12..29, [0xC0, 12])))),
        ("label of type 01", edit(&good, &|q| q[12] = 0x41)),
        (
            "two OPTs",
            edit(&with_opt, &|q| {
                q[11] = 2;
                q.extend_from_slice(&opt);
            }),
        ),
        (
            "OPT as answer",
            edit(&with_opt, &|q| {
                q[11] = 0;
                q[7] = 1;
            }),
        ),
        ("OPT not at the root", edit(&with_opt, &|q| drop(q.splice(good.len()..=good.len(), [1, b'a', 0])))),
        (
            "option cut",
            edit(&with_opt, &|q| {
                let end = q.len();
                q[end - 1] = 3;
                q.extend_from_slice(&[0, 10, 0]);
            }),
        ),
        (
            "option longer than its OPT",
            edit(&with_opt, &|q| {
                let end = q.len();
                q[end - 1] = 4;
                q.extend_from_slice(&[0, 10, 0, 1]);
            }),
        ),
        (
            "QTYPE OPT",
            edit(&good, &|q| {
                let end = q.len();
                q[end - 3] = 41;
            }),
        ),
    ];
    for (what, message) in rows {
        let reply = ask_bytes(&message, Transport::Udp);
        assert_eq!((code(&reply), reply.outcome), (ResponseCode::FormErr, Outcome::FormErr), "{what}");
        assert_eq!(reply.message.metadata.id, 0x1234, "{what}");
        assert!(reply.message.metadata.recursion_desired, "{what}");
    }
}

#[test]
fn names_of_full_length_are_read_and_longer_ones_not() {
    let name_of = |lens: &[u8]| {
        let mut message = bytes(&query(".", RecordType::A));
        let labels = lens.iter().flat_map(|len| std::iter::once(*len).chain(vec![b'a'; usize::from(*len)]));
        message.splice(12..12, labels.collect::<Vec<_>>());
        message
    };
    assert_eq!(ask_bytes(&name_of(&[63, 63, 63, 61]), Transport::Udp).outcome, Outcome::Refused);
    assert_eq!(ask_bytes(&name_of(&[63, 63, 63, 62]), Transport::Udp).outcome, Outcome::FormErr);
}

#[test]
fn well_formed_extras_are_ignored() {
    let mut message = with_edns(query("video.edge.test.", RecordType::A), 1232);
    let mut extra = ask_name("video.edge.test.", RecordType::A).message.answers.remove(0);
    extra.name = Name::from_ascii("other.example.").unwrap();
    message.add_additional(extra);
    assert_eq!(ask(&message).outcome, Outcome::Answered);

    let mut cookie = bytes(&with_edns(query("video.edge.test.", RecordType::A), 1232));
    let end = cookie.len();
    cookie[end - 1] = 12;
    cookie.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    let reply = ask_bytes(&cookie, Transport::Udp);
    assert_eq!(reply.outcome, Outcome::Answered);
    assert!(reply.message.edns.unwrap().options().as_ref().is_empty());
}

#[test]
fn later_edns_versions_are_told_ours() {
    let mut message = with_edns(query("nothing.edge.test.", RecordType::A), 1232);
    message.edns.as_mut().unwrap().set_version(1);
    let reply = ask(&message);
    // hickory calls code 16 by its other name, BADSIG.
    assert_eq!((u16::from(code(&reply)), reply.outcome), (16, Outcome::BadVers));
    let edns = reply.message.edns.as_ref().unwrap();
    assert_eq!((edns.version(), edns.max_payload(), edns.flags().dnssec_ok), (0, 1232, true));
    assert!(reply.message.answers.is_empty() && !reply.message.metadata.authoritative);
}

#[test]
fn replies_that_do_not_fit_are_cut_between_records() {
    // Sixteen AAAA fit behind a short name; a long one leaves room for fewer.
    assert_eq!(ask_name("many.edge.test.", RecordType::AAAA).message.answers.len(), 16);
    let long = format!("{}.{}.{}.edge.test.", "x".repeat(63), "y".repeat(63), "z".repeat(63));
    let mut big = service(0, &long, (1..=16).map(|n| backend(n, 1)).collect());
    big.answers = 16;
    let index = Index::new(&snapshot(vec![big])).unwrap();
    let message = query(&long, RecordType::AAAA);
    for (message, whole) in
        [(message.clone(), false), (with_edns(message.clone(), 512), false), (with_edns(message, 9000), true)]
    {
        let response = respond(&bytes(&message), &index, Transport::Udp, Pick::Slot(0));
        let reply = response.bytes.unwrap();
        let parsed = Message::from_vec(&reply).unwrap();
        assert!(reply.len() <= if whole { 1232 } else { 512 });
        assert_eq!(parsed.metadata.truncation, !whole);
        assert_eq!(response.outcome, if whole { Outcome::Answered } else { Outcome::Truncated });
        assert_eq!(parsed.answers.len() == 16, whole);
        assert!(!parsed.answers.is_empty());
        let tcp = respond(&bytes(&message), &index, Transport::Tcp, Pick::Slot(0));
        assert_eq!(Message::from_vec(&tcp.bytes.unwrap()).unwrap().answers.len(), 16);
    }
}

#[test]
fn replies_and_fragments_of_headers_get_no_reply() {
    let mut reply = bytes(&query("video.edge.test.", RecordType::A));
    reply[2] |= 0x80;
    for message in [reply.as_slice(), &reply[..11], &[]] {
        let response = respond(message, &index(), Transport::Udp, Pick::Next);
        assert_eq!((response.bytes, response.outcome), (None, Outcome::Dropped));
    }
}

#[test]
fn odd_snapshots_are_refused_with_the_reason() {
    let label = |snapshot: &Snapshot| Index::new(snapshot).unwrap_err().label();
    let one = |name: &str| snapshot(vec![service(0, name, vec![])]);
    assert_eq!(label(&one("video.example.org.")), "outside_zones");
    assert_eq!(label(&one("video.edge.test")), "relative");
    assert_eq!(label(&one("a..edge.test.")), "name");
    assert_eq!(label(&one(&format!("{}.edge.test.", "a".repeat(64)))), "name");
    let twice = service(0, "v.edge.test.", vec![]);
    assert_eq!(label(&snapshot(vec![twice.clone(), PublishedService { index: 1, ..twice }])), "duplicate_name");
    let mut zones = snapshot(vec![]);
    zones.zones.push(zone("edge.test.").into());
    assert_eq!(label(&zones), "duplicate_zone");
    zones.zones.pop();
    Arc::make_mut(&mut zones.zones[0]).nameservers.clear();
    assert_eq!(label(&zones), "no_nameserver");
}

#[test]
fn a_root_zone_is_a_zone() {
    let mut root = zone("edge.test.");
    root.apex = ".".to_owned();
    let index = Index::new(&fixtures::snapshot(1, vec![root], vec![])).unwrap();
    let response = respond(&bytes(&query("a.b.", RecordType::A)), &index, Transport::Udp, Pick::Next);
    assert_eq!(response.outcome, Outcome::NxDomain);
    let message = Message::from_vec(&response.bytes.unwrap()).unwrap();
    assert!(message.authorities[0].name.is_root());
}
