//! Instances → snapshot → kernel tables and the daemon's DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::Operator;
use super::operator::Tracked;
use crate::dns::Stage;
use crate::model::{
    AddressPair, Backend, Basis, Drain, Instance, InstanceId, InstanceState, Late, OnAllDown, Orders, Override,
    PublishedService, ServiceName, ServiceSpec, Snapshot, Weights, Zone, in_full,
};

/// A snapshot's content and what had to be decided to make it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// What to answer; `generation` is the given one.
    pub snapshot: Snapshot,
    /// Services whose last good backends were kept because nothing serves: an empty set is refused.
    pub last_good: Vec<ServiceName>,
}

/// What is known of the instances that answers may name: without those that are being removed.
#[derive(Debug, Default)]
pub(super) struct Nameable<'a> {
    /// All of them.
    pub by_service: BTreeMap<ServiceName, Vec<&'a Instance>>,
    /// Those that miss their probes.
    pub unwell: BTreeSet<&'a InstanceId>,
    /// Weights of those that do not weigh 1.
    pub weights: BTreeMap<InstanceId, u16>,
}

/// What shall be answered now, given what is answered already.
///
/// For each service, the first that there is: instances that answered their probe; a fallback group; what its policy
/// says. Each service comes with the index of its counters and its TTL. A service that left the configuration is left
/// out.
pub(super) fn content<'a>(
    zones: &[Arc<Zone>],
    services: impl Iterator<Item = (&'a ServiceSpec, u32, u32)>,
    nameable: &Nameable<'_>,
    current: &Snapshot,
) -> Content {
    let services: Vec<PublishedService> = services
        .map(|(spec, index, ttl_s)| {
            let before = current.services.iter().find(|s| s.name == spec.name);
            PublishedService { ttl_s, ..published(spec, index, nameable, before) }
        })
        .collect();
    let last_good = services.iter().filter(|s| s.basis == Basis::LastGood).map(|s| s.name.clone()).collect();
    Content { snapshot: Snapshot { generation: current.generation, zones: zones.to_vec(), services }, last_good }
}

/// What one service is answered from.
fn published(
    spec: &ServiceSpec,
    index: u32,
    Nameable { by_service: instances, unwell, weights }: &Nameable<'_>,
    before: Option<&PublishedService>,
) -> PublishedService {
    let of_service = instances.get(&spec.name).map_or(&[][..], Vec::as_slice);
    let well =
        |i: &Instance| matches!(i.state, InstanceState::Ready | InstanceState::Serving) && !unwell.contains(&i.id);
    let those = |fits: &dyn Fn(&Instance) -> bool| -> Vec<Backend> {
        let fitting = of_service.iter().filter(|i| fits(i));
        let weight = |i: &Instance| weights.get(&i.id).copied().unwrap_or(1);
        fitting.map(|i| Backend { instance: i.id.clone(), addresses: i.addresses, weight: weight(i) }).collect()
    };
    let serving = those(&well);
    let mut last_good = Vec::new();
    if serving.is_empty() {
        last_good.extend(before.map(PublishedService::good).unwrap_or_default().iter().cloned());
        // An address that another instance has by now is not theirs any more.
        let taken = |backend: &Backend| {
            let others = instances.values().flatten().filter(|i| i.id != backend.instance);
            others.into_iter().any(|other| share_address(&other.addresses, &backend.addresses))
        };
        last_good.retain(|backend| !taken(backend));
    }
    let group = (1..).zip(&spec.fallback).find(|(_, addresses)| !addresses.is_empty());
    let (basis, backends, addresses) = match group {
        _ if !serving.is_empty() => (Basis::Serving, serving, Vec::new()),
        // Nothing is remembered: whoever served last may be gone for good, and rightly.
        _ if let Some(summon) = &spec.summon => {
            last_good.clear();
            let late = if summon.late == Late::Sorry { spec.sorry.clone() } else { Vec::new() };
            (Basis::Cold, Vec::new(), late)
        }
        Some((group, addresses)) => (Basis::Fallback { group }, Vec::new(), addresses.clone()),
        None => {
            // None is ready or serving here; one that drains is on its way out.
            let there = those(&|i| {
                matches!(i.state, InstanceState::Starting | InstanceState::Failed) || unwell.contains(&i.id)
            });
            by_policy(spec, there, &last_good)
        }
    };
    PublishedService {
        name: spec.name.clone(),
        index,
        names: spec.names.clone(),
        ttl_s: spec.ttl_s,
        answers: spec.answers,
        choice: spec.choice,
        basis,
        backends,
        addresses,
        last_good,
        summon: spec.summon.clone(),
    }
}

/// The policy's answer where nothing serves and no fallback stands in. One that names instances never makes the set
/// empty: without any the last good ones are kept.
fn by_policy(spec: &ServiceSpec, there: Vec<Backend>, last_good: &[Backend]) -> (Basis, Vec<Backend>, Vec<IpAddr>) {
    match spec.on_all_down {
        OnAllDown::All if !there.is_empty() => (Basis::All, there, Vec::new()),
        OnAllDown::LastGood | OnAllDown::All if last_good.is_empty() => (Basis::Nothing, Vec::new(), Vec::new()),
        OnAllDown::LastGood | OnAllDown::All => (Basis::LastGood, last_good.to_vec(), Vec::new()),
        OnAllDown::Sorry => (Basis::Sorry, Vec::new(), spec.sorry.clone()),
        OnAllDown::NoData => (Basis::NoData, Vec::new(), Vec::new()),
        OnAllDown::ServFail => (Basis::ServFail, Vec::new(), Vec::new()),
        OnAllDown::Pass => (Basis::Pass, Vec::new(), Vec::new()),
    }
}

fn share_address(a: &AddressPair, b: &AddressPair) -> bool {
    a.iter().any(|address| b.iter().any(|other| other == address))
}

impl Operator {
    /// Makes tables and the daemon's DNS say what is so, if they do not yet.
    pub(super) fn publish(&mut self) {
        if self.hold.is_some() {
            // While a table is held it alone is published, once.
            if !self.published {
                self.put_in_force(Snapshot::clone(&self.snapshot));
            }
            return;
        }
        let orders = Arc::clone(&self.orders.borrow());
        let fresh: Vec<(InstanceId, u32)> = self.instances.values().filter_map(|t| self.first_named(t)).collect();
        let unnamed: BTreeSet<InstanceId> =
            fresh.into_iter().filter(|(id, ttl_s)| !self.note_named(id, *ttl_s)).map(|(id, _)| id).collect();
        let mut nameable = Nameable { weights: self.weights(), ..Nameable::default() };
        let out = |id: &InstanceId| unnamed.contains(id) || orders.instances.contains_key(id);
        for tracked in self.instances.values().filter(|t| !t.is_leaving() && !out(&t.record.id)) {
            if tracked.unwell.is_some() {
                nameable.unwell.insert(&tracked.record.id);
            }
            nameable.by_service.entry(tracked.record.service.clone()).or_default().push(&tracked.record);
        }
        let mut services = Vec::with_capacity(self.config.services.len());
        for spec in &self.config.services {
            match tokio::task::block_in_place(|| self.world.store.service_index(&spec.name)) {
                Ok(index) => services.push((spec, index, self.ttl_s(spec))),
                Err(error) => {
                    error!(service = %spec.name, error = %in_full(&error), "no counter index; tables stay as they are");
                    return;
                }
            }
        }
        let before = without(&self.snapshot, |service, id| ends_by_order(&orders, service, id));
        let made = content(&self.config.zones, services.into_iter(), &nameable, &before);
        let refused = made.last_good.iter().filter(|s| !self.view.last_good.contains(s)).count();
        self.view.refused_empty += refused as u64;
        self.view.last_good = made.last_good;
        if !(self.published && made.snapshot == *self.snapshot) {
            self.put_in_force(made.snapshot);
        }
    }

    /// The weights of instances whose service weighs them by their load. One technology per service, and one size of
    /// its instances: all others weigh the same.
    pub(super) fn weights(&self) -> BTreeMap<InstanceId, u16> {
        let by_load = |t: &&Tracked| {
            let spec = self.config.service(&t.record.service);
            spec.is_some_and(|spec| spec.weights == Weights::Load)
        };
        let weighed = self.instances.values().filter(by_load);
        weighed.map(|t| (t.record.id.clone(), t.weighing.weight())).collect()
    }

    /// Begins and ends the time in which a service's answers live shorter: while the plan's stabilisation alone keeps
    /// its instances, or what is ordered out of the answers stays in them until another serves.
    pub(super) fn shorten_ttls(&mut self) {
        if self.hold.is_some() {
            return;
        }
        let (config, orders, now) = (Arc::clone(&self.config), Arc::clone(&self.orders.borrow()), Instant::now());
        self.shortenings.retain(|name, _| config.service(name).is_some_and(|spec| spec.drain_ttl_s.is_some()));
        for spec in config.services.iter().filter(|spec| spec.drain_ttl_s.is_some()) {
            let planned = self.desired.as_ref().and_then(|d| d.services.get(&spec.name)).is_some_and(|d| d.fewer_soon);
            let serves = |t: &&Tracked| t.record.service == spec.name && t.record.state == InstanceState::Serving;
            let mut serving = self.instances.values().filter(serves).peekable();
            let last_is_ordered =
                serving.peek().is_some() && serving.all(|t| orders.instances.contains_key(&t.record.id));
            let stabilisation = config.scaling.get(&spec.name).map_or(Duration::ZERO, |s| s.stabilisation);
            let longest = stabilisation + 2 * config.control.window;
            let one = self.shortenings.entry(spec.name.clone()).or_default();
            let before = one.is_short();
            if one.look(now, planned || last_is_ordered, longest) != before {
                let short = one.is_short();
                self.view.shortened_ttls += u64::from(short);
                info!(service = %spec.name, short, drain_ttl_s = spec.drain_ttl_s, "TTL ahead of a removal");
            }
        }
    }

    /// The instance and the TTL of its answers, where it is ready and was never named.
    fn first_named(&self, tracked: &Tracked) -> Option<(InstanceId, u32)> {
        let record = &tracked.record;
        let spec = self.config.service(&record.service)?;
        let ttl_s = self.ttl_s(spec);
        (record.state == InstanceState::Ready && record.largest_ttl_s < ttl_s).then(|| (record.id.clone(), ttl_s))
    }

    /// Publishes what was decided, unless that was refused before.
    fn put_in_force(&mut self, content: Snapshot) {
        if self.refused.as_ref() == Some(&content) {
            return;
        }
        match self.publish_snapshot(content.clone()) {
            Ok(()) => {
                self.refused = None;
                self.mark_serving();
            }
            Err(error) => {
                self.view.publish_failures += 1;
                let what = if self.hold.is_some() { "the held table was not published" } else { "not published" };
                error!(error, "{what}; answers stay as they are");
                self.refused = Some(content);
            }
        }
    }

    pub(super) fn publish_snapshot(&mut self, mut snapshot: Snapshot) -> Result<(), String> {
        let begun = Instant::now();
        snapshot.generation = tokio::task::block_in_place(|| self.next_generation());
        let before = Arc::clone(&self.channels.index.borrow());
        let index = before.next(&snapshot).map_err(|e| in_full(&e))?;
        tokio::task::block_in_place(|| self.world.datapath.publish(&snapshot, &index)).map_err(|e| in_full(&e))?;
        for service in snapshot.services.iter().filter(|s| s.summon.is_some() && s.basis == Basis::Serving) {
            self.reached(&service.name, Stage::Published);
        }
        // Those who wait are answered now, whatever the disk does.
        self.channels.index.send_replace(Arc::new(index));
        self.keep_table(&snapshot);
        let backends: usize = snapshot.services.iter().map(|s| s.backends.len()).sum();
        info!(generation = snapshot.generation, backends, took = ?begun.elapsed(), "published");
        say_bases(&self.snapshot, &snapshot);
        self.snapshot = Arc::new(snapshot);
        self.published = true;
        Ok(())
    }

    /// A generation that is newer than all before. A store that cannot be written does not keep a dead instance in the
    /// answers: the kernel's tables remember the generation too, and the store is raised to it afterwards.
    fn next_generation(&self) -> u64 {
        let store = &self.world.store;
        store.raise_generation(self.snapshot.generation);
        store.next_generation().unwrap_or_else(|error| {
            error!(error = %in_full(&error), "the generation could not be stored; published nevertheless");
            self.snapshot.generation.max(self.world.datapath.generation()) + 1
        })
    }

    /// What the published tables name has been handed out from now on.
    pub(super) fn mark_serving(&mut self) {
        let now = Instant::now();
        let snapshot = Arc::clone(&self.snapshot);
        for service in &snapshot.services {
            for backend in &service.backends {
                let Some(tracked) = self.instances.get_mut(&backend.instance) else { continue };
                tracked.record.largest_ttl_s = tracked.record.largest_ttl_s.max(service.ttl_s);
                tracked.named.publish(now, service.ttl_s);
                if tracked.record.state == InstanceState::Ready {
                    self.change(&backend.instance, InstanceState::Serving, "in the tables");
                }
            }
        }
    }
}

/// Whether an operator of the machine wants it gone, the last good answer or not.
fn ends_by_order(orders: &Orders, service: &ServiceName, id: &InstanceId) -> bool {
    let none = orders.services.get(service).is_some_and(|order| order.what == Override::Pin { replicas: 0 });
    none || orders.instances.get(id).is_some_and(|order| order.what == Drain::Remove)
}

/// A snapshot whose answers do not fall back on some instances.
fn without(snapshot: &Snapshot, ends: impl Fn(&ServiceName, &InstanceId) -> bool) -> Snapshot {
    let mut left = snapshot.clone();
    for service in &mut left.services {
        let name = &service.name;
        service.backends.retain(|backend| !ends(name, &backend.instance));
        service.last_good.retain(|backend| !ends(name, &backend.instance));
    }
    left
}

/// Logs each service that is answered from something else than before.
fn say_bases(before: &Snapshot, now: &Snapshot) {
    for service in &now.services {
        let known = before.services.iter().find(|s| s.name == service.name).map(|s| s.basis);
        let (name, basis, reason) = (&service.name, service.basis, service.basis.reason());
        match basis {
            _ if known == Some(basis) => {}
            Basis::Nothing if known.is_none() => {}
            Basis::Serving | Basis::Cold => info!(service = %name, %basis, reason, "answered from"),
            _ => warn!(service = %name, %basis, reason, "answered from"),
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
    use super::*;
    use crate::model::{Choice, Order, Technology, Timestamp};

    fn spec() -> ServiceSpec {
        ServiceSpec {
            name: ServiceName::new("video").unwrap(),
            names: vec!["video.edge.test.".into()],
            technology: Technology::Docker,
            image: "image".into(),
            guest: crate::model::Guest::default(),
            port: 80,
            probe_path: "/".into(),
            capacity: 20.0,
            min: 1,
            max: 8,
            ttl_s: 5,
            answers: 4,
            choice: Choice::RoundRobin,
            weights: Weights::Equal,
            fallback: vec![],
            on_all_down: OnAllDown::LastGood,
            sorry: vec!["192.0.2.99".parse().unwrap()],
            vcpus: 1.0,
            memory_mib: 256,
            shaping: None,
            summon: None,
            prepared: None,
            probing: crate::model::Probing::default(),
            start_deadline: Duration::from_secs(30),
            drain_quiet: Duration::from_secs(2),
            drain_deadline: Duration::from_secs(300),
            drain_at_deadline: crate::model::AtDeadline::Cut,
            drain_late: crate::model::LateClients::Cut,
            drain_forward: Duration::from_secs(300),
            drain_ttl_s: None,
        }
    }

    /// Instance `number` has the address 10.7.0.`number` + 1.
    fn instance(number: u32, state: InstanceState) -> Instance {
        let service = spec().name;
        let id = InstanceId::from_number(number);
        let addresses = AddressPair { v4: Some((0x0A07_0001 + number).into()), v6: None };
        let mut made = Instance::new(id, service, Technology::Docker, addresses, Timestamp(0), "test");
        made.state = state;
        made
    }

    fn build_with(spec: &ServiceSpec, states: &[InstanceState], current: &Snapshot) -> Content {
        let made: Vec<_> = states.iter().enumerate().map(|(i, s)| instance(i as u32, *s)).collect();
        let by_service = BTreeMap::from([(spec.name.clone(), made.iter().collect())]);
        let nameable = Nameable { by_service, ..Nameable::default() };
        content(&[], [(spec, 3, spec.ttl_s)].into_iter(), &nameable, current)
    }

    fn build(states: &[InstanceState], current: &Snapshot) -> Content {
        build_with(&spec(), states, current)
    }

    /// What the one service is answered from: basis, instances by number, other addresses.
    fn answered(made: &Content) -> (Basis, Vec<u32>, Vec<String>) {
        let service = &made.snapshot.services[0];
        let number = |backend: &Backend| u32::from(backend.addresses.v4.unwrap()) - 0x0A07_0001;
        let addresses = service.addresses.iter().map(ToString::to_string);
        (service.basis, service.backends.iter().map(number).collect(), addresses.collect())
    }

    fn with_policy(on_all_down: OnAllDown) -> ServiceSpec {
        ServiceSpec { on_all_down, ..spec() }
    }

    fn with_fallback(groups: &[&[&str]]) -> ServiceSpec {
        let group = |addresses: &&[&str]| addresses.iter().map(|a| a.parse().unwrap()).collect();
        ServiceSpec { fallback: groups.iter().map(group).collect(), ..with_policy(OnAllDown::Sorry) }
    }

    const SERVING: &[InstanceState] = &[InstanceState::Serving, InstanceState::Serving];
    const FAILED: &[InstanceState] = &[InstanceState::Failed, InstanceState::Starting];

    #[test]
    fn instances_weigh_what_is_said_of_them_and_1_else() {
        let made = [instance(0, InstanceState::Serving), instance(1, InstanceState::Serving)];
        let by_service = BTreeMap::from([(spec().name, made.iter().collect())]);
        let weights = BTreeMap::from([(made[1].id.clone(), 5)]);
        let spec = spec();
        let nameable = Nameable { by_service, weights, ..Nameable::default() };
        let made = content(&[], [(&spec, 3, 5)].into_iter(), &nameable, &Snapshot::default());
        let weights: Vec<u16> = made.snapshot.services[0].backends.iter().map(|b| b.weight).collect();
        assert_eq!(weights, [1, 5]);
    }

    #[test]
    fn only_probed_instances_are_named() {
        let made = build(&InstanceState::ALL, &Snapshot::default());
        let ids: Vec<_> = named(&made.snapshot).into_iter().cloned().collect();
        assert_eq!(ids, [InstanceId::from_number(3), InstanceId::from_number(4)]);
        assert!(made.last_good.is_empty());
    }

    #[test]
    fn one_that_misses_its_probes_is_left_out_unless_all_do() {
        let made: Vec<_> = (0..2).map(|i| instance(i, InstanceState::Serving)).collect();
        let by_service = BTreeMap::from([(spec().name, made.iter().collect())]);
        let build = |spec: &ServiceSpec, unwell: &[u32], before: &Snapshot| {
            let unwell = unwell.iter().map(|i| &made[*i as usize].id).collect();
            let nameable = Nameable { by_service: by_service.clone(), unwell, ..Nameable::default() };
            content(&[], [(spec, 3, 5)].into_iter(), &nameable, before)
        };
        let both = build(&spec(), &[], &Snapshot::default());
        assert_eq!(answered(&both), (Basis::Serving, vec![0, 1], vec![]));
        assert_eq!(answered(&build(&spec(), &[0], &both.snapshot)), (Basis::Serving, vec![1], vec![]));
        assert_eq!(answered(&build(&spec(), &[0, 1], &both.snapshot)), (Basis::LastGood, vec![0, 1], vec![]));
        let all = with_policy(OnAllDown::All);
        assert_eq!(answered(&build(&all, &[0, 1], &both.snapshot)), (Basis::All, vec![0, 1], vec![]));
    }

    #[test]
    fn a_service_never_becomes_empty_by_accident() {
        let full = build(&[InstanceState::Serving], &Snapshot::default());
        let failed = build(&[InstanceState::Failed], &full.snapshot);
        assert_eq!(failed.snapshot.services[0].backends, full.snapshot.services[0].backends);
        assert_eq!(failed.last_good, [spec().name]);
        let replaced = build(&[InstanceState::Failed, InstanceState::Ready], &failed.snapshot);
        assert_eq!(answered(&replaced), (Basis::Serving, vec![1], vec![]));
        assert!(replaced.last_good.is_empty());
    }

    #[test]
    fn a_removed_service_leaves() {
        let full = build(&[InstanceState::Serving], &Snapshot::default());
        let gone = content(&[], std::iter::empty(), &Nameable::default(), &full.snapshot);
        assert!(gone.snapshot.services.is_empty());
    }

    #[test]
    fn each_policy_says_its_own_while_nothing_serves() {
        let before = build(SERVING, &Snapshot::default()).snapshot;
        for (policy, expected) in [
            (OnAllDown::LastGood, (Basis::LastGood, vec![0, 1], vec![])),
            // Both are there, the one that failed and the one that starts.
            (OnAllDown::All, (Basis::All, vec![0, 1], vec![])),
            (OnAllDown::Sorry, (Basis::Sorry, vec![], vec!["192.0.2.99".to_owned()])),
            (OnAllDown::NoData, (Basis::NoData, vec![], vec![])),
            (OnAllDown::ServFail, (Basis::ServFail, vec![], vec![])),
            (OnAllDown::Pass, (Basis::Pass, vec![], vec![])),
        ] {
            let made = build_with(&with_policy(policy), FAILED, &before);
            assert_eq!(answered(&made), expected, "{policy:?}");
            assert_eq!(made.last_good.is_empty(), policy != OnAllDown::LastGood, "{policy:?}");
            // None of them is asked while an instance serves.
            let made = build_with(&with_policy(policy), &[InstanceState::Failed, InstanceState::Ready], &before);
            assert_eq!(answered(&made), (Basis::Serving, vec![1], vec![]), "{policy:?}");
        }
    }

    #[test]
    fn all_means_what_is_there_and_never_nobody() {
        use InstanceState::{Draining, Failed, Fetching, Requested, Starting};
        let all = with_policy(OnAllDown::All);
        let before = build(SERVING, &Snapshot::default()).snapshot;
        let made = build_with(&all, &[Requested, Fetching, Starting, Draining, Failed], &before);
        assert_eq!(answered(&made), (Basis::All, vec![2, 4], vec![]));
        assert_eq!(answered(&build_with(&all, &[Draining], &before)), (Basis::LastGood, vec![0, 1], vec![]));
        let new = build_with(&all, &[Requested], &Snapshot::default());
        assert_eq!(answered(&new), (Basis::Nothing, vec![], vec![]));
    }

    #[test]
    fn the_last_good_are_remembered_under_every_policy() {
        let mut snapshot = build(SERVING, &Snapshot::default()).snapshot;
        for policy in OnAllDown::ALL {
            snapshot = build_with(&with_policy(policy), FAILED, &snapshot).snapshot;
        }
        snapshot = build_with(&with_fallback(&[&["192.0.2.7"]]), FAILED, &snapshot).snapshot;
        let made = build(FAILED, &snapshot);
        assert_eq!(answered(&made), (Basis::LastGood, vec![0, 1], vec![]));
        // Not once others have served.
        let other = build(&[InstanceState::Failed, InstanceState::Failed, InstanceState::Serving], &made.snapshot);
        assert!(other.snapshot.services[0].last_good.is_empty());
        assert_eq!(answered(&build(FAILED, &other.snapshot)), (Basis::LastGood, vec![2], vec![]));
    }

    #[test]
    fn the_last_good_lose_an_address_that_another_has_now() {
        let before = build(SERVING, &Snapshot::default()).snapshot;
        let heir = Instance { id: InstanceId::from_number(77), ..instance(1, InstanceState::Requested) };
        let by_service = BTreeMap::from([(ServiceName::new("audio").unwrap(), vec![&heir])]);
        let nameable = Nameable { by_service, ..Nameable::default() };
        let made = content(&[], [(&spec(), 3, 5)].into_iter(), &nameable, &before);
        assert_eq!(answered(&made), (Basis::LastGood, vec![0], vec![]));
        let again = content(&[], [(&spec(), 3, 5)].into_iter(), &Nameable::default(), &made.snapshot);
        assert_eq!(answered(&again).1, [0], "it does not come back");
    }

    #[test]
    fn instances_come_before_fallback_and_fallback_before_the_policy() {
        let spec = with_fallback(&[&[], &["192.0.2.7", "2001:db8::7"], &["192.0.2.8"]]);
        let serving = build_with(&spec, SERVING, &Snapshot::default());
        assert_eq!(answered(&serving), (Basis::Serving, vec![0, 1], vec![]));
        let second = vec!["192.0.2.7".to_owned(), "2001:db8::7".to_owned()];
        let down = build_with(&spec, FAILED, &serving.snapshot);
        assert_eq!(answered(&down), (Basis::Fallback { group: 2 }, vec![], second));
        assert!(named(&down.snapshot).is_empty());
        let without = build_with(&with_fallback(&[]), FAILED, &down.snapshot);
        assert_eq!(answered(&without).0, Basis::Sorry);
        let back = build_with(&spec, SERVING, &without.snapshot);
        assert_eq!(answered(&back), (Basis::Serving, vec![0, 1], vec![]));
    }

    #[test]
    fn what_ends_by_order_is_no_last_good_answer() {
        let before = build(SERVING, &Snapshot::default()).snapshot;
        let service = before.services[0].name.clone();
        fn order<T>(what: T) -> Order<T> {
            Order { what, by: "root".into(), at: Timestamp(1), reason: String::new(), revision: 1 }
        }
        let last = before.services[0].backends[0].instance.clone();
        let mut orders = Orders::default();
        let left = |orders: &Orders| {
            let left = without(&before, |service, id| ends_by_order(orders, service, id));
            answered(&build(FAILED, &left))
        };
        assert_eq!(left(&orders), (Basis::LastGood, vec![0, 1], vec![]));
        orders.instances.insert(last, order(Drain::Remove));
        assert_eq!(left(&orders), (Basis::LastGood, vec![1], vec![]));
        orders.services.insert(service, order(Override::Pin { replicas: 0 }));
        assert_eq!(left(&orders).0, Basis::Nothing);
    }

    /// A snapshot that an earlier version stored is of instances that served.
    #[test]
    fn an_older_snapshot_is_read() {
        let before = build(SERVING, &Snapshot::default()).snapshot;
        let mut json = serde_json::to_value(&before).unwrap();
        let service = json["services"][0].as_object_mut().unwrap();
        for key in ["choice", "basis", "addresses", "last_good", "summon"] {
            assert!(service.remove(key).is_some(), "{key}");
        }
        let read: Snapshot = serde_json::from_value(json).unwrap();
        assert_eq!(read, before);
    }
}
