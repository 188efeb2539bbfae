//! Records in wire form that do not change with the instances, and answers put together from them.
//!
//! One rule for all: owners and names in RDATA stand in full, but for an owner that is the question's name, which is
//! the pointer 0xC00C. So an answer does not depend on the question that it follows, and names that are answered
//! alike share its bytes.

use xdp_balancer_common::MAX_NAME_BYTES;

use super::render::{CLASS_IN, FLAG_AA, RCODE_BITS, RenderedAnswer};
use super::{SERVFAIL, TYPE_CNAME, TYPE_DNAME, TYPE_SOA};

/// An owner that is the question's name.
pub(super) const QUESTION_OWNER: [u8; 2] = [0xC0, 0x0C];
/// Bytes of a record but for its owner and RDATA: type, class, TTL, length.
pub(super) const RECORD_FIXED: usize = 10;

/// An RRset that does not change with the instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FixedRrset {
    pub rtype: u16,
    pub ttl_s: u32,
    /// RDATA of each record; names in it are not compressed.
    pub rdata: Vec<Vec<u8>>,
}

impl FixedRrset {
    /// The answer to a question for it.
    pub(super) fn answer(&self) -> RenderedAnswer {
        let mut answer = RenderedAnswer { flags: FLAG_AA, ancount: self.rdata.len() as u16, ..Default::default() };
        for rdata in &self.rdata {
            self.append(&QUESTION_OWNER, rdata, &mut answer.bytes);
        }
        answer
    }

    /// Appends one of its records.
    pub(super) fn append(&self, owner: &[u8], rdata: &[u8], bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(owner);
        bytes.extend_from_slice(&self.rtype.to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        bytes.extend_from_slice(&self.ttl_s.to_be_bytes());
        // RDATA came from a record, where its length has two bytes.
        bytes.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        bytes.extend_from_slice(rdata);
    }
}

/// What a zone's SOA says (RFC 1035, 3.3.13), names in wire form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Soa {
    pub primary: Vec<u8>,
    pub contact: Vec<u8>,
    /// Where the zone says it; else it is the generation's.
    pub serial: Option<u32>,
    /// Refresh, retry, expire and minimum in seconds.
    pub times: [u32; 4],
}

impl Soa {
    pub(super) fn rrset(&self, generation: u32, ttl_s: u32) -> FixedRrset {
        let mut rdata = [self.primary.as_slice(), &self.contact].concat();
        for number in [self.serial.unwrap_or(generation)].iter().chain(&self.times) {
            rdata.extend_from_slice(&number.to_be_bytes());
        }
        FixedRrset { rtype: TYPE_SOA, ttl_s, rdata: vec![rdata] }
    }
}

/// A negative answer: the SOA of the zone `apex`, whose TTL says for how long "no" may be believed (RFC 2308).
pub(super) fn negative(apex: &[u8], soa: &FixedRrset, rcode: u16) -> RenderedAnswer {
    let mut answer =
        RenderedAnswer { flags: FLAG_AA | rcode, nscount: soa.rdata.len() as u16, ..RenderedAnswer::default() };
    for rdata in &soa.rdata {
        soa.append(apex, rdata, &mut answer.bytes);
    }
    answer
}

/// CNAMEs and DNAMEs that lead from a question's name to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub count: u16,
    pub bytes: Vec<u8>,
    /// Owners of the DNAMEs in it: one that is followed twice is there once.
    dnames: Vec<Vec<u8>>,
}

impl Chain {
    pub(super) fn append(&mut self, owner: &[u8], cname: &FixedRrset, target: &[u8]) {
        self.count += 1;
        cname.append(owner, target, &mut self.bytes);
    }

    /// Adds a DNAME and the CNAME that it makes of a name (RFC 6672, 3.1). `name` is written as `owner`, and the DNAME's
    /// own begins at `at` in it. The name that it leads to; `None` where that would be too long, and there is no CNAME.
    pub(super) fn redirect(&mut self, owner: &[u8], name: &[u8], at: usize, dname: &FixedRrset) -> Option<Vec<u8>> {
        let (kept, own) = name.split_at_checked(at)?;
        let target = dname.rdata.first()?;
        if !self.dnames.iter().any(|known| known.eq_ignore_ascii_case(own)) {
            self.dnames.push(own.to_vec());
            self.append(own, dname, target);
        }
        let next = [kept, target].concat();
        (next.len() <= MAX_NAME_BYTES).then(|| {
            let cname = FixedRrset { rtype: TYPE_CNAME, ttl_s: dname.ttl_s, rdata: Vec::new() };
            self.append(owner, &cname, &next);
            next
        })
    }

    /// The chain by itself: it ends where we have nothing to say but this code.
    pub(super) fn answer(&self, rcode: u16) -> RenderedAnswer {
        let bytes = self.bytes.clone();
        RenderedAnswer { flags: FLAG_AA | rcode, ancount: self.count, bytes, ..RenderedAnswer::default() }
    }

    /// An answer for the name at the chain's end, `target`, as that to a question for its begin.
    pub(super) fn before(&self, target: &[u8], answer: &RenderedAnswer) -> RenderedAnswer {
        if answer.flags & RCODE_BITS == SERVFAIL {
            return answer.clone();
        }
        let (mut bytes, mut ancount) = (self.bytes.clone(), self.count + answer.ancount);
        for record in records(&answer.bytes) {
            let owner = if record.owner == QUESTION_OWNER { target } else { record.owner };
            if record.rtype() == TYPE_DNAME && self.dnames.iter().any(|known| known.eq_ignore_ascii_case(owner)) {
                ancount -= 1;
                continue;
            }
            bytes.extend_from_slice(owner);
            bytes.extend_from_slice(record.rest);
        }
        // The chain is authoritative, and NXDOMAIN speaks of its end (RFC 6604).
        RenderedAnswer { flags: answer.flags | FLAG_AA, ancount, bytes, ..*answer }
    }

    /// The chain and the one that goes on from its end, `target`.
    pub(super) fn joined(&self, target: &[u8], next: &Self) -> Self {
        let RenderedAnswer { ancount: count, bytes, .. } = self.before(target, &next.answer(0));
        Self { count, bytes, dnames: Vec::new() }
    }
}

/// One record of an answer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub owner: &'a [u8],
    /// Type, class, TTL, length and RDATA.
    pub rest: &'a [u8],
}

impl Record<'_> {
    fn rtype(&self) -> u16 {
        self.rest.first_chunk().map_or(0, |rtype| u16::from_be_bytes(*rtype))
    }

    pub(super) fn len(&self) -> usize {
        self.owner.len() + self.rest.len()
    }

    /// Whether both are of one RRset.
    pub(super) fn is_with(&self, other: &Self) -> bool {
        self.owner == other.owner && self.rest.get(..2) == other.rest.get(..2)
    }
}

/// The records of an answer of ours.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut left = bytes;
    std::iter::from_fn(move || {
        let mut owner = 0;
        loop {
            match usize::from(*left.get(owner)?) {
                0 => break owner += 1,
                0xC0.. => break owner += 2,
                label => owner += 1 + label,
            }
        }
        let length = left.get(owner + 8..owner + RECORD_FIXED)?;
        let end = owner + RECORD_FIXED + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (record, rest) = left.split_at_checked(end)?;
        left = rest;
        let (owner, rest) = record.split_at_checked(owner)?;
        Some(Record { owner, rest })
    })
}
