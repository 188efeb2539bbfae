//! The only way out of the program: verdict in, one count, XDP action out.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::object::TAIL_TRANSIT;
use xdp_balancer_common::{Action, Verdict};

use crate::cost;
use crate::maps::{TAILS, VERDICTS};

/// Counts an answer (by its verdict's index) and sends the frame back out.
#[inline(always)]
pub fn answered(verdict: u32) -> u32 {
    add(verdict);
    XDP_TX
}

/// Counts the reason, and lets the frame go on or ends it.
#[inline(always)]
pub fn unanswered(ctx: &XdpContext, verdict: Verdict) -> u32 {
    add(verdict as u32);
    if matches!(verdict, Verdict::Reply) {
        // Comes back where replies in transit are not rewritten.
        // SAFETY: the program in the slot is one of ours and takes the frame as it is.
        unsafe { TAILS.tail_call(ctx, TAIL_TRANSIT) };
    }
    // All that follow are rare or end the frame: one comparison for the rest.
    if (verdict as u32) < Verdict::NoRoom as u32 {
        return XDP_PASS;
    }
    if matches!(verdict.action(), Action::Drop) {
        return XDP_DROP;
    }
    selvedge_report(ctx.ctx, verdict as u32);
    XDP_PASS
}

#[inline(always)]
fn add(verdict: u32) {
    if let Some(count) = VERDICTS.get_ptr_mut(verdict) {
        // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
        unsafe { *count += 1 };
    }
    cost::end();
}

/// Says what should not happen. A function of its own for the kernel too: its verifier walks it once, not once for
/// each way that leads here. Not marked as cold: that would put it into a section of its own, where the loader takes it
/// for another function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_report(ctx: *mut xdp_md, verdict: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let (interface, len) = (ctx.ingress_ifindex() as u32, (ctx.data_end() - ctx.data()) as u32);
    if verdict == Verdict::Broken as u32 {
        aya_log_ebpf::error!(&ctx, "broken table met by a frame of {} bytes on interface {}", len, interface);
    } else {
        aya_log_ebpf::warn!(&ctx, "no room for an answer to a frame of {} bytes on interface {}", len, interface);
    }
    0
}
