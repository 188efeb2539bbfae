//! The actor that owns all instance states of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::{error, info, warn};

use super::bring_up::BringUp;
use super::publish::{content, named};
use super::take_down::{Outcome, Patience, TakeDown};
use super::view::{InstanceReport, OperatorView, ProbeReport, TechnologyReport};
use super::{Action, Event, InstanceView, ServiceView, World, decide};
use crate::config::Config;
use crate::dns::Index;
use crate::driver::DriverEvent;
use crate::model::{
    Desired, Instance, InstanceId, InstanceState, Observed, ObservedService, ServiceName, ServiceSpec, Snapshot,
    Technology, Timestamp, WindowReport, in_full,
};
use crate::placement::lease::lease;
use crate::stop::{Stop, Stopper, stop};

/// What an operator of the machine asks of the running daemon.
#[derive(Debug)]
pub enum Command {
    /// Take this configuration from now on.
    Reload(Arc<Config>),
}

/// The operator's way to everybody else.
pub struct OperatorChannels {
    /// What is wanted.
    pub desired: watch::Receiver<Option<Arc<Desired>>>,
    /// What is.
    pub observed: watch::Sender<Arc<Observed>>,
    /// What is, for people.
    pub view: watch::Sender<Arc<OperatorView>>,
    /// What the daemon's own DNS answers from.
    pub index: watch::Sender<Arc<Index>>,
    /// Closed counting periods.
    pub windows: mpsc::Receiver<WindowReport>,
    /// Orders.
    pub commands: mpsc::Receiver<Command>,
}

/// After this time everything is looked at again, whether or not an event said so.
const AUDIT_INTERVAL: Duration = Duration::from_secs(30);
/// First and longest back-off between starts of a service whose instances do not come up.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Until a removal that failed is tried again.
const REMOVAL_RETRY: Duration = Duration::from_secs(5);
/// An address rests this long behind the largest TTL before another instance may get it.
const QUARANTINE_GRACE: Duration = Duration::from_secs(1);

/// One instance with what runs for it.
pub(super) struct Tracked {
    pub record: Instance,
    last_probe: Option<ProbeReport>,
    work: Work,
    /// Its process is known to have ended; nobody can be talking to it.
    pub dead: bool,
}

/// The task that runs for an instance, if any.
enum Work {
    None,
    Up {
        cancel: Stopper,
        task: JoinHandle<()>,
    },
    Down,
    /// A removal failed; not before this moment again.
    Retry(Instant),
}

/// Failures in a row of a service's starts.
#[derive(Debug, Default, Clone, Copy)]
struct BackOff {
    failures: u32,
    until: Timestamp,
}

/// The actor. [`Operator::run`] is its whole life.
pub struct Operator {
    pub(super) world: Arc<World>,
    pub(super) config: Arc<Config>,
    pub(super) instances: BTreeMap<InstanceId, Tracked>,
    technologies: BTreeMap<Technology, TechnologyReport>,
    back_off: BTreeMap<ServiceName, BackOff>,
    desired: Option<Arc<Desired>>,
    snapshot: Arc<Snapshot>,
    /// The kernel and the daemon's DNS hold `snapshot`.
    published: bool,
    window: Option<WindowReport>,
    revision: u64,
    settled: bool,
    next_id: u32,
    view: OperatorView,
    channels: OperatorChannels,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
}

impl Operator {
    /// An operator that has looked at nothing yet. `last` is the snapshot that the kernel's tables still
    /// answer from, so that a service does not become empty over a restart.
    #[must_use]
    pub fn new(world: Arc<World>, config: Arc<Config>, last: Snapshot, channels: OperatorChannels) -> Self {
        let (events, inbox) = mpsc::channel(256);
        Self {
            world,
            config,
            instances: BTreeMap::new(),
            technologies: BTreeMap::new(),
            back_off: BTreeMap::new(),
            desired: None,
            snapshot: Arc::new(last),
            published: false,
            window: None,
            revision: 0,
            settled: false,
            next_id: (Timestamp::now().0 as u32) ^ std::process::id().rotate_left(16),
            view: OperatorView::default(),
            channels,
            events,
            inbox,
        }
    }

    /// Adopts what runs, then serves events until `shutdown`. Instances and tables stay as
    /// they are at the end: they do not depend on this process.
    pub async fn run(mut self, mut shutdown: Stop) {
        self.check_technologies().await;
        self.adopt().await;
        self.settled = true;
        self.step();
        let mut audit = tokio::time::interval(AUDIT_INTERVAL);
        audit.reset();
        loop {
            let wake = self.next_wake();
            tokio::select! {
                () = shutdown.ordered() => break,
                changed = self.channels.desired.changed() => {
                    if changed.is_err() { break }
                    self.take_desired();
                }
                Some(event) = self.inbox.recv() => self.handle(event).await,
                Some(report) = self.channels.windows.recv() => self.handle(Event::Window(report)).await,
                Some(Command::Reload(config)) = self.channels.commands.recv() => self.config = config,
                _ = audit.tick() => self.audit().await,
                () = sleep_until(wake.into()) => {}
            }
            self.step();
        }
        info!("operator ends; instances and tables stay");
    }

    fn take_desired(&mut self) {
        let newest = self.channels.desired.borrow_and_update().clone();
        let newer = |d: &Arc<Desired>| self.desired.as_ref().is_none_or(|have| d.revision > have.revision);
        if let Some(desired) = newest.filter(newer)
            && desired.node == self.world.node
        {
            self.desired = Some(desired);
        }
    }

    /// Everything that follows from the state as it is now: actions, tables, documents.
    fn step(&mut self) {
        self.act();
        self.publish();
        self.take_down_unpublished();
        self.tell();
    }

    fn act(&mut self) {
        let now = Timestamp::now();
        for action in decide(&self.services_view(), self.config.limits, now) {
            match action {
                Action::Start(service) => self.start(&service, now),
                Action::Drain(id) => {
                    self.change(&id, InstanceState::Draining, "not wanted any more");
                }
            }
        }
    }

    fn services_view(&self) -> BTreeMap<ServiceName, ServiceView> {
        let mut views = BTreeMap::new();
        for spec in &self.config.services {
            views.insert(
                spec.name.clone(),
                ServiceView {
                    wanted: self.desired.as_ref().and_then(|d| d.services.get(&spec.name)).map(|d| d.replicas),
                    max: spec.max,
                    available: self.technologies.get(&spec.technology).is_some_and(|t| t.available),
                    not_before: self.back_off.get(&spec.name).map_or(Timestamp(0), |b| b.until),
                    instances: Vec::new(),
                },
            );
        }
        for tracked in self.instances.values() {
            let record = &tracked.record;
            let view = InstanceView { id: record.id.clone(), state: record.state, since: record.since };
            views.entry(record.service.clone()).or_default().instances.push(view);
        }
        views
    }

    fn spec(&self, service: &ServiceName) -> Option<&ServiceSpec> {
        self.config.services.iter().find(|s| s.name == *service)
    }

    fn start(&mut self, service: &ServiceName, now: Timestamp) {
        let Some(spec) = self.spec(service).cloned() else { return };
        let Some(addresses) = self.lease(spec.technology, now) else {
            warn!(%service, technology = spec.technology.label(), "no free address in the pool; not started");
            self.note_failure(service, now);
            return;
        };
        let id = self.new_id();
        let wanted = self.desired.as_ref().and_then(|d| d.services.get(service));
        let reason = wanted.map_or_else(String::new, |w| w.reason.clone());
        let record = Instance::new(id.clone(), service.clone(), spec.technology, addresses, now, &reason);
        let first = crate::model::Transition {
            instance: id.clone(),
            service: service.clone(),
            from: None,
            to: InstanceState::Requested,
            at: now,
            reason,
        };
        if !self.record(&record, first) {
            self.note_failure(service, now);
            return;
        }
        self.instances.insert(id.clone(), Tracked { record, last_probe: None, work: Work::None, dead: false });
        self.bring_up(&id, spec, false);
    }

    pub(super) fn bring_up(&mut self, id: &InstanceId, service: ServiceSpec, resume: bool) {
        let Some(tracked) = self.instances.get_mut(id) else { return };
        let Some(driver) = self.world.drivers.get(&tracked.record.technology).cloned() else { return };
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
        tracked.work = Work::Up { cancel, task: tokio::spawn(task.run()) };
    }

    fn lease(&self, technology: Technology, now: Timestamp) -> Option<crate::model::AddressPair> {
        let pool = self.config.pool(technology);
        let mut in_use: BTreeSet<IpAddr> = BTreeSet::new();
        let of_instances = self.instances.values().map(|t| t.record.addresses);
        let of_tables = self.snapshot.services.iter().flat_map(|s| s.backends.iter().map(|b| b.addresses));
        for pair in of_instances.chain(of_tables) {
            in_use.extend(pair.v4.map(IpAddr::from));
            in_use.extend(pair.v6.map(IpAddr::from));
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
    fn record(&mut self, record: &Instance, transition: crate::model::Transition) -> bool {
        let stored = tokio::task::block_in_place(|| self.world.store.record(record, &transition));
        match stored {
            Ok(_) => {
                info!(
                    instance = %transition.instance,
                    service = %transition.service,
                    from = transition.from.map(InstanceState::label),
                    to = transition.to.label(),
                    reason = transition.reason,
                    "instance"
                );
                self.view.note(transition);
                true
            }
            Err(error) => {
                error!(instance = %record.id, error = %in_full(&error), "a transition could not be stored");
                false
            }
        }
    }

    /// Moves an instance on. False where the change is not part of its life or could not be stored.
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
        if !self.record(&record, transition) {
            return false;
        }
        if let Some(tracked) = self.instances.get_mut(id) {
            tracked.record = record;
        }
        true
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Advanced { id, to, reason, handle } => self.advanced(&id, to, &reason, handle),
            Event::Probed { id, report } => {
                if let Some(tracked) = self.instances.get_mut(&id) {
                    tracked.last_probe = Some(report);
                }
            }
            Event::Failed { id, reason } => self.failed(&id, &reason),
            Event::TakenDown { id, outcome } => self.taken_down(&id, outcome),
            Event::Driver { technology, event } => self.driver_event(technology, event).await,
            Event::Window(report) => self.window = Some(report),
        }
    }

    fn advanced(&mut self, id: &InstanceId, to: InstanceState, reason: &str, handle: Option<String>) {
        let Some(tracked) = self.instances.get_mut(id) else { return };
        if handle.is_some() {
            tracked.record.handle = handle;
        }
        if tracked.record.state == to {
            return;
        }
        let requested_at = tracked.record.requested_at;
        if self.change(id, to, reason) && to == InstanceState::Ready {
            self.view.note_allocation(Timestamp::now().millis_since(requested_at) as f64);
            if let Some(tracked) = self.instances.get(id) {
                self.back_off.remove(&tracked.record.service);
            }
        }
    }

    fn failed(&mut self, id: &InstanceId, reason: &str) {
        let Some(tracked) = self.instances.get(id) else { return };
        let (service, state) = (tracked.record.service.clone(), tracked.record.state);
        if self.change(id, InstanceState::Failed, reason) {
            warn!(instance = %id, %service, reason, "instance failed");
            if state < InstanceState::Ready {
                self.note_failure(&service, Timestamp::now());
            }
        }
    }

    fn note_failure(&mut self, service: &ServiceName, now: Timestamp) {
        let back_off = self.back_off.entry(service.clone()).or_default();
        let wait = BACK_OFF.0.saturating_mul(1 << back_off.failures.min(10)).min(BACK_OFF.1);
        back_off.failures += 1;
        back_off.until = Timestamp(now.0 + wait.as_millis() as u64);
    }

    fn taken_down(&mut self, id: &InstanceId, outcome: Outcome) {
        match outcome {
            Outcome::Gone { removal_ms, reason } => {
                if self.retire(id, &reason) {
                    self.view.note_removal(removal_ms);
                } else if let Some(tracked) = self.instances.get_mut(id) {
                    tracked.work = Work::Retry(Instant::now() + REMOVAL_RETRY);
                }
            }
            Outcome::Failed(reason) => {
                warn!(instance = %id, reason, "could not be removed; tried again");
                if let Some(tracked) = self.instances.get_mut(id) {
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
        let rest = u64::from(record.largest_ttl_s) * 1000 + QUARANTINE_GRACE.as_millis() as u64;
        let until = Timestamp(now.0 + rest);
        match tokio::task::block_in_place(|| self.world.store.retire(&record, &transition, until)) {
            Ok(_) => {
                info!(instance = %id, service = %record.service, to = "stopped", reason, "instance");
                self.view.note(transition);
                self.instances.remove(id);
                true
            }
            Err(error) => {
                error!(instance = %id, error = %in_full(&error), "a stopped instance stays in the store");
                false
            }
        }
    }

    async fn driver_event(&mut self, technology: Technology, event: DriverEvent) {
        match event {
            DriverEvent::Exited { id, cause } => {
                let Some(tracked) = self.instances.get_mut(&id) else { return };
                // Our own stop makes the same event.
                if tracked.record.state.counts() {
                    tracked.dead = true;
                    self.failed(&id, &cause);
                }
            }
            DriverEvent::Lost => {
                warn!(technology = technology.label(), "the engine went away; its instances are kept in the tables");
                if let Some(report) = self.technologies.get_mut(&technology) {
                    report.available = false;
                    "the engine went away".clone_into(&mut report.detail);
                }
            }
            DriverEvent::Back => {
                info!(technology = technology.label(), "the engine is back");
                self.check_technologies().await;
                self.audit().await;
            }
        }
    }

    pub(super) async fn check_technologies(&mut self) {
        let first = self.technologies.is_empty();
        for (technology, driver) in &self.world.drivers {
            let report = match driver.check().await {
                Ok(detail) => {
                    info!(technology = technology.label(), detail, "available");
                    TechnologyReport { available: true, detail }
                }
                Err(error) => {
                    let detail = in_full(&error);
                    warn!(technology = technology.label(), detail, "off until it can be reached; everything else runs");
                    TechnologyReport { available: false, detail }
                }
            };
            self.technologies.insert(*technology, report);
            if first {
                let (driver, events, technology) = (Arc::clone(driver), self.events.clone(), *technology);
                tokio::spawn(async move {
                    let mut stream = driver.events();
                    while let Some(event) = stream.next().await {
                        if events.send(Event::Driver { technology, event }).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    }

    /// Makes tables and the daemon's DNS say what is so, if they do not yet.
    fn publish(&mut self) {
        let mut by_service: BTreeMap<ServiceName, Vec<&Instance>> = BTreeMap::new();
        for tracked in self.instances.values() {
            by_service.entry(tracked.record.service.clone()).or_default().push(&tracked.record);
        }
        let mut services = Vec::with_capacity(self.config.services.len());
        for spec in &self.config.services {
            match tokio::task::block_in_place(|| self.world.store.service_index(&spec.name)) {
                Ok(index) => services.push((spec, index)),
                Err(error) => {
                    error!(service = %spec.name, error = %in_full(&error), "no counter index; tables stay as they are");
                    return;
                }
            }
        }
        let made = content(&self.config.zones, services.into_iter(), &by_service, &self.snapshot);
        if made.last_good != self.view.last_good {
            for service in made.last_good.iter().filter(|s| !self.view.last_good.contains(s)) {
                warn!(%service, "nothing serves; its last good answers are kept");
                self.view.refused_empty += 1;
            }
            self.view.last_good.clone_from(&made.last_good);
        }
        if self.published && made.snapshot == *self.snapshot {
            return;
        }
        if let Err(error) = self.publish_snapshot(made.snapshot) {
            self.view.publish_failures += 1;
            error!(error, "not published; answers stay as they are");
            return;
        }
        self.mark_serving();
    }

    fn publish_snapshot(&mut self, mut snapshot: Snapshot) -> Result<(), String> {
        let begun = Instant::now();
        let next = tokio::task::block_in_place(|| self.world.store.next_generation());
        snapshot.generation = next.map_err(|e| in_full(&e))?;
        let index = Index::new(&snapshot).map_err(|e| in_full(&e))?;
        tokio::task::block_in_place(|| self.world.datapath.publish(&snapshot, &index, &self.config.listen))
            .map_err(|e| in_full(&e))?;
        if let Err(error) = tokio::task::block_in_place(|| self.world.store.put_snapshot(&snapshot)) {
            // Only a restart reads it back, and then the kernel's tables still answer.
            warn!(error = %in_full(&error), "the published tables could not be stored");
        }
        self.channels.index.send_replace(Arc::new(index));
        let backends: usize = snapshot.services.iter().map(|s| s.backends.len()).sum();
        info!(generation = snapshot.generation, backends, took = ?begun.elapsed(), "published");
        self.snapshot = Arc::new(snapshot);
        self.published = true;
        Ok(())
    }

    /// What the published tables name has been handed out from now on.
    fn mark_serving(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        for service in &snapshot.services {
            for backend in &service.backends {
                let Some(tracked) = self.instances.get_mut(&backend.instance) else { continue };
                tracked.record.largest_ttl_s = tracked.record.largest_ttl_s.max(service.ttl_s);
                if tracked.record.state == InstanceState::Ready {
                    self.change(&backend.instance, InstanceState::Serving, "in the tables");
                }
            }
        }
    }

    /// Starts the way down of what is out of the tables now, or was never in.
    fn take_down_unpublished(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        let in_tables = named(&snapshot);
        let ids: Vec<InstanceId> = self
            .instances
            .values()
            .filter(|t| matches!(t.record.state, InstanceState::Draining | InstanceState::Failed))
            // The dead are cleaned up even while they are the last good answer.
            .filter(|t| t.dead || !in_tables.contains(&t.record.id))
            .filter(|t| match &t.work {
                Work::None | Work::Up { .. } => true,
                Work::Down => false,
                Work::Retry(at) => *at <= Instant::now(),
            })
            .map(|t| t.record.id.clone())
            .collect();
        for id in ids {
            self.take_down(&id);
        }
    }

    fn take_down(&mut self, id: &InstanceId) {
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
        let spec = self.config.services.iter().find(|s| s.name == record.service);
        let was_published = record.largest_ttl_s > 0;
        let patience = (was_published && !tracked.dead).then(|| Patience {
            ttl: Duration::from_secs(u64::from(record.largest_ttl_s)),
            quiet: spec.map_or(Duration::from_secs(2), |s| s.drain_quiet),
            deadline: spec.map_or(Duration::from_secs(300), |s| s.drain_deadline),
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

    /// The next moment at which something is due that no event announces.
    fn next_wake(&self) -> Instant {
        let now = Timestamp::now();
        let far = Instant::now() + AUDIT_INTERVAL;
        let back_offs = self.back_off.values().filter(|b| b.until > now);
        let starts = back_offs.map(|b| Instant::now() + Duration::from_millis(b.until.millis_since(now)));
        let retries = self.instances.values().filter_map(|t| match t.work {
            Work::Retry(at) => Some(at),
            _ => None,
        });
        starts.chain(retries).min().unwrap_or(far).min(far)
    }

    fn tell(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        self.view.generation = snapshot.generation;
        self.view.technologies.clone_from(&self.technologies);
        let shares = shares(&snapshot);
        self.view.instances = self
            .instances
            .iter()
            .map(|(id, tracked)| {
                let share = shares.get(id).copied();
                let report = InstanceReport {
                    instance: tracked.record.clone(),
                    last_probe: tracked.last_probe.clone(),
                    published: share.is_some(),
                    share: share.unwrap_or(0.0),
                };
                (id.clone(), report)
            })
            .collect();
        self.channels.view.send_replace(Arc::new(self.view.clone()));

        self.revision += 1;
        let mut services: BTreeMap<ServiceName, ObservedService> = BTreeMap::new();
        for spec in &self.config.services {
            let available = self.technologies.get(&spec.technology).is_some_and(|t| t.available);
            services.insert(spec.name.clone(), ObservedService { instances: Vec::new(), available });
        }
        for tracked in self.instances.values() {
            let entry = services.entry(tracked.record.service.clone()).or_default();
            entry.instances.push(tracked.record.clone());
        }
        let observed = Observed {
            revision: self.revision,
            node: self.world.node.clone(),
            at: Timestamp::now(),
            desired_revision: self.desired.as_ref().map_or(0, |d| d.revision),
            services,
            window: self.window.clone(),
            generation: snapshot.generation,
            settled: self.settled,
        };
        self.channels.observed.send_replace(Arc::new(observed));
    }

    pub(super) fn track(&mut self, record: Instance, dead: bool) {
        let id = record.id.clone();
        self.instances.insert(id, Tracked { record, last_probe: None, work: Work::None, dead });
    }
}

/// Each backend's share of its service's answers.
fn shares(snapshot: &Snapshot) -> BTreeMap<InstanceId, f64> {
    let mut shares = BTreeMap::new();
    for service in &snapshot.services {
        let total: f64 = service.backends.iter().map(|b| f64::from(b.weight)).sum();
        for backend in &service.backends {
            shares.insert(backend.instance.clone(), f64::from(backend.weight) / total.max(1.0));
        }
    }
    shares
}
