//! A reply, in memory of the program's own: headers here, [`names`] and [`records`] behind them.
//!
//! Offsets are those of the frame and always masked before use, so that no length in a packet leads out of the copy,
//! and the verifier has nothing to follow. What costs many steps is a function of its own for the kernel too: its
//! verifier walks each once.

mod names;
mod records;

use aya_ebpf::btf_maps::{HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use xdp_balancer_common::{MAX_NAME_BYTES, TransitVerdict as Verdict, client_turn_v4, client_turn_v6};

use crate::checksum::{Sum, fold};
use crate::family::{IPV4, IPV6};
use crate::packet::{load, opaque, store, unlinked};
pub use crate::parse::{DNS, UDP};
use crate::parse::{
    ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, FRAGMENT, PORT_DNS, PROTOCOL_UDP, TAG,
};

/// Bounds a length and an offset of a frame.
pub const LENGTH_MASK: usize = 0x7ff;
/// Shortest UDP datagram that is looked at.
pub const SHORTEST: usize = UDP + DNS;
/// Bytes behind the longest frame, so that a label copied in one piece is inside.
const MARGIN: usize = 64;

/// Copies of what is worked on.
#[repr(C, align(8))]
pub struct Scratch {
    frame: [u8; LENGTH_MASK + 1 + MARGIN],
    /// A name without pointers.
    name: [u8; MAX_NAME_BYTES + 1 + MARGIN],
    progress: records::Progress,
}

/// Where replies are rewritten, by interface.
#[btf_map]
pub static TRANSIT_HOOKS: HashMap<u32, u32, 64> = HashMap::new();

/// Packets by what became of them on this CPU.
#[btf_map]
pub static TRANSIT_VERDICTS: PerCpuArray<u64, { Verdict::ALL.len() }> = PerCpuArray::new();

/// This CPU's.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

impl Scratch {
    /// This CPU's. The program is not interrupted by itself, so it is alone with it.
    #[inline(always)]
    fn get() -> Result<&'static mut Self, Verdict> {
        let scratch = SCRATCH.get_ptr_mut(0).ok_or(Verdict::Broken)?;
        // SAFETY: a live map element of this CPU, of which any bytes are one.
        Ok(unsafe { &mut *scratch })
    }

    /// Address of a byte of the frame.
    #[inline(always)]
    fn at(&self, offset: usize) -> usize {
        self.frame.as_ptr() as usize + unlinked::<LENGTH_MASK>(offset)
    }

    /// What stands at an offset, at most [`MARGIN`] bytes.
    #[inline(always)]
    fn load<T: Copy>(&self, offset: usize) -> T {
        const { assert!(size_of::<T>() <= MARGIN) };
        // SAFETY: inside the copy, for the offset is masked and the margin long enough.
        unsafe { load::<T>(self.at(offset)) }
    }

    /// Writes at an offset.
    #[inline(always)]
    fn store<T: Copy>(&mut self, offset: usize, value: T) {
        const { assert!(size_of::<T>() <= MARGIN) };
        // SAFETY: as above.
        unsafe { store::<T>(self.at(offset), value) };
    }
}

/// A packet that was copied.
pub struct Copied {
    scratch: &'static mut Scratch,
    len: usize,
}

/// What is to be written back.
pub struct Target {
    /// Offset of the UDP header.
    pub udp: usize,
    /// Offset behind the datagram.
    pub end: usize,
    /// By what the sum of the datagram has changed.
    pub changed: u16,
}

/// Where the headers are.
struct Headers {
    ip: usize,
    v6: bool,
    udp: usize,
    end: usize,
}

impl Copied {
    /// Copies a packet of `len` bytes; `copy` puts so many to an address and returns zero.
    #[inline(always)]
    pub fn new(len: usize, copy: impl FnOnce(*mut u8, u32) -> i64) -> Result<Self, Verdict> {
        if len > LENGTH_MASK {
            return Err(Verdict::TooLong);
        }
        let scratch = Scratch::get()?;
        let len = unlinked::<LENGTH_MASK>(len);
        if len < ETHERNET + IPV4 + SHORTEST {
            return Err(Verdict::NotReply);
        }
        match copy(scratch.frame.as_mut_ptr(), len as u32) {
            0 => Ok(Self { scratch, len }),
            _ => Err(Verdict::Broken),
        }
    }

    /// Address of a byte.
    #[inline(always)]
    pub fn at(&self, offset: usize) -> *mut u8 {
        self.scratch.at(offset) as *mut u8
    }

    /// Rewrites the copy, with its checksum where asked for.
    #[inline(always)]
    pub fn rewrite(&mut self, checksum: bool) -> Result<Target, Verdict> {
        let headers = self.headers()?;
        let Headers { ip, v6, udp, end } = headers;
        let turn = if v6 {
            client_turn_v6(self.scratch.load::<u64>(ip + 24))
        } else {
            client_turn_v4(self.scratch.load::<u32>(ip + 16))
        };
        let field = self.scratch.load::<u16>(udp + 6);
        // Before anything is changed.
        let finished = !checksum || self.is_finished(&headers, field);
        let outcome = records::selvedge_transit_records((udp + UDP) as u64, end as u64, turn.into());
        let changed = records::changed(outcome)?;
        if checksum && field != 0 && finished {
            let sum = !fold(Sum::of_checksum(field).add(changed));
            // Zero would say "no checksum" (RFC 768).
            self.scratch.store(udp + 6, if sum == 0 { 0xffff } else { sum });
        }
        Ok(Target { udp, end, changed })
    }

    /// A whole datagram from port 53.
    #[inline(always)]
    fn headers(&self) -> Result<Headers, Verdict> {
        let scratch = &self.scratch;
        let mut ip = ETHERNET;
        let mut kind = scratch.load::<u16>(ip - 2);
        if kind == ETHERTYPE_VLAN || kind == ETHERTYPE_QINQ {
            ip += TAG;
            kind = scratch.load::<u16>(ip - 2);
            if kind == ETHERTYPE_VLAN {
                ip += TAG;
                kind = scratch.load::<u16>(ip - 2);
            }
        }
        let ip = opaque(ip);
        let version = scratch.load::<u8>(ip);
        let (v6, udp, payload) = match kind {
            ETHERTYPE_IPV4 if version == 0x45 && scratch.load::<u8>(ip + 9) == PROTOCOL_UDP => {
                if scratch.load::<u16>(ip + 6) & FRAGMENT != 0 {
                    return Err(Verdict::Fragment);
                }
                let total = usize::from(u16::from_be(scratch.load::<u16>(ip + 2)));
                // A total shorter than the header wraps round and is longer than any frame.
                (false, ip + IPV4, total.wrapping_sub(IPV4))
            }
            ETHERTYPE_IPV6 if version >> 4 == 6 && scratch.load::<u8>(ip + 6) == PROTOCOL_UDP => {
                (true, ip + IPV6, usize::from(u16::from_be(scratch.load::<u16>(ip + 4))))
            }
            _ => return Err(Verdict::NotReply),
        };
        if udp + SHORTEST > self.len {
            return Err(Verdict::BadLength);
        }
        if scratch.load::<u16>(udp) != PORT_DNS {
            return Err(Verdict::NotReply);
        }
        let udp_len = usize::from(u16::from_be(scratch.load::<u16>(udp + 4)));
        if payload > self.len - udp || udp_len > payload || udp_len < SHORTEST {
            return Err(Verdict::BadLength);
        }
        if v6 && scratch.load::<u16>(udp + 6) == 0 {
            return Err(Verdict::BadLength);
        }
        Ok(Headers { ip, v6, udp: opaque(udp), end: opaque(udp + udp_len) })
    }

    /// Whether the checksum is one. A sender on this machine may leave it to a device: then the field holds the sum of
    /// the pseudo header, and has to stay. One that holds this by chance is finished if the datagram is whole.
    #[inline(always)]
    fn is_finished(&self, headers: &Headers, field: u16) -> bool {
        let Headers { ip, v6, udp, end } = *headers;
        let scratch = &self.scratch;
        let mut pseudo = Sum::ZERO.add(u16::from(PROTOCOL_UDP).to_be()).add(scratch.load::<u16>(udp + 4));
        let addresses = if v6 { ip + 8 } else { ip + 12 };
        pseudo = pseudo.add_chunk(scratch.load::<u64>(addresses));
        if v6 {
            for word in 1..4 {
                pseudo = pseudo.add_chunk(scratch.load::<u64>(addresses + word * 8));
            }
        }
        let pseudo = fold(pseudo);
        if field != pseudo {
            return true;
        }
        let datagram = selvedge_transit_sum(udp as u64, end as u64) as u16;
        fold(Sum::ZERO.add(pseudo).add(datagram)) == 0xffff
    }
}

/// Sum of what stands between two offsets, from an even one.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn selvedge_transit_sum(from: u64, end: u64) -> u64 {
    let Ok(scratch) = Scratch::get() else { return 0 };
    let mut sum = Sum::ZERO;
    let (mut at, end) = (from as usize & LENGTH_MASK, end as usize & LENGTH_MASK);
    let mut round = 0;
    while round < (LENGTH_MASK + 1) / 8 {
        let left = end.wrapping_sub(at);
        if left == 0 || left > LENGTH_MASK {
            break;
        }
        let chunk = scratch.load::<u64>(at);
        let used = if left < 8 { left as u32 } else { 8 };
        sum = sum.add_chunk(chunk & xdp_balancer_common::keep_bytes(used));
        at = unlinked::<LENGTH_MASK>(at + used as usize);
        round += 1;
    }
    fold(sum).into()
}
