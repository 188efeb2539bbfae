//! What a zone holds beside services: name servers' addresses and records.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Record;
use xdp_balancer_common::ANSWER_BYTES;

use super::*;
use crate::model::ZONE_INDEX;

const V4: &str = "192.0.2.53";
const V6: &str = "2001:db8::53";

fn with_addresses(apex: &str) -> Zone {
    let addresses: [IpAddr; 2] = [V4.parse().unwrap(), V6.parse().unwrap()];
    Zone { nameserver_addresses: addresses.to_vec(), ..zone(apex) }
}

fn reply(index: &Index, message: &Message, transport: Transport) -> (Outcome, Message) {
    let response = respond(&bytes(message), index, transport, Pick::Slot(0));
    let bytes = response.bytes.expect("a reply");
    (response.outcome, Message::from_vec(&bytes).expect("a reply that parses"))
}

fn ask(index: &Index, name: &str, kind: RecordType) -> (Outcome, Message) {
    reply(index, &query(name, kind), Transport::Udp)
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| format!("{} {} {} {}", r.name.to_ascii(), r.ttl, r.record_type(), r.data)).collect()
}

#[test]
fn name_servers_of_ours_have_addresses() {
    let mut inner = with_addresses("inner.edge.test.");
    inner.nameservers.push("ns2.edge.test.".into());
    inner.ttl_s = 77;
    let snapshot = Snapshot { generation: 7, zones: vec![with_addresses("edge.test."), inner], services: vec![] };
    let index = Index::new(&snapshot).unwrap();
    for (name, ttl) in [("ns1.edge.test.", 3600), ("ns2.edge.test.", 3600), ("NS1.inner.edge.test.", 77)] {
        for transport in Transport::ALL {
            for (kind, address) in [(RecordType::A, V4), (RecordType::AAAA, V6)] {
                let (outcome, message) = reply(&index, &query(name, kind), transport);
                assert_eq!(outcome, Outcome::Answered);
                assert!(message.metadata.authoritative && message.authorities.is_empty());
                assert_eq!(texts(&message.answers), [format!("{name} {ttl} {kind} {address}")]);
            }
        }
        let (outcome, message) = ask(&index, name, RecordType::TXT);
        assert_eq!((outcome, message.authorities.len()), (Outcome::NoData, 1));
    }
    let (_, message) = ask(&index, "ns1.edge.test.", RecordType::ANY);
    assert_eq!(message.answers.len(), 1);
    // The one outside is not ours to tell.
    assert_eq!(ask(&index, "ns.elsewhere.example.", RecordType::A).0, Outcome::Refused);
}

#[test]
fn ns_answers_bring_the_addresses_that_fit() {
    let snapshot = Snapshot { generation: 7, zones: vec![with_addresses("edge.test.")], services: vec![] };
    let index = Index::new(&snapshot).unwrap();
    let message = with_edns(query("Edge.test.", RecordType::NS), 1232);
    for transport in Transport::ALL {
        let (outcome, message) = reply(&index, &message, transport);
        assert_eq!((outcome, message.answers.len()), (Outcome::Answered, 2));
        let found = [format!("ns1.Edge.test. 3600 A {V4}"), format!("ns1.Edge.test. 3600 AAAA {V6}")];
        assert_eq!(texts(&message.additionals), found);
        assert!(message.edns.is_some() && !message.metadata.truncation);
    }
    // They are left out without TC where the answer itself fits.
    let mut many = with_addresses("edge.test.");
    many.nameservers = (0..14).map(|n| format!("name-server-{n}.edge.test.")).collect();
    let index = Index::new(&Snapshot { generation: 7, zones: vec![many], services: vec![] }).unwrap();
    let (_, message) = ask(&index, "edge.test.", RecordType::NS);
    let (all, some) = (message.answers.len(), message.additionals.len());
    assert!(!message.metadata.truncation && all == 14 && (1..28).contains(&some), "{all} {some}");
    let (_, message) = reply(&index, &query("edge.test.", RecordType::NS), Transport::Tcp);
    assert_eq!((message.answers.len(), message.additionals.len()), (14, 28));
}

#[test]
fn a_service_or_a_record_tells_a_name_servers_addresses_itself() {
    let record = ZoneRecord { name: "ns1.edge.test.".into(), rtype: TYPE_A, ttl_s: 9, rdata: vec![10, 9, 9, 9] };
    let zone = Zone { records: vec![record], ..with_addresses("edge.test.") };
    let inner = with_addresses("inner.edge.test.");
    let services = vec![service(0, "ns1.inner.edge.test.", vec![backend(1, 1)])];
    let index = Index::new(&Snapshot { generation: 7, zones: vec![zone, inner], services }).unwrap();
    let (_, message) = ask(&index, "ns1.edge.test.", RecordType::A);
    assert_eq!(texts(&message.answers), ["ns1.edge.test. 9 A 10.9.9.9"]);
    assert_eq!(ask(&index, "ns1.edge.test.", RecordType::AAAA).0, Outcome::NoData);
    let (_, message) = ask(&index, "ns1.inner.edge.test.", RecordType::A);
    assert_eq!(texts(&message.answers), ["ns1.inner.edge.test. 30 A 10.7.0.1"]);
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split_terminator('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

fn record(name: &str, kind: RecordType, rdata: &[u8]) -> ZoneRecord {
    ZoneRecord { name: name.to_owned(), rtype: kind.into(), ttl_s: 60, rdata: rdata.to_vec() }
}

fn alias(name: &str, target: &str) -> ZoneRecord {
    record(name, RecordType::CNAME, &wire_name(target))
}

/// A zone of records around one service, with a wildcard, a delegation and aliases of every kind.
pub(super) fn with_records() -> Index {
    let records = vec![
        record("edge.test.", RecordType::TXT, b"\x04apex"),
        record("edge.test.", RecordType::A, &[192, 0, 2, 80]),
        record("video.edge.test.", RecordType::TXT, b"\x03vid"),
        record("two.edge.test.", RecordType::TXT, b"\x01a"),
        record("two.edge.test.", RecordType::TXT, b"\x01b"),
        record("a.ent.edge.test.", RecordType::A, &[192, 0, 2, 81]),
        record("*.wild.edge.test.", RecordType::TXT, b"\x04wild"),
        record("there.wild.edge.test.", RecordType::A, &[192, 0, 2, 82]),
        record("below.ent2.wild.edge.test.", RecordType::A, &[192, 0, 2, 83]),
        alias("*.toservice.edge.test.", "video.edge.test."),
        alias("www.edge.test.", "video.edge.test."),
        alias("www2.edge.test.", "www.edge.test."),
        alias("inner.edge.test.", "deep.other.test."),
        alias("out.edge.test.", "elsewhere.example."),
        alias("nowhere.edge.test.", "missing.edge.test."),
        alias("loop1.edge.test.", "loop2.edge.test."),
        alias("loop2.edge.test.", "loop1.edge.test."),
        alias("towild.edge.test.", "x.wild.edge.test."),
        alias("tosub.edge.test.", "x.sub.edge.test."),
        record("sub.edge.test.", RecordType::NS, &wire_name("ns.sub.edge.test.")),
        record("sub.edge.test.", RecordType::NS, &wire_name("ns.elsewhere.example.")),
        record("ns.sub.edge.test.", RecordType::A, &[192, 0, 2, 84]),
    ];
    let other = Zone { records: vec![record("deep.other.test.", RecordType::TXT, b"\x04deep")], ..zone("other.test.") };
    let zones = vec![Zone { records, ..with_addresses("edge.test.") }, other];
    let services = vec![service(3, "video.edge.test.", vec![backend(1, 1), backend(2, 1), backend(3, 1)])];
    Index::new(&Snapshot { generation: 7, zones, services }).unwrap()
}

#[test]
fn records_are_answered_by_their_type() {
    let index = with_records();
    for (name, kind, answers) in [
        ("edge.test.", RecordType::TXT, vec!["edge.test. 60 TXT apex"]),
        ("edge.test.", RecordType::A, vec!["edge.test. 60 A 192.0.2.80"]),
        ("video.edge.test.", RecordType::TXT, vec!["video.edge.test. 60 TXT vid"]),
        ("TWO.edge.test.", RecordType::TXT, vec!["TWO.edge.test. 60 TXT a", "TWO.edge.test. 60 TXT b"]),
        ("x.wild.edge.test.", RecordType::TXT, vec!["x.wild.edge.test. 60 TXT wild"]),
        ("x.Y.wild.edge.test.", RecordType::TXT, vec!["x.Y.wild.edge.test. 60 TXT wild"]),
        ("*.wild.edge.test.", RecordType::TXT, vec!["*.wild.edge.test. 60 TXT wild"]),
        ("two.edge.test.", RecordType::ANY, vec!["two.edge.test. 60 TXT a", "two.edge.test. 60 TXT b"]),
        ("www.edge.test.", RecordType::CNAME, vec!["www.edge.test. 60 CNAME video.edge.test."]),
        ("www.edge.test.", RecordType::ANY, vec!["www.edge.test. 60 CNAME video.edge.test."]),
    ] {
        let (outcome, message) = ask(&index, name, kind);
        assert_eq!(texts(&message.answers), answers, "{name} {kind}");
        assert!(message.metadata.authoritative && message.authorities.is_empty() && outcome == Outcome::Answered);
    }
}

#[test]
fn what_is_not_there_is_told_rightly() {
    let index = with_records();
    for (name, kind, nxdomain) in [
        ("ent.edge.test.", RecordType::A, false),
        ("wild.edge.test.", RecordType::TXT, false),
        ("x.wild.edge.test.", RecordType::A, false),
        // A name that exists keeps the wildcard off itself and, as the closest encloser, off what is below it.
        ("there.wild.edge.test.", RecordType::TXT, false),
        ("x.there.wild.edge.test.", RecordType::TXT, true),
        ("ent2.wild.edge.test.", RecordType::TXT, false),
        ("x.ent2.wild.edge.test.", RecordType::TXT, true),
        ("missing.edge.test.", RecordType::A, true),
        ("x.www.edge.test.", RecordType::A, true),
        ("sub.edge.test.", RecordType::from(43), false),
    ] {
        let (outcome, message) = ask(&index, name, kind);
        let expected = if nxdomain { Outcome::NxDomain } else { Outcome::NoData };
        assert_eq!(outcome, expected, "{name} {kind}");
        assert!(message.answers.is_empty() && message.metadata.authoritative);
        assert_eq!(texts(&message.authorities)[0].split(' ').next(), Some("edge.test."));
    }
}

#[test]
fn aliases_are_followed_inside_our_zones() {
    let index = with_records();
    let video = "video.edge.test. 30 A 10.7.0.";
    for (name, kind, outcome, answers) in [
        (
            "Www.edge.test.",
            RecordType::A,
            Outcome::Answered,
            vec!["Www.edge.test. 60 CNAME video.edge.test.".to_owned(), format!("{video}1"), format!("{video}2")],
        ),
        (
            "www2.edge.test.",
            RecordType::A,
            Outcome::Answered,
            vec![
                "www2.edge.test. 60 CNAME www.edge.test.".to_owned(),
                "www.edge.test. 60 CNAME video.edge.test.".to_owned(),
                format!("{video}1"),
                format!("{video}2"),
            ],
        ),
        (
            "any.toservice.edge.test.",
            RecordType::A,
            Outcome::Answered,
            vec!["any.toservice.edge.test. 60 CNAME video.edge.test.".into(), format!("{video}1"), format!("{video}2")],
        ),
        (
            "inner.edge.test.",
            RecordType::TXT,
            Outcome::Answered,
            vec!["inner.edge.test. 60 CNAME deep.other.test.".into(), "deep.other.test. 60 TXT deep".into()],
        ),
        (
            "towild.edge.test.",
            RecordType::TXT,
            Outcome::Answered,
            vec!["towild.edge.test. 60 CNAME x.wild.edge.test.".into(), "x.wild.edge.test. 60 TXT wild".into()],
        ),
        ("out.edge.test.", RecordType::A, Outcome::Answered, vec!["out.edge.test. 60 CNAME elsewhere.example.".into()]),
        (
            "loop1.edge.test.",
            RecordType::A,
            Outcome::Answered,
            vec![
                "loop1.edge.test. 60 CNAME loop2.edge.test.".into(),
                "loop2.edge.test. 60 CNAME loop1.edge.test.".into(),
            ],
        ),
        (
            "nowhere.edge.test.",
            RecordType::A,
            Outcome::NxDomain,
            vec!["nowhere.edge.test. 60 CNAME missing.edge.test.".into()],
        ),
        ("inner.edge.test.", RecordType::A, Outcome::NoData, vec!["inner.edge.test. 60 CNAME deep.other.test.".into()]),
    ] {
        let (said, message) = ask(&index, name, kind);
        assert_eq!((said, texts(&message.answers)), (outcome, answers), "{name} {kind}");
        assert!(message.metadata.authoritative);
        assert_eq!(message.authorities.len(), usize::from(outcome != Outcome::Answered));
        assert_eq!(message.metadata.response_code == ResponseCode::NXDomain, outcome == Outcome::NxDomain);
    }
    // The SOA that says so is that of the zone where the chain ended.
    let (_, message) = ask(&index, "inner.edge.test.", RecordType::A);
    assert_eq!(message.authorities[0].name.to_ascii(), "other.test.");
    // A question for an alias is one for the service that it leads to.
    let response = respond(&bytes(&query("www2.edge.test.", RecordType::A)), &index, Transport::Udp, Pick::Next);
    assert_eq!(response.service, Some(3));
}

#[test]
fn delegated_names_are_referred() {
    let index = with_records();
    for name in ["sub.edge.test.", "x.y.Sub.edge.test.", "ns.sub.edge.test."] {
        let (outcome, message) = ask(&index, name, RecordType::A);
        assert_eq!(outcome, Outcome::Referral, "{name}");
        assert!(!message.metadata.authoritative && message.answers.is_empty());
        assert_eq!(message.authorities.len(), 2);
        assert!(message.authorities.iter().all(|ns| ns.name.to_lowercase().to_ascii() == "sub.edge.test."));
        assert_eq!(texts(&message.additionals), ["ns.sub.edge.test. 60 A 192.0.2.84"]);
    }
    let (_, message) = ask(&index, "tosub.edge.test.", RecordType::A);
    assert!(message.metadata.authoritative);
    assert_eq!((message.answers.len(), message.authorities.len()), (1, 2));
    assert_eq!(message.authorities[0].name.to_ascii(), "sub.edge.test.");
}

#[test]
fn large_sets_are_cut_and_come_whole_over_tcp() {
    let part = [&[200u8][..], &[b'x'; 200]].concat();
    let records = (0..5).map(|n| record("big.edge.test.", RecordType::TXT, &[&[1, b'0' + n], &part[..]].concat()));
    let zone = Zone { records: records.collect(), ..zone("edge.test.") };
    let index = Index::new(&Snapshot { generation: 7, zones: vec![zone], services: vec![] }).unwrap();
    let (outcome, message) = ask(&index, "big.edge.test.", RecordType::TXT);
    assert_eq!((outcome, message.answers.len(), message.metadata.truncation), (Outcome::Truncated, 2, true));
    let (outcome, message) = reply(&index, &query("big.edge.test.", RecordType::TXT), Transport::Tcp);
    assert_eq!((outcome, message.answers.len()), (Outcome::Answered, 5));
    // More than a slot: the kernel leaves it to the daemon.
    assert!(index.names().iter().all(|name| name.wire != wire_name("big.edge.test.")));
}

#[test]
fn the_kernel_gets_what_it_can_answer() {
    let index = with_records();
    let names = index.names();
    let types = |name: &str| -> Option<(u32, Vec<u16>)> {
        let found = names.iter().find(|n| n.wire == wire_name(name))?;
        let mut types: Vec<u16> = found.rrsets.iter().map(|rrset| rrset.qtype).collect();
        types.sort_unstable();
        Some((found.service, types))
    };
    assert_eq!(types("video.edge.test."), Some((3, vec![1, 16, 28])));
    assert_eq!(types("www2.edge.test."), Some((3, vec![1, 5, 16, 28])));
    // The apex's NS come with addresses, which the kernel has no place for.
    assert_eq!(types("edge.test."), Some((ZONE_INDEX, vec![1, 6, 16])));
    assert_eq!(types("other.test."), Some((ZONE_INDEX, vec![2, 6])));
    assert_eq!(types("ns1.edge.test."), Some((ZONE_INDEX, vec![1, 28])));
    assert_eq!(types("out.edge.test.").map(|(_, types)| types.len()), Some(8));
    assert_eq!(types("towild.edge.test."), Some((ZONE_INDEX, vec![5, 16])));
    for none in ["*.wild.edge.test.", "ns.sub.edge.test.", "sub.edge.test.", "ent.edge.test."] {
        assert_eq!(types(none), None, "{none}");
    }
    for name in &names {
        for rrset in &name.rrsets {
            assert!(rrset.answers.iter().all(|answer| answer.bytes.len() <= ANSWER_BYTES && answer.ancount > 0));
        }
    }
    let ring = |name: &str| {
        let found = names.iter().find(|n| n.wire == wire_name(name)).unwrap();
        found.rrsets.iter().find(|rrset| rrset.qtype == TYPE_A).unwrap().turns.len()
    };
    assert_eq!((ring("video.edge.test."), ring("www2.edge.test.")), (3, 3));
}
