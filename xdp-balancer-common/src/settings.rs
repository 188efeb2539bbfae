//! What the program needs to know besides the tables.

use crate::CookieSecret;

/// Local addresses per family that queries may be addressed to.
pub const LOCAL_ADDRESSES: usize = 8;

/// Prefixes whose packets are no sign that a service is in use: monitors, and the node itself, which probes.
pub const QUIET_PREFIXES: usize = 32;

/// A prefix, as it stands in packets; IPv4 as IPv6 maps it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuietPrefix {
    /// The network's address.
    pub address: [u32; 4],
    /// Ones where it counts.
    pub mask: [u32; 4],
}

impl QuietPrefix {
    /// The first 96 bits of an IPv4 address as IPv6 maps it.
    pub const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

    /// Whether an address, as it stands in a packet, is in it.
    #[inline(always)]
    #[must_use]
    pub const fn holds(&self, address: [u32; 4]) -> bool {
        let Self { address: own, mask } = self;
        (address[0] ^ own[0]) & mask[0]
            | (address[1] ^ own[1]) & mask[1]
            | (address[2] ^ own[2]) & mask[2]
            | (address[3] ^ own[3]) & mask[3]
            == 0
    }
}

/// The program's settings, written by user space before the program is attached and on a reload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Random number of this set of maps, never zero once they are set up: counters continue as
    /// long as it stays. The program does not read it.
    pub epoch: u64,
    /// Generation of the published tables, for `status`; the program does not read it.
    pub generation: u64,
    /// Secret of server cookies (RFC 9018), in the words that SipHash takes.
    pub cookie_secret: CookieSecret,
    /// What to do besides, of [`Settings::TRANSPARENT`] and the like.
    pub features: u64,
    /// Used entries of `local4` and of `local6`.
    pub local_lens: [u32; 2],
    /// IPv4 addresses that we answer for, as they stand in the packet.
    pub local4: [u32; LOCAL_ADDRESSES],
    /// IPv6 addresses that we answer for, as they stand in the packet.
    pub local6: [[u64; 2]; LOCAL_ADDRESSES],
    /// Entries of `quiet` that are monitors, and all used ones.
    pub quiet_lens: [u32; 2],
    /// Who is no sign of use: monitors first, then the node itself.
    pub quiet: [QuietPrefix; QUIET_PREFIXES],
}

impl Settings {
    /// Whether packets from an address, as it stands in them, are no sign of use: of the first `len` entries.
    #[inline(always)]
    #[must_use]
    pub const fn is_quiet(&self, len: u32, address: [u32; 4]) -> bool {
        let mut i = 0;
        while i < QUIET_PREFIXES && (i as u32) < len {
            if self.quiet[i].holds(address) {
                return true;
            }
            i += 1;
        }
        false
    }

    /// Answer whatever address a query was sent to.
    pub const TRANSPARENT: u64 = 1 << 0;
    /// Speak DNS cookies.
    pub const COOKIES: u64 = 1 << 1;
    /// Leave queries with an EDNS client subnet to user space.
    pub const CLIENT_SUBNET: u64 = 1 << 2;
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for Settings {}
