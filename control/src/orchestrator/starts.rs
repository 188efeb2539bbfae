//! How a service's instances come up: how long that takes, and how many in a row did not.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::catalogue::built_in;
use crate::model::{InstanceId, InstanceState, ObservedService, Technology};

/// Measured start times that are kept.
const KEPT: usize = 16;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Starts {
    /// Milliseconds from the order to ready, oldest first.
    took_ms: VecDeque<f64>,
    /// Instances in a row that were started and never became ready.
    pub never_ready: u32,
    /// Instances on their way.
    #[serde(skip)]
    coming: BTreeSet<InstanceId>,
}

impl Starts {
    /// Looks at the instances as they are now.
    pub fn watch(&mut self, state: &ObservedService) {
        for instance in &state.instances {
            match instance.state {
                InstanceState::Requested | InstanceState::Fetching | InstanceState::Starting => {
                    self.coming.insert(instance.id.clone());
                }
                InstanceState::Ready | InstanceState::Serving => {
                    if !self.coming.remove(&instance.id) {
                        continue;
                    }
                    self.never_ready = 0;
                    self.took_ms.push_back(instance.since.millis_since(instance.requested_at) as f64);
                    if self.took_ms.len() > KEPT {
                        self.took_ms.pop_front();
                    }
                }
                InstanceState::Failed => self.lost(&instance.id),
                InstanceState::Draining | InstanceState::Stopped => {
                    self.coming.remove(&instance.id);
                }
            }
        }
        // A document in between may have been missed: one that is gone without having been seen ready failed.
        let gone = |id: &&InstanceId| !state.instances.iter().any(|i| i.id == **id);
        let missed: Vec<InstanceId> = self.coming.iter().filter(gone).cloned().collect();
        for id in missed {
            self.lost(&id);
        }
    }

    fn lost(&mut self, id: &InstanceId) {
        if self.coming.remove(id) {
            self.never_ready = self.never_ready.saturating_add(1);
        }
    }

    /// Milliseconds that a start takes: the longest of those seen lately, before the first what the catalogue says.
    pub fn warm_up_ms(&self, technology: Technology) -> f64 {
        let longest = self.took_ms.iter().copied().reduce(f64::max);
        longest.unwrap_or_else(|| {
            let entry = built_in().into_iter().find(|entry| entry.technology == technology.label());
            entry.map_or(0.0, |entry| entry.figures.allocation_ms.p95)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use crate::model::{AddressPair, Instance, ServiceName, Timestamp};

    fn seen(states: &[(u32, InstanceState, u64)]) -> ObservedService {
        let instance = |(id, state, since): &(u32, InstanceState, u64)| {
            let name = ServiceName::new("s").unwrap();
            let pair = AddressPair::default();
            let id = InstanceId::from_number(*id);
            let mut instance = Instance::new(id, name, Technology::Docker, pair, Timestamp(1000), "");
            (instance.state, instance.since) = (*state, Timestamp(*since));
            instance
        };
        ObservedService { instances: states.iter().map(instance).collect(), available: true, served: None }
    }

    #[test]
    fn the_longest_start_counts_and_the_catalogue_before_the_first() {
        use InstanceState::{Serving, Starting};
        let mut starts = Starts::default();
        assert_eq!(starts.warm_up_ms(Technology::Docker), 900.0);
        starts.watch(&seen(&[(1, Starting, 1100), (2, Starting, 1100)]));
        starts.watch(&seen(&[(1, Serving, 1300), (2, Serving, 1700)]));
        assert_eq!((starts.warm_up_ms(Technology::Docker), starts.never_ready), (700.0, 0));
        starts.watch(&seen(&[(1, Serving, 1300), (2, Serving, 1700), (3, Serving, 90_000)]));
        assert_eq!(starts.warm_up_ms(Technology::Docker), 700.0, "one that was there before was not seen to start");
    }

    #[test]
    fn those_that_never_became_ready_count_until_one_does() {
        use InstanceState::{Draining, Failed, Ready, Starting};
        let mut starts = Starts::default();
        starts.watch(&seen(&[(1, Starting, 0), (2, Starting, 0), (3, Starting, 0)]));
        starts.watch(&seen(&[(1, Failed, 0), (3, Draining, 0)]));
        assert_eq!(starts.never_ready, 2, "one failed, one was missed, and one was not wanted any more");
        starts.watch(&seen(&[(1, Failed, 0), (4, Starting, 0)]));
        assert_eq!(starts.never_ready, 2, "no failure counts twice");
        starts.watch(&seen(&[(4, Ready, 0)]));
        assert_eq!(starts.never_ready, 0);
    }
}
