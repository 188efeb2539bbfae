//! Records in wire form, made with hickory's encoder.

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use xdp_balancer_common::ANSWER_BYTES;

use super::ring::ring;
use super::{TYPE_A, TYPE_AAAA};
use crate::model::PublishedService;

/// Most addresses in one answer, whatever a service asks for: 16 AAAA records are 448 bytes, which
/// fits an answer slot and, behind the longest question, any EDNS payload size of 1232.
const MAX_ANSWERS: usize = 16;
/// A compression pointer to the question's name.
const QUESTION_NAME: u16 = 0xC00C;
/// CLASS of all that we hold.
pub(super) const CLASS_IN: u16 = 1;
/// AA in the header's second word.
pub(super) const FLAG_AA: u16 = 0x0400;

/// One variant of an RRset's answer: everything that follows the question, without OPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedAnswer {
    /// Bits to set in the header's second word, host order: AA and RCODE.
    pub flags: u16,
    /// ANCOUNT.
    pub ancount: u16,
    /// NSCOUNT.
    pub nscount: u16,
    /// The records; owners are compression pointers to the question. All have the same length.
    pub bytes: Vec<u8>,
}

/// An RRset as it is answered, turn by turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedRrset {
    /// QTYPE.
    pub qtype: u16,
    /// One variant per turn of the weighted round robin; never empty.
    pub ring: Vec<RenderedAnswer>,
}

/// A record could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("encode a record of {owner}: {source}")]
pub struct RenderError {
    /// The service or zone.
    pub owner: String,
    /// The encoder's complaint.
    pub source: ProtoError,
}

impl RenderError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        "render"
    }
}

/// The RRsets of a service, one per address family that a backend with a weight has an address of.
///
/// # Errors
/// [`RenderError`] where hickory refuses a record, which addresses give no cause for.
pub fn rrsets(service: &PublishedService) -> Result<Vec<RenderedRrset>, RenderError> {
    let mut rrsets = Vec::with_capacity(2);
    for qtype in [TYPE_A, TYPE_AAAA] {
        let backends: Vec<(IpAddr, u16)> = service
            .backends
            .iter()
            .filter(|backend| backend.weight > 0)
            .filter_map(|backend| match qtype {
                TYPE_A => backend.addresses.v4.map(|address| (IpAddr::V4(address), backend.weight)),
                _ => backend.addresses.v6.map(|address| (IpAddr::V6(address), backend.weight)),
            })
            .collect();
        if backends.is_empty() {
            continue;
        }
        let ring =
            variants(service, &backends).map_err(|source| RenderError { owner: service.name.to_string(), source })?;
        rrsets.push(RenderedRrset { qtype, ring });
    }
    Ok(rrsets)
}

/// One variant per turn: whose turn it is comes first, then those whose turns come next.
fn variants(service: &PublishedService, backends: &[(IpAddr, u16)]) -> Result<Vec<RenderedAnswer>, ProtoError> {
    let records = backends.iter().map(|(address, _)| record(*address, service.ttl_s)).collect::<Result<Vec<_>, _>>()?;
    let weights: Vec<u16> = backends.iter().map(|(_, weight)| *weight).collect();
    let turns = ring(&weights);
    let most = (service.answers as usize).clamp(1, MAX_ANSWERS).min(ANSWER_BYTES / records[0].len());
    let variant = |start: usize| {
        let mut chosen: Vec<&[u8]> = Vec::with_capacity(most);
        for turn in turns.iter().cycle().skip(start).take(turns.len()) {
            let record = records[*turn].as_slice();
            // Compared by content: two backends with one address are one record.
            if !chosen.contains(&record) {
                chosen.push(record);
            }
            if chosen.len() == most {
                break;
            }
        }
        RenderedAnswer { flags: FLAG_AA, ancount: chosen.len() as u16, nscount: 0, bytes: chosen.concat() }
    };
    Ok((0..turns.len()).map(variant).collect())
}

/// An address record, owned by the question's name.
fn record(address: IpAddr, ttl_s: u32) -> Result<Vec<u8>, ProtoError> {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.emit_u16(QUESTION_NAME)?;
    data.record_type().emit(&mut encoder)?;
    DNSClass::IN.emit(&mut encoder)?;
    encoder.emit_u32(ttl_s)?;
    let length = encoder.place::<u16>()?;
    data.emit(&mut encoder)?;
    let rdlength = encoder.len_since_place(&length) as u16;
    length.replace(&mut encoder, rdlength)?;
    Ok(bytes)
}

/// An RRset that does not change with the instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FixedRrset {
    pub rtype: u16,
    pub ttl_s: u32,
    /// RDATA of each record; names in it are not compressed.
    pub rdata: Vec<Vec<u8>>,
}

impl FixedRrset {
    /// One record but for its owner.
    pub(super) fn append(&self, rdata: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(&self.rtype.to_be_bytes());
        reply.extend_from_slice(&CLASS_IN.to_be_bytes());
        reply.extend_from_slice(&self.ttl_s.to_be_bytes());
        // RDATA came from a record, where its length has two bytes.
        reply.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        reply.extend_from_slice(rdata);
    }
}

/// Bytes of a record but for its owner and RDATA: type, class, TTL, length.
pub(super) const RECORD_FIXED: usize = 10;

/// A record of a zone's apex, ready but for two things that each query decides: where in its question
/// the apex stands, and the TTL.
#[derive(Debug, Clone)]
pub(super) struct Template {
    bytes: Vec<u8>,
    /// Where pointers to the apex stand.
    pointers: Vec<usize>,
}

/// Where the TTL stands behind an owner that is a pointer.
const TTL_AT: usize = 6;

impl Template {
    /// The zone's SOA: MNAME and RNAME, then its five numbers.
    pub(super) fn soa(apex: &Name, names: [Name; 2], numbers: [u32; 5]) -> Result<Self, ProtoError> {
        Self::new(apex, RecordType::SOA, &names, &numbers)
    }

    /// An NS of the zone.
    pub(super) fn ns(apex: &Name, target: &Name) -> Result<Self, ProtoError> {
        Self::new(apex, RecordType::NS, std::slice::from_ref(target), &[])
    }

    /// Names below the apex end in a pointer to it, so that negative answers stay small.
    fn new(apex: &Name, kind: RecordType, names: &[Name], numbers: &[u32]) -> Result<Self, ProtoError> {
        let mut bytes = Vec::new();
        let mut pointers = vec![0];
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_name_encoding(NameEncoding::Uncompressed);
        encoder.emit_u16(0)?;
        kind.emit(&mut encoder)?;
        DNSClass::IN.emit(&mut encoder)?;
        encoder.emit_u32(0)?;
        let length = encoder.place::<u16>()?;
        for name in names {
            let name = name.to_lowercase();
            if apex.is_root() || !apex.zone_of(&name) {
                name.emit(&mut encoder)?;
                continue;
            }
            for label in name.iter().take(name.iter().count() - apex.iter().count()) {
                encoder.emit_character_data(label)?;
            }
            pointers.push(encoder.offset());
            encoder.emit_u16(0)?;
        }
        for number in numbers {
            encoder.emit_u32(*number)?;
        }
        let rdlength = encoder.len_since_place(&length) as u16;
        length.replace(&mut encoder, rdlength)?;
        Ok(Self { bytes, pointers })
    }

    /// Bytes of the record.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the record to a reply in which the apex stands at `apex_at`.
    pub(super) fn append(&self, reply: &mut Vec<u8>, apex_at: u16, ttl_s: u32) {
        let start = reply.len();
        reply.extend_from_slice(&self.bytes);
        for at in &self.pointers {
            reply[start + at..start + at + 2].copy_from_slice(&(0xC000 | apex_at).to_be_bytes());
        }
        reply[start + TTL_AT..start + TTL_AT + 4].copy_from_slice(&ttl_s.to_be_bytes());
    }
}
