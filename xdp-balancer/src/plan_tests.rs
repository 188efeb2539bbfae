//! The planner against a model of the kernel: tables that a program could be reading at any time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::table::{Name, Rendered, Rrset, Table, wire_of};

fn rendered(content: u8) -> Rendered {
    Rendered { ancount: 1, bytes: vec![content], ..Rendered::default() }
}

fn name(label: u8, service: u32, rrsets: &[(u16, &[u8])]) -> Name {
    Name {
        wire: vec![1, b'a' + label, 0],
        service,
        rrsets: rrsets
            .iter()
            .map(|(qtype, ring)| Rrset { qtype: *qtype, ring: ring.iter().map(|c| rendered(*c)).collect() })
            .collect(),
    }
}

fn checked(names: Vec<Name>) -> Checked {
    Table { generation: 1, local: vec![], names }.check(16).unwrap()
}

/// Contents of the ring by name and type.
type View = BTreeMap<(Vec<u8>, u16), Vec<u8>>;

/// The three maps, as the program sees them.
#[derive(Clone)]
struct Kernel {
    answers: Vec<Answer>,
    words: Vec<RingWord>,
    units: Vec<NameUnit>,
    sets: Vec<TypeSet>,
    /// Each name with its first unit and its set.
    table: Vec<(Vec<u8>, u32, u32)>,
}

impl Kernel {
    fn new(slots: u32, ids: u32) -> Self {
        Self {
            answers: vec![Answer::ZERO; slots as usize],
            words: vec![RingWord::EMPTY; ids as usize],
            units: vec![NameUnit::default(); 16],
            sets: vec![TypeSet::default(); 16],
            table: Vec::new(),
        }
    }

    /// Names that the table in force leads to, and what they hold.
    fn reached(&self) -> impl Iterator<Item = (&Vec<u8>, &TypeSet)> {
        self.table.iter().map(|(wire, unit, set)| {
            assert_eq!(self.units[*unit as usize], NameEntry::new(wire).unwrap().unit(0), "the name is in its unit");
            (wire, &self.sets[*set as usize])
        })
    }

    /// Units and sets that the table in force leads to.
    fn reached_units(&self) -> BTreeSet<u32> {
        self.table.iter().map(|(_, unit, _)| *unit).collect()
    }

    fn reached_sets(&self) -> BTreeSet<u32> {
        self.table.iter().map(|(_, _, set)| *set).collect()
    }

    /// What the table in force answers.
    fn view(&self) -> View {
        let mut view = BTreeMap::new();
        for (wire, set) in self.reached() {
            for slot in set.types.iter().filter(|slot| slot.qtype != 0) {
                let word = self.words[slot.rrset as usize];
                let ring = (0..u32::from(word.len())).map(|i| self.answers[(word.first() + i) as usize].bytes[0]);
                view.insert((wire.clone(), slot.qtype), ring.collect());
            }
        }
        view
    }

    /// Slots that the table in force leads to.
    fn in_force(&self) -> Vec<u32> {
        let ids = self.reached().flat_map(|(_, set)| &set.types).filter(|slot| slot.qtype != 0);
        let words = ids.map(|slot| self.words[slot.rrset as usize]);
        words.flat_map(|word| word.first()..word.first() + u32::from(word.len())).collect()
    }

    /// Carries out a plan; returns the views that were visible in between.
    fn apply(&mut self, plan: &Plan) -> Vec<View> {
        let mut views = vec![self.view()];
        for (slot, answer) in &plan.slots {
            self.answers[*slot as usize] = *answer;
            views.push(self.view());
        }
        for (index, set) in &plan.sets {
            self.sets[*index as usize] = *set;
            views.push(self.view());
        }
        for (index, unit) in &plan.units {
            self.units[*index as usize] = *unit;
            views.push(self.view());
        }
        for (id, word) in &plan.words {
            self.words[*id as usize] = *word;
            views.push(self.view());
        }
        if let Some(table) = &plan.table {
            self.table = table.iter().map(|name| (wire_of(&name.entry), name.unit, name.set)).collect();
            views.push(self.view());
        }
        views
    }
}

fn wanted_view(wanted: &Checked) -> View {
    let mut view = BTreeMap::new();
    for (wire, name) in &wanted.names {
        for (qtype, ring) in &name.types {
            view.insert((wire.clone(), *qtype), ring.iter().map(|answer| answer.bytes[0]).collect());
        }
    }
    view
}

#[test]
fn the_same_content_writes_nothing() {
    let wanted = checked(vec![name(0, 0, &[(1, &[1, 2]), (28, &[])])]);
    let plan = Installed::new(8, 8, 16, 16).plan(&wanted).unwrap();
    let again = plan.next.plan(&wanted).unwrap();
    assert!(again.slots.is_empty() && again.words.is_empty() && again.table.is_none());
}

#[test]
fn a_changed_ring_takes_one_word_and_new_slots() {
    let plan = Installed::new(8, 8, 16, 16)
        .plan(&checked(vec![name(0, 0, &[(1, &[1, 2])]), name(1, 1, &[(1, &[9])])]))
        .unwrap();
    let before = plan.next.names[&vec![1, b'a', 0]].types[0].clone();
    let next = plan.next.plan(&checked(vec![name(0, 0, &[(1, &[1, 3])]), name(1, 1, &[(1, &[9])])])).unwrap();
    assert!(next.table.is_none());
    assert_eq!(next.words.len(), 1);
    assert_eq!(next.words[0].0, before.id);
    let written: BTreeSet<u32> = next.slots.iter().map(|(slot, _)| *slot).collect();
    assert!(written.is_disjoint(&BTreeSet::from([before.first, before.first + 1])));
}

#[test]
fn a_ring_that_becomes_empty_stores_an_empty_word() {
    let plan = Installed::new(8, 8, 16, 16).plan(&checked(vec![name(0, 0, &[(1, &[1])])])).unwrap();
    let next = plan.next.plan(&checked(vec![name(0, 0, &[(1, &[])])])).unwrap();
    assert_eq!((next.words, next.slots.len()), (vec![(0, RingWord::EMPTY)], 0));
}

#[test]
fn full_tables_are_an_error_with_numbers() {
    let error = Installed::new(2, 8, 16, 16).plan(&checked(vec![name(0, 0, &[(1, &[1, 2, 3])])])).unwrap_err();
    assert!(matches!(error, Error::Full { map: object::ANSWERS, used: 0, needed: 3, capacity: 2 }), "{error}");
    let error = Installed::new(8, 1, 16, 16).plan(&checked(vec![name(0, 0, &[(1, &[1]), (28, &[1])])])).unwrap_err();
    assert!(matches!(error, Error::Full { map: object::RRSETS, used: 0, needed: 2, capacity: 1 }), "{error}");
}

#[test]
fn names_of_a_service_share_what_is_equal() {
    let equal = [name(0, 3, &[(1, &[1, 2])]), name(1, 3, &[(1, &[1, 2])]), name(2, 4, &[(1, &[1, 2])])];
    let plan = Installed::new(8, 8, 16, 16).plan(&checked(equal.to_vec())).unwrap();
    let [first, second, third] = [0, 1, 2].map(|label| plan.next.names[&vec![1, b'a' + label, 0]].clone());
    assert_eq!((plan.words.len(), plan.slots.len(), plan.sets.len(), plan.units.len()), (2, 4, 2, 3));
    assert!(first.types == second.types && first.set == second.set && first.types[0].id != third.types[0].id);

    // Both change with one word.
    let both = [name(0, 3, &[(1, &[5])]), name(1, 3, &[(1, &[5])]), name(2, 4, &[(1, &[1, 2])])];
    let next = plan.next.plan(&checked(both.to_vec())).unwrap();
    assert_eq!((next.words, next.table.is_none()), (vec![(first.types[0].id, RingWord::new(4, 1))], true));

    // One alone needs another table; nothing else moves.
    let one = [name(0, 3, &[(1, &[1, 2])]), name(1, 3, &[(1, &[5])]), name(2, 4, &[(1, &[1, 2])])];
    let next = plan.next.plan(&checked(one.to_vec())).unwrap();
    assert_eq!((next.words.len(), next.sets.len(), next.units.len()), (1, 1, 0));
    assert_eq!(next.table.map(|table| table.len()), Some(3));
}

#[test]
fn slots_come_back_after_grace_only() {
    let mut installed = Installed::new(3, 8, 16, 16).plan(&checked(vec![name(0, 0, &[(1, &[1, 2])])])).unwrap().next;
    let wanted = checked(vec![name(0, 0, &[(1, &[3])])]);
    installed = installed.plan(&wanted).unwrap().next;
    let larger = checked(vec![name(0, 0, &[(1, &[4, 5])])]);
    assert!(installed.plan(&larger).is_err());
    assert!(installed.has_retired());
    installed.settle();
    assert!(installed.plan(&larger).is_ok());
}

/// Up to four names with up to two types each.
fn any_table() -> impl Strategy<Value = Vec<Name>> {
    let rrsets =
        prop::collection::btree_map(prop::sample::select(vec![1_u16, 28]), prop::collection::vec(0_u8..3, 0..4), 0..3);
    prop::collection::btree_map(0_u8..4, (0_u32..3, rrsets), 0..5).prop_map(|names| {
        names
            .into_iter()
            .map(|(label, (service, rrsets))| {
                let rrsets: Vec<(u16, &[u8])> = rrsets.iter().map(|(qtype, ring)| (*qtype, ring.as_slice())).collect();
                name(label, service, &rrsets)
            })
            .collect()
    })
}

proptest! {
    /// At each single step a program sees, for each RRset, all of the old or all of the new; what
    /// programs that started earlier still read is not written before grace; in the end the tables
    /// say what was wanted.
    #[test]
    fn no_answer_mixes_two_generations(tables in prop::collection::vec(any_table(), 1..12), grace in any::<u16>()) {
        let (slots, ids) = (64, 32);
        let mut kernel = Kernel::new(slots, ids);
        let mut installed = Installed::new(slots, ids, 16, 16);
        // Slots that a program which started before the last grace period may still read.
        let mut readable: BTreeSet<u32> = BTreeSet::new();
        let mut readable_units: BTreeSet<u32> = BTreeSet::new();
        let mut readable_sets: BTreeSet<u32> = BTreeSet::new();
        for (round, table) in tables.into_iter().enumerate() {
            let wanted = checked(table);
            let plan = match installed.plan(&wanted) {
                Ok(plan) => plan,
                Err(Error::Full { .. }) if installed.has_retired() => {
                    installed.settle();
                    readable.clear();
                    readable_units.clear();
                readable_sets.clear();
                    installed.plan(&wanted).unwrap()
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            readable.extend(kernel.in_force());
            readable_units.extend(kernel.reached_units());
            readable_sets.extend(kernel.reached_sets());
            for (unit, _) in &plan.units {
                prop_assert!(!readable_units.contains(unit), "unit {} is written while it may be read", unit);
            }
            for (set, _) in &plan.sets {
                prop_assert!(!readable_sets.contains(set), "set {} is written while it may be read", set);
            }
            for (slot, _) in &plan.slots {
                prop_assert!(!readable.contains(slot), "slot {} is written while it may be read", slot);
            }
            let old = kernel.view();
            let new = wanted_view(&wanted);
            for view in kernel.apply(&plan) {
                for (key, ring) in view {
                    prop_assert!(old.get(&key) == Some(&ring) || new.get(&key) == Some(&ring), "{:?} {:?}", key, ring);
                }
            }
            prop_assert_eq!(kernel.view(), new);
            installed = plan.next;
            if plan.table.is_some() || grace >> (round % 16) & 1 == 1 {
                installed.settle();
                readable.clear();
                    readable_units.clear();
                readable_sets.clear();
            }
        }
    }
}
