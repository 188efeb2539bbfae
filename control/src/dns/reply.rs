//! A reply while it grows: what fits, and where names can point to.

use xdp_balancer_common::EDNS_PAYLOAD;

use super::index::{Index, ZoneRecords};
use super::query::{HEADER_BYTES, Opt, Query};
use super::render::{FixedRrset, RECORD_FIXED, RenderedAnswer, Template};
use super::stats::Transport;
use super::wire::offset_of;
use super::{TYPE_A, TYPE_AAAA};

const FLAG_QR: u16 = 0x8000;
pub(super) const FLAG_TC: u16 = 0x0200;
const FLAG_RD: u16 = 0x0100;
/// Smallest UDP payload size, and the one without EDNS.
const PLAIN_PAYLOAD: u16 = 512;
const OPT_BYTES: usize = 11;
/// Bytes of an owner that is a pointer.
const POINTER: usize = 2;

#[derive(Clone, Copy)]
pub(super) enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

/// A reply while it grows. The header is written last.
pub(super) struct Reply<'q> {
    query: &'q Query<'q>,
    opt: Option<Opt>,
    pub flags: u16,
    pub rcode_high: u8,
    /// Where the name that is being answered stands: in the question, or in an alias's record. Aliases are few, so
    /// this is always below what a pointer can reach.
    pub name_at: u16,
    /// Where the apex of its zone stands.
    pub apex_at: u16,
    counts: [u16; 3],
    pub bytes: Vec<u8>,
    /// Room for header, question and records.
    limit: usize,
}

impl<'q> Reply<'q> {
    pub(super) fn new(query: &'q Query<'q>, transport: Transport) -> Self {
        let opt = query.rest.as_ref().and_then(|rest| rest.opt);
        let payload = match transport {
            Transport::Tcp => u16::MAX,
            Transport::Udp => opt.map_or(PLAIN_PAYLOAD, |opt| opt.payload.clamp(PLAIN_PAYLOAD, EDNS_PAYLOAD)),
        };
        let mut bytes = Vec::with_capacity(usize::from(PLAIN_PAYLOAD));
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(query.question.as_ref().map_or(&[], |question| question.bytes));
        let recursion_desired = if query.recursion_desired { FLAG_RD } else { 0 };
        Self {
            query,
            opt,
            flags: FLAG_QR | u16::from(query.opcode) << 11 | recursion_desired,
            rcode_high: 0,
            name_at: HEADER_BYTES as u16,
            apex_at: HEADER_BYTES as u16,
            counts: [0; 3],
            bytes,
            limit: usize::from(payload) - if opt.is_some() { OPT_BYTES } else { 0 },
        }
    }

    /// Makes room for a record, or sets TC: nothing follows a record that was left out.
    fn admit(&mut self, len: usize, section: Section) -> bool {
        if self.flags & FLAG_TC != 0 || self.bytes.len() + len > self.limit {
            self.flags |= FLAG_TC;
            return false;
        }
        self.counts[section as usize] += 1;
        true
    }

    pub(super) fn addresses(&mut self, answer: &RenderedAnswer) {
        let record_len = answer.bytes.len() / usize::from(answer.ancount.max(1));
        for record in answer.bytes.chunks_exact(record_len.max(1)) {
            if self.admit(record.len(), Section::Answer) {
                self.bytes.extend_from_slice(&(0xC000 | self.name_at).to_be_bytes());
                self.bytes.extend_from_slice(&record[POINTER..]);
            }
        }
    }

    /// Adds an RRset of the name that is being answered.
    pub(super) fn fixed(&mut self, rrset: &FixedRrset, section: Section) {
        for rdata in &rrset.rdata {
            if self.admit(POINTER + RECORD_FIXED + rdata.len(), section) {
                self.bytes.extend_from_slice(&(0xC000 | self.name_at).to_be_bytes());
                rrset.append(rdata, &mut self.bytes);
            }
        }
    }

    /// Adds the addresses of a name server where they are ours to tell: whole RRsets, as far as they fit. Where
    /// `needed` one that does not fit sets TC.
    pub(super) fn glue(&mut self, index: &Index, server: &[u8], apex: &[u8], needed: bool) {
        let Some(node) = index.node(server) else { return };
        // The part above the apex, if it is not the root, whose pointer would be as long as itself.
        let shared = offset_of(apex, server).filter(|_| apex.len() > 1);
        let pointer = (0xC000 | self.apex_at).to_be_bytes();
        let owner = match shared {
            Some(at) => [&server[..at], &pointer].concat(),
            None => server.to_vec(),
        };
        for rrset in [TYPE_A, TYPE_AAAA].into_iter().filter_map(|rtype| node.fixed(rtype)) {
            let len: usize = rrset.rdata.iter().map(|rdata| owner.len() + RECORD_FIXED + rdata.len()).sum();
            let fits = self.bytes.len() + len <= self.limit;
            if self.flags & FLAG_TC == 0 && fits {
                for rdata in &rrset.rdata {
                    self.counts[Section::Additional as usize] += 1;
                    self.bytes.extend_from_slice(&owner);
                    rrset.append(rdata, &mut self.bytes);
                }
            } else if needed {
                self.flags |= FLAG_TC;
            }
        }
    }

    pub(super) fn template(&mut self, template: &Template, ttl_s: u32, section: Section) {
        if self.admit(template.len(), section) {
            template.append(&mut self.bytes, self.apex_at, ttl_s);
        }
    }

    /// Adds the SOA that says for how long "no" may be believed.
    pub(super) fn deny(&mut self, zone: &ZoneRecords, ttl_s: u32) {
        self.template(&zone.soa, ttl_s, Section::Authority);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let words = [
            self.query.id,
            self.flags,
            u16::from(self.query.question.is_some()),
            self.counts[Section::Answer as usize],
            self.counts[Section::Authority as usize],
            self.counts[Section::Additional as usize] + u16::from(self.opt.is_some()),
        ];
        for (place, word) in self.bytes.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        if let Some(opt) = self.opt {
            let dnssec_ok = if opt.dnssec_ok { 0x80 } else { 0 };
            let [high, low] = EDNS_PAYLOAD.to_be_bytes();
            self.bytes.extend_from_slice(&[0, 0, 41, high, low, self.rcode_high, 0, dnssec_ok, 0, 0, 0]);
        }
        self.bytes
    }
}
