//! What an operator settles about a service's plan.

use serde::{Deserialize, Serialize};

/// How fast replicas may change in one window: the larger of the two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Instances.
    pub instances: u32,
    /// Share of what is wanted now.
    pub share: f64,
}

impl Rate {
    /// As fast as needed.
    pub const UNBOUNDED: Self = Self { instances: u32::MAX, share: 0.0 };

    /// Most instances of a step from `current`.
    #[must_use]
    pub fn most(&self, current: u32) -> u32 {
        self.instances.max((f64::from(current) * self.share).ceil() as u32)
    }
}

/// When scaling up is not tried any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// Instances in a row that were started and never became ready.
    pub after: u32,
}

/// A service's policy. Counts of windows are of the counting period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Fewest instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// Requests that one instance serves per window, where it was not measured.
    pub capacity: f64,
    /// How fast up.
    pub up: Rate,
    /// How fast down.
    pub down: Rate,
    /// Windows for which fewer must have been enough before instances are removed.
    pub stabilisation: u32,
    /// Share of what is wanted by more than which the need must be lower before instances are removed.
    pub tolerance: f64,
    /// Load above what runs times this, within a window, raises at once and lets nothing be removed for a while.
    pub panic: f64,
    /// Starts and stops allowed together within `churn_windows`; what the observed load needs is always allowed.
    pub churn: u32,
    /// See `churn`.
    pub churn_windows: u32,
    /// When scaling up is not tried any more.
    pub brake: Brake,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min: 1,
            max: u32::MAX,
            capacity: 20.0,
            up: Rate::UNBOUNDED,
            down: Rate::UNBOUNDED,
            stabilisation: 2,
            tolerance: 0.1,
            panic: 1.0,
            churn: u32::MAX,
            churn_windows: 10,
            brake: Brake { after: 3 },
        }
    }
}

/// What is kept before instances are removed, as upstream's autoscaler has it: 300 s.
const STABILISATION_S: f64 = 300.0;

impl Policy {
    /// The usual stabilisation in windows of `window_s` seconds.
    #[must_use]
    pub fn usual_stabilisation(window_s: f64) -> u32 {
        Self::stabilisation_within(STABILISATION_S, window_s)
    }

    /// Earlier windows of `window_s` seconds that make up a stabilisation of so many seconds together with the newest: none
    /// where that alone is as long.
    #[must_use]
    pub fn stabilisation_within(seconds: f64, window_s: f64) -> u32 {
        let windows = (seconds / window_s.max(1e-3)).ceil();
        (windows as u32).saturating_sub(1)
    }
}
