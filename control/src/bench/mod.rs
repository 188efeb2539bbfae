//! Figures of technologies on this machine: how long an instance takes to come and to go, and how many there can be.
//!
//! Everything happens in a network namespace of its own, with an owner's mark of its own, so that nothing that is in
//! force is touched. What a killed run left is removed by the next one.

mod density;
mod keep;
mod lifecycle;
mod plain;
mod site;
mod summon;

use std::path::PathBuf;

use serde::Serialize;

pub use density::{Density, density};
pub use keep::keep;
pub use lifecycle::{ContentFigures, Lifecycle, Parts, Pooled, lifecycle};
pub use plain::Plain;
pub(crate) use site::XEN_UNIKERNEL;

pub use crate::dns::Stage;
pub use summon::{Percentiles, Summon, SummonOptions, summon};

use crate::model::Technology;

/// What is measured, and where its parts are.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// The technology.
    pub technology: Technology,
    /// Directory with the reference unikernel's images and Solo5's tenders.
    pub unikernels: PathBuf,
    /// The Docker engine's socket.
    pub docker: PathBuf,
    /// Image instead of the reference unikernel; `{content}` in it is replaced by the megabytes that are served.
    pub image: Option<String>,
    /// Initial ramdisk of a Linux kernel, for Xen.
    pub ramdisk: Option<PathBuf>,
    /// User that unikernels' monitors run as.
    pub user: String,
}

/// Why something could not be measured. Each is one plain sentence.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Something is missing.
    #[error("{what}; {remedy}")]
    Missing {
        /// What.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The technology's driver failed.
    #[error(transparent)]
    Driver(#[from] crate::driver::DriverError),
    /// The network could not be made.
    #[error(transparent)]
    Net(#[from] crate::netlink::NetError),
    /// The system refused something.
    #[error("{operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What was met.
        source: std::io::Error,
    },
    /// An instance did not answer as it should.
    #[error("{operation} {object}: {reason}")]
    Answer {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What came instead.
        reason: String,
    },
    /// The user ended it; everything was removed.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    /// Wraps a refusal of the system.
    fn system(operation: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { operation, source }
    }
}

/// What one kind of measurement came to, in the unit that its name says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values; zeroes where there are none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (share * values.len() as f64).ceil() as usize;
            values.get(place.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { median: at(0.5), p95: at(0.95), min: at(0.0), max: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_nearest_ranks() {
        let spread = Spread::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((spread.min, spread.median, spread.p95, spread.max), (1.0, 50.0, 95.0, 100.0));
        assert_eq!(Spread::of(vec![7.0]).median, 7.0);
        assert_eq!(Spread::of(vec![]), Spread::default());
    }
}
