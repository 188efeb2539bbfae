//! A service whose instances do not come up is not tried again at once, and each time later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::ServiceName;

/// Wait after the first failure; doubled by each further one.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row after which one instance at a time is tried.
const SUSPECT: u32 = 3;

/// Failures in a row, by service.
#[derive(Debug, Default)]
pub(super) struct BackOff(BTreeMap<ServiceName, (u32, Instant)>);

impl BackOff {
    /// An instance of the service did not come up, or ended soon after it had.
    pub fn failed(&mut self, service: &ServiceName) {
        let now = Instant::now();
        let (failures, until) = self.0.entry(service.clone()).or_insert((0, now));
        if now.duration_since(*until) > LONGEST {
            // It went well for a while since the last one.
            *failures = 0;
        }
        *until = now + FIRST.saturating_mul(1 << (*failures).min(16)).min(LONGEST);
        *failures += 1;
    }

    /// Nothing can be started just now, through no fault of the service.
    pub fn pause(&mut self, service: &ServiceName) {
        let until = Instant::now() + FIRST;
        self.0.entry(service.clone()).and_modify(|(_, have)| *have = until.max(*have)).or_insert((0, until));
    }

    /// An instance of the service has served for a while.
    pub fn succeeded(&mut self, service: &ServiceName) {
        self.0.remove(service);
    }

    /// True while the service is not to be started.
    pub fn holds(&self, service: &ServiceName) -> bool {
        self.0.get(service).is_some_and(|(_, until)| *until > Instant::now())
    }

    /// True where so many failed that the next one is tried alone.
    pub fn is_suspect(&self, service: &ServiceName) -> bool {
        self.0.get(service).is_some_and(|(failures, _)| *failures >= SUSPECT)
    }

    /// When the waits under way end.
    pub fn ends(&self) -> impl Iterator<Item = Instant> {
        let now = Instant::now();
        self.0.values().map(|(_, until)| *until).filter(move |until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_end_with_success() {
        let service = ServiceName::new("s").unwrap();
        let mut back_off = BackOff::default();
        assert!(!back_off.holds(&service));
        let mut last = Duration::ZERO;
        for failures in 1..=40 {
            back_off.failed(&service);
            assert_eq!(back_off.is_suspect(&service), failures >= SUSPECT);
            let wait = back_off.ends().next().unwrap() - Instant::now();
            assert!(wait + Duration::from_millis(100) > last && wait <= LONGEST, "{wait:?} after {last:?}");
            last = wait;
        }
        assert!(last > LONGEST / 2 && back_off.holds(&service));
        back_off.succeeded(&service);
        assert!(!back_off.holds(&service) && !back_off.is_suspect(&service) && back_off.ends().next().is_none());
    }
}
