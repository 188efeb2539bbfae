//! The panic rule's measure: what the running window comes to, by its first part.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::model::{Observed, ObservedService, ServiceName, ServiceSpec, WindowReport};

/// Deviations below the count of a part that its rate is taken to be at least: few requests tell little.
const DEVIATIONS: f64 = 3.0;

/// Services that are asked for more than what runs, and what is wanted already, can serve in a window, with the
/// requests that the window comes to at least. `plan` gives the number wanted and an instance's capacity.
///
/// Not one at zero that a query starts: that query has had its instance, which may have ended since, and what it counted
/// asks for no second one.
pub(super) fn surges(
    part: &WindowReport,
    observed: &Observed,
    config: &Config,
    plan: impl Fn(&ServiceSpec) -> (u32, f64),
) -> BTreeMap<ServiceName, f64> {
    let share = part.length_ms as f64 / 1000.0 / config.control.window.as_secs_f64().max(1e-3);
    let surge = |service: &ServiceSpec| {
        let scaling = config.scaling.get(&service.name)?;
        let least = at_least(part.load(&service.name, scaling.demand)?, share);
        let policy = scaling.policy(service, config.control.window);
        let running = observed.services.get(&service.name).map_or(0, ObservedService::running);
        if running == 0 && service.summon.is_some() {
            return None;
        }
        let (wanted, capacity) = plan(service);
        let supply = capacity * f64::from(running.max(wanted));
        (least > policy.panic * supply).then(|| (service.name.clone(), least))
    };
    config.services.iter().filter_map(surge).collect()
}

/// Requests that a window comes to at least, of which this share brought `count`.
fn at_least(count: f64, share: f64) -> f64 {
    let likely = DEVIATIONS.mul_add(-count.sqrt(), count).max(0.0);
    count.max(likely / share.clamp(1e-3, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_requests_tell_little_and_what_came_is_certain() {
        assert_eq!(at_least(9.0, 0.1), 9.0);
        assert_eq!(at_least(100.0, 0.1), 700.0);
        assert_eq!(at_least(100.0, 1.0), 100.0);
        assert_eq!(at_least(0.0, 0.0), 0.0);
    }
}
