//! Turns the query into its answer. Nothing is written before the resize has succeeded, and nothing
//! can fail after it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{ANSWER_BYTES, EDNS_PAYLOAD, MAX_NAME_BYTES, Verdict};

use crate::checksum::{Sum, at_offset, fold};
use crate::family::Family;
use crate::lookup::Found;
use crate::packet::{Cursor, Frame, load, opaque, store};
use crate::parse::{DNS, ETHERNET, IPV6, Message, UDP};
use crate::question::{MAX_ADDITIONAL, OPT, Question, TYPE_CLASS};

const DNS_QR: u16 = 0x8000_u16.to_be();
const DNS_RD: u16 = 0x0100_u16.to_be();

/// Headers and question at their longest.
const MAX_KEPT: usize = ETHERNET + IPV6 + UDP + DNS + MAX_NAME_BYTES + TYPE_CLASS;

/// Our OPT up to the flags: root, type 41, payload size, extended RCODE 0, version 0.
const OPT_HEAD: [u8; 7] = [0, 0, 41, EDNS_PAYLOAD.to_be_bytes()[0], EDNS_PAYLOAD.to_be_bytes()[1], 0, 0];

/// Writes the answer over the query and turns the headers round.
#[inline(always)]
pub fn write<F: Family>(
    ctx: &XdpContext,
    frame: Frame,
    message: &Message,
    question: &Question,
    found: &Found,
) -> Result<(), Verdict> {
    let opt_len = if message.additional { OPT } else { 0 };
    let dns_len = DNS + question.name_len + TYPE_CLASS + found.answer_len + opt_len;
    if dns_len > question.limit {
        return Err(Verdict::TooLarge);
    }
    let removed = if message.additional {
        sum_additional(frame.cursor(question.end::<F>()), question.additional_len)?
    } else {
        0
    };

    // One resize with the final length; Ethernet padding goes with it.
    let delta = (F::DNS + dns_len) as i64 - frame.len() as i64;
    // SAFETY: the context is the program's own.
    if unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), delta as i32) } != 0 {
        grow_in_front(ctx.ctx, delta as i32, question.end::<F>() as u32)?;
    }

    let frame = Frame { data: opaque(ctx.data()), end: ctx.data_end() };
    if frame.data + F::DNS + DNS > frame.end {
        return Err(Verdict::Broken);
    }
    copy_answer(frame.cursor(question.end::<F>()), found)?;
    if message.additional {
        write_opt(frame.cursor(question.end::<F>() + found.answer_len), question.dnssec_ok)?;
    }
    // SAFETY: checked above that the headers are inside the frame.
    unsafe { turn_headers::<F>(frame.data, dns_len, removed, message, question, found) };
    Ok(())
}

/// Makes room before the frame and moves its first `keep` bytes there. Network cards give each frame a
/// page; on a veth and in generic mode it lies in a buffer of the stack's, with 256 bytes before it and
/// often none behind. Out of line, because nobody should need it where speed matters.
#[cold]
#[inline(never)]
fn grow_in_front(ctx: *mut xdp_md, delta: i32, keep: u32) -> Result<(), Verdict> {
    // SAFETY: the context is the program's own.
    if delta <= 0 || unsafe { bpf_xdp_adjust_head(ctx, -delta) } != 0 {
        return Err(Verdict::NoRoom);
    }
    let frame = Frame::of(&XdpContext::new(ctx));
    let (mut to, mut from) = (frame.cursor(0), frame.cursor(delta as usize & 0x3ff));
    let mut left = opaque(keep as usize) & 0x1ff;
    let mut round = 0;
    // Forwards and to the front: what is overwritten has been read.
    while round < MAX_KEPT / 8 + 1 {
        if left < 8 {
            break;
        }
        let (source, target) = (from.step::<8>()?, to.step::<8>()?);
        // SAFETY: stepped over above.
        unsafe { store(target, load::<u64>(source)) };
        left -= 8;
        round += 1;
    }
    round = 0;
    while round < 7 {
        if left == 0 {
            break;
        }
        let (source, target) = (from.step::<1>()?, to.step::<1>()?);
        // SAFETY: stepped over above.
        unsafe { store(target, load::<u8>(source)) };
        left -= 1;
        round += 1;
    }
    Ok(())
}

/// Sum of the additional section that goes away, from an even offset.
#[inline(always)]
fn sum_additional(mut cursor: Cursor, len: usize) -> Result<u16, Verdict> {
    let mut sum = Sum::ZERO;
    let mut left = len;
    let mut round = 0;
    while round < MAX_ADDITIONAL / 8 + 1 {
        if left < 8 {
            break;
        }
        let at = cursor.step::<8>()?;
        // SAFETY: taken above.
        sum = sum.add_chunk(unsafe { load::<u64>(at) });
        left -= 8;
        round += 1;
    }
    if left & 4 != 0 {
        let at = cursor.step::<4>()?;
        // SAFETY: taken above.
        sum = sum.add_half(unsafe { load::<u32>(at) });
    }
    if left & 2 != 0 {
        let at = cursor.step::<2>()?;
        // SAFETY: taken above.
        sum = sum.add(unsafe { load::<u16>(at) });
    }
    if left & 1 != 0 {
        let at = cursor.step::<1>()?;
        // SAFETY: taken above.
        sum = sum.add(u16::from_ne_bytes([unsafe { load::<u8>(at) }, 0]));
    }
    Ok(fold(sum))
}

#[inline(always)]
fn copy_answer(mut to: Cursor, found: &Found) -> Result<(), Verdict> {
    let mut from = found.answer.bytes.as_ptr() as usize;
    let mut left = found.answer_len;
    let mut round = 0;
    while round < ANSWER_BYTES / 8 {
        if left < 8 {
            break;
        }
        let at = to.step::<8>().map_err(|_| Verdict::Broken)?;
        // SAFETY: taken above; a slot has `round * 8 + 8` bytes.
        unsafe { store(at, load::<u64>(from)) };
        from += 8;
        left -= 8;
        round += 1;
    }
    // A full slot ends with the loop, so at most seven bytes of a slot are left here.
    if round < ANSWER_BYTES / 8 {
        if left & 4 != 0 {
            let at = to.step::<4>().map_err(|_| Verdict::Broken)?;
            // SAFETY: taken above, and inside the slot.
            unsafe { store(at, load::<u32>(from)) };
            from += 4;
        }
        if left & 2 != 0 {
            let at = to.step::<2>().map_err(|_| Verdict::Broken)?;
            // SAFETY: taken above, and inside the slot.
            unsafe { store(at, load::<u16>(from)) };
            from += 2;
        }
        if left & 1 != 0 {
            let at = to.step::<1>().map_err(|_| Verdict::Broken)?;
            // SAFETY: taken above, and inside the slot.
            unsafe { store(at, load::<u8>(from)) };
        }
    }
    Ok(())
}

#[inline(always)]
fn write_opt(mut cursor: Cursor, dnssec_ok: u8) -> Result<(), Verdict> {
    let at = cursor.step::<OPT>().map_err(|_| Verdict::Broken)?;
    let head = u64::from_ne_bytes([
        OPT_HEAD[0],
        OPT_HEAD[1],
        OPT_HEAD[2],
        OPT_HEAD[3],
        OPT_HEAD[4],
        OPT_HEAD[5],
        OPT_HEAD[6],
        dnssec_ok,
    ]);
    // SAFETY: taken above.
    unsafe {
        store(at, head);
        store(at + 8, 0_u16);
        store(at + 10, 0_u8);
    }
    Ok(())
}

/// DNS, UDP, IP and Ethernet headers of the reply.
///
/// # Safety
/// The frame at `data` holds the headers up to the end of the DNS header.
#[inline(always)]
unsafe fn turn_headers<F: Family>(
    data: usize,
    dns_len: usize,
    removed: u16,
    message: &Message,
    question: &Question,
    found: &Found,
) {
    let (udp, dns) = (data + F::UDP, data + F::DNS);
    let answer = found.answer;
    let udp_len = (UDP + dns_len) as u16;
    // SAFETY: all inside the headers, see above.
    unsafe {
        let old_flags = load::<u16>(dns + 2);
        let flags = DNS_QR | (old_flags & DNS_RD) | answer.flags;
        store(dns + 2, flags);
        // QDCOUNT stays one; ARCOUNT too is the query's, for an OPT is answered by an OPT.
        store(dns + 6, answer.ancount);
        store(dns + 8, answer.nscount);

        let checksum = load::<u16>(udp + 6);
        if !F::CHECKSUM_OPTIONAL || checksum != 0 {
            // The question is as long as its name and four bytes more.
            let odd = question.name_len & 1 != 0;
            // The length counts twice, in the UDP header and in the pseudo header.
            let (old_len, new_len) = (load::<u16>(udp + 4), udp_len.to_be());
            let mut sum = Sum::of_checksum(checksum)
                .replace(old_flags, flags)
                .replace(old_len, new_len)
                .replace(old_len, new_len)
                .add(answer.ancount)
                .add(answer.nscount)
                .add(at_offset(answer.sum, odd));
            if message.additional {
                let opt_odd = (question.name_len ^ found.answer_len) & 1 != 0;
                let ours = u16::from_be_bytes([OPT_HEAD[2], OPT_HEAD[3]]) as u32
                    + u16::from_be_bytes([OPT_HEAD[4], OPT_HEAD[5]]) as u32
                    + question.dnssec_ok as u32;
                let ours = ((ours & 0xffff) + (ours >> 16)) as u16;
                sum = sum.add(!at_offset(removed, odd)).add(at_offset(ours.to_be(), opt_odd));
            }
            // Zero would say "no checksum" (RFC 768).
            let checksum = !fold(sum);
            store(udp + 6, if checksum == 0 { 0xffff } else { checksum });
        }
        store(udp + 4, udp_len.to_be());
        store(udp, load::<u32>(udp).rotate_left(16));

        F::turn(data, udp_len);

        let (to_high, to_low) = (load::<u32>(data), load::<u16>(data + 4));
        let (from_high, from_low) = (load::<u32>(data + 6), load::<u16>(data + 10));
        store(data, from_high);
        store(data + 4, from_low);
        store(data + 6, to_high);
        store(data + 10, to_low);
    }
}
