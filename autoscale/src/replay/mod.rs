//! A recorded load through predictors and policies, offline.

mod hpa;
mod plot;
mod trace;
mod tune;

pub use hpa::{Hpa, hpa, hpa_alike};
pub use plot::plot;
pub use trace::{Trace, TraceError};
pub use tune::{Candidate, Goal, tune};

use serde::Serialize;

use crate::plan::{Input, PlanState, Policy, instances_for, plan};
use crate::predict::{Forecast, Predictor, PredictorKind, Settings, Trust, interpolated};
use crate::score::{ElasticityScore, ForecastScore};

/// How a forecast becomes a supply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyKind {
    /// ⌈(forecast + headroom) / capacity⌉, window by window. The headroom is a quantile of the last errors: a
    /// combination's own quantile, for single models that of the unscaled errors.
    Direct,
    /// The daemon's plan with all its rules.
    Plan,
    /// No forecast at all: Kubernetes' HorizontalPodAutoscaler.
    Hpa,
}

/// What a replay is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// First window that is scored; what is before it trains.
    pub start: usize,
    /// Requests that an instance serves per window.
    pub capacity: f64,
    /// Windows from a decision to the one in which it has effect, beside the next.
    pub delay: usize,
    /// Level of the headroom's quantile; `None` for none.
    pub headroom: Option<f64>,
    /// Windows per season; found where none is given.
    pub season: Option<usize>,
    /// Rules of [`PolicyKind::Plan`]; its capacity is that of above.
    pub policy: Policy,
    /// Windows beyond the decision's that the plan looks at: for steps up, and before it removes anything.
    pub look_ahead: usize,
    /// Settings of [`PolicyKind::Hpa`].
    pub hpa: Hpa,
}

impl Options {
    /// What is usual for a load: its last half scored, supply one window late, headroom of 0.9.
    #[must_use]
    pub fn usual(trace: &Trace, capacity: f64) -> Self {
        Self {
            start: trace.values.len() / 2,
            capacity,
            delay: 1,
            headroom: Some(0.9),
            season: None,
            policy: Policy { stabilisation: Policy::usual_stabilisation(trace.window_s), ..Policy::default() },
            look_ahead: 1,
            hpa: Hpa::default(),
        }
    }
}

/// What was expected at each moment, by the window that it is about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outlook {
    /// One window ahead, as the models gave it.
    pub next: Vec<Option<f64>>,
    /// By the window at whose end it was made: the decision's horizon, mean as the models gave it.
    made: Vec<Made>,
    /// Headrooms that it was made for.
    levels: Vec<Option<f64>>,
    /// Whether several models speak.
    is_many: bool,
    /// Model, season and weights at the end.
    pub explanation: String,
    /// Its order where it is one SARIMA.
    pub order: Option<String>,
    /// Refits, and their longest and mean duration in milliseconds.
    pub fits: Fits,
    /// Seasons in windows at the end; 0 where there is none.
    pub seasons: [usize; 2],
}

/// How long estimation took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Fits {
    /// How often.
    pub count: u32,
    /// Milliseconds, mean.
    pub mean_ms: f64,
    /// Milliseconds, longest.
    pub longest_ms: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Made {
    point: Option<f64>,
    trust: Trust,
    /// By headroom.
    told: Vec<Told>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Told {
    upper: Option<f64>,
    forecast: Option<Forecast>,
    ahead: Vec<f64>,
}

impl Outlook {
    /// What was told at the end of window `u` for a headroom.
    fn told(&self, u: usize, headroom: Option<f64>) -> Option<&Told> {
        let at = self.levels.iter().position(|level| *level == headroom)?;
        self.made.get(u)?.told.get(at)
    }
}

/// Runs a predictor over the whole trace. `now` tells milliseconds of a clock that goes on; `progress` is told how
/// many windows are done.
pub fn outlook(
    trace: &Trace,
    kind: PredictorKind,
    options: &Options,
    now: &dyn Fn() -> f64,
    progress: &mut dyn FnMut(usize),
) -> Outlook {
    outlooks(trace, kind, options, &[options.headroom], now, progress)
}

/// The same for several headrooms at once; coverage is judged by that of the options.
fn outlooks(
    trace: &Trace,
    kind: PredictorKind,
    options: &Options,
    levels: &[Option<f64>],
    now: &dyn Fn() -> f64,
    progress: &mut dyn FnMut(usize),
) -> Outlook {
    let horizon = options.delay + 1;
    let settings = Settings {
        kind,
        season: options.season,
        window_s: Some(trace.window_s),
        horizon: horizon + options.look_ahead,
        level: options.headroom.unwrap_or(0.5),
    };
    let mut predictor = Predictor::new(settings);
    let mut outlook = Outlook {
        next: vec![None; trace.values.len()],
        levels: levels.to_vec(),
        is_many: kind.is_many(),
        ..Outlook::default()
    };
    let demand = |p: &Predictor, h: usize, headroom: Option<f64>| match headroom {
        Some(level) => p.quantile(h, level),
        None => p.point(h),
    };
    let tell = |p: &Predictor, headroom: Option<f64>| Told {
        upper: demand(p, horizon, headroom),
        forecast: p.forecast_for(horizon, headroom.unwrap_or(0.5)),
        ahead: (1..=options.look_ahead).filter_map(|k| demand(p, horizon + k, headroom)).collect(),
    };
    for (t, value) in trace.values.iter().enumerate() {
        outlook.next[t] = predictor.point(1);
        predictor.observe(*value);
        if predictor.is_due() {
            let before = now();
            predictor.maintain();
            let took = now() - before;
            outlook.fits.count += 1;
            outlook.fits.mean_ms += (took - outlook.fits.mean_ms) / f64::from(outlook.fits.count);
            outlook.fits.longest_ms = outlook.fits.longest_ms.max(took);
        }
        outlook.made.push(Made {
            point: predictor.point(horizon),
            trust: predictor.trust(horizon),
            told: levels.iter().map(|headroom| tell(&predictor, *headroom)).collect(),
        });
        progress(t + 1);
    }
    outlook.explanation = predictor.explain();
    outlook.order = predictor.order();
    outlook.seasons = predictor.seasons();
    outlook
}

/// Instances in force in each window under a policy; 1 until the first decision takes effect.
#[must_use]
pub fn supply(trace: &Trace, outlook: &Outlook, options: &Options, kind: PolicyKind) -> Vec<u32> {
    let n = trace.values.len();
    let mut supply = vec![1u32; n];
    let horizon = options.delay + 1;
    let nothing = Told::default();
    let mut state = PlanState::default();
    let mut last = None;
    let residuals = Residuals::new(trace, outlook, horizon, options);
    for (u, made) in outlook.made.iter().enumerate() {
        let told = outlook.told(u, options.headroom).unwrap_or(&nothing);
        let wanted = match kind {
            PolicyKind::Hpa => return hpa(trace, options, &options.hpa),
            PolicyKind::Direct => {
                let own = if outlook.is_many { told.upper } else { None };
                let demand = own.or(made.point.map(|f| (f + residuals.headroom(u)).max(0.0)));
                demand.and_then(|d| instances_for(d, options.capacity)).unwrap_or(1).max(1)
            }
            PolicyKind::Plan => {
                let input = Input {
                    forecast: told.forecast.clone(),
                    demand: told.upper.map(|d| d.max(0.0)),
                    ahead: told.ahead.clone(),
                    before: Vec::new(),
                    trust: made.trust,
                    observed: trace.values[u],
                    complete: trace.values[u].is_some(),
                    surge: None,
                    running: supply[u],
                    ready: supply[u],
                    last_wanted: last,
                    never_ready: 0,
                    measured_capacity: None,
                    node_limit: u32::MAX,
                    cpu_limit: None,
                    memory_limit: None,
                };
                let policy = Policy { capacity: options.capacity, ..options.policy.clone() };
                let (decision, next) = plan(&policy, &state, &input);
                state = next;
                decision.wanted
            }
        };
        last = Some(wanted);
        if let Some(s) = supply.get_mut(u + horizon) {
            *s = wanted;
        }
    }
    supply
}

/// Headroom of the direct policy: a quantile of the newest errors at the decision's horizon.
struct Residuals {
    /// By the window that they are of.
    errors: Vec<Option<f64>>,
    kept: usize,
    level: Option<f64>,
}

impl Residuals {
    fn new(trace: &Trace, outlook: &Outlook, horizon: usize, options: &Options) -> Self {
        let error = |t: usize| {
            let made = t.checked_sub(horizon).and_then(|u| outlook.made.get(u))?;
            Some(trace.values[t]? - made.point?)
        };
        let season = outlook.seasons[0].max(options.season.unwrap_or(0));
        Self {
            errors: (0..trace.values.len()).map(error).collect(),
            kept: (7 * season).clamp(100, 576),
            level: options.headroom,
        }
    }

    /// Of a decision at the end of window `u`.
    fn headroom(&self, u: usize) -> f64 {
        let Some(level) = self.level else { return 0.0 };
        let mut newest: Vec<f64> = self.errors[..=u].iter().rev().flatten().take(self.kept).copied().collect();
        newest.sort_unstable_by(f64::total_cmp);
        if newest.len() < 10 { 0.0 } else { interpolated(&newest, level).max(0.0) }
    }
}

/// One predictor and policy, scored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Errors of the next window's forecast.
    #[serde(flatten)]
    pub forecast: ForecastScore,
    /// Mean pinball loss of the headroom's quantile at the decision's horizon, in requests.
    pub pinball: Option<f64>,
    /// Share of windows that it covered.
    pub coverage: Option<f64>,
    /// How well the supply followed the demand.
    #[serde(flatten)]
    pub elasticity: ElasticityScore,
    /// Mean milliseconds of a refit.
    pub fit_ms: f64,
    /// Longest of them.
    pub fit_longest_ms: f64,
    /// How the supply was made.
    pub policy: PolicyKind,
    /// Level of the headroom.
    pub headroom: Option<f64>,
    /// Season in windows, 0 where none was found.
    pub season: usize,
    /// Longer season.
    pub season_longer: usize,
    /// Order, of a single SARIMA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The model at the end, in a sentence.
    pub model: String,
}

/// Scores an outlook under a policy.
#[must_use]
pub fn score(trace: &Trace, outlook: &Outlook, options: &Options, policy: PolicyKind) -> Row {
    let supply = supply(trace, outlook, options, policy);
    let upper = upper(outlook, options);
    let quantiles =
        options.headroom.and_then(|level| crate::score::quantiles(&trace.values, &upper, options.start, level));
    Row {
        forecast: crate::score::forecasts(&trace.values, &outlook.next, options.start),
        pinball: quantiles.map(|q| q.0),
        coverage: quantiles.map(|q| q.1),
        elasticity: crate::score::elasticity(&trace.values, &supply, options.start, options.capacity, trace.window_s),
        fit_ms: outlook.fits.mean_ms,
        fit_longest_ms: outlook.fits.longest_ms,
        policy,
        headroom: options.headroom,
        season: outlook.seasons[0],
        season_longer: outlook.seasons[1],
        order: outlook.order.clone(),
        model: outlook.explanation.clone(),
    }
}

/// Upper quantiles at the decision's horizon, by the window that they are about.
#[must_use]
pub fn upper(outlook: &Outlook, options: &Options) -> Vec<Option<f64>> {
    let horizon = options.delay + 1;
    let of =
        |t: usize| t.checked_sub(horizon).and_then(|u| outlook.told(u, options.headroom)).and_then(|told| told.upper);
    (0..outlook.made.len()).map(of).collect()
}
