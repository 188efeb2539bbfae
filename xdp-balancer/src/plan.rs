//! From what is installed and what is wanted to the writes in between. Pure: `publish` carries it out.
//!
//! Names of one service with equal answers share their RRsets.
//!
//! Two kinds of change. While names, types, services and who shares with whom stay, a changed RRset gets new
//! slots and one stored word. Otherwise a new table of names is built: RRsets that did not change keep their
//! id and slots, changed ones get fresh ids, so that the old table goes on saying the old until the swap.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use xdp_balancer_common::{Answer, NameEntry, NameUnit, RingWord, TypeSet, TypeSlot, object, units_of};

use crate::error::Error;
use crate::runs::Runs;
use crate::table::{Checked, Ring};

/// What the tables hold.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    /// By lower-case wire form.
    pub names: BTreeMap<Vec<u8>, InstalledName>,
    /// Answer slots.
    pub slots: Runs,
    /// RRset ids.
    pub ids: Runs,
    /// Units of names.
    pub units: Runs,
    /// Sets of types.
    pub sets: Runs,
}

/// A name in the tables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InstalledName {
    pub service: u32,
    /// First of its units.
    pub unit: u32,
    /// Its set of types, which others of the service may share.
    pub set: u32,
    /// In the order of the type slots.
    pub types: Vec<InstalledRrset>,
}

/// An RRset in the tables; names of a service share it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InstalledRrset {
    pub qtype: u16,
    pub id: u32,
    pub first: u32,
    pub ring: Ring,
}

impl InstalledRrset {
    fn len(&self) -> u32 {
        self.ring.len() as u32
    }

    fn word(&self) -> RingWord {
        if self.ring.is_empty() { RingWord::EMPTY } else { RingWord::new(self.first, self.ring.len() as u16) }
    }
}

/// The writes, in the order of the fields, and the state after them.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Free slots to fill.
    pub slots: Vec<(u32, Answer)>,
    /// Free units to fill.
    pub units: Vec<(u32, NameUnit)>,
    /// Free sets to fill.
    pub sets: Vec<(u32, TypeSet)>,
    /// Words to store.
    pub words: Vec<(u32, RingWord)>,
    /// A new table of names to put in force, if they or what they hold changes.
    pub table: Option<Vec<Placed>>,
    /// What is installed afterwards.
    pub next: Installed,
}

/// Which RRset a service's ring becomes: rings of a checked table are the same where they are equal.
type Key = (u32, u16, *const Answer);

/// A name of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub entry: NameEntry,
    pub unit: u32,
    pub set: u32,
}

impl Installed {
    /// Empty tables.
    pub(crate) fn new(slots: u32, ids: u32, units: u32, sets: u32) -> Self {
        Self {
            names: BTreeMap::new(),
            slots: Runs::new(slots),
            ids: Runs::new(ids),
            units: Runs::new(units),
            sets: Runs::new(sets),
        }
    }

    /// Whether a grace period would make room.
    pub(crate) fn has_retired(&self) -> bool {
        [&self.slots, &self.ids, &self.units, &self.sets].iter().any(|runs| runs.has_retired())
    }

    /// A grace period has passed.
    pub(crate) fn settle(&mut self) {
        [&mut self.slots, &mut self.ids, &mut self.units, &mut self.sets].into_iter().for_each(Runs::settle);
    }

    /// Plans the way to `wanted`.
    pub(crate) fn plan(&self, wanted: &Checked) -> Result<Plan, Error> {
        let mut plan = Plan {
            slots: Vec::new(),
            units: Vec::new(),
            sets: Vec::new(),
            words: Vec::new(),
            table: None,
            next: Self { names: BTreeMap::new(), ..self.clone() },
        };
        match self.in_place(wanted) {
            Some(changes) => plan.renew(self, &changes, Needed::of(wanted))?,
            None => plan.rebuild(self, wanted, Needed::of(wanted))?,
        }
        Ok(plan)
    }

    /// What each RRset is to become, if the same table of names serves both: the names, their services and
    /// types stay, and names that share an RRset go on to.
    fn in_place<'a>(&'a self, wanted: &'a Checked) -> Option<BTreeMap<u32, (&'a InstalledRrset, &'a Ring)>> {
        if self.names.len() != wanted.names.len() {
            return None;
        }
        let mut changes: BTreeMap<u32, (&InstalledRrset, &Ring)> = BTreeMap::new();
        for ((wire, name), (wanted_wire, wanted)) in self.names.iter().zip(&wanted.names) {
            let same_types =
                name.types.iter().map(|rrset| rrset.qtype).eq(wanted.types.iter().map(|(qtype, _)| *qtype));
            if wire != wanted_wire || name.service != wanted.service || !same_types {
                return None;
            }
            for (rrset, (_, ring)) in name.types.iter().zip(&wanted.types) {
                let (_, other) = changes.entry(rrset.id).or_insert((rrset, ring));
                if !Arc::ptr_eq(other, ring) {
                    return None;
                }
            }
        }
        Some(changes)
    }

    /// All names with their places.
    fn placed(&self) -> Vec<Placed> {
        // Always some: the form was checked.
        let place = |(wire, name): (&Vec<u8>, &InstalledName)| {
            Some(Placed { entry: NameEntry::new(wire)?, unit: name.unit, set: name.set })
        };
        self.names.iter().filter_map(place).collect()
    }

    /// RRsets, each once.
    fn rrsets(&self) -> BTreeMap<u32, &InstalledRrset> {
        self.names.values().flat_map(|name| &name.types).map(|rrset| (rrset.id, rrset)).collect()
    }
}

/// What a set says.
fn set_of(service: u32, types: &[InstalledRrset]) -> TypeSet {
    let mut set = TypeSet { service, ..TypeSet::default() };
    for (slot, rrset) in set.types.iter_mut().zip(types) {
        *slot = TypeSlot { qtype: rrset.qtype, _pad: 0, rrset: rrset.id };
    }
    set
}

/// What tells sets apart.
fn set_key(service: u32, types: &[InstalledRrset]) -> (u32, Vec<(u16, u32)>) {
    (service, types.iter().map(|rrset| (rrset.qtype, rrset.id)).collect())
}

/// Elements that the wanted state needs, for the message when they are not there.
#[derive(Clone, Copy)]
struct Needed {
    slots: u32,
    ids: u32,
    units: u32,
}

impl Needed {
    fn of(wanted: &Checked) -> Self {
        let rings =
            wanted.names.values().flat_map(|name| name.types.iter().map(|(qtype, ring)| (name.service, *qtype, ring)));
        let distinct: BTreeMap<Key, usize> =
            rings.map(|(service, qtype, ring)| ((service, qtype, Arc::as_ptr(ring).cast()), ring.len())).collect();
        let units: u64 = wanted.names.keys().map(|wire| u64::from(units_of(wire.len() as u32))).sum();
        Self {
            slots: u32::try_from(distinct.values().sum::<usize>()).unwrap_or(u32::MAX),
            ids: u32::try_from(distinct.len()).unwrap_or(u32::MAX),
            units: u32::try_from(units).unwrap_or(u32::MAX),
        }
    }
}

fn full(map: &'static str, runs: &Runs, needed: u32) -> Error {
    Error::Full { map, used: runs.used(), needed, capacity: runs.capacity() }
}

impl Plan {
    /// New rings for RRsets that stay where they are.
    fn renew(
        &mut self,
        current: &Installed,
        changes: &BTreeMap<u32, (&InstalledRrset, &Ring)>,
        needed: Needed,
    ) -> Result<(), Error> {
        // Allocate first and retire after, so that nothing given up now is handed out again by it.
        let mut renewed = BTreeMap::new();
        for (id, (old, ring)) in changes {
            if *old.ring != ***ring {
                renewed.insert(*id, self.install(old.qtype, Some(*id), ring, needed, current)?);
            }
        }
        self.next.names.clone_from(&current.names);
        for rrset in self.next.names.values_mut().flat_map(|name| &mut name.types) {
            if let Some(new) = renewed.get(&rrset.id) {
                rrset.clone_from(new);
            }
        }
        for id in renewed.keys() {
            let (old, _) = changes[id];
            self.next.slots.retire(old.first, old.len());
        }
        Ok(())
    }

    /// A new table of names. What does not change keeps its place.
    fn rebuild(&mut self, current: &Installed, wanted: &Checked, needed: Needed) -> Result<(), Error> {
        let mut old_rrsets: HashMap<(u32, u16), BTreeMap<u32, &InstalledRrset>> = HashMap::new();
        let mut old_sets: HashMap<_, u32> = HashMap::new();
        for name in current.names.values() {
            old_sets.insert(set_key(name.service, &name.types), name.set);
            for rrset in &name.types {
                old_rrsets.entry((name.service, rrset.qtype)).or_default().insert(rrset.id, rrset);
            }
        }
        let mut rrsets: HashMap<Key, InstalledRrset> = HashMap::new();
        let mut sets: HashMap<_, u32> = HashMap::new();
        // Allocate first and retire after, as above.
        let (mut kept_ids, mut kept_sets, mut kept_units) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (wire, name) in &wanted.names {
            let mut types = Vec::with_capacity(name.types.len());
            for (qtype, ring) in &name.types {
                let key = (name.service, *qtype, Arc::as_ptr(ring).cast());
                if let Some(rrset) = rrsets.get(&key) {
                    types.push(rrset.clone());
                    continue;
                }
                let old = old_rrsets.get(&(name.service, *qtype));
                let rrset = match old.and_then(|old| old.values().find(|rrset| *rrset.ring == **ring)) {
                    Some(old) => {
                        kept_ids.insert(old.id);
                        InstalledRrset { ring: Arc::clone(ring), ..(*old).clone() }
                    }
                    None => self.install(*qtype, None, ring, needed, current)?,
                };
                types.push(rrset.clone());
                rrsets.insert(key, rrset);
            }
            let key = set_key(name.service, &types);
            let set = match (sets.get(&key), old_sets.get(&key)) {
                (Some(set), _) => *set,
                (None, Some(old)) => {
                    kept_sets.insert(*old);
                    *old
                }
                (None, None) => {
                    let set = self.next.sets.allocate(1);
                    let set = set.ok_or_else(|| full(object::SETS, &current.sets, current.sets.used() + 1))?;
                    self.sets.push((set, set_of(name.service, &types)));
                    set
                }
            };
            sets.insert(key, set);
            let unit = match current.names.get(wire) {
                Some(old) => {
                    kept_units.insert(old.unit);
                    old.unit
                }
                None => {
                    let len = units_of(wire.len() as u32);
                    let unit = self.next.units.allocate(len);
                    unit.ok_or_else(|| full(object::ENTRIES, &current.units, needed.units))?
                }
            };
            self.next.names.insert(wire.clone(), InstalledName { service: name.service, unit, set, types });
        }

        for old in current.rrsets().values().filter(|old| !kept_ids.contains(&old.id)) {
            self.next.slots.retire(old.first, old.len());
            self.next.ids.retire(old.id, 1);
        }
        let given_up: BTreeSet<u32> = old_sets.values().filter(|set| !kept_sets.contains(set)).copied().collect();
        for set in given_up {
            self.next.sets.retire(set, 1);
        }
        for (wire, old) in current.names.iter().filter(|(_, old)| !kept_units.contains(&old.unit)) {
            self.next.units.retire(old.unit, units_of(wire.len() as u32));
        }
        let table = self.next.placed();
        for Placed { entry, unit, .. } in table.iter().filter(|placed| !kept_units.contains(&placed.unit)) {
            self.units.extend((0..units_of(entry.wire_len)).map(|index| (unit + index, entry.unit(index))));
        }
        self.table = Some(table);
        Ok(())
    }

    /// Puts a ring into free slots, under an id that is kept or fresh.
    fn install(
        &mut self,
        qtype: u16,
        id: Option<u32>,
        ring: &Ring,
        needed: Needed,
        current: &Installed,
    ) -> Result<InstalledRrset, Error> {
        let id = match id {
            Some(id) => id,
            None => self.next.ids.allocate(1).ok_or_else(|| full(object::RRSETS, &current.ids, needed.ids))?,
        };
        let first = self
            .next
            .slots
            .allocate(ring.len() as u32)
            .ok_or_else(|| full(object::ANSWERS, &current.slots, needed.slots))?;
        let rrset = InstalledRrset { qtype, id, first, ring: Arc::clone(ring) };
        self.slots.extend((first..).zip(ring.iter().copied()));
        self.words.push((id, rrset.word()));
        Ok(rrset)
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
