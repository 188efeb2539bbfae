//! What queries cost in the kernel, for people and for the status.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Datapath;

/// Times of queries in the XDP program, from their headers read to their verdict, since the tables were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Costs {
    /// For how many queries one that is measured stands; 0: none is measured now.
    pub one_in: u64,
    /// Queries that were measured.
    pub count: u64,
    /// Their times, nanoseconds.
    pub sum_ns: u64,
    /// How many took less than so many nanoseconds (a power of two) and at least half of it; empty ones are left out.
    pub below_ns: BTreeMap<u64, u64>,
}

impl Costs {
    /// The kernel's histogram in these words; `None` where nothing is and was measured.
    pub(super) fn of(costs: &xdp_balancer::Costs) -> Option<Self> {
        let count = costs.buckets.iter().sum();
        let below_ns =
            (0..).zip(&costs.buckets).filter(|(_, count)| **count != 0).map(|(bits, count)| (1 << bits, *count));
        let costs = Self { one_in: costs.one_in, count, sum_ns: costs.sum_ns, below_ns: below_ns.collect() };
        (costs.one_in != 0 || costs.count != 0).then_some(costs)
    }

    /// Every bound below the last one with its queries, empty ones too: what a histogram is made of.
    pub fn bounded(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..xdp_balancer_common::COST_BUCKETS as u32 - 1).map(|bits| {
            let bound = 1 << bits;
            (bound, self.below_ns.get(&bound).copied().unwrap_or(0))
        })
    }

    /// The bound that this share of the queries stayed below.
    #[must_use]
    pub fn quantile_below(&self, share: f64) -> Option<u64> {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut sum = 0;
        let reaches = |(bound, count): (&u64, &u64)| {
            sum += count;
            (sum >= wanted.max(1)).then_some(*bound)
        };
        self.below_ns.iter().find_map(reaches)
    }
}

impl Datapath {
    /// What queries cost in the kernel; `None` where that is and was not measured.
    #[must_use]
    pub fn costs(&self) -> Option<Costs> {
        Costs::of(&self.lock().plane.as_ref()?.costs().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_told_by_its_bounds() {
        let mut buckets = vec![0; xdp_balancer_common::COST_BUCKETS];
        (buckets[7], buckets[8], buckets[12]) = (90, 9, 1);
        let costs = Costs::of(&xdp_balancer::Costs { one_in: 1024, sum_ns: 12_000, buckets });
        let costs = costs.unwrap_or_default();
        assert_eq!((costs.count, costs.below_ns.len()), (100, 3));
        let quantiles = [0.0, 0.5, 0.9, 0.99, 1.0].map(|share| costs.quantile_below(share));
        assert_eq!(quantiles, [128, 128, 128, 256, 4096].map(Some));
        assert_eq!(costs.bounded().map(|(_, count)| count).sum::<u64>(), 100);
        assert_eq!(costs.bounded().map(|(bound, _)| bound).max(), Some(1 << 30));
        assert_eq!(Costs::of(&xdp_balancer::Costs::default()), None);
        assert_eq!(Costs::default().quantile_below(0.5), None);
    }
}
