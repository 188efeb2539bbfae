//! The planner against a model of the kernel: a pool that a program could be reading at any time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use xdp_balancer_common::{AnswerHead, CLIENT_TURNS, Choice, MAX_NAME_BYTES, MAX_SLOT_TEXT, RESERVED_GRAINS};

use super::*;
use crate::table::{Below, Name, Rendered, Ring, Rings, Rrset as Wanted, Table};

const GRAINS: u32 = 4096;
/// Grains of a small table of names; two of them are there at a time.
const TABLE: u32 = 4 + 8 + 256;
const CURSORS: u32 = 32;

/// An answer that says `content`, of a length of its own.
fn rendered(content: u8) -> Rendered {
    Rendered { ancount: content.into(), bytes: vec![content; 8 + usize::from(content) * 5], ..Rendered::default() }
}

/// One that says that there is no such name.
fn denied(content: u8) -> Rendered {
    Rendered { flags: 3, ancount: 0, nscount: content.into(), ..rendered(content) }
}

fn ring(contents: &[u8]) -> Arc<Ring> {
    Arc::new(Ring::round_robin(contents.iter().map(|content| rendered(*content)).collect()))
}

fn name(label: u8, service: u32, rrsets: &[(u16, Option<Arc<Ring>>)]) -> Name {
    let rrsets = rrsets.iter().map(|(qtype, ring)| Wanted { qtype: *qtype, ring: ring.clone() }).collect();
    Name { wire: wire(label), service, rrsets, others: None, below: Below::UserSpace }
}

fn wire(label: u8) -> Vec<u8> {
    vec![1, b'a' + label, 0]
}

fn checked(names: Vec<Name>) -> Checked {
    Table { generation: 1, names, ..Table::default() }.check(16, &mut Rings::default()).unwrap()
}

/// The turns of a ring, each by what its answer says.
type Turns = (bool, Vec<u8>);

/// What a name says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    service: u32,
    rings: BTreeMap<Role, Option<Turns>>,
    /// What names below it say.
    wildcard: Option<Box<Said>>,
}

type View = BTreeMap<Vec<u8>, Said>;

/// The pool and the table in force, as the program sees them.
struct Kernel {
    pool: Vec<u8>,
    table: Vec<Placed>,
    /// Its grains, and the size of its slots.
    run: (u32, u32),
    slot_shift: u32,
}

/// What has been read, and where.
#[derive(Default)]
struct Reading {
    /// Grains of which all bytes count, and of whose words the program reads but one.
    grains: BTreeSet<u32>,
    /// RRsets and their words.
    rrsets: BTreeMap<u32, Rrset>,
    /// Answers by grain.
    answers: BTreeMap<u32, u8>,
}

impl Kernel {
    fn new() -> Self {
        let grains = (GRAINS + 2 * TABLE) as usize;
        Self { pool: vec![0; grains * GRAIN + MAX_NAME_BYTES], table: Vec::new(), run: (0, 0), slot_shift: 4 }
    }

    fn bytes(&self, reading: &mut Reading, grain: u32, offset: usize, len: usize) -> &[u8] {
        assert!(grain != 0, "number 0 is nothing");
        let at = grain as usize * GRAIN + offset;
        reading.grains.extend((at / GRAIN) as u32..((at + len).div_ceil(GRAIN)) as u32);
        &self.pool[at..at + len]
    }

    fn answer(&self, reading: &mut Reading, grain: u32) -> u8 {
        if let Some(content) = reading.answers.get(&grain) {
            return *content;
        }
        let head = AnswerHead::from_bytes(self.bytes(reading, grain, 0, 16)).unwrap();
        let bytes = self.bytes(reading, grain, 16, head.len.into()).to_vec();
        let content = bytes[0];
        let wanted = [rendered(content), denied(content)].map(|rendered| (rendered.head().unwrap(), rendered.bytes));
        assert!(wanted.contains(&(head, bytes)), "one answer");
        reading.answers.insert(grain, content);
        content
    }

    fn turns(&self, reading: &mut Reading, grain: u32) -> Option<Turns> {
        let at = grain as usize * GRAIN;
        let rrset = Rrset::from_bytes(&self.pool[at..at + GRAIN]).unwrap();
        reading.rrsets.insert(grain, rrset);
        let (first, len) = (rrset.word.first(), usize::from(rrset.word.len()));
        let by_client = match rrset.word.choice()? {
            Choice::Single => return Some((false, vec![self.answer(reading, first)])),
            Choice::RoundRobin => false,
            Choice::Client => true,
        };
        let turns = self.bytes(reading, first, 0, len * 4).to_vec();
        let turns = turns.chunks_exact(4).map(|turn| u32::from_ne_bytes(turn.try_into().unwrap()));
        Some((by_client, turns.map(|turn| self.answer(reading, turn)).collect()))
    }

    fn said(&self, reading: &mut Reading, set: u32) -> Said {
        let head = TypeSet::from_bytes(self.bytes(reading, set, 0, size_of::<TypeSet>())).unwrap();
        let slots = self.bytes(reading, set, 16, usize::from(head.types) * 8).to_vec();
        let mut rings = BTreeMap::new();
        for slot in slots.chunks_exact(8).map(|slot| TypeSlot::from_bytes(slot).unwrap()) {
            rings.insert(Role::of_type(u16::from_be(slot.qtype)), self.turns(reading, slot.rrset));
        }
        if head.others != 0 {
            rings.insert(Role::Others, self.turns(reading, head.others));
        }
        let mut wildcard = None;
        match head.below_kind {
            TypeSet::BELOW_DENIED => _ = rings.insert(Role::Below, self.turns(reading, head.below)),
            TypeSet::BELOW_WILDCARD => wildcard = Some(Box::new(self.said(reading, head.below))),
            kind => assert_eq!((kind, head.below), (TypeSet::BELOW_USER_SPACE, 0)),
        }
        Said { service: head.service.into(), rings, wildcard }
    }

    /// What the table in force says, and where it is read.
    fn read(&self) -> (View, Reading) {
        let (mut view, mut reading) = (BTreeMap::new(), Reading::default());
        reading.grains.extend(self.run.0..self.run.0 + self.run.1);
        for name in &self.table {
            let at = name.set as usize * GRAIN;
            let set = TypeSet::from_bytes(&self.pool[at..at + GRAIN]).unwrap();
            let wire = crate::table::wire_of(&name.entry);
            let wanted = tail_of(&wire, self.slot_shift);
            assert_eq!(set.tail == 0, wanted.is_empty());
            if !wanted.is_empty() {
                assert_eq!(self.bytes(&mut reading, set.tail, 0, wanted.len()), wanted, "the rest of a name");
            }
            view.insert(crate::table::wire_of(&name.entry), self.said(&mut reading, name.set));
        }
        (view, reading)
    }

    fn fill(&mut self, writes: &Writes) {
        for (grain, bytes) in &writes.bytes {
            let at = *grain as usize * GRAIN;
            self.pool[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// What is wanted, said without a planner.
fn wanted_view(wanted: &Checked) -> View {
    let turns = |ring: &CheckedRing| {
        let said = ring.turns.iter().map(|turn| ring.answers[usize::from(*turn)].1[0]);
        (ring.by_client, said.collect())
    };
    fn said(wanted: &Checked, wire: &[u8], turns: &dyn Fn(&CheckedRing) -> Turns) -> Said {
        let name = &wanted.names[wire];
        let rings = name.rings.iter().map(|(role, ring)| (*role, ring.as_deref().map(turns))).collect();
        let wildcard = name.wildcard.as_ref().map(|wire| Box::new(said(wanted, wire, turns)));
        Said { service: name.service, rings, wildcard }
    }
    wanted.names.keys().map(|wire| (wire.clone(), said(wanted, wire, &turns))).collect()
}

/// Of one name, each RRset says what the one or the other says.
fn of_either(seen: &Said, old: &Said, new: &Said) -> bool {
    let rings =
        seen.rings.iter().all(|(role, ring)| old.rings.get(role) == Some(ring) || new.rings.get(role) == Some(ring));
    let below = match (&seen.wildcard, &old.wildcard, &new.wildcard) {
        (Some(seen), Some(old), Some(new)) => of_either(seen, old, new),
        (None, None, None) => true,
        _ => false,
    };
    rings && below && seen.service == new.service && seen.rings.len() == new.rings.len()
}

/// A kernel and what user space knows of it.
struct World {
    kernel: Kernel,
    /// Grains that something else has.
    others: u32,
    installed: Installed,
    rings: Rings,
    /// Grains that a program which began after the last grace period may be reading.
    readable: BTreeSet<u32>,
    /// RRsets that it may have found in the tables, and whether it may take turns there.
    found: BTreeMap<u32, Option<u32>>,
}

impl World {
    fn new(grains: u32, cursors: u32) -> Self {
        Self {
            kernel: Kernel::new(),
            others: 0,
            installed: Installed::new(grains + 2 * TABLE, cursors),
            rings: Rings::default(),
            readable: BTreeSet::new(),
            found: BTreeMap::new(),
        }
    }

    fn grace(&mut self) {
        self.installed.settle();
        self.readable.clear();
        self.found.clear();
    }

    /// Remembers what a program that begins now may be reading for long.
    fn begin_programs(&mut self) -> View {
        let (view, reading) = self.kernel.read();
        self.readable.extend(reading.grains);
        for (grain, rrset) in reading.rrsets {
            let takes_turns = rrset.word.choice() == Some(Choice::RoundRobin);
            let position = self.found.entry(grain).or_default();
            assert!(!takes_turns || position.is_none_or(|before| before == rrset.cursor), "a position that moves");
            *position = takes_turns.then_some(rrset.cursor).or(*position);
        }
        view
    }

    /// What is in use, found by reading, is what user space thinks is in use; nothing is used twice.
    fn check_accounts(&self) {
        let (_, reading) = self.kernel.read();
        let mut used = reading.grains;
        for grain in reading.rrsets.keys() {
            assert!(used.insert(*grain), "RRset {grain} lies in something else");
        }
        // Padding at the end of a ring's turns belongs to it too, but is never a whole grain.
        assert_eq!(
            used.len() as u32 + RESERVED_GRAINS + self.installed.spare.1 + self.others,
            self.installed.pool.used()
        );
        let held: Vec<u32> = self.installed.rrsets.values().filter_map(|rrset| rrset.cursor).collect();
        assert_eq!(held.len(), held.iter().collect::<BTreeSet<_>>().len(), "a position of two RRsets");
        assert_eq!(held.len() as u32, self.installed.cursors.used());
        assert_eq!(
            reading.rrsets.keys().copied().collect::<BTreeSet<_>>(),
            self.installed.rrsets.keys().copied().collect()
        );
        for (grain, rrset) in reading.rrsets {
            if rrset.word.choice() == Some(Choice::RoundRobin) {
                assert_eq!(self.installed.rrsets[&grain].cursor, Some(rrset.cursor));
            }
        }
    }

    /// Publishes as `publish` does, step by step. Says what was done; `None` where there was no room.
    fn publish(&mut self, table: &Table) -> Option<Plan> {
        let wanted = table.check(16, &mut self.rings).unwrap();
        let before = self.installed.clone();
        let mut planned = self.installed.plan(&wanted);
        if planned.is_err() {
            assert_eq!((&self.installed.pool, &self.installed.cursors), (&before.pool, &before.cursors));
            assert!(self.installed.names == before.names && self.installed.rrsets == before.rrsets);
            if self.installed.has_retired() {
                self.grace();
                planned = self.installed.plan(&wanted);
            }
        }
        let plan = match planned {
            Ok(plan) => plan,
            Err(Error::Full { .. }) => return None,
            Err(error) => panic!("{error}"),
        };
        let old = self.begin_programs();
        let new = wanted_view(&wanted);
        let writes = match &plan {
            Plan::Renew(writes) | Plan::Rebuild(writes, ..) => writes,
        };
        let mut written = BTreeSet::new();
        for (grain, bytes) in &writes.bytes {
            for grain in *grain..grain + grains_of(bytes.len()) {
                assert!(written.insert(grain), "grain {grain} is written twice");
                assert!(!self.readable.contains(&grain), "grain {grain} is written while it may be read");
                assert!(!self.found.contains_key(&grain), "RRset {grain} is written over while it may be read");
            }
        }
        self.kernel.fill(writes);
        assert_eq!(self.begin_programs(), old, "new answers show before their time");
        for (grain, cursor) in &writes.cursors {
            assert_eq!(self.found[grain], None, "a position that may be in use changes");
            let at = *grain as usize * GRAIN + 8;
            self.kernel.pool[at..at + 4].copy_from_slice(&cursor.to_ne_bytes());
        }
        for (grain, word) in &writes.words {
            let at = *grain as usize * GRAIN;
            self.kernel.pool[at..at + 8].copy_from_slice(&word.0.to_ne_bytes());
            let seen = self.begin_programs();
            assert!(seen.iter().all(|(wire, seen)| of_either(seen, &old[wire], &new[wire])), "{seen:?}");
        }
        if let Plan::Rebuild(_, next) = &plan {
            assert!(writes.words.is_empty() && writes.cursors.is_empty());
            assert_eq!(self.kernel.read().0, old, "the old table says something else before the swap");
            for grain in next.table.0..next.table.0 + next.table.1 {
                assert!(written.insert(grain), "grain {grain} is written twice");
                assert!(!self.readable.contains(&grain), "grain {grain} is written while it may be read");
            }
            (self.kernel.table, self.kernel.run) = (next.placed(), next.table);
            self.kernel.slot_shift = next.slot_shift;
            self.installed = (**next).clone();
            self.grace();
        }
        assert_eq!(self.begin_programs(), new);
        self.check_accounts();
        Some(plan)
    }
}

fn publish(world: &mut World, names: Vec<Name>) -> Plan {
    world.publish(&Table { names, ..Table::default() }).unwrap()
}

#[track_caller]
fn renewed(plan: Plan) -> Writes {
    match plan {
        Plan::Renew(writes) => writes,
        Plan::Rebuild(..) => panic!("another table of names"),
    }
}

#[track_caller]
fn rebuilt(plan: Plan) -> Writes {
    match plan {
        Plan::Rebuild(writes, ..) => writes,
        Plan::Renew(_) => panic!("the same table of names"),
    }
}

#[test]
fn the_same_content_writes_nothing() {
    let mut world = World::new(64, 8);
    let names = || vec![name(0, 0, &[(1, Some(ring(&[1, 2]))), (28, None)])];
    rebuilt(publish(&mut world, names()));
    assert_eq!(renewed(publish(&mut world, names())), Writes::default());
}

#[test]
fn a_changed_ring_takes_one_word_and_free_grains() {
    let mut world = World::new(64, 8);
    let names = |last| vec![name(0, 0, &[(1, Some(ring(&[1, last])))]), name(1, 1, &[(1, Some(ring(&[9])))])];
    publish(&mut world, names(2));
    let (_, rrset) = world.installed.names[&wire(0)].rings[0];
    let writes = renewed(publish(&mut world, names(3)));
    assert_eq!((writes.bytes.len(), writes.cursors.len()), (1, 0));
    assert_eq!(writes.words.iter().map(|(grain, _)| *grain).collect::<Vec<_>>(), [rrset]);
}

#[test]
fn a_ring_that_becomes_empty_stores_an_empty_word_and_keeps_its_position() {
    let mut world = World::new(64, 8);
    let names = |ring| vec![name(0, 0, &[(1, ring)])];
    publish(&mut world, names(Some(ring(&[1]))));
    let (_, rrset) = world.installed.names[&wire(0)].rings[0];
    let position = |world: &World| world.installed.rrsets[&rrset].cursor;
    assert_eq!(position(&world), None);
    // Its first turns: a position, then the word.
    assert_eq!(renewed(publish(&mut world, names(Some(ring(&[1, 2]))))).cursors, [(rrset, 0)]);
    let writes = renewed(publish(&mut world, names(None)));
    assert_eq!((writes.words, writes.bytes.len()), (vec![(rrset, RingWord::EMPTY)], 0));
    assert_eq!(position(&world), Some(0));
    assert!(renewed(publish(&mut world, names(Some(ring(&[3, 4]))))).cursors.is_empty());
}

#[test]
fn full_tables_are_an_error_with_numbers() {
    let wanted = checked(vec![name(0, 0, &[(1, Some(ring(&[1, 2, 3])))])]);
    let error = Installed::new(TABLE + RESERVED_GRAINS + 7, 1).plan(&wanted).unwrap_err();
    // The RRset is placed; its ring is not, of one grain and answers of two, three and three.
    let Error::Full { map: object::POOL, used, needed, capacity } = error else { panic!("{error}") };
    assert_eq!([used, needed, capacity], [1, 10, 7].map(|grains| TABLE + RESERVED_GRAINS + grains));
    let two = |content| name(content, 0, &[(1, Some(ring(&[content, content + 1])))]);
    let error = World::new(64, 1).installed.plan(&checked(vec![two(1), two(3)])).unwrap_err();
    assert!(matches!(error, Error::Full { map: object::CURSORS, used: 1, needed: 2, capacity: 1 }), "{error}");
    // A place by the client's address needs no position.
    let turns = (0..CLIENT_TURNS).map(|turn| turn % 2).collect();
    let by_client = Arc::new(Ring { answers: vec![rendered(1), rendered(2)], turns, by_client: true });
    let mut world = World::new(300, 0);
    rebuilt(publish(&mut world, vec![name(0, 0, &[(1, Some(by_client))])]));
}

#[test]
fn names_that_hold_one_ring_share_it() {
    let mut world = World::new(128, 8);
    let (shared, own) = (ring(&[1, 2]), ring(&[1, 2]));
    let names = |a: &Arc<Ring>, b: &Arc<Ring>, c: &Arc<Ring>| {
        vec![
            name(0, 3, &[(1, Some(Arc::clone(a)))]),
            name(1, 3, &[(1, Some(Arc::clone(b)))]),
            name(2, 4, &[(1, Some(Arc::clone(c)))]),
        ]
    };
    publish(&mut world, names(&shared, &shared, &own));
    let [first, second, third] = [0, 1, 2].map(|label| world.installed.names[&wire(label)].clone());
    assert!(first.rings == second.rings && first.set == second.set && first.rings != third.rings);
    assert_eq!(world.installed.rrsets.len(), 2);

    // Both change with one word.
    let changed = ring(&[5]);
    let writes = renewed(publish(&mut world, names(&changed, &changed, &own)));
    assert_eq!(writes.words.iter().map(|(grain, _)| *grain).collect::<Vec<_>>(), [first.rings[0].1]);

    // One alone needs another table; nothing else moves.
    let writes = rebuilt(publish(&mut world, names(&changed, &shared, &own)));
    assert_eq!(writes.bytes.len(), 3, "an answer, an RRset and a set");
    let moved = [0, 1, 2].map(|label| world.installed.names[&wire(label)].clone());
    assert!(moved[0] == first && moved[1] != second && moved[2] == third);
}

#[test]
fn grains_come_back_after_grace_only() {
    // Besides the table: those that are never handed out, RRset, set, and two answers, of which one is in force.
    let mut world = World::new(0, 8);
    world.installed = Installed::new(RESERVED_GRAINS + 12 + TABLE, 8);
    assert!(world.installed.pool.claim(RESERVED_GRAINS + 1 + 2 + 2 + 3, 4));
    let names = |contents: &[u8]| Table { names: vec![name(0, 0, &[(1, Some(ring(contents)))])], ..Table::default() };
    world.others = 4;
    for contents in [1, 2] {
        world.publish(&names(&[contents])).unwrap();
    }
    let wanted = names(&[1]).check(16, &mut Rings::default()).unwrap();
    assert!(world.installed.plan(&wanted).is_err() && world.installed.has_retired());
    world.installed.settle();
    assert!(!world.installed.has_retired() && world.installed.plan(&wanted).is_ok());
}

/// Names of the tables that are tried: two hosts, a wildcard of one and of that, and two that are longer than a slot.
fn host(index: u8) -> Vec<u8> {
    let long = |len: u8| [&[len][..], &vec![b'x'; len.into()], &[30], &[b'y'; 30], &[0]].concat();
    match index {
        0 | 1 => wire(index),
        2 => [b"\x01*", wire(0).as_slice()].concat(),
        3 => [b"\x01*\x01*", wire(0).as_slice()].concat(),
        4 => long(63),
        _ => [b"\x0a".as_slice(), &[b'z'; 10], &[60 - MAX_SLOT_TEXT as u8], &[b'y'; 60 - MAX_SLOT_TEXT], &[0]].concat(),
    }
}

/// A ring by its answers, perhaps by client; the number tells apart those that say the same and are not shared.
type Spec = (Vec<u8>, bool, u8);

/// A name: service, types with their rings or nothing, what other types get, what names below get.
type HostSpec = (u32, BTreeMap<u16, Option<Spec>>, Option<Spec>, Option<Option<Spec>>);

fn any_ring() -> impl Strategy<Value = Spec> {
    (prop::collection::vec(0_u8..4, 1..4), prop::bool::weighted(0.1), 0_u8..2)
}

fn any_table() -> impl Strategy<Value = BTreeMap<u8, HostSpec>> {
    let types = prop::collection::btree_map(
        prop::sample::select(vec![1_u16, 28, 65]),
        prop::option::weighted(0.8, any_ring()),
        0..3,
    );
    let host = (0_u32..2, types, prop::option::of(any_ring()), prop::option::of(prop::option::of(any_ring())));
    prop::collection::btree_map(0_u8..6, host, 0..6)
}

fn table_of(spec: &BTreeMap<u8, HostSpec>) -> Table {
    let mut made: BTreeMap<(Spec, bool), Arc<Ring>> = BTreeMap::new();
    let mut ring_of = |spec: &Spec, denies: bool| {
        let make = || {
            let (contents, by_client, _) = spec;
            let render = if denies { denied } else { rendered };
            let answers: Vec<Rendered> = contents.iter().map(|content| render(*content)).collect();
            let count = if *by_client { CLIENT_TURNS } else { answers.len() as u16 };
            let turns = (0..count).map(|turn| turn % answers.len() as u16).collect();
            Arc::new(Ring { answers, turns, by_client: *by_client })
        };
        Arc::clone(made.entry((spec.clone(), denies)).or_insert_with(make))
    };
    let mut names = Vec::new();
    for (index, (service, types, others, below)) in spec {
        let mut ring = |spec: &Spec| ring_of(spec, false);
        let rrsets = types.iter().map(|(qtype, spec)| Wanted { qtype: *qtype, ring: spec.as_ref().map(&mut ring) });
        let rrsets = rrsets.collect();
        let others = others.as_ref().map(&mut ring);
        let has_wildcard = matches!(index, 0 | 2) && spec.contains_key(&(if *index == 0 { 2 } else { 3 }));
        let below = match below {
            Some(Some(denied)) => Below::Denied(ring_of(denied, true)),
            Some(None) if has_wildcard => Below::Wildcard,
            _ => Below::UserSpace,
        };
        names.push(Name { wire: host(*index), service: *service, rrsets, others, below });
    }
    Table { names, ..Table::default() }
}

/// Tables, each of which may be one before with other answers, so that many changes are made in place.
fn any_tables() -> impl Strategy<Value = Vec<BTreeMap<u8, HostSpec>>> {
    let step = (any_table(), prop::bool::weighted(0.6), 0_u8..4);
    prop::collection::vec(step, 1..12).prop_map(|steps| {
        let mut tables: Vec<BTreeMap<u8, HostSpec>> = Vec::new();
        for (table, in_place, add) in steps {
            let table = match tables.last() {
                Some(last) if in_place => {
                    let mut table = last.clone();
                    for (_, types, others, below) in table.values_mut() {
                        let change =
                            |spec: &mut Spec| spec.0.iter_mut().for_each(|content| *content = (*content + add) % 4);
                        types.values_mut().flatten().for_each(change);
                        // What was shared with them parts.
                        if add != 3 {
                            others.iter_mut().for_each(change);
                            below.iter_mut().flatten().for_each(change);
                        }
                    }
                    table
                }
                _ => table,
            };
            tables.push(table);
        }
        tables
    })
}

proptest! {
    /// At each single step a program sees, for each RRset, all of the old or all of the new; names change together;
    /// what programs that began earlier may still read is not written before grace; in the end the tables say what
    /// was wanted. Nothing is lost, nothing used twice, whether there is much room or little.
    #[test]
    fn no_answer_mixes_two_generations(
        tables in any_tables(),
        grace in any::<u16>(),
        grains in prop::sample::select(vec![60, 120, 400, GRAINS]),
    ) {
        let mut world = World::new(grains, CURSORS);
        for (round, spec) in tables.iter().enumerate() {
            world.publish(&table_of(spec));
            if grace >> round & 1 == 1 {
                world.grace();
            }
        }
        world.publish(&Table::default()).unwrap();
        world.grace();
        let tables = [world.installed.table, world.installed.spare];
        prop_assert_eq!(world.installed.pool.used(), RESERVED_GRAINS + tables[0].1 + tables[1].1);
        prop_assert_eq!(world.installed.cursors.used(), 0);
        tables.into_iter().for_each(|(first, len)| world.installed.pool.release(first, len));
        let all = grains + 2 * TABLE - RESERVED_GRAINS;
        prop_assert_eq!(world.installed.pool.allocate(all), Some(RESERVED_GRAINS), "all of it again, in one piece");
        prop_assert_eq!(world.installed.cursors.allocate(CURSORS), Some(0));
    }
}
