//! Selvedge's lab: networks, container engines, images and daemons that are made for a test or the demo,
//! and removed after it, whatever happened in between.

pub mod contract;
pub mod dataplane;
pub mod demo;
pub mod edge;
pub mod lab;
pub mod summon;
