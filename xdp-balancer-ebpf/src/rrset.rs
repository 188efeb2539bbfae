//! From a name's set to the answer whose turn it is: the RRset of a type, and the choice within it.

use xdp_balancer_common::{Choice, GRAIN, Rrset, TYPE_SLOTS, TypeSet, TypeSlot, Verdict};

use crate::maps::CURSORS;
use crate::packet::load;
use crate::pool::Base;

const TYPE_OPT: u16 = 41;
/// Types that ask for something else than data of a type (RFC 6895, 3.1).
const FIRST_META: u16 = 128;
const LAST_META: u16 = 255;

/// Whether it asks for something else than data of a type.
#[inline(always)]
pub fn is_meta(qtype: u16) -> bool {
    let qtype = u16::from_be(qtype);
    qtype == TYPE_OPT || (FIRST_META..=LAST_META).contains(&qtype)
}

/// The RRset of a type, or the one that says that there is none.
#[inline(always)]
pub fn of_type(set: &TypeSet, qtype: u16) -> Result<u32, Verdict> {
    let first = set as *const TypeSet as usize + size_of::<TypeSet>();
    let mut i = 0;
    while i < TYPE_SLOTS {
        if i >= usize::from(set.types) {
            break;
        }
        // SAFETY: inside the pool.
        let held = unsafe { &*((first + i * size_of::<TypeSlot>()) as *const TypeSlot) };
        if held.qtype == qtype {
            return Ok(held.rrset);
        }
        i += 1;
    }
    if set.others == 0 || is_meta(qtype) { Err(Verdict::UnknownType) } else { Ok(set.others) }
}

/// Where in the pool the answer is whose turn it is. The client's turn is asked for only where it counts.
#[inline(always)]
pub fn select(rrset: u32, pool: Base, client_turn: impl FnOnce() -> Result<u16, Verdict>) -> Result<usize, Verdict> {
    let rrset = pool.grain(rrset) as *const Rrset;
    // SAFETY: inside the pool. Volatile: user space stores the word while we run, and it has to be
    // read exactly once.
    let ring = unsafe { (&raw const (*rrset).word).read_volatile() };
    let first = ring.first() as usize * GRAIN;
    let turn = match ring.choice() {
        None => return Err(Verdict::NoBackend),
        Some(Choice::Single) => return Ok(first),
        Some(Choice::RoundRobin) => {
            // SAFETY: inside the pool.
            let cursor = CURSORS.get_ptr_mut(unsafe { (*rrset).cursor }).ok_or(Verdict::Broken)?;
            // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
            unsafe {
                // Not a remainder: a division costs more than the lookups, and a shrunk ring starts over.
                let position = if *cursor < u32::from(ring.len()) { *cursor } else { 0 };
                *cursor = position + 1;
                position
            }
        }
        Some(Choice::Client) => {
            let turn = client_turn()?;
            if turn >= ring.len() {
                return Err(Verdict::Broken);
            }
            turn.into()
        }
    };
    // SAFETY: inside the pool.
    Ok(unsafe { load::<u32>(pool.byte(first + turn as usize * size_of::<u32>())) } as usize * GRAIN)
}
