//! A writer of pcapng files (draft-ietf-opsawg-pcapng): a section, an interface for each that packets came in on, and
//! packets with comments. In the byte order of this machine, as the format wants it.

use std::collections::HashMap;
use std::io::{self, Write};

const SECTION: u32 = 0x0A0D_0D0A;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
/// Times in units of 10⁻⁹ seconds.
const NANOSECONDS: u8 = 9;

/// Which way a packet goes: bits 0 and 1 of its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It comes in.
    In = 1,
    /// It goes out.
    Out = 2,
}

/// A packet to write.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'p> {
    /// Index of the interface in the kernel.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub at: u64,
    /// Its bytes, as many as are there.
    pub bytes: &'p [u8],
    /// How many it had.
    pub len: u32,
    /// Where it goes.
    pub direction: Direction,
    /// For people.
    pub comment: &'p str,
}

/// A file that is being written.
pub struct Writer<W> {
    out: W,
    /// Numbers in the file of the kernel's interfaces.
    interfaces: HashMap<u32, u32>,
}

impl<W: Write> Writer<W> {
    /// Begins the file.
    ///
    /// # Errors
    /// Of the writer below, as for all here.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_ne_bytes());
        // Version 1.0, and a length that is not known yet.
        body.extend(1_u16.to_ne_bytes());
        body.extend(0_u16.to_ne_bytes());
        body.extend(u64::MAX.to_ne_bytes());
        option(&mut body, SHB_USERAPPL, concat!("selvedge ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut body, OPT_END, &[]);
        block(&mut out, SECTION, &body)?;
        Ok(Self { out, interfaces: HashMap::new() })
    }

    /// Writes a packet, and its interface before it where it is the first one there. `name` says what that is called.
    ///
    /// # Errors
    /// See [`Writer::new`].
    pub fn packet(&mut self, packet: &Packet<'_>, name: impl FnOnce(u32) -> String) -> io::Result<()> {
        let number = match self.interfaces.get(&packet.interface) {
            Some(number) => *number,
            None => self.interface(packet.interface, &name(packet.interface))?,
        };
        let mut body = Vec::with_capacity(packet.bytes.len() + packet.comment.len() + 64);
        let kept = u32::try_from(packet.bytes.len()).map_err(io::Error::other)?;
        for word in [number, (packet.at >> 32) as u32, packet.at as u32, kept, packet.len] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(packet.bytes);
        pad(&mut body);
        option(&mut body, OPT_COMMENT, packet.comment.as_bytes());
        option(&mut body, EPB_FLAGS, &(packet.direction as u32).to_ne_bytes());
        option(&mut body, OPT_END, &[]);
        block(&mut self.out, PACKET, &body)
    }

    fn interface(&mut self, index: u32, name: &str) -> io::Result<u32> {
        let mut body = Vec::new();
        body.extend(ETHERNET.to_ne_bytes());
        body.extend(0_u16.to_ne_bytes());
        // No limit: packets say how much of them is there.
        body.extend(0_u32.to_ne_bytes());
        option(&mut body, IF_NAME, name.as_bytes());
        option(&mut body, IF_TSRESOL, &[NANOSECONDS]);
        option(&mut body, OPT_END, &[]);
        block(&mut self.out, INTERFACE, &body)?;
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(index, number);
        Ok(number)
    }

    /// Hands on what was written.
    ///
    /// # Errors
    /// See [`Writer::new`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Everything ends at a multiple of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_ne_bytes());
    body.extend((value.len() as u16).to_ne_bytes());
    body.extend(value);
    pad(body);
}

/// Type, length, body, length.
fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = u32::try_from(body.len() + 12).map_err(io::Error::other)?.to_ne_bytes();
    out.write_all(&[&kind.to_ne_bytes(), &len, body, &len].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    /// Type and body of each block.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut found = Vec::new();
        while !file.is_empty() {
            let len = word(file, 4) as usize;
            assert!(len.is_multiple_of(4) && word(file, len - 4) as usize == len);
            found.push((word(file, 0), file[8..len - 4].to_vec()));
            file = &file[len..];
        }
        found
    }

    #[test]
    fn interfaces_stand_before_their_first_packet_and_once() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        let packet = |interface, comment| Packet {
            interface,
            at: 0x1_0000_0002,
            bytes: &[1, 2, 3, 4, 5],
            len: 99,
            direction: Direction::Out,
            comment,
        };
        for packet in [packet(7, "first"), packet(7, ""), packet(3, "third")] {
            writer.packet(&packet, |index| format!("eth{index}")).unwrap();
        }
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, PACKET, INTERFACE, PACKET]);
        assert!(blocks[1].1.windows(4).any(|part| part == b"eth7") && blocks[4].1.windows(4).any(|p| p == b"eth3"));
        let words: Vec<u32> =
            blocks[5].1[..20].chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [1, 1, 2, 5, 99]);
        assert_eq!(blocks[2].1[20..28], [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(blocks[2].1[32..40], *b"first\0\0\0");
    }
}
