//! Makes the TTLs of an answer that was written shorter, where the tables that it came from are stale.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;

use crate::checksum::{Sum, at_offset, fold};
use crate::family::{Family, V4, V6};
use crate::guard::is_stale;
use crate::packet::{Frame, load, store};
use crate::parse::{DNS, LINK_MASK, UDP};
use crate::pool::Base;
use crate::question::TYPE_CLASS;

/// Bounds any offset in a reply.
const OFFSET_MASK: usize = 0x7ff;
/// Records and labels of their owners that are walked. The longest answers have forty records and more, whose owners
/// are pointers; what lies behind keeps its TTL.
const STEPS: usize = 160;
/// Type, class, TTL and length.
const FIXED: usize = 10;

/// Whether the tables are stale; then no TTL is longer afterwards than they allow. `place` says where the IP header is
/// and of which version.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn selvedge_age(ctx: *mut xdp_md, place: u64, name_len: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Ok(pool) = Base::get() else { return 0 };
    if !is_stale(pool) {
        return 0;
    }
    let most = pool.root().guard.stale_ttl as u32;
    let udp = (place as usize & LINK_MASK) + if place >> 8 & 1 != 0 { V6::UDP } else { V4::UDP };
    let frame = Frame::of(&ctx);
    let Ok(header) = frame.cursor(udp).step::<{ UDP + DNS }>() else { return 1 };
    // SAFETY: stepped over above.
    let counts = unsafe { [load::<u16>(header + 14), load::<u16>(header + 16), load::<u16>(header + 18)] };
    let mut left = counts.iter().map(|count| u64::from(u16::from_be(*count))).sum::<u64>();
    let mut at = udp + UDP + DNS + TYPE_CLASS + (name_len as usize & 0xff);
    let mut sum = Sum::ZERO;
    let mut step = 0;
    while step < STEPS && left != 0 {
        step += 1;
        at = frame.blurred::<OFFSET_MASK>(at);
        let Ok(owner) = frame.cursor(at).step::<4>() else { break };
        // SAFETY: stepped over above.
        let label = usize::from(unsafe { load::<u8>(owner) });
        let behind = match label {
            0 => 1,
            1..64 => {
                at += label + 1;
                continue;
            }
            _ => 2,
        };
        at = frame.blurred::<OFFSET_MASK>(at + behind);
        let Ok(fixed) = frame.cursor(at).step::<FIXED>() else { break };
        // SAFETY: stepped over above.
        let (kind, ttl, len) = unsafe { (load::<u16>(fixed), load::<u32>(fixed + 4), load::<u16>(fixed + 8)) };
        // The TTL of an OPT is none.
        if u32::from_be(ttl) > most && kind != 41_u16.to_be() {
            let (old, new) = (halves(ttl), halves(most.to_be()));
            let changed = fold(Sum::ZERO.replace(old[0], new[0]).replace(old[1], new[1]));
            sum = sum.add(at_offset(changed, (at ^ udp) & 1 != 0));
            // SAFETY: stepped over above.
            unsafe { store(fixed + 4, most.to_be()) };
        }
        at += FIXED + usize::from(u16::from_be(len));
        left -= 1;
    }
    let Ok(header) = frame.cursor(udp).step::<UDP>() else { return 1 };
    // SAFETY: stepped over above.
    let checksum = unsafe { load::<u16>(header + 6) };
    if checksum != 0 {
        let checksum = !fold(sum.add(!checksum));
        // SAFETY: as above. Zero would say "no checksum" (RFC 768).
        unsafe { store(header + 6, if checksum == 0 { 0xffff } else { checksum }) };
    }
    1
}

#[inline(always)]
fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
