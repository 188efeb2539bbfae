//! Starting a service on its first query: what an operator sets, and what passes between the daemon's DNS, which
//! holds the query, and the operator half, which starts the instance.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a query is told whose instance does not come in time, or may not be started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Late {
    /// Nothing: the client asks again.
    Silence,
    /// SERVFAIL, without an SOA and so not cached as a negative answer (RFC 2308, 7.1).
    #[default]
    #[serde(rename = "servfail")]
    ServFail,
    /// The service's sorry addresses.
    Sorry,
}

impl Late {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Silence, Self::ServFail, Self::Sorry];

    /// Short fixed name: configuration value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::ServFail => "servfail",
            Self::Sorry => "sorry",
        }
    }
}

/// How a service that may have no instance is started by its queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summon {
    /// Longest time that a query is held.
    pub hold: Duration,
    /// What is said then.
    pub late: Late,
    /// TTL in seconds of its answers until its instance has proven itself.
    pub ttl_s: u32,
    /// Time without queries and traffic after which its last instance goes.
    pub idle_after: Duration,
    /// Starts that its queries may cause per minute, and at once after a pause.
    pub starts_per_minute: u32,
}

/// Bounds of all summoned services of a node together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummonLimits {
    /// Clients, by prefix, that neither wake a service nor keep it awake.
    pub monitors: Vec<IpNet>,
    /// Starts that queries may cause per minute, and at once after a pause.
    pub starts_per_minute: u32,
    /// The same for the clients of one IPv4 /24 or IPv6 /56.
    pub client_starts_per_minute: u32,
    /// Queries that are held at a time.
    pub held: u32,
    /// The same for one client address.
    pub held_per_client: u32,
}

impl Default for SummonLimits {
    fn default() -> Self {
        Self {
            monitors: Vec::new(),
            starts_per_minute: 120,
            client_starts_per_minute: 12,
            held: 1024,
            held_per_client: 256,
        }
    }
}

/// An order to start an instance: the first query for a service at zero has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SummonOrder {
    /// Index of the service's counters.
    pub service: u32,
    /// When the query was read.
    pub seen: Instant,
}

/// Why a service at zero cannot be started now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Its last starts failed, or the pool had no address.
    BackOff,
    /// Its technology cannot be used.
    Unavailable,
    /// The node has all the instances that it may have.
    NodeFull,
    /// An operator's order keeps the tables as they are.
    TablesHeld,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::BackOff, Self::Unavailable, Self::NodeFull, Self::TablesHeld];

    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::BackOff => "back_off",
            Self::Unavailable => "unavailable",
            Self::NodeFull => "node_full",
            Self::TablesHeld => "tables_held",
        }
    }
}

/// A service without a serving instance, as the operator half sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cold {
    /// Nothing of it is there; an order starts it.
    AtZero,
    /// An instance is on its way.
    Starting,
    /// An order would start nothing.
    Refused(Refusal),
}

/// Services that are cold, by index of their counters. The operator half writes it.
pub type ColdServices = BTreeMap<u32, Cold>;
