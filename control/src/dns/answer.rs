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

use super::index::{Found, Index, Node, Place, Published};
use super::query::{HEADER_BYTES, Query, Question, TYPE_IXFR};
use super::render::{CLASS_IN, FLAG_AA, FixedRrset, RenderedAnswer};
use super::reply::{FLAG_TC, Reply, Section};
use super::stats::{Outcome, Transport};
use super::{TYPE_A, TYPE_AAAA, TYPE_CNAME, TYPE_NS, TYPE_SOA};

const TYPE_OPT: u16 = 41;
const TYPE_DS: u16 = 43;
const TYPE_TKEY: u16 = 249;
const TYPE_TSIG: u16 = 250;
const TYPE_AXFR: u16 = 252;
const TYPE_ANY: u16 = 255;

const FORMERR: u16 = 1;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
/// High bits of BADVERS (16), which stand in the OPT.
const BADVERS_HIGH: u8 = 1;

/// Most aliases that one reply follows.
const MAX_ALIASES: usize = 8;
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
    let Some(mut found) = index.find(question.name) else {
        reply.flags |= REFUSED;
        return (Outcome::Refused, None);
    };
    reply.flags |= FLAG_AA;
    reply.apex_at = (HEADER_BYTES + found.apex_at) as u16;
    let mut chain: Vec<&[u8]> = Vec::new();
    loop {
        let node = match found.place {
            Place::Node(node) => node,
            Place::Nothing => {
                reply.flags |= NXDOMAIN;
                reply.deny(found.zone, found.zone.negative_ttl_s);
                return (Outcome::NxDomain, None);
            }
            Place::Cut { ns, at } => {
                if question.qtype == TYPE_DS && at == 0 {
                    // The parent's own to say, and we sign no zone.
                    reply.deny(found.zone, found.zone.negative_ttl_s);
                    return (Outcome::NoData, None);
                }
                return refer(index, &found, ns, at, chain.is_empty(), reply);
            }
        };
        let alias = node.fixed(TYPE_CNAME).and_then(|rrset| Some((rrset, rrset.rdata.first()?)));
        let Some((cname, target)) = alias.filter(|_| !matches!(question.qtype, TYPE_CNAME | TYPE_ANY)) else {
            return at_node(question.qtype, node, &found, index, pick, reply);
        };
        reply.fixed(cname, Section::Answer);
        // The chain ends where it leaves our zones (the client goes on), comes back to itself, or gets too long.
        let again = question.name.eq_ignore_ascii_case(target) || chain.contains(&target.as_slice());
        let Some(next) = index.find(target).filter(|_| !again && chain.len() < MAX_ALIASES) else {
            return (Outcome::Answered, None);
        };
        chain.push(target);
        // Its name stands at the end of what was written; with TC set nothing more is.
        reply.name_at = reply.bytes.len().saturating_sub(target.len()) as u16;
        reply.apex_at = reply.name_at + next.apex_at as u16;
        found = next;
    }
}

/// Answers from what stands at a name.
fn at_node(
    qtype: u16,
    node: &Node,
    found: &Found<'_>,
    index: &Index,
    pick: Pick,
    reply: &mut Reply<'_>,
) -> (Outcome, Option<u32>) {
    let zone = found.zone;
    let service = node.service.and_then(|service| index.published().get(service));
    let asked = service.map(|service| service.index);
    if let Some(chosen) = service.and_then(|service| choose(service, qtype, pick)) {
        reply.addresses(chosen);
        return (Outcome::Answered, asked);
    }
    let fixed = match qtype {
        TYPE_ANY => node.fixed(TYPE_A).or_else(|| node.fixed(TYPE_AAAA)),
        _ => node.fixed(qtype),
    };
    let at_apex = node.zone.is_some();
    match (qtype, fixed) {
        (_, Some(rrset)) => reply.fixed(rrset, Section::Answer),
        (TYPE_SOA | TYPE_ANY, _) if at_apex => reply.template(&zone.soa, zone.ttl_s, Section::Answer),
        (TYPE_NS, _) if at_apex => {
            for ns in &zone.ns {
                reply.template(ns, zone.ns_ttl_s, Section::Answer);
            }
            for target in &zone.targets {
                // Kind to the client, but no part of the answer: TC is not for them.
                reply.glue(index, target, &zone.apex, false);
            }
        }
        (TYPE_A | TYPE_AAAA | TYPE_ANY, _) if service.is_some_and(|service| service.rrsets.is_empty()) => {
            let ttl_s = service.map_or(0, |service| service.ttl_s).min(NO_BACKEND_TTL_S);
            reply.deny(zone, zone.negative_ttl_s.min(ttl_s));
            return (Outcome::NoBackend, asked);
        }
        (TYPE_ANY, _) if !node.fixed.is_empty() => reply.fixed(&node.fixed[0], Section::Answer),
        _ => {
            reply.deny(zone, zone.negative_ttl_s);
            return (Outcome::NoData, asked);
        }
    }
    (Outcome::Answered, asked)
}

/// Says who has the zone that the name is in. `at` is where the delegated name begins in the name.
fn refer(
    index: &Index,
    found: &Found<'_>,
    ns: &FixedRrset,
    at: usize,
    first: bool,
    reply: &mut Reply<'_>,
) -> (Outcome, Option<u32>) {
    if first {
        // Behind an alias AA speaks of the alias, which is ours.
        reply.flags &= !FLAG_AA;
    }
    reply.name_at += at as u16;
    reply.fixed(ns, Section::Authority);
    for target in &ns.rdata {
        // Without the addresses of servers inside it a delegation cannot be followed (RFC 9471).
        reply.glue(index, target, &found.zone.apex, true);
    }
    (Outcome::Referral, None)
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
