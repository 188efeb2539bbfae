//! The time: the processor's cycle counter, measured once against the local APIC's timer, which counts nanoseconds.

use smoltcp::time::Instant;
use unikernel_boot::cycles;

use crate::interrupts::{start_timer, timer_left};

/// How long is measured. A clock that is wrong by a thousandth is good enough for timeouts.
const SAMPLE_NS: u64 = 500_000;
const ALL: u32 = u32::MAX;

/// A clock since its start.
pub struct Clock {
    start: u64,
    /// Cycles in [`SAMPLE_NS`], or what was measured of it.
    cycles: u64,
    nanoseconds: u64,
}

impl Clock {
    /// Measures the counter.
    pub fn start() -> Self {
        start_timer(ALL);
        let (begun, start) = (timer_left(), cycles());
        let (nanoseconds, now) = loop {
            let passed = u64::from(begun - timer_left());
            if passed >= SAMPLE_NS {
                break (passed, cycles());
            }
        };
        start_timer(0);
        Self { start, cycles: (now - start).max(1), nanoseconds }
    }

    /// Time since the start.
    pub fn now(&self) -> Instant {
        let passed = u128::from(cycles() - self.start) * u128::from(self.nanoseconds) / u128::from(self.cycles);
        Instant::from_micros((passed / 1000) as i64)
    }
}
