//! Selvedge's lab: networks, container engines and images that are made for a test or the demo, and
//! removed after it, whatever happened in between.

pub mod contract;
pub mod lab;
