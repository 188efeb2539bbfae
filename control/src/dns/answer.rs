//! From a query's bytes to its reply's, without a socket, a clock or a panic.
//!
//! Replies to A and AAAA are byte for byte what the XDP program sends for the same turn of the ring:
//! header, question as asked, rendered records, and an OPT where the query had one. Choices that the
//! standards leave open:
//! - QTYPE ANY gets one RRset (RFC 8482, 4.1): A, else AAAA, else at an apex the SOA, else NODATA.
//! - Zone transfers, classes other than IN (CH too) and names outside our zones are REFUSED.
//! - Bytes behind the last record, records in answer or authority section, a compression pointer in the
//!   question, two OPTs or a broken one, a meta type as QTYPE: FORMERR.
//! - Additional records other than OPT (TSIG, for one) are ignored where they are well-formed.

use xdp_balancer_common::EDNS_PAYLOAD;

use super::index::{Found, Index, Published, ZoneRecords};
use super::query::{HEADER_BYTES, Opt, Query, Question, TYPE_IXFR};
use super::render::{FLAG_AA, RenderedAnswer, Template};
use super::stats::{Outcome, Transport};
use super::{TYPE_A, TYPE_AAAA};

const TYPE_NS: u16 = 2;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const TYPE_TKEY: u16 = 249;
const TYPE_TSIG: u16 = 250;
const TYPE_AXFR: u16 = 252;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

const FLAG_QR: u16 = 0x8000;
const FLAG_TC: u16 = 0x0200;
const FLAG_RD: u16 = 0x0100;
const FORMERR: u16 = 1;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
/// High bits of BADVERS (16), which stand in the OPT.
const BADVERS_HIGH: u8 = 1;

/// Smallest UDP payload size, and the one without EDNS.
const PLAIN_PAYLOAD: u16 = 512;
const OPT_BYTES: usize = 11;
/// Longest time in seconds that a client may remember that a service has no backend: one may come
/// at any moment.
const NO_BACKEND_TTL_S: u32 = 5;

/// Which turn of an RRset's ring answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The next one.
    Next,
    /// This one (modulo the ring's length), for comparison with the kernel's.
    Slot(usize),
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The reply; `None` where none may be sent.
    pub bytes: Option<Vec<u8>>,
    /// Why it is what it is.
    pub outcome: Outcome,
    /// Index of the service that was asked for.
    pub service: Option<u32>,
}

/// Answers a message, whatever it is.
#[must_use]
pub fn respond(message: &[u8], index: &Index, transport: Transport, pick: Pick) -> Response {
    let Some(query) = Query::read(message) else {
        return Response { bytes: None, outcome: Outcome::Dropped, service: None };
    };
    let mut reply = Reply::new(&query, transport);
    let (outcome, service) = match check(&query) {
        Ok(question) => answer(question, index, pick, &mut reply),
        Err((outcome, rcode)) => {
            reply.flags |= rcode;
            if outcome == Outcome::BadVers {
                reply.rcode_high = BADVERS_HIGH;
            }
            (outcome, None)
        }
    };
    let outcome = if reply.flags & FLAG_TC == 0 { outcome } else { Outcome::Truncated };
    Response { bytes: Some(reply.finish()), outcome, service }
}

/// All that can be said without looking at the zones.
fn check<'q>(query: &'q Query<'q>) -> Result<&'q Question<'q>, (Outcome, u16)> {
    if query.opcode != 0 {
        return Err((Outcome::NotImp, NOTIMP));
    }
    let (Some(question), Some(rest)) = (&query.question, &query.rest) else {
        return Err((Outcome::FormErr, FORMERR));
    };
    if rest.opt.is_some_and(|opt| opt.version > 0) {
        return Err((Outcome::BadVers, 0));
    }
    match (question.qclass, question.qtype) {
        (_, TYPE_OPT | TYPE_TKEY | TYPE_TSIG) => Err((Outcome::FormErr, FORMERR)),
        (CLASS_IN, TYPE_AXFR | TYPE_IXFR) => Err((Outcome::Refused, REFUSED)),
        (CLASS_IN, _) => Ok(question),
        _ => Err((Outcome::Refused, REFUSED)),
    }
}

/// Answers a well-formed question of class IN.
fn answer(question: &Question<'_>, index: &Index, pick: Pick, reply: &mut Reply<'_>) -> (Outcome, Option<u32>) {
    let Some(Found { zone, apex_at, node }) = index.find(question.name) else {
        reply.flags |= REFUSED;
        return (Outcome::Refused, None);
    };
    reply.flags |= FLAG_AA;
    reply.apex_at = (HEADER_BYTES + apex_at) as u16;
    let Some(node) = node else {
        reply.flags |= NXDOMAIN;
        reply.deny(zone, zone.negative_ttl_s);
        return (Outcome::NxDomain, None);
    };
    let service = node.service.and_then(|service| index.published().get(service));
    let asked = service.map(|service| service.index);
    if let Some(chosen) = service.and_then(|service| choose(service, question.qtype, pick)) {
        reply.addresses(chosen);
        return (Outcome::Answered, asked);
    }
    let at_apex = node.zone.is_some();
    match question.qtype {
        TYPE_SOA | TYPE_ANY if at_apex => reply.template(&zone.soa, zone.ttl_s, Section::Answer),
        TYPE_NS if at_apex => {
            for ns in &zone.ns {
                reply.template(ns, zone.ttl_s, Section::Answer);
            }
        }
        TYPE_A | TYPE_AAAA | TYPE_ANY if service.is_some_and(|service| service.rrsets.is_empty()) => {
            let ttl_s = service.map_or(0, |service| service.ttl_s).min(NO_BACKEND_TTL_S);
            reply.deny(zone, zone.negative_ttl_s.min(ttl_s));
            return (Outcome::NoBackend, asked);
        }
        _ => {
            reply.deny(zone, zone.negative_ttl_s);
            return (Outcome::NoData, asked);
        }
    }
    (Outcome::Answered, asked)
}

/// The variant of a service's RRset that answers a type.
fn choose(service: &Published, qtype: u16, pick: Pick) -> Option<&RenderedAnswer> {
    let found = if qtype == TYPE_ANY {
        service.rrset(TYPE_A).or_else(|| service.rrset(TYPE_AAAA))
    } else {
        service.rrset(qtype)
    };
    let (place, rrset) = found?;
    match pick {
        Pick::Next => Some(service.next(place)),
        Pick::Slot(slot) => rrset.ring.get(slot % rrset.ring.len()),
    }
}

#[derive(Clone, Copy)]
enum Section {
    Answer = 0,
    Authority = 1,
}

/// A reply while it grows. The header is written last.
struct Reply<'q> {
    query: &'q Query<'q>,
    opt: Option<Opt>,
    flags: u16,
    rcode_high: u8,
    /// Where the zone's apex stands in the question.
    apex_at: u16,
    counts: [u16; 2],
    bytes: Vec<u8>,
    /// Room for header, question and records.
    limit: usize,
}

impl<'q> Reply<'q> {
    fn new(query: &'q Query<'q>, transport: Transport) -> Self {
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
            apex_at: 0,
            counts: [0; 2],
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

    fn addresses(&mut self, answer: &RenderedAnswer) {
        let record_len = answer.bytes.len() / usize::from(answer.ancount.max(1));
        for record in answer.bytes.chunks_exact(record_len.max(1)) {
            if self.admit(record.len(), Section::Answer) {
                self.bytes.extend_from_slice(record);
            }
        }
    }

    fn template(&mut self, template: &Template, ttl_s: u32, section: Section) {
        if self.admit(template.len(), section) {
            template.append(&mut self.bytes, self.apex_at, ttl_s);
        }
    }

    /// Adds the SOA that says for how long "no" may be believed.
    fn deny(&mut self, zone: &ZoneRecords, ttl_s: u32) {
        self.template(&zone.soa, ttl_s, Section::Authority);
    }

    fn finish(mut self) -> Vec<u8> {
        let words = [
            self.query.id,
            self.flags,
            u16::from(self.query.question.is_some()),
            self.counts[Section::Answer as usize],
            self.counts[Section::Authority as usize],
            u16::from(self.opt.is_some()),
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
