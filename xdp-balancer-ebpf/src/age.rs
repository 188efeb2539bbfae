//! Makes the TTLs of an answer that was written shorter, where the tables that it came from are stale.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::Guard;

use crate::checksum::{Sum, at_offset, fold};
use crate::family::{Family, V4, V6};
use crate::packet::{Frame, load, store};
use crate::parse::{DNS, UDP, network};
use crate::pool::Base;
use crate::question::TYPE_CLASS;

/// Bounds any offset in a reply.
const OFFSET_MASK: usize = 0x7ff;
/// Records and labels of their owners that are walked. The longest answers have seventy records, whose
/// owners are pointers; what lies behind keeps its TTL.
const STEPS: usize = 48;
/// Bounds the number of records, all sections together and the question.
const RECORDS_MASK: usize = 0xff;
/// First byte of a name that is a pointer; below, a label's length.
const POINTER: usize = 0xc0;
const TYPE_OPT: u16 = 41_u16.to_be();
/// Type, class, TTL and length.
const FIXED: usize = 10;

/// Whether the answer that was written comes from stale tables and was made to live shorter.
#[inline(always)]
pub fn aged(ctx: &XdpContext, pool: Base) -> bool {
    pool.root().guard.features & Guard::STALE_SHORTENS != 0 && selvedge_age(ctx.ctx) != 0
}

/// Whether the daemon was last there too long ago; a tick more or less.
#[inline(always)]
pub fn is_stale(pool: Base) -> bool {
    let root = pool.root();
    // SAFETY: reads the clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    now.wrapping_sub(root.heartbeat) > root.guard.stale_ns && now > root.heartbeat
}

/// Whether the tables are stale; then no TTL is longer afterwards than they allow. It finds its way through the reply by
/// itself: what it would have to be told would have to be kept while the reply is written, and the verifier would take
/// each combination for a way of its own.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn selvedge_age(ctx: *mut xdp_md) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Ok(pool) = Base::get() else { return 0 };
    if !is_stale(pool) {
        return 0;
    }
    let most = pool.root().guard.stale_ttl as u32;
    let frame = Frame::of(&ctx);
    let Ok(network) = network(frame) else { return 1 };
    let udp = frame.blurred::<OFFSET_MASK>(network.ip + if network.v6 { V6::UDP } else { V4::UDP });
    let Ok(header) = frame.cursor(udp).step::<{ UDP + DNS }>() else { return 1 };
    // SAFETY: stepped over above.
    let counts = unsafe { [load::<u16>(header + 14), load::<u16>(header + 16), load::<u16>(header + 18)] };
    let records = counts.iter().map(|count| usize::from(u16::from_be(*count))).sum::<usize>();
    // The question first, which is a record without a TTL.
    let (mut at, mut left, mut sum) = (udp + UDP + DNS, records + 1, 0);
    let mut is_question = 1;
    let mut step = 0;
    while step < STEPS {
        // Whatever was met, each step begins in one way.
        at = frame.blurred::<OFFSET_MASK>(at);
        left = frame.blurred::<RECORDS_MASK>(left);
        is_question = frame.blurred::<1>(is_question);
        if left == 0 {
            break;
        }
        step += 1;
        let Ok(owner) = frame.cursor(at).step::<4>() else { break };
        // SAFETY: stepped over above.
        let label = usize::from(unsafe { load::<u8>(owner) });
        if label != 0 && label < POINTER {
            at += label + 1;
            continue;
        }
        left -= 1;
        // The root takes a byte, a pointer two.
        at = frame.blurred::<OFFSET_MASK>(at + 1 + (label >> 7));
        if is_question != 0 {
            is_question = 0;
            at += TYPE_CLASS;
            continue;
        }
        let Ok(fixed) = frame.cursor(at).step::<FIXED>() else { break };
        // SAFETY: stepped over above.
        let (kind, ttl, len) = unsafe { (load::<u16>(fixed), load::<u32>(fixed + 4), load::<u16>(fixed + 8)) };
        // The TTL of an OPT is none.
        if u32::from_be(ttl) > most && kind != TYPE_OPT {
            let (old, new) = (halves(ttl), halves(most.to_be()));
            let changed = fold(Sum::ZERO.replace(old[0], new[0]).replace(old[1], new[1]));
            sum = fold(Sum::ZERO.add(sum).add(at_offset(changed, (at ^ udp) & 1 != 0)));
            // SAFETY: stepped over above.
            unsafe { store(fixed + 4, most.to_be()) };
        }
        at += FIXED + usize::from(u16::from_be(len));
    }
    let Ok(header) = frame.cursor(udp).step::<UDP>() else { return 1 };
    // SAFETY: stepped over above.
    let checksum = unsafe { load::<u16>(header + 6) };
    if checksum != 0 {
        let checksum = !fold(Sum::of_checksum(checksum).add(sum));
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
