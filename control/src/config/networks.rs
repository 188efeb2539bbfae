//! `[network]`: tunnels, routes and shaped interfaces to their checked forms.

use std::net::IpAddr;

use ipnet::IpNet;

use super::errors::Complaint;
use super::reader::{Field, Reader, Section};
use super::shared::{shaping, without_doubles};
use super::technologies::PoolSection;
use super::types::Networks;
use super::values::{host_in_prefix, interface, prefix, unicast, whole32};
use crate::model::{RouteSpec, UplinkSpec, VxlanSpec};

/// The port that IANA gives to VXLAN.
const VXLAN_PORT: u32 = 4789;
/// Largest VXLAN network identifier: 24 bits.
const LARGEST_VNI: u32 = (1 << 24) - 1;
/// What a tunnel takes of 1500 bytes: Ethernet, VXLAN, UDP and IP.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;
/// Other ends of a tunnel: a broadcast is sent to each.
const MOST_REMOTES: usize = 256;
/// Metric of a route where the file gives none.
const METRIC: u32 = 100;

/// A declared thing with the place of its name.
type Placed<T> = (String, Field<T>);

/// `[network]`.
pub(super) fn networks(section: &Section<'_, '_>, pools: &[&PoolSection]) -> Networks {
    section.allow(&["vxlan", "route", "uplink"]);
    let tunnels: Vec<_> = section.sections("vxlan").iter_mut().filter_map(vxlan).collect();
    let routes: Vec<_> = section.sections("route").iter().filter_map(route).collect();
    let uplinks: Vec<_> = section.sections("uplink").iter().filter_map(uplink).collect();
    check_tunnels(section.reader, &tunnels, pools);
    check_routes(section.reader, &routes, pools);
    check_uplinks(section.reader, &uplinks, &tunnels, pools);
    fn values<T>(placed: Vec<Placed<T>>) -> Vec<T> {
        placed.into_iter().map(|(_, field)| field.value).collect()
    }
    Networks { tunnels: values(tunnels), routes: values(routes), uplinks: values(uplinks) }
}

fn vxlan(section: &mut Section<'_, '_>) -> Option<Placed<VxlanSpec>> {
    let name = section.required("name", String::new(), "\"selv-vx0\"", interface);
    if !name.broken {
        section.path = format!("network.vxlan.{:?}", name.value);
    }
    section.allow(&["name", "vni", "local", "remotes", "port", "mtu", "addresses"]);
    let vni = section.required("vni", 1, "100", |v| whole32(v, 1, LARGEST_VNI));
    let unspecified = IpAddr::from([0, 0, 0, 0]);
    let local = section.required("local", unspecified, "\"192.0.2.1\"", unicast);
    let remotes = remotes(section, &local);
    let port = section.or("port", VXLAN_PORT, |v| whole32(v, 1, 65_535));
    let overhead = if local.value.is_ipv6() { OVERHEAD_V6 } else { OVERHEAD_V4 };
    let mtu = section.or("mtu", 1500 - overhead, |v| whole32(v, 1280, 65_000));
    let example = "[\"10.99.0.1/24\"]";
    let list = section.list("addresses", example, host_in_prefix);
    let line = list.as_ref().map_or(section.line, |l| l.line);
    if list.as_ref().is_none_or(|l| l.value.is_empty() && !l.broken) {
        section.complain(line, "addresses", "is missing or empty", format!("add addresses = {example}"));
    }
    let addresses = without_doubles(section, "addresses", list);
    let spec = VxlanSpec {
        name: name.value.clone(),
        vni: vni.value,
        local: local.value,
        remotes,
        port: u16::try_from(port.value).unwrap_or(4789),
        mtu: mtu.value,
        addresses: addresses.into_iter().map(|a| a.value).collect(),
    };
    (!name.broken).then(|| (section.key("name"), name.map(|_| spec)))
}

fn remotes(section: &Section<'_, '_>, local: &Field<IpAddr>) -> Vec<IpAddr> {
    let example = "[\"192.0.2.2\"]";
    let list = section.list("remotes", example, unicast);
    let line = list.as_ref().map_or(section.line, |l| l.line);
    if list.as_ref().is_none_or(|l| l.value.is_empty() && !l.broken) {
        section.complain(line, "remotes", "is missing or empty", format!("add remotes = {example}"));
    }
    let remotes = without_doubles(section, "remotes", list);
    if remotes.len() > MOST_REMOTES {
        let what = format!("has {} addresses", remotes.len());
        section.complain(line, "remotes", what, format!("use at most {MOST_REMOTES}"));
    }
    for remote in remotes.iter().filter(|_| !local.broken) {
        let address = remote.value;
        if address == local.value {
            section.complain(remote.line, "remotes", format!("{address} is local"), "name the other nodes only");
        } else if address.is_ipv4() != local.value.is_ipv4() {
            let what = format!("{address} is not of the family of local {}", local.value);
            section.complain(remote.line, "remotes", what, "use one family for both ends");
        }
    }
    remotes.into_iter().map(|r| r.value).collect()
}

fn route(section: &Section<'_, '_>) -> Option<Placed<RouteSpec>> {
    section.allow(&["to", "via", "device", "metric"]);
    let to = section.required("to", IpNet::default(), "\"10.214.0.0/24\"", prefix);
    let via = section.optional("via", IpAddr::from([0, 0, 0, 0]), unicast);
    let device = section.optional("device", String::new(), interface);
    let metric = section.or("metric", METRIC, |v| whole32(v, 1, u32::MAX));
    if via.is_none() && device.is_none() {
        let fix = "add via = \"192.0.2.2\" or device = \"selv-vx0\"";
        section.complain(section.line, "via", "is missing, and device too", fix);
    }
    if let Some(via) = via.as_ref().filter(|via| !via.broken && !to.broken)
        && via.value.is_ipv4() != matches!(to.value, IpNet::V4(_))
    {
        let what = format!("{} is not of the family of {}", via.value, to.value);
        section.complain(via.line, "via", what, "name a next hop of the same family");
    }
    if to.broken {
        return None;
    }
    let spec =
        RouteSpec { to: to.value, via: via.map(|v| v.value), device: device.map(|d| d.value), metric: metric.value };
    Some((section.key("to"), to.map(|_| spec)))
}

fn uplink(section: &Section<'_, '_>) -> Option<Placed<UplinkSpec>> {
    section.allow(&["interface", "rate", "burst"]);
    let name = section.required("interface", String::new(), "\"eth1\"", interface);
    let shaping = shaping(section);
    if shaping.is_none() {
        section.complain(section.line, "rate", "is missing", "add rate = \"100mbit\"");
    }
    let spec = UplinkSpec { interface: name.value.clone(), shaping: shaping? };
    (!name.broken).then(|| (section.key("interface"), name.map(|_| spec)))
}

fn check_tunnels(reader: &Reader<'_>, tunnels: &[Placed<VxlanSpec>], pools: &[&PoolSection]) {
    for (i, (key, tunnel)) in tunnels.iter().enumerate() {
        let spec = &tunnel.value;
        let complain = |what: String, fix: &str| reader.complain(tunnel.line, key, Complaint::new(what, fix));
        if let Some(pool) = pools.iter().find(|pool| pool.pool.bridge == spec.name) {
            complain(format!("{:?} is the name of {}'s bridge", spec.name, pool.path), "choose another");
        }
        for (_, first) in &tunnels[..i] {
            if first.value.name == spec.name {
                complain(format!("{:?} is there twice (line {})", spec.name, first.line), "rename one");
            } else if (first.value.vni, first.value.port) == (spec.vni, spec.port) {
                let what = format!("has the vni {} of {:?} (line {})", spec.vni, first.value.name, first.line);
                complain(what, "give each tunnel a vni of its own");
            }
        }
        for net in &spec.addresses {
            if let Some(pool) =
                pools.iter().flat_map(|pool| pool.prefixes()).find(|pool| pool.contains(net) || net.contains(pool))
            {
                complain(format!("{net} overlaps the instances' pool {pool}"), "use addresses outside of it");
            }
        }
    }
}

fn check_routes(reader: &Reader<'_>, routes: &[Placed<RouteSpec>], pools: &[&PoolSection]) {
    for (i, (key, route)) in routes.iter().enumerate() {
        let spec = &route.value;
        let complain = |what: String, fix: &str| reader.complain(route.line, key, Complaint::new(what, fix));
        let same = |(_, r): &&Placed<RouteSpec>| (r.value.to, r.value.metric) == (spec.to, spec.metric);
        if let Some((_, first)) = routes[..i].iter().find(same) {
            let what = format!("{} is there twice (line {})", spec.to, first.line);
            complain(what, "remove one, or give them different metrics");
        }
        if let Some(pool) = pools.iter().flat_map(|pool| pool.prefixes()).find(|pool| pool.contains(&spec.to)) {
            complain(format!("{} lies in this node's own pool {pool}", spec.to), "route other nodes' pools only");
        }
    }
}

fn check_uplinks(
    reader: &Reader<'_>,
    uplinks: &[Placed<UplinkSpec>],
    tunnels: &[Placed<VxlanSpec>],
    pools: &[&PoolSection],
) {
    for (i, (key, uplink)) in uplinks.iter().enumerate() {
        let name = &uplink.value.interface;
        let complain = |what: String, fix: &str| reader.complain(uplink.line, key, Complaint::new(what, fix));
        if let Some((_, first)) = uplinks[..i].iter().find(|(_, u)| u.value.interface == *name) {
            complain(format!("{name:?} is there twice (line {})", first.line), "remove one");
        }
        if let Some(PoolSection { path, .. }) = pools.iter().find(|pool| pool.pool.bridge == *name) {
            complain(format!("{name:?} is {path}'s bridge"), &format!("use rate in [{path}]"));
        }
        if tunnels.iter().any(|(_, t)| t.value.name == *name) {
            complain(format!("{name:?} is a tunnel"), "name the interface that it goes through");
        }
    }
}
