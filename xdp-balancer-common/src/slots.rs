//! Where a name's entry is found: a perfect hash. A name's hash leads to a pilot, and both to the one slot where the
//! name can be; the builder has chosen the pilots so that no two names meet (hash and displace).
//!
//! A slot is a line of the cache and holds the name, so that even in a large table a question costs one access that
//! the cache does not have; all pilots together stay in it.

/// Bytes of a line, and of a slot.
pub const LINE_BYTES: usize = 64;
/// Pilots; a power of two.
pub const PILOTS: u32 = 1 << 15;
/// Pilots of a line.
pub const LINE_PILOTS: usize = LINE_BYTES / 2;
/// Lines of pilots; the slots follow.
pub const PILOT_LINES: u32 = PILOTS / LINE_PILOTS as u32;
/// Slots; a power of two. Tables in force are exchanged, and the kernel looks into them without a call only if all
/// are of one size.
pub const SLOTS: u32 = 1 << 17;
/// Lines of a table.
pub const LINES: u32 = PILOT_LINES + SLOTS;
/// Most names in a table; a fuller one would take long to build.
pub const MAX_NAMES: u32 = SLOTS / 10 * 9;

/// Eight-byte chunks of a name in its slot.
pub const SLOT_CHUNKS: usize = 7;
/// Chunks that follow elsewhere, at most.
pub const TAIL_CHUNKS: usize = crate::NAME_CHUNKS - SLOT_CHUNKS;

/// A name.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// What the name holds, in the pool; zero: no name here.
    pub set: u32,
    /// The rest of a name that is longer than `text`, in the pool; zero: none.
    pub tail: u32,
    /// The name in lower case, eight bytes in memory order each, zero after its end. There is no length: a stored name
    /// has one zero byte, its last, and a name that is the same up to there is as long.
    pub text: [u64; SLOT_CHUNKS],
}

/// Pilots that lie together.
pub type PilotLine = [u16; LINE_PILOTS];

/// Which pilot a hash leads to.
#[inline(always)]
#[must_use]
pub const fn pilot_of(hash: u64) -> u32 {
    hash as u32 & (PILOTS - 1)
}

/// Which slot a hash and its pilot lead to. The bits that choose the pilot have no part in it.
#[inline(always)]
#[must_use]
pub const fn slot_of(hash: u64, pilot: u16) -> u32 {
    let step = (hash >> 40) | 1;
    ((hash >> 15).wrapping_add(step.wrapping_mul(pilot as u64))) as u32 & (SLOTS - 1)
}
