//! Reads back what is installed, as a process before us left it.

use std::collections::HashMap;
use std::sync::Arc;

use xdp_balancer_common::{
    ANSWER_BYTES, AnswerHead, Bytes as _, Choice, GRAIN, MAX_NAME_BYTES, MAX_NAMES, NameEntry, PILOTS_AT, Rrset,
    SLOT_HEAD, SLOT_SHIFTS, TYPE_SLOTS, TableHead, TypeSet, TypeSlot, grains_of, object,
};

use crate::error::Error;
use crate::maps::Maps;
use crate::plan::{Installed, InstalledName, InstalledRrset, ring_grains, tail_grains, tail_of};
use crate::sys::Memory;
use crate::table::{CheckedRing, Role, wildcard_of};

/// What was read of a set.
#[derive(Clone)]
struct ReadSet {
    service: u32,
    tail: u32,
    rings: Vec<(Role, u32)>,
    wildcard: Option<u32>,
}

struct Reader<'a> {
    pool: &'a Memory,
    services: u32,
    installed: Installed,
    sets: HashMap<u32, ReadSet>,
}

fn damaged(grain: u32, what: &'static str) -> Error {
    Error::Damaged { map: object::POOL, index: grain.into(), what }
}

impl Maps {
    /// Reads back what is installed.
    pub(crate) fn read_installed(&self, grains: u32) -> Result<Installed, Error> {
        let installed = Installed::new(grains, self.cursors);
        let mut reader = Reader { pool: &self.pool, services: self.services.len(), installed, sets: HashMap::new() };
        let Some(head) = self.table_head() else { return Ok(reader.installed) };
        let table = self.table();
        let most = TableHead::of(MAX_NAMES, SLOT_SHIFTS[0], 0);
        let fits = head.last_slot <= most.last_slot && head.slots_at <= most.slots_at;
        if !fits || !SLOT_SHIFTS.contains(&head.slot_shift) {
            return Err(damaged(table, "no table of names"));
        }
        let run = (table, grains_of(head.bytes()));
        reader.claim(run.0, run.1)?;
        (reader.installed.table, reader.installed.slot_shift) = (run, head.slot_shift);
        let mut wildcards = Vec::new();
        for place in 0..head.slots() {
            let slot = reader.read(table, head.slots_at as usize + (place << head.slot_shift), 1 << head.slot_shift)?;
            let (set, text) = slot.split_at(SLOT_HEAD);
            let set = set.try_into().map_or(0, u32::from_ne_bytes);
            if set == 0 {
                continue;
            }
            let read = reader.set(set)?;
            let wire = reader.name(text, read.tail)?;
            if reader.place(table, &head, &wire)? != place as u32 {
                return Err(damaged(table, "a name where it is not looked for"));
            }
            if let Some(wildcard) = read.wildcard {
                wildcards.push((wire.clone(), wildcard));
            }
            let ReadSet { service, tail, rings, .. } = read;
            reader.installed.names.insert(wire, InstalledName { service, set, tail, rings, wildcard: None });
        }
        reader.installed.keep_spare(run.1);
        for (wire, set) in wildcards {
            let wildcard = wildcard_of(&wire);
            if reader.installed.names.get(&wildcard).is_none_or(|name| name.set != set) {
                return Err(damaged(set, "the set of no wildcard"));
            }
            if let Some(name) = reader.installed.names.get_mut(&wire) {
                name.wildcard = Some(wildcard);
            }
        }
        Ok(reader.installed)
    }
}

impl Reader<'_> {
    fn read(&self, grain: u32, offset: usize, len: usize) -> Result<Vec<u8>, Error> {
        self.pool.read(grain as usize * GRAIN + offset, len).ok_or_else(|| damaged(grain, "beyond the end"))
    }

    fn claim(&mut self, grain: u32, len: u32) -> Result<(), Error> {
        if self.installed.pool.claim(grain, len) {
            Ok(())
        } else {
            Err(damaged(grain, "used twice, or beyond the end"))
        }
    }

    /// The slot in which the program looks for a name.
    fn place(&self, table: u32, head: &TableHead, wire: &[u8]) -> Result<u32, Error> {
        let hash = NameEntry::new(wire).map_or(0, |entry| entry.hash(head.secret));
        let pilot = self.read(table, PILOTS_AT + head.pilot_of(hash) as usize * size_of::<u16>(), size_of::<u16>())?;
        Ok(head.slot_of(hash, u16::from_ne_bytes([pilot[0], pilot[1]])))
    }

    /// A name in wire form.
    fn name(&mut self, head: &[u8], tail: u32) -> Result<Vec<u8>, Error> {
        let mut wire = head.to_vec();
        // A name that ends in its slot may share a set, but has no tail.
        if !head.contains(&0) {
            wire.extend(self.read(tail, 0, MAX_NAME_BYTES + 1 - head.len())?);
        }
        wire.truncate(wire.iter().position(|byte| *byte == 0).map_or(0, |root| root + 1));
        if NameEntry::new(&wire).is_none_or(|entry| !entry.bytes().eq(wire.iter().copied())) {
            return Err(damaged(tail, "no name"));
        }
        let text = tail_of(&wire, self.installed.slot_shift);
        if !text.is_empty() {
            match self.installed.tails.insert(text.to_vec(), tail) {
                None => self.claim(tail, tail_grains(text))?,
                Some(other) if other == tail => {}
                Some(_) => return Err(damaged(tail, "an end of names that is there twice")),
            }
        }
        Ok(wire)
    }

    fn set(&mut self, grain: u32) -> Result<ReadSet, Error> {
        if let Some(set) = self.sets.get(&grain) {
            return Ok(set.clone());
        }
        let bytes = self.read(grain, 0, size_of::<TypeSet>())?;
        let set = TypeSet::from_bytes(&bytes).ok_or_else(|| damaged(grain, "no set"))?;
        let types = usize::from(set.types);
        if types > TYPE_SLOTS || u32::from(set.service) >= self.services {
            return Err(damaged(grain, "no set"));
        }
        let slots = self.read(grain, size_of::<TypeSet>(), types * size_of::<TypeSlot>())?;
        self.claim(grain, grains_of(size_of::<TypeSet>() + slots.len()))?;
        let mut rings = Vec::with_capacity(types + 2);
        for slot in slots.chunks_exact(size_of::<TypeSlot>()).filter_map(TypeSlot::from_bytes) {
            rings.push((Role::of_type(u16::from_be(slot.qtype)), slot.rrset));
        }
        if set.others != 0 {
            rings.push((Role::Others, set.others));
        }
        let mut wildcard = None;
        match set.below_kind {
            TypeSet::BELOW_DENIED => rings.push((Role::Below, set.below)),
            TypeSet::BELOW_WILDCARD => wildcard = Some(set.below),
            _ => {}
        }
        for (_, rrset) in &rings {
            self.rrset(*rrset)?;
        }
        let read = ReadSet { service: set.service.into(), tail: set.tail, rings, wildcard };
        self.sets.insert(grain, read.clone());
        Ok(read)
    }

    fn rrset(&mut self, grain: u32) -> Result<(), Error> {
        if self.installed.rrsets.contains_key(&grain) {
            return Ok(());
        }
        self.claim(grain, 1)?;
        let bytes = self.read(grain, 0, size_of::<Rrset>())?;
        let rrset = Rrset::from_bytes(&bytes).ok_or_else(|| damaged(grain, "no RRset"))?;
        let word = rrset.word;
        let first = word.first();
        let ring = match word.choice() {
            None => None,
            Some(Choice::Single) => {
                Some(CheckedRing { answers: vec![self.answer(first)?], turns: vec![0], by_client: false })
            }
            Some(choice) => Some(self.ring(first, word.len(), choice == Choice::Client)?),
        };
        let len = ring.as_ref().map_or(0, ring_grains);
        self.claim(first, len)?;
        // An RRset that never took turns has position 0 in its place; another one may really have that.
        let takes_turns = word.choice() == Some(Choice::RoundRobin);
        if takes_turns && !self.installed.cursors.claim(rrset.cursor, 1) {
            return Err(damaged(grain, "a position used twice, or beyond the end"));
        }
        let cursor = takes_turns.then_some(rrset.cursor);
        self.installed.rrsets.insert(grain, InstalledRrset { ring: ring.map(Arc::new), run: (first, len), cursor });
        Ok(())
    }

    fn ring(&self, first: u32, len: u16, by_client: bool) -> Result<CheckedRing, Error> {
        let bytes = self.read(first, 0, usize::from(len) * size_of::<u32>())?;
        let mut places: HashMap<u32, u16> = HashMap::new();
        let (mut answers, mut turns) = (Vec::new(), Vec::with_capacity(usize::from(len)));
        for word in bytes.chunks_exact(size_of::<u32>()) {
            let grain = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            let place = match places.get(&grain) {
                Some(place) => *place,
                None => {
                    let place = answers.len() as u16;
                    answers.push(self.answer(grain)?);
                    places.insert(grain, place);
                    place
                }
            };
            turns.push(place);
        }
        Ok(CheckedRing { answers, turns, by_client })
    }

    fn answer(&self, grain: u32) -> Result<(AnswerHead, Vec<u8>), Error> {
        let bytes = self.read(grain, 0, size_of::<AnswerHead>())?;
        let head = AnswerHead::from_bytes(&bytes).ok_or_else(|| damaged(grain, "no answer"))?;
        let len = usize::from(head.len);
        if len > ANSWER_BYTES {
            return Err(damaged(grain, "no answer"));
        }
        Ok((head, self.read(grain, size_of::<AnswerHead>(), len)?))
    }
}
