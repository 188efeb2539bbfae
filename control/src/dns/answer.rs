//! From a query's bytes to its reply's, without a socket, a clock or a panic.
//!
//! Whatever the XDP program answers gets the same bytes here for the same turn of the ring: header, question as
//! asked, rendered records, and an OPT where the query had one. Choices that the standards leave open:
//! - QTYPE ANY gets one RRset (RFC 8482, 4.1): A, else AAAA, else at an apex the SOA, else any, else NODATA.
//! - Zone transfers, classes other than IN (CH too) and names outside our zones are REFUSED.
//! - Bytes behind the last record, records in answer or authority section, a compression pointer in the
//!   question, two OPTs or a broken one, a meta type as QTYPE: FORMERR.
//! - Additional records other than OPT (TSIG, for one) are ignored where they are well-formed.
//! - Server cookies are given but not asked for: who has a wrong one is answered like who has none. Only a query for
//!   a cookie alone (RFC 7873, 5.4) is told that it is bad.

use super::context::Context;
use super::edns::{Malformed, Options};
use super::index::{Answered, Found, Index, OthersOf};
use super::layout::Cut;
use super::query::{Query, Question};
use super::render::{CLASS_IN, RCODE_BITS, RenderedAnswer};
use super::reply::{FLAG_TC, Referral, Reply};
use super::stats::Outcome;
use super::turns::{Pick, Ring};
use super::{NXDOMAIN, SERVFAIL, TYPE_AXFR, TYPE_DS, TYPE_IXFR, TYPE_OPT, TYPE_TKEY, TYPE_TSIG};

const FORMERR: u16 = 1;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
/// RCODEs above 15: their high bits stand in the OPT.
const BADVERS: u16 = 16;
const BADCOOKIE: u16 = 23;

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
pub fn respond(message: &[u8], index: &Index, context: &Context<'_>, pick: Pick) -> Response {
    let Some(query) = Query::read(message) else {
        return Response { bytes: None, outcome: Outcome::Dropped, service: None };
    };
    let mut reply = Reply::new(&query, context.transport);
    let (outcome, service) = match check(&query, context) {
        Ok((question, options)) => {
            Asked { question, options: &options, index, context, pick }.answer(&mut reply).unwrap_or_else(|| {
                reply.set_rcode(REFUSED);
                reply.set_options(options.reply(context, false));
                (Outcome::Refused, None)
            })
        }
        Err(Early { outcome, rcode, options }) => {
            reply.set_rcode(rcode);
            reply.set_options(options.reply(context, false));
            (outcome, None)
        }
    };
    let outcome = if reply.flags & FLAG_TC == 0 { outcome } else { Outcome::Truncated };
    Response { bytes: Some(reply.finish()), outcome, service }
}

/// A reply that needs no look at the zones.
struct Early<'q> {
    outcome: Outcome,
    rcode: u16,
    options: Options<'q>,
}

impl Early<'_> {
    fn new(outcome: Outcome, rcode: u16) -> Self {
        Self { outcome, rcode, options: Options::default() }
    }
}

/// All that can be said without looking at the zones.
fn check<'q>(query: &'q Query<'q>, context: &Context<'_>) -> Result<(&'q Question<'q>, Options<'q>), Early<'q>> {
    let formerr = || Early::new(Outcome::FormErr, FORMERR);
    if query.opcode != 0 {
        return Err(Early::new(Outcome::NotImp, NOTIMP));
    }
    let rest = query.rest.as_ref().ok_or_else(formerr)?;
    if rest.opt.is_some_and(|opt| opt.version > 0) {
        return Err(Early::new(Outcome::BadVers, BADVERS));
    }
    let options = rest.opt.map_or(Ok(Options::default()), |opt| Options::read(opt.options, context));
    let options = options.map_err(|Malformed| formerr())?;
    let Some(question) = &query.question else {
        let cookie = options.cookie.ok_or_else(formerr)?;
        let rcode = if cookie.is_bad(context) { BADCOOKIE } else { 0 };
        return Err(Early { outcome: Outcome::Cookie, rcode, options });
    };
    match (question.qclass, question.qtype) {
        (_, TYPE_OPT | TYPE_TKEY | TYPE_TSIG) => Err(Early { options, ..formerr() }),
        (CLASS_IN, TYPE_AXFR | TYPE_IXFR) => Err(Early { options, ..Early::new(Outcome::Refused, REFUSED) }),
        (CLASS_IN, _) => Ok((question, options)),
        _ => Err(Early { options, ..Early::new(Outcome::Refused, REFUSED) }),
    }
}

/// A well-formed question of class IN.
struct Asked<'a> {
    question: &'a Question<'a>,
    options: &'a Options<'a>,
    index: &'a Index,
    context: &'a Context<'a>,
    pick: Pick,
}

impl Asked<'_> {
    /// `None` where the name is in none of our zones.
    fn answer(&self, reply: &mut Reply<'_>) -> Option<(Outcome, Option<u32>)> {
        let outcome = match self.index.find(self.question.name)? {
            Found::Name(answered) => return Some((self.at_name(answered, reply), answered.service)),
            Found::Nothing(zone) => self.ring(&zone.nxdomain, reply),
            // The parent's own to say.
            Found::Cut { zone, cut, at: 0 } if self.question.qtype == TYPE_DS => {
                self.ring(cut.ds.as_ref().unwrap_or(&zone.nodata), reply)
            }
            Found::Cut { cut, at, .. } => self.refer(cut, Referral::At(at), reply),
        };
        Some((outcome, None))
    }

    /// Answers from what stands at a name.
    fn at_name(&self, answered: Answered<'_>, reply: &mut Reply<'_>) -> Outcome {
        match answered.rrsets.iter().find(|rrset| rrset.qtype == self.question.qtype) {
            Some(rrset) => {
                let outcome = self.ring(&rrset.ring, reply);
                if rrset.idle { Outcome::NoBackend } else { outcome }
            }
            None => match answered.others {
                OthersOf::Ring(ring) => self.ring(ring, reply),
                OthersOf::Referral { chain, cut } => self.refer(cut, Referral::Behind(chain), reply),
            },
        }
    }

    /// Answers with the ring's turn.
    fn ring(&self, ring: &Ring, reply: &mut Reply<'_>) -> Outcome {
        let client = self.options.subnet.and_then(|subnet| subnet.address()).unwrap_or(self.context.client);
        let answer = ring.answer(self.pick, client);
        reply.set_options(self.options.reply(self.context, ring.by_client));
        reply.answer(answer);
        outcome_of(answer)
    }

    /// Says who has the zone that the name is in, or that its alias leads to.
    fn refer(&self, cut: &Cut, to: Referral<'_>, reply: &mut Reply<'_>) -> Outcome {
        reply.set_options(self.options.reply(self.context, false));
        reply.refer(cut, to);
        Outcome::Referral
    }
}

/// What an answer says. An authority section is there only in negative ones.
fn outcome_of(answer: &RenderedAnswer) -> Outcome {
    match answer.flags & RCODE_BITS {
        NXDOMAIN => Outcome::NxDomain,
        SERVFAIL => Outcome::ServFail,
        _ if answer.nscount > 0 => Outcome::NoData,
        _ => Outcome::Answered,
    }
}
