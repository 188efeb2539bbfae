//! Instances → snapshot. Pure but for the generation, which the caller gives.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Backend, Instance, InstanceState, PublishedService, ServiceName, ServiceSpec, Snapshot, Zone};

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

/// Identifiers of all instances that a snapshot names.
pub(super) fn named(snapshot: &Snapshot) -> BTreeSet<&crate::model::InstanceId> {
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
