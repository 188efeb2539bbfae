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

/// What a service's load is counted by. Clients and resolvers that cache an answer open many connections by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// Queries for its names.
    #[default]
    Dns,
    /// TCP connections that clients open to its instances.
    Connections,
    /// The larger of the two.
    Max,
}

impl Demand {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Dns, Self::Connections, Self::Max];

    /// Short fixed name: configuration value and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connections => "connections",
            Self::Max => "max",
        }
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
    /// Connections that were opened to instances, of the services whose load they are.
    #[serde(default)]
    pub connections: BTreeMap<ServiceName, f64>,
    /// False where the counters were missing, stale or reset: nothing may be lowered by this report.
    pub complete: bool,
    /// False while the period still runs: `requests` are those of the `length_ms` that are over.
    #[serde(default = "closed")]
    pub closed: bool,
}

impl WindowReport {
    /// A service's load in this period; `None` where it was not measured. Of the larger of two both have to be known:
    /// what is missing is no small number.
    #[must_use]
    pub fn load(&self, service: &ServiceName, by: Demand) -> Option<f64> {
        let (requests, connections) = (self.requests.get(service).copied(), self.connections.get(service).copied());
        match by {
            Demand::Dns => requests,
            Demand::Connections => connections,
            Demand::Max => Some(requests?.max(connections?)),
        }
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn the_load_is_what_the_service_is_counted_by() {
        let service = ServiceName::new("video").unwrap();
        let report = |requests: Option<f64>, connections: Option<f64>| WindowReport {
            sequence: 1,
            start: Timestamp(0),
            length_ms: 1000,
            requests: requests.map(|r| (service.clone(), r)).into_iter().collect(),
            connections: connections.map(|c| (service.clone(), c)).into_iter().collect(),
            complete: true,
            closed: true,
        };
        let loads = |report: WindowReport| Demand::ALL.map(|by| report.load(&service, by));
        assert_eq!(loads(report(Some(3.0), Some(40.0))), [Some(3.0), Some(40.0), Some(40.0)]);
        assert_eq!(loads(report(Some(50.0), Some(40.0))), [Some(50.0), Some(40.0), Some(50.0)]);
        assert_eq!(loads(report(Some(3.0), None)), [Some(3.0), None, None], "what is missing is no small number");
        assert_eq!(loads(report(None, Some(40.0))), [None, Some(40.0), None]);
    }
}
