//! The orchestrator half: window reports → each service's brain (predict, plan) → place → [`Desired`].
//!
//! Reads [`Observed`], writes [`Desired`], and touches nothing else of the node.

mod brain;
mod record;
mod room;
mod starts;
mod surge;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use autoscale::plan::Decision;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{Config, Mode};
use crate::model::{
    Demand, Desired, DesiredService, Forecast, NodeName, Observed, Order, Orders, Override, ServiceName, ServiceSpec,
    WindowReport,
};
use crate::placement::{NodeView, Want, place};
use crate::stop::Stop;
use crate::store::Store;

use brain::{Brain, Situation};
pub use record::{BoundRecord, Capacity, DecisionRecord, Fitness, Outcome, WindowRecord};
use room::Room;

/// Windows kept for the status.
const HISTORY: usize = 240;
/// Share of a window that estimation may take, of all services together, and the most of it. What is begun is ended.
const FIT_SHARE: u32 = 20;
const MOST_FITTING: Duration = Duration::from_millis(500);
/// Services whose states are stored after one window; the others' turn is later.
const STORED_AT_ONCE: usize = 16;

/// One service as the orchestrator sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceOutlook {
    /// Wanted instances.
    pub wanted: u32,
    /// What the machine's operator has ordered instead, if anything.
    pub ordered: Option<Order<Override>>,
    /// What the plan gave last, if there was one, also before a restart; not what was ordered instead.
    #[serde(skip)]
    pub planned: Option<u32>,
    /// Forecast of the running window.
    pub forecast: Option<Forecast>,
    /// The last decision in a sentence.
    pub decision: String,
    /// Newest decisions with all that they rest on, oldest first; of several alike the newest.
    pub decisions: VecDeque<DecisionRecord>,
    /// Decisions since the daemon started, by what they rest on and by the bounds that changed them.
    pub counts: BTreeMap<String, u64>,
    /// How the forecasts fare.
    pub fitness: Fitness,
    /// How the forecast comes about.
    pub model: String,
    /// Newest windows, oldest first.
    pub history: VecDeque<WindowRecord>,
}

/// The orchestrator, as it stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OrchestratorView {
    /// Revision of the newest [`Desired`].
    pub revision: u64,
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceOutlook>,
}

/// The orchestrator. [`Orchestrator::run`] is its whole life.
pub struct Orchestrator {
    node: NodeName,
    store: Arc<Store>,
    orders: watch::Receiver<Arc<Orders>>,
    brains: BTreeMap<ServiceName, Brain>,
    /// Whose parameters were estimated last, and whose state was stored last: the next one's turn is next.
    fitted: Option<ServiceName>,
    kept: Option<ServiceName>,
    /// States of models from before the restart, until their service is first seen.
    stored: BTreeMap<ServiceName, serde_json::Value>,
    view: OrchestratorView,
    desired: watch::Sender<Option<Arc<Desired>>>,
    shown: watch::Sender<Arc<OrchestratorView>>,
    /// Wanted instances that found no place, as they were told last.
    unplaced: BTreeMap<ServiceName, u32>,
    /// Number of the last window that was taken in, and how much of the one behind it was looked at.
    last_window: u64,
    looked_ms: u64,
    /// A plan for this configuration and these orders was made.
    planned: bool,
}

impl Orchestrator {
    /// An orchestrator for `node` that has seen nothing; revisions go on from the stored document.
    #[must_use]
    pub fn new(
        node: NodeName,
        store: Arc<Store>,
        orders: watch::Receiver<Arc<Orders>>,
        desired: watch::Sender<Option<Arc<Desired>>>,
        shown: watch::Sender<Arc<OrchestratorView>>,
    ) -> Self {
        let mut view = OrchestratorView::default();
        match tokio::task::block_in_place(|| store.desired(&node)) {
            Ok(Some(last)) => {
                view.revision = last.revision;
                for (service, wanted) in last.services {
                    let outlook = ServiceOutlook {
                        wanted: wanted.replicas,
                        planned: Some(wanted.replicas),
                        ..ServiceOutlook::default()
                    };
                    view.services.insert(service, outlook);
                }
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "the last plan cannot be read; planned afresh"),
        }
        let stored = tokio::task::block_in_place(|| store.predictors()).unwrap_or_else(|error| {
            warn!(%error, "the models' states cannot be read; they start afresh");
            BTreeMap::new()
        });
        Self {
            node,
            store,
            orders,
            brains: BTreeMap::new(),
            fitted: None,
            kept: None,
            stored,
            view,
            desired,
            shown,
            unplaced: BTreeMap::new(),
            last_window: 0,
            looked_ms: 0,
            planned: false,
        }
    }

    /// Plans after each closed window, when configuration or orders change, and once when the node has settled, until
    /// `shutdown`.
    pub async fn run(
        mut self,
        mut observed: watch::Receiver<Arc<Observed>>,
        mut config: watch::Receiver<Arc<Config>>,
        mut shutdown: Stop,
    ) {
        loop {
            tokio::select! {
                () = shutdown.ordered() => return,
                changed = observed.changed() => if changed.is_err() { return },
                changed = self.orders.changed() => {
                    if changed.is_err() { return }
                    self.planned = false;
                }
                changed = config.changed() => {
                    if changed.is_err() { return }
                    self.planned = false;
                }
            }
            let now = observed.borrow_and_update().clone();
            let current = config.borrow().clone();
            self.step(&now, &current);
        }
    }

    /// All that follows from what is observed now.
    fn step(&mut self, now: &Observed, config: &Config) {
        if !now.settled {
            return;
        }
        for (name, brain) in &mut self.brains {
            if let Some(state) = now.services.get(name) {
                brain.watch(state);
            }
        }
        let fresh = now.window.as_ref().filter(|w| w.sequence > self.last_window);
        if fresh.is_none() && self.planned {
            self.look_within(now, config);
            return;
        }
        self.planned = true;
        if let Some(report) = fresh {
            self.last_window = report.sequence;
            self.looked_ms = 0;
            self.learn(report, now, config);
        }
        self.decide(fresh, now, config, &BTreeMap::new());
        if fresh.is_some() {
            self.keep(config);
            self.maintain(config);
        }
    }

    /// Decides within the window where a service is asked for more than what runs can serve.
    fn look_within(&mut self, now: &Observed, config: &Config) {
        let part = now.running_window.as_ref();
        let Some(part) = part.filter(|w| w.sequence > self.last_window && w.length_ms > self.looked_ms) else { return };
        self.looked_ms = part.length_ms;
        let plan = |service: &ServiceSpec| {
            let wanted = self.view.services.get(&service.name).map_or(0, |o| o.wanted);
            let brain = self.brains.get(&service.name).zip(config.scaling.get(&service.name));
            let capacity = brain.map_or(service.capacity, |(brain, s)| brain.capacity(service, s).in_force());
            (wanted, capacity)
        };
        let surges = surge::surges(part, now, config, plan);
        if !surges.is_empty() {
            self.decide(None, now, config, &surges);
        }
    }

    fn learn(&mut self, report: &WindowReport, now: &Observed, config: &Config) {
        self.brains.retain(|name, _| config.service(name).is_some());
        for service in &config.services {
            let Some(demand) = config.scaling.get(&service.name).map(|s| s.demand) else { continue };
            let Some(brain) = self.brain(service, config) else { continue };
            let load = report.load(&service.name, demand);
            brain.observe(report, load);
            let served = now.services.get(&service.name).and_then(|state| state.served.as_ref());
            let served = served.filter(|served| served.window == report.sequence && report.complete);
            if let (Some(scaling), Some((load, served))) = (config.scaling.get(&service.name), load.zip(served)) {
                brain.measure(service, scaling, load, served);
            }
        }
    }

    /// A service's brain: as it is, as it was stored before the restart, or a new one.
    fn brain(&mut self, service: &ServiceSpec, config: &Config) -> Option<&mut Brain> {
        let (scaling, window) = (config.scaling.get(&service.name)?, config.control.window);
        let stored = self.stored.remove(&service.name);
        let brain = self.brains.entry(service.name.clone()).or_insert_with(|| {
            let mut brain = Brain::new(scaling, window);
            if stored.is_some_and(|state| !brain.restore(&state)) {
                info!(service = %service.name, "the model's stored state does not fit; it starts afresh");
            }
            brain
        });
        brain.adapt(scaling, window);
        Some(brain)
    }

    /// Stores the states of some services, so that many do not take a window's time.
    fn keep(&mut self, config: &Config) {
        let due = after(self.kept.as_ref(), self.brains.keys(), STORED_AT_ONCE);
        let states = due.iter().filter_map(|name| Some((name.clone(), self.brains.get(name)?.save()))).collect();
        let known = config.services.iter().map(|s| s.name.as_str()).collect();
        self.kept = due.into_iter().next_back();
        if let Err(error) = tokio::task::block_in_place(|| self.store.put_predictors(&states, &known)) {
            warn!(%error, "the models' states could not be stored");
        }
    }

    /// Estimates parameters where that is due, one service after the other, until the time for it is used up.
    fn maintain(&mut self, config: &Config) {
        let (begun, budget) = (Instant::now(), (config.control.window / FIT_SHARE).min(MOST_FITTING));
        let due = self.brains.iter().filter(|(_, brain)| brain.is_due()).map(|(name, _)| name);
        for name in after(self.fitted.as_ref(), due, usize::MAX) {
            if let Some(brain) = self.brains.get_mut(&name) {
                tokio::task::block_in_place(|| brain.maintain());
            }
            self.fitted = Some(name);
            if begun.elapsed() >= budget {
                return;
            }
        }
    }

    /// Decides for all services, or for those that surge.
    fn decide(
        &mut self,
        report: Option<&WindowReport>,
        observed: &Observed,
        config: &Config,
        surges: &BTreeMap<ServiceName, f64>,
    ) {
        let mut wanted: BTreeMap<ServiceName, Want> = BTreeMap::new();
        let counts = |name: &ServiceName| {
            let running = observed.services.get(name).map_or(0, crate::model::ObservedService::running);
            self.view.services.get(name).map_or(0, |o| o.wanted).max(running)
        };
        let mut room = Room::new(config, counts);
        for service in &config.services {
            let decided = if surges.is_empty() || surges.contains_key(&service.name) {
                let surge = surges.get(&service.name).copied();
                self.decide_service(service, report, surge, observed, config, &room)
            } else {
                self.in_force(service)
            };
            if let Some((replicas, reason)) = decided {
                room.take(service, replicas);
                wanted.insert(service.name.clone(), Want { replicas, technology: service.technology, reason });
            }
        }
        self.view.services.retain(|name, _| config.service(name).is_some());
        let mut placed = place(&wanted, &[node_view(observed, config)]);
        if placed.unplaced != self.unplaced {
            for (service, missing) in &placed.unplaced {
                let reason = placed.nodes.get(&self.node).and_then(|s| s.get(service)).map(|s| s.reason.as_str());
                warn!(%service, missing, reason, "wanted instances found no place");
            }
            self.unplaced.clone_from(&placed.unplaced);
        }
        let mut services = placed.nodes.remove(&self.node).unwrap_or_default();
        for (name, service) in &mut services {
            service.prepared = self.prepared(name, service.replicas, config, &mut room);
            if let Some(outlook) = self.view.services.get_mut(name) {
                service.fewer_soon = outlook.decisions.back().is_some_and(DecisionRecord::is_about_to_lower);
                outlook.decision.clone_from(&service.reason);
            }
        }
        self.send(services);
    }

    /// Instances of a service that shall be prepared beside `replicas`: what the windows to come may need above these,
    /// within its bounds and what there is room for.
    fn prepared(&self, name: &ServiceName, replicas: u32, config: &Config, room: &mut Room<'_>) -> u32 {
        let found = config.service(name).zip(config.scaling.get(name)).zip(self.brains.get(name));
        let Some(((service, scaling), brain)) = found else { return 0 };
        let Some(prepared) = service.prepared else { return 0 };
        let may_need = brain.may_need(service, scaling, config.control.window).unwrap_or(0);
        let most = [room.by_processors(service, scaling), room.by_memory(service, scaling), Some(service.max)];
        let left = most.into_iter().flatten().map(|most| most.saturating_sub(replicas)).min().unwrap_or(0);
        let count = may_need.saturating_sub(replicas).max(prepared.min).min(prepared.max).min(left);
        // What is prepared for one service is not there for another.
        room.take(service, replicas + count);
        count
    }

    /// What was decided last, where that is carried out.
    fn in_force(&self, service: &ServiceSpec) -> Option<(u32, String)> {
        let outlook = self.view.services.get(&service.name)?;
        let is_left = outlook.decisions.back().is_some_and(|last| last.outcome == Outcome::ObservedOnly);
        (!is_left).then(|| (outlook.wanted, outlook.decision.clone()))
    }

    /// The number that is wanted, with the reason; `None` where nothing shall be done about the service.
    fn decide_service(
        &mut self,
        service: &ServiceSpec,
        report: Option<&WindowReport>,
        surge: Option<f64>,
        observed: &Observed,
        config: &Config,
        room: &Room<'_>,
    ) -> Option<(u32, String)> {
        let scaling = config.scaling.get(&service.name)?;
        let (name, window) = (&service.name, config.control.window);
        let state = observed.services.get(name);
        let running = state.map_or(0, crate::model::ObservedService::running);
        let last_wanted = self.view.services.get(name).and_then(|o| o.planned);
        let situation = Situation {
            service,
            scaling,
            window,
            report,
            surge,
            state,
            last_wanted,
            node_limit: config.limits.instances,
            cpu_limit: room.by_processors(service, scaling),
            memory_limit: room.by_memory(service, scaling),
        };
        let ordered = self.orders.borrow().services.get(name).cloned();
        let brain = self.brain(service, config)?;
        let decision = brain.decide(&situation);
        let (forecast, model, fitness) =
            (brain.next(service), brain.explain(), brain.fitness(service, scaling, window));

        let outlook = self.view.services.entry(name.clone()).or_default();
        let in_force = outlook.planned.map_or(running, |_| outlook.wanted);
        let (wanted, outcome) = match &ordered {
            Some(order) => (order.what.apply(in_force, service.max.min(config.limits.instances)).0, Outcome::Ordered),
            None if scaling.mode == Mode::Observe => (running, Outcome::ObservedOnly),
            None => (decision.wanted, Outcome::CarriedOut),
        };
        let mut sentence = sentence(&decision, outcome, wanted, in_force, ordered.as_ref(), fitness.braked);
        sentence.push_str(&record::counted_by(scaling.demand, report, name));
        let window_number = report.map(|r| r.sequence);
        let record = DecisionRecord::new(&decision, observed.at, window_number, wanted, outcome, sentence.clone());
        for label in record.labels() {
            *outlook.counts.entry(label).or_default() += 1;
        }
        if let Some(report) = report {
            outlook.saw(report, name, scaling.demand, state, wanted);
        }
        let (mae, rmse) = record::errors(outlook.history.iter()).unzip();
        outlook.fitness = Fitness { mae, rmse, ..fitness };
        outlook.wanted = wanted;
        outlook.ordered = ordered;
        outlook.planned = Some(decision.wanted);
        outlook.forecast = forecast.map(Forecast::from);
        outlook.model = model;
        outlook.decision.clone_from(&sentence);
        if let Some(brain) = self.brains.get_mut(name) {
            brain.remember(record);
            outlook.decisions.clone_from(&brain.decisions);
        }
        (outcome != Outcome::ObservedOnly).then_some((wanted, sentence))
    }

    /// Tells of a plan that could not be written: what was wanted before stays.
    fn not_stored(&mut self, services: &BTreeMap<ServiceName, DesiredService>) {
        for (name, service) in services {
            let before = self.desired.borrow().as_ref().and_then(|d| d.services.get(name).map(|s| s.replicas));
            let Some(outlook) = self.view.services.get_mut(name).filter(|_| before != Some(service.replicas)) else {
                continue;
            };
            let sentence = format!("not in force, for it could not be stored: {}", service.reason);
            outlook.wanted = before.unwrap_or(0);
            outlook.decision.clone_from(&sentence);
            if let Some(last) = outlook.decisions.back_mut() {
                (last.outcome, last.wanted, last.sentence) = (Outcome::NotStored, outlook.wanted, sentence);
            }
        }
    }

    /// Stores and sends the document, if it says something new.
    fn send(&mut self, services: BTreeMap<ServiceName, DesiredService>) {
        let before = self.desired.borrow().clone();
        // All but the reason, which figures change with each window.
        let is_new = |name: &ServiceName, wanted: &DesiredService| {
            let last = before.as_ref().and_then(|d| d.services.get(name));
            let said = |s: &DesiredService| (s.replicas, s.fewer_soon, s.prepared);
            last.is_none_or(|last| said(last) != said(wanted))
        };
        let is_known = |d: &Arc<Desired>| d.services.keys().eq(services.keys());
        if services.iter().any(|(name, wanted)| is_new(name, wanted)) || !before.as_ref().is_some_and(is_known) {
            self.view.revision += 1;
            let document = Desired { revision: self.view.revision, node: self.node.clone(), services };
            // Written before anybody acts on it. What cannot be is decided anew with the next window.
            if let Err(error) = tokio::task::block_in_place(|| self.store.put_desired(&document)) {
                error!(%error, "the plan could not be stored; what was wanted stays");
                self.view.revision -= 1;
                self.not_stored(&document.services);
                self.shown.send_replace(Arc::new(self.view.clone()));
                return;
            }
            for (service, wanted) in document.services.iter().filter(|(name, wanted)| is_new(name, wanted)) {
                info!(%service, replicas = wanted.replicas, reason = wanted.reason, revision = document.revision, "wanted");
            }
            self.desired.send_replace(Some(Arc::new(document)));
        }
        self.shown.send_replace(Arc::new(self.view.clone()));
    }
}

impl ServiceOutlook {
    /// Keeps a window.
    fn saw(
        &mut self,
        report: &WindowReport,
        name: &ServiceName,
        demand: Demand,
        state: Option<&crate::model::ObservedService>,
        wanted: u32,
    ) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(WindowRecord {
            window: report.sequence,
            start: report.start,
            observed: report.load(name, demand),
            dns: report.requests.get(name).copied(),
            connections: report.connections.get(name).copied(),
            predicted: self.forecast.as_ref().map(|f| f.mean),
            replicas: state.map_or(0, brain::serving),
            wanted,
        });
    }
}

/// A decision in a sentence, with what is in force instead of it.
fn sentence(
    decision: &Decision,
    outcome: Outcome,
    wanted: u32,
    before: u32,
    ordered: Option<&Order<Override>>,
    braked: bool,
) -> String {
    let mut plan = decision.to_string();
    if braked && !decision.reasons.iter().any(|r| r.bound == autoscale::plan::Bound::Brake) {
        let failed = decision.input.never_ready;
        plan.push_str(&format!("; {failed} instances in a row never became ready, so they are tried one by one"));
    }
    match (ordered, outcome) {
        (Some(order), _) => {
            let (_, how) = order.what.apply(before, wanted);
            format!("{wanted}: {how} {}; the plan says: {plan}", order.giver())
        }
        (None, Outcome::ObservedOnly) => format!("observed only, {wanted} left as they are; the plan says: {plan}"),
        _ => plan,
    }
}

/// At most `most` of the names, beginning behind `last`, each once.
fn after<'a>(
    last: Option<&ServiceName>,
    names: impl Iterator<Item = &'a ServiceName> + Clone,
    most: usize,
) -> Vec<ServiceName> {
    let is_behind = |name: &&ServiceName| last.is_none_or(|last| *name > last);
    let behind = names.clone().filter(is_behind);
    behind.chain(names.filter(|name| !is_behind(name))).take(most).cloned().collect()
}

/// A node as placement sees it.
fn node_view(observed: &Observed, config: &Config) -> NodeView {
    let mut technologies = BTreeSet::new();
    let mut instances = BTreeMap::new();
    let mut draining = 0;
    for (name, state) in &observed.services {
        if let Some(spec) = config.service(name).filter(|_| state.available) {
            technologies.insert(spec.technology);
        }
        let running = state.running();
        instances.insert(name.clone(), running);
        draining += u32::try_from(state.instances.len()).unwrap_or(u32::MAX).saturating_sub(running);
    }
    NodeView { name: observed.node.clone(), instances, draining, limit: config.limits.instances, technologies }
}
