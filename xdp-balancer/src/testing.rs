//! Frames for tests: built and taken apart by code that shares nothing with the program.

use std::net::{IpAddr, SocketAddr};

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

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let udp_len = u16::try_from(8 + self.payload.len()).unwrap_or(u16::MAX);
        let mut frame = Vec::with_capacity(64 + self.payload.len());
        frame.extend_from_slice(&self.destination_mac);
        frame.extend_from_slice(&self.source_mac);
        let udp = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
                frame.extend_from_slice(&udp_len.saturating_add(20).to_be_bytes());
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
                frame.extend_from_slice(&udp_len.to_be_bytes());
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
            let sum = !fold(pseudo(&frame, udp) + words(&frame[udp..]));
            let sum = if sum == 0 { 0xffff } else { sum };
            frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
        }
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
        let byte = |at: usize| frame.get(at).copied().ok_or_else(|| format!("cut at {at}"));
        let short = |at: usize| Ok::<_, String>(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
        let (source, destination, hop_limit, ip_payload, udp): (IpAddr, IpAddr, u8, usize, usize) = match short(12)? {
            0x0800 => {
                if byte(14)? != 0x45 || byte(23)? != 17 {
                    return Err("not plain UDP over IPv4".into());
                }
                if fold(words(frame.get(14..34).ok_or("cut in IPv4")?)) != 0xffff {
                    return Err("IPv4 header checksum is wrong".into());
                }
                let source: [u8; 4] = bytes(frame, 26)?;
                let destination: [u8; 4] = bytes(frame, 30)?;
                let len = usize::from(short(16)?).checked_sub(20).ok_or("IPv4 length")?;
                (source.into(), destination.into(), byte(22)?, len, 34)
            }
            0x86dd => {
                if byte(14)? >> 4 != 6 || byte(20)? != 17 {
                    return Err("not plain UDP over IPv6".into());
                }
                let source: [u8; 16] = bytes(frame, 22)?;
                let destination: [u8; 16] = bytes(frame, 38)?;
                (source.into(), destination.into(), byte(21)?, usize::from(short(18)?), 54)
            }
            other => return Err(format!("EtherType {other:#06x}")),
        };
        let udp_len = usize::from(short(udp + 4)?);
        if udp_len != ip_payload || udp + udp_len != frame.len() || udp_len < 8 {
            return Err(format!("lengths: UDP {udp_len}, IP {ip_payload}, frame {}", frame.len() - udp));
        }
        let checksum = short(udp + 6)? != 0;
        if checksum && fold(pseudo(frame, udp) + words(&frame[udp..])) != 0xffff {
            return Err("UDP checksum is wrong".into());
        }
        Ok(Self {
            source_mac: bytes(frame, 6)?,
            destination_mac: bytes(frame, 0)?,
            source: SocketAddr::new(source, short(udp)?),
            destination: SocketAddr::new(destination, short(udp + 2)?),
            hop_limit,
            checksum,
            payload: frame[udp + 8..].to_vec(),
        })
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

fn bytes<const N: usize>(frame: &[u8], at: usize) -> Result<[u8; N], String> {
    frame.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("cut at {at}"))
}

/// Sum of big-endian words.
fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

/// Sum of the pseudo header of a frame whose UDP header starts at `udp`.
fn pseudo(frame: &[u8], udp: usize) -> u32 {
    let addresses = if udp == 34 { 26..34 } else { 22..54 };
    words(&frame[addresses]) + 17 + words(&frame[udp + 4..udp + 6])
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
