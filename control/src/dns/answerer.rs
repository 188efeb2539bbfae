//! A query → its response by what holds now: the newest index, policy, and the rules for clients.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::bare::{self, Bare};
use super::limiter::{Limiter, Listed, Sentence, listed};
use super::{Context, DnsStats, Index, Outcome, Pick, Policy, Response, Transport, respond};
use crate::model::{Denied, Late, Timestamp};

/// Bytes of a UDP header.
const UDP: usize = 8;

/// What every query is answered from.
#[derive(Clone)]
pub(super) struct Answerer {
    pub(super) snapshots: watch::Receiver<Arc<Index>>,
    pub(super) policies: watch::Receiver<Arc<Policy>>,
    pub(super) stats: Arc<DnsStats>,
    pub(super) limiter: Arc<Limiter>,
}

// Neither value is held while answering: a borrow blocks the publisher.
impl Answerer {
    pub(super) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.snapshots.borrow())
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policies.borrow())
    }

    pub(super) fn indexes(&self) -> watch::Receiver<Arc<Index>> {
        self.snapshots.clone()
    }

    /// The response to a query that has waited: rules have let it in before.
    pub(super) fn respond(&self, message: &[u8], transport: Transport, client: IpAddr) -> Response {
        let (index, policy) = (self.index(), self.policy());
        let context = Context { transport, client, time: Timestamp::now().seconds(), policy: &policy };
        let mut response = respond(message, &index, &context, Pick::Next);
        let silent = |service| index.cold(service).is_some_and(|(_, summon)| summon.late == Late::Silence);
        if response.outcome == Outcome::Late && response.service.is_some_and(silent) {
            response.bytes = None;
        }
        response
    }

    /// The response, or what the rules say instead.
    pub(super) fn respond_by_rules(&self, message: &[u8], transport: Transport, client: IpAddr) -> Response {
        let policy = self.policy();
        let guard = &policy.guard;
        let context = Context { transport, client, time: Timestamp::now().seconds(), policy: &policy };
        let instead = |outcome, bare: Option<Bare>, service| Response {
            bytes: bare.and_then(|bare| bare::reply(message, &context, bare)),
            outcome,
            service,
        };
        let listed = listed(&guard.lists, client);
        if listed == Some(Listed::Denied) {
            let refuses = guard.lists.denied == Denied::Refuse;
            return instead(Outcome::Denied, refuses.then_some(Bare::Refused), None);
        }
        let response = self.respond(message, transport, client);
        // A client that asks over TCP has the address that it says.
        if transport == Transport::Tcp || listed.is_some() || response.outcome == Outcome::Dropped {
            return response;
        }
        let proven = bare::is_proven(message, &context);
        let response = match self.limiter.ask(guard, client, proven, response.service) {
            Sentence::Send => response,
            Sentence::Slip => instead(Outcome::Slipped, Some(Bare::Truncated), response.service),
            Sentence::Hold => return instead(Outcome::Limited, None, response.service),
        };
        let room = match guard.limits.amplification {
            0 => return response,
            _ if proven => return response,
            factor => (message.len() + UDP).saturating_mul(factor as usize),
        };
        let fits = |response: &Response| response.bytes.as_ref().is_none_or(|bytes| bytes.len() + UDP <= room);
        if fits(&response) {
            return response;
        }
        let short = instead(Outcome::Unproven, Some(Bare::Truncated), response.service);
        if fits(&short) { short } else { instead(Outcome::Limited, None, short.service) }
    }

    /// Counts a response.
    pub(super) fn record(&self, transport: Transport, outcome: Outcome, service: Option<u32>) {
        self.stats.record(transport, outcome, service);
    }
}
