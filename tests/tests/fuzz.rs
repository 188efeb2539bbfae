//! A million frames through the program in the kernel (`PROG_TEST_RUN`), held against the daemon's own answer on
//! the same bytes. Needs root.
//!
//! `FRAMES` and `SEED` choose how many and which; both are printed, so that a failure can be repeated.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::net::{IpAddr, SocketAddr};

use control::datapath::{Terms, table};
use control::dns::{Context, Index, Outcome, Pick, Policy, Response, Transport};
use control::model::{
    AddressPair, Backend, Basis, Choice, InstanceId, PublishedService, ServiceName, Snapshot, Zone, ZoneRecord,
};
use tests::lab::is_root;
use xdp_balancer::testing::{Datagram, FrameBuilder};
use xdp_balancer::{Dataplane, Options, RunAction, Sizes};
use xdp_balancer_common::ANSWER_BYTES;

const NAMES: [&str; 6] = [
    "video.edge.test.",
    "a.edge.test.",
    "an-odd-one.edge.test.",
    "xn--bcher-kva.a-rather-long-label-in-the-middle-of-the-name.deeper.and.deeper.edge.test.",
    "w0.w1.w2.w3.w4.w5.w6.w7.w8.w9.wa.wb.wc.wd.we.wf.w0.w1.w2.w3.w4.w5.w6.w7.w8.w9.wa.wb.wc.wd.we.edge.test.",
    "four.edge.test.",
];

/// A small generator, so that a seed means the same everywhere and for ever (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Names of the zone's own records, one without its own and one that only a wildcard makes.
const ZONE_NAMES: [&str; 15] = [
    "edge.test.",
    "ns1.edge.test.",
    "txt.edge.test.",
    "svc.edge.test.",
    "mail.edge.test.",
    "alias.edge.test.",
    "alias-of-alias.edge.test.",
    "an-alias-of-the.odd-one.edge.test.",
    "out.edge.test.",
    "sub.edge.test.",
    "odd-one.edge.test.",
    "any.wild.edge.test.",
    "moved.edge.test.",
    "to-moved.edge.test.",
    "big.edge.test.",
];

fn wire(name: &str) -> Vec<u8> {
    let labels = name.split_terminator('.').map(|l| [&[u8::try_from(l.len()).unwrap()], l.as_bytes()].concat());
    [labels.collect::<Vec<_>>().concat(), vec![0]].concat()
}

fn records() -> Vec<ZoneRecord> {
    let record = |name: &str, rtype: u16, rdata: &[u8]| ZoneRecord {
        name: name.to_owned(),
        rtype,
        ttl_s: 300,
        rdata: rdata.to_vec(),
    };
    let named = |head: &[u8], name: &str| [head, &wire(name)].concat();
    let big: Vec<u8> = (0..3).flat_map(|_| [&[200][..], &[b'x'; 200]].concat()).collect();
    vec![
        record("edge.test.", 15, &named(&[0, 10], "mail.edge.test.")),
        record("edge.test.", 16, b"\x0bv=spf1 -all"),
        record("edge.test.", 257, b"\0\x05issueca.test"),
        record("video.edge.test.", 65, &[0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2']),
        record("txt.edge.test.", 16, b"\x03odd"),
        record("txt.edge.test.", 16, b"\x04even"),
        record("svc.edge.test.", 33, &named(&[0, 1, 0, 2, 0, 80], NAMES[3])),
        record("svc.edge.test.", 64, &named(&[0, 1], "video.edge.test.")),
        record("mail.edge.test.", 1, &[10, 9, 9, 1]),
        record("mail.edge.test.", 12, &wire("edge.test.")),
        record("alias.edge.test.", 5, &wire(NAMES[0])),
        record("alias-of-alias.edge.test.", 5, &wire("alias.edge.test.")),
        record("an-alias-of-the.odd-one.edge.test.", 5, &wire(NAMES[2])),
        record("out.edge.test.", 5, &wire("elsewhere.example.")),
        record("sub.edge.test.", 2, &wire("ns.elsewhere.example.")),
        record("*.wild.edge.test.", 16, b"\x04wild"),
        record("moved.edge.test.", 39, &wire("wild.edge.test.")),
        record("moved.edge.test.", 16, b"\x05moved"),
        record("to-moved.edge.test.", 5, &wire("host.moved.edge.test.")),
        record("big.edge.test.", 16, &big),
    ]
}

fn snapshot() -> Snapshot {
    let zone = Zone {
        authority: None,
        apex: "edge.test.".into(),
        primary: "ns1.edge.test.".into(),
        contact: "hostmaster.edge.test.".into(),
        nameservers: vec!["ns1.edge.test.".into()],
        ttl_s: 3600,
        negative_ttl_s: 5,
        nameserver_addresses: vec!["10.53.0.1".parse().unwrap(), "fd53::1".parse().unwrap()],
        records: records(),
    };
    let services = NAMES.iter().enumerate().map(|(i, name)| {
        let number = u8::try_from(i).unwrap();
        let backends = (0..=number.min(4)).map(|b| Backend {
            instance: InstanceId::from_number(u32::from(number) * 16 + u32::from(b)),
            addresses: AddressPair {
                v4: Some([10, 9, number, b + 1].into()),
                // One service has IPv4 only: its AAAA is NODATA, which is the daemon's.
                v6: (number != 5).then(|| [0xfd00, 0, 0, 0, 0, 0, u16::from(number), u16::from(b) + 1].into()),
            },
            weight: u16::from(b % 2) + 1,
        });
        PublishedService {
            name: ServiceName::new(format!("s{i}")).unwrap(),
            index: u32::from(number),
            names: vec![(*name).to_owned()],
            ttl_s: 5 + u32::from(number),
            answers: 4,
            // One keeps its clients, one says that it fails, one that it has nothing.
            choice: if number == 3 { Choice::Client } else { Choice::RoundRobin },
            basis: match number {
                1 => Basis::ServFail,
                2 => Basis::NoData,
                _ => Basis::Serving,
            },
            backends: backends.collect(),
            addresses: vec![],
            last_good: vec![],
            summon: None,
        }
    });
    Snapshot { generation: 1, zones: vec![zone.into()], services: services.collect() }
}

/// Names that do not exist: in the zone, below a service, below a wildcard's owner, below a delegation, below a DNAME, deep,
/// and too deep for the program; and outside.
const NOBODY: [&str; 8] = [
    "nobody.edge.test.",
    "not.video.edge.test.",
    "a.b.any.wild.edge.test.",
    "host.sub.edge.test.",
    BELOW_DNAME,
    "1.2.3.4.5.6.7.8.edge.test.",
    "1.2.3.4.5.6.7.8.9.a.edge.test.",
    "edge.example.",
];

/// Its answer depends on the question, so it is the daemon's.
const BELOW_DNAME: &str = "host.moved.edge.test.";

/// A DNS query, mostly for one of our names and mostly well-formed.
fn query(random: &mut Random) -> Vec<u8> {
    let mut message = random.bytes(2);
    let flags: u16 = match random.below(12) {
        0 => u16::from_be_bytes([random.byte(), random.byte()]),
        1 => 0x0120,
        2 => 0x0110,
        3 => 0,
        _ => 0x0100,
    };
    message.extend(flags.to_be_bytes());
    let with_opt = random.one_in(2);
    let counts: [u16; 4] = if random.one_in(20) {
        [0; 4].map(|_: u16| u16::try_from(random.below(3)).unwrap())
    } else {
        [1, 0, 0, u16::from(with_opt)]
    };
    message.extend(counts.iter().flat_map(|c| c.to_be_bytes()));
    let of_zone = random.one_in(3);
    let name = match (of_zone, random.one_in(10)) {
        (_, true) => random.pick(&NOBODY),
        (true, _) => random.pick(&ZONE_NAMES),
        (false, _) => random.pick(&NAMES),
    };
    for label in name.trim_end_matches('.').split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes().map(|b| if random.one_in(2) { b.to_ascii_uppercase() } else { b }));
    }
    message.push(0);
    let qtype: u16 = match random.below(10) {
        2..7 if of_zone => random.pick(&[2, 5, 6, 12, 15, 16, 33, 39, 64, 65, 257]),
        0 => random.pick(&[2, 5, 6, 15, 16, 33, 41, 64, 65, 251, 252, 255]),
        1 => u16::from_be_bytes([random.byte(), random.byte()]),
        n => random.pick(&[1, 28][..1 + n % 2]),
    };
    message.extend(qtype.to_be_bytes());
    message.extend(if random.one_in(25) { [random.byte(), random.byte()] } else { [0, 1] });
    if with_opt {
        message.extend(opt(random));
    }
    message
}

fn opt(random: &mut Random) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..random.pick(&[0, 0, 0, 1, 1, 2, 3, 9]) {
        let code: u16 = random.pick(&[3, 8, 9, 10, 10, 10, 11, 12, 15, 65001]);
        let len = random.pick(&[0, 1, 7, 8, 16, 24, 40]);
        options.extend(code.to_be_bytes());
        options.extend(u16::try_from(len).unwrap().to_be_bytes());
        options.extend(random.bytes(len));
    }
    let version = if random.one_in(20) { random.byte() } else { 0 };
    let size: u16 = random.pick(&[0, 300, 512, 600, 1232, 1400, 4096, 65535]);
    let mut record = vec![0, 0, 41];
    record.extend(size.to_be_bytes());
    let do_bit = if random.one_in(3) { 0x80 } else { 0 };
    let z = if random.one_in(20) { random.byte() } else { 0 };
    record.extend([if random.one_in(30) { random.byte() } else { 0 }, version, do_bit, z]);
    record.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    record.extend(options);
    record
}

/// Damages some bytes: flips, cuts, additions. The checksums are made afterwards or before, by turns, so that
/// both what a broken client sends and what a broken wire delivers is seen.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        match random.below(5) {
            0 if !bytes.is_empty() => bytes.truncate(random.below(bytes.len())),
            1 => {
                let more = random.below(24);
                bytes.extend(random.bytes(more));
            }
            2 if !bytes.is_empty() => {
                let at = random.below(bytes.len());
                bytes[at] = random.pick(&[0, 1, 0x3f, 0x40, 0xc0, 0xff]);
            }
            _ if !bytes.is_empty() => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            _ => {}
        }
    }
}

/// When all queries are asked, and what both sides know besides the names.
const NOW: u32 = 1_800_000_000;

fn terms(listen: &[IpAddr; 2]) -> Terms {
    Terms { listen: listen.to_vec(), cookies: Some([0x0123_4567_89ab_cdef, 42]), ..Terms::default() }
}

/// The daemon's answer to a client at a turn of the ring.
fn respond(query: &[u8], client: IpAddr, index: &Index, slot: usize) -> Response {
    let policy = Policy { cookies: terms(&[client, client]).cookies, ..Policy::default() };
    let context = Context { transport: Transport::Udp, client, time: NOW, policy: &policy };
    control::dns::respond(query, index, &context, Pick::Slot(slot))
}

struct Case {
    frame: Vec<u8>,
    /// The query inside and who sent it, where nothing was damaged.
    intact: Option<(Vec<u8>, IpAddr)>,
}

fn case(random: &mut Random, listen: &[IpAddr; 2]) -> Case {
    if random.one_in(12) {
        let len = 14 + random.below(180);
        return Case { frame: random.bytes(len), intact: None };
    }
    let mut message = query(random);
    let mut intact = true;
    if random.one_in(3) {
        damage(random, &mut message);
        intact = false;
    }
    let v6 = random.one_in(2);
    let (net, host) = (random.byte(), random.byte());
    let (client, server): (IpAddr, IpAddr) = if v6 {
        ([0xfd53, 0, 0, u16::from(net) << 8, 0, 0, 0, u16::from(host)].into(), listen[1])
    } else {
        ([10, 53, net, host].into(), listen[0])
    };
    let port = if random.one_in(30) { 5353 } else { 53 };
    let foreign = random.one_in(30);
    let server = match (foreign, v6) {
        (false, _) => server,
        (true, false) => [8, 8, 8, 8].into(),
        (true, true) => "2001:db8::8".parse().unwrap(),
    };
    let mut builder = FrameBuilder::new(
        SocketAddr::new(client, 1024 + u16::try_from(random.below(60_000)).unwrap()),
        SocketAddr::new(server, port),
    )
    .payload(message.clone());
    if random.one_in(3) {
        builder = builder.padded_to(60);
    }
    if random.one_in(6) && !v6 {
        builder = builder.no_checksum();
    }
    let mut frame = builder.build();
    let tags = random.pick(&[0, 0, 0, 0, 0, 1, 2, 3]);
    for tag in 0..tags {
        // The outermost of two is a service tag, and the next one stands before it.
        let kind = if tag == 1 { [0x88, 0xa8] } else { [0x81, 0x00] };
        frame.splice(12..12, [kind[0], kind[1], random.byte(), random.byte()]);
    }
    if random.one_in(4) {
        damage(random, &mut frame);
        intact = false;
    }
    if frame.len() < 14 {
        frame.resize(14, 0);
    }
    Case { intact: (intact && port == 53 && !foreign && tags < 3).then_some((message, client)), frame }
}

/// A frame without its VLAN tags, one or two as the standards nest them, and how many there were.
fn untagged(frame: &[u8]) -> (Vec<u8>, usize) {
    let kind = |at: usize| frame.get(at..at + 2).map(|k| u16::from_be_bytes([k[0], k[1]]));
    let tags = match (kind(12), kind(16)) {
        (Some(0x8100 | 0x88a8), Some(0x8100)) => 2,
        (Some(0x8100 | 0x88a8), _) => 1,
        _ => 0,
    };
    let mut plain = frame.to_vec();
    plain.drain(12..12 + 4 * tags);
    (plain, tags)
}

/// Where a DNS message lies in a frame without tags that a careful reader finds to be a query over UDP to one of our
/// addresses, and who sent it; `None` for everything else. Written apart from the program, byte by byte.
fn to_us<'f>(frame: &'f [u8], listen: &[IpAddr; 2]) -> Option<(&'f [u8], IpAddr)> {
    let short = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let (udp, ip_payload, client) = match short(12)? {
        0x0800 => {
            let total = usize::from(short(16)?);
            let plain = *frame.get(14)? == 0x45 && short(20)? & 0x3fff == 0 && *frame.get(23)? == 17;
            let from = IpAddr::from(<[u8; 4]>::try_from(frame.get(26..30)?).unwrap());
            let to = IpAddr::from(<[u8; 4]>::try_from(frame.get(30..34)?).unwrap());
            (plain && to == listen[0]).then_some((34, total.checked_sub(20)?, from))?
        }
        0x86dd => {
            let plain = frame.get(14)? >> 4 == 6 && *frame.get(20)? == 17;
            let from = IpAddr::from(<[u8; 16]>::try_from(frame.get(22..38)?).unwrap());
            let to = IpAddr::from(<[u8; 16]>::try_from(frame.get(38..54)?).unwrap());
            (plain && to == listen[1] && short(60)? != 0).then_some((54, usize::from(short(18)?), from))?
        }
        _ => return None,
    };
    let len = usize::from(short(udp + 4)?);
    if short(udp + 2)? != 53 || len > ip_payload || len < 8 {
        return None;
    }
    Some((frame.get(udp + 8..udp + len)?, client))
}

#[test]
fn the_kernel_answers_like_the_daemon_or_passes_unchanged() {
    if !is_root("the_kernel_answers_like_the_daemon_or_passes_unchanged") {
        return;
    }
    let number = |name: &str, otherwise: u64| std::env::var(name).ok().map_or(otherwise, |v| v.parse().unwrap());
    let (frames, seed) = (number("FRAMES", 1_000_000), number("SEED", 1));

    let pins = std::path::Path::new("/sys/fs/bpf").join(format!("sv-fuzz-{}", std::process::id()));
    let _unpin = Unpin(pins.clone());
    let mut plane = Dataplane::open(&Options { pin_dir: pins, sizes: Sizes::default() }).unwrap();
    let listen: [IpAddr; 2] = ["10.53.0.1".parse().unwrap(), "fd53::1".parse().unwrap()];
    let snapshot = snapshot();
    let index = Index::new(&snapshot).unwrap();
    plane.publish(&table(&snapshot, &index, &terms(&listen))).unwrap();
    plane.set_time(NOW);

    let mut random = Random(seed);
    let (mut answered, mut passed, mut intact_answered, mut differences) = (0_u64, 0_u64, 0_u64, 0_u64);
    for number in 0..frames {
        let Case { frame, intact } = case(&mut random, &listen);
        let result = plane.run(&frame).unwrap();
        let problem = match result.action {
            RunAction::Pass => {
                passed += 1;
                if result.frame == frame {
                    expected_answer(intact.as_ref(), &index)
                } else {
                    Some("passed, but changed".into())
                }
            }
            RunAction::Answer => {
                answered += 1;
                intact_answered += u64::from(intact.is_some());
                judge(&frame, &result.frame, &listen, &index)
            }
            action => Some(format!("{action:?}")),
        };
        if let Some(problem) = problem {
            differences += 1;
            println!("frame {number} of seed {seed}: {problem}\n  in  {frame:02x?}\n  out {:02x?}", result.frame);
            assert!(differences < 5, "more differences than are worth printing");
        }
    }
    println!("frames={frames} seed={seed} answered={answered} passed={passed} differences={differences}");
    assert_eq!(differences, 0);
    // The generator has to reach both sides, or the test shows nothing.
    assert!(answered > frames / 10 && passed > frames / 10 && intact_answered > frames / 20);
}

/// An undamaged query that the daemon answers whole has no reason to be passed, but for what is listed here by name:
/// more or longer options than the program walks, reserved flags, classes other than IN, several cookies, types that are none of data, names
/// with more missing labels than the program takes off or below a DNAME, answers longer than the tables hold.
fn expected_answer(intact: Option<&(Vec<u8>, IpAddr)>, index: &Index) -> Option<String> {
    let (query, client) = intact?;
    let response = respond(query, *client, index, 0);
    let told = [Outcome::Answered, Outcome::NoData, Outcome::NxDomain, Outcome::ServFail];
    let name = name_end(query)?;
    let options = options(query);
    let with_opt = query.get(10..12) == Some(&[0, 1]);
    let odd_options = options.len() > 4
        || query.len() > name + 4 + 11 + 117
        || options.iter().filter(|code| **code == 10).count() > 1;
    let odd_flags = u16::from_be_bytes([query[2], query[3]]) & !0x0130 != 0 || (with_opt && opt_flags(query));
    let odd_class = query.get(name + 2..name + 4) != Some(&[0, 1]);
    let meta = matches!(asked(query)?, 41 | 128..=255);
    let too_deep = query[12..name].eq_ignore_ascii_case(&wire("1.2.3.4.5.6.7.8.9.a.edge.test."));
    let redirected = query[12..name].eq_ignore_ascii_case(&wire(BELOW_DNAME));
    let too_long = response.bytes.as_ref().is_some_and(|bytes| bytes.len() > name + 4 + ANSWER_BYTES);
    let passed = odd_options || odd_flags || odd_class || meta || too_deep || redirected || too_long;
    (told.contains(&response.outcome) && !passed).then(|| format!("a plain query was passed: {:?}", response.outcome))
}

/// End of the question's name.
fn name_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            len => at += 1 + len,
        }
    }
}

fn asked(message: &[u8]) -> Option<u16> {
    let end = name_end(message)?;
    Some(u16::from_be_bytes([*message.get(end)?, *message.get(end + 1)?]))
}

/// Codes of the options of an intact query's OPT.
fn options(query: &[u8]) -> Vec<u16> {
    let Some(mut at) = name_end(query).map(|end| end + 4 + 11) else { return Vec::new() };
    let mut codes = Vec::new();
    while let Some(option) = query.get(at..at + 4) {
        at += 4 + usize::from(u16::from_be_bytes([option[2], option[3]]));
        codes.push(u16::from_be_bytes([option[0], option[1]]));
    }
    codes
}

/// Reserved bits of an intact query's OPT that are not zero: for the daemon to judge.
fn opt_flags(query: &[u8]) -> bool {
    let Some(opt) = name_end(query).map(|end| end + 4) else { return false };
    query.get(opt + 5..opt + 9).is_some_and(|ttl| ttl[0] != 0 || ttl[1] != 0 || ttl[2] & 0x7f != 0 || ttl[3] != 0)
}

/// What is wrong with an answer.
fn judge(frame: &[u8], reply: &[u8], listen: &[IpAddr; 2], index: &Index) -> Option<String> {
    let ((plain, tags), (answer, tags_back)) = (untagged(frame), untagged(reply));
    if tags != tags_back || frame[12..12 + 4 * tags] != reply[12..12 + 4 * tags] {
        return Some("the tags are not those of the query".into());
    }
    let Some((query, client)) = to_us(&plain, listen) else { return Some("answered what was no query to us".into()) };
    let udp = if plain[12] == 8 { 34 } else { 54 };
    let asked = Datagram::parse(&unpadded(&plain, udp));
    let datagram = Datagram::parse(&answer);
    let payload = match &datagram {
        Ok(datagram) => &datagram.payload[..],
        // A damaged query has to become a damaged answer; its lengths are right all the same.
        Err(_) if asked.is_err() => answer.get(udp + 8..)?,
        Err(error) => return Some(format!("answer: {error}")),
    };
    // A datagram that is shorter than its packet is whole, but not to that reader.
    if datagram.is_ok() && asked.as_ref().is_err_and(|error| !error.starts_with("lengths")) {
        return Some("a damaged query got an answer with right checksums".into());
    }
    let told = [Outcome::Answered, Outcome::NoData, Outcome::NxDomain, Outcome::ServFail];
    let same = (0..16).any(|slot| {
        let response = respond(query, client, index, slot);
        told.contains(&response.outcome) && response.bytes.as_deref() == Some(payload)
    });
    if !same {
        let says = respond(query, client, index, 0);
        return Some(format!("the daemon says {:?} {:02x?}", says.outcome, says.bytes));
    }
    if let (Ok(there), Ok(back)) = (&asked, &datagram) {
        let turned = (back.source, back.destination) == (there.destination, there.source)
            && (back.source_mac, back.destination_mac) == (there.destination_mac, there.source_mac);
        if !turned || back.hop_limit != 64 {
            return Some("addresses are not turned round".into());
        }
    }
    match hickory_proto::op::Message::from_vec(payload) {
        Ok(_) => None,
        Err(error) => Some(format!("hickory-proto: {error}")),
    }
}

/// The frame without Ethernet padding.
fn unpadded(frame: &[u8], udp: usize) -> Vec<u8> {
    let len = usize::from(u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]));
    frame[..(udp + len).min(frame.len())].to_vec()
}

struct Unpin(std::path::PathBuf);

impl Drop for Unpin {
    fn drop(&mut self) {
        if let Err(error) = xdp_balancer::remove_all(&self.0) {
            eprintln!("fuzz: {error}");
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}
