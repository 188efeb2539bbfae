//! Which models there are.

use super::{Ema, Naive, Predictor};

/// The models that a service can be predicted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PredictorKind {
    /// The next window will be as the last one was.
    Naive,
    /// Exponential moving average over n = 3 windows, the paper's first model.
    #[default]
    Ema,
}

impl PredictorKind {
    /// Every model.
    pub const ALL: [Self; 2] = [Self::Naive, Self::Ema];

    /// Short fixed name: configuration value and metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Ema => "ema",
        }
    }
}

/// A new predictor without history.
#[must_use]
pub fn build(kind: PredictorKind) -> Box<dyn Predictor> {
    match kind {
        PredictorKind::Naive => Box::new(Naive::default()),
        PredictorKind::Ema => Box::new(Ema::default()),
    }
}
