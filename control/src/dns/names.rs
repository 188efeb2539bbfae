//! What the kernel answers: names with their answers, rendered once.
//!
//! Each answer is what [`respond`] says to the plain query, without header and question. So it is the daemon's own
//! by construction, pointers into the question and all: behind a header of fixed length and a question whose name
//! is known, every offset is the same in every reply to it. What the kernel cannot say stays with the daemon:
//! - negative answers and referrals;
//! - answers with additional records (NS with addresses), for the kernel keeps the query's ARCOUNT;
//! - answers longer than a slot of the tables;
//! - types beyond those that a name of the tables can hold: A, AAAA and HTTPS go first;
//! - names that only a wildcard makes.

use xdp_balancer_common::{ANSWER_BYTES, TYPE_SLOTS};

use super::answer::{Pick, respond};
use super::index::{Index, Node, Place, Published};
use super::query::HEADER_BYTES;
use super::render::{RenderedAnswer, RenderedRrset};
use super::stats::{Outcome, Transport};
use super::wire::is_wildcard;
use super::{TYPE_A, TYPE_AAAA, TYPE_CNAME, TYPE_NS, TYPE_SOA};
use crate::model::ZONE_INDEX;

/// AA and RCODE: what a rendered answer may set.
const ANSWER_FLAGS: u16 = 0x040F;
const TYPE_HTTPS: u16 = 65;
/// Types that are looked for behind an alias: MX, TXT, SRV, SVCB.
const BEHIND_ALIAS: [u16; 4] = [15, 16, 33, 64];

/// A name as the kernel answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedName {
    /// Wire form, lower case.
    pub wire: Vec<u8>,
    /// Index of the counters: the service's that the name leads to, else [`ZONE_INDEX`].
    pub service: u32,
    /// What can be said there, by type.
    pub rrsets: Vec<RenderedRrset>,
}

impl Index {
    /// Every name that the kernel is to answer, in order. Names of services are there even where nothing can be
    /// said of them, so that questions for them are counted.
    #[must_use]
    pub fn names(&self) -> Vec<PublishedName> {
        let answered = |(wire, node): (&[u8], &Node)| {
            let holds = node.service.is_some() || node.zone.is_some() || !node.fixed.is_empty();
            if !holds || is_wildcard(wire) || wire.len() < 2 {
                return None;
            }
            let service = self.service_at(wire);
            let rrsets = rrsets(self, wire, node, service);
            (service.is_some() || !rrsets.is_empty()).then(|| PublishedName {
                wire: wire.to_vec(),
                service: service.map_or(ZONE_INDEX, |service| service.index),
                rrsets,
            })
        };
        let mut names: Vec<PublishedName> = self.nodes().filter_map(answered).collect();
        names.sort_by(|a, b| a.wire.cmp(&b.wire));
        names
    }

    /// The service that a name leads to, by itself or as an alias.
    fn service_at(&self, wire: &[u8]) -> Option<&Published> {
        let index = respond(&plain_query(wire, TYPE_A), self, Transport::Tcp, Pick::Slot(0)).service?;
        self.published().iter().find(|service| service.index == index)
    }
}

fn rrsets(index: &Index, wire: &[u8], node: &Node, service: Option<&Published>) -> Vec<RenderedRrset> {
    if !matches!(index.find(wire).map(|found| found.place), Some(Place::Node(_))) {
        return Vec::new();
    }
    let mut types = vec![TYPE_A, TYPE_AAAA, TYPE_HTTPS];
    let mut add = |qtype| {
        if !types.contains(&qtype) {
            types.push(qtype);
        }
    };
    node.fixed.iter().for_each(|rrset| add(rrset.rtype));
    if node.zone.is_some() {
        [TYPE_SOA, TYPE_NS].into_iter().for_each(&mut add);
    }
    if node.fixed(TYPE_CNAME).is_some() {
        BEHIND_ALIAS.into_iter().for_each(&mut add);
    }
    let rendered = types.into_iter().filter_map(|qtype| {
        let query = plain_query(wire, qtype);
        let Some((_, ring)) = service.and_then(|s| s.rrset(qtype)) else {
            let answers = vec![render(index, &query, 0)?];
            return Some(RenderedRrset { qtype, answers, turns: vec![0], by_client: false });
        };
        let first_turn = |answer: usize| ring.turns.iter().position(|turn| usize::from(*turn) == answer);
        let answers = (0..ring.answers.len()).map(|answer| render(index, &query, first_turn(answer)?));
        let (turns, by_client) = (ring.turns.clone(), ring.by_client);
        Some(RenderedRrset { qtype, answers: answers.collect::<Option<Vec<_>>>()?, turns, by_client })
    });
    rendered.take(TYPE_SLOTS).collect()
}

/// The daemon's answer without header and question; `None` where the kernel cannot give it.
fn render(index: &Index, query: &[u8], slot: usize) -> Option<RenderedAnswer> {
    let response = respond(query, index, Transport::Tcp, Pick::Slot(slot));
    let reply = response.bytes.filter(|_| matches!(response.outcome, Outcome::Answered | Outcome::ServFail))?;
    let word = |at: usize| reply.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let bytes = reply.get(query.len()..)?;
    let fits = bytes.len() <= ANSWER_BYTES && word(10)? == 0;
    Some(RenderedAnswer { flags: word(2)? & ANSWER_FLAGS, ancount: word(6)?, nscount: word(8)?, bytes: bytes.to_vec() })
        .filter(|_| fits)
}

/// A query without anything that is not needed.
fn plain_query(wire: &[u8], qtype: u16) -> Vec<u8> {
    let mut query = vec![0; HEADER_BYTES];
    query[5] = 1;
    query.extend_from_slice(wire);
    query.extend_from_slice(&qtype.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}
