//! On which node: wanted replicas of each service → what each node shall run.
//!
//! An instance is added on the node with the fewest instances and removed from the one with the most,
//! as in the paper; equal nodes are taken by name, so that the same input gives the same output.
//!
//! A node's limit counts everything that is there, draining instances included. An instance that is
//! removed goes on draining, so its room is given to another only when it has gone. An instance that
//! runs is never removed because of what drains beside it: each removal would then cause the next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::model::{DesiredService, NodeName, ServiceName, Technology};

/// What is wanted of one service on all nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// Instances.
    pub replicas: u32,
    /// What runs them; only nodes that have it get new ones.
    pub technology: Technology,
    /// Why, for people: the sentence of a decision.
    pub reason: String,
}

/// What one node has and can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Instances up or on their way up, by service; services that are not planned now included.
    pub instances: BTreeMap<ServiceName, u32>,
    /// Other instances that are still there: draining, or failed and not yet removed.
    pub draining: u32,
    /// Most instances, whatever their service and state.
    pub limit: u32,
    /// Technologies with a working driver.
    pub technologies: BTreeSet<Technology>,
}

/// Who runs what.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placement {
    /// For each node, each planned service with its number, 0 included.
    pub nodes: BTreeMap<NodeName, BTreeMap<ServiceName, DesiredService>>,
    /// Wanted instances that found no room, by service.
    pub unplaced: BTreeMap<ServiceName, u32>,
}

/// Spreads what is wanted over the nodes.
#[must_use]
pub fn place(wanted: &BTreeMap<ServiceName, Want>, nodes: &[NodeView]) -> Placement {
    let mut nodes: Vec<Node> = nodes.iter().map(Node::new).collect();
    nodes.sort_by(|a, b| a.view.name.cmp(&b.view.name));
    nodes.dedup_by(|a, b| a.view.name == b.view.name);

    for node in &mut nodes {
        node.trim(wanted);
    }
    for (service, want) in wanted {
        while total(&nodes, service) > u64::from(want.replicas) {
            let most = nodes
                .iter_mut()
                .filter(|n| n.count(service) > 0)
                .min_by_key(|n| (Reverse(n.running()), Reverse(n.count(service))));
            let Some(node) = most else { break };
            node.remove(service);
        }
    }
    // One at a time to the service that is worst off, so that no name takes all the room there is.
    let mut open: BTreeSet<&ServiceName> = wanted.keys().collect();
    while let Some(service) = worst_off(&nodes, wanted, &open) {
        let technology = wanted[service].technology;
        let fewest = nodes
            .iter_mut()
            .filter(|n| n.room() > 0 && n.view.technologies.contains(&technology))
            .min_by_key(|n| (n.running(), n.count(service), n.present()));
        match fewest {
            Some(node) => node.add(service),
            None => drop(open.remove(service)),
        }
    }
    describe(wanted, &nodes)
}

/// A node while it is being filled.
struct Node<'a> {
    view: &'a NodeView,
    counts: BTreeMap<ServiceName, u32>,
    /// Draining already, or removed just now and about to.
    draining: u32,
}

impl<'a> Node<'a> {
    fn new(view: &'a NodeView) -> Self {
        Self { view, counts: view.instances.clone(), draining: view.draining }
    }

    fn count(&self, service: &ServiceName) -> u32 {
        self.counts.get(service).copied().unwrap_or(0)
    }

    fn running(&self) -> u64 {
        self.counts.values().map(|c| u64::from(*c)).sum()
    }

    fn present(&self) -> u64 {
        self.running() + u64::from(self.draining)
    }

    fn room(&self) -> u64 {
        u64::from(self.view.limit).saturating_sub(self.present())
    }

    fn add(&mut self, service: &ServiceName) {
        let count = self.counts.entry(service.clone()).or_default();
        *count = count.saturating_add(1);
    }

    fn remove(&mut self, service: &ServiceName) {
        if let Some(count) = self.counts.get_mut(service).filter(|c| **c > 0) {
            *count -= 1;
            self.draining = self.draining.saturating_add(1);
        }
    }

    /// Back under a limit that was lowered, from the service with the most here. Services that are not
    /// planned now are left alone.
    fn trim(&mut self, wanted: &BTreeMap<ServiceName, Want>) {
        while self.running() > u64::from(self.view.limit) {
            let planned = self.counts.iter().filter(|(s, c)| **c > 0 && wanted.contains_key(*s));
            let Some(most) = planned.min_by_key(|(_, c)| Reverse(**c)).map(|(s, _)| s.clone()) else { return };
            self.remove(&most);
        }
    }
}

fn total(nodes: &[Node<'_>], service: &ServiceName) -> u64 {
    nodes.iter().map(|n| u64::from(n.count(service))).sum()
}

/// The open service that has the smallest part of what it wants; `None` where all have everything.
fn worst_off<'s>(
    nodes: &[Node<'_>],
    wanted: &BTreeMap<ServiceName, Want>,
    open: &BTreeSet<&'s ServiceName>,
) -> Option<&'s ServiceName> {
    let lacking = open.iter().filter_map(|service| {
        let (has, want) = (total(nodes, service), u64::from(wanted.get(*service)?.replicas));
        (has < want).then_some((*service, has, want))
    });
    // has₁/want₁ against has₂/want₂, without division; `min_by` keeps the first of equals.
    let worst = lacking.min_by(|(_, has1, want1), (_, has2, want2)| {
        (u128::from(*has1) * u128::from(*want2)).cmp(&(u128::from(*has2) * u128::from(*want1)))
    });
    worst.map(|(service, _, _)| service)
}

fn describe(wanted: &BTreeMap<ServiceName, Want>, nodes: &[Node<'_>]) -> Placement {
    let mut placement = Placement::default();
    let mut reasons: BTreeMap<&ServiceName, String> = BTreeMap::new();
    for (service, want) in wanted {
        let mut reason = want.reason.clone();
        let missing = u64::from(want.replicas).saturating_sub(total(nodes, service));
        if missing > 0 {
            placement.unplaced.insert(service.clone(), u32::try_from(missing).unwrap_or(u32::MAX));
            let _ = write!(reason, "; {missing} of {} not placed: ", want.replicas);
            reason.push_str(&obstacles(want.technology, nodes));
        }
        reasons.insert(service, reason);
    }
    for node in nodes {
        let services = reasons.iter().map(|(service, reason)| {
            let desired = DesiredService {
                replicas: node.count(service),
                reason: reason.clone(),
                fewer_soon: false,
                prepared: 0,
            };
            ((*service).clone(), desired)
        });
        placement.nodes.insert(node.view.name.clone(), services.collect());
    }
    placement
}

/// Which node keeps an instance out, and by what.
fn obstacles(technology: Technology, nodes: &[Node<'_>]) -> String {
    let each = nodes.iter().map(|node| {
        let (name, limit) = (&node.view.name, node.view.limit);
        if !node.view.technologies.contains(&technology) {
            format!("{name} has no working {}", technology.label())
        } else if node.draining > 0 {
            format!("limit {limit} of {name} reached with {} draining", node.draining)
        } else {
            format!("limit {limit} of {name} reached")
        }
    });
    let each: Vec<String> = each.collect();
    if each.is_empty() { "no node is known".to_owned() } else { each.join(", ") }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
