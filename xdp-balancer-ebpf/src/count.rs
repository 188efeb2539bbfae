//! The only way out of the program: verdict in, one count, XDP action out.

use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_TX};
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{Action, Verdict};

use crate::maps::VERDICTS;

/// Counts the verdict and tells the kernel what to do with the frame.
#[inline(always)]
pub fn finish(ctx: &XdpContext, verdict: Verdict) -> u32 {
    if let Some(count) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
        unsafe { *count += 1 };
    }
    if matches!(verdict, Verdict::Broken | Verdict::NoRoom) {
        report(ctx, verdict as u32);
    }
    match verdict.action() {
        Action::Pass => XDP_PASS,
        Action::Answer => XDP_TX,
    }
}

/// Out of line, so that logging costs the common ways nothing.
#[cold]
#[inline(never)]
fn report(ctx: &XdpContext, verdict: u32) {
    let (interface, len) = (ctx.ingress_ifindex() as u32, (ctx.data_end() - ctx.data()) as u32);
    if verdict == Verdict::Broken as u32 {
        aya_log_ebpf::error!(ctx, "broken table met by a frame of {} bytes on interface {}", len, interface);
    } else {
        aya_log_ebpf::warn!(ctx, "no room for an answer to a frame of {} bytes on interface {}", len, interface);
    }
}
