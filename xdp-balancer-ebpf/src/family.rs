//! What differs between IPv4 and IPv6. The two ways through the program are compiled separately, so
//! that every header field stands at a constant offset from the IP header.

use xdp_balancer_common::{LOCAL_ADDRESSES, QuietPrefix, Settings, Verdict, client_turn_v4, client_turn_v6};

use crate::checksum::{Sum, fold};
use crate::packet::{load, store};

/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6: usize = 40;
/// Hop limit of replies.
const HOP_LIMIT: u8 = 64;

/// An IP version. All addresses given are those of an IP header in a frame that holds the headers up to
/// [`Family::DNS`].
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
    /// See the trait.
    unsafe fn payload_len(ip: usize) -> usize;

    /// Whether it is addressed to us and may be answered.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn addressed(ip: usize, settings: &Settings) -> Result<(), Verdict>;

    /// Address of the sender in two words, as it stands in the packet.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn sender(ip: usize) -> [u64; 2];

    /// The same in four words, IPv4 as IPv6 maps it.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn sender_mapped(ip: usize) -> [u32; 4];

    /// The sender's turn in rings that keep clients with their instances.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn client_turn(ip: usize) -> u16;

    /// Turns the IP header round for `udp_len` bytes behind it: reads all of it at `from`, then writes it
    /// at `to`.
    ///
    /// # Safety
    /// See the trait; the bytes at `to` are writable.
    unsafe fn turn(from: usize, to: usize, udp_len: u16);
}

/// IPv4 without options.
pub enum V4 {}

impl Family for V4 {
    const UDP: usize = IPV4;
    const CHECKSUM_OPTIONAL: bool = true;

    #[inline(always)]
    unsafe fn payload_len(ip: usize) -> usize {
        // SAFETY: inside the IP header.
        let total = u16::from_be(unsafe { load::<u16>(ip + 2) });
        // A total shorter than the header wraps round and is longer than any frame.
        usize::from(total).wrapping_sub(IPV4)
    }

    #[inline(always)]
    unsafe fn addressed(ip: usize, settings: &Settings) -> Result<(), Verdict> {
        // SAFETY: inside the IP header.
        let to = unsafe { load::<u32>(ip + 16) };
        let mut i = 0;
        loop {
            if i >= LOCAL_ADDRESSES || i as u32 >= settings.local_lens[0] {
                // Not for the groups and the broadcast address.
                if settings.features & Settings::TRANSPARENT == 0 || (u32::from_be(to) >> 24) as u8 >= 224 {
                    return Err(Verdict::NotLocal);
                }
                break;
            }
            if settings.local4[i] == to {
                break;
            }
            i += 1;
        }
        // 0.0.0.0/8, 127.0.0.0/8 and everything from multicast up.
        // SAFETY: inside the IP header.
        let first = unsafe { load::<u8>(ip + 12) };
        if first == 0 || first == 127 || first >= 224 { Err(Verdict::OddSource) } else { Ok(()) }
    }

    #[inline(always)]
    unsafe fn sender(ip: usize) -> [u64; 2] {
        // SAFETY: inside the IP header.
        let sender = u64::from(unsafe { load::<u32>(ip + 12) });
        [if cfg!(target_endian = "little") { sender } else { sender << 32 }, 0]
    }

    #[inline(always)]
    unsafe fn sender_mapped(ip: usize) -> [u32; 4] {
        let [a, b, c] = QuietPrefix::MAPPED;
        // SAFETY: inside the IP header.
        [a, b, c, unsafe { load::<u32>(ip + 12) }]
    }

    #[inline(always)]
    unsafe fn client_turn(ip: usize) -> u16 {
        // SAFETY: inside the IP header.
        client_turn_v4(unsafe { load::<u32>(ip + 12) })
    }

    #[inline(always)]
    unsafe fn turn(from: usize, to: usize, udp_len: u16) {
        // SAFETY: all inside the IP headers, see the trait.
        unsafe {
            let (first, old_len, fragment) = (load::<u16>(from), load::<u16>(from + 2), load::<u32>(from + 4));
            let (old_ttl, sum) = (load::<u16>(from + 8), load::<u16>(from + 10));
            let (sender, receiver) = (load::<u32>(from + 12), load::<u32>(from + 16));

            // Incremental, so a header that arrived broken leaves broken and is dropped by its reader.
            let new_len = (udp_len + IPV4 as u16).to_be();
            let new_ttl = u16::from_ne_bytes([HOP_LIMIT, old_ttl.to_ne_bytes()[1]]);
            let changed = Sum::of_checksum(sum).replace(old_len, new_len).replace(old_ttl, new_ttl);

            store(to, first);
            store(to + 2, new_len);
            store(to + 4, fragment);
            store(to + 8, new_ttl);
            store(to + 10, !fold(changed));
            store(to + 12, receiver);
            store(to + 16, sender);
        }
    }
}

/// IPv6 without extension headers.
pub enum V6 {}

impl Family for V6 {
    const UDP: usize = IPV6;
    const CHECKSUM_OPTIONAL: bool = false;

    #[inline(always)]
    unsafe fn payload_len(ip: usize) -> usize {
        // SAFETY: inside the IP header.
        usize::from(u16::from_be(unsafe { load::<u16>(ip + 4) }))
    }

    #[inline(always)]
    unsafe fn addressed(ip: usize, settings: &Settings) -> Result<(), Verdict> {
        // SAFETY: inside the IP header.
        let to = unsafe { [load::<u64>(ip + 24), load::<u64>(ip + 32)] };
        let mut i = 0;
        loop {
            if i >= LOCAL_ADDRESSES || i as u32 >= settings.local_lens[1] {
                // SAFETY: see above.
                if settings.features & Settings::TRANSPARENT == 0 || unsafe { load::<u8>(ip + 24) } == 0xff {
                    return Err(Verdict::NotLocal);
                }
                break;
            }
            if settings.local6[i][1] == to[1] && settings.local6[i][0] == to[0] {
                break;
            }
            i += 1;
        }
        // Multicast; `::`, `::1` and the IPv4-compatible addresses.
        // SAFETY: see above.
        let (high, low) = unsafe { (load::<u64>(ip + 8), load::<u32>(ip + 16)) };
        // SAFETY: see above.
        let odd = unsafe { load::<u8>(ip + 8) } == 0xff || (high == 0 && low == 0);
        if odd { Err(Verdict::OddSource) } else { Ok(()) }
    }

    #[inline(always)]
    unsafe fn sender(ip: usize) -> [u64; 2] {
        // SAFETY: inside the IP header.
        unsafe { [load::<u64>(ip + 8), load::<u64>(ip + 16)] }
    }

    #[inline(always)]
    unsafe fn sender_mapped(ip: usize) -> [u32; 4] {
        // SAFETY: inside the IP header.
        unsafe { [load::<u32>(ip + 8), load::<u32>(ip + 12), load::<u32>(ip + 16), load::<u32>(ip + 20)] }
    }

    #[inline(always)]
    unsafe fn client_turn(ip: usize) -> u16 {
        // SAFETY: inside the IP header.
        client_turn_v6(unsafe { load::<u64>(ip + 8) })
    }

    #[inline(always)]
    unsafe fn turn(from: usize, to: usize, udp_len: u16) {
        // SAFETY: all inside the IP headers, see the trait.
        unsafe {
            let (first, next) = (load::<u32>(from), load::<u8>(from + 6));
            let (sender_high, sender_low) = (load::<u64>(from + 8), load::<u64>(from + 16));
            let (receiver_high, receiver_low) = (load::<u64>(from + 24), load::<u64>(from + 32));

            store(to, first);
            store(to + 4, udp_len.to_be());
            store(to + 6, next);
            store(to + 7, HOP_LIMIT);
            store(to + 8, receiver_high);
            store(to + 16, receiver_low);
            store(to + 24, sender_high);
            store(to + 32, sender_low);
        }
    }
}
