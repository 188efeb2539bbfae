//! Links, addresses and routes through rtnetlink; the only module that names it.
//!
//! Everything made here bears a mark in its interface alias (`IFLA_IFALIAS`):
//! `selvedge:<owner>:<what>`. Only what bears our owner's mark is ever changed or removed.

mod bridge;
mod error;
mod forwarding;
mod inside;
mod link;
pub mod mark;
mod port;
mod tap;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use ipnet::{Ipv4Net, Ipv6Net};

pub use bridge::BridgeState;
pub use error::{NetError, Result};

pub use mark::Kind;
pub use port::{Port, PortCounters};

use crate::model::{AddressPair, InstanceId, OwnerId, PortKind, SettingChange};

/// A technology's bridge with the node's own addresses on it (the pools' gateways).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Gateway and prefix, IPv4.
    pub v4: (Ipv4Addr, Ipv4Net),
    /// Gateway and prefix, IPv6.
    pub v6: Option<(Ipv6Addr, Ipv6Net)>,
}

impl BridgeSpec {
    /// The bridge's own addresses with the length of their prefix.
    fn addresses(&self) -> Vec<(IpAddr, u8)> {
        let v4 = (IpAddr::V4(self.v4.0), self.v4.1.prefix_len());
        let v6 = self.v6.map(|(gateway, net)| (IpAddr::V6(gateway), net.prefix_len()));
        std::iter::once(v4).chain(v6).collect()
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
    /// What the instance's technology wants.
    pub kind: PortKind,
}

impl PortSpec {
    /// The instance's addresses with the length of their pool's prefix. Checked before: a family that the
    /// bridge does not have is not in `addresses`.
    fn prefixes(&self) -> Vec<(IpAddr, u8)> {
        let v4 = self.addresses.v4.map(|a| (IpAddr::V4(a), self.bridge.v4.1.prefix_len()));
        let v6 = self.addresses.v6.zip(self.bridge.v6).map(|(a, (_, net))| (IpAddr::V6(a), net.prefix_len()));
        v4.into_iter().chain(v6).collect()
    }

    /// The gateways for the families that the instance has.
    fn gateways(&self) -> Vec<IpAddr> {
        let v4 = self.addresses.v4.map(|_| IpAddr::V4(self.bridge.v4.0));
        let v6 = self.addresses.v6.and(self.bridge.v6).map(|(gateway, _)| IpAddr::V6(gateway));
        v4.into_iter().chain(v6).collect()
    }
}

/// A link that bears our mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedLink {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// What it is.
    pub kind: Kind,
}

impl OwnedLink {
    /// The instance that it belongs to, if it is a port.
    #[must_use]
    pub const fn instance(&self) -> Option<&InstanceId> {
        match &self.kind {
            Kind::Port(id) => Some(id),
            Kind::Bridge => None,
        }
    }
}

/// Links, addresses and routes of the network namespace in which it was made.
#[derive(Debug)]
pub struct Net {
    handle: rtnetlink::Handle,
    owner: OwnerId,
    connection: tokio::task::JoinHandle<()>,
    /// Descriptors of the taps that were made here, beside those of the processes that serve them: so that it is not
    /// the end of such a process that has to wait until the kernel has let go of its tap.
    taps: Mutex<BTreeMap<InstanceId, OwnedFd>>,
}

impl Net {
    /// Opens a netlink socket in the calling thread's network namespace and serves it with a task of
    /// the current runtime.
    ///
    /// # Errors
    /// [`NetError::Refused`] where the socket cannot be made.
    pub fn new(owner: OwnerId) -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| NetError::Refused {
            operation: "open",
            object: "netlink socket".to_owned(),
            source,
        })?;
        Ok(Self { handle, owner, connection: tokio::spawn(connection), taps: Mutex::default() })
    }

    /// Whose mark is set and looked for.
    #[must_use]
    pub const fn owner(&self) -> &OwnerId {
        &self.owner
    }

    /// The index of an interface, marked or not.
    ///
    /// # Errors
    /// [`NetError::Refused`]; that there is none is not an error.
    pub async fn index_of(&self, name: &str) -> Result<Option<u32>> {
        Ok(link::find(&self.handle, name).await?.map(|link| link.index))
    }

    /// All that bears our mark.
    ///
    /// # Errors
    /// [`NetError::Refused`].
    pub async fn list_owned(&self) -> Result<Vec<OwnedLink>> {
        let links = link::all(&self.handle).await?;
        let owned = links.into_iter().filter_map(|link| {
            let kind = self.kind_of(&link)?;
            Some(OwnedLink { name: link.name, index: link.index, kind })
        });
        Ok(owned.collect())
    }

    /// Puts node-wide settings back as they were before [`Net::ensure_bridge`] changed them.
    ///
    /// # Errors
    /// [`NetError::Setting`], the first one; the others are tried all the same.
    pub fn restore(&self, changes: &[SettingChange]) -> Result<()> {
        forwarding::restore(changes)
    }

    /// What `link` is, if it is ours: by its alias, or by its hardware address where there is no alias yet.
    fn kind_of(&self, link: &link::Link) -> Option<Kind> {
        if let Some(alias) = &link.alias {
            return mark::parse(&self.owner, alias);
        }
        if link.mac == Some(mark::bridge_mac(&self.owner, &link.name)) {
            return Some(Kind::Bridge);
        }
        let id = InstanceId::new(link.name.strip_prefix("sv")?).ok()?;
        (link.mac == Some(mark::host_mac(&self.owner, &id))).then_some(Kind::Port(id))
    }

    /// The link of that name if it is ours and of that kind; [`NetError::Foreign`] if it is another's.
    async fn find_ours(&self, operation: &'static str, name: &str, kind: &Kind) -> Result<Option<link::Link>> {
        let Some(link) = link::find(&self.handle, name).await? else { return Ok(None) };
        if self.kind_of(&link).as_ref() == Some(kind) {
            return Ok(Some(link));
        }
        Err(NetError::Foreign {
            operation,
            object: name.to_owned(),
            alias: link.alias.unwrap_or_default(),
            expected: mark::alias(&self.owner, kind),
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
