//! The records of a reply: addresses of our names are replaced.

use xdp_balancer_common::{
    AnswerHead, MAX_TRANSIT_RECORDS, ServiceCount, TransitVerdict as Verdict, TypeSet, Verdict as Answer, ZONE_SERVICE,
};

use super::names::{self, Name};
use super::{DNS, LENGTH_MASK, Scratch};
use crate::checksum::{Sum, at_offset, fold};
use crate::maps::SERVICES;
use crate::packet::{load, unlinked};
use crate::parse::DNS_ONE;
use crate::pool::Base;
use crate::rrset::{of_type, select};

/// Response, opcode and RCODE.
const DNS_KIND: u16 = 0xf80f_u16.to_be();
const DNS_RESPONSE: u16 = 0x8000_u16.to_be();
const DNS_TC: u16 = 0x0200_u16.to_be();
const DNS_AD: u16 = 0x0020_u16.to_be();
const CLASS_IN: u16 = 1_u16.to_be();
const TYPE_A: u16 = 1_u16.to_be();
const TYPE_AAAA: u16 = 28_u16.to_be();
const TYPE_RRSIG: u16 = 46_u16.to_be();
/// Type, class, TTL and length of a record.
const FIXED: usize = 10;
/// Bytes of a record of ours before its address: the pointer to the question's name, and these.
const OWN_HEAD: usize = 2 + FIXED;
/// What our records begin with.
const OWN_POINTER: u16 = 0xc00c_u16.to_be();

/// Set in an outcome that is a verdict; else it is the change of the sum.
const PASSED: u64 = 1 << 32;

/// The change of the datagram's sum.
#[inline(always)]
pub fn changed(outcome: u64) -> Result<u16, Verdict> {
    if outcome & PASSED == 0 { Ok(outcome as u16) } else { Err(verdict(outcome as u32)) }
}

/// The verdict of an index.
#[inline(always)]
fn verdict(index: u32) -> Verdict {
    match index {
        x if x == Verdict::OddHeader as u32 => Verdict::OddHeader,
        x if x == Verdict::Truncated as u32 => Verdict::Truncated,
        x if x == Verdict::NoAnswer as u32 => Verdict::NoAnswer,
        x if x == Verdict::TooMany as u32 => Verdict::TooMany,
        x if x == Verdict::Signed as u32 => Verdict::Signed,
        x if x == Verdict::OddName as u32 => Verdict::OddName,
        x if x == Verdict::OddRecord as u32 => Verdict::OddRecord,
        x if x == Verdict::NotOurs as u32 => Verdict::NotOurs,
        x if x == Verdict::NoInstance as u32 => Verdict::NoInstance,
        _ => Verdict::Broken,
    }
}

/// What goes on from record to record: in memory, where the verifier does not follow it.
#[repr(C)]
pub struct Progress {
    /// By what the datagram's sum has changed.
    sum: Sum,
    /// Where addresses come from: the RRset, the offset in the pool of the answer whose turn it is, and how many of its
    /// records were given.
    rrset: u32,
    answer: u32,
    given: u32,
    /// Whose name was met last.
    service: u32,
    /// Records to be rewritten.
    count: u32,
    places: [Place; MAX_TRANSIT_RECORDS],
}

/// A record to be rewritten, once all names are read: a later one may point into it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    /// Offset of its fixed part.
    fixed: u32,
    /// Offset in the pool of the record of ours whose address it gets.
    record: u32,
}

/// Rewrites the copied message between `dns` and `end` for a client with this turn. Until a verdict says otherwise the
/// copy may be half rewritten: it is thrown away then.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn selvedge_transit_records(dns: u64, end: u64, turn: u64) -> u64 {
    let (dns, end) = (dns as usize & LENGTH_MASK, end as usize & LENGTH_MASK);
    match rewrite(dns, end, turn) {
        Ok(changed) => changed.into(),
        Err(verdict) => PASSED | verdict as u64,
    }
}

#[inline(always)]
fn rewrite(dns: usize, end: usize, turn: u64) -> Result<u16, Verdict> {
    let scratch = Scratch::get()?;
    let flags = scratch.load::<u16>(dns + 2);
    if flags & DNS_KIND != DNS_RESPONSE || scratch.load::<u16>(dns + 4) != DNS_ONE {
        return Err(Verdict::OddHeader);
    }
    if flags & DNS_TC != 0 {
        return Err(Verdict::Truncated);
    }
    if flags & DNS_AD != 0 {
        return Err(Verdict::Signed);
    }
    let records = usize::from(u16::from_be(scratch.load::<u16>(dns + 6)));
    if records == 0 {
        return Err(Verdict::NoAnswer);
    }
    if records > MAX_TRANSIT_RECORDS {
        return Err(Verdict::TooMany);
    }
    scratch.progress.begin();
    let question = names::read(dns + DNS, dns, end)?;
    let mut at = unlinked::<LENGTH_MASK>(question.next + 4);
    let mut i = 0;
    while i < MAX_TRANSIT_RECORDS {
        if i >= records {
            break;
        }
        let Name { next: fixed, set } = names::read(at, dns, end)?;
        if fixed + FIXED > end {
            return Err(Verdict::OddRecord);
        }
        let len = usize::from(u16::from_be(scratch.load::<u16>(fixed + 8)));
        if fixed + FIXED + len > end {
            return Err(Verdict::OddRecord);
        }
        let outcome = selvedge_transit_record(fixed as u64, set.into(), turn);
        if outcome & PASSED != 0 {
            return Err(verdict(outcome as u32));
        }
        at = unlinked::<LENGTH_MASK>(fixed + FIXED + len);
        i += 1;
    }
    let (service, count) = (scratch.progress.service, scratch.progress.count);
    if count == 0 {
        return Err(Verdict::NotOurs);
    }
    let pool = Base::get().map_err(|_| Verdict::Broken)?;
    let mut i = 0;
    while i < MAX_TRANSIT_RECORDS {
        if i as u32 >= count {
            break;
        }
        let Place { fixed, record } = scratch.progress.places[i];
        replace(scratch, unlinked::<LENGTH_MASK>(fixed as usize), pool.byte(record as usize), dns);
        i += 1;
    }
    if let Some(count) = SERVICES.get_ptr_mut(service) {
        let count: *mut ServiceCount = count;
        // Who was told of it asked for it, wherever the question went.
        // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
        unsafe { (*count).queries += 1 };
    }
    Ok(fold(scratch.progress.sum))
}

/// Takes note of one record, of which all is there, if it is an address of ours: its fixed part stands at `fixed`, its
/// owner's set is `set`. Returns a verdict with [`PASSED`], or zero.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_transit_record(fixed: u64, set: u64, turn: u64) -> u64 {
    match take_record(fixed as usize & LENGTH_MASK, set as u32, turn as u16) {
        Ok(()) => 0,
        Err(verdict) => PASSED | verdict as u64,
    }
}

#[inline(always)]
fn take_record(fixed: usize, set: u32, turn: u16) -> Result<(), Verdict> {
    let scratch = Scratch::get()?;
    let kind = scratch.load::<u16>(fixed);
    if kind == TYPE_RRSIG {
        return Err(Verdict::Signed);
    }
    let wanted = match kind {
        TYPE_A => 4,
        TYPE_AAAA => 16,
        _ => return Ok(()),
    };
    if set == 0 || scratch.load::<u16>(fixed + 2) != CLASS_IN {
        return Ok(());
    }
    let pool = Base::get().map_err(|_| Verdict::Broken)?;
    // SAFETY: inside the pool, and any bytes are a set.
    let held = unsafe { &*(pool.grain(set) as *const TypeSet) };
    if held.service == ZONE_SERVICE {
        return Ok(());
    }
    if scratch.load::<u16>(fixed + 8) != u16::to_be(wanted) {
        return Err(Verdict::OddRecord);
    }
    let rrset = of_type(held, kind).map_err(|_| Verdict::NoInstance)?;
    let progress = &mut scratch.progress;
    let record = progress.next(pool, rrset, kind, turn)?;
    let place = Place { fixed: fixed as u32, record: record as u32 };
    // Not more than there are records.
    *progress.places.get_mut(unlinked::<0x1f>(progress.count as usize)).ok_or(Verdict::Broken)? = place;
    progress.count += 1;
    progress.service = held.service.into();
    Ok(())
}

const _: () = assert!(MAX_TRANSIT_RECORDS == 0x20);

impl Progress {
    #[inline(always)]
    fn begin(&mut self) {
        self.sum = Sum::ZERO;
        (self.rrset, self.answer, self.given) = (0, 0, 0);
        (self.service, self.count) = (ZONE_SERVICE.into(), 0);
    }

    /// Offset in the pool of the next record of ours: of the answer whose turn it is, then of the one after it.
    #[inline(always)]
    fn next(&mut self, pool: Base, rrset: u32, kind: u16, turn: u16) -> Result<usize, Verdict> {
        if self.rrset != rrset || self.given >= records_of(pool, self.answer) {
            let answer = select(rrset, pool, || Ok(turn)).map_err(|verdict| match verdict {
                Answer::NoBackend => Verdict::NoInstance,
                _ => Verdict::Broken,
            })?;
            (self.rrset, self.answer, self.given) = (rrset, answer as u32, 0);
        }
        // All records of an answer are alike.
        let step = if kind == TYPE_A { OWN_HEAD + 4 } else { OWN_HEAD + 16 };
        let before = unlinked::<0x1f>(self.given as usize) * step;
        let record = self.answer as usize + size_of::<AnswerHead>() + before;
        let at = pool.byte(record);
        // SAFETY: inside the pool, whose margin is longer than a record.
        let (pointer, own_kind) = unsafe { (load::<u16>(at), load::<u16>(at + 2)) };
        if records_of(pool, self.answer) == 0 || pointer != OWN_POINTER || own_kind != kind {
            return Err(Verdict::NoInstance);
        }
        self.given += 1;
        Ok(record)
    }
}

/// Records of the answer at an offset of the pool that can be given.
#[inline(always)]
fn records_of(pool: Base, answer: u32) -> u32 {
    // SAFETY: inside the pool, and any bytes are a head.
    let head = unsafe { &*(pool.byte(answer as usize) as *const AnswerHead) };
    let count = u32::from(u16::from_be(head.ancount));
    if count < MAX_TRANSIT_RECORDS as u32 { count } else { MAX_TRANSIT_RECORDS as u32 }
}

/// Puts the address of our record into the one whose fixed part stands at `fixed`, with the lower of both TTLs.
#[inline(always)]
fn replace(scratch: &mut Scratch, fixed: usize, record: usize, dns: usize) {
    let (ttl_at, address_at) = (fixed + 4, fixed + FIXED);
    // SAFETY: inside the pool, as before.
    let ours = unsafe { load::<u32>(record + 6) };
    let theirs = scratch.load::<u32>(ttl_at);
    let ttl = if u32::from_be(theirs) < u32::from_be(ours) { theirs } else { ours };
    scratch.store(ttl_at, ttl);
    let (mut old, mut new) = (Sum::ZERO.add_chunk(theirs.into()), Sum::ZERO.add_chunk(ttl.into()));
    if scratch.load::<u16>(fixed) == TYPE_A {
        // SAFETY: as above.
        let address = unsafe { load::<u32>(record + OWN_HEAD) };
        old = old.add_chunk(scratch.load::<u32>(address_at).into());
        new = new.add_chunk(address.into());
        scratch.store(address_at, address);
    } else {
        // SAFETY: as above.
        let (high, low) = unsafe { (load::<u64>(record + OWN_HEAD), load::<u64>(record + OWN_HEAD + 8)) };
        old = old.add_chunk(scratch.load::<u64>(address_at)).add_chunk(scratch.load::<u64>(address_at + 8));
        new = new.add_chunk(high).add_chunk(low);
        scratch.store(address_at, high);
        scratch.store(address_at + 8, low);
    }
    let odd = (fixed ^ dns) & 1 != 0;
    let sum = scratch.progress.sum.add(at_offset(!fold(old), odd)).add(at_offset(fold(new), odd));
    scratch.progress.sum = sum;
}
