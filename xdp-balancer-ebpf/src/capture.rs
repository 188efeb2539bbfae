//! Captures queries: does with one what the program that answers does, in the same words, and tells user space what came
//! in, what went out, and why.
//!
//! The program that answers goes on into this one for each query that is chosen ([`sample`]), before it has changed or
//! counted anything. The query is copied first, for its answer is written over it. [`tell`] does that; all else is
//! shared.
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
mod guard;
#[cfg(target_arch = "bpf")]
mod lookup;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "shared with the program that answers, as the module below")]
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
#[allow(dead_code, reason = "see above")]
mod sample;
#[cfg(target_arch = "bpf")]
mod serve;
#[cfg(target_arch = "bpf")]
mod tell;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;

    use crate::serve::serve;
    use crate::{count, tell};

    /// Answers or passes as the program in front would, and tells of it.
    #[xdp(frags)]
    #[inline(always)]
    pub fn selvedge_capture(ctx: XdpContext) -> u32 {
        tell::selvedge_keep(ctx.ctx);
        let (verdict, action) = match serve::<false>(&ctx) {
            Ok(verdict) => (verdict, count::answered(verdict)),
            Err(verdict) => (verdict as u32, count::unanswered(&ctx, verdict)),
        };
        tell::selvedge_tell(ctx.ctx, verdict, action);
        action
    }

    /// The program in front without its look at what is captured. The bench holds one against the other; nobody else
    /// loads it.
    #[xdp(frags)]
    #[inline(always)]
    pub fn selvedge_uncaptured(ctx: XdpContext) -> u32 {
        match serve::<false>(&ctx) {
            Ok(verdict) => count::answered(verdict),
            Err(verdict) => count::unanswered(&ctx, verdict),
        }
    }
}

/// Nothing to run outside the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
