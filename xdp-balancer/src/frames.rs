//! Frames and queries, built and taken apart by code that shares nothing with the program that is asked about them.

use std::net::{IpAddr, SocketAddr};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Builds a UDP frame over Ethernet and IPv4 or IPv6, with right lengths and checksums.
#[derive(Clone, Debug)]
pub struct FrameBuilder {
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    source: SocketAddr,
    destination: SocketAddr,
    hop_limit: u8,
    checksum: bool,
    min_len: usize,
    tags: Vec<[u8; 4]>,
    trailer: Vec<u8>,
    payload: Vec<u8>,
}

impl FrameBuilder {
    /// From a client to a server; both of one family.
    #[must_use]
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "one family");
        Self {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            source,
            destination,
            hop_limit: 61,
            checksum: true,
            min_len: 0,
            tags: Vec::new(),
            trailer: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Hardware addresses of both ends.
    #[must_use]
    pub fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// What the datagram carries.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Leaves the UDP checksum out.
    #[must_use]
    pub fn no_checksum(mut self) -> Self {
        self.checksum = false;
        self
    }

    /// Pads with zeros behind the datagram, as Ethernet does to 60 bytes.
    #[must_use]
    pub fn padded_to(mut self, len: usize) -> Self {
        self.min_len = len;
        self
    }

    /// Adds a VLAN tag inside of those that are there: its EtherType (0x8100, 0x88a8) and its control information.
    #[must_use]
    pub fn tag(mut self, ethertype: u16, control: u16) -> Self {
        let ([a, b], [c, d]) = (ethertype.to_be_bytes(), control.to_be_bytes());
        self.tags.push([a, b, c, d]);
        self
    }

    /// Adds bytes to the IP packet behind the datagram.
    #[must_use]
    pub fn trailer(mut self, trailer: impl Into<Vec<u8>>) -> Self {
        self.trailer = trailer.into();
        self
    }

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let udp_len = u16::try_from(8 + self.payload.len()).unwrap_or(u16::MAX);
        let ip_payload = udp_len.saturating_add(u16::try_from(self.trailer.len()).unwrap_or(u16::MAX));
        let mut frame = Vec::with_capacity(64 + self.payload.len());
        frame.extend_from_slice(&self.destination_mac);
        frame.extend_from_slice(&self.source_mac);
        let udp = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
                frame.extend_from_slice(&ip_payload.saturating_add(20).to_be_bytes());
                // Some identification; DF.
                frame.extend_from_slice(&[0x13, 0x57, 0x40, 0, self.hop_limit, 17, 0, 0]);
                frame.extend_from_slice(&source.octets());
                frame.extend_from_slice(&destination.octets());
                let sum = !fold(words(&frame[14..34]));
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
                34
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0x0a, 0xbc, 0xde]);
                frame.extend_from_slice(&ip_payload.to_be_bytes());
                frame.extend_from_slice(&[17, self.hop_limit]);
                frame.extend_from_slice(&source.octets());
                frame.extend_from_slice(&destination.octets());
                54
            }
            _ => unreachable!("one family, as asserted"),
        };
        frame.extend_from_slice(&self.source.port().to_be_bytes());
        frame.extend_from_slice(&self.destination.port().to_be_bytes());
        frame.extend_from_slice(&udp_len.to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(&self.payload);
        if self.checksum {
            let sum = !fold(pseudo(&frame[ETHERNET..], udp - ETHERNET) + words(&frame[udp..]));
            let sum = if sum == 0 { 0xffff } else { sum };
            frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
        }
        frame.extend_from_slice(&self.trailer);
        frame.splice(12..12, self.tags.concat());
        if frame.len() < self.min_len {
            frame.resize(self.min_len, 0);
        }
        frame
    }
}

/// A UDP frame taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Source hardware address.
    pub source_mac: [u8; 6],
    /// Destination hardware address.
    pub destination_mac: [u8; 6],
    /// VLAN tags, the outermost first: EtherType and control information.
    pub tags: Vec<[u8; 4]>,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// False if the UDP checksum is left out.
    pub checksum: bool,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// Takes a frame apart. All lengths must agree to the byte (no padding), and each checksum is
    /// computed in full.
    pub fn parse(frame: &[u8]) -> Result<Self, String> {
        let (datagram, behind) = Self::parse_padded(frame)?;
        if behind.iter().any(|len| *len != 0) {
            return Err(format!("bytes behind: {} in the packet, {} in the frame", behind[0], behind[1]));
        }
        Ok(datagram)
    }

    /// Takes a frame apart, and says how many bytes follow the datagram in the IP packet and the packet in the frame.
    pub fn parse_padded(frame: &[u8]) -> Result<(Self, [usize; 2]), String> {
        let short = |bytes: &[u8], at: usize| bytes_at(bytes, at).map(u16::from_be_bytes);
        let mut tags = Vec::new();
        while matches!(short(frame, 12 + tags.len() * 4)?, 0x8100 | 0x88a8) {
            tags.push(bytes_at(frame, 12 + tags.len() * 4)?);
        }
        let kind = short(frame, 12 + tags.len() * 4)?;
        let ip = frame.get(ETHERNET + tags.len() * 4..).ok_or("cut before IP")?;
        let (source, destination, hop_limit, udp, ip_len): (IpAddr, IpAddr, u8, usize, usize) = match kind {
            0x0800 => {
                let header: [u8; 20] = bytes_at(ip, 0)?;
                if header[0] != 0x45 || header[9] != 17 {
                    return Err("not plain UDP over IPv4".into());
                }
                if fold(words(&header)) != 0xffff {
                    return Err("IPv4 header checksum is wrong".into());
                }
                let (source, destination): ([u8; 4], [u8; 4]) = (bytes_at(ip, 12)?, bytes_at(ip, 16)?);
                (source.into(), destination.into(), header[8], 20, short(ip, 2)?.into())
            }
            0x86dd => {
                let header: [u8; 40] = bytes_at(ip, 0)?;
                if header[0] >> 4 != 6 || header[6] != 17 {
                    return Err("not plain UDP over IPv6".into());
                }
                let (source, destination): ([u8; 16], [u8; 16]) = (bytes_at(ip, 8)?, bytes_at(ip, 24)?);
                (source.into(), destination.into(), header[7], 40, 40 + usize::from(short(ip, 4)?))
            }
            other => return Err(format!("EtherType {other:#06x}")),
        };
        let udp_len = usize::from(short(ip, udp + 4)?);
        if udp_len < 8 || udp + udp_len > ip_len || ip_len > ip.len() {
            return Err(format!("lengths: UDP {udp_len}, IP {ip_len}, frame {}", ip.len()));
        }
        let datagram = &ip[udp..udp + udp_len];
        let checksum = short(datagram, 6)? != 0;
        if checksum && fold(pseudo(ip, udp) + words(datagram)) != 0xffff {
            return Err("UDP checksum is wrong".into());
        }
        if !checksum && udp == 40 {
            return Err("UDP checksum is missing".into());
        }
        let parsed = Self {
            source_mac: bytes_at(frame, 6)?,
            destination_mac: bytes_at(frame, 0)?,
            tags,
            source: SocketAddr::new(source, short(datagram, 0)?),
            destination: SocketAddr::new(destination, short(datagram, 2)?),
            hop_limit,
            checksum,
            payload: datagram[8..].to_vec(),
        };
        Ok((parsed, [ip_len - udp - udp_len, ip.len() - ip_len]))
    }
}

/// A DNS query message, part by part; fields may be set to anything.
#[derive(Clone, Debug)]
pub struct Query {
    /// Message id.
    pub id: u16,
    /// Flags.
    pub flags: u16,
    /// QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT.
    pub counts: [u16; 4],
    /// Name in wire form.
    pub name: Vec<u8>,
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
    /// What follows the question.
    pub rest: Vec<u8>,
}

impl Query {
    /// A recursive query for a name in presentation form (no escapes) and a type.
    #[must_use]
    pub fn new(name: &str, qtype: u16) -> Self {
        Self { id: 0x4711, flags: 0x0100, counts: [1, 0, 0, 0], name: wire(name), qtype, qclass: 1, rest: Vec::new() }
    }

    /// Adds an OPT record.
    #[must_use]
    pub fn opt(mut self, payload_size: u16, dnssec_ok: bool, options: &[u8]) -> Self {
        self.counts[3] = 1;
        self.rest = vec![0, 0, 41];
        self.rest.extend_from_slice(&payload_size.to_be_bytes());
        self.rest.extend_from_slice(&[0, 0, if dnssec_ok { 0x80 } else { 0 }, 0]);
        self.rest.extend_from_slice(&u16::try_from(options.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.rest.extend_from_slice(options);
        self
    }

    /// The message.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(64);
        for word in [&[self.id, self.flags][..], &self.counts].concat() {
            message.extend_from_slice(&word.to_be_bytes());
        }
        message.extend_from_slice(&self.name);
        message.extend_from_slice(&self.qtype.to_be_bytes());
        message.extend_from_slice(&self.qclass.to_be_bytes());
        message.extend_from_slice(&self.rest);
        message
    }
}

/// A name in presentation form (no escapes) as wire form.
#[must_use]
pub fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// An address record whose owner is the question's name.
#[must_use]
pub fn address_record(address: IpAddr, ttl: u32) -> Vec<u8> {
    let (kind, data) = match address {
        IpAddr::V4(address) => (1_u8, address.octets().to_vec()),
        IpAddr::V6(address) => (28, address.octets().to_vec()),
    };
    let mut record = vec![0xc0, 0x0c, 0, kind, 0, 1];
    record.extend_from_slice(&ttl.to_be_bytes());
    record.extend_from_slice(&[0, u8::try_from(data.len()).unwrap_or(u8::MAX)]);
    record.extend_from_slice(&data);
    record
}

fn bytes_at<const N: usize>(frame: &[u8], at: usize) -> Result<[u8; N], String> {
    frame.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("cut at {at}"))
}

/// Sum of big-endian words.
fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

/// Sum of the pseudo header of an IP packet whose UDP header starts at `udp`.
fn pseudo(ip: &[u8], udp: usize) -> u32 {
    let addresses = if udp == 20 { 12..20 } else { 8..40 };
    words(&ip[addresses]) + 17 + words(&ip[udp + 4..udp + 6])
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
