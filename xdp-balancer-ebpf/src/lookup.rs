//! From a question to the answer in force: name, type, ring, round robin. Counts the service's query.

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{
    ANSWER_BYTES, Answer, Cell, MAX_UNITS, ServiceCount, TYPE_SLOTS, TypeSet, UNIT_CHUNKS, Verdict, first_bucket,
    keep_bytes, same_chunk, second_bucket,
};

use crate::family::Family;
use crate::maps::{ANSWERS, CURSORS, ENTRIES, RRSETS, SERVICES, SETS, TABLE};
use crate::packet::{Frame, opaque, unlinked};
use crate::parse::DNS;
use crate::question::Question;

/// An answer to give.
pub struct Found {
    /// The rendered records.
    pub answer: &'static Answer,
    /// Their length, at most [`ANSWER_BYTES`].
    pub answer_len: usize,
    service: *mut ServiceCount,
}

impl Found {
    /// Counts the answer for its service.
    #[inline(always)]
    pub fn count_answered(&self) {
        // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
        unsafe { (*self.service).answered += 1 };
    }
}

/// Finds what to answer.
#[inline(always)]
pub fn find<F: Family>(ctx: &XdpContext, question: &Question) -> Result<Found, Verdict> {
    let cell = cell_of(question.hash)?;
    let entry = cell.unit().ok_or(Verdict::UnknownName)?;
    if !same_name::<F>(Frame::of(ctx), question.name_len, entry) {
        return Err(Verdict::UnknownName);
    }

    let set = SETS.get(cell.set()).ok_or(Verdict::Broken)?;
    let service = SERVICES.get_ptr_mut(set.service).ok_or(Verdict::Broken)?;
    // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
    unsafe { (*service).queries += 1 };

    let answer = select(rrset_of(set, question.qtype)?)?;
    let answer_len = usize::from(answer.len);
    if answer_len > ANSWER_BYTES {
        return Err(Verdict::Broken);
    }
    Ok(Found { answer, answer_len: opaque(answer_len), service })
}

/// The cell of a name with this hash. Part of the hash is compared here, the name after that. The cell has
/// the set too, so that the processor can fetch what follows from it while the name is still compared.
#[inline(always)]
fn cell_of(hash: u64) -> Result<Cell, Verdict> {
    let names = TABLE.get(0).ok_or(Verdict::Broken)?;
    let first = names.get(first_bucket(hash)).ok_or(Verdict::Broken)?;
    let cell = first.find(hash);
    if cell != Cell::EMPTY {
        return Ok(cell);
    }
    let second = names.get(second_bucket(hash)).ok_or(Verdict::Broken)?;
    Ok(second.find(hash))
}

/// Compares the question's name with a stored one: every byte, letters in either case.
#[inline(always)]
fn same_name<F: Family>(frame: Frame, name_len: usize, entry: u32) -> bool {
    let mut cursor = frame.cursor(F::DNS + DNS);
    let mut left = unlinked::<0xff>(name_len);
    let mut unit = 0;
    while unit < MAX_UNITS as u32 {
        let Some(stored) = ENTRIES.get(entry + unit) else { return false };
        let mut i = 0;
        while i < UNIT_CHUNKS {
            let Some(chunk) = cursor.chunk() else { return false };
            if left <= 8 {
                // With the bytes behind the name masked, this is a zero byte at the same place too.
                return same_chunk(chunk & keep_bytes(left as u32), stored.0[i]);
            }
            if !same_chunk(chunk, stored.0[i]) {
                return false;
            }
            left -= 8;
            cursor.at += 8;
            i += 1;
        }
        unit += 1;
    }
    false
}

#[inline(always)]
fn rrset_of(set: &TypeSet, qtype: u16) -> Result<u32, Verdict> {
    // Zero is no type and marks unused slots.
    if qtype == 0 {
        return Err(Verdict::UnknownType);
    }
    let mut i = 0;
    while i < TYPE_SLOTS {
        if set.types[i].qtype == qtype {
            return Ok(set.types[i].rrset);
        }
        i += 1;
    }
    Err(Verdict::UnknownType)
}

/// The next answer of the ring on this CPU.
#[inline(always)]
fn select(rrset: u32) -> Result<&'static Answer, Verdict> {
    let word = RRSETS.get_ptr(rrset).ok_or(Verdict::Broken)?;
    // SAFETY: a live map element. Volatile: user space stores the word while we run, and it has to be
    // read exactly once.
    let ring = unsafe { word.read_volatile() };
    if ring.is_empty() {
        return Err(Verdict::NoBackend);
    }
    let cursor = CURSORS.get_ptr_mut(rrset).ok_or(Verdict::Broken)?;
    // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
    let position = unsafe {
        // Not a remainder: a division costs more than the lookups, and a shrunk ring starts over.
        let position = if *cursor < u32::from(ring.len()) { *cursor } else { 0 };
        *cursor = position + 1;
        position
    };
    ANSWERS.get(ring.first() + position).ok_or(Verdict::Broken)
}
