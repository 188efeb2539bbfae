//! What shall be there: declared networks, and the ports that instances have.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::forward::Forwards;
use super::mark::{self, Kind, Mac};
use crate::model::{
    AddressPair, InstanceId, NetReport, NetworkReport, OwnerId, PortKind, PortReport, RouteSpec, Shaping, UplinkSpec,
    VxlanSpec,
};

/// A technology's bridge with the node's own addresses on it (the pools' gateways).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Gateway and prefix, IPv4.
    pub v4: (Ipv4Addr, Ipv4Net),
    /// Gateway and prefix, IPv6.
    pub v6: Option<(Ipv6Addr, Ipv6Net)>,
    /// How fast all its instances together may send to beyond it, and receive from there.
    pub shaping: Option<Shaping>,
}

impl BridgeSpec {
    /// The bridge's own addresses with the length of their prefix.
    pub(super) fn addresses(&self) -> Vec<(IpAddr, u8)> {
        let v4 = (IpAddr::V4(self.v4.0), self.v4.1.prefix_len());
        let v6 = self.v6.map(|(gateway, net)| (IpAddr::V6(gateway), net.prefix_len()));
        std::iter::once(v4).chain(v6).collect()
    }

    /// The prefixes that its instances have addresses of.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        let v6 = self.v6.map(|(_, net)| IpNet::V6(net));
        std::iter::once(IpNet::V4(self.v4.1)).chain(v6).collect()
    }
}

/// An instance's way to its bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// The instance; names and marks derive from it.
    pub instance: InstanceId,
    /// The bridge to join.
    pub bridge: BridgeSpec,
    /// Addresses of the instance's end.
    pub addresses: AddressPair,
    /// How fast the instance may send, and receive.
    pub shaping: Option<Shaping>,
    /// What the instance's technology wants.
    pub kind: PortKind,
}

impl PortSpec {
    /// The instance's addresses with the length of their pool's prefix. Checked before: a family that the
    /// bridge does not have is not in `addresses`.
    pub(super) fn prefixes(&self) -> Vec<(IpAddr, u8)> {
        let v4 = self.addresses.v4.map(|a| (IpAddr::V4(a), self.bridge.v4.1.prefix_len()));
        let v6 = self.addresses.v6.zip(self.bridge.v6).map(|(a, (_, net))| (IpAddr::V6(a), net.prefix_len()));
        v4.into_iter().chain(v6).collect()
    }

    /// The gateways for the families that the instance has.
    pub(super) fn gateways(&self) -> Vec<IpAddr> {
        let v4 = self.addresses.v4.map(|_| IpAddr::V4(self.bridge.v4.0));
        let v6 = self.addresses.v6.and(self.bridge.v6).map(|(gateway, _)| IpAddr::V6(gateway));
        v4.into_iter().chain(v6).collect()
    }
}

/// Declared networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Technologies' bridges.
    pub bridges: Vec<BridgeSpec>,
    /// Tunnels to other nodes.
    pub tunnels: Vec<VxlanSpec>,
    /// Static routes.
    pub routes: Vec<RouteSpec>,
    /// Interfaces of others that are shaped.
    pub uplinks: Vec<UplinkSpec>,
}

/// A process that has an instance's end, in its network namespace or as a tap's descriptor: its number, and the
/// namespace by its file, so that a number that was used again is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub pid: u32,
    /// Device and inode of the namespace.
    pub namespace: (u64, u64),
}

/// A port that shall be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedPort {
    pub spec: PortSpec,
    /// `None` until the instance has its end.
    pub holder: Option<Holder>,
}

/// Everything that shall be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub network: Network,
    pub ports: BTreeMap<InstanceId, WantedPort>,
    /// `None` until somebody has said.
    pub forwards: Option<Forwards>,
}

impl Wanted {
    /// Links whose traffic is shaped in both directions, with their mark's kind.
    pub fn shaped(&self) -> Vec<(String, Option<Shaping>)> {
        let bridges = self.network.bridges.iter().map(|b| (b.name.clone(), b.shaping));
        let ports = self.ports.values().map(|p| (p.spec.instance.interface(), p.spec.shaping));
        bridges.chain(ports).collect()
    }

    /// Writes down what is wanted.
    pub fn report(&self, report: &mut NetReport) {
        let bridges = self.network.bridges.iter().map(|b| NetworkReport {
            name: b.name.clone(),
            kind: "bridge".to_owned(),
            addresses: b.addresses().into_iter().filter_map(|(a, len)| IpNet::new(a, len).ok()).collect(),
            shaping: b.shaping,
        });
        let tunnels = self.network.tunnels.iter().map(|t| NetworkReport {
            name: t.name.clone(),
            kind: "vxlan".to_owned(),
            addresses: t.addresses.clone(),
            shaping: None,
        });
        report.networks = bridges.chain(tunnels).collect();
        report.routes.clone_from(&self.network.routes);
        report.uplinks.clone_from(&self.network.uplinks);
        let ports = self.ports.values().map(|port| PortReport {
            instance: port.spec.instance.clone(),
            interface: port.spec.instance.interface(),
            bridge: port.spec.bridge.name.clone(),
            addresses: port.spec.addresses.iter().collect(),
            shaping: port.spec.shaping,
            pid: port.holder.map(|h| h.pid),
        });
        report.ports = ports.collect();
    }
}

/// What a link is, by its alias, or by its hardware address where there is no alias yet.
pub(super) fn kind_of(owner: &OwnerId, link: &super::link::Link) -> Option<Kind> {
    if let Some(alias) = &link.alias {
        return mark::parse(owner, alias);
    }
    let is = |mac: Mac| link.mac == Some(mac);
    if is(mark::bridge_mac(owner, &link.name)) {
        return Some(Kind::Bridge);
    }
    if is(mark::shaper_mac(owner, &link.name)) {
        return Some(Kind::Shaper);
    }
    if is(mark::tunnel_mac(owner, &link.name)) {
        return Some(Kind::Tunnel);
    }
    let id = InstanceId::new(link.name.strip_prefix("sv")?).ok()?;
    is(mark::host_mac(owner, &id)).then_some(Kind::Port(id))
}
