//! Instances' states: started, moved on, taken down, retired. The only place that changes them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::bring_up::BringUp;
use super::drain::Patience;
use super::late::{self, after};
use super::operator::{Tracked, Work};
use super::publish::named;
use super::resize::Given;
use super::short_ttl::Named;
use super::take_down::{Outcome, TakeDown};
use super::weights::Weighing;
use super::{Operator, QUARANTINE_GRACE};
use crate::dns::Stage;
use crate::model::{
    AddressPair, AtDeadline, Drain, Instance, InstanceId, InstanceState, LateClients, ServiceName, ServiceSpec,
    Technology, Timestamp, Transition, in_full,
};
use crate::placement::lease::lease;
use crate::stop::stop;

/// Until a removal that failed is tried again.
const REMOVAL_RETRY: Duration = Duration::from_secs(5);
/// An instance that ends sooner than this after its start to serve counts as one that did not come up: an image
/// that answers once and exits must not be started without end.
const SETTLED: Duration = Duration::from_secs(30);

impl Operator {
    /// Takes an instance in, from its start or from the store.
    pub(super) fn track(&mut self, record: Instance, dead: bool) {
        let id = record.id.clone();
        let mut published = self.snapshot.services.iter().flat_map(|service| &service.backends);
        let published = published.find(|backend| backend.instance == id).map(|backend| backend.weight);
        let named = Named::new(record.largest_ttl_s);
        let tracked = Tracked {
            record,
            last_probe: None,
            drain: None,
            unwell: None,
            problem: None,
            weighing: Weighing::new(published),
            named,
            work: Work::None,
            dead,
            given: None,
            unstored: Vec::new(),
        };
        self.instances.insert(id, tracked);
    }

    pub(super) fn start(&mut self, service: &ServiceName) {
        let Some(spec) = self.config.service(service).cloned() else { return };
        let now = Timestamp::now();
        let Some(addresses) = self.lease(spec.technology, now) else {
            if !self.pool_full {
                let technology = spec.technology.label();
                warn!(%service, technology, "no free address in the pool; started when one has rested");
                self.pool_full = true;
            }
            self.back_off.pause(service);
            return;
        };
        self.pool_full = false;
        let id = self.new_id();
        let wanted = self.desired.as_ref().and_then(|d| d.services.get(service));
        let planned = wanted.filter(|w| w.replicas > 0).map(|w| w.reason.clone());
        let reason = planned.unwrap_or_else(|| self.why_awake(service).to_owned());
        let record = Instance::new(id.clone(), service.clone(), spec.technology, addresses, now, &reason);
        let first = Transition {
            instance: id.clone(),
            service: service.clone(),
            from: None,
            to: InstanceState::Requested,
            at: now,
            reason,
        };
        if !self.record(&record, first) {
            // No fault of the service.
            self.back_off.pause(service);
            return;
        }
        self.reached(service, Stage::Stored);
        self.track(record, false);
        self.bring_up(&id, spec, false);
    }

    pub(super) fn bring_up(&mut self, id: &InstanceId, service: ServiceSpec, resume: bool) {
        let Some(tracked) = self.instances.get_mut(id) else { return };
        let Some(driver) = self.world.drivers.get(&tracked.record.technology).cloned() else { return };
        // Whether an adopted one has these limits is not known.
        tracked.given = (!resume).then(|| Given::at_start(&service));
        let (cancel, cancelled) = stop();
        let task = BringUp {
            world: Arc::clone(&self.world),
            driver,
            service,
            instance: tracked.record.clone(),
            events: self.events.clone(),
            cancelled,
            resume,
        };
        let technology = tracked.record.technology;
        tracked.work = Work::Up { cancel, task: tokio::spawn(task.run()) };
        // It may be made of one that was prepared.
        self.prepare_again(technology);
    }

    fn lease(&self, technology: Technology, now: Timestamp) -> Option<AddressPair> {
        let pool = self.config.pool(technology);
        let mut in_use: BTreeSet<IpAddr> = BTreeSet::new();
        let of_instances = self.instances.values().map(|t| t.record.addresses);
        let of_tables = self.snapshot.services.iter().flat_map(|s| s.backends.iter().map(|b| b.addresses));
        for pair in of_instances.chain(of_tables) {
            in_use.extend(pair.iter());
        }
        match tokio::task::block_in_place(|| self.world.store.quarantined(now)) {
            Ok(resting) => lease(pool.v4, pool.v6, pool.gateway, &in_use, &resting),
            Err(error) => {
                error!(error = %in_full(&error), "addresses at rest are not known; nothing is leased");
                None
            }
        }
    }

    fn new_id(&mut self) -> InstanceId {
        loop {
            self.next_id = self.next_id.wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15);
            let id = InstanceId::from_number(self.next_id);
            if !self.instances.contains_key(&id) {
                return id;
            }
        }
    }

    /// Stores a record with its transition; false where that failed, and then nothing may follow from it.
    fn record(&mut self, record: &Instance, transition: Transition) -> bool {
        // To a restart a start that was interrupted is the same at whatever step.
        let passing = matches!(transition.to, InstanceState::Fetching | InstanceState::Starting | InstanceState::Ready);
        let store = &self.world.store;
        let stored = tokio::task::block_in_place(|| match passing {
            true => store.note(record, &transition),
            false => store.record(record, &transition),
        });
        match stored {
            Ok(_) => {
                tell(&transition);
                self.view.note(transition);
                true
            }
            Err(error) => {
                error!(instance = %record.id, error = %in_full(&error), "a transition could not be stored");
                false
            }
        }
    }

    /// Moves an instance on. False where the change is not part of its life, or is a decision that could not be stored.
    /// What is observed is so, stored or not; nothing is started or stopped for it before it is stored.
    pub(super) fn change(&mut self, id: &InstanceId, to: InstanceState, reason: &str) -> bool {
        let Some(tracked) = self.instances.get(id) else { return false };
        let mut record = tracked.record.clone();
        let transition = match record.advance(to, Timestamp::now(), reason) {
            Ok(transition) => transition,
            Err(error) => {
                // A message that was under way when the state changed for another reason.
                info!(error = %error, "late change ignored");
                return false;
            }
        };
        let mut due = tracked.unstored.clone();
        due.push(transition.clone());
        let stored = tokio::task::block_in_place(|| self.world.store.record_all(&record, &due));
        if let Err(error) = &stored {
            error!(instance = %id, to = to.label(), error = %in_full(error), "a transition could not be stored");
            if to == InstanceState::Draining {
                return false;
            }
        }
        tell(&transition);
        self.view.note(transition);
        if let Some(tracked) = self.instances.get_mut(id) {
            tracked.record = record;
            tracked.unstored = if stored.is_ok() { Vec::new() } else { due };
        }
        true
    }

    /// Tries again to write what could not be written.
    pub(super) fn store_late(&mut self) {
        for tracked in self.instances.values_mut().filter(|t| !t.unstored.is_empty()) {
            let Tracked { record, unstored, .. } = tracked;
            if tokio::task::block_in_place(|| self.world.store.record_all(record, unstored)).is_err() {
                // Said already; the others would meet the same.
                return;
            }
            info!(instance = %record.id, "its transitions are stored now");
            unstored.clear();
        }
    }

    /// Writes that answers may name it for `ttl_s` seconds, before the first does: whoever finds its record later knows
    /// how long clients may know it. False where that could not be stored.
    pub(super) fn note_named(&mut self, id: &InstanceId, ttl_s: u32) -> bool {
        let Some(tracked) = self.instances.get_mut(id) else { return false };
        if tracked.record.largest_ttl_s >= ttl_s {
            return true;
        }
        let record = Instance { largest_ttl_s: ttl_s, ..tracked.record.clone() };
        match tokio::task::block_in_place(|| self.world.store.record_all(&record, &tracked.unstored)) {
            Ok(()) => {
                tracked.record = record;
                tracked.unstored.clear();
                true
            }
            Err(error) => {
                error!(instance = %id, error = %in_full(&error), "it cannot be stored that it is answered; it is not yet");
                false
            }
        }
    }

    pub(super) fn advanced(&mut self, id: &InstanceId, to: InstanceState, reason: &str, handle: Option<String>) {
        let Some(tracked) = self.instances.get_mut(id) else { return };
        if handle.is_some() {
            tracked.record.handle = handle;
        }
        if tracked.record.state == to {
            // How far it is in this state; nothing to remember over a restart.
            reason.clone_into(&mut tracked.record.reason);
            return;
        }
        let requested_at = tracked.record.requested_at;
        if self.change(id, to, reason) && to == InstanceState::Ready {
            self.view.note_allocation(Timestamp::now().millis_since(requested_at) as f64);
        }
    }

    /// Takes an instance out of the answers, or back in.
    pub(super) fn unwell(&mut self, id: &InstanceId, why: Option<String>) {
        let Some(tracked) = self.instances.get_mut(id) else { return };
        let service = &tracked.record.service;
        match &why {
            Some(why) => warn!(instance = %id, %service, why, "out of the answers"),
            None => info!(instance = %id, %service, "back in the answers"),
        }
        tracked.unwell = why;
    }

    pub(super) fn failed(&mut self, id: &InstanceId, reason: &str) {
        let Some(tracked) = self.instances.get(id) else { return };
        let record = &tracked.record;
        let service = record.service.clone();
        let age = Duration::from_millis(Timestamp::now().millis_since(record.since));
        let settled = record.state >= InstanceState::Ready && age >= SETTLED;
        if self.change(id, InstanceState::Failed, reason) {
            if settled {
                self.back_off.succeeded(&service);
            } else {
                self.back_off.failed(&service);
            }
        }
    }

    pub(super) fn taken_down(&mut self, id: &InstanceId, outcome: Outcome) {
        match outcome {
            Outcome::Gone { removal_ms, reason } => {
                if self.retire(id, &reason) {
                    self.view.note_removal(removal_ms);
                } else if let Some(tracked) = self.instances.get_mut(id) {
                    tracked.work = Work::Retry(Instant::now() + REMOVAL_RETRY);
                }
            }
            Outcome::Failed(reason) => {
                if let Some(tracked) = self.instances.get_mut(id) {
                    if tracked.problem.as_ref() != Some(&reason) {
                        warn!(instance = %id, reason, "could not be removed; tried again until it is gone");
                        tracked.problem = Some(reason);
                    }
                    tracked.work = Work::Retry(Instant::now() + REMOVAL_RETRY);
                }
            }
        }
    }

    /// Ends an instance's record; its addresses rest until nobody can hold an answer that names them.
    fn retire(&mut self, id: &InstanceId, reason: &str) -> bool {
        let Some(tracked) = self.instances.get(id) else { return false };
        let mut record = tracked.record.clone();
        let now = Timestamp::now();
        let transition = match record.advance(InstanceState::Stopped, now, reason) {
            Ok(transition) => transition,
            Err(error) => {
                error!(%error, "not retired");
                return false;
            }
        };
        let rest = Duration::from_secs(record.largest_ttl_s.into()) + QUARANTINE_GRACE;
        // Of one that no answer ever named nobody can be late.
        let forward = self.forwards_late(&record).filter(|_| record.largest_ttl_s > 0);
        if let Some(forward) = forward {
            self.late.add(&record, Some(after(now, forward)));
            self.keep_late();
        }
        // The kernel's rules are gone before another instance has the address.
        let until = after(now, rest.max(forward.map_or(Duration::ZERO, |forward| forward + QUARANTINE_GRACE)));
        match tokio::task::block_in_place(|| self.world.store.retire(&record, &transition, until)) {
            Ok(_) => {
                tell(&transition);
                self.view.note(transition);
                self.instances.remove(id);
                self.world.orders.forget(id);
                true
            }
            Err(error) => {
                error!(instance = %id, error = %in_full(&error), "a stopped instance stays in the store");
                false
            }
        }
    }

    /// Starts the way down of what is out of the tables now, or was never in.
    pub(super) fn take_down_unpublished(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        let in_tables = named(&snapshot);
        let orders = Arc::clone(&self.orders.borrow());
        let removed = |id: &InstanceId| orders.instances.get(id).is_some_and(|order| order.what == Drain::Remove);
        let full = self.instances.len() >= self.config.limits.instances as usize;
        let ids: Vec<InstanceId> = self
            .instances
            .values()
            .filter(|t| matches!(t.record.state, InstanceState::Draining | InstanceState::Failed))
            // The dead are cleaned up even while they are the last good answer, and so are the failed where
            // they take the room that their replacement needs; not where a held table keeps the replacement out.
            .filter(|t| {
                let in_the_way = full && self.hold.is_none() && t.record.state == InstanceState::Failed;
                t.dead || removed(&t.record.id) || in_the_way || !in_tables.contains(&t.record.id)
            })
            // What is not stored is not acted on.
            .filter(|t| t.unstored.is_empty())
            .filter(|t| match &t.work {
                Work::None | Work::Up { .. } => true,
                Work::Down => false,
                Work::Retry(at) => *at <= Instant::now(),
            })
            .map(|t| t.record.id.clone())
            .collect();
        for id in ids {
            self.take_down(&id, removed(&id));
        }
    }

    /// `at_once`: whoever is talking to it.
    fn take_down(&mut self, id: &InstanceId, at_once: bool) {
        let Some(tracked) = self.instances.get_mut(id) else { return };
        let record = &tracked.record;
        let Some(driver) = self.world.drivers.get(&record.technology).cloned() else { return };
        let after = match std::mem::replace(&mut tracked.work, Work::Down) {
            Work::Up { cancel, task } => {
                cancel.stop();
                Some(task)
            }
            Work::None | Work::Down | Work::Retry(_) => None,
        };
        let spec = self.config.service(&record.service);
        let was_published = record.largest_ttl_s > 0;
        let patience = (was_published && !tracked.dead && !at_once).then(|| Patience {
            // Never more than the largest, whatever the order of publishing.
            ttl: tracked.named.left(Instant::now()).min(Duration::from_secs(u64::from(record.largest_ttl_s))),
            quiet: spec.map_or(Duration::from_secs(2), |s| match s.drain_late {
                LateClients::Forward => s.drain_quiet.max(late::SETTLED),
                LateClients::Cut | LateClients::Keep => s.drain_quiet,
            }),
            deadline: spec.map_or(Duration::from_secs(300), |s| s.drain_deadline),
            at_deadline: spec.map_or(AtDeadline::Cut, |s| s.drain_at_deadline),
            late: spec.map_or(LateClients::Cut, |s| s.drain_late),
        });
        let task = TakeDown {
            world: Arc::clone(&self.world),
            driver,
            instance: record.clone(),
            events: self.events.clone(),
            patience,
            after,
        };
        tokio::spawn(task.run());
    }
}

/// One log line per change of state.
fn tell(change: &Transition) {
    let (instance, service, reason) = (&change.instance, &change.service, &change.reason);
    let (from, to) = (change.from.map(InstanceState::label), change.to.label());
    if change.to == InstanceState::Failed {
        warn!(%instance, %service, from, to, reason, "instance");
    } else {
        info!(%instance, %service, from, to, reason, "instance");
    }
}
