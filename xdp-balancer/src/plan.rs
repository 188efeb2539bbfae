//! From what is installed and what is wanted to the writes in between. Pure: `publish` carries it out.
//!
//! Two kinds of change. While names, types and services stay, a changed RRset gets new slots and one
//! stored word. Otherwise a new table of names is built: RRsets that did not change keep their id and
//! slots, changed ones get fresh ids, so that the old table goes on saying the old until the swap.

use std::collections::BTreeMap;
use std::sync::Arc;

use xdp_balancer_common::{Answer, NameEntry, RingWord, TYPE_SLOTS, TypeSlot, object};

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
}

/// A name in the tables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InstalledName {
    pub service: u32,
    /// In the order of the type slots.
    pub types: Vec<InstalledRrset>,
}

/// An RRset in the tables.
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
    /// Words to store.
    pub words: Vec<(u32, RingWord)>,
    /// A new table of names to put in force, if the names change.
    pub table: Option<Vec<NameEntry>>,
    /// What is installed afterwards.
    pub next: Installed,
}

impl Installed {
    /// Empty tables.
    pub(crate) fn new(slots: u32, ids: u32) -> Self {
        Self { names: BTreeMap::new(), slots: Runs::new(slots), ids: Runs::new(ids) }
    }

    /// Whether a grace period would make room.
    pub(crate) fn has_retired(&self) -> bool {
        self.slots.has_retired() || self.ids.has_retired()
    }

    /// A grace period has passed.
    pub(crate) fn settle(&mut self) {
        self.slots.settle();
        self.ids.settle();
    }

    /// Plans the way to `wanted`.
    pub(crate) fn plan(&self, wanted: &Checked) -> Result<Plan, Error> {
        let rebuild = !self.same_names(wanted);
        let mut plan = Plan {
            slots: Vec::new(),
            words: Vec::new(),
            table: None,
            next: Self { names: BTreeMap::new(), slots: self.slots.clone(), ids: self.ids.clone() },
        };
        let needed = Needed::of(wanted);

        // Allocate first and retire after, so that nothing given up now is handed out again by it.
        let mut retired: Vec<&InstalledRrset> = Vec::new();
        let mut kept_ids: Vec<u32> = Vec::new();
        for (wire, name) in &wanted.names {
            let current = self.names.get(wire);
            let mut types = Vec::with_capacity(name.types.len());
            for (qtype, ring) in &name.types {
                let old = current.and_then(|name| name.types.iter().find(|rrset| rrset.qtype == *qtype));
                let rrset = match old {
                    Some(old) if *old.ring == **ring => {
                        kept_ids.push(old.id);
                        old.clone()
                    }
                    Some(old) if !rebuild => {
                        kept_ids.push(old.id);
                        retired.push(old);
                        plan.install(*qtype, Some(old.id), ring, needed, self)?
                    }
                    _ => plan.install(*qtype, None, ring, needed, self)?,
                };
                types.push(rrset);
            }
            plan.next.names.insert(wire.clone(), InstalledName { service: name.service, types });
        }
        if rebuild {
            kept_ids.sort_unstable();
            for old in self.names.values().flat_map(|name| &name.types) {
                if kept_ids.binary_search(&old.id).is_err() {
                    plan.next.slots.retire(old.first, old.len());
                    plan.next.ids.retire(old.id, 1);
                }
            }
            plan.table = Some(plan.next.entries());
        } else {
            for old in retired {
                plan.next.slots.retire(old.first, old.len());
            }
        }
        Ok(plan)
    }

    /// Whether the same table of names serves both.
    fn same_names(&self, wanted: &Checked) -> bool {
        self.names.len() == wanted.names.len()
            && self.names.iter().zip(&wanted.names).all(|((wire, name), (wanted_wire, wanted))| {
                wire == wanted_wire
                    && name.service == wanted.service
                    && name.types.iter().map(|rrset| rrset.qtype).eq(wanted.types.iter().map(|(qtype, _)| *qtype))
            })
    }

    fn entries(&self) -> Vec<NameEntry> {
        let mut entries = Vec::with_capacity(self.names.len());
        for (wire, name) in &self.names {
            let mut types = [TypeSlot::default(); TYPE_SLOTS];
            for (slot, rrset) in types.iter_mut().zip(&name.types) {
                *slot = TypeSlot { qtype: rrset.qtype, _pad: 0, rrset: rrset.id };
            }
            // Always some: the form was checked.
            entries.extend(NameEntry::new(wire, name.service, types));
        }
        entries
    }
}

/// Elements that the wanted state needs, for the message when they are not there.
#[derive(Clone, Copy)]
struct Needed {
    slots: u32,
    ids: u32,
}

impl Needed {
    fn of(wanted: &Checked) -> Self {
        let rings = || wanted.names.values().flat_map(|name| &name.types);
        let slots = rings().map(|(_, ring)| ring.len()).sum::<usize>();
        Self {
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            ids: u32::try_from(rings().count()).unwrap_or(u32::MAX),
        }
    }
}

impl Plan {
    /// Puts a ring into free slots, under an id that is kept or fresh.
    fn install(
        &mut self,
        qtype: u16,
        id: Option<u32>,
        ring: &Ring,
        needed: Needed,
        current: &Installed,
    ) -> Result<InstalledRrset, Error> {
        let full = |map, runs: &Runs, needed| Error::Full { map, used: runs.used(), needed, capacity: runs.capacity() };
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
