//! Forecasts → how many instances ([`plan`](mod@plan)), on which node ([`place`](mod@place)), with which address
//! ([`lease`](mod@lease)). Pure: no clock, no I/O, and no knowledge of how a forecast came about.

pub mod lease;
pub mod place;
pub mod plan;

pub use lease::lease;
pub use place::{NodeView, Placement, Want, place};
pub use plan::{Outcome, PlanDecision, PlanInput, plan};
