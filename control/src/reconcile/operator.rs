//! The actor that owns all instance states of this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::{info, warn};

use super::back_off::BackOff;
use super::hold::{HoldError, Rollback, RolledBack};
use super::idle::Awake;
use super::late::Late;
use super::prepare::Preparing;
use super::resize::Given;
use super::served::Serving;
use super::short_ttl::{Named, Shortening};
use super::view::{DrainReport, OperatorView, ProbeReport, TechnologyReport};
use super::weights::{self, Weighing};
use super::{Action, Event, World, decide};
use crate::config::Config;
use crate::dns::Index;
use crate::driver::DriverEvent;
use crate::model::{
    ColdServices, Desired, Hold, Instance, InstanceId, InstanceState, NetPlan, Observed, Orders, Served, ServiceName,
    Snapshot, SummonOrder, Technology, Timestamp, Transition, Weights, WindowReport, in_full,
};
use crate::netlink::NetError;
use crate::stop::{Stop, Stopper};

/// What an operator of the machine asks of the running daemon.
#[derive(Debug)]
pub enum Command {
    /// Take this configuration from now on.
    Reload(Arc<Config>),
    /// Put an earlier table in force and hold it.
    RollBack(Rollback, oneshot::Sender<Result<RolledBack, HoldError>>),
    /// Make the kernel's networks as they are declared, all or nothing.
    Networks(oneshot::Sender<Result<NetPlan, NetError>>),
    /// End the hold: who asks, and the way to say which generation is in force then.
    Release(String, oneshot::Sender<Result<u64, HoldError>>),
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
    /// Orders of the daemon's DNS: queries have come for services at zero.
    pub summons: mpsc::Receiver<SummonOrder>,
    /// Which services are cold, for the daemon's DNS.
    pub cold: watch::Sender<Arc<ColdServices>>,
}

/// After this time everything is looked at again, whether or not an event said so.
const AUDIT_INTERVAL: Duration = Duration::from_secs(30);

/// Until what could not be written to the store is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// One instance with what runs for it.
pub(super) struct Tracked {
    pub record: Instance,
    pub last_probe: Option<ProbeReport>,
    pub drain: Option<DrainReport>,
    /// Why it is out of the answers though it serves: what its probes say.
    pub unwell: Option<String>,
    /// Why its removal failed last.
    pub problem: Option<String>,
    /// What its share of the answers follows, where that is its load.
    pub weighing: Weighing,
    /// How long answers that name it can still be used.
    pub named: Named,
    pub work: Work,
    /// Its process is known to have ended; nobody can be talking to it.
    pub dead: bool,
    /// The limits that it was given, where it is known.
    pub given: Option<Given>,
    /// What was observed of it and could not be stored yet. It is not acted on before it is.
    pub unstored: Vec<Transition>,
}

impl Tracked {
    /// It is being removed, or cannot answer anyone any more.
    pub(super) const fn is_leaving(&self) -> bool {
        self.dead || matches!(self.work, Work::Down | Work::Retry(_))
    }
}

/// The task that runs for an instance, if any.
pub(super) enum Work {
    None,
    Up {
        cancel: Stopper,
        task: JoinHandle<()>,
    },
    Down,
    /// A removal failed; not before this moment again.
    Retry(Instant),
}

/// The actor. [`Operator::run`] is its whole life.
pub struct Operator {
    pub(super) world: Arc<World>,
    pub(super) config: Arc<Config>,
    pub(super) instances: BTreeMap<InstanceId, Tracked>,
    pub(super) technologies: BTreeMap<Technology, TechnologyReport>,
    /// What they prepare.
    pub(super) preparing: BTreeMap<Technology, Preparing>,
    pub(super) back_off: BackOff,
    /// Services that are kept up by use alone, as long as they are used.
    pub(super) awake: BTreeMap<ServiceName, Awake>,
    /// Services whose answers live shorter ahead of a removal, where they are configured to.
    pub(super) shortenings: BTreeMap<ServiceName, Shortening>,
    /// Instances whose late clients are forwarded.
    pub(super) late: Late,
    /// That the store does not take them was said.
    pub(super) late_not_kept: bool,
    pub(super) desired: Option<Arc<Desired>>,
    pub(super) orders: watch::Receiver<Arc<Orders>>,
    pub(super) snapshot: Arc<Snapshot>,
    /// A content that could not be published; not tried again before something changes or the next audit.
    pub(super) refused: Option<Snapshot>,
    /// An operator of the machine wants `snapshot` to stay in force.
    pub(super) hold: Option<Hold>,
    /// Why `snapshot` could not be stored, if it could not.
    pub(super) not_kept: Option<String>,
    /// The kernel and the daemon's DNS hold `snapshot`.
    pub(super) published: bool,
    pub(super) window: Option<WindowReport>,
    /// Who served in it, and how that went in the whole of it.
    pub(super) serving: Serving,
    pub(super) served: BTreeMap<ServiceName, Served>,
    /// What the window after it has come to.
    pub(super) running_window: Option<WindowReport>,
    pub(super) revision: u64,
    pub(super) settled: bool,
    /// The pool had no free address at the last try; said once.
    pub(super) pool_full: bool,
    pub(super) next_id: u32,
    pub(super) view: OperatorView,
    pub(super) channels: OperatorChannels,
    pub(super) events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
}

impl Operator {
    /// An operator that has looked at nothing yet. `last` is the snapshot that the kernel's tables still
    /// answer from, so that a service does not become empty over a restart; `hold`, where it shall stay so.
    #[must_use]
    pub fn new(
        world: Arc<World>,
        config: Arc<Config>,
        last: Snapshot,
        hold: Option<Hold>,
        channels: OperatorChannels,
    ) -> Self {
        let (events, inbox) = mpsc::channel(256);
        let orders = world.orders.watch();
        Self {
            world,
            config,
            instances: BTreeMap::new(),
            technologies: BTreeMap::new(),
            preparing: BTreeMap::new(),
            back_off: BackOff::default(),
            awake: BTreeMap::new(),
            shortenings: BTreeMap::new(),
            late: Late::default(),
            late_not_kept: false,
            desired: None,
            orders,
            snapshot: Arc::new(last),
            refused: None,
            hold,
            not_kept: None,
            published: false,
            window: None,
            serving: Serving::default(),
            served: BTreeMap::new(),
            running_window: None,
            revision: 0,
            settled: false,
            pool_full: false,
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
        if let Some(hold) = &self.hold {
            warn!(of = hold.of, by = hold.by, "tables are still held; selvedge table release ends that");
        }
        self.check_technologies().await;
        self.adopt().await;
        self.wake_running();
        self.prefetch();
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
                // The book is the world's, so its end is never met before ours.
                Ok(()) = self.orders.changed() => {}
                Some(event) = self.inbox.recv() => self.handle(event).await,
                Some(report) = self.channels.windows.recv() => self.handle(Event::Window(report)).await,
                Some(order) = self.channels.summons.recv() => self.summoned(order),
                Some(command) = self.channels.commands.recv() => self.obey(command),
                _ = audit.tick() => {
                    self.refused = None;
                    if self.settled { self.audit().await } else { self.adopt().await }
                    self.resize_refused();
                    self.prepare_all_again();
                }
                () = sleep_until(wake.into()) => {}
            }
            self.look_for_idle();
            self.step();
        }
        info!("operator ends; instances and tables stay");
    }

    fn obey(&mut self, command: Command) {
        // Who does not wait for the outcome any more has gone away; it holds all the same.
        match command {
            Command::Reload(config) => {
                self.config = config;
                self.reshape();
                self.prefetch();
            }
            Command::Networks(reply) => {
                let world = Arc::clone(&self.world);
                tokio::spawn(async move { reply.send(world.net.redeclare().await) });
            }
            Command::RollBack(order, reply) => drop(reply.send(self.roll_back(order))),
            Command::Release(by, reply) => drop(reply.send(self.release(&by))),
        }
    }

    /// Gives running instances the rates that their services have now.
    fn reshape(&self) {
        let shaping = |tracked: &Tracked| {
            let service = self.config.service(&tracked.record.service)?;
            Some((tracked.record.id.clone(), service.shaping))
        };
        self.world.net.reshape(&self.instances.values().filter_map(shaping).collect());
    }

    pub(super) fn take_desired(&mut self) {
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
        self.store_late();
        self.act();
        self.resize();
        self.prepare();
        self.shorten_ttls();
        self.publish();
        self.take_down_unpublished();
        self.forward_late();
        self.tell();
        self.tell_cold();
    }

    fn act(&mut self) {
        for action in decide(&self.services_view(), self.config.limits) {
            match action {
                Action::Start(service) => self.start(&service),
                Action::Drain(id) => {
                    let ordered = self.orders.borrow().instances.get(&id).map(|order| order.giver());
                    let reason = ordered.unwrap_or_else(|| "not wanted any more".to_owned());
                    self.change(&id, InstanceState::Draining, &reason);
                }
            }
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Advanced { id, to, reason, handle } => self.advanced(&id, to, &reason, handle),
            Event::Probed { id, report } => {
                if let Some(tracked) = self.instances.get_mut(&id) {
                    if let Some(service) = self.config.service(&tracked.record.service) {
                        tracked.weighing.probed(report.took_ms, &service.probing);
                    }
                    tracked.last_probe = Some(report);
                }
            }
            Event::Draining { id, report } => {
                if let Some(tracked) = self.instances.get_mut(&id) {
                    tracked.drain = Some(report);
                }
            }
            Event::Unwell { id, why } => self.unwell(&id, why),
            Event::Failed { id, reason } => self.failed(&id, &reason),
            Event::TakenDown { id, outcome } => self.taken_down(&id, outcome),
            Event::Resized { id, outcome } => self.resized(&id, outcome),
            Event::Prepared { technology, outcome } => self.prepared(technology, outcome),
            Event::Driver { technology, event } => self.driver_event(technology, event).await,
            Event::Window(report) if report.closed => {
                let took_ms = |id: &InstanceId| self.instances.get(id).and_then(|t| t.weighing.median_ms());
                self.served = self.serving.close(report.sequence, &self.snapshot, took_ms);
                self.window = Some(report);
                self.running_window = None;
                self.weigh();
            }
            Event::Window(report) => self.running_window = Some(report),
        }
    }

    /// Closes a window of the weights that follow the load.
    fn weigh(&mut self) {
        let config = Arc::clone(&self.config);
        let by_load = |s: &ServiceName| config.service(s).is_some_and(|spec| spec.weights == Weights::Load);
        let mut services: BTreeMap<&ServiceName, Vec<&mut Weighing>> = BTreeMap::new();
        for tracked in self.instances.values_mut() {
            let service = &tracked.record.service;
            if !by_load(service) {
                tracked.weighing = Weighing::new(None);
            } else if tracked.record.state == InstanceState::Serving && tracked.unwell.is_none() {
                services.entry(service).or_default().push(&mut tracked.weighing);
            } else {
                tracked.weighing.pass();
            }
        }
        services.values_mut().for_each(|instances| weights::close(instances));
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
            // One that was away from the start has been told with the cause.
            DriverEvent::Lost => {
                if let Some(report) = self.technologies.get_mut(&technology).filter(|r| r.available) {
                    warn!(
                        technology = technology.label(),
                        "the engine went away; its instances are kept in the tables"
                    );
                    report.available = false;
                    "the engine went away".clone_into(&mut report.detail);
                }
            }
            DriverEvent::Back => {
                info!(technology = technology.label(), "the engine is back");
                self.check_technologies().await;
                if self.settled {
                    self.audit().await;
                }
                self.resize_refused();
                self.prepare_again(technology);
            }
            DriverEvent::Unprepared => self.prepare_again(technology),
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

    /// The next moment at which something is due that no event announces.
    fn next_wake(&self) -> Instant {
        let far = Instant::now() + AUDIT_INTERVAL;
        let starts = self.back_off.ends();
        let retries = self.instances.values().filter_map(|t| match t.work {
            // One that is due but may not go yet waits for an event, not for a moment.
            Work::Retry(at) => (at > Instant::now()).then_some(at),
            _ => None,
        });
        let late = self.instances.values().any(|t| !t.unstored.is_empty());
        let stores = late.then(|| Instant::now() + STORE_RETRY);
        let summoned = self.next_look().chain(self.next_proof());
        let forwards = self.next_forward_end().map(|wait| Instant::now() + wait);
        starts.chain(retries).chain(stores).chain(summoned).chain(forwards).min().unwrap_or(far).min(far)
    }
}
