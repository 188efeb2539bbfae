//! What an answer depends on beside the query's bytes and the tables.

use std::net::IpAddr;

use ipnet::IpNet;
use xdp_balancer_common::CookieSecret;

use super::stats::Transport;
use crate::model::{Guard, SummonLimits};

/// Settings of the daemon's DNS.
#[derive(Clone, Default)]
pub struct Policy {
    /// Speak DNS cookies with this secret (RFC 7873); `None`: the option is ignored.
    pub cookies: Option<CookieSecret>,
    /// Resolvers whose EDNS client subnet is believed (RFC 7871); that of others is ignored.
    pub client_subnet_from: Vec<IpNet>,
    /// What `id.server` of class CH is answered with (RFC 4892), at most 255 bytes; empty: it is refused.
    pub identity: String,
    /// Bounds of what queries may start.
    pub summon: SummonLimits,
    /// Who is answered how much.
    pub guard: Guard,
}

impl Policy {
    /// Whether a client neither wakes a service nor keeps it awake.
    pub(super) fn is_monitor(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.summon.monitors.iter().any(|net| net.contains(&client))
    }
}

/// Who asks, how and when.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// How the query came.
    pub transport: Transport,
    /// The address that it came from.
    pub client: IpAddr,
    /// Wall clock in seconds since 1970, modulo 2³²: cookies bear it.
    pub time: u32,
    /// The settings in force.
    pub policy: &'a Policy,
}

impl Context<'_> {
    /// Whether the client is a resolver whose client subnets are believed.
    pub(super) fn is_believed(&self) -> bool {
        let client = self.client.to_canonical();
        self.policy.client_subnet_from.iter().any(|net| net.contains(&client))
    }
}
