//! From a question to the answer in force: name, type, ring, round robin. Counts the service's query.

use xdp_balancer_common::{
    ANSWER_BYTES, Answer, NAME_CHUNKS, NameEntry, ServiceCount, TYPE_SLOTS, Verdict, keep_bytes,
};

use crate::family::Family;
use crate::maps::{ANSWERS, CURSORS, RRSETS, SERVICES, TABLE};
use crate::packet::{Frame, opaque};
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
pub fn find<F: Family>(frame: Frame, question: &Question) -> Result<Found, Verdict> {
    let names = TABLE.get(0).ok_or(Verdict::Broken)?;
    // SAFETY: entries of a table in force are not written, and the table lives as long as we run.
    let entry = unsafe { names.get(question.hash) }.ok_or(Verdict::UnknownName)?;
    if entry.wire_len as usize != question.name_len || !same_name::<F>(frame, question.name_len, entry) {
        return Err(Verdict::UnknownName);
    }

    let service = SERVICES.get_ptr_mut(entry.service).ok_or(Verdict::Broken)?;
    // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
    unsafe { (*service).queries += 1 };

    let answer = select(rrset_of(entry, question.qtype)?)?;
    let answer_len = usize::from(answer.len);
    if answer_len > ANSWER_BYTES {
        return Err(Verdict::Broken);
    }
    Ok(Found { answer, answer_len: opaque(answer_len), service })
}

/// Compares the question's name with a stored one: every byte, letters in either case.
#[inline(always)]
fn same_name<F: Family>(frame: Frame, name_len: usize, entry: &NameEntry) -> bool {
    let mut cursor = frame.cursor(F::DNS + DNS);
    let mut left = name_len;
    let mut i = 0;
    while i < NAME_CHUNKS {
        let Some(chunk) = cursor.chunk() else { return false };
        let stored = &entry.chunks[i];
        if left <= 8 {
            return (chunk & keep_bytes(left as u32)) | stored.case == stored.text;
        }
        if chunk | stored.case != stored.text {
            return false;
        }
        left -= 8;
        cursor.at += 8;
        i += 1;
    }
    false
}

#[inline(always)]
fn rrset_of(entry: &NameEntry, qtype: u16) -> Result<u32, Verdict> {
    // Zero is no type and marks unused slots.
    if qtype == 0 {
        return Err(Verdict::UnknownType);
    }
    let mut i = 0;
    while i < TYPE_SLOTS {
        if entry.types[i].qtype == qtype {
            return Ok(entry.types[i].rrset);
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
