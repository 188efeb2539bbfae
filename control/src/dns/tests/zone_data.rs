//! What a zone holds beside services: name servers' addresses and records.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Record;

use super::*;
use crate::model::Authority;

const V4: &str = "192.0.2.53";
const V6: &str = "2001:db8::53";

fn with_addresses(apex: &str) -> Zone {
    let addresses: [IpAddr; 2] = [V4.parse().unwrap(), V6.parse().unwrap()];
    Zone { nameserver_addresses: addresses.to_vec(), ..zone(apex) }
}

pub(super) fn reply(index: &Index, message: &Message, transport: Transport) -> (Outcome, Message) {
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
    let snapshot = fixtures::snapshot(7, vec![with_addresses("edge.test."), inner], vec![]);
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
    let snapshot = fixtures::snapshot(7, vec![with_addresses("edge.test.")], vec![]);
    let index = Index::new(&snapshot).unwrap();
    let message = with_edns(query("Edge.test.", RecordType::NS), 1232);
    for transport in Transport::ALL {
        let (outcome, message) = reply(&index, &message, transport);
        assert_eq!((outcome, message.answers.len()), (Outcome::Answered, 2));
        let found = [format!("ns1.edge.test. 3600 A {V4}"), format!("ns1.edge.test. 3600 AAAA {V6}")];
        assert_eq!(texts(&message.additionals), found);
        assert!(message.edns.is_some() && !message.metadata.truncation);
    }
    // They are left out without TC where the answer itself fits.
    let mut many = with_addresses("edge.test.");
    many.nameservers = (0..10).map(|n| format!("name-server-{n}.edge.test.")).collect();
    let index = Index::new(&fixtures::snapshot(7, vec![many], vec![])).unwrap();
    let (_, message) = ask(&index, "edge.test.", RecordType::NS);
    let (all, some) = (message.answers.len(), message.additionals.len());
    assert!(!message.metadata.truncation && all == 10 && (1..20).contains(&some), "{all} {some}");
    let (_, message) = reply(&index, &query("edge.test.", RecordType::NS), Transport::Tcp);
    assert_eq!((message.answers.len(), message.additionals.len()), (10, 20));
}

#[test]
fn a_service_or_a_record_tells_a_name_servers_addresses_itself() {
    let record = ZoneRecord { name: "ns1.edge.test.".into(), rtype: TYPE_A, ttl_s: 9, rdata: vec![10, 9, 9, 9] };
    let zone = Zone { records: vec![record], ..with_addresses("edge.test.") };
    let inner = with_addresses("inner.edge.test.");
    let services = vec![service(0, "ns1.inner.edge.test.", vec![backend(1, 1)])];
    let index = Index::new(&fixtures::snapshot(7, vec![zone, inner], services)).unwrap();
    let (_, message) = ask(&index, "ns1.edge.test.", RecordType::A);
    assert_eq!(texts(&message.answers), ["ns1.edge.test. 9 A 10.9.9.9"]);
    assert_eq!(ask(&index, "ns1.edge.test.", RecordType::AAAA).0, Outcome::NoData);
    let (_, message) = ask(&index, "ns1.inner.edge.test.", RecordType::A);
    assert_eq!(texts(&message.answers), ["ns1.inner.edge.test. 30 A 10.7.0.1"]);
}

pub(super) fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split_terminator('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

pub(super) fn record(name: &str, kind: RecordType, rdata: &[u8]) -> ZoneRecord {
    ZoneRecord { name: name.to_owned(), rtype: kind.into(), ttl_s: 60, rdata: rdata.to_vec() }
}

pub(super) fn alias(name: &str, target: &str) -> ZoneRecord {
    record(name, RecordType::CNAME, &wire_name(target))
}

pub(super) fn dname(name: &str, target: &str) -> ZoneRecord {
    record(name, RecordType::from(TYPE_DNAME), &wire_name(target))
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
        record("nul\\000l.edge.test.", RecordType::A, &[192, 0, 2, 86]),
        dname("moved.edge.test.", "wild.edge.test."),
        record("moved.edge.test.", RecordType::A, &[192, 0, 2, 85]),
        record("hidden.moved.edge.test.", RecordType::TXT, b"\x06hidden"),
        dname("again.edge.test.", "moved.edge.test."),
        dname("outside.edge.test.", "elsewhere.example."),
        dname("circle.edge.test.", "circle.edge.test."),
        dname("growing.edge.test.", "more.growing.edge.test."),
        dname("tozone.edge.test.", "other.test."),
        dname("tocut.edge.test.", "sub.edge.test."),
        dname("toalias.edge.test.", "toservice.edge.test."),
        alias("tomoved.edge.test.", "X.Moved.edge.test."),
    ];
    let other = Zone { records: vec![record("deep.other.test.", RecordType::TXT, b"\x04deep")], ..zone("other.test.") };
    let zones = vec![Zone { records, ..with_addresses("edge.test.") }, other];
    let services = vec![service(3, "video.edge.test.", vec![backend(1, 1), backend(2, 1), backend(3, 1)])];
    Index::new(&fixtures::snapshot(7, zones, services)).unwrap()
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
    let index = Index::new(&fixtures::snapshot(7, vec![zone], vec![])).unwrap();
    let (outcome, message) = ask(&index, "big.edge.test.", RecordType::TXT);
    assert_eq!((outcome, message.answers.len(), message.metadata.truncation), (Outcome::Truncated, 2, true));
    let (outcome, message) = reply(&index, &query("big.edge.test.", RecordType::TXT), Transport::Tcp);
    assert_eq!((outcome, message.answers.len()), (Outcome::Answered, 5));
}

#[test]
fn a_delegations_ds_are_the_parents() {
    let ds = record("sub.edge.test.", RecordType::from(43), b"\0\x01\x08\x01digest");
    let ns = record("sub.edge.test.", RecordType::NS, &wire_name("ns.elsewhere.example."));
    let zones = vec![Zone { records: vec![ds, ns, alias("to.edge.test.", "sub.edge.test.")], ..zone("edge.test.") }];
    let mut zones = [zones, vec![zone("inner.edge.test.")]].concat();
    zones[1].negative_ttl_s = 9;
    let index = Index::new(&fixtures::snapshot(7, zones, vec![])).unwrap();
    for (name, answers) in [("sub.edge.test.", 1), ("to.edge.test.", 2)] {
        let (outcome, message) = ask(&index, name, RecordType::from(43));
        assert_eq!((outcome, message.answers.len()), (Outcome::Answered, answers), "{name}");
        assert!(message.metadata.authoritative && message.authorities.is_empty());
    }
    assert_eq!(ask(&index, "sub.edge.test.", RecordType::TXT).0, Outcome::Referral);
    assert_eq!(ask(&index, "x.sub.edge.test.", RecordType::from(43)).0, Outcome::Referral);
    // Those of a zone of ours whose parent is ours too are not asked of the zone itself.
    let (outcome, message) = ask(&index, "inner.edge.test.", RecordType::from(43));
    assert_eq!((outcome, texts(&message.authorities)[0].split(' ').next()), (Outcome::NoData, Some("edge.test.")));
    assert_eq!(ask(&index, "edge.test.", RecordType::from(43)).1.authorities[0].name.to_ascii(), "edge.test.");
}

#[test]
fn large_delegations_bring_the_addresses_that_they_need() {
    let servers = |zone: &'static str| (0..13).map(move |n| format!("n{n}.{zone}"));
    let delegated = |name: &str, servers: Vec<String>| {
        let ns = servers.iter().map(|server| record(name, RecordType::NS, &wire_name(server)));
        let glue = servers.iter().flat_map(|server| {
            let v6: Vec<u8> = (0..16).collect();
            [record(server, RecordType::A, &[192, 0, 2, 1]), record(server, RecordType::AAAA, &v6)]
        });
        ns.chain(glue).collect::<Vec<_>>()
    };
    let inside = delegated("sub.edge.test.", servers("sub.edge.test.").collect());
    let beside = delegated("other.edge.test.", servers("edge.test.").collect());
    let zones = vec![Zone { records: [inside, beside].concat(), ..zone("edge.test.") }];
    let index = Index::new(&fixtures::snapshot(7, zones, vec![])).unwrap();
    for (name, needed) in [("x.sub.edge.test.", true), ("x.other.edge.test.", false)] {
        // Thirteen servers with two addresses each fit where EDNS is spoken.
        let (outcome, message) = reply(&index, &with_edns(query(name, RecordType::A), 1232), Transport::Udp);
        assert_eq!((outcome, message.authorities.len(), message.additionals.len()), (Outcome::Referral, 13, 26));
        assert!(message.additionals.iter().all(|record| record.name.to_ascii().starts_with('n')));
        // Without it not all do; the delegation can do without those that lie outside it (RFC 9471).
        let (_, message) = reply(&index, &query(name, RecordType::A), Transport::Udp);
        assert_eq!((message.authorities.len(), message.metadata.truncation), (13, needed), "{name}");
        assert!(message.additionals.len() < 26);
        let (_, message) = reply(&index, &query(name, RecordType::A), Transport::Tcp);
        assert_eq!((message.additionals.len(), message.metadata.truncation), (26, false));
    }
}

/// What only a master file can say: the whole SOA, the TTL of the NS, a primary that is no name of the zone, letter case
/// in data, and labels with any bytes.
#[test]
fn a_master_files_zone_is_served_as_it_stands() {
    let authority = Authority { serial: 2_026_010_101, refresh_s: 1, retry_s: 2, expire_s: 3, ns_ttl_s: 77 };
    let records = vec![
        record("a\\.b.edge.test.", RecordType::TXT, b"\x03dot"),
        record("a\\032\\255.edge.test.", RecordType::TXT, b"\x03odd"),
        record("alias.edge.test.", RecordType::CNAME, b"\x03A.B\x04Edge\x04Test\0"),
    ];
    let zone = Zone {
        primary: "Hidden.Edge.Test.".into(),
        contact: "john\\.doe.edge.test.".into(),
        nameservers: vec!["NS.elsewhere.example.".into()],
        authority: Some(authority),
        records,
        ..zone("edge.test.")
    };
    let index = Index::new(&fixtures::snapshot(7, vec![zone], vec![])).unwrap();
    let soa = "Hidden.Edge.Test. john\\.doe.edge.test. 2026010101 1 2 3 60";
    let (_, message) = ask(&index, "edge.test.", RecordType::SOA);
    assert_eq!(texts(&message.answers), [format!("edge.test. 3600 SOA {soa}")]);
    let (_, message) = ask(&index, "edge.test.", RecordType::NS);
    assert_eq!(texts(&message.answers), ["edge.test. 77 NS NS.elsewhere.example."]);
    let (outcome, message) = ask(&index, "hidden.edge.test.", RecordType::A);
    assert_eq!(outcome, Outcome::NxDomain);
    assert_eq!(texts(&message.authorities), [format!("edge.test. 60 SOA {soa}")]);
    for (wire, text) in [(b"\x03A.b\x04edge\x04test\0".as_slice(), "dot"), (b"\x03a \xff\x04edge\x04test\0", "odd")] {
        let mut query = bytes(&query(".", RecordType::TXT));
        query.splice(12..13, wire.iter().copied());
        let (_, message) = reply_to(&index, &query);
        assert_eq!(message.answers.len(), 1);
        assert_eq!(message.answers[0].data.to_string(), text);
    }
    let (_, message) = ask(&index, "alias.edge.test.", RecordType::TXT);
    assert_eq!(message.answers.len(), 2, "an alias is followed whatever its target's letter case");
}

fn reply_to(index: &Index, query: &[u8]) -> (Outcome, Message) {
    let response = respond(query, index, Transport::Udp, Pick::Slot(0));
    (response.outcome, Message::from_vec(&response.bytes.expect("a reply")).expect("a reply that parses"))
}

/// Aliases with one target share its answers; one that lies in the circle itself must not, for it ends sooner.
#[test]
fn a_circle_of_aliases_is_told_the_same_whoever_comes_first() {
    let records = vec![alias("a.edge.test.", "b.edge.test."), alias("b.edge.test.", "b.edge.test.")];
    let zone = Zone { records, ..zone("edge.test.") };
    // The order of names differs from index to index.
    for generation in 0..40 {
        let index = Index::new(&fixtures::snapshot(generation, vec![zone.clone()], vec![])).unwrap();
        for (name, aliases) in [("a.edge.test.", 2), ("b.edge.test.", 1)] {
            let (_, message) = ask(&index, name, RecordType::A);
            assert_eq!(message.answers.len(), aliases, "{name}");
        }
    }
}
