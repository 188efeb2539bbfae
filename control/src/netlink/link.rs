//! Links as the kernel tells them, and the requests that several callers share.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Stats64,
};
use rtnetlink::Handle;

use super::error::{NetError, Result, errno_of, is_gone, refused};
use super::mark::Mac;

/// What a link is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Whether it speaks the spanning tree protocol.
    Bridge {
        stp: bool,
    },
    Vxlan {
        vni: u32,
        local: Option<IpAddr>,
        port: u16,
    },
    Other,
}

/// What is needed of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub name: String,
    pub index: u32,
    /// `None` where there is none or it is empty.
    pub alias: Option<String>,
    pub mac: Option<Mac>,
    pub up: bool,
    pub loopback: bool,
    /// Index of the bridge that it is a port of.
    pub controller: Option<u32>,
    pub mtu: u32,
    pub nature: Nature,
    pub stats: Option<Stats64>,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            name: String::new(),
            index: message.header.index,
            alias: None,
            mac: None,
            up: message.header.flags.contains(LinkFlags::Up),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            controller: None,
            mtu: 0,
            nature: Nature::Other,
            stats: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) if !alias.is_empty() => link.alias = Some(alias),
                LinkAttribute::Address(bytes) => link.mac = Mac::try_from(bytes).ok(),
                LinkAttribute::Stats64(stats) => link.stats = Some(stats),
                LinkAttribute::Controller(index) if index != 0 => link.controller = Some(index),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::LinkInfo(info) => link.nature = nature(&info),
                _ => {}
            }
        }
        link
    }
}

fn nature(info: &[LinkInfo]) -> Nature {
    let kind = info.iter().find_map(|i| if let LinkInfo::Kind(kind) = i { Some(kind) } else { None });
    let data = info.iter().find_map(|i| if let LinkInfo::Data(data) = i { Some(data) } else { None });
    match (kind, data) {
        (Some(InfoKind::Bridge), Some(InfoData::Bridge(data))) => {
            let off = data.iter().any(|d| matches!(d, InfoBridge::StpState(BridgeStpState::Disabled)));
            Nature::Bridge { stp: !off }
        }
        (Some(InfoKind::Vxlan), Some(InfoData::Vxlan(data))) => {
            let (mut vni, mut local, mut port) = (0, None, 0);
            for item in data {
                match item {
                    InfoVxlan::Id(id) => vni = *id,
                    InfoVxlan::Local(v4) => local = Some(IpAddr::V4(*v4)),
                    InfoVxlan::Local6(v6) => local = Some(IpAddr::V6(*v6)),
                    InfoVxlan::Port(number) => port = *number,
                    _ => {}
                }
            }
            Nature::Vxlan { vni, local, port }
        }
        _ => Nature::Other,
    }
}

/// The link of that name; `None` where there is none.
pub(super) async fn find(handle: &Handle, name: &str) -> Result<Option<Link>> {
    let mut answers = handle.link().get().match_name(name).execute();
    match answers.try_next().await {
        Ok(message) => Ok(message.map(Link::from)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(refused("look up link", name)(error)),
    }
}

/// The link of that name, which must be there.
pub(super) async fn expect(handle: &Handle, operation: &'static str, name: &str) -> Result<Link> {
    find(handle, name).await?.ok_or_else(|| NetError::Refused {
        operation,
        object: name.to_owned(),
        source: std::io::Error::from_raw_os_error(libc::ENODEV),
    })
}

/// All links of the namespace.
pub(super) async fn all(handle: &Handle) -> Result<Vec<Link>> {
    let messages = handle.link().get().execute();
    messages.map_ok(Link::from).try_collect().await.map_err(refused("list", "links"))
}

/// Changes an existing link, which is found by its index, and by its name where there is none.
pub(super) async fn change(
    handle: &Handle,
    operation: &'static str,
    name: &str,
    mut message: LinkMessage,
) -> Result<()> {
    // Linux before 6.2 refuses a link that is up any name, its own as well.
    if message.header.index != 0 {
        message.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::IfName(own) if own == name));
    }
    handle.link().change(message).execute().await.map_err(refused(operation, name))
}

/// Removes a link; one that is gone already is a success.
pub(super) async fn remove(handle: &Handle, link: &Link) -> Result<()> {
    match handle.link().del(link.index).execute().await {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(refused("remove link", &link.name)(error)),
    }
}

/// Gives a link an address. IPv6 goes without duplicate detection: the address is leased to one holder, and
/// the second that detection takes would be a second in which the kernel does not answer for it.
pub(super) async fn add_address(handle: &Handle, link: &Link, address: IpAddr, prefix: u8) -> Result<()> {
    let mut request = handle.address().add(link.index, address, prefix);
    if address.is_ipv6() {
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await.map_err(|error| NetError::Refused {
        operation: "add address",
        object: format!("{address}/{prefix} to {}", link.name),
        source: errno_of(error),
    })
}

/// Addresses of a link with global scope, as the kernel's own messages (for removal).
pub(super) async fn addresses(handle: &Handle, link: &Link) -> Result<Vec<(IpAddr, u8, AddressMessage)>> {
    let messages: Vec<AddressMessage> = handle
        .address()
        .get()
        .set_link_index_filter(link.index)
        .execute()
        .try_collect()
        .await
        .map_err(refused("list addresses of", &link.name))?;
    let global = messages.into_iter().filter(|m| m.header.scope == AddressScope::Universe);
    Ok(global.filter_map(|m| own_address(&m).map(|a| (a, m.header.prefix_len, m))).collect())
}

/// The interface's own address: `IFA_LOCAL` where there is one (IPv4), else `IFA_ADDRESS`.
pub(super) fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
