//! How answers are kept from being abused: limits by client prefix, ceilings, lists of clients, and what is done while
//! nobody tells the program that the tables are still right. Here is what the program and the daemon decide alike.
//!
//! A limit is a token bucket in the form of one number (the generic cell rate algorithm): the time when the bucket will
//! be full again. An answer moves it on by an interval; where it would lie further ahead than a burst takes, the answer
//! is over the limit.

/// What the program has to do besides answering, written by user space. Each word stands alone, so that a change
/// needs no pause: for a moment some words are the new ones and others the old ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Of [`Guard::LIMITS`] and the like; 0: the program looks at nothing else here.
    pub features: u64,
    /// Secret of the buckets' places.
    pub secret: u64,
    /// Rate of each client prefix.
    pub client: Rate,
    /// Rate of each service.
    pub service: Rate,
    /// Rate of everything together.
    pub total: Rate,
    /// Bits that make clients one: ones where they count, as they stand in the packet; of IPv6 the first 64.
    pub mask_v4: u64,
    /// See `mask_v4`.
    pub mask_v6: u64,
    /// Each so many answers that are over a limit one goes out without records, truncated; 0: none does.
    pub slip: u64,
    /// Most bytes that go out for a byte that came in, as UDP datagrams, to who has not proven its address; 0: any.
    pub amplification: u64,
    /// Nanoseconds without a heartbeat after which tables are stale.
    pub stale_ns: u64,
    /// Longest TTL in answers from stale tables, seconds.
    pub stale_ttl: u64,
    /// Of so many queries less one (a power of two less one) each is noted at random.
    pub sample_mask: u64,
    /// The same of those whose cost is measured.
    pub cost_mask: u64,
}

impl Guard {
    /// Limits, ceilings or amplification.
    pub const LIMITS: u64 = 1 << 0;
    /// There are lists.
    pub const LISTS: u64 = 1 << 1;
    /// Who is denied is not answered at all, rather than REFUSED.
    pub const DENY_DROPS: u64 = 1 << 2;
    /// Stale tables are not answered from.
    pub const STALE_PASSES: u64 = 1 << 3;
    /// Answers from stale tables live shorter.
    pub const STALE_SHORTENS: u64 = 1 << 4;
    /// Some queries are noted.
    pub const SAMPLES: u64 = 1 << 5;
    /// What some queries cost is measured.
    pub const COSTS: u64 = 1 << 6;
    /// What is looked at before a name is looked up.
    pub const BEFORE: u64 = Self::DENY_DROPS | Self::STALE_PASSES | Self::SAMPLES | Self::COSTS;
    /// What is looked at once an answer is found.
    pub const BEHIND: u64 = Self::LIMITS | Self::LISTS;
}

/// A rate with a burst.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds from one to the next; 0: no limit.
    pub interval: u64,
    /// Nanoseconds that a bucket may lie ahead of now and one still go.
    pub tolerance: u64,
}

/// What a bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The bucket was full: it is now to be set to this.
    Set(u64),
    /// This is to be added to it.
    Add(u64),
    /// Over the limit.
    Over,
}

impl Rate {
    /// So many in a second, and a burst of as many as come in a second.
    #[must_use]
    pub const fn per_second(rate: u32) -> Self {
        if rate == 0 {
            return Self { interval: 0, tolerance: 0 };
        }
        let interval = 1_000_000_000 / rate as u64;
        Self { interval, tolerance: interval * (rate as u64 - 1) }
    }

    /// Asks a bucket, at `now` on a monotonic clock in nanoseconds. Two that ask at once both get their answer; what they
    /// add counts, and only where both find the bucket full one is not counted.
    #[inline(always)]
    #[must_use]
    pub const fn ask(&self, full_at: u64, now: u64) -> Admission {
        if full_at <= now {
            return Admission::Set(now + self.interval);
        }
        // Further ahead than any burst: left there by a clock that was set anew.
        let ahead = full_at - now;
        if ahead > self.tolerance { Admission::Over } else { Admission::Add(self.interval) }
    }
}

/// Buckets of a [`BucketSet`].
pub const BUCKETS_OF_SET: usize = 4;
/// Sets of buckets; a power of two. Prefixes that are remembered: as many times [`BUCKETS_OF_SET`].
pub const BUCKET_SETS: u32 = 1 << 14;

/// A client prefix's bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The prefix, by [`client_key_v4`] or [`client_key_v6`]; 0: nobody's.
    pub key: u64,
    /// When it will be full again.
    pub full_at: u64,
}

/// The buckets where a prefix can be: a line of the cache. A prefix that has none takes the one that is soonest full,
/// so where there are too few, somebody who asks seldom is forgotten, and so answered; who asks much is remembered.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketSet(pub [Bucket; BUCKETS_OF_SET]);

/// The key of an IPv4 prefix: no IPv6 prefix, for it begins as multicast addresses do.
#[inline(always)]
#[must_use]
pub const fn client_key_v4(address: u32, mask: u64) -> u64 {
    let marked = if cfg!(target_endian = "little") { 0xff } else { 0xff << 56 };
    let place = if cfg!(target_endian = "little") { (address as u64 & mask) << 32 } else { address as u64 & mask };
    place | marked
}

/// The key of an IPv6 prefix, of the first eight bytes of an address; never zero.
#[inline(always)]
#[must_use]
pub const fn client_key_v6(address: u64, mask: u64) -> u64 {
    let key = address & mask;
    if key == 0 { 1 } else { key }
}

/// Ones for the first `len` bits (at most 32) of an IPv4 address as it stands in a packet.
#[must_use]
pub const fn mask_v4(len: u8) -> u64 {
    let bits = if len == 0 { 0 } else { u32::MAX << (32 - len as u32) };
    bits.to_be() as u64
}

/// Ones for the first `len` bits (at most 64) of an IPv6 address as it stands in a packet.
#[must_use]
pub const fn mask_v6(len: u8) -> u64 {
    let bits = if len == 0 { 0 } else { u64::MAX << (64 - len as u32) };
    bits.to_be()
}

/// Which of `sets` (a power of two) a key's bucket is in.
#[inline(always)]
#[must_use]
pub const fn bucket_set(key: u64, secret: u64, sets: u32) -> u32 {
    let mixed = (key ^ secret).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed >> 40) as u32 & (sets - 1)
}

/// A prefix in a list of clients, as the kernel's tries hold it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListKey {
    /// Bits that count, host order.
    pub len: u32,
    /// The address as it stands in packets; IPv4 as IPv6 maps it.
    pub address: [u32; 4],
}

impl ListKey {
    /// Length of an address.
    pub const FULL: u32 = 128;
}

/// Value of a [`ListKey`] whose clients are not limited.
pub const LIST_ALLOW: u32 = 1;
/// Value of a [`ListKey`] whose clients are not answered.
pub const LIST_DENY: u32 = 2;

/// Bytes of a name that are noted.
pub const NOTED_NAME_BYTES: usize = 64;

/// A name that is asked for: the first bytes of its wire form, folded to lower case where it ends within them, and zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedName(pub [u8; NOTED_NAME_BYTES]);

impl Default for NotedName {
    fn default() -> Self {
        Self([0; NOTED_NAME_BYTES])
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for Guard {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for BucketSet {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for ListKey {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for NotedName {}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(rate: Rate, times: impl Iterator<Item = u64>) -> u32 {
        let mut full_at = 0;
        let mut count = 0;
        for now in times {
            match rate.ask(full_at, now) {
                Admission::Set(at) => full_at = at,
                Admission::Add(more) => full_at += more,
                Admission::Over => continue,
            }
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_is_a_second_of_the_rate_and_no_more() {
        let now = 5_000_000_000;
        for rate in [1, 2, 10, 1000] {
            assert_eq!(answered(Rate::per_second(rate), core::iter::repeat_n(now, 3000)), rate);
        }
    }

    #[test]
    fn over_time_the_rate_is_kept_and_who_is_under_it_is_answered() {
        let every = |ns: u64, count: u64| (0..count).map(move |i| 1_000_000_000 + i * ns);
        // Ten times the rate for ten seconds: the rate, and one burst.
        assert_eq!(answered(Rate::per_second(100), every(1_000_000, 10_000)), 1099);
        assert_eq!(answered(Rate::per_second(100), every(10_000_000, 1000)), 1000);
    }

    #[test]
    fn keys_are_those_of_prefixes() {
        let v4 = |text: [u8; 4]| client_key_v4(u32::from_ne_bytes(text), mask_v4(24));
        assert_eq!(v4([192, 0, 2, 1]), v4([192, 0, 2, 200]));
        assert_ne!(v4([192, 0, 2, 1]), v4([192, 0, 3, 1]));
        let v6 = |last| client_key_v6(u64::from_ne_bytes([0x20, 1, 0xd, 0xb8, 0, 7, 1, last]), mask_v6(56));
        assert_eq!(v6(1), v6(200));
        assert_eq!((mask_v4(0), mask_v6(0), mask_v6(64)), (0, 0, u64::MAX));
        assert_ne!(client_key_v6(0, u64::MAX), 0);
    }

    #[test]
    fn keys_spread_over_the_sets() {
        let mut met = [0_u32; 256];
        for i in 0..256 * 64_u32 {
            let key = client_key_v4((i << 8).to_be(), mask_v4(24));
            met[bucket_set(key, 7, 256) as usize] += 1;
        }
        assert!(met.iter().all(|count| (25..120).contains(count)), "{met:?}");
    }
}
