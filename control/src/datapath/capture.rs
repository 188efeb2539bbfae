//! Queries captured in the kernel: from the pins alone, with or without a daemon.

pub use xdp_balancer::{
    Capture, CaptureRules as Rules, CaptureTotals as Totals, CapturedFrame as Frame, CapturedQuery as Captured,
};
pub use xdp_balancer_common::CAPTURE_ONE_IN as MAX_ONE_IN;
