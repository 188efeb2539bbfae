//! Counting periods and what is predicted from them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ServiceName;

/// A moment, in milliseconds since the Unix epoch. Taken from the clock in `daemon` only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Now, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Seconds since 1970, modulo 2³²: as RFC 9018 counts.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        (self.0 / 1000) as u32
    }

    /// Milliseconds from `earlier` to `self`, zero where the clock went back.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What a node counted in one period, for all its services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowReport {
    /// Number of the period since this daemon started; each is reported once.
    pub sequence: u64,
    /// Start of the period.
    pub start: Timestamp,
    /// Its length in milliseconds.
    pub length_ms: u64,
    /// Requests by service; a service that is absent was not measured.
    pub requests: BTreeMap<ServiceName, f64>,
    /// False where the counters were missing, stale or reset: nothing may be lowered by this report.
    pub complete: bool,
    /// False while the period still runs: `requests` are those of the `length_ms` that are over.
    #[serde(default = "closed")]
    pub closed: bool,
}

const fn closed() -> bool {
    true
}

/// What a model expects of one coming window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// Expected requests; finite and not negative.
    pub mean: f64,
    /// Pairs of level (0–1) and requests, rising in both; empty where the model gives none.
    pub quantiles: Vec<(f64, f64)>,
    /// The model's short name.
    pub model: String,
}
