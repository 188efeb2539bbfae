//! What a zone holds beside services: name servers' addresses and records.

use std::net::IpAddr;

use hickory_proto::rr::Record;

use super::*;

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
