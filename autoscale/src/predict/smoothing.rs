//! Holt–Winters: additive exponential smoothing with a damped trend and up to two seasons, errors corrected by their
//! autocorrelation (Taylor, "Short-term electricity demand forecasting using double seasonal exponential smoothing",
//! JORS 54, 2003), in its error-correction form (Hyndman et al., "Forecasting with Exponential Smoothing", 2008).

use serde::{Deserialize, Serialize};

use super::Model;
use super::optimise::{Limits, minimise};

/// The weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Weights {
    /// α, of the level.
    level: f64,
    /// β, of the trend.
    trend: f64,
    /// φ: what is left of the trend after a window.
    damping: f64,
    /// γ of each season.
    seasons: [f64; 2],
    /// ρ, autocorrelation of the errors.
    errors: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    level: f64,
    trend: f64,
    /// Effects of each season, by place in it; the next window's is at `at`.
    effects: [Vec<f64>; 2],
    at: [usize; 2],
    /// Last error before the correction.
    error: f64,
}

/// The model; a season of length 0 is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoltWinters {
    seasons: [usize; 2],
    fitted: Option<(Weights, State)>,
}

impl State {
    /// From the first seasons of a window: means by place, what they do not explain by place in the longer season.
    fn initial(seasons: [usize; 2], window: &[f64]) -> Self {
        let [first, second] = seasons;
        let span = (3 * first.max(1)).max(second).min(window.len());
        let level = mean(&window[..span]);
        let mut rest: Vec<f64> = window[..span].iter().map(|v| v - level).collect();
        let mut effects = [Vec::new(), Vec::new()];
        for (effects, season) in effects.iter_mut().zip(seasons).filter(|(_, season)| *season > 0) {
            *effects = (0..season)
                .map(|place| mean(&rest.iter().skip(place).step_by(season).copied().collect::<Vec<_>>()))
                .collect();
            for (t, v) in rest.iter_mut().enumerate() {
                *v -= effects[t % season];
            }
        }
        Self { level, trend: 0.0, effects, at: [0, 0], error: 0.0 }
    }

    /// Effects of both seasons `ahead` windows behind the next.
    fn season(&self, ahead: usize) -> f64 {
        let effect = |i: usize| {
            let effects: &Vec<f64> = &self.effects[i];
            if effects.is_empty() { 0.0 } else { effects[(self.at[i] + ahead) % effects.len()] }
        };
        effect(0) + effect(1)
    }

    fn step(&mut self, weights: &Weights, value: f64) -> f64 {
        let base = self.level + weights.damping * self.trend + self.season(0);
        let innovation = value - base - weights.errors * self.error;
        self.level += weights.level.mul_add(innovation, weights.damping * self.trend);
        self.trend = weights.trend.mul_add(innovation, weights.damping * self.trend);
        for i in 0..2 {
            let length = self.effects[i].len();
            if length > 0 {
                self.effects[i][self.at[i]] += weights.seasons[i] * innovation;
                self.at[i] = (self.at[i] + 1) % length;
            }
        }
        self.error = value - base;
        innovation
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Any number → between 0 and 1.
fn squash(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl HoltWinters {
    /// A model without estimates.
    #[must_use]
    pub const fn new(seasons: [usize; 2]) -> Self {
        Self { seasons, fitted: None }
    }

    /// From the vector that the optimiser walks in.
    fn weights(&self, x: &[f64]) -> Weights {
        let season = |i: usize| if self.seasons[i] > 0 { squash(x[4 + i]) } else { 0.0 };
        Weights {
            level: squash(x[0]),
            trend: 0.5 * squash(x[1]),
            damping: squash(x[2]),
            seasons: [season(0), season(1)],
            errors: 2.0f64.mul_add(squash(x[3]), -1.0) * 0.98,
        }
    }
}

impl Model for HoltWinters {
    fn label(&self) -> String {
        match self.seasons {
            [0, _] => "holt-winters".to_owned(),
            [m, 0] => format!("holt-winters{m}"),
            [m, n] => format!("holt-winters{m}+{n}"),
        }
    }

    fn observe(&mut self, history: &[f64]) {
        if let (Some((weights, state)), Some(newest)) = (&mut self.fitted, history.last()) {
            state.step(weights, *newest);
        }
    }

    fn path(&self, _history: &[f64], horizon: usize) -> Option<Vec<f64>> {
        let (weights, state) = self.fitted.as_ref()?;
        let (mut trend, mut damped, mut error) = (0.0, state.trend, state.error);
        let path = (0..horizon).map(|h| {
            damped *= weights.damping;
            trend += damped;
            error *= weights.errors;
            state.level + trend + state.season(h) + error
        });
        Some(path.collect())
    }

    fn fit(&mut self, window: &[f64], history: &[f64]) {
        let longest = self.seasons[0].max(self.seasons[1]);
        // The estimates need to see what they smooth come back.
        let window = if window.len() < 2 * longest + 12 { history } else { window };
        if window.len() < 2 * longest + 12 {
            return;
        }
        let initial = State::initial(self.seasons, window);
        let scored = longest.min(window.len() / 2);
        let cost = |x: &[f64]| {
            let (weights, mut state) = (self.weights(x), initial.clone());
            let errors = window.iter().map(|v| state.step(&weights, *v).powi(2));
            errors.skip(scored).sum::<f64>()
        };
        let start = [0.0, -2.0, 1.0, 0.5, -1.5, -1.5];
        let used = if self.seasons[1] > 0 {
            6
        } else if self.seasons[0] > 0 {
            5
        } else {
            4
        };
        let limits = Limits { evaluations: 60 * (used + 1), tolerance: 1e-7 };
        let (x, _) = minimise(&start[..used], 1.0, limits, cost);
        let (weights, mut state) = (self.weights(&x), initial);
        for value in window {
            state.step(&weights, *value);
        }
        if state.level.is_finite() && state.trend.is_finite() {
            self.fitted = Some((weights, state));
        }
    }

    fn explain(&self) -> String {
        match &self.fitted {
            None => "not fitted yet".to_owned(),
            Some((w, state)) => format!(
                "level {:.1}, trend {:+.2}; α {:.2}, β {:.2}, φ {:.2}, γ {:.2} {:.2}, ρ {:.2}",
                state.level, state.trend, w.level, w.trend, w.damping, w.seasons[0], w.seasons[1], w.errors
            ),
        }
    }
}
