//! Named frames through the program in the kernel (`PROG_TEST_RUN`): what it does, why, and what it
//! replies. Replies are decoded by hickory and compared byte for byte with what they must be.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::RData;
use support::rows::{OPTIONS, Row, groups};
use support::zone::{TIME, TXT, expected, expected_payload};
use support::{A, AAAA, PinDir, addresses, ip, name, privileged, query, stay_on_one_cpu, table};
use xdp_balancer::testing::{Datagram, FrameBuilder, Query, wire};
use xdp_balancer::{Below, Dataplane, Rendered, Ring, RunAction, Table, Verdict};
use xdp_balancer_common::{CLIENT_TURNS, client_turn_v4, client_turn_v6};

fn verdict_of(dataplane: &Dataplane, before: &[u64]) -> Vec<(Verdict, u64)> {
    let after = dataplane.counters(0).unwrap().verdicts;
    let pairs = Verdict::ALL.iter().zip(after.iter().zip(before));
    pairs
        .filter(|(_, (after, before))| after != before)
        .map(|(verdict, (after, before))| (*verdict, after - before))
        .collect()
}

fn check_reply(table: &Table, row: &Row, reply: &[u8]) {
    let query = row.query.as_ref().unwrap();
    let name = &row.name;
    let (asked, _) = Datagram::parse_padded(&row.frame).unwrap();
    let got = Datagram::parse(reply).unwrap_or_else(|error| panic!("{name}: {error}\n{reply:02x?}"));
    assert_eq!((got.source, got.destination), (asked.destination, asked.source), "{name}");
    assert_eq!((got.source_mac, got.destination_mac), (asked.destination_mac, asked.source_mac), "{name}");
    assert_eq!((got.hop_limit, &got.tags), (64, &asked.tags), "{name}");
    assert_eq!(got.checksum, asked.checksum, "{name}");
    let wanted = expected_payload(table, query, asked.source);
    assert_eq!(got.payload, wanted, "{name}:\n{:02x?}\n{wanted:02x?}", got.payload);

    let message = Message::from_vec(&got.payload).unwrap_or_else(|error| panic!("{name}: {error}"));
    let meta = &message.metadata;
    assert_eq!((meta.id, meta.message_type, meta.op_code), (query.id, MessageType::Response, OpCode::Query), "{name}");
    assert_eq!((meta.authoritative, meta.truncation, meta.recursion_available), (true, false, false), "{name}");
    assert_eq!((meta.authentic_data, meta.checking_disabled), (false, false), "{name}");
    assert_eq!(meta.recursion_desired, query.flags & 0x0100 != 0, "{name}");
    let code = if row.verdict == Verdict::NxDomain { ResponseCode::NXDomain } else { ResponseCode::NoError };
    assert_eq!(meta.response_code, code, "{name}");
    let (verdict, rendered) = expected(table, query);
    assert_eq!(verdict, row.verdict, "{name}");
    assert_eq!(message.answers.len(), usize::from(rendered.ancount), "{name}");
    assert_eq!(message.authorities.len(), usize::from(rendered.nscount), "{name}");
    assert_eq!(message.additionals.len(), usize::from(rendered.arcount), "{name}");
    for record in &message.answers {
        assert_eq!(record.name, *message.queries[0].name(), "{name}: owner in the case that was asked");
        assert_eq!(u16::from(record.record_type()), query.qtype, "{name}");
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

#[test]
fn each_frame_gets_its_verdict_and_reply() {
    if !privileged("each_frame_gets_its_verdict_and_reply") {
        return;
    }
    let pins = PinDir::new();
    let mut dataplane = pins.open();
    dataplane.set_time(TIME);
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    for (table, rows) in groups() {
        dataplane.publish(&table).unwrap();
        dataplane.damage(&wire("broken.example.net"));
        for row in rows {
            let before = dataplane.counters(0).unwrap().verdicts;
            let result = dataplane.run(&row.frame).unwrap();
            let verdicts = verdict_of(&dataplane, &before);
            assert_eq!(verdicts, [(row.verdict, 1)], "{}\n{:02x?}", row.name, row.frame);
            if row.query.is_some() {
                assert_eq!(result.action, RunAction::Answer, "{}", row.name);
                check_reply(&table, &row, &result.frame);
            } else {
                assert_eq!(result.action, RunAction::Pass, "{}", row.name);
                assert_eq!(result.frame, row.frame, "{}: passed, but changed", row.name);
            }
            seen.insert(row.verdict.label());
            count += 1;
        }
    }
    println!("{count} frames");
    // No room can only be provoked by a real interface: `attach.rs`; what needs rules is in `guard.rs`.
    let elsewhere = |verdict: &Verdict| *verdict == Verdict::NoRoom || support::GUARDED.contains(verdict);
    let missing: Vec<_> = Verdict::ALL.iter().filter(|v| !elsewhere(v) && !seen.contains(v.label())).collect();
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
    let mut names = vec![
        name("example.net", 1, vec![]),
        name("a.example.net", 0, vec![(A, vec![addresses(&["10.0.0.1"])]), (AAAA, vec![])]),
        name("b.example.net", 3, vec![(A, vec![addresses(&["10.0.0.2"])])]),
        name("wild.example.net", 1, vec![]),
        name("*.wild.example.net", 4, vec![(A, vec![addresses(&["10.0.0.3"])])]),
    ];
    let (nodata, denied) = (addresses(&[]), Rendered { flags: 3, ..addresses(&[]) });
    (names[0].below, names[3].below) = (Below::Denied(Arc::new(Ring::single(denied))), Below::Wildcard);
    names[2].others = Some(Arc::new(Ring::single(nodata)));
    dataplane.publish(&table(1, names)).unwrap();
    // No such name: no service's. A wildcard's name and its missing type: its service's.
    let wild = [("x.wild", A), ("y.wild", TXT), ("b", TXT)];
    for (name, qtype) in [("a", A), ("a", AAAA), ("a", TXT), ("A", A), ("b", A), ("c", A)].into_iter().chain(wild) {
        dataplane.run(&query(true, &Query::new(&format!("{name}.example.net"), qtype))).unwrap();
    }
    // Not well-formed, so not counted for the service.
    dataplane.run(&query(true, &Query { rest: vec![0], ..Query::new("a.example.net", A) })).unwrap();
    let services = dataplane.counters(5).unwrap().services;
    let pairs: Vec<_> = services.iter().map(|count| (count.queries, count.answered())).collect();
    assert_eq!(pairs, [(4, 2), (0, 0), (0, 0), (2, 2), (2, 1)]);
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
    let mut dataplane = pins.open();
    let groups = groups().into_iter().take(2);
    let seeds: Vec<_> = groups.flat_map(|(_, rows)| rows).filter(|row| row.query.is_some()).collect();
    dataplane.publish(&support::zone::with_options()).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut answered = 0;
    for _ in 0..20_000 {
        let mut frame = seeds[random(seeds.len())].frame.clone();
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
                let reply = Datagram::parse(&result.frame);
                // Only sums that were wrong may be wrong.
                let damaged = Datagram::parse_padded(&frame).is_err_and(|error| error.ends_with("checksum is wrong"));
                assert!(damaged || reply.is_ok(), "{reply:?}\n{frame:02x?}\n{:02x?}", result.frame);
                let tags = [12, 16].iter().take_while(|at| matches!(frame[**at], 0x81 | 0x88)).count();
                let ip = 14 + tags * 4;
                let udp = ip + if frame[ip] >> 4 == 4 { 20 } else { 40 };
                let message = Message::from_vec(&result.frame[udp + 8..]);
                assert!(message.is_ok(), "{message:?}\n{frame:02x?}\n{:02x?}", result.frame);
            }
            action => panic!("{action:?}: {frame:02x?}"),
        }
    }
    assert!((1000..19_000).contains(&answered), "{answered} answered: the mutations miss their aim");
}

/// Where a service keeps its clients with their instances, the client's prefix alone picks the turn, and all turns are
/// picked by somebody.
#[test]
fn a_client_stays_with_its_turn() {
    if !privileged("a_client_stays_with_its_turn") {
        return;
    }
    let pins = PinDir::new();
    let mut dataplane = pins.open();
    // Each turn has an answer of its own, and says so.
    let answers = (0..CLIENT_TURNS).map(|turn| addresses(&[&format!("10.9.{}.{}", turn >> 8, turn & 0xff)])).collect();
    let ring = Ring { by_client: true, ..Ring::round_robin(answers) };
    let mut host = name("www.example.net", 0, vec![(A, vec![])]);
    host.rrsets[0].ring = Some(Arc::new(ring));
    dataplane.publish(&table(1, vec![host])).unwrap();
    let turn = |client: IpAddr| {
        let server = ip(if client.is_ipv4() { "192.0.2.53" } else { "2001:db8::53" });
        let frame = FrameBuilder::new(SocketAddr::new(client, 40000), SocketAddr::new(server, 53));
        let frame = frame.payload(Query::new("www.example.net", A).build());
        let turns = [frame.clone(), frame.tag(0x8100, 5)].map(|frame| {
            let result = dataplane.run(&frame.build()).unwrap();
            let payload = Datagram::parse(&result.frame).unwrap().payload;
            u16::from_be_bytes([payload[payload.len() - 2], payload[payload.len() - 1]])
        });
        assert_eq!(turns[0], turns[1], "behind a tag");
        turns[0]
    };
    let mut met = BTreeSet::new();
    for i in 0..16_384_u32 {
        let prefix = 0x0b00_0000 + (i << 8);
        let v4 = |last: u32| Ipv4Addr::from(prefix | last);
        let wanted = client_turn_v4(u32::from_ne_bytes(v4(0).octets()));
        assert_eq!([0, 77, 255].map(|last| turn(v4(last).into())), [wanted; 3], "{}", v4(0));
        met.insert(wanted);
        if i % 16 == 0 {
            let v6 = |rest: u128| Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(i) << 72 | rest);
            let [a, b, c, d, e, f, g, h, ..] = v6(0).octets();
            let wanted = client_turn_v6(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
            assert_eq!([1, (1 << 72) - 1].map(|rest| turn(v6(rest).into())), [wanted; 2], "{}", v6(0));
        }
    }
    assert_eq!(met.len(), usize::from(CLIENT_TURNS));
}
