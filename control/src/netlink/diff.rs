//! What has to be done so that the kernel has what is wanted. Pure: both come as values.
//!
//! Only what bears our mark is changed. What hurts but is another's is named as a hazard; where a hazard stands in the
//! place of something wanted it blocks that thing, and nothing is done about it.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::tc::TcHandle;

use super::link::{Link, Nature};
use super::mark::{self, Kind, Mac};
use super::network::{Wanted, WantedPort, kind_of};
use super::seen::{NODE_SETTINGS, Seen, SeenRoute, bridge_settings};
use super::step::{Adjust, Step, declared};
use super::{BridgeSpec, step};
use crate::model::{InstanceId, OwnerId, PortKind, RouteSpec, Shaping, VxlanSpec};

/// Something that hurts and is not ours to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hazard {
    /// A sentence for the operator of the node.
    pub text: String,
    /// It stands where something of ours is wanted.
    pub blocks: bool,
}

/// Steps in order, and what they cannot mend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Diff {
    pub steps: Vec<Step>,
    pub hazards: Vec<Hazard>,
}

/// The handle of `owner`'s token buckets.
pub(super) fn handle_of(owner: &OwnerId) -> TcHandle {
    TcHandle { major: mark::qdisc_major(owner), minor: 0 }
}

/// Compares. `before` are links of others that were shaped until now and may be so no longer.
pub(super) fn diff(owner: &OwnerId, wanted: &Wanted, seen: &Seen, before: &[String]) -> Diff {
    let mut work = Work { owner, seen, out: Diff::default() };
    for bridge in &wanted.network.bridges {
        work.bridge(bridge);
    }
    for tunnel in &wanted.network.tunnels {
        work.tunnel(tunnel);
    }
    for (id, port) in &wanted.ports {
        work.port(id, port);
    }
    for (link, shaping) in wanted.shaped() {
        // A port that is made again is shaped with it; one that is not there has nothing to shape.
        let bridge = wanted.network.bridges.iter().any(|b| b.name == link);
        if bridge || seen.link(&link).is_some() {
            work.shape(&link, shaping);
        }
    }
    for uplink in &wanted.network.uplinks {
        work.uplink(&uplink.interface, uplink.shaping);
    }
    for route in &wanted.network.routes {
        work.route(route);
    }
    work.remove_unwanted(wanted, before);
    work.look_around(wanted);
    work.out
}

/// Steps that shape a link that was just made; `shaping` in both directions.
pub(super) fn shape_new(owner: &OwnerId, link: &str, shaping: Shaping) -> Vec<Step> {
    let nothing = Seen::default();
    let mut work = Work { owner, seen: &nothing, out: Diff::default() };
    work.shape(link, Some(shaping));
    work.out.steps
}

/// Steps that remove all that is ours but bridges and ports.
pub(super) fn release(owner: &OwnerId, seen: &Seen) -> Vec<Step> {
    let ours = |link: &&Link| kind_of(owner, link).is_some_and(|k| matches!(k, Kind::Tunnel | Kind::Shaper));
    let buckets = seen.qdiscs.iter().filter(|q| q.is_bucket_of(handle_of(owner)));
    // With a port or an intermediate device goes what is on it.
    let lasting = |link: &&Link| !matches!(kind_of(owner, link), Some(Kind::Port(_) | Kind::Shaper));
    let buckets = buckets.filter_map(|q| seen.links.iter().filter(lasting).find(|l| l.index == q.index));
    let mut steps: Vec<Step> = buckets.map(|l| Step::RemoveBucket { link: l.name.clone() }).collect();
    steps.extend(seen.routes.iter().filter(|r| r.ours).map(|r| Step::RemoveRoute(declared(r, seen))));
    steps.extend(seen.links.iter().filter(ours).map(|link| {
        let tunnel = kind_of(owner, link) == Some(Kind::Tunnel);
        Step::RemoveLink { object: if tunnel { "vxlan" } else { "shaper" }, name: link.name.clone() }
    }));
    steps
}

struct Work<'a> {
    owner: &'a OwnerId,
    seen: &'a Seen,
    out: Diff,
}

impl Work<'_> {
    fn step(&mut self, step: Step) {
        self.out.steps.push(step);
    }

    fn hazard(&mut self, blocks: bool, text: String) {
        self.out.hazards.push(Hazard { text, blocks });
    }

    /// The link of that name; `Err` where it is another's, which is told.
    fn ours(&mut self, name: &str, kind: &Kind) -> Result<Option<Link>, ()> {
        let Some(link) = self.seen.link(name) else { return Ok(None) };
        if kind_of(self.owner, link).as_ref() == Some(kind) {
            return Ok(Some(link.clone()));
        }
        let alias = link.alias.clone().unwrap_or_default();
        let text =
            format!("{name}: a link of that name is there and not ours (its alias is {alias:?}); remove or rename it");
        self.hazard(true, text);
        Err(())
    }

    /// Brings the properties that every link of ours has into order, and those in `to`.
    fn adjust(&mut self, object: &'static str, name: &str, kind: &Kind, mac: Option<Mac>, mut to: Adjust) {
        let link = self.seen.link(name);
        let alias = mark::alias(self.owner, kind);
        if link.and_then(|l| l.alias.as_ref()) != Some(&alias) {
            to.alias = Some(alias);
        }
        if mac.is_some() && link.is_some_and(|l| l.mac != mac) {
            to.mac = mac;
        }
        if !link.is_some_and(|l| l.up) {
            to.up = Some(true);
        }
        if to != Adjust::default() {
            self.step(Step::Adjust { object, name: name.to_owned(), to });
        }
    }

    fn bridge(&mut self, spec: &BridgeSpec) {
        let Ok(link) = self.ours(&spec.name, &Kind::Bridge) else { return };
        if link.is_none() {
            self.step(Step::AddBridge(spec.clone()));
        }
        let stp = link.as_ref().is_some_and(|l| l.nature == Nature::Bridge { stp: true });
        let to = Adjust { stp: stp.then_some(false), ..Adjust::default() };
        self.adjust("bridge", &spec.name, &Kind::Bridge, Some(mark::bridge_mac(self.owner, &spec.name)), to);
        for (path, value) in bridge_settings(spec) {
            let is = self.seen.settings.get(&path).is_some_and(|v| v == value);
            // Settings of a bridge that is made now are those of all new links.
            if link.is_none() || !is {
                self.step(Step::Set { path, value: value.to_owned() });
            }
        }
        self.add_addresses(&spec.name, link.as_ref(), &spec.addresses());
        let Some(link) = link else { return };
        let foreign: Vec<IpNet> = self
            .addresses_of(&link)
            .filter(|held| !spec.addresses().contains(held))
            .filter_map(|(address, prefix)| IpNet::new(address, prefix).ok())
            .collect();
        for net in foreign {
            self.hazard(false, format!("{}: has the address {net} that is not ours", spec.name));
        }
    }

    fn tunnel(&mut self, spec: &VxlanSpec) {
        let Ok(mut link) = self.ours(&spec.name, &Kind::Tunnel) else { return };
        let nature = Nature::Vxlan { vni: spec.vni, local: Some(spec.local), port: spec.port };
        if link.as_ref().is_some_and(|l| l.nature != nature) {
            // What a tunnel is made with stays as long as it lives.
            self.step(Step::RemoveLink { object: "vxlan", name: spec.name.clone() });
            link = None;
        }
        if link.is_none() {
            self.step(Step::AddTunnel(spec.clone()));
        }
        let mtu = link.as_ref().is_some_and(|l| l.mtu != spec.mtu).then_some(spec.mtu);
        let to = Adjust { mtu, ..Adjust::default() };
        self.adjust("vxlan", &spec.name, &Kind::Tunnel, Some(mark::tunnel_mac(self.owner, &spec.name)), to);
        let addresses: Vec<_> = spec.addresses.iter().map(|net| (net.addr(), net.prefix_len())).collect();
        self.add_addresses(&spec.name, link.as_ref(), &addresses);
        let held: Vec<_> = link.iter().flat_map(|l| self.addresses_of(l)).collect();
        for (address, prefix) in held.into_iter().filter(|held| !addresses.contains(held)) {
            self.step(Step::RemoveAddress { link: spec.name.clone(), address, prefix });
        }
        let index = link.as_ref().map(|l| l.index);
        let known: Vec<IpAddr> =
            self.seen.floods.iter().filter(|(at, _)| Some(*at) == index).map(|(_, remote)| *remote).collect();
        for remote in spec.remotes.iter().filter(|remote| !known.contains(remote)) {
            self.step(Step::AddFlood { link: spec.name.clone(), remote: *remote });
        }
        for remote in known.into_iter().filter(|remote| !spec.remotes.contains(remote)) {
            self.step(Step::RemoveFlood { link: spec.name.clone(), remote });
        }
    }

    fn port(&mut self, id: &InstanceId, port: &WantedPort) {
        let name = id.interface();
        let kind = Kind::Port(id.clone());
        let Ok(link) = self.ours(&name, &kind) else { return };
        let Some(link) = link else {
            // One whose instance has ended is gone for good; whoever ends the instance forgets it.
            match port.spec.kind {
                _ if !self.seen.cut_off.contains(id) => {}
                PortKind::Pair => self.step(Step::RestorePort(id.clone())),
                // It is there for as long as its instance is, and comes back with none.
                PortKind::Vif => {}
                PortKind::Tap(_) => {
                    let text = format!(
                        "{name}: was removed while instance {id} holds its other end; it cannot be made again, so the \
                         instance will miss its probes and be replaced"
                    );
                    self.hazard(false, text);
                }
            }
            return;
        };
        let bridge = &port.spec.bridge.name;
        let joined = link.controller.is_some() && link.controller == self.seen.link(bridge).map(|b| b.index);
        let to = Adjust { controller: (!joined).then(|| Some(bridge.clone())), ..Adjust::default() };
        self.adjust("port", &name, &kind, None, to);
        // A tap has them from the beginning, a pair once it is attached.
        if port.holder.is_none() && port.spec.kind == PortKind::Pair {
            return;
        }
        let mac = mark::instance_mac(self.owner, id);
        let index = self.seen.link(bridge).map(|b| b.index);
        for address in port.spec.addresses.iter() {
            let set = self
                .seen
                .neighbours
                .iter()
                .any(|n| Some(n.index) == index && n.address == address && n.mac == Some(mac));
            if !set {
                self.step(Step::SetNeighbour { link: bridge.clone(), address, mac });
            }
        }
    }

    /// A token bucket at the root of a link, with nothing of another's in its place.
    fn bucket(&mut self, link: &str, shaping: Shaping) {
        let limit_bytes = shaping.queue_bytes();
        let index = self.seen.link(link).map(|l| l.index);
        let root = index.and_then(|index| self.seen.root(index));
        let name = link.to_owned();
        match root {
            None => self.step(Step::SetBucket { link: name, shaping, limit_bytes, change: false }),
            Some(root) if root.is_bucket_of(handle_of(self.owner)) => {
                // A queue that is made shorter than what waits in it drops what comes; it is made shorter later.
                let limit_bytes = match root.bucket {
                    Some(bucket) if root.backlog > limit_bytes => limit_bytes.max(bucket.limit_bytes),
                    _ => limit_bytes,
                };
                if !root.bucket.is_some_and(|bucket| bucket.is(shaping, limit_bytes)) {
                    self.step(Step::SetBucket { link: name, shaping, limit_bytes, change: true });
                }
            }
            Some(root) if root.is_default() => {
                self.step(Step::SetBucket { link: name, shaping, limit_bytes, change: false });
            }
            Some(root) => {
                let (kind, major) = (root.kind.clone(), root.handle.major);
                let text = format!(
                    "{link}: has a queueing discipline that is not ours ({kind} {major:x}:), so its rate is not held; \
                     tc qdisc del dev {link} root lets us set ours"
                );
                self.hazard(true, text);
            }
        }
    }

    /// Shapes both directions of a link, or none: what it sends by a bucket of its own, what it receives by sending it
    /// through an intermediate device that has one.
    fn shape(&mut self, link: &str, shaping: Option<Shaping>) {
        let Some(shaping) = shaping else { return };
        // Told already where the link itself is wanted.
        if self.seen.link(link).is_some_and(|l| kind_of(self.owner, l).is_none()) {
            return;
        }
        self.bucket(link, shaping);
        let shaper = mark::shaper_name(self.owner, link);
        let Ok(device) = self.ours(&shaper, &Kind::Shaper) else { return };
        if device.is_none() {
            self.step(Step::AddShaper(shaper.clone()));
        }
        self.adjust("shaper", &shaper, &Kind::Shaper, None, Adjust::default());
        self.bucket(&shaper, shaping);
        let index = self.seen.link(link).map(|l| l.index);
        if !index.is_some_and(|index| self.seen.takes_ingress(index)) {
            self.step(Step::AddClsact { link: link.to_owned() });
        }
        let leads = index.and_then(|index| self.seen.redirects.get(&index));
        if device.is_none() || leads != device.as_ref().map(|d| &d.index) {
            self.step(Step::SetRedirect { link: link.to_owned(), to: shaper });
        }
    }

    fn uplink(&mut self, interface: &str, shaping: Shaping) {
        if self.seen.link(interface).is_none() {
            self.hazard(true, format!("{interface}: there is no such interface to shape"));
            return;
        }
        self.bucket(interface, shaping);
    }

    fn route(&mut self, route: &RouteSpec) {
        let same = |seen: &&SeenRoute| seen.to == route.to && seen.metric == route.metric;
        let Some(found) = self.seen.routes.iter().find(same) else {
            return self.step(Step::AddRoute(route.clone()));
        };
        let device = found.device.and_then(|index| self.seen.name(index));
        let as_wanted = found.via == route.via && (route.device.is_none() || device == route.device.as_deref());
        let declared = declared(found, self.seen);
        match (found.ours, as_wanted) {
            (true, true) => {}
            (true, false) => {
                self.step(Step::RemoveRoute(declared));
                self.step(Step::AddRoute(route.clone()));
            }
            (false, true) => {
                let text = format!("route {}: is there already and not ours; left as it is", route.to);
                self.hazard(false, text);
            }
            (false, false) => {
                let text = format!("route {}: another one with metric {} is in its place", route.to, route.metric);
                self.hazard(true, text);
            }
        }
    }

    fn addresses_of(&self, link: &Link) -> impl Iterator<Item = (IpAddr, u8)> {
        let index = link.index;
        self.seen.addresses.iter().filter(move |a| a.index == index).map(|a| (a.address, a.prefix))
    }

    fn add_addresses(&mut self, name: &str, link: Option<&Link>, wanted: &[(IpAddr, u8)]) {
        let held: Vec<_> = link.iter().flat_map(|l| self.addresses_of(l)).collect();
        for (address, prefix) in wanted.iter().filter(|wanted| !held.contains(wanted)) {
            self.step(Step::AddAddress { link: name.to_owned(), address: *address, prefix: *prefix });
        }
    }

    /// What is ours and not wanted any more. Redirects go before the devices that they lead to.
    fn remove_unwanted(&mut self, wanted: &Wanted, before: &[String]) {
        let owner = self.owner;
        let handle = handle_of(owner);
        let unshaped: Vec<String> = wanted.shaped().into_iter().filter(|(_, s)| s.is_none()).map(|(l, _)| l).collect();
        let released = before.iter().filter(|name| wanted.network.uplinks.iter().all(|u| u.interface != **name));
        for name in unshaped.iter().chain(released) {
            let Some(link) = self.seen.link(name) else { continue };
            if self.seen.root(link.index).is_some_and(|root| root.is_bucket_of(handle)) {
                self.step(Step::RemoveBucket { link: name.clone() });
            }
            if self.seen.redirects.contains_key(&link.index) {
                self.step(Step::RemoveRedirect { link: name.clone() });
            }
        }
        for route in self.seen.routes.iter().filter(|r| r.ours) {
            let wanted = wanted.network.routes.iter().any(|w| w.to == route.to && w.metric == route.metric);
            if !wanted {
                self.step(Step::RemoveRoute(step::declared(route, self.seen)));
            }
        }
        let shapers: Vec<(String, String)> =
            wanted.shaped().into_iter().map(|(link, _)| (mark::shaper_name(owner, &link), link)).collect();
        for link in &self.seen.links {
            let name = link.name.clone();
            match kind_of(owner, link) {
                Some(Kind::Tunnel) if wanted.network.tunnels.iter().all(|t| t.name != name) => {
                    self.step(Step::RemoveLink { object: "vxlan", name });
                }
                Some(Kind::Shaper) => {
                    let of = shapers.iter().find(|(shaper, _)| *shaper == name);
                    let stray = match of {
                        // One whose port has gone by itself goes with the instance, or serves the port that is made again.
                        Some((_, of)) => unshaped.contains(of),
                        // One of a link that was not taken up (yet) stays with it.
                        None => self.seen.links.iter().all(|l| mark::shaper_name(owner, &l.name) != name),
                    };
                    if stray {
                        self.step(Step::RemoveLink { object: "shaper", name });
                    }
                }
                _ => {}
            }
        }
    }

    /// Foreign changes that hurt although nothing of ours is missing.
    fn look_around(&mut self, wanted: &Wanted) {
        let bridges = &wanted.network.bridges;
        if bridges.is_empty() {
            return;
        }
        for (path, v6) in NODE_SETTINGS.into_iter().zip([false, true]) {
            let needed = !v6 || bridges.iter().any(|b| b.v6.is_some());
            if needed && self.seen.settings.get(path).is_some_and(|value| value == "0") {
                let text =
                    format!("{path} is 0: clients elsewhere cannot reach instances; set it to 1, or restart selvedged");
                self.hazard(false, text);
            }
        }
        for bridge in bridges {
            for prefix in bridge.prefixes() {
                self.look_around_prefix(bridge, prefix);
            }
        }
    }

    fn look_around_prefix(&mut self, bridge: &BridgeSpec, prefix: IpNet) {
        let own = self.seen.link(&bridge.name).map(|l| l.index);
        let mut found = Vec::new();
        let elsewhere = |index: u32| (Some(index) != own).then(|| self.seen.name(index).unwrap_or("an interface"));
        for held in &self.seen.addresses {
            if let Some(other) = elsewhere(held.index)
                && prefix.contains(&held.address)
            {
                let address = held.address;
                found
                    .push(format!("{other}: has the address {address}, which is of {}'s prefix {prefix}", bridge.name));
            }
        }
        for route in self.seen.routes.iter().filter(|r| !r.ours) {
            if let Some(other) = route.device.and_then(elsewhere)
                && prefix.contains(&route.to)
            {
                found.push(format!("route {} leads to {other}, not to {}", route.to, bridge.name));
            }
        }
        for rule in self.seen.rules.iter().filter(|r| r.v6 == matches!(prefix, IpNet::V6(_))) {
            let meets = rule.to.is_none_or(|to| to.contains(&prefix) || prefix.contains(&to));
            if meets {
                let to = rule.to.map_or_else(|| "any".to_owned(), |to| to.to_string());
                found.push(format!(
                    "rule {} (to {to}) comes before the main table and may lead traffic of {} away",
                    rule.priority, bridge.name
                ));
            }
        }
        for text in found {
            if self.out.hazards.iter().all(|h| h.text != text) {
                self.hazard(false, text);
            }
        }
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
