//! What the ports share that a PVH loader starts: the way from its entry to Rust, and the processor's own numbers.
//! An image defines `unikernel_main`, to which the entry hands over, and is linked by `pvh.lds`.

#![no_std]

mod cpu;
mod entry;

pub use cpu::{cycles, random};
pub use entry::{Boot, reset};
