//! From a question to the answer in force: name, type, RRset, turn. Counts the service's query.

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{ANSWER_BYTES, ANSWER_VERDICTS, AnswerHead, ServiceCount, TypeSet, Verdict};

use crate::family::Family;
use crate::guard;
use crate::maps::SERVICES;
use crate::names::{closest_encloser, same};
use crate::packet::{Frame, load, opaque};
use crate::parse::{DNS, Message, headers};
use crate::question::Question;
use crate::rrset::{is_meta, of_type, select};

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
    let client_turn = || {
        let ip = headers::<F>(Frame::of(ctx).cursor(message.link))?;
        // SAFETY: taken above.
        Ok(unsafe { F::client_turn(ip) })
    };
    let chosen = select(rrset, pool, client_turn)?;
    let at = pool.byte(guard::limit::<F>(ctx, message, question, service, held.service, chosen)?);
    // SAFETY: inside the pool, and any bytes are a head.
    let len = usize::from(unsafe { load::<u16>(at) });
    if len > ANSWER_BYTES {
        return Err(Verdict::Broken);
    }
    Ok(Found { at, len: opaque(len), service })
}

const _: () = assert!(core::mem::offset_of!(AnswerHead, len) == 0);
