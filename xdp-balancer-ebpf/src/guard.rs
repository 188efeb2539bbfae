//! Limits, lists, stale tables and noted queries: what is looked at only where some of it is on. One look at the
//! features tells; all behind it are functions of their own for the kernel too, which its verifier walks once, whoever
//! calls them, and of whose results it knows nothing, so that the ways through the program stay as they are.

use core::arch::asm;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{
    Admission, AnswerHead, BUCKET_SETS, BUCKETS_OF_SET, Bucket, CLIENT_COOKIE, GRAIN, Guard, LIST_ALLOW, LIST_DENY,
    ListKey, NOTED_NAME_BYTES, NotedName, REFUSED_AT, Rate, SERVER_COOKIE, SLIPPED_AT, ServiceCount, UNPROVEN_AT,
    Verdict, bucket_set, client_key_v4, client_key_v6, cookie_head,
};

use crate::age::is_stale;
use crate::cookie::selvedge_cookie_hash;
use crate::cost;
use crate::family::{Family, V4, V6};
use crate::maps::{BUCKETS, CEILINGS, LISTS, TOP_CLIENTS, TOP_NAMES, VERDICTS};
use crate::packet::{Frame, load, unlinked};
use crate::parse::{DNS, LINK_MASK, Message, UDP, headers};
use crate::pool::Base;
use crate::question::{Question, TYPE_CLASS};

/// Bounds an offset of a cookie.
const COOKIE_MASK: usize = 0x3ff;
/// How long a server's cookie is good, and how far ahead its clock may be (RFC 9018, 4.3), seconds.
const COOKIE_AGE: u32 = 3600;
const COOKIE_AHEAD: u32 = 300;
/// What [`selvedge_limit`] says instead of an offset, all of which are multiples of a grain.
const OVER_CLIENT: u64 = 1;
const OVER_CEILING: u64 = 2;

/// What is looked at before the question is. So early that the verifier knows little that it would have to compare.
#[inline(always)]
pub fn enter<F: Family>(ctx: &XdpContext, message: &Message) -> Result<(), Verdict> {
    if message.pool.root().guard.features & Guard::BEFORE == 0 {
        return Ok(());
    }
    let verdict = selvedge_enter(ctx.ctx, place::<F>(message));
    if verdict == Verdict::Denied as u64 {
        return Err(Verdict::Denied);
    }
    if verdict == Verdict::Stale as u64 {
        return Err(Verdict::Stale);
    }
    Ok(())
}

/// Which answer is given where this one, by its offset in the pool, was found: this one, or one without records.
#[inline(always)]
pub fn limit<F: Family>(
    ctx: &XdpContext,
    message: &Message,
    question: &Question,
    service: *mut ServiceCount,
    index: u16,
    found: usize,
) -> Result<usize, Verdict> {
    if message.pool.root().guard.features & Guard::BEHIND == 0 {
        return Ok(found);
    }
    let bare = UDP + DNS + question.name_len + TYPE_CLASS + question.own_opt;
    let place = place::<F>(message) | u64::from(index) << 16;
    let sizes = bare as u64 | (message.udp_len as u64) << 16 | (question.cookie_at as u64) << 32;
    let given = selvedge_limit(ctx.ctx, found as u64, place, sizes);
    if given == OVER_CLIENT || given == OVER_CEILING {
        // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
        unsafe { (*service).limited += 1 };
        return Err(if given == OVER_CLIENT { Verdict::Limited } else { Verdict::Ceiling });
    }
    // As an offset that was found is, so that both are one way for the verifier.
    Ok(given as usize & !(GRAIN - 1))
}

/// Where the IP header is, and of which version.
#[inline(always)]
fn place<F: Family>(message: &Message) -> u64 {
    place_of(message.link, !F::CHECKSUM_OPTIONAL)
}

/// The same of what [`parse::network`](crate::parse::network) found.
#[inline(always)]
pub fn place_of(ip: usize, v6: bool) -> u64 {
    ip as u64 | u64::from(v6) << 8
}

/// See [`enter`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_enter(ctx: *mut xdp_md, place: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Ok(pool) = Base::get() else { return 0 };
    let guard = &pool.root().guard;
    let Some(client) = Client::of(&ctx, place) else { return 0 };
    // SAFETY: draws a number.
    if guard.features & Guard::SAMPLES != 0 && u64::from(unsafe { bpf_get_prandom_u32() }) & guard.sample_mask == 0 {
        note(&ctx, place, client.key(guard));
    }
    if guard.features & Guard::COSTS != 0 {
        cost::begin(guard);
    }
    if guard.features & Guard::STALE_PASSES != 0 && is_stale(pool) {
        return Verdict::Stale as u64;
    }
    let denies = Guard::LISTS | Guard::DENY_DROPS;
    if guard.features & denies == denies && client.listed() == LIST_DENY {
        return Verdict::Denied as u64;
    }
    0
}

/// Counts a query for its client's prefix and its name.
#[inline(always)]
fn note(ctx: &XdpContext, place: u64, key: u64) {
    count(&TOP_CLIENTS, key);
    let dns = if place >> 8 & 1 != 0 { V6::DNS } else { V4::DNS };
    let at = (place as usize & LINK_MASK) + dns + DNS;
    let mut name = NotedName([0; NOTED_NAME_BYTES]);
    let left = Frame::of(ctx).len().wrapping_sub(at);
    // One at least by its form: Linux 6.1 does not see it by a comparison.
    let len = if left > NOTED_NAME_BYTES {
        NOTED_NAME_BYTES
    } else {
        unlinked::<{ NOTED_NAME_BYTES - 1 }>(left.wrapping_sub(1)) + 1
    };
    // SAFETY: a buffer that is as long; the context is the kernel's.
    if unsafe { bpf_xdp_load_bytes(ctx.ctx, at as u32, name.0.as_mut_ptr().cast(), len as u32) } != 0 {
        return;
    }
    // What follows the name is not to make it another one.
    let (mut keep, mut i) = (0xff, 0);
    while i < NOTED_NAME_BYTES {
        name.0[i] &= keep;
        if name.0[i] == 0 {
            keep = 0;
        }
        i += 1;
    }
    count(&TOP_NAMES, name);
}

#[inline(always)]
fn count<K, const N: usize>(map: &aya_ebpf::btf_maps::LruHashMap<K, u64, N>, key: K) {
    match map.get_ptr_mut(&key) {
        // SAFETY: a live map element; an atomic addition.
        Some(count) => unsafe { add(count, 1) },
        None => {
            let _ = map.insert(&key, 1, 0);
        }
    }
}

/// See [`limit`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_limit(ctx: *mut xdp_md, found: u64, place: u64, sizes: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Ok(pool) = Base::get() else { return found };
    let guard = &pool.root().guard;
    let Some(client) = Client::of(&ctx, place) else { return found };
    if guard.features & Guard::LISTS != 0 {
        match client.listed() {
            LIST_ALLOW => return found,
            LIST_DENY => return REFUSED_AT as u64,
            _ => {}
        }
    }
    if guard.features & Guard::LIMITS == 0 {
        return found;
    }
    // SAFETY: reads the clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let service = (place >> 16) as u32 & 0xffff;
    let proven = (sizes >> 32) & COOKIE_MASK as u64 != 0 && is_proven(&ctx, pool, &client, sizes >> 32);
    let (bare, room) = (sizes & 0xffff, (sizes >> 16 & 0xffff).wrapping_mul(guard.amplification));
    let free = proven || guard.amplification == 0;
    let over = if !proven && guard.client.interval != 0 && !admit_client(guard, client.key(guard), now) {
        OVER_CLIENT
    } else if !(admit_at(&guard.service, service + 1, now) && admit_at(&guard.total, 0, now)) {
        OVER_CEILING
    } else {
        // SAFETY: inside the pool, and any bytes are a head.
        let records = unsafe { load::<u16>(pool.byte(found as usize)) };
        if free || bare + u64::from(records) <= room {
            return found;
        }
        return if bare <= room { UNPROVEN_AT as u64 } else { OVER_CLIENT };
    };
    if (free || bare <= room) && is_slip(guard.slip) { SLIPPED_AT as u64 } else { over }
}

const _: () = assert!(core::mem::offset_of!(AnswerHead, len) == 0);

/// Whether it is the turn of one that is told, of those over a limit: on each CPU one in `slip`.
#[inline(always)]
fn is_slip(slip: u64) -> bool {
    if slip == 0 {
        return false;
    }
    let mut met = 1;
    let mut i = 0;
    while i < LIMITED.len() {
        // SAFETY: a live map element of this CPU.
        met += VERDICTS.get_ptr_mut(LIMITED[i] as u32).map_or(0, |count| unsafe { *count });
        i += 1;
    }
    met % slip == 0
}

const LIMITED: [Verdict; 3] = [Verdict::Slipped, Verdict::Limited, Verdict::Ceiling];

/// Asks the bucket of a prefix.
#[inline(always)]
fn admit_client(guard: &Guard, key: u64, now: u64) -> bool {
    let Some(set) = BUCKETS.get_ptr_mut(bucket_set(key, guard.secret, BUCKET_SETS)) else { return true };
    let first = set as usize;
    let (mut soonest, mut soonest_at) = (first, u64::MAX);
    let mut i = 0;
    while i < BUCKETS_OF_SET {
        let at = first + i * size_of::<Bucket>();
        // SAFETY: a live map element of four buckets.
        let bucket = unsafe { load::<Bucket>(at) };
        if bucket.key == key {
            // SAFETY: the word of this bucket.
            return unsafe { admit(&guard.client, (at + FULL_AT) as *mut u64, now) };
        }
        if bucket.full_at < soonest_at {
            (soonest, soonest_at) = (at, bucket.full_at);
        }
        i += 1;
    }
    // SAFETY: the words of a bucket. Who else takes it now gets its own answer, and one of both is forgotten.
    unsafe {
        *((soonest + FULL_AT) as *mut u64) = now + guard.client.interval;
        *(soonest as *mut u64) = key;
    }
    true
}

const FULL_AT: usize = core::mem::offset_of!(Bucket, full_at);
const _: () = assert!(core::mem::offset_of!(Bucket, key) == 0);

/// Asks the bucket of a service or of everything.
#[inline(always)]
fn admit_at(rate: &Rate, index: u32, now: u64) -> bool {
    if rate.interval == 0 {
        return true;
    }
    // SAFETY: a live map element.
    CEILINGS.get_ptr_mut(index).is_none_or(|full_at| unsafe { admit(rate, full_at, now) })
}

/// Asks a bucket and keeps what it says.
///
/// # Safety
/// `full_at` can be written.
#[inline(always)]
pub unsafe fn admit(rate: &Rate, full_at: *mut u64, now: u64) -> bool {
    // SAFETY: see above. Volatile: other CPUs write it.
    match rate.ask(unsafe { full_at.read_volatile() }, now) {
        // SAFETY: see above.
        Admission::Set(at) => unsafe { full_at.write_volatile(at) },
        // SAFETY: see above.
        Admission::Add(more) => unsafe { add(full_at, more) },
        Admission::Over => return false,
    }
    true
}

/// Adds, whoever else does.
///
/// # Safety
/// `word` can be written.
#[inline(always)]
unsafe fn add(word: *mut u64, more: u64) {
    // SAFETY: see above.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) more, options(nostack)) };
}

/// Who asks.
pub struct Client {
    v6: bool,
    /// Its address as it stands in the packet.
    address: [u64; 2],
    /// The same, IPv4 as IPv6 maps it.
    pub mapped: [u32; 4],
}

impl Client {
    /// The sender of a packet, whose IP header is at that place.
    #[inline(always)]
    pub fn of(ctx: &XdpContext, place: u64) -> Option<Self> {
        let v6 = place >> 8 & 1 != 0;
        let cursor = Frame::of(ctx).cursor(place as usize & LINK_MASK);
        if v6 {
            let ip = headers::<V6>(cursor).ok()?;
            // SAFETY: stepped over above.
            unsafe { Some(Self { v6, address: V6::sender(ip), mapped: V6::sender_mapped(ip) }) }
        } else {
            let ip = headers::<V4>(cursor).ok()?;
            // SAFETY: stepped over above.
            unsafe { Some(Self { v6, address: V4::sender(ip), mapped: V4::sender_mapped(ip) }) }
        }
    }

    /// Its prefix.
    #[inline(always)]
    fn key(&self, guard: &Guard) -> u64 {
        if self.v6 {
            client_key_v6(self.address[0], guard.mask_v6)
        } else {
            client_key_v4(self.mapped[3], guard.mask_v4)
        }
    }

    /// What it is in the lists; 0: in none.
    #[inline(always)]
    fn listed(&self) -> u32 {
        LISTS.get(&Key::new(ListKey::FULL, self.mapped)).copied().unwrap_or(0)
    }
}

/// Whether the query has a cookie of this server, for its client and not too old.
#[inline(always)]
fn is_proven(ctx: &XdpContext, pool: Base, client: &Client, cookie_at: u64) -> bool {
    // From the option's length on.
    let cursor = &mut Frame::of(ctx).cursor((cookie_at as usize & COOKIE_MASK).wrapping_sub(2) & COOKIE_MASK);
    let Ok(at) = cursor.step::<{ 2 + CLIENT_COOKIE + SERVER_COOKIE }>() else { return false };
    // SAFETY: stepped over above.
    let (len, cookie) = unsafe { (load::<u16>(at), load::<[u64; 3]>(at + 2)) };
    if usize::from(u16::from_be(len)) != CLIENT_COOKIE + SERVER_COOKIE {
        return false;
    }
    let made = made_at(cookie[1]);
    let now = pool.root().clock as u32;
    if now.wrapping_sub(made) > COOKIE_AGE && made.wrapping_sub(now) > COOKIE_AHEAD || cookie[1] != cookie_head(made) {
        return false;
    }
    let [high, low] = client.address;
    selvedge_cookie_hash(cookie[0], high, low, u64::from(made) << 1 | u64::from(!client.v6)) == cookie[2]
}

/// The time in a server's cookie's head.
#[inline(always)]
fn made_at(head: u64) -> u32 {
    let [.., a, b, c, d] = head.to_ne_bytes();
    u32::from_be_bytes([a, b, c, d])
}
