//! Networks as they are declared, and what is told of them: differences, repairs, hazards.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InstanceId, OwnerId, Timestamp};

/// How fast frames may pass in one direction: a token bucket (as `tc-tbf(8)`).
///
/// The rate counts whole Ethernet frames without preamble and checksum, as `tc` does: TCP with full frames of
/// 1514 bytes carries 95.6 % of it as content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shaping {
    /// Bits per second.
    pub rate_bps: u64,
    /// Bytes that may pass at once after a pause.
    pub burst_bytes: u32,
}

/// Two full frames: less than one could never be sent.
const LEAST_BURST: u64 = 2 * 1514;
/// A packet as an interface with segmentation offload hands it on.
const OFFLOADED: u64 = 64 << 10;
/// Ten full frames.
const LEAST_QUEUE: u64 = 10 * 1514;

impl Shaping {
    /// Shaping with a burst that the first second does not show: 10 ms of the rate where they hold a whole offloaded
    /// packet, which then is not cut into frames, else 5 ms.
    #[must_use]
    pub fn with_default_burst(rate_bps: u64) -> Self {
        let per_ms = rate_bps / 8 / 1000;
        let burst = if per_ms * 10 > OFFLOADED { per_ms * 10 } else { per_ms * 5 };
        Self { rate_bps, burst_bytes: u32::try_from(burst.max(LEAST_BURST)).unwrap_or(u32::MAX) }
    }

    /// Bytes that may wait: what leaves in 25 ms, and at least ten frames.
    #[must_use]
    pub fn queue_bytes(self) -> u32 {
        let waiting = (self.rate_bps / 8 / 40).max(LEAST_QUEUE).max(u64::from(self.burst_bytes));
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }
}

/// A tunnel to other nodes (VXLAN, RFC 7348) with addresses of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VxlanSpec {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// VXLAN network identifier; 24 bits.
    pub vni: u32,
    /// This node's address that the tunnel ends at.
    pub local: IpAddr,
    /// The other nodes' addresses, of the same family.
    pub remotes: Vec<IpAddr>,
    /// UDP port.
    pub port: u16,
    /// Largest IP packet inside, bytes.
    pub mtu: u32,
    /// This node's addresses inside, with the length of their prefix.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
}

/// A static route in the main table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteSpec {
    /// Where to.
    #[schemars(with = "String")]
    pub to: IpNet,
    /// The next hop; `None` where the destination is on the device's own link.
    pub via: Option<IpAddr>,
    /// The interface; `None` for the one that `via` is reached through.
    pub device: Option<String>,
    /// Its priority: the lowest is taken.
    pub metric: u32,
}

/// An interface of the node that is not ours, such as the one towards the orchestrator: what it sends is shaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UplinkSpec {
    /// Interface name.
    pub interface: String,
    /// How fast it may send.
    pub shaping: Shaping,
}

/// One thing that differs between what is wanted and what the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetChange {
    /// What kind of thing: `bridge`, `port`, `shaper`, `vxlan`, `address`, `route`, `neighbour`, `qdisc`, `redirect`
    /// or `setting`.
    pub object: String,
    /// Which one.
    pub name: String,
    /// What is to be done, or was done.
    pub what: String,
}

/// What would have to be done, and what hurts but is not ours to change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetPlan {
    /// In the order in which they would be made.
    pub changes: Vec<NetChange>,
    /// One sentence each.
    pub hazards: Vec<String>,
}

/// A change that somebody else made to something of ours, and that was undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repair {
    /// When it was undone.
    pub at: Timestamp,
    /// What was done.
    #[serde(flatten)]
    pub change: NetChange,
}

/// A bridge or tunnel, as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkReport {
    /// Interface name.
    pub name: String,
    /// `bridge` or `vxlan`.
    pub kind: String,
    /// The node's own addresses on it.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// How fast all its instances together may send, and receive.
    pub shaping: Option<Shaping>,
}

/// An instance's port, as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortReport {
    /// The instance.
    pub instance: InstanceId,
    /// The host's end.
    pub interface: String,
    /// Its bridge.
    pub bridge: String,
    /// The instance's addresses.
    pub addresses: Vec<IpAddr>,
    /// How fast the instance may send, and receive.
    pub shaping: Option<Shaping>,
    /// The process whose namespace holds the other end; `None` before it is there.
    pub pid: Option<u32>,
}

/// An address whose new connections go to another, in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForwardReport {
    /// The instance that has, or had, the address.
    pub instance: InstanceId,
    /// The address.
    pub from: IpAddr,
    /// The service's port, over TCP and UDP.
    pub port: u16,
    /// Where they go now.
    pub to: IpAddr,
    /// Connections so far.
    pub connections: u64,
}

/// Most repairs that are remembered.
const KEPT: usize = 128;

/// Everything that is known of the node's networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetReport {
    /// Whose marks are kept.
    pub owner: OwnerId,
    /// Bridges and tunnels.
    pub networks: Vec<NetworkReport>,
    /// Instances' ports.
    pub ports: Vec<PortReport>,
    /// Static routes.
    pub routes: Vec<RouteSpec>,
    /// Shaped interfaces that are not ours.
    pub uplinks: Vec<UplinkSpec>,
    /// Repairs since the daemon started, by kind of thing.
    pub repairs: BTreeMap<String, u64>,
    /// Passes that could not do all they should.
    pub failures: u64,
    /// Newest repairs, oldest first.
    pub recent: VecDeque<Repair>,
    /// What hurts but is not ours to change, one sentence each.
    pub hazards: Vec<String>,
    /// Why the last pass could not do all; `None` where it could.
    pub problem: Option<String>,
    /// Addresses of instances that have left the answers, whose new connections go to others.
    #[serde(default)]
    pub forwards: Vec<ForwardReport>,
    /// Connections that went to others since the daemon started, or since the forwards that it met were made.
    #[serde(default)]
    pub forwarded: u64,
}

impl NetReport {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(owner: OwnerId) -> Self {
        Self {
            owner,
            networks: Vec::new(),
            ports: Vec::new(),
            routes: Vec::new(),
            uplinks: Vec::new(),
            repairs: BTreeMap::new(),
            failures: 0,
            recent: VecDeque::new(),
            hazards: Vec::new(),
            problem: None,
            forwards: Vec::new(),
            forwarded: 0,
        }
    }

    /// Counts and remembers a repair.
    pub fn note(&mut self, at: Timestamp, change: NetChange) {
        *self.repairs.entry(change.object.clone()).or_default() += 1;
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(Repair { at, change });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_stay_small_beside_the_first_second() {
        for rate_bps in [1_000_000, 10_000_000, 52_000_000, 53_000_000, 200_000_000, 10_000_000_000] {
            let shaping = Shaping::with_default_burst(rate_bps);
            let share = f64::from(shaping.burst_bytes) * 8.0 / rate_bps as f64;
            assert!(share <= 0.025, "{rate_bps}: {share}");
            assert!(shaping.queue_bytes() >= shaping.burst_bytes);
        }
        assert_eq!(Shaping::with_default_burst(10_000_000).burst_bytes, 6250);
        assert_eq!(Shaping::with_default_burst(200_000_000).burst_bytes, 250_000);
        assert_eq!(Shaping::with_default_burst(100_000).burst_bytes, 3028);
    }
}
