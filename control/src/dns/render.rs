//! Records in wire form, made with hickory's encoder.

use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use xdp_balancer_common::ANSWER_BYTES;

use super::affinity::{self, Candidate};
use super::ring::ring;
use super::{MAX_ANSWERS, TYPE_A, TYPE_AAAA};
use crate::model::{Basis, Choice, PublishedService};

/// A compression pointer to the question's name.
const QUESTION_NAME: u16 = 0xC00C;
/// CLASS of all that we hold.
pub(super) const CLASS_IN: u16 = 1;
/// AA in the header's second word.
pub(super) const FLAG_AA: u16 = 0x0400;
/// RCODE SERVFAIL.
const SERVFAIL: u16 = 2;
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
    /// The variant of a turn; turns go round.
    #[cfg(test)]
    pub(super) fn at(&self, turn: usize) -> &RenderedAnswer {
        &self.answers[usize::from(self.turns[turn % self.turns.len()])]
    }

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

/// The RRsets of a service, one per address family that something with a weight has an address of. Where the
/// service's policy is SERVFAIL or NODATA, both say that. Of a service at zero they are what is said where its instance
/// is late; nothing of that is a negative answer.
///
/// # Errors
/// [`RenderError`] where hickory refuses a record, which addresses give no cause for.
pub fn rrsets(service: &PublishedService) -> Result<Vec<RenderedRrset>, RenderError> {
    let mut rrsets = Vec::with_capacity(2);
    let mut orders = Orders::default();
    for qtype in [TYPE_A, TYPE_AAAA] {
        let cold = service.basis == Basis::Cold;
        if service.basis == Basis::ServFail || (cold && !service.addresses.iter().any(|a| is_of(*a, qtype))) {
            let refusal = RenderedAnswer { flags: SERVFAIL, ..RenderedAnswer::default() };
            rrsets.push(RenderedRrset::new(qtype, false, [refusal]));
            continue;
        }
        if service.basis == Basis::NoData {
            // Without records and without a code: the index makes the zone's NODATA of it.
            let silence = RenderedAnswer { flags: FLAG_AA, ..RenderedAnswer::default() };
            rrsets.push(RenderedRrset::new(qtype, false, [silence]));
            continue;
        }
        let endpoints = endpoints(service, qtype);
        if !endpoints.is_empty() {
            let rrset = addresses(service, qtype, &endpoints, &mut orders);
            rrsets.push(rrset.map_err(|source| RenderError { owner: service.name.to_string(), source })?);
        }
    }
    Ok(rrsets)
}

/// An address that answers may name, with who it is and how often.
struct Endpoint {
    address: IpAddr,
    candidate: Candidate,
}

/// What a service's answers of a type name: its instances, or the addresses that stand in for them.
fn endpoints(service: &PublishedService, qtype: u16) -> Vec<Endpoint> {
    let instances = service.backends.iter().filter(|backend| backend.weight > 0).flat_map(|backend| {
        let identity = affinity::identity(backend.instance.as_str().as_bytes());
        let candidate = Candidate { identity, weight: backend.weight };
        backend.addresses.iter().map(move |address| Endpoint { address, candidate })
    });
    let elsewhere = service.addresses.iter().map(|address| {
        let identity = affinity::identity(address.to_string().as_bytes());
        Endpoint { address: *address, candidate: Candidate { identity, weight: 1 } }
    });
    instances.chain(elsewhere).filter(|endpoint| is_of(endpoint.address, qtype)).collect()
}

/// Whether answers of this type name such an address.
const fn is_of(address: IpAddr, qtype: u16) -> bool {
    address.is_ipv4() == (qtype == TYPE_A)
}

/// The clients' orders of the candidates that they were last made for: mostly both families have the same.
#[derive(Default)]
struct Orders {
    candidates: Vec<Candidate>,
    orders: Vec<Vec<usize>>,
}

impl Orders {
    fn of(&mut self, candidates: Vec<Candidate>) -> &[Vec<usize>] {
        if self.candidates != candidates {
            self.orders = affinity::orders(&candidates);
            self.candidates = candidates;
        }
        &self.orders
    }
}

/// One variant per turn: whose turn it is comes first, then those who are next.
fn addresses(
    service: &PublishedService,
    qtype: u16,
    endpoints: &[Endpoint],
    orders: &mut Orders,
) -> Result<RenderedRrset, ProtoError> {
    let records = endpoints.iter().map(|e| record(e.address, service.ttl_s)).collect::<Result<Vec<_>, _>>()?;
    let most = (service.answers as usize).clamp(1, MAX_ANSWERS).min(ANSWER_BYTES / records[0].len());
    let variant = |order: &mut dyn Iterator<Item = usize>| {
        let mut chosen: Vec<&[u8]> = Vec::with_capacity(most);
        for next in order {
            let record = records[next].as_slice();
            // Compared by content: two endpoints with one address are one record.
            if !chosen.contains(&record) {
                chosen.push(record);
            }
            if chosen.len() == most {
                break;
            }
        }
        RenderedAnswer { flags: FLAG_AA, ancount: chosen.len() as u16, bytes: chosen.concat(), ..Default::default() }
    };
    let candidates: Vec<Candidate> = endpoints.iter().map(|e| e.candidate).collect();
    Ok(match service.choice {
        Choice::RoundRobin => {
            let turns = ring(&candidates.iter().map(|c| c.weight).collect::<Vec<_>>());
            let from = |start: usize| variant(&mut turns.iter().cycle().skip(start).take(turns.len()).copied());
            RenderedRrset::new(qtype, false, (0..turns.len()).map(from))
        }
        Choice::Client => {
            let orders = orders.of(candidates).iter();
            RenderedRrset::new(qtype, true, orders.map(|order| variant(&mut order.iter().copied())))
        }
    })
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
