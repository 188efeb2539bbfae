//! The reactive autoscaler that everyone has: Kubernetes' HorizontalPodAutoscaler on one metric per pod, as its
//! documentation describes it. desiredReplicas = ⌈currentReplicas · currentMetric / desiredMetric⌉, left alone while the
//! ratio is within the tolerance of 1; going down, the highest recommendation of the stabilisation window counts.

use super::{Options, Trace};
use crate::plan::instances_for;
use crate::score::{ElasticityScore, elasticity};

/// Its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hpa {
    /// Share of an instance's capacity that it aims at. Upstream's API reference: 80 % where no metric is set.
    pub target: f64,
    /// Distance of the ratio from 1 that it lets be.
    pub tolerance: f64,
    /// How long fewer must have been enough, in seconds.
    pub stabilisation_s: f64,
}

impl Default for Hpa {
    fn default() -> Self {
        Self { target: 0.8, tolerance: 0.1, stabilisation_s: 300.0 }
    }
}

/// Instances in force in each window.
#[must_use]
pub fn hpa(trace: &Trace, options: &Options, settings: &Hpa) -> Vec<u32> {
    let n = trace.values.len();
    let mut supply = vec![1u32; n];
    let kept = (settings.stabilisation_s / trace.window_s).ceil().max(1.0) as usize;
    let mut recommended: Vec<u32> = Vec::with_capacity(n);
    let mut current = 1u32;
    for (u, value) in trace.values.iter().enumerate() {
        let target = settings.target * options.capacity;
        let recommendation = match value {
            Some(load) => {
                let ratio = load / (f64::from(current) * target);
                let wanted = instances_for(*load, target).unwrap_or(current).max(1);
                if (ratio - 1.0).abs() <= settings.tolerance { current } else { wanted }
            }
            None => current,
        };
        recommended.push(recommendation);
        let newest = &recommended[recommended.len().saturating_sub(kept)..];
        let highest = newest.iter().copied().max().unwrap_or(recommendation);
        current = recommendation.max(highest.min(current));
        if let Some(s) = supply.get_mut(u + options.delay + 1) {
            *s = current;
        }
    }
    supply
}

/// The one that takes about as many instance-seconds as another supply, and no fewer: its target, in whole percent, and how
/// it does. `None` where it takes fewer even at a twentieth of the capacity. The target is chosen in hindsight.
#[must_use]
pub fn hpa_alike(trace: &Trace, options: &Options, instance_seconds_ratio: f64) -> Option<(f64, ElasticityScore)> {
    (5..=100u32).rev().find_map(|percent| {
        let target = f64::from(percent) / 100.0;
        let supply = hpa(trace, options, &Hpa { target, ..options.hpa });
        let score = elasticity(&trace.values, &supply, options.start, options.capacity, trace.window_s);
        (score.instance_seconds_ratio >= instance_seconds_ratio).then_some((target, score))
    })
}
