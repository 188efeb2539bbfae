//! A service whose instances do not come up is not tried again at once, and each time later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::ServiceName;

/// Wait after the first failure; doubled by each further one.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, by service.
#[derive(Debug, Default)]
pub(super) struct BackOff(BTreeMap<ServiceName, (u32, Instant)>);

impl BackOff {
    /// A start of the service failed.
    pub fn failed(&mut self, service: &ServiceName) {
        let now = Instant::now();
        let (failures, until) = self.0.entry(service.clone()).or_insert((0, now));
        *until = now + FIRST.saturating_mul(1 << (*failures).min(16)).min(LONGEST);
        *failures += 1;
    }

    /// An instance of the service came up.
    pub fn succeeded(&mut self, service: &ServiceName) {
        self.0.remove(service);
    }

    /// True while the service is not to be started.
    pub fn holds(&self, service: &ServiceName) -> bool {
        self.0.get(service).is_some_and(|(_, until)| *until > Instant::now())
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
        for _ in 0..40 {
            back_off.failed(&service);
            let wait = back_off.ends().next().unwrap() - Instant::now();
            assert!(wait + Duration::from_millis(100) > last && wait <= LONGEST, "{wait:?} after {last:?}");
            last = wait;
        }
        assert!(last > LONGEST / 2 && back_off.holds(&service));
        back_off.succeeded(&service);
        assert!(!back_off.holds(&service) && back_off.ends().next().is_none());
    }
}
