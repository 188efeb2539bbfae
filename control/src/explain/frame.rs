//! Ethernet frames with a UDP datagram, looked into.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where DNS is asked for.
pub(super) const DNS_PORT: u16 = 53;

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
/// 802.1Q and 802.1ad.
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
const PROTOCOL_UDP: u8 = 17;
const ETHERNET_BYTES: usize = 14;
const UDP_BYTES: usize = 8;

/// A UDP datagram in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram<'f> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub payload: &'f [u8],
}

impl<'f> Datagram<'f> {
    /// Finds it behind VLAN tags and IPv4 options. `None` where there is none, or not the whole.
    pub fn find(frame: &'f [u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        let mut ip_at = ETHERNET_BYTES;
        while ETHERTYPES_VLAN.contains(&word(ip_at - 2)?) {
            ip_at += 4;
        }
        let (source, destination, udp_at): (IpAddr, IpAddr, usize) = match word(ip_at - 2)? {
            ETHERTYPE_V4 => {
                let header = usize::from(frame.get(ip_at)? & 0x0f) * 4;
                // The second part of a fragmented datagram has no UDP header.
                let fragment = word(ip_at + 6)? & 0x3fff != 0;
                if *frame.get(ip_at + 9)? != PROTOCOL_UDP || header < 20 || fragment {
                    return None;
                }
                let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
                (address(ip_at + 12)?.into(), address(ip_at + 16)?.into(), ip_at + header)
            }
            ETHERTYPE_V6 if *frame.get(ip_at + 6)? == PROTOCOL_UDP => {
                let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?));
                (address(ip_at + 8)?.into(), address(ip_at + 24)?.into(), ip_at + 40)
            }
            _ => return None,
        };
        let length = usize::from(word(udp_at + 4)?);
        Some(Self {
            from: SocketAddr::new(source, word(udp_at)?),
            to: SocketAddr::new(destination, word(udp_at + 2)?),
            payload: frame.get(udp_at + UDP_BYTES..udp_at.checked_add(length)?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;
    use crate::datapath::explain::frame as build;

    /// The Internet checksum (RFC 1071) of parts that lie one behind the other; all but the last of even length.
    fn checksum(parts: &[&[u8]]) -> u16 {
        let words = parts.iter().flat_map(|part| part.chunks(2));
        let mut sum: u32 = words.map(|w| u32::from(w[0]) << 8 | w.get(1).copied().map_or(0, u32::from)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        let (from, to) = if v6 { ("[2001:db8::1]:4000", "[fd00::53]:53") } else { ("192.0.2.1:4000", "10.0.0.53:53") };
        (from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn a_known_frame_has_known_checksums() {
        let (from, to) = ends(false);
        let frame = build(from, to, b"abc").unwrap();
        assert_eq!(checksum(&[&frame[14..34]]), 0, "the header with its sum");
        let pseudo = [&frame[26..34], &[0, 17, 0, 11]].concat();
        assert_eq!(checksum(&[&pseudo, &frame[34..]]), 0, "the datagram with its sum");
    }

    #[test]
    fn datagrams_are_found_behind_tags_only_where_they_are_whole() {
        let (from, to) = ends(false);
        let plain = build(from, to, b"abc").unwrap();
        let mut tagged = plain[..12].to_vec();
        tagged.extend_from_slice(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
        tagged.extend_from_slice(&plain[12..]);
        let whole = Datagram { from, to, payload: b"abc" };
        assert_eq!(Datagram::find(&tagged), Some(whole.clone()));
        // Padding of Ethernet is not of the datagram.
        tagged.resize(90, 0);
        assert_eq!(Datagram::find(&tagged), Some(whole));
        for length in 0..plain.len() {
            assert_eq!(Datagram::find(&plain[..length]), None, "{length}");
        }
        let mut fragment = plain.clone();
        fragment[21] = 1;
        assert_eq!(Datagram::find(&fragment), None);
        assert_eq!(build(from, ends(true).1, b""), None);
    }

    proptest! {
        #[test]
        fn what_was_built_is_found(v6: bool, payload in prop::collection::vec(any::<u8>(), 0..1400)) {
            let (from, to) = ends(v6);
            let frame = build(from, to, &payload).unwrap();
            prop_assert_eq!(Datagram::find(&frame), Some(Datagram { from, to, payload: &payload }));
            let udp_at = if v6 { 54 } else { 34 };
            let addresses = if v6 { &frame[22..54] } else { &frame[26..34] };
            let length = (8 + payload.len() as u16).to_be_bytes();
            prop_assert_eq!(checksum(&[addresses, &[0, 17], &length, &frame[udp_at..]]), 0);
        }

        #[test]
        fn nothing_makes_it_panic(frame in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Datagram::find(&frame);
        }
    }
}
