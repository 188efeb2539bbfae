//! What differs between IPv4 and IPv6. The two ways through the program are compiled separately, so
//! that every header field stands at a constant offset.

use xdp_balancer_common::{LOCAL_ADDRESSES, Settings, Verdict};

use crate::checksum::{Sum, fold};
use crate::packet::{load, store};
use crate::parse::{ETHERNET, IPV4, IPV6};

/// Hop limit of replies.
const HOP_LIMIT: u8 = 64;

/// An IP version.
pub trait Family {
    /// Offset of the UDP header.
    const UDP: usize;
    /// Offset of the DNS message.
    const DNS: usize = Self::UDP + 8;
    /// True where a UDP checksum of zero means "none".
    const CHECKSUM_OPTIONAL: bool;

    /// Bytes behind the IP header, by that header.
    ///
    /// # Safety
    /// The frame at `data` holds the headers up to [`Family::DNS`].
    unsafe fn payload_len(data: usize) -> usize;

    /// Whether it is addressed to us and may be answered.
    ///
    /// # Safety
    /// As for [`Family::payload_len`].
    unsafe fn addressed(data: usize, settings: &Settings) -> Result<(), Verdict>;

    /// Turns the IP header round for `udp_len` bytes behind it: reads all of it in the frame at `from`, then
    /// writes it into the one at `to`.
    ///
    /// # Safety
    /// As for [`Family::payload_len`] of both, and the bytes are writable.
    unsafe fn turn(from: usize, to: usize, udp_len: u16);
}

/// IPv4 without options.
pub enum V4 {}

impl Family for V4 {
    const UDP: usize = ETHERNET + IPV4;
    const CHECKSUM_OPTIONAL: bool = true;

    #[inline(always)]
    unsafe fn payload_len(data: usize) -> usize {
        // SAFETY: inside the IP header.
        let total = u16::from_be(unsafe { load::<u16>(data + ETHERNET + 2) });
        // A total shorter than the header wraps round and is longer than any frame.
        usize::from(total).wrapping_sub(IPV4)
    }

    #[inline(always)]
    unsafe fn addressed(data: usize, settings: &Settings) -> Result<(), Verdict> {
        // SAFETY: inside the IP header.
        let (source, to) = unsafe { (load::<u32>(data + ETHERNET + 12), load::<u32>(data + ETHERNET + 16)) };
        let mut i = 0;
        while i < LOCAL_ADDRESSES {
            if i as u32 >= settings.local_lens[0] {
                return Err(Verdict::NotLocal);
            }
            if settings.local4[i] == to {
                // 0.0.0.0/8, 127.0.0.0/8 and everything from multicast up.
                let first = (u32::from_be(source) >> 24) as u8;
                return if first == 0 || first == 127 || first >= 224 { Err(Verdict::OddSource) } else { Ok(()) };
            }
            i += 1;
        }
        Err(Verdict::NotLocal)
    }

    #[inline(always)]
    unsafe fn turn(from: usize, to: usize, udp_len: u16) {
        let ip = from + ETHERNET;
        // SAFETY: all inside the IP headers, see the trait.
        unsafe {
            let (first, old_len, fragment) = (load::<u16>(ip), load::<u16>(ip + 2), load::<u32>(ip + 4));
            let (old_ttl, sum) = (load::<u16>(ip + 8), load::<u16>(ip + 10));
            let (sender, receiver) = (load::<u32>(ip + 12), load::<u32>(ip + 16));

            // Incremental, so a header that arrived broken leaves broken and is dropped by its reader.
            let new_len = (udp_len + IPV4 as u16).to_be();
            let new_ttl = u16::from_ne_bytes([HOP_LIMIT, old_ttl.to_ne_bytes()[1]]);
            let changed = Sum::of_checksum(sum).replace(old_len, new_len).replace(old_ttl, new_ttl);

            let ip = to + ETHERNET;
            store(ip, first);
            store(ip + 2, new_len);
            store(ip + 4, fragment);
            store(ip + 8, new_ttl);
            store(ip + 10, !fold(changed));
            store(ip + 12, receiver);
            store(ip + 16, sender);
        }
    }
}

/// IPv6 without extension headers.
pub enum V6 {}

impl Family for V6 {
    const UDP: usize = ETHERNET + IPV6;
    const CHECKSUM_OPTIONAL: bool = false;

    #[inline(always)]
    unsafe fn payload_len(data: usize) -> usize {
        // SAFETY: inside the IP header.
        usize::from(u16::from_be(unsafe { load::<u16>(data + ETHERNET + 4) }))
    }

    #[inline(always)]
    unsafe fn addressed(data: usize, settings: &Settings) -> Result<(), Verdict> {
        let ip = data + ETHERNET;
        // SAFETY: inside the IP header.
        let to = unsafe { [load::<u32>(ip + 24), load::<u32>(ip + 28), load::<u32>(ip + 32), load::<u32>(ip + 36)] };
        let mut i = 0;
        while i < LOCAL_ADDRESSES {
            if i as u32 >= settings.local_lens[1] {
                return Err(Verdict::NotLocal);
            }
            let ours = &settings.local6[i];
            if ours[3] == to[3] && ours[2] == to[2] && ours[1] == to[1] && ours[0] == to[0] {
                // SAFETY: inside the IP header.
                let source = unsafe { [load::<u32>(ip + 8), load::<u32>(ip + 12), load::<u32>(ip + 16)] };
                // Multicast; `::`, `::1` and the IPv4-compatible addresses.
                let multicast = (u32::from_be(source[0]) >> 24) == 0xff;
                return if multicast || source == [0; 3] { Err(Verdict::OddSource) } else { Ok(()) };
            }
            i += 1;
        }
        Err(Verdict::NotLocal)
    }

    #[inline(always)]
    unsafe fn turn(from: usize, to: usize, udp_len: u16) {
        let ip = from + ETHERNET;
        // SAFETY: all inside the IP headers, see the trait.
        unsafe {
            let (first, next) = (load::<u32>(ip), load::<u8>(ip + 6));
            let (sender_high, sender_low) = (load::<u64>(ip + 8), load::<u64>(ip + 16));
            let (receiver_high, receiver_low) = (load::<u64>(ip + 24), load::<u64>(ip + 32));

            let ip = to + ETHERNET;
            store(ip, first);
            store(ip + 4, udp_len.to_be());
            store(ip + 6, next);
            store(ip + 7, HOP_LIMIT);
            store(ip + 8, receiver_high);
            store(ip + 16, receiver_low);
            store(ip + 24, sender_high);
            store(ip + 32, sender_low);
        }
    }
}
