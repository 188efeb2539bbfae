//! Weights of several models' forecasts, learnt online: ML-Poly of Gaillard, Stoltz and van Erven, "A second-order
//! bound with excess losses" (COLT 2014), on the gradient of the squared error, so that the mixture competes with the
//! best convex combination. Regrets fade, so that it follows changes.

use serde::{Deserialize, Serialize};

/// What is left of a regret after each window: a memory of about 200 windows.
const FADING: f64 = 0.995;
/// What is left of it at a change point.
const CUT: f64 = 0.1;

/// Weights for one horizon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mixture {
    /// How much better each model would have been than the mixture.
    regrets: Vec<f64>,
    /// Sum of the squares of what the regrets are made of.
    squares: Vec<f64>,
}

impl Mixture {
    /// Before anything was seen of `experts` models.
    pub fn new(experts: usize) -> Self {
        Self { regrets: vec![0.0; experts], squares: vec![0.0; experts] }
    }

    /// Weights that sum to 1 over the models that forecast; empty where none does.
    pub fn weights(&self, forecasts: &[Option<f64>]) -> Vec<f64> {
        let with = |weigh: &dyn Fn(usize) -> f64| -> Option<Vec<f64>> {
            let weights: Vec<f64> =
                forecasts.iter().enumerate().map(|(i, f)| if f.is_some() { weigh(i) } else { 0.0 }).collect();
            let sum: f64 = weights.iter().sum();
            (sum > 0.0 && sum.is_finite()).then(|| weights.iter().map(|w| w / sum).collect())
        };
        let learnt = |i: usize| self.regrets[i].max(0.0) / (self.squares[i] + f64::MIN_POSITIVE);
        with(&learnt).or_else(|| with(&|_| 1.0)).unwrap_or_default()
    }

    /// Learns that these forecasts, mixed to `mixed`, were of `value`.
    pub fn learn(&mut self, forecasts: &[Option<f64>], mixed: f64, value: f64) {
        let slope = 2.0 * (mixed - value);
        for (i, forecast) in forecasts.iter().enumerate() {
            let gained = forecast.map_or(0.0, |f| slope * (mixed - f));
            self.regrets[i] = FADING.mul_add(self.regrets[i], gained);
            self.squares[i] = FADING.mul_add(self.squares[i], gained * gained);
        }
    }

    /// What was learnt before a change point counts little.
    pub fn cut(&mut self) {
        for (regret, squares) in self.regrets.iter_mut().zip(&mut self.squares) {
            *regret *= CUT;
            *squares *= CUT;
        }
    }
}
