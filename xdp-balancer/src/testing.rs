//! What tests need besides: frames, and what no daemon may do.

pub mod hands;
mod hooks;
mod raw;

pub use crate::frames::{Datagram, FrameBuilder, Query, address_record, wire};
pub use hooks::Runner;
pub use raw::send_frame;
