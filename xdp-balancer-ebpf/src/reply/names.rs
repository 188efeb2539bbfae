//! A name in a reply: where it ends, and what we have for it.

use xdp_balancer_common::{
    MAX_NAME_BYTES, MAX_SLOT_TEXT, NAME_CHUNKS, NameHash, SLOT_HEAD, TransitVerdict as Verdict, TypeSet, keep_bytes,
    same_chunk,
};

use super::{DNS, LENGTH_MASK, Scratch};
use crate::names::Table;
use crate::packet::{load, store, unlinked};
use crate::pool::Base;

/// Labels and pointers of one name.
const MAX_STEPS: usize = 40;
/// Bounds the length of a name.
const NAME_MASK: usize = 0xff;
const _: () = assert!(MAX_NAME_BYTES == NAME_MASK);
/// Top bits of a label's length that make it a pointer.
const POINTER: usize = 0xc0;
/// Longest label (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;
/// What is returned for a name that is none.
const ODD: u64 = u64::MAX;

/// A name that was read.
pub struct Name {
    /// Offset behind it.
    pub next: usize,
    /// The set of what we have for it; 0: nothing.
    pub set: u32,
}

/// Reads the name at an offset.
#[inline(always)]
pub fn read(at: usize, dns: usize, end: usize) -> Result<Name, Verdict> {
    let packed = selvedge_transit_name(at as u64, dns as u64, end as u64);
    if packed == ODD {
        return Err(Verdict::OddName);
    }
    Ok(Name { next: packed as usize & LENGTH_MASK, set: (packed >> 16) as u32 })
}

/// Reads the name at an offset, in a message that lies between `dns` and `end`: below bit 16 the offset behind it, from
/// there on its set; or [`ODD`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_transit_name(at: u64, dns: u64, end: u64) -> u64 {
    let Ok(scratch) = Scratch::get() else { return ODD };
    let (mut at, end) = (at as usize & LENGTH_MASK, end as usize & LENGTH_MASK);
    let dns = dns as usize & LENGTH_MASK;
    let name = scratch.name.as_mut_ptr() as usize;
    let (mut len, mut next) = (0, 0);
    let mut step = 0;
    loop {
        if step >= MAX_STEPS || at >= end {
            return ODD;
        }
        let label = usize::from(scratch.load::<u8>(at));
        if label == 0 {
            break;
        }
        if label & POINTER == POINTER {
            if at + 2 > end {
                return ODD;
            }
            let target = dns + (usize::from(u16::from_be(scratch.load::<u16>(at))) & 0x3fff);
            if next == 0 {
                next = at + 2;
            }
            // Only back, so that it comes to an end.
            if target >= at || target < dns + DNS {
                return ODD;
            }
            at = unlinked::<LENGTH_MASK>(target);
        } else {
            // The root is still to come.
            if label > MAX_LABEL || at + 1 + label >= end || len + 1 + label >= MAX_NAME_BYTES {
                return ODD;
            }
            // All of the longest: the next label, or the end, is written over what is too much.
            let (from, to) = (scratch.at(at), name + unlinked::<NAME_MASK>(len));
            let mut i = 0;
            while i < MAX_LABEL + 1 {
                // SAFETY: inside of both copies, each with a margin of as much.
                unsafe { store(to + i, load::<u64>(from + i)) };
                i += 8;
            }
            len = unlinked::<NAME_MASK>(len + 1 + label);
            at = unlinked::<LENGTH_MASK>(at + 1 + label);
        }
        step += 1;
    }
    // SAFETY: as above.
    unsafe { store(name + unlinked::<NAME_MASK>(len), 0_u8) };
    let next = unlinked::<LENGTH_MASK>(if next == 0 { at + 1 } else { next });
    u64::from(selvedge_transit_set(len as u64 + 1) as u32) << 16 | next as u64
}

/// The set of the name of so many bytes that was copied; 0 where it is not in the table.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_transit_set(len: u64) -> u64 {
    let (Ok(scratch), Ok(pool)) = (Scratch::get(), Base::get()) else { return 0 };
    let len = len as usize & NAME_MASK;
    let name = scratch.name.as_ptr() as usize;
    let table = Table::in_force(pool);
    let mut hash = NameHash::new(table.secret());
    let mut left = len;
    let mut i = 0;
    while i < NAME_CHUNKS {
        // SAFETY: inside the copy.
        let chunk = unsafe { load::<u64>(name + i * 8) };
        if left <= 8 {
            hash = hash.add(chunk, left as u32);
            break;
        }
        hash = hash.add(chunk, 8);
        left -= 8;
        i += 1;
    }
    let slot = table.slot(pool, hash.finish(len as u32));
    if slot.set == 0 {
        return 0;
    }
    let here = if len < slot.text_len { len } else { slot.text_len };
    if !same(name, 0, slot.at + SLOT_HEAD, unlinked::<NAME_MASK>(here), MAX_SLOT_TEXT.div_ceil(8)) {
        return 0;
    }
    if len > slot.text_len {
        // SAFETY: inside the pool, and any bytes are a set.
        let tail = unsafe { (*(pool.grain(slot.set) as *const TypeSet)).tail };
        let rest = unlinked::<NAME_MASK>(len - slot.text_len);
        if tail == 0 || !same(name, slot.text_len, pool.grain(tail), rest, NAME_CHUNKS) {
            return 0;
        }
    }
    slot.set.into()
}

/// Compares `len` bytes of a name from an offset on with stored ones, letters in either case.
#[inline(always)]
fn same(name: usize, from: usize, stored: usize, len: usize, chunks: usize) -> bool {
    let mut left = len;
    let mut i = 0;
    while i < chunks {
        if left == 0 {
            break;
        }
        let used = if left < 8 { left } else { 8 };
        let keep = keep_bytes(used as u32);
        let at = name + unlinked::<NAME_MASK>(from + i * 8);
        // SAFETY: inside the copy, which has a margin, and inside the pool.
        let (asked, stored) = unsafe { (load::<u64>(at), load::<u64>(stored + i * 8)) };
        if !same_chunk(asked & keep, stored & keep) {
            return false;
        }
        left -= used;
        i += 1;
    }
    true
}
