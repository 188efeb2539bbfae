//! What the demo found, as `summary.json` and as a verdict.

use std::collections::BTreeMap;
use std::path::Path;

use control::api::Status;
use control::load::{LoadEvent, LoadReport};
use control::model::InstanceState;
use serde::Serialize;

use super::service;
use crate::lab::{LabError, Result};

/// What was seen along the way.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests that ended well and badly so far.
    pub ok: u64,
    /// Requests that failed so far.
    pub failed: u64,
    /// Serving instances at each look, in milliseconds since the first.
    replicas: Vec<Replicas>,
    first_at: Option<u64>,
}

/// Instances at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
struct Replicas {
    at_ms: u64,
    serving: u32,
    draining: u32,
}

impl Seen {
    pub(super) fn hear(&mut self, event: &LoadEvent) {
        if let LoadEvent::RequestEnded(request) = event {
            if request.failure.is_none() { self.ok += 1 } else { self.failed += 1 }
        }
    }

    pub(super) fn look(&mut self, status: &Status) {
        let Some(service) = service(status) else { return };
        let first = *self.first_at.get_or_insert(status.at.0);
        let in_state = |state| service.instances.iter().filter(|i| i.report.instance.state == state).count();
        let draining = in_state(InstanceState::Draining);
        self.replicas.push(Replicas {
            at_ms: status.at.0.saturating_sub(first),
            serving: service.serving,
            draining: u32::try_from(draining).unwrap_or(u32::MAX),
        });
    }

    /// Serving instances at each look so far.
    pub(super) fn serving(&self) -> Vec<u64> {
        self.replicas.iter().map(|r| u64::from(r.serving)).collect()
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Dns {
    queries: u64,
    answered_in_kernel: u64,
    answered_by_daemon: u64,
}

impl Dns {
    fn of(service: &control::api::ServiceStatus) -> Self {
        Self {
            queries: service.queries,
            answered_in_kernel: service.answered_in_kernel,
            answered_by_daemon: service.answered_by_daemon,
        }
    }
}

#[derive(Debug, Serialize)]
struct Downloads {
    ok: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct ReplicaRange {
    first: u32,
    max: u32,
    min_after_max: u32,
    /// Each change; the first look is one.
    over_time: Vec<Replicas>,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p95: f64,
    samples: usize,
}

#[derive(Debug, Serialize)]
struct Expected {
    window: u64,
    observed: Option<f64>,
    predicted: Option<f64>,
    replicas: u32,
    wanted: u32,
}

/// The demo's result.
#[derive(Debug, Serialize)]
pub struct Summary {
    dns: Dns,
    /// The program's own counts, by verdict.
    verdicts: BTreeMap<String, u64>,
    xdp_mode: String,
    downloads: Downloads,
    replicas: ReplicaRange,
    allocation_ms: Percentiles,
    removal_ms: Percentiles,
    forecast: Vec<Expected>,
    load: LoadReport,
}

impl Summary {
    pub(super) fn new(status: &Status, load: &LoadReport, seen: Seen) -> Self {
        let service = service(status);
        let serving: Vec<u32> = seen.replicas.iter().map(|r| r.serving).collect();
        let max = serving.iter().copied().max().unwrap_or(0);
        let peak = serving.iter().rposition(|s| *s == max).unwrap_or(0);
        let history = service.map_or(&[][..], |s| &s.history);
        Self {
            dns: service.map(Dns::of).unwrap_or_default(),
            verdicts: status.verdicts.iter().filter(|(_, count)| **count > 0).map(|(v, c)| (v.clone(), *c)).collect(),
            xdp_mode: status.interfaces.first().map_or_else(|| "none".to_owned(), |i| i.mode.clone()),
            downloads: Downloads { ok: load.total.ok, failed: load.total.failed },
            replicas: ReplicaRange {
                first: serving.first().copied().unwrap_or(0),
                max,
                min_after_max: serving.iter().skip(peak).copied().min().unwrap_or(0),
                over_time: changes(seen.replicas),
            },
            allocation_ms: percentiles(&status.allocation_ms),
            removal_ms: percentiles(&status.removal_ms),
            forecast: history
                .iter()
                .map(|w| Expected {
                    window: w.window,
                    observed: w.observed,
                    predicted: w.predicted,
                    replicas: w.replicas,
                    wanted: w.wanted,
                })
                .collect(),
            load: load.clone(),
        }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = LabError::system("write", path.display());
        let text = serde_json::to_string_pretty(self).map_err(|e| failed(e.into()))?;
        std::fs::write(path, text).map_err(LabError::system("write", path.display()))
    }

    /// Whether the demo showed what it has to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let answered = self.dns.answered_in_kernel + self.dns.answered_by_daemon;
        let share = self.dns.answered_in_kernel as f64 / answered.max(1) as f64;
        let checks = [
            (share >= 0.99, format!("{:.2} % of the answers came from the kernel (≥ 99 wanted)", share * 100.0)),
            (
                self.downloads.failed == 0 && self.downloads.ok > 0,
                format!("{} downloads, {} failed (none wanted)", self.downloads.ok, self.downloads.failed),
            ),
            (
                self.replicas.first == 1 && self.replicas.max >= 4 && self.replicas.min_after_max <= 1,
                format!(
                    "instances went {} → {} → {} (1 → ≥ 4 → 1 wanted)",
                    self.replicas.first, self.replicas.max, self.replicas.min_after_max
                ),
            ),
        ];
        Verdict { checks: checks.into() }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        vec![
            format!(
                "dns        {} queries, {} answered in the kernel ({} XDP), {} by the daemon",
                self.dns.queries, self.dns.answered_in_kernel, self.xdp_mode, self.dns.answered_by_daemon
            ),
            format!("downloads  {} ok, {} failed", self.downloads.ok, self.downloads.failed),
            format!("instances  {} → {} → {}", self.replicas.first, self.replicas.max, self.replicas.min_after_max),
            format!(
                "allocation p50 {:.0} ms, p95 {:.0} ms; removal p50 {:.0} ms, p95 {:.0} ms",
                self.allocation_ms.p50, self.allocation_ms.p95, self.removal_ms.p50, self.removal_ms.p95
            ),
        ]
    }
}

/// What was checked: whether it holds, and in words.
#[derive(Debug)]
pub struct Verdict {
    /// All checks.
    pub checks: Vec<(bool, String)>,
}

impl Verdict {
    /// Whether all hold.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|(holds, _)| *holds)
    }
}

/// Without the looks that saw nothing new.
fn changes(mut looks: Vec<Replicas>) -> Vec<Replicas> {
    looks.dedup_by_key(|look| (look.serving, look.draining));
    looks
}

/// Nearest-rank percentiles; zero where there is no sample.
fn percentiles(samples: &[f64]) -> Percentiles {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |q: f64| {
        let rank = (q * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    };
    Percentiles { p50: at(0.5), p95: at(0.95), samples: sorted.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let samples: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let found = percentiles(&samples);
        assert_eq!((found.p50, found.p95, found.samples), (10.0, 19.0, 20));
        assert_eq!(percentiles(&[]).p50, 0.0);
    }
}
