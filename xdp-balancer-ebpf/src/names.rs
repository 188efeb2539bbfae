//! The table of names: is a name in it, and if not, which of its ancestors is.

use core::arch::asm;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{
    GRAIN, MAX_NAME_BYTES, MAX_SLOT_TEXT, NAME_CHUNKS, NameHash, PILOTS_AT, SLOT_HEAD, SLOT_SHIFTS, TableHead, TypeSet,
    Verdict, same_chunk,
};

use crate::packet::{Frame, LAST_CHUNK, load, shift_down, unlinked};
use crate::pool::Base;

/// Labels that are taken off a name in search of an ancestor.
const MAX_LABELS: usize = 8;
/// Bounds an offset of the question in the frame: link, IPv6, UDP and DNS header, and the name.
const QUESTION_MASK: usize = 0x1ff;
/// Bounds the length of a name.
const NAME_MASK: usize = 0xff;
/// Longest label (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;
/// Chunks of a name's tail.
const TAIL_CHUNKS: usize = (MAX_NAME_BYTES + SLOT_HEAD - (1 << SLOT_SHIFTS[0])).div_ceil(8);

/// A table of names.
#[derive(Clone, Copy)]
pub struct Table {
    /// Offset in the pool.
    at: usize,
    head: &'static TableHead,
}

impl Table {
    /// The one in force.
    #[inline(always)]
    pub fn in_force(pool: Base) -> Self {
        let grain = pool.root().table as usize * GRAIN;
        // SAFETY: inside the pool, and any bytes are a head.
        let head = unsafe { &*(pool.byte(grain) as *const TableHead) };
        Self { at: grain, head }
    }

    /// Secret of its hashes.
    #[inline(always)]
    pub fn secret(self) -> u64 {
        self.head.secret
    }

    /// The slot where a name with this hash is, if it is in the table.
    #[inline(always)]
    pub fn slot(self, pool: Base, hash: u64) -> Slot {
        let pilot = self.at + PILOTS_AT + self.head.pilot_of(hash) as usize * 2;
        // SAFETY: inside the pool, as for the slot.
        let pilot = unsafe { load::<u16>(pool.byte(pilot)) };
        let slot = (self.head.slot_of(hash, pilot) as usize) << (self.head.slot_shift & 7);
        let at = pool.byte(self.at + self.head.slots_at as usize + slot);
        let set: u64;
        // Now, not where it is needed first: in a large table the slot is seldom in the cache, and there is other work.
        // SAFETY: inside the pool.
        unsafe { asm!("{0} = *(u32 *)({1} + 0)", out(reg) set, in(reg) at, options(nostack, readonly)) };
        Slot { at, text_len: self.head.slot_text(), set: set as u32 }
    }
}

/// Where a name can be.
#[derive(Clone, Copy)]
pub struct Slot {
    /// Its address.
    pub at: usize,
    /// Bytes of a name that it holds.
    pub text_len: usize,
    /// The set of the name that is here; 0: none is.
    pub set: u32,
}

/// Compares a name in the frame with the one in a slot: every byte, letters in either case.
#[inline(always)]
pub fn same(frame: Frame, at: usize, name_len: usize, slot: Slot, pool: Base) -> bool {
    let len = unlinked::<NAME_MASK>(name_len);
    let text = slot.at + SLOT_HEAD;
    if len < 8 {
        let Some(end) = end_of(frame, at + len) else { return false };
        // SAFETY: inside the pool.
        return same_chunk(shift_down(end, 8 - len as u32), unsafe { load::<u64>(text) });
    }
    // Whichever is shorter, and however much is compared, is one way for the verifier.
    let here = frame.blurred::<TEXT_MASK>(if len < slot.text_len { len } else { slot.text_len });
    let mut cursor = frame.cursor(at);
    let mut i = 0;
    while i < MAX_SLOT_TEXT / 8 {
        if here < (i + 1) * 8 {
            break;
        }
        let Some(chunk) = cursor.chunk() else { return false };
        // SAFETY: inside the pool.
        if !same_chunk(chunk, unsafe { load::<u64>(text + i * 8) }) {
            return false;
        }
        i += 1;
    }
    let here = frame.blurred::<TEXT_MASK>(here);
    let Some(chunk) = end_of(frame, at + here) else { return false };
    // SAFETY: inside the pool. There are eight bytes at least, which the verifier need not know.
    if !same_chunk(chunk, unsafe { load::<u64>(text + ((here - 8) & TEXT_MASK)) }) {
        return false;
    }
    let len = unlinked::<NAME_MASK>(name_len);
    if len <= slot.text_len {
        return true;
    }
    // SAFETY: inside the pool, and any bytes are a set.
    let tail = unsafe { (*(pool.grain(slot.set) as *const TypeSet)).tail };
    let (at, len) = (frame.blurred::<QUESTION_MASK>(at + here), frame.blurred::<NAME_MASK>(len - slot.text_len));
    tail != 0 && same_tail(frame, at, len, pool.grain(tail))
}

/// Bounds the bytes of a name that a slot holds.
const TEXT_MASK: usize = 0x1f;
const _: () = assert!(MAX_SLOT_TEXT <= TEXT_MASK);

/// Compares the rest of a name.
#[inline(always)]
fn same_tail(frame: Frame, at: usize, len: usize, text: usize) -> bool {
    let Some(end) = end_of(frame, at + len) else { return false };
    if len < 8 {
        // SAFETY: inside the pool.
        return same_chunk(shift_down(end, 8 - len as u32), unsafe { load::<u64>(text) });
    }
    let mut cursor = frame.cursor(at);
    let mut left = unlinked::<NAME_MASK>(len);
    let mut i = 0;
    while i < TAIL_CHUNKS {
        if left < 8 {
            break;
        }
        let Some(chunk) = cursor.chunk() else { return false };
        // SAFETY: inside the pool.
        if !same_chunk(chunk, unsafe { load::<u64>(text + i * 8) }) {
            return false;
        }
        left -= 8;
        i += 1;
    }
    // Verifiers up to Linux 6.1 forget that there are eight bytes.
    // SAFETY: as above.
    same_chunk(end, unsafe { load::<u64>(text + unlinked::<NAME_MASK>(len - 8)) })
}

/// The eight bytes before an offset behind the headers.
#[inline(always)]
fn end_of(frame: Frame, offset: usize) -> Option<u64> {
    frame.cursor((offset - 8) & QUESTION_MASK).chunk()
}

/// The set of a name's nearest ancestor; 0 where none is found. `at` is the name's offset in the frame.
#[inline(always)]
pub fn closest_encloser(ctx: &XdpContext, at: usize, name_len: usize) -> u32 {
    selvedge_closest_encloser(ctx.ctx, at as u64, name_len as u64) as u32
}

/// The set of a name's nearest ancestor in the table (RFC 4592: its closest encloser), which stands for names that
/// do not exist; 0 where none is found. `at` is the name's offset in the frame.
///
/// A function of its own for the kernel too: its verifier walks it once, whoever calls it and from where.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_closest_encloser(ctx: *mut xdp_md, at: u64, name_len: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Ok(pool) = Base::get() else { return 0 };
    let (mut at, mut left) = (at as usize & QUESTION_MASK, name_len as usize & NAME_MASK);
    let mut label = 0;
    while label < MAX_LABELS {
        let frame = Frame::of(&ctx);
        let mut cursor = frame.cursor(at);
        // One byte would do, but a check for one turns into a form from which the verifier learns nothing.
        let Ok(here) = cursor.step::<4>() else { return 0 };
        // SAFETY: taken above.
        let label_len = usize::from(unsafe { load::<u8>(here) });
        // The root has no ancestor. A name whose labels do not lead to its end is none.
        if label_len == 0 || label_len > MAX_LABEL || label_len + 1 >= left {
            return 0;
        }
        at = frame.blurred::<QUESTION_MASK>(at + label_len + 1);
        left = frame.blurred::<NAME_MASK>(left - label_len - 1);
        match ancestor(&ctx, pool, at, left) {
            Ok(0) => {}
            Ok(set) => return u64::from(set),
            Err(_) => return 0,
        }
        label += 1;
    }
    0
}

/// The set of a name that is expected to end after `len` bytes; 0 if it is not in the table.
#[inline(always)]
fn ancestor(ctx: &XdpContext, pool: Base, at: usize, len: usize) -> Result<u32, Verdict> {
    let table = Table::in_force(pool);
    let mut cursor = Frame::of(ctx).cursor(at);
    let mut hash = NameHash::new(table.secret());
    let mut left = unlinked::<NAME_MASK>(len);
    let mut round = 0;
    while round < NAME_CHUNKS {
        let Some(chunk) = cursor.chunk() else {
            let chunk = cursor.last_chunk().ok_or(Verdict::ShortFrame)?;
            if left > LAST_CHUNK {
                return Err(Verdict::ShortFrame);
            }
            hash = hash.add(chunk, left as u32);
            break;
        };
        if left <= 8 {
            hash = hash.add(chunk, left as u32);
            break;
        }
        hash = hash.add(chunk, 8);
        left -= 8;
        round += 1;
    }
    const { assert!(NAME_CHUNKS * 8 > MAX_NAME_BYTES) };
    let found = table.slot(pool, hash.finish(len as u32));
    // The frame anew, so that the verifier forgets how far the hash has looked.
    if found.set == 0 || !same(Frame::of(ctx), at, len, found, pool) {
        return Ok(0);
    }
    Ok(found.set)
}
