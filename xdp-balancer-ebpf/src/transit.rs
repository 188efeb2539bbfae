//! Rewrites replies in transit: addresses of our services' names in answers of other servers become those of the
//! instances that we would have told.
//!
//! One program behind the one that answers (XDP, as a reply comes in) and one classifier (as it goes out). Both copy
//! the packet into memory of their own, where [`reply`] works on it; it is written back in one piece, or not at all.
//! [`count`] is the only way out.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", allow(unstable_features, reason = "BPF inline assembly is unstable"))]

#[cfg(target_arch = "bpf")]
mod checksum;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "shared with the program that answers, as the modules below")]
mod family;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "see above")]
mod maps;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "see above")]
mod names;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "see above")]
mod packet;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "see above")]
mod parse;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "see above")]
mod pool;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "see above")]
mod question;
#[cfg(target_arch = "bpf")]
mod reply;
#[cfg(target_arch = "bpf")]
mod rrset;
#[cfg(target_arch = "bpf")]
mod runtime;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "see above")]
mod sample;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::bindings::xdp_action::XDP_PASS;
    use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_RECOMPUTE_CSUM, TC_ACT_UNSPEC};
    use aya_ebpf::helpers::{
        bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
        bpf_xdp_store_bytes,
    };
    use aya_ebpf::macros::{classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};
    use xdp_balancer_common::{TransitHook, TransitVerdict as Verdict};

    use crate::reply::{self, Copied, LENGTH_MASK, SHORTEST, TRANSIT_HOOKS, TRANSIT_VERDICTS, Target};

    /// Rewrites a reply that comes in; the frame goes on in any case.
    #[xdp(frags)]
    pub fn selvedge_transit(ctx: XdpContext) -> u32 {
        count(ingress(&ctx));
        XDP_PASS
    }

    /// Rewrites a reply that goes out, and lets the next filter have its turn.
    #[classifier]
    pub fn selvedge_transit_out(ctx: TcContext) -> i32 {
        count(egress(&ctx));
        TC_ACT_UNSPEC
    }

    #[inline(always)]
    fn count(outcome: Result<(), Verdict>) {
        let verdict = outcome.err().unwrap_or(Verdict::Rewritten);
        if let Some(count) = TRANSIT_VERDICTS.get_ptr_mut(verdict as u32) {
            // SAFETY: a live map element of this CPU; a program is not interrupted by itself.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn ingress(ctx: &XdpContext) -> Result<(), Verdict> {
        let here = TRANSIT_HOOKS.get_ptr(ctx.ingress_ifindex() as u32);
        // SAFETY: a live map element, which user space replaces as a whole.
        if here.is_none_or(|bits| unsafe { *bits } & TransitHook::Ingress.bit() == 0) {
            return Err(Verdict::Elsewhere);
        }
        let xdp = ctx.ctx;
        // SAFETY: the context is the program's own.
        let len = unsafe { bpf_xdp_get_buff_len(xdp) } as usize;
        let mut copied = Copied::new(len, |to, len| {
            // SAFETY: the context is the program's own, and as many bytes are there.
            unsafe { bpf_xdp_load_bytes(xdp, 0, to.cast(), len) }
        })?;
        let Target { udp, end, .. } = copied.rewrite(true)?;
        let len = (end - udp) & LENGTH_MASK;
        if len < SHORTEST {
            return Err(Verdict::Broken);
        }
        // SAFETY: as above.
        match unsafe { bpf_xdp_store_bytes(xdp, udp as u32, copied.at(udp).cast(), len as u32) } {
            0 => Ok(()),
            _ => Err(Verdict::Broken),
        }
    }

    #[inline(always)]
    fn egress(ctx: &TcContext) -> Result<(), Verdict> {
        let skb = ctx.skb.skb;
        // SAFETY: the context is the kernel's.
        let (len, segments) = unsafe { ((*skb).len as usize, (*skb).gso_segs) };
        if segments > 1 {
            return Err(Verdict::TooLong);
        }
        let mut copied = Copied::new(len, |to, len| {
            // SAFETY: the context is the program's own, and as many bytes are there.
            unsafe { bpf_skb_load_bytes(ctx.as_ptr(), 0, to.cast(), len) }
        })?;
        let Target { udp, end, changed } = copied.rewrite(false)?;
        let dns = udp + reply::UDP;
        let len = (end - dns) & LENGTH_MASK;
        if len < reply::DNS {
            return Err(Verdict::Broken);
        }
        // SAFETY: as above.
        let stored = unsafe {
            bpf_skb_store_bytes(skb, dns as u32, copied.at(dns).cast(), len as u32, BPF_F_RECOMPUTE_CSUM.into())
        };
        if stored != 0 {
            return Err(Verdict::Broken);
        }
        // The kernel knows whether the checksum is there, or is left to the device.
        // SAFETY: as above.
        let summed =
            unsafe { bpf_l4_csum_replace(skb, udp as u32 + 6, 0, changed.into(), BPF_F_MARK_MANGLED_0.into()) };
        if summed == 0 { Ok(()) } else { Err(Verdict::Broken) }
    }
}

/// Nothing to run outside the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
