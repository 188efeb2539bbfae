//! Where a name's entry is found: a perfect hash. A name's hash leads to a pilot, and both to the one slot where the
//! name can be; the builder has chosen the pilots so that no two names meet (hash and displace).
//!
//! A table lies in the pool: its [`TableHead`], its pilots, its slots. It is as large as its names need, so that few
//! names stay close to the processor. A slot holds the beginning of a name, in which names differ; what they end with is
//! mostly the same, and stands once. How much of a name that is, is for the builder to choose: what takes less memory
//! for the names as they are.

/// What slots can be, by their size: 16 or 32 bytes, a power of two.
pub const SLOT_SHIFTS: [u32; 2] = [4, 5];
/// Bytes of a slot before its text.
pub const SLOT_HEAD: usize = 4;
/// Most bytes of a name that a slot holds.
pub const MAX_SLOT_TEXT: usize = (1 << SLOT_SHIFTS[1]) - SLOT_HEAD;
/// Most names in a table.
pub const MAX_NAMES: u32 = 120_000;
/// Names to a hundred slots: with more, finding pilots takes long; with fewer, the table does not stay in the cache.
const NAMES_IN_HUNDRED: u32 = 98;
/// Most slots.
pub const MAX_SLOTS: u32 = slots_for(MAX_NAMES);
/// Offset of the pilots in a table.
pub const PILOTS_AT: usize = 64;
/// Slots to a pilot, at most.
const SLOTS_OF_PILOT: u32 = 5;
/// Fewest pilots: those of one line of the cache.
const MIN_PILOTS: u32 = 32;
/// Fewest slots.
const MIN_SLOTS: u32 = 256;

/// Slots for so many names, whole lines of the cache.
const fn slots_for(names: u32) -> u32 {
    let wanted = (names * 100).div_ceil(NAMES_IN_HUNDRED);
    if wanted < MIN_SLOTS { MIN_SLOTS } else { wanted.next_multiple_of(4) }
}

/// A table of names; then, from [`PILOTS_AT`] on, its pilots of two bytes each, and its slots. The pool's first grain,
/// which is nobody's, reads as a table of one slot without a name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableHead {
    /// Number of pilots, a power of two, less one.
    pub pilot_mask: u32,
    /// Number of the last slot.
    pub last_slot: u32,
    /// Offset of the slots in the table.
    pub slots_at: u32,
    /// Size of a slot, one of [`SLOT_SHIFTS`].
    pub slot_shift: u32,
    /// Secret of the name hash.
    pub secret: u64,
}

impl TableHead {
    /// Of a table for so many names, at most [`MAX_NAMES`].
    #[must_use]
    pub const fn of(names: u32, slot_shift: u32, secret: u64) -> Self {
        let slots = slots_for(names);
        let mut pilots = MIN_PILOTS;
        while pilots < slots / SLOTS_OF_PILOT {
            pilots *= 2;
        }
        let slots_at = PILOTS_AT as u32 + pilots * 2;
        Self { pilot_mask: pilots - 1, last_slot: slots - 1, slots_at, slot_shift, secret }
    }

    /// Which pilot a hash leads to.
    #[inline(always)]
    #[must_use]
    pub const fn pilot_of(&self, hash: u64) -> u32 {
        hash as u32 & self.pilot_mask
    }

    /// Which slot a hash and its pilot lead to: a product's upper half, so that there can be any number of slots. The
    /// bits that choose the pilot have no part in it.
    #[inline(always)]
    #[must_use]
    pub const fn slot_of(&self, hash: u64, pilot: u16) -> u32 {
        let step = (hash >> 15) | 1;
        let place = (hash >> 32).wrapping_add(step.wrapping_mul((pilot as u64) << 8)) as u32;
        ((place as u64 * (self.last_slot as u64 + 1)) >> 32) as u32
    }

    /// Pilots.
    #[must_use]
    pub const fn pilots(&self) -> usize {
        self.pilot_mask as usize + 1
    }

    /// Slots.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.last_slot as usize + 1
    }

    /// Bytes of the table.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.slots_at as usize + (self.slots() << self.slot_shift)
    }

    /// Bytes of a name that a slot holds; the rest, if there is one, is its set's tail.
    ///
    /// A slot is the grain of the name's set (zero: no name here), then the name in lower case, in wire form, zero after
    /// its end. There is no length: a stored name has one zero byte, its last, and a name that is the same up to there
    /// is as long.
    #[inline(always)]
    #[must_use]
    pub const fn slot_text(&self) -> usize {
        (1 << (self.slot_shift & 7)) - SLOT_HEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_room_for_its_names() {
        for names in [0, 1, 255, 256, 1000, 100_000, MAX_NAMES] {
            let head = TableHead::of(names, 4, 7);
            assert!(head.slots() > names as usize && head.slots() <= MAX_SLOTS as usize, "{names}");
            assert!(names < 256 || head.slots() < names as usize * 11 / 10, "{names}");
            assert!((head.slots_at as usize).is_multiple_of(64));
        }
    }
}
