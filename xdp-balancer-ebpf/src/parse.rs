//! Ethernet, IP and UDP headers, and the DNS header's fixed part. Order matters: what is no DNS
//! leaves after the fewest loads.

use xdp_balancer_common::{Settings, Verdict};

use crate::family::Family;
use crate::maps::SETTINGS;
use crate::packet::{Frame, load};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6: usize = 40;
/// Bytes of a UDP header.
pub const UDP: usize = 8;
/// Bytes of a DNS header.
pub const DNS: usize = 12;

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86DD_u16.to_be();
const PROTOCOL_UDP: u8 = 17;
const PORT_DNS: u16 = 53_u16.to_be();

/// More fragments, or an offset.
const FRAGMENT: u16 = 0x3fff_u16.to_be();

/// IPv6 next headers that are extension headers: another protocol may follow.
const EXTENSION_HEADERS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

const DNS_QR: u16 = 0x8000_u16.to_be();
/// Header bits that a query may carry: RD, AD, CD.
const DNS_ALLOWED: u16 = 0x0130_u16.to_be();
/// QDCOUNT 1 and ANCOUNT 0, read as one word.
const DNS_COUNTS: u32 = 0x0001_0000_u32.to_be();
/// One, as a count in the DNS header.
pub const DNS_ONE: u16 = 1_u16.to_be();

/// Which IP version carries the UDP datagram.
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A DNS query's place and size, its header checked.
pub struct Message {
    /// Settings in force.
    pub settings: &'static Settings,
    /// UDP length, header included.
    pub udp_len: usize,
    /// True if one additional record is announced.
    pub additional: bool,
}

/// Ethernet and IP: a UDP datagram that is whole.
#[inline(always)]
pub fn network(frame: Frame) -> Result<Network, Verdict> {
    let mut cursor = frame.cursor(0);
    let ethernet = cursor.take::<ETHERNET>()?;
    // SAFETY: taken above.
    match unsafe { load::<u16>(ethernet + 12) } {
        ETHERTYPE_IPV4 => {
            let ip = cursor.take::<IPV4>()?;
            // SAFETY: taken above, as for the loads below.
            let version = unsafe { load::<u8>(ip) };
            // SAFETY: see above.
            if unsafe { load::<u8>(ip + 9) } != PROTOCOL_UDP {
                return Err(if version >> 4 == 4 { Verdict::NotUdp } else { Verdict::NotIp });
            }
            if version != 0x45 {
                return Err(match version {
                    0x46..=0x4f => Verdict::IpOptions,
                    0x40..=0x44 => Verdict::BadLength,
                    _ => Verdict::NotIp,
                });
            }
            // SAFETY: see above.
            if unsafe { load::<u16>(ip + 6) } & FRAGMENT != 0 {
                return Err(Verdict::Fragment);
            }
            Ok(Network::V4)
        }
        ETHERTYPE_IPV6 => {
            let ip = cursor.take::<IPV6>()?;
            // SAFETY: taken above.
            if unsafe { load::<u8>(ip) } >> 4 != 6 {
                return Err(Verdict::NotIp);
            }
            // SAFETY: see above.
            let next = unsafe { load::<u8>(ip + 6) };
            if next != PROTOCOL_UDP {
                let mut i = 0;
                while i < EXTENSION_HEADERS.len() {
                    if next == EXTENSION_HEADERS[i] {
                        return Err(Verdict::ExtensionHeader);
                    }
                    i += 1;
                }
                return Err(Verdict::NotUdp);
            }
            Ok(Network::V6)
        }
        _ => Err(Verdict::NotIp),
    }
}

/// UDP and the DNS header: a query to one of our addresses.
#[inline(always)]
pub fn message<F: Family>(frame: Frame) -> Result<Message, Verdict> {
    let mut cursor = frame.cursor(F::UDP);
    let udp = cursor.take::<UDP>()?;
    // SAFETY: taken above.
    if unsafe { load::<u16>(udp + 2) } != PORT_DNS {
        return Err(Verdict::NotDns);
    }

    let settings = SETTINGS.get(0).ok_or(Verdict::Broken)?;
    // A group address on the outside says that the sender did not mean us alone.
    // SAFETY: the headers up to UDP are inside the frame.
    if unsafe { load::<u8>(frame.data) } & 1 != 0 {
        return Err(Verdict::NotLocal);
    }
    // SAFETY: see above.
    unsafe { F::addressed(frame.data, settings) }?;
    // SAFETY: see above.
    if unsafe { load::<u16>(udp) } == 0 {
        return Err(Verdict::OddSource);
    }

    // The frame may be longer than the datagram: Ethernet pads to 60 bytes.
    // SAFETY: see above.
    let payload_len = unsafe { F::payload_len(frame.data) };
    if payload_len > frame.len() - F::UDP {
        return Err(Verdict::ShortFrame);
    }
    // SAFETY: see above.
    let udp_len = usize::from(u16::from_be(unsafe { load::<u16>(udp + 4) }));
    if udp_len != payload_len {
        return Err(Verdict::BadLength);
    }
    // SAFETY: see above.
    if !F::CHECKSUM_OPTIONAL && unsafe { load::<u16>(udp + 6) } == 0 {
        return Err(Verdict::BadLength);
    }
    if udp_len < UDP + DNS {
        return Err(Verdict::ShortFrame);
    }

    let dns = cursor.take::<DNS>()?;
    // SAFETY: taken above.
    let flags = unsafe { load::<u16>(dns + 2) };
    if flags & !DNS_ALLOWED != 0 {
        return Err(if flags & DNS_QR != 0 { Verdict::NotQuery } else { Verdict::OddHeader });
    }
    // SAFETY: see above.
    let (counts, authority, additional) =
        unsafe { (load::<u32>(dns + 4), load::<u16>(dns + 8), load::<u16>(dns + 10)) };
    if counts != DNS_COUNTS || authority != 0 || additional & !DNS_ONE != 0 {
        return Err(Verdict::OddCounts);
    }
    Ok(Message { settings, udp_len, additional: additional != 0 })
}
