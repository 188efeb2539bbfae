//! What the operator shows: the document for the orchestrator, the view for people.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::publish::named;
use super::view::{InstanceReport, LeftReport};
use super::weights::FULL;
use super::{InstanceView, Operator, ServiceView};
use crate::model::{InstanceId, Left, Observed, ObservedService, ServiceName, Snapshot, Timestamp};

impl Operator {
    /// The state that [`decide`](super::decide) looks at.
    pub(super) fn services_view(&self) -> BTreeMap<ServiceName, ServiceView> {
        let mut views = BTreeMap::new();
        for spec in &self.config.services {
            views.insert(
                spec.name.clone(),
                ServiceView {
                    wanted: self.planned(&spec.name).max(self.floor(&spec.name)),
                    max: spec.max,
                    available: self.technologies.get(&spec.technology).is_some_and(|t| t.available),
                    held_back: self.back_off.holds(&spec.name),
                    one_by_one: self.back_off.is_suspect(&spec.name),
                    instances: Vec::new(),
                },
            );
        }
        let held = self.hold.as_ref().map(|_| named(&self.snapshot)).unwrap_or_default();
        let orders = Arc::clone(&self.orders.borrow());
        for tracked in self.instances.values() {
            let record = &tracked.record;
            let ordered = orders.instances.get(&record.id).map(|order| order.what);
            let held = held.contains(&record.id);
            let view = InstanceView { id: record.id.clone(), state: record.state, since: record.since, held, ordered };
            views.entry(record.service.clone()).or_default().instances.push(view);
        }
        views
    }

    /// Instances that the plan wants of a service; `None` while there is none.
    fn planned(&self, service: &ServiceName) -> Option<u32> {
        self.desired.as_ref().and_then(|d| d.services.get(service)).map(|d| d.replicas)
    }

    /// Writes both.
    pub(super) fn tell(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        self.view.generation = snapshot.generation;
        self.view.settled = self.settled;
        self.view.bases = snapshot.services.iter().map(|s| (s.name.clone(), s.basis)).collect();
        self.view.held.clone_from(&self.hold);
        self.view.technologies.clone_from(&self.technologies);
        self.view.prepared = self.preparing.values().flat_map(|p| p.ready.clone()).collect();
        let (shares, weights) = (shares(&snapshot), self.weights());
        let orders = Arc::clone(&self.orders.borrow());
        self.view.instances = self
            .instances
            .iter()
            .map(|(id, tracked)| {
                let share = shares.get(id).copied();
                let report = InstanceReport {
                    instance: tracked.record.clone(),
                    last_probe: tracked.last_probe.clone(),
                    drain: tracked.drain.clone(),
                    unwell: tracked.unwell.clone(),
                    ordered: orders.instances.get(id).cloned(),
                    published: share.is_some(),
                    share: share.unwrap_or(0.0),
                    weight: weights.get(id).map(|weight| f64::from(*weight) / f64::from(FULL)),
                };
                (id.clone(), report)
            })
            .collect();
        let left = |left: &Left| LeftReport { to: self.late.target(&left.instance).cloned(), left: left.clone() };
        self.view.left = self.late.all().map(left).collect();
        self.channels.view.send_replace(Arc::new(self.view.clone()));

        self.revision += 1;
        let mut services: BTreeMap<ServiceName, ObservedService> = BTreeMap::new();
        for spec in &self.config.services {
            let available = self.technologies.get(&spec.technology).is_some_and(|t| t.available);
            let served = self.served.get(&spec.name).copied();
            services.insert(spec.name.clone(), ObservedService { instances: Vec::new(), available, served });
        }
        for tracked in self.instances.values() {
            let entry = services.entry(tracked.record.service.clone()).or_default();
            entry.instances.push(tracked.record.clone());
        }
        let observed = Observed {
            revision: self.revision,
            node: self.world.node.clone(),
            at: Timestamp::now(),
            desired_revision: self.desired.as_ref().map_or(0, |d| d.revision),
            services,
            window: self.window.clone(),
            running_window: self.running_window.clone(),
            generation: snapshot.generation,
            settled: self.settled,
        };
        self.channels.observed.send_replace(Arc::new(observed));
    }
}

/// Each backend's share of its service's answers.
fn shares(snapshot: &Snapshot) -> BTreeMap<InstanceId, f64> {
    let mut shares = BTreeMap::new();
    for service in &snapshot.services {
        let total: f64 = service.backends.iter().map(|b| f64::from(b.weight)).sum();
        for backend in &service.backends {
            shares.insert(backend.instance.clone(), f64::from(backend.weight) / total.max(1.0));
        }
    }
    shares
}
