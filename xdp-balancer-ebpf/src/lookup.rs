//! From a question to the answer in force: name, type, RRset, turn. Counts the service's query.

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{
    ANSWER_BYTES, ANSWER_VERDICTS, AnswerHead, Choice, GRAIN, Rrset, ServiceCount, TYPE_SLOTS, TypeSet, TypeSlot,
    Verdict,
};

use crate::family::Family;
use crate::guard;
use crate::maps::{CURSORS, SERVICES};
use crate::names::{closest_encloser, same};
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
    /// Address of its [`AnswerHead`]; its records follow.
    pub at: usize,
    /// Length of its records, at most [`ANSWER_BYTES`].
    pub len: usize,
    /// The service that the name belongs to.
    service: *mut ServiceCount,
}

impl Found {
    /// Its head.
    #[inline(always)]
    pub fn head(&self) -> &'static AnswerHead {
        // SAFETY: inside the pool, and any bytes are a head.
        unsafe { &*(opaque(self.at) as *const AnswerHead) }
    }

    /// Address of its records.
    #[inline(always)]
    pub fn records(&self) -> usize {
        self.at + size_of::<AnswerHead>()
    }

    /// What is said with it, as an index. Counts it for the service.
    #[inline(always)]
    pub fn answered(&self) -> u32 {
        let verdict = u32::from(self.head().verdict);
        // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
        unsafe {
            // Apart, for the kernel's verifier walks an index that it does not know far longer.
            if verdict == Verdict::Answered as u32 {
                (*self.service).answers[0] += 1;
            } else {
                (*self.service).answers[verdict as usize & (ANSWER_VERDICTS - 1)] += 1;
            }
        }
        verdict
    }
}

/// Finds what to answer.
#[inline(always)]
pub fn find<F: Family>(ctx: &XdpContext, message: &Message, question: &Question) -> Result<Found, Verdict> {
    let pool = message.pool;
    let slot = question.slot;
    let start = message.link + F::DNS + DNS;
    let (mut set, mut denied) = (slot.set, 0);
    if set == 0 || !same(Frame::of(ctx), start, question.name_len, slot, pool) {
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
    let service = SERVICES.get_ptr_mut(held.service.into()).ok_or(Verdict::Broken)?;
    let rrset = if denied == 0 {
        // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
        unsafe {
            (*service).queries += 1;
            if !F::CHECKSUM_OPTIONAL {
                (*service).queries_v6 += 1;
            }
        }
        let settings = &pool.root().settings;
        if settings.quiet_lens[0] != 0 {
            let ip = headers::<F>(Frame::of(ctx).cursor(message.link))?;
            // SAFETY: the headers are inside the frame, and the counter as above.
            unsafe {
                let quiet = settings.is_quiet(settings.quiet_lens[0], F::sender_mapped(ip));
                (*service).quiet += u64::from(quiet);
            }
        }
        of_type(held, question.qtype)?
    } else {
        if is_meta(question.qtype) {
            return Err(Verdict::UnknownType);
        }
        denied
    };
    let chosen = select::<F>(ctx, message, rrset, pool)?;
    let at = pool.byte(guard::limit::<F>(ctx, message, question, service, held.service, chosen)?);
    // SAFETY: inside the pool, and any bytes are a head.
    let len = usize::from(unsafe { load::<u16>(at) });
    if len > ANSWER_BYTES {
        return Err(Verdict::Broken);
    }
    Ok(Found { at, len: opaque(len), service })
}

const _: () = assert!(core::mem::offset_of!(AnswerHead, len) == 0);

/// Whether it asks for something else than data of a type.
#[inline(always)]
fn is_meta(qtype: u16) -> bool {
    let qtype = u16::from_be(qtype);
    qtype == TYPE_OPT || (FIRST_META..=LAST_META).contains(&qtype)
}

/// The RRset of a type, or the one that says that there is none.
#[inline(always)]
fn of_type(set: &TypeSet, qtype: u16) -> Result<u32, Verdict> {
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
