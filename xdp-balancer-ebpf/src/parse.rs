//! Ethernet, IP and UDP headers, and the DNS header's fixed part. Order matters: what is no DNS
//! leaves after the fewest loads.

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::Verdict;

use crate::family::{Family, IPV4, IPV6};
use crate::packet::{Cursor, Frame, load};
use crate::pool::Base;
use crate::sample;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of a VLAN tag.
pub const TAG: usize = 4;
/// Bounds an offset of the IP header: Ethernet and two tags.
pub const LINK_MASK: usize = 0x1f;
/// Bytes of a UDP header.
pub const UDP: usize = 8;
/// Bytes of a DNS header.
pub const DNS: usize = 12;

/// EtherType of IPv4, network order as all here.
pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86DD_u16.to_be();
/// IEEE 802.1Q.
pub const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
/// IEEE 802.1ad, the outer one of two tags.
pub const ETHERTYPE_QINQ: u16 = 0x88A8_u16.to_be();
/// UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// The port of DNS.
pub const PORT_DNS: u16 = 53_u16.to_be();

/// More fragments, or an offset.
pub const FRAGMENT: u16 = 0x3fff_u16.to_be();

/// IPv6 next headers that are extension headers: another protocol may follow.
const EXTENSION_HEADERS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

const DNS_QR: u16 = 0x8000_u16.to_be();
/// Header bits that a query may carry: RD, AD, CD.
const DNS_ALLOWED: u16 = 0x0130_u16.to_be();
/// QDCOUNT 1 and ANCOUNT 0, read as one word.
const DNS_COUNTS: u32 = 0x0001_0000_u32.to_be();
/// One, as a count in the DNS header.
pub const DNS_ONE: u16 = 1_u16.to_be();

/// What a frame carries.
pub struct Network {
    /// True for IPv6, false for IPv4.
    pub v6: bool,
    /// Offset of the IP header.
    pub ip: usize,
}

/// A DNS query's place and size, its header checked.
pub struct Message {
    /// All that was published.
    pub pool: Base,
    /// Offset of the IP header.
    pub link: usize,
    /// UDP length, header included.
    pub udp_len: usize,
    /// True if one additional record is announced.
    pub additional: bool,
}

/// Steps over IP, UDP and DNS header.
#[inline(always)]
pub fn headers<F: Family>(mut cursor: Cursor) -> Result<usize, Verdict> {
    match F::UDP {
        IPV4 => cursor.take::<{ IPV4 + UDP + DNS }>(),
        _ => cursor.take::<{ IPV6 + UDP + DNS }>(),
    }
}

/// Ethernet and IP: a UDP datagram that is whole.
#[inline(always)]
pub fn network(frame: Frame) -> Result<Network, Verdict> {
    let mut cursor = frame.cursor(0);
    let ethernet = cursor.take::<ETHERNET>()?;
    // SAFETY: taken above.
    let mut kind = unsafe { load::<u16>(ethernet + 12) };
    let mut link = ETHERNET;
    if kind == ETHERTYPE_VLAN || kind == ETHERTYPE_QINQ {
        let tag = cursor.take::<TAG>()?;
        // SAFETY: taken above.
        kind = unsafe { load::<u16>(tag + 2) };
        link += TAG;
        if kind == ETHERTYPE_VLAN {
            let tag = cursor.take::<TAG>()?;
            // SAFETY: taken above.
            kind = unsafe { load::<u16>(tag + 2) };
            link += TAG;
        }
    }
    let link = frame.blurred::<LINK_MASK>(link);
    let mut cursor = frame.cursor(link);
    match kind {
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
            Ok(Network { v6: false, ip: link })
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
            Ok(Network { v6: true, ip: link })
        }
        _ => Err(Verdict::NotIp),
    }
}

/// UDP and the DNS header: a query to one of our addresses. With `SAMPLES` it may be captured.
#[inline(always)]
pub fn message<F: Family, const SAMPLES: bool>(
    ctx: &XdpContext,
    frame: Frame,
    link: usize,
) -> Result<Message, Verdict> {
    let mut cursor = frame.cursor(link);
    let ip = match F::UDP {
        IPV4 => cursor.step::<{ IPV4 + UDP }>(),
        _ => cursor.step::<{ IPV6 + UDP }>(),
    }?;
    let udp = ip + F::UDP;
    // SAFETY: taken above.
    if unsafe { load::<u16>(udp + 2) } != PORT_DNS {
        // SAFETY: as above.
        return Err(if unsafe { load::<u16>(udp) } == PORT_DNS { Verdict::Reply } else { Verdict::NotDns });
    }
    // One more look at the end, for all that follows: a datagram that is shorter is not answered whatever it is.
    cursor = Cursor { at: ip, end: frame.end };
    match F::UDP {
        IPV4 => cursor.take::<{ IPV4 + UDP + DNS }>(),
        _ => cursor.take::<{ IPV6 + UDP + DNS }>(),
    }?;

    let pool = Base::get()?;
    if SAMPLES {
        sample::divert(ctx, pool, udp)?;
    }
    // A group address on the outside says that the sender did not mean us alone.
    // SAFETY: the headers up to UDP are inside the frame.
    if unsafe { load::<u8>(frame.data) } & 1 != 0 {
        return Err(Verdict::NotLocal);
    }
    // SAFETY: see above.
    unsafe { F::addressed(ip, &pool.root().settings) }?;
    // SAFETY: see above.
    if unsafe { load::<u16>(udp) } == 0 {
        return Err(Verdict::OddSource);
    }

    // The frame may be longer than the datagram: Ethernet pads to 60 bytes.
    // SAFETY: see above.
    let payload_len = unsafe { F::payload_len(ip) };
    if payload_len > frame.end - udp {
        return Err(Verdict::ShortFrame);
    }
    // SAFETY: see above.
    let udp_len = usize::from(u16::from_be(unsafe { load::<u16>(udp + 4) }));
    // What follows the datagram in the packet is nobody's, as the padding is.
    if udp_len > payload_len {
        return Err(Verdict::BadLength);
    }
    // SAFETY: see above.
    if !F::CHECKSUM_OPTIONAL && unsafe { load::<u16>(udp + 6) } == 0 {
        return Err(Verdict::BadLength);
    }
    if udp_len < UDP + DNS {
        return Err(Verdict::ShortFrame);
    }

    let dns = udp + UDP;
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
    Ok(Message { pool, link, udp_len, additional: additional != 0 })
}
