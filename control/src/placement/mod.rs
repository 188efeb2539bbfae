//! Wanted instances → on which node ([`place`](mod@place)), with which address ([`lease`](mod@lease)). Pure: no clock,
//! no I/O, and no knowledge of how a number came about.

pub mod lease;
pub mod place;

pub use lease::lease;
pub use place::{NodeView, Placement, Want, place};
