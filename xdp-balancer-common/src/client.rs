//! Which turn of a ring is a client's, where a service keeps its clients with their instances.

/// Turns of such a ring: a power of two, and enough of them that each of 64 instances has its share.
pub const CLIENT_TURNS: u16 = 1024;
/// Bits of an IPv4 address that make clients one.
pub const CLIENT_PREFIX_V4: u8 = 24;
/// Bits of an IPv6 address that make clients one.
pub const CLIENT_PREFIX_V6: u8 = 56;

/// Not secret: the same client stays with the same instance across restarts and on every node.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// The turn of a client with this IPv4 address, as it stands in the packet.
#[inline(always)]
#[must_use]
pub const fn client_turn_v4(address: u32) -> u16 {
    turn((u32::from_be(address) & !0xff) as u64)
}

/// The turn of a client whose IPv6 address begins with these eight bytes, as they stand in the packet.
#[inline(always)]
#[must_use]
pub const fn client_turn_v6(address: u64) -> u16 {
    turn(u64::from_be(address) & !0xff)
}

#[inline(always)]
const fn turn(prefix: u64) -> u16 {
    let mixed = (prefix ^ prefix >> 32).wrapping_mul(MULTIPLIER);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(MULTIPLIER);
    (mixed >> 54) as u16 & (CLIENT_TURNS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_a_prefix_have_one_turn() {
        let v4 = |last| client_turn_v4(u32::from_ne_bytes([192, 0, 2, last]));
        assert!((0..=255).all(|last| v4(last) == v4(0)));
        let v6 = |last| client_turn_v6(u64::from_ne_bytes([0x20, 1, 0xd, 0xb8, 0, 7, 1, last]));
        assert!((0..=255).all(|last| v6(last) == v6(0)));
    }

    #[test]
    fn prefixes_spread_over_the_turns() {
        let mut met = [0_u32; CLIENT_TURNS as usize];
        (0..64 * u32::from(CLIENT_TURNS)).for_each(|i| met[usize::from(client_turn_v4((i << 8).to_be()))] += 1);
        assert!(met.iter().all(|count| (20..130).contains(count)), "{met:?}");
    }
}
