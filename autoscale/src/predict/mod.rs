//! Windows → forecast. Knows requests only: no limits, no replicas, no clock, no I/O.
//!
//! A [`Model`] gives points; a [`Predictor`] mixes one or several, measures their errors at each horizon, and so knows
//! quantiles and whether it may be trusted.

mod change;
mod conformal;
mod expert;
mod kind;
mod mixture;
#[cfg(test)]
mod noise;
mod optimise;
mod predictor;
mod regression;
mod sarima;
mod search;
pub mod season;
mod simple;
mod smoothing;
mod track;

pub use change::Change;
pub use expert::Expert;
pub use kind::{PredictorKind, WrongKind};
pub use predictor::{Predictor, Settings, Trust};
pub use regression::Regression;
pub use sarima::{
    Estimate, Fitted, Likelihood, Order, Parameters, Sarima, WrongOrder, conditional, maximum_likelihood,
};
pub use search::stepwise;
pub use simple::{Ema, Naive, SeasonalNaive};
pub use smoothing::HoltWinters;
pub use track::Skill;

pub(crate) use conformal::interpolated;
pub(crate) use predictor::MOST_COUNTED;

use serde::{Deserialize, Serialize};

/// What is expected of one coming window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Expected requests; finite and not negative.
    pub mean: f64,
    /// Pairs of level (0–1) and requests, rising in both; empty where there are too few errors to tell.
    pub quantiles: Vec<(f64, f64)>,
    /// The model's short name.
    pub model: String,
}

/// What runs is left alone while its chance of being too few is at most so many times that which is aimed at, and
/// while that of fewer would be more than so many times.
const ALIKE: [f64; 2] = [1.4, 0.8];

impl Forecast {
    /// The levels between which the chance to be exceeded is about that of `level`.
    pub(crate) fn around(level: f64) -> [f64; 2] {
        ALIKE.map(|times| (1.0 - times * (1.0 - level)).max(0.0))
    }

    /// Requests at a level, interpolated between those that are told; `None` beyond them.
    #[must_use]
    pub fn at(&self, level: f64) -> Option<f64> {
        between(self.quantiles.iter().map(|(l, q)| (*l, *q)), level)
    }

    /// The level of so many requests, interpolated likewise.
    #[must_use]
    pub fn level_of(&self, requests: f64) -> Option<f64> {
        between(self.quantiles.iter().map(|(l, q)| (*q, *l)), requests)
    }

    /// Requests whose chance to be exceeded is about that of `demand`: from, to.
    #[must_use]
    pub fn alike(&self, demand: f64) -> Option<(f64, f64)> {
        let [low, high] = Self::around(self.level_of(demand)?);
        Some((self.at(low)?.min(demand), self.at(high)?.max(demand)))
    }
}

/// `y` at `x` on the line through points whose `x` do not fall.
fn between(points: impl Iterator<Item = (f64, f64)>, x: f64) -> Option<f64> {
    let mut before: Option<(f64, f64)> = None;
    for (next, y) in points {
        if x <= next {
            return match before {
                Some((last, from)) => Some(from + (y - from) * (x - last) / (next - last)),
                None => (x == next).then_some(y),
            };
        }
        before = Some((next, y));
    }
    None
}

/// A model of one service's load. All models share one history of windows, oldest first, whose front may be cut off
/// as time goes on; what a model keeps besides is its own.
pub trait Model: Send {
    /// Short name, with what distinguishes it from others of its kind.
    fn label(&self) -> String;

    /// Takes the newest value of `history`.
    fn observe(&mut self, history: &[f64]);

    /// Expected next `horizon` values, as the model gives them: they may be negative. `None` before there is enough
    /// history.
    fn path(&self, history: &[f64], horizon: usize) -> Option<Vec<f64>>;

    /// Estimates the parameters from `window`, the newest part of `history`, and goes on from its end. Models
    /// without parameters need not.
    fn fit(&mut self, _window: &[f64], _history: &[f64]) {}

    /// Its figures, in words.
    fn explain(&self) -> String;
}

/// Root of the mean square.
pub(crate) fn rms(errors: &[f64]) -> f64 {
    (errors.iter().map(|e| e * e).sum::<f64>() / errors.len().max(1) as f64).sqrt()
}
