//! Any of the models, as one value that can be stored.

use serde::{Deserialize, Serialize};

use super::{Ema, HoltWinters, Model, Naive, Regression, Sarima, SeasonalNaive};

/// One of the models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Expert {
    /// The last window.
    Naive(Naive),
    /// The paper's moving average.
    Ema(Ema),
    /// The window a season ago.
    SeasonalNaive(SeasonalNaive),
    /// Exponential smoothing.
    HoltWinters(HoltWinters),
    /// Regression on earlier windows.
    Regression(Regression),
    /// Seasonal ARIMA.
    Sarima(Box<Sarima>),
}

impl Expert {
    fn model(&self) -> &dyn Model {
        match self {
            Self::Naive(model) => model,
            Self::Ema(model) => model,
            Self::SeasonalNaive(model) => model,
            Self::HoltWinters(model) => model,
            Self::Regression(model) => model,
            Self::Sarima(model) => &**model,
        }
    }

    fn model_mut(&mut self) -> &mut dyn Model {
        match self {
            Self::Naive(model) => model,
            Self::Ema(model) => model,
            Self::SeasonalNaive(model) => model,
            Self::HoltWinters(model) => model,
            Self::Regression(model) => model,
            Self::Sarima(model) => &mut **model,
        }
    }
}

impl Model for Expert {
    fn label(&self) -> String {
        self.model().label()
    }

    fn observe(&mut self, history: &[f64]) {
        self.model_mut().observe(history);
    }

    fn path(&self, history: &[f64], horizon: usize) -> Option<Vec<f64>> {
        self.model().path(history, horizon)
    }

    fn fit(&mut self, window: &[f64], history: &[f64]) {
        self.model_mut().fit(window, history);
    }

    fn explain(&self) -> String {
        self.model().explain()
    }
}
