//! The question (name, type, class) and the OPT record behind it.

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{EDNS_PAYLOAD, MAX_NAME_BYTES, NAME_CHUNKS, NameHash, Verdict};

use crate::family::Family;
use crate::packet::{Cursor, Frame, load, opaque};
use crate::parse::{DNS, Message, UDP};

/// Bytes of type and class.
pub const TYPE_CLASS: usize = 4;
/// Bytes of an OPT record without options.
pub const OPT: usize = 11;
/// Longest additional section that we look through: an OPT with 512 bytes of options.
pub const MAX_ADDITIONAL: usize = OPT + 512;
/// Payload size that needs no OPT (RFC 1035).
const PLAIN_PAYLOAD: usize = 512;

const MAX_OPTIONS: usize = 8;
const CLASS_IN: u16 = 1_u16.to_be();
const TYPE_OPT: u16 = 41_u16.to_be();

/// A question that is understood.
pub struct Question {
    /// Length of the name in wire form, 1–255.
    pub name_len: usize,
    /// Table key of the name.
    pub hash: u64,
    /// QTYPE, host order.
    pub qtype: u16,
    /// Bytes behind the question.
    pub additional_len: usize,
    /// The client's payload size as its OPT says; zero without one.
    payload: u16,
    /// The flags byte that holds DO, with all else cleared; meaningful with an OPT.
    pub dnssec_ok: u8,
}

impl Question {
    /// Offset of the first byte behind the question.
    #[inline(always)]
    pub fn end<F: Family>(&self) -> usize {
        F::DNS + DNS + TYPE_CLASS + self.name_len
    }

    /// Largest DNS message that the client can take. Found out late: each outcome known earlier would make
    /// the verifier walk through what follows once more.
    #[inline(always)]
    pub fn limit(&self) -> usize {
        let wanted = usize::from(self.payload);
        if wanted < PLAIN_PAYLOAD {
            PLAIN_PAYLOAD
        } else if wanted > EDNS_PAYLOAD as usize {
            EDNS_PAYLOAD as usize
        } else {
            wanted
        }
    }
}

/// Reads the question and the additional section, up to the datagram's last byte.
#[inline(always)]
pub fn read<F: Family>(ctx: &XdpContext, frame: Frame, message: &Message) -> Result<Question, Verdict> {
    let (name_len, hash) = scan_name(frame.cursor(F::DNS + DNS), message.settings.secret)?;

    // Anew, so that the verifier forgets how far the search has looked: as many ways would go on from here.
    let frame = Frame::of(ctx);
    let mut cursor = frame.cursor(F::DNS + DNS + name_len);
    let behind = cursor.take::<TYPE_CLASS>()?;
    // SAFETY: taken above.
    let (qtype, class) = unsafe { (load::<u16>(behind), load::<u16>(behind + 2)) };
    // In the frame is not enough: what follows the datagram is padding.
    let question_end = UDP + DNS + TYPE_CLASS + name_len;
    if question_end > message.udp_len {
        return Err(Verdict::ShortFrame);
    }
    if class != CLASS_IN {
        return Err(Verdict::OddClass);
    }

    let additional_len = message.udp_len - question_end;
    if additional_len > MAX_ADDITIONAL {
        return Err(Verdict::OddAdditional);
    }
    let mut question = Question {
        name_len,
        hash,
        qtype: u16::from_be(qtype),
        additional_len: opaque(additional_len),
        payload: 0,
        dnssec_ok: 0,
    };
    if message.additional {
        read_opt(&mut cursor, &mut question)?;
    } else if additional_len != 0 {
        return Err(Verdict::OddAdditional);
    }
    Ok(question)
}

/// Finds the name's end and hashes it on the way. Label lengths are not looked at: a hit in the table
/// is compared with a well-formed name byte by byte, and everything else is a miss.
#[inline(always)]
fn scan_name(mut cursor: Cursor, secret: u64) -> Result<(usize, u64), Verdict> {
    let start = cursor.at;
    let mut hash = NameHash::new(secret);
    let mut round = 0;
    while round < NAME_CHUNKS {
        let chunk = cursor.chunk().ok_or(Verdict::ShortFrame)?;
        let zeros = zero_bytes(chunk);
        if zeros != 0 {
            let used = first_of(zeros) + 1;
            let len = opaque(cursor.at) - start + used as usize;
            if len > MAX_NAME_BYTES {
                return Err(Verdict::OddName);
            }
            // From here on all offsets derive from a value that the verifier has seen compared.
            let len = opaque(len);
            return Ok((len, hash.add(chunk, used).finish(len as u32)));
        }
        hash = hash.add(chunk, 8);
        cursor.at += 8;
        round += 1;
    }
    Err(Verdict::OddName)
}

/// Sets the top bit of the first zero byte (and perhaps of later bytes).
#[inline(always)]
fn zero_bytes(chunk: u64) -> u64 {
    let chunk = u64::from_le(chunk);
    chunk.wrapping_sub(0x0101_0101_0101_0101) & !chunk & 0x8080_8080_8080_8080
}

/// Index of the first byte marked by [`zero_bytes`]. A multiplication, because this machine has no
/// instruction that counts zeros.
#[inline(always)]
fn first_of(marks: u64) -> u32 {
    let lowest = (marks & marks.wrapping_neg()) >> 7;
    (lowest.wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32
}

/// One OPT of version 0 that fills the rest of the datagram, its options well-formed. What they say
/// is ignored, as RFC 6891 wants of options that are not implemented.
#[inline(always)]
fn read_opt(cursor: &mut Cursor, question: &mut Question) -> Result<(), Verdict> {
    let len = question.additional_len;
    if len < OPT {
        return Err(Verdict::OddAdditional);
    }
    let opt = cursor.take::<OPT>()?;
    // SAFETY: taken above.
    let (owner, record_type, class) = unsafe { (load::<u8>(opt), load::<u16>(opt + 1), load::<u16>(opt + 3)) };
    // SAFETY: see above.
    let (rcode, version, flags) = unsafe { (load::<u8>(opt + 5), load::<u8>(opt + 6), load::<u8>(opt + 7)) };
    // SAFETY: see above.
    let rdata_len = usize::from(u16::from_be(unsafe { load::<u16>(opt + 9) }));
    if owner != 0 || record_type != TYPE_OPT || rcode != 0 || version != 0 || rdata_len != len - OPT {
        return Err(Verdict::OddAdditional);
    }
    if rdata_len != 0 {
        check_options(*cursor, rdata_len)?;
    }
    question.payload = u16::from_be(class);
    question.dnssec_ok = flags & 0x80;
    Ok(())
}

#[inline(always)]
fn check_options(options: Cursor, len: usize) -> Result<(), Verdict> {
    let mut at = 0;
    let mut round = 0;
    while round < MAX_OPTIONS {
        let mut option = Cursor { at: options.at + at, end: options.end };
        let header = option.step::<4>()?;
        // SAFETY: taken above.
        at += 4 + usize::from(u16::from_be(unsafe { load::<u16>(header + 2) }));
        if at == len {
            return Ok(());
        }
        if at > MAX_ADDITIONAL || at > len {
            return Err(Verdict::OddAdditional);
        }
        round += 1;
    }
    Err(Verdict::OddAdditional)
}
