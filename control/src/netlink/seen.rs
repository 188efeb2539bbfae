//! What the kernel has, read in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressMessage, AddressScope};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::tc::TcMessage;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::error::{NetError, Result, errno_of, is_gone, refused};
use super::link::{self, Link};
use super::mark::Mac;
use super::network::Wanted;
use super::tc::{self, Qdisc};
use super::{forwarding, inside, mark};
use crate::model::{InstanceId, OwnerId};

/// An address of a link, global scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenAddress {
    pub index: u32,
    pub address: IpAddr,
    pub prefix: u8,
}

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenRoute {
    pub to: IpNet,
    pub via: Option<IpAddr>,
    pub device: Option<u32>,
    pub metric: u32,
    pub ours: bool,
}

/// An entry that somebody set for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenNeighbour {
    pub index: u32,
    pub address: IpAddr,
    pub mac: Option<Mac>,
}

/// A rule that says that some packets do not take the usual tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenRule {
    pub priority: u32,
    pub v6: bool,
    /// Destination that it is for; `None` for any.
    pub to: Option<IpNet>,
}

/// Everything, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub links: Vec<Link>,
    pub addresses: Vec<SeenAddress>,
    pub routes: Vec<SeenRoute>,
    pub neighbours: Vec<SeenNeighbour>,
    /// Other ends of tunnels that broadcasts go to: link and address.
    pub floods: Vec<(u32, IpAddr)>,
    pub rules: Vec<SeenRule>,
    pub qdiscs: Vec<Qdisc>,
    /// Where our redirect on a link leads.
    pub redirects: BTreeMap<u32, u32>,
    /// Instances whose port is gone but which still run.
    pub cut_off: BTreeSet<InstanceId>,
    /// Kernel settings that matter, by path; those that could be read.
    pub settings: BTreeMap<String, String>,
}

impl Seen {
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|l| l.name == name)
    }

    pub fn name(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|l| l.index == index).map(|l| l.name.as_str())
    }

    /// What is at the root of a link.
    pub fn root(&self, index: u32) -> Option<&Qdisc> {
        self.qdiscs.iter().find(|q| q.index == index && q.is_root())
    }

    /// Where filters for what a link receives can hang.
    pub fn takes_ingress(&self, index: u32) -> bool {
        self.qdiscs.iter().any(|q| q.index == index && q.takes_ingress())
    }
}

/// Settings of a bridge that are ours to keep, with the value that they shall have.
pub(super) fn bridge_settings(bridge: &super::BridgeSpec) -> Vec<(String, &'static str)> {
    let name = &bridge.name;
    let mut settings = vec![(format!("ipv4/conf/{name}/forwarding"), "1")];
    if bridge.v6.is_some() {
        settings.insert(0, (format!("ipv6/conf/{name}/disable_ipv6"), "0"));
        settings.push((format!("ipv6/conf/{name}/forwarding"), "1"));
    }
    settings
}

/// Settings of the whole node.
pub(super) const NODE_SETTINGS: [&str; 2] = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];

/// Reads what is needed to judge `wanted`.
pub(super) async fn look(handle: &Handle, owner: &OwnerId, wanted: &Wanted) -> Result<Seen> {
    let mut seen = Seen { links: link::all(handle).await?, ..Seen::default() };
    seen.addresses = addresses(handle).await?;
    seen.qdiscs = handle
        .qdisc()
        .get()
        .execute()
        .map_ok(|message| Qdisc::parse(&message))
        .try_collect()
        .await
        .map_err(refused("list", "queueing disciplines"))?;
    for v6 in [false, true] {
        seen.routes.extend(routes(handle, v6).await?);
        seen.rules.extend(rules(handle, v6).await?);
    }
    seen.neighbours = neighbours(handle).await?;
    if !wanted.network.tunnels.is_empty() {
        seen.floods = floods(handle).await?;
    }
    seen.redirects = redirects(handle, owner, wanted, &seen).await?;
    for (id, port) in &wanted.ports {
        if seen.link(&id.interface()).is_none()
            && let Some(holder) = port.holder
            && inside::holder(holder.pid).is_ok_and(|now| now == holder)
        {
            seen.cut_off.insert(id.clone());
        }
    }
    let of_bridges = wanted.network.bridges.iter().flat_map(bridge_settings).map(|(path, _)| path);
    for path in of_bridges.chain(NODE_SETTINGS.map(str::to_owned)) {
        // One of a bridge that is not there, or of IPv6 where the kernel has none.
        if let Ok(value) = forwarding::read(&path) {
            seen.settings.insert(path, value);
        }
    }
    Ok(seen)
}

async fn addresses(handle: &Handle) -> Result<Vec<SeenAddress>> {
    let messages: Vec<AddressMessage> =
        handle.address().get().execute().try_collect().await.map_err(refused("list", "addresses"))?;
    let global = messages.iter().filter(|m| m.header.scope == AddressScope::Universe);
    let read = |m: &AddressMessage| {
        let address = link::own_address(m)?;
        Some(SeenAddress { index: m.header.index, address, prefix: m.header.prefix_len })
    };
    Ok(global.filter_map(read).collect())
}

async fn routes(handle: &Handle, v6: bool) -> Result<Vec<SeenRoute>> {
    let all = if v6 {
        RouteMessageBuilder::<Ipv6Addr>::new().build()
    } else {
        RouteMessageBuilder::<Ipv4Addr>::new().build()
    };
    let messages: Vec<RouteMessage> = or_none(handle.route().get(all).execute().try_collect().await, "routes")?;
    Ok(messages.iter().filter_map(|m| route(m, v6)).collect())
}

fn route(message: &RouteMessage, v6: bool) -> Option<SeenRoute> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut to = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let (mut via, mut device, mut metric) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = plain(address)?,
            RouteAttribute::Gateway(address) => via = plain(address),
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let to = IpNet::new(to, message.header.destination_prefix_length).ok()?;
    let ours = message.header.protocol == RouteProtocol::Other(mark::ROUTE_PROTOCOL);
    Some(SeenRoute { to, via, device, metric, ours })
}

const fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// The kernel's own rules for the tables local, main and default.
const USUAL_RULES: [u32; 3] = [0, 32_766, 32_767];

/// A kernel without IPv6, or without rules, has none.
fn or_none<T>(listed: std::result::Result<Vec<T>, rtnetlink::Error>, what: &str) -> Result<Vec<T>> {
    match listed.map_err(errno_of) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        Err(source) => Err(NetError::Refused { operation: "list", object: what.to_owned(), source }),
        Ok(all) => Ok(all),
    }
}

async fn rules(handle: &Handle, v6: bool) -> Result<Vec<SeenRule>> {
    let version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
    let messages: Vec<RuleMessage> = or_none(handle.rule().get(version).execute().try_collect().await, "rules")?;
    let read = |m: RuleMessage| {
        let mut rule = SeenRule { priority: 0, v6, to: None };
        for attribute in m.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = priority,
                RuleAttribute::Destination(address) => rule.to = IpNet::new(address, m.header.dst_len).ok(),
                _ => {}
            }
        }
        rule
    };
    Ok(messages.into_iter().map(read).filter(|r| !USUAL_RULES.contains(&r.priority)).collect())
}

async fn neighbours(handle: &Handle) -> Result<Vec<SeenNeighbour>> {
    let messages: Vec<NeighbourMessage> =
        handle.neighbours().get().execute().try_collect().await.map_err(refused("list", "neighbours"))?;
    let permanent = messages.iter().filter(|m| m.header.state == NeighbourState::Permanent);
    let read = |m: &NeighbourMessage| {
        let mac = m.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::LinkLayerAddress(bytes) => Mac::try_from(bytes.as_slice()).ok(),
            _ => None,
        });
        Some(SeenNeighbour { index: m.header.ifindex, address: destination(m)?, mac })
    };
    Ok(permanent.filter_map(read).collect())
}

/// Entries of tunnels' forwarding tables for the hardware address 0, which stands for "all others".
async fn floods(handle: &Handle) -> Result<Vec<(u32, IpAddr)>> {
    let request = handle.neighbours().get().set_address_family(AddressFamily::Bridge);
    let messages: Vec<NeighbourMessage> =
        request.execute().try_collect().await.map_err(refused("list", "forwarding entries"))?;
    let all = |m: &&NeighbourMessage| {
        m.attributes.iter().any(|a| matches!(a, NeighbourAttribute::LinkLayerAddress(mac) if *mac == [0; 6]))
    };
    Ok(messages.iter().filter(all).filter_map(|m| Some((m.header.ifindex, destination(m)?))).collect())
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        // In the forwarding tables of tunnels the family is "bridge", and the address is told by its bytes alone.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => bytes_address(bytes),
        _ => None,
    })
}

fn bytes_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Redirects of the links that are shaped, or were.
async fn redirects(handle: &Handle, owner: &OwnerId, wanted: &Wanted, seen: &Seen) -> Result<BTreeMap<u32, u32>> {
    let mut found = BTreeMap::new();
    for (name, shaping) in wanted.shaped() {
        let Some(link) = seen.link(&name).filter(|l| seen.takes_ingress(l.index)) else { continue };
        if shaping.is_none() && seen.link(&mark::shaper_name(owner, &name)).is_none() {
            continue;
        }
        let filters = handle.traffic_filter(link.index.cast_signed()).get();
        let filters: std::result::Result<Vec<TcMessage>, _> = filters.ingress().execute().try_collect().await;
        match filters {
            Ok(filters) => {
                found.extend(filters.iter().find_map(tc::redirect_target).map(|to| (link.index, to)));
            }
            // The link went away since it was listed.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(refused("list filters of", &name)(error)),
        }
    }
    Ok(found)
}
