//! The question (name, type, class) and the OPT record behind it.

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::{
    CLIENT_COOKIE, COOKIE_OPTION, EDNS_PAYLOAD, MAX_NAME_BYTES, NAME_CHUNKS, NameHash, SERVER_COOKIE, Settings, Verdict,
};

use crate::family::Family;
use crate::names::{Slot, Table};
use crate::packet::{Cursor, Frame, LAST_CHUNK, load, opaque, unlinked};
use crate::parse::{DNS, Message, UDP};

/// Bytes of type and class.
pub const TYPE_CLASS: usize = 4;
/// Bytes of an OPT record without options.
pub const OPT: usize = 11;
/// Bytes of the option that carries a client's cookie and ours.
pub const COOKIE: usize = 4 + CLIENT_COOKIE + SERVER_COOKIE;
/// Bytes of an OPT record with that option.
const OPT_WITH_COOKIE: usize = OPT + COOKIE;
/// Bounds the length of an OPT record of ours.
pub const OWN_OPT_MASK: usize = 0x3f;
/// Bounds an offset of a cookie: link, IPv6, UDP and DNS header, question, OPT.
const COOKIE_MASK: usize = 0x3ff;
/// Bounds the length of a name.
const NAME_MASK: usize = 0xff;
const _: () = assert!(MAX_NAME_BYTES == NAME_MASK);
/// Bounds the length of an additional section.
pub const ADDITIONAL_MASK: usize = 0xff;
/// Bounds an offset behind an option, wherever it says that it ends.
const OPTION_MASK: usize = 0x1ff;
/// Longest additional section that we look through: an OPT with the options that resolvers send over UDP, and to spare.
/// Each eight bytes more are one more round for the verifier to walk.
pub const MAX_ADDITIONAL: usize = OPT + 117;
/// Shortest and longest server cookie of any server (RFC 7873, 4.2).
const MIN_SERVER_COOKIE: usize = 8;
const MAX_SERVER_COOKIE: usize = 32;
/// Payload size that needs no OPT (RFC 1035).
const PLAIN_PAYLOAD: usize = 512;

/// Options that one OPT may have; resolvers send two or three.
const MAX_OPTIONS: usize = 4;
const CLASS_IN: u16 = 1_u16.to_be();
const TYPE_OPT: u16 = 41_u16.to_be();
const OPTION_CLIENT_SUBNET: u16 = 8_u16.to_be();
const OPTION_COOKIE: u16 = COOKIE_OPTION.to_be();

/// A question that is understood.
pub struct Question {
    /// Length of the name in wire form, 1–255.
    pub name_len: usize,
    /// Where the name is, if it is in the table.
    pub slot: Slot,
    /// QTYPE, network order.
    pub qtype: u16,
    /// Bytes behind the question.
    pub additional_len: usize,
    /// The client's payload size as its OPT says; zero without one.
    payload: u16,
    /// The flags byte that holds DO, with all else cleared; meaningful with an OPT.
    pub dnssec_ok: u8,
    /// Bytes of the OPT that the reply has: none, [`OPT`], or [`OPT_WITH_COOKIE`].
    pub own_opt: usize,
    /// Offset in the frame of the client's cookie; zero: there is none, or we do not speak cookies.
    pub cookie_at: usize,
}

impl Question {
    /// Offset of the first byte behind the question, from the IP header.
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
    let start = message.link + F::DNS + DNS;
    let table = Table::in_force(message.pool);
    let (name_len, hash) = scan_name(frame.cursor(start), table.secret())?;
    let slot = table.slot(message.pool, hash);

    // Anew, so that the verifier forgets how far the search has looked: as many ways would go on from here.
    let frame = Frame::of(ctx);
    let mut cursor = frame.cursor(start + name_len);
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
        slot,
        qtype,
        additional_len: opaque(additional_len),
        payload: 0,
        dnssec_ok: 0,
        own_opt: 0,
        cookie_at: 0,
    };
    if message.additional {
        read_opt(frame, &mut cursor, message.pool.root().settings.features, &mut question)?;
    } else if additional_len != 0 {
        return Err(Verdict::OddAdditional);
    }
    // With and without an OPT, with and without a cookie, from here on it is one way for the verifier.
    question.own_opt = frame.blurred::<OWN_OPT_MASK>(question.own_opt);
    question.cookie_at = frame.blurred::<COOKIE_MASK>(question.cookie_at);
    question.additional_len = frame.blurred::<ADDITIONAL_MASK>(question.additional_len);
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
        let Some(chunk) = cursor.chunk() else {
            let chunk = cursor.last_chunk().ok_or(Verdict::ShortFrame)?;
            let used = first_of(zero_bytes(chunk)) + 1;
            if used as usize > LAST_CHUNK {
                return Err(Verdict::ShortFrame);
            }
            return end_of_name(cursor.at - start, hash, chunk, used);
        };
        let zeros = zero_bytes(chunk);
        if zeros != 0 {
            return end_of_name(cursor.at - 8 - start, hash, chunk, first_of(zeros) + 1);
        }
        hash = hash.add(chunk, 8);
        round += 1;
    }
    Err(Verdict::OddName)
}

#[inline(always)]
fn end_of_name(before: usize, hash: NameHash, chunk: u64, used: u32) -> Result<(usize, u64), Verdict> {
    let len = before + used as usize;
    if len > MAX_NAME_BYTES {
        return Err(Verdict::OddName);
    }
    // From here on all offsets derive from a value whose bounds every verifier knows. Up to Linux 6.1 a copy on the stack
    // learns nothing from a comparison of the register that it was made of.
    let len = unlinked::<NAME_MASK>(len);
    Ok((len, hash.add(chunk, used).finish(len as u32)))
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

/// One OPT of version 0 that fills the rest of the datagram, its options well-formed. Those that nobody here
/// knows are ignored (RFC 6891, 6.1.2).
#[inline(always)]
fn read_opt(frame: Frame, cursor: &mut Cursor, features: u64, question: &mut Question) -> Result<(), Verdict> {
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
    question.own_opt = OPT;
    if rdata_len != 0 {
        let cookie = read_options(frame, *cursor, rdata_len, features)?;
        if cookie != 0 {
            question.own_opt = OPT_WITH_COOKIE;
            question.cookie_at = cursor.at + cookie - frame.data;
        }
    }
    question.payload = u16::from_be(class);
    question.dnssec_ok = flags & 0x80;
    Ok(())
}

/// Says where among the options the client's cookie stands; zero: it gave none.
#[inline(always)]
fn read_options(frame: Frame, options: Cursor, len: usize, features: u64) -> Result<usize, Verdict> {
    let (mut at, mut cookie) = (0, 0);
    let mut round = 0;
    while round < MAX_OPTIONS {
        let mut option = Cursor { at: options.at + at, end: options.end };
        let header = option.step::<4>()?;
        // SAFETY: taken above.
        let (code, option_len) = unsafe { (load::<u16>(header), load::<u16>(header + 2)) };
        let option_len = usize::from(u16::from_be(option_len));
        if option_len > MAX_ADDITIONAL {
            return Err(Verdict::OddAdditional);
        }
        if code == OPTION_COOKIE && features & Settings::COOKIES != 0 {
            // RFC 7873, 4: the client's alone, or the server's of 8 to 32 bytes with it.
            let cookie_len = unlinked::<ADDITIONAL_MASK>(option_len);
            let longer = cookie_len.wrapping_sub(CLIENT_COOKIE + MIN_SERVER_COOKIE);
            let whole = cookie_len == CLIENT_COOKIE || longer <= MAX_SERVER_COOKIE - MIN_SERVER_COOKIE;
            if unlinked::<OPTION_MASK>(cookie) != 0 || !whole {
                return Err(Verdict::OddCookie);
            }
            cookie = at + 4;
        }
        if code == OPTION_CLIENT_SUBNET && features & Settings::CLIENT_SUBNET != 0 {
            return Err(Verdict::ClientSubnet);
        }
        // Whatever was met, the next round begins in one way.
        at = frame.blurred::<OPTION_MASK>(at + 4 + option_len);
        cookie = frame.blurred::<OPTION_MASK>(cookie);
        let next = unlinked::<OPTION_MASK>(at);
        if next == len {
            return Ok(cookie);
        }
        if next > len {
            return Err(Verdict::OddAdditional);
        }
        round += 1;
    }
    Err(Verdict::OddAdditional)
}
