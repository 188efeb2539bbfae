//! What processors and memory of service and node allow.

use std::collections::BTreeMap;

use crate::config::{Config, Scaling};
use crate::model::{ServiceName, ServiceSpec};

/// What each service holds or will hold, as far as it is decided.
pub(super) struct Room<'c> {
    config: &'c Config,
    instances: BTreeMap<ServiceName, u32>,
}

impl<'c> Room<'c> {
    /// Before any decision each service holds what `counts` says.
    pub fn new(config: &'c Config, counts: impl Fn(&ServiceName) -> u32) -> Self {
        let instances = config.services.iter().map(|s| (s.name.clone(), counts(&s.name))).collect();
        Self { config, instances }
    }

    /// A service will have so many.
    pub fn take(&mut self, service: &ServiceSpec, replicas: u32) {
        self.instances.insert(service.name.clone(), replicas);
    }

    /// Most instances of the service by their virtual processors.
    pub fn by_processors(&self, service: &ServiceSpec, scaling: &Scaling) -> Option<u32> {
        self.most(service, scaling.most_vcpus, self.config.caps.vcpus, |s| s.vcpus)
    }

    /// Most instances of the service by their memory.
    pub fn by_memory(&self, service: &ServiceSpec, scaling: &Scaling) -> Option<u32> {
        let mib = |most: Option<u64>| most.map(|mib| mib as f64);
        self.most(service, mib(scaling.most_memory_mib), mib(self.config.caps.memory_mib), |s| s.memory_mib as f64)
    }

    fn most(
        &self,
        service: &ServiceSpec,
        own: Option<f64>,
        node: Option<f64>,
        one: impl Fn(&ServiceSpec) -> f64,
    ) -> Option<u32> {
        let others = self.config.services.iter().filter(|s| s.name != service.name);
        let used = |s: &ServiceSpec| one(s) * f64::from(self.instances.get(&s.name).copied().unwrap_or(0));
        let left = node.map(|node| node - others.map(used).sum::<f64>());
        let most = own.into_iter().chain(left).reduce(f64::min)?;
        // A hair of slack: 3 × 0.1 is more than 0.3.
        Some((most / one(service) + 1e-9).floor().max(0.0) as u32)
    }
}
