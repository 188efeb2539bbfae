//! What is told and kept of windows and decisions.

use autoscale::plan::{Bound, Decision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Demand, Forecast, ServiceName, Timestamp, WindowReport};

impl From<autoscale::predict::Forecast> for Forecast {
    fn from(forecast: autoscale::predict::Forecast) -> Self {
        Self { mean: forecast.mean, quantiles: forecast.quantiles, model: forecast.model }
    }
}

/// One window of one service: what was expected, what came, what was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WindowRecord {
    /// The report's number.
    pub window: u64,
    /// Its start.
    pub start: Timestamp,
    /// Requests that came, by what the service's demand is; `None` where they could not be counted.
    pub observed: Option<f64>,
    /// Queries for the service's names.
    #[serde(default)]
    pub dns: Option<f64>,
    /// Connections that were opened to its instances, where its demand needs them.
    #[serde(default)]
    pub connections: Option<f64>,
    /// Requests that had been forecast for this window before it began.
    pub predicted: Option<f64>,
    /// Instances that served at its end.
    pub replicas: u32,
    /// Instances wanted from its end on.
    pub wanted: u32,
}

/// What became of a decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in force.
    #[default]
    CarriedOut,
    /// An operator's order is in force instead.
    Ordered,
    /// The service is observed only.
    ObservedOnly,
    /// It could not be stored, so what was wanted before stays.
    NotStored,
}

/// A bound that changed the number, with the number before and after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BoundRecord {
    /// Its label, as in `stabilisation` or `max`.
    pub bound: String,
    /// Replicas before.
    pub from: u32,
    /// Replicas after.
    pub to: u32,
}

/// A decision with all that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionRecord {
    /// When it was taken.
    pub at: Timestamp,
    /// The closed window that it followed; `None` of one within a window, or after a change of configuration or orders.
    pub window: Option<u64>,
    /// The model's short name; `None` without a forecast.
    pub model: Option<String>,
    /// Expected requests of the window that an instance started now can serve in.
    pub forecast: Option<f64>,
    /// The same with headroom: what it plans for.
    pub demand: Option<f64>,
    /// The same of the windows behind it: what is needed again soon is not removed, and two steps up are made as one.
    pub ahead: Vec<f64>,
    /// The same of the windows that pass while an instance starts: too late to start for, too early to stop.
    #[serde(default)]
    pub before: Vec<f64>,
    /// Whether the forecast may lower what runs, or why not: `earned`, `too_young`, `no_better_than_naive` or
    /// `coverage_broken`.
    pub trust: String,
    /// Requests of the last window; `None` where they were not measured.
    pub observed: Option<f64>,
    /// Whether the last report came, in time and without a reset.
    pub complete: bool,
    /// Requests that the running window comes to at least.
    pub surge: Option<f64>,
    /// Instances up or on their way up.
    pub running: u32,
    /// Instances that served.
    pub ready: u32,
    /// What was wanted before.
    pub last_wanted: Option<u32>,
    /// Instances in a row that never became ready.
    pub never_ready: u32,
    /// Requests per instance and window.
    pub capacity: f64,
    /// What an instance was measured to serve, where enough windows say that it is not what is configured.
    #[serde(default)]
    pub measured_capacity: Option<f64>,
    /// Instances that the forecast asks for before any bound.
    pub needed: Option<u32>,
    /// What the number rests on, as in `forecast` or `panic`.
    pub basis: String,
    /// The bounds that changed it, in their order.
    pub bounds: Vec<BoundRecord>,
    /// Instances that the plan wants.
    pub planned: u32,
    /// Instances that are wanted: what an operator ordered, or runs, where the plan is not carried out.
    pub wanted: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// All of it in a sentence.
    pub sentence: String,
}

impl DecisionRecord {
    /// The record of a decision.
    pub(super) fn new(
        decision: &Decision,
        at: Timestamp,
        window: Option<u64>,
        wanted: u32,
        outcome: Outcome,
        sentence: String,
    ) -> Self {
        let input = &decision.input;
        let bound = |r: &autoscale::plan::Reason| BoundRecord { bound: r.bound.label().into(), from: r.from, to: r.to };
        Self {
            at,
            window,
            model: input.forecast.as_ref().map(|f| f.model.clone()),
            forecast: input.forecast.as_ref().map(|f| f.mean),
            demand: input.demand,
            ahead: input.ahead.clone(),
            before: input.before.clone(),
            trust: input.trust.label().to_owned(),
            observed: input.observed,
            complete: input.complete,
            surge: input.surge,
            running: input.running,
            ready: input.ready,
            last_wanted: input.last_wanted,
            never_ready: input.never_ready,
            capacity: decision.capacity,
            measured_capacity: input.measured_capacity,
            needed: decision.needed,
            basis: decision.basis.label().to_owned(),
            bounds: decision.reasons.iter().map(bound).collect(),
            planned: decision.wanted,
            wanted,
            outcome,
            sentence,
        }
    }

    /// Whether it is in force and would be lower but for the stabilisation.
    pub(super) fn is_about_to_lower(&self) -> bool {
        let stabilised = self.bounds.iter().any(|b| b.bound == Bound::Stabilisation.label() && b.from < b.to);
        stabilised && self.outcome == Outcome::CarriedOut
    }

    /// What it rests on, and the bounds that changed it: labels of metrics.
    pub(super) fn labels(&self) -> impl Iterator<Item = String> + '_ {
        std::iter::once(self.basis.clone()).chain(self.bounds.iter().map(|b| b.bound.clone()))
    }

    /// Whether the other one says the same, but for figures.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.planned, self.wanted, self.outcome, &self.basis, &self.bounds)
            == (other.planned, other.wanted, other.outcome, &other.basis, &other.bounds)
    }
}

/// What the requests of a decision's sentence are, where they are not queries.
pub(super) fn counted_by(demand: Demand, report: Option<&WindowReport>, service: &ServiceName) -> String {
    let told = |count: Option<&f64>| count.map_or("not measured".to_owned(), |count| format!("{count:.1}"));
    let counts = report.map_or(String::new(), |report| {
        let (connections, queries) = (told(report.connections.get(service)), told(report.requests.get(service)));
        format!(" (connections: {connections}, queries: {queries})")
    });
    match demand {
        Demand::Dns => String::new(),
        Demand::Connections => format!("; requests are connections{counts}"),
        Demand::Max => format!("; requests are connections or queries, whichever are more{counts}"),
    }
}

/// How a service's forecasts and instances fare.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fitness {
    /// `act`, or `observe` where decisions are told and not carried out.
    pub mode: String,
    /// Whether the forecast may lower what runs, or why not.
    pub trust: String,
    /// Root of the mean squared error of the next window's forecast over the windows that are kept, in requests.
    pub rmse: Option<f64>,
    /// The mean absolute error of the same.
    pub mae: Option<f64>,
    /// Root of the mean squared error of the naive forecast lately.
    pub naive_rmse: Option<f64>,
    /// Share of windows in which no more came than the upper quantile said.
    pub coverage: Option<f64>,
    /// The share that it claims.
    pub claimed: Option<f64>,
    /// Seasons in windows, 0 where none was found.
    pub seasons: [usize; 2],
    /// Windows ahead that decisions look: the next, and those that pass while an instance starts.
    pub horizon: usize,
    /// Whether so many instances never became ready that no more are added.
    pub braked: bool,
    /// What an instance can serve.
    #[serde(default)]
    pub capacity: Capacity,
}

/// Requests that an instance can serve in a window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capacity {
    /// What the configuration says.
    pub configured: f64,
    /// What was measured, where that counts instead: enough windows at load say that it is another number.
    pub measured: Option<f64>,
    /// Windows at load that are kept in which the latency held.
    pub held_windows: usize,
    /// The same in which it did not.
    pub late_windows: usize,
}

impl Capacity {
    /// What plans are made with.
    pub(super) fn in_force(&self) -> f64 {
        self.measured.unwrap_or(self.configured)
    }
}

/// Mean absolute error, and root of the mean squared error, of windows that were forecast and counted.
pub(super) fn errors<'a>(windows: impl Iterator<Item = &'a WindowRecord>) -> Option<(f64, f64)> {
    let errors: Vec<f64> = windows.filter_map(|w| Some(w.observed? - w.predicted?)).collect();
    let mean = |sum: f64| sum / errors.len() as f64;
    (!errors.is_empty())
        .then(|| (mean(errors.iter().map(|e| e.abs()).sum()), mean(errors.iter().map(|e| e * e).sum()).sqrt()))
}
