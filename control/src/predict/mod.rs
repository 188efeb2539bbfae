//! Windows → forecast. A predictor knows requests only: no limits, no replicas, no clock, no I/O.

mod ema;
mod kind;
mod naive;

#[cfg(test)]
mod tests;

pub use ema::Ema;
pub use kind::{PredictorKind, build};
pub use naive::Naive;

use crate::model::{Forecast, Window};

/// A model of one service's load.
pub trait Predictor: Send {
    /// Short fixed name: configuration value and metric label.
    fn name(&self) -> &'static str;

    /// Takes one closed window, in order. A window without a count tells that time went by, not that
    /// nothing was asked.
    fn observe(&mut self, window: &Window);

    /// What to expect of the window `horizon` windows ahead (1 is the next one). `None` before there is
    /// enough history.
    fn forecast(&self, horizon: usize) -> Option<Forecast>;

    /// One sentence on how the forecast comes about, with its figures.
    fn explain(&self) -> String;

    /// The model's state, to be kept over a restart.
    fn save(&self) -> serde_json::Value;

    /// Takes back what [`Predictor::save`] gave. What does not fit is ignored and `false` returned.
    fn restore(&mut self, state: &serde_json::Value) -> bool;
}

/// The requests of a window where they can be used: counted, finite and not negative.
fn usable(window: &Window) -> Option<f64> {
    window.requests.filter(|r| r.is_finite() && *r >= 0.0)
}

/// A forecast without quantiles.
fn point(mean: f64, model: &str) -> Forecast {
    Forecast { mean, quantiles: Vec::new(), model: model.to_owned() }
}
