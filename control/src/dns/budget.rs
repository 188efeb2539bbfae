//! How many instances queries may start: token buckets per node, service and client prefix.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use xdp_balancer_common::{CLIENT_PREFIX_V4, CLIENT_PREFIX_V6};

use crate::model::SummonLimits;

/// Client prefixes that are remembered. Only those that caused a start come in, so the node's own budget bounds how
/// fast it fills; one that is forgotten has its whole budget again.
const MOST_CLIENTS: usize = 4096;
const MINUTE_S: f64 = 60.0;

/// Whose budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    Node,
    Service,
    Client,
}

impl Spent {
    /// Short fixed name: metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Node => "budget_node",
            Self::Service => "budget_service",
            Self::Client => "budget_client",
        }
    }
}

/// Holds a minute's worth and fills evenly.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    const fn full(per_minute: u32, now: Instant) -> Self {
        Self { tokens: per_minute as f64, at: now }
    }

    /// Brings it up to `now`, and says whether there is a token.
    fn has(&mut self, per_minute: u32, now: Instant) -> bool {
        let most = f64::from(per_minute);
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * most / MINUTE_S;
        self.tokens = (self.tokens + gained).min(most);
        self.at = self.at.max(now);
        self.tokens >= 1.0
    }
}

/// The buckets.
#[derive(Debug, Default)]
pub(super) struct Budget {
    node: Option<Bucket>,
    services: HashMap<u32, Bucket>,
    clients: HashMap<IpAddr, Bucket>,
}

impl Budget {
    /// Takes a start of `service` for `client` from all budgets that it falls under, or from none.
    pub(super) fn take(
        &mut self,
        limits: &SummonLimits,
        service: (u32, u32),
        client: IpAddr,
        now: Instant,
    ) -> Result<(), Spent> {
        let (service, service_limit) = service;
        let (node_limit, client_limit) = (limits.starts_per_minute, limits.client_starts_per_minute);
        let node = self.node.get_or_insert_with(|| Bucket::full(node_limit, now));
        if !node.has(node_limit, now) {
            return Err(Spent::Node);
        }
        let of_service = self.services.entry(service).or_insert_with(|| Bucket::full(service_limit, now));
        if !of_service.has(service_limit, now) {
            return Err(Spent::Service);
        }
        let prefix = prefix(client);
        if self.clients.len() >= MOST_CLIENTS && !self.clients.contains_key(&prefix) {
            self.clients.retain(|_, bucket| !bucket.has(client_limit, now) || bucket.tokens < f64::from(client_limit));
            // All are in use: the one that has waited longest has gained most.
            if self.clients.len() >= MOST_CLIENTS
                && let Some(fullest) =
                    self.clients.iter().max_by(|a, b| a.1.tokens.total_cmp(&b.1.tokens)).map(|(key, _)| *key)
            {
                self.clients.remove(&fullest);
            }
        }
        let of_client = self.clients.entry(prefix).or_insert_with(|| Bucket::full(client_limit, now));
        if !of_client.has(client_limit, now) {
            return Err(Spent::Client);
        }
        for bucket in [node, of_service, of_client] {
            bucket.tokens -= 1.0;
        }
        Ok(())
    }
}

/// The network that clients are counted by, as for the choice of an instance.
pub(super) fn prefix(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => (u32::from(address) & (u32::MAX << (32 - CLIENT_PREFIX_V4))).to_be_bytes().into(),
        IpAddr::V6(address) => (u128::from(address) & (u128::MAX << (128 - CLIENT_PREFIX_V6))).to_be_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn limits(node: u32, client: u32) -> SummonLimits {
        SummonLimits { starts_per_minute: node, client_starts_per_minute: client, ..SummonLimits::default() }
    }

    #[test]
    fn each_budget_is_told_and_a_refusal_costs_nothing() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        let limits = limits(5, 2);
        let from = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut take = |service, of, client| budget.take(&limits, (service, of), from(client), now);
        assert_eq!(take(1, 3, "192.0.2.1"), Ok(()));
        assert_eq!(take(1, 3, "192.0.2.200"), Ok(()));
        for _ in 0..50 {
            assert_eq!(take(1, 3, "192.0.2.7"), Err(Spent::Client), "one /24");
        }
        assert_eq!(take(1, 3, "2001:db8:0:100::1"), Ok(()));
        assert_eq!(take(1, 3, "198.51.100.1"), Err(Spent::Service));
        assert_eq!(take(2, 3, "2001:db8:0:1ff::9"), Ok(()), "one /56 has two");
        assert_eq!(take(2, 3, "2001:db8:0:180::9"), Err(Spent::Client));
        assert_eq!(take(2, 3, "::ffff:192.0.2.9"), Err(Spent::Client), "IPv4 in IPv6's clothes");
        assert_eq!(take(2, 3, "198.51.100.1"), Ok(()));
        assert_eq!(take(3, 3, "203.0.113.1"), Err(Spent::Node));
    }

    #[test]
    fn prefixes_are_bounded() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        for number in 0..3 * MOST_CLIENTS as u32 {
            let client = IpAddr::from((number << 8).to_be_bytes());
            budget.take(&limits(u32::MAX, 2), (number % 7, u32::MAX), client, now).unwrap();
        }
        assert_eq!(budget.clients.len(), MOST_CLIENTS);
    }

    proptest! {
        /// Whoever asks and whenever: in no minute more than the burst and a minute's worth.
        #[test]
        fn no_minute_has_more_than_twice_the_rate(
            rate in 1u32..20,
            asked in proptest::collection::vec((0u64..3000, 0u32..5, any::<u32>()), 1..400),
        ) {
            let (mut budget, begun) = (Budget::default(), Instant::now());
            let (mut now, mut taken) = (begun, Vec::new());
            for (pause, service, client) in asked {
                now += Duration::from_millis(pause);
                let client = IpAddr::from(client.to_be_bytes());
                if budget.take(&limits(rate, 1000), (service, 1000), client, now).is_ok() {
                    taken.push(now);
                }
            }
            for (at, first) in taken.iter().enumerate() {
                let within = taken[at..].iter().filter(|t| **t - *first <= Duration::from_secs(60)).count();
                prop_assert!(within <= 2 * rate as usize + 1, "{within} of {rate}");
            }
            prop_assert!(!taken.is_empty());
        }
    }
}
