//! The table of names: is a name in it, and if not, which of its ancestors is.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{
    LINE_PILOTS, MAX_NAME_BYTES, NAME_CHUNKS, NameHash, PILOT_LINES, SLOT_CHUNKS, Slot, TAIL_CHUNKS, Verdict,
    keep_bytes, pilot_of, same_chunk, slot_of,
};

use crate::maps::{Names, SETTINGS, TABLE};
use crate::packet::{Cursor, Frame, LAST_CHUNK, load, unlinked};
use crate::pool::Base;

/// Labels that are taken off a name in search of an ancestor.
const MAX_LABELS: usize = 8;
/// Bounds an offset of the question in the frame: link, IPv6, UDP and DNS header, and the name.
const QUESTION_MASK: usize = 0x1ff;
/// Longest label (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// The slot where a name with this hash is, if it is in the table.
#[inline(always)]
pub fn slot(names: &'static Names, hash: u64) -> Result<&'static Slot, Verdict> {
    let pilot = pilot_of(hash);
    let line = names.get(pilot / LINE_PILOTS as u32).ok_or(Verdict::Broken)?;
    let at = line.as_ptr() as usize + (pilot as usize % LINE_PILOTS) * 2;
    // SAFETY: one of the line's pilots.
    let pilot = unsafe { load::<u16>(at) };
    let line = names.get(PILOT_LINES + slot_of(hash, pilot)).ok_or(Verdict::Broken)?;
    // SAFETY: a line behind the pilots is a slot, which is as long and as aligned, and any bytes are one.
    Ok(unsafe { &*line.as_ptr().cast::<Slot>() })
}

/// The names in force.
#[inline(always)]
pub fn in_force() -> Result<&'static Names, Verdict> {
    TABLE.get(0).ok_or(Verdict::Broken)
}

/// Compares a name in the frame with the one in a slot: every byte, letters in either case.
#[inline(always)]
pub fn same(mut cursor: Cursor, name_len: usize, slot: &Slot, pool: Base) -> bool {
    let mut left = unlinked::<0xff>(name_len);
    let mut i = 0;
    while i < SLOT_CHUNKS {
        let Some(chunk) = cursor.chunk() else { return same_last(cursor, left, slot.text[i]) };
        if left <= 8 {
            // With the bytes behind the name masked, this is a zero byte at the same place too.
            return same_chunk(chunk & keep_bytes(left as u32), slot.text[i]);
        }
        if !same_chunk(chunk, slot.text[i]) {
            return false;
        }
        left -= 8;
        cursor.at += 8;
        i += 1;
    }
    if slot.tail == 0 {
        return false;
    }
    let tail = pool.grain(slot.tail);
    let mut i = 0;
    while i < TAIL_CHUNKS {
        // SAFETY: inside the pool.
        let stored = unsafe { load::<u64>(tail + i * 8) };
        let Some(chunk) = cursor.chunk() else { return same_last(cursor, left, stored) };
        if left <= 8 {
            return same_chunk(chunk & keep_bytes(left as u32), stored);
        }
        if !same_chunk(chunk, stored) {
            return false;
        }
        left -= 8;
        cursor.at += 8;
        i += 1;
    }
    false
}

#[inline(always)]
fn same_last(cursor: Cursor, left: usize, stored: u64) -> bool {
    let Some(chunk) = cursor.last_chunk() else { return false };
    left <= LAST_CHUNK && same_chunk(chunk & keep_bytes(left as u32), stored)
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
    let (mut at, mut left) = (at as usize & QUESTION_MASK, name_len as usize & 0xff);
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
        left = frame.blurred::<0xff>(left - label_len - 1);
        match ancestor(&ctx, at, left) {
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
fn ancestor(ctx: &XdpContext, at: usize, len: usize) -> Result<u32, Verdict> {
    let secret = SETTINGS.get(0).ok_or(Verdict::Broken)?.secret;
    let mut cursor = Frame::of(ctx).cursor(at);
    let mut hash = NameHash::new(secret);
    let mut left = unlinked::<0xff>(len);
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
        cursor.at += 8;
        round += 1;
    }
    const { assert!(NAME_CHUNKS * 8 > MAX_NAME_BYTES) };
    let found = slot(in_force()?, hash.finish(len as u32))?;
    // The frame anew, so that the verifier forgets how far the hash has looked.
    if found.set == 0 || !same(Frame::of(ctx).cursor(at), len, found, Base::get()?) {
        return Ok(0);
    }
    Ok(found.set)
}
