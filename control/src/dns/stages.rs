//! How starts by queries go: the time of each stage, and what became of the queries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{ServiceName, Timestamp};

/// Starts that are remembered one by one.
const RECENT: usize = 256;

/// A part of the way from a query to its answer; each ends where the next begins, the first begins when the query was
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Ordered, decided and written down.
    Stored,
    /// Image found and port made.
    Port,
    /// Started by its driver.
    Started,
    /// Answered its probe.
    Ready,
    /// In the kernel's tables and the daemon's.
    Published,
    /// The first reply has been sent.
    Answered,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 6] = [Self::Stored, Self::Port, Self::Started, Self::Ready, Self::Published, Self::Answered];

    /// Short fixed name: metric label and JSON key.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Port => "port",
            Self::Started => "started",
            Self::Ready => "ready",
            Self::Published => "published",
            Self::Answered => "answered",
        }
    }
}

/// One start by a query, from its being read to the first reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SummonRecord {
    /// The service.
    pub service: ServiceName,
    /// When it was answered.
    pub at: Timestamp,
    /// What each stage took in milliseconds, by its label.
    pub stages_ms: BTreeMap<String, f64>,
    /// All of them.
    pub total_ms: f64,
}

/// Times by upper bound.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Histogram {
    /// How many were at most [`Histogram::BOUNDS_MS`] long and longer than the bound before; the last one longer than
    /// all.
    pub counts: [u64; 16],
    /// Their sum in milliseconds.
    pub sum_ms: f64,
}

impl Histogram {
    /// Upper bounds in milliseconds.
    pub const BOUNDS_MS: [f64; 15] =
        [0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 25.0, 50.0, 100.0, 500.0, 2_000.0, 10_000.0];

    fn add(&mut self, ms: f64) {
        self.counts[Self::BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(Self::BOUNDS_MS.len())] += 1;
        self.sum_ms += ms;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The starts of one service by its queries.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SummonReport {
    /// Queries, by what was done with them.
    pub queries: BTreeMap<String, u64>,
    /// By the stage's label, and `total`.
    pub stages: BTreeMap<String, Histogram>,
}

#[derive(Debug, Default)]
struct OfService {
    report: SummonReport,
    /// The start under way: when its query was read, and what has been reached when.
    under_way: Option<(Instant, BTreeMap<Stage, Instant>)>,
}

#[derive(Debug, Default)]
struct Inner {
    services: BTreeMap<ServiceName, OfService>,
    recent: VecDeque<SummonRecord>,
}

/// The record of all starts by queries; written by those who take part in them.
#[derive(Debug, Default)]
pub struct SummonStats(Mutex<Inner>);

impl SummonStats {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked with it has added numbers only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a query for a service at zero.
    pub fn count(&self, service: &ServiceName, what: &'static str) {
        let mut inner = self.lock();
        let of_service = inner.services.entry(service.clone()).or_default();
        *of_service.report.queries.entry(what.to_owned()).or_default() += 1;
    }

    /// A start begins, for a query that was read at `seen`.
    pub fn begin(&self, service: &ServiceName, seen: Instant) {
        self.lock().services.entry(service.clone()).or_default().under_way = Some((seen, BTreeMap::new()));
    }

    /// The start under way has reached the end of a stage. Of no effect where it was no query that began it. The last
    /// stage completes it.
    pub fn reached(&self, service: &ServiceName, stage: Stage) {
        let now = Instant::now();
        let mut inner = self.lock();
        let Some(of_service) = inner.services.get_mut(service) else { return };
        let Some((_, reached)) = &mut of_service.under_way else { return };
        reached.entry(stage).or_insert(now);
        if stage != Stage::Answered {
            return;
        }
        let Some((seen, reached)) = of_service.under_way.take() else { return };
        let mut stages_ms = BTreeMap::new();
        let mut before = seen;
        for (stage, at) in reached {
            stages_ms.insert(stage.label().to_owned(), ms(at.saturating_duration_since(before)));
            before = before.max(at);
        }
        let total_ms = ms(now.saturating_duration_since(seen));
        for (label, ms) in stages_ms.iter().map(|(label, ms)| (label.as_str(), *ms)).chain([("total", total_ms)]) {
            of_service.report.stages.entry(label.to_owned()).or_default().add(ms);
        }
        if inner.recent.len() == RECENT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(SummonRecord { service: service.clone(), at: Timestamp::now(), stages_ms, total_ms });
    }

    /// What became of the queries of `service`, and how long its starts took.
    #[must_use]
    pub fn report(&self, service: &ServiceName) -> SummonReport {
        self.lock().services.get(service).map(|s| s.report.clone()).unwrap_or_default()
    }

    /// The newest starts of all services, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<SummonRecord> {
        self.lock().recent.iter().cloned().collect()
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn stages_add_up_and_a_planned_start_is_none_of_ours() {
        let (stats, service) = (SummonStats::default(), ServiceName::new("video").unwrap());
        stats.reached(&service, Stage::Started);
        stats.reached(&service, Stage::Answered);
        assert!(stats.recent().is_empty());
        stats.begin(&service, Instant::now());
        for stage in Stage::ALL {
            stats.reached(&service, stage);
        }
        stats.reached(&service, Stage::Answered);
        let recent = stats.recent();
        assert_eq!(recent.len(), 1);
        let sum: f64 = recent[0].stages_ms.values().sum();
        assert!((sum - recent[0].total_ms).abs() < 1e-6, "{recent:?}");
        let report = stats.report(&service);
        assert_eq!(report.stages.len(), Stage::ALL.len() + 1);
        assert!(report.stages.values().all(|histogram| histogram.count() == 1));
    }

    #[test]
    fn bounds_are_inclusive_and_nothing_is_too_long() {
        let mut histogram = Histogram::default();
        for ms in [0.25, 0.26, 1e9] {
            histogram.add(ms);
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[15]), (1, 1, 1));
    }
}
