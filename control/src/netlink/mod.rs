//! Links, addresses and routes through rtnetlink; the only module that names it.
//!
//! Everything made here bears a mark in its interface alias (`IFLA_IFALIAS`):
//! `selvedge:<owner>:<what>`. Only what bears our owner's mark is ever changed or removed.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::model::{AddressPair, InstanceId};

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

/// An instance's way to its bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// The instance; names and marks derive from it.
    pub instance: InstanceId,
    /// The bridge to join.
    pub bridge: BridgeSpec,
    /// Addresses of the instance's end.
    pub addresses: AddressPair,
}
