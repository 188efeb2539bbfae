//! Who is answered how much, and what becomes of tables that nobody keeps right: what an operator sets, and what the
//! program in the kernel and the daemon's DNS both do.

use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rules; by default everybody is answered everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Guard {
    /// Bounds of answers.
    pub limits: QueryLimits,
    /// Clients that differ from the others.
    pub lists: ClientLists,
    /// What becomes of the kernel's tables while the daemon is away.
    pub stale: Staleness,
    /// Of so many queries (a power of two) one is noted for `selvedge dataplane top`; 0: none is.
    pub sample: u32,
    /// Of so many queries (a power of two) the kernel measures what one costs; 0: of none.
    #[serde(default)]
    pub cost_sample: u32,
}

/// Bounds of answers, each in a second and with a burst of a second's; 0: no bound. They hold for UDP, for an address
/// that asks over TCP is its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueryLimits {
    /// To a client prefix, but for those who show a cookie of ours.
    pub per_client: u32,
    /// Of each service.
    pub per_service: u32,
    /// In all.
    pub total: u32,
    /// Bits of an IPv4 address that make clients one.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that make clients one.
    pub prefix_v6: u8,
    /// Each so many answers over a bound one is sent truncated and without records, so that a true client asks again
    /// over TCP; 0: none is.
    pub slip: u32,
    /// Most bytes sent for one received, to who shows no cookie of ours; 0: any.
    pub amplification: u32,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { per_client: 0, per_service: 0, total: 0, prefix_v4: 24, prefix_v6: 56, slip: 2, amplification: 0 }
    }
}

/// Clients that differ from the others. Who is in both lists by the same prefix is denied, else the longer prefix holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClientLists {
    /// Those that no bound holds for.
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<IpNet>,
    /// Those that are not answered.
    #[schemars(with = "Vec<String>")]
    pub deny: Vec<IpNet>,
    /// How.
    pub denied: Denied,
}

/// What a client that is denied gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Denied {
    /// Nothing.
    #[default]
    Drop,
    /// REFUSED.
    Refuse,
}

impl Denied {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Drop, Self::Refuse];

    /// Short fixed name: configuration value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Refuse => "refuse",
        }
    }
}

/// What becomes of the kernel's tables while the daemon is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Staleness {
    /// What is done with them.
    pub policy: StalePolicy,
    /// Once it has been away for so long.
    pub after: Duration,
    /// Longest TTL where TTLs are shortened, seconds.
    pub ttl_s: u32,
}

impl Default for Staleness {
    fn default() -> Self {
        Self { policy: StalePolicy::Keep, after: Duration::from_secs(60), ttl_s: 5 }
    }
}

/// What is done with stale tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StalePolicy {
    /// They are answered from.
    #[default]
    Keep,
    /// They are answered from, with short TTLs.
    Shorten,
    /// Queries are passed on to whoever listens.
    Pass,
}

impl StalePolicy {
    /// All.
    pub const ALL: [Self; 3] = [Self::Keep, Self::Shorten, Self::Pass];

    /// Short fixed name: configuration value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Shorten => "shorten",
            Self::Pass => "pass",
        }
    }
}
