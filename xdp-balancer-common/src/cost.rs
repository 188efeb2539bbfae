//! What queries cost, as a histogram by powers of two. One per CPU, with one writer, summed by the reader.

/// Buckets of a [`CostCount`]; a power of two.
pub const COST_BUCKETS: usize = 32;

/// Times of the queries that were measured on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostCount {
    /// When the query that is being measured began, nanoseconds on the monotonic clock; 0: none is.
    pub started: u64,
    /// Sum of the times, nanoseconds.
    pub sum_ns: u64,
    /// Queries by [`CostCount::bucket`].
    pub buckets: [u64; COST_BUCKETS],
}

impl CostCount {
    /// The bucket of a time: the number of bits that its nanoseconds take, so that bucket i holds times below 2ⁱ that
    /// the one before does not; what is longer is in the last one.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(ns: u64) -> usize {
        let bits = (u64::BITS - ns.leading_zeros()) as usize;
        if bits >= COST_BUCKETS { COST_BUCKETS - 1 } else { bits }
    }

    /// Adds another CPU's.
    pub fn add(&mut self, other: &Self) {
        self.sum_ns += other.sum_ns;
        for (sum, part) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += part;
        }
    }

    /// Queries that were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for CostCount {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_ends_at_a_power_of_two() {
        let cases = [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (127, 7), (128, 8), (1 << 30, 31), (u64::MAX, 31)];
        for (ns, bucket) in cases {
            assert_eq!(CostCount::bucket(ns), bucket, "{ns}");
        }
    }
}
