//! What a query costs: the time from the moment when a packet is known to ask us, its headers read, until its verdict.
//! Only where that is switched on, and of one query in so many. Functions of their own for the kernel too, as those of
//! [`guard`](crate::guard) are.

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use xdp_balancer_common::{COST_BUCKETS, CostCount, Guard};

use crate::maps::COSTS;
use crate::packet::unlinked;
use crate::pool::Base;

/// Begins the time of a query, if it is one that is measured.
#[inline(always)]
pub fn begin(guard: &Guard) {
    let Some(costs) = COSTS.get_ptr_mut(0) else { return };
    // SAFETY: draws a number; a live map element of this CPU; reads the clock.
    unsafe {
        let chosen = u64::from(bpf_get_prandom_u32()) & guard.cost_mask == 0;
        (*costs).started = if chosen { bpf_ktime_get_ns() } else { 0 };
    }
}

/// Ends the time of a packet, where one was begun. Not to be called for what turned out not to be DNS.
#[inline(always)]
pub fn end() {
    if Base::get().is_ok_and(|pool| pool.root().guard.features & Guard::COSTS != 0) {
        selvedge_cost();
    }
}

/// See [`end`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_cost() -> u64 {
    let Some(costs) = COSTS.get_ptr_mut(0) else { return 0 };
    // SAFETY: a live map element of this CPU; a program is not interrupted by itself; reads the clock.
    unsafe {
        let started = (*costs).started;
        if started == 0 {
            return 0;
        }
        (*costs).started = 0;
        let ns = bpf_ktime_get_ns().wrapping_sub(started);
        (*costs).sum_ns += ns;
        // Inside by the mask.
        let bucket = unlinked::<{ COST_BUCKETS - 1 }>(CostCount::bucket(ns));
        *(&raw mut (*costs).buckets).cast::<u64>().add(bucket) += 1;
    }
    0
}
