//! What came of a run, as data.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Where in a request something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Before it: too many were under way.
    Start,
    /// In DNS.
    Lookup,
    /// Until the TCP connection stood.
    Connect,
    /// Until the response's head came.
    Response,
    /// Until the body was there.
    Download,
}

/// One request, ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Its window, from 0.
    pub window: usize,
    /// When it began.
    pub at: Timestamp,
    /// The instance that it went to, where the lookup gave one.
    pub instance: Option<IpAddr>,
    /// The lookup's milliseconds, where it ended well.
    pub lookup_ms: Option<f64>,
    /// The paper's response time in milliseconds; this and all below only for a good download.
    pub response_ms: Option<f64>,
    /// Download time in milliseconds.
    pub download_ms: Option<f64>,
    /// Bytes of the body.
    pub bytes: Option<u64>,
    /// DNS queries that got no reply.
    pub dns_lost: u32,
    /// The answer had to be fetched over TCP.
    pub dns_over_tcp: bool,
    /// What went wrong; `None` for a good download.
    pub failure: Option<Failure>,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When the request began.
    pub at: Timestamp,
    /// Where it failed.
    pub stage: Stage,
    /// Short fixed name of the error.
    pub kind: String,
    /// The error, for people.
    pub error: String,
}

/// The distribution of a measure, by nearest rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Half are not above.
    pub p50: f64,
    /// 95 of 100 are not above.
    pub p95: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// `None` of nothing.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let value = values.get((values.len() * percent).div_ceil(100).max(1) - 1)?;
            // Three digits: microseconds, or KB/s. More would be noise.
            Some((value * 1000.0).round() / 1000.0)
        };
        Some(Self { p50: rank(50)?, p95: rank(95)?, max: rank(100)? })
    }
}

/// An instance's part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Requests that went to it.
    pub requests: u64,
    /// Of all requests that went to an instance, 0 to 1.
    pub share: f64,
}

/// A set of requests, summed up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that were begun.
    pub offered: u64,
    /// Downloads that came whole.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that were given up because the run was stopped.
    pub cancelled: u64,
    /// Bytes of good bodies.
    pub bytes: u64,
    /// DNS queries that got no reply and were sent again.
    pub dns_lost: u64,
    /// Lookups that needed TCP.
    pub dns_over_tcp: u64,
    /// Lookup time.
    pub lookup_ms: Option<Summary>,
    /// Response time: start of the connection → first byte.
    pub response_ms: Option<Summary>,
    /// Download time: first byte → last byte.
    pub download_ms: Option<Summary>,
    /// Total delivery time: response time and download time.
    pub delivery_ms: Option<Summary>,
    /// Throughput: bytes / download time, in MB/s (10^6 bytes).
    pub throughput_mb_s: Option<Summary>,
    /// Failures by kind.
    pub failed_by: BTreeMap<String, u64>,
    /// Requests by instance.
    pub instances: BTreeMap<IpAddr, Share>,
}

impl Tally {
    /// Sums requests up of which `offered` were begun; what is not there was cancelled.
    pub(super) fn of<'a>(offered: u64, records: impl Iterator<Item = &'a RequestRecord> + Clone) -> Self {
        let values =
            |measure: fn(&RequestRecord) -> Option<f64>| Summary::of(records.clone().filter_map(measure).collect());
        let mut tally = Self {
            offered,
            lookup_ms: values(|record| record.lookup_ms),
            response_ms: values(|record| record.response_ms),
            download_ms: values(|record| record.download_ms),
            delivery_ms: values(|record| Some(record.response_ms? + record.download_ms?)),
            throughput_mb_s: values(|record| {
                // Never nothing: a body that came with its head took a microsecond at least.
                Some(record.bytes? as f64 / 1000.0 / record.download_ms?.max(0.001))
            }),
            ..Self::default()
        };
        for record in records {
            match &record.failure {
                None => tally.ok += 1,
                Some(failure) => {
                    tally.failed += 1;
                    *tally.failed_by.entry(failure.kind.clone()).or_default() += 1;
                }
            }
            tally.bytes += record.bytes.unwrap_or(0);
            tally.dns_lost += u64::from(record.dns_lost);
            tally.dns_over_tcp += u64::from(record.dns_over_tcp);
            if let Some(instance) = record.instance {
                tally.instances.entry(instance).or_default().requests += 1;
            }
        }
        tally.cancelled = offered.saturating_sub(tally.ok + tally.failed);
        let sent: u64 = tally.instances.values().map(|share| share.requests).sum();
        for share in tally.instances.values_mut() {
            share.share = share.requests as f64 / sent as f64;
        }
        tally
    }
}

/// One window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowRecord {
    /// Its number, from 0.
    pub window: usize,
    /// When it began.
    pub start: Timestamp,
    /// Its length in milliseconds.
    pub length_ms: u64,
    /// The requests that were begun in it, whenever they ended.
    #[serde(flatten)]
    pub tally: Tally,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// The name that was asked for.
    pub name: String,
    /// When the run began.
    pub start: Timestamp,
    /// How long it took in milliseconds, the last requests included.
    pub duration_ms: u64,
    /// True where it was stopped before its end.
    pub interrupted: bool,
    /// All requests.
    pub total: Tally,
    /// Window by window.
    pub windows: Vec<WindowRecord>,
    /// The first failures.
    pub failures: Vec<Failure>,
}

impl LoadReport {
    /// True where the run came to its end and every request that was to be offered is a good download.
    #[must_use]
    pub fn all_ok(&self) -> bool {
        !self.interrupted && self.total.ok == self.total.offered
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        let ended = if self.interrupted { ", interrupted" } else { "" };
        writeln!(f, "{}: {} requests in {:.1} s{ended}", self.name, total.offered, self.duration_ms as f64 / 1000.0)?;
        writeln!(f, "  ok {}, failed {}, cancelled {}", total.ok, total.failed, total.cancelled)?;
        for (what, unit, summary) in [
            ("lookup", "ms", total.lookup_ms),
            ("response time", "ms", total.response_ms),
            ("download time", "ms", total.download_ms),
            ("total delivery time", "ms", total.delivery_ms),
            ("throughput", "MB/s", total.throughput_mb_s),
        ] {
            if let Some(Summary { p50, p95, max }) = summary {
                writeln!(f, "  {what:<20} p50 {p50:.2}  p95 {p95:.2}  max {max:.2} {unit}")?;
            }
        }
        for (instance, share) in &total.instances {
            writeln!(f, "  {instance}: {} requests ({:.1} %)", share.requests, share.share * 100.0)?;
        }
        for (kind, count) in &total.failed_by {
            writeln!(f, "  failed by {kind}: {count}")?;
        }
        for failure in &self.failures {
            writeln!(f, "  {}: {}", failure.kind, failure.error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_nearest() {
        let of = |n: u32| Summary::of((1..=n).rev().map(f64::from).collect());
        assert_eq!(of(0), None);
        assert_eq!(of(1), Some(Summary { p50: 1.0, p95: 1.0, max: 1.0 }));
        assert_eq!(of(100), Some(Summary { p50: 50.0, p95: 95.0, max: 100.0 }));
        assert_eq!(of(3), Some(Summary { p50: 2.0, p95: 3.0, max: 3.0 }));
    }
}
