//! Instances → snapshot → kernel tables and the daemon's DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tracing::{error, info, warn};

use super::Operator;
use crate::model::{
    Backend, Instance, InstanceId, InstanceState, PublishedService, ServiceName, ServiceSpec, Snapshot, Zone, in_full,
};

/// A snapshot's content and what had to be decided to make it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// What to answer; `generation` is the given one.
    pub snapshot: Snapshot,
    /// Services whose last good backends were kept because nothing serves: an empty set is refused.
    pub last_good: Vec<ServiceName>,
}

/// What shall be answered now, given what is answered already.
///
/// Only instances that answered their probe are in it. A service that would become empty keeps the backends it
/// had, for an old answer is better than none; a service that left the configuration is left out.
pub(super) fn content<'a>(
    zones: &[Zone],
    services: impl Iterator<Item = (&'a ServiceSpec, u32)>,
    instances: &BTreeMap<ServiceName, Vec<&Instance>>,
    current: &Snapshot,
) -> Content {
    let mut last_good = Vec::new();
    let services = services
        .map(|(spec, index)| {
            let of_service = instances.get(&spec.name).map_or(&[][..], Vec::as_slice);
            let mut backends: Vec<Backend> = of_service
                .iter()
                .filter(|i| matches!(i.state, InstanceState::Ready | InstanceState::Serving))
                .map(|i| Backend { instance: i.id.clone(), addresses: i.addresses, weight: 1 })
                .collect();
            if backends.is_empty()
                && let Some(before) = current.services.iter().find(|s| s.name == spec.name)
                && !before.backends.is_empty()
            {
                backends.clone_from(&before.backends);
                last_good.push(spec.name.clone());
            }
            PublishedService {
                name: spec.name.clone(),
                index,
                names: spec.names.clone(),
                ttl_s: spec.ttl_s,
                answers: spec.answers,
                backends,
            }
        })
        .collect();
    Content { snapshot: Snapshot { generation: current.generation, zones: zones.to_vec(), services }, last_good }
}

impl Operator {
    /// Makes tables and the daemon's DNS say what is so, if they do not yet.
    pub(super) fn publish(&mut self) {
        let mut by_service: BTreeMap<ServiceName, Vec<&Instance>> = BTreeMap::new();
        for tracked in self.instances.values() {
            by_service.entry(tracked.record.service.clone()).or_default().push(&tracked.record);
        }
        let mut services = Vec::with_capacity(self.config.services.len());
        for spec in &self.config.services {
            match tokio::task::block_in_place(|| self.world.store.service_index(&spec.name)) {
                Ok(index) => services.push((spec, index)),
                Err(error) => {
                    error!(service = %spec.name, error = %in_full(&error), "no counter index; tables stay as they are");
                    return;
                }
            }
        }
        let made = content(&self.config.zones, services.into_iter(), &by_service, &self.snapshot);
        if made.last_good != self.view.last_good {
            for service in made.last_good.iter().filter(|s| !self.view.last_good.contains(s)) {
                warn!(%service, "nothing serves; its last good answers are kept");
                self.view.refused_empty += 1;
            }
            self.view.last_good.clone_from(&made.last_good);
        }
        if self.published && made.snapshot == *self.snapshot {
            return;
        }
        if self.refused.as_ref() == Some(&made.snapshot) {
            return;
        }
        match self.publish_snapshot(made.snapshot.clone()) {
            Ok(()) => {
                self.refused = None;
                self.mark_serving();
            }
            Err(error) => {
                self.view.publish_failures += 1;
                error!(error, "not published; answers stay as they are");
                self.refused = Some(made.snapshot);
            }
        }
    }

    fn publish_snapshot(&mut self, mut snapshot: Snapshot) -> Result<(), String> {
        let begun = Instant::now();
        let next = tokio::task::block_in_place(|| self.world.store.next_generation());
        snapshot.generation = next.map_err(|e| in_full(&e))?;
        let before = Arc::clone(&self.channels.index.borrow());
        let index = before.next(&snapshot).map_err(|e| in_full(&e))?;
        tokio::task::block_in_place(|| self.world.datapath.publish(&snapshot, &index, &self.config.listen))
            .map_err(|e| in_full(&e))?;
        if let Err(error) = tokio::task::block_in_place(|| self.world.store.put_snapshot(&snapshot)) {
            // Only a restart reads it back, and then the kernel's tables still answer.
            warn!(error = %in_full(&error), "the published tables could not be stored");
        }
        self.channels.index.send_replace(Arc::new(index));
        let backends: usize = snapshot.services.iter().map(|s| s.backends.len()).sum();
        info!(generation = snapshot.generation, backends, took = ?begun.elapsed(), "published");
        self.snapshot = Arc::new(snapshot);
        self.published = true;
        Ok(())
    }

    /// What the published tables name has been handed out from now on.
    fn mark_serving(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        for service in &snapshot.services {
            for backend in &service.backends {
                let Some(tracked) = self.instances.get_mut(&backend.instance) else { continue };
                tracked.record.largest_ttl_s = tracked.record.largest_ttl_s.max(service.ttl_s);
                if tracked.record.state == InstanceState::Ready {
                    self.change(&backend.instance, InstanceState::Serving, "in the tables");
                }
            }
        }
    }
}

/// Identifiers of all instances that a snapshot names.
pub(super) fn named(snapshot: &Snapshot) -> BTreeSet<&InstanceId> {
    snapshot.services.iter().flat_map(|s| s.backends.iter().map(|b| &b.instance)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::time::Duration;

    use super::*;
    use crate::model::{AddressPair, InstanceId, Technology, Timestamp};

    fn spec() -> ServiceSpec {
        ServiceSpec {
            name: ServiceName::new("video").unwrap(),
            names: vec!["video.edge.test.".into()],
            technology: Technology::Docker,
            image: "image".into(),
            port: 80,
            probe_path: "/".into(),
            capacity: 20.0,
            min: 1,
            max: 8,
            ttl_s: 5,
            answers: 4,
            vcpus: 1.0,
            memory_mib: 256,
            start_deadline: Duration::from_secs(30),
            drain_quiet: Duration::from_secs(2),
            drain_deadline: Duration::from_secs(300),
        }
    }

    fn instance(number: u32, state: InstanceState) -> Instance {
        let service = spec().name;
        let id = InstanceId::from_number(number);
        let mut made = Instance::new(id, service, Technology::Docker, AddressPair::default(), Timestamp(0), "test");
        made.state = state;
        made
    }

    fn build(states: &[InstanceState], current: &Snapshot) -> Content {
        let made: Vec<_> = states.iter().enumerate().map(|(i, s)| instance(i as u32, *s)).collect();
        let by_service = BTreeMap::from([(spec().name, made.iter().collect())]);
        content(&[], [(&spec(), 3)].into_iter(), &by_service, current)
    }

    #[test]
    fn only_probed_instances_are_named() {
        let made = build(&InstanceState::ALL, &Snapshot::default());
        let ids: Vec<_> = named(&made.snapshot).into_iter().cloned().collect();
        assert_eq!(ids, [InstanceId::from_number(3), InstanceId::from_number(4)]);
        assert!(made.last_good.is_empty());
    }

    #[test]
    fn a_service_never_becomes_empty_by_accident() {
        let full = build(&[InstanceState::Serving], &Snapshot::default());
        let failed = build(&[InstanceState::Failed], &full.snapshot);
        assert_eq!(failed.snapshot.services, full.snapshot.services);
        assert_eq!(failed.last_good, [spec().name]);
        let replaced = build(&[InstanceState::Failed, InstanceState::Ready], &failed.snapshot);
        assert_eq!(named(&replaced.snapshot).len(), 1);
        assert!(replaced.last_good.is_empty());
    }

    #[test]
    fn a_removed_service_leaves() {
        let full = build(&[InstanceState::Serving], &Snapshot::default());
        let gone = content(&[], std::iter::empty(), &BTreeMap::new(), &full.snapshot);
        assert!(gone.snapshot.services.is_empty());
    }
}
