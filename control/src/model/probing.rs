//! How a serving instance is asked whether it still serves.

use std::time::Duration;

/// Probes of a serving instance and what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probing {
    /// From one probe to the next.
    pub interval: Duration,
    /// Longest wait for one.
    pub timeout: Duration,
    /// Probes missed in a row that take it out of the answers.
    pub fall: u32,
    /// Probes answered in a row that put it back; more for one that comes and goes.
    pub rise: u32,
    /// Time out of the answers after which it is replaced.
    pub replace_after: Duration,
}

impl Default for Probing {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { interval: second, timeout: second, fall: 3, rise: 2, replace_after: 10 * second }
    }
}
