//! Holds the queries for services at zero, has an instance started, and answers when there is one.
//!
//! ```text
//! query ─> ask: monitor? refused? place? budget? ─> Waiting ──(index, deadline, refusal)──> reply
//!                                    └─ order ─> operator half ─> instance ─> new index ─┘
//! ```

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::sleep_until;

use super::Transport;
use super::answerer::Answerer;
use super::budget::Budget;
use super::stages::{Stage, SummonStats};
use super::waiting::{NoPlace, Waiter, Waiting};
use crate::model::{Cold, ColdServices, SummonOrder};

/// The way of a reply that comes later.
#[derive(Debug)]
pub(super) enum Reply {
    Udp(Arc<UdpSocket>),
    /// Nothing is sent where the connection is to be closed.
    Tcp(oneshot::Sender<Vec<u8>>),
}

impl Reply {
    pub(super) const fn transport(&self) -> Transport {
        match self {
            Self::Udp(_) => Transport::Udp,
            Self::Tcp(_) => Transport::Tcp,
        }
    }

    pub(super) fn send(self, bytes: Option<Vec<u8>>, client: SocketAddr) {
        let Some(bytes) = bytes else { return };
        match self {
            Self::Udp(socket) => {
                // As for any reply over UDP: one that cannot be sent at once is a lost datagram.
                if let Err(error) = socket.try_send_to(&bytes, client) {
                    tracing::debug!(%error, %client, "DNS over UDP: send");
                }
            }
            // A client that has gone away waits for nothing.
            Self::Tcp(reply) => drop(reply.send(bytes)),
        }
    }
}

/// The ends of the channels between the daemon's DNS and the operator half.
#[derive(Debug)]
pub struct SummonChannels {
    /// Orders for instances.
    pub orders: mpsc::Sender<SummonOrder>,
    /// Which services are cold, and whether an order would help.
    pub cold: watch::Receiver<Arc<ColdServices>>,
    /// Where times and counts go.
    pub stats: Arc<SummonStats>,
}

/// What became of a query for a service at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its reply comes later.
    Held,
    /// It is held already.
    Repeated,
    /// It may not wait or cause a start: its policy is said at once.
    Refused,
    /// The same, and it is no sign of life.
    Monitor,
}

#[derive(Debug, Default)]
struct State {
    waiting: Waiting<Reply>,
    budget: Budget,
}

/// Queries that wait, and what they may cause.
#[derive(Debug)]
pub(super) struct Summoner {
    state: Mutex<State>,
    channels: SummonChannels,
    /// An earlier deadline has come in than the one that is waited for, or a query just when its answer did.
    changed: Notify,
}

impl Summoner {
    pub(super) fn new(channels: SummonChannels) -> Self {
        Self { state: Mutex::default(), channels, changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Both parts are whole after each of their calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a query for the service at zero with this index, if it may be held; `reply` makes the way of its reply.
    pub(super) fn ask(
        &self,
        answerer: &Answerer,
        service: u32,
        message: &[u8],
        client: SocketAddr,
        reply: impl FnOnce() -> Reply,
    ) -> Asked {
        let index = answerer.index();
        let Some((name, summon)) = index.cold(service) else { return Asked::Refused };
        let stats = &self.channels.stats;
        let policy = answerer.policy();
        if policy.is_monitor(client.ip()) {
            stats.count(name, "monitor");
            return Asked::Monitor;
        }
        let cold = self.channels.cold.borrow().get(&service).copied();
        if let Some(Cold::Refused(refusal)) = cold {
            stats.count(name, refusal.label());
            return Asked::Refused;
        }
        let now = Instant::now();
        let deadline = now + summon.hold;
        let mut state = self.lock();
        let next = state.waiting.next_deadline();
        if let Err(why) = state.waiting.place(&policy.summon, service, client, message) {
            stats.count(name, why.label());
            return if why == NoPlace::Repeated { Asked::Repeated } else { Asked::Refused };
        }
        if cold != Some(Cold::Starting) && !state.waiting.is_ordered(service) {
            let limit = (service, summon.starts_per_minute);
            if let Err(spent) = state.budget.take(&policy.summon, limit, client.ip(), now) {
                stats.count(name, spent.label());
                return Asked::Refused;
            }
            stats.begin(name, now);
            if self.channels.orders.try_send(SummonOrder { service, seen: now }).is_err() {
                stats.count(name, "not_ordered");
                return Asked::Refused;
            }
            stats.count(name, "ordered");
        }
        let message = message.to_owned();
        state.waiting.hold(service, Waiter { message, client, seen: now, deadline, reply: reply() });
        drop(state);
        stats.count(name, "held");
        // What it waits for may have come between the look and the hold.
        let stale = answerer.index().cold(service).is_none() || self.channels.cold.has_changed().unwrap_or(false);
        if stale || next.is_none_or(|next| deadline < next) {
            self.changed.notify_one();
        }
        Asked::Held
    }

    /// Answers those who wait as soon as there is something to say, until `shutdown`.
    pub(super) async fn release(&self, answerer: Answerer, shutdown: impl Future<Output = ()>) {
        let mut indexes = answerer.indexes();
        let mut cold = self.channels.cold.clone();
        tokio::pin!(shutdown);
        loop {
            let next = self.lock().waiting.next_deadline();
            let deadline = async {
                match next {
                    Some(next) => sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The writers have ended with the daemon: deadlines still hold.
                Ok(()) = indexes.changed() => self.answer_warm(&answerer),
                Ok(()) = cold.changed() => self.answer_refused(&answerer),
                () = deadline => self.answer_late(&answerer),
                () = self.changed.notified() => {
                    self.answer_warm(&answerer);
                    self.answer_refused(&answerer);
                }
                () = &mut shutdown => return,
            }
        }
    }

    /// Those whose service has an instance now.
    fn answer_warm(&self, answerer: &Answerer) {
        let index = answerer.index();
        let services = self.lock().waiting.services();
        for service in services.into_iter().filter(|service| index.cold(*service).is_none()) {
            let waiters = self.lock().waiting.take(service);
            for (number, waiter) in waiters.into_iter().enumerate() {
                reply(answerer, waiter);
                if number == 0
                    && let Some(name) = index.service_name(service)
                {
                    self.channels.stats.reached(name, Stage::Answered);
                }
            }
        }
    }

    /// Those whose service cannot be started after all.
    fn answer_refused(&self, answerer: &Answerer) {
        let index = answerer.index();
        let cold = Arc::clone(&self.channels.cold.borrow());
        let services = self.lock().waiting.services();
        for service in services {
            let Some(Cold::Refused(refusal)) = cold.get(&service) else { continue };
            let waiters = self.lock().waiting.take(service);
            for waiter in waiters {
                if let Some(name) = index.service_name(service) {
                    self.channels.stats.count(name, refusal.label());
                }
                reply(answerer, waiter);
            }
        }
    }

    /// Those who have waited long enough.
    fn answer_late(&self, answerer: &Answerer) {
        let expired = self.lock().waiting.expire(Instant::now());
        for waiter in expired {
            let service = reply(answerer, waiter);
            let index = answerer.index();
            if let Some(name) = service.and_then(|service| index.service_name(service)) {
                self.channels.stats.count(name, "late");
            }
        }
    }
}

/// Answers a query that was held with what there is to say now; index of its service.
fn reply(answerer: &Answerer, waiter: Waiter<Reply>) -> Option<u32> {
    let transport = waiter.reply.transport();
    let response = answerer.respond(&waiter.message, transport, waiter.client.ip());
    answerer.record(transport, response.outcome, response.service);
    waiter.reply.send(response.bytes, waiter.client);
    response.service
}
