//! The kernel side: an XDP program that answers DNS queries from pre-rendered tables, and two
//! classifiers that count an instance's traffic.
//!
//! A frame goes by way of [`serve`] through [`parse`] (headers), [`question`] (name, type, OPT), [`lookup`] (by [`names`], [`rrset`] and [`pool`]),
//! [`guard`] (nothing, unless it is switched on, nor does [`sample`])
//! and [`answer`] (the only module that writes to it). Each step returns the verdict that ends the
//! program early, so nothing has been written when a frame is passed on; [`count`] is the only way out. The crate is built for the BPF target by `xdp-balancer/build.rs`; for any other
//! target it is empty, so that workspace-wide cargo commands do not trip over it.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", allow(unstable_features, reason = "BPF inline assembly is unstable"))]

#[cfg(target_arch = "bpf")]
mod age;
#[cfg(target_arch = "bpf")]
mod answer;
#[cfg(target_arch = "bpf")]
mod checksum;
#[cfg(target_arch = "bpf")]
mod cookie;
#[cfg(target_arch = "bpf")]
mod cost;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod family;
#[cfg(target_arch = "bpf")]
mod flow;
#[cfg(target_arch = "bpf")]
mod guard;
#[cfg(target_arch = "bpf")]
mod lookup;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod names;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod parse;
#[cfg(target_arch = "bpf")]
mod pool;
#[cfg(target_arch = "bpf")]
mod question;
#[cfg(target_arch = "bpf")]
mod rrset;
#[cfg(target_arch = "bpf")]
mod runtime;
#[cfg(target_arch = "bpf")]
mod sample;
#[cfg(target_arch = "bpf")]
mod serve;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::bindings::xdp_action::XDP_PASS;
    use aya_ebpf::macros::{classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};

    use crate::serve::serve;
    use crate::{count, flow};

    /// Answers what it fully understands and holds an answer for; passes the rest untouched.
    // Into the entry: a call and its return cost as much as a tenth of an answer.
    #[xdp(frags)]
    #[inline(always)]
    pub fn selvedge_xdp(ctx: XdpContext) -> u32 {
        match serve::<true>(&ctx) {
            Ok(verdict) => count::answered(verdict),
            Err(verdict) => count::unanswered(&ctx, verdict),
        }
    }

    /// Passes everything. A veth hands out frames that its peer sent back only if it runs a program
    /// of its own; this is the cheapest one.
    #[xdp(frags)]
    pub fn selvedge_pass(_ctx: XdpContext) -> u32 {
        XDP_PASS
    }

    /// Counts what goes to an instance.
    #[classifier]
    pub fn selvedge_to(ctx: TcContext) -> i32 {
        flow::count(&ctx, flow::Direction::To)
    }

    /// Counts what comes from an instance.
    #[classifier]
    pub fn selvedge_from(ctx: TcContext) -> i32 {
        flow::count(&ctx, flow::Direction::From)
    }
}

/// Nothing to run outside the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
