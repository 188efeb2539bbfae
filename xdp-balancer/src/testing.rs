//! What tests need besides: frames, and what no daemon may do.

mod hooks;

pub use crate::frames::{Datagram, FrameBuilder, Query, address_record, wire};
pub use hooks::Runner;
