//! The seam to the kernel's tables: what the program says of them is what the daemon says, byte for byte.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use xdp_balancer_common::{ANSWER_BYTES, TYPE_SLOTS};

use super::*;
use crate::model::ZONE_INDEX;

/// Most labels that the program takes off a name that it does not know.
const MOST_LABELS: usize = 8;

/// The program's way through its tables, in words of this language.
struct Kernel<'i>(HashMap<&'i [u8], PublishedName<'i>>);

fn has_zero(name: &[u8]) -> bool {
    name[..name.len() - 1].contains(&0)
}

/// What the tables have for a name.
enum Match<'k> {
    Name(&'k PublishedName<'k>),
    Denied(&'k Arc<Ring>),
}

/// A ring, and the index of the service that the question is counted for.
type Said = Option<(Arc<Ring>, Option<u32>)>;

impl<'i> Kernel<'i> {
    fn new(index: &'i Index) -> Self {
        Self(index.names().map(|name| (name.wire, name)).collect())
    }

    /// What it finds for a name; `None` where that is for the daemon to know.
    fn find(&self, name: &[u8]) -> Option<Match<'_>> {
        // Where it takes the name for ended there is no class behind it.
        if has_zero(name) {
            return None;
        }
        let lower = name.to_ascii_lowercase();
        if let Some(known) = self.0.get(lower.as_slice()) {
            return Some(Match::Name(known));
        }
        let mut left = lower.as_slice();
        for _ in 0..MOST_LABELS {
            left = left.get(1 + usize::from(*left.first()?)..)?;
            let Some(encloser) = self.0.get(left) else { continue };
            return match encloser.below {
                Below::UserSpace => None,
                Below::Denied(ring) => Some(Match::Denied(ring)),
                Below::Wildcard => {
                    let wildcard = [b"\x01*", left].concat();
                    Some(Match::Name(self.0.get(wildcard.as_slice()).expect("the wildcard")))
                }
            };
        }
        None
    }

    /// `None` where it leaves the question to the daemon.
    fn says(&self, name: &[u8], qtype: u16) -> Said {
        let asks_for_data = qtype != TYPE_OPT && !(128..=255).contains(&qtype);
        let (ring, service) = match self.find(name)? {
            Match::Denied(ring) => (Some(ring).filter(|_| asks_for_data), None),
            Match::Name(name) => {
                let of_type = name.rrsets.iter().find(|rrset| rrset.qtype == qtype);
                let others = name.others.filter(|_| asks_for_data);
                let ring = of_type.map_or(others, |rrset| rrset.ring);
                (ring, Some(name.service).filter(|service| *service != ZONE_INDEX))
            }
        };
        Some((Arc::clone(ring?), service))
    }

    /// Whether it has a right to leave a question to the daemon that this is the answer to.
    fn may_leave(&self, name: &[u8], qtype: u16, says: &Response) -> bool {
        let records = says.bytes.as_ref().map_or(0, |reply| reply.len() - 12 - name.len() - 4);
        let full = match self.find(name) {
            Some(Match::Name(known)) => known.rrsets.len() == TYPE_SLOTS,
            Some(Match::Denied(_)) => false,
            None => has_zero(name) || wire::suffixes(name).count() > MOST_LABELS,
        };
        let redirected = says.bytes.as_ref().is_some_and(|reply| is_redirected(reply));
        let not_for_it = [Outcome::Refused, Outcome::FormErr, Outcome::Referral, Outcome::NoBackend];
        let is_meta = qtype == TYPE_OPT || (128..=255).contains(&qtype);
        redirected
            || not_for_it.contains(&says.outcome)
            || is_meta
            || qtype == TYPE_DS
            || records > ANSWER_BYTES
            || full
    }
}

/// Whether an answer begins with a DNAME and the CNAME that it makes of the question.
fn is_redirected(reply: &[u8]) -> bool {
    let message = Message::from_vec(reply).unwrap();
    let of = |place: usize| message.answers.get(place).map_or(0, |record| u16::from(record.record_type()));
    of(0) == TYPE_DNAME && (of(1) == TYPE_CNAME || u16::from(message.metadata.response_code) == YXDOMAIN)
}

/// What the program sends over UDP; `None` where it does not fit and goes to the daemon.
fn sent(query: &[u8], question_len: usize, answer: &RenderedAnswer, payload: Option<u16>) -> Option<Vec<u8>> {
    let flags = 0x8000 | u16::from(query[2] & 1) << 8 | answer.flags;
    let opt = payload.is_some();
    let counts = [1, answer.ancount, answer.nscount, answer.arcount + u16::from(opt)];
    let mut reply = query[..2].to_vec();
    [flags].iter().chain(&counts).for_each(|word| reply.extend(word.to_be_bytes()));
    reply.extend(&query[12..12 + question_len]);
    reply.extend(&answer.bytes);
    if opt {
        reply.extend([0, 0, 41, 0x04, 0xD0, 0, 0, query[12 + question_len + 7] & 0x80, 0, 0, 0]);
    }
    let limit = payload.map_or(512, |payload| payload.clamp(512, 1232));
    (reply.len() <= limit.into()).then_some(reply)
}

/// A plain query, with EDNS where `payload` is given.
pub(super) fn asking(name: &[u8], qtype: u16, payload: Option<u16>) -> Vec<u8> {
    let mut query = vec![0x5A, 0xA5, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(payload.is_some())];
    query.extend(name);
    query.extend(qtype.to_be_bytes());
    query.extend([0, 1]);
    if let Some(payload) = payload {
        query.extend([0, 0, 41]);
        query.extend(payload.to_be_bytes());
        query.extend([0, 0, 0x80, 0, 0, 0]);
    }
    query
}

/// Both answers to a question at every turn, and whether the kernel had one.
fn compare(index: &Index, kernel: &Kernel<'_>, name: &[u8], qtype: u16, payload: Option<u16>) -> Result<bool, String> {
    let query = asking(name, qtype, payload);
    let (udp, tcp) = (Transport::Udp, Transport::Tcp);
    let Some((ring, service)) = kernel.says(name, qtype) else {
        let says = respond(&query, index, tcp, Pick::Slot(0));
        let may = kernel.may_leave(name, qtype, &says);
        return if may { Ok(false) } else { Err(format!("left to the daemon, which says {says:02x?}")) };
    };
    let mut any = false;
    for (turn, variant) in ring.turns.iter().enumerate() {
        let says = respond(&query, index, udp, Pick::Slot(turn));
        let Some(sent) = sent(&query, name.len() + 4, &ring.answers[usize::from(*variant)], payload) else { continue };
        any = true;
        if says.bytes.as_deref() != Some(&sent) || says.service != service {
            return Err(format!("turn {turn}: kernel {service:?} {sent:02x?}\ndaemon {says:02x?}"));
        }
        Message::from_vec(&sent).map_err(|error| format!("{error}: {sent:02x?}"))?;
    }
    Ok(any)
}

/// What may stand at a name.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Data(Vec<u16>),
    Alias(String),
    Cut(String),
    Redirected(String),
    Service(Vec<(u16, bool)>),
    Zone,
}

fn name() -> impl Strategy<Value = String> {
    let labels = prop::collection::vec(prop::sample::select(vec!["a", "b", "cc", "d-long-label"]), 1..4);
    (labels, prop::bool::weighted(0.2))
        .prop_map(|(labels, wildcard)| format!("{}{}.edge.test.", if wildcard { "*." } else { "" }, labels.join(".")))
}

pub(super) fn target() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec!["edge.test.", "elsewhere.example.", "video.edge.test.", "idle.edge.test."]);
    prop_oneof![2 => name(), 1 => fixed.prop_map(str::to_owned)]
}

const TYPES: [u16; 12] = [1, 28, 65, 15, 16, 33, 257, 2000, 2001, 2002, 12, 43];

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => prop::sample::subsequence(TYPES.to_vec(), 1..=TYPES.len()).prop_map(Kind::Data),
        3 => target().prop_map(Kind::Alias),
        1 => target().prop_map(Kind::Cut),
        1 => target().prop_map(Kind::Redirected),
        2 => prop::collection::vec((0u16..4, any::<bool>()), 0..4).prop_map(Kind::Service),
        1 => Just(Kind::Zone),
    ]
}

pub(super) fn world() -> impl Strategy<Value = BTreeMap<String, Kind>> {
    prop::collection::btree_map(name(), kind(), 1..14)
}

fn rdata(rtype: u16, seed: usize) -> Vec<u8> {
    let byte = (seed % 200) as u8;
    match rtype {
        1 => vec![192, 0, 2, byte],
        28 => [[0x20, 1, 0xD, 0xB8].as_slice(), &[0; 11], &[byte]].concat(),
        15 => [&[0, 10], zone_data::wire_name("mail.edge.test.").as_slice()].concat(),
        33 => [&[0, 0, 0, 0, 0, 80], zone_data::wire_name("video.edge.test.").as_slice()].concat(),
        12 => zone_data::wire_name("ptr.edge.test."),
        65 => vec![0, 1, 0],
        257 => b"\0\x05issueca.test".to_vec(),
        16 => [&[byte][..], &vec![b'x'; byte.into()]].concat(),
        // Some too long for a slot.
        _ => vec![byte; if byte > 150 { 700 } else { 7 }],
    }
}

/// The snapshot of a world, by the rules that the configuration enforces.
pub(super) fn build(world: &BTreeMap<String, Kind>, generation: u64) -> Snapshot {
    let mut zones = vec![Zone { nameserver_addresses: vec![[192, 0, 2, 53].into()], ..zone("edge.test.") }];
    let apexes = world.iter().filter(|(name, kind)| matches!(kind, Kind::Zone) && !name.starts_with('*'));
    zones.extend(apexes.map(|(name, _)| zone(name)));
    let innermost = |name: &str, zones: &[Zone]| {
        let holds = |apex: &str| name == apex || name.ends_with(&format!(".{apex}"));
        let all = zones.iter().enumerate().filter(|(_, zone)| holds(&zone.apex));
        all.max_by_key(|(_, zone)| zone.apex.len()).map(|(number, _)| number).unwrap()
    };
    let mut services = vec![
        service(0, "video.edge.test.", vec![backend(1, 2), backend(2, 1), backend(3, 1)]),
        service(1, "idle.edge.test.", vec![]),
    ];
    for (seed, (name, kind)) in world.iter().enumerate() {
        let number = innermost(name, &zones);
        let record =
            |rtype: u16, rdata: Vec<u8>| ZoneRecord { name: name.clone(), rtype, ttl_s: 60 + u32::from(rtype), rdata };
        match kind {
            Kind::Data(types) => {
                for rtype in types {
                    let twice =
                        [record(*rtype, rdata(*rtype, seed * 17)), record(*rtype, rdata(*rtype, seed * 17 + 1))];
                    zones[number].records.extend(twice);
                }
            }
            Kind::Alias(target) => zones[number].records.push(record(5, zone_data::wire_name(target))),
            Kind::Cut(target) if !name.starts_with('*') => {
                zones[number].records.push(record(2, zone_data::wire_name(target)));
            }
            Kind::Redirected(target) if !name.starts_with('*') => {
                zones[number].records.push(record(TYPE_DNAME, zone_data::wire_name(target)));
                zones[number].records.push(record(16, rdata(16, seed)));
            }
            Kind::Service(backends) if !name.starts_with('*') => {
                let index = 2 + u32::try_from(seed).unwrap();
                let backends = backends.iter().enumerate().map(|(place, (weight, v6))| {
                    let mut made = backend(u8::try_from(place + 1).unwrap(), *weight);
                    made.addresses.v6 = made.addresses.v6.filter(|_| *v6);
                    made
                });
                services.push(service(index, name, backends.collect()));
            }
            _ => {}
        }
    }
    fixtures::snapshot(generation, zones, services)
}

/// Names to ask for: all that exist, in odd letters, and some below and beside them.
pub(super) fn questions(index: &Index) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = index.names().map(|name| name.wire.to_vec()).collect();
    for below in ["\x01x", "\x01a", "\x01*", "\x03sub\x01b"] {
        names.extend(index.names().map(|name| [below.as_bytes(), name.wire].concat()));
    }
    names.sort();
    names.dedup();
    names.iter_mut().step_by(2).for_each(|name| name.make_ascii_uppercase());
    names
}

/// What a name of the tables is, in a form that can be compared.
fn content(index: &Index) -> BTreeMap<Vec<u8>, String> {
    index.names().map(|name| (name.wire.to_vec(), format!("{:?}", Comparable(&name)))).collect()
}

/// Without positions and forms made by others.
struct Comparable<'a>(&'a PublishedName<'a>);

impl std::fmt::Debug for Comparable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ring = |ring: &Arc<Ring>| format!("{:?} {:?} {}", ring.answers, ring.turns, ring.by_client);
        let mut rrsets: Vec<_> = self.0.rrsets.iter().map(|r| (r.qtype, r.ring.map(ring))).collect();
        rrsets.sort();
        let below = match self.0.below {
            Below::Denied(denied) => ring(denied),
            other => format!("{other:?}"),
        };
        write!(f, "{} {rrsets:?} {:?} {below}", self.0.service, self.0.others.map(ring))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn kernel_and_daemon_say_the_same(world in world(), payload in prop::option::of(any::<u16>())) {
        let snapshot = build(&world, 7);
        let index = Index::new(&snapshot).unwrap();
        let kernel = Kernel::new(&index);
        for name in questions(&index) {
            for qtype in TYPES.into_iter().chain([2, 5, 6, 39, 41, 99, 128, 250, 252, 255, 0, 65535]) {
                let compared = compare(&index, &kernel, &name, qtype, payload);
                prop_assert!(compared.is_ok(), "{:02x?} type {qtype}: {}", name, compared.unwrap_err());
            }
        }
    }

    #[test]
    fn the_next_index_is_as_one_from_nothing(first in world(), second in world(), same in any::<bool>()) {
        let mut after = build(if same { &first } else { &second }, 8);
        // A backend comes, the most frequent change of all.
        after.services[1].backends.push(backend(9, 1));
        let before = Index::new(&build(&first, 7)).unwrap();
        let (next, anew) = (before.next(&after).unwrap(), Index::new(&after).unwrap());
        prop_assert_eq!(content(&next), content(&anew));
        let kernel = Kernel::new(&next);
        for name in questions(&next) {
            for qtype in [1, 28, 5, 16, 65, 255] {
                let compared = compare(&next, &kernel, &name, qtype, Some(1232));
                prop_assert!(compared.is_ok(), "{:02x?} type {qtype}: {}", name, compared.unwrap_err());
            }
        }
    }
}

#[test]
fn every_kind_of_answer_comes_from_the_kernel() {
    let index = zone_data::with_records();
    let kernel = Kernel::new(&index);
    for (name, qtype, expected) in [
        ("VIDEO.edge.test.", 1, true),
        ("video.edge.test.", 255, true),
        ("video.edge.test.", 15, true),
        ("edge.test.", 6, true),
        ("edge.test.", 2, true),
        ("ent.edge.test.", 1, true),
        ("www2.edge.test.", 28, true),
        ("www2.edge.test.", 99, true),
        ("nowhere.edge.test.", 1, true),
        ("out.edge.test.", 4711, true),
        ("x.y.wild.edge.test.", 16, true),
        ("x.wild.edge.test.", 1, true),
        ("any.toservice.edge.test.", 1, true),
        ("x.there.wild.edge.test.", 16, true),
        ("missing.edge.test.", 1, true),
        ("1.2.3.4.5.6.7.8.missing.edge.test.", 1, false),
        ("nul\0l.edge.test.", 1, false),
        ("below.nul\0l.edge.test.", 1, false),
        ("n\0thing.edge.test.", 1, false),
        ("sub.edge.test.", 1, false),
        ("x.sub.edge.test.", 1, false),
        ("tosub.edge.test.", 1, false),
        ("tosub.edge.test.", 5, true),
        ("moved.edge.test.", 39, true),
        ("moved.edge.test.", 1, true),
        ("x.moved.edge.test.", 1, false),
        ("tomoved.edge.test.", 1, true),
        ("example.org.", 1, false),
        ("video.edge.test.", 252, false),
    ] {
        let name = zone_data::wire_name(name);
        assert_eq!(compare(&index, &kernel, &name, qtype, Some(1232)), Ok(expected), "{name:02x?} {qtype}");
    }
}

#[test]
fn names_that_are_answered_alike_share_their_rings() {
    let mut named = service(0, "a.edge.test.", vec![backend(1, 1), backend(2, 1)]);
    named.names.extend(["b.edge.test.".to_owned(), "c.edge.test.".to_owned()]);
    let alias = |name: &str| zone_data::alias(name, "a.edge.test.");
    let address = |name: &str| zone_data::record(name, RecordType::A, &[192, 0, 2, 1]);
    let records = vec![alias("x.edge.test."), alias("y.edge.test."), address("p.edge.test."), address("q.edge.test.")];
    let zones = vec![Zone { records, ..zone("edge.test.") }];
    let before = Index::new(&fixtures::snapshot(7, zones.clone(), vec![named.clone()])).unwrap();
    let ring = |index: &Index, name: &str, qtype: u16| -> Arc<Ring> {
        let wire = zone_data::wire_name(name);
        let name = index.names().find(|known| known.wire == wire).unwrap();
        let of_type = name.rrsets.iter().find(|rrset| rrset.qtype == qtype);
        Arc::clone(of_type.map_or(name.others, |rrset| rrset.ring).unwrap())
    };
    for [one, other] in [["a", "b"], ["b", "c"], ["x", "y"], ["p", "q"]] {
        for qtype in [TYPE_A, 16] {
            let of = |name: &str| ring(&before, &format!("{name}.edge.test."), qtype);
            assert!(Arc::ptr_eq(&of(one), &of(other)), "{one} {other} {qtype}");
        }
    }
    // What does not change keeps its rings: all but the negative ones, which bear the serial.
    let after = before.next(&fixtures::snapshot(8, zones.clone(), vec![named.clone()])).unwrap();
    for name in ["a.edge.test.", "x.edge.test.", "p.edge.test."] {
        assert!(Arc::ptr_eq(&ring(&before, name, TYPE_A), &ring(&after, name, TYPE_A)), "{name}");
        assert!(!Arc::ptr_eq(&ring(&before, name, 16), &ring(&after, name, 16)), "{name}");
    }
    // Also where names come and go.
    let mut more = zones;
    more[0].records.push(address("r.edge.test."));
    named.backends.pop();
    let after = after.next(&fixtures::snapshot(9, more, vec![named])).unwrap();
    assert!(Arc::ptr_eq(&ring(&before, "p.edge.test.", TYPE_A), &ring(&after, "r.edge.test.", TYPE_A)));
    assert!(!Arc::ptr_eq(&ring(&before, "a.edge.test.", TYPE_A), &ring(&after, "a.edge.test.", TYPE_A)));
    let twin = ring(&after, "p.edge.test.", TYPE_A).twin(|ring| ring.answers.len());
    assert!(Arc::ptr_eq(&twin, &ring(&after, "q.edge.test.", TYPE_A).twin(|_| 0)));
}

/// What 100,000 names cost, first and again. Prints; run by hand with `--ignored --nocapture`.
#[test]
#[ignore = "checks nothing: prints what an index and its names cost for 100,000 names; run with --ignored --nocapture"]
fn measure_a_hundred_thousand_names() {
    let measured = |what: &str, run: &mut dyn FnMut() -> usize| {
        let begun = std::time::Instant::now();
        let count = run();
        println!("{what}: {:?} ({count})", begun.elapsed());
    };
    let name = |i: u32| format!("host-{i}.site-{}.edge.test.", i % 1000);
    let distinct = |i: u32| {
        vec![
            zone_data::record(&name(i), RecordType::A, &i.to_be_bytes()),
            zone_data::record(&name(i), RecordType::AAAA, &[[0x20, 1].repeat(6), i.to_be_bytes().to_vec()].concat()),
        ]
    };
    let rows: [(&str, Vec<ZoneRecord>); 2] = [
        ("A and AAAA, all distinct", (0..100_000).flat_map(distinct).collect()),
        ("aliases of one service", (0..100_000).map(|i| zone_data::alias(&name(i), "video.edge.test.")).collect()),
    ];
    for (what, records) in rows {
        println!("{what}");
        let zones = vec![Zone { records, ..zone("edge.test.") }];
        let services = vec![service(0, "video.edge.test.", (1..=4).map(|n| backend(n, 1)).collect())];
        let mut snapshot = fixtures::snapshot(1, zones, services);
        let mut index = None;
        measured("  index, first", &mut || {
            index = Some(Index::new(&snapshot).unwrap());
            1
        });
        let mut index = index.unwrap();
        measured("  names, first", &mut || index.names().collect::<Vec<_>>().len());
        snapshot.generation = 2;
        snapshot.services[0].backends.pop();
        measured("  index, next publication", &mut || {
            index = index.next(&snapshot).unwrap();
            1
        });
        measured("  names, next publication", &mut || index.names().collect::<Vec<_>>().len());
        Arc::make_mut(&mut snapshot.zones[0]).records.pop();
        measured("  index, one name gone", &mut || {
            index = index.next(&snapshot).unwrap();
            1
        });
    }
}
