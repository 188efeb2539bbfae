//! Named frames through the program in the kernel (`PROG_TEST_RUN`): what it does, why, and what it
//! replies. Replies are decoded by hickory and compared byte for byte with what they must be.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;

use aya::maps::{Array, Map, MapData};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::RData;
use support::rows::{OPTIONS, Row, TXT, answered_rows, expected, expected_payload, names, passed_rows};
use support::{A, AAAA, PinDir, addresses, name, privileged, query, stay_on_one_cpu, table};
use xdp_balancer::testing::{Datagram, Query};
use xdp_balancer::{Dataplane, RunAction, Verdict};
use xdp_balancer_common::{TypeSet, object};

fn verdict_of(dataplane: &Dataplane, before: &[u64]) -> Vec<(Verdict, u64)> {
    let after = dataplane.counters(0).unwrap().verdicts;
    let pairs = Verdict::ALL.iter().zip(after.iter().zip(before));
    pairs
        .filter(|(_, (after, before))| after != before)
        .map(|(verdict, (after, before))| (*verdict, after - before))
        .collect()
}

fn check_reply(row: &Row, reply: &[u8]) {
    let query = row.query.as_ref().unwrap();
    let name = &row.name;
    // The query's datagram without the padding of its frame.
    let udp = if row.frame[12] == 0x08 { 34 } else { 54 };
    let len = udp + usize::from(u16::from_be_bytes([row.frame[udp + 4], row.frame[udp + 5]]));
    let asked = Datagram::parse(&row.frame[..len]).unwrap();
    let got = Datagram::parse(reply).unwrap_or_else(|error| panic!("{name}: {error}\n{reply:02x?}"));
    assert_eq!((got.source, got.destination), (asked.destination, asked.source), "{name}");
    assert_eq!((got.source_mac, got.destination_mac), (asked.destination_mac, asked.source_mac), "{name}");
    assert_eq!(got.hop_limit, 64, "{name}");
    assert_eq!(got.checksum, asked.checksum, "{name}");
    let wanted = expected_payload(query);
    assert_eq!(got.payload, wanted, "{name}:\n{:02x?}\n{wanted:02x?}", got.payload);

    let message = Message::from_vec(&got.payload).unwrap_or_else(|error| panic!("{name}: {error}"));
    let meta = &message.metadata;
    assert_eq!((meta.id, meta.message_type, meta.op_code), (query.id, MessageType::Response, OpCode::Query), "{name}");
    assert_eq!((meta.authoritative, meta.truncation, meta.recursion_available), (true, false, false), "{name}");
    assert_eq!((meta.authentic_data, meta.checking_disabled), (false, false), "{name}");
    assert_eq!(meta.recursion_desired, query.flags & 0x0100 != 0, "{name}");
    assert_eq!(meta.response_code, ResponseCode::NoError, "{name}");
    let rendered = expected(query);
    assert_eq!(message.answers.len(), usize::from(rendered.ancount), "{name}");
    assert_eq!(message.authorities.len(), usize::from(rendered.nscount), "{name}");
    for record in &message.answers {
        assert_eq!(record.name, *message.queries[0].name(), "{name}: owner in the case that was asked");
        assert!(matches!(record.data, RData::A(_) | RData::AAAA(_)), "{name}");
    }
    match &message.edns {
        None => assert_eq!(query.counts[3], 0, "{name}"),
        Some(edns) => {
            assert_eq!(query.counts[3], 1, "{name}");
            assert_eq!((edns.version(), edns.rcode_high(), edns.max_payload()), (0, 0, 1232), "{name}");
            assert_eq!(edns.flags().dnssec_ok, query.rest[7] & 0x80 != 0, "{name}");
        }
    }
}

/// Makes one name lead to an rrset id that does not exist.
fn break_table(pins: &PinDir) {
    let sets = MapData::from_pin(pins.0.join("v1").join(object::SETS)).unwrap();
    let mut sets: Array<MapData, TypeSet> = Map::from_map_data(sets).unwrap().try_into().unwrap();
    let found = sets.iter().map(Result::unwrap).zip(0..).find(|(set, _)| set.service == 4);
    let (mut set, index) = found.unwrap();
    set.types[0].rrset = u32::MAX;
    sets.set(index, set, 0).unwrap();
}

#[test]
fn each_frame_gets_its_verdict_and_reply() {
    if !privileged("each_frame_gets_its_verdict_and_reply") {
        return;
    }
    let pins = PinDir::new();
    let mut options = pins.options();
    options.sizes.rrsets = 128;
    let mut dataplane = Dataplane::open(&options).unwrap();
    dataplane.publish(&table(1, names())).unwrap();
    break_table(&pins);

    let mut seen = BTreeSet::new();
    for row in passed_rows().into_iter().chain(answered_rows()) {
        let before = dataplane.counters(0).unwrap().verdicts;
        let result = dataplane.run(&row.frame).unwrap();
        let verdicts = verdict_of(&dataplane, &before);
        assert_eq!(verdicts, [(row.verdict, 1)], "{}\n{:02x?}", row.name, row.frame);
        if row.query.is_some() {
            assert_eq!(result.action, RunAction::Answer, "{}", row.name);
            check_reply(&row, &result.frame);
        } else {
            assert_eq!(result.action, RunAction::Pass, "{}", row.name);
            assert_eq!(result.frame, row.frame, "{}: passed, but changed", row.name);
        }
        seen.insert(row.verdict.label());
    }
    // No room can only be provoked by a real interface: `attach.rs`.
    let missing: Vec<_> = Verdict::ALL.iter().filter(|v| **v != Verdict::NoRoom && !seen.contains(v.label())).collect();
    assert!(missing.is_empty(), "no frame provokes {missing:?}");
}

#[test]
fn a_damaged_query_gets_a_damaged_reply() {
    if !privileged("a_damaged_query_gets_a_damaged_reply") {
        return;
    }
    let pins = PinDir::new();
    let mut dataplane = pins.open();
    dataplane.publish(&table(1, vec![name("www.example.net", 0, vec![(A, vec![addresses(&["10.0.0.1"])])])])).unwrap();
    for v6 in [false, true] {
        for q in [Query::new("www.example.net", A), Query::new("www.example.net", A).opt(1232, true, OPTIONS)] {
            let mut frame = query(v6, &q);
            let last = frame.len() - 1;
            // One bit of an id or of an option, too late for the sender's checksum.
            for at in [if v6 { 62 } else { 42 }, if q.rest.is_empty() { if v6 { 62 } else { 42 } } else { last }] {
                frame[at] ^= 0x10;
                let result = dataplane.run(&frame).unwrap();
                assert_eq!(result.action, RunAction::Answer);
                assert_eq!(Datagram::parse(&result.frame), Err("UDP checksum is wrong".into()), "{v6} {at}");
                frame[at] ^= 0x10;
            }
        }
    }
    let mut frame = query(false, &Query::new("www.example.net", A));
    frame[18] ^= 1;
    let result = dataplane.run(&frame).unwrap();
    assert_eq!(Datagram::parse(&result.frame), Err("IPv4 header checksum is wrong".into()));
}

#[test]
fn services_count_what_is_asked_and_answered() {
    if !privileged("services_count_what_is_asked_and_answered") {
        return;
    }
    let pins = PinDir::new();
    let mut dataplane = pins.open();
    let names = vec![
        name("a.example.net", 0, vec![(A, vec![addresses(&["10.0.0.1"])]), (AAAA, vec![])]),
        name("b.example.net", 3, vec![(A, vec![addresses(&["10.0.0.2"])])]),
    ];
    dataplane.publish(&table(1, names)).unwrap();
    for (name, qtype) in [("a", A), ("a", AAAA), ("a", TXT), ("A", A), ("b", A), ("c", A)] {
        dataplane.run(&query(true, &Query::new(&format!("{name}.example.net"), qtype))).unwrap();
    }
    // Not well-formed, so not counted for the service.
    dataplane.run(&query(true, &Query { rest: vec![0], ..Query::new("a.example.net", A) })).unwrap();
    let services = dataplane.counters(5).unwrap().services;
    let pairs: Vec<_> = services.iter().map(|count| (count.queries, count.answered)).collect();
    assert_eq!(pairs, [(4, 2), (0, 0), (0, 0), (1, 1), (0, 0)]);
}

/// The address in the reply to an A query.
fn ask(dataplane: &Dataplane, name: &str) -> Option<String> {
    let result = dataplane.run(&query(false, &Query::new(name, A))).unwrap();
    if result.action != RunAction::Answer {
        return None;
    }
    let message = Message::from_vec(&Datagram::parse(&result.frame).unwrap().payload).unwrap();
    match &message.answers[0].data {
        RData::A(address) => Some(address.0.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn weights_are_exact_over_a_ring() {
    if !privileged("weights_are_exact_over_a_ring") {
        return;
    }
    stay_on_one_cpu();
    let pins = PinDir::new();
    let mut dataplane = pins.open();
    let ring = ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3", "10.0.0.1"];
    let publish = |dataplane: &mut Dataplane, generation, ring: &[&str]| {
        let ring = ring.iter().map(|address| addresses(&[address])).collect();
        dataplane.publish(&table(generation, vec![name("www.example.net", 0, vec![(A, ring)])])).unwrap()
    };
    publish(&mut dataplane, 1, &ring);
    let got: Vec<_> = (0..20).map(|_| ask(&dataplane, "www.example.net").unwrap()).collect();
    assert_eq!(got, ring.repeat(4));
    // A shorter ring while the position is beyond its end.
    for _ in 0..4 {
        ask(&dataplane, "www.example.net");
    }
    publish(&mut dataplane, 2, &["10.0.0.8", "10.0.0.9"]);
    let got: Vec<_> = (0..4).map(|_| ask(&dataplane, "www.example.net").unwrap()).collect();
    assert_eq!(got, ["10.0.0.8", "10.0.0.9", "10.0.0.8", "10.0.0.9"]);
}

/// Not equal to the program: whatever bytes come in, a frame is either passed as it was or answered by
/// a reply that another decoder understands.
#[test]
fn mutated_frames_are_passed_unchanged_or_answered_well() {
    if !privileged("mutated_frames_are_passed_unchanged_or_answered_well") {
        return;
    }
    let pins = PinDir::new();
    let mut options = pins.options();
    options.sizes.rrsets = 128;
    let mut dataplane = Dataplane::open(&options).unwrap();
    dataplane.publish(&table(1, names())).unwrap();
    let seeds: Vec<_> = answered_rows().into_iter().map(|row| row.frame).collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut answered = 0;
    for _ in 0..20_000 {
        let mut frame = seeds[random(seeds.len())].clone();
        for _ in 0..random(4) {
            let at = random(frame.len());
            frame[at] = match random(3) {
                0 => frame[at] ^ (1 << random(8)),
                1 => [0, 1, 0x20, 0x3f, 0xc0, 0xff][random(6)],
                _ => random(256) as u8,
            };
        }
        if random(8) == 0 {
            frame.truncate(14 + random(frame.len() - 13));
        }
        let result = dataplane.run(&frame).unwrap();
        match result.action {
            RunAction::Pass => assert_eq!(result.frame, frame),
            RunAction::Answer => {
                answered += 1;
                let udp = if frame[12] == 0x08 { 34 } else { 54 };
                let message = Message::from_vec(&result.frame[udp + 8..]);
                assert!(message.is_ok(), "{message:?}\n{frame:02x?}\n{:02x?}", result.frame);
            }
            RunAction::Other(action) => panic!("action {action}: {frame:02x?}"),
        }
    }
    assert!((1000..19_000).contains(&answered), "{answered} answered: the mutations miss their aim");
}
