//! How long the stages of starts by queries take, as one histogram.

use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::api::{Histogram as Times, Status};

/// The family; `None` where no service starts by queries.
pub(super) fn family(status: &Status) -> Option<MetricFamily> {
    let mut metrics = Vec::new();
    for (name, service) in &status.services {
        for (stage, times) in &service.summon.stages {
            let labels = [("service", name.as_str()), ("stage", stage), ("technology", &service.technology)];
            let mut metric = Metric::default();
            metric.set_label(labels.map(|(name, value)| label(name, value)).into());
            metric.set_histogram(histogram(times));
            metrics.push(metric);
        }
    }
    if metrics.is_empty() {
        return None;
    }
    let mut family = MetricFamily::default();
    family.set_name("selvedge_summon_stage_seconds".to_owned());
    family
        .set_help("Starts by queries: time of each stage, and of all (total), from query seen to answered.".to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(metrics);
    Some(family)
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn histogram(times: &Times) -> Histogram {
    let mut sum = 0;
    let bucket = |(bound_ms, count): (&f64, &u64)| {
        sum += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound_ms / 1e3);
        bucket.set_cumulative_count(sum);
        bucket
    };
    let buckets = Times::BOUNDS_MS.iter().zip(&times.counts).map(bucket).collect();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(times.count());
    histogram.set_sample_sum(times.sum_ms / 1e3);
    histogram
}
