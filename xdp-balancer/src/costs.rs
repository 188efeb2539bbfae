//! What queries cost in the program, of those that are measured.

use std::os::fd::AsFd as _;

use aya::maps::IterableMap as _;
use xdp_balancer_common::{CostCount, Guard, object};

use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::maps::{Maps, sums};

/// Times of queries from the moment when a packet is known to ask us until its verdict, since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// For how many queries one that is measured stands; 0: none is measured now.
    pub one_in: u64,
    /// Sum of the times, nanoseconds.
    pub sum_ns: u64,
    /// Queries by the bits of their nanoseconds: bucket i holds times below 2ⁱ that the one before does not. The last one
    /// holds all that are longer, too.
    pub buckets: Vec<u64>,
}

impl Dataplane {
    /// What queries cost.
    pub fn costs(&self) -> Result<Costs, Error> {
        self.maps.costs()
    }
}

impl Maps {
    /// See [`Dataplane::costs`].
    pub(crate) fn costs(&self) -> Result<Costs, Error> {
        let totals = sums(self.costs.map().fd().as_fd(), object::COSTS, 1, CostCount::add)?;
        let total = totals.first().copied().unwrap_or_default();
        let guard = self.guard();
        let one_in = if guard.features & Guard::COSTS == 0 { 0 } else { guard.cost_mask + 1 };
        Ok(Costs { one_in, sum_ns: total.sum_ns, buckets: total.buckets.to_vec() })
    }
}
