//! Replies in transit, through the programs in the kernel (`PROG_TEST_RUN`), held against a twin on the same bytes.
//!
//! `REPLIES` and `SEED` choose how many and which; both are printed, so that a failure can be repeated.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use support::replies::{CNAME, Ours, RRSIG, Random, Reply, Served, carry, check, some};
use support::{A, AA, AAAA, PinDir, ip, privileged, stay_on_one_cpu, table};
use xdp_balancer::testing::{FrameBuilder, address_record, wire};
use xdp_balancer::{Below, Dataplane, Name, Rendered, Ring, Rrset, TransitHook, TransitVerdict, Verdict};
use xdp_balancer_common::{CLIENT_TURNS, ZONE_SERVICE};

const TTL: u32 = 30;
const VIDEO: &str = "video.edge.example";
/// Longer than any slot holds.
const LONG: &str = "a-rather-long-label-at-the-beginning.and-one-in-the-middle.of-the-name.edge.example";
const STICKY: &str = "sticky.edge.example";
const COLD: &str = "cold.edge.example";
const ZONE: &str = "ns1.edge.example";
const OTHER: &str = "www.elsewhere.example";

/// A dataplane in a network namespace of the thread's own, where loopback has both hooks.
struct Lab {
    plane: Dataplane,
    ours: Ours,
    /// Frames that the kernel did not take for packets on egress.
    refused: Cell<u64>,
    _pins: PinDir,
}

impl Lab {
    fn new() -> Self {
        // SAFETY: a plain call.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", std::io::Error::last_os_error());
        stay_on_one_cpu();
        let pins = PinDir::new();
        let mut options = pins.options();
        options.sizes.services = 4096;
        let mut plane = Dataplane::open(&options).unwrap();
        let mut ours = Ours::new();
        let mut names = Vec::new();
        let v4 = |last: &[u8]| last.iter().map(|last| IpAddr::from([10, 1, 0, *last])).collect::<Vec<_>>();
        let v6 = |last: u16| IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, last]);
        let rotated = vec![v4(&[1, 2, 3]), v4(&[2, 3, 1]), v4(&[3, 1, 2])];
        let single = vec![vec![v6(1)], vec![v6(2)], vec![v6(3)], vec![v6(4)]];
        let clients: Vec<_> = (0..CLIENT_TURNS).map(|turn| v4(&[10 + (turn % 7) as u8, 20])).collect();
        let served = |turns: &[Vec<IpAddr>], by_client| Served { ttl: TTL, turns: turns.to_vec(), by_client };
        for (name, service, a, aaaa) in [
            (VIDEO, 1, Some(served(&rotated, false)), Some(served(&single, false))),
            (LONG, 2, Some(served(&[v4(&[9])], false)), None),
            (STICKY, 3, Some(served(&clients, true)), None),
            (COLD, 4, Some(served(&[], false)), Some(served(&[], false))),
            (ZONE, u32::from(ZONE_SERVICE), Some(served(&[v4(&[53])], false)), None),
        ] {
            let mut rrsets = Vec::new();
            for (qtype, served) in [(A, a), (AAAA, aaaa)] {
                let Some(served) = served else { continue };
                rrsets.push(Rrset { qtype, ring: ring(&served) });
                if name != ZONE {
                    ours.insert((wire(name), qtype), served);
                }
            }
            names.push(Name { wire: wire(name), service, rrsets, others: None, below: Below::UserSpace });
        }
        plane.publish(&table(1, names)).unwrap();
        plane.set_transit(&[("lo", TransitHook::Ingress), ("lo", TransitHook::Egress)]).unwrap();
        Self { plane, ours, refused: Cell::new(0), _pins: pins }
    }

    /// Runs a frame through both programs and holds both against the twin; the verdict, and what came out on ingress.
    fn run(&self, frame: &[u8]) -> Result<(TransitVerdict, Vec<u8>), String> {
        let before = self.counts();
        let out = self.plane.run(frame).unwrap().frame;
        let between = self.counts();
        let wanted = check(&self.ours, frame, &out, true).map_err(|problem| format!("ingress: {problem}"))?;
        // What is no reply to port 53's other side never reaches the program behind.
        let got = changed(&before, &between);
        if got.is_some_and(|got| got != wanted) || (got.is_none() && out != frame) {
            return Err(format!("ingress: {got:?}, not {wanted:?}"));
        }
        let Some(sent) = self.plane.run_out(frame).unwrap() else {
            self.refused.set(self.refused.get() + 1);
            return Ok((wanted, out));
        };
        let wanted = check(&self.ours, frame, &sent, false).map_err(|problem| format!("egress: {problem}"))?;
        match changed(&between, &self.counts()) {
            Some(got) if got == wanted => Ok((wanted, out)),
            got => Err(format!("egress: {got:?}, not {wanted:?}")),
        }
    }

    fn counts(&self) -> Vec<u64> {
        self.plane.transit_counts().unwrap().unwrap()
    }

    fn verdict(&self, frame: &[u8]) -> TransitVerdict {
        self.run(frame).unwrap_or_else(|problem| panic!("{problem}\n{frame:02x?}")).0
    }
}

fn changed(before: &[u64], after: &[u64]) -> Option<TransitVerdict> {
    let mut differ = before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after);
    let (index, (before, after)) = differ.next()?;
    assert!(differ.next().is_none() && *after == before + 1, "one verdict for one packet");
    Some(TransitVerdict::ALL[index])
}

fn ring(served: &Served) -> Option<Arc<Ring>> {
    let mut answers: Vec<Rendered> = Vec::new();
    let mut places: HashMap<&[IpAddr], u16> = HashMap::new();
    let mut turns = Vec::new();
    for addresses in &served.turns {
        let place = *places.entry(addresses).or_insert_with(|| {
            answers.push(Rendered {
                flags: AA,
                ancount: addresses.len() as u16,
                bytes: addresses.iter().flat_map(|address| address_record(*address, served.ttl)).collect(),
                ..Rendered::default()
            });
            answers.len() as u16 - 1
        });
        turns.push(place);
    }
    (!turns.is_empty()).then(|| Arc::new(Ring { answers, turns, by_client: served.by_client }))
}

#[test]
fn a_million_replies_come_out_unchanged_or_exact() {
    if !privileged("a_million_replies_come_out_unchanged_or_exact") {
        return;
    }
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (count, seed) = (number("REPLIES", 20_000), number("SEED", 1));
    let lab = Lab::new();
    let mut random = Random(seed);
    let mut met: BTreeMap<&str, u64> = BTreeMap::new();
    for i in 0..count {
        let frame = some(&mut random, &[VIDEO, VIDEO, VIDEO, LONG, STICKY, COLD, ZONE, OTHER, "ViDeO.edge.EXAMPLE"]);
        match lab.run(&frame) {
            Ok((verdict, _)) => *met.entry(verdict.label()).or_default() += 1,
            Err(problem) => panic!("reply {i} of SEED={seed}: {problem}\n{frame:02x?}"),
        }
    }
    println!("replies={count} seed={seed} wrong=0 {met:?} no packet on egress: {}", lab.refused.get());
    assert!(lab.refused.get() < count / 20, "nearly all are packets");
    assert!(met["rewritten"] > count / 6, "most of what is generated is sound: {met:?}");
    let never = ["elsewhere", "broken", "too_long"];
    for verdict in TransitVerdict::ALL.iter().filter(|verdict| !never.contains(&verdict.label())) {
        assert!(met.contains_key(verdict.label()) || count < 20_000, "{} was never met", verdict.label());
    }
}

#[test]
fn each_verdict_has_a_packet() {
    if !privileged("each_verdict_has_a_packet") {
        return;
    }
    let lab = Lab::new();
    let pointer = [0xc0, 12];
    let reply = || Reply::new(VIDEO, A).answer(&pointer, A, 300, &[203, 0, 113, 1]);
    let v4 = |payload: Vec<u8>| carry(false, payload).build();
    let flagged = |flags: u16| v4(Reply { flags, ..reply() }.build());
    use TransitVerdict as V;
    assert_eq!(lab.verdict(&v4(reply().build())), V::Rewritten);
    assert_eq!(lab.verdict(&flagged(0x0100)), V::OddHeader);
    assert_eq!(lab.verdict(&flagged(0x8183)), V::OddHeader);
    assert_eq!(lab.verdict(&flagged(0x8380)), V::Truncated);
    assert_eq!(lab.verdict(&flagged(0x81a0)), V::Signed);
    assert_eq!(lab.verdict(&v4(reply().answer(&pointer, RRSIG, 300, &[0; 30]).build())), V::Signed);
    assert_eq!(lab.verdict(&v4(Reply::new(VIDEO, A).build())), V::NoAnswer);
    let many = |count| (0..count).fold(Reply::new(VIDEO, A), |reply, i| reply.answer(&pointer, A, 9, &[1, 2, 3, i]));
    assert_eq!(lab.verdict(&v4(many(32).build())), V::Rewritten);
    assert_eq!(lab.verdict(&v4(many(33).build())), V::TooMany);
    // To itself, forward, into the header.
    for odd in [[0xc0, 36], [0xc0, 200], [0xc0, 3], [0x80, 1]] {
        assert_eq!(lab.verdict(&v4(Reply::new(VIDEO, A).answer(&odd, A, 300, &[1; 4]).build())), V::OddName);
    }
    assert_eq!(lab.verdict(&v4(Reply::new(VIDEO, A).answer(&pointer, A, 300, &[1; 5]).build())), V::OddRecord);
    let mut cut = reply().build();
    cut.pop();
    assert_eq!(lab.verdict(&v4(cut)), V::OddRecord);
    assert_eq!(lab.verdict(&v4(Reply::new(OTHER, A).answer(&pointer, A, 300, &[1; 4]).build())), V::NotOurs);
    assert_eq!(lab.verdict(&v4(Reply::new(ZONE, A).answer(&pointer, A, 300, &[1; 4]).build())), V::NotOurs);
    assert_eq!(lab.verdict(&v4(Reply::new(COLD, A).answer(&pointer, A, 300, &[1; 4]).build())), V::NoInstance);
    assert_eq!(lab.verdict(&v4(Reply::new(LONG, AAAA).answer(&pointer, AAAA, 300, &[1; 16]).build())), V::NoInstance);
    assert_eq!(lab.verdict(&v4([reply().build(), vec![0; 2000]].concat())), V::TooLong);
    let mut fragment = v4(reply().build());
    fragment[20] = 0x20;
    assert_eq!(lab.verdict(&fragment), V::Fragment);
    assert_eq!(lab.verdict(&carry(true, reply().build()).no_checksum().build()), V::BadLength);
    let query = FrameBuilder::new((ip("192.0.2.1"), 40_000).into(), (ip("198.51.100.53"), 443).into());
    assert_eq!(lab.verdict(&query.payload([0; 40]).build()), V::NotReply);

    // Not a single verdict of the program in front but this, and only behind it the others.
    let mut lab = lab;
    let before = lab.plane.counters(16).unwrap();
    let frame = v4(reply().build());
    lab.verdict(&frame);
    let after = lab.plane.counters(16).unwrap();
    assert_eq!(after.verdict(Verdict::Reply), before.verdict(Verdict::Reply) + 1);
    assert_eq!(after.services[1].queries, before.services[1].queries + 2, "who is told of it has asked for it");
    lab.plane.set_transit(&[("lo", TransitHook::Egress)]).unwrap();
    let counts = lab.counts();
    assert_eq!(lab.plane.run(&frame).unwrap().frame, frame, "no slot, no rewriting");
    assert_eq!(lab.counts(), counts);
    assert_ne!(lab.plane.run_out(&frame).unwrap(), Some(frame.clone()));
    // As it comes in on another interface only.
    let made = std::process::Command::new("ip").args(["link", "add", "o0", "type", "veth"]).status().unwrap();
    assert!(made.success());
    lab.plane.set_transit(&[("o0", TransitHook::Ingress), ("lo", TransitHook::Egress)]).unwrap();
    let counts = lab.counts();
    assert_eq!(lab.plane.run(&frame).unwrap().frame, frame);
    assert_eq!(changed(&counts, &lab.counts()), Some(V::Elsewhere));
    // A table that contradicts itself.
    lab.plane.set_transit(&[("lo", TransitHook::Ingress), ("lo", TransitHook::Egress)]).unwrap();
    assert!(lab.plane.damage(&wire(VIDEO)));
    let counts = lab.counts();
    assert_eq!(lab.plane.run(&frame).unwrap().frame, frame);
    let between = lab.counts();
    assert_eq!(changed(&counts, &between), Some(V::Broken));
    assert_eq!(lab.plane.run_out(&frame).unwrap(), Some(frame.clone()));
    assert_eq!(changed(&between, &lab.counts()), Some(V::Broken));
    let counts = lab.counts();
    let missing: Vec<_> = V::ALL.iter().zip(counts).filter(|(_, count)| *count == 0).collect();
    assert!(missing.is_empty(), "no packet provokes {missing:?}");
    lab.plane.set_transit(&[]).unwrap();
    assert_eq!(lab.plane.transit_counts().unwrap(), None);
    assert_eq!(lab.plane.run(&frame).unwrap().frame, frame);
}

#[test]
fn addresses_are_those_that_a_query_would_get() {
    if !privileged("addresses_are_those_that_a_query_would_get") {
        return;
    }
    let lab = Lab::new();
    let alias = wire("www.elsewhere.example");
    // www CNAME video, video A A: the second owner is a pointer to the target in the first record.
    let target = 12 + alias.len() as u16 + 4 + 12;
    let owner = (0xc000 | target).to_be_bytes();
    let reply = Reply::new("www.elsewhere.example", A)
        .answer(&[0xc0, 12], CNAME, 3600, &wire(VIDEO))
        .answer(&owner, A, 300, &[203, 0, 113, 1])
        .answer(&owner, A, 10, &[203, 0, 113, 2])
        .build();
    for v6 in [false, true] {
        for builder in [carry(v6, reply.clone()), carry(v6, reply.clone()).tag(0x8100, 7)] {
            let (verdict, frame) = lab.run(&builder.build()).unwrap();
            assert_eq!(verdict, TransitVerdict::Rewritten);
            let datagram = xdp_balancer::testing::Datagram::parse(&frame).unwrap();
            let records = &datagram.payload[datagram.payload.len() - 32..];
            let (first, second) = (&records[..16], &records[16..]);
            assert_eq!((&first[6..10], &second[6..10]), (&30_u32.to_be_bytes()[..], &10_u32.to_be_bytes()[..]));
            assert!(first[12..15] == [10, 1, 0] && second[12..15] == [10, 1, 0] && first[15] != second[15]);
        }
    }
}
