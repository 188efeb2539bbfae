//! The reference unikernel as a Xen guest, PV or PVH: everything by hypercalls, rings and the store, no device emulated.

#![no_std]
#![no_main]

extern crate alloc;

mod console;
mod events;
mod grants;
mod hypercall;
mod net;
mod page;
mod pv;
mod ring;
mod start_info;
mod store;

use alloc::string::String;
use core::fmt::{Display, Write};
use core::panic::PanicInfo;

use smoltcp::time::Instant;
use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::Manual;
use unikernel_boot::Boot;
use unikernel_core::{Platform, Settings, serve};

use console::Console;
use hypercall::End;
use net::Net;
use store::{Store, StoreError};

#[global_allocator]
static HEAP: TalcLock<RawSpinlock, Manual> = TalcLock::new(Manual);

/// Where the toolstack asks for the domain's end.
const CONTROL: &str = "control/shutdown";
/// A guest that was started in advance has this word on its command line. It says in the store that it is there, and
/// sleeps until it finds its words in the other entry.
const AWAIT: &str = "await";
const AWAITS: &str = "data/awaits";
const ARGUMENTS: &str = "data/arguments";

struct Machine {
    net: Net,
    store: Store,
    /// The hypervisor's time at the start, in nanoseconds.
    start: u64,
    memory: usize,
}

impl Machine {
    /// Ends the domain where the toolstack wishes that. An answer in the store tells that it was heard.
    fn obey(&mut self) -> Result<(), StoreError> {
        // Until nothing more is there: a watch may fire while the value is read, and its event is taken then.
        while self.store.has_fired()? {
            let end = match self.store.read(CONTROL)?.as_deref() {
                Some("poweroff" | "halt") => End::Off,
                Some("reboot") => End::Reboot,
                _ => continue,
            };
            self.store.write(&[(CONTROL, "")])?;
            hypercall::end(end);
        }
        Ok(())
    }
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
        Instant::from_micros((events::now().saturating_sub(self.start) / 1000) as i64)
    }

    fn seed(&mut self) -> u64 {
        unikernel_boot::random()
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn wait(&mut self, until: Option<Instant>) {
        // Events are taken before the look at what they tell of: one that comes behind it ends the sleep at once.
        events::take(self.store.port());
        if let Err(error) = self.obey() {
            fail(&error);
        }
        if !self.net.arm() {
            return;
        }
        let until = until.map_or(0, |until| self.start + until.total_micros().max(0) as u64 * 1000);
        hypercall::poll(&[self.net.port(), self.store.port()], until);
    }

    fn say(&mut self, line: &str) {
        // It never fails.
        let _ = writeln!(Console, "{line}");
    }
}

/// Where the boot code hands over.
#[unsafe(no_mangle)]
fn unikernel_main(boot: &Boot) -> ! {
    if !hypercall::start() {
        // Nobody would hear why.
        unikernel_boot::reset();
    }
    run(boot)
}

/// The same for both kinds of guests.
fn run(boot: &Boot) -> ! {
    // Without a console it says nothing and serves all the same.
    let _ = console::start();
    // SAFETY: this memory is the machine's, behind the image, and nobody else claims it.
    let heap = unsafe { HEAP.lock().claim(boot.heap_start as *mut u8, boot.heap_size) };
    if heap.is_none() {
        fail(&"no memory to start with");
    }
    if let Err(hypercall::Refused(errno)) = events::start() {
        fail(&format_args!("the hypervisor shares no page ({errno})"));
    }
    let mut store = Store::find().unwrap_or_else(|error| fail(&error));
    let mut line = String::from(boot.command_line());
    if line.split_ascii_whitespace().any(|word| word == AWAIT) {
        line = told(&mut store).unwrap_or_else(|error| fail(&error));
    }
    let settings = Settings::parse(&line).unwrap_or_else(|error| fail(&error));
    let start = events::now();
    let net = Net::connect(&mut store).unwrap_or_else(|error| fail(&error));
    if let Err(error) = store.watch(CONTROL) {
        fail(&error);
    }
    serve(&mut Machine { net, store, start, memory: boot.heap_size }, &settings)
}

/// Sleeps until the toolstack says what this guest is for.
fn told(store: &mut Store) -> Result<String, StoreError> {
    store.watch(ARGUMENTS)?;
    store.write(&[(AWAITS, ARGUMENTS)])?;
    loop {
        store.wait()?;
        if let Some(words) = store.read(ARGUMENTS)? {
            return Ok(words);
        }
    }
}

/// Says why, and ends the domain as one that has crashed.
fn fail(why: &dyn Display) -> ! {
    let _ = writeln!(Console, "{why}");
    hypercall::end(End::Crash)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fail(&format_args!("panic: {}", info.message()))
}
