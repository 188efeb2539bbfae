#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
use proptest::prelude::*;

use super::*;

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn wants(list: &[(&str, u32)]) -> BTreeMap<ServiceName, Want> {
    let want = |replicas| Want { replicas, technology: Technology::Docker, reason: "because".to_owned() };
    list.iter().map(|(name, replicas)| (service(name), want(*replicas))).collect()
}

fn node(name: &str, instances: &[(&str, u32)], draining: u32, limit: u32) -> NodeView {
    NodeView {
        name: NodeName::new(name).unwrap(),
        instances: instances.iter().map(|(s, c)| (service(s), *c)).collect(),
        draining,
        limit,
        technologies: [Technology::Docker].into(),
    }
}

fn replicas(placement: &Placement, node: &str, of: &str) -> u32 {
    placement.nodes[&NodeName::new(node).unwrap()][&service(of)].replicas
}

#[test]
fn instances_go_where_there_are_fewest_and_leave_where_there_are_most() {
    let nodes = [node("a", &[("s", 3)], 0, 10), node("b", &[("s", 1)], 0, 10)];
    let up = place(&wants(&[("s", 6)]), &nodes);
    assert_eq!((replicas(&up, "a", "s"), replicas(&up, "b", "s")), (3, 3));
    let down = place(&wants(&[("s", 2)]), &nodes);
    assert_eq!((replicas(&down, "a", "s"), replicas(&down, "b", "s")), (1, 1));
    let nodes = [node("a", &[("s", 4)], 0, 10), node("b", &[("s", 3)], 0, 10)];
    let down = place(&wants(&[("s", 2)]), &nodes);
    assert_eq!((replicas(&down, "a", "s"), replicas(&down, "b", "s")), (1, 1), "what drains counts no more");
    let other = [node("a", &[("t", 5)], 0, 10), node("b", &[("s", 1)], 0, 10)];
    let up = place(&wants(&[("s", 3)]), &other);
    assert_eq!((replicas(&up, "a", "s"), replicas(&up, "b", "s")), (0, 3), "t counts though it is not planned");
}

#[test]
fn what_drains_keeps_its_room() {
    let full = [node("a", &[("s", 3), ("t", 1)], 0, 4)];
    let placement = place(&wants(&[("s", 1), ("t", 3)]), &full);
    assert_eq!((replicas(&placement, "a", "s"), replicas(&placement, "a", "t")), (1, 1));
    assert_eq!(placement.unplaced[&service("t")], 2);
    let reason = &placement.nodes[&NodeName::new("a").unwrap()][&service("t")].reason;
    assert_eq!(reason, "because; 2 of 3 not placed: limit 4 of a reached with 2 draining");
    let gone = [node("a", &[("s", 1), ("t", 1)], 0, 4)];
    assert_eq!(replicas(&place(&wants(&[("s", 1), ("t", 3)]), &gone), "a", "t"), 3);
}

#[test]
fn a_draining_instance_does_not_drive_out_a_running_one() {
    let lowered = [node("a", &[("s", 10)], 0, 8)];
    assert_eq!(replicas(&place(&wants(&[("s", 10)]), &lowered), "a", "s"), 8);
    let next = [node("a", &[("s", 8)], 2, 8)];
    assert_eq!(replicas(&place(&wants(&[("s", 10)]), &next), "a", "s"), 8);
}

#[test]
fn scarce_room_is_shared() {
    let placement = place(&wants(&[("a", 8), ("b", 8), ("c", 2)]), &[node("n", &[], 0, 9)]);
    let got: Vec<u32> = ["a", "b", "c"].iter().map(|s| replicas(&placement, "n", s)).collect();
    assert_eq!(got, [4, 4, 1]);
}

#[test]
fn a_node_without_the_technology_gets_nothing_new_and_keeps_what_it_has() {
    let mut dead = node("a", &[("s", 1)], 0, 8);
    dead.technologies.clear();
    let placement = place(&wants(&[("s", 3)]), &[dead]);
    assert_eq!(replicas(&placement, "a", "s"), 1);
    let reason = &placement.nodes[&NodeName::new("a").unwrap()][&service("s")].reason;
    assert!(reason.ends_with("2 of 3 not placed: a has no working docker"), "{reason}");
    assert_eq!(place(&wants(&[("s", 3)]), &[]).unplaced[&service("s")], 3);
}

#[test]
fn services_that_are_not_planned_are_not_mentioned() {
    let placement = place(&wants(&[("s", 1)]), &[node("a", &[("other", 4)], 0, 8)]);
    assert_eq!(placement.nodes[&NodeName::new("a").unwrap()].len(), 1);
}

prop_compose! {
    fn any_node(name: &'static str)(
        counts in prop::collection::btree_map(prop::sample::select(vec!["s", "t", "u", "unplanned"]), 0u32..6, 0..4),
        draining in 0u32..5,
        limit in 0u32..16,
        docker in prop::bool::weighted(0.8),
    ) -> NodeView {
        let counts: Vec<_> = counts.into_iter().collect();
        let mut view = node(name, &counts, draining, limit);
        if !docker {
            view.technologies.clear();
        }
        view
    }
}

prop_compose! {
    fn any_case()(
        wanted in prop::collection::btree_map(prop::sample::select(vec!["s", "t", "u"]), 0u32..12, 1..4),
        a in any_node("a"), b in any_node("b"), c in any_node("c"), count in 0usize..4,
    ) -> (BTreeMap<ServiceName, Want>, Vec<NodeView>) {
        let wanted: Vec<_> = wanted.into_iter().collect();
        let mut nodes = vec![a, b, c];
        nodes.truncate(count);
        (wants(&wanted), nodes)
    }
}

/// Sum of the planned services on a node after the placement, and of the others, which stay.
fn after(placement: &Placement, view: &NodeView, wanted: &BTreeMap<ServiceName, Want>) -> u32 {
    let planned: u32 = placement.nodes[&view.name].values().map(|d| d.replicas).sum();
    let others = view.instances.iter().filter(|(s, _)| !wanted.contains_key(*s)).map(|(_, c)| c);
    planned + others.sum::<u32>()
}

proptest! {
    #[test]
    fn no_limit_is_ever_exceeded((wanted, nodes) in any_case()) {
        let placement = place(&wanted, &nodes);
        for view in &nodes {
            let running: u32 = view.instances.values().sum();
            let unplanned: u32 =
                view.instances.iter().filter(|(s, _)| !wanted.contains_key(*s)).map(|(_, c)| c).sum();
            let now = after(&placement, view, &wanted);
            prop_assert!(now <= view.limit.max(unplanned));
            // Whatever was added fits beside all that is there.
            let added: u32 = placement.nodes[&view.name].iter()
                .map(|(s, d)| d.replicas.saturating_sub(view.instances.get(s).copied().unwrap_or(0))).sum();
            prop_assert!(added == 0 || running + view.draining + added <= view.limit);
        }
    }

    #[test]
    fn all_that_is_wanted_is_placed_or_told((wanted, nodes) in any_case()) {
        let placement = place(&wanted, &nodes);
        for (service, want) in &wanted {
            let placed: u32 = placement.nodes.values().map(|n| n[service].replicas).sum();
            let missing = placement.unplaced.get(service).copied().unwrap_or(0);
            prop_assert_eq!(placed + missing, want.replicas);
            if missing > 0 {
                // Only where no node with the technology had room left beside all that is there.
                for view in nodes.iter().filter(|v| v.technologies.contains(&want.technology)) {
                    let was: u32 = view.instances.values().sum();
                    let removed: u32 = placement.nodes[&view.name].iter()
                        .map(|(s, d)| view.instances.get(s).copied().unwrap_or(0).saturating_sub(d.replicas)).sum();
                    let now = after(&placement, view, &wanted);
                    prop_assert!(now + removed + view.draining >= view.limit, "{view:?} {was}");
                }
            }
        }
    }

    #[test]
    fn moves_are_the_fewest((wanted, nodes) in any_case()) {
        // With room on every node a service only grows or only shrinks, by exactly the difference.
        let nodes: Vec<NodeView> = nodes.into_iter().map(|n| NodeView { limit: 100, ..n }).collect();
        let placement = place(&wanted, &nodes);
        for (service, want) in &wanted {
            let before = |v: &NodeView| v.instances.get(service).copied().unwrap_or(0);
            let moves: u32 = nodes.iter().map(|v| before(v).abs_diff(placement.nodes[&v.name][service].replicas)).sum();
            let total: u32 = nodes.iter().map(before).sum();
            let missing = placement.unplaced.get(service).copied().unwrap_or(0);
            prop_assert_eq!(moves, total.abs_diff(want.replicas - missing));
        }
    }

    #[test]
    fn the_order_of_nodes_does_not_matter((wanted, mut nodes) in any_case()) {
        let forward = place(&wanted, &nodes);
        nodes.reverse();
        prop_assert_eq!(place(&wanted, &nodes), forward);
    }

    #[test]
    fn what_is_placed_stays_placed((wanted, nodes) in any_case()) {
        // Once all is as desired and has drained, the same wants move nothing unless room was lacking.
        let first = place(&wanted, &nodes);
        let settled: Vec<NodeView> = nodes.iter().map(|v| {
            let mut view = v.clone();
            for (service, desired) in &first.nodes[&v.name] {
                view.instances.insert(service.clone(), desired.replicas);
            }
            view
        }).collect();
        let second = place(&wanted, &settled);
        for (name, services) in &first.nodes {
            for (service, desired) in services {
                let now = second.nodes[name][service].replicas;
                prop_assert!(now >= desired.replicas);
                prop_assert!(now == desired.replicas || first.unplaced.contains_key(service));
            }
        }
    }
}
