//! The orchestrator half: window reports → predict → plan → place → [`Desired`].
//!
//! Reads [`Observed`], writes [`Desired`], and touches nothing else of the node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::model::{
    Desired, DesiredService, Forecast, InstanceState, NodeName, Observed, Order, Orders, Override, ServiceName,
    ServiceSpec, Timestamp, Window, WindowReport,
};
use crate::placement::{NodeView, PlanInput, Want, place, plan};
use crate::predict::{self, Predictor};
use crate::stop::Stop;
use crate::store::Store;

/// Requests of a window that are worth an instance ahead of them.
const LEAST_FORECAST: f64 = 0.5;
/// Windows kept for the status.
const HISTORY: usize = 240;

/// One window of one service: what was expected, what came, what was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WindowRecord {
    /// The report's number.
    pub window: u64,
    /// Its start.
    pub start: Timestamp,
    /// Requests that came; `None` where they could not be counted.
    pub observed: Option<f64>,
    /// Requests that had been forecast for this window before it began.
    pub predicted: Option<f64>,
    /// Instances that served at its end.
    pub replicas: u32,
    /// Instances wanted from its end on.
    pub wanted: u32,
}

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
    models: BTreeMap<ServiceName, Box<dyn Predictor>>,
    /// States of models from before the restart, until their service is first seen.
    stored: BTreeMap<ServiceName, serde_json::Value>,
    view: OrchestratorView,
    desired: watch::Sender<Option<Arc<Desired>>>,
    shown: watch::Sender<Arc<OrchestratorView>>,
    /// Wanted instances that found no place, as they were told last.
    unplaced: BTreeMap<ServiceName, u32>,
    /// Number of the last window that was taken in.
    last_window: u64,
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
            models: BTreeMap::new(),
            stored,
            view,
            desired,
            shown,
            unplaced: BTreeMap::new(),
            last_window: 0,
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
        let mut planned = false;
        loop {
            tokio::select! {
                () = shutdown.ordered() => return,
                changed = observed.changed() => if changed.is_err() { return },
                changed = self.orders.changed() => {
                    if changed.is_err() { return }
                    planned = false;
                }
                changed = config.changed() => {
                    if changed.is_err() { return }
                    planned = false;
                }
            }
            let now = observed.borrow_and_update().clone();
            let current = config.borrow().clone();
            if !now.settled {
                continue;
            }
            let fresh = now.window.as_ref().filter(|w| w.sequence > self.last_window);
            if fresh.is_none() && planned {
                continue;
            }
            planned = true;
            if let Some(report) = fresh {
                self.last_window = report.sequence;
                self.learn(report, &current);
            }
            self.decide(fresh, &now, &current);
        }
    }

    fn learn(&mut self, report: &WindowReport, config: &Config) {
        self.models.retain(|name, _| config.services.iter().any(|s| s.name == *name));
        for service in &config.services {
            let kind = config.predictors.get(&service.name).copied().unwrap_or_default();
            let stored = self.stored.remove(&service.name);
            let model = self.models.entry(service.name.clone()).or_insert_with(|| {
                let mut model = predict::build(kind);
                if stored.is_some_and(|state| !model.restore(&state)) {
                    info!(service = %service.name, "the model's stored state does not fit; it starts afresh");
                }
                model
            });
            let requests = report.requests.get(&service.name).copied();
            model.observe(&Window { start: report.start, length_ms: report.length_ms, requests });
        }
        let states = self.models.iter().map(|(name, model)| (name.clone(), model.save())).collect();
        if let Err(error) = tokio::task::block_in_place(|| self.store.put_predictors(&states)) {
            warn!(%error, "the models' states could not be stored");
        }
    }

    fn decide(&mut self, report: Option<&WindowReport>, observed: &Observed, config: &Config) {
        let mut wanted: BTreeMap<ServiceName, Want> = BTreeMap::new();
        for service in &config.services {
            let (replicas, reason) = self.decide_service(service, report, observed, config);
            wanted.insert(service.name.clone(), Want { replicas, technology: service.technology, reason });
        }
        self.view.services.retain(|name, _| wanted.contains_key(name));
        let mut placed = place(&wanted, &[node_view(observed, config)]);
        if placed.unplaced != self.unplaced {
            for (service, missing) in &placed.unplaced {
                let reason = placed.nodes.get(&self.node).and_then(|s| s.get(service)).map(|s| s.reason.as_str());
                warn!(%service, missing, reason, "wanted instances found no place");
            }
            self.unplaced.clone_from(&placed.unplaced);
        }
        let Some(services) = placed.nodes.remove(&self.node) else { return };
        for (name, service) in &services {
            if let Some(outlook) = self.view.services.get_mut(name) {
                outlook.decision.clone_from(&service.reason);
            }
        }
        self.send(services);
    }

    fn decide_service(
        &mut self,
        service: &ServiceSpec,
        report: Option<&WindowReport>,
        observed: &Observed,
        config: &Config,
    ) -> (u32, String) {
        let state = observed.services.get(&service.name);
        let running = state.map_or(0, crate::model::ObservedService::running);
        let model = self.models.get(&service.name);
        let forecast = model.and_then(|m| m.forecast(1)).map(|forecast| none_or_some(service, forecast));
        let outlook = self.view.services.entry(service.name.clone()).or_default();
        let count = report.and_then(|r| r.requests.get(&service.name).copied());
        let in_force = outlook.planned.map_or(running, |_| outlook.wanted);
        let decision = plan(&PlanInput {
            service: service.name.clone(),
            forecast: forecast.clone(),
            observed: count,
            complete: report.is_some_and(|r| r.complete) && count.is_some(),
            running,
            last_wanted: outlook.planned,
            capacity: service.capacity,
            min: service.min,
            max: service.max,
            node_limit: config.limits.instances,
        });
        let ordered = self.orders.borrow().services.get(&service.name).cloned();
        let (wanted, reason) = match &ordered {
            None => (decision.wanted, decision.to_string()),
            Some(order) => {
                let (wanted, how) = order.what.apply(in_force, service.max.min(config.limits.instances));
                (wanted, format!("{wanted}: {how} {}; the plan says: {decision}", order.giver()))
            }
        };
        if let Some(report) = report {
            if outlook.history.len() == HISTORY {
                outlook.history.pop_front();
            }
            let serving = state.map_or(0, |s| s.instances.iter().filter(|i| i.state == InstanceState::Serving).count());
            outlook.history.push_back(WindowRecord {
                window: report.sequence,
                start: report.start,
                observed: count,
                predicted: outlook.forecast.as_ref().map(|f| f.mean),
                replicas: serving as u32,
                wanted,
            });
        }
        outlook.wanted = wanted;
        outlook.ordered = ordered;
        outlook.planned = Some(decision.wanted);
        outlook.forecast = forecast;
        outlook.model = model.map_or_else(String::new, |m| m.explain());
        (wanted, reason)
    }

    /// Stores and sends the document, if it says something new.
    fn send(&mut self, services: BTreeMap<ServiceName, DesiredService>) {
        let replicas = |s: &BTreeMap<ServiceName, DesiredService>| -> Vec<(ServiceName, u32)> {
            s.iter().map(|(name, wanted)| (name.clone(), wanted.replicas)).collect()
        };
        let same = self.desired.borrow().as_ref().is_some_and(|d| replicas(&d.services) == replicas(&services));
        if !same {
            self.view.revision += 1;
            let document = Desired { revision: self.view.revision, node: self.node.clone(), services };
            // Written before anybody acts on it. What cannot be is decided anew with the next window.
            if let Err(error) = tokio::task::block_in_place(|| self.store.put_desired(&document)) {
                error!(%error, "the plan could not be stored; what was wanted stays");
                self.view.revision -= 1;
                self.shown.send_replace(Arc::new(self.view.clone()));
                return;
            }
            for (service, wanted) in &document.services {
                info!(%service, replicas = wanted.replicas, reason = wanted.reason, revision = document.revision, "wanted");
            }
            self.desired.send_replace(Some(Arc::new(document)));
        }
        self.shown.send_replace(Arc::new(self.view.clone()));
    }
}

/// A forecast of next to nothing is none for a service that may have no instance: it is there at the first query, and a
/// moving average would else keep it up for a dozen windows after the last one.
fn none_or_some(service: &ServiceSpec, forecast: Forecast) -> Forecast {
    let nothing = service.min == 0 && forecast.mean < LEAST_FORECAST;
    if nothing { Forecast { mean: 0.0, ..forecast } } else { forecast }
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
