//! Turns the query into its answer. Nothing is written before the resize has succeeded, and nothing
//! can fail after it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{ANSWER_BYTES, EDNS_PAYLOAD, MAX_NAME_BYTES, Verdict};

use crate::checksum::{Sum, at_offset, fold};
use crate::family::Family;
use crate::lookup::Found;
use crate::packet::{Cursor, Frame, load, opaque, store, unlinked};
use crate::parse::{DNS, DNS_ONE, Message, UDP};
use crate::question::{MAX_ADDITIONAL, OPT, Question, TYPE_CLASS};

const DNS_QR: u16 = 0x8000_u16.to_be();
const DNS_RD: u16 = 0x0100_u16.to_be();

/// The question at its longest, rounded up to whole strides.
const MAX_QUESTION: usize = (MAX_NAME_BYTES + TYPE_CLASS).next_multiple_of(STRIDE);

/// Our OPT up to the flags: root, type 41, payload size, extended RCODE 0, version 0.
const OPT_HEAD: [u8; 7] = [0, 0, 41, EDNS_PAYLOAD.to_be_bytes()[0], EDNS_PAYLOAD.to_be_bytes()[1], 0, 0];

/// Writes the answer over the query and turns the headers round.
#[inline(always)]
pub fn write<F: Family>(
    ctx: &XdpContext,
    message: &Message,
    question: &Question,
    found: &Found,
) -> Result<(), Verdict> {
    // Anew, for the same reason as behind the search for the name's end.
    let frame = Frame::of(ctx);
    let opt_len = if message.additional { OPT } else { 0 };
    let dns_len = DNS + question.name_len + TYPE_CLASS + found.answer_len + opt_len;
    if dns_len > question.limit() {
        return Err(Verdict::TooLarge);
    }
    let removed = if message.additional {
        sum_additional(frame.cursor(question.end::<F>()), question.additional_len)?
    } else {
        0
    };

    // Ethernet padding goes with it.
    let shift = resize(ctx, (F::DNS + dns_len) as i64 - frame.len() as i64)?;

    let frame = Frame { data: opaque(ctx.data()), end: ctx.data_end() };
    let from = opaque(frame.data + shift);
    // The first says the same as the second, which the kernel's verifier does not see.
    if from + F::DNS + DNS > frame.end || opaque(frame.data + F::DNS + DNS) > frame.end {
        return Err(Verdict::Broken);
    }
    // SAFETY: checked above that the headers are inside the frame, at either place.
    unsafe { turn_headers::<F>(from, frame.data, dns_len, removed, message, question, found) };
    if shift != 0 {
        let question_len = question.name_len + TYPE_CLASS;
        move_question(frame.cursor(shift + F::DNS + DNS), frame.cursor(F::DNS + DNS), question_len)?;
    }
    copy_answer(frame.cursor(question.end::<F>()), found)?;
    if message.additional {
        write_opt(frame.cursor(question.end::<F>() + found.answer_len), question.dnssec_ok)?;
    }
    Ok(())
}

/// Most that a frame grows in front: the headroom that drivers leave (256 bytes), less what the kernel
/// keeps there for itself.
const MAX_SHIFT: i64 = 224;

/// Makes the frame `delta` bytes longer, once. It grows in front where it can: behind, the kernel clears
/// what it adds, which costs more than moving headers and question; and on a veth and in generic mode
/// there often is no room behind. Says how far in the frame its old first byte is now.
#[inline(always)]
fn resize(ctx: &XdpContext, delta: i64) -> Result<usize, Verdict> {
    if delta > 0 && delta <= MAX_SHIFT {
        // SAFETY: the context is the program's own.
        if unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), -delta as i32) } == 0 {
            return Ok(delta as usize);
        }
    }
    // SAFETY: the context is the program's own.
    if delta != 0 && unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), delta as i32) } != 0 {
        return Err(Verdict::NoRoom);
    }
    Ok(0)
}

/// Moves the question to the front. Upwards, so that what is overwritten has been read.
#[inline(always)]
fn move_question(mut from: Cursor, mut to: Cursor, len: usize) -> Result<(), Verdict> {
    let mut left = unlinked::<0x1ff>(len);
    let mut round = 0;
    while round < MAX_QUESTION / STRIDE {
        if left < STRIDE {
            break;
        }
        shift_bytes::<STRIDE>(&mut from, &mut to)?;
        left -= STRIDE;
        round += 1;
    }
    if left & 16 != 0 {
        shift_bytes::<16>(&mut from, &mut to)?;
    }
    if left & 8 != 0 {
        shift_bytes::<8>(&mut from, &mut to)?;
    }
    if left & 4 != 0 {
        let (source, target) = (from.step::<4>()?, to.step::<4>()?);
        // SAFETY: stepped over above.
        unsafe { store(target, load::<u32>(source)) };
    }
    if left & 2 != 0 {
        let (source, target) = (from.step::<2>()?, to.step::<2>()?);
        // SAFETY: stepped over above.
        unsafe { store(target, load::<u16>(source)) };
    }
    if left & 1 != 0 {
        let (source, target) = (from.step::<1>()?, to.step::<1>()?);
        // SAFETY: stepped over above.
        unsafe { store(target, load::<u8>(source)) };
    }
    Ok(())
}

/// Moves `N` bytes, a multiple of eight.
#[inline(always)]
fn shift_bytes<const N: usize>(from: &mut Cursor, to: &mut Cursor) -> Result<(), Verdict> {
    let (source, target) = (from.step::<N>()?, to.step::<N>()?);
    let mut i = 0;
    while i < N {
        // SAFETY: stepped over above.
        unsafe { store(target + i, load::<u64>(source + i)) };
        i += 8;
    }
    Ok(())
}

/// Sum of the additional section that goes away, from an even offset.
#[inline(always)]
fn sum_additional(mut cursor: Cursor, len: usize) -> Result<u16, Verdict> {
    let mut sum = Sum::ZERO;
    let mut left = unlinked::<0x3ff>(len);
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

/// Bytes per round of [`copy_answer`].
const STRIDE: usize = 32;
/// Rounds that a full slot takes; what is left after them is at most 16 bytes.
const STRIDES: usize = ANSWER_BYTES / STRIDE;

/// In strides of a constant length, which cost one bounds check each and no counting inside.
#[inline(always)]
fn copy_answer(mut to: Cursor, found: &Found) -> Result<(), Verdict> {
    const { assert!(ANSWER_BYTES % STRIDE == 16) };
    let mut from = found.answer.bytes.as_ptr() as usize;
    let mut left = unlinked::<0x1ff>(found.answer_len);
    let mut round = 0;
    while round < STRIDES {
        if left < STRIDE {
            break;
        }
        copy::<STRIDE>(&mut to, &mut from)?;
        left -= STRIDE;
        round += 1;
    }
    if left & 16 != 0 {
        copy::<16>(&mut to, &mut from)?;
        // The slot ends here.
        if round == STRIDES {
            return Ok(());
        }
    }
    if left & 8 != 0 {
        copy::<8>(&mut to, &mut from)?;
    }
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
    Ok(())
}

/// Copies `N` bytes, a multiple of eight, out of an answer slot that has them.
#[inline(always)]
fn copy<const N: usize>(to: &mut Cursor, from: &mut usize) -> Result<(), Verdict> {
    let at = to.step::<N>().map_err(|_| Verdict::Broken)?;
    let mut i = 0;
    while i < N {
        // SAFETY: stepped over above; inside the slot, says the caller.
        unsafe { store(at + i, load::<u64>(*from + i)) };
        i += 8;
    }
    *from += N;
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

/// Ethernet, IP, UDP and DNS headers of the reply, read at one place and written at another, which may
/// overlap: `to` is `from` or lies before it. So from the first byte on, and each header is read before it
/// is written.
///
/// # Safety
/// The frame holds the headers up to the end of the DNS header at both places.
#[inline(always)]
unsafe fn turn_headers<F: Family>(
    from: usize,
    to: usize,
    dns_len: usize,
    removed: u16,
    message: &Message,
    question: &Question,
    found: &Found,
) {
    let answer = found.answer;
    let udp_len = (UDP + dns_len) as u16;
    // SAFETY: all inside the headers, see above.
    unsafe {
        let (to_high, to_low) = (load::<u32>(from), load::<u16>(from + 4));
        let (from_high, from_low) = (load::<u32>(from + 6), load::<u16>(from + 10));
        let ether_type = load::<u16>(from + 12);
        store(to, from_high);
        store(to + 4, from_low);
        store(to + 6, to_high);
        store(to + 10, to_low);
        store(to + 12, ether_type);

        F::turn(from, to, udp_len);

        let (udp, dns) = (from + F::UDP, from + F::DNS);
        let (ports, old_len, checksum) = (load::<u32>(udp), load::<u16>(udp + 4), load::<u16>(udp + 6));
        let (id, old_flags) = (load::<u16>(dns), load::<u16>(dns + 2));
        let flags = DNS_QR | (old_flags & DNS_RD) | answer.flags;
        let new_len = udp_len.to_be();
        let checksum = if !F::CHECKSUM_OPTIONAL || checksum != 0 {
            // The question is as long as its name and four bytes more.
            let odd = question.name_len & 1 != 0;
            // The length counts twice, in the UDP header and in the pseudo header.
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
            if checksum == 0 { 0xffff } else { checksum }
        } else {
            0
        };
        let (udp, dns) = (to + F::UDP, to + F::DNS);
        store(udp, ports.rotate_left(16));
        store(udp + 4, new_len);
        store(udp + 6, checksum);
        store(dns, id);
        store(dns + 2, flags);
        // The question stays; an OPT is answered by an OPT.
        store(dns + 4, DNS_ONE);
        store(dns + 6, answer.ancount);
        store(dns + 8, answer.nscount);
        store(dns + 10, if message.additional { DNS_ONE } else { 0 });
    }
}
