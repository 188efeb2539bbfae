//! Who served during a whole window, and how late its probes were answered. Pure; the operator closes the windows.

use std::collections::BTreeMap;

use crate::model::{Basis, InstanceId, Served, ServiceName, Snapshot};

/// Instances with their weights in a service's answers.
type Weights = BTreeMap<InstanceId, u16>;

/// Who was in the answers when the last window closed.
#[derive(Debug, Default)]
pub(super) struct Serving {
    last: BTreeMap<ServiceName, Weights>,
}

impl Serving {
    /// Closes a window: of each service whose answers named the same instances equally often when it began, how these
    /// answered. `took_ms` gives the time to an instance's answers in it. A service with an instance that was not probed
    /// in it is left out.
    pub fn close(
        &mut self,
        window: u64,
        snapshot: &Snapshot,
        took_ms: impl Fn(&InstanceId) -> Option<f64>,
    ) -> BTreeMap<ServiceName, Served> {
        let serving = snapshot.services.iter().filter(|s| s.basis == Basis::Serving);
        let now: BTreeMap<ServiceName, Weights> = serving
            .map(|s| (s.name.clone(), s.backends.iter().map(|b| (b.instance.clone(), b.weight)).collect()))
            .collect();
        let served = |(service, weights): (&ServiceName, &Weights)| {
            if weights.is_empty() || self.last.get(service) != Some(weights) {
                return None;
            }
            let total: f64 = weights.values().map(|weight| f64::from(*weight)).sum();
            let largest = weights.values().copied().max().map_or(0.0, f64::from);
            let slowest_ms = weights.keys().map(&took_ms).try_fold(0.0, |most: f64, one| Some(most.max(one?)))?;
            Some((service.clone(), Served { window, largest_share: largest / total.max(1.0), slowest_ms }))
        };
        let all = now.iter().filter_map(served).collect();
        self.last = now;
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use crate::model::{AddressPair, Backend, Choice, PublishedService};

    /// A service whose answers name instances 1, 2, … with these weights.
    fn snapshot(basis: Basis, weights: &[u16]) -> Snapshot {
        let backend = |(number, weight): (u32, &u16)| Backend {
            instance: InstanceId::from_number(number),
            addresses: AddressPair::default(),
            weight: *weight,
        };
        let backends = (1..).zip(weights).map(backend).collect();
        let name = ServiceName::new("s").unwrap();
        let service = PublishedService {
            name,
            index: 0,
            names: Vec::new(),
            ttl_s: 1,
            answers: 4,
            choice: Choice::default(),
            basis,
            backends,
            addresses: Vec::new(),
            last_good: Vec::new(),
            summon: None,
        };
        Snapshot { services: vec![service], ..Snapshot::default() }
    }

    /// Instance n answers after n times 10 ms; the third one was not probed.
    fn took_ms(id: &InstanceId) -> Option<f64> {
        (1..=2u32).find(|n| InstanceId::from_number(*n) == *id).map(|n| f64::from(n) * 10.0)
    }

    /// Windows 1, 2, … whose answers had these weights at their ends; what the last one says.
    fn last(basis: Basis, windows: &[&[u16]]) -> Option<Served> {
        let mut serving = Serving::default();
        let mut served = None;
        for (number, weights) in (1..).zip(windows) {
            served = serving.close(number, &snapshot(basis, weights), took_ms).into_values().next();
        }
        served
    }

    #[test]
    fn only_a_window_with_the_same_answers_all_along_counts() {
        let serving = |windows: &[&[u16]]| last(Basis::Serving, windows);
        assert_eq!(serving(&[&[1, 1]]), None, "nobody knows when it began");
        let served = Served { window: 2, largest_share: 0.5, slowest_ms: 20.0 };
        assert_eq!(serving(&[&[1, 1], &[1, 1]]), Some(served));
        assert_eq!(serving(&[&[1], &[1, 1]]), None);
        assert_eq!(serving(&[&[8, 8], &[8, 2]]), None);
        let served = Served { window: 3, largest_share: 0.8, slowest_ms: 20.0 };
        assert_eq!(serving(&[&[8, 8], &[8, 2], &[8, 2]]), Some(served));
    }

    #[test]
    fn who_does_not_serve_or_was_not_probed_says_nothing() {
        assert_eq!(last(Basis::LastGood, &[&[1, 1], &[1, 1]]), None);
        assert_eq!(last(Basis::Serving, &[&[1, 1, 1], &[1, 1, 1]]), None);
        assert_eq!(last(Basis::Serving, &[&[], &[]]), None);
    }
}
