//! DNS server cookies (RFC 7873) in the interoperable form of RFC 9018, made the same way by the program and
//! by user space.

/// Bytes of a client's cookie.
pub const CLIENT_COOKIE: usize = 8;
/// Bytes of our server cookie.
pub const SERVER_COOKIE: usize = 16;
/// Code of the EDNS option.
pub const COOKIE_OPTION: u16 = 10;

/// Version 1, then three reserved bytes of zero, as a 64-bit word has them in front of the time.
const VERSION: u64 = 1;

/// The secret that server cookies are made with; all servers of one address share it.
pub type CookieSecret = [u64; 2];

/// A server cookie's two words, in memory order: version, reserved, time (seconds, RFC 1982 arithmetic, network order)
/// and the hash of `client cookie | version | reserved | time | client's address` (RFC 9018, section 4).
///
/// `client` is the client's cookie, `time` the seconds in host order, `address` the address as it stands in the
/// packet, in one word and a half-used second where `v4`.
#[inline(always)]
#[must_use]
pub const fn server_cookie(secret: CookieSecret, client: u64, time: u32, address: [u64; 2], v4: bool) -> [u64; 2] {
    // All words are taken as they lie in memory, SipHash reads them little-endian.
    let head = cookie_head(time);
    let mut sip = Sip::new(secret).add(u64::from_le(client)).add(u64::from_le(head));
    let hash = if v4 {
        const LEN: u64 = 20;
        sip.finish(LEN << 56 | (u64::from_le(address[0]) & 0xffff_ffff))
    } else {
        const LEN: u64 = 32;
        sip = sip.add(u64::from_le(address[0])).add(u64::from_le(address[1]));
        sip.finish(LEN << 56)
    };
    [head, hash.to_le()]
}

/// The part of a server cookie in front of the hash, in memory order: version, reserved, time.
#[inline(always)]
#[must_use]
pub const fn cookie_head(time: u32) -> u64 {
    (VERSION | (time.swap_bytes() as u64) << 32).to_le()
}

/// SipHash-2-4 over whole words.
#[derive(Clone, Copy)]
struct Sip([u64; 4]);

impl Sip {
    #[inline(always)]
    const fn new(key: [u64; 2]) -> Self {
        Self([
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        Self([a, b, c, d])
    }

    #[inline(always)]
    const fn add(self, word: u64) -> Self {
        let [a, b, c, d] = self.0;
        let [a, b, c, d] = Self([a, b, c, d ^ word]).round().round().0;
        Self([a ^ word, b, c, d])
    }

    /// `last`: the bytes that fill no word, the length modulo 256 on top.
    #[inline(always)]
    const fn finish(self, last: u64) -> u64 {
        let [a, b, c, d] = self.add(last).0;
        let [a, b, c, d] = Self([a, b, c ^ 0xff, d]).round().round().round().round().0;
        a ^ b ^ c ^ d
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: [u8; 16]) -> [u64; 2] {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(word)
        };
        [word(0), word(8)]
    }

    /// RFC 9018, appendix A.1: learning a new server cookie.
    #[test]
    fn the_cookie_of_the_rfc_v4() {
        let secret =
            words([0xe5, 0xe9, 0x73, 0xe5, 0xa6, 0xb2, 0xa4, 0x3f, 0x48, 0xe7, 0xdc, 0x84, 0x9e, 0x37, 0xbf, 0xcf])
                .map(u64::from_le);
        let client = u64::from_ne_bytes([0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57]);
        let address = u64::from_ne_bytes([198, 51, 100, 100, 0, 0, 0, 0]);
        let cookie = server_cookie(secret, client, 1_559_731_985, [address, 0], true);
        let bytes: [[u8; 8]; 2] = cookie.map(u64::to_ne_bytes);
        assert_eq!(bytes[0], [1, 0, 0, 0, 0x5c, 0xf7, 0x9f, 0x11]);
        assert_eq!(bytes[1], [0x1f, 0x81, 0x30, 0xc3, 0xee, 0xe2, 0x94, 0x80]);
    }

    /// RFC 9018, appendix A.4: IPv6, and another secret.
    #[test]
    fn the_cookie_of_the_rfc_v6() {
        let secret =
            words([0x44, 0x55, 0x36, 0xbc, 0xd2, 0x51, 0x32, 0x98, 0x07, 0x5a, 0x5d, 0x37, 0x96, 0x63, 0xc9, 0x62])
                .map(u64::from_le);
        let client = u64::from_ne_bytes([0x22, 0x68, 0x1a, 0xb9, 0x7d, 0x52, 0xc2, 0x98]);
        let address = words([0x20, 1, 0xd, 0xb8, 2, 0x20, 0, 1, 0x59, 0xde, 0xd0, 0xf4, 0x87, 0x69, 0x82, 0xb8]);
        let cookie = server_cookie(secret, client, 1_559_741_961, address, false);
        let bytes: [[u8; 8]; 2] = cookie.map(u64::to_ne_bytes);
        assert_eq!(bytes[0], [1, 0, 0, 0, 0x5c, 0xf7, 0xc6, 0x09]);
        assert_eq!(bytes[1], [0xa6, 0xbb, 0x79, 0xd1, 0x66, 0x25, 0x50, 0x7a]);
    }
}
