//! The exponential moving average, the paper's first model.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Predictor, point, usable};
use crate::model::{Forecast, Window};

const NAME: &str = "ema";
const VERSION: u32 = 1;
/// The paper's n.
const DEFAULT_N: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);

/// EMA₀ = R₀; EMAₜ = 2/(n+1) · Rₜ + (n−1)/(n+1) · EMAₜ₋₁. The forecast of every horizon is EMAₜ.
///
/// A window that was not counted leaves the average as it is.
#[derive(Debug, Clone)]
pub struct Ema {
    n: NonZeroU32,
    average: Option<f64>,
    last: Option<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    model: String,
    version: u32,
    n: NonZeroU32,
    average: Option<f64>,
    last: Option<f64>,
}

impl Ema {
    /// An average over about `n` windows, without history.
    #[must_use]
    pub const fn new(n: NonZeroU32) -> Self {
        Self { n, average: None, last: None }
    }

    fn weight(&self) -> f64 {
        2.0 / (f64::from(self.n.get()) + 1.0)
    }
}

impl Default for Ema {
    fn default() -> Self {
        Self::new(DEFAULT_N)
    }
}

impl Predictor for Ema {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, window: &Window) {
        let Some(requests) = usable(window) else { return };
        let weight = self.weight();
        let average = match self.average {
            None => requests,
            Some(before) => weight * requests + (1.0 - weight) * before,
        };
        // Between the two by its definition; rounding must not leave that.
        self.average = Some(average.min(self.average.unwrap_or(requests).max(requests)));
        self.last = Some(requests);
    }

    fn forecast(&self, _horizon: usize) -> Option<Forecast> {
        self.average.map(|average| point(average, NAME))
    }

    fn explain(&self) -> String {
        match (self.average, self.last) {
            (Some(average), Some(last)) => format!(
                "ema: the moving average over n = {} windows is {average:.1} requests, of which the last window's {last:.1} \
                 weigh {:.2}",
                self.n,
                self.weight()
            ),
            _ => "ema: no window was counted yet".to_owned(),
        }
    }

    fn save(&self) -> Value {
        let state =
            State { model: NAME.to_owned(), version: VERSION, n: self.n, average: self.average, last: self.last };
        serde_json::to_value(state).unwrap_or(Value::Null)
    }

    fn restore(&mut self, state: &Value) -> bool {
        let Ok(state) = State::deserialize(state) else { return false };
        let sound = |value: Option<f64>| value.is_none_or(|v| v.is_finite() && v >= 0.0);
        let fits = state.model == NAME && state.version == VERSION && state.n == self.n;
        if !fits || !sound(state.average) || !sound(state.last) || state.average.is_some() != state.last.is_some() {
            return false;
        }
        self.average = state.average;
        self.last = state.last;
        true
    }
}
