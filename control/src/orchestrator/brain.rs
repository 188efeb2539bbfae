//! One service's brain: its predictor, what its plan remembers, and how its instances come up.

use std::collections::VecDeque;
use std::time::Duration;

use autoscale::plan::{Basis, Decision, Input, Measured, PlanState, Policy, plan};
use autoscale::predict::{Forecast, Predictor, Settings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{Capacity, DecisionRecord, Fitness};
use super::starts::Starts;
use crate::config::Scaling;
use crate::model::{InstanceState, ObservedService, Served, ServiceSpec, Technology, Timestamp, WindowReport};

/// Horizons that forecasts are scored at.
const HORIZONS: usize = 4;
/// Windows behind the decision's that are looked at before an instance is removed.
const LOOK_AHEAD: usize = 2;
/// Most windows that are filled in for the time that the daemon was away.
const MOST_MISSED: u64 = 512;
/// Share of windows that instances and those that are prepared shall be enough for, as forecast.
const RARE: f64 = 0.99;
/// A start that takes less than this share of a window has effect in the next one.
const AT_ONCE: f64 = 0.1;
/// Requests of a window that are worth an instance ahead of them.
const LEAST_FORECAST: f64 = 0.5;
/// Decisions that are kept.
const DECISIONS: usize = 16;

/// See the module.
pub(super) struct Brain {
    predictor: Predictor,
    plan: PlanState,
    starts: Starts,
    /// What an instance can serve.
    measured: Measured,
    /// The last window that was taken in: its start, and its number where it was of this daemon's.
    last: Option<(Timestamp, Option<u64>)>,
    /// Newest decisions, oldest first; of several alike the newest.
    pub decisions: VecDeque<DecisionRecord>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    predictor: Value,
    plan: PlanState,
    starts: Starts,
    #[serde(default)]
    measured: Measured,
    last: Option<Timestamp>,
    decisions: VecDeque<DecisionRecord>,
}

/// What a decision is about.
pub(super) struct Situation<'a> {
    pub service: &'a ServiceSpec,
    pub scaling: &'a Scaling,
    pub window: Duration,
    /// The window that closed just now.
    pub report: Option<&'a WindowReport>,
    /// Requests that the running window comes to at least.
    pub surge: Option<f64>,
    pub state: Option<&'a ObservedService>,
    pub last_wanted: Option<u32>,
    /// Most instances that the node can hold.
    pub node_limit: u32,
    /// Most that processors and memory of node and service allow.
    pub cpu_limit: Option<u32>,
    pub memory_limit: Option<u32>,
}

impl Brain {
    /// A brain that has seen nothing.
    pub fn new(scaling: &Scaling, window: Duration) -> Self {
        Self {
            predictor: Predictor::new(settings(scaling, window)),
            plan: PlanState::default(),
            starts: Starts::default(),
            measured: Measured::default(),
            last: None,
            decisions: VecDeque::new(),
        }
    }

    /// Takes other settings over, if they are others; what was learnt is of use to none but the same model.
    pub fn adapt(&mut self, scaling: &Scaling, window: Duration) {
        let settings = settings(scaling, window);
        if *self.predictor.settings() != settings {
            self.predictor = Predictor::new(settings);
        }
    }

    pub fn save(&self) -> Value {
        let saved = Saved {
            predictor: self.predictor.save(),
            plan: self.plan.clone(),
            starts: self.starts.clone(),
            measured: self.measured.clone(),
            last: self.last.map(|(start, _)| start),
            decisions: self.decisions.clone(),
        };
        serde_json::to_value(saved).unwrap_or(Value::Null)
    }

    /// Takes back what [`Brain::save`] gave; what does not fit is ignored and `false` returned.
    pub fn restore(&mut self, state: &Value) -> bool {
        let Ok(saved) = Saved::deserialize(state) else { return false };
        self.plan = saved.plan;
        self.starts = saved.starts;
        self.measured = saved.measured;
        self.decisions = saved.decisions;
        let fits = self.predictor.restore(&saved.predictor);
        if fits {
            self.last = saved.last.map(|start| (start, None));
        }
        fits
    }

    /// Takes a closed window. Windows that were not reported since the last one were not counted: within a run of the
    /// daemon their numbers tell how many, over a restart the clock, which may have jumped.
    pub fn observe(&mut self, report: &WindowReport, requests: Option<f64>) {
        let passed = match self.last {
            None => 1,
            Some((_, Some(number))) => report.sequence.saturating_sub(number),
            Some((start, None)) => {
                (report.start.millis_since(start) as f64 / report.length_ms.max(1) as f64).round() as u64
            }
        };
        let missed = passed.saturating_sub(1);
        // Of a long time only the place in the season matters.
        let season = self.predictor.seasons()[0] as u64;
        let filled = if missed <= MOST_MISSED { missed } else { missed.checked_rem(season).unwrap_or(0) };
        (0..filled).for_each(|_| self.predictor.observe(None));
        self.last = Some((report.start, Some(report.sequence)));
        self.predictor.observe(requests);
    }

    /// Takes in how the instances did in a window with so many requests.
    pub fn measure(&mut self, service: &ServiceSpec, scaling: &Scaling, requests: f64, served: &Served) {
        if let Some(latency) = scaling.latency {
            self.measured.adapt(service.capacity, latency.as_secs_f64() * 1e3);
            self.measured.observe(requests * served.largest_share, served.slowest_ms);
        }
    }

    /// Requests per instance and window: what the service says, and what was measured, where that counts.
    pub fn capacity(&self, service: &ServiceSpec, scaling: &Scaling) -> Capacity {
        let measures =
            scaling.latency.is_some_and(|latency| self.measured.is_of(service.capacity, latency.as_secs_f64() * 1e3));
        let measured = self.measured.capacity().filter(|_| measures);
        let (held, late) = if measures { self.measured.windows() } else { (0, 0) };
        Capacity { configured: service.capacity, measured, held_windows: held, late_windows: late }
    }

    pub fn watch(&mut self, state: &ObservedService) {
        self.starts.watch(state);
    }

    pub fn is_due(&self) -> bool {
        self.predictor.is_due()
    }

    pub fn maintain(&mut self) {
        self.predictor.maintain();
    }

    pub fn explain(&self) -> String {
        self.predictor.explain()
    }

    /// Forecast of the next window.
    pub fn next(&self, service: &ServiceSpec) -> Option<Forecast> {
        self.forecast(service, 1)
    }

    /// A forecast of next to nothing is none for a service that may have no instance: it is there at the first query,
    /// and a moving average would else keep it up for a dozen windows after the last one.
    fn forecast(&self, service: &ServiceSpec, horizon: usize) -> Option<Forecast> {
        let forecast = self.predictor.forecast(horizon)?;
        let nothing = service.min == 0 && forecast.mean < LEAST_FORECAST;
        Some(if nothing { Forecast { mean: 0.0, ..forecast } } else { forecast })
    }

    /// Instances that one of the windows behind a decision may need: all but few windows need no more.
    pub fn may_need(&self, service: &ServiceSpec, scaling: &Scaling, window: Duration) -> Option<u32> {
        let first = self.horizon(service.technology, window);
        let load = |h| {
            let expected = self.forecast(service, h)?.mean;
            (expected > 0.0).then(|| self.predictor.quantile(h, RARE).unwrap_or(expected).max(expected))
        };
        let most = (first..=first + LOOK_AHEAD).filter_map(load).reduce(f64::max)?;
        Some((most / self.capacity(service, scaling).in_force()).ceil() as u32)
    }

    /// Windows ahead that a decision has effect in.
    fn horizon(&self, technology: Technology, window: Duration) -> usize {
        let windows = self.starts.warm_up_ms(technology) / 1000.0 / window.as_secs_f64().max(1e-3);
        if windows < AT_ONCE { 1 } else { 1 + windows.ceil() as usize }
    }

    /// Whether instances failed so often that none is added.
    fn is_braked(&self, policy: &Policy) -> bool {
        self.starts.never_ready >= policy.brake.after.max(1)
    }

    pub fn fitness(&self, service: &ServiceSpec, scaling: &Scaling, window: Duration) -> Fitness {
        let skill = self.predictor.skill(1);
        let horizon = self.horizon(service.technology, window);
        Fitness {
            mode: scaling.mode.label().to_owned(),
            trust: self.predictor.trust(horizon).label().to_owned(),
            rmse: None,
            mae: None,
            naive_rmse: skill.and_then(|s| s.naive_rmse()),
            coverage: skill.and_then(|s| s.coverage()),
            claimed: scaling.headroom,
            seasons: self.predictor.seasons(),
            horizon,
            braked: self.is_braked(&scaling.policy(service, window)),
            capacity: self.capacity(service, scaling),
        }
    }

    /// Decides. A decision within a window is remembered only where it raises.
    pub fn decide(&mut self, situation: &Situation<'_>) -> Decision {
        let Situation { service, scaling, window, report, .. } = *situation;
        let policy = scaling.policy(service, window);
        let horizon = self.horizon(service.technology, window);
        let demand = |h: usize| {
            let expected = self.forecast(service, h)?;
            let quantile = scaling.headroom.and_then(|level| self.predictor.quantile(h, level));
            Some(if expected.mean > 0.0 { quantile.unwrap_or(expected.mean).max(0.0) } else { 0.0 })
        };
        let count = report.and_then(|r| r.load(&service.name, scaling.demand));
        let input = Input {
            forecast: self.forecast(service, horizon),
            demand: demand(horizon),
            ahead: (1..=LOOK_AHEAD).filter_map(|h| demand(horizon + h)).collect(),
            before: (1..horizon).filter_map(demand).collect(),
            trust: self.predictor.trust(horizon),
            observed: count,
            complete: report.is_some_and(|r| r.complete) && count.is_some(),
            surge: situation.surge,
            running: situation.state.map_or(0, ObservedService::running),
            ready: situation.state.map_or(0, serving),
            last_wanted: situation.last_wanted,
            never_ready: self.starts.never_ready,
            measured_capacity: self.capacity(service, scaling).measured,
            node_limit: situation.node_limit,
            cpu_limit: situation.cpu_limit,
            memory_limit: situation.memory_limit,
        };
        // What keeps the last instance of a service up that may have none is its use, for `idle_after`.
        let idle = service.min == 0 && input.demand == Some(0.0) && self.plan.most_needed() <= 1;
        let state = if idle { PlanState::default() } else { self.plan.clone() };
        let (decision, next) = plan(&policy, &state, &input);
        if report.is_some() || decision.basis == Basis::Panic {
            self.plan = next;
        }
        decision
    }

    /// Keeps a decision, in the place of the last one where it says the same.
    pub fn remember(&mut self, record: DecisionRecord) {
        if self.decisions.back().is_some_and(|last| last.is_like(&record)) {
            self.decisions.pop_back();
        }
        if self.decisions.len() == DECISIONS {
            self.decisions.pop_front();
        }
        self.decisions.push_back(record);
    }
}

/// Instances that serve.
pub(super) fn serving(state: &ObservedService) -> u32 {
    let serving = state.instances.iter().filter(|i| i.state == InstanceState::Serving);
    u32::try_from(serving.count()).unwrap_or(u32::MAX)
}

fn settings(scaling: &Scaling, window: Duration) -> Settings {
    Settings {
        kind: scaling.predictor,
        season: scaling.season,
        window_s: Some(window.as_secs_f64()),
        horizon: HORIZONS,
        level: scaling.headroom.unwrap_or(0.5),
    }
}
