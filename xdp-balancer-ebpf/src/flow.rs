//! Counts an instance's packets at the host's end of its interface. Never changes one, and lets the
//! next filter have its turn.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::programs::TcContext;
use xdp_balancer_common::QuietPrefix;

use crate::maps::FLOWS;
use crate::pool::Base;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;
const ETHERNET: usize = 14;
const IPV6: usize = 40;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Seen from the instance.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Towards it.
    To,
    /// From it.
    From,
}

/// Counts one packet (or as many as a segmentation offload stands for).
#[inline(always)]
pub fn count(ctx: &TcContext, direction: Direction) -> i32 {
    if let Some(opens) = countable(ctx) {
        // SAFETY: the context is the kernel's.
        let (interface, segments) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).gso_segs) };
        if let Some(flow) = FLOWS.get_ptr_mut(interface) {
            let packets = u64::from(if segments > 1 { segments } else { 1 });
            // SAFETY: a live map element of this CPU, written by classifiers only.
            unsafe {
                match direction {
                    Direction::To => {
                        (*flow).packets_to += packets;
                        (*flow).bytes_to += u64::from(ctx.len());
                        (*flow).connections += u64::from(opens);
                        (*flow).quiet_to += if is_quiet(ctx) { packets } else { 0 };
                    }
                    Direction::From => {
                        (*flow).packets_from += packets;
                        (*flow).bytes_from += u64::from(ctx.len());
                    }
                }
            }
        }
    }
    TC_ACT_UNSPEC
}

/// Whether it comes from somebody who is no sign of use.
#[inline(always)]
fn is_quiet(ctx: &TcContext) -> bool {
    let Ok(pool) = Base::get() else { return false };
    let settings = &pool.root().settings;
    let [a, b, c] = QuietPrefix::MAPPED;
    let sender = match ctx.load::<u16>(12).map(u16::from_be) {
        Ok(ETHERTYPE_IPV4) => ctx.load::<u32>(ETHERNET + 12).map(|word| [a, b, c, word]),
        _ => ctx.load::<[u32; 4]>(ETHERNET + 8),
    };
    sender.is_ok_and(|sender| settings.is_quiet(settings.quiet_lens[1], sender))
}

/// Whether it counts, and if so, whether it opens a TCP connection. Not counted: broadcast, multicast,
/// anything but IP, and neighbour discovery, which goes on when an instance has nothing to do.
#[inline(always)]
fn countable(ctx: &TcContext) -> Option<bool> {
    if ctx.load::<u8>(0).ok()? & 1 != 0 {
        return None;
    }
    let (protocol, transport) = match u16::from_be(ctx.load::<u16>(12).ok()?) {
        ETHERTYPE_IPV4 => {
            let header = ctx.load::<u8>(ETHERNET).ok()?;
            (ctx.load::<u8>(ETHERNET + 9).ok()?, ETHERNET + usize::from(header & 0x0f) * 4)
        }
        ETHERTYPE_IPV6 => (ctx.load::<u8>(ETHERNET + 6).ok()?, ETHERNET + IPV6),
        _ => return None,
    };
    match protocol {
        ICMPV6 => match ctx.load::<u8>(transport).ok()? {
            133..=137 => None,
            _ => Some(false),
        },
        TCP => {
            // A later fragment has no flags where we look; at worst one connection is miscounted.
            let flags = ctx.load::<u8>(transport + 13).unwrap_or(0);
            Some(flags & (TCP_SYN | TCP_ACK) == TCP_SYN)
        }
        _ => Some(false),
    }
}
