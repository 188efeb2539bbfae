//! Why a number is as it is.

use serde::{Deserialize, Serialize};

/// What the number rests on before any bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// The forecast gave it.
    Forecast,
    /// The forecast is not trusted and would give fewer than the observed load needs.
    Observed,
    /// More came within the window than what runs can serve.
    Panic,
    /// There is no usable forecast, and the observed load needs more than is wanted.
    ObservedWithoutForecast,
    /// There is no usable forecast: left as it is.
    HeldWithoutForecast,
    /// Fewer would do, but the last report is not to be trusted: not lowered.
    HeldByReport,
}

impl Basis {
    /// Short fixed name: metric label and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Forecast => "forecast",
            Self::Observed => "observed",
            Self::Panic => "panic",
            Self::ObservedWithoutForecast => "observed_without_forecast",
            Self::HeldWithoutForecast => "held_without_forecast",
            Self::HeldByReport => "held_by_report",
        }
    }
}

/// A bound that changed the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// What is wanted is about as likely to be enough.
    Alike,
    /// More will be needed soon.
    Ahead,
    /// Fewer were needed for too short a time.
    Stabilisation,
    /// The need is only a little lower.
    Tolerance,
    /// A panic is not over.
    AfterPanic,
    /// No faster up.
    UpRate,
    /// No faster down.
    DownRate,
    /// The budget of starts and stops is used up.
    Churn,
    /// Instances never became ready.
    Brake,
    /// Raised to the service's fewest.
    Min,
    /// Lowered to the service's most.
    Max,
    /// Lowered to what the nodes can hold.
    NodeLimit,
    /// Lowered to what the nodes' processors allow.
    Cpu,
    /// Lowered to what the nodes' memory allows.
    Memory,
}

impl Bound {
    /// Short fixed name: metric label and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Alike => "alike",
            Self::Ahead => "ahead",
            Self::Stabilisation => "stabilisation",
            Self::Tolerance => "tolerance",
            Self::AfterPanic => "after_panic",
            Self::UpRate => "up_rate",
            Self::DownRate => "down_rate",
            Self::Churn => "churn",
            Self::Brake => "brake",
            Self::Min => "min",
            Self::Max => "max",
            Self::NodeLimit => "node_limit",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

/// A bound, the number before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What bound it.
    pub bound: Bound,
    /// Replicas before.
    pub from: u32,
    /// Replicas after.
    pub to: u32,
}
