//! Closes counting periods: differences of cumulative counters, and the honesty to say when there are
//! none. Decides nothing.

use std::collections::BTreeMap;

use crate::model::{ServiceName, Timestamp, WindowReport};

/// Cumulative request counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Which counters these are: another value means that the old ones are gone.
    pub epoch: u64,
    /// Monotonic clock in milliseconds.
    pub at_ms: u64,
    /// Requests since the epoch began, by service.
    pub totals: BTreeMap<ServiceName, u64>,
    /// Connections since this daemon began to count them, of the services whose load they are.
    pub connections: BTreeMap<ServiceName, u64>,
}

/// Turns successive readings into window reports.
#[derive(Debug)]
pub struct Windows {
    length_ms: u64,
    sequence: u64,
    last: Option<Reading>,
}

/// A window that took this much longer than asked for holds a stall of the machine, not a measurement.
const LATEST: f64 = 1.5;

impl Windows {
    /// Windows of `length_ms`; `first` is the reading at the start of the first one.
    #[must_use]
    pub const fn new(length_ms: u64, first: Option<Reading>) -> Self {
        Self { length_ms, sequence: 0, last: first }
    }

    /// What the running window has come to so far, by a reading taken now: of the services that can be told. `None`
    /// where nothing can.
    #[must_use]
    pub fn so_far(&self, now: Timestamp, reading: &Reading) -> Option<WindowReport> {
        let last = self.last.as_ref().filter(|last| last.epoch == reading.epoch)?;
        let length_ms = reading.at_ms.checked_sub(last.at_ms).filter(|elapsed| *elapsed > 0)?;
        Some(WindowReport {
            sequence: self.sequence + 1,
            start: Timestamp(now.0.saturating_sub(length_ms)),
            length_ms,
            requests: differences(&last.totals, &reading.totals),
            connections: differences(&last.connections, &reading.connections),
            complete: true,
            closed: false,
        })
    }

    /// Closes a window that ends at `end` with the reading taken then, `None` where the counters could
    /// not be read. A service whose count is new, went back, or whose epoch changed is left out and the
    /// report marked incomplete.
    pub fn close(&mut self, end: Timestamp, reading: Option<Reading>) -> WindowReport {
        self.sequence += 1;
        let mut report = WindowReport {
            sequence: self.sequence,
            start: Timestamp(end.0.saturating_sub(self.length_ms)),
            length_ms: self.length_ms,
            requests: BTreeMap::new(),
            connections: BTreeMap::new(),
            complete: false,
            closed: true,
        };
        if let (Some(last), Some(now)) = (&self.last, &reading)
            && last.epoch == now.epoch
        {
            let elapsed = now.at_ms.saturating_sub(last.at_ms);
            let on_time = elapsed > 0 && (elapsed as f64) < self.length_ms as f64 * LATEST;
            if on_time {
                report.requests = differences(&last.totals, &now.totals);
                report.connections = differences(&last.connections, &now.connections);
            }
            report.complete = on_time && report.requests.len() == now.totals.len();
        }
        // A failed reading is not kept: the next difference would span two windows.
        self.last = reading;
        report
    }
}

/// What was counted between two readings, of the services that both know and whose count did not go back.
fn differences(last: &BTreeMap<ServiceName, u64>, now: &BTreeMap<ServiceName, u64>) -> BTreeMap<ServiceName, f64> {
    let difference = |(service, total): (&ServiceName, &u64)| {
        let difference = total.checked_sub(*last.get(service)?)?;
        Some((service.clone(), difference as f64))
    };
    now.iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn reading(epoch: u64, at_ms: u64, total: u64) -> Option<Reading> {
        let service = ServiceName::new("video").unwrap();
        let connections = BTreeMap::from([(service.clone(), 100 * total)]);
        Some(Reading { epoch, at_ms, totals: BTreeMap::from([(service, total)]), connections })
    }

    fn requests(report: &WindowReport) -> Option<f64> {
        report.requests.values().next().copied()
    }

    #[test]
    fn differences_by_window() {
        let mut windows = Windows::new(1000, reading(1, 0, 5));
        let report = windows.close(Timestamp(1000), reading(1, 1000, 25));
        assert_eq!((requests(&report), report.complete, report.sequence), (Some(20.0), true, 1));
        assert_eq!(report.start, Timestamp(0));
        assert_eq!(report.connections.values().next(), Some(&2000.0));
    }

    #[test]
    fn a_running_window_is_told_as_far_as_it_is() {
        let windows = Windows::new(1000, reading(1, 0, 5));
        let part = windows.so_far(Timestamp(250), &reading(1, 250, 25).unwrap()).unwrap();
        assert_eq!((requests(&part), part.length_ms, part.closed, part.sequence), (Some(20.0), 250, false, 1));
        let untold = [reading(2, 250, 25), reading(1, 0, 25)];
        assert!(untold.iter().flatten().all(|r| windows.so_far(Timestamp(250), r).is_none()));
        let back = windows.so_far(Timestamp(250), &reading(1, 250, 4).unwrap()).unwrap();
        assert_eq!(requests(&back), None);
    }

    #[test]
    fn silence_is_a_measurement() {
        let mut windows = Windows::new(1000, reading(1, 0, 5));
        assert_eq!(requests(&windows.close(Timestamp(1000), reading(1, 1000, 5))), Some(0.0));
    }

    #[test]
    fn missing_reset_new_and_late_counters_are_not_zero() {
        let cases = [
            ("not readable", reading(1, 0, 5), None),
            ("no first reading", None, reading(1, 1000, 5)),
            ("another epoch", reading(1, 0, 5), reading(2, 1000, 9)),
            ("went back", reading(1, 0, 5), reading(1, 1000, 4)),
            ("stalled", reading(1, 0, 5), reading(1, 60_000, 9)),
            ("clock stood", reading(1, 10, 5), reading(1, 10, 9)),
        ];
        for (what, first, second) in cases {
            let report = Windows::new(1000, first).close(Timestamp(1000), second);
            assert_eq!((requests(&report), report.complete), (None, false), "{what}");
            assert!(report.connections.is_empty(), "{what}");
        }
    }

    #[test]
    fn a_failed_reading_does_not_smear_over_the_next_window() {
        let mut windows = Windows::new(1000, reading(1, 0, 0));
        windows.close(Timestamp(1000), None);
        assert!(!windows.close(Timestamp(2000), reading(1, 2000, 200)).complete);
        assert_eq!(requests(&windows.close(Timestamp(3000), reading(1, 3000, 210))), Some(10.0));
    }
}
