//! The only way out of the program: verdict in, one count, XDP action out.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::object::TAIL_TRANSIT;
use xdp_balancer_common::{Action, LogLevel, Rate, Verdict};

use crate::cost;
use crate::guard;
use crate::maps::{TAILS, VERDICTS};
use crate::pool::Base;

/// Most messages in a second.
const MESSAGES: Rate = Rate::per_second(100);

/// When the bucket of messages will be full again.
#[btf_map]
static LOG_RATE: Array<u64, 1> = Array::new();

/// Counts an answer (by its verdict's index) and sends the frame back out.
#[inline(always)]
pub fn answered(verdict: u32) -> u32 {
    add(verdict);
    cost::end();
    XDP_TX
}

/// Counts the reason, and lets the frame go on or ends it.
#[inline(always)]
pub fn unanswered(ctx: &XdpContext, verdict: Verdict) -> u32 {
    add(verdict as u32);
    // What is no DNS leaves first.
    if verdict as u32 <= Verdict::NotDns as u32 {
        return XDP_PASS;
    }
    cost::end();
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
        if is_said(LogLevel::Debug) {
            selvedge_report(ctx.ctx, verdict as u32);
        }
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
}

/// Says what should not happen, and of dropped frames what became of them. A function of its own for the kernel too: its
/// verifier walks it once, not once for each way that leads here. Not marked as cold: that would put it into a section of
/// its own, where the loader takes it for another function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_report(ctx: *mut xdp_md, verdict: u32) -> u32 {
    let level = match verdict {
        verdict if verdict == Verdict::Broken as u32 => LogLevel::Error,
        verdict if verdict == Verdict::NoRoom as u32 => LogLevel::Warn,
        _ => LogLevel::Debug,
    };
    if !is_said(level) || !may_speak() {
        return 0;
    }
    let ctx = XdpContext::new(ctx);
    let (interface, len) = (ctx.ingress_ifindex() as u32, (ctx.data_end() - ctx.data()) as u32);
    if level == LogLevel::Error {
        aya_log_ebpf::error!(&ctx, "broken table met by a frame of {} bytes on interface {}", len, interface);
    } else if level == LogLevel::Warn {
        aya_log_ebpf::warn!(&ctx, "no room for an answer to a frame of {} bytes on interface {}", len, interface);
    } else if verdict == Verdict::Denied as u32 {
        aya_log_ebpf::debug!(&ctx, "dropped as denied: a frame of {} bytes on interface {}", len, interface);
    } else {
        aya_log_ebpf::debug!(&ctx, "dropped over a limit: a frame of {} bytes on interface {}", len, interface);
    }
    0
}

/// Whether a level is one that user space wants to hear of.
#[inline(always)]
fn is_said(level: LogLevel) -> bool {
    // Volatile: user space stores the word while we run. Without a pool all is broken.
    // SAFETY: inside the pool.
    level.is_said(Base::get().map_or(0, |pool| unsafe { (&raw const pool.root().log).read_volatile() }))
}

/// Whether there are no more messages in a second than somebody can read.
#[inline(always)]
fn may_speak() -> bool {
    let Some(full_at) = LOG_RATE.get_ptr_mut(0) else { return false };
    // SAFETY: a live map element; the clock.
    unsafe { guard::admit(&MESSAGES, full_at, bpf_ktime_get_coarse_ns()) }
}
