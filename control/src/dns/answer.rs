//! From a query's bytes to its reply's, without a socket, a clock or a panic.
//!
//! Whatever the XDP program answers gets the same bytes here for the same turn of the ring: header, question as
//! asked, rendered records, and an OPT where the query had one. Choices that the standards leave open:
//! - The CNAME that a DNAME makes is an answer to who asks for CNAME, and followed for all others (ANY too).
//! - QTYPE ANY gets one RRset (RFC 8482, 4.1): A, else AAAA, else at an apex the SOA, else any, else NODATA.
//! - Zone transfers, classes other than IN and names outside our zones are REFUSED; transfers of what is no zone of
//!   ours NOTAUTH (RFC 5936, 2.2.1). Class ANY is answered from IN without AA (RFC 1035, 6.2), class CH as far as the
//!   server speaks of itself (RFC 4892).
//! - Bytes behind the last record, records in answer or authority section, a compression pointer in the
//!   question, two OPTs or a broken one, a meta type as QTYPE: FORMERR.
//! - A service at zero gets what is said where its instance is late ([`Outcome::Late`]); the server holds such queries
//!   before it comes to that.
//! - Additional records other than OPT and TSIG are ignored where they are well-formed. No TSIG key is known: NOTAUTH
//!   with BADKEY (RFC 8945, 5.2.1).
//! - Server cookies are given but not asked for: who has a wrong one is answered like who has none. Only a query for
//!   a cookie alone (RFC 7873, 5.4) is told that it is bad.

use std::borrow::Cow;

use super::chaos::{self, CLASS_CH};
use super::context::Context;
use super::edns::{Malformed, Options};
use super::index::{Answered, Found, Index, OthersOf};
use super::layout::{Cut, MAX_ALIASES, Standing};
use super::query::{CLASS_ANY, Query, Question};
use super::records::{Chain, FixedRrset, QUESTION_OWNER};
use super::render::{CLASS_IN, FLAG_AA, RCODE_BITS, RenderedAnswer};
use super::reply::{FLAG_TC, Referral, Reply};
use super::stats::Outcome;
use super::turns::{Pick, Ring};
use super::{
    NOTAUTH, NXDOMAIN, SERVFAIL, TYPE_AXFR, TYPE_CNAME, TYPE_DS, TYPE_IXFR, TYPE_OPT, TYPE_TKEY, TYPE_TSIG, YXDOMAIN,
};

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
    let (outcome, service) = match check(&query, index, context) {
        Ok((question, options)) => {
            let asked = Asked { question, options: &options, index, context, pick };
            asked.answer(&mut reply).unwrap_or_else(|| {
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
    if query.question.as_ref().is_some_and(|question| question.qclass == CLASS_ANY) {
        reply.flags &= !FLAG_AA;
    }
    let truncated = reply.flags & FLAG_TC != 0 && outcome != Outcome::Late;
    let outcome = if truncated { Outcome::Truncated } else { outcome };
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
fn check<'q>(
    query: &'q Query<'q>,
    index: &Index,
    context: &Context<'_>,
) -> Result<(&'q Question<'q>, Options<'q>), Early<'q>> {
    let formerr = || Early::new(Outcome::FormErr, FORMERR);
    if query.rest.as_ref().is_some_and(|rest| rest.tsig.is_some()) {
        return Err(Early::new(Outcome::NotAuth, NOTAUTH));
    }
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
        (CLASS_IN, TYPE_AXFR | TYPE_IXFR) if !index.is_apex(question.name) => {
            Err(Early { options, ..Early::new(Outcome::NotAuth, NOTAUTH) })
        }
        (_, TYPE_AXFR | TYPE_IXFR) => Err(Early { options, ..Early::new(Outcome::Refused, REFUSED) }),
        (CLASS_IN | CLASS_CH | CLASS_ANY, _) => Ok((question, options)),
        _ => Err(Early { options, ..Early::new(Outcome::Refused, REFUSED) }),
    }
}

/// A well-formed question of a class that there is something to say in.
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
        if self.question.qclass == CLASS_CH {
            let answer = chaos::answer(self.question.name, self.question.qtype, &self.context.policy.identity)?;
            return Some((self.say(&answer, false, reply), None));
        }
        let mut way = Way::new(self.question.name);
        let mut found = self.index.find(&way.name)?;
        while let Found::Redirected { dname, at } = found {
            let next = way.redirect(dname, at).map(|()| self.index.find(&way.name));
            found = match next {
                Ok(Some(next)) if self.question.qtype != TYPE_CNAME => next,
                ends => return Some((self.say(&way.chain.answer(ends.err().unwrap_or(0)), false, reply), None)),
            };
        }
        let outcome = match found {
            Found::Name(answered) => return Some((self.at_name(answered, &way, reply), answered.service)),
            Found::Nothing(zone) => self.ring(&zone.nxdomain, &way, reply),
            // The parent's own to say.
            Found::Cut { zone, cut, at: 0 } if self.question.qtype == TYPE_DS => {
                self.ring(cut.ds.as_ref().unwrap_or(&zone.nodata), &way, reply)
            }
            Found::Cut { cut, at, .. } if way.is_empty() => self.refer(cut, Referral::At(at), reply),
            Found::Cut { cut, .. } => self.refer(cut, Referral::Behind(&way.chain), reply),
            Found::Redirected { .. } => return None,
        };
        Some((outcome, None))
    }

    /// Answers from what stands at the way's end.
    fn at_name(&self, answered: Answered<'_>, way: &Way<'_>, reply: &mut Reply<'_>) -> Outcome {
        match answered.rrsets.iter().find(|rrset| rrset.qtype == self.question.qtype) {
            Some(rrset) => {
                let outcome = self.ring(&rrset.ring, way, reply);
                match rrset.standing {
                    Standing::Published => outcome,
                    Standing::Idle => Outcome::NoBackend,
                    Standing::Cold => Outcome::Late,
                }
            }
            None => match answered.others {
                OthersOf::Ring(ring) => self.ring(ring, way, reply),
                OthersOf::Referral { chain, cut } if way.is_empty() => self.refer(cut, Referral::Behind(chain), reply),
                OthersOf::Referral { chain, cut } => {
                    self.refer(cut, Referral::Behind(&way.chain.joined(&way.name, chain)), reply)
                }
            },
        }
    }

    /// Answers with the ring's turn.
    fn ring(&self, ring: &Ring, way: &Way<'_>, reply: &mut Reply<'_>) -> Outcome {
        let client = self.options.subnet.and_then(|subnet| subnet.address()).unwrap_or(self.context.client);
        let answer = ring.answer(self.pick, client);
        if way.is_empty() {
            self.say(answer, ring.by_client, reply)
        } else {
            self.say(&way.chain.before(&way.name, answer), ring.by_client, reply)
        }
    }

    fn say(&self, answer: &RenderedAnswer, by_client: bool, reply: &mut Reply<'_>) -> Outcome {
        reply.set_options(self.options.reply(self.context, by_client));
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

/// From the question's name, over DNAMEs, to the one that answers it.
struct Way<'q> {
    name: Cow<'q, [u8]>,
    /// Empty as long as that is the question's own.
    chain: Chain,
    /// The names before, lower case.
    passed: Vec<Vec<u8>>,
}

impl<'q> Way<'q> {
    fn new(name: &'q [u8]) -> Self {
        Self { name: Cow::Borrowed(name), chain: Chain::default(), passed: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.passed.is_empty()
    }

    /// Goes on to where a DNAME leads whose name begins at `at`; the reply's code where the way ends here: what it
    /// leads to is no name, or was passed before, or is too far.
    fn redirect(&mut self, dname: &FixedRrset, at: usize) -> Result<(), u16> {
        let owner = if self.is_empty() { &QUESTION_OWNER } else { &*self.name };
        let next = self.chain.redirect(owner, &self.name, at, dname).ok_or(YXDOMAIN)?;
        self.passed.push(self.name.to_ascii_lowercase());
        self.name = Cow::Owned(next);
        let again = self.passed.contains(&self.name.to_ascii_lowercase());
        if again || self.passed.len() > MAX_ALIASES { Err(0) } else { Ok(()) }
    }
}

/// What an answer says. An authority section is there only in negative ones.
fn outcome_of(answer: &RenderedAnswer) -> Outcome {
    match answer.flags & RCODE_BITS {
        NXDOMAIN => Outcome::NxDomain,
        YXDOMAIN => Outcome::YxDomain,
        SERVFAIL => Outcome::ServFail,
        _ if answer.nscount > 0 => Outcome::NoData,
        _ => Outcome::Answered,
    }
}
