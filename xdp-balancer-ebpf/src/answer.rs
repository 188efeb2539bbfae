//! Turns the query into its answer. Nothing is written before the resize has succeeded, and nothing
//! can fail after it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{
    ANSWER_BYTES, AnswerHead, CLIENT_COOKIE, COOKIE_OPTION, EDNS_PAYLOAD, MAX_NAME_BYTES, SERVER_COOKIE, Verdict,
    cookie_head,
};

use crate::checksum::{Sum, at_offset, fold};
use crate::cookie;
use crate::family::Family;
use crate::lookup::Found;
use crate::packet::{Cursor, Frame, load, opaque, shift_down, store, unlinked};
use crate::parse::{DNS, DNS_ONE, ETHERNET, LINK_MASK, Message, TAG, UDP, headers};
use crate::question::{ADDITIONAL_MASK, COOKIE, MAX_ADDITIONAL, OPT, OWN_OPT_MASK, Question, TYPE_CLASS};

const DNS_QR: u16 = 0x8000_u16.to_be();
const DNS_RD: u16 = 0x0100_u16.to_be();

/// Our OPT up to the flags: root, type 41, payload size, extended RCODE 0, version 0.
const OPT_HEAD: [u8; 7] = [0, 0, 41, EDNS_PAYLOAD.to_be_bytes()[0], EDNS_PAYLOAD.to_be_bytes()[1], 0, 0];
/// Bytes of both cookies.
const COOKIES: usize = CLIENT_COOKIE + SERVER_COOKIE;

/// Bounds any offset in a reply: link, IPv6, UDP and DNS header, question, answer, OPT.
const OFFSET_MASK: usize = 0x7ff;

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
    let dns_len = DNS + question.name_len + TYPE_CLASS + found.len + question.own_opt;
    if dns_len > question.limit() {
        return Err(Verdict::TooLarge);
    }
    let question_end = message.link + question.end::<F>();
    let opt = Opt::of::<F>(frame, message, question)?;
    let removed = if opt.is_there() { sum_additional(frame, question_end, question.additional_len)? } else { 0 };

    // What follows the datagram goes too, Ethernet's padding for one.
    let dns = message.link + F::DNS;
    let shift = resize(ctx, (dns + dns_len) as i64 - frame.len() as i64)?;

    let frame = Frame { data: opaque(ctx.data()), end: ctx.data_end() };
    // Whether it has moved or not, from here on it is one way for the verifier.
    let shift = frame.blurred::<SHIFT_MASK>(shift);
    let from = opaque(frame.data + shift);
    // The first of each says the same as the second, which the kernel's verifier does not see.
    let old = headers::<F>(Cursor { at: from + message.link, end: frame.end })?;
    let new = headers::<F>(Cursor { at: frame.data + message.link, end: frame.end })?;
    turn_link(from, frame, message.link)?;
    // SAFETY: all of the headers are inside the frame, at either place.
    unsafe { turn_headers::<F>(old, new, dns_len, removed, question, found, &opt) };
    if unlinked::<SHIFT_MASK>(shift) != 0 {
        let question_len = question.name_len + TYPE_CLASS;
        move_question(frame, shift, dns + DNS, question_len)?;
    }
    copy_answer(frame, question_end, found)?;
    opt.write(frame, question_end + found.len)
}

/// What the OPT of a reply says: an OPT is answered by an OPT, a cookie by a cookie.
struct Opt {
    /// Its length; 0: there is none.
    len: usize,
    dnssec_ok: u8,
    /// The client's cookie and the server's, as they are sent.
    cookies: [u64; 3],
}

impl Opt {
    #[inline(always)]
    fn of<F: Family>(frame: Frame, message: &Message, question: &Question) -> Result<Self, Verdict> {
        let mut cookies = [0; 3];
        if question.cookie_at != 0 {
            let client = place::<CLIENT_COOKIE>(frame, question.cookie_at)?;
            let ip = headers::<F>(frame.cursor(message.link))?;
            // SAFETY: stepped over above.
            let (client, [high, low]) = unsafe { (load::<u64>(client), F::sender(ip)) };
            let now = cookie::now(message.pool);
            let v4 = F::CHECKSUM_OPTIONAL;
            let hash = cookie::selvedge_cookie_hash(client, high, low, u64::from(now) << 1 | u64::from(v4));
            cookies = [client, cookie_head(now), hash];
        }
        Ok(Self { len: question.own_opt, dnssec_ok: question.dnssec_ok, cookies })
    }

    #[inline(always)]
    fn is_there(&self) -> bool {
        unlinked::<OWN_OPT_MASK>(self.len) != 0
    }

    #[inline(always)]
    fn has_cookies(&self) -> bool {
        unlinked::<OWN_OPT_MASK>(self.len) > OPT
    }

    /// Sum of it, from an even offset.
    #[inline(always)]
    fn sum(&self) -> Sum {
        let word = |high: u8, low: u8| u16::from_ne_bytes([high, low]);
        let head = Sum::ZERO
            .add(word(OPT_HEAD[2], OPT_HEAD[3]))
            .add(word(OPT_HEAD[4], OPT_HEAD[5]))
            .add(word(OPT_HEAD[6], self.dnssec_ok));
        if !self.has_cookies() {
            return head;
        }
        let cookies = Sum::ZERO.add_chunk(self.cookies[0]).add_chunk(self.cookies[1]).add_chunk(self.cookies[2]);
        // Lengths, code and all that follows stand at odd offsets.
        head.add(word(COOKIE as u8, 0))
            .add(word(COOKIE_OPTION as u8, 0))
            .add(word(COOKIES as u8, 0))
            .add(at_offset(fold(cookies), true))
    }

    #[inline(always)]
    fn write(&self, frame: Frame, offset: usize) -> Result<(), Verdict> {
        if !self.is_there() {
            return Ok(());
        }
        let at = place::<OPT>(frame, offset)?;
        let head = u64::from_ne_bytes([
            OPT_HEAD[0],
            OPT_HEAD[1],
            OPT_HEAD[2],
            OPT_HEAD[3],
            OPT_HEAD[4],
            OPT_HEAD[5],
            OPT_HEAD[6],
            self.dnssec_ok,
        ]);
        // SAFETY: stepped over above.
        unsafe {
            store(at, head);
            store(at + 8, 0_u8);
            store(at + 9, 0_u16);
        }
        if self.has_cookies() {
            let at = place::<COOKIE>(frame, offset + OPT)?;
            let length = place::<2>(frame, offset + OPT - 2)?;
            // SAFETY: stepped over above.
            unsafe {
                store(length, (COOKIE as u16).to_be());
                store(at, COOKIE_OPTION.to_be());
                store(at + 2, (COOKIES as u16).to_be());
                store(at + 4, self.cookies[0]);
                store(at + 12, self.cookies[1]);
                store(at + 20, self.cookies[2]);
            }
        }
        Ok(())
    }
}

/// Most that a frame grows in front: the headroom that drivers leave (256 bytes), less what the kernel
/// keeps there for itself.
const MAX_SHIFT: i64 = 224;
const SHIFT_MASK: usize = 0xff;

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

/// Bytes per round where much is copied.
const STRIDE: usize = 64;
/// Bytes per round of [`move_question`]: the bytes of most questions.
const HALF: usize = STRIDE / 2;

/// A place in the frame, at most so far from its first byte that the verifier can follow.
#[inline(always)]
fn place<const N: usize>(frame: Frame, offset: usize) -> Result<usize, Verdict> {
    frame.cursor(offset & OFFSET_MASK).step::<N>().map_err(|_| Verdict::Broken)
}

/// Moves the question to the front. Upwards, so that what is overwritten has been read; the last bytes, which the
/// rounds before may overwrite where the way is short, are read first.
#[inline(always)]
fn move_question(frame: Frame, shift: usize, to: usize, len: usize) -> Result<(), Verdict> {
    let from = to + shift;
    if len >= 8 {
        let last = place::<8>(frame, from + len - 8)?;
        // SAFETY: stepped over above.
        let last = unsafe { load::<u64>(last) };
        let (mut source, mut target) = (frame.cursor(from & OFFSET_MASK), frame.cursor(to & OFFSET_MASK));
        let mut left = unlinked::<0x1ff>(len);
        let mut round = 0;
        while round < (MAX_NAME_BYTES + TYPE_CLASS) / HALF {
            if left < HALF {
                break;
            }
            move_up::<HALF>(&mut source, &mut target)?;
            left -= HALF;
            round += 1;
        }
        let left = unlinked::<0x1f>(len);
        if left & 16 != 0 {
            move_up::<16>(&mut source, &mut target)?;
        }
        if left & 8 != 0 {
            move_up::<8>(&mut source, &mut target)?;
        }
        let to = place::<8>(frame, to + len - 8)?;
        // SAFETY: stepped over above.
        unsafe { store(to, last) };
        return Ok(());
    }
    // Two overlapping halves; the shortest question is the root's, of five bytes.
    let (first, last) = (place::<4>(frame, from)?, place::<4>(frame, from + len - 4)?);
    let (to_first, to_last) = (place::<4>(frame, to)?, place::<4>(frame, to + len - 4)?);
    // SAFETY: stepped over above.
    unsafe {
        let (low, high) = (load::<u32>(first), load::<u32>(last));
        store(to_first, low);
        store(to_last, high);
    }
    Ok(())
}

/// Steps over `N` bytes in both places and copies them, in words one after another.
#[inline(always)]
fn move_up<const N: usize>(source: &mut Cursor, target: &mut Cursor) -> Result<(), Verdict> {
    let (source, target) = (source.step::<N>()?, target.step::<N>()?);
    // SAFETY: stepped over above.
    unsafe { copy::<N>(source, target) };
    Ok(())
}

/// Copies the records: in strides of a constant length, which cost one bounds check each and no counting inside,
/// and a last word that overlaps the one before.
#[inline(always)]
fn copy_answer(frame: Frame, to: usize, found: &Found) -> Result<(), Verdict> {
    let len = found.len;
    let (mut source, mut target) = (opaque(found.records()), frame.cursor(to & OFFSET_MASK));
    let mut left = unlinked::<OFFSET_MASK>(len);
    let mut round = 0;
    while round < ANSWER_BYTES / STRIDE {
        if left < STRIDE {
            break;
        }
        copy_over::<STRIDE>(&mut source, &mut target)?;
        left -= STRIDE;
        round += 1;
    }
    let left = unlinked::<{ STRIDE - 1 }>(len);
    if left == 0 {
        return Ok(());
    }
    if left & 32 != 0 {
        copy_over::<32>(&mut source, &mut target)?;
    }
    if left & 16 != 0 {
        copy_over::<16>(&mut source, &mut target)?;
    }
    if left & 8 != 0 {
        copy_over::<8>(&mut source, &mut target)?;
    }
    if left & 7 != 0 {
        // No record is shorter than eleven bytes.
        let target = place::<8>(frame, to + len - 8)?;
        // SAFETY: stepped over above; the head is in front of the records.
        unsafe { copy::<8>(found.at + len + size_of::<AnswerHead>() - 8, target) };
    }
    Ok(())
}

/// Copies `N` bytes of records and steps over them.
#[inline(always)]
fn copy_over<const N: usize>(source: &mut usize, target: &mut Cursor) -> Result<(), Verdict> {
    let target = target.step::<N>().map_err(|_| Verdict::Broken)?;
    // SAFETY: stepped over above; inside the pool.
    unsafe { copy::<N>(*source, target) };
    *source += N;
    Ok(())
}

/// Copies `N` bytes, a multiple of eight.
///
/// # Safety
/// Both places have them.
#[inline(always)]
unsafe fn copy<const N: usize>(from: usize, to: usize) {
    let mut i = 0;
    while i < N {
        // SAFETY: see above.
        unsafe { store(to + i, load::<u64>(from + i)) };
        i += 8;
    }
}

/// Sum of the additional section that goes away, from an even offset.
#[inline(always)]
fn sum_additional(frame: Frame, offset: usize, len: usize) -> Result<u16, Verdict> {
    let mut sum = Sum::ZERO;
    let mut cursor = frame.cursor(offset & OFFSET_MASK);
    let mut left = unlinked::<ADDITIONAL_MASK>(len);
    let mut round = 0;
    while round < MAX_ADDITIONAL / 8 + 1 {
        if left < 8 {
            break;
        }
        let at = cursor.step::<8>()?;
        // SAFETY: stepped over above.
        sum = sum.add_chunk(unsafe { load::<u64>(at) });
        left -= 8;
        round += 1;
    }
    // The last eight bytes, of which the first ones are counted already; an OPT has eleven at least.
    let rest = unlinked::<0x7>(len);
    if rest != 0 {
        let at = place::<8>(frame, offset + len - 8)?;
        // SAFETY: stepped over above.
        let last = unsafe { load::<u64>(at) };
        // They stand where the chunks end, so the first of them begins a word.
        sum = sum.add_chunk(shift_down(last, 8 - rest as u32));
    }
    Ok(fold(sum))
}

/// Exchanges the hardware addresses and keeps type and tags. Read at one place and written at another, which may
/// overlap: the frame begins at `from` or before it. So from the first byte on, each read before it is written.
#[inline(always)]
fn turn_link(from: usize, frame: Frame, link: usize) -> Result<(), Verdict> {
    let mut old = Cursor { at: from, end: frame.end };
    let mut new = frame.cursor(0);
    // With the tags even where there are none; a query is longer.
    let (from, to) = (old.step::<{ ETHERNET + 2 * TAG }>()?, new.step::<{ ETHERNET + 2 * TAG }>()?);
    // SAFETY: stepped over above.
    unsafe {
        let (to_high, to_low) = (load::<u32>(from), load::<u16>(from + 4));
        let (from_high, from_low) = (load::<u32>(from + 6), load::<u16>(from + 10));
        let kind = load::<u16>(from + 12);
        store(to, from_high);
        store(to + 4, from_low);
        store(to + 6, to_high);
        store(to + 10, to_low);
        store(to + 12, kind);
    }
    let link = unlinked::<LINK_MASK>(link);
    if link > ETHERNET {
        // SAFETY: stepped over above.
        let (first, second) = unsafe { (load::<u32>(from + ETHERNET), load::<u32>(from + ETHERNET + TAG)) };
        // SAFETY: as above.
        unsafe { store(to + ETHERNET, first) };
        if link > ETHERNET + TAG {
            // SAFETY: as above.
            unsafe { store(to + ETHERNET + TAG, second) };
        }
    }
    Ok(())
}

/// IP, UDP and DNS headers of the reply, in the same order; `from` and `to` are those of the IP headers.
///
/// # Safety
/// Both places hold the headers up to the end of the DNS header.
#[inline(always)]
unsafe fn turn_headers<F: Family>(
    from: usize,
    to: usize,
    dns_len: usize,
    removed: u16,
    question: &Question,
    found: &Found,
    opt: &Opt,
) {
    let head = found.head();
    let udp_len = (UDP + dns_len) as u16;
    let opt_count = if opt.is_there() { DNS_ONE } else { 0 };
    // SAFETY: all inside the headers, see above.
    unsafe {
        F::turn(from, to, udp_len);

        let (udp, dns) = (from + F::UDP, from + F::DNS);
        let (ports, old_len, checksum) = (load::<u32>(udp), load::<u16>(udp + 4), load::<u16>(udp + 6));
        let (id, old_flags) = (load::<u16>(dns), load::<u16>(dns + 2));
        let flags = DNS_QR | (old_flags & DNS_RD) | head.flags;
        let new_len = udp_len.to_be();
        let checksum = if !F::CHECKSUM_OPTIONAL || checksum != 0 {
            // The question is as long as its name and four bytes more.
            let odd = question.name_len & 1 != 0;
            // The length counts twice, in the UDP header and in the pseudo header. An OPT's count was there before.
            let mut sum = Sum::of_checksum(checksum)
                .replace(old_flags, flags)
                .replace(old_len, new_len)
                .replace(old_len, new_len)
                .add(head.counts)
                .add(at_offset(head.sum, odd));
            if opt.is_there() {
                let opt_odd = (question.name_len ^ found.len) & 1 != 0;
                sum = sum.add(!at_offset(removed, odd)).add(at_offset(fold(opt.sum()), opt_odd));
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
        // The question stays.
        store(dns + 4, DNS_ONE);
        store(dns + 6, head.ancount);
        store(dns + 8, head.nscount);
        // Small numbers of one byte each do not carry into the other.
        store(dns + 10, head.arcount + opt_count);
    }
}
