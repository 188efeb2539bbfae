//! What user space is told of a query: kept before it is answered, told afterwards. Functions of their own for the kernel
//! too, whose verifier walks each once.

use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{
    bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_ringbuf_output, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{CAPTURE_BYTES, CAPTURE_NAME, CaptureCount, CaptureFilter, Captured};

use crate::family::{Family, V4, V6};
use crate::guard::{Client, admit, place_of};
use crate::packet::{Frame, opaque, unlinked};
use crate::parse::{DNS, network};
use crate::pool::Base;

/// Bounds an offset of a kept byte.
const MASK: usize = CAPTURE_BYTES - 1;
/// More labels than any name has.
const MAX_LABELS: usize = 128;

/// A query as it is told, and whether it is to be.
#[repr(C, align(8))]
struct Kept {
    head: Captured,
    /// The query, then its answer right behind.
    bytes: [u8; 2 * CAPTURE_BYTES],
    wanted: u64,
}

/// This CPU's.
#[btf_map]
static CAPTURE_KEPT: PerCpuArray<Kept, 1> = PerCpuArray::new();

/// What is told.
#[btf_map]
static CAPTURE_EVENTS: RingBuf<Captured, { 1 << 21 }> = RingBuf::new();

/// Of what.
#[btf_map]
static CAPTURE_FILTER: Array<CaptureFilter, 1> = Array::new();

/// When the bucket of the rate will be full again.
#[btf_map]
static CAPTURE_RATE: Array<u64, 1> = Array::new();

/// What became of the chosen queries on this CPU.
#[btf_map]
static CAPTURE_COUNTS: PerCpuArray<u64, { CaptureCount::LEN }> = PerCpuArray::new();

/// Keeps the query, if it is one to be told.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn selvedge_keep(ctx: *mut xdp_md) -> u64 {
    let (Some(kept), Ok(pool)) = (CAPTURE_KEPT.get_ptr_mut(0), Base::get()) else { return 0 };
    // SAFETY: a live map element of this CPU, as below; a program is not interrupted by itself.
    unsafe { (*kept).wanted = 0 };
    let Some(filter) = CAPTURE_FILTER.get_ptr(0) else { return 0 };
    let capture = &raw const pool.root().capture;
    // SAFETY: inside the pool; the clock.
    unsafe {
        if bpf_ktime_get_coarse_ns() > (&raw const (*capture).until).read_volatile() {
            // Whoever captured is gone without a word.
            (&raw const (*capture).rule).cast_mut().write_volatile(0);
            return 0;
        }
    }
    let xdp = XdpContext::new(ctx);
    let Ok(network) = network(Frame::of(&xdp)) else { return 0 };
    let Some(client) = Client::of(&xdp, place_of(network.ip, network.v6)) else { return 0 };
    // SAFETY: a live map element that user space writes before anything is captured.
    let filter = unsafe { &*filter };
    if !filter.client.holds(client.mapped) {
        return 0;
    }
    // SAFETY: the context is the program's own; the buffer has room for as much.
    unsafe {
        let len = bpf_xdp_get_buff_len(ctx) as usize;
        let part = part_of(len);
        if bpf_xdp_load_bytes(ctx, 0, (&raw mut (*kept).bytes).cast(), part as u32) != 0 {
            return 0;
        }
        (*kept).head = Captured {
            received: bpf_ktime_get_ns(),
            query_len: len as u32,
            query_kept: part as u32,
            interface: xdp.ingress_ifindex() as u32,
            ..Captured::default()
        };
    }
    let dns = if network.v6 { V6::DNS } else { V4::DNS };
    let name = (network.ip + dns + DNS) as u64;
    if filter.name_len != 0 && selvedge_asks_below(name, selvedge_name_end(name)) == 0 {
        return 0;
    }
    // SAFETY: see above.
    unsafe { (*kept).wanted = 1 };
    0
}

/// How much of a frame is kept: one byte at least by its form, since Linux 6.1 does not see it by a comparison.
#[inline(always)]
fn part_of(len: usize) -> usize {
    if len > CAPTURE_BYTES { CAPTURE_BYTES } else { unlinked::<MASK>(len.wrapping_sub(1)) + 1 }
}

/// The offset behind a kept name that begins there; 0: it has no end.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_name_end(start: u64) -> u64 {
    let Some(kept) = CAPTURE_KEPT.get_ptr(0) else { return 0 };
    let mut at = start as usize & MASK;
    let mut round = 0;
    while round < MAX_LABELS {
        // SAFETY: a live map element of this CPU, inside by the mask.
        let len = unsafe { byte_at(kept, at) };
        if len == 0 {
            return at as u64 + 1;
        }
        if len > 63 {
            return 0;
        }
        at = unlinked::<MASK>(at + 1 + len);
        round += 1;
    }
    0
}

/// Whether a kept name is the filter's or below it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_asks_below(start: u64, end: u64) -> u64 {
    let (Some(kept), Some(filter)) = (CAPTURE_KEPT.get_ptr(0), CAPTURE_FILTER.get_ptr(0)) else { return 0 };
    // SAFETY: live map elements, as below.
    let (filter, query_kept) = unsafe { (&*filter, u64::from((*kept).head.query_kept)) };
    if end > query_kept || end < start + filter.name_len {
        return 0;
    }
    // There a label has to begin.
    let first = (end - filter.name_len) as usize & MASK;
    let mut at = start as usize & MASK;
    let mut round = 0;
    while round < MAX_LABELS && at < first {
        // SAFETY: inside by the mask.
        at = unlinked::<MASK>(at + 1 + unsafe { byte_at(kept, at) });
        round += 1;
    }
    if at != first {
        return 0;
    }
    let mut i = 0;
    while i < CAPTURE_NAME {
        if i as u64 >= filter.name_len {
            break;
        }
        // SAFETY: inside by the mask.
        let asked = unsafe { byte_at(kept, unlinked::<MASK>(first) + i) } as u8;
        // Lengths of labels are below all letters.
        if asked.to_ascii_lowercase() != filter.name[opaque(i) & (CAPTURE_NAME - 1)] {
            return 0;
        }
        i += 1;
    }
    1
}

/// # Safety
/// `kept` is a live map element.
#[inline(always)]
unsafe fn byte_at(kept: *const Kept, at: usize) -> usize {
    // SAFETY: see above; inside by the mask.
    usize::from(unsafe { *(&raw const (*kept).bytes).cast::<u8>().add(opaque(at) & MASK) })
}

/// Tells what became of the query that was kept.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn selvedge_tell(ctx: *mut xdp_md, verdict: u32, action: u32) -> u64 {
    let (Some(kept), Some(filter)) = (CAPTURE_KEPT.get_ptr_mut(0), CAPTURE_FILTER.get_ptr(0)) else { return 0 };
    let Some(full_at) = CAPTURE_RATE.get_ptr_mut(0) else { return 0 };
    // SAFETY: live map elements; the kernel's helpers get buffers of the lengths that they are told.
    unsafe {
        if (*kept).wanted == 0 || (*filter).verdicts >> (verdict & 63) & 1 == 0 {
            return 0;
        }
        if !admit(&(*filter).rate, full_at, bpf_ktime_get_coarse_ns()) {
            return count(CaptureCount::OverRate);
        }
        let bytes = (&raw mut (*kept).bytes).cast::<u8>();
        let query = unlinked::<MASK>(((*kept).head.query_kept as usize).wrapping_sub(1)) + 1;
        let mut answer = 0;
        if action == XDP_TX {
            let len = bpf_xdp_get_buff_len(ctx) as usize;
            answer = part_of(len);
            if bpf_xdp_load_bytes(ctx, 0, bytes.add(query).cast(), answer as u32) != 0 {
                return count(CaptureCount::Lost);
            }
            (*kept).head.answer_len = len as u32;
        }
        (*kept).head.answer_kept = answer as u32;
        (*kept).head.verdict = verdict;
        (*kept).head.done = bpf_ktime_get_ns();
        let len = size_of::<Captured>() + query + answer;
        let told = bpf_ringbuf_output((&raw const CAPTURE_EVENTS).cast_mut().cast(), kept.cast(), len as u64, 0);
        count(if told == 0 { CaptureCount::Told } else { CaptureCount::Lost })
    }
}

#[inline(always)]
fn count(what: CaptureCount) -> u64 {
    if let Some(count) = CAPTURE_COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
        unsafe { *count += 1 };
    }
    0
}
