//! The next window will be as the last one was: the bar that any other model has to clear.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Predictor, point, usable};
use crate::model::{Forecast, Window};

const NAME: &str = "naive";
const VERSION: u32 = 1;

/// Forecasts the last counted window.
#[derive(Debug, Clone, Default)]
pub struct Naive {
    last: Option<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    model: String,
    version: u32,
    last: Option<f64>,
}

impl Predictor for Naive {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, window: &Window) {
        self.last = usable(window).or(self.last);
    }

    fn forecast(&self, _horizon: usize) -> Option<Forecast> {
        self.last.map(|last| point(last, NAME))
    }

    fn explain(&self) -> String {
        match self.last {
            Some(last) => format!("naive: the last counted window had {last:.1} requests, and so will the next"),
            None => "naive: no window was counted yet".to_owned(),
        }
    }

    fn save(&self) -> Value {
        let state = State { model: NAME.to_owned(), version: VERSION, last: self.last };
        serde_json::to_value(state).unwrap_or(Value::Null)
    }

    fn restore(&mut self, state: &Value) -> bool {
        let Ok(state) = State::deserialize(state) else { return false };
        let sound = state.last.is_none_or(|last| last.is_finite() && last >= 0.0);
        if state.model != NAME || state.version != VERSION || !sound {
            return false;
        }
        self.last = state.last;
        true
    }
}
