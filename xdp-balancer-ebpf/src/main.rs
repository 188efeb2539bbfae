//! The kernel side: an XDP program that answers DNS queries from pre-rendered tables, and two
//! classifiers that count an instance's traffic.
//!
//! A frame goes through [`parse`] (headers), [`question`] (name, type, OPT), [`lookup`] (by [`names`], [`rrset`] and [`pool`]),
//! [`guard`] (nothing, unless it is switched on)
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
mod entry {
    use aya_ebpf::bindings::xdp_action::XDP_PASS;
    use aya_ebpf::macros::{classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};
    use xdp_balancer_common::Verdict;

    use crate::family::{Family, V4, V6};
    use crate::packet::Frame;
    use crate::{answer, count, flow, guard, lookup, parse, question};

    /// Answers what it fully understands and holds an answer for; passes the rest untouched.
    // Into the entry: a call and its return cost as much as a tenth of an answer.
    #[xdp(frags)]
    #[inline(always)]
    pub fn selvedge_xdp(ctx: XdpContext) -> u32 {
        match serve(&ctx) {
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

    #[inline(always)]
    fn serve(ctx: &XdpContext) -> Result<u32, Verdict> {
        let network = parse::network(Frame::of(ctx))?;
        if network.v6 { serve_family::<V6>(ctx, network.ip) } else { serve_family::<V4>(ctx, network.ip) }
    }

    #[inline(always)]
    fn serve_family<F: Family>(ctx: &XdpContext, link: usize) -> Result<u32, Verdict> {
        let frame = Frame::of(ctx);
        let message = parse::message::<F>(frame, link)?;
        guard::enter::<F>(ctx, &message)?;
        let question = question::read::<F>(ctx, frame, &message)?;
        let found = lookup::find::<F>(ctx, &message, &question)?;
        answer::write::<F>(ctx, &message, &question, &found)?;
        let verdict = found.answered();
        Ok(if guard::aged(ctx, message.pool) { Verdict::Aged as u32 } else { verdict })
    }
}

/// Nothing to run outside the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
