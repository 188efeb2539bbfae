//! Everything outside that the operator and its helpers act upon, built once at start.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::datapath::Datapath;
use crate::dns::{DnsStats, SummonStats};
use crate::driver::Driver;
use crate::model::{NodeName, OwnerId, Technology};
use crate::netlink::{BridgeSpec, Net};
use crate::orders::Book;
use crate::store::Store;

/// The operator's hands.
pub struct World {
    /// This node.
    pub node: NodeName,
    /// Mark of ownership.
    pub owner: OwnerId,
    /// What the machine's operators have ordered.
    pub orders: Arc<Book>,
    /// What survives a restart.
    pub store: Arc<Store>,
    /// Links and addresses.
    pub net: Arc<Net>,
    /// Technologies by name.
    pub drivers: BTreeMap<Technology, Arc<dyn Driver>>,
    /// Bridge of each technology.
    pub bridges: BTreeMap<Technology, BridgeSpec>,
    /// Kernel tables and counters.
    pub datapath: Datapath,
    /// Queries that the daemon's own DNS has seen.
    pub dns: Arc<DnsStats>,
    /// How starts by queries go.
    pub summons: Arc<SummonStats>,
}
