//! From what is installed and what is wanted to the writes in between. Pure: `publish` carries it out.
//!
//! Two kinds of change. While names, types, services and who shares with whom stay, a changed RRset gets a new ring in
//! free grains and one stored word. Otherwise a new table of names is built: RRsets that did not change keep their
//! place, changed ones get fresh ones, so that the old table goes on saying the old until the swap.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use xdp_balancer_common::{
    Bytes as _, GRAIN, NameEntry, RESERVED_GRAINS, RingWord, Rrset, SLOT_HEAD, SLOT_SHIFTS, Settings, TypeSet,
    TypeSlot, grains_of, object,
};

use crate::error::Error;
use crate::runs::Runs;
use crate::slots;
use crate::table::{Checked, CheckedName, CheckedRing, Role, Shared};

/// Grains at whose multiples a table of names begins: then a line of the cache holds whole slots.
const TABLE_ALIGN: u32 = 4;

/// What the tables hold.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    /// By lower-case wire form.
    pub names: BTreeMap<Vec<u8>, InstalledName>,
    /// By grain.
    pub rrsets: HashMap<u32, InstalledRrset>,
    /// Ends of long names, which others may share: their grains.
    pub tails: HashMap<Vec<u8>, u32>,
    /// Grains of the table of names in force.
    pub table: (u32, u32),
    /// Size of its slots.
    pub slot_shift: u32,
    /// Grains for the next one, which no program reads: kept, so that there is always room for as many names.
    pub spare: (u32, u32),
    /// Grains of the pool.
    pub pool: Runs,
    /// Positions of round robin.
    pub cursors: Runs,
}

/// A name in the tables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InstalledName {
    pub service: u32,
    /// Grain of its set, which others may share.
    pub set: u32,
    /// Grain of the rest of its text, which others may share; 0: there is none.
    pub tail: u32,
    /// Grains of its RRsets, which others may share; in the order of the roles.
    pub rings: Vec<(Role, u32)>,
    /// The wildcard that names below it have.
    pub wildcard: Option<Vec<u8>>,
}

/// An RRset in the tables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InstalledRrset {
    /// `None`: nothing is published.
    pub ring: Option<Shared>,
    /// Grains of ring and answers.
    pub run: (u32, u32),
    /// Its position, once it has had turns.
    pub cursor: Option<u32>,
}

/// Bytes for free grains, then words to store: in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Writes {
    /// By grain.
    pub bytes: Vec<(u32, Vec<u8>)>,
    /// Positions of RRsets in force, whose words do not make them be looked at yet.
    pub cursors: Vec<(u32, u32)>,
    /// Words of RRsets in force.
    pub words: Vec<(u32, RingWord)>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// These writes; `Installed` says already what is so after them.
    Renew(Writes),
    /// These writes, then another table of names; then the other `Installed` holds.
    Rebuild(Writes, Box<Installed>),
}

/// A name of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub entry: NameEntry,
    pub set: u32,
}

/// What makes RRsets one: rings of a checked table are the same where they are meant to be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Ring(*const CheckedRing),
    Nothing(u32, Role),
}

impl Key {
    fn of(service: u32, role: Role, ring: Option<&Shared>) -> Self {
        ring.map_or(Self::Nothing(service, role), |ring| Self::Ring(Arc::as_ptr(ring)))
    }
}

/// What makes sets one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SetKey {
    service: u32,
    tail: u32,
    rings: Vec<(Role, u32)>,
    wildcard: Option<u32>,
}

impl SetKey {
    fn bytes(&self) -> Vec<u8> {
        // Checked: no more services than 16 bits can tell apart.
        let mut set = TypeSet { service: self.service as u16, tail: self.tail, ..TypeSet::default() };
        if let Some(wildcard) = self.wildcard {
            (set.below_kind, set.below) = (TypeSet::BELOW_WILDCARD, wildcard);
        }
        let mut slots = Vec::new();
        for (role, rrset) in &self.rings {
            match role {
                Role::Type(_, qtype) => {
                    set.types += 1;
                    slots.extend(TypeSlot { qtype: qtype.to_be(), _pad: 0, rrset: *rrset }.to_bytes());
                }
                Role::Others => set.others = *rrset,
                Role::Below => (set.below_kind, set.below) = (TypeSet::BELOW_DENIED, *rrset),
            }
        }
        [set.to_bytes().as_slice(), &slots].concat()
    }
}

fn same(a: Option<&Shared>, b: Option<&Shared>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}

/// A ring's turns, then its answers, as they lie in the pool from `first` on; and its word.
pub(crate) fn ring_bytes(ring: &CheckedRing, first: u32) -> (Vec<u8>, RingWord) {
    let turn_grains = if ring.answers.len() == 1 { 0 } else { grains_of(ring.turns.len() * size_of::<u32>()) };
    let mut answers = Vec::new();
    let mut places = Vec::with_capacity(ring.answers.len());
    for (head, records) in &ring.answers {
        places.push(first + turn_grains + (answers.len() / GRAIN) as u32);
        answers.extend(head.to_bytes());
        answers.extend(records);
        answers.resize(answers.len().next_multiple_of(GRAIN), 0);
    }
    if let [single] = places[..] {
        return (answers, RingWord::single(single));
    }
    let mut bytes: Vec<u8> = ring.turns.iter().flat_map(|turn| places[usize::from(*turn)].to_ne_bytes()).collect();
    bytes.resize(turn_grains as usize * GRAIN, 0);
    bytes.extend(answers);
    (bytes, RingWord::ring(first, ring.turns.len() as u16, ring.by_client))
}

/// Grains that a ring with its answers takes.
pub(crate) fn ring_grains(ring: &CheckedRing) -> u32 {
    let answers: u32 = ring.answers.iter().map(|(head, records)| grains_of(size_of_val(head) + records.len())).sum();
    let turns = if ring.answers.len() == 1 { 0 } else { grains_of(ring.turns.len() * size_of::<u32>()) };
    turns + answers
}

fn pool_full(runs: &Runs, needed: u32) -> Error {
    Error::Full { map: object::POOL, used: runs.used(), needed: runs.used() + needed, capacity: runs.capacity() }
}

fn cursors_full(runs: &Runs) -> Error {
    Error::Full { map: object::CURSORS, used: runs.used(), needed: runs.used() + 1, capacity: runs.capacity() }
}

impl Installed {
    /// Empty tables.
    pub(crate) fn new(grains: u32, cursors: u32) -> Self {
        let mut pool = Runs::new(grains);
        pool.claim(0, RESERVED_GRAINS);
        let cursors = Runs::new(cursors);
        let (names, rrsets, tails) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        Self { names, rrsets, tails, table: (0, 0), slot_shift: SLOT_SHIFTS[0], spare: (0, 0), pool, cursors }
    }

    /// Whether a grace period would make room.
    pub(crate) fn has_retired(&self) -> bool {
        self.pool.has_retired() || self.cursors.has_retired()
    }

    /// A grace period has passed.
    pub(crate) fn settle(&mut self) {
        self.pool.settle();
        self.cursors.settle();
    }

    /// Plans the way to `wanted`. On an error nothing has changed.
    pub(crate) fn plan(&mut self, wanted: &Checked) -> Result<Plan, Error> {
        match self.in_place(wanted) {
            Some(changes) => self.renew(&changes).map(Plan::Renew),
            None => self.rebuild(wanted),
        }
    }

    /// What each RRset is to become, if the same table of names serves both: the names, their services and
    /// types stay, and names that share an RRset go on to. Only those that change.
    fn in_place(&self, wanted: &Checked) -> Option<BTreeMap<u32, Option<Shared>>> {
        if self.names.len() != wanted.names.len() {
            return None;
        }
        let mut all: HashMap<u32, Key> = HashMap::with_capacity(self.rrsets.len());
        let mut changes = BTreeMap::new();
        for ((wire, name), (wanted_wire, wanted)) in self.names.iter().zip(&wanted.names) {
            let same_roles = name.rings.iter().map(|(role, _)| role).eq(wanted.rings.iter().map(|(role, _)| role));
            let same_name = wire == wanted_wire && name.service == wanted.service && name.wildcard == wanted.wildcard;
            if !same_name || !same_roles {
                return None;
            }
            for ((role, rrset), (_, ring)) in name.rings.iter().zip(&wanted.rings) {
                let key = Key::of(wanted.service, *role, ring.as_ref());
                match all.insert(*rrset, key) {
                    Some(other) if other != key => return None,
                    Some(_) => {}
                    None if same(self.rrsets.get(rrset)?.ring.as_ref(), ring.as_ref()) => {}
                    None => {
                        changes.insert(*rrset, ring.clone());
                    }
                }
            }
        }
        Some(changes)
    }

    /// New rings for RRsets that stay where they are.
    fn renew(&mut self, changes: &BTreeMap<u32, Option<Shared>>) -> Result<Writes, Error> {
        let mut writes = Writes::default();
        let mut made: Vec<(u32, InstalledRrset)> = Vec::with_capacity(changes.len());
        for (grain, ring) in changes {
            let cursor = self.rrsets.get(grain).and_then(|rrset| rrset.cursor);
            match self.install(ring.as_ref(), cursor, &mut writes) {
                Ok((rrset, word)) => {
                    if cursor != rrset.cursor {
                        writes.cursors.extend(rrset.cursor.map(|cursor| (*grain, cursor)));
                    }
                    writes.words.push((*grain, word));
                    made.push((*grain, rrset));
                }
                Err(error) => {
                    for (grain, rrset) in made {
                        self.pool.release(rrset.run.0, rrset.run.1);
                        let before = self.rrsets.get(&grain).and_then(|rrset| rrset.cursor);
                        if let Some(cursor) = rrset.cursor.filter(|_| before.is_none()) {
                            self.cursors.release(cursor, 1);
                        }
                    }
                    return Err(error);
                }
            }
        }
        for (grain, rrset) in made {
            if let Some(old) = self.rrsets.insert(grain, rrset) {
                self.pool.retire(old.run.0, old.run.1);
            }
        }
        Ok(writes)
    }

    /// Puts a ring into free grains. On an error nothing has changed.
    fn install(
        &mut self,
        ring: Option<&Shared>,
        cursor: Option<u32>,
        writes: &mut Writes,
    ) -> Result<(InstalledRrset, RingWord), Error> {
        let Some(ring) = ring else {
            return Ok((InstalledRrset { ring: None, run: (0, 0), cursor }, RingWord::EMPTY));
        };
        let takes_turns = ring.answers.len() > 1 && !ring.by_client;
        let len = ring_grains(ring);
        let first = self.pool.allocate(len).ok_or_else(|| pool_full(&self.pool, len))?;
        let cursor = match cursor {
            None if takes_turns => match self.cursors.allocate(1) {
                Some(cursor) => Some(cursor),
                None => {
                    self.pool.release(first, len);
                    return Err(cursors_full(&self.cursors));
                }
            },
            cursor => cursor,
        };
        let (bytes, word) = ring_bytes(ring, first);
        writes.bytes.push((first, bytes));
        Ok((InstalledRrset { ring: Some(Arc::clone(ring)), run: (first, len), cursor }, word))
    }

    /// A new table of names. What does not change keeps its place.
    fn rebuild(&self, wanted: &Checked) -> Result<Plan, Error> {
        let mut next = Self { names: BTreeMap::new(), ..self.clone() };
        next.slot_shift = slot_shift_for(wanted)?;
        next.turn_tables(grains_of(slots::bytes(wanted.names.len(), next.slot_shift)?))?;
        let mut writes = Writes::default();
        let rrsets = self.keep(wanted);
        let kept: HashSet<u32> = rrsets.values().copied().collect();
        let mut builder = Builder { wanted, rrsets, sets: HashMap::new(), old_sets: self.sets() };
        for (wire, name) in &wanted.names {
            builder.place(wire, name, &mut next, &mut writes)?;
        }

        // Retired last, so that nothing given up now is handed out again by it.
        for (grain, old) in self.rrsets.iter().filter(|(grain, _)| !kept.contains(grain)) {
            next.rrsets.remove(grain);
            next.pool.retire(*grain, 1);
            next.pool.retire(old.run.0, old.run.1);
            if let Some(cursor) = old.cursor {
                next.cursors.retire(cursor, 1);
            }
        }
        let kept: HashSet<u32> = builder.sets.values().copied().collect();
        for (key, set) in builder.old_sets.iter().filter(|(_, set)| !kept.contains(set)) {
            next.pool.retire(*set, grains_of(key.bytes().len()));
        }
        let kept: HashSet<u32> = next.names.values().map(|name| name.tail).collect();
        for (text, grain) in self.tails.iter().filter(|(_, grain)| !kept.contains(grain)) {
            next.tails.remove(text);
            next.pool.retire(*grain, tail_grains(text));
        }
        Ok(Plan::Rebuild(writes, Box::new(next)))
    }

    /// The names for a table of them.
    pub(crate) fn placed(&self) -> Vec<Placed> {
        // Always some: the form was checked.
        let place =
            |(wire, name): (&Vec<u8>, &InstalledName)| Some(Placed { entry: NameEntry::new(wire)?, set: name.set });
        self.names.iter().filter_map(place).collect()
    }

    /// The same, with grains for another table of names.
    pub(crate) fn with_other_table(&self) -> Result<Self, Error> {
        let mut next = self.clone();
        next.turn_tables(grains_of(slots::bytes(next.names.len(), next.slot_shift)?))?;
        Ok(next)
    }

    /// All that names lead to, as it lies in the pool.
    pub(crate) fn image(&self) -> Writes {
        let mut writes = Writes::default();
        writes.bytes.extend(self.tails.iter().map(|(text, grain)| (*grain, tail_bytes(text))));
        writes.bytes.extend(self.sets().iter().map(|(key, set)| (*set, key.bytes())));
        for (grain, rrset) in &self.rrsets {
            let mut word = RingWord::EMPTY;
            if let Some(ring) = &rrset.ring {
                let (bytes, first) = ring_bytes(ring, rrset.run.0);
                writes.bytes.push((rrset.run.0, bytes));
                word = first;
            }
            writes.cursors.push((*grain, rrset.cursor.unwrap_or_default()));
            writes.words.push((*grain, word));
        }
        writes
    }

    /// What is answered, in the form in which it is wanted.
    pub(crate) fn checked(&self, settings: &Settings) -> Checked {
        let ring = |grain: &u32| self.rrsets.get(grain).and_then(|rrset| rrset.ring.clone());
        let name = |name: &InstalledName| CheckedName {
            service: name.service,
            rings: name.rings.iter().map(|(role, grain)| (*role, ring(grain))).collect(),
            wildcard: name.wildcard.clone(),
        };
        let names = self.names.iter().map(|(wire, installed)| (wire.clone(), name(installed))).collect();
        Checked { generation: settings.generation, settings: *settings, names }
    }

    /// Takes the spare grains for a table of `len`, and those of the table in force as the next spare ones.
    fn turn_tables(&mut self, len: u32) -> Result<(), Error> {
        (self.table, self.spare) = (self.spare, self.table);
        if self.table.1 < len {
            self.pool.release(self.table.0, self.table.1);
            let first = self.pool.allocate_last(len, TABLE_ALIGN).ok_or_else(|| pool_full(&self.pool, len))?;
            self.table = (first, len);
        }
        self.keep_spare(len);
        Ok(())
    }

    /// Sees to it that there are spare grains for a table of `len`, if there is room.
    pub(crate) fn keep_spare(&mut self, len: u32) {
        if self.spare.1 < len
            && let Some(first) = self.pool.allocate_last(len, TABLE_ALIGN)
        {
            self.pool.retire(self.spare.0, self.spare.1);
            self.spare = (first, len);
        }
    }

    /// RRsets that go on to say what they say, for the rings that are wanted.
    fn keep(&self, wanted: &Checked) -> HashMap<Key, u32> {
        let mut kept: HashMap<Key, u32> = HashMap::new();
        let mut taken: HashSet<u32> = HashSet::new();
        for (wire, name) in &wanted.names {
            let Some(old) = self.names.get(wire) else { continue };
            for (role, ring) in &name.rings {
                let key = Key::of(name.service, *role, ring.as_ref());
                let there = old.rings.iter().find(|(other, _)| other == role).map(|(_, rrset)| *rrset);
                let Some((grain, rrset)) = there.and_then(|grain| Some((grain, self.rrsets.get(&grain)?))) else {
                    continue;
                };
                if !kept.contains_key(&key) && !taken.contains(&grain) && same(rrset.ring.as_ref(), ring.as_ref()) {
                    kept.insert(key, grain);
                    taken.insert(grain);
                }
            }
        }
        kept
    }

    /// Sets in force.
    fn sets(&self) -> HashMap<SetKey, u32> {
        let key = |name: &InstalledName| {
            let wildcard = name.wildcard.as_ref().and_then(|wire| Some(self.names.get(wire)?.set));
            (SetKey { service: name.service, tail: name.tail, rings: name.rings.clone(), wildcard }, name.set)
        };
        self.names.values().map(key).collect()
    }
}

/// Builds a table of names.
struct Builder<'a> {
    wanted: &'a Checked,
    rrsets: HashMap<Key, u32>,
    sets: HashMap<SetKey, u32>,
    old_sets: HashMap<SetKey, u32>,
}

impl Builder<'_> {
    /// Places a name and, before it, the wildcard below it; says which set it has.
    fn place(
        &mut self,
        wire: &[u8],
        name: &CheckedName,
        next: &mut Installed,
        writes: &mut Writes,
    ) -> Result<u32, Error> {
        if let Some(placed) = next.names.get(wire) {
            return Ok(placed.set);
        }
        let below = name.wildcard.as_ref().and_then(|wildcard| self.wanted.names.get_key_value(wildcard));
        let wildcard = below.map(|(wire, name)| self.place(wire, name, next, writes)).transpose()?;
        let mut rings = Vec::with_capacity(name.rings.len());
        for (role, ring) in &name.rings {
            rings.push((*role, self.rrset(name.service, *role, ring.as_ref(), next, writes)?));
        }
        let tail = tail(wire, next, writes)?;
        let key = SetKey { service: name.service, tail, rings: rings.clone(), wildcard };
        let set = match (self.sets.get(&key), self.old_sets.get(&key)) {
            (Some(set), _) | (None, Some(set)) => *set,
            (None, None) => {
                let bytes = key.bytes();
                let len = grains_of(bytes.len());
                let set = next.pool.allocate(len).ok_or_else(|| pool_full(&next.pool, len))?;
                writes.bytes.push((set, bytes));
                set
            }
        };
        self.sets.insert(key, set);
        let placed = InstalledName { service: name.service, set, tail, rings, wildcard: name.wildcard.clone() };
        next.names.insert(wire.to_vec(), placed);
        Ok(set)
    }

    fn rrset(
        &mut self,
        service: u32,
        role: Role,
        ring: Option<&Shared>,
        next: &mut Installed,
        writes: &mut Writes,
    ) -> Result<u32, Error> {
        let key = Key::of(service, role, ring);
        if let Some(rrset) = self.rrsets.get(&key) {
            return Ok(*rrset);
        }
        let grain = next.pool.allocate(1).ok_or_else(|| pool_full(&next.pool, 1))?;
        let (made, word) = next.install(ring, None, writes)?;
        let rrset = Rrset { word, cursor: made.cursor.unwrap_or_default(), _pad: 0 };
        writes.bytes.push((grain, rrset.to_bytes().to_vec()));
        next.rrsets.insert(grain, made);
        self.rrsets.insert(key, grain);
        Ok(grain)
    }
}

/// The rest of a name that its slot has no room for: that of another name, or a new one.
fn tail(wire: &[u8], next: &mut Installed, writes: &mut Writes) -> Result<u32, Error> {
    let text = tail_of(wire, next.slot_shift);
    if text.is_empty() {
        return Ok(0);
    }
    if let Some(grain) = next.tails.get(text) {
        return Ok(*grain);
    }
    let len = tail_grains(text);
    let first = next.pool.allocate(len).ok_or_else(|| pool_full(&next.pool, len))?;
    writes.bytes.push((first, tail_bytes(text)));
    next.tails.insert(text.to_vec(), first);
    Ok(first)
}

/// As it lies in the pool: the program reads eight bytes of the shortest.
fn tail_bytes(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    bytes.resize(tail_grains(text) as usize * GRAIN, 0);
    bytes
}

/// The bytes of a name that its slot has no room for.
pub(crate) fn tail_of(wire: &[u8], slot_shift: u32) -> &[u8] {
    wire.get((1 << slot_shift) - SLOT_HEAD..).unwrap_or_default()
}

/// The size of slots that takes less memory: ends of names that only one has take a set of types with them.
fn slot_shift_for(wanted: &Checked) -> Result<u32, Error> {
    let mut best = (usize::MAX, SLOT_SHIFTS[0]);
    for shift in SLOT_SHIFTS {
        let tails: HashSet<&[u8]> = wanted.names.keys().map(|wire| tail_of(wire, shift)).collect();
        let sets = tails.len() * grains_of(size_of::<TypeSet>() + size_of::<TypeSlot>()) as usize;
        let texts: usize = tails.iter().map(|text| tail_grains(text) as usize).sum();
        let bytes = slots::bytes(wanted.names.len(), shift)? + (sets + texts) * GRAIN;
        best = best.min((bytes, shift));
    }
    Ok(best.1)
}

/// Grains that the rest of a name takes.
pub(crate) fn tail_grains(text: &[u8]) -> u32 {
    grains_of(text.len())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
