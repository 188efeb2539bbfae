//! The models that need no estimation: the bar that others have to clear.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Model;

/// The next window will be as the last one was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naive;

impl Model for Naive {
    fn label(&self) -> String {
        "naive".to_owned()
    }

    fn observe(&mut self, _history: &[f64]) {}

    fn path(&self, history: &[f64], horizon: usize) -> Option<Vec<f64>> {
        history.last().map(|last| vec![*last; horizon])
    }

    fn explain(&self) -> String {
        "the last counted window".to_owned()
    }
}

/// The next window will be as the one a season before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeasonalNaive {
    /// Windows per season.
    pub season: usize,
}

impl Model for SeasonalNaive {
    fn label(&self) -> String {
        format!("snaive{}", self.season)
    }

    fn observe(&mut self, _history: &[f64]) {}

    fn path(&self, history: &[f64], horizon: usize) -> Option<Vec<f64>> {
        let season = &history[history.len().checked_sub(self.season)?..];
        Some((0..horizon).map(|h| season[h % self.season]).collect())
    }

    fn explain(&self) -> String {
        format!("the window {} windows earlier", self.season)
    }
}

/// The paper's moving average: EMA₀ = R₀; EMAₜ = 2/(n+1) · Rₜ + (n−1)/(n+1) · EMAₜ₋₁. The forecast of every horizon is
/// EMAₜ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ema {
    n: NonZeroU32,
    average: Option<f64>,
}

impl Ema {
    /// The paper's n = 3.
    pub const PAPER: Self = Self::new(NonZeroU32::MIN.saturating_add(2));

    /// An average over about `n` windows.
    #[must_use]
    pub const fn new(n: NonZeroU32) -> Self {
        Self { n, average: None }
    }
}

impl Model for Ema {
    fn label(&self) -> String {
        format!("ema{}", self.n)
    }

    fn observe(&mut self, history: &[f64]) {
        let Some(newest) = history.last() else { return };
        let weight = 2.0 / (f64::from(self.n.get()) + 1.0);
        let average = match self.average {
            None => *newest,
            Some(before) => weight * newest + (1.0 - weight) * before,
        };
        // Between the two by its definition; rounding must not leave that.
        let before = self.average.unwrap_or(*newest);
        self.average = Some(average.clamp(before.min(*newest), before.max(*newest)));
    }

    fn path(&self, _history: &[f64], horizon: usize) -> Option<Vec<f64>> {
        self.average.map(|average| vec![average; horizon])
    }

    fn explain(&self) -> String {
        match self.average {
            Some(average) => format!("the moving average over n = {} windows is {average:.1}", self.n),
            None => "no window was counted yet".to_owned(),
        }
    }
}
