//! What queries cost in the kernel, as one histogram.

use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

use crate::api::Status;

/// The family; `None` where nothing was measured.
pub(super) fn family(status: &Status) -> Option<MetricFamily> {
    let costs = status.costs.as_ref().filter(|costs| costs.count != 0)?;
    let mut sum = 0;
    let bucket = |(bound_ns, count): (u64, u64)| {
        sum += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound_ns as f64 / 1e9);
        bucket.set_cumulative_count(sum);
        bucket
    };
    let buckets = costs.bounded().map(bucket).collect();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(costs.count);
    histogram.set_sample_sum(costs.sum_ns as f64 / 1e9);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    let mut family = MetricFamily::default();
    family.set_name("selvedge_xdp_query_cost_seconds".to_owned());
    family.set_help("Time that queries took in the XDP program, of those that were measured.".to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(vec![metric]);
    Some(family)
}
