//! Which predictors there are, and the models that each consists of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Ema, Estimate, Expert, HoltWinters, Naive, Order, Regression, Sarima, SeasonalNaive, search};

/// What a service is predicted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PredictorKind {
    /// The next window will be as the last one was.
    Naive,
    /// Exponential moving average over n = 3 windows, the paper's first model.
    #[default]
    Ema,
    /// The window a season ago; the last one while no season is known.
    SeasonalNaive,
    /// Holt–Winters.
    HoltWinters,
    /// ARIMA(1,1,1).
    Arima,
    /// SARIMA(1,1,1)(0,1,1)m, by exact likelihood up to moderate seasons; ARIMA(1,1,1) while no season is known.
    Sarima,
    /// SARIMA of a given order.
    Order(Order),
    /// SARIMA of the order that the paper's stepwise search by validation error finds.
    Stepwise,
    /// Of all models the one whose errors were least lately.
    Best,
    /// A combination of all models, weighted by their errors lately.
    Select,
}

/// Longest season for which likelihoods are computed exactly: the cost of a fit grows with it.
const MOST_EXACT: usize = 60;

impl PredictorKind {
    /// Every kind that has a name of its own.
    pub const NAMED: [Self; 9] = [
        Self::Naive,
        Self::Ema,
        Self::SeasonalNaive,
        Self::HoltWinters,
        Self::Arima,
        Self::Sarima,
        Self::Stepwise,
        Self::Best,
        Self::Select,
    ];

    /// Short fixed name: configuration value and metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Ema => "ema",
            Self::SeasonalNaive => "snaive",
            Self::HoltWinters => "holt-winters",
            Self::Arima => "arima",
            Self::Sarima | Self::Order(_) => "sarima",
            Self::Stepwise => "stepwise",
            Self::Best => "best",
            Self::Select => "select",
        }
    }

    /// Whether it looks for a season in the history.
    pub(super) const fn wants_season(self) -> bool {
        !matches!(self, Self::Naive | Self::Ema | Self::Arima | Self::Order(_))
    }

    /// Whether it has parameters to estimate.
    pub(super) const fn is_estimated(self) -> bool {
        !matches!(self, Self::Naive | Self::Ema | Self::SeasonalNaive)
    }

    /// Whether it chooses among several models.
    pub(crate) const fn is_many(self) -> bool {
        matches!(self, Self::Best | Self::Select)
    }

    /// Its models, not fitted yet, for these seasons (0: none).
    pub(super) fn experts(self, seasons: [usize; 2], history: &[f64]) -> Vec<Expert> {
        let sarima = |order, estimate| Expert::Sarima(Box::new(Sarima::new(order, estimate)));
        let [m, longer] = seasons;
        let estimate = if m <= MOST_EXACT { Estimate::Exact } else { Estimate::Conditional };
        let arima = || sarima(Order::plain(1, 1, 1), Estimate::Conditional);
        match self {
            Self::Naive => vec![Expert::Naive(Naive)],
            Self::Ema => vec![Expert::Ema(Ema::PAPER)],
            Self::SeasonalNaive if m > 0 => vec![Expert::SeasonalNaive(SeasonalNaive { season: m })],
            Self::SeasonalNaive => vec![Expert::Naive(Naive)],
            Self::HoltWinters => vec![Expert::HoltWinters(HoltWinters::new(seasons))],
            Self::Sarima if m > 0 => vec![sarima(Order::seasonal((1, 1, 1), (0, 1, 1), m), estimate)],
            Self::Arima | Self::Sarima => vec![arima()],
            Self::Order(order) => vec![sarima(order, Estimate::Conditional)],
            Self::Stepwise => {
                let order = search::stepwise(history, m).unwrap_or(Order::plain(1, 1, 1));
                vec![sarima(order, Estimate::Conditional)]
            }
            Self::Best | Self::Select => all(m, longer, estimate, history),
        }
    }
}

fn all(m: usize, longer: usize, estimate: Estimate, history: &[f64]) -> Vec<Expert> {
    let sarima = |order, estimate| Expert::Sarima(Box::new(Sarima::new(order, estimate)));
    let mut experts = vec![
        Expert::Naive(Naive),
        Expert::Ema(Ema::PAPER),
        Expert::HoltWinters(HoltWinters::new([0, 0])),
        Expert::Regression(Regression::new([0, 0])),
        sarima(Order::plain(1, 1, 1), Estimate::Conditional),
        sarima(Order::plain(2, 1, 2), Estimate::Conditional),
    ];
    let mut orders = Vec::new();
    if m > 0 {
        experts.extend([
            Expert::SeasonalNaive(SeasonalNaive { season: m }),
            Expert::HoltWinters(HoltWinters::new([m, 0])),
            Expert::Regression(Regression::new([m, 0])),
        ]);
        let seasonal = |own, season| Order::seasonal(own, season, m);
        orders.extend([
            (seasonal((1, 1, 1), (0, 1, 1)), Estimate::Conditional),
            (seasonal((1, 0, 1), (0, 1, 1)), Estimate::Conditional),
            (seasonal((0, 1, 0), (0, 1, 0)), Estimate::Conditional),
        ]);
        if estimate == Estimate::Exact {
            orders.push((seasonal((1, 1, 1), (0, 1, 1)), Estimate::Exact));
            orders.push((seasonal((2, 0, 1), (0, 1, 1)), Estimate::Exact));
        }
    }
    if longer > 0 {
        experts.extend([
            Expert::SeasonalNaive(SeasonalNaive { season: longer }),
            Expert::HoltWinters(HoltWinters::new([m, longer])),
            Expert::Regression(Regression::new([m, longer])),
        ]);
        orders.push((Order::seasonal((1, 1, 1), (0, 1, 1), longer), Estimate::Conditional));
    }
    if let Some(order) = search::stepwise(history, m).filter(|order| !orders.iter().any(|(o, _)| o == order)) {
        orders.push((order, Estimate::Conditional));
    }
    experts.extend(orders.into_iter().map(|(order, estimate)| sarima(order, estimate)));
    experts
}

impl fmt::Display for PredictorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(order) => write!(f, "sarima{order}"),
            other => f.write_str(other.label()),
        }
    }
}

/// A word that names no predictor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no predictor; there are naive, ema, snaive, holt-winters, arima, sarima, sarima(p,d,q)(P,D,Q)m, stepwise, best, select"
)]
pub struct WrongKind(String);

impl FromStr for PredictorKind {
    type Err = WrongKind;

    fn from_str(word: &str) -> Result<Self, WrongKind> {
        // The window that the reference writes behind the name.
        let word = if word == "ema3" { "ema" } else { word };
        if let Some(kind) = Self::NAMED.into_iter().find(|kind| kind.label() == word) {
            return Ok(kind);
        }
        let order = word.strip_prefix("sarima").or_else(|| word.strip_prefix("arima")).unwrap_or(word);
        order.parse().map(Self::Order).map_err(|_| WrongKind(word.to_owned()))
    }
}
