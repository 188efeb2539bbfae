#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
//! The comparison against a kernel made of values: steps are carried out on a [`Seen`].

use std::net::{IpAddr, Ipv4Addr};

use super::super::network::{Holder, Network, PortSpec};
use super::super::seen::{SeenAddress, SeenNeighbour, SeenRule};
use super::super::tc::{Bucket, Qdisc};
use super::*;
use crate::model::{AddressPair, UplinkSpec};

fn owner() -> OwnerId {
    OwnerId::from_number(5)
}

fn bridge() -> BridgeSpec {
    BridgeSpec {
        name: "br".to_owned(),
        v4: (Ipv4Addr::new(10, 1, 0, 1), "10.1.0.0/24".parse().unwrap()),
        v6: Some(("fd01::1".parse().unwrap(), "fd01::/64".parse().unwrap())),
        shaping: Some(Shaping::with_default_burst(500_000_000)),
    }
}

fn port(number: u32) -> (InstanceId, WantedPort) {
    let id = InstanceId::from_number(number);
    let spec = PortSpec {
        instance: id.clone(),
        bridge: bridge(),
        addresses: AddressPair { v4: Some(Ipv4Addr::new(10, 1, 0, 9)), v6: None },
        shaping: Some(Shaping::with_default_burst(10_000_000)),
        kind: PortKind::Pair,
    };
    (id, WantedPort { spec, holder: Some(Holder { pid: 1, namespace: (4, number.into()) }) })
}

fn wanted() -> Wanted {
    let tunnel = VxlanSpec {
        name: "vx".to_owned(),
        vni: 7,
        local: "192.0.2.1".parse().unwrap(),
        remotes: vec!["192.0.2.2".parse().unwrap()],
        port: 4789,
        mtu: 1450,
        addresses: vec!["10.99.0.1/24".parse().unwrap()],
    };
    let route = RouteSpec {
        to: "10.2.0.0/24".parse().unwrap(),
        via: Some("10.99.0.2".parse().unwrap()),
        device: None,
        metric: 100,
    };
    let uplink = UplinkSpec { interface: "eth1".to_owned(), shaping: Shaping::with_default_burst(100_000_000) };
    let network =
        Network { bridges: vec![bridge()], tunnels: vec![tunnel], routes: vec![route], uplinks: vec![uplink] };
    Wanted { network, ports: [port(9)].into(), ..Wanted::default() }
}

fn link(name: &str, index: u32) -> Link {
    Link {
        name: name.to_owned(),
        index,
        alias: None,
        mac: None,
        up: false,
        loopback: false,
        controller: None,
        mtu: 1500,
        nature: Nature::Other,
        stats: None,
    }
}

/// A kernel with one link of another's.
fn bare() -> Seen {
    let mut seen = Seen { links: vec![link("eth1", 2)], ..Seen::default() };
    seen.settings.insert(NODE_SETTINGS[0].to_owned(), "1".to_owned());
    seen.settings.insert(NODE_SETTINGS[1].to_owned(), "1".to_owned());
    seen
}

fn add(seen: &mut Seen, mut new: Link) {
    new.index = seen.links.iter().map(|l| l.index).max().unwrap_or(0) + 1;
    seen.links.push(new);
}

/// What the kernel does with a step; removing a link removes what is on it.
fn act(seen: &mut Seen, step: &Step) {
    let index = |seen: &Seen, name: &str| seen.link(name).unwrap().index;
    match step.clone() {
        Step::AddBridge(spec) => {
            let mac = Some(mark::bridge_mac(&owner(), &spec.name));
            add(seen, Link { mac, nature: Nature::Bridge { stp: false }, ..link(&spec.name, 0) });
        }
        Step::AddShaper(name) => {
            let mac = Some(mark::shaper_mac(&owner(), &name));
            add(seen, Link { mac, ..link(&name, 0) });
        }
        Step::AddTunnel(spec) => {
            let nature = Nature::Vxlan { vni: spec.vni, local: Some(spec.local), port: spec.port };
            let mac = Some(mark::tunnel_mac(&owner(), &spec.name));
            add(seen, Link { mac, nature, mtu: spec.mtu, ..link(&spec.name, 0) });
        }
        Step::Forward(_) => unreachable!("a table of its own, compared by itself"),
        Step::RestorePort(id) => {
            let mac = Some(mark::host_mac(&owner(), &id));
            add(seen, Link { mac, ..link(&id.interface(), 0) });
            seen.cut_off.remove(&id);
        }
        Step::RemoveLink { name, .. } => remove(seen, &name),
        Step::Adjust { name, to, .. } => {
            let controller = to.controller.map(|bridge| bridge.map(|bridge| index(seen, &bridge)));
            let link = seen.links.iter_mut().find(|l| l.name == name).unwrap();
            link.up = to.up.unwrap_or(link.up);
            if let Some(alias) = to.alias {
                link.alias = (!alias.is_empty()).then_some(alias);
            }
            link.mac = to.mac.or(link.mac);
            link.mtu = to.mtu.unwrap_or(link.mtu);
            if let Some(stp) = to.stp {
                link.nature = Nature::Bridge { stp };
            }
            if let Some(controller) = controller {
                link.controller = controller;
            }
        }
        Step::AddAddress { link, address, prefix } => {
            let index = index(seen, &link);
            seen.addresses.push(SeenAddress { index, address, prefix });
        }
        Step::RemoveAddress { link, address, .. } => {
            let index = index(seen, &link);
            seen.addresses.retain(|a| a.index != index || a.address != address);
        }
        Step::AddRoute(route) => {
            let RouteSpec { to, via, metric, .. } = route;
            let device = Some(index(seen, "vx"));
            seen.routes.push(SeenRoute { to, via, device, metric, ours: true });
        }
        Step::RemoveRoute(route) => seen.routes.retain(|r| (r.to, r.metric) != (route.to, route.metric)),
        Step::SetNeighbour { link, address, mac } => {
            let index = index(seen, &link);
            seen.neighbours.retain(|n| n.index != index || n.address != address);
            seen.neighbours.push(SeenNeighbour { index, address, mac: Some(mac) });
        }
        Step::RemoveNeighbour { address, .. } => seen.neighbours.retain(|n| n.address != address),
        Step::AddFlood { link, remote } => {
            let index = index(seen, &link);
            seen.floods.push((index, remote));
        }
        Step::RemoveFlood { remote, .. } => seen.floods.retain(|(_, to)| *to != remote),
        Step::SetBucket { link, shaping, limit_bytes, change } => {
            let index = index(seen, &link);
            let there = seen.root(index).is_some_and(|q| !q.is_default());
            assert_eq!(there, change, "{link}: a bucket is changed in place, and only where there is one");
            let backlog = seen.root(index).map_or(0, |q| q.backlog);
            seen.qdiscs.retain(|q| q.index != index || !q.is_root());
            let burst_bytes = u64::from(shaping.burst_bytes);
            let bucket = Some(Bucket { rate_bps: shaping.rate_bps, burst_bytes, limit_bytes });
            seen.qdiscs.push(Qdisc { backlog, ..qdisc(index, "tbf", handle_of(&owner()), bucket) });
        }
        Step::RemoveBucket { link } => {
            let index = index(seen, &link);
            seen.qdiscs.retain(|q| q.index != index || !q.is_root());
        }
        Step::AddClsact { link } => {
            let index = index(seen, &link);
            let handle = TcHandle { major: 0xffff, minor: 0 };
            seen.qdiscs.push(Qdisc { parent: TcHandle::INGRESS, ..qdisc(index, "clsact", handle, None) });
        }
        Step::RemoveClsact { link } => {
            let index = index(seen, &link);
            seen.qdiscs.retain(|q| q.index != index || q.is_root());
        }
        Step::SetRedirect { link, to } => {
            let (index, to) = (index(seen, &link), index(seen, &to));
            seen.redirects.insert(index, to);
        }
        Step::RemoveRedirect { link } => {
            let index = index(seen, &link);
            seen.redirects.remove(&index);
        }
        Step::Set { path, value } => drop(seen.settings.insert(path, value)),
    }
}

fn qdisc(index: u32, kind: &str, handle: TcHandle, bucket: Option<Bucket>) -> Qdisc {
    Qdisc { index, kind: kind.to_owned(), handle, parent: TcHandle::ROOT, bucket, backlog: 0 }
}

fn remove(seen: &mut Seen, name: &str) {
    let index = seen.link(name).unwrap().index;
    seen.links.retain(|l| l.index != index);
    for link in seen.links.iter_mut().filter(|l| l.controller == Some(index)) {
        link.controller = None;
    }
    seen.addresses.retain(|a| a.index != index);
    seen.routes.retain(|r| r.device != Some(index));
    seen.neighbours.retain(|n| n.index != index);
    seen.floods.retain(|(at, _)| *at != index);
    seen.qdiscs.retain(|q| q.index != index);
    seen.redirects.remove(&index);
}

fn settle(wanted: &Wanted, seen: &mut Seen) -> Vec<Step> {
    let steps = diff(&owner(), wanted, seen, &[]).steps;
    for step in &steps {
        act(seen, step);
    }
    steps
}

/// A kernel that has all that is wanted.
fn settled() -> (Wanted, Seen) {
    let (wanted, mut seen) = (wanted(), bare());
    seen.cut_off.insert(InstanceId::from_number(9));
    settle(&wanted, &mut seen);
    // A port that is made again is furnished with it.
    settle(&wanted, &mut seen);
    assert_eq!(diff(&owner(), &wanted, &seen, &[]), Diff::default());
    (wanted, seen)
}

fn hazards(wanted: &Wanted, seen: &Seen) -> Vec<Hazard> {
    diff(&owner(), wanted, seen, &[]).hazards
}

/// A tap's neighbours are kept from the beginning; one that was deleted under its monitor is told, not made.
#[test]
fn a_deleted_tap_is_told() {
    let (mut wanted, seen) = settled();
    let port = wanted.ports.get_mut(&InstanceId::from_number(9)).unwrap();
    port.spec.kind = PortKind::Tap(crate::model::TapUse::Descriptor);
    port.holder = None;
    let less = Seen { neighbours: Vec::new(), ..seen.clone() };
    assert!(matches!(diff(&owner(), &wanted, &less, &[]).steps.as_slice(), [Step::SetNeighbour { .. }]));

    let mut less = seen;
    remove(&mut less, &InstanceId::from_number(9).interface());
    assert_eq!(diff(&owner(), &wanted, &less, &[]), Diff::default(), "its monitor has ended, too");
    less.cut_off.insert(InstanceId::from_number(9));
    let told = diff(&owner(), &wanted, &less, &[]);
    assert_eq!(told.steps, []);
    let [hazard] = told.hazards.as_slice() else { panic!("{told:?}") };
    assert!(!hazard.blocks && hazard.text.contains("was removed"), "{hazard:?}");
}

#[test]
fn each_loss_is_made_good() {
    let (wanted, seen) = settled();
    let mut losses: Vec<(String, Seen)> = Vec::new();
    let mut lose = |what: &str, change: Hurt<'_>| {
        let mut less = seen.clone();
        change(&mut less);
        assert_ne!(less, seen, "{what}");
        losses.push((what.to_owned(), less));
    };
    for name in ["br", "vx", "svi00000009", &mark::shaper_name(&owner(), "br")] {
        lose(name, &|less| remove(less, name));
    }
    lose("port", &|less| {
        remove(less, "sv00000009");
        less.cut_off.insert(InstanceId::from_number(9));
    });
    lose("membership", &|less| less.links.iter_mut().for_each(|l| l.controller = None));
    lose("state", &|less| less.links.iter_mut().filter(|l| l.index != 2).for_each(|l| l.up = false));
    lose("addresses", &|less| less.addresses.clear());
    lose("routes", &|less| less.routes.clear());
    lose("neighbours", &|less| less.neighbours.clear());
    lose("remotes", &|less| less.floods.clear());
    lose("qdiscs", &|less| less.qdiscs.clear());
    lose("roots", &|less| less.qdiscs.retain(|q| !q.is_root()));
    lose("redirects", &|less| less.redirects.clear());
    lose("tree protocol", &|less| {
        less.links.iter_mut().filter(|l| l.name == "br").for_each(|l| l.nature = Nature::Bridge { stp: true });
    });
    lose("setting", &|less| drop(less.settings.insert("ipv4/conf/br/forwarding".to_owned(), "0".to_owned())));
    lose("everything", &|less| *less = Seen { cut_off: [InstanceId::from_number(9)].into(), ..bare() });
    for (what, mut less) in losses {
        // Redirects hang on the place for filters.
        let places: Vec<u32> = less.qdiscs.iter().filter(|q| q.takes_ingress()).map(|q| q.index).collect();
        less.redirects.retain(|at, _| places.contains(at));
        assert_ne!(settle(&wanted, &mut less), [], "{what}");
        settle(&wanted, &mut less);
        assert_eq!(diff(&owner(), &wanted, &less, &[]), Diff::default(), "{what}");
    }
}

#[test]
fn steps_taken_back_leave_what_was_there() {
    let (wanted, seen) = settled();
    let other = Shaping::with_default_burst(30_000_000);
    let mut changed = wanted.clone();
    changed.network.bridges[0].shaping = None;
    changed.network.tunnels[0].addresses = vec!["10.98.0.1/24".parse().unwrap()];
    changed.network.tunnels[0].remotes = vec!["192.0.2.3".parse().unwrap()];
    changed.network.tunnels[0].mtu = 1400;
    changed.network.routes[0].via = Some("10.98.0.2".parse().unwrap());
    changed.network.uplinks[0].shaping = other;
    changed.ports.values_mut().for_each(|p| p.spec.shaping = Some(other));
    // From nothing, and from something else; without removals of links, which come last and are not taken back.
    for (wanted, before) in [(&wanted, bare()), (&changed, seen)] {
        let steps = diff(&owner(), wanted, &before, &[]).steps;
        let steps: Vec<Step> = steps.into_iter().filter(|s| !matches!(s, Step::RemoveLink { .. })).collect();
        for done in 1..=steps.len() {
            let mut seen = before.clone();
            steps[..done].iter().for_each(|step| act(&mut seen, step));
            for reverse in steps[..done].iter().rev().filter_map(|step| step.reverse(&before)) {
                act(&mut seen, &reverse);
            }
            sort(&mut seen);
            let mut before = before.clone();
            sort(&mut before);
            // Settings of a bridge go with the bridge.
            seen.settings.retain(|path, _| before.settings.contains_key(path));
            assert_eq!(seen, before, "after {:?}", steps[..done].last());
        }
    }
}

fn sort(seen: &mut Seen) {
    seen.addresses.sort_by_key(|a| (a.index, a.address));
    seen.qdiscs.sort_by_key(|q| (q.index, u32::from(q.parent)));
    seen.routes.sort_by_key(|r| r.to);
    seen.floods.sort_unstable();
}

#[test]
fn a_queue_is_not_made_shorter_than_what_waits_in_it() {
    let (mut wanted, mut seen) = settled();
    let slow = Shaping::with_default_burst(2_000_000);
    let port = seen.link("sv00000009").unwrap().index;
    wanted.ports.values_mut().for_each(|p| p.spec.shaping = Some(slow));
    let limit = |steps: &[Step]| {
        steps.iter().find_map(|step| match step {
            Step::SetBucket { link, limit_bytes, .. } if link == "sv00000009" => Some(*limit_bytes),
            _ => None,
        })
    };
    let full = Shaping::with_default_burst(10_000_000).queue_bytes();
    seen.qdiscs.iter_mut().filter(|q| q.index == port).for_each(|q| q.backlog = full - 100);
    let steps = settle(&wanted, &mut seen);
    assert_eq!(limit(&steps), Some(full));
    seen.qdiscs.iter_mut().filter(|q| q.index == port).for_each(|q| q.backlog = full - 1000);
    assert_eq!(limit(&settle(&wanted, &mut seen)), None);
    seen.qdiscs.iter_mut().filter(|q| q.index == port).for_each(|q| q.backlog = 0);
    assert_eq!(limit(&settle(&wanted, &mut seen)), Some(slow.queue_bytes()));
}

#[test]
fn what_is_not_wanted_any_more_goes_and_nothing_else() {
    let (_, mut seen) = settled();
    let foreign = Link { alias: Some("somebody's".to_owned()), ..link("vx9", 90) };
    seen.links.push(foreign.clone());
    let (id, mut port) = port(9);
    port.spec.shaping = None;
    let less = Wanted {
        network: Network { bridges: vec![BridgeSpec { shaping: None, ..bridge() }], ..Network::default() },
        ports: [(id, port)].into(),
        ..Wanted::default()
    };
    let steps = diff(&owner(), &less, &seen, &["eth1".to_owned()]).steps;
    steps.iter().for_each(|step| act(&mut seen, step));
    let names: Vec<&str> = seen.links.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["eth1", "br", "sv00000009", "vx9"]);
    assert!(seen.routes.is_empty() && seen.redirects.is_empty());
    assert!(seen.qdiscs.iter().all(|q| !q.is_root()), "{:?}", seen.qdiscs);
    assert_eq!(diff(&owner(), &less, &seen, &[]).steps, []);
}

#[test]
fn things_of_others_in_the_way_are_named_and_left() {
    let (wanted, seen) = settled();
    let index = |name: &str| seen.link(name).unwrap().index;

    let mut named = bare();
    named.links.push(Link { alias: Some("lan".to_owned()), ..link("vx", 50) });
    let found = hazards(&wanted, &named);
    assert!(found.iter().any(|h| h.blocks && h.text.starts_with("vx: ")), "{found:?}");
    let touched = diff(&owner(), &wanted, &named, &[]).steps;
    assert!(touched.iter().all(|s| !matches!(s, Step::AddTunnel(_) | Step::AddFlood { .. })), "{touched:?}");

    let mut queued = seen.clone();
    let port = index("sv00000009");
    queued.qdiscs.retain(|q| q.index != port || !q.is_root());
    queued.qdiscs.push(qdisc(port, "htb", TcHandle { major: 1, minor: 0 }, None));
    let found = diff(&owner(), &wanted, &queued, &[]);
    assert_eq!(found.steps, []);
    assert!(found.hazards.len() == 1 && found.hazards[0].blocks, "{found:?}");
    assert!(found.hazards[0].text.contains("htb 1:"), "{found:?}");

    let mut routed = seen.clone();
    routed.routes[0].ours = false;
    routed.routes[0].via = Some("10.99.0.77".parse().unwrap());
    let found = diff(&owner(), &wanted, &routed, &[]);
    assert!(found.steps.is_empty() && found.hazards[0].blocks, "{found:?}");

    let gone =
        Wanted { network: Network { uplinks: wanted.network.uplinks, ..Network::default() }, ..Wanted::default() };
    assert!(hazards(&gone, &Seen::default())[0].text.starts_with("eth1: "));
}

type Hurt<'a> = &'a dyn Fn(&mut Seen);

#[test]
fn what_hurts_is_named() {
    let (wanted, seen) = settled();
    let of_eth1 = |address: &str| SeenAddress { index: 2, address: address.parse().unwrap(), prefix: 24 };
    let rule = |to: Option<&str>| SeenRule { priority: 100, v6: false, to: to.map(|to| to.parse().unwrap()) };
    let on_bridge = seen.link("br").unwrap().index;
    let route = |to: &str, device| {
        let to = to.parse().unwrap();
        SeenRoute { to, via: None, device: Some(device), metric: 0, ours: false }
    };
    let cases: [(&str, Hurt<'_>); 7] = [
        ("10.1.0.1", &|s| s.addresses.push(of_eth1("10.1.0.1"))),
        ("10.1.0.9", &|s| s.addresses.push(of_eth1("10.1.0.9"))),
        ("ip_forward", &|s| drop(s.settings.insert("ipv4/ip_forward".to_owned(), "0".to_owned()))),
        ("rule 100", &|s| s.rules.push(rule(None))),
        ("rule 100", &|s| s.rules.push(rule(Some("10.1.0.0/16")))),
        ("10.1.0.0/25", &|s| s.routes.push(route("10.1.0.0/25", 2))),
        ("not ours", &|s| {
            let address: IpAddr = "10.1.7.7".parse().unwrap();
            s.addresses.push(SeenAddress { index: on_bridge, address, prefix: 24 });
        }),
    ];
    for (named, change) in cases {
        let mut hurt = seen.clone();
        change(&mut hurt);
        let found = diff(&owner(), &wanted, &hurt, &[]);
        assert_eq!(found.steps, [], "{named}");
        assert!(found.hazards.len() == 1 && found.hazards[0].text.contains(named), "{named}: {found:?}");
        assert!(!found.hazards[0].blocks, "{named}");
    }
    for harmless in [&|s: &mut Seen| s.rules.push(rule(Some("10.77.0.0/16"))) as (), &|s| {
        s.routes.push(route("10.1.0.0/24", on_bridge));
    }] as [Hurt<'_>; 2]
    {
        let mut same = seen.clone();
        harmless(&mut same);
        assert_eq!(hazards(&wanted, &same), []);
    }
}

#[test]
fn a_port_whose_instance_has_ended_is_not_made_again() {
    let (wanted, mut seen) = settled();
    remove(&mut seen, "sv00000009");
    let steps = diff(&owner(), &wanted, &seen, &[]).steps;
    assert_eq!(steps, []);
    // Once it is forgotten, nothing of it stays.
    let none = Wanted { ports: std::collections::BTreeMap::new(), ..wanted };
    let steps = diff(&owner(), &none, &seen, &[]).steps;
    assert_eq!(steps, [Step::RemoveLink { object: "shaper", name: "svi00000009".to_owned() }]);
}
