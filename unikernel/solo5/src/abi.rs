//! Solo5's functions (`solo5.h` of version 0.7), with safe names.

use core::ffi::{c_char, c_int};

/// `struct solo5_start_info`.
#[repr(C)]
pub struct StartInfo {
    /// Ends in zero.
    pub command_line: *const c_char,
    /// First byte of the application's memory.
    pub heap_start: usize,
    /// Its length in bytes.
    pub heap_size: usize,
}

/// `struct solo5_net_info`.
#[repr(C)]
#[derive(Default)]
pub struct NetInfo {
    /// Hardware address.
    pub mac: [u8; 6],
    /// Without the Ethernet header.
    pub mtu: usize,
}

/// `struct solo5_block_info`.
#[cfg(feature = "storage")]
#[repr(C)]
#[derive(Default)]
pub struct BlockInfo {
    /// Bytes.
    pub capacity: u64,
    /// Bytes that are read at a time.
    pub block: u64,
}

/// `SOLO5_R_OK`.
const OK: c_int = 0;

unsafe extern "C" {
    fn solo5_abort() -> !;
    fn solo5_clock_monotonic() -> u64;
    fn solo5_clock_wall() -> u64;
    fn solo5_yield(deadline: u64, ready: *mut u64);
    fn solo5_console_write(bytes: *const u8, length: usize);
    fn solo5_net_acquire(name: *const c_char, handle: *mut u64, info: *mut NetInfo) -> c_int;
    #[cfg(feature = "storage")]
    fn solo5_block_acquire(name: *const c_char, handle: *mut u64, info: *mut BlockInfo) -> c_int;
    #[cfg(feature = "storage")]
    fn solo5_block_read(handle: u64, offset: u64, bytes: *mut u8, size: usize) -> c_int;
    fn solo5_net_write(handle: u64, bytes: *const u8, length: usize) -> c_int;
    fn solo5_net_read(handle: u64, bytes: *mut u8, room: usize, length: *mut usize) -> c_int;
}

/// Ends the unikernel as one that failed.
pub fn abort() -> ! {
    // SAFETY: takes nothing, gives nothing.
    unsafe { solo5_abort() }
}

/// Time since start.
pub fn monotonic_ns() -> u64 {
    // SAFETY: takes nothing.
    unsafe { solo5_clock_monotonic() }
}

/// Time since 1970.
pub fn wall_ns() -> u64 {
    // SAFETY: takes nothing.
    unsafe { solo5_clock_wall() }
}

/// The processor's cycle counter.
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has it; neither target forbids it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Sleeps until a frame can be read, or until this moment of [`monotonic_ns`].
pub fn sleep(until: u64) {
    // SAFETY: the set of ready devices is not asked for.
    unsafe { solo5_yield(until, core::ptr::null_mut()) }
}

/// Writes to the console.
pub fn print(text: &str) {
    // SAFETY: pointer and length are of one string.
    unsafe { solo5_console_write(text.as_ptr(), text.len()) }
}

/// The network device of the manifest.
pub fn acquire_net() -> Option<(u64, NetInfo)> {
    let (mut handle, mut info) = (0, NetInfo::default());
    // SAFETY: the name ends in zero, both places are ours.
    let result = unsafe { solo5_net_acquire(c"service".as_ptr(), &raw mut handle, &raw mut info) };
    (result == OK).then_some((handle, info))
}

/// The block device of the manifest.
#[cfg(feature = "storage")]
pub fn acquire_block() -> Option<(u64, BlockInfo)> {
    let (mut handle, mut info) = (0, BlockInfo::default());
    // SAFETY: the name ends in zero, both places are ours.
    let result = unsafe { solo5_block_acquire(c"storage".as_ptr(), &raw mut handle, &raw mut info) };
    (result == OK).then_some((handle, info))
}

/// Reads the block at `offset`; false where it cannot be read.
#[cfg(feature = "storage")]
pub fn read_block(handle: u64, offset: u64, block: &mut [u8]) -> bool {
    // SAFETY: pointer and length are of one slice.
    unsafe { solo5_block_read(handle, offset, block.as_mut_ptr(), block.len()) == OK }
}

/// Sends a frame. One that the device does not take is lost, as on any wire.
pub fn send(handle: u64, frame: &[u8]) {
    // SAFETY: pointer and length are of one slice.
    let _ = unsafe { solo5_net_write(handle, frame.as_ptr(), frame.len()) };
}

/// Reads a frame into `room`; `None` where there is none now.
pub fn receive(handle: u64, room: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    // SAFETY: pointer and length are of one slice, and the length's place is ours.
    let result = unsafe { solo5_net_read(handle, room.as_mut_ptr(), room.len(), &raw mut length) };
    (result == OK).then_some(length)
}
