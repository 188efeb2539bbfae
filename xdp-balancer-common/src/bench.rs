//! What the bench harness and the user space that drives it must agree on. No part of any pin's layout:
//! the harness and its maps live for one run.

/// Longest frame that the harness restores.
pub const FRAME_BYTES: usize = 512;
/// Names that are asked for in turn, then again from the first; a power of two.
pub const SEQUENCE: u32 = 1 << 18;

/// Names of the harness's maps and programs.
pub mod object {
    /// Array with one [`Frame`](super::Frame).
    pub const FRAME: &str = "FRAME";
    /// Array with one [`State`](super::State).
    pub const STATE: &str = "STATE";
    /// Array of `u32`: which name is asked for in each run, as a fraction of all (of 2³²).
    pub const ORDER: &str = "ORDER";
    /// Element 0 is the program under test.
    pub const TARGET: &str = "TARGET";
    /// Restores the frame and goes on into the program under test.
    pub const HARNESS: &str = "bench_harness";
    /// The same for programs that take frames in several buffers.
    pub const HARNESS_FRAGS: &str = "bench_harness_frags";
    /// Parses, exchanges addresses and ports, sends back.
    pub const SWAP: &str = "bench_swap";
}

/// The frame that every run starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Bytes of the frame, at least 14.
    pub len: u32,
    /// Where eight letters of the name stand that change with each run; 0: none do.
    pub letters_at: u32,
    /// Names to choose from.
    pub names: u32,
    /// Explicit padding, zero.
    pub _pad: u32,
    /// The bytes.
    pub bytes: [u8; FRAME_BYTES],
}

/// What the harness remembers between runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Address of the frame's first byte before the first run; 0 before there was one.
    pub start: u64,
    /// Address of the frame's first byte in this run.
    pub here: u64,
    /// Runs so far.
    pub runs: u64,
}

/// Eight letters that stand for a number, as they lie in memory.
#[inline(always)]
#[must_use]
pub const fn letters(number: u32) -> u64 {
    let spread = number as u64;
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    (spread + 0x6161_6161_6161_6161).to_le()
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for Frame {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for State {}
