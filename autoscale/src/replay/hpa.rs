//! The reactive autoscaler that everyone has: Kubernetes' HorizontalPodAutoscaler on one metric per pod, as its
//! documentation describes it. desiredReplicas = ⌈currentReplicas · currentMetric / desiredMetric⌉, left alone while the
//! ratio is within the tolerance of 1; going down, the highest recommendation of the stabilisation window counts.

use super::{Options, Trace};
use crate::plan::instances_for;

/// Its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hpa {
    /// Share of an instance's capacity that it aims at.
    pub target: f64,
    /// Distance of the ratio from 1 that it lets be.
    pub tolerance: f64,
    /// How long fewer must have been enough, in seconds.
    pub stabilisation_s: f64,
}

impl Default for Hpa {
    fn default() -> Self {
        Self { target: 1.0, tolerance: 0.1, stabilisation_s: 300.0 }
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
