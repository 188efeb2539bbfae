//! One horizon of a predictor: what was forecast, what came of it, and what that teaches.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::conformal::Errors;
use super::mixture::Mixture;

/// What is left of an error's weight after each window: a memory of about 200 windows.
const FADING: f64 = 0.995;
/// Windows whose coverage is counted: so few that a break shows soon.
const COVERAGE_FADING: f64 = 0.98;

/// Chance of what is no chance any more, with room for the rounding of 0.1².
const SURPRISE: f64 = 0.01 + 1e-9;

/// Forecasts made at one moment for one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// By model.
    pub forecasts: Vec<Option<f64>>,
    pub mixed: f64,
    /// Requests that were told to be exceeded with the target's probability only.
    pub upper: Option<f64>,
    /// What the naive forecast was.
    pub naive: f64,
}

/// Forecasts of the same distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Track {
    /// Windows ahead.
    pub horizon: usize,
    /// Whether the best model alone speaks.
    pub best_only: bool,
    pub mixture: Mixture,
    pub errors: Errors,
    pub skill: Skill,
    /// Made and not due yet, oldest first.
    pub pending: VecDeque<Pending>,
    /// Squared errors by model, faded.
    losses: Vec<Faded>,
}

/// A faded sum with the weight that it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Faded {
    sum: f64,
    weight: f64,
}

impl Faded {
    fn add(&mut self, value: f64, fading: f64) {
        self.sum = fading.mul_add(self.sum, value);
        self.weight = fading.mul_add(self.weight, 1.0);
    }

    fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    fn cut(&mut self, to: f64) {
        self.sum *= to;
        self.weight *= to;
    }
}

/// How good the forecasts were, lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Skill {
    /// Forecasts that were scored, at all.
    pub scored: u64,
    own: Faded,
    naive: Faded,
    covered: Faded,
    /// Windows that exceeded the upper quantile, one after the other, up to the newest.
    exceeded: u32,
}

impl Skill {
    /// Root of the mean squared error, in requests.
    #[must_use]
    pub fn rmse(&self) -> Option<f64> {
        self.own.mean().map(f64::sqrt)
    }

    /// The same of the naive forecast.
    #[must_use]
    pub fn naive_rmse(&self) -> Option<f64> {
        self.naive.mean().map(f64::sqrt)
    }

    /// Share of windows in which no more came than the upper quantile said.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        self.covered.mean()
    }

    /// Whether fewer windows are covered than `level`, by more than chance explains: three deviations over the last
    /// windows, or so many in a row that exceed it as happens once in a hundred times.
    #[must_use]
    pub fn is_coverage_broken(&self, level: f64) -> bool {
        if self.exceeded > 0 && (1.0 - level).powf(f64::from(self.exceeded)) <= SURPRISE {
            return true;
        }
        let n = self.covered.weight;
        let allowed = 3.0 * (level * (1.0 - level) / n.max(1.0)).sqrt() + 0.5 / n.max(1.0);
        n >= 10.0 && self.coverage().is_some_and(|c| c < level - allowed)
    }

    /// Whether it was better than the naive forecast.
    #[must_use]
    pub fn beats_naive(&self) -> bool {
        matches!((self.own.mean(), self.naive.mean()), (Some(own), Some(naive)) if own < naive || own == 0.0)
    }
}

impl Track {
    pub fn new(horizon: usize, experts: usize, best_only: bool) -> Self {
        Self {
            horizon,
            best_only,
            mixture: Mixture::new(experts),
            errors: Errors::default(),
            skill: Skill::default(),
            pending: VecDeque::new(),
            losses: vec![Faded::default(); experts],
        }
    }

    /// The weights for these forecasts.
    pub fn weights(&self, forecasts: &[Option<f64>]) -> Vec<f64> {
        if !self.best_only {
            return self.mixture.weights(forecasts);
        }
        let present = (0..forecasts.len()).filter(|i| forecasts[*i].is_some());
        // The first of equals: models stand in the order of their simplicity.
        let loss = |i: usize| self.losses[i].mean().unwrap_or(f64::MAX);
        let Some(best) = present.min_by(|a, b| loss(*a).total_cmp(&loss(*b))) else { return Vec::new() };
        (0..forecasts.len()).map(|i| if i == best { 1.0 } else { 0.0 }).collect()
    }

    /// The forecast that these become together.
    pub fn mix(&self, forecasts: &[Option<f64>]) -> Option<f64> {
        let weights = self.weights(forecasts);
        let terms = forecasts.iter().zip(&weights).filter_map(|(f, w)| f.map(|f| f * w));
        (!weights.is_empty()).then(|| terms.sum())
    }

    /// The forecast whose window is the next one to come.
    pub fn take_due(&mut self) -> Option<Pending> {
        if self.pending.len() < self.horizon { None } else { self.pending.pop_front() }
    }

    /// Learns what came of a forecast; keeps the newest `most` errors.
    pub fn learn(&mut self, due: &Pending, value: f64, most: usize) {
        self.mixture.learn(&due.forecasts, due.mixed, value);
        for (loss, forecast) in self.losses.iter_mut().zip(&due.forecasts) {
            if let Some(forecast) = forecast {
                loss.add((value - forecast).powi(2), FADING);
            }
        }
        self.errors.push(due.mixed, value, most);
        self.skill.scored += 1;
        self.skill.own.add((value - due.mixed).powi(2), FADING);
        self.skill.naive.add((value - due.naive).powi(2), FADING);
        if let Some(upper) = due.upper {
            self.skill.exceeded = if value > upper { self.skill.exceeded.saturating_add(1) } else { 0 };
            self.skill.covered.add(f64::from(u8::from(value <= upper)), COVERAGE_FADING);
        }
    }

    /// Shortens the memory at a change point.
    pub fn cut(&mut self) {
        self.mixture.cut();
        self.errors.cut();
        for loss in &mut self.losses {
            loss.cut(0.1);
        }
    }
}
