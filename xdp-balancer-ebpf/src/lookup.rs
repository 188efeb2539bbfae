//! From a question to the answer in force: name, type, RRset, turn. Counts the service's query.

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{
    ANSWER_BYTES, AnswerHead, Choice, GRAIN, POOL_BYTES, Rrset, ServiceCount, TYPE_SLOTS, TypeSet, TypeSlot, Verdict,
};

use crate::family::Family;
use crate::maps::{CURSORS, SERVICES};
use crate::names::{closest_encloser, in_force, same, slot};
use crate::packet::{Frame, load, opaque};
use crate::parse::{DNS, Message, headers};
use crate::pool::Base;
use crate::question::Question;

const TYPE_OPT: u16 = 41;
/// Types that ask for something else than data of a type (RFC 6895, 3.1).
const FIRST_META: u16 = 128;
const LAST_META: u16 = 255;

/// An answer to give.
pub struct Found {
    /// Its head.
    pub head: AnswerHead,
    /// Length of its records, at most [`ANSWER_BYTES`].
    pub len: usize,
    /// Where in the pool they begin.
    pub records: usize,
    /// What is said with it, as an index.
    pub verdict: u32,
    /// The service that the name belongs to.
    service: *mut ServiceCount,
    /// How often the answer counts for it: once, or, where there is no such name, not at all.
    counts: u64,
}

impl Found {
    /// Counts the answer for its service.
    #[inline(always)]
    pub fn count_answered(&self) {
        // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
        unsafe { (*self.service).answered += self.counts };
    }
}

/// Finds what to answer.
#[inline(always)]
pub fn find<F: Family>(ctx: &XdpContext, message: &Message, question: &Question, pool: Base) -> Result<Found, Verdict> {
    let found = slot(in_force()?, question.hash)?;
    let start = message.link + F::DNS + DNS;
    let (mut set, mut denied) = (found.set, 0);
    if set == 0 || !same(Frame::of(ctx).cursor(start), question.name_len, found, pool) {
        set = closest_encloser(ctx, start, question.name_len);
        if set == 0 {
            return Err(Verdict::UnknownName);
        }
        // SAFETY: inside the pool, and any bytes are a set.
        let encloser = unsafe { &*(pool.grain(set) as *const TypeSet) };
        match encloser.below_kind {
            TypeSet::BELOW_DENIED => denied = encloser.below,
            TypeSet::BELOW_WILDCARD => set = encloser.below,
            _ => return Err(Verdict::UnknownType),
        }
    }
    // SAFETY: as above.
    let held = unsafe { &*(pool.grain(set) as *const TypeSet) };
    let service = SERVICES.get_ptr_mut(held.service).ok_or(Verdict::Broken)?;
    // A name that does not exist is no service's.
    let counts = u64::from(denied == 0);
    // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
    unsafe { (*service).queries += counts };
    let (rrset, verdict) = of_type(held, denied, question.qtype)?;
    let at = select::<F>(ctx, message, rrset, pool)?;
    // SAFETY: inside the pool, and any bytes are a head.
    let head = unsafe { load::<AnswerHead>(pool.byte(at)) };
    let len = usize::from(head.len);
    if len > ANSWER_BYTES {
        return Err(Verdict::Broken);
    }
    // Whatever is said, it is one way for the verifier.
    let frame = Frame::of(ctx);
    let verdict = frame.blurred::<ANSWERS_MASK>(verdict as usize) as u32;
    let counts = frame.blurred::<1>(counts as usize) as u64;
    let records = frame.blurred::<{ POOL_BYTES - 1 }>(at + size_of::<AnswerHead>());
    Ok(Found { head, len: opaque(len), records, verdict, service, counts })
}

/// Bounds the verdicts that are answers.
const ANSWERS_MASK: usize = 3;
const _: () =
    assert!(Verdict::Answered as usize | Verdict::NoData as usize | Verdict::NxDomain as usize <= ANSWERS_MASK);

/// The RRset of a type, or the one that says that there is none: no such type, or (`denied`, if not 0) no such name.
#[inline(always)]
fn of_type(set: &TypeSet, denied: u32, qtype: u16) -> Result<(u32, Verdict), Verdict> {
    let first = set as *const TypeSet as usize + size_of::<TypeSet>();
    let mut i = 0;
    while i < TYPE_SLOTS {
        if i >= usize::from(set.types) || denied != 0 {
            break;
        }
        // SAFETY: inside the pool.
        let held = unsafe { &*((first + i * size_of::<TypeSlot>()) as *const TypeSlot) };
        if held.qtype == qtype {
            return Ok((held.rrset, Verdict::Answered));
        }
        i += 1;
    }
    let qtype = u16::from_be(qtype);
    if qtype == TYPE_OPT || (FIRST_META..=LAST_META).contains(&qtype) {
        return Err(Verdict::UnknownType);
    }
    if denied != 0 {
        return Ok((denied, Verdict::NxDomain));
    }
    if set.others == 0 {
        return Err(Verdict::UnknownType);
    }
    Ok((set.others, Verdict::NoData))
}

/// Where in the pool the answer is whose turn it is.
#[inline(always)]
fn select<F: Family>(ctx: &XdpContext, message: &Message, rrset: u32, pool: Base) -> Result<usize, Verdict> {
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
            let ip = headers::<F>(Frame::of(ctx).cursor(message.link))?;
            // SAFETY: taken above.
            let turn = unsafe { F::client_turn(ip) };
            if turn >= ring.len() {
                return Err(Verdict::Broken);
            }
            turn.into()
        }
    };
    // SAFETY: inside the pool.
    Ok(unsafe { load::<u32>(pool.byte(first + turn as usize * size_of::<u32>())) } as usize * GRAIN)
}
