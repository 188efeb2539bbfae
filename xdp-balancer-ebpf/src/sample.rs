//! Hands queries over to the program that captures, where one is.

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::object::TAIL_CAPTURE;
use xdp_balancer_common::{Capture, Verdict};

use crate::maps::TAILS;
use crate::packet::load;
use crate::pool::Base;

/// Does not come back where this query is chosen; `udp` is the address of its UDP header, with four bytes of DNS behind.
/// Where nothing is captured this is one look at a word.
#[inline(always)]
pub fn divert(ctx: &XdpContext, pool: Base, udp: usize) -> Result<(), Verdict> {
    let root = pool.root();
    // SAFETY: inside the pool. Volatile: user space stores the word while we run, and it has to be read exactly once.
    let rule = unsafe { (&raw const root.capture.rule).read_volatile() };
    // SAFETY: inside the headers, see above.
    if rule == 0 || !Capture::chooses(rule, unsafe { load::<u32>(udp + 6) }) {
        return Ok(());
    }
    // SAFETY: the program in the slot is one of ours and takes the frame as it is.
    unsafe { TAILS.tail_call(ctx, TAIL_CAPTURE) };
    // Somebody else has emptied the slot. To go on would be to look at the whole frame anew.
    Err(Verdict::Broken)
}
