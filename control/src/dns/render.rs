//! Records in wire form, made with hickory's encoder.

use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
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
/// RCODE in the header's second word.
pub(super) const RCODE_BITS: u16 = 0x000F;

/// One variant of an RRset's answer: everything that follows the question, without OPT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RenderedAnswer {
    /// Bits to set in the header's second word, host order: AA and RCODE.
    pub flags: u16,
    /// ANCOUNT.
    pub ancount: u16,
    /// NSCOUNT.
    pub nscount: u16,
    /// Additional records, OPT not among them.
    pub arcount: u16,
    /// The records. The question's name as an owner is the pointer 0xC00C, all other names stand in full.
    pub bytes: Vec<u8>,
}

/// An RRset as it is answered, turn by turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedRrset {
    /// QTYPE.
    pub qtype: u16,
    /// The variants, none twice; never empty.
    pub answers: Vec<RenderedAnswer>,
    /// Indices into `answers` in the order in which they are given; never empty.
    pub turns: Vec<u16>,
    /// True where the client's prefix picks the turn and there are
    /// [`CLIENT_TURNS`](xdp_balancer_common::CLIENT_TURNS) of them; false where they are taken in order.
    pub by_client: bool,
}

impl RenderedRrset {
    /// From one variant per turn.
    pub(super) fn new(qtype: u16, by_client: bool, variants: impl IntoIterator<Item = RenderedAnswer>) -> Self {
        let mut rrset = Self { qtype, answers: Vec::new(), turns: Vec::new(), by_client };
        let mut known: HashMap<RenderedAnswer, u16> = HashMap::new();
        for variant in variants {
            // At most as many as there are turns, which are counted in 16 bits.
            let next = rrset.answers.len() as u16;
            rrset.turns.push(*known.entry(variant).or_insert_with_key(|variant| {
                rrset.answers.push(variant.clone());
                next
            }));
        }
        rrset
    }
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
        rrsets.push(RenderedRrset::new(qtype, false, ring));
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
        RenderedAnswer { flags: FLAG_AA, ancount: chosen.len() as u16, bytes: chosen.concat(), ..Default::default() }
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
