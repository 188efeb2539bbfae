//! Quantiles of forecasts from the errors that were made at the same horizon: split conformal prediction over the
//! newest errors. Errors are taken in units of √forecast, for counts spread the wider the more there are.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Least errors that a quantile rests on.
const LEAST: usize = 10;
/// Errors that are left at a change point.
const LEFT: usize = 288;

/// Errors of one horizon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Errors {
    /// (value − forecast) / spread, newest last.
    scores: VecDeque<f64>,
}

/// What errors are measured in: never less than a spread of one request.
fn spread(forecast: f64) -> f64 {
    forecast.max(1.0).sqrt()
}

impl Errors {
    /// Takes one error; keeps the newest `most`.
    pub fn push(&mut self, forecast: f64, value: f64, most: usize) {
        while self.scores.len() >= most.max(LEAST) {
            self.scores.pop_front();
        }
        self.scores.push_back((value - forecast) / spread(forecast));
    }

    /// Forgets all but the newest.
    pub fn cut(&mut self) {
        while self.scores.len() > LEFT {
            self.scores.pop_front();
        }
    }

    /// Requests at each of `levels` (rising) around `forecast`; `None` where there are too few errors yet.
    pub fn quantiles(&self, forecast: f64, levels: &[f64]) -> Option<Vec<f64>> {
        if self.scores.len() < LEAST {
            return None;
        }
        let mut sorted: Vec<f64> = self.scores.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(levels.iter().map(|level| spread(forecast).mul_add(interpolated(&sorted, *level), forecast)).collect())
    }
}

/// A quantile of sorted values, interpolated linearly (type 7 of Hyndman and Fan, The American Statistician 50, 1996).
pub(crate) fn interpolated(sorted: &[f64], level: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = level.clamp(0.0, 1.0) * last as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (at - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_errors() {
        let mut errors = Errors::default();
        for i in 0..=100 {
            assert_eq!(errors.quantiles(100.0, &[0.5]).is_some(), i >= 10);
            errors.push(100.0, 50.0 + f64::from(i), 101);
        }
        assert_eq!(errors.quantiles(100.0, &[0.0, 0.5, 0.9, 1.0]).unwrap(), [50.0, 100.0, 140.0, 150.0]);
        // Four times as much spreads twice as far.
        assert_eq!(errors.quantiles(400.0, &[0.9]).unwrap(), [480.0]);
        errors.push(100.0, 1e6, 11);
        errors.cut();
        assert_eq!(errors.quantiles(100.0, &[0.0]).unwrap(), [141.0]);
    }
}
