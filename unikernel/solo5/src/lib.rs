//! The reference unikernel on Solo5. The same object is linked with the bindings of one target (spt, hvt) into one
//! image for it; see `build.sh`.

#![no_std]

extern crate alloc;

mod abi;
#[cfg(feature = "storage")]
mod disk;
mod manifest;
mod net;

use alloc::string::ToString;
use core::ffi::{CStr, c_int};
use core::panic::PanicInfo;

use smoltcp::time::Instant;
use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::Manual;
use unikernel_core::{Platform, Settings, serve};

use abi::StartInfo;
use net::Net;

#[global_allocator]
static HEAP: TalcLock<RawSpinlock, Manual> = TalcLock::new(Manual);

/// Exit status where the unikernel cannot start; Solo5's own name is `SOLO5_EXIT_FAILURE`.
const FAILURE: c_int = 1;

struct Solo5 {
    net: Net,
    #[cfg(feature = "storage")]
    disk: disk::Disk,
    memory: usize,
}

impl Platform for Solo5 {
    type Net = Net;

    fn net(&mut self) -> &mut Net {
        &mut self.net
    }

    fn mac(&self) -> [u8; 6] {
        self.net.mac()
    }

    fn now(&self) -> Instant {
        Instant::from_micros((abi::monotonic_ns() / 1000) as i64)
    }

    fn seed(&mut self) -> u64 {
        // Wall clock in nanoseconds and the processor's own counter: nobody outside knows both.
        let counter = abi::cycles();
        abi::wall_ns().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ counter.rotate_left(32) ^ u64::from(self.net.mac()[5])
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn wait(&mut self, until: Option<Instant>) {
        let until = until.map_or(u64::MAX, |until| (until.total_micros() as u64).saturating_mul(1000));
        abi::sleep(until);
    }

    fn say(&mut self, line: &str) {
        abi::print(line);
        abi::print("\n");
    }

    #[cfg(feature = "storage")]
    fn disk_length(&self) -> Option<u64> {
        Some(self.disk.length())
    }

    #[cfg(feature = "storage")]
    fn read_disk(&mut self, offset: u64, out: &mut [u8]) -> usize {
        self.disk.read(offset, out)
    }
}

/// Where the bindings hand over.
///
/// # Safety
/// Called once, by the bindings, with a start info that stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solo5_app_main(info: *const StartInfo) -> c_int {
    // SAFETY: the bindings give a pointer to a structure of theirs that is never freed.
    let info = unsafe { &*info };
    // SAFETY: the bindings leave this memory to the application, and nobody else claims it.
    let heap = unsafe { HEAP.lock().claim(info.heap_start as *mut u8, info.heap_size) };
    if heap.is_none() {
        abi::print("no memory to start with\n");
        return FAILURE;
    }
    // SAFETY: a string that ends in zero, in the bindings' own memory.
    let line = unsafe { CStr::from_ptr(info.command_line) }.to_str().unwrap_or_default();
    let settings = match Settings::parse(line) {
        Ok(settings) => settings,
        Err(error) => {
            abi::print(&error.to_string());
            abi::print("\n");
            return FAILURE;
        }
    };
    let Some(net) = Net::acquire() else {
        abi::print("no network device\n");
        return FAILURE;
    };
    #[cfg(feature = "storage")]
    let Some(disk) = disk::Disk::acquire() else {
        abi::print("no block device\n");
        return FAILURE;
    };
    let mut platform = Solo5 {
        net,
        #[cfg(feature = "storage")]
        disk,
        memory: info.heap_size,
    };
    serve(&mut platform, &settings)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    abi::print("panic: ");
    if let Some(text) = info.message().as_str() {
        abi::print(text);
    }
    abi::print("\n");
    abi::abort()
}
