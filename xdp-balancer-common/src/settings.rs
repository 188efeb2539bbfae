//! What the program needs to know besides the tables.

use crate::CookieSecret;

/// Local addresses per family that queries may be addressed to.
pub const LOCAL_ADDRESSES: usize = 8;

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
}

impl Settings {
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
