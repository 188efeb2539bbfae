//! Forecasts of load, plans of replicas, and how good they were.
//!
//! Pure: no I/O, no clocks, no threads. [`predict`] turns windows into forecasts, [`plan`] turns a forecast and limits into
//! a number of replicas with its reason, [`replay`] runs both over a recorded load, [`score`] judges them.

pub mod plan;
pub mod predict;
pub mod replay;
pub mod score;
