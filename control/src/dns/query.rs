//! A query's bytes taken apart, with the offsets that a reply needs. Strict: what is odd is a fault.

use xdp_balancer_common::MAX_NAME_BYTES;

use super::{TYPE_IXFR, TYPE_OPT, TYPE_TSIG};

/// Length of a header.
pub(super) const HEADER_BYTES: usize = 12;

/// QCLASS of any class, and CLASS of a TSIG.
pub(super) const CLASS_ANY: u16 = 255;

/// A message that asks for a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    pub id: u16,
    pub opcode: u8,
    pub recursion_desired: bool,
    /// The one question, where there is exactly one and it is whole.
    pub question: Option<Question<'a>>,
    /// What follows it, or the header where there is no question, where that is well-formed.
    pub rest: Option<Rest<'a>>,
}

/// A question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    /// As it stands in the message: name, type, class.
    pub bytes: &'a [u8],
    /// Its name in wire form, letters as they were asked.
    pub name: &'a [u8],
    pub qtype: u16,
    pub qclass: u16,
}

/// The sections behind the question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rest<'a> {
    pub opt: Option<Opt<'a>>,
    pub tsig: Option<Tsig<'a>>,
}

/// What of a TSIG (RFC 8945, 4.2) a reply repeats that does not know the key. We know none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tsig<'a> {
    /// The key's name.
    pub key: &'a [u8],
    /// The algorithm's name.
    pub algorithm: &'a [u8],
    /// Time signed and fudge.
    pub time: &'a [u8],
}

/// What an OPT says (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opt<'a> {
    pub payload: u16,
    pub version: u8,
    pub dnssec_ok: bool,
    /// Its options, each whole.
    pub options: &'a [u8],
}

impl<'a> Query<'a> {
    /// `None` where no reply may be sent: too short for a header, or a reply itself.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor { bytes: message, at: 0 };
        let id = cursor.u16()?;
        let flags = cursor.u16()?;
        let counts = [cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?];
        if flags & 0x8000 != 0 {
            return None;
        }
        let question = if counts[0] == 1 { Question::read(&mut cursor) } else { None };
        let rest = match (&question, counts[0]) {
            (Some(question), _) => Rest::read(&mut cursor, question.qtype, counts),
            // For a cookie alone (RFC 7873, 5.4).
            (None, 0) => Rest::read(&mut cursor, 0, counts),
            (None, _) => None,
        };
        Some(Self { id, opcode: (flags >> 11 & 0xF) as u8, recursion_desired: flags & 0x0100 != 0, question, rest })
    }
}

impl<'a> Question<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let start = cursor.at;
        // A pointer in a question can only point into the header or at itself.
        cursor.skip_name(Pointers::Refused)?;
        let name = &cursor.bytes[start..cursor.at];
        let (qtype, qclass) = (cursor.u16()?, cursor.u16()?);
        Some(Self { bytes: &cursor.bytes[start..cursor.at], name, qtype, qclass })
    }
}

impl<'a> Rest<'a> {
    /// A query carries no records but additional ones, an IXFR also its SOA in the authority section
    /// (RFC 1995). At most one OPT, there, and one TSIG at the very end. Others must be whole and are otherwise
    /// ignored, as a server does that does not know them.
    fn read(cursor: &mut Cursor<'a>, qtype: u16, counts: [u16; 4]) -> Option<Self> {
        let [_, answers, authorities, additionals] = counts;
        if answers != 0 || (authorities != 0 && qtype != TYPE_IXFR) {
            return None;
        }
        for _ in 0..authorities {
            if Record::read(cursor)?.kind == TYPE_OPT {
                return None;
            }
        }
        let (mut opt, mut tsig) = (None, None);
        for _ in 0..additionals {
            let record = Record::read(cursor)?;
            let twice = match record.kind {
                _ if tsig.is_some() => true,
                TYPE_OPT => opt.replace(Opt::from_record(&record)?).is_some(),
                TYPE_TSIG => tsig.replace(Tsig::from_record(&record)?).is_some(),
                _ => false,
            };
            if twice {
                return None;
            }
        }
        (cursor.at == cursor.bytes.len()).then_some(Self { opt, tsig })
    }
}

impl<'a> Opt<'a> {
    fn from_record(record: &Record<'a>) -> Option<Self> {
        let mut options = Cursor { bytes: record.data, at: 0 };
        while options.at < options.bytes.len() {
            let _code = options.u16()?;
            let length = options.u16()?;
            options.take(usize::from(length))?;
        }
        (record.owner == [0]).then_some(Self {
            payload: record.class,
            version: (record.ttl >> 16) as u8,
            dnssec_ok: record.ttl & 0x8000 != 0,
            options: record.data,
        })
    }
}

impl<'a> Tsig<'a> {
    fn from_record(record: &Record<'a>) -> Option<Self> {
        let key = record.owner;
        Cursor { bytes: key, at: 0 }.skip_name(Pointers::Refused)?;
        let mut data = Cursor { bytes: record.data, at: 0 };
        data.skip_name(Pointers::Refused)?;
        let algorithm = &record.data[..data.at];
        let time = data.take(8)?;
        let mac = data.u16()?;
        data.take(usize::from(mac))?;
        let (_id, _error, other) = (data.u16()?, data.u16()?, data.u16()?);
        data.take(usize::from(other))?;
        let whole = data.at == record.data.len() && record.class == CLASS_ANY && record.ttl == 0;
        whole.then_some(Self { key, algorithm, time })
    }
}

struct Record<'a> {
    owner: &'a [u8],
    kind: u16,
    class: u16,
    ttl: u32,
    data: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let start = cursor.at;
        cursor.skip_name(Pointers::Backwards)?;
        let owner = &cursor.bytes[start..cursor.at];
        let (kind, class) = (cursor.u16()?, cursor.u16()?);
        let ttl = u32::from(cursor.u16()?) << 16 | u32::from(cursor.u16()?);
        let length = cursor.u16()?;
        Some(Self { owner, kind, class, ttl, data: cursor.take(usize::from(length))? })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pointers {
    Refused,
    /// To an earlier place in the message, which is not followed: the name is skipped, not read.
    Backwards,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn skip_name(&mut self, pointers: Pointers) -> Option<()> {
        let start = self.at;
        loop {
            let label_at = self.at;
            match self.u8()? {
                0 => break,
                length @ 1..=63 => _ = self.take(usize::from(length))?,
                high @ 0xC0.. if pointers == Pointers::Backwards => {
                    let target = usize::from(high & 0x3F) << 8 | usize::from(self.u8()?);
                    return (target < label_at && target >= HEADER_BYTES).then_some(());
                }
                _ => return None,
            }
        }
        (self.at - start <= MAX_NAME_BYTES).then_some(())
    }
}
