//! The reference unikernel on bare x86-64, entered as PVH says: QEMU's microvm and Firecracker load it so.

#![no_std]
#![no_main]

extern crate alloc;

mod clock;
mod disk;
mod interrupts;
mod net;
mod serial;
mod virtio;

use alloc::string::ToString;
use core::panic::PanicInfo;

use smoltcp::time::Instant;
use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::Manual;
use unikernel_boot::Boot;
use unikernel_core::{Platform, Settings, serve};

use clock::Clock;
use disk::Disk;
use net::Net;

#[global_allocator]
static HEAP: TalcLock<RawSpinlock, Manual> = TalcLock::new(Manual);

struct Machine {
    net: Net,
    disk: Option<Disk>,
    clock: Clock,
    memory: usize,
}

impl Platform for Machine {
    type Net = Net;

    fn net(&mut self) -> &mut Net {
        &mut self.net
    }

    fn mac(&self) -> [u8; 6] {
        self.net.mac()
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn seed(&mut self) -> u64 {
        unikernel_boot::random()
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn wait(&mut self, until: Option<Instant>) {
        // Interrupts stay off but for the sleep itself, so that none falls between the look and the sleep.
        self.net.acknowledge();
        if self.net.has_frame() {
            return;
        }
        let now = self.clock.now().total_micros();
        let nanoseconds = until.map(|until| until.total_micros().saturating_sub(now).saturating_mul(1000));
        interrupts::sleep(nanoseconds);
        self.net.acknowledge();
    }

    fn say(&mut self, line: &str) {
        serial::print(line);
        serial::print("\n");
    }

    fn disk_length(&self) -> Option<u64> {
        self.disk.as_ref().map(Disk::length)
    }

    fn read_disk(&mut self, offset: u64, out: &mut [u8]) -> usize {
        self.disk.as_mut().map_or(0, |disk| disk.read(offset, out))
    }
}

/// Where the boot code hands over.
#[unsafe(no_mangle)]
fn unikernel_main(boot: &Boot) -> ! {
    // SAFETY: this memory is the machine's, behind the image, and nobody else claims it.
    let heap = unsafe { HEAP.lock().claim(boot.heap_start as *mut u8, boot.heap_size) };
    if heap.is_none() {
        fail("no memory to start with");
    }
    let settings = match Settings::parse(boot.command_line()) {
        Ok(settings) => settings,
        Err(error) => fail(&error.to_string()),
    };
    interrupts::start();
    let clock = Clock::start();
    let Some(net) = Net::find(boot.command_line()) else { fail("no network device") };
    let disk = Disk::find(boot.command_line());
    serve(&mut Machine { net, disk, clock, memory: boot.heap_size }, &settings)
}

/// Says why and ends the machine.
fn fail(why: &str) -> ! {
    serial::print(why);
    serial::print("\n");
    unikernel_boot::reset()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    serial::print("panic: ");
    fail(info.message().as_str().unwrap_or("(no words)"))
}
