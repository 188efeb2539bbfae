//! How many instances: forecast, observed load, policy and what was decided before → wanted replicas, with the reason.
//!
//! A pure function of policy, state and input. The paper's caching optimizer adds ⌈(predicted − capacity of all
//! running) / capacity of one⌉ instances, or removes as many when that is negative; added to what runs that is
//! ⌈predicted / capacity of one⌉, and so it is computed here, on an upper quantile of the forecast instead of its mean.

mod capacity;
mod decision;
mod policy;
mod reason;

pub use capacity::Measured;
pub use decision::{Decision, Input, PlanState, plan};
pub use policy::{Brake, Policy, Rate};
pub use reason::{Basis, Bound, Reason};

/// Slack in instances that keeps 40.000000001 requests at 20 each from asking for a third one.
const ROUNDING: f64 = 1e-6;

/// ⌈requests / capacity⌉; `None` where either is not a usable number.
#[must_use]
pub fn instances_for(requests: f64, capacity: f64) -> Option<u32> {
    let usable = requests.is_finite() && requests >= 0.0 && capacity.is_finite() && capacity > 0.0;
    let instances = (requests / capacity - ROUNDING).ceil().max(0.0);
    // The cast saturates, and the quotient of two finite numbers may be infinite but not NaN.
    usable.then_some(instances as u32)
}
